//! Writing to an end: sends that fell short, the spill, and FIN after the last byte.

use std::io;

use crate::meter::{Cause, Ending, Stage};
use crate::sys::ring::{Completion, POLL_ERR, POLL_OUT};
use crate::sys::socket;

use super::entry::{Life, NONE, Phase, Reading, Watch};
use super::slab::Key;
use super::spill::Spill;
use super::token::{Kind, Token};
use super::turn::Outgoing;
use super::{How, Wire, bulk, closing};

/// Spans the kernel gathers in one send (UIO_MAXIOV).
pub const SPANS_MAX: usize = 1024;

impl Wire {
    /// A send of the last turn fell short.
    pub(super) fn unsent(&mut self, completion: &Completion) {
        let Some(token) = Token::unpack(completion.token) else { return };
        let sent = self.filling ^ 1;
        let Some(out) = self.turns[sent].get(token.slot as usize) else { return };
        match completion.result {
            n @ 0.. => self.spill(sent, &out, n as usize),
            negative if negative == -libc::EAGAIN => self.spill(sent, &out, 0),
            negative => {
                let error = io::Error::from_raw_os_error(-negative);
                self.sink_failed(out.key, out.flow, &error);
            }
        }
    }

    /// Copies what `out` has beyond its first `skip` bytes to the flow's spill.
    pub(super) fn spill(&mut self, turn: usize, out: &Outgoing, skip: usize) {
        let Some(pipe) = self.slab.get_mut(out.key) else { return };
        let flow = &mut pipe.flows[out.flow];
        if pipe.life != Life::Open || flow.phase == Phase::Broken {
            return;
        }
        if flow.spill.is_none() && flow.pipe != NONE {
            // What lies in the pipe goes first: it becomes the head of the spill.
            self.unpipe(out.key, out.flow);
        }
        let Some(pipe) = self.slab.get_mut(out.key) else { return };
        let flow = &mut pipe.flows[out.flow];
        let now = self.now;
        if flow.spill.is_none() {
            self.counters.spills.inc();
        }
        let spill = flow.spill.get_or_insert_with(|| Box::new(Spill::new(now)));
        let mut skip = skip;
        let mut fits = true;
        let before = spill.len();
        for span in self.turns[turn].spans(out) {
            let from = skip.min(span.len());
            skip -= from;
            fits = fits && spill.add(self.ring.memory.bytes(span.part(from, span.len())));
        }
        let added = (spill.len() - before) as u64;
        self.counters.spill_held.add(added);
        self.counters.spilled_bytes.add(added);
        if fits {
            self.block(out.key, out.flow);
        } else {
            self.fail_exhausted(out.key, out.flow);
        }
    }

    /// The sink of `flow` takes nothing now: wait for room, and stop reading the source.
    pub(super) fn block(&mut self, key: Key, flow: usize) {
        self.stop_receiving(key, flow);
        let Some(pipe) = self.slab.get_mut(key) else { return };
        let sink = 1 - flow;
        if pipe.ends[sink].watch == Watch::None {
            // A peer that has finished makes a oneshot return at once, every time.
            let edges = pipe.flows[sink].phase != Phase::Open;
            self.watch(key, sink, if edges { Watch::Edges } else { Watch::Once });
        }
    }

    /// An end that is not being read had an event: if its peer reset, the pipe is over; if not, a
    /// later reset must not go unseen.
    pub(super) fn look_for_reset(&mut self, key: Key, end: usize, events: i32) {
        let Some(pipe) = self.slab.get(key) else { return };
        if events & POLL_ERR != 0
            && let Some(error) = socket::take_error(pipe.ends[end].fd)
        {
            return self.source_failed(key, end, &error);
        }
        if pipe.ends[end].watch == Watch::None {
            self.watch(key, end, Watch::Edges);
        }
    }

