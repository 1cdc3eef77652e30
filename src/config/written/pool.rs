//! `[pools.NAME]` and its servers, as written.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::plan::{OnDown, OnRemove, SameSite, SendProxy};
use crate::config::problem::{At, Notes, Place};
use crate::config::read::{Field, Section};

use super::{DAY, is_token};

/// `[pools.NAME]`.
#[derive(Debug)]
pub struct Pool {
    pub name: At<String>,
    pub place: Place,
    pub balance: Option<At<Balance>>,
    pub bounded: Option<At<Bounded>>,
    pub servers: Option<At<Vec<Server>>>,
    /// `None`: `"off"`.
    pub health: Option<At<Option<Health>>>,
    pub sticky: Option<At<Sticky>>,
    pub slow_start: Option<At<Option<Duration>>>,
    pub max_connections: Option<At<u32>>,
    pub source: Option<At<Vec<At<IpAddr>>>>,
    pub send_proxy: Option<At<Option<SendProxy>>>,
    pub on_down: Option<At<OnDown>>,
    pub on_remove: Option<At<OnRemove>>,
    pub drain: Option<At<Drain>>,
    pub tls: Option<At<ServerTls>>,
    pub idle_connections: Option<At<u32>>,
}

/// `balance` of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    RoundRobin,
    LeastConnections,
    RandomTwo,
    SourceHash,
}

/// `bounded` of a pool.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bounded {
    No,
    /// `true`: by the default factor.
    Yes,
    By(f64),
}

/// One of `servers`, an address alone or a table.
#[derive(Debug)]
pub struct Server {
    pub address: At<String>,
    pub name: Option<At<String>>,
    pub weight: Option<At<u32>>,
    pub max_connections: Option<At<u32>>,
    pub drain: Option<At<bool>>,
}

/// `health = { … }`.
#[derive(Debug, Clone, Default)]
pub struct Health {
    pub every: Option<At<Duration>>,
    pub timeout: Option<At<Duration>>,
    pub rise: Option<At<u32>>,
    pub fall: Option<At<u32>>,
    pub http: Option<At<String>>,
}

/// `sticky = { … }`: by what a client is known.
#[derive(Debug)]
pub enum Sticky {
    Cookie(Box<StickyCookie>),
    Header(String),
    Query(String),
}

/// No Debug: it may hold a key.
pub struct StickyCookie {
    pub place: Place,
    pub name: String,
    pub key: Option<At<String>>,
    pub key_file: Option<At<String>>,
    pub path: Option<At<String>>,
    pub domain: Option<At<String>>,
    pub secure: Option<At<bool>>,
    pub http_only: Option<At<bool>>,
    pub same_site: Option<At<SameSite>>,
    pub max_age: Option<At<Duration>>,
}

impl std::fmt::Debug for StickyCookie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StickyCookie").field("name", &self.name).finish_non_exhaustive()
    }
}

/// `drain = { … }`: one of both.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    pub rate: Option<At<u32>>,
    pub window: Option<At<Duration>>,
}

/// `tls = { … }` of a pool.
#[derive(Debug, Default)]
pub struct ServerTls {
    pub ca: Option<At<String>>,
    pub server_name: Option<At<String>>,
    pub client_cert: Option<At<String>>,
    pub client_key: Option<At<String>>,
    pub verify: Option<At<bool>>,
}

impl Pool {
    pub fn read(notes: &Notes, name: At<String>, mut section: Section<'_>) -> Pool {
        let balance = section.take("balance").and_then(|it| {
            it.choice(&[
                ("round-robin", Balance::RoundRobin),
                ("least-connections", Balance::LeastConnections),
                ("random-two", Balance::RandomTwo),
                ("source-hash", Balance::SourceHash),
            ])
        });
        let bounded = section.take("bounded").and_then(bounded);
        let servers = section.take("servers").and_then(servers);
        let health = section.take("health").and_then(Health::read);
        let sticky = section.take("sticky").and_then(|it| sticky(notes, it));
        let slow_start =
            section.take("slow_start").and_then(|it| it.duration_or_off(Duration::ZERO..=DAY));
        let max_connections = section.take("max_connections").and_then(|it| it.count(0..=u32::MAX));
        let source = section.take("source").and_then(|it| {
            let example = "10.0.0.5";
            it.list(example, |text| text.parse().map_err(|_| "write IP addresses of this host"))
        });
        let send_proxy = section.take("send_proxy").and_then(|it| {
            it.choice(&[("off", None), ("v1", Some(SendProxy::V1)), ("v2", Some(SendProxy::V2))])
        });
        let on_down = section.take("on_down").and_then(|it| {
            it.choice(&[("keep", OnDown::Keep), ("drain", OnDown::Drain), ("close", OnDown::Close)])
        });
        let on_remove = section.take("on_remove").and_then(|it| {
            it.choice(&[
                ("keep", OnRemove::Keep),
                ("drain", OnRemove::Drain),
                ("close", OnRemove::Close),
            ])
        });
        let drain = section.take("drain").and_then(Drain::read);
        let tls = section.take("tls").and_then(ServerTls::read);
        let idle_connections = section.take("idle_connections").and_then(|it| it.count(0..=65_536));
        Pool {
            name,
            place: section.finish(),
            balance,
            bounded,
            servers,
            health,
            sticky,
            slow_start,
            max_connections,
            source,
            send_proxy,
            on_down,
            on_remove,
            drain,
            tls,
            idle_connections,
        }
    }
}

