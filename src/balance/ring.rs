//! Consistent hashing: every server owns many points of a circle, a key belongs to the first
//! point at or after its own. A server that leaves gives up its own keys and moves no others.
//!
//! The circle is made of all servers in any state. A key whose owner may not take it is thrown
//! again, always in the same order for the same key, until one does: so health, slow start and
//! the load bound never rebuild anything, and a key is home again as soon as its owner is.

use super::group::Offer;
use super::hash::{GOLDEN, mix};
use super::{Counts, Group, Member};

/// Points of all members on a circle of hashes; a key belongs to the point that follows it.
#[derive(Debug)]
pub struct Ring {
    /// Place in the upper bits, member index in the lower, sorted.
    points: Vec<u64>,
    /// What it was built from.
    built_from: Vec<(u64, u32)>,
}

impl Ring {
    pub fn build(members: &[Member]) -> Self {
        debug_assert!(members.len() < 1 << INDEX_BITS);
        let unit = unit(members);
        let mut points = Vec::new();
        for (index, member) in members.iter().enumerate().filter(|(_, m)| m.weight > 0) {
            let count = (u64::from(member.weight) * POINTS / unit).max(1);
            let place = |k| mix(member.hash ^ mix(k)) & !INDEX_MASK;
            points.extend((0..count).map(|k| place(k) | index as u64));
        }
        points.sort_unstable();
        Self { points, built_from: members.iter().map(|m| (m.hash, m.weight)).collect() }
    }

    /// Was it built from these servers with these weights?
    pub fn fits(&self, members: &[Member]) -> bool {
        self.built_from.len() == members.len()
            && self.built_from.iter().zip(members).all(|(b, m)| *b == (m.hash, m.weight))
    }

    /// The first server in the key's order that takes it.
    pub fn pick<C: Counts>(
        &self,
        group: &Group,
        offer: &Offer<C>,
        key: u64,
        bounded: Option<f64>,
    ) -> Option<usize> {
        let spread = group.spread();
        let bound = bounded.map(|factor| Bound::new(factor, group, offer.counts));
        let under = |index: usize| match (&bound, spread.slot_of(index)) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(bound), Some(slot)) => {
                offer.counts.own(offer.members[index].id) < bound.limit(spread.units(slot))
            }
        };
        let mut place = mix(key);
        for _ in 0..THROWS {
            let index = self.owner(place)?;
            if under(index) && offer.fits(index) && group.warm(index, key) {
                return Some(index);
            }
            place = mix(place.wrapping_add(GOLDEN));
        }
        // Nearly all are down or full. Still by the key alone, only less evenly.
        let from = || spread.slots_from(spread.slot_thrown(place)).map(|slot| spread.index(slot));
        let found = from().find(|i| under(*i) && offer.fits(*i));
        // A server above its bound is better than a connection refused.
        found.or_else(|| from().find(|i| offer.fits(*i)))
    }

    fn owner(&self, place: u64) -> Option<usize> {
        let next = self.points.partition_point(|point| *point < place & !INDEX_MASK);
        let point = self.points.get(next).or_else(|| self.points.first())?;
        Some((point & INDEX_MASK) as usize)
    }
}

/// How much one core may give to a server: a multiple of that core's own fair share. If every
/// core keeps to its own bound, their sums keep to it too, and no core has to ask another.
struct Bound {
    factor: f64,
    /// Connections one unit of weight has when all is even.
    fair: f64,
}

impl Bound {
    fn new(factor: f64, group: &Group, counts: &impl Counts) -> Self {
        let own = f64::from(counts.own_among(group)) + 1.0;
        Self { factor: factor.max(1.0), fair: own / group.spread().length() as f64 }
    }

    /// Rounded down, so that cores do not each add one; but never below the fair share rounded
    /// up, which always leaves some server with room.
    fn limit(&self, units: u64) -> u32 {
        let fair = self.fair * units as f64;
        (self.factor * fair).floor().max(fair.ceil()) as u32
    }
}

/// Weight that gets `POINTS` points: the power of two below the average weight. Rounding it so
/// coarsely keeps it, and with it everyone's points, the same when one server comes or goes.
fn unit(members: &[Member]) -> u64 {
    let weighed = || members.iter().filter(|m| m.weight > 0);
    let sum: u64 = weighed().map(|m| u64::from(m.weight)).sum();
    let average = sum / weighed().count().max(1) as u64;
    1 << average.max(1).ilog2()
}

/// Points of an ordinary server: its part of the circle then differs from its due by 6 % (one
/// standard deviation).
const POINTS: u64 = 256;
const INDEX_BITS: u32 = 24;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
/// Throws of a key before the search becomes exhaustive.
const THROWS: usize = 64;
