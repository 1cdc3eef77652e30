//! Waiting in the young life: for a descriptor to be ready, and for no longer than a deadline.
//! There are no timers. A deadline that passes shuts the socket down; the wait then ends, and the
//! waiter asks its [`Guard`] whether that was why.

use std::cell::Cell;
use std::future::Future;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::sys::socket;

use super::Core;
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
    /// Nobody waits any more; the entry only awaits the kernel.
    orphaned: bool,
}

/// A future that completes when a descriptor is ready.
#[derive(Debug)]
pub struct Ready {
    core: Rc<Core>,
    fd: RawFd,
    mask: u32,
    key: Option<Key>,
}

impl Core {
    /// Waits once for any of `mask` on `fd`; errors and hang-up always count. The kernel's poll is
    /// joined even if the future is dropped.
    pub fn ready(self: &Rc<Self>, fd: RawFd, mask: u32) -> Ready {
        Ready { core: Rc::clone(self), fd, mask, key: None }
    }

    /// The poll of a young connection completed.
    pub(super) fn is_ready(&self, token: Token, events: i32) {
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
                core.wire.borrow_mut().ring.poll(self.fd, self.mask, token);
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

#[derive(Debug)]
struct Deadline {
    fd: RawFd,
    at: Ticks,
    /// Nothing is under way on it: a drain need not wait.
    idle: bool,
    passed: Rc<Cell<bool>>,
    /// Who waits for something else than the socket, and must learn of it.
    waker: Option<Waker>,
}

/// A deadline on a socket, until dropped.
#[derive(Debug)]
pub struct Guard {
    core: Rc<Core>,
    key: Key,
    passed: Rc<Cell<bool>>,
}

impl Core {
    /// Shuts `fd` down (both ways) after `limit` unless the guard is dropped before. The
    /// descriptor must stay open for as long as the guard lives.
    pub fn guard(self: &Rc<Self>, fd: RawFd, limit: Duration) -> Guard {
        self.guard_as(fd, limit, false)
    }

    /// As [`Core::guard`], for a connection that only waits for another request: it also passes
    /// when the core drains.
    pub fn idle_guard(self: &Rc<Self>, fd: RawFd, limit: Duration) -> Guard {
        let limit = if self.is_serving() { limit } else { Duration::ZERO };
        self.guard_as(fd, limit, true)
    }

    fn guard_as(self: &Rc<Self>, fd: RawFd, limit: Duration, idle: bool) -> Guard {
        let passed = Rc::new(Cell::new(false));
        // One more tick: a deadline may come late, never early.
        let at = self.wire.borrow().now().saturating_add(ticks(limit)).saturating_add(1);
        let deadline = Deadline { fd, at, idle, passed: Rc::clone(&passed), waker: None };
        let key = self.deadlines.borrow_mut().0.insert(deadline);
        Guard { core: Rc::clone(self), key, passed }
    }

    /// Shuts down every socket whose deadline has passed.
    pub(super) fn sweep_deadlines(&self, now: Ticks) {
        let mut deadlines = self.deadlines.borrow_mut();
        let keys: Vec<Key> = deadlines.0.keys().collect();
        for key in keys {
            let Some(deadline) = deadlines.0.get_mut(key) else { continue };
            if deadline.at <= now && !deadline.passed.replace(true) {
                socket::end(deadline.fd);
                if let Some(waker) = deadline.waker.take() {
                    self.stirred.set(true);
                    waker.wake();
                }
            }
        }
    }

    /// Shuts down every young connection that only waits for another request: the core drains.
    pub(super) fn end_idle_young(&self) {
        let mut deadlines = self.deadlines.borrow_mut();
        let keys: Vec<Key> = deadlines.0.keys().collect();
        for key in keys {
            if let Some(deadline) = deadlines.0.get_mut(key)
                && deadline.idle
                && !deadline.passed.replace(true)
            {
                socket::end(deadline.fd);
            }
        }
    }

    /// Shuts down every young connection's guarded socket: the core is stopping.
    pub(super) fn cut_young(&self) {
        for key in self.deadlines.borrow().0.keys() {
            if let Some(deadline) = self.deadlines.borrow().0.get(key) {
                socket::end(deadline.fd);
            }
        }
    }
}

impl Guard {
    /// Whether the deadline passed, and the socket was shut down for it.
    pub fn has_passed(&self) -> bool {
        self.passed.get()
    }

    /// Wakes a task once the deadline has passed, for a wait that the socket's end would not end.
    pub fn wake_when_passed(&self, waker: &Waker) {
        if let Some(deadline) = self.core.deadlines.borrow_mut().0.get_mut(self.key) {
            deadline.waker = Some(waker.clone());
        }
    }

    /// Moves the deadline to `limit` from now.
    pub fn extend(&self, limit: Duration) {
        let at = self.core.wire.borrow().now().saturating_add(ticks(limit)).saturating_add(1);
        if let Some(deadline) = self.core.deadlines.borrow_mut().0.get_mut(self.key) {
            deadline.at = at;
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.core.deadlines.borrow_mut().0.remove(self.key);
    }
}
