//! Every decoder against seeded inputs: raw noise, and legal inputs with a little damage. The
//! checks are those of the fuzz targets; a failure prints the seed that made it.

#[path = "../fuzz/checks.rs"]
mod checks;
#[path = "../fuzz/requests.rs"]
mod requests;

use fastrand::Rng;
use proptest::prelude::*;
use standpipe::proto::frame::{HEADER_MAX, Opcode, RSV1, apply_mask, encode_header};
use standpipe::proto::preface::{encode_v1, encode_v2, push_extension};

/// Runs `check` on what `make` draws from each of `count` seeds.
fn seeded(count: u64, make: fn(&mut Rng) -> Vec<u8>, check: fn(&[u8])) {
    for seed in 0..count {
        let input = make(&mut Rng::with_seed(seed));
        let outcome = std::panic::catch_unwind(|| check(&input));
        assert!(outcome.is_ok(), "seed {seed}: {input:02x?}");
    }
}

fn noise(rng: &mut Rng) -> Vec<u8> {
    let size = rng.usize(0..80);
    std::iter::repeat_with(|| rng.u8(..)).take(size).collect()
}

/// Sometimes changes, drops, doubles or inserts a byte or two.
fn damaged(rng: &mut Rng, mut bytes: Vec<u8>, keep: usize) -> Vec<u8> {
    for _ in 0..[0, 0, 1, 1, 2, 4][rng.usize(0..6)] {
        if bytes.len() <= keep {
            break;
        }
        let at = rng.usize(keep..bytes.len());
        match rng.u8(0..5) {
            0 => bytes[at] ^= 1 << rng.u8(0..8),
            1 => bytes[at] = b"\r\n \t:,;\0\x7f\x80aA0"[rng.usize(0..13)],
            2 => drop(bytes.remove(at)),
            3 => bytes.insert(at, bytes[at]),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

fn stream(rng: &mut Rng) -> Vec<u8> {
    let mut out = vec![rng.u8(..), rng.u8(..), rng.u8(..)];
    let client = out[0] & 1 == 0;
    let deflate = out[0] & 2 != 0;
    let mut inside = false;
    for _ in 0..rng.usize(0..12) {
        let opcode = match rng.u8(0..16) {
            0..2 => Opcode::Ping,
            2..5 => Opcode::Pong,
            5 if rng.u8(0..4) == 0 => Opcode::Close,
            _ if inside => Opcode::Continuation,
            n if n % 2 == 0 => Opcode::Text,
            _ => Opcode::Binary,
        };
        let fin = opcode.is_control() || rng.bool();
        if !opcode.is_control() {
            inside = !fin;
        }
        let payload = payload(rng, opcode);
        let at = out.len();
        push_frame(&mut out, fin, opcode, payload, client.then(|| rng.u32(..).to_le_bytes()));
        if deflate && matches!(opcode, Opcode::Text | Opcode::Binary) && rng.bool() {
            out[at] |= RSV1;
        }
    }
    damaged(rng, out, 3)
}

fn payload(rng: &mut Rng, opcode: Opcode) -> Vec<u8> {
    match opcode {
        Opcode::Close => {
            let code = [1000, 1001, 1005, 1011, 1012, 2999, 3000, 4999][rng.usize(0..8)];
            let mut payload = u16::to_be_bytes(code).to_vec();
            payload.extend_from_slice(&b"going away"[..rng.usize(0..11)]);
            payload.truncate([0, 1, 12, 12, 12][rng.usize(0..5)]);
            payload
        }
        Opcode::Pong if rng.bool() => checks::MARK.to_vec(),
        Opcode::Ping | Opcode::Pong => vec![rng.u8(..); rng.usize(0..126)],
        _ => {
            let most = [1, 10, 130, 400, 70_000][rng.usize(0..5)];
            vec![rng.u8(..); rng.usize(0..most)]
        }
    }
}

fn push_frame(
    out: &mut Vec<u8>,
    fin: bool,
    opcode: Opcode,
    mut payload: Vec<u8>,
    key: Option<[u8; 4]>,
) {
    let mut header = [0; HEADER_MAX];
    let size = encode_header(&mut header, fin, opcode, payload.len() as u64, key);
    out.extend_from_slice(&header[..size]);
    if let Some(key) = key {
        apply_mask(&mut payload, key, 0);
    }
    out.extend_from_slice(&payload);
}

fn head(rng: &mut Rng) -> Vec<u8> {
    let mut out = vec![rng.u8(..), rng.u8(..)];
    let starts = [
        "GET /chat?x=1 HTTP/1.1",
        "POST /a/../b HTTP/1.1",
        "HEAD http://x/y HTTP/1.1",
        "GET ws://x?y HTTP/1.1",
        "OPTIONS http://x HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET / HTTP/1.0",
        "CONNECT x:1 HTTP/1.1",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 101 Switching Protocols",
        "HTTP/1.0 304 Not Modified",
        "GET / HTTP/2.0",
    ];
    let lines = [
        "Host: x",
        "Host: x",
        "host:\tx ",
        "Content-Length: 5",
        "Content-Length: 0",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Connection: close",
        "Connection: Upgrade, X-Forwarded-For",
        "Connection: keep-alive",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: a, b",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "X-Forwarded-For: 1.2.3.4",
        "Forwarded: for=\"[::1]\";proto=http",
        "Expect: 100-continue",
        "Cookie: a=b; c=d",
        "X: \u{e9}",
        "Empty:",
        " folded",
    ];
    let end = if rng.u8(0..20) == 0 { "\n" } else { "\r\n" };
    if rng.u8(0..20) == 0 {
        out.extend_from_slice(b"\r\n");
    }
    let mut text = starts[rng.usize(0..starts.len())].to_owned() + end;
    if rng.u8(0..4) > 0 {
        text += "Host: x\r\n";
    }
    for _ in 0..rng.usize(0..6) {
        text += lines[rng.usize(0..lines.len())];
        text += end;
    }
    if rng.u8(0..50) == 0 {
        text += &format!("Long: {}{end}", "a".repeat(rng.usize(0..4000)));
    }
    text += end;
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(&b"tail"[..rng.usize(0..5)]);
    damaged(rng, out, 2)
}

fn chunks(rng: &mut Rng) -> Vec<u8> {
    let mut out = vec![rng.u8(..), rng.u8(..)];
    for _ in 0..rng.usize(0..5) {
        let size = rng.usize(1..40);
        let extension = ["", ";a", ";a=\"b\"", ";", " ", "\t ;a"][rng.usize(0..6)];
        let zeros = "0".repeat(rng.usize(0..3));
        out.extend_from_slice(format!("{zeros}{size:x}{extension}\r\n").as_bytes());
        out.extend((0..size).map(|_| rng.u8(..)));
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n");
    for _ in 0..rng.usize(0..3) {
        out.extend_from_slice(["A: b\r\n", "Empty:\r\n", "X: y z\r\n"][rng.usize(0..3)].as_bytes());
    }
    out.extend_from_slice(b"\r\nGET /"[..rng.usize(2..8)].as_ref());
    damaged(rng, out, 2)
}

fn proxy_header(rng: &mut Rng) -> Vec<u8> {
    let mut end = || {
        let ip = if rng.bool() {
            std::net::IpAddr::from(rng.u32(..).to_be_bytes())
        } else {
            std::net::IpAddr::from(rng.u128(..).to_be_bytes())
        };
        std::net::SocketAddr::new(ip, rng.u16(..))
    };
    let (source, destination) = (end(), end());
    let (mut out, mut extra) = (Vec::new(), Vec::new());
    if rng.bool() {
        encode_v1(&mut out, source, destination);
    } else {
        for _ in 0..rng.usize(0..3) {
            push_extension(&mut extra, rng.u8(0..40), &vec![1; rng.usize(0..20)]);
        }
        encode_v2(&mut out, source, destination, &extra);
    }
    out.extend_from_slice(&b"tail"[..rng.usize(0..5)]);
    damaged(rng, out, 0)
}

/// A head of `start` with most of `good` and some of `odd`.
fn lines(rng: &mut Rng, start: &str, good: &[&str], odd: &[&str]) -> String {
    let mut text = start.to_owned() + "\r\n";
    for line in good {
        match rng.u8(0..24) {
            0 => continue,
            1 => text += &format!("{}\r\n", line.to_ascii_uppercase()),
            2 => text += &format!("{line}\r\n{line}\r\n"),
            _ => text += &format!("{line}\r\n"),
        }
    }
    for _ in 0..[0, 0, 1, 2][rng.usize(0..4)] {
        text += &format!("{}\r\n", odd[rng.usize(0..odd.len())]);
    }
    text + "\r\n"
}

fn handshake(rng: &mut Rng) -> Vec<u8> {
    let asks = [
        "Host: x",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: a, b",
        "Sec-WebSocket-Extensions: x-mux; a=1, permessage-deflate; b",
    ];
    let agrees = [
        "Upgrade: websocket",
        "Connection: keep-alive, upgrade",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "Sec-WebSocket-Protocol: b",
    ];
    let odd = [
        "Upgrade: h2c",
        "Upgrade: , websocket ,",
        "Connection: ,,",
        "Connection: close",
        "Content-Length: 0",
        "Content-Length: 1",
        "Transfer-Encoding: chunked",
        "Sec-WebSocket-Version: 8",
        "Sec-WebSocket-Protocol: c",
        "Sec-WebSocket-Protocol: a b",
        "Sec-WebSocket-Extensions: permessage-deflate",
        "Sec-WebSocket-Extensions: Permessage-Deflate; c, x-mux",
        "Sec-WebSocket-Extensions: x; y=\"a, b\"",
    ];
    let start = ["GET / HTTP/1.1", "GET / HTTP/1.1", "POST / HTTP/1.1", "GET / HTTP/1.0"];
    let status = ["HTTP/1.1 101 Switching Protocols", "HTTP/1.1 101", "HTTP/1.1 200 OK"];
    let (first, second) = (rng.usize(0..4), rng.usize(0..4));
    let asked = lines(rng, start[first.min(second)], &asks, &odd);
    let answer = lines(rng, status[first.min(second).min(2)], &agrees, &odd);
    damaged(rng, (asked + &answer).into_bytes(), 0)
}

/// A few of `parts`, one after the other, with a little damage.
fn strung(rng: &mut Rng, parts: &[&str]) -> Vec<u8> {
    let count = rng.usize(0..9);
    let text: String = (0..count).map(|_| parts[rng.usize(0..parts.len())]).collect();
    damaged(rng, text.into_bytes(), 0)
}

fn target(rng: &mut Rng) -> Vec<u8> {
    let start = ["/", "/", "/", "?", "http://h", "*", ""][rng.usize(0..7)];
    let parts = [
        "/", "admin", "a", "b", ".", "..", "%2e", "%2F", "%61dmin", ";", "%3b", "%5c", "\\", "?",
        "#", "%", "%2", "%00", "=", "\u{e9}", " ",
    ];
    [start.as_bytes(), &strung(rng, &parts)].concat()
}

fn cookie(rng: &mut Rng) -> Vec<u8> {
    let tokens = requests::tokens();
    let token = String::from_utf8_lossy(&tokens[rng.usize(0..tokens.len())]).into_owned();
    let parts = [
        "sp",
        "sp=",
        "=",
        ";",
        "; ",
        " ",
        "\"",
        "a=b",
        &token,
        &token,
        "sp=\"",
        "sp=forged",
        "SP=",
    ];
    strung(rng, &parts)
}

fn query(rng: &mut Rng) -> Vec<u8> {
    let parts = ["room", "=", "&", "a%20b", "a+b", "%6foom", "r%6Fom", "7", "%", "%zz", "+", "a b"];
    strung(rng, &parts)
}

fn host(rng: &mut Rng) -> Vec<u8> {
    let parts = [
        "example.org",
        "EXAMPLE.org",
        ".",
        "a",
        "*.",
        "[",
        "]",
        "[2001:db8::1]",
        "[2001:DB8:0::1]",
        "10.0.0.1",
        ":",
        ":80",
        ":123456",
        "@",
        "/",
        "_-",
    ];
    let count = rng.usize(0..4);
    let text: String = (0..count).map(|_| parts[rng.usize(0..parts.len())]).collect();
    damaged(rng, text.into_bytes(), 0)
}

#[test]
fn handshakes() {
    seeded(5_000, noise, requests::handshake);
    seeded(30_000, handshake, requests::handshake);
}

#[test]
fn targets() {
    seeded(20_000, noise, requests::target);
    seeded(30_000, target, requests::target);
}

#[test]
fn cookies() {
    seeded(5_000, noise, requests::cookie);
    seeded(10_000, cookie, requests::cookie);
}

#[test]
fn queries() {
    seeded(20_000, noise, requests::query);
    seeded(30_000, query, requests::query);
}

#[test]
fn hosts() {
    seeded(20_000, noise, requests::host);
    seeded(30_000, host, requests::host);
}

#[test]
fn frames() {
    seeded(20_000, noise, checks::frame);
    seeded(20_000, |rng| stream(rng).split_off(3), checks::frame);
}

#[test]
fn tunnels() {
    seeded(20_000, noise, checks::tunnel);
    seeded(20_000, stream, checks::tunnel);
}

#[test]
fn heads() {
    seeded(20_000, noise, checks::head);
    seeded(30_000, head, checks::head);
}

#[test]
fn chunked_bodies() {
    seeded(20_000, noise, checks::chunked);
    seeded(30_000, chunks, checks::chunked);
}

#[test]
fn prefaces() {
    seeded(20_000, noise, checks::preface);
    seeded(20_000, proxy_header, checks::preface);
}

fn any_frame() -> impl Strategy<Value = (bool, Opcode, Vec<u8>, [u8; 4])> {
    let opcode = proptest::sample::select(Opcode::ALL.to_vec());
    let payload = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..20),
        Just(checks::MARK.to_vec()),
        Just(vec![3, 0xe8]),
        proptest::collection::vec(any::<u8>(), 120..140),
    ];
    (any::<bool>(), opcode, payload, any::<[u8; 4]>())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// The same twin test, with inputs that shrink to something a person can read.
    #[test]
    fn the_tunnel_equals_its_slow_twin(
        choice in 0u8..64,
        cuts in any::<(u8, u8)>(),
        frames in proptest::collection::vec(any_frame(), 0..8),
        cut_short in 0usize..30,
    ) {
        let mut input = vec![choice, cuts.0, cuts.1];
        for (fin, opcode, payload, key) in frames {
            push_frame(&mut input, fin, opcode, payload, (choice & 1 == 0).then_some(key));
        }
        input.truncate(input.len().saturating_sub(cut_short).max(3));
        checks::tunnel(&input);
    }
}
