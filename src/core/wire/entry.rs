//! One living connection as plain data: two ends, two flows, and what it was born under. No
//! buffer, task, timer or pipe belongs to it while it is silent.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::balance::ServerId;
use crate::meter::{Direction, Ending, Gear, ListenerCounters, ListenerLimits, Ticket};

use crate::sys::socket::TcpOptions;

use super::Extra;
use super::spill::Spill;
use super::terms::Terms;

/// The client's end; flow 0 reads it.
pub const CLIENT: usize = 0;
/// The server's end; flow 1 reads it.
pub const SERVER: usize = 1;
/// The rule of a pipe that came by none.
pub const NO_RULE: u16 = u16::MAX;
/// No entry in the turn's list, or no borrowed pipe.
pub const NONE: u32 = u32::MAX;

/// Bytes of one flow that do not wait for the sweep to be counted: no more than 4 GiB can be told.
const UNCOUNTED_MANY: u64 = 1 << 30;

/// Which way the bytes of a flow go.
pub const DIRECTIONS: [Direction; 2] = [Direction::FromClient, Direction::FromServer];

/// A tenth of a second on the core's clock; the coarse time of every deadline here.
pub type Ticks = u32;
/// Ticks a second.
pub const TICKS_PER_SECOND: u32 = 10;

/// A duration in ticks, rounded up, at least one.
pub fn ticks(duration: Duration) -> Ticks {
    let ticks = duration.as_millis().div_ceil(1000 / u128::from(TICKS_PER_SECOND));
    ticks.clamp(1, u128::from(u32::MAX)) as Ticks
}

/// What the pipes of one listener under one plan share; a living pipe keeps it until it ends.
#[derive(Debug)]
pub struct Birth {
    pub listener: Arc<str>,
    pub counters: Arc<ListenerCounters>,
    /// By rule, of an l7 listener.
    pub terms: Vec<Arc<Terms>>,
    pub idle: Option<Ticks>,
    pub half_close: Option<Ticks>,
    pub stall: Option<Ticks>,
    /// Set on the server's side of pipes that outlive a sweep; the client's inherits them.
    pub options: TcpOptions,
    /// Where the pipe's ticket is given back.
    pub limits: Arc<ListenerLimits>,
}

/// Which request of the kernel's reads an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// None: it was never armed, or is not to be read now, or the stream has ended.
    Idle,
    /// A oneshot poll.
    Polled,
    /// A multishot receive.
    Receiving,
    /// A multishot receive that was asked to end; its last completion is awaited.
    Joining,
}

/// Which poll waits on an end for something other than reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    None,
    /// Oneshot, for room to write.
    Once,
    /// Multishot edges, for room to write on a socket whose peer has finished: a oneshot would
    /// return at once, every time.
    Edges,
}

/// A socket and what the kernel holds of it.
#[derive(Debug)]
pub struct End {
    pub fd: RawFd,
    pub reading: Reading,
    pub watch: Watch,
}

impl End {
    pub fn new(fd: RawFd) -> Self {
        Self { fd, reading: Reading::Idle, watch: Watch::None }
    }

    /// Whether the kernel still has a request of ours on this socket.
    pub fn is_held(&self) -> bool {
        self.reading != Reading::Idle || self.watch != Watch::None
    }
}

/// How far a flow has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Open,
    /// The source has finished; bytes of it are still on their way out.
    Draining,
    /// FIN was passed on.
    Finished,
    /// The sink takes nothing any more; what the source still says is dropped.
    Broken,
}

