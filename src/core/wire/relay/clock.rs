//! The relay and the clock: Pings and their answers, the message rate, and how long an ending may
//! take. Times are milliseconds on the core's clock, which may wrap.

use crate::meter::CloseCodes;
use crate::proto::frame::End;

use super::{
    CODE_GOING_AWAY, CODE_INTERNAL, Ear, LINGER_MS, Next, Out, Relay, Way, Why, other, side,
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
            let waited = now.wrapping_sub(half.ping);
            // Any byte since the Ping shows a living peer whose Pong is stuck behind its own data.
            let silent = !after(half.heard, half.ping);
            if waited >= terms.ping_timeout() && !half.ping_waits {
                if silent {
                    self.ping_missed(end, now);
                    self.say(other(end), now, out);
                } else {
                    half.mark = 0;
                    half.ping = terms.next_ping(half.heard, random);
                }
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
        if self.client.way == Way::Over && self.server.way == Way::Over {
            return Next::Over;
        }
        for (to, code) in [(End::Client, CODE_GOING_AWAY), (End::Server, CODE_GOING_AWAY)] {
            self.want_close(to, code);
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

    /// Takes `wanted` tokens from the bucket that holds one second's worth.
    pub(super) fn afford(&mut self, wanted: u32, now: u32) -> bool {
        let rate = self.terms.messages_per_second;
        if rate == 0 {
            return true;
        }
        let passed = u64::from(now.wrapping_sub(self.filled));
        let earned = passed * u64::from(rate) / 1000;
        if earned > 0 {
            self.filled = now;
            self.messages = (u64::from(self.messages) + earned).min(u64::from(rate)) as u32;
        }
        match self.messages.checked_sub(wanted) {
            Some(left) => {
                self.messages = left;
                true
            }
            None => false,
        }
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
