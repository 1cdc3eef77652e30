//! The plan: a configuration that has been proven. Every name is resolved, every default filled
//! in, every limit within range. Nothing here reads files or the clock, and nothing is changed
//! after it was built: a reload makes a new plan.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::balance::Policy;
use crate::route::{Origins, Routes};

/// A whole proven configuration.
#[derive(Debug)]
pub struct Plan {
    /// The file it was read from; relative paths in it were resolved against its folder.
    pub file: PathBuf,
    pub runtime: Runtime,
    pub listeners: Vec<Arc<Listener>>,
    pub pools: Vec<Arc<Pool>>,
    pub timeouts: Timeouts,
}

/// `[runtime]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Runtime {
    /// Pinned worker threads; `"cores"` was resolved to the number of usable processors.
    pub workers: usize,
    /// Address of the admin face; `None` switches it off.
    pub admin: Option<SocketAddr>,
    pub drain_delay: Duration,
    pub drain_timeout: Duration,
    pub log: Log,
}

/// `log = { … }` of `[runtime]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
    pub connections: LogConnections,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Logfmt,
    Json,
}

/// Which connections get a line at open and at end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogConnections {
    Off,
    /// One in a hundred, and every one that ended by a fault.
    Sampled,
    All,
}

/// `[listeners.NAME]`.
#[derive(Debug, PartialEq)]
pub struct Listener {
    pub name: Arc<str>,
    pub bind: Vec<SocketAddr>,
    pub service: Service,
    pub tls: Option<Tls>,
    /// Peers whose PROXY header and forwarding headers are believed.
    pub trusted: Vec<IpNet>,
    pub accept_proxy: Option<AcceptProxy>,
    pub when_empty: WhenEmpty,
    /// Live connections over all cores; 0: bounded by the descriptor budget only.
    pub max_connections: u32,
    /// Live connections of one source address over all cores; 0: no bound.
    pub max_per_source: u32,
}

impl Listener {
    /// Whether a connection is of no use before its client has said something.
    pub fn client_speaks_first(&self) -> bool {
        matches!(self.service, Service::L7(_)) || self.tls.is_some() || self.accept_proxy.is_some()
    }
}

/// What a listener does with a connection.
#[derive(Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "one for each listener, behind an Arc")]
pub enum Service {
    /// Bytes in, bytes out, to one pool (an index into [`Plan::pools`]).
    L4 {
        pool: usize,
    },
    L7(L7),
}

/// `mode = "l7"`.
#[derive(Debug, PartialEq)]
pub struct L7 {
    /// Compiled routes; the value a match yields is an index into `rules`.
    pub routes: Routes,
    pub rules: Vec<Arc<Rule>>,
    pub ping: Option<Ping>,
    pub http: HttpLimits,
}

/// What one `[[listeners.X.routes]]` entry asks for once it has matched.
#[derive(Debug, PartialEq)]
pub struct Rule {
    /// Label in metrics and logs: host and path as written.
    pub label: Arc<str>,
    /// Pools by share; one entry unless `split` was given. Indices into [`Plan::pools`].
    pub pools: Vec<Share>,
    pub relay: RelayUnit,
    /// Largest frame payload in bytes; 0: no bound.
    pub max_frame: u64,
    /// Largest message (all fragments) in bytes; 0: no bound.
    pub max_message: u64,
    /// Messages a second from the client; 0: no bound.
    pub messages_per_second: u32,
    /// Origins of pages that may open a WebSocket; `None` allows all.
    pub origins: Option<Origins>,
}

/// A pool's part of a route; the weights of a route's pools are in proportion to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub pool: usize,
    pub weight: u32,
}

/// What the relay of a route's WebSockets follows: frames by their headers, or bytes alone, with
/// no Close, Ping or limit of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayUnit {
    Frames,
    Bytes,
}

/// `ping = { every, timeout, server }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    pub every: Duration,
    pub timeout: Duration,
    /// Ping the server side as well.
    pub server: bool,
}

/// Limits of HTTP heads on an l7 listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpLimits {
    /// Bytes of one request or response head.
    pub head_bytes: usize,
    pub headers: usize,
    pub target_bytes: usize,
    /// Error answers as JSON rather than plain text.
    pub json_errors: bool,
}

/// `tls.` of a listener. Files are named here, loaded and proven by `config::certificates`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    pub certificates: Vec<CertificateFiles>,
    pub unknown_name: UnknownName,
    pub alpn: Vec<String>,
    pub client_ca: Option<ClientCa>,
    pub client_headers: Option<ClientHeaders>,
    pub ticket_keys: Option<PathBuf>,
    pub key_log: bool,
    /// Handshakes under way per core; clients that come later wait in line. 0: no bound.
    pub handshakes_in_flight: u32,
    /// New handshakes a second per core; 0: no bound.
    pub handshakes_per_second: u32,
}

/// Where a certificate chain and its key are, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// What a ClientHello with a name no certificate has gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownName {
    /// The first certificate.
    Default,
    /// Alert `unrecognized_name`.
    Refuse,
}

/// By whom clients' certificates must be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCa {
    pub file: PathBuf,
    /// `false`: a client may come without a certificate.
    pub required: bool,
}

