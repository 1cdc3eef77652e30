//! The one timer of a core: every tenth of a second a tenth of the slab is looked at, so that each
//! pipe is seen about once a second. Deadlines, demotion and paced endings come from here.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::balance::ServerId;
use crate::meter::{Cause, Ending, Gear, Stage};

use crate::sys::socket;

use super::entry::{CLIENT, Life, NONE, Phase, Reading, SERVER, TICKS_PER_SECOND, Ticks, ticks};
use super::slab::Key;
use super::{How, Wire, closing};

/// Silent sweeps after which a flowing end is parked again.
const COLD_SWEEPS: u8 = 5;
/// Multishot receives cancelled in one tick at the most: a cancel walks the kernel's table.
const DEMOTIONS_PER_TICK: u32 = 64;
/// Ticks a sink that reset may take to report it by its own reading.
const BROKEN_TICKS: Ticks = 2 * TICKS_PER_SECOND;

/// Where the sweep is, and the endings that are due later.
#[derive(Debug, Default)]
pub struct Sweep {
    cursor: u32,
    demotions: u32,
    /// Buffers were used since the last whole round.
    pub buffers_used: bool,
    due: BinaryHeap<Reverse<Due>>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Ticks,
    slot: u32,
    generation: u32,
    ending: u16,
}

impl Wire {
    /// Ends all pipes of a server, evenly spread over `over` (at once without).
    pub fn end_server(&mut self, server: ServerId, over: Option<Duration>, cause: Cause) {
        let keys = self.on_server(server);
        self.end_paced(&keys, over, Ending::proxy(Stage::Pipe, cause));
    }

    /// Ends all L7 pipes with a Close, evenly spread over `over`; others are left to end by
    /// themselves.
    pub fn drain(&mut self, over: Duration) {
        let speaks = |key: &Key| self.slab.get(*key).is_some_and(|pipe| pipe.extra.is_some());
        let keys: Vec<Key> = self.slab.keys().filter(speaks).collect();
        self.end_paced(&keys, Some(over), Ending::proxy(Stage::Pipe, Cause::Drained));
    }

    /// Ends everything now.
    pub fn end_all(&mut self, cause: Cause) {
        let keys: Vec<Key> = self.slab.keys().collect();
        for key in keys {
            self.close(key, Ending::proxy(Stage::Pipe, cause), How::Fin);
        }
    }

    fn end_paced(&mut self, keys: &[Key], over: Option<Duration>, ending: Ending) {
        let span = over.map_or(0, |over| u64::from(ticks(over)));
        for (place, key) in keys.iter().enumerate() {
            // Evenly spread, with jitter inside each one's own share of the time.
            let from = span * place as u64 / keys.len() as u64;
            let to = span * (place as u64 + 1) / keys.len() as u64;
            let at = self.now + fastrand::u64(from..=to) as Ticks;
            if at <= self.now {
                self.end_by_plan(*key, ending);
            } else {
                let (slot, generation) = (key.slot, key.generation);
                let ending = ending.index() as u16;
                self.sweep.due.push(Reverse(Due { at, slot, generation, ending }));
            }
        }
    }

    /// Ends one pipe because we want to: with a Close where the protocol has one, else FIN.
    fn end_by_plan(&mut self, key: Key, ending: Ending) {
        if self.slab.get(key).is_some_and(|pipe| pipe.extra.is_some()) {
            self.staged_close(key, ending);
        } else {
            self.close(key, ending, How::Fin);
        }
    }

    /// A tick's share of the slab.
    pub(super) fn sweep(&mut self) {
        while let Some(Reverse(due)) = self.sweep.due.peek() {
            if due.at > self.now {
                break;
            }
            let Some(Reverse(due)) = self.sweep.due.pop() else { break };
            if let Some(ending) = Ending::from_index(due.ending as usize) {
                self.end_by_plan(Key { slot: due.slot, generation: due.generation }, ending);
            }
        }
        self.sweep.demotions = 0;
        let slots = self.slab.slots();
        for _ in 0..slots.div_ceil(TICKS_PER_SECOND) {
            if self.sweep.cursor >= slots {
                self.sweep.cursor = 0;
            }
            if let Some(key) = self.slab.key_at(self.sweep.cursor) {
                self.look_at(key);
            }
            self.sweep.cursor += 1;
        }
        if self.now.is_multiple_of(TICKS_PER_SECOND) {
            self.counters.sweeps.inc();
            self.give_memory_back();
        }
    }

    fn look_at(&mut self, key: Key) {
        if let Some((ending, how)) = self.overdue(key) {
            return self.close(key, ending, how);
        }
        if let Some(pipe) = self.slab.get_mut(key)
            && !pipe.settled
            && self.now.saturating_sub(pipe.born) >= TICKS_PER_SECOND
        {
            pipe.settled = true;
            // Five system calls that a short life need not pay. A Unix socket refuses them.
            let _ = socket::set_options(pipe.ends[SERVER].fd, pipe.birth.options);
        }
        for end in [CLIENT, SERVER] {
            let Some(pipe) = self.slab.get_mut(key) else { return };
            let flow = &mut pipe.flows[end];
            flow.wakes = 0;
            let hot = std::mem::replace(&mut flow.hot, false);
            flow.cold = if hot { 0 } else { flow.cold.saturating_add(1) };
            if flow.pipe != NONE && !hot {
                // Its sink took nothing for a sweep: the pipe is needed elsewhere.
                self.unpipe(key, end);
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
    }

    /// Which deadline of the pipe has passed.
    fn overdue(&self, key: Key) -> Option<(Ending, How)> {
        let pipe = self.slab.get(key)?;
        if pipe.life != Life::Open {
            return None;
        }
        let passed = |since: Ticks, limit: Option<Ticks>| {
            limit.is_some_and(|limit| self.now.saturating_sub(since) >= limit)
        };
        for end in [CLIENT, SERVER] {
            let flow = &pipe.flows[end];
            let sink = closing::SIDES[1 - end];
            if flow.phase == Phase::Broken && passed(pipe.active, Some(BROKEN_TICKS)) {
                return Some((Ending::new(sink, Stage::Pipe, Cause::Reset), How::Abort));
            }
            if flow.spill.as_ref().is_some_and(|spill| passed(spill.since, pipe.birth.stall)) {
                return Some((Ending::new(sink, Stage::Pipe, Cause::Stall), How::Abort));
            }
        }
        let open = pipe.flows.iter().position(|flow| flow.phase == Phase::Open);
        let half = pipe.flows.iter().any(|flow| flow.phase == Phase::Finished);
        if let (true, Some(open)) = (half, open)
            && passed(pipe.active, pipe.birth.half_close)
        {
            let ending = Ending::new(closing::SIDES[open], Stage::Pipe, Cause::HalfClose);
            return Some((ending, How::Fin));
        }
        let blocked = pipe.flows.iter().any(|flow| flow.is_blocked());
        if !blocked && passed(pipe.active, pipe.birth.idle) {
            return Some((Ending::proxy(Stage::Pipe, Cause::Idle), How::Fin));
        }
        None
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
