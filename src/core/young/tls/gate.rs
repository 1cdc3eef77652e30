//! Which handshakes may go on now. One costs a core as much as hundreds of messages: so many at a
//! time, so many a second, so many in one turn, and between two turns the living pipes are served.
//! A client that finds the core busy waits in line, its bytes in the kernel, until its deadline. A
//! client that was admitted and then keeps the core waiting loses its place to the line, but not
//! its handshake: else a few hundred that say hello and no more would shut all others out.
//!
//! Each listener has a door of its own, so that the bounds of one never shut out another's clients;
//! the turn is shared by all.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::config::certificates::FromClient;
use crate::core::wire::Ticks;
use crate::core::wire::entry::TICKS_PER_SECOND;
use crate::core::{Core, Guard};
use crate::meter::Cause;

/// One core's gate.
#[derive(Debug, Default)]
pub struct Gate {
    doors: RefCell<Vec<Rc<Door>>>,
    /// Admitted since the driver's last turn.
    admitted: Cell<u32>,
    /// The first of a line only waits for the next turn.
    full: Cell<bool>,
}

/// The handshakes of one listener.
#[derive(Debug)]
struct Door {
    listener: Arc<str>,
    in_flight: Cell<u32>,
    line: RefCell<VecDeque<Waiting>>,
    /// Handshakes that were admitted, oldest first; some are over.
    places: RefCell<VecDeque<Weak<Place>>>,
    next: Cell<u64>,
    /// When `begun` was last emptied, and handshakes begun since.
    second: Cell<Ticks>,
    begun: Cell<u32>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    waker: Option<Waker>,
}

/// A place among those that shake hands.
#[derive(Debug)]
struct Place {
    since: Ticks,
    /// It was not given to another meanwhile.
    held: Cell<bool>,
}

/// The right to shake hands, given back when dropped.
#[derive(Debug)]
pub struct Pass {
    core: Rc<Core>,
    door: Rc<Door>,
    place: Rc<Place>,
}

impl Pass {
    fn new(core: &Rc<Core>, door: Rc<Door>) -> Self {
        let place = Rc::new(Place { since: core.now(), held: Cell::new(true) });
        let mut places = door.places.borrow_mut();
        if places.len() >= 2 * door.in_flight.get() as usize + PLACES_SPARE {
            places.retain(|place| held(place).is_some());
        }
        places.push_back(Rc::downgrade(&place));
        drop(places);
        Self { core: Rc::clone(core), door, place }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.place.held.replace(false) {
            self.door.leave(&self.core);
            self.door.call_first(&self.core);
        }
    }
}

fn held(place: &Weak<Place>) -> Option<Rc<Place>> {
    place.upgrade().filter(|place| place.held.get())
}

impl Gate {
    /// Waits for the right to shake hands with a client of this listener.
    ///
    /// # Errors
    /// Over the rate, too many in line, or the deadline passed first.
    pub async fn enter(
        core: &Rc<Core>,
        listener: &Arc<str>,
        tls: &FromClient,
        guard: &Guard,
    ) -> Result<Pass, Cause> {
        let door = core.handshakes.door(listener, core.now());
        door.count(tls.handshakes_per_second, core.now())?;
        if door.line.borrow().len() >= LINE_MAX {
            return Err(Cause::HandshakesInFlight);
        }
        let number = door.next.get();
        door.next.set(number + 1);
        door.line.borrow_mut().push_back(Waiting { number, waker: None });
        let limit = match tls.handshakes_in_flight {
            0 => u32::MAX,
            limit => limit,
        };
        Turnstile { core, door: &door, guard, number, limit, through: false }.await?;
        Ok(Pass::new(core, door))
    }

    /// The door of a listener. Those of listeners that are gone go when a new one comes.
    fn door(&self, listener: &Arc<str>, now: Ticks) -> Rc<Door> {
        let mut doors = self.doors.borrow_mut();
        if let Some(door) = doors.iter().find(|door| door.listener == *listener) {
            return Rc::clone(door);
        }
        doors.retain(|door| !door.is_unused(now));
        let door = Rc::new(Door::new(listener));
        doors.push(Rc::clone(&door));
        door
    }

