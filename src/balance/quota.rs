//! `max_connections` without sharing: every core may use a quota that control lends it, and the
//! quotas never add up to more than the maximum.

/// The cut a core begins with before anything was lent: even parts, the rest to the first cores.
pub fn even(max: u32, core: usize, cores: usize) -> u32 {
    let cores = cores.max(1) as u32;
    max / cores + u32::from((core as u32) < max % cores)
}

/// One server's maximum, and what every core may believe its part of it to be.
///
/// A quota that was cut is free for others only when its core is known to have heard: until then
/// the core may still use it up. So raising waits for one round of lowering.
#[derive(Debug, Clone, PartialEq)]
pub struct Lender {
    max: u32,
    cores: Vec<Lent>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Lent {
    /// The highest quota the core may still act upon.
    in_force: u32,
    /// What it was told last, and with which publish.
    told: u32,
    version: u64,
}

/// What control sees of a core at a publish. `heard` must have been read before `live`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Version of the last publish the core acts upon.
    pub heard: u64,
    pub live: u32,
}

impl Lender {
    pub fn new(max: u32, cores: usize) -> Self {
        debug_assert!(cores > 0);
        let lent = |core| {
            let quota = even(max, core, cores);
            Lent { in_force: quota, told: quota, version: 0 }
        };
        Self { max, cores: (0..cores).map(lent).collect() }
    }

    pub fn max(&self) -> u32 {
        self.max
    }

    /// Quotas for publish `version`, one for each core. `tick` grows with each call, whether or not
    /// anything came of the last one: it is the time in which odd ones go round.
    pub fn publish(&mut self, version: u64, tick: u64, seen: &[Seen]) -> Vec<u32> {
        debug_assert_eq!(seen.len(), self.cores.len());
        for (lent, seen) in self.cores.iter_mut().zip(seen) {
            if seen.heard >= lent.version {
                lent.in_force = lent.told;
            }
            // What it carries beyond its quota it took before the quota was cut.
            lent.in_force = lent.in_force.max(seen.live);
        }
        let in_force: u64 = self.cores.iter().map(|l| u64::from(l.in_force)).sum();
        let mut free = u64::from(self.max).saturating_sub(in_force) as u32;
        let wanted = self.wanted(tick, seen);
        for (lent, wanted) in self.cores.iter_mut().zip(wanted) {
            let raise = wanted.saturating_sub(lent.in_force).min(free);
            free -= raise;
            lent.in_force += raise;
            lent.told = wanted.min(lent.in_force);
            lent.version = version;
        }
        self.cores.iter().map(|l| l.told).collect()
    }

    /// What each core uses, and a part of what no core uses: a larger one for cores that used up
    /// all they were lent.
    fn wanted(&self, tick: u64, seen: &[Seen]) -> Vec<u32> {
        let used: u64 = seen.iter().map(|s| u64::from(s.live)).sum();
        let idle = u64::from(self.max).saturating_sub(used);
        let hunger = |(lent, seen): (&Lent, &Seen)| {
            if seen.live >= lent.told { HUNGRY } else { 1 }
        };
        let hungers: Vec<u64> = self.cores.iter().zip(seen).map(hunger).collect();
        let all: u64 = hungers.iter().sum();
        let part = |hunger: &u64| (idle * hunger / all) as u32;
        let mut parts: Vec<u32> = hungers.iter().map(part).collect();
        let left = idle - parts.iter().map(|p| u64::from(*p)).sum::<u64>();
        // Where a core has no part of its own, the odd ones go round, slowly enough to be given up
        // by one and lent to the next. Else nobody is in want, and where nothing changes nothing is
        // to be published.
        let turn = if parts.contains(&0) { tick / TURN } else { 0 };
        for odd in 0..left {
            parts[((turn + odd) % seen.len() as u64) as usize] += 1;
        }
        parts.iter().zip(seen).map(|(part, seen)| part.saturating_add(seen.live)).collect()
    }
}

