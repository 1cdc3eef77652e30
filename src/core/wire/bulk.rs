//! Bulk: what need not be seen moves from socket to socket through a borrowed pipe and never enters
//! our memory. Of a WebSocket's long frames only the header is looked at, where it lies, and goes
//! the same way.

use std::io;

use crate::meter::{Ending, Gear, Stage};
use crate::sys::pipe::KernelPipe;
use crate::sys::ring::Timespec;
use crate::sys::socket::{self, Received};

use super::entry::{DIRECTIONS, NONE};
use super::pump::{SPILL_BYTES_MANY, SPLICE_BYTES};
use super::slab::Key;
use super::token::{Kind, Token};
use super::{How, Wire, closing};

/// Wakes in a row with less than this make a bulk flow parked again.
const THIN_BYTES: usize = 8 << 10;
const THIN_RUNS: u8 = 8;
/// Bytes read beyond a frame's end where the next one has to be seen.
const HEADS_BYTES: usize = 256;
/// Bytes that all bulk flows of a core together move in one turn, before anything else gets its
/// own: a millisecond or two.
const TURN_BYTES: usize = 8 << 20;
/// The most and the least of them that one flow may move.
const SHARE_BYTES: std::ops::RangeInclusive<usize> = 128 << 10..=2 << 20;
/// How long flows that emptied their source rest.
static REST: Timespec = Timespec::new().nsec(2_000_000);

/// How bulk flows share a turn, and which of them rest.
#[derive(Debug)]
pub struct Bulks {
    before: usize,
    now: usize,
    resting: Vec<(Key, usize)>,
    /// Sockets here can be looked at beyond the first frame: TCP since Linux 6.9.
    pub(super) far_sighted: bool,
}

impl Default for Bulks {
    fn default() -> Self {
        Self { before: 0, now: 0, resting: Vec::new(), far_sighted: true }
    }
}

impl Bulks {
    /// A turn begins: as many as in the last one are expected.
    pub fn begin(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    /// Whether this end is read again when a rest is over.
    pub fn rests(&self, key: Key, end: usize) -> bool {
        self.resting.contains(&(key, end))
    }

    /// Bytes that one more flow may move in this turn.
    fn share(&mut self) -> usize {
        self.now += 1;
        (TURN_BYTES / self.before.max(1)).clamp(*SHARE_BYTES.start(), *SHARE_BYTES.end())
    }
}

/// Why a bulk flow paused.
enum Pause {
    /// The source has no more.
    Empty,
    /// The turn's share is used up.
    Enough,
    /// The next bytes must be seen.
    Heads,
    Ended,
    SinkFull,
    SourceFailed(io::Error),
    SinkFailed(io::Error),
}

impl Wire {
    /// Serves a bulk flow whose source is readable.
    pub(super) fn serve_bulk(&mut self, key: Key, end: usize) {
        if self.slab.get(key).is_none_or(|pipe| pipe.flows[end].turn != NONE) {
            // Bytes of this turn go first, by way of the ring.
            return self.serve_heads(key, end);
        }
        let crowded = self.counters.spill_held.get() >= SPILL_BYTES_MANY;
        let through = if crowded { None } else { self.pool.borrow() };
        let Some(mut through) = through else {
            // No pipe to be had: in place, as if it were parked.
            self.counters.pipes_refused.inc();
            return self.serve_parked(key, end, false);
        };
        let (moved, pause) = self.splice(key, end, &mut through);
        self.counters.bytes.add(DIRECTIONS[end], Gear::Bulk, moved as u64);
        let Some(pipe) = self.slab.get_mut(key) else { return self.pool.give_back(through) };
        let flow = &mut pipe.flows[end];
        pipe.active = self.now;
        flow.runs = if moved < THIN_BYTES { flow.runs.saturating_add(1) } else { 0 };
        let thin = flow.runs >= THIN_RUNS;
        if matches!(pause, Pause::SinkFull) {
            flow.pipe = self.pool.keep(through);
            self.counters.pipes_lent.inc();
            return self.block(key, end);
        }
        let stranded = through.held > 0;
        self.pool.give_back(through);
        if thin {
            flow.runs = 0;
            flow.wakes = 0;
            self.change_gear(key, end, Gear::Parked);
        }
        match pause {
            Pause::Empty if !thin => self.rest(key, end),
            Pause::Empty | Pause::Enough | Pause::SinkFull => self.arm(key, end),
            Pause::Heads => self.serve_heads(key, end),
            // (What looks like an end to splice(2) may be urgent data in front of one.)
            Pause::Ended => self.serve_parked(key, end, true),
            Pause::SourceFailed(error) if stranded => {
                // Not even a Close may follow a stream that lacks a part.
                let cause = closing::cause_of(&error);
                self.close(key, Ending::new(closing::SIDES[end], Stage::Pipe, cause), How::Abort);
            }
            Pause::SourceFailed(error) => self.source_failed(key, end, &error),
            Pause::SinkFailed(error) => self.sink_failed(key, end, &error),
        }
    }

