//! The WebSocket handshake, judged on both sides (RFC 6455 §4). A tunnel exists only when the
//! request was right, the answer was right, and the answer was to this request.

use aws_lc_rs::digest;
use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{self, GeneralPurpose, GeneralPurposeConfig};

use super::http::fields::{self, Field};
use super::http::{RequestHead, ResponseHead, Version};

/// What a legal request asked for; kept until the answer is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeRequest<'a> {
    pub key: &'a [u8],
    /// Subprotocols in the client's order.
    pub protocols: Vec<&'a [u8]>,
    /// Names of the extensions offered, without parameters.
    pub extensions: Vec<&'a [u8]>,
}

/// What a legal answer settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed<'a> {
    pub protocol: Option<&'a [u8]>,
    /// permessage-deflate: RSV1 is legal.
    pub deflate: bool,
}

/// Why a request for a WebSocket is refused. The server is never dialled for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RequestFault {
    #[error("a WebSocket handshake is a GET")]
    Method,
    #[error("a WebSocket handshake needs HTTP/1.1")]
    OldHttp,
    #[error("a WebSocket handshake has no body")]
    Body,
    #[error("Connection does not name upgrade")]
    Connection,
    #[error("Sec-WebSocket-Key is missing")]
    KeyMissing,
    #[error("there is more than one Sec-WebSocket-Key")]
    KeyRepeated,
    #[error("Sec-WebSocket-Key is not sixteen bytes in base64")]
    KeyInvalid,
    #[error("there is more than one Sec-WebSocket-Version")]
    VersionRepeated,
    #[error("only Sec-WebSocket-Version 13 is spoken")]
    Version,
    #[error("a subprotocol or extension is not a token, or there are too many")]
    Offer,
}

impl RequestFault {
    /// 426 must carry `Sec-WebSocket-Version: 13`.
    pub fn status(self) -> u16 {
        if self == Self::Version { 426 } else { 400 }
    }
}

/// Why a 101 is not believed. The client gets a 502.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AnswerFault {
    #[error("the status is not 101")]
    Status,
    #[error("Upgrade is not exactly websocket")]
    Upgrade,
    #[error("Connection does not name upgrade")]
    Connection,
    #[error("Sec-WebSocket-Accept is missing or not the answer to the key")]
    Accept,
    #[error("a subprotocol that was not offered")]
    Protocol,
    #[error("an extension that was not offered")]
    Extension,
}

/// Judges a request. `Ok(None)`: it is plain HTTP, to be sent on without its Upgrade; that is any
/// request whose Upgrade fields hold anything but the one token `websocket`.
pub fn request<'a>(head: &RequestHead<'a>) -> Result<Option<UpgradeRequest<'a>>, RequestFault> {
    if !head.upgrade || !is_websocket_alone(&head.fields) {
        return Ok(None);
    }
    if head.method != "GET" {
        return Err(RequestFault::Method);
    }
    if head.version < Version::Http11 {
        return Err(RequestFault::OldHttp);
    }
    if !head.body.is_empty() {
        return Err(RequestFault::Body);
    }
    if !head.nominated.has("upgrade") {
        return Err(RequestFault::Connection);
    }
    match fields::only(&head.fields, "sec-websocket-version") {
        Ok(Some(b"13")) => {}
        Ok(_) => return Err(RequestFault::Version),
        Err(_) => return Err(RequestFault::VersionRepeated),
    }
    let key = fields::only(&head.fields, "sec-websocket-key")
        .map_err(|_| RequestFault::KeyRepeated)?
        .ok_or(RequestFault::KeyMissing)?;
    if !key_is_legal(key) {
        return Err(RequestFault::KeyInvalid);
    }
    let protocols = fields::elements(&head.fields, "sec-websocket-protocol");
    let protocols: Vec<_> = protocols.take(OFFERS_MAX + 1).collect();
    let extensions: Vec<_> = extension_names(&head.fields).take(OFFERS_MAX + 1).collect();
    let too_many = protocols.len().max(extensions.len()) > OFFERS_MAX;
    if too_many || !protocols.iter().chain(&extensions).all(|name| fields::is_token(name)) {
        return Err(RequestFault::Offer);
    }
    Ok(Some(UpgradeRequest { key, protocols, extensions }))
}

