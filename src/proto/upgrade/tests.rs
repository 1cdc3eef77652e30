//! S2–S6: which requests may become a tunnel, and which answers make one.

use super::super::http::{HeadLimits, parse_request, parse_response};
use super::*;

/// The key and its answer from RFC 6455 §1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn judged(start: &str, lines: &[&str]) -> Result<bool, RequestFault> {
    let head = format!("{start}\r\nHost: x\r\n{}\r\n\r\n", lines.join("\r\n"));
    let head = parse_request(head.as_bytes(), &HeadLimits::default()).expect("a legal head");
    request(&head).map(|found| found.is_some())
}

fn get(lines: &[&str]) -> Result<bool, RequestFault> {
    judged("GET /chat HTTP/1.1", lines)
}

const GOOD: [&str; 4] = [
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
];

/// The good request with line `i` replaced.
fn with(i: usize, line: &str) -> Result<bool, RequestFault> {
    let mut lines = GOOD;
    lines[i] = line;
    get(&lines)
}

#[test]
fn the_key_of_the_rfc() {
    assert_eq!(accept_key(KEY.as_bytes()), *ACCEPT.as_bytes());
    assert_eq!(make_key(*b"the sample nonce"), *KEY.as_bytes());
}

#[test]
fn s4_requests() {
    assert_eq!(get(&GOOD), Ok(true));
    assert_eq!(judged("POST / HTTP/1.1", &GOOD), Err(RequestFault::Method));
    assert_eq!(judged("GET / HTTP/1.0", &GOOD), Err(RequestFault::OldHttp));
    assert_eq!(with(1, "Connection: keep-alive"), Err(RequestFault::Connection));
    assert_eq!(with(1, "A: b"), Err(RequestFault::Connection));
    assert_eq!(with(2, "A: b"), Err(RequestFault::KeyMissing));
    for bad in
        ["", "x", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZQ", "!!!!IHNhbXBsZSBub25jZQ=="]
    {
        let line = format!("Sec-WebSocket-Key: {bad}");
        assert_eq!(with(2, &line), Err(RequestFault::KeyInvalid), "{bad:?}");
    }
    let longer = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZXh4"; // eighteen bytes
    assert_eq!(with(2, longer), Err(RequestFault::KeyInvalid));
    let loose = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR=="; // the four spare bits are set
    assert_eq!(with(2, loose), Ok(true));
    for line in ["A: b", "Sec-WebSocket-Version: 8", "Sec-WebSocket-Version: 13, 8"] {
        assert_eq!(with(3, line), Err(RequestFault::Version), "{line}");
    }
    assert_eq!(RequestFault::Version.status(), 426);
    let twice = |line| get(&[&GOOD[..], &[line]].concat());
    assert_eq!(twice(GOOD[2]), Err(RequestFault::KeyRepeated));
    assert_eq!(twice(GOOD[3]), Err(RequestFault::VersionRepeated));
    assert_eq!(twice("Sec-WebSocket-Protocol: a b"), Err(RequestFault::Offer));
    assert_eq!(RequestFault::KeyRepeated.status(), 400);
}

#[test]
fn s5_no_body() {
    let also = |line| get(&[&GOOD[..], &[line]].concat());
    assert_eq!(also("Content-Length: 1"), Err(RequestFault::Body));
    assert_eq!(also("Transfer-Encoding: chunked"), Err(RequestFault::Body));
    assert_eq!(also("Content-Length: 0"), Ok(true));
}

#[test]
fn s6_only_one_token_may_tunnel() {
    for line in [
        "Upgrade: h2c",
        "Upgrade: H2C",
        "Upgrade: websocket, h2c",
        "Upgrade: websocket, websocket",
        "Upgrade: websocket/13",
        "Upgrade: ",
        "Upgrade: ,",
    ] {
        assert_eq!(with(0, line), Ok(false), "{line}");
    }
    assert_eq!(get(&[&GOOD[..], &["Upgrade: h2c"]].concat()), Ok(false));
    assert_eq!(with(0, "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"), Ok(false));
}

#[test]
fn s21_case_does_not_matter() {
    let odd = [
        "upgrade: WebSocket",
        "CONNECTION: keep-alive, Upgrade",
        "SEC-WEBSOCKET-KEY: dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version: 13",
    ];
    assert_eq!(get(&odd), Ok(true));
}

const OFFER: UpgradeRequest<'_> =
    UpgradeRequest { key: KEY.as_bytes(), protocols: Vec::new(), extensions: Vec::new() };

fn answered(offer: &UpgradeRequest<'_>, start: &str, lines: &[&str]) -> Result<bool, AnswerFault> {
    let head = format!("{start}\r\n{}\r\n\r\n", lines.join("\r\n"));
    let head = parse_response(head.as_bytes(), &HeadLimits::default(), false).expect("legal");
    offer.answer(&head).map(|agreed| agreed.deflate)
}

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols";
const YES: [&str; 3] = [
    "Upgrade: WebSocket",
    "Connection: upgrade",
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
];

#[test]
fn s2_s3_answers() {
    assert_eq!(answered(&OFFER, SWITCH, &YES), Ok(false));
    for status in ["200 OK", "204 No Content", "301 Moved", "426 Upgrade Required", "500 Oh"] {
        let start = format!("HTTP/1.1 {status}");
        assert_eq!(answered(&OFFER, &start, &YES), Err(AnswerFault::Status));
    }
    let without = |i: usize| {
        let mut lines = YES;
        lines[i] = "A: b";
        answered(&OFFER, SWITCH, &lines).unwrap_err()
    };
    assert_eq!(without(0), AnswerFault::Upgrade);
    assert_eq!(without(1), AnswerFault::Connection);
    assert_eq!(without(2), AnswerFault::Accept);
    let other = UpgradeRequest { key: b"AAAAAAAAAAAAAAAAAAAAAA==", ..OFFER };
    assert_eq!(answered(&other, SWITCH, &YES), Err(AnswerFault::Accept));
    let twice = [YES[0], YES[1], YES[2], YES[2]];
    assert_eq!(answered(&OFFER, SWITCH, &twice), Err(AnswerFault::Accept));
    let two = [YES[0], YES[1], YES[2], "Upgrade: h2c"];
    assert_eq!(answered(&OFFER, SWITCH, &two), Err(AnswerFault::Upgrade));
}

#[test]
fn only_what_was_offered_is_agreed() {
    let also = |offer: &UpgradeRequest<'_>, line: &str| {
        answered(offer, SWITCH, &[YES[0], YES[1], YES[2], line])
    };
    let chat = UpgradeRequest { protocols: vec![b"chat", b"v2"], ..OFFER };
    assert_eq!(also(&chat, "Sec-WebSocket-Protocol: v2"), Ok(false));
    assert_eq!(also(&chat, "Sec-WebSocket-Protocol: v3"), Err(AnswerFault::Protocol));
    assert_eq!(also(&chat, "Sec-WebSocket-Protocol: chat, v2"), Err(AnswerFault::Protocol));
    assert_eq!(also(&OFFER, "Sec-WebSocket-Protocol: chat"), Err(AnswerFault::Protocol));
    let deflate = UpgradeRequest { extensions: vec![b"permessage-deflate"], ..OFFER };
    let agreed = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10";
    assert_eq!(also(&deflate, agreed), Ok(true));
    assert_eq!(also(&deflate, "A: b"), Ok(false));
    assert_eq!(also(&OFFER, agreed), Err(AnswerFault::Extension));
    let twice = "Sec-WebSocket-Extensions: permessage-deflate, permessage-deflate";
    assert_eq!(also(&deflate, twice), Err(AnswerFault::Extension));
}

