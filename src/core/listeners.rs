//! The core's own listening sockets, one for each address, shared with the other cores by
//! SO_REUSEPORT. They follow the snapshot: opened, closed and never left with a full queue.

use std::cell::Cell;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::meter::{Cause, Ending, Refusal, Stage};
use crate::sys::descriptors::{self, Reserve};
use crate::sys::listen::{BACKLOG, listen, refusal};
use crate::sys::socket::{self, Owned, TcpOptions};

use super::Core;
use super::wire::Foreign;
use super::wire::token::{Kind, Token};
use super::young::{self, Accepted};

/// Connections shed before live ones have their turn again; the rest follows with the next tick.
const SHED_AT_ONCE: usize = 1024;

/// One listening socket.
#[derive(Debug)]
struct Listening {
    fd: RawFd,
    name: Arc<str>,
    address: SocketAddr,
    /// The kernel accepts for us.
    armed: bool,
    /// It was shut down, and is closed when the kernel lets go of it.
    closing: bool,
    /// The kernel keeps connections back until their first bytes are there.
    deferred: bool,
    /// What accepted sockets inherit.
    options: TcpOptions,
}

impl Listening {
    fn defer(&mut self, deferred: bool) {
        if self.deferred != deferred {
            self.deferred = deferred;
            socket::set_deferred(self.fd, deferred);
        }
    }

    fn set_options(&mut self, options: TcpOptions) {
        if self.options != options && socket::set_options(self.fd, options).is_ok() {
            self.options = options;
        }
    }
}

/// All of them; a slot's index names its accept request.
#[derive(Debug, Default)]
pub struct Listeners {
    slots: Vec<Option<Listening>>,
    reserve: Option<Reserve>,
    /// The process will end: silent connections are no longer kept back in the kernel.
    leaving: bool,
}

