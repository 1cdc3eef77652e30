//! Fixed work for the instruction counter: `guard CASE ITERATIONS` runs one case so many times and
//! prints nothing. `benches/guard/run` counts two lengths under callgrind; what start and set-up
//! cost is in both and falls out. Without arguments it names its cases.

use std::hint::black_box;

use standpipe::balance::{
    BOUND, Cursor, Group, Ledger, Load, Loads, Member, Policy, ServerId, key_of,
};
use standpipe::proto::frame::{self, End, Opcode, encode_header};
use standpipe::proto::http::{HeadLimits, HeadScanner, parse_request};
use standpipe::proto::record::{Keys, Role, Session, Suite};
use standpipe::proto::tunnel::{FrameLimits, Part, Rules, Sink, Tunnel};
use standpipe::proto::upgrade;
use standpipe::route::cookie::{Attributes, Cookie};
use standpipe::route::{Headers, Pattern, Request, Routes, Target};

/// A name, and what runs a number of times under it.
type Case = (&'static str, fn(u32));

const CASES: [Case; 11] = [
    ("frame", decode),
    ("tunnel-128", |times| tunnel(128, times)),
    ("tunnel-16k", |times| tunnel(16 << 10, times)),
    ("head-scan", scan),
    ("head-parse", parse),
    ("upgrade", judge),
    ("record-128", record),
    ("pick-least-connections", |times| pick(Policy::LeastConnections, times)),
    ("pick-source-hash", |times| pick(Policy::SourceHash { bounded: Some(BOUND) }, times)),
    ("route", route),
    ("cookie", cookie),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let chosen = CASES.iter().find(|case| words.first().is_some_and(|word| word == case.0));
    let times = words.get(1).and_then(|word| word.parse().ok());
    match (chosen, times) {
        (Some((_, run)), Some(times)) => run(times),
        _ => CASES.iter().for_each(|case| println!("{}", case.0)),
    }
}

fn frames(size: u64, count: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..count {
        let mut header = [0; frame::HEADER_MAX];
        let used = encode_header(&mut header, true, Opcode::Binary, size, Some([1, 2, 3, 4]));
        out.extend_from_slice(&header[..used]);
        out.resize(out.len() + size as usize, 7);
    }
    out
}

fn decode(times: u32) {
    let one = frames(128, 1);
    for _ in 0..times {
        let _ = black_box(frame::decode(black_box(&one), End::Client, true));
    }
}

struct Swallow(usize);

impl Sink for Swallow {
    fn pass(&mut self, part: Part<'_>) {
        black_box(&part);
        self.0 += 1;
    }
    fn frame(&mut self, _: Opcode, _: bool) {}
    fn payload(&mut self, _: Opcode, bytes: u64) {
        self.0 += bytes as usize;
    }
    fn close(&mut self, _: Option<u16>) {}
    fn pong(&mut self) {}
}

/// A buffer of four frames, as a busy socket's.
fn tunnel(size: u64, times: u32) {
    let stream = frames(size, 4);
    let limits = FrameLimits { max_frame: 1 << 20, max_message: 1 << 20, ..FrameLimits::default() };
    let mut tunnel = Tunnel::new(Rules { from: End::Client, deflate: true });
    let mut sink = Swallow(0);
    for _ in 0..times {
        let _ = black_box(tunnel.feed(black_box(&stream), &limits, &mut sink));
    }
    black_box(sink.0);
}

/// What a browser sends to open a socket.
const HEAD: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: chat.example.org\r\nConnection: Upgrade\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0\r\n\
    Upgrade: websocket\r\nOrigin: https://chat.example.org\r\nSec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9\r\n\
    Cookie: session=0123456789abcdef; theme=dark\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn scan(times: u32) {
    let limits = HeadLimits::default();
    for _ in 0..times {
        let _ = black_box(HeadScanner::new().scan(black_box(HEAD.as_bytes()), &limits));
    }
}

fn parse(times: u32) {
    let limits = HeadLimits::default();
    for _ in 0..times {
        let _ = black_box(parse_request(black_box(HEAD.as_bytes()), &limits));
    }
}

fn judge(times: u32) {
    let limits = HeadLimits::default();
    let head = parse_request(HEAD.as_bytes(), &limits).expect("a legal head");
    for _ in 0..times {
        let _ = black_box(upgrade::request(black_box(&head)));
    }
}

/// A client's record opened and sealed towards another: what one message over wss costs in TLS.
fn record(times: u32) {
    let keys = || Keys::tls13(Suite::Aes128Gcm, &[7; 32], 0).expect("a secret of the right length");
    let mut client = Session::new(Role::Client, keys(), keys());
    let mut server = Session::new(Role::Server, keys(), keys());
    let plain = [7; 128];
    let mut wire = vec![0; Session::sealed_max(plain.len())];
    for _ in 0..times {
        let sealed = client.seal(black_box(&plain), &mut wire).expect("room for the record");
        let opened = server.open(&mut wire[..sealed.written]);
        assert_eq!(opened.plain.len(), plain.len());
    }
}

fn pick(policy: Policy, times: u32) {
    let member = |i: u32| {
        let name = format!("10.0.{}.{}:9000", i / 256, i % 256);
        Member::new(ServerId(i), key_of(name.as_bytes()), 1 + i % 3)
    };
    let group = Group::build(policy, (0..100).map(member).collect());
    let mut ledger = Ledger::new(0, 2);
    let mut loads = Loads::new(1, 2);
    for member in group.members() {
        let own = 20 + member.id.0 % 10;
        (0..own).for_each(|_| ledger.lease(member.id));
        loads.set(member.id, 0, &[Load { live: own, quota: 0 }, Load { live: 25, quota: 0 }]);
    }
    ledger.hear(&std::sync::Arc::new(loads));
    ledger.enrol([&group]);
    let mut cursor = Cursor::new(0);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..times {
        let (key, lot) = (random.u64(..), random.u64(..));
        black_box(group.pick(&mut cursor, &ledger, Some(key), lot, &[]));
    }
}

struct Lines(Vec<(&'static str, String)>);

impl Headers for Lines {
    fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let named = move |line: &&(&str, String)| line.0.eq_ignore_ascii_case(name);
        self.0.iter().filter(named).map(|line| line.1.as_bytes())
    }
}

fn route(times: u32) {
    let pattern = |index: usize| {
        let host = format!("h{}.example.org", index % 10);
        Pattern::default().host(&host)?.path(&format!("/app/{index}"))
    };
    let routes =
        Routes::new((0..100).filter_map(|index| pattern(index).ok()).chain([Pattern::default()]));
    let headers = Lines(Vec::new());
    for _ in 0..times {
        let target = Target::read(black_box(b"/app/1/socket?id=7")).expect("a legal target");
        let request = Request { host: b"h1.example.org:443", target, headers: &headers };
        let _ = black_box(routes.find(&request));
    }
}

fn cookie(times: u32) {
    let servers: Vec<String> = (0..100).map(|n| format!("10.0.0.{n}:9000")).collect();
    let attributes = Attributes { path: "/", ..Attributes::default() };
    let key = b"a key of more than sixteen bytes";
    let cookie = Cookie::new("sp", &attributes, key, "chat", servers.iter().map(String::as_str));
    let pair = cookie.set_cookie_header(42).and_then(|line| line.split(';').next());
    let line = format!("a=b; theme=dark; {}; session=0123456789", pair.unwrap_or_default());
    let headers = Lines(vec![("Cookie", line)]);
    for _ in 0..times {
        black_box(cookie.find(black_box(&headers)));
    }
}
