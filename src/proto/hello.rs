//! The first bytes of a connection: TLS, plain HTTP, or neither? Only so that a client that speaks
//! the wrong one gets a clear answer; nothing of a ClientHello is parsed here.

/// What a connection opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// A TLS handshake record.
    Tls,
    /// A request line: an upper-case method and a space.
    Http,
    Other,
}

/// Longest method recognised.
const METHOD_MAX: usize = 16;

/// `None`: too few bytes to tell. At most 17 are looked at.
pub fn sniff(bytes: &[u8]) -> Option<First> {
    match bytes {
        [] | [0x16] => None,
        [0x16, 0x03, ..] => Some(First::Tls),
        _ => {
            let method = bytes.iter().take_while(|b| b.is_ascii_uppercase() || **b == b'-').count();
            match bytes.get(method) {
                Some(b' ') if (3..=METHOD_MAX).contains(&method) => Some(First::Http),
                None if method <= METHOD_MAX => None,
                _ => Some(First::Other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_three_apart_at_every_cut() {
        for (bytes, first) in [
            (&b"\x16\x03\x01\x02\x00\x01"[..], First::Tls),
            (b"GET / HTTP/1.1\r\n", First::Http),
            (b"OPTIONS * HTTP/1.1\r\n", First::Http),
            (b"\x16\x04", First::Other),
            (b"SSH-2.0-OpenSSH_9.2\r\n", First::Other),
            (b"\x00\x00", First::Other),
            (b"AAAAAAAAAAAAAAAAAAAAAAAA", First::Other),
            (b" /", First::Other),
        ] {
            assert_eq!(sniff(bytes), Some(first), "{bytes:?}");
            for cut in 0..bytes.len() {
                let early = sniff(&bytes[..cut]);
                assert!(early.is_none() || early == Some(first), "{bytes:?} at {cut}");
            }
        }
        assert_eq!(sniff(b"HELO"), None);
    }
}
