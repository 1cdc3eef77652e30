//! Writes the head that goes on: hop-by-hop fields and what Connection nominates are dropped from
//! the copy that came in, then ours are added. Order and all other fields stay as they were, and
//! so do path and query: of an absolute target only they go on (RFC 9112 §3.2.1).

use std::borrow::Cow;

use super::fields::{self, Field, Nominated};
use super::names;
use super::{RequestHead, ResponseHead, Version};

/// What changes between the head that came and the head that goes.
#[derive(Debug, Clone, Default)]
pub struct Edits<'a> {
    remove: Vec<Cow<'a, str>>,
    add: Vec<(Cow<'a, str>, Cow<'a, [u8]>)>,
    pub connection: Connection,
    /// Written when the request has no Host of its own (HTTP/1.0): what goes on is 1.1.
    pub host: Option<Cow<'a, str>>,
}

/// The id, six fields of where it came from, two of a certificate, and one to spare.
const REQUEST_EDITS: usize = 10;

/// What the Connection field of the outgoing head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Connection {
    /// Nothing: HTTP/1.1 persists by itself.
    #[default]
    Silent,
    /// `keep-alive`, for an HTTP/1.0 client that asked for it.
    KeepAlive,
    Close,
    /// `Upgrade`, with `Upgrade: websocket` beside it.
    Upgrade,
}

impl<'a> Edits<'a> {
    pub fn new(connection: Connection) -> Self {
        Self { connection, ..Self::default() }
    }

    /// With room for what a request is told of its client.
    pub fn of_request(connection: Connection) -> Self {
        let (remove, add) = (Vec::with_capacity(REQUEST_EDITS), Vec::with_capacity(REQUEST_EDITS));
        Self { remove, add, connection, host: None }
    }

    /// Drops every incoming field of this name, also where `_` is written for `-`: servers behind
    /// a CGI-like interface cannot tell the two apart.
    pub fn remove(&mut self, name: impl Into<Cow<'a, str>>) {
        self.remove.push(name.into());
    }

    /// Adds a field after all that came in. A name or value that could not stand on one line is
    /// a mistake of the caller's; it is left out rather than sent.
    pub fn add(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, [u8]>>) {
        let (name, value) = (name.into(), value.into());
        let legal = fields::is_token(name.as_bytes())
            && !value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
        debug_assert!(legal, "{name}");
        if legal {
            self.add.push((name, value));
        }
    }

    /// Replaces whatever came under this name.
    pub fn set(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, [u8]>>) {
        let name = name.into();
        self.remove.push(name.clone());
        self.add(name, value);
    }
}

/// Appends the outgoing request head to `out`, as HTTP/1.1.
pub fn write_request(out: &mut Vec<u8>, head: &RequestHead<'_>, edits: &Edits<'_>) {
    let [slash, target] = head.origin_form().map(str::as_bytes);
    line(out, &[head.method.as_bytes(), b" ", slash, target, b" HTTP/1.1\r\n"]);
    if head.host.is_none_or(|_| !head.fields.iter().any(|field| field.is("host")))
        && let Some(host) = head.host.or(edits.host.as_deref())
    {
        line(out, &[b"Host: ", host.as_bytes(), b"\r\n"]);
    }
    rest(out, &head.fields, &head.nominated, edits);
}

/// Appends the outgoing response head to `out`, as HTTP/1.1.
pub fn write_response(out: &mut Vec<u8>, head: &ResponseHead<'_>, edits: &Edits<'_>) {
    let status = [head.status / 100, head.status / 10 % 10, head.status % 10]
        .map(|digit| b'0' + (digit % 10) as u8);
    line(out, &[b"HTTP/1.1 ", &status, b" ", head.reason.as_bytes(), b"\r\n"]);
    if head.status < 200 || head.status == 204 {
        // No body may follow these; a length some servers give them has made clients wait for one.
        let is_framing = |f: &&Field<'_>| f.is("content-length") || f.is("transfer-encoding");
        let fields: Vec<_> = head.fields.iter().filter(|f| !is_framing(f)).copied().collect();
        return rest(out, &fields, &head.nominated, edits);
    }
    rest(out, &head.fields, &head.nominated, edits);
}

/// What the next head towards this client should say, once it was decided to keep or to close.
pub fn towards_client(version: Version, keep: bool) -> Connection {
    match (keep, version) {
        (false, _) => Connection::Close,
        (true, Version::Http11) => Connection::Silent,
        (true, Version::Http10) => Connection::KeepAlive,
    }
}

