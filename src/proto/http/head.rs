//! Request and response heads, parsed once they are whole (see [`super::scan`]). The views borrow
//! the bytes they were read from; the facts beside them are what a proxy must agree on.

use std::mem::MaybeUninit;

use super::fields::{self, Field, Nominated};
use super::framing::{self, Body};
use super::{CONNECTION_TOKENS_MAX, FIELDS_MAX, HeadFault, HeadLimits, Version};

/// A request head that two readers cannot read differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead<'a> {
    pub method: &'a str,
    /// As sent: origin-form, absolute-form, or `*`.
    pub target: &'a str,
    pub version: Version,
    pub fields: Vec<Field<'a>>,
    pub nominated: Nominated<'a>,
    /// The one Host, port included. Only an HTTP/1.0 request may lack it.
    pub host: Option<&'a str>,
    pub body: Body,
    /// The client means to send another request on this connection.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// How many hops a TRACE or an OPTIONS may still take (RFC 9110 §7.6.2). Of other methods the
    /// field says nothing.
    pub max_forwards: Option<u32>,
    /// There is an Upgrade header; [`crate::proto::upgrade`] says what it is worth.
    pub upgrade: bool,
}

/// A response head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead<'a> {
    pub version: Version,
    pub status: u16,
    pub reason: &'a str,
    pub fields: Vec<Field<'a>>,
    pub nominated: Nominated<'a>,
    pub body: Body,
    /// After the body the connection may carry another exchange.
    pub keep_alive: bool,
}

/// Parses a whole head, as [`super::HeadScanner`] found it.
pub fn parse_request<'a>(
    head: &'a [u8],
    limits: &HeadLimits,
) -> Result<RequestHead<'a>, HeadFault> {
    let mut room = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut raw = httparse::Request::new(&mut []);
    let room = &mut room[..limits.fields.min(FIELDS_MAX)];
    match raw.parse_with_uninit_headers(head, room) {
        Ok(httparse::Status::Complete(used)) if used == head.len() => {}
        Ok(_) => return Err(HeadFault::StartLine),
        Err(error) => return Err(fault(error, head)),
    }
    let (Some(method), Some(target)) = (raw.method, raw.path) else {
        return Err(HeadFault::StartLine);
    };
    let version = version(raw.version)?;
    if method == "CONNECT" {
        return Err(HeadFault::Connect);
    }
    let absolute = judged(method, target, limits)?;
    let (fields, nominated) = collect(raw.headers)?;
    let host = host(&fields, version, absolute)?;
    let body = framing::of_request(&fields, version)?;
    Ok(RequestHead {
        method,
        target,
        version,
        host,
        body,
        keep_alive: keeps_alive(&nominated, version),
        expect_continue: version == Version::Http11
            && fields::has_token(&fields, "expect", "100-continue"),
        max_forwards: max_forwards(method, &fields)?,
        upgrade: fields.iter().any(|field| field.is("upgrade")),
        fields,
        nominated,
    })
}

/// Parses a whole response head. `to_head`: it answers a HEAD request.
pub fn parse_response<'a>(
    head: &'a [u8],
    limits: &HeadLimits,
    to_head: bool,
) -> Result<ResponseHead<'a>, HeadFault> {
    let mut room = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut raw = httparse::Response::new(&mut []);
    let room = &mut room[..limits.fields.min(FIELDS_MAX)];
    // RFC 9112 §5.1: a proxy removes blanks between name and colon from a response. The names here
    // are without, and so is what is written of them; a request with such a blank is refused.
    let mut lenient = httparse::ParserConfig::default();
    lenient.allow_spaces_after_header_name_in_responses(true);
    match lenient.parse_response_with_uninit_headers(&mut raw, head, room) {
        Ok(httparse::Status::Complete(used)) if used == head.len() => {}
        Ok(_) => return Err(HeadFault::StartLine),
        Err(error) => return Err(fault(error, head)),
    }
    let version = version(raw.version)?;
    let (Some(status @ 100..), Some(reason)) = (raw.code, raw.reason) else {
        return Err(HeadFault::StartLine);
    };
    let (fields, nominated) = collect(raw.headers)?;
    let (body, reusable) = framing::of_response(&fields, version, status, to_head)?;
    let keep_alive = reusable && keeps_alive(&nominated, version);
    Ok(ResponseHead { version, status, reason, body, keep_alive, fields, nominated })
}

