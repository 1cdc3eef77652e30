//! What must hold for any bytes at all, one function for each decoder. The fuzz targets call these,
//! and so does `tests/decoders.rs` with seeded inputs: nothing here knows who made the bytes.

use standpipe::proto::Step;
use standpipe::proto::frame::{self, End, Opcode};
use standpipe::proto::http::chunked::{ChunkFault, Chunked, Piece};
use standpipe::proto::http::forwarded::{self, Origin};
use standpipe::proto::http::{
    Connection, Edits, HeadLimits, HeadScanner, parse_request, parse_response, write_request,
    write_response,
};
use standpipe::proto::preface::{self, Mode, Preface};
use standpipe::proto::tunnel::{FrameLimits, Part, Rules, Sink, Tunnel, Verdict};
use standpipe::proto::upgrade;

#[path = "slow.rs"]
mod slow;

/// The mark that the tunnel check awaits when its first byte says so.
pub const MARK: [u8; 8] = *b"standpip";

/// A header means the same at every cut, and is written the way it was read.
pub fn frame(data: &[u8]) {
    for end in [End::Client, End::Server] {
        let whole = frame::decode(data, end, true);
        for cut in 0..data.len().min(frame::HEADER_MAX + 2) {
            let early = frame::decode(&data[..cut], end, true);
            assert!(early == Step::Need || early == whole, "{early:?} at {cut}, {whole:?}");
        }
        let Step::Done(size, header) = whole else { continue };
        assert_eq!((size, header.mask.is_some()), (header.size.into(), end == End::Client));
        let mut out = [0; frame::HEADER_MAX];
        let (opcode, length) = (header.opcode, header.length);
        let written = frame::encode_header(&mut out, header.fin, opcode, length, header.mask);
        out[0] |= if header.rsv1 { frame::RSV1 } else { 0 };
        assert_eq!(&out[..written], &data[..size]);
    }
}

/// The fast tunnel, fed in pieces and now and then told to skip, does what the slow one does with
/// the whole stream. Three bytes choose rules, limits and cuts.
pub fn tunnel(data: &[u8]) {
    let Some((&[choice, seed, step], stream)) = data.split_first_chunk::<3>() else { return };
    let end = if choice & 1 == 0 { End::Client } else { End::Server };
    let rules = Rules { from: end, deflate: choice & 2 != 0 };
    let limits = FrameLimits {
        mark: (choice & 4 != 0).then_some(MARK),
        max_frame: if choice & 8 != 0 { 200 } else { 0 },
        max_message: if choice & 16 != 0 { 300 } else { 0 },
        messages: (choice & 64 != 0).then_some(3),
    };
    let slow = slow::tunnel(stream, rules, &limits);
    let mut cuts = Cuts::new(seed, step);
    let (mut tunnel, mut seen) = (Tunnel::new(rules), slow::Seen::default());
    let (mut rest, mut verdict) = (stream, Verdict::Open);
    // Where the last of the frames that were begun together ends.
    let mut together = 0;
    while !rest.is_empty() && !matches!(verdict, Verdict::Bad(_)) {
        let (piece, after) = rest.split_at(cuts.next(rest.len()));
        let begun = seen.frames.iter().filter(|(opcode, _)| is_first(*opcode)).count() as u32;
        let limits = FrameLimits { messages: limits.messages.map(|most| most - begun), ..limits };
        if choice & 128 != 0 && peek_all(&mut tunnel, piece, limits, &mut seen) {
            // They and their headers go by another road, as far as they are there.
            let size = tunnel.bytes_to_boundary().min(piece.len() as u64) as usize;
            together = seen.passed.len() + tunnel.bytes_to_boundary() as usize;
            let (opcode, payload) = tunnel.skip(size as u64);
            seen.passed.extend_from_slice(&piece[..size]);
            seen.payload[opcode.index()] += payload;
            rest = &rest[size..];
            continue;
        }
        rest = after;
        let left = tunnel.bytes_to_boundary().min(piece.len() as u64) as usize;
        if choice & 32 != 0 && left == piece.len() && tunnel.held().is_empty() {
            let (opcode, payload) = tunnel.skip(left as u64);
            seen.passed.extend_from_slice(piece);
            seen.payload[opcode.index()] += payload;
            if tunnel.is_closed() {
                verdict = Verdict::Closed;
            }
        } else {
            let mut sink = Recorder { fed: piece, seen: &mut seen, parts: 0, pongs: 0 };
            verdict = tunnel.feed(piece, &limits, &mut sink);
            assert!(sink.parts <= sink.pongs + 2, "neighbouring frames are one part");
        }
        let at_boundary = seen.passed.len() >= together
            && slow.boundaries.binary_search(&seen.passed.len()).is_ok();
        assert_eq!(tunnel.at_boundary(), at_boundary, "{tunnel:?}");
    }
    assert_eq!(verdict, slow.verdict);
    assert_eq!(seen, slow.seen);
}

