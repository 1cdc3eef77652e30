//! One pinned core: its thread, its descriptor table, its two rings, and the life of a connection.
//!
//! accept ► front ► (tls) ► (head ► route) ► pick ► dial ► (upgrade) ► wire ► ending ► meter
//!
//! The young life is an async function on the runtime ([`young::live`]); the long life is an entry
//! in the [`wire`]. Nothing here is shared with another core but counters that each core alone
//! writes, and the count of a listener's connections, against which its limits hold.

mod drive;
mod handoff;
mod host;
mod listeners;
mod orders;
mod ready;
pub mod wire;
pub mod young;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::balance::{Ledger, ServerId};
use crate::config::plan::LogConnections;
use crate::config::snapshot::{CoreSeed, LogEvent, LogLine, Report, Snapshot};
use crate::meter::{Cause, CoreCounters, Ending, ServerCounters, Side, Stage, Ticket};

pub use host::run;
use ready::{Deadlines, Readiness};
pub use ready::{Guard, Lane};
use wire::{Birth, Pipe, Wire};

/// One in this many connections is logged when the plan says "sampled".
const SAMPLE: u64 = 100;

/// How far a core is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Serving,
    /// Listeners are closed; pipes live on.
    Draining,
    /// Everything is being ended.
    Stopping,
}

/// Everything a core's tasks share. Borrows of its cells never last over an `await`.
#[derive(Debug)]
pub struct Core {
    pub index: usize,
    pub seed: CoreSeed,
    pub counters: Arc<CoreCounters>,
    pub wire: RefCell<Wire>,
    pub ledger: RefCell<Ledger>,
    table: RefCell<Table>,
    servers: RefCell<Vec<Option<Arc<ServerCounters>>>>,
    /// Servers whose last connect failed.
    failed: RefCell<HashSet<ServerId>>,
    listeners: RefCell<listeners::Listeners>,
    readiness: RefCell<Readiness>,
    deadlines: RefCell<Deadlines>,
    /// Kept connections to HTTP servers.
    pub idle: RefCell<young::idle::Idle>,
    /// Admits TLS handshakes.
    pub handshakes: young::tls::Gate,
    mode: Cell<Mode>,
    /// Polls of young tasks so far: how the driver knows whether any ran.
    polls: Cell<u64>,
    /// A young task was spawned or woken since the driver last looked.
    stirred: Cell<bool>,
    /// The second whose duties were last done.
    second: Cell<wire::Ticks>,
    next_id: Cell<u64>,
    /// Pipes this table has descriptors for.
    room: u64,
}

/// The snapshot in force and what this core derives from it.
#[derive(Debug)]
pub struct Table {
    pub snapshot: Arc<Snapshot>,
    /// One for each listener.
    pub births: Vec<Rc<Birth>>,
    /// One for each pool.
    pub cursors: Vec<crate::balance::Cursor>,
    /// Which of a pool's source addresses is next.
    pub sources: Vec<usize>,
}

