//! What control tells a core: one complete value at a time, by channel. Shared with nobody while
//! it changes: control builds, sends, and never touches it again.

use std::sync::Arc;
use std::time::Duration;

use crate::balance::{Group, Loads, ServerId};
use crate::meter::{
    Cause, CoreCounters, ListenerCounters, ListenerLimits, Passing, RouteCounters, ServerCounters,
};

use super::plan::Plan;

/// The whole truth for new connections from now on. Indices follow [`Plan`].
#[derive(Debug)]
pub struct Snapshot {
    /// Grows by one with every change.
    pub version: u64,
    pub plan: Arc<Plan>,
    /// One for each of `plan.pools`.
    pub pools: Vec<PoolState>,
    /// One for each of `plan.listeners`.
    pub listeners: Vec<ListenerState>,
}

/// A pool as it is now: what may be picked, with which weight.
#[derive(Debug)]
pub struct PoolState {
    /// Immutable selection built from the servers, their health and slow start; `group.members()`
    /// has one entry for each of `plan.pools[i].servers`, in that order.
    pub group: Arc<Group>,
    /// Client configuration for `pools.X.tls`, proven.
    pub tls: Option<Arc<crate::config::certificates::ToServer>>,
    /// The sticky cookie's sealed-token codec, if `sticky = { cookie }`.
    pub cookie: Option<Arc<crate::route::cookie::Cookie>>,
}

/// What cores need of a listener beside its plan; parallel to the listeners of the plan.
#[derive(Debug)]
pub struct ListenerState {
    /// Counter cells, one for each core.
    pub counters: Vec<Arc<ListenerCounters>>,
    /// The listener's limits over all cores; the same value for as long as the listener exists.
    pub limits: Arc<ListenerLimits>,
    /// Per rule (same order as `L7::rules`), per core.
    pub routes: Vec<Vec<Arc<RouteCounters>>>,
    /// Certificates and server-side configuration, proven; changed without touching live pipes.
    pub tls: Option<Arc<crate::config::certificates::FromClient>>,
    /// `when_empty = "refuse"` and the pool is empty: the listener is closed until it is not.
    pub open: bool,
}

/// A message down to one core.
#[derive(Debug, Clone)]
pub enum Order {
    /// Swap the table between two turns.
    Snapshot(Arc<Snapshot>),
    /// What all cores together carried at the last publish (100 ms).
    Loads(Arc<Loads>),
    /// Counter cells for a server this core has not met; sent before the snapshot that names it.
    Server { id: ServerId, counters: Arc<ServerCounters> },
    /// End this server's pipes here: all at once, or spread evenly over `over`.
    EndServer { id: ServerId, over: Option<Duration>, why: EndServer },
    /// The server is wanted again: those of its pipes that have not begun to end, stay.
    KeepServer { id: ServerId },
    /// The process will end: accept every client that has connected, silent or not.
    Leaving,
    /// Take what is queued, close the listeners; L7 pipes get Close 1012 spread over `over` (this
    /// core's share), and what is left of the others ends at about the end of `within`.
    Drain { over: Duration, within: Duration },
    /// End everything now and leave.
    Stop,
}

/// Why the pipes of a server are to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndServer {
    Down,
    Removed,
    Draining,
}

/// A message from a core up to control.
#[derive(Debug)]
pub enum Report {
    /// The core listens and serves.
    Ready { core: usize },
    /// It could not start; the text has cause and cure.
    Failed { core: usize, reason: String },
    /// It goes on, but could not do what it was told (a new listener's port is taken).
    Trouble { core: usize, reason: String },
    /// A connect to this server failed, or (only after a failure) succeeded: passive health.
    Dialled { id: ServerId, fault: Option<Cause> },
    /// A line for the connection log; control writes it.
    Line(LogLine),
    /// NSS key-log line; control writes it to `SSLKEYLOGFILE`.
    KeyLog(String),
    /// After a drain or a stop no pipe is left: the core's thread is about to end.
    Gone { core: usize },
}

/// One connection's open or end, already plain data.
#[derive(Debug)]
pub struct LogLine {
    pub core: usize,
    pub id: u64,
    pub event: LogEvent,
    pub listener: Arc<str>,
    /// `pool/server`, once picked.
    pub server: Option<String>,
    pub client: Option<std::net::SocketAddr>,
    pub route: Option<Arc<str>>,
}

/// What a log line tells of a connection.
#[derive(Debug)]
pub enum LogEvent {
    /// A pipe is established; of a WebSocket, the id of its request.
    Open { request: Option<String> },
    /// A request that no pipe came of.
    Request(Box<LogRequest>),
    End {
        ending: crate::meter::Ending,
        age: Duration,
        bytes_from_client: u64,
        bytes_from_server: u64,
        /// WebSocket Close code seen or sent, with who closed.
        close: Option<(crate::meter::Side, u16)>,
    },
}

/// One HTTP request and what came of it.
#[derive(Debug)]
pub struct LogRequest {
    pub id: String,
    pub method: String,
    /// Without the query, in which secrets are wont to stand.
    pub path: String,
    /// Of the answer; `None`: the client left before there was one.
    pub status: Option<u16>,
    pub answered_by: Option<crate::meter::Side>,
    /// From the whole head to the end of the answer.
    pub duration: Duration,
    /// Heads included.
    pub bytes_from_client: u64,
    pub bytes_to_client: u64,
}

/// Everything a core is born with. Nothing in it owns a descriptor but `wake` and `handoff`,
/// which were made before any core unshared its table.
#[derive(Debug)]
pub struct CoreSeed {
    pub core: usize,
    pub cores: usize,
    pub processor: Option<usize>,
    pub orders: crossbeam_channel::Receiver<Order>,
    pub reports: crossbeam_channel::Sender<Report>,
    /// eventfd number control writes to after each order; valid in every table.
    pub wake: i32,
    /// Socket pairs for descriptors handed between cores: `handoff[k]` is this core's end of the
    /// pair shared with core k (own index: -1).
    pub handoff: Vec<i32>,
    pub counters: Arc<CoreCounters>,
    /// Every core's counters, to see who is emptiest.
    pub all_counters: Vec<Arc<CoreCounters>>,
    /// And what is on its way between them.
    pub passing: Arc<Passing>,
    pub first: Arc<Snapshot>,
}
