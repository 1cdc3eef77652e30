//! Certificates and TLS settings, loaded and proven: what a listener shows to clients and what a
//! pool expects of its servers. It reads files when asked to load; it never touches a socket.

#[cfg(test)]
pub(crate) mod authority;
mod chain;
mod client;
pub mod heard;
mod pem;
mod sections;
mod server;
mod sessions;
mod shelf;
#[cfg(test)]
mod tests;
mod tickets;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;

use super::host::{Host, System};

pub use sections::Contexts;
pub(super) use sections::{OfListener, OfPool, Places, Sections};
pub use tickets::Tickets;

/// The proven `tls.` of one listener, shared by all cores.
#[derive(Debug)]
pub struct FromClient {
    /// What rustls shakes hands with; secret extraction is on.
    pub server: Arc<rustls::ServerConfig>,
    /// `key_log = true`: the secrets of every session also go to control as NSS key-log lines.
    pub key_log: bool,
    /// Handshakes under way on one core; clients that come later wait in line. 0: no bound.
    pub handshakes_in_flight: u32,
    /// New handshakes a second on one core; 0: no bound.
    pub handshakes_per_second: u32,
    /// What is shown to clients, for metrics.
    pub certificates: Vec<Shown>,
}

/// The proven `pools.X.tls`, shared by all cores.
#[derive(Debug)]
pub struct ToServer {
    /// What rustls shakes hands with; secret extraction is on.
    pub client: Arc<rustls::ClientConfig>,
    /// The name to verify and to send as SNI for each of the pool's servers, in their order.
    pub names: Vec<ServerName<'static>>,
    made_of: client::MadeOf,
}

/// A certificate in use: where it came from, for whom it stands and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub file: PathBuf,
    /// DNS names, as written in the certificate.
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
}

/// Something with `warnings` that did not keep it from being used.
#[derive(Debug)]
pub struct Loaded<T> {
    pub value: T,
    pub warnings: Vec<Problem>,
}

/// What is wrong with a file, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What the section wants the file for.
    pub part: Part,
    pub file: PathBuf,
    pub what: String,
    pub remedy: String,
}

/// What a TLS section wants a file for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Nothing in particular, or no file at all.
    Whole,
    /// The certificate chain of this pair.
    Certificate(usize),
    /// The private key of this pair.
    Key(usize),
    /// To tell whom to believe.
    Authorities,
    /// To seal session tickets.
    Tickets,
}

impl Problem {
    fn new(file: &Path, what: impl fmt::Display, remedy: impl Into<String>) -> Self {
        let (file, what) = (file.to_owned(), what.to_string());
        Self { part: Part::Whole, file, what, remedy: remedy.into() }
    }

    fn of(self, part: Part) -> Self {
        Self { part, ..self }
    }

    /// The file and what is wrong with it.
    fn found(&self) -> String {
        format!("{}: {}", self.file.display(), self.what)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.found(), self.remedy)
    }
}

/// The ciphers and groups of both directions.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The two versions that are spoken; TLS 1.2 with AEAD suites only, which is all rustls has.
static VERSIONS: &[&rustls::SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];

fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    let remedy = "check the path and that the process may read the file";
    System.read(path).map_err(|error| Problem::new(path, error, remedy))
}
