//! Query parameters, compared and hashed as a form decoder would read them, without building them.

use super::target::hex_pair;

/// The value of the first parameter of this name, decoded byte by byte. Servers that see a name
/// twice mostly take the first as well.
pub fn first<'a>(query: &'a [u8], name: &str) -> Option<impl Iterator<Item = u8> + 'a> {
    let pair = query.split(|byte| *byte == b'&').find_map(|pair| {
        let split = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let (key, value) = pair.split_at(split);
        decode(key).eq(name.bytes()).then(|| value.strip_prefix(b"=").unwrap_or(value))
    })?;
    Some(decode(pair))
}

/// `+` is a blank; a broken escape stands for itself.
fn decode(text: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (first, after) = rest.split_first()?;
        let escaped = if *first == b'%' { hex_pair(after) } else { None };
        rest = if escaped.is_some() { &after[2..] } else { after };
        Some(escaped.unwrap_or(if *first == b'+' { b' ' } else { *first }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_parameter_of_the_name_counts() {
        for (query, value) in [
            ("room=7", Some("7")),
            ("a=b&room=7&room=8", Some("7")),
            ("ro%6Fm=a%20b+c", Some("a b c")),
            ("room=a%2Bb", Some("a+b")),
            ("room", Some("")),
            ("room=", Some("")),
            ("room=a=b", Some("a=b")),
            ("room=%zz%", Some("%zz%")),
            ("rooms=1&xroom=2&&=", None),
            ("", None),
        ] {
            let got = first(query.as_bytes(), "room").map(Iterator::collect::<Vec<u8>>);
            assert_eq!(got.as_deref(), value.map(str::as_bytes), "{query}");
        }
    }
}
