//! What stands between reading and sending on pipes with a relay or TLS. What the relay wants done
//! is carried out here; what that is, the relay decides alone.

use std::io;
use std::ops::Range;
use std::os::fd::RawFd;
use std::time::Instant;

use crate::meter::{Cause, Ending, Side, Stage};
use crate::proto::frame::{End as Who, Fault, HEADER_MAX};
use crate::proto::tunnel::Mark;
use crate::sys::memory::Span;
use crate::sys::socket;

use super::entry::{CLIENT, NONE, Phase, Pipe, SERVER};
use super::pump::SPLICE_BYTES;
use super::relay::{CODE_GOING_AWAY, CODE_RESTART, Next, Out, Relay, Stop, Why};
use super::secure::Secure;
use super::slab::Key;
use super::{How, Wire, closing};

/// State beyond sockets and flows.
#[derive(Debug)]
pub struct Extra {
    relay: Option<Relay>,
    /// TLS of each end.
    pub(super) secure: [Option<Box<Secure>>; 2],
}

impl Extra {
    pub fn new(relay: Option<Relay>, secure: [Option<Box<Secure>>; 2]) -> Self {
        Self { relay, secure }
    }

    /// Bytes of `end` that may go on without being looked at.
    pub(super) fn unseen(&self, end: usize) -> usize {
        match &self.relay {
            Some(relay) if self.secure.iter().all(Option::is_none) => {
                usize::try_from(relay.unseen(WHO[end])).unwrap_or(usize::MAX)
            }
            _ => 0,
        }
    }

    pub(super) fn has_relay(&self) -> bool {
        self.relay.is_some()
    }
}

/// Something the relay wants done.
#[derive(Debug, Clone)]
pub enum Act {
    Forward(Range<usize>),
    Insert(usize, [u8; INSERT_MAX], u8),
    Finish(usize),
    Leave(usize),
}

/// The longest thing a relay inserts: a whole header, or a control frame of ours to a server.
const INSERT_MAX: usize = 14;
/// A Ping of ours bears a mark and a Close of ours a code, both behind two bytes and a mask.
const _: () = assert!(HEADER_MAX <= INSERT_MAX);
const _: () = assert!(2 + 4 + size_of::<Mark>() <= INSERT_MAX && 2 + 4 + 2 <= INSERT_MAX);

/// Takes down what the relay wants, to be done when the slab is free again.
struct Notes<'a> {
    acts: &'a mut Vec<Act>,
    epoch: Instant,
    /// Descriptors of both ends, and whether bytes wait in a flow of ours towards each.
    fds: [RawFd; 2],
    blocked: [bool; 2],
}

impl<'a> Notes<'a> {
    fn new(acts: &'a mut Vec<Act>, epoch: Instant, pipe: &Pipe) -> Self {
        let fds = [pipe.ends[CLIENT].fd, pipe.ends[SERVER].fd];
        let blocked = [pipe.flows[SERVER].is_blocked(), pipe.flows[CLIENT].is_blocked()];
        Self { acts, epoch, fds, blocked }
    }
}

impl Out for Notes<'_> {
    fn forward(&mut self, span: Range<usize>) {
        self.acts.push(Act::Forward(span));
    }

    fn insert(&mut self, to: Who, bytes: &[u8]) {
        debug_assert!(bytes.len() <= INSERT_MAX);
        let mut held = [0; INSERT_MAX];
        let size = bytes.len().min(INSERT_MAX);
        held[..size].copy_from_slice(&bytes[..size]);
        self.acts.push(Act::Insert(index(to), held, size as u8));
    }

    fn finish(&mut self, to: Who) {
        self.acts.push(Act::Finish(index(to)));
    }

    fn leave(&mut self, from: Who) {
        self.acts.push(Act::Leave(index(from)));
    }

    fn clock(&mut self) -> u32 {
        self.epoch.elapsed().as_micros() as u32
    }

    fn random(&mut self) -> u32 {
        fastrand::u32(..)
    }

    fn is_busy(&mut self, to: Who, within: u32) -> bool {
        let to = index(to);
        socket::is_taking(self.fds[to], within).unwrap_or(self.blocked[to])
    }

    fn is_unread(&mut self, from: Who) -> bool {
        self.blocked[1 - index(from)]
    }
}

const WHO: [Who; 2] = [Who::Client, Who::Server];

fn index(who: Who) -> usize {
    match who {
        Who::Client => CLIENT,
        Who::Server => SERVER,
    }
}

