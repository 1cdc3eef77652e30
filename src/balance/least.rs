//! Weighted least-connections over what all cores carry. A linear scan: one multiplication and
//! one cache-resident read a server.

use super::Counts;
use super::group::Offer;
use super::spread::Spread;

/// `random` decides among equals, or cores that heard the same counts would all send their next
/// connection to the same server.
pub fn pick<C: Counts>(spread: &Spread, offer: &Offer<C>, random: u64) -> Option<usize> {
    let mut best: Option<(usize, u64, u64)> = None;
    for slot in spread.slots_from(spread.slot_thrown(random)) {
        let index = spread.index(slot);
        let (load, units) = (offer.total(index) + 1, spread.units(slot));
        // The load first: most servers are not the lightest, and need not be looked at further.
        let lighter = best.is_none_or(|(_, least, of)| load * of < least * units);
        if lighter && offer.fits(index) {
            best = Some((index, load, units));
        }
    }
    best.map(|(index, _, _)| index)
}
