//! Host names as they are compared: without port and last dot, in lower case, IPv6 in one spelling.

use std::io::Write;
use std::net::Ipv6Addr;

use super::Refusal;

/// Room for the longest DNS name, and for any IPv6 literal.
pub const LENGTH_MAX: usize = 255;

/// Brings a `Host` field into the form routes are kept in. An empty field stays empty.
pub fn fold<'b>(host: &[u8], space: &'b mut [u8; LENGTH_MAX]) -> Result<&'b [u8], Refusal> {
    if host.starts_with(b"[") {
        return fold_ipv6(host, space);
    }
    let name = match host.iter().position(|byte| *byte == b':') {
        Some(colon) if is_port(&host[colon + 1..]) => &host[..colon],
        Some(_) => return Err(Refusal::Host),
        None => host,
    };
    let name = name.strip_suffix(b".").unwrap_or(name);
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    if name.len() > LENGTH_MAX || !name.iter().all(allowed) || (name.is_empty() && !host.is_empty())
    {
        return Err(Refusal::Host);
    }
    let folded = &mut space[..name.len()];
    folded.copy_from_slice(name);
    folded.make_ascii_lowercase();
    Ok(folded)
}

fn fold_ipv6<'b>(host: &[u8], space: &'b mut [u8; LENGTH_MAX]) -> Result<&'b [u8], Refusal> {
    let close = host.iter().position(|byte| *byte == b']').ok_or(Refusal::Host)?;
    let port = &host[close + 1..];
    if !port.is_empty() && !port.strip_prefix(b":").is_some_and(is_port) {
        return Err(Refusal::Host);
    }
    let text = std::str::from_utf8(&host[1..close]).map_err(|_| Refusal::Host)?;
    let address: Ipv6Addr = text.parse().map_err(|_| Refusal::Host)?;
    let mut rest = &mut space[..];
    // A literal is at most 47 bytes, so the space cannot run out.
    write!(rest, "[{address}]").map_err(|_| Refusal::Host)?;
    let left = rest.len();
    Ok(&space[..LENGTH_MAX - left])
}

fn is_port(text: &[u8]) -> bool {
    text.len() <= 5 && text.iter().all(u8::is_ascii_digit)
}

/// What is left of a name after each of its labels, longest first: `b.c`, `c` for `a.b.c`.
pub fn suffixes(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let dots = name.iter().enumerate().filter(|(_, byte)| **byte == b'.');
    dots.map(|(at, _)| &name[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_has_one_spelling() {
        for (received, folded) in [
            ("chat.example.org", Ok("chat.example.org")),
            ("Chat.Example.ORG:8443", Ok("chat.example.org")),
            ("chat.example.org.", Ok("chat.example.org")),
            ("chat.example.org.:80", Ok("chat.example.org")),
            ("chat.example.org:", Ok("chat.example.org")),
            ("10.0.0.1:80", Ok("10.0.0.1")),
            ("[2001:DB8::1]:443", Ok("[2001:db8::1]")),
            ("[2001:db8:0:0:0:0:0:1]", Ok("[2001:db8::1]")),
            ("[::ffff:10.0.0.1]", Ok("[::ffff:10.0.0.1]")),
            ("", Ok("")),
            (".", Err(Refusal::Host)),
            (":80", Err(Refusal::Host)),
            ("a:b", Err(Refusal::Host)),
            ("a:80:80", Err(Refusal::Host)),
            ("a:123456", Err(Refusal::Host)),
            ("a@b", Err(Refusal::Host)),
            ("a/b", Err(Refusal::Host)),
            ("a b", Err(Refusal::Host)),
            ("[::1", Err(Refusal::Host)),
            ("[::1]x", Err(Refusal::Host)),
            ("[fe80::1%eth0]", Err(Refusal::Host)),
            ("[1.2.3.4]", Err(Refusal::Host)),
        ] {
            let mut space = [0; LENGTH_MAX];
            let got = fold(received.as_bytes(), &mut space);
            assert_eq!(got, folded.map(str::as_bytes), "{received}");
        }
        assert_eq!(fold(&[b'a'; 256], &mut [0; LENGTH_MAX]), Err(Refusal::Host));
    }

    #[test]
    fn suffixes_come_longest_first() {
        let all: Vec<&[u8]> = suffixes(b"a.b.c").collect();
        assert_eq!(all, [b"b.c".as_slice(), b"c"]);
    }
}
