//! The WebSocket upgrade from the client's side: a request is written, a response is read whole.
//! Pure; cookies come in and go out as text.

use standpipe::proto::upgrade::{accept_key, make_key};

use crate::plan::Request;
use crate::target::Target;

/// A response head longer than this is refused.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How much of a refusal's body is shown.
const BODY_SHOWN_MAX: usize = 400;

/// What the server said.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not all of it is there.
    Need,
    /// Switched; this many bytes were the head.
    Agreed { used: usize, cookies: Vec<String>, name: Option<String> },
    /// Not switched: a short kind, and what a person would like to read.
    Refused { kind: String, shown: String },
}

/// Appends the request of connection `number`. `key` is its nonce.
pub fn write_request(
    out: &mut Vec<u8>,
    target: &Target,
    request: &Request,
    number: u32,
    key: &str,
    jar: Option<&str>,
) {
    let path = match request.paths.len() {
        0 => target.path.as_str(),
        count => request.paths[number as usize % count].as_str(),
    };
    let mut line = |text: &str| {
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(b"\r\n");
    };
    line(&format!("GET {path} HTTP/1.1"));
    if !request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        line(&format!("Host: {}", target.authority()));
    }
    line("Upgrade: websocket");
    line("Connection: Upgrade");
    line(&format!("Sec-WebSocket-Key: {key}"));
    line("Sec-WebSocket-Version: 13");
    if let Some(protocol) = &request.subprotocol {
        line(&format!("Sec-WebSocket-Protocol: {protocol}"));
    }
    if let Some(jar) = jar {
        line(&format!("Cookie: {jar}"));
    }
    for (name, values) in &request.headers {
        let value = &values[number as usize % values.len()];
        line(&format!("{name}: {}", value.replace("{n}", &number.to_string())));
    }
    line("");
}

/// The nonce of one connection; it need not be secret, only different.
pub fn key_of(random: u128) -> String {
    String::from_utf8_lossy(&make_key(random.to_le_bytes())).into_owned()
}

/// What the server must answer to `key` (RFC 6455, 4.2.2).
pub fn accept_of(key: &str) -> String {
    String::from_utf8_lossy(&accept_key(key.as_bytes())).into_owned()
}

/// Reads the response at the start of `bytes`; `ended` says that no more will come.
pub fn read_answer(bytes: &[u8], key: &str, ended: bool) -> Answer {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        if bytes.len() > HEAD_BYTES_MAX {
            return refused("upgrade: response head too long", bytes);
        }
        if ended && bytes.is_empty() {
            return refused("upgrade: closed without an answer", bytes);
        }
        return if ended { refused("upgrade: not an HTTP answer", bytes) } else { Answer::Need };
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let code = status.split(' ').nth(1).unwrap_or_default();
    let fields: Vec<(&str, &str)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect();
    let field = |wanted: &str| {
        fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| *value)
    };
    let used = end + 4;
    if !status.starts_with("HTTP/1.1 ") || code != "101" {
        let body = bytes.len() - used;
        let length = field("content-length").and_then(|text| text.parse::<usize>().ok());
        let wanted = length.unwrap_or(BODY_SHOWN_MAX).min(BODY_SHOWN_MAX);
        // The body explains the refusal: wait for it, within reason.
        if body < wanted && !ended {
            return Answer::Need;
        }
        return refused(&format!("upgrade: HTTP {code}"), bytes);
    }
    if field("sec-websocket-accept") != Some(accept_of(key).as_str()) {
        return refused("upgrade: 101 with a wrong Sec-WebSocket-Accept", bytes);
    }
    let cookies = fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"))
        .map(|(_, value)| value.split(';').next().unwrap_or_default().to_owned())
        .collect();
    Answer::Agreed { used, cookies, name: field("x-echo-name").map(str::to_owned) }
}

