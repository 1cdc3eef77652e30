//! The sticky cookie: a token that names a server without showing its address. The token *is* a
//! keyed MAC over the pool's name and the server's address as written, so every node that has the
//! key and the file makes the same tokens, and nothing is shared between them. All tokens of a pool
//! are made when the pool is: a request costs one look-up and no cryptography.
//!
//! The look-up is not constant-time and need not be. A token is not compared with a secret byte by
//! byte: it is hashed (with a per-process key) and then found or not. What timing could tell is
//! whether a guessed 128-bit MAC exists, and the answer to the request tells that anyway.

use std::collections::HashMap;
use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Headers;

/// What the `Set-Cookie` line says beside name and token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes<'a> {
    pub path: &'a str,
    pub domain: Option<&'a str>,
    pub secure: bool,
    pub http_only: bool,
    /// `Strict`, `Lax` or `None`, as it goes on the line.
    pub same_site: Option<&'a str>,
    /// Seconds.
    pub max_age: Option<u64>,
}

/// Tokens of one pool, both ways. Members are indices into the pool's servers.
pub struct Cookie {
    name: String,
    members: HashMap<[u8; TOKEN_BYTES], usize>,
    /// `Set-Cookie` values, by member.
    lines: Vec<Box<str>>,
}

impl Cookie {
    /// Makes the tokens of a pool. `servers` are the addresses as written, in the pool's order.
    pub fn new<'s>(
        name: &str,
        attributes: &Attributes<'_>,
        key: &[u8],
        pool: &str,
        servers: impl IntoIterator<Item = &'s str>,
    ) -> Cookie {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let mut cookie =
            Cookie { name: name.to_owned(), members: HashMap::new(), lines: Vec::new() };
        for (member, server) in servers.into_iter().enumerate() {
            let token = token(&key, pool, server);
            cookie.lines.push(line(name, &token, attributes).into_boxed_str());
            cookie.members.insert(token, member);
        }
        cookie
    }

    /// The value of the `Set-Cookie` field that ties a client to this member.
    pub fn set_cookie_header(&self, member: usize) -> Option<&str> {
        self.lines.get(member).map(AsRef::as_ref)
    }

    /// The member a request's cookies name. Forged, stale and unknown tokens name no member.
    pub fn find(&self, headers: &impl Headers) -> Option<usize> {
        headers
            .values("cookie")
            .flat_map(|line| values(line, self.name.as_bytes()))
            .find_map(|value| self.member(value))
    }

    /// The member a token names.
    pub fn member(&self, token: &[u8]) -> Option<usize> {
        let token: &[u8; TOKEN_BYTES] = token.try_into().ok()?;
        self.members.get(token).copied()
    }
}

/// Tokens are bearer names: a client that shows one is sent to that server, so none is printed.
impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, members) = (&self.name, self.lines.len());
        f.debug_struct("Cookie").field("name", name).field("members", &members).finish()
    }
}

/// Values of every cookie of this name on a `Cookie` line. Pairs without `=`, blanks and quotes
/// around a value are put up with; names are compared exactly.
fn values<'a>(line: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    line.split(|byte| *byte == b';').filter_map(move |pair| {
        let split = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (pair[..split].trim_ascii(), pair[split + 1..].trim_ascii());
        let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        (key == name).then_some(bare.unwrap_or(value))
    })
}

fn token(key: &hmac::Key, pool: &str, server: &str) -> [u8; TOKEN_BYTES] {
    let mut mac = hmac::Context::with_key(key);
    mac.update(b"standpipe sticky 1\0");
    // A length before each part: no two pairs of names run together into the same bytes.
    for part in [pool, server] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part.as_bytes());
    }
    let tag = mac.sign();
    let mut token = [0; TOKEN_BYTES];
    let written = URL_SAFE_NO_PAD.encode_slice(&tag.as_ref()[..MAC_BYTES], &mut token);
    debug_assert_eq!(written.ok(), Some(TOKEN_BYTES));
    token
}

fn line(name: &str, token: &[u8; TOKEN_BYTES], attributes: &Attributes<'_>) -> String {
    let mut line = format!("{name}={}", String::from_utf8_lossy(token));
    line.push_str("; Path=");
    line.push_str(attributes.path);
    if let Some(domain) = attributes.domain {
        line.push_str("; Domain=");
        line.push_str(domain);
    }
    if let Some(seconds) = attributes.max_age {
        line.push_str(&format!("; Max-Age={seconds}"));
    }
    if attributes.secure {
        line.push_str("; Secure");
    }
    if attributes.http_only {
        line.push_str("; HttpOnly");
    }
    if let Some(same_site) = attributes.same_site {
        line.push_str("; SameSite=");
        line.push_str(same_site);
    }
    line
}

