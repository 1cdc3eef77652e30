//! Our reading of the wire beside that of libraries nobody here wrote: `tungstenite` for frames,
//! `hyper` for heads and bodies. Where we accept, they must read the same.

use std::convert::Infallible;
use std::io::{Cursor, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::TokioIo;
use standpipe::proto::Step;
use standpipe::proto::frame::{End, Fault, Opcode};
use standpipe::proto::http::{Body, HeadLimits, HeadScanner, parse_request, parse_response};
use standpipe::proto::tunnel::{FrameLimits, Part, Rules, Sink, Tunnel, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tungstenite::error::ProtocolError;
use tungstenite::protocol::Role;
use tungstenite::{Error, Message, WebSocket};

/// What is written is kept; what is read was given.
struct Tape {
    given: Cursor<Vec<u8>>,
    kept: Vec<u8>,
}

impl Read for Tape {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        Read::read(&mut self.given, out)
    }
}

impl Write for Tape {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Write::write(&mut self.kept, bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn tape(given: Vec<u8>, role: Role) -> WebSocket<Tape> {
    let tape = Tape { given: Cursor::new(given), kept: Vec::new() };
    WebSocket::from_raw_socket(tape, role, None)
}

#[derive(Default)]
struct Passed {
    bytes: Vec<u8>,
    messages: usize,
    closes: usize,
}

struct Through<'a>(&'a [u8], &'a mut Passed);

impl Sink for Through<'_> {
    fn pass(&mut self, part: Part<'_>) {
        self.1.bytes.extend_from_slice(match &part {
            Part::Fed(range) => &self.0[range.clone()],
            Part::Held(bytes) => bytes,
        });
    }
    fn frame(&mut self, opcode: Opcode, _: bool) {
        self.1.messages += usize::from(matches!(opcode, Opcode::Text | Opcode::Binary));
    }
    fn payload(&mut self, _: Opcode, _: u64) {}
    fn close(&mut self, _: Option<u16>) {
        self.1.closes += 1;
    }
    fn pong(&mut self) {}
}

fn through(stream: &[u8], from: End, rng: &mut Rng) -> (Passed, Verdict) {
    let mut tunnel = Tunnel::new(Rules { from, deflate: false });
    let (mut passed, mut verdict, mut rest) = (Passed::default(), Verdict::Open, stream);
    while !rest.is_empty() && !matches!(verdict, Verdict::Bad(_)) {
        let (piece, after) = rest.split_at(rng.usize(1..=rest.len()));
        verdict = tunnel.feed(piece, &FrameLimits::default(), &mut Through(piece, &mut passed));
        rest = after;
    }
    (passed, verdict)
}

fn messages(rng: &mut Rng) -> Vec<Message> {
    let mut all: Vec<_> = (0..rng.usize(0..8))
        .map(|_| {
            let most = [4, 126, 300, 70_000][rng.usize(0..4)];
            let size = rng.usize(0..most);
            match rng.u8(0..4) {
                0 => Message::text("x".repeat(size)),
                1 => Message::Ping(vec![rng.u8(..); size % 126].into()),
                2 => Message::Pong(vec![rng.u8(..); size % 126].into()),
                _ => Message::Binary(vec![rng.u8(..); size].into()),
            }
        })
        .collect();
    if rng.bool() {
        all.push(Message::Close(None));
    }
    all
}

fn written(messages: &[Message], role: Role) -> Vec<u8> {
    let mut socket = tape(Vec::new(), role);
    for message in messages {
        socket.send(message.clone()).expect("a legal message");
    }
    std::mem::take(&mut socket.get_mut().kept)
}

/// All messages, and the error that ended the reading.
fn read(stream: Vec<u8>, role: Role) -> (Vec<Message>, Error) {
    let mut socket = tape(stream, role);
    let mut all = Vec::new();
    loop {
        match socket.read() {
            Ok(message) => all.push(message),
            Err(error) => return (all, error),
        }
    }
}

#[test]
fn what_tungstenite_writes_passes_untouched_and_reads_the_same() {
    for seed in 0..2000 {
        let mut rng = Rng::with_seed(seed);
        let sent = messages(&mut rng);
        for (role, other, from) in
            [(Role::Client, Role::Server, End::Client), (Role::Server, Role::Client, End::Server)]
        {
            let stream = written(&sent, role);
            let (passed, verdict) = through(&stream, from, &mut rng);
            assert_eq!(passed.bytes, stream, "seed {seed}");
            let closed = matches!(sent.last(), Some(Message::Close(_)));
            assert_eq!(verdict == Verdict::Closed, closed, "seed {seed}");
            let data = sent.iter().filter(|m| m.is_text() || m.is_binary()).count();
            assert_eq!((passed.messages, passed.closes), (data, usize::from(closed)));
            assert_eq!(read(passed.bytes, other).0, sent, "seed {seed}");
        }
    }
}

/// The rule a server's stream breaks, if one; simply ending is none.
fn violation(stream: Vec<u8>) -> Option<ProtocolError> {
    match read(stream, Role::Client).1 {
        // Nor is what follows a Close: we discard it, as a receiver must.
        Error::Protocol(
            ProtocolError::ResetWithoutClosingHandshake | ProtocolError::ReceivedAfterClosing,
        ) => None,
        Error::Protocol(error) => Some(error),
        _ => None,
    }
}

#[test]
fn what_tungstenite_calls_a_violation_we_refuse() {
    let mut violations = 0;
    for seed in 0..20_000 {
        let mut rng = Rng::with_seed(seed);
        let mut stream = written(&messages(&mut rng), Role::Server);
        stream.truncate(400);
        for _ in 0..rng.usize(1..4) {
            if !stream.is_empty() {
                let at = rng.usize(0..stream.len());
                stream[at] ^= 1 << rng.u8(0..8);
            }
        }
        let (passed, verdict) = through(&stream, End::Server, &mut rng);
        if let Some(error) = violation(stream.clone()) {
            violations += 1;
            assert!(matches!(verdict, Verdict::Bad(_)), "seed {seed}: {error} in {stream:02x?}");
        }
        // And nothing it would call one is passed on before ours is found.
        if let Some(error) = violation(passed.bytes) {
            panic!("seed {seed}: {error} was passed on, {verdict:?}");
        }
    }
    assert!(violations > 1000, "the test has lost its teeth: {violations}");
}

#[test]
fn where_we_are_stricter_than_tungstenite() {
    for (stream, fault) in [
        (&[0x82, 126, 0, 1, 7][..], Fault::LengthNotMinimal),
        (&[0x88, 2, 0x03, 0xe7], Fault::CloseCode(999)),
    ] {
        let (_, verdict) = through(stream, End::Server, &mut Rng::with_seed(0));
        assert_eq!(verdict, Verdict::Bad(fault));
    }
}

/// Method, path, fields, body.
type Request = (String, String, Vec<(String, Vec<u8>)>, Vec<u8>);

/// Every request hyper reads from one connection.
async fn hyper_reads(bytes: Vec<u8>) -> Vec<Request> {
    let (mut near, far) = tokio::io::duplex(1 << 16);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            let (parts, body) = request.into_parts();
            if let Ok(body) = body.collect().await {
                let fields = parts.headers.iter();
                let fields = fields.map(|(n, v)| (n.to_string(), v.as_bytes().to_vec())).collect();
                let path = parts.uri.path().to_owned();
                let request = (parts.method.to_string(), path, fields, body.to_bytes().to_vec());
                seen.lock().expect("no panic inside").push(request);
            }
            Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::new())))
        }
    });
    let serving =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service);
    let talking = async {
        let _ = near.write_all(&bytes).await;
        let _ = near.read_to_end(&mut Vec::new()).await;
    };
    let both = async { tokio::join!(serving, talking) };
    let _ = tokio::time::timeout(Duration::from_secs(5), both).await;
    std::mem::take(&mut *seen.lock().expect("no panic inside"))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn draw<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.usize(0..from.len())]
}

