//! Waiting in the young life: for a descriptor to be ready, and for no longer than a deadline.
//! There are no timers. A deadline that passes shuts the socket down; the wait then ends, and the
//! waiter asks its [`Guard`] whether that was why.

use std::future::Future;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::meter::Cause;
use crate::sys::ring::{POLL_OUT, Timespec};
use crate::sys::socket;

use super::Core;
use super::wire::entry::TICKS_PER_SECOND;
use super::wire::slab::Slab;
use super::wire::token::{Kind, Token};
use super::wire::{Key, Ticks, ticks};

/// Polls of young connections in the wire's ring.
pub type Readiness = Slab<Wait>;

/// One poll.
#[derive(Debug)]
pub struct Wait {
    waker: Option<Waker>,
    /// The events, once they came.
    events: Option<i32>,
    /// The waiting task is gone; the entry only awaits the kernel.
    orphaned: bool,
}

/// A future that completes when a descriptor is ready, or when a pause is over.
#[derive(Debug)]
pub struct Ready {
    core: Rc<Core>,
    what: What,
    key: Option<Key>,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Poll(RawFd, u32),
    Pause(&'static Timespec),
}

const fn milliseconds(count: u32) -> Timespec {
    Timespec::new().nsec(count * 1_000_000)
}

/// Pauses, each twice as long as the one before.
static PAUSES: [Timespec; 8] = [
    milliseconds(1),
    milliseconds(2),
    milliseconds(4),
    milliseconds(8),
    milliseconds(16),
    milliseconds(32),
    milliseconds(64),
    milliseconds(128),
];

impl Core {
    /// Waits once for any of `mask` on `fd`; errors and hang-up always count. The kernel's poll is
    /// joined even if the future is dropped.
    pub fn ready(self: &Rc<Self>, fd: RawFd, mask: u32) -> Ready {
        Ready { core: Rc::clone(self), what: What::Poll(fd, mask), key: None }
    }

    /// Waits for a moment, the longer the more there were before it.
    pub fn pause(self: &Rc<Self>, before: usize) -> Ready {
        let pause = &PAUSES[before.min(PAUSES.len() - 1)];
        Ready { core: Rc::clone(self), what: What::Pause(pause), key: None }
    }

    /// Lets all other tasks of this core have a turn. The way leads through the ring: a task that
    /// only woke itself would be run again before all others.
    pub async fn give_way(self: &Rc<Self>) {
        // Room for another wake-up is always there: the poll completes with the next turn.
        self.ready(self.seed.wake, POLL_OUT).await;
    }

    /// The poll of a young connection completed.
    pub(super) fn poll_completed(&self, token: Token, events: i32) {
        let key = Key { slot: token.slot, generation: token.generation };
        let mut waits = self.readiness.borrow_mut();
        let Some(wait) = waits.get_mut(key) else { return };
        if wait.orphaned {
            waits.remove(key);
            return;
        }
        wait.events = Some(events);
        if let Some(waker) = wait.waker.take() {
            drop(waits);
            self.stirred.set(true);
            waker.wake();
        }
    }
}

impl Future for Ready {
    type Output = i32;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<i32> {
        let core = Rc::clone(&self.core);
        let mut waits = core.readiness.borrow_mut();
        match self.key {
            None => {
                let waker = Some(cx.waker().clone());
                let key = waits.insert(Wait { waker, events: None, orphaned: false });
                self.key = Some(key);
                let token = Token::new(Kind::Young, 0, key.slot, key.generation).pack();
                let ring = &mut core.wire.borrow_mut().ring;
                match self.what {
                    What::Poll(fd, mask) => ring.poll(fd, mask, token),
                    What::Pause(span) => ring.timeout(span, token),
                }
                Poll::Pending
            }
            Some(key) => {
                let Some(wait) = waits.get_mut(key) else { return Poll::Ready(0) };
                match wait.events {
                    Some(events) => {
                        waits.remove(key);
                        self.key = None;
                        Poll::Ready(events)
                    }
                    None => {
                        wait.waker = Some(cx.waker().clone());
                        Poll::Pending
                    }
                }
            }
        }
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut waits = self.core.readiness.borrow_mut();
        match waits.get_mut(key) {
            Some(wait) if wait.events.is_none() => wait.orphaned = true,
            _ => {
                waits.remove(key);
            }
        }
    }
}

/// The deadlines of a core's young connections, looked at every tick.
#[derive(Debug, Default)]
pub struct Deadlines(Slab<Deadline>);

/// What may take too long on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    Read,
    Write,
}

