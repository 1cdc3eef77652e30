//! One request and its answer in flight between a client and a server: the body goes up while the
//! answer comes down, each in a fixed buffer, neither faster than its reader. Both ways always run
//! to their end; what has to stop is told by ending a socket, never by dropping a read.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use crate::config::plan::Timeouts;
use crate::core::{Core, Guard};
use crate::meter::{Cause, ListenerCounters};
use crate::proto::http::rewrite::towards_client;
use crate::proto::http::{
    Body, Connection, Edits, HeadLimits, RequestHead, ResponseHead, Version, parse_response,
    write_response,
};
use crate::proto::upgrade::UpgradeRequest;

use super::answer::{Manner, Refusal};
use super::body::Passage;
use super::channel::{Channel, Inlet, READ_BYTES};
use super::head::{self, Found, Lack};
use super::transport;

/// What is known of a request once its head was read and judged.
#[derive(Debug, Clone)]
pub struct Asked {
    pub id: u64,
    pub version: Version,
    pub is_head: bool,
    pub keep_alive: bool,
    pub body: Body,
    /// Sending it twice does what sending it once does.
    pub idempotent: bool,
    pub manner: Manner,
}

impl Asked {
    pub fn new(head: &RequestHead<'_>, manner: Manner, id: u64) -> Self {
        let repeatable = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"];
        Self {
            id,
            version: head.version,
            is_head: head.is_head(),
            keep_alive: head.keep_alive,
            body: head.body,
            idempotent: repeatable.contains(&head.method),
            manner,
        }
    }
}

/// How the answer went.
#[derive(Debug)]
pub enum Answered {
    /// All of it reached the client. `reusable`: the server's connection may carry another
    /// request; `keep`: the client was told that its own may.
    Whole { status: u16, reusable: bool, keep: bool },
    /// A valid 101 reached the client; what the server's inlet holds beyond `used` is a tunnel's.
    Switched { deflate: bool, used: usize },
    /// Nothing of a final answer went out, and this is why.
    Missing { cause: Cause, untouched: bool },
    /// It stopped in the middle: the client must see that what it got is not all.
    Cut(Cause),
    /// The client takes nothing any more.
    ClientGone(Cause),
}

/// How the request's body went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Running,
    /// The server has all of it.
    Whole,
    /// The client has sent it all, but the server took only a part.
    Declined,
    /// The client stopped in the middle, or for too long.
    ClientGone(Cause),
    /// It is no legal body.
    Bad,
}

/// See the module's words.
pub struct Flight<'a> {
    pub core: &'a Rc<Core>,
    pub counters: &'a ListenerCounters,
    pub timeouts: &'a Timeouts,
    pub limits: HeadLimits,
    pub client: &'a Channel,
    pub server: &'a Channel,
    pub asked: &'a Asked,
    pub upgrade: Option<&'a UpgradeRequest<'a>>,
    /// A line for the answer that ties the client to its server.
    pub set_cookie: Option<&'a str>,
    pub sent: Cell<Sent>,
    /// The answer is over: what is left of the body is only waited for.
    over: Cell<bool>,
    /// The client's body, the client's reading, the server's reading, the server's answer.
    waits: Waits,
}

struct Waits {
    body: Guard,
    client: Guard,
    server: Guard,
    answer: Guard,
}

/// Longer than any connection lives: a guard that is not meant to pass now.
const NEVER: Duration = Duration::from_secs(u32::MAX as u64 / 100);
/// How long a body may still dribble in once its answer is out.
const LINGER: Duration = Duration::from_secs(5);
/// Answers with 1xx that a server may send before the real one.
const INTERIM_MAX: u32 = 16;