fn rest(out: &mut Vec<u8>, came: &[Field<'_>], nominated: &Nominated<'_>, edits: &Edits<'_>) {
    for field in came {
        let drop = names::is_hop_by_hop(field.name)
            || names::is_disguised(field.name)
            || (nominated.has(field.name) && !is_kept(field.name))
            || edits.remove.iter().any(|name| names::is_same(name, field.name));
        if !drop {
            line(out, &[field.name.as_bytes(), b": ", field.value, b"\r\n"]);
        }
    }
    for (name, value) in &edits.add {
        line(out, &[name.as_bytes(), b": ", value, b"\r\n"]);
    }
    out.extend_from_slice(match edits.connection {
        Connection::Silent => b"\r\n",
        Connection::KeepAlive => b"Connection: keep-alive\r\n\r\n".as_slice(),
        Connection::Close => b"Connection: close\r\n\r\n",
        Connection::Upgrade => b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    });
}

fn line(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// What Connection cannot nominate away. Without framing or Host the next reader would see another
/// request than we did, and without the fields of a handshake another handshake.
fn is_kept(name: &str) -> bool {
    const HANDSHAKE: &str = "sec-websocket-";
    let start = name.get(..HANDSHAKE.len());
    names::is_framing(name) || start.is_some_and(|start| start.eq_ignore_ascii_case(HANDSHAKE))
}

#[cfg(test)]
mod tests {
    use super::super::{HeadLimits, parse_request, parse_response};
    use super::*;

    fn rewritten(head: &str, edits: &Edits<'_>) -> String {
        let head = parse_request(head.as_bytes(), &HeadLimits::default()).unwrap();
        let mut out = Vec::new();
        write_request(&mut out, &head, edits);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn hop_by_hop_goes_and_the_rest_stays_as_it_was() {
        let came = "GET /a%2e/../b?c=d HTTP/1.1\r\nhOsT: x\r\nX-One:  1 \r\n\
             Connection: close, X-Hop\r\nX-Hop: 2\r\nKeep-Alive: 5\r\nTE: trailers\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: AA\r\nx-one: 3\r\n\r\n";
        assert_eq!(
            rewritten(came, &Edits::default()),
            "GET /a%2e/../b?c=d HTTP/1.1\r\nhOsT: x\r\nX-One: 1\r\nx-one: 3\r\n\r\n"
        );
    }

    /// S10: nominating a header removes the client's copy, never ours, and never the framing.
    #[test]
    fn s10_connection_cannot_strip_what_the_proxy_adds() {
        let came = "POST / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: evil\r\nContent-Length: 3\r\n\
             Connection: X-Forwarded-For, Host, Content-Length\r\n\r\n";
        let mut edits = Edits::new(Connection::Close);
        edits.set("X-Forwarded-For", b"10.0.0.1".as_slice());
        assert_eq!(
            rewritten(came, &edits),
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nX-Forwarded-For: 10.0.0.1\r\n\
             Connection: close\r\n\r\n"
        );
    }

    #[test]
    fn an_underscore_smuggles_no_name_that_is_removed_or_means_something_to_a_hop() {
        let came = "GET / HTTP/1.1\r\nHost: x\r\nX_Subject: evil\r\nContent_Length: 5\r\n\
             Transfer_Encoding: chunked\r\nX_Forwarded_Host: evil\r\nmy_own: kept\r\n\r\n";
        let mut edits = Edits::default();
        edits.remove("X-Subject");
        assert_eq!(rewritten(came, &edits), "GET / HTTP/1.1\r\nHost: x\r\nmy_own: kept\r\n\r\n");
    }

    #[test]
    fn a_handshake_cannot_be_nominated_away() {
        let came = "GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: a\r\nsec-websocket-version: 13\r\n\
             Connection: Upgrade, Sec-WebSocket-Key, Sec-WebSocket-Version, X\r\nX: y\r\n\r\n";
        assert_eq!(
            rewritten(came, &Edits::new(Connection::Upgrade)),
            "GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: a\r\nsec-websocket-version: 13\r\n\
             Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        );
    }

    #[test]
    fn an_absolute_target_becomes_a_path_and_a_host() {
        assert_eq!(
            rewritten("GET http://a:80?b HTTP/1.0\r\n\r\n", &Edits::default()),
            "GET /?b HTTP/1.1\r\nHost: a:80\r\n\r\n"
        );
    }

    #[test]
    fn an_old_request_gets_a_host() {
        let edits = Edits { host: Some("10.0.0.1:80".into()), ..Edits::default() };
        assert_eq!(
            rewritten("GET / HTTP/1.0\r\n\r\n", &edits),
            "GET / HTTP/1.1\r\nHost: 10.0.0.1:80\r\n\r\n"
        );
    }

    #[test]
    fn a_204_promises_no_body() {
        let came = b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nA: b\r\n\r\n";
        let head = parse_response(came, &HeadLimits::default(), false).unwrap();
        let mut out = Vec::new();
        write_response(&mut out, &head, &Edits::new(Connection::Close));
        assert_eq!(out, b"HTTP/1.1 204 No Content\r\nA: b\r\nConnection: close\r\n\r\n");
    }

    /// RFC 9112 §5.1.
    #[test]
    fn a_blank_before_a_colon_does_not_go_on() {
        let came = b"HTTP/1.1 200 OK\r\nContent-Length : 3\r\nKeep-Alive\t: 5\r\nA  : b\r\n\r\n";
        let head = parse_response(came, &HeadLimits::default(), false).unwrap();
        let mut out = Vec::new();
        write_response(&mut out, &head, &Edits::default());
        assert_eq!(out, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nA: b\r\n\r\n");
    }

    #[test]
    fn responses_take_cookies_and_say_how_they_end() {
        let came =
            b"HTTP/1.0 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n\
             Sec-WebSocket-Accept: a\r\nSet-Cookie: a=b\r\n\r\n";
        let head = parse_response(came, &HeadLimits::default(), false).unwrap();
        let mut edits = Edits::new(Connection::Upgrade);
        edits.add("Set-Cookie", b"standpipe=1".as_slice());
        let mut out = Vec::new();
        write_response(&mut out, &head, &edits);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: a\r\nSet-Cookie: a=b\r\n\
             Set-Cookie: standpipe=1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        );
    }
}