/// Bytes going one way.
#[derive(Debug)]
pub struct Flow {
    /// Bytes read from the source so far.
    pub bytes: u64,
    /// Bytes the sink did not take, in order; reading waits until they are gone.
    pub spill: Option<Box<Spill>>,
    /// Index in this turn's list of flows with bytes to send.
    pub turn: u32,
    /// Index of the borrowed pipe while bytes lie in it.
    pub pipe: u32,
    pub gear: Gear,
    pub phase: Phase,
    /// Wakes while parked since the sweep came by.
    pub wakes: u8,
    /// Full reads in a row (parked), large turns in a row (flowing), or thin ones (bulk).
    pub runs: u8,
    /// Sweeps without a byte while flowing.
    pub cold: u8,
    /// The low half of `bytes` when they were last counted for the listener and the server.
    pub mark: u32,
    /// Bytes of the source that were thrown away, because nothing it says is wanted any more.
    pub thrown: u32,
    /// The source has said its last byte, or is lost: nothing of it is read any more.
    pub ended: bool,
    /// It ended without the `close_notify` it owed: we do not vouch for its end to the sink.
    pub cut: bool,
    /// The sink takes little of what there is: little is read at a time.
    pub slow: bool,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            bytes: 0,
            spill: None,
            turn: NONE,
            pipe: NONE,
            gear: Gear::Parked,
            phase: Phase::Open,
            wakes: 0,
            runs: 0,
            cold: 0,
            mark: 0,
            thrown: 0,
            ended: false,
            cut: false,
            slow: false,
        }
    }
}

impl Flow {
    /// So many more were read. Says whether those not counted yet are so many that they have to be
    /// before the sweep comes by.
    pub fn add(&mut self, bytes: usize) -> bool {
        self.bytes += bytes as u64;
        self.uncounted() >= UNCOUNTED_MANY
    }

    /// Bytes that are not counted for the listener and the server yet; they are counted long before
    /// there are 4 GiB of them.
    pub fn uncounted(&self) -> u64 {
        u64::from((self.bytes as u32).wrapping_sub(self.mark))
    }

    /// Whether bytes wait for the sink; the source is not read meanwhile.
    pub fn is_blocked(&self) -> bool {
        self.spill.is_some() || self.pipe != NONE
    }
}

/// Whether a pipe lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Open,
    /// Ended; the kernel's last requests are being joined.
    Closing,
}

/// One established connection: its two sockets, what flows each way, and what it inherited.
#[derive(Debug)]
pub struct Pipe {
    pub ends: [End; 2],
    pub flows: [Flow; 2],
    /// L7 and TLS state; `None` for bytes in, bytes out.
    pub extra: Option<Box<Extra>>,
    pub birth: Rc<Birth>,
    /// Identity in logs, unique for the life of the process.
    pub id: u64,
    /// The client's address, where connections are logged: the line about the end names it.
    pub client: Option<Box<SocketAddr>>,
    /// The server it holds a lease on.
    pub server: ServerId,
    pub born: Ticks,
    /// When a byte last moved.
    pub active: Ticks,
    pub life: Life,
    /// The server's side has its long-lived options.
    pub settled: bool,
    /// Which of the listener's rules it came by; [`NO_RULE`] on an l4 listener.
    pub rule: u16,
    /// Why it ended; meaningful once `life` is not open.
    pub ending: Option<Ending>,
    /// Its claim on the listener's limits.
    pub ticket: Ticket,
}

// A million of these must fit beside their sockets.
const _: () = assert!(size_of::<Pipe>() <= 192);

impl Pipe {
    /// Whether the kernel still has a request on either socket.
    pub fn is_held(&self) -> bool {
        self.ends[CLIENT].is_held() || self.ends[SERVER].is_held()
    }

    /// Whether frames are followed, so that we have a word in it.
    pub fn has_relay(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.has_relay())
    }

    /// The bytes of both flows that are not counted for the listener and the server yet.
    pub fn uncounted(&self) -> [u64; 2] {
        [self.flows[CLIENT].uncounted(), self.flows[SERVER].uncounted()]
    }

    /// Whether what comes from an end is to be read. A relay reads to the last, if only so that the
    /// Close it sent is not lost to a reset.
    pub fn listens(&self, end: usize) -> bool {
        let flow = &self.flows[end];
        !flow.ended && (flow.phase == Phase::Open || self.has_relay())
    }

    /// What it came by, on an l7 listener.
    pub fn terms(&self) -> Option<&Arc<Terms>> {
        self.birth.terms.get(usize::from(self.rule))
    }
}