/// Begins the frames at the front of `piece`, as many as the tunnel takes; whether there were any.
fn peek_all(tunnel: &mut Tunnel, piece: &[u8], limits: FrameLimits, seen: &mut slow::Seen) -> bool {
    let mut limits = limits;
    let before = seen.frames.len();
    let beyond = |tunnel: &Tunnel| piece.get(usize::try_from(tunnel.bytes_to_boundary()).ok()?..);
    while let Some(bytes) = beyond(tunnel)
        && let Some(header) = tunnel.peek(bytes, 4, &limits)
    {
        seen.frames.push((header.opcode, header.fin));
        if let Some(left) = &mut limits.messages {
            *left -= u32::from(is_first(header.opcode));
        }
    }
    seen.frames.len() > before
}

fn is_first(opcode: Opcode) -> bool {
    matches!(opcode, Opcode::Text | Opcode::Binary)
}

struct Recorder<'a> {
    fed: &'a [u8],
    seen: &'a mut slow::Seen,
    parts: usize,
    pongs: usize,
}

impl Sink for Recorder<'_> {
    fn pass(&mut self, part: Part<'_>) {
        self.parts += 1;
        self.seen.passed.extend_from_slice(match &part {
            Part::Fed(range) => &self.fed[range.clone()],
            Part::Held(bytes) => bytes,
        });
    }
    fn frame(&mut self, opcode: Opcode, fin: bool) {
        self.seen.frames.push((opcode, fin));
    }
    fn payload(&mut self, opcode: Opcode, bytes: u64) {
        self.seen.payload[opcode.index()] += bytes;
    }
    fn close(&mut self, code: Option<u16>) {
        self.seen.closes.push(code);
    }
    fn pong(&mut self) {
        self.pongs += 1;
        self.seen.pongs += 1;
    }
}

/// A head is found, or refused, the same at every cut; and what we would send on of a legal one is
/// legal again and means the same.
pub fn head(data: &[u8]) {
    let Some((&[seed, step], bytes)) = data.split_first_chunk::<2>() else { return };
    let limits = HeadLimits { bytes: 2048, fields: 16, target: 256 };
    let whole = HeadScanner::new().scan(bytes, &limits);
    let (mut scanner, mut cuts) = (HeadScanner::new(), Cuts::new(seed, step));
    let (mut pieces, mut end) = (Step::Need, 0);
    while pieces == Step::Need && end < bytes.len() {
        end += cuts.next(bytes.len() - end);
        pieces = scanner.scan(&bytes[..end], &limits);
    }
    assert_eq!(pieces, whole, "the cuts changed the answer");
    let Step::Done(used, range) = whole else { return };
    assert!(range.end == used && used <= bytes.len());
    request(&bytes[range.clone()], &limits);
    response(&bytes[range], &limits);
}

fn request(bytes: &[u8], limits: &HeadLimits) {
    let Ok(came) = parse_request(bytes, limits) else { return };
    assert!(came.path().len() <= came.target.len().max(1) && came.fields.len() <= limits.fields);
    let _ = upgrade::request(&came);
    let mut edits = Edits::new(Connection::Silent);
    edits.host = Some("x".into());
    let client = std::net::Ipv4Addr::LOCALHOST.into();
    let trusted = bytes.len().is_multiple_of(2);
    forwarded::forward(
        &came,
        &Origin { client, real: client, port: 80, tls: false, trusted },
        &mut edits,
    );
    let mut out = Vec::new();
    write_request(&mut out, &came, &edits);
    let wide = HeadLimits { bytes: 8192, fields: 32, target: 256 };
    assert_eq!(HeadScanner::new().scan(&out, &wide), Step::Done(out.len(), 0..out.len()));
    let goes = parse_request(&out, &wide).expect("what we send on is legal");
    let target = came.origin_form().concat();
    assert_eq!((goes.method, goes.target, goes.body), (came.method, &target[..], came.body));
    assert_eq!((goes.query(), goes.origin_form().concat()), (came.query(), target));
    assert_eq!(goes.host, came.host.or(Some("x")));
    assert!(goes.keep_alive && !goes.upgrade && goes.value("connection").is_none());
}

