//! What happened, and how it ended. Pure: cells that one core writes and control reads, and the
//! names they are shown under. Never opens a file or a socket, never formats a page.

mod admission;
mod cell;
mod counters;
mod ending;
mod histogram;
mod passing;
mod route;

pub use admission::{ListenerLimits, Refusal, Ticket};
pub use cell::{Count, Family, Gauge, Kind, Mark, Sample, Sink};
pub use counters::{
    Bytes, CoreCounters, Direction, Endings, Gear, Gears, ListenerCounters, Move, ServerCounters,
};
pub use ending::{Cause, Ending, Side, Stage};
pub use histogram::Histogram;
pub use passing::Passing;
pub use route::{
    Age, Answers, CloseCodes, Frames, Handshake, Handshakes, Opcode, PingRtt, RouteCounters,
};

#[cfg(test)]
mod tests;
