//! Short lives: a connection opens, makes its round trips, stays as long as told, and leaves; its
//! slot is then free for the next one that is due.

use std::cmp::Reverse;

use standpipe::sys::generator::monotonic_ns;

use super::Engine;
use super::link::Stage;
use crate::plan::Traffic;

impl Engine {
    pub(super) fn begin_life(&mut self, index: u32, messages: u32, life_ns: u64) {
        let link = &mut self.links[index as usize];
        link.base = link.sent;
        if messages > 0 {
            self.say(index, monotonic_ns());
        } else {
            self.live_on(index, messages, life_ns);
        }
    }

    /// A reply came (or none is wanted): the next message, or the end of this life.
    pub(super) fn live_on(&mut self, index: u32, messages: u32, life_ns: u64) {
        let link = &self.links[index as usize];
        if link.stage != Stage::Open {
            return;
        }
        if link.sent.wrapping_sub(link.base) < messages {
            return self.say(index, monotonic_ns());
        }
        let end_ns = link.since_ns + life_ns;
        if life_ns == 0 {
            self.say_goodbye(index);
        } else {
            self.lives.push(Reverse((end_ns, index)));
        }
    }

    /// Ends the lives whose time is up.
    pub(super) fn end_lives(&mut self, now: u64) {
        let Traffic::Churn { life_ns, .. } = self.plan.traffic else { return };
        while let Some(&Reverse((end_ns, index))) = self.lives.peek() {
            if end_ns > now {
                return;
            }
            self.lives.pop();
            // A slot may have been taken by a younger connection: then it is not yet its time.
            if self.links[index as usize].since_ns + life_ns <= end_ns {
                self.say_goodbye(index);
            }
        }
    }
}
