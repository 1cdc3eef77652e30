//! Weighted round-robin without a queue: the n-th pick is a function of n. A core's position is
//! one number, so a new group (another weight, a server gone) needs no state to be carried over.

use super::group::Offer;
use super::spread::Spread;
use super::{Counts, Cursor};

pub fn pick<C: Counts>(spread: &Spread, offer: &Offer<C>, cursor: &mut Cursor) -> Option<usize> {
    for _ in 0..STEPS {
        let slot = spread.slot_on_walk(cursor.count);
        cursor.count = cursor.count.wrapping_add(1);
        if offer.fits(spread.index(slot)) {
            return Some(spread.index(slot));
        }
    }
    // Most have no room: look at each once.
    let start = spread.slot_on_walk(cursor.count);
    spread.slots_from(start).map(|slot| spread.index(slot)).find(|i| offer.fits(*i))
}

/// Steps of the walk before the search becomes exhaustive.
const STEPS: usize = 16;
