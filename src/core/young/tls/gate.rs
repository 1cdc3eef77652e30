//! Who may shake hands now. A handshake costs a core as much as hundreds of messages: so many at a
//! time, so many a second, so many in one turn, and between two turns the living pipes are served.
//! Who finds the core busy waits in line, its bytes in the kernel, until its deadline.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::config::certificates::FromClient;
use crate::core::wire::Ticks;
use crate::core::wire::entry::TICKS_PER_SECOND;
use crate::core::{Core, Guard};
use crate::meter::Cause;

/// One core's gate.
#[derive(Debug, Default)]
pub struct Gate {
    in_flight: Cell<u32>,
    line: RefCell<VecDeque<Waiting>>,
    next: Cell<u64>,
    /// Admitted since the driver's last turn.
    admitted: Cell<u32>,
    /// The first in line only waits for the next turn.
    full: Cell<bool>,
    /// When `begun` was last emptied, and handshakes begun since.
    second: Cell<Ticks>,
    begun: Cell<u32>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    waker: Option<Waker>,
}

/// The right to shake hands, given back when dropped.
#[derive(Debug)]
pub struct Pass(Rc<Core>);

impl Drop for Pass {
    fn drop(&mut self) {
        let gate = &self.0.handshakes;
        gate.in_flight.set(gate.in_flight.get() - 1);
        self.0.counters.tls_in_flight.dec();
        gate.call_first(&self.0);
    }
}

impl Gate {
    /// Waits for the right to shake hands.
    ///
    /// # Errors
    /// Over the rate, too many in line, or the deadline passed first.
    pub async fn enter(core: &Rc<Core>, tls: &FromClient, guard: &Guard) -> Result<Pass, Cause> {
        let gate = &core.handshakes;
        gate.count(tls.handshakes_per_second, core.wire.borrow().now())?;
        if gate.line.borrow().len() >= LINE_MAX {
            return Err(Cause::HandshakesInFlight);
        }
        let number = gate.next.get();
        gate.next.set(number + 1);
        gate.line.borrow_mut().push_back(Waiting { number, waker: None });
        let limit = match tls.handshakes_in_flight {
            0 => u32::MAX,
            limit => limit,
        };
        Turnstile { core, guard, number, limit, through: false }.await?;
        Ok(Pass(Rc::clone(core)))
    }

    /// Counts one more begun in this second.
    fn count(&self, limit: u32, now: Ticks) -> Result<(), Cause> {
        if now.saturating_sub(self.second.get()) >= TICKS_PER_SECOND {
            self.second.set(now);
            self.begun.set(0);
        }
        if limit > 0 && self.begun.get() >= limit {
            return Err(Cause::HandshakeRate);
        }
        self.begun.set(self.begun.get() + 1);
        Ok(())
    }

    /// Whether somebody waits for nothing but the next turn: the driver must not sleep then.
    pub fn is_full(&self) -> bool {
        self.full.get()
    }

    /// The pipes had their turn.
    pub fn turned(&self, core: &Core) {
        self.admitted.set(0);
        if self.full.replace(false) {
            self.call_first(core);
        }
    }

    fn call_first(&self, core: &Core) {
        let waker = self.line.borrow_mut().front_mut().and_then(|first| first.waker.take());
        if let Some(waker) = waker {
            core.stir();
            waker.wake();
        }
    }
}

/// One place in the line.
struct Turnstile<'a> {
    core: &'a Rc<Core>,
    guard: &'a Guard,
    number: u64,
    limit: u32,
    through: bool,
}

impl Future for Turnstile<'_> {
    type Output = Result<(), Cause>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let core = self.core;
        let gate = &core.handshakes;
        if self.guard.has_passed() {
            return Poll::Ready(Err(Cause::HandshakesInFlight));
        }
        let mut line = gate.line.borrow_mut();
        let first = line.front().is_some_and(|first| first.number == self.number);
        let room = gate.in_flight.get() < self.limit;
        if first && room && gate.admitted.get() < TURN_MAX {
            line.pop_front();
            drop(line);
            gate.in_flight.set(gate.in_flight.get() + 1);
            gate.admitted.set(gate.admitted.get() + 1);
            core.counters.tls_in_flight.inc();
            self.through = true;
            gate.call_first(core);
            return Poll::Ready(Ok(()));
        }
        if let Some(place) = line.iter_mut().find(|place| place.number == self.number) {
            place.waker = Some(cx.waker().clone());
        }
        gate.full.set(gate.full.get() || (first && room));
        self.guard.wake_when_passed(cx.waker());
        Poll::Pending
    }
}

impl Drop for Turnstile<'_> {
    fn drop(&mut self) {
        if self.through {
            return;
        }
        let gate = &self.core.handshakes;
        gate.line.borrow_mut().retain(|place| place.number != self.number);
        gate.call_first(self.core);
    }
}

/// Handshakes begun in one turn: two milliseconds or so before the pipes are looked at again.
const TURN_MAX: u32 = 8;
/// Connections in line; each holds its ClientHello and little else.
const LINE_MAX: usize = 16 << 10;
