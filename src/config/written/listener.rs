//! `[listeners.NAME]` and its routes, as written.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::plan::{AcceptProxy, RelayUnit, UnknownName, WhenEmpty};
use crate::config::problem::{At, Notes, Place};
use crate::config::read::{Field, Section};
use crate::proto::http::names;

use super::{DAY, Pair, is_field_value, is_token};

/// `[listeners.NAME]`.
#[derive(Debug)]
pub struct Listener {
    pub name: At<String>,
    pub bind: Option<At<Vec<At<SocketAddr>>>>,
    pub mode: Option<At<Mode>>,
    pub pool: Option<At<String>>,
    pub routes: Option<At<Vec<Route>>>,
    pub tls: Option<Tls>,
    pub trusted: Option<At<Vec<At<IpNet>>>>,
    pub accept_proxy: Option<At<Option<AcceptProxy>>>,
    pub when_empty: Option<At<WhenEmpty>>,
    pub max_connections: Option<At<u32>>,
    pub max_per_source: Option<At<u32>>,
    /// `None`: `"off"`.
    pub ping: Option<At<Option<Ping>>>,
    pub http: Option<At<Http>>,
    pub json_errors: Option<At<bool>>,
}

/// `mode` of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    L4,
    L7,
}

/// `ping = { … }`.
#[derive(Debug, Clone, Default)]
pub struct Ping {
    pub every: Option<At<Duration>>,
    pub timeout: Option<At<Duration>>,
    pub server: Option<At<bool>>,
}

/// `http = { … }`: limits of heads, in bytes and in fields.
#[derive(Debug, Default)]
pub struct Http {
    pub head: Option<At<u64>>,
    pub headers: Option<At<u32>>,
    pub target: Option<At<u64>>,
}

/// `tls = { … }` of a listener.
#[derive(Debug)]
pub struct Tls {
    pub place: Place,
    pub certificates: Option<At<Vec<Certificate>>>,
    pub unknown_name: Option<At<UnknownName>>,
    pub alpn: Option<At<Vec<At<String>>>>,
    pub client_ca: Option<(At<String>, bool)>,
    pub client_headers: Option<At<ClientHeaders>>,
    pub ticket_keys: Option<At<String>>,
    pub key_log: Option<At<bool>>,
    pub handshakes_in_flight: Option<At<u32>>,
    pub handshakes_per_second: Option<At<u32>>,
}

/// One of `tls.certificates`.
#[derive(Debug)]
pub struct Certificate {
    pub place: Place,
    pub cert: Option<At<String>>,
    pub key: Option<At<String>>,
}

/// `tls.client_headers`.
#[derive(Debug, Default)]
pub struct ClientHeaders {
    pub subject: Option<At<String>>,
    pub fingerprint: Option<At<String>>,
}

/// A pool's name and its part of a route.
pub type Share = (At<String>, At<u32>);

/// `[[listeners.NAME.routes]]`.
#[derive(Debug)]
pub struct Route {
    pub place: Place,
    pub host: Option<At<String>>,
    pub path: Option<At<String>>,
    pub protocol: Option<At<String>>,
    pub query: Vec<Pair>,
    pub header: Vec<Pair>,
    pub pool: Option<At<String>>,
    /// Pools by name with their shares.
    pub split: Option<At<Vec<Share>>>,
    pub relay: Option<At<RelayUnit>>,
    pub origins: Option<At<Vec<At<String>>>>,
    pub max_frame: Option<At<u64>>,
    pub max_message: Option<At<u64>>,
    pub messages_per_second: Option<At<u32>>,
}

impl Listener {
    pub fn read(_: &Notes, name: At<String>, mut section: Section<'_>) -> Listener {
        let listener = Listener {
            name,
            bind: section.take("bind").and_then(|it| it.list("0.0.0.0:8443", bind)),
            mode: section
                .take("mode")
                .and_then(|it| it.choice(&[("l4", Mode::L4), ("l7", Mode::L7)])),
            pool: section.take("pool").and_then(|it| it.text("chat")),
            routes: section.take("routes").and_then(routes),
            tls: section.take("tls").and_then(Tls::read),
            trusted: section.take("trusted").and_then(|it| it.list("10.0.0.0/8", network)),
            accept_proxy: section.take("accept_proxy").and_then(|it| {
                it.choice(&[
                    ("off", None),
                    ("v1", Some(AcceptProxy::V1)),
                    ("v2", Some(AcceptProxy::V2)),
                    ("any", Some(AcceptProxy::Any)),
                ])
            }),
            when_empty: section.take("when_empty").and_then(|it| {
                it.choice(&[("close", WhenEmpty::Close), ("refuse", WhenEmpty::Refuse)])
            }),
            max_connections: section.take("max_connections").and_then(|it| it.count(0..=u32::MAX)),
            max_per_source: section.take("max_per_source").and_then(|it| it.count(0..=u32::MAX)),
            ping: section.take("ping").and_then(Ping::read),
            http: section.take("http").and_then(Http::read),
            json_errors: section
                .take("errors")
                .and_then(|it| it.choice(&[("text", false), ("json", true)])),
        };
        section.finish();
        listener
    }
}

