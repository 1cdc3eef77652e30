//! The answer on its way down: interim answers, a switch of protocols, or a head and its body.

use crate::core::Lane;
use crate::meter::Cause;
use crate::proto::http::rewrite::towards_client;
use crate::proto::http::{
    Body, Connection, Edits, ResponseHead, Version, parse_response, write_response,
};

use super::{Answered, Flight, Heard, INTERIM_MAX, LINGER, Sent, cause, refusal};
use crate::core::young::answer::{self, Manner};
use crate::core::young::body::Passage;
use crate::core::young::channel::{Inlet, READ_BYTES};
use crate::core::young::head::{self, Lack};
use crate::core::young::transport;

/// A final answer whose head was read.
struct Opened {
    /// Its head as the client will see it.
    out: Vec<u8>,
    passage: Passage,
    reusable: bool,
    keep: bool,
}

impl Flight<'_> {
    /// The answer, and if there is none ours, while the body may still be on its way.
    pub(super) async fn answer_beside(&self, inlet: &mut Inlet) -> Answered {
        let answered = self.answer(inlet).await;
        if self.sent.get() == Sent::Running {
            if let Answered::Missing { cause, .. } = answered {
                let refusal = refusal(cause);
                self.note(|record| (record.status, record.ours) = (Some(refusal.status), true));
                let manner = Manner { close: true, ..self.asked.manner.clone() };
                let _ = self.to_client(&refusal.compose(&manner, fastrand::u64(..))).await;
            }
            self.heard.set(Heard::Over);
            self.client_guard.set(Lane::Read, Some(LINGER), Cause::Timeout);
            self.server_guard.set(Lane::Write, Some(LINGER), Cause::Stall);
            match answered {
                Answered::Cut(_) | Answered::ClientGone(_) => self.client.abort(),
                _ => {
                    self.client_guard.set(Lane::Write, Some(LINGER), Cause::Stall);
                    self.client.finish().await;
                    self.client_guard.clear(Lane::Write);
                }
            }
        }
        answered
    }

    pub(super) async fn answer(&self, inlet: &mut Inlet) -> Answered {
        // The request has just gone out: there is nothing to read yet.
        self.server.readable().await;
        for _ in 0..INTERIM_MAX {
            let found = match head::read(self.server, inlet, &self.limits).await {
                Ok(found) => found,
                Err(lack) => return self.missing(&lack, inlet),
            };
            let bytes = &inlet.held()[found.head];
            let Ok(head) = parse_response(bytes, &self.limits, self.asked.is_head) else {
                return Answered::Missing { cause: Cause::HeadBad, silent: false };
            };
            if head.status == 101 {
                return self.switch(&head, found.used).await;
            }
            if !head.is_interim() {
                let opened = self.open(&head);
                inlet.take(found.used);
                return self.pass(opened, inlet).await;
            }
            self.heard.set(Heard::Interim);
            if head.status == 100 {
                self.invite();
            }
            if self.asked.version == Version::Http11 {
                let mut out = Vec::new();
                write_response(&mut out, &head, &Edits::new(Connection::Silent));
                if let Err(cause) = self.pass_down(&out).await {
                    return Answered::ClientGone(cause);
                }
            }
            inlet.take(found.used);
        }
        Answered::Missing { cause: Cause::ResponseUnexpected, silent: false }
    }

    fn missing(&self, lack: &Lack, inlet: &Inlet) -> Answered {
        if let Some(left) = self.client_guard.left() {
            return Answered::ClientGone(left);
        }
        let late = self.server_guard.late();
        let cause = late.unwrap_or_else(|| match lack {
            Lack::Silent(None) | Lack::Cut => Cause::Cut,
            Lack::Bad(_) => Cause::HeadBad,
            Lack::Silent(Some(error)) | Lack::Failed(error) => transport::cause(error),
        });
        let spoke = !inlet.is_empty() || self.heard.get() != Heard::Nothing;
        Answered::Missing { cause, silent: !spoke && late.is_none() }
    }

    /// A 101: the answer to a legal upgrade that it fits, or nothing we believe.
    async fn switch(&self, head: &ResponseHead<'_>, used: usize) -> Answered {
        self.server_guard.clear(Lane::Read);
        let bad = Answered::Missing { cause: Cause::UpgradeBad, silent: false };
        let Some(Ok(agreed)) = self.upgrade.map(|upgrade| upgrade.answer(head)) else {
            return bad;
        };
        let mut edits = Edits::new(Connection::Upgrade);
        if let Some(line) = self.set_cookie {
            edits.add("Set-Cookie", line.as_bytes());
        }
        let mut out = Vec::with_capacity(512);
        write_response(&mut out, head, &edits);
        match self.pass_down(&out).await {
            Ok(()) => Answered::Switched { deflate: agreed.deflate, used },
            Err(cause) => Answered::ClientGone(cause),
        }
    }

    /// The head of a final answer: it is here in time, and says what becomes of both connections.
    fn open(&self, head: &ResponseHead<'_>) -> Opened {
        self.heard.set(Heard::Head);
        self.invite();
        self.note(|record| record.status = Some(head.status));
        self.server_guard.clear(Lane::Read);
        let unwrap = self.asked.version == Version::Http10 && head.body == Body::Chunked;
        let keep = self.asked.keep_alive
            && self.sent.get() != Sent::Running
            && head.body != Body::UntilClose
            && !unwrap
            && self.core.is_serving();
        let mut edits = Edits::new(towards_client(self.asked.version, keep));
        // (HTTP/1.0 knows neither, not even of an answer that has no body.)
        if self.asked.version == Version::Http10 {
            edits.remove("Transfer-Encoding");
            edits.remove("Trailer");
        }
        // RFC 9110 §15.5.22: it says what to upgrade to.
        if head.status == 426
            && let Some(protocols) = head.value("upgrade")
        {
            edits.add("Upgrade", protocols);
            edits.add("Connection", b"Upgrade".as_slice());
        }
        // RFC 9110 §6.6.1: who has a clock and passes an answer on says when it came, if its server
        // did not, or has said it to this hop alone.
        if head.value("date").is_none() || head.nominated.has("date") {
            edits.add("Date", answer::date().to_string().into_bytes());
        }
        if let Some(line) = self.set_cookie {
            edits.add("Set-Cookie", line.as_bytes());
            if head.value("cache-control").is_none() {
                edits.add("Cache-Control", b"private".as_slice());
            }
        }
        let mut out = Vec::with_capacity(1024);
        write_response(&mut out, head, &edits);
        let passage = if unwrap { Passage::unwrapped(head.body) } else { Passage::new(head.body) };
        // What is left of a body behind its answer would stand before the next request.
        let reusable = head.keep_alive && self.sent.get() == Sent::Whole;
        Opened { out, passage, reusable, keep }
    }

    /// Moves a final answer's body down behind its head.
    async fn pass(&self, opened: Opened, inlet: &mut Inlet) -> Answered {
        let Opened { out, passage, reusable, keep } = opened;
        match self.pass_body(passage, out, inlet).await {
            Ok(()) => Answered::Whole { reusable: reusable && inlet.is_empty(), keep },
            Err(gone) => gone,
        }
    }

    async fn pass_body(
        &self,
        mut passage: Passage,
        mut out: Vec<u8>,
        inlet: &mut Inlet,
    ) -> Result<(), Answered> {
        let mut moved = 0;
        loop {
            while !inlet.is_empty() {
                let bad = |_| Answered::Cut(Cause::BodyBad);
                let portion = passage.take(inlet.held()).map_err(bad)?;
                if portion.used == 0 {
                    break;
                }
                let part = &inlet.held()[portion.pass];
                if out.is_empty() && !passage.unwraps() {
                    self.pass_down(part).await.map_err(Answered::ClientGone)?;
                } else {
                    // The head goes out with the first of its body, and small chunks together.
                    out.extend_from_slice(part);
                }
                inlet.take(portion.used);
                moved += portion.used;
            }
            if !out.is_empty() {
                self.pass_down(&out).await.map_err(Answered::ClientGone)?;
                // Where nothing is gathered any more, nor is memory held.
                if passage.unwraps() { out.clear() } else { out = Vec::new() }
            }
            if passage.is_done() {
                return Ok(());
            }
            self.stride(&mut moved).await;
            self.server_guard.set(Lane::Read, self.timeouts.idle, Cause::Idle);
            let read = self.server.read(inlet, READ_BYTES).await;
            self.server_guard.clear(Lane::Read);
            let (cause, has_ended) = match read {
                Ok(1..) => continue,
                Ok(0) => (self.server_guard.late().unwrap_or(Cause::Cut), true),
                Err(error) => (cause(&self.server_guard, &error), false),
            };
            // Where the request's body went wrong, we ended the server's connection ourselves.
            let by_us = matches!(self.sent.get(), Sent::ClientGone(_) | Sent::Bad);
            let in_order = has_ended && !by_us && cause == Cause::Cut && passage.may_end();
            return match self.client_guard.left() {
                Some(left) => Err(Answered::ClientGone(left)),
                None if in_order => Ok(()),
                None => Err(Answered::Cut(cause)),
            };
        }
    }
}
