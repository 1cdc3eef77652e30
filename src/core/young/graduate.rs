//! The end of the young life: both sockets, the bytes read too far and what was agreed become an
//! entry of the slab. Nothing of them may be in the runtime's ring.

use std::rc::Rc;
use std::sync::Arc;

use crate::balance::ServerId;
use crate::config::snapshot::{LogEvent, LogLine, Report};
use crate::core::Core;
use crate::core::wire::entry::{End, Flow, Life, NO_RULE, Ticks};
use crate::core::wire::relay::Relay;
use crate::core::wire::{CLIENT, Extra, KeepTicket, Pipe, SERVER, Secure, Tail};

use super::Accepted;
use super::dial::{Dialled, Lease};
use super::tls::{Secured, Tickets};
use super::transport::{Stream, Transport};

/// Graduates a pipe of bytes. `tail` is what the client sent already, in plain.
pub fn pipe(
    core: &Rc<Core>,
    conn: &Accepted,
    client: Transport,
    mut dialled: Dialled,
    tail: &[u8],
) {
    if core.is_logged(conn.id, None) {
        log_open(core, conn, dialled.id(), None, None);
    }
    let preface = std::mem::take(&mut dialled.preface);
    let (server, lease) = dialled.into_parts();
    let (ends, sealed, extra) = ends(client, server, None);
    let mut wire = core.wire.borrow_mut();
    let entry = entry(core, conn, (ends, extra), (lease, NO_RULE), wire.now());
    let tails = [
        Tail { plain: tail, sealed: &sealed[CLIENT] },
        Tail { plain: &[], sealed: &sealed[SERVER] },
    ];
    wire.adopt(entry, &preface, tails);
}

/// A pipe as it is born: what it has, and whose claim on which server it takes over.
fn entry(
    core: &Core,
    conn: &Accepted,
    (ends, extra): ([End; 2], Option<Box<Extra>>),
    (lease, rule): (Lease, u16),
    now: Ticks,
) -> Pipe {
    Pipe {
        ends,
        flows: [Flow::default(), Flow::default()],
        extra,
        birth: Rc::clone(&conn.birth),
        id: conn.id,
        client: conn.client.filter(|_| core.logs_connections()).map(Box::new),
        server: lease.keep(),
        born: now,
        active: now,
        life: Life::Open,
        settled: false,
        rule,
        ending: None,
        ticket: conn.ticket,
    }
}

/// Both sockets, the ciphertext of each that was read and not opened, and what the pipe is beside
/// bytes, if it is.
fn ends(
    client: Transport,
    server: Transport,
    relay: Option<Relay>,
) -> ([End; 2], [Vec<u8>; 2], Option<Box<Extra>>) {
    let ((client, from_client), (server, from_server)) = (client.into_parts(), server.into_parts());
    let (client_tls, client_sealed) = secure(from_client);
    let (server_tls, server_sealed) = secure(from_server);
    let more = relay.is_some() || client_tls.is_some() || server_tls.is_some();
    let extra = more.then(|| Box::new(Extra::new(relay, [client_tls, server_tls])));
    let end = |stream: Stream| End::new(stream.into_socket().release());
    ([end(client), end(server)], [client_sealed, server_sealed], extra)
}

/// Two connections of the L7 young life, and the claim on the server.
pub struct Both {
    pub client: Transport,
    pub server: Transport,
    pub lease: Lease,
}

/// Graduates a WebSocket that came by a rule, with a request of this id. `tails` are bytes read too
/// far, of the client and of the server.
pub fn web(
    core: &Rc<Core>,
    conn: &Accepted,
    both: Both,
    relay: Option<Relay>,
    (rule, id): (usize, &str),
    tails: [&[u8]; 2],
) {
    let Both { client, server, lease } = both;
    let (ends, sealed, extra) = ends(client, server, relay);
    let mut wire = core.wire.borrow_mut();
    let entry = entry(core, conn, (ends, extra), (lease, rule as u16), wire.now());
    let logged = (entry.server, entry.terms().map(|terms| Arc::clone(&terms.label)));
    if let Some(terms) = entry.terms() {
        terms.began();
    }
    let tails = [CLIENT, SERVER].map(|end| Tail { plain: tails[end], sealed: &sealed[end] });
    wire.adopt(entry, &[], tails);
    drop(wire);
    if core.is_logged(conn.id, None) {
        log_open(core, conn, logged.0, logged.1, Some(id));
    }
}

/// What the long life keeps of a TLS session, and the ciphertext it has not opened yet.
fn secure(secured: Option<Box<Secured>>) -> (Option<Box<Secure>>, Vec<u8>) {
    let Some(secured) = secured else { return (None, Vec::new()) };
    let Secured { session, tail, tickets, .. } = *secured;
    let tickets = tickets.map(|tickets| tickets as Box<dyn KeepTicket>);
    (Some(Box::new(Secure::new(session, tickets))), tail)
}

impl KeepTicket for Tickets {
    fn keep(&mut self, body: &[u8]) {
        Tickets::keep(self, body);
    }
}

fn log_open(
    core: &Rc<Core>,
    conn: &Accepted,
    server: ServerId,
    route: Option<Arc<str>>,
    request: Option<&str>,
) {
    core.report(Report::Line(LogLine {
        core: core.index,
        id: conn.id,
        event: LogEvent::Open { request: request.map(str::to_owned) },
        listener: Arc::clone(&conn.birth.listener),
        server: core.server_name(server),
        client: conn.client,
        route,
    }));
}