impl Pipe {
    /// Whether the rest of the current frame from `end` is long enough to splice. `None` on a plain
    /// pipe, all of which may be spliced.
    pub(super) fn long_frame(&self, end: usize) -> Option<bool> {
        self.extra.as_ref().map(|extra| extra.unseen(end) >= SPLICE_BYTES)
    }

    /// Of a pipe with a relay or TLS: whether the next byte of `end` has to be seen.
    pub(super) fn is_between_frames(&self, end: usize) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.unseen(end) == 0)
    }

    pub(super) fn relay(&mut self) -> Option<&mut Relay> {
        self.extra.as_mut()?.relay.as_mut()
    }

    /// Who sent the first Close, and its code.
    pub fn closed_by(&self) -> Option<(Side, Option<u16>)> {
        self.extra.as_ref()?.relay.as_ref()?.closed_by()
    }
}

impl Wire {
    /// The core's clock in milliseconds, as exact as the tick; it wraps.
    pub fn milliseconds(&self) -> u32 {
        self.now.wrapping_mul(1000 / super::entry::TICKS_PER_SECOND)
    }

    /// Bytes came from `end` of a pipe with a relay or TLS.
    pub(super) fn staged(&mut self, key: Key, end: usize, span: Span) {
        let extra = self.slab.get(key).and_then(|pipe| pipe.extra.as_ref());
        if extra.is_some_and(|extra| extra.secure[end].is_some()) {
            self.open(key, end, span);
        } else {
            self.opened(key, end, span);
        }
    }

    /// Plaintext of `end`.
    pub(super) fn opened(&mut self, key: Key, end: usize, span: Span) {
        if self.slab.get_mut(key).is_some_and(|pipe| pipe.flows[end].add(span.len())) {
            self.count_bytes(key, end);
        }
        let now = self.milliseconds();
        let Some(pipe) = self.slab.get_mut(key) else { return };
        let mut acts = std::mem::take(&mut self.acts);
        let mut notes = Notes::new(&mut acts, self.epoch, pipe);
        let Some(relay) = pipe.relay() else {
            self.acts = acts;
            pipe.active = self.now;
            return self.outgoing(key, end, span);
        };
        let deaf = relay.is_deaf(WHO[end]);
        relay.pass(WHO[end], self.ring.memory.bytes(span), now, &mut notes);
        self.carry_out(key, end, Some(span), acts);
        if deaf {
            self.throw_away(key, end, span.len());
        }
    }

    /// Bytes of `end` that may go on without being looked at any further. Where a frame ends, the
    /// headers of those that follow are looked at in the socket, as many as `room` has bytes for,
    /// so that they can go the same way.
    ///
    /// # Errors
    /// As [`socket::peek`]: `WouldBlock` if nothing is there by which to tell. A reset is told only
    /// once: a read after this one finds a clean end.
    pub(super) fn staged_unseen(&mut self, key: Key, end: usize, room: usize) -> io::Result<usize> {
        let now = self.milliseconds();
        let Some(pipe) = self.slab.get_mut(key) else { return Ok(0) };
        let fd = pipe.ends[end].fd;
        let Some(extra) = &mut pipe.extra else { return Ok(usize::MAX) };
        let unseen = extra.unseen(end);
        let Some(relay) = &mut extra.relay else { return Ok(unseen) };
        if unseen > 0 || extra.secure.iter().any(Option::is_some) {
            return Ok(unseen);
        }
        let mut header = [0; HEADER_MAX];
        let n = socket::peek(fd, &mut header)?;
        if relay.peek(WHO[end], &header[..n], SPLICE_BYTES as u64, now) && self.bulk.far_sighted {
            self.bulk.far_sighted = look_beyond(relay, end, fd, room, now)?;
        }
        Ok(extra.unseen(end))
    }

    /// `bytes` of `end` went on without being looked at.
    pub(super) fn staged_spliced(&mut self, key: Key, end: usize, bytes: usize) {
        if self.slab.get(key).is_some_and(|pipe| pipe.extra.is_some()) {
            self.tell(key, |relay, now, notes| relay.spliced(WHO[end], bytes as u64, now, notes));
        }
    }

