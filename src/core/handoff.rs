//! Connections that another core has more room for. SO_REUSEPORT spreads them by chance, and
//! long-lived ones stay where chance put them, so skew is corrected when a connection comes in.

use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;

use crate::meter::{Cause, Ending, Stage};
use crate::sys::descriptors;
use crate::sys::ring::POLL_IN;
use crate::sys::socket::Owned;

use super::Core;
use super::wire::token::{Kind, Token};

/// Connections a core must have before skew matters.
const SKEW_FLOOR: u64 = 64;
/// How far above the mean a core may be, in percent.
const SKEW_PERCENT: u64 = 110;

impl Core {
    /// Whether this core is full, or carries more than its share.
    pub(super) fn should_hand_over(&self) -> bool {
        if self.seed.cores < 2 || !self.is_serving() {
            return false;
        }
        let own = self.load();
        if own >= self.room {
            return true;
        }
        let (mut cores, mut carried, mut passed, mut taken) = (0, 0, 0, 0);
        for core in self.seed.all_counters.iter() {
            if core.serving.get() == 1 {
                cores += 1;
                carried += core.live.get() + core.young.get();
            }
            // Cores that no longer serve are summed too: else what was passed to them, and taken by
            // them, would count as on its way for ever.
            passed += core.handed_over.get();
            taken += core.taken_over.get();
        }
        let all = carried + passed.saturating_sub(taken);
        own > SKEW_FLOOR && own * 100 * cores > all * SKEW_PERCENT
    }

    /// Passes a fresh connection to the emptiest other core; `false` if none has room.
    pub(super) fn hand_over(&self, client: &Owned, listener: &str) -> bool {
        let (own, room) = (self.load(), self.room);
        let Some(core) = emptiest(self.others(), own, room) else { return false };
        let Some(&over) = self.seed.handoff.get(core) else { return false };
        let passed = descriptors::pass(over, client.fd(), note(listener)).is_ok();
        if passed {
            self.seed.passing.passed(self.index, core);
            self.counters.handed_over.inc();
        }
        passed
    }

    /// Another core passed connections to us.
    pub(super) fn take_handed(self: &Rc<Self>, from: usize) {
        let Some(&over) = self.seed.handoff.get(from) else { return };
        self.take_from(over);
        let token = Token::of(Kind::Handed, from as u32).pack();
        self.wire.borrow_mut().ring.poll(over, POLL_IN, token);
    }

    /// Takes whatever any core has passed to this one.
    pub(super) fn take_all_handed(self: &Rc<Self>) {
        let others = self.seed.handoff.iter().enumerate().filter(|(from, _)| *from != self.index);
        others.for_each(|(_, &over)| self.take_from(over));
    }

    fn take_from(self: &Rc<Self>, over: RawFd) {
        let lost = |cause| self.counters.endings.count(Ending::proxy(Stage::Accept, cause));
        loop {
            match descriptors::take(over) {
                // Several cores may have passed their connections to us at once.
                Ok((fd, _)) if self.load() >= self.room => {
                    drop(Owned::new(fd));
                    lost(Cause::NoRoom);
                }
                Ok((fd, note)) => {
                    let client = Owned::new(fd);
                    match self.listener_of(note) {
                        Some(name) => self.welcome(&name, client),
                        // A reload removed its listener while the connection was on its way.
                        None => lost(Cause::NoRoute),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    lost(Cause::NoDescriptors);
                }
                Err(_) => break,
            }
            // Only now that this core's own counts include it (or it has ended): until here other
            // cores see it as on its way, so that no moment exists at which it counts nowhere.
            self.counters.taken_over.inc();
        }
    }

    /// The other cores that serve, with what they carry and what is on its way to them.
    fn others(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let all = self.seed.all_counters.iter().enumerate();
        let others = all.filter(|(core, it)| *core != self.index && it.serving.get() == 1);
        others.map(|(core, counters)| {
            // What is on its way is read first: a connection that arrives between the two reads is
            // counted twice rather than not at all.
            let coming = self.seed.passing.toward(core, counters.taken_over.get());
            (core, counters.live.get() + counters.young.get() + coming)
        })
    }

    fn listener_of(&self, wanted: u64) -> Option<Arc<str>> {
        let snapshot = self.snapshot();
        let found = snapshot.plan.listeners.iter().find(|l| note(&l.name) == wanted);
        found.map(|listener| Arc::clone(&listener.name))
    }
}

/// Which of the `others` takes a connection of a core that carries `own` of at most `room`: the one
/// that carries least, if it has room and carries less than `own`, or this core is full.
fn emptiest(others: impl Iterator<Item = (usize, u64)>, own: u64, room: u64) -> Option<usize> {
    let (core, load) = others.min_by_key(|(_, load)| *load)?;
    (load < room && (load < own || own >= room)).then_some(core)
}

/// A listener's name in eight bytes, the same on every core.
fn note(listener: &str) -> u64 {
    crate::balance::key_of(listener.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::Passing;

    #[test]
    fn the_emptiest_with_room_and_less_takes_it() {
        let others = |loads: &[u64]| loads.iter().copied().enumerate().collect::<Vec<_>>();
        let pick = |loads: &[u64], own| emptiest(others(loads).into_iter(), own, 100);
        assert_eq!(pick(&[30, 10, 20], 50), Some(1));
        assert_eq!(pick(&[30, 50], 30), None);
        assert_eq!(pick(&[99, 100], 100), Some(0));
        assert_eq!(pick(&[100, 100], 100), None);
        assert_eq!(pick(&[], 100), None);
    }

    #[test]
    fn a_burst_goes_to_all_though_nobody_has_taken_any_of_it() {
        let (passing, cores) = (Passing::new(5), 1..5_usize);
        let carried = [1000, 0, 0, 100, 200];
        let load = |core: usize| carried[core] + passing.toward(core, 0);
        for _ in 0..700 {
            let others = cores.clone().map(|core| (core, load(core)));
            passing.passed(0, emptiest(others, 1000, 5000).unwrap());
        }
        assert_eq!(cores.map(load).collect::<Vec<_>>(), [250; 4]);
    }
}
