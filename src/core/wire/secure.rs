//! TLS in the long life: what a pipe's end keeps between bursts is a [`Session`] of keys and
//! numbers, and, if its peer cut a record short, the front of that record. Records are opened in
//! the memory they were received into and sealed into the turn's scratch.

use std::collections::VecDeque;

use crate::meter::{Cause, Ending, Gear, Stage};
use crate::proto::Step;
use crate::proto::record::{
    self, Alert, Fault, Finish, HEADER, OVERHEAD_MAX, Opened, Sealed, Session,
};
use crate::sys::memory::Span;
use crate::sys::socket;

use super::entry::{Life, Phase, TICKS_PER_SECOND, Ticks};
use super::slab::Key;
use super::{CLIENT, How, Pipe, SERVER, Wire, closing};

/// Bytes of cut records that a core holds at the most; beyond it the oldest pipe ends.
pub const HELD_BYTES_MAX: usize = 8 << 20;
/// Length of the list of cut records below which it is not searched for those that are whole now.
const ORDER_MIN: usize = 1024;
/// Records that a key can still seal, below which its pipe ends in order: what a fast one seals
/// between two sweeps, and until a long frame ends.
const WORN_RECORDS: u64 = 256 << 10;
/// How long a cut record may stay cut.
const HELD_TICKS_MAX: Ticks = 30 * TICKS_PER_SECOND;

/// Where NewSessionTickets of a server go.
pub trait KeepTicket: std::fmt::Debug {
    fn keep(&mut self, body: &[u8]);
}

/// TLS of one end.
#[derive(Debug)]
pub struct Secure {
    session: Session,
    /// The front of a record whose rest has not come.
    held: Vec<u8>,
    /// Since when that record has been cut.
    cut: Option<Ticks>,
    /// The socket's low-water mark is up: the rest of the record gathers in the kernel.
    raised: bool,
    /// `close_notify` came: the stream's end is the true one.
    closed: bool,
    tickets: Option<Box<dyn KeepTicket>>,
}

impl Secure {
    pub fn new(session: Session, tickets: Option<Box<dyn KeepTicket>>) -> Self {
        Self { session, held: Vec::new(), cut: None, raised: false, closed: false, tickets }
    }
}

/// What cut records cost a core, and whose is the oldest.
#[derive(Debug, Default)]
pub struct Held {
    bytes: usize,
    order: VecDeque<(Key, usize, Ticks)>,
    /// Length at which `order` is rid of records that are whole by now.
    sweep_at: usize,
}

impl Wire {
    fn secure(&mut self, key: Key, end: usize) -> Option<&mut Secure> {
        self.slab.get_mut(key)?.extra.as_mut()?.secure[end].as_deref_mut()
    }

    /// How many bytes [`Wire::held_front`] would return.
    pub(super) fn held_len(&self, key: Key, end: usize) -> usize {
        let pipe = self.slab.get(key);
        let extra = pipe.and_then(|pipe| pipe.extra.as_ref());
        extra.and_then(|extra| extra.secure[end].as_ref()).map_or(0, |secure| secure.held.len())
    }

    /// Whether the stream of `end` ended without the `close_notify` it owes.
    pub(super) fn is_cut(&self, key: Key, end: usize) -> bool {
        let pipe = self.slab.get(key);
        let extra = pipe.and_then(|pipe| pipe.extra.as_ref());
        extra.and_then(|extra| extra.secure[end].as_ref()).is_some_and(|secure| !secure.closed)
    }

    /// Bytes of a cut record that go before what is read next from `end`.
    pub(super) fn held_front(&mut self, key: Key, end: usize) -> Vec<u8> {
        let Some(secure) = self.secure(key, end) else { return Vec::new() };
        let front = std::mem::take(&mut secure.held);
        self.held.bytes -= front.len();
        self.counters.records_held.set(self.held.bytes as u64);
        front
    }

    /// Ciphertext came from `end`; a front held earlier was read into the same span.
    pub(super) fn open(&mut self, key: Key, end: usize, span: Span) {
        let front = self.held_front(key, end);
        let Some(span) = self.joined_span(&front, span) else { return self.close_exhausted(key) };
        let Some(pipe) = self.slab.get_mut(key) else { return };
        let fd = pipe.ends[end].fd;
        let Some(secure) = pipe.extra.as_mut().and_then(|e| e.secure[end].as_deref_mut()) else {
            return;
        };
        let opened = secure.session.open(self.ring.memory.bytes_mut(span));
        let Opened { plain, used, finish, tickets, records, updates } = opened;
        self.counters.records_opened.add(u64::from(records));
        self.counters.key_updates_received.add(u64::from(updates));
        for body in tickets {
            if let Some(keeper) = &mut secure.tickets {
                keeper.keep(&body);
            }
        }
        if !plain.is_empty() {
            // Tickets come before data; what comes after is not worth a kilobyte for life.
            secure.tickets = None;
        }
        secure.closed |= finish == Some(Finish::Closed);
        // A record that is still the same one has been cut for as long as it was.
        let cut = finish.is_none() && used < span.len();
        if records > 0 || !cut {
            secure.cut = None;
            if std::mem::take(&mut secure.raised) {
                socket::set_low_water(fd, 1);
            }
        }
        let answers = secure.session.answer_due();
        if cut {
            self.hold(key, end, span.part(used, span.len()));
        }
        // To a peer that does not read, the answer waits with its data: alone they could pile up.
        if answers && !self.slab.get(key).is_some_and(|pipe| pipe.flows[1 - end].is_blocked()) {
            self.seal(key, 1 - end, None);
        }
        if !plain.is_empty() {
            self.opened(key, end, span.part(plain.start, plain.end));
        }
        if let Some(finish) = finish {
            self.session_ended(key, end, finish);
        }
    }

