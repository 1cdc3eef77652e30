//! The wire: the slab of living pipes and the engine that moves them. It is driven by completions
//! only, one [`Wire::turn`] after another, and knows nothing of routes, pools or names.
//!
//! A turn: send what the last one gathered, wait, look at every completion, hand the buffers
//! back. Sends carry MSG_DONTWAIT and leave a completion only when they fell short; those are
//! looked at before all others, so that nothing overtakes bytes that did not go out.

mod bulk;
mod closing;
pub mod entry;
mod pool;
mod pump;
pub mod relay;
mod secure;
mod sink;
pub mod slab;
mod spill;
mod stage;
mod sweep;
pub mod terms;
pub mod token;
mod turn;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::balance::ServerId;
use crate::meter::{Cause, CoreCounters, Ending, Stage};
use crate::sys::memory::Span;
use crate::sys::ring::{Completion, POLL_IN, Ring, Timespec};

pub use closing::{How, cause_of_session};
pub use entry::{Birth, CLIENT, Pipe, SERVER, Ticks, ticks};
use entry::{Life, NONE, Phase, Reading, TICKS_PER_SECOND};
pub use secure::{KeepTicket, Secure};
pub use slab::Key;
use slab::Slab;
pub use stage::Extra;
pub use sweep::Leave;
use sweep::Sweep;
use token::{Kind, Token};
use turn::Turn;

/// Completions looked at in one turn at the most: what they gave is sent before the next ones.
const DISPATCHES_MAX: usize = 1024;
/// Scratch that one event may ask for: a long read from a TLS end, sealed anew for the other end.
const EVENT_BYTES_MAX: usize = 512 << 10;

/// Bytes of an end that are read for nothing before it is dropped.
const THROWN_BYTES_MAX: u32 = 8 << 20;

/// A completion that belongs to no pipe: listeners, wake-ups, young connections.
#[derive(Debug, Clone, Copy)]
pub struct Foreign {
    pub token: Token,
    pub result: i32,
    pub more: bool,
}

/// Bytes a young connection read too far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tail<'a> {
    /// Not TLS, or opened already.
    pub plain: &'a [u8],
    /// Ciphertext that comes after, from the beginning of a record on.
    pub sealed: &'a [u8],
}

/// Bytes that a pipe of this server has moved and that were not counted yet, by flow.
#[derive(Debug)]
pub struct Moved {
    pub server: ServerId,
    pub bytes: [u64; 2],
}

/// A pipe that is about to end, and how.
#[derive(Debug)]
struct Doomed {
    key: Key,
    ending: Ending,
    how: How,
    /// A turn has gone by: what was to be said is on its way, whatever else came in meanwhile.
    spoken: bool,
}

/// The engine of one core: its ring, all its established pipes, and what is under way between
/// turns.
#[derive(Debug)]
pub struct Wire {
    pub ring: Ring,
    slab: Slab<Pipe>,
    turns: [Turn; 2],
    /// Which of `turns` is being filled.
    filling: usize,
    /// Completions that are still to be looked at, oldest first.
    completions: VecDeque<Completion>,
    fresh: Vec<Completion>,
    /// What the core has to look at after the turn.
    pub foreign: Vec<Foreign>,
    /// Pipes that are over, for leases, logs and counts.
    pub ended: Vec<Pipe>,
    /// Bytes to be counted for servers.
    pub moved: Vec<Moved>,
    /// Flows whose source has finished while bytes of this turn were still to be sent.
    finishing: Vec<(Key, usize)>,
    /// Ends whose multishot receive found no provided buffer.
    starved: Vec<(Key, usize)>,
    pool: pool::Pool,
    bulk: bulk::Bulks,
    sweep: Sweep,
    /// Pipes that end once their last words of this turn are on their way.
    doomed: Vec<Doomed>,
    held: secure::Held,
    /// What a relay wants done, kept for its memory.
    acts: Vec<stage::Act>,
    epoch: Instant,
    now: Ticks,
    pub counters: Arc<CoreCounters>,
}

