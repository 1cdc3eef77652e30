//! Ten times a second: what all cores together carry on each server, and which part of its
//! `max_connections` each core may use. Says nothing when nothing has changed.

use std::collections::HashMap;
use std::sync::Arc;

use crate::balance::quota::{Lender, Seen};
use crate::balance::{Load, Loads, ServerId};
use crate::meter::CoreCounters;

use super::registry::Registry;

/// Keeps what was last published, and what is lent out.
#[derive(Debug)]
pub struct Publisher {
    cores: usize,
    /// How often a publish was computed, sent or not.
    ticks: u64,
    last: Arc<Loads>,
    lenders: HashMap<ServerId, Lender>,
}

impl Publisher {
    pub fn new(cores: usize) -> Self {
        let last = Arc::new(Loads::new(0, cores));
        Self { cores, ticks: 0, last, lenders: HashMap::new() }
    }

    /// The next publish, if it differs from the last. `maxima` has every server's
    /// `max_connections` by id, 0 where it has none.
    pub fn publish(
        &mut self,
        cores: &[Arc<CoreCounters>],
        registry: &Registry,
        maxima: &[u32],
    ) -> Option<Arc<Loads>> {
        // Before the counts: a core that shows a version has counted all it did before it.
        let heard: Vec<u64> = cores.iter().map(|core| core.loads_heard.get()).collect();
        let version = self.last.version + 1;
        self.ticks += 1;
        let mut loads = Loads::new(version, self.cores);
        let mut lenders = HashMap::new();
        let mut row = vec![Load::default(); self.cores];
        for (id, known) in registry.servers() {
            for (load, cell) in row.iter_mut().zip(&known.cells) {
                *load = Load { live: u32::try_from(cell.live.get()).unwrap_or(u32::MAX), quota: 0 };
            }
            let max = maxima.get(id.index()).copied().unwrap_or(0);
            if max > 0 {
                let mut lender = self.lender(id, max);
                let seen = heard.iter().zip(&row);
                let seen = seen.map(|(heard, load)| Seen { heard: *heard, live: load.live });
                let quotas = lender.publish(version, self.ticks, &seen.collect::<Vec<_>>());
                row.iter_mut().zip(quotas).for_each(|(load, quota)| load.quota = quota);
                lenders.insert(id, lender);
            }
            loads.set(id, max, &row);
        }
        // A lender must not believe in a publish that nobody was sent.
        loads.version = self.last.version;
        if loads == *self.last {
            return None;
        }
        loads.version = version;
        self.lenders = lenders;
        self.last = Arc::new(loads);
        Some(self.last.clone())
    }

    fn lender(&self, id: ServerId, max: u32) -> Lender {
        let known = self.lenders.get(&id).filter(|lender| lender.max() == max);
        known.cloned().unwrap_or_else(|| Lender::new(max, self.cores))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::ServerAddress;

    fn registry() -> (Registry, ServerId) {
        let mut registry = Registry::new(2);
        let address = ServerAddress::Unix("/run/a".into());
        let id = registry.server(&"chat".into(), &"a".into(), &address);
        (registry, id)
    }

    #[test]
    fn sums_are_told_once_and_again_when_they_change() {
        let (registry, id) = registry();
        let cores = [Arc::default(), Arc::default()];
        let mut publisher = Publisher::new(2);
        registry.known(id).cells[0].live.add(3);
        registry.known(id).cells[1].live.add(4);
        let loads = publisher.publish(&cores, &registry, &[0]).unwrap();
        assert_eq!((loads.total(id), loads.of(id, 1).live), (7, 4));
        assert!(publisher.publish(&cores, &registry, &[0]).is_none());
        registry.known(id).cells[1].live.sub(1);
        assert_eq!(publisher.publish(&cores, &registry, &[0]).unwrap().total(id), 6);
    }

    #[test]
    fn a_single_slot_goes_round_though_nothing_happens() {
        let (registry, id) = registry();
        let cores: [Arc<CoreCounters>; 2] = [Arc::default(), Arc::default()];
        let mut publisher = Publisher::new(2);
        let mut had = [0; 2];
        for _ in 0..40 {
            if let Some(loads) = publisher.publish(&cores, &registry, &[1]) {
                cores.iter().for_each(|core| core.loads_heard.set(loads.version));
            }
            let quotas = [0, 1].map(|core| publisher.last.of(id, core).quota);
            assert!(quotas.iter().sum::<u32>() <= 1, "{quotas:?}");
            had.iter_mut().zip(quotas).for_each(|(had, quota)| *had += quota);
        }
        assert!(had.iter().all(|ticks| *ticks >= 10), "{had:?} of 40 ticks");
    }

    #[test]
    fn odd_ones_are_not_told_of_where_nobody_is_in_want() {
        let (registry, _) = registry();
        let cores: [Arc<CoreCounters>; 2] = [Arc::default(), Arc::default()];
        let mut publisher = Publisher::new(2);
        let publishes = (0..40).filter_map(|_| publisher.publish(&cores, &registry, &[101]));
        assert_eq!(publishes.count(), 1);
    }

    #[test]
    fn what_a_dead_core_was_lent_comes_back() {
        let (registry, id) = registry();
        let cores: [Arc<CoreCounters>; 2] = [Arc::default(), Arc::default()];
        let mut publisher = Publisher::new(2);
        let known = registry.known(id);
        known.cells[0].live.add(4);
        known.cells[1].live.add(5);
        publisher.publish(&cores, &registry, &[10]);
        // As control leaves the cells of a core that died.
        registry.bury(1);
        cores[1].loads_heard.set(u64::MAX);
        for _ in 0..10 {
            if let Some(loads) = publisher.publish(&cores, &registry, &[10]) {
                cores[0].loads_heard.set(loads.version);
                // Clients enough for all it is lent.
                known.cells[0].live.set(u64::from(loads.of(id, 0).quota));
            }
        }
        let left = publisher.last.of(id, 0).quota;
        assert!(left >= 9, "{left} of 10 for the one that lives");
    }

    #[test]
    fn quotas_never_add_up_to_more_than_the_maximum() {
        let (registry, id) = registry();
        let cores: [Arc<CoreCounters>; 2] = [Arc::default(), Arc::default()];
        let mut publisher = Publisher::new(2);
        registry.known(id).cells[0].live.add(5);
        for round in 0..10 {
            if let Some(loads) = publisher.publish(&cores, &registry, &[10]) {
                assert!(loads.of(id, 0).quota + loads.of(id, 1).quota <= 10);
                if round % 2 == 0 {
                    cores.iter().for_each(|core| core.loads_heard.set(loads.version));
                }
            }
        }
        let last = &publisher.last;
        assert!(last.of(id, 0).quota >= 7, "the busy core has not been lent what is unused");
    }
}
