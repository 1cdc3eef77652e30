//! Which pages may open a WebSocket: the `Origin` allow-list.

/// A route's allow-list. An origin passes when scheme, host and port are those of an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    null: bool,
    missing: bool,
    listed: Vec<Origin>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origins {
    /// Adds `scheme://host[:port]`, `null` (sandboxed pages, files) or `missing` (programs that
    /// send no `Origin`). An error says what is allowed.
    pub fn allow(&mut self, written: &str) -> Result<(), &'static str> {
        match written {
            "null" => self.null = true,
            "missing" => self.missing = true,
            _ => {
                let (scheme, host, port) = split(written.as_bytes()).ok_or(ALLOWED)?;
                let text = |part: &[u8]| String::from_utf8_lossy(part).to_ascii_lowercase();
                self.listed.push(Origin { scheme: text(scheme), host: text(host), port });
            }
        }
        Ok(())
    }

    /// May a request with this `Origin` field pass?
    pub fn pass(&self, origin: Option<&[u8]>) -> bool {
        match origin {
            None => self.missing,
            Some(b"null") => self.null,
            Some(origin) => split(origin).is_some_and(|(scheme, host, port)| {
                self.listed.iter().any(|entry| {
                    scheme.eq_ignore_ascii_case(entry.scheme.as_bytes())
                        && host.eq_ignore_ascii_case(entry.host.as_bytes())
                        && port == entry.port
                })
            }),
        }
    }

    /// The list as it is written in a file.
    pub fn written(&self) -> impl Iterator<Item = String> {
        let word = |set: bool, word: &str| set.then(|| word.to_owned());
        let listed = self.listed.iter().map(|Origin { scheme, host, port }| match port {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        });
        word(self.null, "null").into_iter().chain(word(self.missing, "missing")).chain(listed)
    }
}

/// Scheme, host, and the port unless it is the scheme's own.
fn split(origin: &[u8]) -> Option<(&[u8], &[u8], Option<u16>)> {
    let mark = origin.windows(3).position(|window| window == b"://")?;
    let (scheme, rest) = (&origin[..mark], &origin[mark + 3..]);
    let after_literal = rest.iter().rposition(|byte| *byte == b']').map_or(0, |at| at + 1);
    let colon = rest[after_literal..].iter().position(|byte| *byte == b':');
    let (host, port) = match colon.map(|at| after_literal + at) {
        Some(at) => (&rest[..at], Some(port(&rest[at + 1..])?)),
        None => (rest, None),
    };
    let in_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    let in_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.[]:".contains(byte);
    if scheme.is_empty() || host.is_empty() {
        return None;
    }
    if !scheme.iter().all(in_scheme) || !host.iter().all(in_host) {
        return None;
    }
    let own = own_port(scheme);
    Some((scheme, host, port.filter(|port| Some(*port) != own)))
}

fn port(digits: &[u8]) -> Option<u16> {
    let number = std::str::from_utf8(digits).ok()?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok()).flatten()
}

fn own_port(scheme: &[u8]) -> Option<u16> {
    if scheme.eq_ignore_ascii_case(b"https") || scheme.eq_ignore_ascii_case(b"wss") {
        return Some(443);
    }
    (scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"ws")).then_some(80)
}

const ALLOWED: &str = "write \"https://host\" or \"https://host:port\" without a path, \"null\" \
                       for sandboxed pages, \"missing\" for programs that send none";

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> Origins {
        let mut origins = Origins::default();
        for entry in entries {
            assert_eq!(origins.allow(entry), Ok(()), "{entry}");
        }
        origins
    }

    #[test]
    fn only_the_exact_origin_passes() {
        let origins = list(&["https://App.example.org", "http://localhost:3000", "app://-"]);
        for (origin, pass) in [
            ("https://app.example.org", true),
            ("HTTPS://APP.EXAMPLE.ORG", true),
            ("https://app.example.org:443", true),
            ("https://app.example.org:444", false),
            ("http://app.example.org", false),
            ("https://app.example.org.evil.example", false),
            ("https://evil.example/https://app.example.org", false),
            ("https://x.app.example.org", false),
            ("https://app.example.org/", false),
            ("https://user@app.example.org", false),
            ("http://localhost:3000", true),
            ("http://localhost", false),
            ("http://localhost:+3000", false),
            ("app://-", true),
            ("", false),
            ("null", false),
            ("://", false),
        ] {
            assert_eq!(origins.pass(Some(origin.as_bytes())), pass, "{origin}");
        }
        assert!(!origins.pass(None));
    }

    #[test]
    fn null_and_missing_pass_only_when_listed() {
        assert!(list(&["null"]).pass(Some(b"null")));
        assert!(!list(&["null"]).pass(None));
        assert!(list(&["missing"]).pass(None));
        assert!(!list(&["missing"]).pass(Some(b"null")));
    }

    #[test]
    fn an_entry_that_could_never_match_is_refused() {
        for entry in ["", "*", "example.org", "https://", "https://a/b", "https://a:x", "a b://c"] {
            assert!(Origins::default().allow(entry).is_err(), "{entry}");
        }
    }

    #[test]
    fn an_ipv6_host_keeps_its_brackets() {
        let origins = list(&["http://[::1]:8080"]);
        assert!(origins.pass(Some(b"http://[::1]:8080")));
        assert!(!origins.pass(Some(b"http://[::1]")));
        assert_eq!(origins.written().collect::<Vec<_>>(), ["http://[::1]:8080"]);
    }
}
