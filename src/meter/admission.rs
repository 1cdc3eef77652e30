//! Which connections are admitted: `max_connections` and `max_per_source` of a listener. Both
//! limits hold exactly over all cores, so their counts are the one thing that all cores write.
//! Connections are counted even where there is no limit, because a limit that a reload sets during
//! an overload must know how many are open already. Sources are counted only while `max_per_source`
//! is set.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Parts the table of sources is split into, so that cores seldom meet.
const SHARDS: usize = 32;

/// The limits of one listener; the same value in every core.
#[derive(Debug)]
pub struct ListenerLimits {
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

impl ListenerLimits {
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

    /// Changes the limits; 0 means no bound. Connections that are open stay open.
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
        let before = self.live.fetch_add(1, Ordering::Relaxed);
        if max_connections > 0 && before >= max_connections {
            self.live.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Connections);
        }
        let ticket = match source.filter(|_| max_per_source > 0) {
            None => Ticket::Counted,
            Some(source) => match self.count_source(core, source, max_per_source) {
                Ok(ticket) => ticket,
                Err(refusal) => {
                    self.live.fetch_sub(1, Ordering::Relaxed);
                    return Err(refusal);
                }
            },
        };
        self.by_core[core].fetch_add(1, Ordering::Relaxed);
        Ok(ticket)
    }

    /// Counts a connection that is in for the source that it has only told now.
    ///
    /// # Errors
    /// The source has too many; its ticket stays what it was.
    pub fn ascribe(&self, core: usize, ticket: Ticket, source: IpAddr) -> Result<Ticket, Refusal> {
        let max_per_source = self.max_per_source.load(Ordering::Relaxed);
        if max_per_source == 0 || ticket != Ticket::Counted {
            return Ok(ticket);
        }
        self.count_source(core, source, max_per_source)
    }

    fn count_source(&self, core: usize, address: IpAddr, most: u32) -> Result<Ticket, Refusal> {
        let source = source_of(address);
        let mut shard = self.shard(source);
        let counts = shard.entry(source).or_default();
        if counts.iter().sum::<u32>() >= most {
            return Err(Refusal::Source);
        }
        counts.resize(counts.len().max(core + 1), 0);
        counts[core] += 1;
        Ok(Ticket::Source(source))
    }

    /// Counts a connection of a core out.
    pub fn leave(&self, core: usize, ticket: Ticket) {
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

/// Whom a connection from an address is counted for: the address, of IPv6 its /64. A host may call
/// itself by any of the addresses of that (RFC 4291 §2.5.1, RFC 8981), so to bound one bounds none.
/// All hosts of a link share fe80::/64: there each address counts by itself, and a neighbour is not
/// bounded. A translator's address (64:ff9b::/96, RFC 6052 §2.1) counts as the IPv4 one in it.
fn source_of(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address.to_canonical() else { return address.to_canonical() };
    let bits = six.to_bits();
    match six.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => Ipv4Addr::from_bits(bits as u32).into(),
        _ if six.is_unicast_link_local() => six.into(),
        _ => Ipv6Addr::from_bits(bits & !u128::from(u64::MAX)).into(),
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
        let limits = ListenerLimits::new(2);
        limits.set(3, 2);
        let [a, b]: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        let first = limits.admit(0, Some(a)).unwrap();
        limits.admit(1, Some(a)).unwrap();
        assert_eq!(limits.admit(0, Some(a)), Err(Refusal::Source));
        limits.admit(0, Some(b)).unwrap();
        assert_eq!(limits.admit(1, Some(b)), Err(Refusal::Connections));
        limits.leave(0, first);
        assert!(limits.admit(0, Some(a)).is_ok());
    }

    #[test]
    fn a_host_does_not_escape_by_another_address_of_its_network() {
        let limits = ListenerLimits::new(1);
        limits.set(0, 1);
        let of = |address: &str| Some(address.parse().unwrap());
        let first = limits.admit(0, of("2001:db8:0:1::1")).unwrap();
        let refused = limits.admit(0, of("2001:db8:0:1:ffff:ffff:ffff:ffff"));
        assert_eq!(refused, Err(Refusal::Source));
        limits.admit(0, of("2001:db8:0:2::1")).expect("a neighbour");
        limits.leave(0, first);
        limits.admit(0, of("2001:db8:0:1::2")).expect("its room was given back");
        limits.admit(0, of("10.0.0.1")).unwrap();
        assert_eq!(limits.admit(0, of("::ffff:10.0.0.1")), Err(Refusal::Source));
        assert_eq!(limits.admit(0, of("64:ff9b::10.0.0.1")), Err(Refusal::Source));
        limits.admit(0, of("10.0.0.2")).expect("IPv4 addresses stand for themselves");
        limits.admit(0, of("64:ff9b::10.0.0.3")).expect("also where they are translated");
        limits.admit(0, of("fe80::1")).unwrap();
        limits.admit(0, of("fe80::2")).expect("another host of the link");
    }

    #[test]
    fn a_limit_set_late_knows_of_who_is_in() {
        let limits = ListenerLimits::new(1);
        let early = limits.admit(0, None).unwrap();
        limits.admit(0, None).unwrap();
        limits.set(2, 0);
        assert_eq!(limits.admit(0, None), Err(Refusal::Connections));
        limits.leave(0, early);
        assert!(limits.admit(0, None).is_ok());
    }

    #[test]
    fn a_source_that_is_told_late_is_bounded_too() {
        let limits = ListenerLimits::new(1);
        limits.set(0, 1);
        let a: IpAddr = "10.0.0.1".parse().unwrap();
        let tickets = [(); 2].map(|()| limits.admit(0, None).unwrap());
        let known = limits.ascribe(0, tickets[0], a).unwrap();
        assert_eq!(known, Ticket::Source(a));
        assert_eq!(limits.ascribe(0, tickets[1], a), Err(Refusal::Source));
        limits.leave(0, tickets[1]);
        limits.leave(0, known);
        assert_eq!(limits.live.load(Ordering::Relaxed), 0);
        let again = limits.admit(0, None).unwrap();
        assert_eq!(limits.ascribe(0, again, a), Ok(Ticket::Source(a)));
    }

    #[test]
    fn what_a_dead_core_admitted_is_given_back() {
        let limits = ListenerLimits::new(2);
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
