//! Connections that do not behave: slow readers, peers that vanish, and everybody leaving at once.

use socket2::{SockFilter, SockRef};

use super::Engine;
use super::link::{Habit, Stage};
use crate::plan::Odd;
use crate::tally::{How, Who};

/// Slow readers are visited this often a second.
const VISITS_PER_SECOND: u64 = 10;

impl Engine {
    /// Gives every slow reader the bytes it takes in a tenth of a second.
    pub(super) fn read_slowly(&mut self) {
        let Odd::Slow { bytes_per_second, .. } = self.plan.odd else { return };
        let allowance = (bytes_per_second / VISITS_PER_SECOND) as usize;
        if allowance == 0 {
            return;
        }
        for index in 0..self.links.len() as u32 {
            let link = &self.links[index as usize];
            if link.habit != Habit::Slow || link.stage != Stage::Open {
                continue;
            }
            let whole = self.room.limit(allowance);
            // What it read is looked at like anybody's; only how much it reads is odd.
            let _ = self.read_once(index);
            self.room.limit(whole);
        }
    }

    /// The doomed stop being there. Nothing is said to the other side: its packets fall on the
    /// floor before our TCP sees them, so that nothing is acknowledged; or, frozen, our kernel goes
    /// on acknowledging while nobody reads.
    pub(super) fn vanish(&mut self) {
        let Odd::Doomed { freeze, .. } = self.plan.odd else { return };
        /// BPF_RET | BPF_K: accept this many bytes of the packet, which is none.
        const DROP: SockFilter = SockFilter::new(0x06, 0, 0, 0);
        for link in &mut self.links {
            if link.habit != Habit::Doomed || link.stage != Stage::Open {
                continue;
            }
            let Some(socket) = &link.socket else { continue };
            if !freeze && let Err(error) = SockRef::from(socket.stream()).attach_filter(&[DROP]) {
                self.tally.error(format!("generator: cannot drop a socket's packets: {error}"));
                continue;
            }
            link.habit = Habit::Gone;
            self.tally.counts.vanished += 1;
        }
    }

    /// Everybody drops everything and comes back at the connect rate.
    pub(super) fn storm(&mut self, now: u64) {
        for index in 0..self.links.len() as u32 {
            let link = &mut self.links[index as usize];
            if link.stage != Stage::Open {
                continue;
            }
            // What was under way is lost with intent: it is given up, not lost.
            self.tally.counts.given_up += u64::from(link.account.abandon(link.sent));
            link.stage = Stage::Leaving;
            if self.plan.reset
                && let Some(socket) = &link.socket
            {
                socket.reset_on_close();
            }
            self.drop_link(index, Who::Us, if self.plan.reset { How::Reset } else { How::Fin });
        }
        let coming: Vec<u32> = self.retries.drain(..).map(|(_, index)| index).collect();
        self.dialling.extend(coming);
        self.first_dial_ns = now;
        self.dialled = 0;
        self.ready_said = false;
    }
}
