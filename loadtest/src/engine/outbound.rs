//! Sending: what is due, what stayed due, the next of a ping-pong, goodbyes.

use standpipe::sys::generator::monotonic_ns;

use super::Engine;
use super::link::{Habit, Link, Stage};
use crate::conductor::Times;
use crate::frame::{self, Opcode};
use crate::message::{Form, Header, Kind, header_bytes};
use crate::plan::Traffic;
use crate::schedule::{Due, Schedule};
use crate::socket::Sent;
use crate::tally::{How, Who};

/// A stream sends this much before others get a turn.
const STREAM_TURN_BYTES: usize = 256 * 1024;

impl Engine {
    /// A message's time has come: it is sent, or stays due, or finds its connection down.
    pub(super) fn fall_due(&mut self, due: Due, times: Times) {
        let measured = due.due_ns >= times.measure_from_ns;
        let link = &mut self.links[due.link as usize];
        let sequence = link.base + due.round;
        if link.habit == Habit::Gone {
            return;
        }
        if link.stage != Stage::Open {
            // The number stays unused: the schedule goes on as if it had been sent.
            link.sent = sequence + 1;
            link.due = link.sent;
            link.account.skip_to(link.sent);
            self.tally.counts.missed += u64::from(measured && link.habit == Habit::Normal);
            return;
        }
        link.due = sequence + 1;
        link.due_ns = due.due_ns;
        let blocked = link.socket.as_ref().is_some_and(|socket| socket.blocked());
        if blocked || link.sent != sequence {
            return;
        }
        let now = monotonic_ns();
        if measured && link.habit == Habit::Normal {
            self.tally.lag.saturating_record(now.saturating_sub(due.due_ns));
        }
        self.say(due.link, due.due_ns);
    }

    /// The socket takes bytes again: first what it owes, then what has come due since.
    pub(super) fn unblock(&mut self, index: u32) {
        let link = &mut self.links[index as usize];
        let Some(socket) = &mut link.socket else { return };
        match socket.flush() {
            Ok(Sent::All) => self.speak_on(index),
            Ok(Sent::Blocked) => {}
            Err(error) => self.failed(index, &error),
        }
    }

    /// Whatever this link still has to say, as far as its socket takes it.
    pub(super) fn speak_on(&mut self, index: u32) {
        if self.links[index as usize].stage != Stage::Open {
            return;
        }
        match self.plan.traffic {
            Traffic::Open { .. } => self.catch_up(index),
            Traffic::Closed => {
                let link = &self.links[index as usize];
                if link.talks && link.account.outstanding(link.sent) == 0 {
                    self.say_next(index);
                }
            }
            Traffic::Stream => self.stream(index),
            Traffic::Silent | Traffic::Listen | Traffic::Churn { .. } => {}
        }
    }

    fn catch_up(&mut self, index: u32) {
        loop {
            let link = &self.links[index as usize];
            let blocked = link.socket.as_ref().is_none_or(|socket| socket.blocked());
            if blocked || link.sent >= link.due || link.stage != Stage::Open {
                return;
            }
            let (known, known_ns, sequence) = (link.due - 1, link.due_ns, link.sent);
            // Without a schedule the run is over, and what was never taken stays so.
            let Some(schedule) = &self.schedule else { return };
            let due_ns = Schedule::relative(schedule, known, known_ns, sequence);
            self.say(index, due_ns);
        }
    }

    /// The next message of a ping-pong; due now, because the last answer has come.
    pub(super) fn say_next(&mut self, index: u32) {
        let Some(times) = self.times else { return };
        let now = monotonic_ns();
        let link = &self.links[index as usize];
        let blocked = link.socket.as_ref().is_none_or(|socket| socket.blocked());
        if now < times.measure_to_ns && !blocked && link.stage == Stage::Open {
            self.say(index, now);
        }
    }

    fn stream(&mut self, index: u32) {
        let Some(times) = self.times else { return };
        let mut said = 0;
        while said < STREAM_TURN_BYTES {
            let link = &self.links[index as usize];
            let blocked = link.socket.as_ref().is_none_or(|socket| socket.blocked());
            if !link.talks || blocked || link.stage != Stage::Open {
                return;
            }
            let now = monotonic_ns();
            if now >= times.measure_to_ns {
                return;
            }
            said += self.plan.sizes.of(self.number(index), link.sent);
            self.say(index, now);
        }
        self.again.push_back(index);
    }

    /// Sends this link's next message.
    pub(super) fn say(&mut self, index: u32, due_ns: u64) {
        let connection = self.number(index);
        let link = &mut self.links[index as usize];
        let sequence = link.sent;
        link.sent += 1;
        let length = self.plan.sizes.of(connection, sequence);
        let normal = self.links[index as usize].habit == Habit::Normal;
        let measured = normal && self.in_window(due_ns);
        self.tally.counts.sent += 1;
        self.tally.counts.measured_sent += u64::from(measured);
        self.tally.counts.measured_bytes_sent += if measured { length as u64 } else { 0 };
        let header = Header { kind: Kind::Data, length, connection, sequence, due_ns };
        self.put(index, &header);
    }

    /// Is that time inside the measured window?
    #[inline]
    pub(super) fn in_window(&self, ns: u64) -> bool {
        self.times.is_some_and(|times| ns >= times.measure_from_ns && ns < times.measure_to_ns)
    }

