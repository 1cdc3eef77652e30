//! The rules of RFC 6455 §5 one by one, each at every cut. The slow twin and random streams are in
//! `tests/decoders.rs`.

use super::super::frame::Control;
use super::*;

#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    passed: Vec<u8>,
    frames: Vec<(Opcode, bool)>,
    payload: [u64; 6],
    closes: Vec<Option<u16>>,
    pongs: usize,
}

struct Recorder<'a> {
    fed: &'a [u8],
    seen: &'a mut Seen,
    parts: usize,
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
        self.seen.pongs += 1;
    }
}

const CLIENT: Rules = Rules { from: End::Client, deflate: false };
const SERVER: Rules = Rules { from: End::Server, deflate: false };
const KEY: Option<[u8; 4]> = Some([0x37, 0xfa, 0x21, 0x3d]);

fn fed(rules: Rules, limits: &FrameLimits, pieces: &[&[u8]]) -> (Seen, Verdict) {
    let (mut tunnel, mut seen, mut verdict) = (Tunnel::new(rules), Seen::default(), Verdict::Open);
    for piece in pieces {
        let mut sink = Recorder { fed: piece, seen: &mut seen, parts: 0 };
        verdict = tunnel.feed(piece, limits, &mut sink);
        if matches!(verdict, Verdict::Bad(_)) {
            break;
        }
    }
    (seen, verdict)
}