impl<'a> UpgradeRequest<'a> {
    /// Withdraws every extension but the one whose frames are understood here: any other could give
    /// a meaning to bits that a relay of frames must refuse. What is left of the offer, to go on in
    /// place of the one in `head`; `None`: all of it is.
    pub fn narrow(&mut self, head: &RequestHead<'a>) -> Option<Vec<u8>> {
        let offered = self.extensions.len();
        self.extensions.retain(|name| name.eq_ignore_ascii_case(DEFLATE));
        if self.extensions.len() == offered {
            return None;
        }
        let known = |element: &&[u8]| extension_name(element).eq_ignore_ascii_case(DEFLATE);
        let elements = fields::elements(&head.fields, "sec-websocket-extensions");
        Some(elements.filter(known).collect::<Vec<_>>().join(&b", "[..]))
    }

    /// Judges the answer to this request.
    pub fn answer<'b>(&self, head: &ResponseHead<'b>) -> Result<Agreed<'b>, AnswerFault> {
        if head.status != 101 {
            return Err(AnswerFault::Status);
        }
        if head.version < Version::Http11 || !is_websocket_alone(&head.fields) {
            return Err(AnswerFault::Upgrade);
        }
        if !head.nominated.has("upgrade") {
            return Err(AnswerFault::Connection);
        }
        match fields::only(&head.fields, "sec-websocket-accept") {
            Ok(Some(value)) if *value == accept_key(self.key) => {}
            _ => return Err(AnswerFault::Accept),
        }
        let protocol = fields::only(&head.fields, "sec-websocket-protocol")
            .map_err(|_| AnswerFault::Protocol)?;
        if protocol.is_some_and(|chosen| !self.protocols.contains(&chosen)) {
            return Err(AnswerFault::Protocol);
        }
        let mut deflate = false;
        for name in extension_names(&head.fields) {
            if !self.extensions.iter().any(|offered| offered.eq_ignore_ascii_case(name)) {
                return Err(AnswerFault::Extension);
            }
            // Agreed twice it would be two transformations of one message.
            let is_deflate = name.eq_ignore_ascii_case(DEFLATE);
            if is_deflate && std::mem::replace(&mut deflate, true) {
                return Err(AnswerFault::Extension);
            }
        }
        Ok(Agreed { protocol, deflate })
    }
}

/// `Sec-WebSocket-Accept` for a key, §4.2.2.
pub fn accept_key(key: &[u8]) -> [u8; 28] {
    let mut sha1 = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    sha1.update(key);
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    encoded(sha1.finish().as_ref())
}

/// `Sec-WebSocket-Key` from sixteen random bytes.
pub fn make_key(random: [u8; 16]) -> [u8; 24] {
    encoded(&random)
}

/// Appends a whole handshake request of our own. `more`: further lines, without line ends.
pub fn write_request(out: &mut Vec<u8>, host: &str, target: &str, key: &[u8; 24], more: &[&str]) {
    for part in ["GET ", target, " HTTP/1.1\r\nHost: ", host, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: ");
    out.extend_from_slice(key);
    out.extend_from_slice(b"\r\nSec-WebSocket-Version: 13\r\n");
    for line in more {
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a whole 101 of our own.
pub fn write_answer(out: &mut Vec<u8>, key: &[u8], more: &[&str]) {
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n");
    out.extend_from_slice(b"Connection: Upgrade\r\nSec-WebSocket-Accept: ");
    out.extend_from_slice(&accept_key(key));
    out.extend_from_slice(b"\r\n");
    for line in more {
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Exactly one token over all Upgrade lines, and it is `websocket`.
fn is_websocket_alone(all: &[Field<'_>]) -> bool {
    let mut tokens = fields::elements(all, "upgrade");
    let first = tokens.next();
    first.is_some_and(|token| token.eq_ignore_ascii_case(b"websocket")) && tokens.next().is_none()
}

/// Names only. A quoted comma in a parameter would make a name that no one offered, or that is no
/// token, and is refused as such.
fn extension_names<'a, 'f>(all: &'f [Field<'a>]) -> impl Iterator<Item = &'a [u8]> + 'f {
    fields::elements(all, "sec-websocket-extensions").map(extension_name)
}

fn extension_name(element: &[u8]) -> &[u8] {
    element.split(|byte| *byte == b';').next().map_or(element, fields::trim)
}

fn key_is_legal(key: &[u8]) -> bool {
    let mut decoded = [0; 18];
    key.len() == 24 && KEY.decode_slice(key, &mut decoded) == Ok(16)
}

fn encoded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    let written = general_purpose::STANDARD.encode_slice(bytes, &mut out);
    debug_assert_eq!(written, Ok(N));
    out
}

/// The extension that is understood: its frames may have RSV1.
const DEFLATE: &[u8] = b"permessage-deflate";
/// Subprotocols, and extensions, that one request may offer: the answer is compared with each.
const OFFERS_MAX: usize = 64;

/// The two characters of padding leave four bits that carry nothing; some clients fill them.
const KEY: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

#[cfg(test)]
mod tests;
