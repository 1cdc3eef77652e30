//! Who may come in: `max_connections` and `max_per_source` of a listener. These two hold exactly
//! over all cores, so they are the one thing cores share; who sets neither pays nothing for them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Parts the table of sources is split into, so that cores seldom meet.
const SHARDS: usize = 32;

/// The limits of one listener; the same value in every core.
#[derive(Debug)]
pub struct Limits {
    max_connections: AtomicU32,
    max_per_source: AtomicU32,
    live: AtomicU32,
    /// What each core admitted of those: a core that dies gives nothing back itself.
    by_core: Box<[AtomicU32]>,
    /// Connections of a source, by core.
    sources: [Mutex<HashMap<IpAddr, Vec<u32>>>; SHARDS],
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
    /// No bounds yet.
    pub fn new(cores: usize) -> Self {
        Self {
            max_connections: AtomicU32::default(),
            max_per_source: AtomicU32::default(),
            live: AtomicU32::default(),
            by_core: (0..cores).map(|_| AtomicU32::default()).collect(),
            sources: Default::default(),
        }
    }

    /// Changes the limits, of which 0 means no bound; who is in stays in.
    pub fn set(&self, max_connections: u32, max_per_source: u32) {
        self.max_connections.store(max_connections, Ordering::Relaxed);
        self.max_per_source.store(max_per_source, Ordering::Relaxed);
    }

    /// Whether sources are counted, so that the caller need not ask for an address in vain.
    pub fn wants_source(&self) -> bool {
        self.max_per_source.load(Ordering::Relaxed) > 0
    }

    /// Counts a connection of a core in, or refuses it.
    ///
    /// # Errors
    /// Which limit it would break; nothing was counted then.
    pub fn admit(&self, core: usize, source: Option<IpAddr>) -> Result<Ticket, Refusal> {
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
        let ticket = match source.filter(|_| max_per_source > 0) {
            None => Ticket::Counted,
            Some(source) => {
                let mut shard = self.shard(source);
                let counts = shard.entry(source).or_default();
                if counts.iter().sum::<u32>() >= max_per_source {
                    self.live.fetch_sub(1, Ordering::Relaxed);
                    return Err(Refusal::Source);
                }
                counts.resize(counts.len().max(core + 1), 0);
                counts[core] += 1;
                Ticket::Source(source)
            }
        };
        self.by_core[core].fetch_add(1, Ordering::Relaxed);
        Ok(ticket)
    }

    /// Counts a connection of a core out.
    pub fn leave(&self, core: usize, ticket: Ticket) {
        if ticket == Ticket::Free {
            return;
        }
        self.live.fetch_sub(1, Ordering::Relaxed);
        self.by_core[core].fetch_sub(1, Ordering::Relaxed);
        if let Ticket::Source(source) = ticket {
            let mut shard = self.shard(source);
            if let Some(counts) = shard.get_mut(&source) {
                counts[core] -= 1;
                if counts.iter().all(|count| *count == 0) {
                    shard.remove(&source);
                }
            }
        }
    }

    /// Counts out all connections of a core that has died; its thread must have ended.
    pub fn bury(&self, core: usize) {
        let lost = self.by_core[core].swap(0, Ordering::Relaxed);
        self.live.fetch_sub(lost, Ordering::Relaxed);
        for shard in &self.sources {
            lock(shard).retain(|_, counts| {
                if let Some(count) = counts.get_mut(core) {
                    *count = 0;
                }
                counts.iter().any(|count| *count > 0)
            });
        }
    }

    fn shard(&self, source: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, Vec<u32>>> {
        let mut hasher = std::hash::DefaultHasher::new();
        std::hash::Hash::hash(&source, &mut hasher);
        let index = std::hash::Hasher::finish(&hasher) as usize % SHARDS;
        lock(&self.sources[index])
    }
}

/// A poisoned shard still counts: nothing in here leaves it half changed.
fn lock<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_hold_exactly_and_are_given_back() {
        let limits = Limits::new(2);
        limits.set(3, 2);
        let [a, b]: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        let first = limits.admit(0, Some(a)).unwrap();
        limits.admit(1, Some(a)).unwrap();
        assert_eq!(limits.admit(0, Some(a)), Err(Refusal::Source));
        limits.admit(0, Some(b)).unwrap();
        assert_eq!(limits.admit(1, Some(b)), Err(Refusal::Connections));
        limits.leave(0, first);
        assert!(limits.admit(0, Some(a)).is_ok());
        assert_eq!(Limits::new(1).admit(0, Some(a)), Ok(Ticket::Free));
    }

    #[test]
    fn what_a_dead_core_admitted_is_given_back() {
        let limits = Limits::new(2);
        limits.set(4, 3);
        let [a, b]: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        limits.admit(0, Some(a)).unwrap();
        let kept = limits.admit(1, Some(a)).unwrap();
        limits.admit(0, Some(a)).unwrap();
        limits.admit(0, Some(b)).unwrap();
        assert_eq!(limits.admit(1, Some(b)), Err(Refusal::Connections));
        limits.bury(0);
        assert_eq!(limits.live.load(Ordering::Relaxed), 1);
        for _ in 0..2 {
            limits.admit(1, Some(a)).unwrap();
        }
        assert_eq!(limits.admit(1, Some(a)), Err(Refusal::Source));
        limits.admit(1, Some(b)).unwrap();
        limits.leave(1, kept);
        assert!(limits.admit(1, Some(a)).is_ok());
    }
}
