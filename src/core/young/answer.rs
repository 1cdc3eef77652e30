//! Answers standpipe gives on its own account: why a request was not passed on, in plain text or
//! JSON, always with the request's id. Pure: it makes bytes and never sends them.

use std::rc::Rc;
use std::time::SystemTime;

use httpdate::HttpDate;

/// A request that will not be passed on, or a response that cannot be: what is said in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// One sentence for the client; it tells nothing about the servers behind. Where it is empty
    /// the answer has no body.
    pub sentence: &'static str,
}

/// How an answer is to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manner {
    /// The request's id: letters, digits and a few marks, so that it needs no quoting anywhere.
    pub id: Rc<str>,
    pub json: bool,
    /// The request was a HEAD: lengths are told, the body is left out.
    pub head_only: bool,
    /// The connection ends after this answer.
    pub close: bool,
}

impl Refusal {
    pub const fn new(status: u16, sentence: &'static str) -> Refusal {
        Refusal { status, sentence }
    }

    /// The whole answer. `jitter` spreads the Retry-After of a 503, so that those turned away
    /// together do not come back together.
    pub fn compose(&self, manner: &Manner, jitter: u64) -> Vec<u8> {
        let (status, id) = (self.status, &manner.id);
        let reason = reason(status);
        let body = if self.sentence.is_empty() {
            String::new()
        } else if manner.json {
            format!(
                "{{\"status\":{status},\"error\":\"{reason}\",\"detail\":\"{}\",\
                 \"request_id\":\"{id}\"}}\n",
                self.sentence
            )
        } else {
            format!("{status} {reason}\n{}\nrequest id {id}\n", self.sentence)
        };
        let media = match (body.is_empty(), manner.json) {
            (true, _) => "",
            (_, true) => "Content-Type: application/json\r\n",
            (_, false) => "Content-Type: text/plain; charset=utf-8\r\n",
        };
        let connection = match (status, manner.close) {
            (426, true) => "Upgrade, close",
            (426, false) => "Upgrade",
            (_, true) => "close",
            (_, false) => "keep-alive",
        };
        let extra = match status {
            200 | 405 => "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n".to_string(),
            426 => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n".to_string(),
            503 => format!("Retry-After: {}\r\n", RETRY_AFTER_MIN + jitter % RETRY_AFTER_SPREAD),
            _ => String::new(),
        };
        // For an answer of our own we are the origin server, and have a clock (RFC 9110
        // §6.6.1).
        let date = date();
        let mut bytes = format!(
            "HTTP/1.1 {status} {reason}\r\nDate: {date}\r\n{media}Content-Length: {}\r\n\
             Cache-Control: no-store\r\nX-Request-Id: {id}\r\n{extra}\
             Connection: {connection}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        if !manner.head_only {
            bytes.extend_from_slice(body.as_bytes());
        }
        bytes
    }
}

/// Seconds; the answer asks for at least this and less than this plus the spread.
const RETRY_AFTER_MIN: u64 = 1;
const RETRY_AFTER_SPREAD: u64 = 5;

/// The time as a `Date` tells it.
pub fn date() -> HttpDate {
    HttpDate::from(SystemTime::now())
}

/// The reason phrase of every status we answer with.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Refused",
    }
}

/// Whether an `Accept` value asks for JSON rather than text: the first of the two media ranges
/// named wins, unless its `q` is zero.
pub fn prefers_json(accept: &[u8]) -> bool {
    let accept = String::from_utf8_lossy(accept).to_ascii_lowercase();
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or("");
        let refused = parts.any(|p| p.strip_prefix("q=").is_some_and(is_zero));
        match media {
            "application/json" | "application/problem+json" if !refused => return true,
            "text/plain" | "text/html" | "text/*" | "*/*" if !refused => return false,
            _ => {}
        }
    }
    false
}

fn is_zero(quality: &str) -> bool {
    quality.parse::<f32>().is_ok_and(|q| q <= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Manner {
        Manner { id: "00000000000000ab".into(), json: false, head_only: false, close: true }
    }

    fn text(refusal: Refusal, manner: Manner) -> String {
        String::from_utf8(refusal.compose(&manner, 7)).expect("ascii")
    }

    #[test]
    fn a_plain_answer_has_its_length_and_id() {
        let answer = text(Refusal::new(404, "no route has this host and path"), plain());
        let (head, body) = answer.split_once("\r\n\r\n").expect("a blank line");
        assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n"));
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert!(head.contains("Connection: close"));
        assert!(body.contains("00000000000000ab"));
        let date = head.lines().find_map(|line| line.strip_prefix("Date: ")).expect("a date");
        let date = httpdate::parse_http_date(date).expect("as RFC 9110 writes it");
        let age = SystemTime::now().duration_since(date).expect("not in the future");
        assert!(age < std::time::Duration::from_secs(60), "{age:?}");
    }

    #[test]
    fn a_json_answer_is_json() {
        let answer = text(Refusal::new(503, "all busy"), Manner { json: true, ..plain() });
        let (head, body) = answer.split_once("\r\n\r\n").expect("a blank line");
        let value: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(value["status"], 503);
        assert_eq!(value["request_id"], "00000000000000ab");
        assert!(head.contains("Retry-After: 3\r\n"));
    }

    #[test]
    fn an_answer_without_a_sentence_has_no_body() {
        for json in [false, true] {
            let answer = text(Refusal::new(200, ""), Manner { json, ..plain() });
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"));
            assert!(answer.contains("\r\nContent-Length: 0\r\n"));
            assert!(answer.contains("\r\nAllow: GET, ") && !answer.contains("Content-Type"));
        }
    }

    #[test]
    fn an_upgrade_required_names_the_version() {
        let answer = text(Refusal::new(426, "x"), plain());
        assert!(answer.contains("Sec-WebSocket-Version: 13\r\n"));
        assert!(answer.contains("Connection: Upgrade, close\r\n"));
    }

    #[test]
    fn a_head_gets_the_length_and_no_body() {
        let answer = text(Refusal::new(404, "x"), Manner { head_only: true, ..plain() });
        assert!(answer.ends_with("\r\n\r\n"));
        assert!(!answer.contains("Content-Length: 0"));
    }

    #[test]
    fn accept_decides_between_text_and_json() {
        assert!(prefers_json(b"application/json"));
        assert!(prefers_json(b"application/json, text/plain, */*"));
        assert!(!prefers_json(b"text/html, application/json"));
        assert!(!prefers_json(b"*/*"));
        assert!(!prefers_json(b""));
        assert!(prefers_json(b"text/plain;q=0, application/json"));
    }
}
