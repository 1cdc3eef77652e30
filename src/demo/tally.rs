//! What the driver has seen: messages, bytes, round-trip times and where clients arrived. The
//! driver writes, the table reads; nothing here knows a socket.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::driver::LANES;
use super::scene::SERVERS;

/// Round trips are told apart up to this, in microseconds.
const LONGEST_US: u64 = 60_000_000;

/// Shared between the driver and the table.
#[derive(Debug, Clone)]
pub struct Tally(Arc<Mutex<Seen>>);

/// Everything since the start.
#[derive(Debug, Clone)]
pub struct Seen {
    /// One for each of [`LANES`].
    pub lanes: Vec<Lane>,
    /// One for each of [`SERVERS`].
    pub servers: Vec<Moved>,
    /// Clients that came back with their cookie, and those that met the same server again.
    pub returned: u64,
    pub returned_same: u64,
    /// Clients that arrived in another pool than their path's.
    pub astray: u64,
    /// Connections of the silent crowd.
    pub crowd: u64,
    pub faults: u64,
    pub last_fault: Option<String>,
}

/// What the clients of one lane have seen.
#[derive(Debug, Clone)]
pub struct Lane {
    pub moved: Moved,
    /// Round-trip times in microseconds since the last look, and all of them.
    pub recent: Histogram<u64>,
    pub all: Histogram<u64>,
}

/// Round trips, and their bytes counted both ways.
#[derive(Debug, Clone, Copy, Default)]
pub struct Moved {
    pub messages: u64,
    pub bytes: u64,
}

impl Moved {
    fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
    }

    pub fn since(self, before: Self) -> Self {
        Self { messages: self.messages - before.messages, bytes: self.bytes - before.bytes }
    }
}

impl std::iter::Sum for Moved {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, it| Self {
            messages: sum.messages + it.messages,
            bytes: sum.bytes + it.bytes,
        })
    }
}

impl Tally {
    /// # Errors
    /// That a histogram cannot be made.
    pub fn new() -> Result<Self, String> {
        let empty = || {
            Histogram::new_with_bounds(1, LONGEST_US, 3).map_err(|e| format!("a histogram: {e}"))
        };
        let mut lanes = Vec::new();
        for _ in LANES {
            lanes.push(Lane { moved: Moved::default(), recent: empty()?, all: empty()? });
        }
        let seen = Seen {
            lanes,
            servers: vec![Moved::default(); SERVERS.len()],
            returned: 0,
            returned_same: 0,
            astray: 0,
            crowd: 0,
            faults: 0,
            last_fault: None,
        };
        Ok(Self(Arc::new(Mutex::new(seen))))
    }

    /// A message went to a server and came back.
    pub fn round(&self, lane: usize, server: usize, bytes: usize, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(LONGEST_US);
        let mut seen = self.seen();
        let it = &mut seen.lanes[lane];
        it.moved.add(bytes);
        it.recent.saturating_record(us);
        it.all.saturating_record(us);
        seen.servers[server].add(bytes);
    }

    /// A client has arrived at a server; `before` is where its cookie is from.
    pub fn arrived(&self, lane: usize, server: usize, before: Option<usize>) {
        let mut seen = self.seen();
        if SERVERS[server].pool != LANES[lane].pool {
            seen.astray += 1;
        }
        if let Some(before) = before {
            seen.returned += 1;
            seen.returned_same += u64::from(before == server);
        }
    }

    /// One more of the crowd is there.
    pub fn joined(&self) {
        self.seen().crowd += 1;
    }

    pub fn fault(&self, what: String) {
        let mut seen = self.seen();
        seen.faults += 1;
        seen.last_fault = Some(what);
    }

    /// All there is; the recent times begin anew.
    pub fn look(&self) -> Seen {
        let mut seen = self.seen();
        let copy = seen.clone();
        for lane in &mut seen.lanes {
            lane.recent.reset();
        }
        copy
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Whoever panicked did not do so between two halves of a count that matter.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_counted_by_lane_and_by_server() {
        let tally = Tally::new().unwrap();
        tally.round(0, 1, 256, Duration::from_millis(2));
        tally.round(0, 1, 256, Duration::from_secs(600));
        let seen = tally.look();
        assert_eq!((seen.lanes[0].moved.messages, seen.lanes[0].moved.bytes), (2, 512));
        assert_eq!(seen.servers[1].messages, 2);
        assert_eq!(seen.lanes[0].recent.len(), 2);
        let again = tally.look();
        assert_eq!((again.lanes[0].recent.len(), again.lanes[0].all.len()), (0, 2));
    }

    #[test]
    fn a_client_astray_is_noticed_and_so_is_a_cookie_that_was_not_followed() {
        let tally = Tally::new().unwrap();
        let chat = LANES.iter().position(|lane| lane.pool == "chat").unwrap();
        let live = SERVERS.iter().position(|server| server.pool == "live").unwrap();
        tally.arrived(chat, live, None);
        tally.arrived(chat, 0, Some(0));
        tally.arrived(chat, 0, Some(1));
        let seen = tally.look();
        assert_eq!((seen.astray, seen.returned, seen.returned_same), (1, 2, 1));
    }
}
