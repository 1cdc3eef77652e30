//! The relay without sockets: what goes on, what is put in between, and how it ends.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::config::plan::{self, Ping, Rule};
use crate::meter::Side;
use crate::proto::frame::{self, Control, End, Opcode};

use super::{GRACE_MS, LINGER_MS, Next, Out, Relay, Stop, Why};
use crate::core::wire::terms::Terms;

/// Two ends that remember what reached them.
struct Bench {
    relay: Relay,
    now: u32,
    client: Vec<u8>,
    server: Vec<u8>,
    finished: Vec<End>,
    /// This end still takes what was said to it before.
    busy: Option<End>,
    /// This end is not read.
    unread: Option<End>,
}

struct Wires<'a> {
    from: End,
    bytes: &'a [u8],
    client: &'a mut Vec<u8>,
    server: &'a mut Vec<u8>,
    finished: &'a mut Vec<End>,
    busy: Option<End>,
    unread: Option<End>,
}

impl Out for Wires<'_> {
    fn forward(&mut self, span: Range<usize>) {
        let to = if self.from == End::Client { &mut *self.server } else { &mut *self.client };
        to.extend_from_slice(&self.bytes[span]);
    }
    fn insert(&mut self, to: End, bytes: &[u8]) {
        let to = if to == End::Client { &mut *self.client } else { &mut *self.server };
        to.extend_from_slice(bytes);
    }
    fn finish(&mut self, to: End) {
        self.finished.push(to);
    }
    fn leave(&mut self, _: End) {}
    fn clock(&mut self) -> u32 {
        0
    }
    fn random(&mut self) -> u32 {
        0x0102_0304
    }
    fn is_busy(&mut self, to: End, _: u32) -> bool {
        self.busy == Some(to)
    }
    fn is_unread(&mut self, from: End) -> bool {
        self.unread == Some(from)
    }
}

macro_rules! wires {
    ($bench:expr, $from:expr, $bytes:expr) => {
        &mut Wires {
            from: $from,
            bytes: $bytes,
            client: &mut $bench.client,
            server: &mut $bench.server,
            finished: &mut $bench.finished,
            busy: $bench.busy,
            unread: $bench.unread,
        }
    };
}

impl Bench {
    fn new(shape: impl FnOnce(&mut Rule)) -> Bench {
        Bench::with(shape, Some(ping(false)))
    }

    fn with(shape: impl FnOnce(&mut Rule), ping: Option<Ping>) -> Bench {
        let mut rule = Rule {
            label: "test".into(),
            pools: Vec::new(),
            relay: plan::RelayUnit::Frames,
            max_frame: 0,
            max_message: 0,
            messages_per_second: 0,
            origins: None,
        };
        shape(&mut rule);
        let terms = Terms::new(&rule, ping, Arc::default(), Arc::default());
        // A start close to where the clock wraps: nothing may notice.
        let now = u32::MAX - 1_000;
        let relay = Relay::new(Arc::new(terms), false, now, 0);
        let (client, server, finished) = (Vec::new(), Vec::new(), Vec::new());
        Bench { relay, now, client, server, finished, busy: None, unread: None }
    }

    fn from(&mut self, from: End, bytes: &[u8]) {
        self.relay.pass(from, bytes, self.now, wires!(self, from, bytes));
    }

    fn ended(&mut self, from: End, stop: Stop) {
        self.relay.ended(from, stop, self.now, wires!(self, from, &[]));
    }

    fn drain(&mut self) {
        self.relay.drain(1012, self.now, wires!(self, End::Client, &[]));
    }

    fn after(&mut self, ms: u32) -> Next {
        self.now = self.now.wrapping_add(ms);
        self.relay.sweep(self.now, 0x0123_4567_89ab_cdef, wires!(self, End::Client, &[]))
    }

    fn take_client(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.client)
    }

    fn take_server(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.server)
    }
}

fn ping(server: bool) -> Ping {
    Ping { every: Duration::from_secs(25), timeout: Duration::from_secs(20), server }
}