    /// Moves what need not be seen until there is a reason to pause; says how much it was.
    fn splice(&mut self, key: Key, end: usize, through: &mut KernelPipe) -> (usize, Pause) {
        let share = self.bulk.share();
        let mut moved = 0;
        loop {
            let pause = self.fill(key, end, through, share, &mut moved);
            let Some(pipe) = self.slab.get(key) else { return (moved, Pause::Enough) };
            match (drain(through, pipe.ends[1 - end].fd), pause) {
                (Err(e), _) => return (moved, Pause::SinkFailed(e)),
                (Ok(_), Some(Pause::SourceFailed(e))) => return (moved, Pause::SourceFailed(e)),
                (Ok(false), _) => return (moved, Pause::SinkFull),
                (Ok(true), Some(pause)) => return (moved, pause),
                (Ok(true), None) => {}
            }
        }
    }

    /// Fills the pipe with one piece of plain bytes, or with as many frames as there are: each
    /// drained by itself would leave a short packet behind a long one. `None`: to be drained, and
    /// there may be more.
    fn fill(
        &mut self,
        key: Key,
        end: usize,
        through: &mut KernelPipe,
        share: usize,
        moved: &mut usize,
    ) -> Option<Pause> {
        loop {
            let room = through.room - through.held;
            let unseen = match self.staged_unseen(key, end, room) {
                Ok(0) => return Some(Pause::Heads),
                Ok(unseen) => unseen,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Some(Pause::Empty),
                Err(e) => return Some(Pause::SourceFailed(e)),
            };
            let Some(pipe) = self.slab.get_mut(key) else { return Some(Pause::Enough) };
            if *moved >= share || pipe.flows[end].turn != NONE {
                return Some(Pause::Enough);
            }
            match through.fill(pipe.ends[end].fd, unseen.min(room)) {
                Ok(0) => return Some(Pause::Ended),
                Ok(n) => {
                    *moved += n;
                    if pipe.flows[end].add(n) {
                        self.count_bytes(key, end);
                    }
                    self.staged_spliced(key, end, n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return if through.held > 0 { None } else { Some(Pause::Empty) };
                }
                Err(e) => return Some(Pause::SourceFailed(e)),
            }
            if unseen == usize::MAX || through.held >= through.room {
                return None;
            }
        }
    }

    /// A bulk flow whose next bytes must be seen: reads to the end of the frame under way and a
    /// few bytes into the next.
    fn serve_heads(&mut self, key: Key, end: usize) {
        let Some(pipe) = self.slab.get(key) else { return };
        let unseen = pipe.extra.as_ref().map_or(usize::MAX, |extra| extra.unseen(end));
        let most = unseen.min(SPLICE_BYTES) + HEADS_BYTES;
        match socket::receive(pipe.ends[end].fd, &mut self.ring.memory, 0, most) {
            Ok(Received::Bytes(span)) => self.bytes(key, end, span),
            Ok(Received::Empty | Received::NoRoom) => return self.arm(key, end),
            Ok(Received::End) => return self.source_ended(key, end),
            Err(error) => return self.source_failed(key, end, &error),
        }
        let Some(pipe) = self.slab.get_mut(key) else { return };
        let worth = pipe.long_frame(end).unwrap_or(true);
        let flow = &mut pipe.flows[end];
        flow.runs = if worth { 0 } else { flow.runs.saturating_add(1) };
        if flow.runs >= THIN_RUNS {
            // Frames have become short: long reads in place serve them better.
            flow.runs = 1;
            flow.wakes = 0;
            self.change_gear(key, end, Gear::Parked);
        }
        self.arm(key, end);
    }

    /// A flow that emptied its source is not looked at again at once: what comes meanwhile moves in
    /// one piece, and all that rest are woken together.
    fn rest(&mut self, key: Key, end: usize) {
        self.bulk.resting.push((key, end));
        if self.bulk.resting.len() == 1 {
            self.ring.timeout(&REST, Token::of(Kind::Rested, 0).pack());
        }
    }

    /// The rest of all bulk flows is over.
    pub(super) fn rested(&mut self) {
        for (key, end) in std::mem::take(&mut self.bulk.resting) {
            self.arm(key, end);
        }
    }
}

/// Moves what a pipe holds on; `Ok(false)` when the sink takes no more.
pub(super) fn drain(pipe: &mut KernelPipe, sink: i32) -> io::Result<bool> {
    while pipe.held > 0 {
        match pipe.drain(sink) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}
