//! Field names that mean something between two hops: what ends here, what frames a message, and
//! what one hop tells the next about the client. Servers behind a CGI-like interface cannot tell
//! `_` from `-`, so neither is told apart here.

/// Fields that end at this hop whether Connection nominates them or not. Transfer-Encoding is not
/// among them: a chunked body goes on as it came.
const HOP_BY_HOP: [&str; 6] =
    ["connection", "keep-alive", "proxy-connection", "te", "upgrade", "http2-settings"];

/// Where a message goes, and where it ends.
const FRAMING: [&str; 3] = ["host", "content-length", "transfer-encoding"];

/// What this hop says of the client and of the request, beside all of `X-Forwarded-`.
const TOLD: [&str; 3] = ["forwarded", "x-real-ip", "x-request-id"];
const TOLD_PREFIX: &str = "x-forwarded-";
/// Of those the ones that tell of the client, or of what it asked for. (Others tell of its
/// certificate: `X-Forwarded-Client-Cert`, `X-Forwarded-Tls-Client-Cert-Info`.)
const FORWARDED: [&str; 7] = [
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-forwarded-prefix",
    "x-forwarded-by",
];
const HANDSHAKE_PREFIX: &str = "sec-websocket-";

/// What a server goes by before it has read a body (RFC 9110 §6.5.1), beside all the above.
const HEAD_ONLY: [&str; 10] = [
    "authorization",
    "content-encoding",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "max-forwards",
    "proxy-authorization",
    "range",
    "trailer",
];

pub fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.iter().any(|known| name.eq_ignore_ascii_case(known))
}

pub fn is_framing(name: &str) -> bool {
    FRAMING.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// A name with `_` for `-` that would mean something between hops if it were written right.
pub fn is_disguised(name: &str) -> bool {
    let told = || name.get(..TOLD_PREFIX.len()).is_some_and(|start| is_same(start, TOLD_PREFIX));
    let mut known = HOP_BY_HOP.iter().chain(&FRAMING).chain(&TOLD);
    name.contains('_') && (told() || known.any(|known| is_same(known, name)))
}

/// A name that already says something to this hop or to the server, all of the WebSocket handshake
/// included: nothing else may be told under it.
pub fn is_taken(name: &str) -> bool {
    let begins = |with: &str| name.get(..with.len()).is_some_and(|start| is_same(start, with));
    let lists = [&HOP_BY_HOP[..], &FRAMING, &TOLD, &FORWARDED, &HEAD_ONLY];
    begins(HANDSHAKE_PREFIX)
        || lists.iter().any(|names| names.iter().any(|known| is_same(known, name)))
}

/// The same name to a server that cannot tell `_` from `-`.
pub fn is_same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().map(fold).eq(b.bytes().map(fold))
}

const fn fold(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

/// A name that is read byte by byte and not kept: 64 bits of it (FNV-1a). Two names may share
/// them: with such a pair a client achieves no more than that an honest name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name(u64);

impl Name {
    pub const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    pub const fn of(name: &str) -> Self {
        let (bytes, mut at, mut whole) = (name.as_bytes(), 0, Self::EMPTY);
        while at < bytes.len() {
            whole = whole.then(bytes[at]);
            at += 1;
        }
        whole
    }

    /// The name with one more byte.
    #[must_use]
    pub const fn then(self, byte: u8) -> Self {
        Self((self.0 ^ fold(byte) as u64).wrapping_mul(0x0000_0100_0000_01b3))
    }

    /// Whether a field of this name has no place behind a body. A longer name may have one, unless
    /// it begins with `X-Forwarded-`.
    pub fn is_head_only(self) -> bool {
        [&HOP_BY_HOP[..], &FRAMING, &TOLD, &HEAD_ONLY]
            .iter()
            .any(|names| names.iter().any(|name| Self::of(name) == self))
    }

    /// Whether all that was read so far is `X-Forwarded-`.
    pub fn begins_told(self) -> bool {
        const PREFIX: Name = Name::of(TOLD_PREFIX);
        self == PREFIX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disguise_is_an_underscore_in_a_name_that_matters() {
        for name in [
            "Content_Length",
            "TRANSFER_ENCODING",
            "x_forwarded_for",
            "X-Forwarded_Anything",
            "X_Real_IP",
            "X_Request-Id",
            "keep_alive",
        ] {
            assert!(is_disguised(name), "{name}");
        }
        for name in ["Content-Length", "X-Forwarded-For", "my_header", "x_forwarded", "_", "é_"] {
            assert!(!is_disguised(name), "{name}");
        }
    }

    #[test]
    fn names_that_say_something_already_are_taken() {
        for name in [
            "Sec-WebSocket-Key",
            "sec_websocket_anything",
            "X_Forwarded-For",
            "X-Real-IP",
            "Forwarded",
            "X-Request-Id",
            "Keep-Alive",
            "HTTP2-Settings",
            "Content_Length",
            "Cookie",
        ] {
            assert!(is_taken(name), "{name}");
        }
        let own = ["X-Client-Subject", "X-Forwarded-Client-Cert", "X-Forwarded", "Sec-WebSocket"];
        for name in own.into_iter().chain(["X", ""]) {
            assert!(!is_taken(name), "{name}");
        }
    }

    #[test]
    fn what_belongs_in_the_head_is_known_behind_a_body_too() {
        for name in ["Content-Length", "HOST", "Te", "x-real-ip", "Cookie", "content_type"] {
            assert!(Name::of(name).is_head_only(), "{name}");
        }
        for name in ["", "X-Sum", "Server-Timing", "Digest", "Hosts", "Hos"] {
            assert!(!Name::of(name).is_head_only(), "{name}");
        }
        assert!(Name::of("X_FORWARDED-").begins_told());
        assert!(!Name::of("X-Forwarded").begins_told());
    }
}