fn refused(kind: &str, bytes: &[u8]) -> Answer {
    let mut shown = String::from_utf8_lossy(&bytes[..bytes.len().min(2048)]).into_owned();
    if let Some(end) = shown.find("\r\n\r\n") {
        let (status, body) =
            (shown.lines().next().unwrap_or_default().to_owned(), &shown[end + 4..]);
        let body: String = body.chars().take(BODY_SHOWN_MAX).collect();
        shown = if body.is_empty() { status } else { format!("{status}\n{}", body.trim_end()) };
    }
    Answer::Refused { kind: kind.to_owned(), shown }
}

/// What an echo says to a request head.
#[derive(Debug, PartialEq, Eq)]
pub enum Welcome {
    Need,
    /// The head took this many bytes; the reply switches protocols.
    Switch {
        used: usize,
    },
    /// An ordinary request or nonsense: answered, then closed.
    Close,
}

/// Reads a request at the start of `bytes` and appends the reply to `out`.
pub fn welcome(bytes: &[u8], name: &str, out: &mut Vec<u8>) -> Welcome {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return if bytes.len() > HEAD_BYTES_MAX { Welcome::Close } else { Welcome::Need };
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let field = |wanted: &str| {
        head.split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.trim())
    };
    let Some(key) = field("sec-websocket-key") else {
        let length = name.len() + 1;
        let reply = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{name}\n"
        );
        out.extend_from_slice(reply.as_bytes());
        return Welcome::Close;
    };
    let accept = accept_of(key);
    let protocol = field("sec-websocket-protocol")
        .and_then(|list| list.split(',').next())
        .map(|first| format!("Sec-WebSocket-Protocol: {}\r\n", first.trim()))
        .unwrap_or_default();
    let reply = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{protocol}X-Echo-Name: {name}\r\n\r\n"
    );
    out.extend_from_slice(reply.as_bytes());
    Welcome::Switch { used: end + 4 }
}

pub fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    #[test]
    fn the_sample_of_the_rfc_is_accepted() {
        assert_eq!(accept_of(KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let text = "HTTP/1.1 101 Switching Protocols\r\nset-cookie: a=b; Path=/\r\n\
                    X-Echo-Name: red\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
                    \r\nrest";
        let answer = read_answer(text.as_bytes(), KEY, false);
        let (cookies, name) = (vec!["a=b".to_owned()], Some("red".to_owned()));
        assert_eq!(answer, Answer::Agreed { used: text.len() - 4, cookies, name });
        for cut in 0..text.len() - 4 {
            assert_eq!(read_answer(&text.as_bytes()[..cut], KEY, false), Answer::Need);
        }
    }

    #[test]
    fn a_refusal_shows_status_and_body() {
        let text = "HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\nno luck";
        assert_eq!(read_answer(&text.as_bytes()[..text.len() - 2], KEY, false), Answer::Need);
        let Answer::Refused { kind, shown } = read_answer(text.as_bytes(), KEY, false) else {
            panic!("not refused")
        };
        assert_eq!(kind, "upgrade: HTTP 403");
        assert_eq!(shown, "HTTP/1.1 403 Forbidden\nno luck");
    }

    #[test]
    fn a_wrong_accept_is_no_upgrade() {
        let text = "HTTP/1.1 101 X\r\nSec-WebSocket-Accept: nonsense\r\n\r\n";
        assert!(matches!(read_answer(text.as_bytes(), KEY, false), Answer::Refused { .. }));
    }

    #[test]
    fn the_request_takes_turns() {
        let target = Target::parse("ws://127.0.0.1:81/x").unwrap();
        let request = Request {
            paths: vec!["/a".into(), "/b".into()],
            headers: vec![("X-User".into(), vec!["u{n}".into()])],
            subprotocol: Some("chat".into()),
            cookies: true,
        };
        let mut out = Vec::new();
        write_request(&mut out, &target, &request, 3, KEY, Some("k=v"));
        let text = String::from_utf8(out).unwrap();
        for part in
            ["GET /b HTTP/1.1\r\n", "Host: 127.0.0.1:81\r\n", "X-User: u3\r\n", "Cookie: k=v\r\n"]
        {
            assert!(text.contains(part), "{text}");
        }
        assert!(text.ends_with("\r\n\r\n"));
    }
}