fn bounded(field: Field<'_>) -> Option<At<Bounded>> {
    match field.as_boolean() {
        Some(true) => Some(field.at(Bounded::Yes)),
        Some(false) => Some(field.at(Bounded::No)),
        None => Some(field.fraction(BOUNDS)?.map(Bounded::By)),
    }
}

fn servers(field: Field<'_>) -> Option<At<Vec<Server>>> {
    let place = field.place.clone();
    let items = field.items("[\"10.0.0.1:9000\"]")?;
    let value = items.into_iter().filter_map(Server::read).collect();
    Some(At { value, place })
}

impl Server {
    fn read(field: Field<'_>) -> Option<Server> {
        const EXAMPLE: &str = "10.0.0.1:9000";
        if !field.is_table() {
            let address = field.text(EXAMPLE)?;
            let (name, weight, max_connections, drain) = (None, None, None, None);
            return Some(Server { address, name, weight, max_connections, drain });
        }
        let notes = field.notes();
        let mut section = field.section("{ address = \"10.0.0.1:9000\" }")?;
        let address = section.take("address").and_then(|it| it.text(EXAMPLE));
        let name = section.take("name").and_then(|it| it.text("a"));
        let weight = section.take("weight").and_then(weight);
        let max_connections = section.take("max_connections").and_then(|it| it.count(0..=u32::MAX));
        let drain = section.take("drain").and_then(Field::boolean);
        let place = section.finish();
        if address.is_none() {
            notes.missing(&place, "address", format!("write where the server is, as {EXAMPLE:?}"));
        }
        Some(Server { address: address?, name, weight, max_connections, drain })
    }
}

fn weight(field: Field<'_>) -> Option<At<u32>> {
    if field.is_zero() {
        field.wrong("write 1 to 1000; who is to get no new clients says drain = true");
        return None;
    }
    field.count(WEIGHTS)
}

impl Health {
    fn read(field: Field<'_>) -> Option<At<Option<Health>>> {
        if field.is_text() {
            return field.off("{ every = \"2s\" }");
        }
        let mut section = field.section("{ every = \"2s\" }, or \"off\"")?;
        let health = Health {
            every: section.take("every").and_then(|it| it.duration(CHECKS)),
            timeout: section.take("timeout").and_then(|it| it.duration(CHECKS)),
            rise: section.take("rise").and_then(|it| it.count(COUNTS)),
            fall: section.take("fall").and_then(|it| it.count(COUNTS)),
            http: section.take("http").and_then(|it| {
                it.parsed("/healthz", |text| {
                    let visible = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
                    match text.starts_with('/') && visible {
                        true => Ok(text.to_owned()),
                        false => Err("write a path such as \"/healthz\""),
                    }
                })
            }),
        };
        Some(At { value: Some(health), place: section.finish() })
    }
}

