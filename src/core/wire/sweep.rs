//! The one timer of a core: every tenth of a second a tenth of the slab falls due to be looked at,
//! a few entries a turn, so that each pipe is seen about once a second and no message waits for
//! it. Deadlines, demotion and paced endings come from here.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use crate::balance::ServerId;
use crate::meter::{Cause, Ending, Gear, Stage};

use crate::sys::socket;

use super::entry::{CLIENT, Life, NONE, Phase, Reading, SERVER, TICKS_PER_SECOND, Ticks, ticks};
use super::slab::Key;
use super::{How, Moved, Pipe, Wire, closing};

/// Silent sweeps after which a flowing end is parked again.
const COLD_SWEEPS: u8 = 5;
/// Multishot receives cancelled in one tick at the most: a cancel walks the kernel's table.
const DEMOTIONS_PER_TICK: u32 = 64;
/// Bytes read for a sink between two sweeps, below which one that has bytes waiting is slow.
const SLOW_BYTES: u64 = 128 << 10;
/// Ticks a sink that reset may take to report it by its own reading.
const BROKEN_TICKS: Ticks = 2 * TICKS_PER_SECOND;

/// Pipes without a word of ours that are ended in one tick towards the end of a drain, unless the
/// time for them is too short: the clients of many are not to come back all at once.
const LAST_PER_TICK: u32 = 10;

/// Entries looked at, and endings begun, in one turn at the most.
const LOOKS_PER_TURN: u32 = 256;
/// A pipe that gets its socket options counts for so many looks: it is the system calls that keep
/// a turn's messages waiting.
const LOOKS_PER_SETTLING: u32 = 32;

/// What the end of a pipe is called that outlived a drain.
const SHUTDOWN: Ending = Ending::proxy(Stage::Pipe, Cause::Shutdown);

/// A deadline that has passed.
enum Late {
    Idle,
    /// This end is the one still open.
    HalfClose(usize),
    /// This end took nothing any more, and did not report why.
    Lost(usize),
    /// This end takes nothing although bytes wait.
    Stalled(usize),
}

/// Where the sweep is, and the endings that are due later.
#[derive(Debug, Default)]
pub struct Sweep {
    cursor: u32,
    /// The second that was last looked at as such: ticks may be late, and skip one.
    second: Ticks,
    /// Entries that are to be looked at by now.
    owed: u32,
    demotions: u32,
    /// Provided buffers were used since their pages were last given back.
    pub buffers_used: bool,
    /// Endings whose time has come, not all of them begun yet.
    ending: bool,
    due: BinaryHeap<Reverse<Due>>,
    /// Servers whose pipes are to end.
    leaving: HashMap<ServerId, Leaving>,
    /// All WebSockets are to end.
    draining: Option<Leaving>,
    /// All other pipes are to end, if they have not by then.
    last: Option<Last>,
    /// Everything is to end at once.
    stopping: Option<Leaving>,
}

/// Until when pipes of a kind are to end, and what their ending is called.
#[derive(Debug, Clone, Copy)]
struct Leaving {
    until: Ticks,
    ending: Ending,
}

/// The last tenth of a drain.
#[derive(Debug, Clone, Copy)]
struct Last {
    from: Ticks,
    until: Ticks,
    begun: bool,
}

/// A server whose pipes are to end.
#[derive(Debug, Clone, Copy)]
pub struct Leave {
    pub server: ServerId,
    /// Over how long; at once without.
    pub over: Option<Duration>,
    pub cause: Cause,
}

impl Due {
    /// Whether it belongs to the end of the process.
    fn is_of_process(&self) -> bool {
        let ending = Ending::from_index(self.ending.into());
        ending.is_some_and(|ending| matches!(ending.cause, Cause::Drained | Cause::Shutdown))
    }

    fn key(&self) -> Key {
        Key { slot: self.slot, generation: self.generation }
    }
}

