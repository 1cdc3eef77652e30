//! The end of the young life: both sockets, the bytes read too far and what was agreed become an
//! entry of the slab. Nothing of them may be in the runtime's ring.

use std::rc::Rc;
use std::sync::Arc;

use crate::balance::ServerId;
use crate::config::snapshot::{LogEvent, LogLine, Report};
use crate::core::Core;
use crate::core::wire::entry::{End, Flow, Life, NO_RULE};
use crate::core::wire::{Extra, Pipe};
use crate::sys::socket::Owned;

use super::Accepted;
use super::dial::{Dialled, Lease};
use super::transport::Transport;

/// Graduates a pipe of bytes. `preface` goes to the server first, then `tail`, which the client
/// sent already.
pub fn pipe(
    core: &Rc<Core>,
    conn: &Accepted,
    client: Owned,
    dialled: Dialled,
    preface: &[u8],
    tail: &[u8],
) {
    if core.is_logged(conn.id, None) {
        log_open(core, conn, dialled.id(), None);
    }
    let (server, lease) = dialled.into_parts();
    let mut wire = core.wire.borrow_mut();
    let now = wire.now();
    let entry = Pipe {
        ends: [End::new(client.release()), End::new(server.release())],
        flows: [Flow::new(), Flow::new()],
        extra: None,
        birth: Rc::clone(&conn.birth),
        id: conn.id,
        server: lease.keep(),
        born: now,
        active: now,
        life: Life::Open,
        rule: NO_RULE,
        ending: None,
        ticket: conn.ticket,
    };
    wire.adopt(entry, preface, [tail, &[]]);
}

/// Two connections of the L7 young life, and the claim on the server.
pub struct Both {
    pub client: Transport,
    pub server: Transport,
    pub lease: Lease,
}

/// Graduates a WebSocket that came by `rule`. `tails` are bytes read too far, of the client and of
/// the server.
pub fn web(
    core: &Rc<Core>,
    conn: &Accepted,
    both: Both,
    extra: Option<Box<Extra>>,
    rule: usize,
    tails: [&[u8]; 2],
) {
    let Both { client, server, lease } = both;
    let ((client, _), (server, _)) = (client.into_parts(), server.into_parts());
    let (client, server) = (client.into_socket(), server.into_socket());
    let mut wire = core.wire.borrow_mut();
    let now = wire.now();
    let entry = Pipe {
        ends: [End::new(client.release()), End::new(server.release())],
        flows: [Flow::new(), Flow::new()],
        extra,
        birth: Rc::clone(&conn.birth),
        id: conn.id,
        server: lease.keep(),
        born: now,
        active: now,
        life: Life::Open,
        rule: rule as u16,
        ending: None,
        ticket: conn.ticket,
    };
    let logged = (entry.server, entry.terms().map(|terms| Arc::clone(&terms.label)));
    if let Some(terms) = entry.terms() {
        terms.began();
    }
    wire.adopt(entry, &[], tails);
    drop(wire);
    if core.is_logged(conn.id, None) {
        log_open(core, conn, logged.0, logged.1);
    }
}

fn log_open(core: &Rc<Core>, conn: &Accepted, server: ServerId, route: Option<Arc<str>>) {
    core.report(Report::Line(LogLine {
        core: core.index,
        id: conn.id,
        event: LogEvent::Open,
        listener: Arc::clone(&conn.birth.listener),
        server: core.server_name(server),
        client: conn.client,
        route,
    }));
}