fn request_head(rng: &mut Rng) -> String {
    let mut head = format!(
        "{} {} HTTP/1.{}\r\n",
        draw(rng, &["GET", "POST", "HEAD", "OPTIONS", "PATCH", "X-ODD"]),
        draw(rng, &["/", "/a/../b?c", "/%2e%2e//", "*", "http://x/y", "http://x", "/a;b=c&d[e]"]),
        rng.u8(0..10).min(1) ^ u8::from(rng.u8(0..8) == 0),
    );
    if rng.u8(0..8) > 0 {
        head += "Host: x\r\n";
    }
    for _ in 0..rng.usize(0..4) {
        head += draw(rng, LINES);
        head += "\r\n";
    }
    head + "\r\n"
}

const LINES: &[&str] = &[
    "Content-Length: 3",
    "Content-Length: 0",
    "Content-Length: 3,3",
    "Content-Length: +3",
    "Content-Length:",
    "Transfer-Encoding: chunked",
    "transfer-encoding: Chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, gzip",
    "Transfer-Encoding: identity",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: Upgrade, close",
    "Upgrade: websocket",
    "Upgrade: h2c",
    "Expect: 100-continue",
    "X-Odd: \u{e9} \t x ",
    "Empty:",
    "A : b",
    ": b",
    " folded",
    "Tab\t: b",
    "Bad: a\u{1}b",
    "Quoted: \"a, b\"",
    "Cookie: a=b; c=\"d\"",
];