impl<'a> RequestHead<'a> {
    /// Path and query as the client wrote them, whatever the form of the target. This is what
    /// routes are matched with, and it is never decoded or tidied.
    pub fn path_and_query(&self) -> &'a str {
        match absolute(self.target) {
            None => self.target,
            Some(Absolute { rest: "", .. }) => "/",
            Some(Absolute { rest, .. }) => rest,
        }
    }

    /// The target as it goes on: path and query alone (RFC 9112 §3.2.1), in two pieces, the slash
    /// that an absolute target may lack and the rest. An absolute one of OPTIONS with neither asks
    /// the server itself, `*` (§3.2.4).
    pub fn origin_form(&self) -> [&'a str; 2] {
        match absolute(self.target) {
            None => ["", self.target],
            Some(Absolute { rest: "", .. }) if self.method == "OPTIONS" => ["", "*"],
            Some(Absolute { rest, .. }) if rest.starts_with('/') => ["", rest],
            Some(Absolute { rest, .. }) => ["/", rest],
        }
    }

    pub fn path(&self) -> &'a str {
        let whole = self.path_and_query();
        let path = whole.split_once('?').map_or(whole, |(path, _)| path);
        // `http://host?query` has an empty path, which means `/`.
        if path.is_empty() { "/" } else { path }
    }

    pub fn query(&self) -> Option<&'a str> {
        self.path_and_query().split_once('?').map(|(_, query)| query)
    }

    /// Whether doing it twice is doing it once (RFC 9110 section 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }

    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// The first value called `name`.
    pub fn value(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.iter().find(|field| field.is(name)).map(|field| field.value)
    }
}

impl<'a> ResponseHead<'a> {
    /// A 1xx that another response will follow.
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// The first value called `name`.
    pub fn value(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.iter().find(|field| field.is(name)).map(|field| field.value)
    }
}

type Lines<'a> = (Vec<Field<'a>>, Nominated<'a>);

fn collect<'a>(raw: &[httparse::Header<'a>]) -> Result<Lines<'a>, HeadFault> {
    let fields: Vec<_> =
        raw.iter().map(|header| Field { name: header.name, value: header.value }).collect();
    let nominated = Nominated::read(&fields, CONNECTION_TOKENS_MAX);
    Ok((fields, nominated.ok_or(HeadFault::TooManyTokens)?))
}

fn version(minor: Option<u8>) -> Result<Version, HeadFault> {
    match minor {
        Some(0) => Ok(Version::Http10),
        Some(1) => Ok(Version::Http11),
        _ => Err(HeadFault::Version),
    }
}

fn fault(error: httparse::Error, head: &[u8]) -> HeadFault {
    match error {
        httparse::Error::HeaderName => HeadFault::FieldName,
        httparse::Error::HeaderValue => HeadFault::FieldValue,
        httparse::Error::TooManyHeaders => HeadFault::TooManyFields,
        httparse::Error::Version if names_other_version(head) => HeadFault::Version,
        _ => HeadFault::StartLine,
    }
}

