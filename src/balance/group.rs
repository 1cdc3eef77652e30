//! A pool's servers, ready to be picked from: built whole, then never changed.

use std::sync::Arc;

use super::hash::mix;
use super::ring::Ring;
use super::spread::Spread;
use super::{Counts, Member, MemberState, Policy, ServerId};
use super::{least, random_two, round_robin};

/// An immutable selection. What changes (counts, position) belongs to the core that picks.
#[derive(Debug)]
pub struct Group {
    policy: Policy,
    members: Vec<Member>,
    /// Members new connections may go to, as indices into `members`, with their weights now.
    spread: Spread,
    /// Present when keys are used: `source-hash`, or a sticky header or query.
    ring: Option<Arc<Ring>>,
    /// The largest share among those on the spread.
    share_max: f32,
    fingerprint: u64,
}

/// A core's place in one pool. Plain data; kept across snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    pub(super) count: u64,
}

impl Cursor {
    /// Cores begin at different places, or all would send their first connection to one server.
    pub fn new(core: usize) -> Self {
        Self { count: core as u64 }
    }
}

/// What a pick came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pick {
    /// Index into [`Group::members`].
    Server(usize),
    /// No server may be used at all: all down, draining or without weight.
    Empty,
    /// Those that may be used, and were not tried yet, have no room.
    Full,
    /// Every server that may be used was tried.
    Exhausted,
}

impl Group {
    pub fn build(policy: Policy, members: Vec<Member>) -> Self {
        let keyed = matches!(policy, Policy::SourceHash { .. });
        Self::assemble(policy, members, keyed, None)
    }

    /// As [`build`](Self::build), for a pool that is sticky by header or query: a pick that has a
    /// key goes by the key, whatever the policy is for those that have none.
    pub fn build_keyed(policy: Policy, members: Vec<Member>) -> Self {
        Self::assemble(policy, members, true, None)
    }

    /// The same pool with other states, shares or bounds. The ring, costly with many servers, is
    /// taken over unless servers or weights changed.
    pub fn rebuild(&self, members: Vec<Member>) -> Self {
        Self::assemble(self.policy, members, self.ring.is_some(), self.ring.clone())
    }

    /// Choose a server for a new connection. `key` is used by `source-hash` and sticky keys,
    /// `random` (fresh for each pick) by what draws lots; `tried` are members whose connect
    /// failed for this very connection.
    pub fn pick(
        &self,
        cursor: &mut Cursor,
        counts: &impl Counts,
        key: Option<u64>,
        random: u64,
        tried: &[usize],
    ) -> Pick {
        if self.spread.is_empty() {
            return Pick::Empty;
        }
        let offer = Offer { members: &self.members, counts, tried };
        let found = match (key, &self.ring, self.policy) {
            (Some(key), Some(ring), policy) => {
                let bounded = match policy {
                    Policy::SourceHash { bounded } => bounded,
                    _ => None,
                };
                ring.pick(self, &offer, key, bounded)
            }
            (_, _, Policy::RoundRobin) => round_robin::pick(&self.spread, &offer, cursor),
            (_, _, Policy::LeastConnections) => least::pick(&self.spread, &offer, random),
            (_, _, Policy::RandomTwo | Policy::SourceHash { .. }) => {
                random_two::pick(&self.spread, &offer, random)
            }
        };
        match found {
            Some(index) => Pick::Server(index),
            None if self.spread.indices().all(|i| tried.contains(&i)) => Pick::Exhausted,
            None => Pick::Full,
        }
    }

    /// May a returning client go on with this member? Draining and ejected ones may be used; only
    /// a server that is down, or has no room, sends its client to a fresh pick.
    pub fn sticky(&self, index: usize, counts: &impl Counts) -> bool {
        let Some(member) = self.members.get(index) else { return false };
        member.state != MemberState::Down && has_room(member, counts)
    }

    /// In the order they were given.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub fn policy(&self) -> Policy {
        self.policy
    }

    pub fn index_of(&self, id: ServerId) -> Option<usize> {
        self.members.iter().position(|m| m.id == id)
    }

    /// No server may be used: what `when_empty` is about.
    pub fn is_empty(&self) -> bool {
        self.spread.is_empty()
    }

    /// Servers new connections may go to.
    pub fn usable(&self) -> usize {
        self.spread.len()
    }

    pub fn usable_ids(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.spread.indices().map(|i| self.members[i].id)
    }

    /// Tells groups with different usable servers apart.
    pub(super) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    pub(super) fn spread(&self) -> &Spread {
        &self.spread
    }

    /// Does a server in slow start take this key yet? It takes as large a part of its keys as its
    /// share is of the largest: always the same ones, and then more.
    pub(super) fn warm(&self, index: usize, key: u64) -> bool {
        let share = self.members[index].share;
        let part = (mix(key ^ self.members[index].hash) >> 40) as f32 / (1 << 24) as f32;
        share >= self.share_max || part < share / self.share_max
    }
}

impl Group {
    fn assemble(
        policy: Policy,
        members: Vec<Member>,
        keyed: bool,
        ring: Option<Arc<Ring>>,
    ) -> Self {
        let spread = Spread::build(&members);
        let ring = match ring {
            _ if !keyed => None,
            Some(ring) if ring.fits(&members) => Some(ring),
            _ => Some(Arc::new(Ring::build(&members))),
        };
        let fingerprint =
            spread.indices().fold(0, |print, i| mix(print ^ u64::from(members[i].id.0)));
        let share_max = spread.indices().map(|i| members[i].share).fold(0.0, f32::max);
        Self { policy, members, spread, ring, share_max, fingerprint }
    }
}

/// One connection's question, put to one server after the other.
pub(super) struct Offer<'a, C> {
    pub members: &'a [Member],
    pub counts: &'a C,
    pub tried: &'a [usize],
}

impl<C: Counts> Offer<'_, C> {
    /// Not tried yet, and with room.
    pub fn fits(&self, index: usize) -> bool {
        !self.tried.contains(&index) && has_room(&self.members[index], self.counts)
    }

    pub fn total(&self, index: usize) -> u64 {
        u64::from(self.counts.total(self.members[index].id))
    }

    /// Is `a`, one more connection included, less loaded for its weight than `b`?
    pub fn lighter(&self, spread: &Spread, a: usize, b: usize) -> bool {
        let (units_a, units_b) = (spread.units(a), spread.units(b));
        let (index_a, index_b) = (spread.index(a), spread.index(b));
        (self.total(index_a) + 1) * units_b < (self.total(index_b) + 1) * units_a
    }
}

fn has_room(member: &Member, counts: &impl Counts) -> bool {
    member.max_connections == 0
        || counts.own(member.id) < counts.quota(member.id, member.max_connections)
}