/// Exactly one of `cookie`, `header`, `query`; the other keys belong to the cookie.
fn sticky(notes: &Notes, field: Field<'_>) -> Option<At<Sticky>> {
    let mut section = field.section("{ cookie = \"standpipe\" }")?;
    let cookie = section.take("cookie").and_then(|it| it.parsed("standpipe", token));
    let header = section.take("header").and_then(|it| it.parsed("X-User", token));
    let query = section.take("query").and_then(|it| it.parsed("room", parameter));
    let key = section.take("key").and_then(secret);
    let key_file = section.take("key_file").and_then(|it| it.text("sticky.key"));
    let path = section.take("path").and_then(|it| it.parsed("/", attribute));
    let domain = section.take("domain").and_then(|it| it.parsed("example.org", attribute));
    let secure = section.take("secure").and_then(Field::boolean);
    let http_only = section.take("http_only").and_then(Field::boolean);
    let same_site = section.take("same_site").and_then(|it| {
        it.choice(&[("strict", SameSite::Strict), ("lax", SameSite::Lax), ("none", SameSite::None)])
    });
    let max_age = section.take("max_age").and_then(|it| it.duration(AGES));
    let of_cookie = [
        key.as_ref().map(|at| &at.place),
        key_file.as_ref().map(|at| &at.place),
        path.as_ref().map(|at| &at.place),
        domain.as_ref().map(|at| &at.place),
        secure.as_ref().map(|at| &at.place),
        http_only.as_ref().map(|at| &at.place),
        same_site.as_ref().map(|at| &at.place),
        max_age.as_ref().map(|at| &at.place),
    ];
    if cookie.is_none() && (header.is_some() || query.is_some()) {
        for place in of_cookie.into_iter().flatten() {
            notes.mistake(place, "belongs to a cookie", "leave it out, or use cookie = \"name\"");
        }
    }
    let place = section.finish();
    let sticky = match (cookie, header, query) {
        (Some(cookie), None, None) => Sticky::Cookie(Box::new(StickyCookie {
            place: place.clone(),
            name: cookie.value,
            key,
            key_file,
            path,
            domain,
            secure,
            http_only,
            same_site,
            max_age,
        })),
        (None, Some(header), None) => Sticky::Header(header.value),
        (None, None, Some(query)) => Sticky::Query(query.value),
        (None, None, None) => {
            let remedy = "choose one of cookie = \"…\", header = \"…\", query = \"…\"";
            if !notes.is_spoken_for(&place.key) {
                notes.mistake(&place, "names nothing to be sticky by", remedy);
            }
            return None;
        }
        _ => {
            notes.mistake(
                &place,
                "names two things to be sticky by",
                "keep one of cookie, header, query",
            );
            return None;
        }
    };
    Some(At { value: sticky, place })
}

fn secret(field: Field<'_>) -> Option<At<String>> {
    if !field.is_text() {
        field.wrong_secret("is not a string", "write a string of at least 16 bytes");
        return None;
    }
    field.text("")
}

fn token(text: &str) -> Result<String, &'static str> {
    match is_token(text) {
        true => Ok(text.to_owned()),
        false => Err("use letters, digits and marks such as '-' and '_', without spaces"),
    }
}

fn parameter(text: &str) -> Result<String, &'static str> {
    match text.is_empty() {
        true => Err("write the name of a query parameter such as \"room\""),
        false => Ok(text.to_owned()),
    }
}

/// A cookie attribute's value: nothing that could end it or start another.
fn attribute(text: &str) -> Result<String, &'static str> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b';' && byte != b',';
    match !text.is_empty() && text.bytes().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err("use visible ASCII without spaces, ';' and ','"),
    }
}

impl Drain {
    fn read(field: Field<'_>) -> Option<At<Drain>> {
        let mut section = field.section("{ window = \"100s\" } or { rate = 50 }")?;
        let drain = Drain {
            rate: section.take("rate").and_then(|it| it.count(RATES)),
            window: section.take("window").and_then(|it| it.duration(Duration::ZERO..=DAY)),
        };
        Some(At { value: drain, place: section.finish() })
    }
}

impl ServerTls {
    fn read(field: Field<'_>) -> Option<At<ServerTls>> {
        let mut section = field.section("{ ca = \"tls/ca.pem\" }")?;
        let tls = ServerTls {
            ca: section.take("ca").and_then(|it| it.text("tls/ca.pem")),
            server_name: section.take("server_name").and_then(|it| it.text("chat.internal")),
            client_cert: section.take("client_cert").and_then(|it| it.text("tls/client.pem")),
            client_key: section.take("client_key").and_then(|it| it.text("tls/client.key")),
            verify: section.take("verify").and_then(Field::boolean),
        };
        Some(At { value: tls, place: section.finish() })
    }
}

const WEIGHTS: RangeInclusive<u32> = 1..=1_000;
const BOUNDS: RangeInclusive<f64> = 1.01..=100.0;
const CHECKS: RangeInclusive<Duration> = Duration::from_millis(10)..=DAY;
const COUNTS: RangeInclusive<u32> = 1..=100;
const AGES: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(400 * 24 * 3600);
const RATES: RangeInclusive<u32> = 1..=1_000_000;
