//! What control says, acted upon between two turns.

use std::rc::Rc;
use std::sync::Arc;

use crate::balance::Cursor;
use crate::config::plan::{Listener, Service, Timeouts};
use crate::config::snapshot::{EndServer, ListenerState, Order, Snapshot};
use crate::meter::{Cause, CoreCounters};
use crate::sys::descriptors;
use crate::sys::ring::POLL_IN;
use crate::sys::socket::TcpOptions;

use super::wire::entry::TICKS_PER_SECOND;
use super::wire::terms::Terms;
use super::wire::token::{Kind, Token};
use super::wire::{Birth, Leave, Ticks, ticks};
use super::{Core, Mode, Table};

impl Table {
    /// Derives a core's table from a snapshot.
    pub fn new(snapshot: Arc<Snapshot>, core: usize, counters: &Arc<CoreCounters>) -> Self {
        let births = snapshot.plan.listeners.iter().zip(&snapshot.listeners);
        let timeouts = &snapshot.plan.timeouts;
        let births = births
            .map(|(listener, state)| Rc::new(birth(listener, state, timeouts, core, counters)));
        Self {
            births: births.collect(),
            cursors: snapshot.pools.iter().map(|_| Cursor::new(core)).collect(),
            sources: vec![core; snapshot.pools.len()],
            snapshot,
        }
    }

    /// The table of the next snapshot: pools that stay keep their place in the rotation.
    fn next(&self, snapshot: Arc<Snapshot>, core: usize, counters: &Arc<CoreCounters>) -> Self {
        let mut next = Self::new(snapshot, core, counters);
        let old = &self.snapshot.plan.pools;
        for (index, pool) in next.snapshot.plan.pools.iter().enumerate() {
            if let Some(place) = old.iter().position(|before| before.name == pool.name) {
                next.cursors[index] = self.cursors[place];
                next.sources[index] = self.sources[place];
            }
        }
        next
    }
}

fn birth(
    listener: &Listener,
    state: &ListenerState,
    timeouts: &Timeouts,
    core: usize,
    counters: &Arc<CoreCounters>,
) -> Birth {
    let terms = match &listener.service {
        Service::L4 { .. } => Vec::new(),
        Service::L7(l7) => {
            let rules = l7.rules.iter().zip(&state.routes);
            let terms = rules.map(|(rule, cells)| {
                let route = Arc::clone(&cells[core]);
                Arc::new(Terms::new(rule, l7.ping, route, Arc::clone(counters)))
            });
            terms.collect()
        }
    };
    Birth {
        listener: Arc::clone(&listener.name),
        counters: Arc::clone(&state.counters[core]),
        terms,
        idle: timeouts.idle.map(ticks),
        half_close: timeouts.half_close.map(ticks),
        stall: timeouts.stall.map(ticks),
        options: TcpOptions {
            user_timeout: timeouts.user_timeout,
            keepalive: timeouts.tcp_keepalive,
        },
        limits: Arc::clone(&state.limits),
    }
}

impl Core {
    /// Asks to be woken when another core passes a connection to this one.
    pub(super) fn listen_to_cores(&self) {
        let mut wire = self.wire.borrow_mut();
        for (from, &fd) in self.seed.handoff.iter().enumerate() {
            if fd >= 0 {
                wire.ring.poll(fd, POLL_IN, Token::of(Kind::Handed, from as u32).pack());
            }
        }
    }

    /// Enrols what the seed brought, and what control said before we could be woken.
    pub(super) fn begin(self: &Rc<Self>) {
        let first = self.snapshot();
        self.ledger.borrow_mut().enrol(first.pools.iter().map(|pool| &*pool.group));
        self.counters.snapshot.set(first.version);
        self.take_orders();
    }

    /// Control woke us: acts on every order that is there.
    pub(super) fn take_orders(self: &Rc<Self>) {
        descriptors::acknowledge(self.seed.wake);
        self.wait_for_orders();
        let mut leaving = Vec::new();
        while let Ok(order) = self.seed.orders.try_recv() {
            // The pipes of many servers are found in one pass over the slab.
            if let Order::EndServer { id, over, why } = order {
                self.idle.borrow_mut().forget(id);
                leaving.push(Leave { server: id, over, cause: cause_of(why) });
                continue;
            }
            self.end_servers(&mut leaving);
            self.obey(order);
        }
        self.end_servers(&mut leaving);
    }

    fn end_servers(&self, leaving: &mut Vec<Leave>) {
        if !leaving.is_empty() {
            self.wire.borrow_mut().end_servers(leaving);
            leaving.clear();
        }
    }

