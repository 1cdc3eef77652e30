//! The request's body on its way up: read from the client as it comes, never collected.

use std::time::Duration;

use crate::core::wire::Ticks;
use crate::core::{Lane, ticks_as_duration};
use crate::meter::Cause;

use super::{Flight, Heard, LINGER_BYTES, Sent};
use crate::core::young::channel::{Inlet, READ_BYTES};

/// The `request` timeout gives a client so long for this much of its body, or for the end of it:
/// pauses are put up with, one byte a minute for ever is not.
const PORTION_BYTES: usize = 1 << 10;

/// How long the client may still take for the next part of its body.
#[derive(Debug, Default)]
struct Patience {
    /// Time spent waiting for it so far; time in which the server took nothing is not the client's.
    spent: Ticks,
    got: usize,
}

impl Flight<'_> {
    /// The request's body, until it is complete, goes wrong, or nobody wants it any more.
    /// `declined`: the server takes nothing, but may still answer.
    pub(super) async fn body(&self, inlet: &mut Inlet, mut declined: bool) {
        let mut passage = self.asked.passage();
        let mut patience = Patience::default();
        let (mut moved, mut lingered) = (0, 0);
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
                self.note(|record| record.bytes_from_client += portion.used as u64);
                inlet.take(portion.used);
                moved += portion.used;
                if self.heard.get() == Heard::Over {
                    lingered += portion.used as u64;
                }
            }
            if passage.is_done() {
                self.sent.set(if declined { Sent::Declined } else { Sent::Whole });
                return self.await_answer();
            }
            if lingered > LINGER_BYTES {
                return self.sent.set(Sent::Unwanted);
            }
            self.stride(&mut moved).await;
            if let Err(cause) = self.more(inlet, &mut patience).await {
                if self.heard.get() == Heard::Over {
                    return self.sent.set(Sent::Unwanted);
                }
                self.sent.set(Sent::ClientGone(cause));
                return self.server.end();
            }
        }
    }

    /// Reads more of the body. Once the answer is over, the deadline of that is not moved.
    async fn more(&self, inlet: &mut Inlet, patience: &mut Patience) -> Result<(), Cause> {
        let lingers = || self.heard.get() == Heard::Over;
        let begun = self.core.now();
        // A client that expects a 100 waits for the server, and so do we.
        let awaits = self.asked.expects
            && self.timeouts.response.is_some()
            && self.heard.get() == Heard::Nothing
            && self.record.get().bytes_from_client == 0;
        if awaits {
            self.awaits.set(true);
            self.server_guard.set(Lane::Read, self.timeouts.response, Cause::Timeout);
        } else if !lingers() {
            let left = self.timeouts.request.map(|limit| patience.left(limit));
            self.client_guard.set(Lane::Read, left, Cause::Timeout);
        }
        let read = self.client.read(inlet, READ_BYTES).await;
        if self.awaits.take() {
            self.server_guard.clear(Lane::Read);
        }
        if !lingers() {
            self.client_guard.clear(Lane::Read);
        }
        match read {
            Ok(0) => Err(self.client_guard.late().unwrap_or(Cause::Cut)),
            Ok(got) => {
                // How long the server let it wait is not the client's.
                let spent = if awaits { 0 } else { self.core.now().saturating_sub(begun) };
                patience.took(got, spent);
                Ok(())
            }
            Err(error) => Err(super::cause(&self.client_guard, &error)),
        }
    }
}

impl Patience {
    fn left(&self, limit: Duration) -> Duration {
        limit.saturating_sub(ticks_as_duration(self.spent))
    }

    fn took(&mut self, got: usize, ticks: Ticks) {
        self.got += got;
        self.spent += ticks;
        if self.got >= PORTION_BYTES {
            *self = Self::default();
        }
    }
}
