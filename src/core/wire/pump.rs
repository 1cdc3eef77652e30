//! Reading an end, parked or flowing, and the change of gears (bulk has a room of its own). A gear
//! changes only when the old one is empty: its request joined, its bytes handed on.

use std::io;

use crate::meter::Gear;
use crate::sys::memory::BUFFER_BYTES;
use crate::sys::pipe::PIPE_BYTES;
use crate::sys::ring::{Completion, POLL_FINISHED};
use crate::sys::socket::{self, Received};

use super::Wire;
use super::entry::{DIRECTIONS, Life, Reading};
use super::slab::Key;
use super::token::{Kind, Token};

/// Bytes read at once from a parked end, and from one whose last reads were full.
const READ_BYTES: usize = 16 << 10;
const LONG_READ_BYTES: usize = 128 << 10;
/// Bytes that wait in all spills of a core, beyond which its reads are short.
pub(super) const SPILL_BYTES_MANY: u64 = 64 << 20;
const THRIFTY_READ_BYTES: usize = 4 << 10;
/// Wakes between two sweeps (one second) after which an end is no longer parked.
const PROMOTE_WAKES: u8 = 2;
/// Full reads, or large turns, in a row after which a flow is bulk.
const BULK_RUNS: u8 = 3;
/// Bytes in one turn that make it large.
const LARGE_TURN_BYTES: usize = 32 << 10;
/// Payload that need not be seen and is worth a pipe.
pub(super) const SPLICE_BYTES: usize = 16 << 10;

