//! What happened, and how it ended. Pure: never opens a file or a socket.

/// Whose doing it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Client,
    Server,
    Proxy,
}

/// How and why a connection stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {}

/// One core's own counters.
#[derive(Debug, Default)]
pub struct CoreCounters {}

/// One listener's counters on one core.
#[derive(Debug, Default)]
pub struct ListenerCounters {}

/// One route's counters on one core.
#[derive(Debug, Default)]
pub struct RouteCounters {}

/// One server's counters on one core.
#[derive(Debug, Default)]
pub struct ServerCounters {}
