//! The L7 young life of a client's connection: its requests, one after another, each read, judged,
//! placed and served, until one becomes a WebSocket or the connection ends.

mod log;
mod onward;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::plan::{Listener, RelayUnit, Service};
use crate::core::wire::terms::Terms;
use crate::core::{Core, Guard};
use crate::meter::{Cause, Ending, Handshake, Stage};
use crate::proto::http::{Body, Connection, HeadLimits, RequestHead, parse_request};
use crate::proto::upgrade::{self, RequestFault, UpgradeRequest};
use crate::sys::socket;

use super::Accepted;
use super::answer::{Manner, Refusal, prefers_json};
use super::channel::{Channel, Inlet};
use super::choose::{self, Place};
use super::flight::{Asked, Record};
use super::front::{Front, canonical};
use super::head::{self, Found, Lack};
use super::http::{After, Serving};
use super::transport::Transport;
use super::upgrade::{Upgraded, graduate};

/// How long a client that was refused may still send before its connection is closed, and how
/// much: enough for it to read the answer before a reset could take it away.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// A client and what is known of it for all its requests.
struct Visit<'a> {
    core: &'a Rc<Core>,
    conn: &'a mut Accepted,
    client: Channel,
    inlet: Inlet,
    front: Front,
    /// The client's address: what a PROXY header told, or the socket's own.
    address: IpAddr,
    /// Port it came in by.
    port: u16,
    /// Its address is in `trusted`: its forwarding headers are believed. (That a trusted
    /// balancer told its address by a PROXY header is not enough: it need not have read any of
    /// them. Nor is a client that such a header relays without naming it.)
    trusted: bool,
    /// Its listener has left the file: there is no next request.
    is_last: bool,
}

/// A request that may go on, and where to.
struct Judged<'h> {
    asked: Asked,
    /// Its head as the server will see it.
    out: Vec<u8>,
    wants: Option<UpgradeRequest<'h>>,
    place: Place,
}

/// What the log is told of a request, beside its head.
#[derive(Default)]
struct Told {
    record: Record,
    /// Its id, and its route's terms, once they are known.
    known: Option<(Rc<str>, Arc<Terms>)>,
}

/// What a request came to.
enum Step {
    After(After),
    Upgraded(Box<Upgraded>),
}

/// Serves a client until it graduates or ends.
///
/// # Errors
/// How its connection ended.
pub async fn serve(
    core: &Rc<Core>,
    conn: &mut Accepted,
    client: Transport,
    mut front: Front,
    guard: Guard,
) -> Result<(), Ending> {
    // A client that has left already has no address to log and to forward.
    let peer = conn.client.or_else(|| socket::peer(client.fd()));
    let peer = peer.ok_or(Ending::client(Stage::Head, Cause::Reset))?;
    conn.client = Some(peer);
    let told = front.told.map(|(_, to)| to.port());
    let port = told.unwrap_or_else(|| port_of(&conn.listener, client.fd()));
    let address = canonical(peer.ip());
    let trusted = believes(&conn.listener, &front, address);
    let inlet = Inlet::new(std::mem::take(&mut front.tail));
    let client = Channel::new(client);
    let is_last = false;
    let mut visit = Visit { core, conn, client, inlet, front, address, port, trusted, is_last };
    // A head that comes too late is answered.
    guard.keep_speaking();
    let mut first = Some(guard);
    loop {
        let found = visit.next_head(first.take()).await?;
        match visit.request(found).await {
            Step::After(After::Again) => {}
            Step::After(After::End(ending)) => {
                if matches!(ending.cause, Cause::Done | Cause::UpgradeRefused) {
                    visit.part().await;
                }
                return Err(ending);
            }
            Step::After(After::Refuse(refusal, manner, ending)) => {
                visit.refuse(refusal, manner).await;
                return Err(ending);
            }
            Step::After(After::Decline(refusal, manner)) => visit.decline(refusal, manner).await?,
            Step::Upgraded(upgraded) => {
                let Visit { core, conn, client, inlet, .. } = visit;
                graduate(core, conn, client, inlet, *upgraded);
                return Ok(());
            }
        }
    }
}