impl Core {
    /// The snapshot that new connections are served by.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.table.borrow().snapshot)
    }

    /// Runs `f` on the table in force.
    pub fn with_table<T>(&self, f: impl FnOnce(&mut Table) -> T) -> T {
        f(&mut self.table.borrow_mut())
    }

    /// Whether new requests are welcome on connections that are open.
    pub fn is_serving(&self) -> bool {
        self.mode.get() == Mode::Serving
    }

    /// Whether everything is being ended, dials included.
    pub fn is_stopping(&self) -> bool {
        self.mode.get() == Mode::Stopping
    }

    /// Starts a task of a young connection. Tasks must be started here: the driver sleeps when it
    /// has seen none of them run.
    pub fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let core = Rc::clone(self);
        self.stirred.set(true);
        let mut task = Box::pin(task);
        monoio::spawn(std::future::poll_fn(move |cx| -> Poll<()> {
            core.polls.set(core.polls.get() + 1);
            task.as_mut().poll(cx)
        }));
    }

    /// A task is about to be woken by another one: the driver must not sleep before it ran.
    pub fn stir(&self) {
        self.stirred.set(true);
    }

    /// A connection identity that no other of this process has.
    pub fn next_id(&self) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + self.seed.cores as u64);
        id
    }

    /// Counts a connection onto a server.
    pub fn lease(&self, server: ServerId) {
        self.ledger.borrow_mut().lease(server);
        self.with_server(server, |counters| {
            counters.live.inc();
            counters.leased.inc();
        });
    }

    /// Counts a connection off a server.
    pub fn release(&self, server: ServerId) {
        self.ledger.borrow_mut().release(server);
        self.with_server(server, |counters| counters.live.dec());
    }

    /// This core's counters of a server, if control has introduced it.
    pub fn with_server(&self, server: ServerId, f: impl FnOnce(&ServerCounters)) {
        if let Some(Some(counters)) = self.servers.borrow().get(server.index()) {
            f(counters);
        }
    }

    /// Tells control something. What control has no room for is lost, and counted.
    pub fn report(&self, report: Report) {
        if self.seed.reports.try_send(report).is_err() {
            self.counters.log_lost.inc();
        }
    }

    /// Connections of this core, young ones included.
    fn load(&self) -> u64 {
        self.counters.live.get() + self.counters.young.get()
    }

    /// Kept connections to servers that are too many by now, where one more client is to have its
    /// two descriptors.
    pub fn crowding(&self) -> usize {
        let used = 2 * (self.load() + 1) + self.idle.borrow().len() as u64;
        used.saturating_sub(2 * self.room) as usize
    }

    /// Whether any connection may get a log line.
    pub fn logs_connections(&self) -> bool {
        self.table.borrow().snapshot.plan.runtime.log.connections != LogConnections::Off
    }

    /// Whether a connection with this identity and ending gets a log line.
    pub fn is_logged(&self, id: u64, ending: Option<Ending>) -> bool {
        match self.table.borrow().snapshot.plan.runtime.log.connections {
            LogConnections::Off => false,
            LogConnections::All => true,
            LogConnections::Sampled => {
                let drawn = (id / self.seed.cores as u64).is_multiple_of(SAMPLE);
                drawn || ending.is_some_and(Ending::is_fault)
            }
        }
    }

    /// Whether a request with this answer gets a log line. `ours`: the answer was made here.
    pub fn logs_request(&self, status: Option<u16>, ours: bool) -> bool {
        match self.table.borrow().snapshot.plan.runtime.log.connections {
            LogConnections::Off => false,
            LogConnections::All => true,
            LogConnections::Sampled => {
                let failed = ours && status.is_some_and(|status| status >= 500);
                failed || fastrand::u64(..).is_multiple_of(SAMPLE)
            }
        }
    }

    /// A connection that never became a pipe is over.
    pub fn ended_young(&self, conn: &young::Accepted, ending: Ending) {
        self.counters.endings.count(ending);
        if ending.is_fault() {
            conn.birth.counters.faults.inc();
        }
        self.gone(&conn.birth, conn.ticket);
        if self.is_logged(conn.id, Some(ending)) {
            let dialled = conn.failed.get().filter(|_| ending.stage == Stage::Dial);
            self.report(Report::Line(LogLine {
                core: self.index,
                id: conn.id,
                event: LogEvent::End {
                    ending,
                    age: conn.since.elapsed(),
                    bytes_from_client: 0,
                    bytes_from_server: 0,
                    close: None,
                },
                listener: Arc::clone(&conn.birth.listener),
                server: dialled.and_then(|server| self.server_name(server)),
                client: conn.client,
                route: None,
            }));
        }
    }

    /// Bytes that pipes of a server have moved, by flow.
    fn count_bytes(&self, server: ServerId, [from_client, from_server]: [u64; 2]) {
        self.with_server(server, |counters| {
            counters.bytes_to_server.add(from_client);
            counters.bytes_from_server.add(from_server);
        });
    }

    /// A pipe is over: its lease, ticket and counts are given back.
    fn ended(&self, pipe: &Pipe) {
        let internal = || Ending::proxy(Stage::Pipe, Cause::Internal);
        let ending = pipe.ending.unwrap_or_else(internal);
        self.counters.endings.count(ending);
        self.release(pipe.server);
        let [from_client, from_server] = pipe.uncounted();
        self.count_bytes(pipe.server, [from_client, from_server]);
        let counters = &pipe.birth.counters;
        counters.bytes_from_clients.add(from_client);
        counters.bytes_to_clients.add(from_server);
        if ending.is_fault() {
            counters.faults.inc();
            if ending.side == Side::Server {
                self.with_server(pipe.server, |counters| counters.resets.inc());
            }
        }
        if let Some(terms) = pipe.terms() {
            let ticks = self.wire.borrow().now().saturating_sub(pipe.born);
            terms.ended(ticks_as_duration(ticks), pipe.has_relay(), pipe.closed_by());
        }
        self.gone(&pipe.birth, pipe.ticket);
        if self.is_logged(pipe.id, Some(ending)) {
            self.log_end(pipe, ending);
        }
    }

    fn log_end(&self, pipe: &Pipe, ending: Ending) {
        let ticks = self.wire.borrow().now().saturating_sub(pipe.born);
        self.report(Report::Line(LogLine {
            core: self.index,
            id: pipe.id,
            event: LogEvent::End {
                ending,
                age: ticks_as_duration(ticks),
                bytes_from_client: pipe.flows[0].bytes,
                bytes_from_server: pipe.flows[1].bytes,
                // 1005 stands for a Close without a code, as everywhere in the trade.
                close: pipe.closed_by().map(|(who, code)| (who, code.unwrap_or(1005))),
            },
            listener: Arc::clone(&pipe.birth.listener),
            server: self.server_name(pipe.server),
            client: pipe.client.as_deref().copied(),
            route: pipe.terms().map(|terms| Arc::clone(&terms.label)),
        }));
    }

    /// `pool/server`, for the log.
    pub fn server_name(&self, server: ServerId) -> Option<String> {
        let table = self.table.borrow();
        for (pool, state) in table.snapshot.plan.pools.iter().zip(&table.snapshot.pools) {
            if let Some(index) = state.group.index_of(server) {
                return Some(format!("{}/{}", pool.name, pool.servers.get(index)?.name));
            }
        }
        None
    }

    fn gone(&self, birth: &Birth, ticket: Ticket) {
        birth.limits.leave(self.index, ticket);
        birth.counters.live.dec();
    }
}

fn ticks_as_duration(ticks: wire::Ticks) -> Duration {
    Duration::from_millis(u64::from(ticks) * 1000 / u64::from(wire::entry::TICKS_PER_SECOND))
}
