//! Field lines and the lists of tokens in them. Names compare without case; values are bytes.

use super::names::Name;

/// One field line; the value without the blanks around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    pub name: &'a str,
    pub value: &'a [u8],
}

impl Field<'_> {
    #[inline]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// The values of every line called `name`, in order.
pub fn values<'a, 'f>(
    fields: &'f [Field<'a>],
    name: &'f str,
) -> impl Iterator<Item = &'a [u8]> + 'f {
    fields.iter().filter(move |field| field.is(name)).map(|field| field.value)
}

/// The elements of the comma-separated list that all lines called `name` make together. Empty
/// elements are left out, as every recipient must (RFC 9110 §5.6.1).
pub fn elements<'a, 'f>(
    fields: &'f [Field<'a>],
    name: &'f str,
) -> impl Iterator<Item = &'a [u8]> + 'f {
    values(fields, name)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(trim)
        .filter(|element| !element.is_empty())
}

/// The elements of Connection: options of it, and names of fields that end at this hop. They are
/// taken apart once for each head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nominated<'a>(Vec<&'a [u8]>);

impl<'a> Nominated<'a> {
    /// Takes them apart; `None`: there are more than `most`, empty ones counted.
    pub fn read(fields: &[Field<'a>], most: usize) -> Option<Self> {
        let lines = values(fields, "connection");
        let mut all = lines.flat_map(|value| value.split(|byte| *byte == b','));
        let found = all.by_ref().take(most).map(trim).filter(|element| !element.is_empty());
        let found = found.collect();
        all.next().is_none().then_some(Self(found))
    }

    /// All of them, as the names that trailers are compared with.
    pub fn names(&self) -> impl Iterator<Item = Name> {
        self.0.iter().map(|name| name.iter().fold(Name::EMPTY, |whole, byte| whole.then(*byte)))
    }

    /// Is `name` one of them?
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|element| element.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// Is `token` an element of the list called `name`?
pub fn has_token(fields: &[Field<'_>], name: &str, token: &str) -> bool {
    elements(fields, name).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
}

/// The only line called `name`: `Ok(None)` without one, `Err` with several.
pub fn only<'a>(fields: &[Field<'a>], name: &str) -> Result<Option<&'a [u8]>, Repeated> {
    let mut found = fields.iter().filter(|field| field.is(name));
    let first = found.next();
    match found.next() {
        Some(_) => Err(Repeated),
        None => Ok(first.map(|field| field.value)),
    }
}

/// More than one line where one at most makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeated;

/// Without blanks and tabs around it.
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// A token character (RFC 9110 §5.6.2).
#[inline]
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A whole, non-empty token.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_elements_of_connection_count_too() {
        let of = |lines: &[&'static str], most| {
            let field = |line: &&'static str| Field { name: "Connection", value: line.as_bytes() };
            let fields: Vec<_> = lines.iter().map(field).collect();
            Nominated::read(&fields, most)
        };
        let found = of(&["close, ,X-Hop", "te"], 4).expect("four elements");
        assert!(found.has("x-hop") && found.has("TE") && found.has("close") && !found.has(""));
        assert!(found.names().eq(["Close", "x_hop", "TE"].map(Name::of)));
        assert_eq!(of(&["close, ,X-Hop", "te"], 3), None);
        assert_eq!(of(&[",,,"], 3), None);
        assert_eq!(of(&[], 0), Some(Nominated::default()));
    }

    #[test]
    fn lists_span_lines_and_skip_empty_elements() {
        let fields = [
            Field { name: "Connection", value: b"keep-alive,, Upgrade" },
            Field { name: "X", value: b"close" },
            Field { name: "CONNECTION", value: b"\tfoo ," },
        ];
        let found: Vec<_> = elements(&fields, "connection").collect();
        assert_eq!(found, [&b"keep-alive"[..], b"Upgrade", b"foo"]);
        assert!(has_token(&fields, "connection", "upgrade"));
        assert!(!has_token(&fields, "connection", "close"));
        assert_eq!(only(&fields, "connection"), Err(Repeated));
        assert_eq!(only(&fields, "x"), Ok(Some(&b"close"[..])));
        assert_eq!(only(&fields, "y"), Ok(None));
    }
}