const KEY: [u8; 4] = [1, 2, 3, 4];

fn data(opcode: Opcode, fin: bool, mask: bool, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; frame::HEADER_MAX];
    let key = mask.then_some(KEY);
    let size = frame::encode_header(&mut header, fin, opcode, payload.len() as u64, key);
    let mut bytes = header[..size].to_vec();
    bytes.extend_from_slice(payload);
    if mask {
        frame::apply_mask(&mut bytes[size..], KEY, 0);
    }
    bytes
}

fn text(mask: bool, payload: &str) -> Vec<u8> {
    data(Opcode::Text, true, mask, payload.as_bytes())
}

fn close(code: u16, mask: bool) -> Vec<u8> {
    Control::close(code, "", mask.then_some(KEY)).as_bytes().to_vec()
}

/// The code of a Close that ends `bytes`, whatever its mask.
fn close_code(bytes: &[u8]) -> Option<u16> {
    let (size, key) = match bytes.first_chunk::<2>()? {
        [0x88, 0x02] => (2, [0; 4]),
        [0x88, 0x82] => (6, *bytes[2..].first_chunk::<4>()?),
        _ => return None,
    };
    let mut code = *bytes[size..].first_chunk::<2>()?;
    frame::apply_mask(&mut code, key, 0);
    (bytes.len() == size + 2).then(|| u16::from_be_bytes(code))
}

#[test]
fn frames_pass_untouched_cut_anywhere() {
    let up = [text(true, "hello"), data(Opcode::Binary, false, true, &[7; 300])].concat();
    let down = [text(false, "there"), data(Opcode::Text, true, false, &[b'x'; 70_000])].concat();
    for cut in (0..up.len()).chain([up.len()]) {
        let mut bench = Bench::new(|_| {});
        bench.from(End::Client, &up[..cut]);
        bench.from(End::Client, &up[cut..]);
        assert_eq!(bench.server, up, "cut at {cut}");
    }
    for cut in [1, 2, 8, 11, 12, 17, 5_000] {
        let mut bench = Bench::new(|_| {});
        bench.from(End::Server, &down[..cut]);
        bench.from(End::Server, &down[cut..]);
        assert_eq!(bench.client, down, "cut at {cut}");
    }
}

#[test]
fn a_fault_is_answered_to_the_offender_and_the_other_is_told() {
    let mut bench = Bench::new(|_| {});
    let good = text(true, "fine");
    bench.from(End::Client, &[good.clone(), text(false, "unmasked")].concat());
    assert_eq!(bench.server[..good.len()], good[..], "what came before passes");
    assert_eq!(close_code(&bench.server[good.len()..]), Some(1001));
    assert_eq!(close_code(&bench.client), Some(1002));
    bench.from(End::Client, &text(true, "never heard"));
    assert_eq!(bench.server.len(), good.len() + 8);
    assert!(matches!(bench.relay.why(), Some(Why::Fault(End::Client, _))));
    assert_eq!(bench.relay.closed_by(), Some((Side::Proxy, Some(1002))));
}

#[test]
fn a_servers_fault_is_an_internal_error_to_the_client() {
    let mut bench = Bench::new(|_| {});
    bench.from(End::Server, &text(true, "masked"));
    assert_eq!(close_code(&bench.client), Some(1011));
    assert_eq!(close_code(&bench.server), Some(1002));
}

#[test]
fn limits_answer_1009_without_waiting_for_the_payload() {
    let mut bench = Bench::new(|rule| rule.max_frame = 1000);
    let long = data(Opcode::Binary, true, true, &[0; 1001]);
    bench.from(End::Client, &long[..8]);
    assert_eq!(close_code(&bench.client), Some(1009));
    assert_eq!(close_code(&bench.server), Some(1001));

    let mut bench = Bench::new(|rule| rule.max_message = 10);
    bench.from(End::Client, &data(Opcode::Text, false, true, b"123456"));
    assert!(bench.client.is_empty());
    bench.from(End::Client, &data(Opcode::Continuation, true, true, b"123456"));
    assert_eq!(close_code(&bench.client), Some(1009));

    // The route's limits are for clients: a server may send what it likes.
    let mut bench = Bench::new(|rule| rule.max_frame = 10);
    bench.from(End::Server, &data(Opcode::Text, true, false, &[b'x'; 100]));
    assert_eq!(bench.client.len(), 102);
}