impl Visit<'_> {
    /// Reads the next head. The first one falls inside the handshake's deadline; before a later
    /// one the client may be silent for `keepalive`, holding no buffer of ours.
    async fn next_head(&mut self, first: Option<Guard>) -> Result<Found, Ending> {
        let ended = |cause| Ending::client(Stage::Head, cause);
        let timeouts = &self.conn.snapshot.plan.timeouts;
        let is_first = first.is_some();
        let guard = match first {
            Some(guard) => guard,
            None => {
                // Some clients end a body with an empty line: it begins no request.
                if self.inlet.held().starts_with(b"\r\n") {
                    self.inlet.take(2);
                }
                self.inlet.rest();
                let guard = self.core.idle_guard(self.client.fd(), timeouts.keepalive);
                if self.inlet.is_empty() {
                    self.client.readable().await;
                } else {
                    // A client that pipelines requests which are answered here never waits for the
                    // ring by itself: other connections get their turn.
                    self.core.give_way().await;
                }
                let is_over = guard.has_passed();
                drop(guard);
                if is_over {
                    if self.client.is_tls() {
                        self.part().await;
                    }
                    return Err(Ending::client(Stage::Http, Cause::KeepaliveOver));
                }
                let guard = self.core.guard(self.client.fd(), timeouts.handshake);
                guard.keep_speaking();
                guard
            }
        };
        let limits = limits(&self.conn.listener);
        let lack = match head::read(&self.client, &mut self.inlet, &limits).await {
            Ok(found) => return Ok(found),
            Err(lack) => lack,
        };
        let late = guard.has_passed();
        drop(guard);
        let refusal = match &lack {
            Lack::Silent(_) => None,
            _ if late => Some(Refusal::new(408, "The request's head did not come in time.")),
            Lack::Bad(fault) => Some(Refusal::new(fault.status(), head::sentence_of(*fault))),
            Lack::Cut | Lack::Failed(_) => None,
        };
        match refusal {
            Some(refusal) => {
                let manner = self.manner_of_unread(self.inlet.held());
                self.refuse(refusal, manner).await;
            }
            // Behind a session the end is told; without one the close itself is the FIN.
            None if self.client.is_tls() => self.part().await,
            None => {}
        }
        Err(match lack {
            _ if late => ended(Cause::Timeout),
            Lack::Silent(_) if is_first => ended(Cause::Quiet),
            Lack::Silent(_) => Ending::client(Stage::Http, Cause::Done),
            Lack::Cut => ended(Cause::Cut),
            Lack::Failed(error) => ended(super::transport::cause(&error)),
            Lack::Bad(fault) => ended(head::cause_of(fault)),
        })
    }

    /// Judges, places and serves the request whose head is at the front of the inlet.
    async fn request(&mut self, found: Found) -> Step {
        self.core.counters.requests.inc();
        self.refresh();
        let begun = Instant::now();
        // Apart, so that the inlet is free for the body while facts still point into the head.
        let apart = self.inlet.set_apart(found.used);
        let bytes = &apart[found.head];
        let mut told = Told::default();
        let step = match self.judge(bytes) {
            Ok(judged) => self.served(judged, &mut told).await,
            Err(after) => Step::After(after),
        };
        if let Step::After(after) = &step {
            self.log(bytes, begun, told, after);
        }
        step
    }

    async fn served(&mut self, judged: Judged<'_>, told: &mut Told) -> Step {
        let terms = Arc::clone(&self.conn.birth.terms[judged.place.rule]);
        let mut serving = Serving {
            core: self.core,
            limits: limits(&self.conn.listener),
            conn: self.conn,
            front: &self.front,
            client: &self.client,
            terms: &terms,
            place: judged.place,
            record: Record::default(),
        };
        let Judged { asked, out, wants, .. } = judged;
        let step = match &wants {
            None => Step::After(serving.exchange(&asked, out, &mut self.inlet).await),
            Some(wants) => {
                let early = !self.inlet.is_empty();
                match serving.upgrade(&asked, &out, wants, early).await {
                    Ok(upgraded) => Step::Upgraded(Box::new(upgraded)),
                    Err(after) => Step::After(after),
                }
            }
        };
        let (record, id) = (serving.record, Rc::clone(&asked.manner.id));
        *told = Told { record, known: Some((id, terms)) };
        step
    }

    /// All that is decided from the head alone, in this order: is it HTTP, is it an upgrade, may
    /// it go any further, is there a route, may this origin, which pool.
    fn judge<'h>(&self, bytes: &'h [u8]) -> Result<Judged<'h>, After> {
        let conn = &*self.conn;
        let Service::L7(l7) = &conn.listener.service else {
            return Err(After::End(Ending::proxy(Stage::Head, Cause::Internal)));
        };
        let head = parse_request(bytes, &limits(&conn.listener)).map_err(|fault| {
            let refusal = Refusal::new(fault.status(), head::sentence_of(fault));
            let ending = Ending::client(Stage::Head, head::cause_of(fault));
            After::Refuse(refusal, self.manner_of_unread(bytes), ending)
        })?;
        let manner = self.manner(Some(&head));
        let refuse = |refusal, stage, cause| {
            After::Refuse(refusal, manner.clone(), Ending::client(stage, cause))
        };
        let wants = upgrade::request(&head);
        let keep_alive = head.keep_alive && !self.is_last;
        // What came with an upgrade is no request.
        let is_clear = head.body.is_empty() && (!head.upgrade || self.inlet.is_empty());
        let decline = |refusal, stage, cause| {
            if keep_alive && is_clear {
                return After::Decline(refusal, manner.clone());
            }
            refuse(refusal, stage, cause)
        };
        if head.max_forwards == Some(0) {
            // RFC 9110 §7.6.2: it is answered here. A TRACE is not echoed: its head may hold what
            // the client's own scripts must not see (§9.3.8).
            return Err(if head.method == "TRACE" {
                decline(Refusal::new(405, "TRACE is not served."), Stage::Head, Cause::Method)
            } else {
                decline(Refusal::new(200, ""), Stage::Http, Cause::Done)
            });
        }
        let rule = choose::rule(l7, &head).map_err(|(refusal, cause)| match cause {
            Cause::NoRoute => decline(refusal, Stage::Route, cause),
            _ => refuse(refusal, Stage::Route, cause),
        })?;
        let terms = &conn.birth.terms[rule];
        let count = |result| terms.route.handshakes.count(result);
        let mut wants = wants.map_err(|fault| {
            count(Handshake::Invalid);
            let refusal = Refusal::new(fault.status(), sentence_of(fault));
            let invalid = fault != RequestFault::Version;
            let cause = if invalid { Cause::UpgradeInvalid } else { Cause::UpgradeVersion };
            refuse(refusal, Stage::Upgrade, cause)
        })?;
        if wants.is_some() {
            choose::origin(&l7.rules[rule], &head).map_err(|(refusal, cause)| {
                count(Handshake::OriginRefused);
                refuse(refusal, Stage::Route, cause)
            })?;
            if self.inlet.held().len() > EARLY_MAX {
                count(Handshake::Invalid);
                let refusal = Refusal::new(400, "Too much was sent before the upgrade.");
                return Err(refuse(refusal, Stage::Upgrade, Cause::EarlyTooMuch));
            }
        } else {
            terms.route.requests.inc();
        }
        let ledger = self.core.ledger.borrow();
        let matched = (rule, &*l7.rules[rule]);
        let random = fastrand::u64(..);
        let place = choose::place(&conn.snapshot, matched, &head, self.address, &*ledger, random);
        let place = place.ok_or_else(|| {
            let refusal = super::flight::refusal(Cause::PoolEmpty);
            refuse(refusal, Stage::Pick, Cause::PoolEmpty)
        })?;
        let mut out = Vec::with_capacity(bytes.len() + 512);
        let upgrades = wants.is_some();
        let onward = if upgrades { Connection::Upgrade } else { Connection::Silent };
        let policed = wants.as_mut().filter(|_| terms.relay == RelayUnit::Frames);
        let offer = policed.and_then(|wants| wants.narrow(&head));
        self.rewrite(&head, onward, &manner.id, offer, &mut out);
        let mut asked = Asked { keep_alive, ..Asked::new(&head, manner) };
        if head.body == Body::Chunked {
            asked.refused = self.refused_in_trailers(&head);
        }
        Ok(Judged { asked, out, wants, place })
    }

    /// A keep-alive client sees the present state of the pools with every request. Its listener
    /// stays the one it came in by; where that is no more, this request is its last.
    fn refresh(&mut self) {
        // Nearly always it is the same one: no count that all cores share is touched to see that.
        if self.core.with_table(|table| table.snapshot.version) == self.conn.snapshot.version {
            return;
        }
        let snapshot = self.core.snapshot();
        let listeners = &snapshot.plan.listeners;
        let found = listeners.iter().position(|listener| listener.name == self.conn.listener.name);
        let found = found.filter(|index| matches!(listeners[*index].service, Service::L7(_)));
        let Some(index) = found else {
            self.is_last = true;
            return;
        };
        self.conn.listener = Arc::clone(&listeners[index]);
        self.conn.listener_index = index;
        self.conn.birth = self.core.with_table(|table| Rc::clone(&table.births[index]));
        self.conn.snapshot = snapshot;
        self.trusted = believes(&self.conn.listener, &self.front, self.address);
    }

    fn manner(&self, head: Option<&RequestHead<'_>>) -> Manner {
        let json = match &self.conn.listener.service {
            Service::L7(l7) => l7.http.json_errors,
            Service::L4 { .. } => false,
        };
        let prefers = head.and_then(|head| head.value("accept")).is_some_and(prefers_json);
        Manner {
            id: self.id(head),
            json: json || prefers,
            head_only: head.is_some_and(RequestHead::is_head),
            close: true,
        }
    }

    /// The same where the head, which begins with `bytes`, is illegal or not whole. Also who asked
    /// in vain with HEAD waits for no body (RFC 9110 §9.3.2).
    fn manner_of_unread(&self, bytes: &[u8]) -> Manner {
        Manner { head_only: asks_for_head(bytes), ..self.manner(None) }
    }

    /// Tells the client why, and ends its connection so that it can read that.
    async fn refuse(&mut self, refusal: Refusal, manner: Manner) {
        let guard = self.core.guard(self.client.fd(), LINGER);
        let manner = Manner { close: true, ..manner };
        let bytes = refusal.compose(&manner, fastrand::u64(..));
        if self.client.write_all(&bytes).await.is_ok() {
            self.client.finish().await;
            self.linger(&guard).await;
        }
    }

    /// Ends a connection on which nothing more is to be said but that: `close_notify` if there is
    /// TLS (RFC 8446 section 6.1, RFC 9112 section 9.8), then FIN, so that the client can read all
    /// of it. Who takes no byte, or goes on sending, is waited for no longer than [`LINGER`].
    async fn part(&mut self) {
        let guard = self.core.guard(self.client.fd(), LINGER);
        self.client.finish().await;
        if !self.inlet.is_empty() || !self.client.is_quiet() {
            self.linger(&guard).await;
        }
    }

    /// Reads and forgets what the client still sends: closing over unread bytes would be a reset,
    /// and that may overtake the answer.
    async fn linger(&mut self, guard: &Guard) {
        let mut read = 0;
        while read < LINGER_BYTES && !guard.has_passed() {
            self.inlet = Inlet::default();
            match self.client.read(&mut self.inlet, LINGER_BYTES / 64).await {
                Ok(0) => return,
                Ok(n) => read += n,
                // A session that broke opens nothing more, and its client is to read the alert.
                Err(_) => match self.client.forget(LINGER_BYTES / 64).await {
                    Ok(n @ 1..) => read += n,
                    Ok(0) | Err(_) => return,
                },
            }
        }
    }

    /// Tells the client why; it may ask again.
    async fn decline(&mut self, refusal: Refusal, manner: Manner) -> Result<(), Ending> {
        let manner = Manner { close: false, ..manner };
        let guard = self.core.guard(self.client.fd(), LINGER);
        let bytes = refusal.compose(&manner, fastrand::u64(..));
        let written = self.client.write_all(&bytes).await;
        drop(guard);
        written.map_err(|e| Ending::client(Stage::Http, super::transport::cause(&e)))
    }
}

