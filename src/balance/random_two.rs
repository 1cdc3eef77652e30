//! Two servers by lot, weighted, and of these the less loaded: nearly as even as the full scan
//! for the price of two looks, and never a herd.

use super::Counts;
use super::group::Offer;
use super::hash::mix;
use super::spread::Spread;

pub fn pick<C: Counts>(spread: &Spread, offer: &Offer<C>, random: u64) -> Option<usize> {
    let mut first = None;
    let mut lot = random;
    for _ in 0..LOTS {
        let slot = spread.slot_thrown(lot);
        lot = mix(lot);
        if !offer.fits(spread.index(slot)) || first == Some(slot) {
            continue;
        }
        match first {
            None if spread.len() > 1 => first = Some(slot),
            None => return Some(spread.index(slot)),
            Some(first) if offer.lighter(spread, slot, first) => return Some(spread.index(slot)),
            Some(first) => return Some(spread.index(first)),
        }
    }
    // Nearly all have no room, or one weighs more than all others together.
    let found = first.or_else(|| {
        let mut slots = spread.slots_from(spread.slot_thrown(lot));
        slots.find(|slot| offer.fits(spread.index(*slot)))
    });
    found.map(|slot| spread.index(slot))
}

/// Lots drawn before two different servers with room must have come up.
const LOTS: usize = 8;
