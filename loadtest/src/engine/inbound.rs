//! Receiving: bytes to frames to messages to counts. Boundaries that are lost are found again.

use standpipe::sys::generator::monotonic_ns;

use super::Engine;
use super::link::{Habit, Stage};
use crate::frame::{self, End, Opcode};
use crate::message::{self, Header, Kind, MESSAGE_BYTES_MAX, Parsed, any_length};
use crate::plan::Traffic;
use crate::proof::Arrival;
use crate::socket::{Got, READ_BYTES};
use crate::tally::{How, Who};

/// Reads of one link before others get a turn.
const READS_MAX: usize = 8;

/// A server's name and account are short.
const INTRODUCTION_BYTES_MAX: usize = 1024;

/// What became of delivered bytes.
enum Delivered {
    /// This many were used up; the rest waits for more.
    Used(usize),
    /// The connection ended in the middle of them.
    Ended,
}

impl Engine {
    /// Reads a ready link until it is dry, or its turn is over.
    pub(super) fn read(&mut self, index: u32) {
        if matches!(self.links[index as usize].habit, Habit::Slow | Habit::Gone) {
            return;
        }
        for _ in 0..READS_MAX {
            let Some(count) = self.read_once(index) else { return };
            let link = &self.links[index as usize];
            let plain = link.socket.as_ref().is_some_and(|socket| socket.secure().is_none());
            if plain && count < READ_BYTES && !link.finished {
                return;
            }
        }
        self.again.push_back(index);
    }

    /// One read and all that follows from it. Nothing: dry, or gone.
    pub(super) fn read_once(&mut self, index: u32) -> Option<usize> {
        let link = &mut self.links[index as usize];
        let socket = link.socket.as_mut()?;
        let got = match &mut link.tail {
            Some(tail) => socket.recv_after(tail, &mut self.room),
            None => socket.recv(&mut self.room),
        };
        let count = match got {
            Ok(Got::Bytes(count)) => count,
            Ok(Got::Dry) => return None,
            Ok(Got::End) => {
                self.peer_ended(index);
                return None;
            }
            Err(error) => {
                self.failed(index, &error);
                return None;
            }
        };
        self.tally.counts.bytes_received += count as u64;
        self.digest(index, count).then_some(count)
    }

    /// Works through what a read brought. False: the connection is gone.
    fn digest(&mut self, index: u32, count: usize) -> bool {
        if self.links[index as usize].tail.is_some() {
            return self.digest_tail(index);
        }
        let room = std::mem::take(&mut self.room);
        let bytes = &room.bytes[..count];
        let alive = match self.deliver(index, bytes) {
            Delivered::Used(used) => {
                if used < count {
                    self.links[index as usize].tail = Some(Box::new(bytes[used..].to_vec()));
                }
                true
            }
            Delivered::Ended => false,
        };
        self.room = room;
        alive
    }

    /// The same for bytes that wait behind an unfinished message.
    pub(super) fn digest_tail(&mut self, index: u32) -> bool {
        let Some(mut tail) = self.links[index as usize].tail.take() else { return true };
        match self.deliver(index, &tail) {
            Delivered::Used(used) => {
                tail.drain(..used);
                if !tail.is_empty() {
                    self.links[index as usize].tail = Some(tail);
                }
                true
            }
            Delivered::Ended => false,
        }
    }

    fn deliver(&mut self, index: u32, bytes: &[u8]) -> Delivered {
        if self.plan.target.scheme.websocket {
            self.deliver_frames(index, bytes)
        } else {
            Delivered::Used(self.deliver_stream(index, bytes))
        }
    }

