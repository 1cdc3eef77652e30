//! The young life: from accept to an established pipe, in milliseconds. Plain async functions that
//! may use buffers freely; each stage returns the next one's value or how the connection ended.

pub mod answer;
pub mod body;
pub mod channel;
pub mod choose;
pub mod dial;
pub mod flight;
pub mod front;
pub mod graduate;
pub mod head;
pub mod http;
pub mod idle;
pub mod tls;
pub mod transport;
pub mod upgrade;
pub mod web;

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::balance::{Policy, ServerId};
use crate::config::plan::{Listener, Service};
use crate::config::snapshot::Snapshot;
use crate::meter::{Cause, Ending, Stage, Ticket};
use crate::sys::socket::{self, Owned};

use self::front::Front;
use self::transport::{Stream, Transport};
use super::wire::Birth;
use super::{Core, Guard};

/// What is known of a connection from the start.
#[derive(Debug)]
pub struct Accepted {
    /// Identity in logs.
    pub id: u64,
    pub listener: Arc<Listener>,
    /// Index of the listener in the snapshot's plan.
    pub listener_index: usize,
    /// What it was born under; a reload does not change it.
    pub snapshot: Arc<Snapshot>,
    pub birth: Rc<Birth>,
    /// The client's address, once it was needed.
    pub client: Option<SocketAddr>,
    pub ticket: Ticket,
    pub since: Instant,
    /// The server last dialled in vain, for the log.
    pub failed: Cell<Option<ServerId>>,
}

/// The whole young life of one connection.
pub async fn live(core: Rc<Core>, mut conn: Accepted, client: Owned) {
    let outcome = serve(&core, &mut conn, client).await;
    core.counters.young.dec();
    if let Err(ending) = outcome {
        core.ended_young(&conn, ending);
    }
}

/// Front, TLS, then the service; `Ok` means that it graduated (or was counted already).
async fn serve(core: &Rc<Core>, conn: &mut Accepted, client: Owned) -> Result<(), Ending> {
    let guard = core.guard(client.fd(), conn.snapshot.plan.timeouts.handshake);
    let mut front = front::read(core, conn, &client, &guard).await?;
    if let Some((source, _)) = front.told {
        let source = front::canonical(source.ip());
        conn.ticket = conn.birth.limits.ascribe(core.index, conn.ticket, source).map_err(|_| {
            conn.birth.counters.refused.inc();
            Ending::proxy(Stage::Front, Cause::MaxPerSource)
        })?;
    }
    let client = secure(core, conn, client, &mut front, &guard).await?;
    let listener = Arc::clone(&conn.listener);
    match &listener.service {
        Service::L4 { pool } => l4(core, conn, client, front, *pool, guard).await,
        Service::L7(_) => web::serve(core, conn, client, front, guard).await,
    }
}

/// Shakes hands with the client, if the listener ends TLS.
async fn secure(
    core: &Rc<Core>,
    conn: &Accepted,
    client: Owned,
    front: &mut Front,
    guard: &Guard,
) -> Result<Transport, Ending> {
    let stream = Stream::new(core, client);
    if conn.listener.tls.is_none() {
        return Ok(Transport::plain(stream));
    }
    let tls = conn.snapshot.listeners[conn.listener_index].tls.as_ref();
    let tls = tls.ok_or(Ending::proxy(Stage::Tls, Cause::Internal))?;
    let first = std::mem::take(&mut front.tail);
    let whose = (&conn.listener.name, &**tls);
    let secured = tls::from_client(core, &stream, whose, &first, guard).await?;
    Ok(Transport::tls(stream, secured))
}

/// Bytes in, bytes out.
async fn l4(
    core: &Rc<Core>,
    conn: &mut Accepted,
    client: Transport,
    mut front: Front,
    pool: usize,
    guard: Guard,
) -> Result<(), Ending> {
    let by_source = matches!(conn.snapshot.plan.pools[pool].policy, Policy::SourceHash { .. });
    if conn.client.is_none() && (by_source || core.is_logged(conn.id, None)) {
        conn.client = socket::peer(client.fd());
    }
    // A pool that is sticky by a request's own key, of which there is none here, has a ring too: a
    // key made of an address that only the log asked for would be found on it.
    let key = if by_source { dial::source_key(conn, &front) } else { None };
    let want = dial::Want { pool, key, chosen: None, speaks_first: false };
    // Nothing is read while we dial: the client's bytes wait in the kernel.
    drop(guard);
    let whose = dial::Client { fd: client.fd(), front: &front };
    let dialled = dial::dial(core, conn, want, whose).await?;
    let tail = &mut front.tail;
    if !dialled.preface.is_empty() && tail.is_empty() && client.secured().is_none() {
        // What the client has said already goes out in the same write as the header.
        tail.resize(FIRST_READ_BYTES, 0);
        let got = match socket::read_into(client.fd(), tail) {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            // (Whoever asks a socket for its error is the last to hear of it.)
            Err(error) => return Err(Ending::client(Stage::Dial, transport::cause(&error))),
        };
        tail.truncate(got);
    }
    graduate::pipe(core, conn, client, dialled, tail);
    Ok(())
}

/// Bytes of the client's that go out with a PROXY header.
const FIRST_READ_BYTES: usize = 16 << 10;