impl Wire {
    /// Builds the ring of this thread.
    ///
    /// # Errors
    /// What the kernel answers to io_uring_setup or mmap.
    pub fn new(counters: Arc<CoreCounters>) -> io::Result<Self> {
        let mut wire = Self {
            ring: Ring::new()?,
            slab: Slab::default(),
            turns: [Turn::default(), Turn::default()],
            filling: 0,
            completions: VecDeque::new(),
            fresh: Vec::new(),
            foreign: Vec::new(),
            ended: Vec::new(),
            moved: Vec::new(),
            finishing: Vec::new(),
            starved: Vec::new(),
            pool: pool::Pool::default(),
            bulk: bulk::Bulks::default(),
            sweep: Sweep::default(),
            doomed: Vec::new(),
            held: secure::Held::default(),
            acts: Vec::new(),
            epoch: Instant::now(),
            now: 0,
            counters,
        };
        wire.arm_tick();
        Ok(wire)
    }

    /// Living pipes, closing ones included.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// The core's coarse clock.
    pub fn now(&self) -> Ticks {
        self.now
    }

    /// Takes a pipe into the slab. `tails` are bytes already read from each end, to be passed on
    /// first; `preface` goes to the server before anything else.
    pub fn adopt(&mut self, pipe: Pipe, preface: &[u8], tails: [Tail<'_>; 2]) -> Key {
        let key = self.slab.insert(pipe);
        self.counters.live.inc();
        self.counters.graduated.inc();
        for direction in entry::DIRECTIONS {
            self.counters.gears.enter(direction, crate::meter::Gear::Parked);
        }
        if !preface.is_empty() {
            self.inject_raw(key, CLIENT, preface);
        }
        for (end, tail) in tails.into_iter().enumerate() {
            if !tail.plain.is_empty()
                && let Some(span) = self.copied(key, tail.plain)
            {
                self.plain(key, end, span);
            }
            if !tail.sealed.is_empty()
                && let Some(span) = self.copied(key, tail.sealed)
            {
                self.bytes(key, end, span);
            } else {
                self.heard_before(key, end);
            }
        }
        for end in [CLIENT, SERVER] {
            self.arm(key, end);
        }
        self.born_late(key);
        key
    }

    /// One turn; waits for a completion only if `want` says so.
    ///
    /// # Errors
    /// What `io_uring_enter(2)` answers when the ring itself is broken.
    pub fn turn(&mut self, want: usize) -> io::Result<()> {
        self.flush();
        // What waits for the end of these sends is done right after them, not at the next event.
        let restless = !(self.finishing.is_empty()
            && self.doomed.is_empty()
            && self.completions.is_empty()
            && self.sweep.is_done());
        self.counters.submitted.add(self.ring.enter(if restless { 0 } else { want })? as u64);
        let mut fresh = std::mem::take(&mut self.fresh);
        self.ring.completions(&mut fresh);
        self.counters.completed.add(fresh.len() as u64);
        for completion in fresh.drain(..) {
            if Token::kind_of(completion.token) == Some(Kind::Unsent) {
                self.unsent(&completion);
            } else {
                self.completions.push_back(completion);
            }
        }
        self.fresh = fresh;
        self.bulk.begin();
        for _ in 0..DISPATCHES_MAX {
            if !self.has_room() {
                break;
            }
            let Some(completion) = self.completions.pop_front() else { break };
            self.dispatch(completion);
        }
        self.sweep_some();
        self.release();
        Ok(())
    }

    /// Whether this turn's scratch has room for whatever one more event may ask of it.
    fn has_room(&self) -> bool {
        self.ring.memory.room() >= EVENT_BYTES_MAX
    }

    /// Takes back the lists it gave away, for their room.
    pub fn reuse(
        &mut self,
        mut foreign: Vec<Foreign>,
        mut ended: Vec<Pipe>,
        mut moved: Vec<Moved>,
    ) {
        foreign.clear();
        ended.clear();
        moved.clear();
        if self.foreign.is_empty() {
            self.foreign = foreign;
        }
        if self.ended.is_empty() {
            self.ended = ended;
        }
        if self.moved.is_empty() {
            self.moved = moved;
        }
    }

    fn dispatch(&mut self, completion: Completion) {
        let Some(token) = Token::unpack(completion.token) else { return };
        let key = Key { slot: token.slot, generation: token.generation };
        let of_pipe = matches!(token.kind, Kind::Readable | Kind::Received | Kind::Watched);
        if of_pipe && self.slab.get(key).is_none() {
            self.counters.late.inc();
        }
        match token.kind {
            Kind::Readable => self.readable(key, token.end, completion),
            Kind::Received => self.received(key, token.end, completion),
            Kind::Watched => self.watched(key, token.end, completion),
            Kind::Tick => {
                self.arm_tick();
                self.tick();
            }
            Kind::Rested => self.rested(),
            _ => {
                let Completion { result, more, .. } = completion;
                self.foreign.push(Foreign { token, result, more });
            }
        }
    }

    /// Plaintext of `end` that a young connection read too far.
    fn plain(&mut self, key: Key, end: usize, span: Span) {
        if self.slab.get(key).is_some_and(|pipe| pipe.extra.is_some()) {
            self.opened(key, end, span);
        } else {
            self.bytes(key, end, span);
        }
    }

    /// Bytes read from `end`, on their way to the other end.
    fn bytes(&mut self, key: Key, end: usize, span: Span) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        if pipe.life != Life::Open {
            return;
        }
        let flow = &mut pipe.flows[end];
        if flow.phase == Phase::Broken || flow.ended {
            return self.throw_away(key, end, span.len());
        }
        if pipe.extra.is_some() {
            self.staged(key, end, span);
        } else {
            pipe.active = self.now;
            let many = flow.add(span.len());
            flow.turn = self.turns[self.filling].push(flow.turn, key, end, span);
            if many {
                self.count_bytes(key, end);
            }
        }
    }