impl Ping {
    fn read(field: Field<'_>) -> Option<At<Option<Ping>>> {
        if field.is_text() {
            return field.off("{ every = \"25s\" }");
        }
        let mut section = field.section("{ every = \"25s\", timeout = \"20s\" }, or \"off\"")?;
        let ping = Ping {
            every: section.take("every").and_then(|it| it.duration(PINGS)),
            timeout: section.take("timeout").and_then(|it| it.duration(PINGS)),
            server: section.take("server").and_then(Field::boolean),
        };
        Some(At { value: Some(ping), place: section.finish() })
    }
}

impl Http {
    fn read(field: Field<'_>) -> Option<At<Http>> {
        let mut section = field.section("{ head = \"32KiB\" }")?;
        let http = Http {
            head: section.take("head").and_then(|it| it.size(HEAD_BYTES)),
            headers: section.take("headers").and_then(|it| it.count(HEADERS)),
            target: section.take("target").and_then(|it| it.size(TARGET_BYTES)),
        };
        Some(At { value: http, place: section.finish() })
    }
}

impl Tls {
    fn read(field: Field<'_>) -> Option<Tls> {
        let mut section = field.section("{ certificates = [{ cert = \"…\", key = \"…\" }] }")?;
        let certificates = section.take("certificates").and_then(certificates);
        let unknown_name = section.take("unknown_name").and_then(|it| {
            it.choice(&[("default", UnknownName::Default), ("refuse", UnknownName::Refuse)])
        });
        let alpn = section.take("alpn").and_then(|it| it.list("http/1.1", protocol_name));
        let client_ca = section.take("client_ca").and_then(client_ca);
        let client_headers = section.take("client_headers").and_then(ClientHeaders::read);
        let ticket_keys = section.take("ticket_keys").and_then(|it| it.text("tls/tickets.key"));
        let key_log = section.take("key_log").and_then(Field::boolean);
        let handshakes_in_flight =
            section.take("handshakes_in_flight").and_then(|it| it.count(0..=HANDSHAKES_MOST));
        let handshakes_per_second =
            section.take("handshakes_per_second").and_then(|it| it.count(0..=u32::MAX));
        Some(Tls {
            place: section.finish(),
            certificates,
            unknown_name,
            alpn,
            client_ca,
            client_headers,
            ticket_keys,
            key_log,
            handshakes_in_flight,
            handshakes_per_second,
        })
    }
}

fn certificates(field: Field<'_>) -> Option<At<Vec<Certificate>>> {
    let place = field.place.clone();
    let mut all = Vec::new();
    for item in field.items("[{ cert = \"…\", key = \"…\" }]")? {
        let Some(mut section) = item.section("{ cert = \"…\", key = \"…\" }") else { continue };
        let cert = section.take("cert").and_then(|it| it.text("tls/fullchain.pem"));
        let key = section.take("key").and_then(|it| it.text("tls/key.pem"));
        all.push(Certificate { place: section.finish(), cert, key });
    }
    Some(At { value: all, place })
}

/// A file, or `{ file, required }`.
fn client_ca(field: Field<'_>) -> Option<(At<String>, bool)> {
    if field.is_text() {
        return field.text("tls/clients.pem").map(|file| (file, true));
    }
    let example = "\"tls/clients.pem\" or { file = \"tls/clients.pem\", required = false }";
    let notes = field.notes();
    let mut section = field.section(example)?;
    let file = section.take("file").and_then(|it| it.text("tls/clients.pem"));
    let required = section.take("required").and_then(Field::boolean);
    let place = section.finish();
    if file.is_none() {
        notes.missing(&place, "file", "name the PEM file of the authorities clients must have");
    }
    Some((file?, required.is_none_or(|at| at.value)))
}

impl ClientHeaders {
    fn read(field: Field<'_>) -> Option<At<ClientHeaders>> {
        let mut section = field.section("{ subject = \"X-Client-Subject\" }")?;
        let headers = ClientHeaders {
            subject: section.take("subject").and_then(|it| it.parsed("X-Client", own_header)),
            fingerprint: section
                .take("fingerprint")
                .and_then(|it| it.parsed("X-Client", own_header)),
        };
        Some(At { value: headers, place: section.finish() })
    }
}

fn routes(field: Field<'_>) -> Option<At<Vec<Route>>> {
    let place = field.place.clone();
    let items = field.items("[[listeners.web.routes]]")?;
    let value = items.into_iter().filter_map(Route::read).collect();
    Some(At { value, place })
}

