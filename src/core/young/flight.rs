//! One request and its answer in flight between a client and a server: the body goes up while the
//! answer comes down, each in a fixed buffer, neither faster than its reader. Both ways always run
//! to their end; what has to stop is told by ending a socket, never by dropping a read.

mod down;
mod up;

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::balance::ServerId;
use crate::config::plan::Timeouts;
use crate::core::{Core, Guard, Lane};
use crate::meter::{Cause, ListenerCounters};
use crate::proto::http::names::Name;
use crate::proto::http::{Body, HeadLimits, RequestHead, Version};
use crate::proto::upgrade::UpgradeRequest;

use super::answer::{Manner, Refusal};
use super::body::Passage;
use super::channel::{Channel, Inlet};
use super::transport;

/// What is known of a request once its head was read and judged.
#[derive(Debug, Clone)]
pub struct Asked {
    pub version: Version,
    pub is_head: bool,
    /// Doing it twice is doing it once (RFC 9110 section 9.2.2).
    pub idempotent: bool,
    pub keep_alive: bool,
    pub body: Body,
    /// Its client may wait for a 100 before it sends that.
    pub expects: bool,
    /// Names that no trailer of it may have.
    pub refused: Option<Arc<[Name]>>,
    pub manner: Manner,
}

impl Asked {
    pub fn new(head: &RequestHead<'_>, manner: Manner) -> Self {
        Self {
            version: head.version,
            is_head: head.is_head(),
            idempotent: head.is_idempotent(),
            keep_alive: head.keep_alive,
            body: head.body,
            expects: head.expect_continue,
            refused: None,
            manner,
        }
    }
}

impl Asked {
    /// Its body, on its way from the beginning.
    pub fn passage(&self) -> Passage {
        Passage::of_request(self.body, self.refused.clone())
    }
}

/// How the answer went.
#[derive(Debug)]
pub enum Answered {
    /// All of it reached the client. `reusable`: the server's connection may carry another
    /// request; `keep`: the client was told that its own may.
    Whole { reusable: bool, keep: bool },
    /// A valid 101 reached the client; what the server's inlet holds beyond `used` is a tunnel's.
    Switched { deflate: bool, used: usize },
    /// Nothing of a final answer went out, and this is why. `silent`: the server left without
    /// having said a word.
    Missing { cause: Cause, silent: bool },
    /// It stopped in the middle: the client must see that what it got is not all.
    Cut(Cause),
    /// The client takes nothing any more.
    ClientGone(Cause),
}

/// How the request's body went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Running,
    /// All of it went to the server.
    Whole,
    /// The client has sent it all, but the server took only a part.
    Declined,
    /// The client stopped in the middle, or for too long.
    ClientGone(Cause),
    /// The answer is over, and what was left of the body did not come, or is not wanted.
    Unwanted,
    /// It is no legal body.
    Bad,
}

/// One request on its way to a server and the answer on its way back, with all that both need.
pub struct Flight<'a> {
    pub core: &'a Rc<Core>,
    pub counters: &'a ListenerCounters,
    /// Whose bytes these are.
    pub of: ServerId,
    pub timeouts: &'a Timeouts,
    pub limits: HeadLimits,
    pub client: &'a Channel,
    pub server: &'a Channel,
    pub asked: &'a Asked,
    pub upgrade: Option<&'a UpgradeRequest<'a>>,
    /// A line for the answer that ties the client to its server.
    pub set_cookie: Option<&'a str>,
    pub sent: Cell<Sent>,
    pub record: Cell<Record>,
    heard: Cell<Heard>,
    /// Its client is waited for only once the server has asked for the body, or has answered.
    awaits: Cell<bool>,
    client_guard: Guard,
    server_guard: Guard,
}

/// What an exchange was, for the log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Record {
    /// Of the server's final answer, or of ours if it went out in its place.
    pub status: Option<u16>,
    /// It is ours.
    pub ours: bool,
    pub server: Option<ServerId>,
    pub bytes_from_client: u64,
    pub bytes_to_client: u64,
}

/// How far the answer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Heard {
    Nothing,
    /// Something with 1xx.
    Interim,
    /// Its final head is there.
    Head,
    /// All of it went to the client, while the body was still coming: what is left of that is only
    /// waited for.
    Over,
}

/// How long a body may still come in once its answer is out, and how much of it.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: u64 = 1 << 20;
/// Bytes that a fast pair may move one way before the others of its core have a turn.
const STRIDE_BYTES: usize = 256 << 10;
/// Answers with 1xx that a server may send before the real one.
const INTERIM_MAX: u32 = 16;

