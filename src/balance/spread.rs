//! Servers laid side by side on a line, each as long as its weight: what round-robin walks and
//! random-two throws at.

use super::{Member, MemberState};

/// The servers that may be picked, in slots of their own; a slot's length is its weight in units.
#[derive(Debug)]
pub struct Spread {
    /// Member index of each slot.
    indices: Vec<u32>,
    /// Where each slot ends on the line.
    ends: Vec<u64>,
    /// Slot of each member, or `NONE`.
    slots: Vec<u32>,
    /// Step that visits every unit once before any twice, far from the one before.
    stride: u64,
}

impl Spread {
    /// Those that are up and have a weight; if there are none, those that are merely ejected: a
    /// server that could not be reached lately is better than none at all.
    pub fn build(members: &[Member]) -> Self {
        let with = |state| {
            let of_state = |m: &&(usize, &Member)| m.1.state == state && m.1.weight > 0;
            members.iter().enumerate().filter(|m| of_state(&m)).collect::<Vec<_>>()
        };
        let mut usable = with(MemberState::Up);
        if usable.is_empty() {
            usable = with(MemberState::Ejected);
        }
        let mut units = units(&usable);
        let divisor = units.iter().fold(0, |a, b| gcd(a, *b)).max(1);
        let mut slots = vec![NONE; members.len()];
        let mut end = 0;
        for (slot, (unit, (index, _))) in units.iter_mut().zip(&usable).enumerate() {
            slots[*index] = slot as u32;
            end += *unit / divisor;
            *unit = end;
        }
        let indices = usable.iter().map(|(index, _)| *index as u32).collect();
        Self { indices, ends: units, slots, stride: stride(end) }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Units of all slots.
    pub fn length(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The slot a unit lies in.
    pub fn slot_at(&self, unit: u64) -> usize {
        debug_assert!(unit < self.length());
        self.ends.partition_point(|end| *end <= unit)
    }

    /// The slot met on the `count`-th step of an endless even walk.
    pub fn slot_on_walk(&self, count: u64) -> usize {
        let length = u128::from(self.length());
        let unit = u128::from(count) % length * u128::from(self.stride) % length;
        self.slot_at(unit as u64)
    }

    /// The slot hit by an evenly distributed random word.
    pub fn slot_thrown(&self, random: u64) -> usize {
        let unit = (u128::from(random) * u128::from(self.length())) >> 64;
        self.slot_at(unit as u64)
    }

    #[inline]
    pub fn index(&self, slot: usize) -> usize {
        self.indices[slot] as usize
    }

    #[inline]
    pub fn units(&self, slot: usize) -> u64 {
        self.ends[slot] - if slot == 0 { 0 } else { self.ends[slot - 1] }
    }

    /// Where a member stands on the line; `None`: it may not be picked.
    pub fn slot_of(&self, index: usize) -> Option<usize> {
        self.slots.get(index).filter(|slot| **slot != NONE).map(|slot| *slot as usize)
    }

    /// Members on the line.
    pub fn indices(&self) -> impl Iterator<Item = usize> + '_ {
        self.indices.iter().map(|i| *i as usize)
    }

    /// All slots, from one on and round to the one before it.
    #[inline]
    pub fn slots_from(&self, start: usize) -> impl Iterator<Item = usize> + use<> {
        let len = self.len();
        (start..len).chain(0..start.min(len))
    }
}

/// Whole weights, unless a server is in slow start: then all are cut finer, and none to nothing.
fn units(usable: &[(usize, &Member)]) -> Vec<u64> {
    let fine = if usable.iter().all(|(_, m)| m.share >= 1.0) { 1 } else { SHARE_STEPS };
    let unit = |m: &Member| {
        let share = (f64::from(m.share).clamp(0.0, 1.0) * fine as f64).round() as u64;
        u64::from(m.weight) * share.max(1)
    };
    usable.iter().map(|(_, m)| unit(m)).collect()
}

/// The number nearest to the golden section of `length` that shares no divisor with it: steps of
/// that size spread any run of visits evenly, and return only after all of them.
fn stride(length: u64) -> u64 {
    let golden = (length as f64 * 0.618_033_988_749_895) as u64;
    let near = |d: u64| [golden + d, golden.saturating_sub(d)];
    (0..=length).flat_map(near).find(|s| *s > 0 && gcd(*s, length) == 1).unwrap_or(1)
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

const NONE: u32 = u32::MAX;

/// Slow start is seen in steps of this part of a weight.
pub const SHARE_STEPS: u64 = 64;
