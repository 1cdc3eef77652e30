//! The file as written: every value has its type and its place, nothing has a default yet, no name
//! has been looked up and no file opened.

mod listener;
mod pool;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeTable;

use super::plan::{LogConnections, LogFormat};
use super::problem::{At, Notes};
use super::read::{Field, Section};

pub use listener::{Http, Listener, Mode, Ping, Route, Tls};
pub use pool::{Balance, Bounded, Pool, ServerTls, Sticky, StickyCookie};

/// The whole file.
#[derive(Debug, Default)]
pub struct File {
    pub runtime: Runtime,
    pub listeners: Vec<Listener>,
    pub pools: Vec<Pool>,
    pub timeouts: Timeouts,
}

/// `[runtime]`.
#[derive(Debug, Default)]
pub struct Runtime {
    /// `None`: `"cores"`.
    pub workers: Option<At<Option<usize>>>,
    pub admin: Option<At<Option<SocketAddr>>>,
    pub drain_delay: Option<At<Duration>>,
    pub drain_timeout: Option<At<Duration>>,
    pub log_format: Option<At<LogFormat>>,
    pub log_connections: Option<At<LogConnections>>,
}

/// `[timeouts]`.
#[derive(Debug, Default)]
pub struct Timeouts {
    pub handshake: Option<At<Duration>>,
    pub connect: Option<At<Duration>>,
    pub keepalive: Option<At<Duration>>,
    pub idle: Option<At<Option<Duration>>>,
    pub half_close: Option<At<Option<Duration>>>,
    pub request: Option<At<Option<Duration>>>,
    pub response: Option<At<Option<Duration>>>,
    pub stall: Option<At<Option<Duration>>>,
    pub user_timeout: Option<At<Option<Duration>>>,
    pub tcp_keepalive: Option<At<Option<Duration>>>,
}

/// A header a request must carry, or a query parameter: name and value.
pub type Pair = (At<String>, At<String>);

impl File {
    pub fn read(notes: &Notes, table: &DeTable<'_>) -> File {
        let mut section = Section::whole(notes, table);
        let mut file = File::default();
        if let Some(runtime) = section.take("runtime").and_then(|it| it.section("[runtime]")) {
            file.runtime = Runtime::read(runtime);
        }
        if let Some(listeners) =
            section.take("listeners").and_then(|it| it.section("[listeners.web]"))
        {
            file.listeners = named(notes, listeners, "[listeners.web]", Listener::read);
        }
        if let Some(pools) = section.take("pools").and_then(|it| it.section("[pools.chat]")) {
            file.pools = named(notes, pools, "[pools.chat]", Pool::read);
        }
        if let Some(timeouts) = section.take("timeouts").and_then(|it| it.section("[timeouts]")) {
            file.timeouts = Timeouts::read(timeouts);
        }
        section.finish();
        file
    }
}

fn named<'d, T>(
    notes: &Notes,
    mut section: Section<'d>,
    example: &str,
    read: impl Fn(&Notes, At<String>, Section<'d>) -> T,
) -> Vec<T> {
    let mut all = Vec::new();
    let entries = section.take_named();
    if !entries.is_empty() && !entries.iter().any(|(_, field)| field.is_table()) {
        let remedy = format!("give it a name of your choice, as {example}");
        notes.mistake(&section.finish(), "holds values where names were expected", remedy);
        return all;
    }
    for (name, field) in entries {
        if !is_label(&name.value) {
            notes.mistake(&name.place, "is no usable name", NAME);
        }
        if let Some(section) = field.section(example) {
            all.push(read(notes, name, section));
        }
    }
    section.finish();
    all
}

impl Runtime {
    fn read(mut section: Section<'_>) -> Runtime {
        let mut runtime = Runtime {
            workers: section.take("workers").and_then(workers),
            admin: section.take("admin").and_then(|it| {
                it.parsed("127.0.0.1:9901", |text| match text {
                    "off" => Ok(None),
                    _ => text.parse().map(Some).map_err(
                        |_| "write an address and port such as \"127.0.0.1:9901\", or \"off\"",
                    ),
                })
            }),
            drain_delay: section.take("drain_delay").and_then(|it| it.duration(DELAYS)),
            drain_timeout: section.take("drain_timeout").and_then(|it| it.duration(DELAYS)),
            ..Runtime::default()
        };
        if let Some(mut log) =
            section.take("log").and_then(|it| it.section("{ format = \"json\" }"))
        {
            runtime.log_format = log.take("format").and_then(|it| {
                it.choice(&[("logfmt", LogFormat::Logfmt), ("json", LogFormat::Json)])
            });
            runtime.log_connections = log.take("connections").and_then(|it| {
                it.choice(&[
                    ("off", LogConnections::Off),
                    ("sampled", LogConnections::Sampled),
                    ("all", LogConnections::All),
                ])
            });
            log.finish();
        }
        section.finish();
        runtime
    }
}

fn workers(field: Field<'_>) -> Option<At<Option<usize>>> {
    if field.is_text() {
        return field.parsed("cores", |text| match text {
            "cores" => Ok(None),
            _ => {
                Err(format!("write \"cores\", or a number from 1 to {WORKERS_MOST} without quotes"))
            }
        });
    }
    let workers = field.integer(1..=WORKERS_MOST)?;
    Some(workers.map(|count| usize::try_from(count).ok()))
}

impl Timeouts {
    fn read(mut section: Section<'_>) -> Timeouts {
        let mut must = |key| section.take(key).and_then(|it: Field<'_>| it.duration(TIMEOUTS));
        let (handshake, connect, keepalive) =
            (must("handshake"), must("connect"), must("keepalive"));
        let mut may =
            |key| section.take(key).and_then(|it: Field<'_>| it.duration_or_off(TIMEOUTS));
        let timeouts = Timeouts {
            handshake,
            connect,
            keepalive,
            idle: may("idle"),
            half_close: may("half_close"),
            request: may("request"),
            response: may("response"),
            stall: may("stall"),
            user_timeout: section
                .take("user_timeout")
                .and_then(|it| it.duration_or_off(USER_TIMEOUTS)),
            tcp_keepalive: section
                .take("tcp_keepalive")
                .and_then(|it| it.duration_or_off(TCP_KEEPALIVES)),
        };
        section.finish();
        timeouts
    }
}

/// Names become labels of metrics and parts of log lines.
pub fn is_label(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    !name.is_empty() && name.len() <= 64 && name.chars().all(allowed)
}

/// Letters, digits and the marks RFC 9110 allows in a field name or a cookie name.
pub fn is_token(text: &str) -> bool {
    let mark = |byte: u8| b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || mark(byte))
}

/// What may stand in a field value: visible ASCII and inner spaces.
pub fn is_field_value(text: &str) -> bool {
    text.trim() == text && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

pub const NAME: &str = "use 1 to 64 letters, digits, '_', '-' and '.'";

const WORKERS_MOST: u64 = 1024;
const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Longer than a month is a slip; `"off"` says it better.
const TIMEOUTS: RangeInclusive<Duration> = MILLISECOND..=Duration::from_secs(31 * 24 * 3600);
/// What the kernel takes: milliseconds in a signed 32-bit number.
const USER_TIMEOUTS: RangeInclusive<Duration> = MILLISECOND..=Duration::from_secs(24 * 24 * 3600);
/// What the kernel takes: whole seconds in fifteen bits, of which probes are a third apart.
const TCP_KEEPALIVES: RangeInclusive<Duration> =
    Duration::from_secs(3)..=Duration::from_secs(9 * 3600);
const DELAYS: RangeInclusive<Duration> = Duration::ZERO..=DAY;