impl Sweep {
    /// Whether nothing is left to do before the next tick.
    pub fn is_done(&self) -> bool {
        self.owed == 0 && !self.ending
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Ticks,
    slot: u32,
    generation: u32,
    ending: u16,
}

impl Wire {
    /// Ends all pipes of servers, those of each evenly spread over its time (at once without), and
    /// pipes that are still being established towards them.
    pub fn end_servers(&mut self, leaves: &[Leave]) {
        let mut keys: HashMap<ServerId, Vec<Key>> = HashMap::new();
        keys.extend(leaves.iter().map(|leave| (leave.server, Vec::new())));
        for key in self.slab.keys() {
            if let Some(pipe) = self.slab.get(key)
                && let Some(keys) = keys.get_mut(&pipe.server)
            {
                keys.push(key);
            }
        }
        // What was planned for them before is overtaken, but for the process's own end: that comes
        // even where a server is wanted again.
        let slab = &self.slab;
        let stays = |due: &Due| match slab.get(due.key()) {
            Some(pipe) => !keys.contains_key(&pipe.server) || due.is_of_process(),
            None => false,
        };
        self.sweep.due.retain(|Reverse(due)| stays(due));
        for Leave { server, over, cause } in leaves {
            let ending = Ending::proxy(Stage::Pipe, *cause);
            let keys = keys.get(server).map_or(&[][..], Vec::as_slice);
            self.end_paced(keys, self.now, over.map_or(0, ticks), ending);
            let until = self.now.saturating_add(over.map_or(0, ticks));
            self.sweep.leaving.insert(*server, Leaving { until, ending });
        }
    }

    /// A server is wanted again: those of its pipes that were to end and have not begun to, stay.
    pub fn keep_server(&mut self, server: ServerId) {
        self.sweep.leaving.remove(&server);
    }

    /// Ends all WebSockets with a Close, evenly spread over `over`, and those that are still to
    /// come in what is left of it. Pipes in which we have no word are left to end by themselves for
    /// as much of `within` as there is; where many are left by its last tenth, they are ended from
    /// then on, at a pace.
    pub fn drain(&mut self, over: Duration, within: Duration) {
        let speaks = |key: &Key| self.slab.get(*key).is_some_and(Pipe::has_relay);
        let keys: Vec<Key> = self.slab.keys().filter(speaks).collect();
        let ending = Ending::proxy(Stage::Pipe, Cause::Drained);
        self.end_paced(&keys, self.now, ticks(over), ending);
        let until = self.now.saturating_add(ticks(over));
        self.sweep.draining = Some(Leaving { until, ending });
        // (The clock may be a tick behind.)
        let until = self.now.saturating_add(1).saturating_add(ticks(within));
        let from = until.saturating_sub(ticks(within / 10));
        self.sweep.last = Some(Last { from, until, begun: false });
    }

    /// Nearly all of a drain's time is over: what is still there ends in what is left of it.
    fn end_the_last(&mut self, until: Ticks) {
        let is_silent = |key: &Key| self.slab.get(*key).is_some_and(|pipe| !pipe.has_relay());
        let keys: Vec<Key> = self.slab.keys().filter(is_silent).collect();
        let left = until.saturating_sub(self.now);
        let span = (keys.len() as u32).div_ceil(LAST_PER_TICK).min(left);
        self.end_paced(&keys, until.saturating_sub(span), span, SHUTDOWN);
    }

    /// A pipe was born while its like are being ended: it ends with them.
    pub(super) fn born_late(&mut self, key: Key) {
        let Some(pipe) = self.slab.get(key) else { return };
        let last = self.sweep.last.filter(|last| last.begun);
        let last = last.map(|last| Leaving { until: last.until, ending: SHUTDOWN });
        let with_all = if pipe.has_relay() { self.sweep.draining } else { last };
        let with_all = self.sweep.stopping.or(with_all);
        // (A client that still comes to a draining server is tied to it by its cookie: control says
        // when that is over.)
        let with_server = self.sweep.leaving.get(&pipe.server).copied();
        let with_server = with_server.filter(|it| it.ending.cause != Cause::ServerDraining);
        // (A plain pipe may have to end with its server before it has to end with all.)
        for Leaving { until, ending } in with_server.into_iter().chain(with_all) {
            let at = self.now + fastrand::u32(0..=until.saturating_sub(self.now));
            self.end_later(key, at, ending);
        }
    }

    /// Ends everything now, and whatever is still to come; what was to end later is forgotten.
    pub fn end_all(&mut self, cause: Cause) {
        self.sweep.due.clear();
        let ending = Ending::proxy(Stage::Pipe, cause);
        self.sweep.stopping = Some(Leaving { until: self.now, ending });
        let keys: Vec<Key> = self.slab.keys().collect();
        for key in keys {
            self.end_later(key, self.now, ending);
        }
    }