#[test]
fn an_unknown_extension_is_withdrawn_and_cannot_be_agreed() {
    let narrowed = |line: &str| {
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n{line}\r\n\r\n", GOOD.join("\r\n"));
        let head = parse_request(head.as_bytes(), &HeadLimits::default()).unwrap();
        let mut offer = request(&head).unwrap().unwrap();
        let left = offer.narrow(&head).map(|line| String::from_utf8(line).unwrap());
        let agreed = answered(&offer, SWITCH, &[YES[0], YES[1], YES[2], EXTENSION_X]);
        assert_eq!(agreed, Err(AnswerFault::Extension), "{line}");
        left
    };
    const EXTENSION_X: &str = "Sec-WebSocket-Extensions: x-mux";
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(narrowed("A: b"), None);
    assert_eq!(
        narrowed("Sec-WebSocket-Extensions: permessage-deflate; a, Permessage-Deflate"),
        None
    );
    assert_eq!(
        narrowed(
            "Sec-WebSocket-Extensions: x-mux; a=1, permessage-deflate; b=2\r\n\
                  sec-websocket-extensions: permessage-bzip, permessage-deflate"
        ),
        some("permessage-deflate; b=2, permessage-deflate")
    );
    assert_eq!(narrowed("Sec-WebSocket-Extensions: x-mux"), some(""));
}

#[test]
fn what_we_write_we_believe() {
    let key = make_key([7; 16]);
    let mut out = Vec::new();
    write_request(&mut out, "x:80", "/chat", &key, &["Sec-WebSocket-Protocol: chat"]);
    let head = parse_request(&out, &HeadLimits::default()).unwrap();
    let offer = request(&head).unwrap().unwrap();
    assert_eq!(offer.protocols, [b"chat"]);
    let mut out = Vec::new();
    write_answer(&mut out, offer.key, &["Sec-WebSocket-Protocol: chat"]);
    let head = parse_response(&out, &HeadLimits::default(), false).unwrap();
    let agreed = offer.answer(&head).unwrap();
    assert_eq!(agreed, Agreed { protocol: Some(b"chat"), deflate: false });
}