impl Route {
    fn read(field: Field<'_>) -> Option<Route> {
        let mut section = field.section("{ path = \"/chat\", pool = \"chat\" }")?;
        let host = section.take("host").and_then(|it| it.text("chat.example.org"));
        let path = section.take("path").and_then(|it| it.text("/chat"));
        let protocol = section.take("protocol").and_then(|it| {
            it.parsed("chat.v2", |text| match is_token(text) {
                true => Ok(text.to_owned()),
                false => Err("write one subprotocol such as \"chat.v2\""),
            })
        });
        let query = section.take("query").map(|it| pairs(it, false)).unwrap_or_default();
        let header = section.take("header").map(|it| pairs(it, true)).unwrap_or_default();
        let pool = section.take("pool").and_then(|it| it.text("chat"));
        let split = section.take("split").and_then(split);
        let relay = section.take("relay").and_then(|it| {
            it.choice(&[("frames", RelayUnit::Frames), ("bytes", RelayUnit::Bytes)])
        });
        let origins = section
            .take("origins")
            .and_then(|it| it.list("https://example.org", |text| Ok::<_, String>(text.to_owned())));
        let max_frame = section.take("max_frame").and_then(|it| it.size(0..=u64::MAX >> 1));
        let max_message = section.take("max_message").and_then(|it| it.size(0..=u64::MAX >> 1));
        let messages_per_second =
            section.take("messages_per_second").and_then(|it| it.count(0..=1_000_000));
        Some(Route {
            place: section.finish(),
            host,
            path,
            protocol,
            query,
            header,
            pool,
            split,
            relay,
            origins,
            max_frame,
            max_message,
            messages_per_second,
        })
    }
}

/// `{ name = "value" }`.
fn pairs(field: Field<'_>, header: bool) -> Vec<Pair> {
    let notes = field.notes();
    let Some(mut section) = field.section("{ name = \"value\" }") else { return Vec::new() };
    let mut all = Vec::new();
    for (name, field) in section.take_named() {
        if header && !is_token(&name.value) {
            notes.mistake(&name.place, "is no header name", "write a name such as \"X-Canary\"");
            continue;
        }
        if name.value.is_empty() {
            notes.mistake(&name.place, "is no parameter", "write a name such as \"beta\"");
            continue;
        }
        let read = |text: &str| match !header || is_field_value(text) {
            true => Ok(text.to_owned()),
            false => Err("a header's value is visible ASCII without spaces around it"),
        };
        if let Some(value) = field.parsed("1", read) {
            all.push((name, value));
        }
    }
    section.finish();
    all
}

fn split(field: Field<'_>) -> Option<At<Vec<Share>>> {
    let mut section = field.section("{ chat = 95, canary = 5 }")?;
    let shares = section
        .take_named()
        .into_iter()
        .filter_map(|(name, field)| Some((name, field.count(0..=SHARE_MOST)?)))
        .collect();
    Some(At { value: shares, place: section.finish() })
}

fn bind(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => Err("choose a port from 1 to 65535".to_owned()),
        Ok(address) => match never_bound(address) {
            Some(remedy) => Err(remedy),
            None => Ok(address),
        },
        Err(_) => Err("write an IP address and a port such as \"0.0.0.0:8443\", or \
                       \"[::]:8443\" for IPv6"
            .to_owned()),
    }
}

/// What to write instead of an address that no socket of ours can listen on.
fn never_bound(address: SocketAddr) -> Option<String> {
    if let IpAddr::V6(v6) = address.ip()
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        let v4 = SocketAddr::new(v4.into(), address.port()).to_string();
        return Some(format!("an IPv6 listener takes IPv6 only; write {v4:?}"));
    }
    let broadcast = address.ip() == IpAddr::V4(Ipv4Addr::BROADCAST);
    let all = address.ip().is_multicast() || broadcast;
    all.then(|| "connections come to one machine; write an address of this one".to_owned())
}

fn network(text: &str) -> Result<IpNet, &'static str> {
    let single = || text.parse::<IpAddr>().map(IpNet::from).ok();
    let network = text.parse::<IpNet>().ok().or_else(single);
    network.map(|net| net.trunc()).ok_or("write a network such as \"10.0.0.0/8\", or one address")
}

fn protocol_name(text: &str) -> Result<String, &'static str> {
    match text.len() {
        1..=255 => Ok(text.to_owned()),
        _ => Err("an ALPN name has 1 to 255 bytes"),
    }
}

/// A header the proxy writes itself, so none that frames or routes the message or tells the server
/// something already.
fn own_header(text: &str) -> Result<String, &'static str> {
    if names::is_taken(text) {
        return Err("it has a meaning of its own; choose a name such as \"X-Client-Subject\"");
    }
    match is_token(text) {
        true => Ok(text.to_owned()),
        false => Err("write a header name of your own such as \"X-Client-Subject\""),
    }
}

const PINGS: RangeInclusive<Duration> = Duration::from_millis(100)..=DAY;
const HEAD_BYTES: RangeInclusive<u64> = 1 << 10..=1 << 18;
const HEADERS: RangeInclusive<u32> = 8..=256;
const TARGET_BYTES: RangeInclusive<u64> = 1 << 8..=1 << 16;
const HANDSHAKES_MOST: u32 = 1 << 20;
const SHARE_MOST: u32 = 10_000;