#[test]
fn too_many_messages_are_1008() {
    let mut bench = Bench::new(|rule| rule.messages_per_second = 5);
    for _ in 0..5 {
        bench.from(End::Client, &text(true, "m"));
    }
    assert!(bench.client.is_empty());
    bench.now = bench.now.wrapping_add(400);
    bench.from(End::Client, &[text(true, "m"), text(true, "m")].concat());
    assert!(bench.client.is_empty(), "two were earned");
    bench.from(End::Client, &text(true, "m"));
    assert_eq!(close_code(&bench.client), Some(1008));
    let why = Why::Fault(End::Client, frame::Fault::TooManyMessages);
    assert_eq!(bench.relay.why(), Some(why));
}

/// What a client may send is what the route says, however the clock's steps fall.
#[test]
fn any_rate_is_earned_in_full() {
    for rate in [1, 7, 9, 10, 15, 19, 1000] {
        let mut bench = Bench::new(|rule| rule.messages_per_second = rate);
        let mut sent = 0;
        // Ten seconds of a client that keeps to the rate, on a clock of tenths.
        for tenth in 1..=100 {
            bench.now = bench.now.wrapping_add(100);
            while sent < rate * tenth / 10 {
                bench.from(End::Client, &text(true, "m"));
                sent += 1;
            }
        }
        assert!(bench.client.is_empty(), "{rate} a second");
        let burst: Vec<u8> = (0..2 * rate + 2).flat_map(|_| text(true, "m")).collect();
        bench.take_server();
        bench.from(End::Client, &burst);
        assert_eq!(close_code(&bench.client), Some(1008), "{rate} a second");
        let passed = bench.server.len() / text(true, "m").len();
        assert!(passed <= rate as usize + 1, "{passed} of a burst passed at {rate} a second");
    }
}

#[test]
fn a_frame_that_comes_slowly_is_not_cut_by_a_drain() {
    let mut bench = Bench::new(|_| {});
    let long = data(Opcode::Text, true, false, &[b'x'; 100]);
    bench.from(End::Server, &long[..10]);
    bench.drain();
    for piece in long[10..].chunks(10) {
        let _ = bench.after(GRACE_MS - 1_000);
        bench.from(End::Server, piece);
        assert!(bench.finished.is_empty(), "the frame is still coming");
    }
    assert_eq!(close_code(&bench.client[long.len()..]), Some(1012));
    let _ = bench.after(GRACE_MS - 1);
    assert!(bench.finished.is_empty(), "its time for an answer begins with the Close");
    let _ = bench.after(GRACE_MS);
    assert_eq!(bench.finished, [End::Client, End::Server]);
}

#[test]
fn a_frame_that_stops_coming_is_cut_by_a_drain() {
    let mut bench = Bench::new(|_| {});
    bench.from(End::Server, &data(Opcode::Text, true, false, &[b'x'; 100])[..10]);
    bench.drain();
    let _ = bench.after(GRACE_MS + 1);
    assert_eq!(bench.finished, [End::Client, End::Server]);
    assert_eq!(bench.client.len(), 10, "no Close inside a frame");
}

#[test]
fn an_end_that_still_takes_bytes_is_waited_for() {
    let mut bench = Bench::new(|_| {});
    bench.drain();
    bench.busy = Some(End::Client);
    for _ in 0..10 {
        let _ = bench.after(GRACE_MS);
        assert!(bench.finished.is_empty());
    }
    bench.busy = None;
    let _ = bench.after(GRACE_MS);
    assert_eq!(bench.finished, [End::Client, End::Server]);
    assert_eq!(bench.after(LINGER_MS + 1), Next::Over);
}