    /// The pipes had their turn.
    pub fn turned(&self, core: &Core) {
        self.admitted.set(0);
        let full = self.full.replace(false);
        if full {
            // So that of many doors others are first the next time.
            self.doors.borrow_mut().rotate_left(1);
        }
        for door in &*self.doors.borrow() {
            let waits = !door.line.borrow().is_empty();
            if waits && (full || door.slowest(core.now()).is_some()) {
                door.call_first(core);
            }
        }
    }
}

impl Door {
    fn new(listener: &Arc<str>) -> Self {
        Self {
            listener: Arc::clone(listener),
            in_flight: Cell::new(0),
            line: RefCell::default(),
            places: RefCell::default(),
            next: Cell::new(0),
            second: Cell::new(0),
            begun: Cell::new(0),
        }
    }

    /// No handshake is under way or waits at this door, and its count of the last second has
    /// expired.
    fn is_unused(&self, now: Ticks) -> bool {
        let counts = now.saturating_sub(self.second.get()) < TICKS_PER_SECOND;
        self.in_flight.get() == 0 && self.line.borrow().is_empty() && !counts
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

    /// The oldest place, if it has been held for long.
    fn slowest(&self, now: Ticks) -> Option<Rc<Place>> {
        let mut places = self.places.borrow_mut();
        while places.front().is_some_and(|place| held(place).is_none()) {
            places.pop_front();
        }
        let oldest = places.front().and_then(held);
        oldest.filter(|place| now.saturating_sub(place.since) >= PATIENCE_TICKS)
    }

    fn leave(&self, core: &Core) {
        self.in_flight.set(self.in_flight.get() - 1);
        core.counters.tls_in_flight.dec();
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
    door: &'a Door,
    guard: &'a Guard,
    number: u64,
    limit: u32,
    through: bool,
}

impl Future for Turnstile<'_> {
    type Output = Result<(), Cause>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (core, door) = (self.core, self.door);
        let gate = &core.handshakes;
        if self.guard.has_passed() {
            return Poll::Ready(Err(Cause::HandshakesInFlight));
        }
        let mut line = door.line.borrow_mut();
        let first = line.front().is_some_and(|first| first.number == self.number);
        let turn = gate.admitted.get() < TURN_MAX;
        let mut room = door.in_flight.get() < self.limit;
        if first
            && turn
            && !room
            && let Some(place) = door.slowest(core.now())
        {
            place.held.set(false);
            door.leave(core);
            room = true;
        }
        if first && room && turn {
            line.pop_front();
            drop(line);
            door.in_flight.set(door.in_flight.get() + 1);
            gate.admitted.set(gate.admitted.get() + 1);
            core.counters.tls_in_flight.inc();
            self.through = true;
            door.call_first(core);
            return Poll::Ready(Ok(()));
        }
        if let Ok(at) = line.binary_search_by_key(&self.number, |waiting| waiting.number) {
            line[at].waker = Some(cx.waker().clone());
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
        let mut line = self.door.line.borrow_mut();
        if let Ok(at) = line.binary_search_by_key(&self.number, |waiting| waiting.number) {
            line.remove(at);
        }
        drop(line);
        self.door.call_first(self.core);
    }
}

/// How long a handshake keeps its place while others wait: a second, many times a far peer's
/// answer.
const PATIENCE_TICKS: Ticks = TICKS_PER_SECOND;
/// Places that are over, kept until it is worth clearing them away.
const PLACES_SPARE: usize = 64;
/// Handshakes begun in one turn: two milliseconds or so before the pipes are looked at again.
const TURN_MAX: u32 = 8;
/// Connections in line at one door; each holds its ClientHello and little else.
const LINE_MAX: usize = 16 << 10;
