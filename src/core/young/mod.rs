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

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::config::plan::{Listener, Service};
use crate::config::snapshot::Snapshot;
use crate::meter::{Ending, Ticket};
use crate::sys::socket::{self, Owned};

use self::transport::{Stream, Transport};
use super::Core;
use super::wire::Birth;

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
    /// The client's address, once somebody asked for it.
    pub client: Option<SocketAddr>,
    pub ticket: Ticket,
    pub since: Instant,
}

/// The whole young life of one connection.
pub async fn live(core: Rc<Core>, mut conn: Accepted, client: Owned) {
    let outcome = serve(&core, &mut conn, client).await;
    core.counters.young.dec();
    if let Err(ending) = outcome {
        core.ended_young(&conn, ending);
    }
}

/// Front, then the service; `Ok` means that it graduated (or was counted already).
async fn serve(core: &Rc<Core>, conn: &mut Accepted, client: Owned) -> Result<(), Ending> {
    let guard = core.guard(client.fd(), conn.snapshot.plan.timeouts.handshake);
    let front = front::read(core, conn, &client, &guard).await?;
    let listener = Arc::clone(&conn.listener);
    match &listener.service {
        Service::L4 { pool } => l4(core, conn, client, front, *pool, guard).await,
        Service::L7(_) => {
            let client = Transport::plain(Stream::new(core, client));
            web::serve(core, conn, client, front, guard).await
        }
    }
}

/// Bytes in, bytes out.
async fn l4(
    core: &Rc<Core>,
    conn: &mut Accepted,
    client: Owned,
    front: front::Front,
    pool: usize,
    guard: super::Guard,
) -> Result<(), Ending> {
    let want = dial::Want { pool, key: dial::source_key(conn, &front), chosen: None };
    // Nothing is read while we dial: the client's bytes wait in the kernel.
    drop(guard);
    let dialled = dial::dial(core, conn, want).await?;
    let mut preface = Vec::new();
    let plan = &conn.snapshot.plan.pools[pool];
    if let Some(version) = plan.send_proxy {
        front.announce(version, client.fd(), &dialled, &mut preface);
    }
    let mut tail = front.tail;
    if !preface.is_empty() && tail.is_empty() {
        // What the client has said already goes out in the same write as the header.
        tail.resize(FIRST_READ_BYTES, 0);
        let got = socket::read_into(client.fd(), &mut tail).unwrap_or(0);
        tail.truncate(got);
    }
    graduate::pipe(core, conn, client, dialled, &preface, &tail);
    Ok(())
}

/// Bytes of the client's that go out with a PROXY header.
const FIRST_READ_BYTES: usize = 16 << 10;