/// How many times the part of a sated core a hungry one gets.
const HUNGRY: u64 = 4;
/// Ticks until odd ones are offered to the next core.
const TURN: u64 = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn even_parts_add_up() {
        for max in [0, 1, 3, 7, 100, u32::MAX] {
            for cores in 1..9 {
                let parts: Vec<u32> = (0..cores).map(|core| even(max, core, cores)).collect();
                assert_eq!(parts.iter().map(|p| u64::from(*p)).sum::<u64>(), u64::from(max));
                assert!(parts[0] - parts[cores - 1] <= 1);
            }
        }
    }

    #[test]
    fn unused_quota_moves_to_the_core_that_needs_it() {
        let mut lender = Lender::new(100, 4);
        let mut quotas = vec![25; 4];
        for version in 1..20 {
            // The second core takes all it may, the others nothing.
            let seen = [0, quotas[1], 0, 0].map(|live| Seen { heard: version - 1, live });
            quotas = lender.publish(version, version, &seen);
            assert!(quotas.iter().sum::<u32>() <= 100);
        }
        assert!(quotas[1] >= 96, "{quotas:?}");
    }

    #[test]
    fn a_core_that_stopped_hearing_keeps_what_it_may_still_use() {
        let mut lender = Lender::new(10, 2);
        for version in 1..10 {
            let seen = [Seen { heard: 0, live: 0 }, Seen { heard: version - 1, live: 5 }];
            let quotas = lender.publish(version, version, &seen);
            assert_eq!(quotas[1], 5, "the first core's five are not known to be given up");
        }
    }

    #[test]
    fn a_single_connection_is_never_stranded() {
        // One slot over four cores: whoever wants it must get it in time.
        let mut lender = Lender::new(1, 4);
        let mut had = [false; 4];
        for version in 1..40 {
            let seen = [Seen { heard: version - 1, live: 0 }; 4];
            let quotas = lender.publish(version, version, &seen);
            assert!(quotas.iter().sum::<u32>() <= 1);
            had.iter_mut().zip(&quotas).for_each(|(had, quota)| *had |= *quota == 1);
        }
        assert_eq!(had, [true; 4]);
    }

    #[test]
    fn an_odd_one_stays_where_every_core_has_a_part() {
        let mut lender = Lender::new(100, 3);
        let seen = [Seen { heard: u64::MAX, live: 0 }; 3];
        for tick in 1..40 {
            assert_eq!(lender.publish(tick, tick, &seen), [34, 33, 33], "tick {tick}");
        }
    }

    /// A core as the lender cannot see it: messages arrive late, connections come and go.
    #[derive(Default)]
    struct Core {
        quota: u32,
        live: u32,
        heard: u64,
        inbox: std::collections::VecDeque<(u64, u32)>,
    }

    proptest! {
        #[test]
        fn cores_never_hold_more_than_the_maximum(
            max in 0u32..40,
            count in 1usize..6,
            steps in prop::collection::vec((0usize..8, 0u8..8, 0u32..20), 1..300),
        ) {
            let mut lender = Lender::new(max, count);
            let core = |c| Core { quota: even(max, c, count), ..Core::default() };
            let mut cores: Vec<Core> = (0..count).map(core).collect();
            let mut version = 0;
            for (which, what, many) in steps {
                let core = &mut cores[which % count];
                match what {
                    0..=2 => core.live = core.live.max(core.quota.min(core.live + many)),
                    3 => core.live = core.live.saturating_sub(many),
                    4 | 5 => if let Some((heard, quota)) = core.inbox.pop_front() {
                        (core.heard, core.quota) = (heard, quota);
                    },
                    _ => {
                        version += 1;
                        let see = |c: &Core| Seen { heard: c.heard, live: c.live };
                        let seen: Vec<Seen> = cores.iter().map(see).collect();
                        let quotas = lender.publish(version, version, &seen);
                        for (core, quota) in cores.iter_mut().zip(quotas) {
                            core.inbox.push_back((version, quota));
                        }
                    }
                }
                let held: u32 = cores.iter().map(|c| c.live).sum();
                prop_assert!(held <= max, "{held} held of {max}");
            }
        }
    }
}