#[test]
fn a_pong_behind_a_long_download_is_waited_for() {
    let mut bench = Bench::with(|_| {}, Some(ping(false)));
    let _ = bench.after(31_000);
    let mark = ping_at(&bench.take_client()).expect("a Ping");
    bench.busy = Some(End::Client);
    for _ in 0..5 {
        let _ = bench.after(21_000);
    }
    assert_eq!(bench.relay.why(), None);
    // When it comes at last it is still ours.
    bench.from(End::Client, Control::pong(&mark, Some(KEY)).as_bytes());
    assert!(bench.server.is_empty());
    bench.busy = None;
    let _ = bench.after(31_000);
    assert!(ping_at(&bench.take_client()).is_some(), "another Ping");
    let _ = bench.after(21_000);
    assert_eq!(bench.relay.why(), Some(Why::PingTimeout(End::Client)));
}

#[test]
fn last_words_are_said_where_a_frame_ends() {
    let mut bench = Bench::new(|_| {});
    bench.from(End::Client, &data(Opcode::Text, true, true, &[b'x'; 100])[..20]);
    let taken = bench.take_server().len();
    assert_eq!(taken, 20);
    bench.relay.leave(1001, bench.now, wires!(bench, End::Client, &[]));
    assert_eq!(close_code(&bench.client), Some(1001));
    assert!(bench.server.is_empty(), "the client's frame is not whole");
}

#[test]
fn a_close_of_ours_waits_for_the_boundary() {
    let mut bench = Bench::new(|_| {});
    let long = data(Opcode::Text, true, false, &[b'x'; 100]);
    bench.from(End::Server, &long[..50]);
    bench.drain();
    assert_eq!(bench.client.len(), 50, "not inside a frame");
    bench.from(End::Server, &[&long[50..], &text(false, "too late")[..]].concat());
    assert_eq!(bench.client[..long.len()], long[..]);
    assert_eq!(close_code(&bench.client[long.len()..]), Some(1012));
    bench.take_client();
    bench.from(End::Server, &text(false, "later still"));
    assert!(bench.client.is_empty(), "nothing follows a Close");
}

#[test]
fn a_drained_client_is_heard_until_its_close() {
    let mut bench = Bench::new(|_| {});
    bench.drain();
    assert_eq!(close_code(&bench.take_client()), Some(1012));
    let rest = [text(true, "last words"), close(1012, true)].concat();
    bench.from(End::Client, &rest);
    assert_eq!(bench.take_server(), rest, "its Close ends the server's side too");
    bench.from(End::Server, &close(1012, false));
    assert!(bench.take_client().is_empty(), "the client has its Close");
    bench.drain();
    assert!(bench.client.is_empty(), "a second drain says nothing");
    assert_eq!(bench.relay.closed_by(), Some((Side::Proxy, Some(1012))));
}

#[test]
fn a_drained_client_that_never_answers_is_left_behind() {
    let mut bench = Bench::new(|_| {});
    bench.drain();
    bench.take_client();
    assert!(matches!(bench.after(GRACE_MS - 100), Next::At(_)));
    assert!(bench.finished.is_empty());
    assert!(matches!(bench.after(200), Next::At(_)));
    assert_eq!(close_code(&bench.take_server()), Some(1001));
    assert_eq!(bench.finished, [End::Client, End::Server]);
    assert_eq!(bench.after(LINGER_MS + 1), Next::Over);
}

#[test]
fn closes_pass_untouched_and_are_recorded_once() {
    let mut bench = Bench::new(|_| {});
    bench.from(End::Client, &close(4001, true));
    assert_eq!(bench.take_server(), close(4001, true));
    bench.from(End::Server, &[close(4001, false), text(false, "stray")].concat());
    assert_eq!(bench.take_client(), close(4001, false), "what follows a Close is discarded");
    assert_eq!(bench.relay.closed_by(), Some((Side::Client, Some(4001))));
    bench.ended(End::Server, Stop::Finished);
    assert!(bench.client.is_empty());
    assert!(bench.relay.is_clean());
}

