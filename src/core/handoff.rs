//! Connections that another core has more room for. SO_REUSEPORT spreads by chance; a long-lived
//! fleet keeps what chance gave it, so skew is corrected when a connection comes in.

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
        let cores = self.seed.cores as u64;
        if cores < 2 {
            return false;
        }
        let own = self.load();
        if own >= self.room {
            return true;
        }
        let all: u64 = self.loads().map(|(_, load)| load).sum();
        own > SKEW_FLOOR && own * 100 * cores > all * SKEW_PERCENT
    }

    /// Passes a fresh connection to the emptiest other core; `false` if none has room.
    pub(super) fn hand_over(&self, client: &Owned, listener: &str) -> bool {
        let others = self.loads().filter(|(core, _)| *core != self.index);
        let Some((core, load)) = others.min_by_key(|(_, load)| *load) else { return false };
        if load >= self.room || (load >= self.load() && self.load() < self.room) {
            return false;
        }
        let Some(&over) = self.seed.handoff.get(core) else { return false };
        let passed = descriptors::pass(over, client.fd(), note(listener)).is_ok();
        if passed {
            self.counters.handed_over.inc();
        }
        passed
    }

    /// Another core passed connections to us.
    pub(super) fn take_handed(self: &Rc<Self>, from: usize) {
        let Some(&over) = self.seed.handoff.get(from) else { return };
        while let Ok((fd, note)) = descriptors::take(over) {
            let client = Owned::new(fd);
            self.counters.taken_over.inc();
            if self.load() >= self.room {
                // Others had the same thought.
                self.counters.endings.count(Ending::proxy(Stage::Accept, Cause::NoRoom));
            } else if let Some(name) = self.listener_of(note) {
                self.welcome(&name, client);
            }
        }
        let token = Token::of(Kind::Handed, from as u32).pack();
        self.wire.borrow_mut().ring.poll(over, POLL_IN, token);
    }

    fn loads(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let all = self.seed.all_counters.iter().enumerate();
        all.map(|(core, counters)| (core, counters.live.get() + counters.young.get()))
    }

    fn listener_of(&self, wanted: u64) -> Option<Arc<str>> {
        let snapshot = self.snapshot();
        let found = snapshot.plan.listeners.iter().find(|l| note(&l.name) == wanted);
        found.map(|listener| Arc::clone(&listener.name))
    }
}

/// A listener's name in eight bytes, the same on every core.
fn note(listener: &str) -> u64 {
    crate::balance::key_of(listener.as_bytes())
}