#[derive(Debug)]
struct Deadline {
    fd: RawFd,
    /// When each lane is late, and what that is called.
    lanes: [(Ticks, Cause); 2],
    /// Nothing is under way on it: a drain need not wait.
    idle: bool,
    /// A late read only stops the reading: something is still to be said.
    speaks: bool,
    /// What passed first.
    passed: Option<Cause>,
    watch: Option<Watch>,
    /// How the peer left, if that was seen.
    left: Option<Cause>,
    /// A task that waits for something other than the socket, and must learn that it passed.
    waker: Option<Waker>,
}

/// A peer whose socket is not read for the time being, so that its leaving must be looked for.
#[derive(Debug, Clone, Copy)]
struct Watch {
    /// Ended when the peer has left.
    other: RawFd,
    /// The end of what it sends counts as leaving.
    whole: bool,
    since: Ticks,
}

/// Deadlines on a socket, until dropped.
#[derive(Debug)]
pub struct Guard {
    core: Rc<Core>,
    key: Key,
}

const NEVER: (Ticks, Cause) = (Ticks::MAX, Cause::Timeout);

impl Core {
    /// Shuts `fd` down (both ways) after `limit` unless the guard is dropped before. The
    /// descriptor must stay open for as long as the guard lives.
    pub fn guard(self: &Rc<Self>, fd: RawFd, limit: Duration) -> Guard {
        let guard = self.lanes(fd);
        guard.extend(limit);
        guard
    }

    /// As [`Core::guard`], for a connection that only waits for another request: it also passes
    /// when the core drains. It only stops the reading, so that the peer can be told.
    pub fn idle_guard(self: &Rc<Self>, fd: RawFd, limit: Duration) -> Guard {
        let guard = self.guard(fd, if self.is_serving() { limit } else { Duration::ZERO });
        guard.keep_speaking();
        guard.edit(|deadline| deadline.idle = true);
        guard
    }

    /// Tenths of a second, on this core's clock.
    pub fn now(&self) -> Ticks {
        self.wire.borrow().now()
    }

    /// A guard with no deadline yet, for a socket that is read and written at once.
    pub fn lanes(self: &Rc<Self>, fd: RawFd) -> Guard {
        let (lanes, idle, speaks) = ([NEVER; 2], false, false);
        let (passed, watch, left, waker) = (None, None, None, None);
        let deadline = Deadline { fd, lanes, idle, speaks, passed, watch, left, waker };
        let key = self.deadlines.borrow_mut().0.insert(deadline);
        Guard { core: Rc::clone(self), key }
    }

    /// Shuts down every socket whose deadline has passed.
    pub(super) fn sweep_deadlines(&self, now: Ticks) {
        self.each_deadline(|deadline| {
            for lane in [Lane::Read, Lane::Write] {
                let (at, cause) = deadline.lanes[lane as usize];
                if at <= now {
                    deadline.pass(lane, cause);
                    if let Some(waker) = deadline.waker.take() {
                        self.stirred.set(true);
                        waker.wake();
                    }
                }
            }
        });
    }

    /// Ends the waiting of every young connection that only waits for another request: the core
    /// drains.
    pub(super) fn end_idle_young(&self) {
        self.each_deadline(|deadline| {
            if deadline.idle && deadline.passed.is_none() {
                deadline.pass(Lane::Read, Cause::Timeout);
            }
        });
    }

    /// Shuts down every young connection's guarded socket: the core is stopping.
    pub(super) fn cut_young(&self) {
        self.each_deadline(|deadline| socket::end(deadline.fd));
    }