impl Core {
    /// Opens what the snapshot has and this core has not; closes what it has no more.
    ///
    /// # Errors
    /// The first address that cannot be listened on, with cause and cure.
    pub(super) fn listen(self: &Rc<Self>) -> Result<(), String> {
        let snapshot = self.snapshot();
        let mut wanted = Vec::new();
        for (listener, state) in snapshot.plan.listeners.iter().zip(&snapshot.listeners) {
            if state.open {
                let deferred = listener.client_speaks_first();
                let of = |&bind| (Arc::clone(&listener.name), bind, deferred);
                wanted.extend(listener.bind.iter().map(of));
            }
        }
        let is_wanted = |l: &Listening| wanted.iter().any(|w| w.0 == l.name && w.1 == l.address);
        self.close_where(|listening| !is_wanted(listening));
        let timeouts = &snapshot.plan.timeouts;
        let options =
            TcpOptions { user_timeout: timeouts.user_timeout, keepalive: timeouts.tcp_keepalive };
        let mut trouble = None;
        for (name, address, deferred) in &wanted {
            let mut listeners = self.listeners.borrow_mut();
            let deferred = *deferred && !listeners.leaving;
            if listeners.reserve.is_none() {
                listeners.reserve = Reserve::new().ok();
            }
            let mut open = listeners.slots.iter_mut().flatten().filter(|l| !l.closing);
            if let Some(listening) = open.find(|l| l.name == *name && l.address == *address) {
                listening.defer(deferred);
                listening.set_options(options);
                continue;
            }
            match listen(*address, options) {
                Ok(fd) => {
                    let mut listening = Listening {
                        fd,
                        name: Arc::clone(name),
                        address: *address,
                        armed: false,
                        closing: false,
                        deferred: false,
                        options,
                    };
                    listening.defer(deferred);
                    let free = listeners.slots.iter().position(Option::is_none);
                    let slot = free.unwrap_or(listeners.slots.len());
                    if slot == listeners.slots.len() {
                        listeners.slots.push(None);
                    }
                    listeners.slots[slot] = Some(listening);
                    drop(listeners);
                    self.arm_accept(slot);
                }
                Err(error) => {
                    trouble.get_or_insert_with(|| refusal(name, *address, &error));
                }
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    /// The listeners will be closed soon: clients that have connected and said nothing yet are
    /// accepted while there is time for it.
    pub(super) fn take_the_silent(&self) {
        let mut listeners = self.listeners.borrow_mut();
        listeners.leaving = true;
        for listening in listeners.slots.iter_mut().flatten() {
            listening.defer(false);
        }
    }

    /// Closes every listening socket, taking what is queued first.
    pub(super) fn close_listeners(self: &Rc<Self>) {
        self.close_where(|_| true);
    }

    fn close_where(self: &Rc<Self>, leaves: impl Fn(&Listening) -> bool) {
        let slots = self.listeners.borrow().slots.len();
        for slot in 0..slots {
            let fd = match &mut self.listeners.borrow_mut().slots[slot] {
                Some(listening) if !listening.closing && leaves(listening) => {
                    listening.closing = true;
                    listening.fd
                }
                _ => continue,
            };
            // Clients in the queue are served: their handshake is done, a close would reset them.
            for _ in 0..BACKLOG {
                let Ok(client) = descriptors::accept(fd) else { break };
                self.arrived(slot, Owned::new(client));
            }
            socket::end(fd);
            self.close_idle(slot);
        }
    }

    /// Closes a listener that was shut down and that the kernel no longer holds.
    fn close_idle(&self, slot: usize) {
        let mut listeners = self.listeners.borrow_mut();
        if let Some(listening) = &listeners.slots[slot]
            && listening.closing
            && !listening.armed
        {
            socket::close(listening.fd);
            listeners.slots[slot] = None;
        }
    }

    fn arm_accept(&self, slot: usize) {
        let mut listeners = self.listeners.borrow_mut();
        if let Some(Some(listening)) = listeners.slots.get_mut(slot)
            && !listening.armed
            && !listening.closing
        {
            listening.armed = true;
            let token = Token::of(Kind::Accepted, slot as u32).pack();
            self.wire.borrow_mut().ring.accept_all(listening.fd, token);
        }
    }

    /// Accepts again where a shortage stopped us.
    pub(super) fn retry_accepts(&self) {
        let slots = self.listeners.borrow().slots.len();
        for slot in 0..slots {
            self.arm_accept(slot);
        }
    }

    /// The kernel accepted a connection, or could not.
    pub(super) fn accepted(self: &Rc<Self>, event: &Foreign) {
        let slot = event.token.slot as usize;
        if !event.more
            && let Some(Some(listening)) = self.listeners.borrow_mut().slots.get_mut(slot)
        {
            listening.armed = false;
        }
        match event.result {
            fd @ 0.. => {
                self.arrived(slot, Owned::new(fd));
                if !event.more {
                    self.arm_accept(slot);
                }
            }
            negative => {
                let short = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
                if short.contains(&-negative) {
                    // Accepting goes on with the next tick: no spinning on a shortage.
                    self.counters.accept_errors.inc();
                    if self.load() < self.room && !self.idle.borrow().is_empty() {
                        // There are descriptors again.
                        self.idle.borrow_mut().clear();
                        self.arm_accept(slot);
                    } else {
                        self.shed(slot);
                    }
                } else if -negative == libc::ECONNABORTED {
                    self.arm_accept(slot);
                }
            }
        }
        if !event.more {
            self.close_idle(slot);
        }
    }

    /// No descriptor is left: with the reserved one, queued connections are handed to a core with
    /// room or closed at once. No client waits in the backlog.
    fn shed(self: &Rc<Self>, slot: usize) {
        for _ in 0..SHED_AT_ONCE {
            let mut listeners = self.listeners.borrow_mut();
            let Some(Some(listening)) = listeners.slots.get(slot) else { return };
            let (fd, name) = (listening.fd, Arc::clone(&listening.name));
            listeners.reserve = None;
            let client = descriptors::accept(fd).map(Owned::new);
            let Ok(client) = client else {
                listeners.reserve = Reserve::new().ok();
                return;
            };
            drop(listeners);
            self.counters.accepted.inc();
            if !self.hand_over(&client, &name) {
                self.counters.endings.count(Ending::proxy(Stage::Accept, Cause::NoDescriptors));
            }
            drop(client);
            let reserve = Reserve::new().ok();
            if reserve.is_none() {
                return;
            }
            self.listeners.borrow_mut().reserve = reserve;
        }
    }

    fn arrived(self: &Rc<Self>, slot: usize, client: Owned) {
        let name = match self.listeners.borrow().slots.get(slot) {
            Some(Some(listening)) => Arc::clone(&listening.name),
            _ => return,
        };
        self.counters.accepted.inc();
        if self.should_hand_over() && self.hand_over(&client, &name) {
            return;
        }
        if self.load() >= self.room {
            self.counters.endings.count(Ending::proxy(Stage::Accept, Cause::NoRoom));
            return;
        }
        self.welcome(&name, client);
    }

    /// Begins the life of a connection on this core.
    pub(super) fn welcome(self: &Rc<Self>, name: &str, client: Owned) {
        // A client needs the descriptors more than the next request to a server does.
        let crowding = self.crowding();
        if crowding > 0 {
            self.idle.borrow_mut().shed(crowding);
        }
        let snapshot = self.snapshot();
        let Some(index) = snapshot.plan.listeners.iter().position(|l| *l.name == *name) else {
            // Its listener left the file while it was on its way.
            self.counters.endings.count(Ending::proxy(Stage::Accept, Cause::NoRoute));
            return;
        };
        let birth = self.with_table(|table| Rc::clone(&table.births[index]));
        // Behind a balancer the source is told by its PROXY header.
        let own = snapshot.plan.listeners[index].accept_proxy.is_none();
        let wants = own && birth.limits.wants_source();
        let source = if wants { socket::peer(client.fd()) } else { None };
        birth.counters.accepted.inc();
        let ticket = match birth.limits.admit(self.index, source.map(|address| address.ip())) {
            Ok(ticket) => ticket,
            Err(refusal) => {
                let cause = match refusal {
                    Refusal::Connections => Cause::MaxConnections,
                    Refusal::Source => Cause::MaxPerSource,
                };
                birth.counters.refused.inc();
                self.counters.endings.count(Ending::proxy(Stage::Accept, cause));
                return;
            }
        };
        self.bear(
            Accepted {
                id: self.next_id(),
                listener: Arc::clone(&snapshot.plan.listeners[index]),
                listener_index: index,
                snapshot,
                birth,
                client: source,
                ticket,
                since: Instant::now(),
                failed: Cell::default(),
            },
            client,
        );
    }

    fn bear(self: &Rc<Self>, conn: Accepted, client: Owned) {
        conn.birth.counters.live.inc();
        self.counters.young.inc();
        self.spawn(young::live(Rc::clone(self), conn, client));
    }
}
