//! Plain HTTP/1.1: one request to one server, over a kept connection or a new one, and what both
//! connections are good for afterwards.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use crate::balance::ServerId;
use crate::config::plan::Pool;
use crate::core::Core;
use crate::core::wire::Ticks;
use crate::core::wire::entry::TICKS_PER_SECOND;
use crate::core::wire::terms::Terms;
use crate::meter::{Cause, Ending, Stage};
use crate::proto::http::HeadLimits;

use super::Accepted;
use super::answer::{Manner, Refusal};
use super::body;
use super::channel::{Channel, Inlet};
use super::choose::Place;
use super::dial::{self, Lease, Want};
use super::flight::{self, Answered, Asked, Flight, Record, Sent};
use super::front::Front;

/// A server that will get the request.
pub struct Served {
    pub channel: Channel,
    pub lease: Lease,
    pub id: ServerId,
    pub member: usize,
    /// It carried other requests before.
    pub reused: bool,
    /// What goes out before the request: a PROXY header.
    pub preface: Vec<u8>,
}

impl Served {
    /// The first bytes it gets: its PROXY header, if it wants one, and this message.
    pub fn before<'m>(&self, message: &'m [u8]) -> Cow<'m, [u8]> {
        match &self.preface[..] {
            [] => Cow::Borrowed(message),
            preface => Cow::Owned([preface, message].concat()),
        }
    }
}

/// What is left to do for the client after a request.
#[derive(Debug)]
pub enum After {
    /// Read its next one.
    Again,
    /// Its connection has ended, or is to be ended, like this.
    End(Ending),
    /// Tell it this, then close; the ending is known.
    Refuse(Refusal, Manner, Ending),
    /// Tell it this; its connection is as good as before.
    Decline(Refusal, Manner),
}

/// Which kept connections a request may go out on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// Any: should it be dead, the request can be repeated.
    Any,
    /// One that was in use a moment ago, so that its server has hardly left it.
    Fresh,
    /// None.
    New,
}

/// Kept connections on which a request may fail, before a new one is tried.
const STALE_MAX: usize = 2;
/// How long a connection counts as fresh.
const FRESH: Ticks = TICKS_PER_SECOND;

/// What one request is served with.
pub struct Serving<'a> {
    pub core: &'a Rc<Core>,
    pub conn: &'a mut Accepted,
    pub front: &'a Front,
    pub client: &'a Channel,
    pub limits: HeadLimits,
    pub terms: &'a Terms,
    pub place: Place,
    /// What came of it.
    pub record: Record,
}