impl<'a> Flight<'a> {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        core: &'a Rc<Core>,
        counters: &'a ListenerCounters,
        timeouts: &'a Timeouts,
        limits: HeadLimits,
        client: &'a Channel,
        server: &'a Channel,
        asked: &'a Asked,
    ) -> Self {
        let guard = |channel: &Channel| core.guard(channel.fd(), NEVER);
        let waits = Waits {
            body: guard(client),
            client: guard(client),
            server: guard(server),
            answer: guard(server),
        };
        let sent = if asked.body.is_empty() { Sent::Whole } else { Sent::Running };
        Self {
            core,
            counters,
            timeouts,
            limits,
            client,
            server,
            asked,
            upgrade: None,
            set_cookie: None,
            sent: Cell::new(sent),
            over: Cell::new(false),
            waits,
        }
    }

    /// Sends the request's head, then its body (`body` holds what came of it already) while the
    /// answer comes down through `inlet`.
    pub async fn fly(&self, head: &[u8], body: Option<&mut Inlet>, inlet: &mut Inlet) -> Answered {
        if let Err(error) = self.to_server(head).await {
            let cause = self.cause(&self.waits.server, &error, Cause::Stall);
            // It may have answered and gone: what it said is still to be read.
            if inlet.is_empty() && !self.server_spoke() {
                return Answered::Missing { cause, untouched: true };
            }
        }
        match body {
            Some(body) if self.sent.get() == Sent::Running => {
                both(self.answer_beside(inlet), self.body(body)).await
            }
            _ => {
                self.await_answer();
                self.answer(inlet).await
            }
        }
    }

    /// Whether the client was told already that there is no answer.
    pub fn has_told(&self) -> bool {
        self.over.get()
    }

    fn server_spoke(&self) -> bool {
        !self.server.is_quiet()
    }

    async fn to_server(&self, bytes: &[u8]) -> io::Result<()> {
        self.waits.server.extend(self.timeouts.stall.unwrap_or(NEVER));
        let written = self.server.write_all(bytes).await;
        self.waits.server.extend(NEVER);
        written
    }

    async fn to_client(&self, bytes: &[u8]) -> Result<(), Cause> {
        self.waits.client.extend(self.timeouts.stall.unwrap_or(NEVER));
        let written = self.client.write_all(bytes).await;
        self.waits.client.extend(NEVER);
        self.counters.bytes_to_clients.add(bytes.len() as u64);
        written.map_err(|error| self.cause(&self.waits.client, &error, Cause::Stall))
    }

    fn await_answer(&self) {
        self.waits.answer.extend(self.timeouts.response.unwrap_or(NEVER));
    }

    /// Why reading or writing failed: a deadline of ours, or the peer.
    fn cause(&self, guard: &Guard, error: &io::Error, late: Cause) -> Cause {
        if guard.has_passed() { late } else { transport::cause(error) }
    }

    /// The request's body, until it is complete, goes wrong, or nobody wants it any more.
    async fn body(&self, inlet: &mut Inlet) {
        let mut passage = Passage::new(self.asked.body);
        let mut declined = false;
        loop {
            while !inlet.is_empty() {
                let Ok(portion) = passage.take(inlet.held()) else {
                    self.sent.set(Sent::Bad);
                    // The answer, if one was coming, is to a request that never was.
                    return self.server.end();
                };
                if portion.used == 0 {
                    break;
                }
                if !declined {
                    declined = self.to_server(&inlet.held()[portion.pass]).await.is_err();
                }
                self.counters.bytes_from_clients.add(portion.used as u64);
                inlet.take(portion.used);
            }
            if passage.is_done() {
                self.sent.set(if declined { Sent::Declined } else { Sent::Whole });
                return self.await_answer();
            }
            let patience = self.timeouts.request.unwrap_or(NEVER);
            self.waits.body.extend(if self.over.get() { LINGER } else { patience });
            let cause = match self.client.read(inlet, READ_BYTES).await {
                Ok(0) if self.waits.body.has_passed() => Cause::Timeout,
                Ok(0) => Cause::Cut,
                Ok(_) => continue,
                Err(error) => self.cause(&self.waits.body, &error, Cause::Timeout),
            };
            self.sent.set(Sent::ClientGone(cause));
            return self.server.end();
        }
    }

    /// The answer, and if there is none ours, while the body may still be on its way.
    async fn answer_beside(&self, inlet: &mut Inlet) -> Answered {
        let answered = self.answer(inlet).await;
        if self.sent.get() == Sent::Running {
            if let Answered::Missing { cause, .. } = answered {
                let refusal = refusal(cause).compose(
                    self.asked.id,
                    Manner { close: true, ..self.asked.manner },
                    fastrand::u64(..),
                );
                let _ = self.to_client(&refusal).await;
            }
            self.over.set(true);
            self.waits.body.extend(LINGER);
            self.waits.server.extend(LINGER);
            match answered {
                Answered::Cut(_) | Answered::ClientGone(_) => self.client.abort(),
                _ => self.client.finish().await,
            }
        }
        answered
    }

    async fn answer(&self, inlet: &mut Inlet) -> Answered {
        for _ in 0..INTERIM_MAX {
            let found = match head::read(self.server, inlet, &self.limits).await {
                Ok(found) => found,
                Err(lack) => return self.missing(&lack, inlet),
            };
            let bytes = &inlet.held()[found.head.clone()];
            let Ok(head) = parse_response(bytes, &self.limits, self.asked.is_head) else {
                return Answered::Missing { cause: Cause::HeadBad, untouched: false };
            };
            if head.status == 101 {
                return self.switch(&head, found.used).await;
            }
            if !head.is_interim() {
                return self.pass(found, inlet).await;
            }
            if self.asked.version == Version::Http11 {
                let mut out = Vec::new();
                write_response(&mut out, &head, &Edits::new(Connection::Silent));
                if let Err(cause) = self.to_client(&out).await {
                    return Answered::ClientGone(cause);
                }
            }
            inlet.take(found.used);
            if self.sent.get() != Sent::Running {
                self.await_answer();
            }
        }
        Answered::Missing { cause: Cause::ResponseUnexpected, untouched: false }
    }

    fn missing(&self, lack: &Lack, inlet: &Inlet) -> Answered {
        let late = self.waits.answer.has_passed() || self.waits.server.has_passed();
        let cause = match lack {
            _ if late => Cause::Timeout,
            Lack::Silent | Lack::Cut => Cause::Cut,
            Lack::Bad(_) => Cause::HeadBad,
            Lack::Failed(error) => transport::cause(error),
        };
        Answered::Missing { cause, untouched: inlet.is_empty() && !late }
    }

    /// A 101: the answer to a legal upgrade that it fits, or nothing we believe.
    async fn switch(&self, head: &ResponseHead<'_>, used: usize) -> Answered {
        let bad = Answered::Missing { cause: Cause::UpgradeBad, untouched: false };
        let Some(Ok(agreed)) = self.upgrade.map(|upgrade| upgrade.answer(head)) else {
            return bad;
        };
        let mut edits = Edits::new(Connection::Upgrade);
        if let Some(line) = self.set_cookie {
            edits.add("Set-Cookie", line.as_bytes());
        }
        let mut out = Vec::with_capacity(512);
        write_response(&mut out, head, &edits);
        match self.to_client(&out).await {
            Ok(()) => Answered::Switched { deflate: agreed.deflate, used },
            Err(cause) => Answered::ClientGone(cause),
        }
    }

    /// A final answer, head and body.
    async fn pass(&self, found: Found, inlet: &mut Inlet) -> Answered {
        let bytes = &inlet.held()[found.head.clone()];
        let Ok(head) = parse_response(bytes, &self.limits, self.asked.is_head) else {
            return Answered::Missing { cause: Cause::HeadBad, untouched: false };
        };
        let unwrap = self.asked.version == Version::Http10 && head.body == Body::Chunked;
        let keep = self.asked.keep_alive
            && self.sent.get() != Sent::Running
            && head.body != Body::UntilClose
            && !unwrap
            && self.core.is_serving();
        let mut out = Vec::with_capacity(1024);
        self.write_head(&head, keep, unwrap, &mut out);
        let (status, reusable) = (head.status, head.keep_alive);
        let passage = if unwrap { Passage::unwrapped(head.body) } else { Passage::new(head.body) };
        inlet.take(found.used);
        match self.pass_body(passage, out, inlet).await {
            Ok(()) => Answered::Whole { status, reusable: reusable && inlet.is_empty(), keep },
            Err(gone) => gone,
        }
    }

    fn write_head(&self, head: &ResponseHead<'_>, keep: bool, unwrap: bool, out: &mut Vec<u8>) {
        let mut edits = Edits::new(towards_client(self.asked.version, keep));
        if unwrap {
            edits.remove("Transfer-Encoding");
            edits.remove("Trailer");
        }
        if let Some(line) = self.set_cookie {
            edits.add("Set-Cookie", line.as_bytes());
        }
        write_response(out, head, &edits);
    }

    /// Moves a body down behind `out`, its head.
    async fn pass_body(
        &self,
        mut passage: Passage,
        mut out: Vec<u8>,
        inlet: &mut Inlet,
    ) -> Result<(), Answered> {
        loop {
            while !inlet.is_empty() {
                let bad = |_| Answered::Cut(Cause::BodyBad);
                let portion = passage.take(inlet.held()).map_err(bad)?;
                if portion.used == 0 {
                    break;
                }
                let part = &inlet.held()[portion.pass];
                if out.is_empty() {
                    self.to_client(part).await.map_err(Answered::ClientGone)?;
                } else {
                    // The head goes out together with the first of its body.
                    out.extend_from_slice(part);
                    self.to_client(&out).await.map_err(Answered::ClientGone)?;
                    out = Vec::new();
                }
                inlet.take(portion.used);
            }
            if !out.is_empty() {
                self.to_client(&out).await.map_err(Answered::ClientGone)?;
                out = Vec::new();
            }
            if passage.is_done() {
                return Ok(());
            }
            self.await_answer();
            match self.server.read(inlet, READ_BYTES).await {
                Ok(0) if self.waits.answer.has_passed() => {
                    return Err(Answered::Cut(Cause::Timeout));
                }
                Ok(0) if passage.may_end() => return Ok(()),
                Ok(0) => return Err(Answered::Cut(Cause::Cut)),
                Ok(_) => {}
                Err(error) => {
                    let cause = self.cause(&self.waits.answer, &error, Cause::Timeout);
                    return Err(Answered::Cut(cause));
                }
            }
        }
    }
}