/// 128 bits: no client guesses one, and the header stays short.
const MAC_BYTES: usize = 16;
/// The same in base64url without padding.
const TOKEN_BYTES: usize = (MAC_BYTES * 8).div_ceil(6);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &[u8] = b"0123456789abcdef";
    const SERVERS: [&str; 3] = ["10.0.0.1:9000", "10.0.0.2:9000", "unix:/run/c.sock"];

    struct Lines<'a>(&'a [&'a str]);

    impl Headers for Lines<'_> {
        fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
            let wanted = name.eq_ignore_ascii_case("cookie");
            self.0.iter().filter(move |_| wanted).map(|line| line.as_bytes())
        }
    }

    fn cookie(key: &[u8], pool: &str) -> Cookie {
        let attributes = Attributes { path: "/", http_only: true, ..Attributes::default() };
        Cookie::new("sp", &attributes, key, pool, SERVERS)
    }

    fn pair(cookie: &Cookie, member: usize) -> String {
        let line = cookie.set_cookie_header(member).unwrap_or_default();
        line.split(';').next().unwrap_or_default().to_owned()
    }

    #[test]
    fn a_client_comes_back_to_its_server() {
        let cookie = cookie(KEY, "chat");
        for member in 0..SERVERS.len() {
            let sent = pair(&cookie, member);
            assert_eq!(cookie.find(&Lines(&[&sent])), Some(member));
            for server in SERVERS {
                assert!(!sent.contains(server));
            }
        }
        assert_eq!(cookie.set_cookie_header(3), None);
    }

    #[test]
    fn a_fleet_agrees_and_a_stranger_does_not() {
        let here = cookie(KEY, "chat");
        assert_eq!(pair(&here, 0), pair(&cookie(KEY, "chat"), 0));
        for other in [cookie(b"another key of 16", "chat"), cookie(KEY, "live")] {
            let sent = pair(&other, 0);
            assert_eq!(here.find(&Lines(&[&sent])), None);
        }
        // Pinned: nodes of different versions serve one fleet.
        assert_eq!(pair(&here, 0), "sp=8g0DbsZ9maPs-p6j4n31Eg");
    }

    #[test]
    fn our_cookie_is_found_among_others() {
        let cookie = cookie(KEY, "chat");
        let ours = pair(&cookie, 1);
        let token = ours.strip_prefix("sp=").unwrap_or_default();
        for lines in [
            vec![format!("a=b; {ours}; c=d")],
            vec![format!("a=b;{ours}")],
            vec!["a=b".to_owned(), ours.clone()],
            vec![format!("sp=forged; {ours}")],
            vec![format!("sp = \"{token}\" ")],
            vec![format!("flag; =x; ;; {ours}")],
        ] {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            assert_eq!(cookie.find(&Lines(&lines)), Some(1), "{lines:?}");
        }
        let strange = [
            format!("SP={token}"),
            format!("xsp={token}"),
            format!("sp={token}x"),
            format!("sp=\"{token}"),
            "sp".to_owned(),
            "sp=".to_owned(),
            String::new(),
        ];
        for line in &strange {
            assert_eq!(cookie.find(&Lines(&[line])), None, "{line}");
        }
    }

    #[test]
    fn the_line_says_what_was_asked_for() {
        let attributes = Attributes {
            path: "/chat",
            domain: Some("example.org"),
            secure: true,
            http_only: true,
            same_site: Some("None"),
            max_age: Some(3600),
        };
        let cookie = Cookie::new("sp", &attributes, KEY, "chat", SERVERS);
        let line = cookie.set_cookie_header(0).unwrap_or_default();
        let (_, rest) = line.split_once("; ").unwrap_or_default();
        assert_eq!(
            rest,
            "Path=/chat; Domain=example.org; Max-Age=3600; Secure; HttpOnly; SameSite=None"
        );
    }

    #[test]
    fn nothing_secret_is_printed() {
        assert_eq!(format!("{:?}", cookie(KEY, "chat")), "Cookie { name: \"sp\", members: 3 }");
    }

    proptest! {
        #[test]
        fn no_line_panics_or_matches_by_chance(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let cookie = cookie(KEY, "chat");
            prop_assert!(values(&line, b"sp").all(|value| cookie.member(value).is_none()));
        }
    }
}
