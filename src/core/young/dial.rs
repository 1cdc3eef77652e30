//! Finding a server and connecting to it: candidates in order, each with its own deadline, before
//! any byte of the client's is taken. A dialled connection holds a lease on its server.

use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;

use crate::balance::{self, Pick, ServerId};
use crate::config::plan::{Pool, ServerAddress};
use crate::config::snapshot::Report;
use crate::core::Core;
use crate::meter::{Cause, Ending, Stage};
use crate::sys::ring::{POLL_FAILED, POLL_OUT};
use crate::sys::socket::{self, Dialling, Owned};

use super::Accepted;
use super::front::{Front, canonical};
use super::tls;
use super::transport::{self, Stream, Transport};

/// Servers tried for one connection at the most.
const CANDIDATES_MAX: usize = 8;

/// What is wanted of a pool.
#[derive(Debug, Clone, Copy)]
pub struct Want {
    /// Index in the snapshot.
    pub pool: usize,
    /// Hash of what the choice sticks to.
    pub key: Option<u64>,
    /// A member asked for by cookie, tried first if it may be used.
    pub chosen: Option<usize>,
    /// Bytes for the server are ready to follow at once.
    pub speaks_first: bool,
}

/// A claim on a server, given back when dropped.
#[derive(Debug)]
pub struct Lease {
    /// Whom to give it back to; `None` once it was passed on.
    core: Option<Rc<Core>>,
    id: ServerId,
}

impl Lease {
    pub(super) fn new(core: &Rc<Core>, id: ServerId) -> Self {
        core.lease(id);
        Self { core: Some(Rc::clone(core)), id }
    }

    /// Passes the claim to the slab, which gives it back when the pipe ends.
    pub fn keep(mut self) -> ServerId {
        self.core = None;
        self.id
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(core) = &self.core {
            core.release(self.id);
        }
    }
}

/// The client on whose behalf a server is dialled: what a PROXY header tells.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    pub fd: RawFd,
    pub front: &'a Front,
}

/// A connected server.
#[derive(Debug)]
pub struct Dialled {
    server: Transport,
    lease: Lease,
    /// Index of the server in its pool.
    pub member: usize,
    /// The PROXY header, still to be sent before anything else: where there is TLS it was sent
    /// before the handshake.
    pub preface: Vec<u8>,
}

impl Dialled {
    pub fn id(&self) -> ServerId {
        self.lease.id
    }

    pub fn into_parts(self) -> (Transport, Lease) {
        (self.server, self.lease)
    }
}

/// The key that a client's address gives, where it is known.
pub fn source_key(conn: &Accepted, front: &Front) -> Option<u64> {
    let source = front.told.map(|(source, _)| source).or(conn.client)?;
    Some(balance::key_of_source(canonical(source.ip())))
}

/// Connects to a server of the pool.
///
/// # Errors
/// How the connection ended: no server to dial, or none that answered; the last candidate's cause.
pub async fn dial(
    core: &Rc<Core>,
    conn: &Accepted,
    want: Want,
    client: Client<'_>,
) -> Result<Dialled, Ending> {
    conn.failed.set(None);
    let mut tried = Vec::new();
    let mut last = Ending::proxy(Stage::Pick, Cause::PoolEmpty);
    let mut chosen = want.chosen;
    while tried.len() < CANDIDATES_MAX {
        let member = match pick(core, conn, want, chosen.take(), &tried) {
            Pick::Server(member) => member,
            Pick::Empty => return Err(Ending::proxy(Stage::Pick, Cause::PoolEmpty)),
            Pick::Full if tried.is_empty() => {
                return Err(Ending::proxy(Stage::Pick, Cause::PoolFull));
            }
            Pick::Full | Pick::Exhausted => return Err(last),
        };
        let id = conn.snapshot.pools[want.pool].group.members()[member].id;
        let lease = Lease::new(core, id);
        let again = !tried.is_empty();
        match attempt(core, conn, want, member, again, client).await {
            Ok((server, preface)) => {
                core.dialled(id, None);
                conn.failed.set(None);
                return Ok(Dialled { server, lease, member, preface });
            }
            // The core is stopping and ended the dial itself.
            Err(cause) if core.is_stopping() => return Err(Ending::server(Stage::Dial, cause)),
            Err(cause) => {
                core.counters.dial_failures.inc();
                core.with_server(id, |counters| counters.dial_failures.inc());
                last = if is_ours(cause) {
                    // What we ran out of is no fault of the server's.
                    Ending::proxy(Stage::Dial, cause)
                } else {
                    core.dialled(id, Some(cause));
                    Ending::server(Stage::Dial, cause)
                };
                conn.failed.set(Some(id));
                tried.push(member);
            }
        }
    }
    Err(last)
}

/// The server that a connection would be dialled to, for a caller that may have one kept for it.
///
/// # Errors
/// There is none.
pub fn choose(core: &Rc<Core>, conn: &Accepted, want: Want) -> Result<usize, Ending> {
    match pick(core, conn, want, want.chosen, &[]) {
        Pick::Server(member) => Ok(member),
        Pick::Empty => Err(Ending::proxy(Stage::Pick, Cause::PoolEmpty)),
        Pick::Full | Pick::Exhausted => Err(Ending::proxy(Stage::Pick, Cause::PoolFull)),
    }
}

fn pick(
    core: &Rc<Core>,
    conn: &Accepted,
    want: Want,
    chosen: Option<usize>,
    tried: &[usize],
) -> Pick {
    let ledger = core.ledger.borrow();
    let group = &conn.snapshot.pools[want.pool].group;
    if let Some(member) = chosen
        && group.sticky(member, &*ledger)
    {
        return Pick::Server(member);
    }
    core.with_table(|table| {
        // A connection born under an older snapshot may have pools the table has not.
        let mut spare = balance::Cursor::new(core.index);
        let cursor = table.cursors.get_mut(want.pool).unwrap_or(&mut spare);
        group.pick(cursor, &*ledger, want.key, fastrand::u64(..), tried)
    })
}

