//! The relay and the clock: Pings and their answers, the message rate, and how long an ending may
//! take. Times are milliseconds on the core's clock, which may wrap.

use crate::meter::CloseCodes;
use crate::proto::frame::End;

use super::{
    CODE_GOING_AWAY, CODE_INTERNAL, Ear, GRACE_MS, LINGER_MS, Next, Out, PROGRESS_MS, Relay, Way,
    Why, other, side,
};

impl Relay {
    /// Looks at the clock: Pings that are due, answers that did not come, ends that take too long.
    pub fn sweep<O: Out>(&mut self, now: u32, random: u64, out: &mut O) -> Next {
        if self.grace != 0 {
            return self.sweep_ending(now, out);
        }
        for end in [End::Client, End::Server] {
            if self.terms.pings(end) {
                self.sweep_ping(end, now, random, out);
            }
        }
        self.next()
    }

    fn sweep_ping<O: Out>(&mut self, end: End, now: u32, random: u64, out: &mut O) {
        let terms = self.terms.clone();
        let half = self.half_mut(end);
        if half.mark != 0 {
            let patience = terms.ping_timeout();
            if half.ping_waits || now.wrapping_sub(half.ping) < patience {
                return;
            }
            // A peer that is heard, or that still takes what went before our Ping, lives: its Pong
            // is stuck behind other bytes, and has another timeout to come. Of one that is not read
            // nothing can be told: how long the other end may stall it has its own limit.
            let heard = after(half.heard, half.ping);
            if heard || out.is_busy(end, patience) || out.is_unread(end) {
                half.ping = now;
            } else {
                self.ping_missed(end, now);
                self.say(other(end), now, out);
            }
            return;
        }
        if !reached(now, half.ping) {
            return;
        }
        if now.wrapping_sub(half.heard) < terms.ping_every() / 2 {
            half.ping = terms.next_ping(half.heard, random);
            return;
        }
        half.mark = random | 1;
        half.ping = now;
        half.ping_waits = true;
        self.say(end, now, out);
    }

    fn ping_missed(&mut self, end: End, now: u32) {
        self.why.get_or_insert(Why::PingTimeout(end));
        self.record(side(end), CloseCodes::ABNORMAL);
        let half = self.half_mut(end);
        half.way = Way::Over;
        half.ear = Ear::Deaf;
        let code = if end == End::Client { CODE_GOING_AWAY } else { CODE_INTERNAL };
        self.want_close(other(end), code);
        self.begin_grace(now);
    }

    /// Our mark came back. The next Ping is due a full interval after this one went out; the jitter
    /// of the first one stays with the pipe.
    pub(super) fn ponged(&mut self, from: End, clock: u32) {
        let every = self.terms.ping_every();
        let half = self.half_mut(from);
        half.mark = 0;
        half.ping = half.ping.wrapping_add(every);
        let waited = clock.wrapping_sub(half.sent);
        self.terms.count_pong(waited);
    }

    fn sweep_ending<O: Out>(&mut self, now: u32, out: &mut O) -> Next {
        if !reached(now, self.grace) {
            return Next::At(self.grace);
        }
        if self.is_on_its_way(now, out) {
            self.grace = now.wrapping_add(PROGRESS_MS).max(1);
            return Next::At(self.grace);
        }
        if self.client.way == Way::Over && self.server.way == Way::Over {
            return Next::Over;
        }
        for to in [End::Client, End::Server] {
            self.want_close(to, CODE_GOING_AWAY);
            self.say(to, now, out);
            let half = self.half_mut(to);
            if half.way != Way::Over {
                half.way = Way::Over;
                out.finish(to);
            }
            if half.ear == Ear::Open {
                half.ear = Ear::Deaf;
            }
        }
        self.grace = now.wrapping_add(LINGER_MS).max(1);
        Next::At(self.grace)
    }

    /// Whether an ending has to wait: a frame that our Close must not cut is still coming, or bytes
    /// said before are still being taken. (An end that takes nothing is the engine's to give up.)
    fn is_on_its_way<O: Out>(&self, now: u32, out: &mut O) -> bool {
        [End::Client, End::Server].into_iter().any(|to| {
            let from = self.half(other(to));
            let coming = matches!(self.half(to).way, Way::Closing(_))
                && from.ear == Ear::Open
                && now.wrapping_sub(from.heard) < GRACE_MS;
            coming || out.is_busy(to, GRACE_MS)
        })
    }

    /// When [`Relay::sweep`] has something to do, as things stand.
    pub fn next(&self) -> Next {
        if self.grace != 0 {
            return Next::At(self.grace);
        }
        let due = |end: End| {
            let half = self.half(end);
            let wait = if half.mark != 0 { self.terms.ping_timeout() } else { 0 };
            self.terms.pings(end).then(|| half.ping.wrapping_add(wait))
        };
        match (due(End::Client), due(End::Server)) {
            (None, None) => Next::Idle,
            (Some(at), None) | (None, Some(at)) => Next::At(at),
            (Some(a), Some(b)) => Next::At(if after(a, b) { b } else { a }),
        }
    }

    /// Messages the client may begin now: a bucket that holds one second's worth.
    pub(super) fn messages_left(&mut self, now: u32) -> Option<u32> {
        let rate = u64::from(self.terms.messages_per_second);
        if rate == 0 {
            return None;
        }
        let earned = u64::from(now.wrapping_sub(self.filled)) * rate / 1000;
        let left = u64::from(self.messages) + earned;
        if left >= rate {
            self.filled = now;
        } else {
            // Only for what was earned: the part of a message that was not, stays to be earned.
            self.filled = self.filled.wrapping_add((earned * 1000 / rate) as u32);
        }
        self.messages = left.min(rate) as u32;
        Some(self.messages)
    }
}

/// Whether the clock, which may wrap, has come to `at`.
fn reached(now: u32, at: u32) -> bool {
    now.wrapping_sub(at) < 1 << 31
}

/// Whether `a` is later than `b`.
fn after(a: u32, b: u32) -> bool {
    a != b && reached(a, b)
}