    fn wait_for_orders(&self) {
        let token = Token::of(Kind::Woken, 0).pack();
        self.wire.borrow_mut().ring.poll(self.seed.wake, POLL_IN, token);
    }

    fn obey(self: &Rc<Self>, order: Order) {
        match order {
            Order::Snapshot(snapshot) => self.swap(snapshot),
            Order::Loads(loads) => {
                self.ledger.borrow_mut().hear(&loads);
                self.counters.loads_heard.set(loads.version);
            }
            Order::Server { id, counters } => {
                let mut servers = self.servers.borrow_mut();
                if servers.len() <= id.index() {
                    servers.resize(id.index() + 1, None);
                }
                servers[id.index()] = Some(counters);
            }
            Order::EndServer { .. } => unreachable!("these are gathered"),
            Order::KeepServer { id } => self.wire.borrow_mut().keep_server(id),
            Order::Leaving => self.take_the_silent(),
            Order::Drain { over, within } => {
                self.mode.set(Mode::Draining);
                self.counters.serving.set(0);
                self.close_listeners();
                self.end_idle_young();
                self.idle.borrow_mut().clear();
                self.wire.borrow_mut().drain(over, within);
            }
            Order::Stop => {
                self.mode.set(Mode::Stopping);
                self.counters.serving.set(0);
                self.close_listeners();
                self.cut_young();
                self.wire.borrow_mut().end_all(Cause::Shutdown);
            }
        }
    }

    fn swap(self: &Rc<Self>, snapshot: Arc<Snapshot>) {
        let version = snapshot.version;
        self.ledger.borrow_mut().enrol(snapshot.pools.iter().map(|pool| &*pool.group));
        self.forget_terms(&self.snapshot(), &snapshot);
        let next = self.table.borrow().next(snapshot, self.index, &self.counters);
        self.table.replace(next);
        self.counters.snapshot.set(version);
        if self.mode.get() == Mode::Serving
            && let Err(reason) = self.listen()
        {
            self.report(crate::config::snapshot::Report::Trouble { core: self.index, reason });
        }
    }

    /// Closes the kept connections of pools that are dialled in another way from now on.
    fn forget_terms(&self, old: &Snapshot, new: &Snapshot) {
        let mut idle = self.idle.borrow_mut();
        if idle.is_empty() || Arc::ptr_eq(&old.plan, &new.plan) {
            return;
        }
        for (before, had) in old.plan.pools.iter().zip(&old.pools) {
            let now = new.plan.pools.iter().position(|pool| pool.name == before.name);
            let same = now.is_some_and(|at| {
                let (pool, has) = (&new.plan.pools[at], &new.pools[at]);
                let tls = match (&had.tls, &has.tls) {
                    // (Control keeps the value where certificates and servers are as before.)
                    (Some(had), Some(has)) => Arc::ptr_eq(had, has),
                    (had, has) => had.is_none() && has.is_none(),
                };
                tls && pool.source == before.source && pool.send_proxy == before.send_proxy
            });
            if !same {
                had.group.members().iter().for_each(|member| idle.forget(member.id));
            }
        }
    }

    /// What is due every tenth of a second.
    pub(super) fn tick(self: &Rc<Self>, now: Ticks) {
        // Makes the driver return to the runtime, which then submits what tasks may have left in
        // its own ring: once a tick at the latest.
        self.stirred.set(true);
        self.sweep_deadlines(now);
        // (Ticks may be late, and skip one.)
        let second = now / TICKS_PER_SECOND;
        if self.second.replace(second) != second {
            self.sweep_idle(now);
            self.look_for_leavers(now);
        }
        self.retry_accepts();
        let sockets = 2 * self.load() + self.idle.borrow().len() as u64;
        self.counters.descriptors.set(sockets + 2 * self.counters.pipes_lent.get());
        if self.mode.get() == Mode::Stopping {
            self.cut_young();
        }
    }

    /// Closes kept connections to servers that were unused for longer than `keepalive`, and those
    /// that the server has closed.
    fn sweep_idle(&self, now: Ticks) {
        let mut idle = self.idle.borrow_mut();
        if !idle.is_empty() {
            let keepalive = self.table.borrow().snapshot.plan.timeouts.keepalive;
            idle.sweep(now, ticks(keepalive));
        }
        self.counters.idle_servers.set(idle.len() as u64);
    }

    /// Whether nothing is left to serve, once the listeners are closed.
    pub(super) fn is_over(&self) -> bool {
        self.wire.borrow().is_empty() && self.counters.young.get() == 0
    }
}

fn cause_of(why: EndServer) -> Cause {
    match why {
        EndServer::Down => Cause::ServerDown,
        EndServer::Removed => Cause::ServerRemoved,
        EndServer::Draining => Cause::ServerDraining,
    }
}