    fn deliver_frames(&mut self, index: u32, bytes: &[u8]) -> Delivered {
        let mut used = 0;
        loop {
            let found = match frame::parse(&bytes[used..], End::Server, MESSAGE_BYTES_MAX) {
                frame::Parsed::Need => return Delivered::Used(used),
                frame::Parsed::Whole(found) => found,
                frame::Parsed::Bad(why) => {
                    self.tally.error(format!("websocket: {why}"));
                    self.drop_link(index, Who::Peer, How::Protocol);
                    return Delivered::Ended;
                }
            };
            let start = used + found.header;
            let payload = &bytes[start..start + found.payload];
            used = start + found.payload;
            match found.opcode {
                Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                    self.deliver_fragment(index, found.last, payload);
                }
                Opcode::Ping => {
                    let mut out = Vec::new();
                    let key = self.random.u32(..).to_ne_bytes();
                    frame::write(&mut out, Opcode::Pong, payload, Some(key));
                    self.push(index, &out);
                }
                Opcode::Close => {
                    self.peer_closes(index, frame::close_code(payload));
                    return Delivered::Ended;
                }
                Opcode::Pong => {}
            }
            if self.links[index as usize].is_down() {
                return Delivered::Ended;
            }
        }
    }

    /// A message may come in several frames; most come in one and are never copied.
    fn deliver_fragment(&mut self, index: u32, last: bool, payload: &[u8]) {
        let link = &mut self.links[index as usize];
        if last && link.fragments.is_none() {
            return self.deliver_message(index, payload);
        }
        let mut whole = link.fragments.take().unwrap_or_default();
        whole.extend_from_slice(payload);
        if last || whole.len() > MESSAGE_BYTES_MAX {
            self.deliver_message(index, &whole);
        } else {
            link.fragments = Some(whole);
        }
    }

    fn deliver_message(&mut self, index: u32, payload: &[u8]) {
        match message::parse(self.plan.form, payload, any_length) {
            Parsed::Sound(header) if header.length == payload.len() => {
                self.arrived(index, &header, payload);
            }
            _ => self.arrived_damaged(index),
        }
    }

    /// Messages follow each other without frames. Returns how many bytes were used.
    fn deliver_stream(&mut self, index: u32, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() {
            let rest = &bytes[used..];
            let plausible = |kind: Kind, length: usize| match (kind, self.plan.traffic) {
                (Kind::Data, Traffic::Listen) => any_length(kind, length),
                (Kind::Data, _) => self.plan.sizes.contains(length),
                _ => length <= INTRODUCTION_BYTES_MAX,
            };
            match message::parse(self.plan.form, rest, plausible) {
                Parsed::Need(_) => break,
                Parsed::Sound(header) => {
                    self.links[index as usize].astray = false;
                    self.arrived(index, &header, &rest[..header.length]);
                    used += header.length;
                }
                Parsed::Damaged { length } => used += self.step_over(index, length),
                Parsed::Foreign => {
                    used += self.step_over(index, self.plan.sizes.largest());
                }
            }
            if self.links[index as usize].is_down() {
                return bytes.len();
            }
        }
        // What makes no sense may be stepped over further than there are bytes.
        used.min(bytes.len())
    }

    /// How far to go after bytes that make no sense. A length that messages of this run do have is
    /// believed once; after that every byte is tried until something sound is found.
    fn step_over(&mut self, index: u32, length: usize) -> usize {
        let believed = self.plan.sizes.contains(length);
        let link = &mut self.links[index as usize];
        if link.astray {
            return 1;
        }
        self.arrived_damaged(index);
        if believed {
            return length;
        }
        self.links[index as usize].astray = true;
        1
    }

    fn arrived_damaged(&mut self, index: u32) {
        if self.links[index as usize].stage == Stage::Leaving {
            return;
        }
        self.tally.counts.damaged += 1;
        self.links[index as usize].account.damaged();
        self.answer_next(index);
    }

    fn arrived(&mut self, index: u32, header: &Header, whole: &[u8]) {
        match header.kind {
            Kind::Data => {}
            Kind::Ask => return,
            Kind::Name => {
                let filler = &whole[message::header_bytes(self.plan.form)..];
                let words = String::from_utf8_lossy(filler).into_owned();
                return self.introduced(index, &words);
            }
        }
        if header.connection != self.number(index) && self.plan.traffic != Traffic::Listen {
            self.tally.counts.strayed += 1;
            return;
        }
        if self.links[index as usize].stage == Stage::Leaving {
            // Its account is settled: what comes now came too late to count.
            return;
        }
        let now = monotonic_ns();
        self.tally.counts.received += 1;
        if self.in_window(now) {
            self.tally.counts.measured_bytes_received += header.length as u64;
        }
        match self.links[index as usize].account.arrived(header.sequence) {
            Arrival::InOrder => {}
            Arrival::Ahead { missing } => self.tally.counts.skipped += u64::from(missing),
            Arrival::Late => self.tally.counts.reordered += 1,
            Arrival::Again => {
                self.tally.counts.duplicated += 1;
                return;
            }
        }
        let normal = self.links[index as usize].habit == Habit::Normal;
        if normal && self.in_window(header.due_ns) {
            self.tally.counts.measured_received += 1;
            self.tally.latency.saturating_record(now.saturating_sub(header.due_ns));
        }
        self.answer_next(index);
    }

    /// A server told its name, and a sink also what it has seen of this connection.
    fn introduced(&mut self, index: u32, words: &str) {
        if !self.plan.target.scheme.websocket {
            // A WebSocket server has told its name in the upgrade already.
            let name = words.split(' ').next().unwrap_or_default().to_owned();
            *self.tally.names.entry(name).or_default() += 1;
        }
        let link = &mut self.links[index as usize];
        link.asked = false;
        if !self.plan.sink {
            return;
        }
        let figure = |key: &str| -> u64 {
            words
                .split(' ')
                .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
                .and_then(|text| text.parse().ok())
                .unwrap_or(0)
        };
        let counts = &mut self.tally.counts;
        counts.received += figure("messages");
        counts.damaged += figure("damaged");
        counts.reordered += figure("reordered");
        counts.duplicated += figure("duplicated");
        let seen = figure("messages") + figure("damaged");
        counts.unanswered += u64::from(link.sent).saturating_sub(seen);
        link.account.skip_to(link.sent);
    }

    fn answer_next(&mut self, index: u32) {
        match self.plan.traffic {
            Traffic::Closed => self.say_next(index),
            Traffic::Churn { messages, life_ns, .. } => self.live_on(index, messages, life_ns),
            _ => {}
        }
    }

    fn peer_closes(&mut self, index: u32, code: u16) {
        if self.links[index as usize].stage == Stage::Open {
            let mut out = Vec::new();
            let key = self.random.u32(..).to_ne_bytes();
            let code = if code == 1005 { 1000 } else { code };
            frame::write(&mut out, Opcode::Close, &code.to_be_bytes(), Some(key));
            self.push(index, &out);
        }
        let link = &self.links[index as usize];
        let who = if link.stage == Stage::Leaving { Who::Us } else { Who::Peer };
        if !link.is_down() {
            self.drop_link(index, who, How::Frame(code));
        }
    }

    fn peer_ended(&mut self, index: u32) {
        let leaving = self.links[index as usize].stage == Stage::Leaving;
        let who = if leaving { Who::Us } else { Who::Peer };
        self.drop_link(index, who, How::Fin);
    }
}
