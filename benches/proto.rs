//! What the wire rooms cost: a header, a tunnel over small and large frames, a head, a rewrite.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use standpipe::proto::frame::{self, End, Opcode, apply_mask, encode_header};
use standpipe::proto::http::forwarded::{Origin, forward};
use standpipe::proto::http::{Edits, HeadLimits, HeadScanner, parse_request, write_request};
use standpipe::proto::tunnel::{FrameLimits, Part, Rules, Sink, Tunnel};
use standpipe::proto::upgrade;

const KEY: [u8; 4] = [1, 2, 3, 4];

/// Counts as the relay does, and sums the parts instead of sending them.
#[derive(Default)]
struct Counts {
    parts: usize,
    frames: [u64; 6],
    bytes: [u64; 6],
}

impl Sink for Counts {
    fn pass(&mut self, _: Part<'_>) {
        self.parts += 1;
    }
    fn frame(&mut self, opcode: Opcode, _: bool) {
        self.frames[opcode.index()] += 1;
    }
    fn payload(&mut self, opcode: Opcode, bytes: u64) {
        self.bytes[opcode.index()] += bytes;
    }
    fn close(&mut self, _: Option<u16>) {}
    fn pong(&mut self) {}
}

fn frames(size: u64, total: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while out.len() < total {
        let mut header = [0; frame::HEADER_MAX];
        let used = encode_header(&mut header, true, Opcode::Binary, size, Some(KEY));
        out.extend_from_slice(&header[..used]);
        out.resize(out.len() + size as usize, 7);
    }
    out
}

fn frame(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame");
    let one = frames(128, 1);
    group.bench_function("decode", |b| {
        b.iter(|| frame::decode(black_box(&one), End::Client, true));
    });
    let mut payload = vec![7; 16 << 10];
    group.throughput(Throughput::Bytes(payload.len() as u64));
    group.bench_function("mask 16 KiB", |b| b.iter(|| apply_mask(black_box(&mut payload), KEY, 1)));
    group.finish();
}

fn tunnel(c: &mut Criterion) {
    let mut group = c.benchmark_group("tunnel");
    let rules = Rules { from: End::Client, deflate: true };
    let limits = FrameLimits { max_frame: 1 << 20, max_message: 1 << 20, ..FrameLimits::default() };
    for (name, size) in [("16 B", 16), ("128 B", 128), ("2 KiB", 2 << 10), ("64 KiB", 64 << 10)] {
        let stream = frames(size, 16 << 10);
        let count = stream.len() as u64 / (size + 6);
        group.throughput(Throughput::Elements(count.max(1)));
        group.bench_function(format!("a buffer of {name} frames"), |b| {
            let (mut tunnel, mut counts) = (Tunnel::new(rules), Counts::default());
            b.iter(|| tunnel.feed(black_box(&stream), &limits, &mut counts));
        });
    }
    let one = frames(128, 1);
    group.throughput(Throughput::Elements(1));
    group.bench_function("one 128 B frame", |b| {
        let (mut tunnel, mut counts) = (Tunnel::new(rules), Counts::default());
        b.iter(|| tunnel.feed(black_box(&one), &limits, &mut counts));
    });
    let (start, end) = one.split_at(3);
    group.bench_function("one 128 B frame, header cut", |b| {
        let (mut tunnel, mut counts) = (Tunnel::new(rules), Counts::default());
        b.iter(|| {
            let first = tunnel.feed(black_box(start), &limits, &mut counts);
            (first, tunnel.feed(black_box(end), &limits, &mut counts))
        });
    });
    group.finish();
}

/// What a browser sends to open a socket.
const HEAD: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: chat.example.org\r\nConnection: Upgrade\r\n\
    Pragma: no-cache\r\nCache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/140.0.0.0 Safari/537.36\r\n\
    Upgrade: websocket\r\nOrigin: https://chat.example.org\r\nSec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9\r\n\
    Cookie: session=0123456789abcdef; standpipe=AAAAAAAAAAAAAAAAAAAAAA\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";

fn head(c: &mut Criterion) {
    let mut group = c.benchmark_group("head");
    let limits = HeadLimits::default();
    let bytes = HEAD.as_bytes();
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("scan", |b| {
        b.iter(|| HeadScanner::new().scan(black_box(bytes), &limits));
    });
    group.bench_function("scan, one byte at a time", |b| {
        b.iter(|| {
            let mut scanner = HeadScanner::new();
            for end in 1..bytes.len() {
                let _ = black_box(scanner.scan(&bytes[..end], &limits));
            }
        });
    });
    group.bench_function("parse", |b| b.iter(|| parse_request(black_box(bytes), &limits)));
    let parsed = parse_request(bytes, &limits).expect("a legal head");
    group.bench_function("judge the upgrade", |b| {
        b.iter(|| upgrade::request(black_box(&parsed)));
    });
    group.bench_function("accept key", |b| {
        b.iter(|| upgrade::accept_key(black_box(b"dGhlIHNhbXBsZSBub25jZQ==")));
    });
    let client = std::net::Ipv4Addr::LOCALHOST.into();
    let origin = Origin { client, real: client, port: 8443, tls: true, trusted: false };
    let mut out = Vec::with_capacity(2 << 10);
    group.bench_function("forward and rewrite", |b| {
        b.iter(|| {
            out.clear();
            let mut edits = Edits::default();
            forward(&parsed, &origin, &mut edits);
            write_request(&mut out, black_box(&parsed), &edits);
        });
    });
    group.finish();
}

criterion_group!(benches, frame, tunnel, head);
criterion_main!(benches);