    /// `end` finished sending; FIN follows what is said here.
    pub(super) fn staged_end(&mut self, key: Key, end: usize) {
        let cut = self.is_cut(key, end);
        self.tell(key, |relay, now, notes| relay.ended(WHO[end], Stop::Finished, now, notes));
        self.conclude(key);
        if cut && let Some(pipe) = self.slab.get_mut(key) {
            let ending = Ending::new(closing::SIDES[end], Stage::Pipe, Cause::Cut);
            pipe.ending.get_or_insert(ending);
            // A Close tells where the stream ends; bytes alone do not.
            pipe.flows[end].cut = !pipe.has_relay();
        }
    }

    /// `end` is lost for `cause`. The other end gets a Close if a frame has just ended, then FIN,
    /// and has until the relay's grace is over to say Close itself. `false` where there is no
    /// relay.
    pub(super) fn staged_lost(&mut self, key: Key, end: usize, cause: Cause) -> bool {
        let Some(pipe) = self.slab.get_mut(key) else { return false };
        if !pipe.has_relay() {
            return false;
        }
        let flow = &mut pipe.flows[end];
        flow.ended = true;
        if flow.phase == Phase::Open {
            flow.phase = Phase::Draining;
        }
        pipe.flows[1 - end].phase = Phase::Broken;
        pipe.active = self.now;
        self.discard(key, 1 - end);
        self.tell(key, |relay, now, notes| relay.ended(WHO[end], Stop::Lost, now, notes));
        // Where both ends have said Close, the reset took nothing away.
        self.conclude(key);
        let ending = Ending::new(closing::SIDES[end], Stage::Pipe, cause);
        if let Some(pipe) = self.slab.get_mut(key) {
            pipe.ending.get_or_insert(ending);
        }
        self.finishing.push((key, end));
        // What it still says was not wanted while there was something to lose by it.
        self.arm(key, 1 - end);
        true
    }

    /// What comes from `end` cannot be trusted any more: the other end is told, if it can be.
    pub(super) fn staged_cut(&mut self, key: Key, end: usize) {
        self.tell(key, |relay, now, notes| relay.ended(WHO[end], Stop::Lost, now, notes));
    }

    /// The relay ends the pipe as soon as a frame ends; `false` where there is none.
    pub(super) fn staged_close(&mut self, key: Key, ending: Ending) -> bool {
        let Some(pipe) = self.slab.get_mut(key).filter(|pipe| pipe.has_relay()) else {
            return false;
        };
        pipe.ending.get_or_insert(ending);
        let code = if ending.cause == Cause::Idle { CODE_GOING_AWAY } else { CODE_RESTART };
        self.tell(key, |relay, now, notes| relay.drain(code, now, notes));
        true
    }

    /// The last words of a pipe that is taken down: a Close where a frame has just ended, then
    /// close_notify. `false` if there was nothing to say.
    pub(super) fn staged_farewell(&mut self, key: Key) -> bool {
        self.tell(key, |relay, now, notes| relay.leave(CODE_GOING_AWAY, now, notes));
        for flow in [CLIENT, SERVER] {
            self.say_closed(key, flow);
        }
        let spoken = |pipe: &Pipe| pipe.flows.iter().any(|flow| flow.turn != NONE);
        self.slab.get(key).is_some_and(spoken)
    }

    /// The sweep comes by, about once a second.
    pub(super) fn staged_look(&mut self, key: Key) {
        self.sweep_held(key);
        self.sweep_worn(key);
        let now = self.milliseconds();
        let Some(pipe) = self.slab.get_mut(key) else { return };
        let Some(relay) = pipe.relay() else { return };
        match relay.next() {
            Next::At(due) if now.wrapping_sub(due) < 1 << 31 => {}
            Next::At(_) | Next::Idle => return,
            Next::Over => {}
        }
        let mut over = false;
        self.tell(key, |relay, now, notes| {
            over = relay.sweep(now, fastrand::u64(..), notes) == Next::Over;
        });
        self.conclude(key);
        if over {
            let late = Ending::client(Stage::Pipe, Cause::LingerOver);
            let ending = self.slab.get(key).and_then(|pipe| pipe.ending).unwrap_or(late);
            self.close(key, ending, How::Fin);
        }
    }

