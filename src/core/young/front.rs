//! What stands before the first byte of the service: the PROXY header of a trusted balancer. It is
//! never guessed: a listener that takes headers takes nothing without one, and only from peers in
//! `trusted`. <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::rc::Rc;

use crate::config::plan::{AcceptProxy, SendProxy};
use crate::core::{Core, Guard};
use crate::meter::{Cause, Ending, Stage};
use crate::proto::Step;
use crate::proto::preface::{self, Mode, Preface, PrefaceFault};
use crate::sys::ring::POLL_IN;
use crate::sys::socket::{self, Owned};

use super::Accepted;

/// Who the client is, and what it sent beyond its header.
#[derive(Debug, Default)]
pub struct Front {
    /// Addresses a PROXY header told: the client's, and the one it connected to.
    pub told: Option<(SocketAddr, SocketAddr)>,
    /// A PROXY header says that it relays a client and not which: a stranger, although the
    /// connection comes from a trusted balancer.
    pub unnamed: bool,
    /// Bytes after the header.
    pub tail: Vec<u8>,
}

/// Reads the PROXY header, if the listener takes one.
///
/// # Errors
/// How the connection ended: untrusted peer, bad header, none in time.
pub async fn read(
    core: &Rc<Core>,
    conn: &mut Accepted,
    client: &Owned,
    guard: &Guard,
) -> Result<Front, Ending> {
    let Some(accepts) = conn.listener.accept_proxy else { return Ok(Front::default()) };
    let refuse = |cause| Ending::client(Stage::Front, cause);
    let peer = conn.client.or_else(|| socket::peer(client.fd()));
    let peer = peer.ok_or(refuse(Cause::Reset))?;
    conn.client = Some(peer);
    if !conn.listener.trusted.iter().any(|net| net.contains(&canonical(peer.ip()))) {
        return Err(refuse(Cause::Untrusted));
    }
    let mode = match accepts {
        AcceptProxy::V1 => Mode::V1,
        AcceptProxy::V2 => Mode::V2,
        AcceptProxy::Any => Mode::Any,
    };
    let mut bytes = Vec::new();
    loop {
        match preface::decode(&bytes, mode) {
            Step::Done(used, fact) => {
                let tail = bytes.split_off(used);
                let told = match fact {
                    Preface::Proxied { source, destination } => Some((source, destination)),
                    Preface::Local | Preface::Unnamed => None,
                };
                if let Some((source, _)) = told {
                    conn.client = Some(source);
                }
                return Ok(Front { told, unnamed: fact == Preface::Unnamed, tail });
            }
            Step::Bad(fault) => return Err(refuse(cause_of(fault))),
            Step::Need => {}
        }
        core.ready(client.fd(), POLL_IN).await;
        let start = bytes.len();
        bytes.resize(start + preface::V2_MAX, 0);
        let got = socket::read_into(client.fd(), &mut bytes[start..]);
        bytes.truncate(start + *got.as_ref().unwrap_or(&0));
        match got {
            Ok(0) if guard.has_passed() => return Err(refuse(Cause::Timeout)),
            Ok(0) if bytes.is_empty() => return Err(refuse(Cause::Quiet)),
            Ok(0) => return Err(refuse(Cause::ProxyHeaderMissing)),
            Err(e) if e.kind() != std::io::ErrorKind::WouldBlock => {
                return Err(refuse(Cause::Reset));
            }
            Ok(_) | Err(_) => {}
        }
    }
}

impl Front {
    /// Writes the header that tells the server who the client is: the ends of the connection that
    /// is relayed, whatever the server is reached by. Where they are not known it says so.
    pub fn announce(&self, version: SendProxy, client: RawFd, out: &mut Vec<u8>) {
        match (version, self.ends(client)) {
            (SendProxy::V1, Some((source, to))) => preface::encode_v1(out, source, to),
            (SendProxy::V2, Some((source, to))) => preface::encode_v2(out, source, to, &[]),
            (SendProxy::V1, None) => preface::encode_v1_unknown(out),
            (SendProxy::V2, None) => preface::encode_v2_unspec(out),
        }
    }

    /// The client's address, and the one it connected to. A client that our balancer did not name
    /// is not named here either: a server that trusts that balancer would take one for the other.
    fn ends(&self, client: RawFd) -> Option<(SocketAddr, SocketAddr)> {
        if self.unnamed {
            return None;
        }
        self.told.or_else(|| Some((socket::peer(client)?, socket::local(client)?)))
    }
}

/// An IPv4 address that came in IPv6 clothes, as what it is.
pub fn canonical(address: std::net::IpAddr) -> std::net::IpAddr {
    address.to_canonical()
}

fn cause_of(fault: PrefaceFault) -> Cause {
    match fault {
        PrefaceFault::Missing => Cause::ProxyHeaderMissing,
        PrefaceFault::Command => Cause::ProxyHeaderVersion,
        _ => Cause::ProxyHeaderBad,
    }
}