/// What a client is told when its request got no answer.
pub fn refusal(cause: Cause) -> Refusal {
    match cause {
        Cause::PoolEmpty => Refusal::new(503, "No server is in service."),
        Cause::PoolFull => Refusal::new(503, "All servers are busy."),
        Cause::Timeout | Cause::Stall | Cause::UserTimeout => {
            Refusal::new(504, "The server did not answer in time.")
        }
        Cause::HeadBad | Cause::UpgradeBad | Cause::ResponseUnexpected | Cause::BodyBad => {
            Refusal::new(502, "The server's answer could not be understood.")
        }
        Cause::NoPorts | Cause::NoDescriptors | Cause::NoMemory => {
            Refusal::new(503, "There is no room for another connection.")
        }
        Cause::Cut | Cause::Reset | Cause::SocketError => {
            Refusal::new(502, "The server left without an answer.")
        }
        _ => Refusal::new(502, "The server could not be reached."),
    }
}

/// Runs both to their end; the value is the first one's.
async fn both<T>(first: impl Future<Output = T>, second: impl Future<Output = ()>) -> T {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut value, mut finished) = (None, false);
    std::future::poll_fn(move |cx| {
        if value.is_none()
            && let Poll::Ready(done) = first.as_mut().poll(cx)
        {
            value = Some(done);
        }
        if !finished {
            finished = second.as_mut().poll(cx).is_ready();
        }
        match (finished, value.take()) {
            (true, Some(done)) => Poll::Ready(done),
            (_, held) => {
                value = held;
                Poll::Pending
            }
        }
    })
    .await
}