impl Wire {
    /// The oneshot poll of `end` completed.
    pub(super) fn readable(&mut self, key: Key, end: usize, completion: Completion) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        pipe.ends[end].reading = Reading::Idle;
        if pipe.life == Life::Closing {
            return self.joined(key);
        }
        let flow = &pipe.flows[end];
        if flow.ended {
            // Nothing that still comes from this end is wanted.
        } else if flow.is_blocked() {
            // The source is not read while bytes wait; a reset is seen all the same.
            self.look_for_reset(key, end, completion.result);
        } else {
            match flow.gear {
                Gear::Bulk => self.serve_bulk(key, end),
                Gear::Parked | Gear::Flowing => {
                    let finished = completion.result & POLL_FINISHED != 0;
                    self.serve_parked(key, end, finished);
                }
            }
        }
    }

    /// Serves a parked end in place: one read now, its bytes sent with the next enter. `finished`:
    /// the peer's FIN is there, so that what is read short is most likely the last of it.
    pub(super) fn serve_parked(&mut self, key: Key, end: usize, finished: bool) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        if pipe.life != Life::Open || pipe.flows[end].ended {
            return;
        }
        self.counters.wakes.inc();
        if pipe.flows[end].runs >= BULK_RUNS && pipe.is_between_frames(end) {
            // Each read ended exactly at a frame's end, so it told nothing of the next frame's
            // length: peek at its header.
            match self.staged_unseen(key, end, PIPE_BYTES) {
                Ok(0) => {}
                Ok(_) => {
                    self.begin_bulk(key, end);
                    return self.serve_bulk(key, end);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return self.source_failed(key, end, &error),
            }
        }
        let Some(pipe) = self.slab.get_mut(key) else { return };
        let flow = &pipe.flows[end];
        let most = match (self.counters.spill_held.get(), flow.runs) {
            (SPILL_BYTES_MANY.., _) => THRIFTY_READ_BYTES,
            (_, 1..) => LONG_READ_BYTES,
            _ => READ_BYTES,
        };
        let fd = pipe.ends[end].fd;
        let front = self.held_len(key, end);
        match socket::receive(fd, &mut self.ring.memory, front, most) {
            Ok(Received::Bytes(span)) => {
                if front > 0 {
                    let held = self.held_front(key, end);
                    self.ring.memory.bytes_mut(span)[..front].copy_from_slice(&held);
                }
                let got = span.len() - front;
                self.counters.bytes.add(DIRECTIONS[end], Gear::Parked, got as u64);
                self.bytes(key, end, span);
                if finished && got < most {
                    // The rest of it: an end, except where urgent data had cut the read short.
                    self.serve_parked(key, end, finished);
                } else {
                    self.shift(key, end, got, most);
                }
            }
            Ok(Received::Empty | Received::NoRoom) => self.arm(key, end),
            Ok(Received::End) => self.source_ended(key, end),
            Err(error) => self.source_failed(key, end, &error),
        }
    }

    /// After a parked end was served: stay, or change gear.
    fn shift(&mut self, key: Key, end: usize, got: usize, most: usize) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        // (A life of less than a second is served as it came.)
        let settled = pipe.settled;
        let long_frame = pipe.long_frame(end);
        let flow = &mut pipe.flows[end];
        let full = got == most && !flow.slow;
        flow.runs = if flow.slow {
            0
        } else if full || long_frame == Some(true) || (flow.runs > 0 && got >= READ_BYTES) {
            flow.runs.saturating_add(1)
        } else {
            0
        };
        flow.wakes = flow.wakes.saturating_add(1);
        // Inside a long frame a read may be short and the flow bulk all the same: the frame's
        // header has told that more follows.
        if flow.runs >= BULK_RUNS && long_frame.unwrap_or(full) {
            self.begin_bulk(key, end);
        } else if got < BUFFER_BYTES
            && flow.wakes >= PROMOTE_WAKES
            && flow.gear == Gear::Parked
            && settled
        {
            flow.cold = 0;
            self.change_gear(key, end, Gear::Flowing);
            return self.receive_all(key, end);
        }
        self.arm(key, end);
    }

    fn begin_bulk(&mut self, key: Key, end: usize) {
        if let Some(pipe) = self.slab.get_mut(key) {
            pipe.flows[end].runs = 0;
        }
        self.change_gear(key, end, Gear::Bulk);
    }

    pub(super) fn change_gear(&mut self, key: Key, end: usize, to: Gear) {
        if let Some(pipe) = self.slab.get_mut(key) {
            let from = std::mem::replace(&mut pipe.flows[end].gear, to);
            self.counters.gears.shift(DIRECTIONS[end], from, to);
        }
    }

    /// Arms the multishot receive of a flowing end.
    pub(super) fn receive_all(&mut self, key: Key, end: usize) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        if pipe.ends[end].reading != Reading::Idle || pipe.life != Life::Open {
            return;
        }
        if !pipe.listens(end) || pipe.flows[end].is_blocked() {
            return self.stopped_receiving(key, end);
        }
        pipe.ends[end].reading = Reading::Receiving;
        let token = Token::new(Kind::Received, end, key.slot, key.generation).pack();
        self.ring.receive_all(pipe.ends[end].fd, token);
    }

    /// Asks the multishot receive of `end` to end; its last completion says when it has.
    pub(super) fn stop_receiving(&mut self, key: Key, end: usize) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        if pipe.ends[end].reading == Reading::Receiving {
            pipe.ends[end].reading = Reading::Joining;
            self.ring.cancel(Token::new(Kind::Received, end, key.slot, key.generation).pack());
        }
    }

    /// A completion of a multishot receive.
    pub(super) fn received(&mut self, key: Key, end: usize, completion: Completion) {
        if let Some(id) = completion.buffer {
            self.turns[self.filling].buffers.push(id);
            self.sweep.buffers_used = true;
        }
        let Some(pipe) = self.slab.get_mut(key) else { return };
        let joining = pipe.ends[end].reading == Reading::Joining;
        if !completion.more {
            pipe.ends[end].reading = Reading::Idle;
        }
        if pipe.life == Life::Closing {
            if !completion.more {
                self.joined(key);
            }
            return;
        }
        match (completion.result, completion.buffer) {
            (n @ 1.., Some(id)) => {
                let span = self.ring.memory.buffer(id, n as usize);
                self.counters.bytes.add(DIRECTIONS[end], Gear::Flowing, n as u64);
                self.bytes(key, end, span);
            }
            (0, _) => return self.source_ended(key, end),
            (negative, _) => match -negative {
                libc::ENOBUFS if !joining => {
                    self.counters.enobufs.inc();
                    self.starved.push((key, end));
                    return;
                }
                // The receive was asked to end, and ended for want of a buffer first.
                libc::ENOBUFS => {}
                libc::ECANCELED => {}
                errno => {
                    let error = io::Error::from_raw_os_error(errno);
                    return self.source_failed(key, end, &error);
                }
            },
        }
        if !completion.more {
            self.stopped_receiving(key, end);
        }
    }

    /// The multishot receive of `end` is joined, its bytes forwarded: the next gear may begin.
    fn stopped_receiving(&mut self, key: Key, end: usize) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        let long_frame = pipe.long_frame(end);
        let flow = &mut pipe.flows[end];
        let large = flow.runs >= BULK_RUNS && !flow.slow;
        let bulk = large && long_frame.unwrap_or(true);
        // Bytes that must be seen cannot be spliced: they are read in long pieces, in place.
        flow.runs = u8::from(large && !bulk);
        flow.wakes = 0;
        self.change_gear(key, end, if bulk { Gear::Bulk } else { Gear::Parked });
        self.arm(key, end);
    }

    /// `bytes` of a flow went to the kernel in one turn: several large turns make it bulk.
    pub(super) fn flushed(&mut self, key: Key, end: usize, bytes: usize) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        let flow = &mut pipe.flows[end];
        if flow.gear != Gear::Flowing {
            return;
        }
        if bytes < LARGE_TURN_BYTES {
            flow.runs = 0;
            return;
        }
        flow.runs = flow.runs.saturating_add(1);
        if flow.runs >= BULK_RUNS {
            self.stop_receiving(key, end);
        }
    }
}
