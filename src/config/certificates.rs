//! Certificates and TLS settings, loaded and proven: what a listener shows to clients and what a
//! pool expects of its servers. It reads files when asked to load; it never touches a socket.

use std::sync::Arc;

use rustls::pki_types::ServerName;

/// The proven `tls.` of one listener, shared by all cores.
#[derive(Debug)]
pub struct FromClient {
    /// What rustls shakes hands with; secret extraction is on.
    pub server: Arc<rustls::ServerConfig>,
    /// `key_log = true`: the secrets of every session also go to control as NSS key-log lines.
    pub key_log: bool,
    /// Handshakes under way on one core before new ones are refused; 0: no bound.
    pub handshakes_in_flight: u32,
    /// New handshakes a second on one core; 0: no bound.
    pub handshakes_per_second: u32,
}

/// The proven `pools.X.tls`, shared by all cores.
#[derive(Debug)]
pub struct ToServer {
    /// What rustls shakes hands with; secret extraction is on.
    pub client: Arc<rustls::ClientConfig>,
    /// The name to verify and to send as SNI for each of the pool's servers, in their order.
    pub names: Vec<ServerName<'static>>,
}
