//! From an upgrade request to a WebSocket in the slab. The server is dialled for this one client
//! and is never used for anything else, whatever it answers. Nothing of what the client sends
//! before the 101 is read any further, let alone passed on.

use std::rc::Rc;
use std::sync::Arc;

use crate::config::plan;
use crate::core::Core;
use crate::core::wire::relay::Relay;
use crate::core::wire::terms::Terms;
use crate::meter::{Cause, Ending, Handshake, Stage};
use crate::proto::upgrade::UpgradeRequest;

use super::Accepted;
use super::channel::{Channel, Inlet};
use super::dial::Lease;
use super::flight::{self, Answered, Asked};
use super::graduate::{self, Both};
use super::http::{After, Age, Served, Serving};

/// A server that switched protocols, and what was agreed.
pub struct Upgraded {
    server: Channel,
    lease: Lease,
    /// What it sent behind its 101.
    tail: Vec<u8>,
    deflate: bool,
    rule: usize,
    /// The request's id, for the log.
    id: Rc<str>,
}

impl Serving<'_> {
    /// Passes an upgrade on. `early`: the client sent more already, so that its connection cannot
    /// be used for another request if this one is refused.
    ///
    /// # Errors
    /// What is left to do for the client where there is no WebSocket.
    pub async fn upgrade(
        &mut self,
        asked: &Asked,
        head: &[u8],
        wants: &UpgradeRequest<'_>,
        early: bool,
    ) -> Result<Upgraded, After> {
        let served = match self.connect(Age::New).await {
            Ok(served) => served,
            Err(ending) => {
                let result = match ending.cause {
                    Cause::PoolEmpty | Cause::PoolFull => Handshake::NoServer,
                    _ => Handshake::DialFailed,
                };
                self.terms.route.handshakes.count(result);
                return Err(After::Refuse(
                    flight::refusal(ending.cause),
                    asked.manner.clone(),
                    ending,
                ));
            }
        };
        let asked = Asked { keep_alive: asked.keep_alive && !early, ..asked.clone() };
        let cookie = self.cookie_line(served.member);
        let mut inlet = Inlet::default();
        let first = served.before(head);
        let (answered, record) = {
            let mut flight = self.flight(&served, &asked);
            flight.set_cookie = cookie.as_deref();
            flight.upgrade = Some(wants);
            let answered = flight.fly(&first, None, &mut inlet).await;
            (answered, flight.record.get())
        };
        self.flown(served.id, record);
        self.settled(&asked, served, answered, inlet)
    }

    fn settled(
        &self,
        asked: &Asked,
        served: Served,
        answered: Answered,
        mut inlet: Inlet,
    ) -> Result<Upgraded, After> {
        let count = |result| self.terms.route.handshakes.count(result);
        let Served { channel, lease, .. } = served;
        if !matches!(answered, Answered::Switched { .. }) {
            channel.leave();
        }
        Err(match answered {
            Answered::Switched { deflate, used } => {
                inlet.take(used);
                count(Handshake::Upgraded);
                return Ok(Upgraded {
                    server: channel,
                    lease,
                    tail: inlet.into_tail(),
                    deflate,
                    rule: self.place.rule,
                    id: Rc::clone(&asked.manner.id),
                });
            }
            Answered::Whole { keep, .. } => {
                count(Handshake::ServerRefused);
                let ending = Ending::server(Stage::Upgrade, Cause::UpgradeRefused);
                if keep { After::Again } else { After::End(ending) }
            }
            Answered::Missing { cause, .. } => {
                count(match cause {
                    Cause::UpgradeBad | Cause::HeadBad => Handshake::ServerInvalid,
                    Cause::Timeout | Cause::Stall => Handshake::Timeout,
                    _ => Handshake::Gone,
                });
                let refusal = flight::refusal(cause);
                After::Refuse(refusal, asked.manner.clone(), Ending::server(Stage::Upgrade, cause))
            }
            Answered::Cut(cause) => {
                count(Handshake::ServerRefused);
                self.client.abort();
                After::End(Ending::server(Stage::Upgrade, cause))
            }
            Answered::ClientGone(cause) => {
                count(Handshake::Gone);
                After::End(Ending::client(Stage::Upgrade, cause))
            }
        })
    }
}

/// Hands both sockets, the bytes read too far and the agreed rules to the slab.
pub fn graduate(
    core: &Rc<Core>,
    conn: &Accepted,
    client: Channel,
    inlet: Inlet,
    upgraded: Upgraded,
) {
    let Upgraded { server, lease, tail, deflate, rule, id } = upgraded;
    let terms: &Arc<Terms> = &conn.birth.terms[rule];
    let relay = match terms.relay {
        plan::RelayUnit::Frames => {
            let now = core.wire.borrow().milliseconds();
            Some(Relay::new(Arc::clone(terms), deflate, now, fastrand::u64(..)))
        }
        plan::RelayUnit::Bytes => None,
    };
    let both = Both { client: client.into_transport(), server: server.into_transport(), lease };
    graduate::web(core, conn, both, relay, (rule, &id), [&inlet.into_tail(), &tail]);
}