    fn watch(&mut self, key: Key, end: usize, watch: Watch) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        pipe.ends[end].watch = watch;
        let token = Token::new(Kind::Watched, end, key.slot, key.generation).pack();
        match watch {
            Watch::Once => self.ring.poll(pipe.ends[end].fd, POLL_OUT, token),
            Watch::Edges => self.ring.watch(pipe.ends[end].fd, POLL_OUT, token),
            Watch::None => {}
        }
    }

    /// The poll for room to write on `end` completed.
    pub(super) fn watched(&mut self, key: Key, end: usize, completion: Completion) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        if !completion.more {
            pipe.ends[end].watch = Watch::None;
        }
        if pipe.life == Life::Closing {
            if !completion.more {
                self.joined(key);
            }
            return;
        }
        let source = &pipe.flows[end];
        if source.is_blocked() && !source.ended && completion.result & POLL_ERR != 0 {
            return self.look_for_reset(key, end, completion.result);
        }
        // (A source that had finished and is reset is heard of by what is sent to it: the error is
        // left on the socket for that.)
        let flow = 1 - end;
        if !pipe.flows[flow].is_blocked() {
            return;
        }
        let wanted = POLL_OUT as i32 | POLL_ERR;
        if completion.result & wanted != 0 {
            self.unblock(key, flow);
        } else if !completion.more {
            // Woken by the peer's FIN alone: from here on only edges tell of room.
            self.watch(key, end, Watch::Edges);
        }
    }

    /// Moves what waits for the sink; when all is gone the source is read again.
    fn unblock(&mut self, key: Key, index: usize) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        let sink = pipe.ends[1 - index].fd;
        let flow = &mut pipe.flows[index];
        let mut through = self.pool.take(flow.pipe);
        let before = flow.spill.as_ref().map_or(0, |spill| spill.len());
        let emptied = match (&mut flow.spill, &mut through) {
            (Some(spill), _) => spill.drain(sink, self.now),
            (None, Some(through)) => bulk::drain(through, sink),
            (None, None) => Ok(true),
        };
        let after = flow.spill.as_ref().map_or(0, |spill| spill.len());
        self.counters.spill_held.sub((before - after) as u64);
        pipe.active = self.now;
        match emptied {
            Ok(true) => {
                flow.spill = None;
                flow.pipe = NONE;
                if let Some(through) = through {
                    self.counters.pipes_lent.dec();
                    self.pool.give_back(through);
                }
                self.unblocked(key, index);
            }
            Ok(false) => {
                if let Some(through) = through {
                    flow.pipe = self.pool.keep(through);
                }
                self.block(key, index);
            }
            Err(error) => {
                if through.is_some() {
                    flow.pipe = NONE;
                    self.counters.pipes_lent.dec();
                }
                self.sink_failed(key, index, &error);
            }
        }
    }

    fn unblocked(&mut self, key: Key, index: usize) {
        let Some(pipe) = self.slab.get(key) else { return };
        if pipe.flows[index].phase == Phase::Draining {
            self.finish(key, index);
        }
        self.arm(key, index);
    }

    /// Drops what waits for a sink that is lost.
    pub(super) fn discard(&mut self, key: Key, index: usize) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        let flow = &mut pipe.flows[index];
        let held = flow.spill.take().map_or(0, |spill| spill.len());
        self.counters.spill_held.sub(held as u64);
        if flow.pipe != NONE {
            // It holds bytes of this connection: destroyed, never reused.
            drop(self.pool.take(flow.pipe));
            flow.pipe = NONE;
            self.counters.pipes_lent.dec();
        }
    }

    /// Empties the pipe that `flow` borrowed into its spill, and returns it.
    pub(super) fn unpipe(&mut self, key: Key, index: usize) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        let flow = &mut pipe.flows[index];
        let mut spill = Box::new(Spill::new(self.now));
        let emptied = self.pool.empty_into(flow.pipe, spill.bytes_mut());
        self.counters.spill_held.add(spill.len() as u64);
        flow.pipe = NONE;
        self.counters.pipes_lent.dec();
        self.counters.spills.inc();
        self.counters.spilled_bytes.add(spill.len() as u64);
        flow.spill = Some(spill);
        if emptied.is_err() {
            // Bytes that cannot be got out of the pipe are lost: nothing may follow them.
            self.fail_exhausted(key, index);
        }
    }

    /// The source of `flow` has finished sending.
    pub(super) fn source_ended(&mut self, key: Key, index: usize) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        let staged = pipe.extra.is_some();
        let flow = &mut pipe.flows[index];
        if std::mem::replace(&mut flow.ended, true) {
            return;
        }
        if flow.phase == Phase::Open {
            flow.phase = Phase::Draining;
        }
        // After close_notify more bytes may come; they are not wanted.
        self.stop_receiving(key, index);
        if staged {
            self.staged_end(key, index);
        }
        self.finishing.push((key, index));
    }

    /// Passes FIN on once nothing of the flow is left on its way.
    pub(super) fn finish(&mut self, key: Key, index: usize) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        let other = pipe.flows[1 - index].phase;
        let speaks = pipe.has_relay();
        let flow = &mut pipe.flows[index];
        if pipe.life != Life::Open || flow.is_blocked() {
            return;
        }
        if flow.turn != NONE {
            // Bytes of this very turn: after the next enter they are on their way.
            return self.finishing.push((key, index));
        }
        if other == Phase::Broken && !speaks {
            // The send that failed took the reset with it: what looks like an end here is none.
            let reset = Ending::new(closing::SIDES[index], Stage::Pipe, Cause::Reset);
            let ending = pipe.ending.unwrap_or(reset);
            return self.close(key, ending, How::Abort);
        }
        let (draining, cut) = (flow.phase == Phase::Draining, flow.cut);
        if draining && !cut && self.say_closed(key, index) {
            return self.finishing.push((key, index));
        }
        let Some(pipe) = self.slab.get_mut(key) else { return };
        // A relay that has said Close or FIN waits for the ends to say theirs: closing on bytes
        // that come is a reset, and takes the Close from a peer that has not read it yet.
        let rest = &pipe.flows[1 - index];
        let last = if speaks {
            let quiet = rest.turn == NONE && !rest.is_blocked() && other != Phase::Draining;
            quiet && pipe.flows.iter().all(|flow| flow.ended)
        } else {
            other == Phase::Finished || other == Phase::Broken
        };
        if draining {
            pipe.flows[index].phase = Phase::Finished;
            if !last {
                socket::finish(pipe.ends[1 - index].fd);
            }
            // The last FIN goes out with the close.
        }
        pipe.active = self.now;
        if last {
            let first = pipe.ending.unwrap_or(closing::finished_by(1 - index));
            self.close(key, first, How::Clean);
        } else if pipe.ending.is_none() {
            pipe.ending = Some(closing::finished_by(index));
        }
    }

    /// Reading from `end` failed: what the peer did to it is done to the other side.
    pub(super) fn source_failed(&mut self, key: Key, end: usize, error: &io::Error) {
        if self.slab.get(key).is_none_or(|pipe| pipe.flows[end].ended) {
            return;
        }
        let cause = closing::cause_of(error);
        if !self.staged_lost(key, end, cause) {
            self.close(key, Ending::new(closing::SIDES[end], Stage::Pipe, cause), How::Abort);
        }
    }

    /// Sending on `flow` failed. What the sink said before is still delivered: its own reading
    /// reports the end.
    pub(super) fn sink_failed(&mut self, key: Key, index: usize, error: &io::Error) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        if pipe.life != Life::Open {
            return;
        }
        let (sink, cause) = (1 - index, closing::cause_of(error));
        // (One that rests is read when its rest is over.)
        let rests = self.bulk.rests(key, sink);
        let ending = Ending::new(closing::SIDES[sink], Stage::Pipe, cause);
        let speaks = pipe.has_relay();
        let reports = pipe.listens(sink)
            && !pipe.flows[sink].is_blocked()
            && (rests || pipe.ends[sink].reading != Reading::Idle);
        let ended = pipe.flows[sink].ended;
        pipe.flows[index].phase = Phase::Broken;
        if speaks {
            pipe.ending.get_or_insert(ending);
        } else {
            pipe.ending = Some(ending);
        }
        self.discard(key, index);
        match (speaks, reports) {
            (false, true) => self.stop_receiving(key, index),
            (false, false) => self.close(key, ending, How::Abort),
            // What the source still says is read, so that its end is seen, and dropped.
            (true, _) if reports || ended => self.arm(key, index),
            (true, _) => {
                self.staged_lost(key, sink, cause);
            }
        }
    }

    /// `end` is not read while its bytes wait for the other end: this finds out whether it was
    /// reset meanwhile.
    pub(super) fn ask_unread(&mut self, key: Key, end: usize) {
        let Some(pipe) = self.slab.get(key) else { return };
        if pipe.flows[end].is_blocked()
            && !pipe.flows[end].ended
            && let Some(error) = socket::take_error(pipe.ends[end].fd)
        {
            self.source_failed(key, end, &error);
        }
    }
}