    /// Looks, once a second, whether watched peers have left; of those that have, the other socket
    /// is ended.
    pub(super) fn look_for_leavers(&self, now: Ticks) {
        let (mut keys, mut sockets) = (Vec::new(), Vec::new());
        // A client that half-closes is not ended before an answer that comes at once.
        let due = |watch: &Watch| now.saturating_sub(watch.since) > TICKS_PER_SECOND;
        let deadlines = &mut self.deadlines.borrow_mut().0;
        for key in deadlines.keys() {
            let Some(deadline) = deadlines.get(key) else { continue };
            if let Some(watch) = deadline.watch.filter(due) {
                keys.push(key);
                sockets.push((deadline.fd, watch.whole));
            }
        }
        for (place, reset) in socket::departed(&sockets) {
            let Some(deadline) = deadlines.get_mut(keys[place]) else { continue };
            deadline.left = Some(if reset { Cause::Reset } else { Cause::Cut });
            if let Some(watch) = deadline.watch.take() {
                socket::end(watch.other);
            }
        }
    }

    fn each_deadline(&self, mut f: impl FnMut(&mut Deadline)) {
        let deadlines = &mut self.deadlines.borrow_mut().0;
        for slot in 0..deadlines.slots() {
            if let Some(deadline) = deadlines.key_at(slot).and_then(|key| deadlines.get_mut(key)) {
                f(deadline);
            }
        }
    }
}

impl Deadline {
    fn pass(&mut self, lane: Lane, cause: Cause) {
        self.lanes[lane as usize] = NEVER;
        self.passed.get_or_insert(cause);
        if self.speaks && lane == Lane::Read {
            socket::stop_reading(self.fd);
        } else {
            socket::end(self.fd);
        }
    }
}

impl Guard {
    /// Whether a deadline passed, and the socket was shut down for it.
    pub fn has_passed(&self) -> bool {
        self.late().is_some()
    }

    /// What the deadline that passed first is called.
    pub fn late(&self) -> Option<Cause> {
        self.core.deadlines.borrow().0.get(self.key)?.passed
    }

    /// From here on `other` is ended when the peer of this guard's socket leaves: by a reset, or,
    /// if `whole`, by saying that it sends no more. It is looked at once a second; `other` must
    /// stay open for as long as the guard lives.
    pub fn watch(&self, other: RawFd, whole: bool) {
        let since = self.core.now();
        self.edit(|deadline| deadline.watch = Some(Watch { other, whole, since }));
    }

    /// How the peer left while it was watched.
    pub fn left(&self) -> Option<Cause> {
        self.core.deadlines.borrow().0.get(self.key)?.left
    }

    /// Wakes a task once the deadline has passed, for a wait that the socket's end would not end.
    pub fn wake_when_passed(&self, waker: &Waker) {
        self.edit(|deadline| deadline.waker = Some(waker.clone()));
    }

    /// From here on a late read only stops the reading, so that the peer can be told.
    pub fn keep_speaking(&self) {
        self.edit(|deadline| deadline.speaks = true);
    }

    /// Moves the deadline to `limit` from now.
    pub fn extend(&self, limit: Duration) {
        self.set(Lane::Read, Some(limit), Cause::Timeout);
    }

    /// Gives a lane until `limit` from now, or all the time there is. `cause`: why the connection
    /// ends if that is too short.
    pub fn set(&self, lane: Lane, limit: Option<Duration>, cause: Cause) {
        // One more tick: a deadline may come late, never early.
        let at = |limit| self.core.now().saturating_add(ticks(limit)).saturating_add(1);
        let deadline = limit.map_or(NEVER, |limit| (at(limit), cause));
        self.edit(|it| it.lanes[lane as usize] = deadline);
    }

    /// A lane has all the time there is.
    pub fn clear(&self, lane: Lane) {
        self.set(lane, None, Cause::Timeout);
    }

    fn edit(&self, f: impl FnOnce(&mut Deadline)) {
        if let Some(deadline) = self.core.deadlines.borrow_mut().0.get_mut(self.key) {
            f(deadline);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.core.deadlines.borrow_mut().0.remove(self.key);
    }
}