    /// Bytes of `end` that are not wanted. They are read so that the peer receives what it was told
    /// before its connection is gone; a peer that goes on sending is dropped after a bound.
    fn throw_away(&mut self, key: Key, end: usize, bytes: usize) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        let flow = &mut pipe.flows[end];
        flow.thrown = flow.thrown.saturating_add(bytes as u32);
        if flow.thrown > THROWN_BYTES_MAX {
            let late = Ending::new(closing::SIDES[end], Stage::Pipe, Cause::LingerOver);
            let ending = pipe.ending.unwrap_or(late);
            self.close(key, ending, How::Abort);
        }
    }

    /// Bytes that go out on `flow`, sealed if its sink has TLS.
    fn outgoing(&mut self, key: Key, flow: usize, span: Span) {
        let extra = self.slab.get(key).and_then(|pipe| pipe.extra.as_ref());
        if extra.is_some_and(|extra| extra.secure[1 - flow].is_some()) {
            self.seal(key, flow, Some(span));
        } else {
            self.raw(key, flow, span);
        }
    }

    /// Bytes that go out on `flow` as they are.
    fn raw(&mut self, key: Key, flow: usize, span: Span) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        let state = &mut pipe.flows[flow];
        // Behind FIN nothing goes out, not even an answer to a KeyUpdate.
        if matches!(state.phase, Phase::Open | Phase::Draining) {
            state.turn = self.turns[self.filling].push(state.turn, key, flow, span);
        }
    }

    /// Bytes of ours to go out on `flow`.
    fn inject(&mut self, key: Key, flow: usize, bytes: &[u8]) {
        if let Some(span) = self.copied(key, bytes) {
            self.outgoing(key, flow, span);
        }
    }

    /// Bytes of ours to go out on `flow` as they are.
    fn inject_raw(&mut self, key: Key, flow: usize, bytes: &[u8]) {
        if let Some(span) = self.copied(key, bytes) {
            self.raw(key, flow, span);
        }
    }

    /// Copies bytes into this turn's scratch; a pipe that finds no room there ends.
    fn copied(&mut self, key: Key, bytes: &[u8]) -> Option<Span> {
        let span = self.ring.memory.allocate(bytes.len());
        match span {
            Some(span) => self.ring.memory.bytes_mut(span).copy_from_slice(bytes),
            None => self.close_exhausted(key),
        }
        span
    }

    /// Waits for something to read on `end`, if its flow wants it and nothing waits already.
    fn arm(&mut self, key: Key, end: usize) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        let wanted = pipe.life == Life::Open && pipe.listens(end);
        if wanted && !pipe.flows[end].is_blocked() && pipe.ends[end].reading == Reading::Idle {
            pipe.ends[end].reading = Reading::Polled;
            let token = Token::new(Kind::Readable, end, key.slot, key.generation).pack();
            self.ring.poll(pipe.ends[end].fd, POLL_IN, token);
        }
    }

    /// Hands every flow's bytes of this turn to the kernel, or to its spill.
    fn flush(&mut self) {
        for index in 0..self.turns[self.filling].len() {
            let Some(out) = self.turns[self.filling].get(index) else { break };
            let Some(pipe) = self.slab.get_mut(out.key) else { continue };
            let flow = &mut pipe.flows[out.flow];
            flow.turn = NONE;
            if pipe.life != Life::Open || flow.phase == Phase::Broken {
                continue;
            }
            let spans = self.turns[self.filling].spans(&out);
            if flow.is_blocked() {
                self.spill(self.filling, &out, 0);
                continue;
            }
            // Where FIN follows at once it goes out with the last bytes, as one packet.
            let last = flow.phase == Phase::Draining;
            let (sink, token) = (pipe.ends[1 - out.flow].fd, Token::of(Kind::Unsent, index as u32));
            if spans.len() > sink::SPANS_MAX {
                // More than the kernel gathers: one copy is gathered instead, or waits.
                let Some(whole) = self.ring.memory.allocate(out.bytes) else {
                    self.spill(self.filling, &out, 0);
                    continue;
                };
                self.ring.memory.gather(spans, whole);
                self.ring.send(sink, std::iter::once(whole), last, token.pack());
            } else {
                self.ring.send(sink, spans, last, token.pack());
            }
            self.flushed(out.key, out.flow, out.bytes);
        }
        self.filling ^= 1;
        self.ring.memory.turn();
    }

    /// The last turn's sends are over: their buffers go back, and what waited for them goes on.
    fn release(&mut self) {
        let sent = &mut self.turns[self.filling ^ 1];
        if !sent.buffers.is_empty() {
            self.ring.recycle(sent.buffers.drain(..));
        }
        sent.clear();
        self.ring.memory.forget();
        self.counters.buffers_lent.set(self.turns[self.filling].buffers.len() as u64);
        let mut finishing = std::mem::take(&mut self.finishing);
        for (key, flow) in finishing.drain(..) {
            self.finish(key, flow);
        }
        if self.finishing.is_empty() {
            self.finishing = finishing;
        }
        for doomed in std::mem::take(&mut self.doomed) {
            let Doomed { key, ending, how, spoken } = doomed;
            let Some(pipe) = self.slab.get(key) else { continue };
            if !spoken && pipe.flows.iter().any(|flow| flow.turn != NONE) {
                // Last words of this very turn: after the next enter they are on their way.
                self.doomed.push(Doomed { spoken: true, ..doomed });
            } else {
                self.close(key, ending, how);
            }
        }
        for (key, end) in std::mem::take(&mut self.starved) {
            self.receive_all(key, end);
        }
    }

    /// Ends a pipe once what was said on it this turn is on its way.
    fn doom(&mut self, key: Key, ending: Ending, how: How) {
        self.doomed.push(Doomed { key, ending, how, spoken: false });
    }

    fn arm_tick(&mut self) {
        static TICK: Timespec = Timespec::new().nsec(1_000_000_000 / TICKS_PER_SECOND);
        self.ring.timeout(&TICK, Token::of(Kind::Tick, 0).pack());
    }

    fn tick(&mut self) {
        let elapsed = self.epoch.elapsed().as_millis();
        self.now = (elapsed * u128::from(TICKS_PER_SECOND) / 1000) as Ticks;
        self.sweep();
    }
}