    /// What a session heard in its young life may have been its last: nothing more comes from the
    /// socket to tell of it.
    pub(super) fn heard_before(&mut self, key: Key, end: usize) {
        let Some(secure) = self.secure(key, end) else { return };
        if let Some(finish) = secure.session.heard() {
            secure.closed |= finish == Finish::Closed;
            self.session_ended(key, end, finish);
        }
    }

    fn session_ended(&mut self, key: Key, end: usize, finish: Finish) {
        match finish {
            Finish::Closed => self.source_ended(key, end),
            Finish::Fault(fault) => self.session_broke(key, end, fault),
        }
    }

    fn joined_span(&mut self, front: &[u8], span: Span) -> Option<Span> {
        if front.is_empty() {
            return Some(span);
        }
        let whole = self.ring.memory.allocate(front.len() + span.len())?;
        let (read, write) = self.ring.memory.pair_mut(span, whole);
        write[..front.len()].copy_from_slice(front);
        write[front.len()..].copy_from_slice(read);
        Some(whole)
    }

    /// Keeps the front of a cut record; over the core's bound the oldest such pipe ends.
    fn hold(&mut self, key: Key, end: usize, front: Span) {
        let now = self.now;
        let Some(pipe) = self.slab.get_mut(key) else { return };
        let (fd, parked) = (pipe.ends[end].fd, pipe.flows[end].gear == Gear::Parked);
        let Some(secure) = pipe.extra.as_mut().and_then(|e| e.secure[end].as_deref_mut()) else {
            return;
        };
        let bytes = self.ring.memory.bytes(front);
        if let Step::Done(_, head) = record::header(bytes)
            && parked
        {
            // The rest may as well gather in the kernel: one wake for it instead of many.
            socket::set_low_water(fd, HEADER + head.length - bytes.len());
            secure.raised = true;
        } else if std::mem::take(&mut secure.raised) {
            // It flows since, and a part of that rest was read: less than the mark may be all that
            // is still to come.
            socket::set_low_water(fd, 1);
        }
        secure.held = bytes.to_vec();
        if secure.cut.is_none() {
            secure.cut = Some(now);
            self.held.order.push_back((key, end, now));
        }
        self.held.bytes += front.len();
        self.counters.records_held.set(self.held.bytes as u64);
        while self.held.bytes > HELD_BYTES_MAX {
            let Some((oldest, end, since)) = self.held.order.pop_front() else { return };
            if self.is_cut_since(oldest, end, since) {
                self.end_held(oldest, end);
            }
        }
        while let Some(&(key, end, since)) = self.held.order.front() {
            if self.is_cut_since(key, end, since) {
                break;
            }
            self.held.order.pop_front();
        }
        self.sweep_order();
    }

    /// Behind one record that stays cut, those that were joined since are swept out together.
    fn sweep_order(&mut self) {
        if self.held.order.len() > self.held.sweep_at {
            let mut order = std::mem::take(&mut self.held.order);
            order.retain(|&(key, end, since)| self.is_cut_since(key, end, since));
            self.held.sweep_at = (2 * order.len()).max(ORDER_MIN);
            order.shrink_to(self.held.sweep_at);
            self.held.order = order;
        }
    }

    fn is_cut_since(&mut self, key: Key, end: usize, since: Ticks) -> bool {
        self.secure(key, end).is_some_and(|secure| secure.cut == Some(since))
    }

    /// A pipe is gone: what it held counts no more.
    pub(super) fn forget_held(&mut self, pipe: &Pipe) {
        let Some(extra) = &pipe.extra else { return };
        for secure in extra.secure.iter().flatten() {
            self.held.bytes -= secure.held.len();
        }
        self.counters.records_held.set(self.held.bytes as u64);
    }

    fn end_held(&mut self, key: Key, end: usize) {
        self.held_front(key, end);
        let ending = Ending::new(closing::SIDES[end], Stage::Pipe, Cause::HeldTooMuch);
        self.close(key, ending, How::Cut(end));
    }

