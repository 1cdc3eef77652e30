//! The end of the young life: both sockets, the bytes read too far and what was agreed become an
//! entry of the slab. Nothing of them may be in the runtime's ring.

use std::rc::Rc;
use std::sync::Arc;

use crate::config::snapshot::{LogEvent, LogLine, Report};
use crate::core::Core;
use crate::core::wire::Pipe;
use crate::core::wire::entry::{End, Flow, Life};
use crate::sys::socket::Owned;

use super::Accepted;
use super::dial::Dialled;

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
        log_open(core, conn, &dialled);
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
        ending: None,
        ticket: conn.ticket,
    };
    wire.adopt(entry, preface, [tail, &[]]);
}

fn log_open(core: &Rc<Core>, conn: &Accepted, dialled: &Dialled) {
    core.report(Report::Line(LogLine {
        core: core.index,
        id: conn.id,
        event: LogEvent::Open,
        listener: Arc::clone(&conn.birth.listener),
        server: core.server_name(dialled.id()),
        client: conn.client,
        route: None,
    }));
}
