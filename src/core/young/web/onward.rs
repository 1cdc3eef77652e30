//! The head of a request as it goes on to a server: what came, less what ends here, and what we say
//! ourselves of the client and of the request.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use crate::proto::http::fields;
use crate::proto::http::forwarded::{self, Origin};
use crate::proto::http::names::Name;
use crate::proto::http::{Connection, Edits, RequestHead, Version, write_request};
use crate::sys::socket;

use super::{Visit, canonical, trusts};

/// The name a request has in our answers, in the server's head and in the log.
const REQUEST_ID: &str = "X-Request-Id";
const FORWARDED_FOR: &str = "X-Forwarded-For";
const EXTENSIONS: &str = "Sec-WebSocket-Extensions";
const EXPECT: &str = "Expect";
const MAX_FORWARDS: &str = "Max-Forwards";
/// Bytes of an id that a trusted peer gave.
const ID_BYTES_MAX: usize = 128;

impl Visit<'_> {
    /// The head as it goes on to the server. `offer`: extensions to offer instead of the client's.
    pub(super) fn rewrite(
        &self,
        head: &RequestHead<'_>,
        connection: Connection,
        id: &str,
        offer: Option<Vec<u8>>,
        out: &mut Vec<u8>,
    ) {
        let mut edits = Edits::of_request(connection);
        match offer {
            Some(none) if none.is_empty() => edits.remove(EXTENSIONS),
            Some(offer) => edits.set(EXTENSIONS, offer),
            None => {}
        }
        edits.set(REQUEST_ID, id.as_bytes());
        // RFC 9110 §10.1.1: HTTP/1.0 knows no 100, so its client waits for none. What goes on is
        // HTTP/1.1, where the server would take it at its word.
        if head.version == Version::Http10 {
            edits.remove(EXPECT);
        }
        // RFC 9110 §7.6.2: one that has none left was not sent on.
        if let Some(hops) = head.max_forwards {
            edits.set(MAX_FORWARDS, hops.saturating_sub(1).to_string().into_bytes());
        }
        let (client, tls) = (self.address, self.client.is_tls());
        let (port, trusted) = (self.port, self.trusted);
        let origin = Origin { client, real: self.real(head), port, tls, trusted };
        forwarded::forward(head, &origin, &mut edits);
        if head.host.is_none() && head.version == Version::Http10 {
            let local = socket::local(self.client.fd());
            edits.host = local.map(|local| local.to_string().into());
        }
        // What one listener says of a certificate is believed by servers that others reach, too.
        self.told_names().for_each(|name| edits.remove(name));
        let names = self.conn.listener.tls.as_ref().and_then(|tls| tls.client_headers.as_ref());
        if let Some(names) = names {
            let certificate = self.client.certificate();
            let told = certificate.as_ref();
            for (name, value) in [
                (&names.subject, told.map(|peer| &peer.subject)),
                (&names.fingerprint, told.map(|peer| &peer.fingerprint)),
            ] {
                let Some(name) = name else { continue };
                if let Some(value) = value {
                    let on_one_line = |byte: &u8| !matches!(byte, b'\r' | b'\n' | 0);
                    let value: Vec<u8> = value.bytes().filter(on_one_line).collect();
                    edits.add(&**name, value);
                }
            }
        }
        write_request(out, head, &edits);
    }

    /// Where the request came from first: the last hop of a trusted peer's `X-Forwarded-For` that
    /// is not to be trusted itself. What stands before it is what that hop claimed.
    fn real(&self, head: &RequestHead<'_>) -> IpAddr {
        let mut real = self.address;
        if self.trusted && !head.nominated.has(FORWARDED_FOR) {
            let hops: Vec<&[u8]> = fields::elements(&head.fields, FORWARDED_FOR).collect();
            for hop in hops.into_iter().rev() {
                let Some(address) = address_of(hop) else { break };
                real = canonical(address);
                if !trusts(&self.conn.listener, real) {
                    break;
                }
            }
        }
        real
    }

    /// The request's id: a trusted peer's, if it gave one that can be written anywhere, or ours.
    pub(super) fn id(&self, head: Option<&RequestHead<'_>>) -> Rc<str> {
        let given = head.filter(|_| self.trusted).and_then(|head| given_id(head));
        given.map_or_else(|| format!("{:016x}", fastrand::u64(..)).into(), Rc::from)
    }

    /// Names of the fields that tell a server who its client is, on whichever listener.
    fn told_names(&self) -> impl Iterator<Item = &str> {
        let listeners = self.conn.snapshot.plan.listeners.iter();
        let names = listeners.filter_map(|it| it.tls.as_ref()?.client_headers.as_ref());
        names.flat_map(|it| [&it.subject, &it.fingerprint]).flatten().map(|name| &**name)
    }

    /// The same, for trailers: a server may take one for a field of the head. What the request's
    /// Connection nominates ends here behind a body too (RFC 9110 §7.6.1).
    pub(super) fn refused_in_trailers(&self, head: &RequestHead<'_>) -> Option<Arc<[Name]>> {
        let told = self.told_names().map(Name::of);
        let names: Arc<[Name]> = told.chain(head.nominated.names()).collect();
        (!names.is_empty()).then_some(names)
    }
}

/// An address with or without a port.
fn address_of(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?;
    let with_port = |text: &str| text.parse().map(|socket: SocketAddr| socket.ip());
    text.parse().or_else(|_| with_port(text)).ok()
}

fn given_id<'a>(head: &RequestHead<'a>) -> Option<&'a str> {
    let value = fields::only(&head.fields, REQUEST_ID).ok()??;
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~:/+=@".contains(byte);
    let legal = (1..=ID_BYTES_MAX).contains(&value.len()) && value.iter().all(is_plain);
    std::str::from_utf8(value).ok().filter(|_| legal)
}