const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// A head we accept, the body we believe it has, and one more request: hyper sees exactly these.
#[test]
fn hyper_reads_the_requests_we_accept_as_we_do() {
    let (limits, runtime) = (HeadLimits::default(), runtime());
    let mut accepted = 0;
    for seed in 0..6000 {
        let text = request_head(&mut Rng::with_seed(seed));
        let Step::Done(_, range) = HeadScanner::new().scan(text.as_bytes(), &limits) else {
            continue;
        };
        let Ok(head) = parse_request(&text.as_bytes()[range], &limits) else { continue };
        accepted += 1;
        let (wire, body) = match head.body {
            Body::None => (&b""[..], &b""[..]),
            Body::Length(0) => (&b""[..], &b""[..]),
            Body::Length(3) => (&b"abc"[..], &b"abc"[..]),
            Body::Chunked => (&b"3;x\r\nabc\r\n0\r\n\r\n"[..], &b"abc"[..]),
            other => panic!("{other:?}"),
        };
        let seen = runtime.block_on(hyper_reads([text.as_bytes(), wire, NEXT].concat()));
        let first = seen.first().unwrap_or_else(|| panic!("hyper refused {text:?}"));
        assert_eq!((&first.0[..], &first.1[..]), (head.method, head.path()), "{text:?}");
        assert_eq!(first.3, body, "{text:?}");
        let mut theirs = first.2.clone();
        let mut ours: Vec<_> = head
            .fields
            .iter()
            .map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec()))
            .collect();
        theirs.sort();
        ours.sort();
        assert_eq!(theirs, ours, "{text:?}");
        assert_eq!(seen.len(), if head.keep_alive { 2 } else { 1 }, "{text:?}");
        assert!(seen.get(1).is_none_or(|next| next.1 == "/next"), "{text:?}");
    }
    assert!(accepted > 1000, "the test has lost its teeth: {accepted}");
}

/// Status and body of the one response in `bytes`, as hyper's client reads it.
async fn hyper_receives(bytes: Vec<u8>, method: &str) -> Option<(u16, Vec<u8>)> {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    // What RFC 9112 §5.1 has a proxy put up with, hyper reads only when told to.
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.allow_spaces_after_header_name_in_responses(true);
    let (mut sender, connection) = builder.handshake(TokioIo::new(near)).await.ok()?;
    let asking = async {
        let request = hyper::Request::builder().method(method).uri("/").header("host", "x");
        let answer = sender.send_request(request.body(Empty::<Bytes>::new()).ok()?).await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.into_body().collect().await.ok()?.to_bytes().to_vec()))
    };
    let answering = async {
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            far.read_buf(&mut asked).await.expect("a request");
        }
        let _ = far.write_all(&bytes).await;
        let _ = far.shutdown().await;
    };
    let (answer, (), _) = tokio::join!(asking, answering, connection);
    answer
}

#[test]
fn hyper_reads_the_responses_we_accept_as_we_do() {
    let (limits, runtime) = (HeadLimits::default(), runtime());
    let mut accepted = 0;
    for seed in 0..4000 {
        let mut rng = Rng::with_seed(seed);
        let start =
            ["HTTP/1.1 200 OK", "HTTP/1.1 204 No", "HTTP/1.1 304 Same", "HTTP/1.0 404 \u{e9}"];
        let mut text = draw(&mut rng, &start).to_owned() + "\r\n";
        for _ in 0..rng.usize(0..3) {
            text += draw(&mut rng, LINES);
            text += "\r\n";
        }
        text += "\r\n";
        let method = draw(&mut rng, &["GET", "GET", "HEAD"]);
        let Step::Done(_, range) = HeadScanner::new().scan(text.as_bytes(), &limits) else {
            continue;
        };
        let Ok(head) = parse_response(&text.as_bytes()[range], &limits, method == "HEAD") else {
            continue;
        };
        accepted += 1;
        let (wire, body) = match head.body {
            Body::None | Body::Length(0) => (&b""[..], &b""[..]),
            Body::Length(_) => (&b"abc"[..], &b"abc"[..]),
            Body::Chunked => (&b"3\r\nabc\r\n0\r\nA: b\r\n\r\n"[..], &b"abc"[..]),
            Body::UntilClose => (&b"to the end"[..], &b"to the end"[..]),
        };
        let bytes = [text.as_bytes(), wire].concat();
        let answer = runtime.block_on(hyper_receives(bytes, method));
        assert_eq!(answer, Some((head.status, body.to_vec())), "{method} {text:?}");
    }
    assert!(accepted > 1000, "the test has lost its teeth: {accepted}");
}