    /// Lets the relay act on an event without bytes.
    fn tell(&mut self, key: Key, event: impl FnOnce(&mut Relay, u32, &mut Notes<'_>)) {
        let now = self.milliseconds();
        let Some(pipe) = self.slab.get_mut(key) else { return };
        let mut acts = std::mem::take(&mut self.acts);
        let mut notes = Notes::new(&mut acts, self.epoch, pipe);
        if let Some(relay) = pipe.relay() {
            event(relay, now, &mut notes);
        }
        self.carry_out(key, CLIENT, None, acts);
    }

    fn carry_out(&mut self, key: Key, end: usize, span: Option<Span>, mut acts: Vec<Act>) {
        let speaks = acts.len() > 1 || !matches!(acts.first(), Some(Act::Forward(_)) | None);
        for act in acts.drain(..) {
            match (act, span) {
                (Act::Forward(part), Some(span)) => {
                    // (A Pong of ours that was eaten is no traffic.)
                    if let Some(pipe) = self.slab.get_mut(key) {
                        pipe.active = self.now;
                    }
                    self.outgoing(key, end, span.part(part.start, part.end));
                }
                (Act::Forward(_), None) => debug_assert!(false, "there is nothing to forward"),
                (Act::Insert(to, bytes, size), _) => {
                    self.inject(key, 1 - to, &bytes[..usize::from(size)]);
                }
                (Act::Finish(to), _) => self.finish_towards(key, to),
                (Act::Leave(from), _) => {
                    if let Some(pipe) = self.slab.get_mut(key) {
                        pipe.flows[from].ended = true;
                    }
                }
            }
        }
        self.acts = acts;
        if speaks {
            self.conclude(key);
        }
    }

    /// FIN to the end `to`, although the other end may still be sending.
    fn finish_towards(&mut self, key: Key, to: usize) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        let flow = &mut pipe.flows[1 - to];
        if flow.phase == Phase::Open {
            flow.phase = Phase::Draining;
            self.finishing.push((key, 1 - to));
        }
    }

    /// What the relay found decides what the ending is called, before FINs do.
    fn conclude(&mut self, key: Key) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        let Some(relay) = pipe.relay() else { return };
        let ending = match (relay.why(), relay.closed_by()) {
            (Some(Why::Drained), _) => None,
            (Some(why), _) => Some(ending_of(why)),
            (None, Some((side, _))) if relay.is_clean() => {
                Some(Ending::new(side, Stage::Pipe, Cause::Closed))
            }
            (None, _) => None,
        };
        if let Some(ending) = ending {
            pipe.ending.get_or_insert(ending);
        }
    }
}

/// Begins the frames behind the first one too, whose headers lie in the socket already: one splice
/// for many of them costs less than one for each, whose acknowledgement makes the sender send.
/// `false`: on such a socket bytes behind the first unread ones cannot be peeked at.
///
/// # Errors
/// The socket would go on being looked at beyond its beginning.
fn look_beyond(
    relay: &mut Relay,
    end: usize,
    fd: RawFd,
    room: usize,
    now: u32,
) -> io::Result<bool> {
    let Ok(unread) = socket::unread(fd) else { return Ok(true) };
    let mut looked = false;
    let can = loop {
        let before = usize::try_from(relay.unseen(WHO[end])).unwrap_or(usize::MAX);
        // Only where unread bytes lie: a peek at none of them would take away the report of a
        // reset, which the kernel makes only once.
        if before >= room || before.saturating_add(HEADER_MAX) > unread {
            break true;
        }
        if socket::set_peek_offset(fd, Some(before)).is_err() {
            break false;
        }
        looked = true;
        let mut header = [0; HEADER_MAX];
        match socket::peek(fd, &mut header) {
            Ok(n) if relay.peek(WHO[end], &header[..n], SPLICE_BYTES as u64, now) => {}
            _ => break true,
        }
    };
    if looked {
        socket::set_peek_offset(fd, None)?;
    }
    Ok(can)
}

fn ending_of(why: Why) -> Ending {
    let side = |who| closing::SIDES[index(who)];
    match why {
        Why::Fault(who, Fault::FrameTooLarge) => {
            Ending::new(side(who), Stage::Pipe, Cause::FrameTooBig)
        }
        Why::Fault(who, Fault::MessageTooLarge) => {
            Ending::new(side(who), Stage::Pipe, Cause::MessageTooBig)
        }
        Why::Fault(who, Fault::TooManyMessages) => {
            Ending::new(side(who), Stage::Pipe, Cause::MessageRate)
        }
        Why::Fault(who, _) => Ending::new(side(who), Stage::Pipe, Cause::FrameBad),
        Why::PingTimeout(who) => Ending::new(side(who), Stage::Pipe, Cause::PingTimeout),
        Why::Drained => Ending::proxy(Stage::Pipe, Cause::Drained),
    }
}