    /// Ends pipes evenly spread over `span` from `begin` on.
    fn end_paced(&mut self, keys: &[Key], begin: Ticks, span: Ticks, ending: Ending) {
        let span = u64::from(span);
        for (place, key) in keys.iter().enumerate() {
            // Evenly spread, with jitter inside each one's own share of the time.
            let from = span * place as u64 / keys.len() as u64;
            let to = span * (place as u64 + 1) / keys.len() as u64;
            let at = begin.saturating_add(fastrand::u64(from..=to) as Ticks);
            self.end_later(*key, at, ending);
        }
    }

    /// Ends a pipe once the clock says `at`.
    pub(super) fn end_later(&mut self, key: Key, at: Ticks, ending: Ending) {
        let Key { slot, generation } = key;
        let ending = ending.index() as u16;
        self.sweep.due.push(Reverse(Due { at, slot, generation, ending }));
        self.sweep.ending |= at <= self.now;
    }

    /// Ends one pipe because we want to, unless its server is wanted again by now.
    fn end_by_plan(&mut self, key: Key, ending: Ending) {
        let Some(pipe) = self.slab.get(key) else { return };
        let leaves = |server| self.sweep.leaving.get(server).is_some_and(|it| it.ending == ending);
        match ending.cause {
            Cause::Shutdown => self.end_now(key, ending),
            Cause::Drained => self.end_in_order(key, ending),
            _ if leaves(&pipe.server) => self.end_in_order(key, ending),
            _ => {}
        }
    }

    /// A tick went by: its share of the slab falls due.
    pub(super) fn sweep(&mut self) {
        self.sweep.ending = true;
        self.sweep.demotions = 0;
        if let Some(last) = self.sweep.last.filter(|last| !last.begun && self.now >= last.from) {
            self.sweep.last = Some(Last { begun: true, ..last });
            self.end_the_last(last.until);
        }
        let slots = self.slab.slots();
        self.sweep.owed = slots.min(self.sweep.owed + slots.div_ceil(TICKS_PER_SECOND));
        let second = self.now / TICKS_PER_SECOND;
        if std::mem::replace(&mut self.sweep.second, second) != second {
            self.counters.sweeps.inc();
            self.give_memory_back();
        }
    }

    /// A turn's part of what fell due.
    pub(super) fn sweep_some(&mut self) {
        for _ in 0..LOOKS_PER_TURN {
            if !self.sweep.ending || !self.has_room() {
                break;
            }
            match self.sweep.due.peek() {
                Some(Reverse(due)) if due.at <= self.now => {}
                _ => self.sweep.ending = false,
            }
            if self.sweep.ending
                && let Some(Reverse(due)) = self.sweep.due.pop()
                && let Some(ending) = Ending::from_index(due.ending.into())
            {
                self.end_by_plan(due.key(), ending);
            }
        }
        let mut looks = 0;
        while looks < LOOKS_PER_TURN && self.sweep.owed > 0 && self.has_room() {
            if self.sweep.cursor >= self.slab.slots() {
                self.sweep.cursor = 0;
            }
            looks += match self.slab.key_at(self.sweep.cursor) {
                Some(key) if self.look_at(key) => LOOKS_PER_SETTLING,
                _ => 1,
            };
            self.sweep.cursor += 1;
            self.sweep.owed -= 1;
        }
    }

    /// Says whether the pipe was settled just now.
    fn look_at(&mut self, key: Key) -> bool {
        match self.late(key) {
            Some(Late::Idle) => self.end_in_order(key, Ending::proxy(Stage::Pipe, Cause::Idle)),
            Some(Late::HalfClose(open)) => {
                let ending = Ending::new(closing::SIDES[open], Stage::Pipe, Cause::HalfClose);
                self.end_now(key, ending);
            }
            Some(Late::Lost(sink)) => self.give_up(key, sink, Cause::Reset),
            Some(Late::Stalled(sink)) => self.give_up(key, sink, Cause::Stall),
            None => {}
        }
        let now = self.now;
        let Some(pipe) = self.slab.get_mut(key).filter(|pipe| pipe.life == Life::Open) else {
            return false;
        };
        let settles = !pipe.settled && now.saturating_sub(pipe.born) >= TICKS_PER_SECOND;
        if settles {
            pipe.settled = true;
            // Five system calls that a short life need not pay. A Unix socket refuses them.
            let _ = socket::set_options(pipe.ends[SERVER].fd, pipe.birth.options);
        }
        for end in [CLIENT, SERVER] {
            let moved = self.count_bytes(key, end);
            let Some(pipe) = self.slab.get_mut(key) else { return settles };
            let flow = &mut pipe.flows[end];
            flow.wakes = 0;
            flow.cold = if moved > 0 { 0 } else { flow.cold.saturating_add(1) };
            flow.slow = flow.is_blocked() && moved < SLOW_BYTES;
            if flow.slow {
                flow.runs = 0;
            }
            if flow.slow && flow.pipe != NONE {
                // The pipe is needed elsewhere.
                self.unpipe(key, end);
                self.change_gear(key, end, Gear::Parked);
            } else if flow.cold >= COLD_SWEEPS
                && pipe.ends[end].reading == Reading::Receiving
                && self.sweep.demotions < DEMOTIONS_PER_TICK
            {
                self.sweep.demotions += 1;
                self.stop_receiving(key, end);
            }
            self.ask_unread(key, end);
        }
        self.staged_look(key);
        settles
    }