impl Serving<'_> {
    fn pool(&self) -> &Pool {
        &self.conn.snapshot.plan.pools[self.place.pool]
    }

    /// Finds a server: the one the client is tied to, or the policy's; over a kept connection if
    /// there is one of this `age`.
    ///
    /// # Errors
    /// There was no server to dial, or none that answered.
    pub async fn connect(&mut self, age: Age) -> Result<Served, Ending> {
        let Place { pool, key, held, .. } = self.place;
        let mut want = Want { pool, key, chosen: held, speaks_first: true };
        if age != Age::New && self.keeps() > 0 {
            let member = dial::choose(self.core, self.conn, want)?;
            let id = self.conn.snapshot.pools[want.pool].group.members()[member].id;
            let since = match age {
                Age::Fresh => self.core.now().saturating_sub(FRESH),
                Age::Any | Age::New => 0,
            };
            let kept = self.core.idle.borrow_mut().take(id, since);
            if let Some(channel) = kept {
                self.core.counters.idle_servers.set(self.core.idle.borrow().len() as u64);
                self.core.counters.idle_reused.inc();
                let lease = Lease::new(self.core, id);
                let preface = Vec::new();
                return Ok(Served { channel, lease, id, member, reused: true, preface });
            }
            want.chosen = Some(member);
        }
        let client = dial::Client { fd: self.client.fd(), front: self.front };
        let dialled = dial::dial(self.core, self.conn, want, client).await;
        let mut dialled = dialled.inspect_err(|_| self.record.server = self.conn.failed.get())?;
        let (id, member) = (dialled.id(), dialled.member);
        let preface = std::mem::take(&mut dialled.preface);
        let (transport, lease) = dialled.into_parts();
        let channel = Channel::new(transport);
        Ok(Served { channel, lease, id, member, reused: false, preface })
    }

    /// How many connections to one server are kept. None where the server was told an address at
    /// the beginning of the connection: the next request may be another client's.
    fn keeps(&self) -> u32 {
        let pool = self.pool();
        if pool.send_proxy.is_some() { 0 } else { pool.idle_connections }
    }

    /// The line that ties the client to `member`, unless its cookie does already.
    pub fn cookie_line(&self, member: usize) -> Option<String> {
        if self.place.held == Some(member) {
            return None;
        }
        let cookie = self.conn.snapshot.pools[self.place.pool].cookie.as_ref()?;
        cookie.set_cookie_header(member).map(str::to_owned)
    }

    /// Serves a plain request whose head goes out as `message` says; `body` is the client's inlet.
    ///
    /// A request may go out once more only if it is whole in our hands and no server can have seen
    /// it: it was on a kept connection, which ended without a word and without a byte acknowledged.
    pub async fn exchange(
        &mut self,
        asked: &Asked,
        mut message: Vec<u8>,
        body: &mut Inlet,
    ) -> After {
        let in_hand = body::in_hand(asked.passage(), body.held());
        if let Some(length) = in_hand {
            message.extend_from_slice(&body.held()[..length]);
            body.take(length);
            self.conn.birth.counters.bytes_from_clients.add(length as u64);
            self.record.bytes_from_client += length as u64;
        }
        for attempt in 0..=STALE_MAX {
            let age = match in_hand {
                _ if attempt == STALE_MAX => Age::New,
                Some(_) => Age::Any,
                None => Age::Fresh,
            };
            let served = match self.connect(age).await {
                Ok(served) => served,
                Err(ending) => return self.unserved(asked, in_hand.is_some(), ending),
            };
            let acknowledged = if served.reused { served.channel.acknowledged() } else { None };
            let cookie = self.cookie_line(served.member);
            let mut inlet = Inlet::default();
            let first = served.before(&message);
            let (answered, sent, told, record) = {
                let mut flight = self.flight(&served, asked);
                flight.set_cookie = cookie.as_deref();
                let rest = in_hand.is_none().then_some(&mut *body);
                let answered = flight.fly(&first, rest, &mut inlet).await;
                let sent = flight.sent.get();
                let told = flight.has_told();
                (answered, sent, told, flight.record.get())
            };
            self.flown(served.id, record);
            let silent = matches!(answered, Answered::Missing { silent: true, .. });
            // A reset says nothing of what was read before it: only what does no more when done
            // twice is tried again behind one. (A write that failed may have been the one to hear
            // of it, after a part had gone out.)
            let reset = sent == Sent::Declined
                || matches!(answered, Answered::Missing { cause: Cause::Reset, .. });
            let unseen = silent
                && served.reused
                && in_hand.is_some()
                && (asked.idempotent || !reset)
                && match (acknowledged, served.channel.acknowledged()) {
                    (Some(before), Some(after)) => before == after,
                    _ => sent == Sent::Declined,
                };
            let server = served.id;
            let is_fit = matches!(answered, Answered::Whole { reusable: true, .. });
            self.let_go(served, is_fit && sent == Sent::Whole);
            if unseen {
                continue;
            }
            return self.landed(asked, server, answered, sent, told);
        }
        // Every attempt but the last may be repeated, and the last one never uses a kept one.
        After::End(Ending::proxy(Stage::Http, Cause::Internal))
    }

    /// A request that is about to go out to a server.
    pub fn flight<'f>(&'f self, served: &'f Served, asked: &'f Asked) -> Flight<'f> {
        let timeouts = &self.conn.snapshot.plan.timeouts;
        let ends = (self.client, &served.channel);
        Flight::new(
            self.core,
            &self.conn.birth.counters,
            served.id,
            timeouts,
            self.limits,
            ends,
            asked,
        )
    }

    /// Takes over what a flight was; an answer of the server's counts however it ended.
    pub fn flown(&mut self, server: ServerId, record: Record) {
        if let Some(status) = record.status {
            self.terms.route.answers.count(status, record.ours);
        }
        let bytes_from_client = self.record.bytes_from_client + record.bytes_from_client;
        self.record = Record { server: Some(server), bytes_from_client, ..record };
    }

    fn unserved(&self, asked: &Asked, whole: bool, ending: Ending) -> After {
        let refusal = flight::refusal(ending.cause);
        self.terms.route.answers.count(refusal.status, true);
        if asked.keep_alive && whole {
            After::Decline(refusal, asked.manner.clone())
        } else {
            After::Refuse(refusal, asked.manner.clone(), ending)
        }
    }

    /// Both ways are over, and the server's connection is seen to: what is left for the client's.
    fn landed(
        &mut self,
        asked: &Asked,
        server: ServerId,
        answered: Answered,
        sent: Sent,
        told: bool,
    ) -> After {
        let client = |cause| After::End(Ending::client(Stage::Http, cause));
        let fell_short = || self.core.with_server(server, |counters| counters.resets.inc());
        if let (Answered::Missing { cause, .. }, true) = (&answered, told) {
            fell_short();
            return After::End(Ending::server(Stage::Http, *cause));
        }
        match (answered, sent) {
            (Answered::Missing { .. }, Sent::ClientGone(cause @ Cause::Timeout)) => {
                self.terms.route.answers.count(408, true);
                let refusal = Refusal::new(408, "The request's body did not come in time.");
                After::Refuse(refusal, asked.manner.clone(), Ending::client(Stage::Http, cause))
            }
            (Answered::Cut(_), Sent::ClientGone(cause)) => {
                self.client.abort();
                client(cause)
            }
            (_, Sent::ClientGone(cause)) | (Answered::ClientGone(cause), _) => client(cause),
            (Answered::Whole { keep, .. }, sent) => {
                let is_clear = matches!(sent, Sent::Whole | Sent::Declined);
                if keep && is_clear { After::Again } else { client(Cause::Done) }
            }
            (Answered::Missing { .. }, Sent::Bad) => {
                self.terms.route.answers.count(400, true);
                let refusal = Refusal::new(400, "The request's body is malformed.");
                After::Refuse(
                    refusal,
                    asked.manner.clone(),
                    Ending::client(Stage::Http, Cause::BodyBad),
                )
            }
            (_, Sent::Bad) => {
                self.client.abort();
                client(Cause::BodyBad)
            }
            (Answered::Missing { cause, .. }, sent) => {
                let ending = Ending::server(Stage::Http, cause);
                let refusal = flight::refusal(cause);
                fell_short();
                self.terms.route.answers.count(refusal.status, true);
                if asked.keep_alive && sent != Sent::Running {
                    After::Decline(refusal, asked.manner.clone())
                } else {
                    After::Refuse(refusal, asked.manner.clone(), ending)
                }
            }
            (Answered::Cut(cause), _) => {
                self.client.abort();
                After::End(Ending::server(Stage::Http, cause))
            }
            (Answered::Switched { .. }, _) => {
                After::End(Ending::proxy(Stage::Http, Cause::Internal))
            }
        }
    }

    /// Keeps a server's connection if it is fit for another request, and takes leave of it if not.
    fn let_go(&self, served: Served, is_fit: bool) {
        let Served { channel, lease, id, .. } = served;
        drop(lease);
        // It was dialled under an older configuration: it is not reused under the new one. And a
        // core that drains, or has hardly a descriptor left, keeps none.
        let plan = &self.conn.snapshot.plan;
        let is_ours = self.core.with_table(|table| Arc::ptr_eq(plan, &table.snapshot.plan));
        if !is_fit || !is_ours || !self.core.is_serving() || self.core.crowding() > 0 {
            return channel.leave();
        }
        let now = self.core.wire.borrow().now();
        let mut idle = self.core.idle.borrow_mut();
        idle.keep(id, channel, self.keeps(), now);
        self.core.counters.idle_servers.set(idle.len() as u64);
    }
}
