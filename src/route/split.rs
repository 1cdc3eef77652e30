//! A route's share-out over pools, for clients that no sticky cookie ties to one of them.
//! Randomness is an argument.

/// Picks an index in proportion to the weights; `None` when they are all zero.
pub fn pick(weights: impl Iterator<Item = u32> + Clone, random: u64) -> Option<usize> {
    let total: u128 = weights.clone().map(u128::from).sum();
    // The high half of the product is uniform below `total`, give or take 2⁻³².
    let mut point = (u128::from(random) * total) >> 64;
    weights.enumerate().find_map(|(index, weight)| match point.checked_sub(u128::from(weight)) {
        Some(beyond) => {
            point = beyond;
            None
        }
        None => Some(index),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_are_kept() {
        let weights = [95, 0, 5];
        let mut taken = [0u32; 3];
        for step in 0..10_000u64 {
            let random = step.wrapping_mul(u64::MAX / 10_000);
            taken[pick(weights.into_iter(), random).unwrap_or(1)] += 1;
        }
        assert_eq!(taken[1], 0);
        assert!((9_499..=9_501).contains(&taken[0]), "{taken:?}");
    }

    #[test]
    fn nothing_is_picked_from_nothing() {
        assert_eq!(pick([].into_iter(), 7), None);
        assert_eq!(pick([0, 0].into_iter(), u64::MAX), None);
    }

    proptest! {
        #[test]
        fn the_pick_always_has_weight(
            weights in prop::collection::vec(0..4u32, 1..6),
            random: u64,
        ) {
            match pick(weights.iter().copied(), random) {
                Some(index) => prop_assert!(weights[index] > 0),
                None => prop_assert!(weights.iter().all(|weight| *weight == 0)),
            }
        }
    }
}