/// Whether what came of a head is of a HEAD, behind the empty line that may precede it.
fn asks_for_head(bytes: &[u8]) -> bool {
    bytes.strip_prefix(b"\r\n").unwrap_or(bytes).starts_with(b"HEAD ")
}

/// Bytes a client may send before its upgrade is answered.
const EARLY_MAX: usize = 16 << 10;

/// The port a client came in by. A listener with one port need not ask the kernel.
fn port_of(listener: &Listener, client: RawFd) -> u16 {
    let first = listener.bind.first().map_or(0, SocketAddr::port);
    if first != 0 && listener.bind.iter().all(|bind| bind.port() == first) {
        return first;
    }
    socket::local(client).map_or(0, |local| local.port())
}

/// Whether the forwarding fields of a client's requests are believed. The address of a client that
/// nobody named is its balancer's, and no word for what it sends.
fn believes(listener: &Listener, front: &Front, client: IpAddr) -> bool {
    !front.unnamed && trusts(listener, client)
}

fn trusts(listener: &Listener, peer: IpAddr) -> bool {
    listener.trusted.iter().any(|net| net.contains(&peer))
}

fn limits(listener: &Listener) -> HeadLimits {
    match &listener.service {
        Service::L7(l7) => HeadLimits {
            bytes: l7.http.head_bytes,
            fields: l7.http.headers,
            target: l7.http.target_bytes,
        },
        Service::L4 { .. } => HeadLimits::default(),
    }
}

fn sentence_of(fault: RequestFault) -> &'static str {
    match fault {
        RequestFault::Method => "A WebSocket handshake is a GET.",
        RequestFault::OldHttp => "A WebSocket handshake needs HTTP/1.1.",
        RequestFault::Body => "A WebSocket handshake has no body.",
        RequestFault::Connection => "The Connection header does not name upgrade.",
        RequestFault::KeyMissing => "Sec-WebSocket-Key is missing.",
        RequestFault::KeyRepeated => "There is more than one Sec-WebSocket-Key.",
        RequestFault::KeyInvalid => "Sec-WebSocket-Key is not sixteen bytes in base64.",
        RequestFault::VersionRepeated => "There is more than one Sec-WebSocket-Version.",
        RequestFault::Version => "Only Sec-WebSocket-Version 13 is spoken here.",
        RequestFault::Offer => "A subprotocol or extension offered is malformed.",
    }
}
