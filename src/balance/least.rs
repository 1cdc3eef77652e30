//! Weighted least-connections over what all cores carry. A linear scan: one multiplication and
//! one cache-resident read a server.

use super::Counts;
use super::group::Offer;
use super::spread::Spread;

/// `random` decides among equals, or cores that heard the same counts would all send their next
/// connection to the same server.
pub fn pick<C: Counts>(spread: &Spread, offer: &Offer<C>, random: u64) -> Option<usize> {
    let mut best = None;
    for slot in spread.slots_from(spread.slot_thrown(random)) {
        if !offer.fits(spread.index(slot)) {
            continue;
        }
        match best {
            Some(best) if !offer.lighter(spread, slot, best) => {}
            _ => best = Some(slot),
        }
    }
    best.map(|slot| spread.index(slot))
}
