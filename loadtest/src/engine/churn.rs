//! Short lives: a connection opens, makes its round trips, stays as long as told, and leaves; its
//! slot is then free for the next one that is due.

use std::cmp::Reverse;

use standpipe::sys::generator::monotonic_ns;

use super::Engine;
use super::link::Stage;
use crate::conductor::Times;
use crate::plan::Traffic;

/// What lives that were due and never begun are called in the report.
const UNDIALLED: &str = "connect: due and never dialled, all --connections were in use (give \
                         more, or the target lets go of them too slowly)";

impl Engine {
    /// When the next short life of the window is due, be there a slot for it or not.
    pub(super) fn life_due_ns(&self) -> Option<u64> {
        let period = self.life_period_ns()?;
        let due = self.first_dial_ns + (self.dialled as f64 * period) as u64;
        (due < self.times?.measure_to_ns).then_some(due)
    }

    /// From one life of this thread to its next; nothing where there are none.
    fn life_period_ns(&self) -> Option<f64> {
        let Traffic::Churn { rate, .. } = self.plan.traffic else { return None };
        Some(1e9 * self.plan.threads as f64 / rate)
    }

    /// The run is over: lives that were due inside the window and never begun are counted, and make
    /// the run fail. Every slot was in use all the time, or they would have been dialled, late or
    /// not; whether that was our own doing is for the lag to say.
    pub(super) fn count_undialled(&mut self, times: Times) {
        let (Some(period), Some(_)) = (self.life_period_ns(), self.life_due_ns()) else { return };
        let due_before =
            |ns: u64| (ns.saturating_sub(self.first_dial_ns) as f64 / period).ceil() as u64;
        let begun = self.dialled.max(due_before(times.measure_from_ns));
        let count = due_before(times.measure_to_ns).saturating_sub(begun);
        self.tally.counts.undialled += count;
        self.tally.errors_of(UNDIALLED, count);
    }

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
            let link = &self.links[index as usize];
            if link.stage == Stage::Open && link.since_ns + life_ns <= end_ns {
                self.say_goodbye(index);
            }
        }
    }
}