#[test]
fn a_lost_server_is_1011_at_a_boundary_and_a_bare_end_inside_a_frame() {
    let mut bench = Bench::new(|_| {});
    bench.from(End::Server, &text(false, "whole"));
    bench.take_client();
    bench.ended(End::Server, Stop::Lost);
    assert_eq!(close_code(&bench.client), Some(1011));

    let mut bench = Bench::new(|_| {});
    bench.from(End::Server, &text(false, "whole")[..4]);
    bench.take_client();
    bench.ended(End::Server, Stop::Lost);
    assert!(bench.client.is_empty());

    // Two bytes of a header were held back: the client still stands at a boundary.
    let mut bench = Bench::new(|_| {});
    bench.from(End::Server, &data(Opcode::Text, true, false, &[0; 300])[..3]);
    bench.ended(End::Server, Stop::Finished);
    assert_eq!(close_code(&bench.client), Some(1011));
}

#[test]
fn who_answers_the_close_of_a_server_that_has_left_is_waited_for_no_longer() {
    let mut bench = Bench::new(|_| {});
    bench.ended(End::Server, Stop::Finished);
    assert_eq!(close_code(&bench.take_client()), Some(1011));
    assert!(bench.finished.is_empty(), "the client has yet to answer");
    bench.from(End::Client, &close(1011, true));
    assert_eq!(bench.take_server(), close(1011, true));
    assert!(bench.finished.contains(&End::Server), "{:?}", bench.finished);
    // A server that is there still has its own FIN to say.
    let mut bench = Bench::new(|_| {});
    bench.from(End::Client, &close(1000, true));
    assert!(!bench.finished.contains(&End::Server), "{:?}", bench.finished);
}

#[test]
fn a_lost_client_is_1001_to_the_server() {
    let mut bench = Bench::new(|_| {});
    bench.ended(End::Client, Stop::Lost);
    assert_eq!(close_code(&bench.take_server()), Some(1001));
    bench.from(End::Server, &text(false, "to nobody"));
    assert!(bench.client.is_empty());
}

#[test]
fn a_client_that_finished_still_gets_what_the_server_says() {
    let mut bench = Bench::new(|_| {});
    bench.ended(End::Client, Stop::Finished);
    assert_eq!(close_code(&bench.take_server()), Some(1001));
    bench.from(End::Server, &[text(false, "bye"), close(1001, false)].concat());
    assert_eq!(bench.client, [text(false, "bye"), close(1001, false)].concat());
}

fn ping_at(bytes: &[u8]) -> Option<[u8; 8]> {
    match bytes.first_chunk::<2>()? {
        [0x89, 0x08] => bytes[2..].first_chunk::<8>().copied(),
        _ => None,
    }
}

#[test]
fn silence_is_pinged_and_only_our_pong_is_eaten() {
    let mut bench = Bench::new(|_| {});
    let Next::At(due) = bench.relay.next() else { panic!("a Ping is due some time") };
    let wait = due.wrapping_sub(bench.now);
    assert!((20_000..=30_000).contains(&wait), "{wait}");
    let _ = bench.after(wait);
    let mark = ping_at(&bench.take_client()).expect("a Ping");
    let stranger = Control::pong(b"somebody", Some(KEY));
    let ours = Control::pong(&mark, Some(KEY));
    let bytes = [stranger.as_bytes(), ours.as_bytes(), &text(true, "on")].concat();
    bench.from(End::Client, &bytes);
    assert_eq!(bench.take_server(), [stranger.as_bytes(), &text(true, "on")].concat());
    let _ = bench.after(20_001);
    assert!(bench.relay.why().is_none(), "answered in time");
}