impl<'a> Flight<'a> {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        core: &'a Rc<Core>,
        counters: &'a ListenerCounters,
        of: ServerId,
        timeouts: &'a Timeouts,
        limits: HeadLimits,
        (client, server): (&'a Channel, &'a Channel),
        asked: &'a Asked,
    ) -> Self {
        let client_guard = core.lanes(client.fd());
        client_guard.keep_speaking();
        let server_guard = core.lanes(server.fd());
        Self {
            core,
            counters,
            of,
            timeouts,
            limits,
            client,
            server,
            asked,
            upgrade: None,
            set_cookie: None,
            sent: Cell::new(Sent::Running),
            record: Cell::default(),
            heard: Cell::new(Heard::Nothing),
            awaits: Cell::new(false),
            client_guard,
            server_guard,
        }
    }

    /// Sends `first`: the request's head, and its body if that is here already. If it is not,
    /// `rest` holds what came of it, and more is read while the answer comes down through `inlet`.
    pub async fn fly(&self, first: &[u8], rest: Option<&mut Inlet>, inlet: &mut Inlet) -> Answered {
        // A server that does not take it may have answered already: that is still to be read.
        let declined = self.to_server(first).await.is_err();
        match rest {
            Some(rest) => both(self.answer_beside(inlet), self.body(rest, declined)).await,
            None => {
                self.sent.set(if declined { Sent::Declined } else { Sent::Whole });
                self.await_answer();
                self.answer(inlet).await
            }
        }
    }

    /// Whether the client was told already that there is no answer.
    pub fn has_told(&self) -> bool {
        self.heard.get() == Heard::Over
    }

    async fn to_server(&self, bytes: &[u8]) -> io::Result<()> {
        let lingers = || self.heard.get() == Heard::Over;
        if !lingers() {
            self.server_guard.set(Lane::Write, self.timeouts.stall, Cause::Stall);
        }
        let written = self.server.write_all(bytes).await;
        if !lingers() {
            self.server_guard.clear(Lane::Write);
        }
        if written.is_ok() {
            let count = bytes.len() as u64;
            self.core.with_server(self.of, |server| server.bytes_to_server.add(count));
        }
        written
    }

    /// What the server said, as it goes on to the client.
    async fn pass_down(&self, bytes: &[u8]) -> Result<(), Cause> {
        let count = bytes.len() as u64;
        self.core.with_server(self.of, |server| server.bytes_from_server.add(count));
        self.to_client(bytes).await
    }

    async fn to_client(&self, bytes: &[u8]) -> Result<(), Cause> {
        self.client_guard.set(Lane::Write, self.timeouts.stall, Cause::Stall);
        let written = self.client.write_all(bytes).await;
        self.client_guard.clear(Lane::Write);
        self.counters.bytes_to_clients.add(bytes.len() as u64);
        self.note(|record| record.bytes_to_client += bytes.len() as u64);
        written.map_err(|error| cause(&self.client_guard, &error))
    }

    fn note(&self, f: impl FnOnce(&mut Record)) {
        let mut record = self.record.get();
        f(&mut record);
        self.record.set(record);
    }

    /// After each stride, lets the others of the core have a turn.
    async fn stride(&self, moved: &mut usize) {
        if *moved >= STRIDE_BYTES {
            *moved = 0;
            self.core.give_way().await;
        }
    }

    /// The server has said what a client may have waited for: from now on it is waited for.
    fn invite(&self) {
        if self.awaits.take() {
            self.server_guard.clear(Lane::Read);
            self.client_guard.set(Lane::Read, self.timeouts.request, Cause::Timeout);
        }
    }

    /// The request is out: the server's time for the head of its answer begins. A client that
    /// leaves while it waits is seen; one that wants no other answer may say that it sends no more.
    fn await_answer(&self) {
        if self.heard.get() < Heard::Head {
            self.server_guard.set(Lane::Read, self.timeouts.response, Cause::Timeout);
        }
        if self.heard.get() != Heard::Over {
            self.client_guard.watch(self.server.fd(), self.asked.keep_alive);
        }
    }
}

/// Why reading or writing failed: a deadline of ours, or the peer.
fn cause(guard: &Guard, error: &io::Error) -> Cause {
    guard.late().unwrap_or_else(|| transport::cause(error))
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
