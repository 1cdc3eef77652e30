//! Who may come in: `max_connections` and `max_per_source` of a listener. These two hold exactly
//! over all cores, so they are the one thing cores share; who sets neither pays nothing for them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Parts the table of sources is split into, so that cores seldom meet.
const SHARDS: usize = 32;

/// The limits of one listener; the same value in every core.
#[derive(Debug, Default)]
pub struct Limits {
    max_connections: AtomicU32,
    max_per_source: AtomicU32,
    live: AtomicU32,
    sources: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
}

/// What an admitted connection gives back when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ticket {
    /// The listener has no limits.
    Free,
    /// Counted against the listener's total.
    Counted,
    /// Counted against the total, and this source's share.
    Source(IpAddr),
}

/// Why a connection was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Connections,
    Source,
}

impl Limits {
    /// 0 means no bound.
    pub fn new(max_connections: u32, max_per_source: u32) -> Self {
        let limits = Self::default();
        limits.set(max_connections, max_per_source);
        limits
    }

    /// Changes the limits; who is in stays in.
    pub fn set(&self, max_connections: u32, max_per_source: u32) {
        self.max_connections.store(max_connections, Ordering::Relaxed);
        self.max_per_source.store(max_per_source, Ordering::Relaxed);
    }

    /// Whether sources are counted, so that the caller need not ask for an address in vain.
    pub fn wants_source(&self) -> bool {
        self.max_per_source.load(Ordering::Relaxed) > 0
    }

    /// Counts a connection in, or refuses it.
    ///
    /// # Errors
    /// Which limit it would break; nothing was counted then.
    pub fn admit(&self, source: Option<IpAddr>) -> Result<Ticket, Refusal> {
        let max_connections = self.max_connections.load(Ordering::Relaxed);
        let max_per_source = self.max_per_source.load(Ordering::Relaxed);
        if max_connections == 0 && max_per_source == 0 {
            return Ok(Ticket::Free);
        }
        let before = self.live.fetch_add(1, Ordering::Relaxed);
        if max_connections > 0 && before >= max_connections {
            self.live.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Connections);
        }
        let Some(source) = source.filter(|_| max_per_source > 0) else {
            return Ok(Ticket::Counted);
        };
        let mut shard = self.shard(source);
        let count = shard.entry(source).or_insert(0);
        if *count >= max_per_source {
            self.live.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Source);
        }
        *count += 1;
        Ok(Ticket::Source(source))
    }

    /// Counts a connection out.
    pub fn leave(&self, ticket: Ticket) {
        if ticket == Ticket::Free {
            return;
        }
        self.live.fetch_sub(1, Ordering::Relaxed);
        if let Ticket::Source(source) = ticket {
            let mut shard = self.shard(source);
            if let Some(count) = shard.get_mut(&source) {
                *count -= 1;
                if *count == 0 {
                    shard.remove(&source);
                }
            }
        }
    }

    fn shard(&self, source: IpAddr) -> std::sync::MutexGuard<'_, HashMap<IpAddr, u32>> {
        let mut hasher = std::hash::DefaultHasher::new();
        std::hash::Hash::hash(&source, &mut hasher);
        let index = std::hash::Hasher::finish(&hasher) as usize % SHARDS;
        // A poisoned shard still counts: nothing in here leaves it half changed.
        self.sources[index].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_hold_exactly_and_are_given_back() {
        let limits = Limits::new(3, 2);
        let [a, b]: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        let first = limits.admit(Some(a)).unwrap();
        limits.admit(Some(a)).unwrap();
        assert_eq!(limits.admit(Some(a)), Err(Refusal::Source));
        limits.admit(Some(b)).unwrap();
        assert_eq!(limits.admit(Some(b)), Err(Refusal::Connections));
        limits.leave(first);
        assert!(limits.admit(Some(a)).is_ok());
        assert_eq!(Limits::new(0, 0).admit(Some(a)), Ok(Ticket::Free));
    }
}
