//! What one core counts about one route: handshakes, sockets, frames, how and when they closed.

use super::counters::{cells, static_family};
use super::ending::words;
use super::{Count, Direction, Family, Gauge, Histogram, Side, Sink};

cells! {
    /// One route of an l7 listener on one core.
    RouteCounters {
        live: Gauge, "route_websockets", "Established WebSockets.";
        requests: Count, "route_requests_total", "Plain HTTP requests.";
    }
    more {
        handshakes: Handshakes,
        answers: Answers,
        closes: CloseCodes,
        frames: Frames,
        ping_rtt: PingRtt,
        age: Age,
    }
}

words! {
    /// What became of a WebSocket handshake.
    Handshake {
        Upgraded "upgraded" "Answered by a valid 101."
        Invalid "invalid" "The request was not a valid upgrade."
        OriginRefused "origin_refused" "Its origin is not allowed."
        NoServer "no_server" "No server in service, or none with room."
        DialFailed "dial_failed" "No server could be reached."
        ServerRefused "server_refused" "The server answered with another status."
        ServerInvalid "server_invalid" "The server's 101 was not valid."
        Timeout "timeout" "The server did not answer in time."
        Gone "gone" "One side left before the answer."
    }
}

words! {
    /// Kinds of frames; the reserved ones are never relayed.
    Opcode {
        Continuation "continuation" "Part of a message after its first frame."
        Text "text" "Text message."
        Binary "binary" "Binary message."
        Close "close" "Close."
        Ping "ping" "Ping."
        Pong "pong" "Pong."
    }
}

/// Handshakes by result.
#[derive(Debug, Default)]
pub struct Handshakes([Count; Handshake::ALL.len()]);

impl Handshakes {
    pub fn count(&self, result: Handshake) {
        self.0[result as usize].inc();
    }

    pub fn get(&self, result: Handshake) -> u64 {
        self.0[result as usize].get()
    }

    pub fn each(&self, f: &mut Sink<'_>) {
        static BY_RESULT: Family =
            Family::counter("route_handshakes_total", "WebSocket handshakes by result.");
        for result in Handshake::ALL {
            BY_RESULT.tell(f, &[("result", result.name())], self.get(*result));
        }
    }
}

/// Plain HTTP answers by class of status, and whose they were.
#[derive(Debug, Default)]
pub struct Answers([[Count; CLASSES.len()]; 2]);

impl Answers {
    /// An answer from the server, or (`ours`) one the proxy made itself.
    pub fn count(&self, status: u16, ours: bool) {
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        self.0[usize::from(ours)][class].inc();
    }

    pub fn each(&self, f: &mut Sink<'_>) {
        static BY_CLASS: Family =
            Family::counter("route_answers_total", "Plain HTTP answers by class of status.");
        for (cells, from) in self.0.iter().zip(["server", "proxy"]) {
            for (count, class) in cells.iter().zip(CLASSES) {
                BY_CLASS.tell(f, &[("from", from), ("class", class)], count.get());
            }
        }
    }
}

/// Close codes by who closed first.
#[derive(Debug, Default)]
pub struct CloseCodes([[Count; CODES.len()]; Side::ALL.len()]);

impl CloseCodes {
    /// A first Close with its code, `None` where it had none; or (`ABNORMAL`) an end without one.
    pub fn count(&self, closer: Side, code: Option<u16>) {
        self.0[closer as usize][Self::place(code)].inc();
    }

    pub fn get(&self, closer: Side, code: Option<u16>) -> u64 {
        self.0[closer as usize][Self::place(code)].get()
    }

    /// Stands for a socket that ended without any Close; never seen on a wire.
    pub const ABNORMAL: Option<u16> = Some(1006);

    fn place(code: Option<u16>) -> usize {
        let named = |code| CODES[..NO_CODE].iter().position(|(number, _)| *number == code);
        match code {
            None => NO_CODE,
            Some(code @ 3000..=3999) => named(code).unwrap_or(REGISTERED),
            Some(code @ 4000..=4999) => named(code).unwrap_or(PRIVATE),
            Some(code) => named(code).unwrap_or(OTHER),
        }
    }