/// Is it a well-formed request line that ends in an `HTTP/x.y` we do not speak?
fn names_other_version(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let words: Vec<_> = line.splitn(4, |byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else { return false };
    !method.is_empty()
        && !target.is_empty()
        && matches!(version.strip_prefix(b"HTTP/"), Some([major, b'.', minor])
            if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Proves the target and takes an absolute one apart.
fn judged<'a>(
    method: &str,
    target: &'a str,
    limits: &HeadLimits,
) -> Result<Option<Absolute<'a>>, HeadFault> {
    if target.len() > limits.target {
        return Err(HeadFault::TargetTooLong);
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    // Browsers escape less in a query than in a path, and some programs nothing.
    let legal = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
        && !query.bytes().any(|byte| matches!(byte, 0..=b' ' | 0x7f | b'#'));
    if !legal {
        return Err(HeadFault::Target);
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok(None);
    }
    match absolute(target) {
        Some(absolute) if host_is_legal(absolute.authority) => Ok(Some(absolute)),
        _ => Err(HeadFault::Target),
    }
}

/// The schemes that can mean us, and the port that each leaves out.
const SCHEMES: [(&str, u16); 4] = [("http", 80), ("https", 443), ("ws", 80), ("wss", 443)];

/// A target in absolute-form (RFC 9112 §3.2.2), taken apart.
#[derive(Debug, Clone, Copy)]
struct Absolute<'a> {
    /// The port of its scheme.
    port: u16,
    authority: &'a str,
    /// Path and query; either may be missing.
    rest: &'a str,
}

/// Takes `scheme://authority` and what follows it apart, for the schemes that can mean us.
fn absolute(target: &str) -> Option<Absolute<'_>> {
    // Nearly every target begins with its path: there is no scheme to be looked for.
    if target.starts_with('/') {
        return None;
    }
    let (scheme, rest) = target.split_once("://")?;
    let (_, port) = *SCHEMES.iter().find(|(known, _)| scheme.eq_ignore_ascii_case(known))?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    Some(Absolute { port, authority, rest })
}

impl Absolute<'_> {
    /// Whether `host` names the same: a port that is the scheme's own may be left out (RFC 9110
    /// §4.2.3).
    fn is_for(&self, host: &str) -> bool {
        let ((name, port), (other, its)) = (self.parts(self.authority), self.parts(host));
        name.eq_ignore_ascii_case(other) && port == its
    }

    /// The name and port of a legal host.
    fn parts<'h>(&self, host: &'h str) -> (&'h str, u16) {
        let (name, port) = split_port(host);
        (name, port.and_then(|port| port.parse().ok()).unwrap_or(self.port))
    }
}

fn host<'a>(
    fields: &[Field<'a>],
    version: Version,
    absolute: Option<Absolute<'a>>,
) -> Result<Option<&'a str>, HeadFault> {
    let line = fields::only(fields, "host").map_err(|_| HeadFault::HostRepeated)?;
    let Some(value) = line else {
        return if version == Version::Http11 {
            Err(HeadFault::HostMissing)
        } else {
            Ok(absolute.map(|absolute| absolute.authority))
        };
    };
    let host = std::str::from_utf8(value)
        .ok()
        .filter(|host| host_is_legal(host))
        .ok_or(HeadFault::HostInvalid)?;
    // The standard lets the target win. Then a server behind us that reads only Host would route
    // differently, so a disagreement is refused instead.
    if absolute.is_some_and(|absolute| !absolute.is_for(host)) {
        return Err(HeadFault::HostMismatch);
    }
    Ok(Some(host))
}

fn host_is_legal(host: &str) -> bool {
    let (name, port) = split_port(host);
    // RFC 3986 §3.2.3: the port may be empty.
    let is_port = |port: &str| port.is_empty() || port.parse::<u16>().is_ok();
    let port_is_legal = port.is_none_or(|port| is_port(port) && !port.contains('+'));
    if let Some(inner) = name.strip_prefix('[') {
        let address = inner.strip_suffix(']').unwrap_or_default();
        return port_is_legal && address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte);
    port_is_legal && !name.is_empty() && name.bytes().all(legal)
}

/// A colon after the last bracket divides name and port.
fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

/// Digits only; a number that does not fit is the largest that does (RFC 9110 §7.6.2).
fn max_forwards(method: &str, fields: &[Field<'_>]) -> Result<Option<u32>, HeadFault> {
    if !matches!(method, "TRACE" | "OPTIONS") {
        return Ok(None);
    }
    let line = fields::only(fields, "max-forwards").map_err(|_| HeadFault::MaxForwards)?;
    let Some(value) = line else { return Ok(None) };
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(HeadFault::MaxForwards);
    }
    let add = |sum: u32, digit: &u8| sum.saturating_mul(10).saturating_add((digit - b'0').into());
    Ok(Some(value.iter().fold(0, add)))
}

fn keeps_alive(nominated: &Nominated<'_>, version: Version) -> bool {
    !nominated.has("close") && (version == Version::Http11 || nominated.has("keep-alive"))
}

#[cfg(test)]
mod tests;