    /// Seals `plain` (or only a KeyUpdate that is owed) on the way out of `flow`.
    pub(super) fn seal(&mut self, key: Key, flow: usize, plain: Option<Span>) {
        let length = plain.map_or(0, Span::len);
        let Some(out) = self.ring.memory.allocate(Session::sealed_max(length)) else {
            return self.close_exhausted(key);
        };
        let Some(secure) = self
            .slab
            .get_mut(key)
            .and_then(|pipe| pipe.extra.as_mut()?.secure[1 - flow].as_deref_mut())
        else {
            return;
        };
        let sealed = match plain {
            Some(plain) => {
                let (read, write) = self.ring.memory.pair_mut(plain, out);
                secure.session.seal(read, write)
            }
            None => secure.session.seal(&[], self.ring.memory.bytes_mut(out)),
        };
        match sealed {
            Ok(Sealed { taken, written, records, updates }) => {
                let out = self.ring.memory.shrink(out, written);
                self.counters.records_sealed.add(u64::from(records));
                self.counters.key_updates_sent.add(u64::from(updates));
                self.raw(key, flow, out);
                if taken < length {
                    self.key_spent(key);
                }
            }
            // We said close_notify already: what comes after it is dropped.
            Err(Fault::UnexpectedMessage) => {
                self.ring.memory.shrink(out, 0);
            }
            Err(_) => {
                self.ring.memory.shrink(out, 0);
                self.key_spent(key);
            }
        }
    }

    /// Ends a pipe whose TLS 1.2 key has sealed nearly as many records as is safe, while there are
    /// some left for the words with which it ends.
    pub(super) fn sweep_worn(&mut self, key: Key) {
        let worn = [CLIENT, SERVER].into_iter().any(|end| {
            self.secure(key, end).is_some_and(|it| it.session.records_left() < WORN_RECORDS)
        });
        let ends = |pipe: &Pipe| pipe.life == Life::Open && pipe.ending.is_none();
        if worn && self.slab.get(key).is_some_and(ends) {
            self.end_in_order(key, Ending::proxy(Stage::Pipe, Cause::KeyLimit));
        }
    }

    /// A TLS 1.2 key has sealed as many records as is safe, and cannot be renewed.
    fn key_spent(&mut self, key: Key) {
        let ending = Ending::proxy(Stage::Pipe, Cause::KeyLimit);
        self.doom(key, ending, How::Fin);
    }

    /// Says `close_notify` on the way out of `flow`; `false` if there is no TLS or it was said.
    pub(super) fn say_closed(&mut self, key: Key, flow: usize) -> bool {
        self.say_alert(key, flow, Alert::CLOSE_NOTIFY)
    }

    fn say_alert(&mut self, key: Key, flow: usize, alert: Alert) -> bool {
        let mut record = [0; 2 * OVERHEAD_MAX];
        let Some(secure) = self.secure(key, 1 - flow) else { return false };
        match secure.session.close(alert, &mut record) {
            Ok(length @ 1..) => {
                self.inject_raw(key, flow, &record[..length]);
                true
            }
            Ok(0) | Err(_) => false,
        }
    }

    /// The peer at `end` broke the session: it is told why; the other side must not take the rest
    /// for a clean end.
    fn session_broke(&mut self, key: Key, end: usize, fault: Fault) {
        if let Some(alert) = fault.alert() {
            self.say_alert(key, 1 - end, alert);
        }
        let cause = closing::cause_of_session(fault);
        self.cut_off(key, end, Ending::new(closing::SIDES[end], Stage::Pipe, cause));
    }

    /// Nothing that `end` still says is believed: the pipe ends with what can be said of that.
    fn cut_off(&mut self, key: Key, end: usize, ending: Ending) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        pipe.ending = Some(ending);
        pipe.flows[end].ended = true;
        if pipe.flows[end].phase == Phase::Open {
            pipe.flows[end].phase = Phase::Draining;
        }
        self.staged_cut(key, end);
        self.doom(key, ending, How::Cut(end));
    }

    /// Whether a record of this pipe has been cut for too long.
    pub(super) fn sweep_held(&mut self, key: Key) {
        for end in [CLIENT, SERVER] {
            let now = self.now;
            let Some(pipe) = self.slab.get(key).filter(|pipe| pipe.life == Life::Open) else {
                return;
            };
            let (unread, ended) = (pipe.flows[end].is_blocked(), pipe.flows[end].ended);
            let Some(secure) = self.secure(key, end) else { continue };
            let Some(since) = secure.cut else { continue };
            let age = now.saturating_sub(since);
            if unread && age >= HELD_TICKS_MAX / 2 {
                // The record's rest may lie in the socket, which we do not read at present.
                secure.cut = Some(now);
                self.held.order.push_back((key, end, now));
                self.sweep_order();
            } else if !unread && !ended && age >= HELD_TICKS_MAX {
                let ending = Ending::new(closing::SIDES[end], Stage::Pipe, Cause::HeldTooLong);
                return self.cut_off(key, end, ending);
            }
        }
    }
}