/// Whole, cut in two at every byte, and byte by byte: always the same.
fn all_cuts(rules: Rules, limits: &FrameLimits, bytes: &[u8]) -> (Seen, Verdict) {
    let whole = fed(rules, limits, &[bytes]);
    for cut in 0..=bytes.len() {
        let (a, b) = bytes.split_at(cut);
        assert_eq!(fed(rules, limits, &[a, b]), whole, "{bytes:02x?} cut at {cut}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    if !single.is_empty() {
        assert_eq!(fed(rules, limits, &single), whole, "{bytes:02x?} byte by byte");
    }
    whole
}

fn passes(rules: Rules, bytes: &[u8]) -> Seen {
    let (seen, verdict) = all_cuts(rules, &FrameLimits::default(), bytes);
    assert_eq!((verdict, &seen.passed[..]), (Verdict::Open, bytes));
    seen
}

fn refused(rules: Rules, limits: &FrameLimits, bytes: &[u8]) -> Fault {
    match all_cuts(rules, limits, bytes) {
        (_, Verdict::Bad(fault)) => fault,
        other => panic!("{other:?} for {bytes:02x?}"),
    }
}

#[test]
fn a_burst_of_whole_frames_is_one_part() {
    let mut burst = Vec::new();
    for size in [0, 1, 125, 126, 300, 70_000] {
        let mut header = [0; HEADER_MAX];
        let used = frame::encode_header(&mut header, true, Opcode::Binary, size, KEY);
        burst.extend_from_slice(&header[..used]);
        burst.resize(burst.len() + size as usize, 7);
    }
    let (mut tunnel, mut seen) = (Tunnel::new(CLIENT), Seen::default());
    let mut sink = Recorder { fed: &burst, seen: &mut seen, parts: 0 };
    assert_eq!(tunnel.feed(&burst, &FrameLimits::default(), &mut sink), Verdict::Open);
    assert_eq!(sink.parts, 1);
    assert_eq!(seen.frames.len(), 6);
    assert_eq!(seen.payload[Opcode::Binary.index()], 126 + 426 + 70_000);
    assert!(tunnel.at_boundary() && tunnel.may_end());
}

#[test]
fn fragments_with_control_frames_between() {
    let stream = [
        &[0x01, 0x03, 0x48, 0x65, 0x6c][..],
        Control::ping(b"Hello", None).as_bytes(),
        &[0x00, 0x00],
        Control::pong(b"", None).as_bytes(),
        &[0x80, 0x02, 0x6c, 0x6f],
        &[0x81, 0x01, 0x21],
    ]
    .concat();
    let seen = passes(SERVER, &stream);
    let expected = [
        (Opcode::Text, false),
        (Opcode::Ping, true),
        (Opcode::Continuation, false),
        (Opcode::Pong, true),
        (Opcode::Continuation, true),
        (Opcode::Text, true),
    ];
    assert_eq!(seen.frames, expected);
    assert_eq!(seen.payload, [2, 4, 0, 0, 5, 0]);
}

#[test]
fn s15_each_rule() {
    let no = FrameLimits::default();
    let cases: &[(Rules, &[u8], Fault)] = &[
        (CLIENT, &[0x81, 0x01, 0x21], Fault::Unmasked),
        (SERVER, &[0x81, 0x81, 1, 2, 3, 4, 0x21], Fault::Masked),
        (SERVER, &[0x89, 0x7e, 0, 126], Fault::ControlTooLong),
        (SERVER, &[0x09, 0x00], Fault::ControlFragmented),
        (SERVER, &[0x83, 0x00], Fault::ReservedOpcode(3)),
        (SERVER, &[0x8f, 0x00], Fault::ReservedOpcode(15)),
        (SERVER, &[0xc1, 0x00], Fault::ReservedBit),
        (SERVER, &[0x80, 0x00], Fault::OrphanContinuation),
        (SERVER, &[0x01, 0x00, 0x81, 0x00], Fault::UnfinishedMessage),
        (SERVER, &[0x01, 0x00, 0x80, 0x00, 0x80, 0x00], Fault::OrphanContinuation),
        (SERVER, &[0x88, 0x01, 0x03], Fault::CloseTruncated),
        (SERVER, &[0x88, 0x02, 0x03, 0xed], Fault::CloseCode(1005)),
        (SERVER, &[0x88, 0x02, 0x03, 0xee], Fault::CloseCode(1006)),
        (SERVER, &[0x88, 0x02, 0x03, 0xf7], Fault::CloseCode(1015)),
        (SERVER, &[0x88, 0x02, 0x03, 0xe7], Fault::CloseCode(999)),
    ];
    for (rules, bytes, fault) in cases {
        assert_eq!(refused(*rules, &no, bytes), *fault, "{bytes:02x?}");
        assert_eq!(fault.code(), 1002);
        // A legal frame before it still goes out whole, and nothing of the bad one does.
        let first = Control::ping(b"x", KEY.filter(|_| rules.from == End::Client));
        let (seen, _) = all_cuts(*rules, &no, &[first.as_bytes(), bytes].concat());
        assert!(seen.passed.starts_with(first.as_bytes()));
        let more = seen.passed.len() - first.as_bytes().len();
        assert!(more <= 4 && more.is_multiple_of(2), "only whole frames: {bytes:02x?}");
    }
}

#[test]
fn rsv1_follows_what_was_agreed() {
    let deflate = Rules { from: End::Server, deflate: true };
    passes(deflate, &[0xc1, 0x01, 0x00, 0x41, 0x00, 0x80, 0x00, 0x82, 0x00]);
    let no = FrameLimits::default();
    assert_eq!(refused(deflate, &no, &[0x41, 0x00, 0xc0, 0x00]), Fault::ReservedBit);
    assert_eq!(refused(deflate, &no, &[0xc9, 0x00]), Fault::ReservedBit);
    assert_eq!(refused(deflate, &no, &[0xe1, 0x00]), Fault::ReservedBit);
}

/// S14: lengths are numbers to compare, never to reserve.
#[test]
fn s14_lengths() {
    let no = FrameLimits::default();
    let huge = [0x82, 0x7f, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let seen = passes(SERVER, &huge);
    assert_eq!(seen.frames, [(Opcode::Binary, true)]);
    let msb = [0x82, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(refused(SERVER, &no, &msb), Fault::LengthTooLarge);
    assert_eq!(refused(SERVER, &no, &[0x82, 0x7e, 0, 0x7d]), Fault::LengthNotMinimal);
    let limits = FrameLimits { max_frame: 100, ..no };
    assert_eq!(refused(SERVER, &limits, &huge), Fault::FrameTooLarge);
    assert_eq!(Fault::FrameTooLarge.code(), 1009);
    assert_eq!(refused(SERVER, &limits, &[0x82, 101]), Fault::FrameTooLarge);
    // Two unfinished fragments of 2^63-1 each do not wrap.
    let mut unfinished = huge;
    unfinished[0] = 0x02;
    let mut tunnel = Tunnel::new(SERVER);
    let mut seen = Seen::default();
    for first in [0x02, 0x00, 0x00] {
        unfinished[0] = first;
        let mut sink = Recorder { fed: &unfinished, seen: &mut seen, parts: 0 };
        assert_eq!(tunnel.feed(&unfinished, &no, &mut sink), Verdict::Open);
        assert_eq!(tunnel.skip(i64::MAX as u64).0, Opcode::from_bits(first).unwrap());
    }
    let mut sink = Recorder { fed: &[0, 1], seen: &mut seen, parts: 0 };
    let limits = FrameLimits { max_message: u64::MAX - 1, ..no };
    let verdict = tunnel.feed(&[0, 1], &limits, &mut sink);
    assert_eq!(verdict, Verdict::Bad(Fault::MessageTooLarge));
}

#[test]
fn a_message_is_bounded_without_being_assembled() {
    let limits = FrameLimits { max_message: 4, ..FrameLimits::default() };
    let fits = [0x01, 2, b'a', b'b', 0x89, 0, 0x80, 2, b'c', b'd', 0x82, 4, 1, 2, 3, 4];
    let (seen, verdict) = all_cuts(SERVER, &limits, &fits);
    assert_eq!((verdict, &seen.passed[..]), (Verdict::Open, &fits[..]));
    assert_eq!(refused(SERVER, &limits, &[0x82, 5]), Fault::MessageTooLarge);
    let over = [0x01, 2, b'a', b'b', 0x00, 2, b'c', b'd', 0x80, 1];
    assert_eq!(refused(SERVER, &limits, &over), Fault::MessageTooLarge);
    assert_eq!(Fault::MessageTooLarge.code(), 1009);
}

#[test]
fn a_close_passes_and_what_follows_it_does_not() {
    for (rules, mask) in [(CLIENT, KEY), (SERVER, None)] {
        let close = Control::close(1012, "service restart", mask);
        let mut stream = close.as_bytes().to_vec();
        stream.extend_from_slice(Control::ping(b"late", mask).as_bytes());
        stream.extend_from_slice(b"\xff\xff garbage");
        let (seen, verdict) = all_cuts(rules, &FrameLimits::default(), &stream);
        assert_eq!(verdict, Verdict::Closed);
        assert_eq!(seen.passed, close.as_bytes());
        assert_eq!(seen.closes, [Some(1012)]);
        assert_eq!(seen.frames, [(Opcode::Close, true)]);
    }
    let (seen, verdict) = all_cuts(SERVER, &FrameLimits::default(), &[0x88, 0x00, 0x81, 0x00]);
    assert_eq!((verdict, seen.closes), (Verdict::Closed, vec![None]));
}

#[test]
fn our_own_pong_is_swallowed_and_no_other() {
    let mark = *b"standpip";
    let limits = FrameLimits { mark: Some(mark), ..FrameLimits::default() };
    for (rules, mask) in [(CLIENT, KEY), (SERVER, None)] {
        let before = Control::ping(b"a", mask);
        let own = Control::pong(&mark, mask);
        let near = Control::pong(b"standpiP", mask);
        let long = Control::pong(b"standpip!", mask);
        let short = Control::pong(b"standpi", mask);
        let ping = Control::ping(&mark, mask);
        let others: Vec<u8> =
            [near, long, short, ping].iter().flat_map(|c| c.as_bytes().to_vec()).collect();
        let stream =
            [before.as_bytes(), own.as_bytes(), &others, own.as_bytes(), before.as_bytes()]
                .concat();
        let (seen, verdict) = all_cuts(rules, &limits, &stream);
        assert_eq!((verdict, seen.pongs), (Verdict::Open, 2));
        assert_eq!(seen.passed, [before.as_bytes(), &others, before.as_bytes()].concat());
        assert_eq!(passes(rules, &stream).pongs, 0, "without a mark all of it passes");
    }
}

#[test]
fn a_held_pong_is_let_go_when_its_mark_is_no_longer_awaited() {
    let limits = FrameLimits { mark: Some(*b"standpip"), ..FrameLimits::default() };
    let pong = Control::pong(b"standpip", KEY);
    let (a, b) = pong.as_bytes().split_at(9);
    let (mut tunnel, mut seen) = (Tunnel::new(CLIENT), Seen::default());
    let mut sink = Recorder { fed: a, seen: &mut seen, parts: 0 };
    assert_eq!(tunnel.feed(a, &limits, &mut sink), Verdict::Open);
    assert!(tunnel.at_boundary() && !tunnel.may_end());
    assert_eq!(tunnel.held(), a);
    let mut sink = Recorder { fed: b, seen: &mut seen, parts: 0 };
    assert_eq!(tunnel.feed(b, &FrameLimits::default(), &mut sink), Verdict::Open);
    assert_eq!((&seen.passed[..], seen.payload[Opcode::Pong.index()]), (pong.as_bytes(), 8));
    assert!(tunnel.may_end());
}

#[test]
fn boundaries_are_known_and_payload_may_be_skipped() {
    let (mut tunnel, mut seen) = (Tunnel::new(SERVER), Seen::default());
    let start = [0x02, 0x7e, 0x10, 0x00, 1, 2, 3];
    let mut sink = Recorder { fed: &start, seen: &mut seen, parts: 0 };
    assert_eq!(tunnel.feed(&start, &FrameLimits::default(), &mut sink), Verdict::Open);
    assert_eq!((tunnel.at_boundary(), tunnel.bytes_to_boundary()), (false, 4093));
    assert_eq!(tunnel.skip(4000), (Opcode::Binary, 4000));
    assert_eq!(tunnel.skip(93), (Opcode::Binary, 93));
    assert!(tunnel.at_boundary() && tunnel.in_message());
    // Half a header: what has gone out still ends at a boundary.
    let mut sink = Recorder { fed: &[0x80], seen: &mut seen, parts: 0 };
    assert_eq!(tunnel.feed(&[0x80], &FrameLimits::default(), &mut sink), Verdict::Open);
    assert!(tunnel.at_boundary() && !tunnel.may_end());
    let mut sink = Recorder { fed: &[0x00], seen: &mut seen, parts: 0 };
    assert_eq!(tunnel.feed(&[0x00], &FrameLimits::default(), &mut sink), Verdict::Open);
    assert!(tunnel.may_end() && !tunnel.in_message());
    assert_eq!(seen.passed, [&start[..], &[0x80, 0x00]].concat());
}

#[test]
fn a_long_frame_may_be_begun_without_being_taken() {
    let no = FrameLimits::default();
    let rules = Rules { from: End::Client, deflate: false };
    let header = |opcode, length| {
        let mut bytes = [0; HEADER_MAX];
        let size = frame::encode_header(&mut bytes, true, opcode, length, Some([1, 2, 3, 4]));
        bytes[..size].to_vec()
    };
    let long = header(Opcode::Binary, 70_000);
    let mut tunnel = Tunnel::new(rules);
    for cut in 0..long.len() {
        assert_eq!(tunnel.peek(&long[..cut], 16_384, &no), None, "{cut} bytes");
    }
    assert_eq!(tunnel, Tunnel::new(rules), "nothing has changed");
    // Short, controlling, closing or beyond a limit: not this way.
    assert_eq!(tunnel.peek(&header(Opcode::Binary, 16_383), 16_384, &no), None);
    assert_eq!(tunnel.peek(&header(Opcode::Ping, 100), 1, &no), None);
    assert_eq!(tunnel.peek(&header(Opcode::Close, 0), 0, &no), None);
    let less = FrameLimits { max_frame: 69_999, ..no };
    assert_eq!(tunnel.peek(&long, 16_384, &less), None);
    let none = FrameLimits { messages: Some(0), ..no };
    assert_eq!(tunnel.peek(&long, 16_384, &none), None);
    assert_eq!(tunnel, Tunnel::new(rules), "nothing has changed");

    let seen = tunnel.peek(&long, 16_384, &no).expect("a long frame");
    assert_eq!((seen.length, usize::from(seen.size)), (70_000, long.len()));
    assert_eq!(tunnel.bytes_to_boundary(), 70_000 + long.len() as u64);
    assert_eq!(tunnel.skip(70_000 + long.len() as u64), (Opcode::Binary, 70_000));
    assert!(tunnel.at_boundary());
    assert!(tunnel.peek(&long, 16_384, &no).is_some(), "and the next");
}

#[test]
fn frames_begun_together_end_at_one_boundary() {
    let no = FrameLimits::default();
    let rules = Rules { from: End::Client, deflate: false };
    let header = |opcode, fin, length| {
        let mut bytes = [0; HEADER_MAX];
        let size = frame::encode_header(&mut bytes, fin, opcode, length, Some([1, 2, 3, 4]));
        bytes[..size].to_vec()
    };
    let frame =
        |opcode, fin, length: usize| [header(opcode, fin, length as u64), vec![7; length]].concat();
    let mut tunnel = Tunnel::new(rules);
    let mut seen = Seen::default();
    // The first one's header is held for a while, and leaves nothing behind that counts.
    let first = frame(Opcode::Binary, true, 300);
    for part in [&first[..3], &first[3..100]] {
        let mut sink = Recorder { fed: part, seen: &mut seen, parts: 0 };
        assert_eq!(tunnel.feed(part, &no, &mut sink), Verdict::Open);
    }
    for length in [200, 70_000] {
        assert!(tunnel.peek(&header(Opcode::Binary, true, length), 100, &no).is_some());
    }
    for other in [
        header(Opcode::Text, true, 200), // counted under another opcode
        header(Opcode::Continuation, true, 200), // of nothing
        header(Opcode::Binary, true, 99), // too short
        header(Opcode::Ping, true, 100),
        header(Opcode::Close, true, 100),
    ] {
        let before = tunnel;
        assert_eq!(tunnel.peek(&other, 100, &no), None, "{other:?}");
        assert_eq!(tunnel, before);
    }
    let left = (first.len() - 100) as u64;
    let headers = 8 + 14;
    assert_eq!(tunnel.bytes_to_boundary(), left + headers + 70_200);
    // In whatever pieces it goes, by the pipe or in place, payload is counted and headers are not.
    let (opcode, payload) = tunnel.skip(left + 4);
    assert_eq!((opcode, tunnel.at_boundary()), (Opcode::Binary, false));
    let rest =
        [&frame(Opcode::Binary, true, 200)[4..], &frame(Opcode::Binary, true, 70_000)].concat();
    let mut sink = Recorder { fed: &rest, seen: &mut seen, parts: 0 };
    assert_eq!(tunnel.feed(&rest, &no, &mut sink), Verdict::Open);
    assert!(tunnel.at_boundary() && tunnel.may_end());
    assert_eq!(payload + seen.payload[Opcode::Binary.index()], 300 + 200 + 70_000);
}