    pub fn each(&self, f: &mut Sink<'_>) {
        static BY_CODE: Family = Family::counter(
            "route_closes_total",
            "WebSockets closed, by who closed first and with which code.",
        )
        .sparse();
        for (side, cells) in Side::ALL.iter().zip(&self.0) {
            for ((_, label), count) in CODES.iter().zip(cells) {
                BY_CODE.tell(f, &[("closer", side.name()), ("code", label)], count.get());
            }
        }
    }
}

/// Frames and their payload bytes by direction and kind.
#[derive(Debug, Default)]
pub struct Frames([[[Count; 2]; Opcode::ALL.len()]; Direction::ALL.len()]);

impl Frames {
    /// Counts `frames` frames with `payload` bytes of payload in all.
    pub fn add(&self, direction: Direction, opcode: Opcode, frames: u64, payload: u64) {
        let [count, bytes] = &self.0[direction as usize][opcode as usize];
        count.add(frames);
        bytes.add(payload);
    }

    pub fn each(&self, f: &mut Sink<'_>) {
        static FRAMES: Family = Family::counter("route_frames_total", "Frames relayed.");
        static BYTES: Family =
            Family::counter("route_frame_bytes_total", "Payload bytes of frames relayed.");
        for (which, family) in [&FRAMES, &BYTES].into_iter().enumerate() {
            for direction in Direction::ALL {
                for opcode in Opcode::ALL {
                    let labels = [("direction", direction.name()), ("opcode", opcode.name())];
                    let cell = &self.0[*direction as usize][*opcode as usize][which];
                    family.tell(f, &labels, cell.get());
                }
            }
        }
    }
}

/// Time from our ping to its pong.
#[derive(Debug)]
pub struct PingRtt(pub Histogram<14>);

impl Default for PingRtt {
    fn default() -> Self {
        Self(Histogram::new(&RTT_BOUNDS))
    }
}

impl PingRtt {
    pub fn each(&self, f: &mut Sink<'_>) {
        static RTT: Family =
            Family::histogram("route_ping_rtt_seconds", "Time from our ping to its pong.");
        self.0.each(&RTT, f);
    }
}

/// How old WebSockets were when they ended.
#[derive(Debug)]
pub struct Age(pub Histogram<10>);

impl Default for Age {
    fn default() -> Self {
        Self(Histogram::new(&AGE_BOUNDS))
    }
}

impl Age {
    pub fn each(&self, f: &mut Sink<'_>) {
        static AGE: Family =
            Family::histogram("route_websocket_age_seconds", "Age of WebSockets at their end.");
        self.0.each(&AGE, f);
    }
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Codes with a cell of their own; the last four stand for whole ranges (their numbers cannot
/// occur as codes).
const CODES: [(u16, &str); 19] = [
    (1000, "1000"),
    (1001, "1001"),
    (1002, "1002"),
    (1003, "1003"),
    (1006, "abnormal"),
    (1007, "1007"),
    (1008, "1008"),
    (1009, "1009"),
    (1010, "1010"),
    (1011, "1011"),
    (1012, "1012"),
    (1013, "1013"),
    (1014, "1014"),
    (3000, "3000"),
    (3003, "3003"),
    (0, "none"),
    (0, "registered"),
    (0, "private"),
    (0, "other"),
];
const NO_CODE: usize = CODES.len() - 4;
const REGISTERED: usize = CODES.len() - 3;
const PRIVATE: usize = CODES.len() - 2;
const OTHER: usize = CODES.len() - 1;

/// Half a millisecond to about four seconds, each twice the one before.
static RTT_BOUNDS: [(u64, &str); 14] = [
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_000, "0.002"),
    (4_000, "0.004"),
    (8_000, "0.008"),
    (16_000, "0.016"),
    (32_000, "0.032"),
    (64_000, "0.064"),
    (128_000, "0.128"),
    (256_000, "0.256"),
    (512_000, "0.512"),
    (1_024_000, "1.024"),
    (2_048_000, "2.048"),
    (4_096_000, "4.096"),
];

/// A second to about three days, each four times the one before.
static AGE_BOUNDS: [(u64, &str); 10] = [
    (1_000_000, "1"),
    (4_000_000, "4"),
    (16_000_000, "16"),
    (64_000_000, "64"),
    (256_000_000, "256"),
    (1_024_000_000, "1024"),
    (4_096_000_000, "4096"),
    (16_384_000_000, "16384"),
    (65_536_000_000, "65536"),
    (262_144_000_000, "262144"),
];