/// One attempt at one server: the connection, and what is still to be said before all else.
async fn attempt(
    core: &Rc<Core>,
    conn: &Accepted,
    want: Want,
    member: usize,
    again: bool,
    client: Client<'_>,
) -> Result<(Transport, Vec<u8>), Cause> {
    core.counters.dials.inc();
    if again {
        core.counters.dial_retries.inc();
    }
    let plan = &conn.snapshot.plan.pools[want.pool];
    let (fd, dialling) = begin(core, conn, want, member).map_err(|e| cause_of(&e))?;
    let stream = Stream::new(core, Owned::new(fd));
    let guard = core.guard(fd, conn.snapshot.plan.timeouts.connect);
    if dialling == Dialling::Pending {
        // A server on this machine has answered by now.
        let events = match socket::events(fd, POLL_OUT) {
            0 => core.ready(fd, POLL_OUT).await,
            events => events as i32,
        };
        if guard.has_passed() {
            return Err(Cause::Timeout);
        }
        if events & POLL_FAILED != 0
            && let Some(error) = socket::take_error(fd)
        {
            return Err(cause_of(&error));
        }
    }
    if let ServerAddress::Inet(address) = &plan.servers[member].address
        && socket::has_met_itself(fd, *address)
    {
        return Err(Cause::Refused);
    }
    let mut preface = Vec::new();
    if let Some(version) = plan.send_proxy {
        client.front.announce(version, client.fd, &mut preface);
    }
    let Some(tls) = &conn.snapshot.pools[want.pool].tls else {
        return Ok((Transport::plain(stream), preface));
    };
    let told = stream.write_all(&preface).await;
    told.map_err(|error| transport::cause(&error))?;
    let secured = tls::to_server(core, &stream, tls, member, &guard).await?;
    Ok((Transport::tls(stream, secured), Vec::new()))
}

fn begin(
    core: &Rc<Core>,
    conn: &Accepted,
    want: Want,
    member: usize,
) -> io::Result<(RawFd, Dialling)> {
    let plan = &conn.snapshot.plan.pools[want.pool];
    match &plan.servers[member].address {
        ServerAddress::Inet(address) => {
            let speaks_first = want.speaks_first || plan.send_proxy.is_some() || plan.tls.is_some();
            dial_from(core, plan, want.pool, *address, speaks_first)
        }
        ServerAddress::Unix(path) => socket::dial_unix(path),
    }
}

/// Dials from the pool's source addresses in turn; one that has no port left is passed over.
fn dial_from(
    core: &Rc<Core>,
    plan: &Pool,
    pool: usize,
    server: std::net::SocketAddr,
    speaks_first: bool,
) -> io::Result<(i32, Dialling)> {
    let fits = |source: &&std::net::IpAddr| source.is_ipv4() == server.is_ipv4();
    let sources: Vec<_> = plan.source.iter().filter(fits).collect();
    if sources.is_empty() {
        return socket::dial(server, None, speaks_first);
    }
    let mut outcome = Err(io::ErrorKind::AddrNotAvailable.into());
    for _ in 0..sources.len() {
        let place = core.with_table(|table| {
            let mut spare = 0;
            let next = table.sources.get_mut(pool).unwrap_or(&mut spare);
            *next = next.wrapping_add(1);
            *next
        });
        outcome = socket::dial(server, Some(*sources[place % sources.len()]), speaks_first);
        match &outcome {
            Err(e) if cause_of(e) == Cause::NoPorts => {}
            _ => break,
        }
    }
    outcome
}

impl Core {
    /// Tells control how a connect went: every failure, and successes while one is remembered.
    fn dialled(&self, id: ServerId, fault: Option<Cause>) {
        let mut failed = self.failed.borrow_mut();
        let news = if fault.is_none() { failed.remove(&id) } else { failed.insert(id) | true };
        drop(failed);
        if news {
            self.report(Report::Dialled { id, fault });
        }
    }
}

/// Why a connect failed.
pub fn cause_of(error: &io::Error) -> Cause {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => Cause::Refused,
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EACCES | libc::EPERM) => {
            Cause::Unreachable
        }
        Some(libc::ETIMEDOUT) => Cause::Timeout,
        // A Unix socket whose queue is full answers EAGAIN, a TCP one out of ports too.
        Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE) => Cause::NoPorts,
        Some(libc::EMFILE | libc::ENFILE) => Cause::NoDescriptors,
        Some(libc::ENOMEM | libc::ENOBUFS) => Cause::NoMemory,
        Some(libc::ENOENT) => Cause::SocketMissing,
        _ => Cause::DialFailed,
    }
}

/// Whether a connect failed for want of something of ours.
fn is_ours(cause: Cause) -> bool {
    matches!(cause, Cause::NoPorts | Cause::NoDescriptors | Cause::NoMemory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_ran_out_of_is_not_held_against_the_server() {
        let cause = |number| cause_of(&io::Error::from_raw_os_error(number));
        for ours in [
            libc::EADDRNOTAVAIL,
            libc::EADDRINUSE,
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOMEM,
            libc::ENOBUFS,
        ] {
            assert!(is_ours(cause(ours)), "{ours}");
        }
        for theirs in [libc::ECONNREFUSED, libc::ETIMEDOUT, libc::EHOSTUNREACH, libc::ENOENT] {
            assert!(!is_ours(cause(theirs)), "{theirs}");
        }
    }
}