    /// Asks the server at the other end for its name.
    pub(super) fn ask(&mut self, index: u32) {
        let length = header_bytes(self.plan.form);
        let connection = self.number(index);
        self.links[index as usize].asked = true;
        let header = Header { kind: Kind::Ask, length, connection, sequence: 0, due_ns: 0 };
        self.put(index, &header);
    }

    fn put(&mut self, index: u32, header: &Header) {
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        if self.plan.target.scheme.websocket {
            let key = self.random.u32(..).to_ne_bytes();
            let opcode = if self.plan.form == Form::Text { Opcode::Text } else { Opcode::Binary };
            frame::write_header(&mut out, opcode, true, header.length, Some(key));
            let start = out.len();
            self.writer.write(&mut out, header);
            frame::apply_mask(&mut out[start..], key);
        } else {
            self.writer.write(&mut out, header);
        }
        self.push(index, &out);
        self.out = out;
    }

    /// Hands bytes to a link's socket.
    pub(super) fn push(&mut self, index: u32, bytes: &[u8]) {
        let Some(socket) = &mut self.links[index as usize].socket else { return };
        self.tally.counts.bytes_sent += bytes.len() as u64;
        if let Err(error) = socket.send(bytes) {
            self.failed(index, &error);
        }
    }

    /// A socket error on a connection that was open.
    pub(super) fn failed(&mut self, index: u32, error: &std::io::Error) {
        let how = match error.raw_os_error() {
            Some(libc::ECONNRESET | libc::EPIPE) => How::Reset,
            Some(errno) => How::Errno(errno),
            None => How::Protocol,
        };
        if how == How::Protocol {
            self.tally.error(error.to_string());
        }
        if !self.links[index as usize].is_down() {
            self.drop_link(index, Who::Peer, how);
        }
    }

    /// What is still under way when the run ends is lost, and what was due and never taken unsent.
    pub(super) fn settle_account(&mut self, index: u32) {
        let link = &self.links[index as usize];
        if link.stage != Stage::Open || self.plan.traffic == Traffic::Listen {
            return;
        }
        self.settle_waiting(index);
        self.abandon(index);
    }

    /// What was due and never taken is unsent, and is not sent later either.
    pub(super) fn settle_waiting(&mut self, index: u32) {
        let waiting = self.waiting(index);
        let link = &mut self.links[index as usize];
        if link.habit == Habit::Normal {
            self.tally.counts.unsent += waiting;
        }
        link.due = link.due.min(link.sent);
    }

    /// The connection is gone, and with it what was due and found no room in its socket: that is
    /// missed. Its numbers stay unused, or the link would wait for them for ever when it is back.
    pub(super) fn miss_waiting(&mut self, index: u32) {
        let waiting = self.waiting(index);
        let link = &mut self.links[index as usize];
        if link.habit == Habit::Normal {
            self.tally.counts.missed += waiting;
        }
        if link.due > link.sent {
            link.sent = link.due;
            link.account.skip_to(link.sent);
        }
    }

    /// How many messages that were due inside the window wait for room in the socket.
    fn waiting(&self, index: u32) -> u64 {
        let link = &self.links[index as usize];
        let Some(schedule) = &self.schedule else { return 0 };
        let due_ns = |number: u32| schedule.relative(link.due - 1, link.due_ns, number);
        (link.sent..link.due).filter(|&number| self.in_window(due_ns(number))).count() as u64
    }

    /// Writes off what is under way; returns how many messages that were.
    pub(super) fn abandon(&mut self, index: u32) -> u32 {
        let connection = self.number(index);
        let link = &mut self.links[index as usize];
        let count = link.account.abandon(link.sent);
        let counts = &mut self.tally.counts;
        if link.habit == Habit::Normal {
            counts.unanswered += u64::from(count);
            let numbers = (1..=count).map(|back| link.sent.wrapping_sub(back));
            counts.unanswered_bytes +=
                numbers.map(|number| self.plan.sizes.of(connection, number) as u64).sum::<u64>();
        } else {
            counts.odd_unanswered += u64::from(count);
        }
        count
    }

    pub(super) fn say_goodbye(&mut self, index: u32) {
        let link = &mut self.links[index as usize];
        match link.stage {
            Stage::Open => {}
            Stage::Down | Stage::Leaving => return,
            Stage::Connecting | Stage::Securing | Stage::Upgrading => {
                link.socket = None;
                link.stage = Stage::Down;
                self.undecided -= 1;
                return;
            }
        }
        link.stage = Stage::Leaving;
        link.stage_ns = monotonic_ns();
        if self.plan.reset || link.habit == Habit::Gone {
            if let Some(socket) = &link.socket {
                socket.reset_on_close();
            }
            return self.drop_link(index, Who::Us, How::Reset);
        }
        if self.plan.target.scheme.websocket {
            let mut out = Vec::new();
            let key = self.random.u32(..).to_ne_bytes();
            frame::write(&mut out, Opcode::Close, &1000u16.to_be_bytes(), Some(key));
            self.push(index, &out);
        } else if let Some(socket) = &mut link.socket {
            socket.finish();
        }
    }
}

impl Link {
    /// Is an answer, or room for a message, still awaited?
    pub(super) fn expects(&self) -> bool {
        self.stage == Stage::Open
            && self.habit == Habit::Normal
            && (self.account.outstanding(self.sent) > 0 || self.due > self.sent)
    }
}