    /// Counts what a flow has moved since it was last counted, and says how much that is: a
    /// connection may live for days, and its bytes are to be seen meanwhile.
    pub(super) fn count_bytes(&mut self, key: Key, end: usize) -> u64 {
        let Some(pipe) = self.slab.get_mut(key) else { return 0 };
        let flow = &mut pipe.flows[end];
        let count = flow.uncounted();
        if count > 0 {
            flow.mark = flow.bytes as u32;
            let mut bytes = [0; 2];
            bytes[end] = count;
            pipe.birth.counters.bytes_from_clients.add(bytes[CLIENT]);
            pipe.birth.counters.bytes_to_clients.add(bytes[SERVER]);
            self.moved.push(Moved { server: pipe.server, bytes });
        }
        count
    }

    /// Which deadline of the pipe has passed.
    fn late(&self, key: Key) -> Option<Late> {
        let pipe = self.slab.get(key)?;
        if pipe.life != Life::Open {
            return None;
        }
        let passed = |since: Ticks, limit: Option<Ticks>| {
            limit.is_some_and(|limit| self.now.saturating_sub(since) >= limit)
        };
        for end in [CLIENT, SERVER] {
            let (flow, sink) = (&pipe.flows[end], 1 - end);
            // (A relay that knows of the loss has its own clock.)
            let unheard = !pipe.has_relay() || !pipe.flows[sink].ended;
            if flow.phase == Phase::Broken && unheard && passed(pipe.active, Some(BROKEN_TICKS)) {
                return Some(Late::Lost(sink));
            }
            if flow.spill.as_ref().is_some_and(|spill| passed(spill.since, pipe.birth.stall)) {
                return Some(Late::Stalled(sink));
            }
        }
        if pipe.flows.iter().any(|flow| flow.is_blocked()) {
            // As long as bytes wait there is no silence; the stall has its own limit.
            return None;
        }
        let open = pipe.flows.iter().position(|flow| flow.phase == Phase::Open);
        let half = pipe.flows.iter().any(|flow| flow.phase == Phase::Finished);
        match open {
            Some(open) if half && passed(pipe.active, pipe.birth.half_close) => {
                Some(Late::HalfClose(open))
            }
            _ => passed(pipe.active, pipe.birth.idle).then_some(Late::Idle),
        }
    }

    /// A sink that takes nothing, or is lost without a word, is dropped; the other end hears of it
    /// as far as it can.
    fn give_up(&mut self, key: Key, sink: usize, cause: Cause) {
        let Some(pipe) = self.slab.get(key) else { return };
        if pipe.has_relay() {
            socket::abort(pipe.ends[sink].fd);
            self.staged_lost(key, sink, cause);
        } else {
            self.close(key, Ending::new(closing::SIDES[sink], Stage::Pipe, cause), How::Abort);
        }
    }

    fn give_memory_back(&mut self) {
        self.ring.memory.trim();
        let flowing = |gears: &crate::meter::CoreCounters| {
            super::entry::DIRECTIONS.iter().any(|d| gears.gears.occupancy(*d, Gear::Flowing) > 0)
        };
        let lent = self.turns.iter().any(|turn| !turn.buffers.is_empty());
        if self.sweep.buffers_used && !lent && !flowing(&self.counters) {
            self.sweep.buffers_used = false;
            self.ring.memory.trim_buffers();
        }
    }
}
