//! Two rings, one sleep. The core sleeps in the wire's ring, whose `enter` also submits the turn's
//! sends; the runtime's ring is one more descriptor polled there. A relayed message so costs one
//! system call, and no eventfd is written between the rings.
//!
//! The runtime would park in its own ring when its queue is empty. A companion task, woken each
//! time we return to it, keeps it from that and makes it submit and reap its ring once.

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::sys::ring::POLL_IN;

use super::wire::Moved;
use super::wire::token::{Kind, Token};
use super::{Core, Mode};

/// If at most this many young tasks ran since our last poll, the runtime's queue was drained:
/// monoio 0.2.4 runs tasks until its queue is empty, but at most 2n + 1 of them where n stood in
/// the queue at the start, and then polls the main future, which is us (`block_on` in its
/// runtime.rs). The companion is always in that queue and runs once. Where a young task runs, n is
/// 2 or more, so the bound is five or more, and at least four of those are young. After three or
/// fewer it was not the bound that ended the round.
const SURELY_DRAINED: u64 = 3;

/// What the driver remembers between polls.
#[derive(Debug)]
struct Driver {
    runtime: RawFd,
    /// A poll on the runtime's ring is in the kernel.
    armed: bool,
    polls: u64,
    now: super::wire::Ticks,
}

/// Drives both rings until the core has nothing left to live for.
///
/// # Errors
/// When the wire's ring itself is broken.
pub async fn drive(core: Rc<Core>, runtime: RawFd) -> std::io::Result<()> {
    let mut driver = Driver { runtime, armed: false, polls: 0, now: 0 };
    let companion = Companion::default();
    let mut begun = false;
    std::future::poll_fn(move |cx| {
        if !std::mem::replace(&mut begun, true) {
            companion.start(cx.waker().clone());
        }
        let outcome = driver.poll(&core);
        // The runtime's queue must not be empty when we return to it, or it would park.
        companion.wake();
        outcome
    })
    .await
}

/// The task that keeps the runtime from parking: whenever it runs it has us polled again. It is
/// woken by us and never by itself, for the runtime runs a task that wakes itself before all
/// others.
#[derive(Debug, Default, Clone)]
struct Companion(Rc<RefCell<Option<Waker>>>);

impl Companion {
    fn start(&self, main: Waker) {
        let own = Rc::clone(&self.0);
        monoio::spawn(std::future::poll_fn(move |cx| -> Poll<()> {
            *own.borrow_mut() = Some(cx.waker().clone());
            main.wake_by_ref();
            Poll::Pending
        }));
    }

    fn wake(&self) {
        // Before its first run it is in the queue already.
        if let Some(waker) = self.0.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Driver {
    fn poll(&mut self, core: &Rc<Core>) -> Poll<std::io::Result<()>> {
        // The runtime runs all tasks that are ready before it polls us, up to a bound. If so many
        // ran that the bound may have been reached, some may be left, and we must not sleep.
        let ran = core.polls.get() - self.polls;
        self.polls = core.polls.get();
        let quiet = ran <= SURELY_DRAINED;
        loop {
            if let Err(error) = self.turn(core, usize::from(quiet)) {
                return Poll::Ready(Err(error));
            }
            if core.mode.get() != Mode::Serving && core.is_over() {
                // What others passed on before they saw that this core serves no more is here now.
                core.take_all_handed();
                if core.is_over() {
                    return Poll::Ready(Ok(()));
                }
            }
            if core.stirred.replace(false) || !quiet || !self.armed {
                return Poll::Pending;
            }
        }
    }

    fn turn(&mut self, core: &Rc<Core>, want: usize) -> std::io::Result<()> {
        if !self.armed {
            self.armed = true;
            let token = Token::of(Kind::Runtime, 0).pack();
            core.wire.borrow_mut().ring.poll(self.runtime, POLL_IN, token);
        }
        let (foreign, ended, moved, now) = {
            let mut wire = core.wire.borrow_mut();
            wire.turn(want)?;
            core.counters.turns.inc();
            core.counters.enters.add(std::mem::take(&mut wire.ring.enters));
            let foreign = std::mem::take(&mut wire.foreign);
            (foreign, std::mem::take(&mut wire.ended), std::mem::take(&mut wire.moved), wire.now())
        };
        for event in &foreign {
            match event.token.kind {
                Kind::Runtime => self.armed = false,
                Kind::Young => core.poll_completed(event.token, event.result),
                Kind::Accepted => core.accepted(event),
                Kind::Woken => core.take_orders(),
                Kind::Handed => core.take_handed(event.token.slot as usize),
                _ => {}
            }
        }
        for Moved { server, bytes } in &moved {
            core.count_bytes(*server, *bytes);
        }
        for pipe in &ended {
            core.ended(pipe);
        }
        core.wire.borrow_mut().reuse(foreign, ended, moved);
        core.handshakes.turned(core);
        if now != self.now {
            self.now = now;
            core.tick(now);
        }
        Ok(())
    }
}