fn response(bytes: &[u8], limits: &HeadLimits) {
    let Ok(came) = parse_response(bytes, limits, false) else { return };
    let mut out = Vec::new();
    write_response(&mut out, &came, &Edits::default());
    let wide = HeadLimits { bytes: 8192, fields: 32, target: 256 };
    let goes = parse_response(&out, &wide, false).expect("what we send on is legal");
    assert_eq!((goes.status, goes.reason, goes.body), (came.status, came.reason, came.body));
}

/// An answer's chunked body is the same at every cut, and what a reader of whole lines makes of it.
/// A request's is the same body, or refused for its trailers or a blank.
pub fn chunked(data: &[u8]) {
    let Some((&[seed, step], bytes)) = data.split_first_chunk::<2>() else { return };
    let whole = dechunked(&[bytes], Chunked::new());
    if let Ok(strict) = dechunked(&[bytes], Chunked::of_request(None)) {
        assert_eq!(Ok(&strict), whole.as_ref());
    }
    let mut cuts = Cuts::new(seed, step);
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(cuts.next(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    assert_eq!(dechunked(&pieces, Chunked::new()), whole, "the cuts changed the answer");
    let done = whole.ok().filter(|body| body.done).map(|body| (body.payload, body.used));
    assert_eq!(done, slow::chunked(bytes));
}

#[derive(Debug, PartialEq, Eq)]
struct Dechunked {
    payload: Vec<u8>,
    used: usize,
    done: bool,
}

fn dechunked(pieces: &[&[u8]], mut chunked: Chunked) -> Result<Dechunked, ChunkFault> {
    let (mut payload, mut used) = (Vec::new(), 0);
    for piece in pieces {
        let mut at = 0;
        while at < piece.len() && !chunked.is_done() {
            at += match chunked.next(&piece[at..])? {
                Piece::Payload(n) => {
                    payload.extend_from_slice(&piece[at..at + n]);
                    n
                }
                Piece::Framing(n) | Piece::End(n) => n,
            };
        }
        used += at;
    }
    Ok(Dechunked { payload, used, done: chunked.is_done() })
}

/// A PROXY header means the same at every cut and in every mode that allows it, and what it says
/// survives being written again.
pub fn preface(data: &[u8]) {
    let any = preface::decode(data, Mode::Any);
    for mode in [Mode::V1, Mode::V2, Mode::Any] {
        let whole = preface::decode(data, mode);
        for cut in 0..data.len().min(300) {
            let early = preface::decode(&data[..cut], mode);
            assert!(early == Step::Need || early == whole, "{early:?} at {cut}, {whole:?}");
        }
        assert!(whole == any || whole == Step::Bad(preface::PrefaceFault::Missing));
    }
    let Step::Done(used, fact) = any else { return };
    assert!(used <= data.len());
    let Preface::Proxied { source, destination } = fact else { return };
    let (mut one, mut two) = (Vec::new(), Vec::new());
    preface::encode_v1(&mut one, source, destination);
    preface::encode_v2(&mut two, source, destination, &[]);
    assert!(one.len() <= preface::V1_MAX);
    let Step::Done(_, from_one) = preface::decode(&one, Mode::V1) else { panic!("{fact:?}") };
    let Step::Done(_, from_two) = preface::decode(&two, Mode::V2) else { panic!("{fact:?}") };
    assert_eq!(from_one, from_two);
}

/// Where to cut: a few patterns from one byte at a time to all at once, drawn from a seed.
struct Cuts {
    state: u64,
    longest: u64,
}

impl Cuts {
    fn new(seed: u8, step: u8) -> Self {
        let longest = [1, 2, 5, 14, 60, 300, 5000, u64::MAX][usize::from(step % 8)];
        Self { state: u64::from(seed) << 8 | u64::from(step), longest }
    }

    fn next(&mut self, left: usize) -> usize {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let drawn = (self.state >> 33) % self.longest.min(1 << 30) + 1;
        if self.longest == u64::MAX { left } else { (drawn as usize).min(left) }
    }
}