/// Header names the verified client certificate is told in; client-sent copies are removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHeaders {
    pub subject: Option<String>,
    pub fingerprint: Option<String>,
}

/// Which PROXY header a connection has to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptProxy {
    V1,
    V2,
    Any,
}

/// Which PROXY header a server is sent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendProxy {
    V1,
    V2,
}

/// What a listener does while its pool has no usable server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenEmpty {
    Close,
    Refuse,
}

/// `[pools.NAME]`.
#[derive(Debug, PartialEq)]
pub struct Pool {
    pub name: Arc<str>,
    pub policy: Policy,
    pub servers: Vec<Server>,
    pub health: Option<Health>,
    pub sticky: Option<Sticky>,
    pub slow_start: Duration,
    /// Source addresses to dial from, in turn.
    pub source: Vec<std::net::IpAddr>,
    pub send_proxy: Option<SendProxy>,
    pub on_down: OnDown,
    pub on_remove: OnRemove,
    pub drain: Drain,
    pub tls: Option<ServerTls>,
    /// Idle keep-alive connections to servers kept per core.
    pub idle_connections: u32,
}

/// One upstream address.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// `name = "…"`, or the address as written.
    pub name: Arc<str>,
    /// The address as written: with the pool's name it is the server's identity in sticky tokens,
    /// and its host is the name expected of a TLS server.
    pub written: Arc<str>,
    pub address: ServerAddress,
    pub weight: u32,
    /// Live connections over all cores; 0: no bound.
    pub max_connections: u32,
    /// `drain = true` in the file: gets no new clients, keeps its sticky ones; what it has ends at
    /// the pool's pace.
    pub draining: bool,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    Inet(SocketAddr),
    Unix(PathBuf),
}

/// `health = { … }`: how a server is asked whether it is there. `rise` good checks in a row bring
/// it up, `fall` bad ones take it down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub every: Duration,
    pub timeout: Duration,
    pub rise: u32,
    pub fall: u32,
    /// Path of an HTTP check (2xx and 3xx are good); `None`: a TCP connect is enough.
    pub http: Option<String>,
}

/// What is sticky, and how.
#[derive(Debug, Clone, PartialEq)]
pub enum Sticky {
    Cookie(StickyCookie),
    /// Consistent hash of a request header's value.
    Header(String),
    /// Consistent hash of a query parameter's value.
    Query(String),
}

/// The cookie that ties a client to its server, and how it is set (RFC 6265bis).
#[derive(Clone, PartialEq)]
pub struct StickyCookie {
    pub name: String,
    /// MAC key; `None`: a random one is made at start, and said.
    pub key: Option<Secret>,
    /// Where the key was read from.
    pub key_file: Option<PathBuf>,
    pub path: String,
    pub domain: Option<String>,
    pub secure: bool,
    pub http_only: bool,
    pub same_site: Option<SameSite>,
    pub max_age: Option<Duration>,
}

impl std::fmt::Debug for StickyCookie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StickyCookie").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Bytes that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Arc<[u8]>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(set)")
    }
}

/// A cookie's `SameSite`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    Strict,
    Lax,
    None,
}

/// What happens to the pipes of a server that went down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDown {
    Keep,
    Drain,
    Close,
}

/// What happens to the pipes of a server that left the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRemove {
    Keep,
    Drain,
    Close,
}

/// How fast a drain closes pipes: `rate` a second over all cores, or all within `window`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Drain {
    Rate(u32),
    Window(Duration),
}

/// `pools.X.tls`: re-encryption towards servers.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerTls {
    /// PEM file of trust anchors; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Name to verify and to send as SNI; `None`: the server's host as written.
    pub server_name: Option<String>,
    pub client_cert: Option<CertificateFiles>,
    /// `verify = false` was asked for.
    pub insecure: bool,
}

/// `[timeouts]`; `None` is `"off"`.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeouts {
    pub handshake: Duration,
    pub connect: Duration,
    pub idle: Option<Duration>,
    pub half_close: Option<Duration>,
    pub request: Option<Duration>,
    pub response: Option<Duration>,
    pub keepalive: Duration,
    pub stall: Option<Duration>,
    pub user_timeout: Option<Duration>,
    /// TCP keepalive probes on both sides after this much silence.
    pub tcp_keepalive: Option<Duration>,
}

/// Whether one of two addresses lies within the other. (IPv6 listeners take IPv6 only.)
pub fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let is_wide = a.ip().is_unspecified() || b.ip().is_unspecified();
    a == b || (a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && is_wide)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_addresses_hold_the_narrow_ones_of_their_family() {
        let overlaps = |a: &str, b: &str| {
            let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(overlap(a, b), overlap(b, a));
            overlap(a, b)
        };
        assert!(overlaps("0.0.0.0:80", "127.0.0.1:80"));
        assert!(overlaps("[::]:80", "[::1]:80"));
        assert!(overlaps("127.0.0.1:80", "127.0.0.1:80"));
        assert!(!overlaps("127.0.0.2:80", "127.0.0.1:80"));
        assert!(!overlaps("0.0.0.0:81", "127.0.0.1:80"));
        assert!(!overlaps("[::]:80", "127.0.0.1:80"));
    }
}