#[test]
fn our_pong_is_eaten_however_it_is_cut() {
    for cut in 0..14 {
        let mut bench = Bench::new(|_| {});
        let _ = bench.after(30_001);
        let mark = ping_at(&bench.take_client()).expect("a Ping");
        let pong = Control::pong(&mark, Some(KEY));
        bench.from(End::Client, &pong.as_bytes()[..cut]);
        bench.from(End::Client, &pong.as_bytes()[cut..]);
        assert!(bench.server.is_empty(), "cut at {cut}");
    }
}

#[test]
fn traffic_spares_the_ping() {
    let mut bench = Bench::new(|_| {});
    for _ in 0..20 {
        let _ = bench.after(5_000);
        bench.from(End::Client, &text(true, "x"));
    }
    assert!(bench.client.is_empty());
}

#[test]
fn a_missed_ping_ends_the_pipe() {
    let mut bench = Bench::new(|_| {});
    let _ = bench.after(30_001);
    assert!(ping_at(&bench.take_client()).is_some());
    let _ = bench.after(20_001);
    assert_eq!(bench.relay.why(), Some(Why::PingTimeout(End::Client)));
    assert_eq!(close_code(&bench.server), Some(1001));
    assert!(bench.client.is_empty());
}

#[test]
fn other_data_instead_of_a_pong_is_a_sign_of_life() {
    let mut bench = Bench::new(|_| {});
    let _ = bench.after(30_001);
    bench.now = bench.now.wrapping_add(1_000);
    bench.from(End::Client, &data(Opcode::Binary, true, true, &[0; 5_000])[..100]);
    let _ = bench.after(20_000);
    assert!(bench.relay.why().is_none());
}

#[test]
fn who_is_not_read_is_not_ended_for_its_silence() {
    let mut bench = Bench::new(|_| {});
    let _ = bench.after(30_001);
    let mark = ping_at(&bench.take_client()).expect("a Ping");
    bench.unread = Some(End::Client);
    for _ in 0..10 {
        let _ = bench.after(21_000);
        assert_eq!(bench.relay.why(), None, "its Pong may lie behind what is not read");
    }
    bench.unread = None;
    bench.from(End::Client, Control::pong(&mark, Some(KEY)).as_bytes());
    let _ = bench.after(21_000);
    assert!(bench.relay.why().is_none() && bench.finished.is_empty());
}

#[test]
fn a_ping_waits_for_the_boundary_too() {
    let mut bench = Bench::new(|_| {});
    let long = data(Opcode::Text, true, false, &[b'x'; 100]);
    bench.from(End::Server, &long[..50]);
    let _ = bench.after(30_001);
    assert_eq!(bench.client.len(), 50);
    bench.from(End::Server, &[&long[50..], &text(false, "next")[..]].concat());
    assert_eq!(bench.client[..102], long[..]);
    assert!(ping_at(&bench.client[102..112]).is_some());
    assert_eq!(bench.client[112..], text(false, "next")[..]);
}

#[test]
fn a_server_is_pinged_masked_if_asked() {
    let mut bench = Bench::with(|_| {}, Some(ping(true)));
    let _ = bench.after(30_001);
    assert_eq!(bench.server[..2], [0x89, 0x88]);
    let mut mark = *bench.server[6..].first_chunk::<8>().expect("a mark");
    frame::apply_mask(&mut mark, *bench.server[2..].first_chunk().expect("a key"), 0);
    bench.take_client();
    bench.from(End::Server, Control::pong(&mark, None).as_bytes());
    assert!(bench.client.is_empty(), "eaten");
}

#[test]
fn spliced_payload_keeps_the_boundary() {
    let mut bench = Bench::new(|_| {});
    let long = data(Opcode::Binary, true, false, &[0; 100_000]);
    bench.from(End::Server, &long[..1_000]);
    let unseen = bench.relay.unseen(End::Server);
    assert_eq!(unseen, long.len() as u64 - 1_000);
    bench.drain();
    bench.take_client();
    let now = bench.now;
    bench.relay.spliced(End::Server, unseen, now, wires!(bench, End::Server, &[]));
    assert_eq!(close_code(&bench.client), Some(1012));
}
