//! From flags as typed to a plan that can be carried out, or one sentence saying why not.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use rustls::pki_types::ServerName;

use crate::cli::{BulkArgs, EchoArgs, IdleArgs, RunArgs, TargetArgs};
use crate::echo::{Delay, Listen, Manner, Options};
use crate::message::{Form, header_bytes};
use crate::plan::{Plan, Request, Traffic};
use crate::secure::{self, ClientSecrets};
use crate::sizes::{Sizes, parse_bytes};
use crate::target::{Scheme, Sources, Target};

/// Connections per thread and fd table, unless told otherwise. Under the common hard limit of
/// 20,000 files, with room for what a process has open anyway.
const CONNECTIONS_PER_TABLE: usize = 19_000;

pub fn run(args: &RunArgs) -> Result<Plan, String> {
    let traffic = match (args.traffic.rate, args.traffic.closed) {
        (Some(rate), false) if rate.is_finite() && rate > 0.0 => Traffic::Open { rate },
        (Some(rate), _) => return Err(format!("--rate {rate}: want messages per second above 0")),
        (None, true) => Traffic::Closed,
        (None, false) => {
            return Err("say how to load: --rate N (messages per second, open loop) or --closed \
                        (ping-pong)"
                .into());
        }
    };
    let mut plan = base(&args.target, &args.traffic.size)?;
    plan.traffic = traffic;
    plan.active = share(&args.traffic.active)?;
    plan.duration = args.traffic.duration;
    plan.warmup = args.traffic.warmup;
    plan.drain = args.traffic.drain;
    if plan.talkers() == 0 {
        return Err("nobody talks: --active times --connections is below one".into());
    }
    Ok(plan)
}

pub fn idle(args: &IdleArgs) -> Result<Plan, String> {
    let mut plan = base(&args.target, &args.size)?;
    plan.traffic = Traffic::Silent;
    Ok(plan)
}

pub fn bulk(args: &BulkArgs) -> Result<Plan, String> {
    let mut plan = base(&args.target, &args.size)?;
    plan.traffic = match args.direction.as_str() {
        "up" | "both" => Traffic::Stream,
        "down" => Traffic::Listen,
        other => return Err(format!("--direction {other}: want up, down or both")),
    };
    plan.duration = args.duration;
    plan.warmup = args.warmup;
    plan.drain = args.drain;
    Ok(plan)
}

/// What every scene shares.
fn base(args: &TargetArgs, size: &str) -> Result<Plan, String> {
    let target = Target::parse(&args.url)?;
    let form = if args.text { Form::Text } else { Form::Binary };
    let sizes = Sizes::parse(size).map_err(|why| format!("--size {why}"))?;
    if sizes.smallest() < header_bytes(form) {
        return Err(format!(
            "--size {size}: a {} message is at least {} bytes, the header that proves it",
            if args.text { "text" } else { "binary" },
            header_bytes(form)
        ));
    }
    if args.connections == 0 {
        return Err("--connections 0: there is nothing to do".into());
    }
    if !(args.connect_rate.is_finite() && args.connect_rate > 0.0) {
        return Err(format!("--connect-rate {}: want a number above 0", args.connect_rate));
    }
    let secrets = if target.scheme.tls { Some(client_secrets(args, &target)?) } else { None };
    let cores = cores(args.cores.as_deref())?;
    let needed = (args.connections as usize).div_ceil(CONNECTIONS_PER_TABLE);
    let threads = args.threads.unwrap_or(needed.max(cores.len()).max(1)).max(1);
    Ok(Plan {
        secrets,
        sources: Sources::parse(&args.source)?,
        connections: args.connections,
        connect_rate: args.connect_rate,
        connect_timeout: args.connect_timeout,
        threads: threads.min(args.connections as usize),
        cores,
        traffic: Traffic::Silent,
        sizes,
        form,
        active: 1.0,
        warmup: Duration::ZERO,
        duration: Duration::ZERO,
        drain: Duration::from_secs(5),
        request: request(args, &target)?,
        seed: args.seed,
        ask: args.split && !target.scheme.websocket,
        target,
    })
}

fn request(args: &TargetArgs, target: &Target) -> Result<Request, String> {
    let asked = !args.path.is_empty() || !args.header.is_empty() || args.subprotocol.is_some();
    if asked && !target.scheme.websocket {
        return Err("--path, --header and --subprotocol need a ws:// or wss:// URL".into());
    }
    let mut headers = Vec::new();
    for text in &args.header {
        let (name, value) =
            text.split_once(':').ok_or(format!("--header {text}: want 'Name: value'"))?;
        if text.contains(['\r', '\n']) || name.trim().is_empty() {
            return Err(format!("--header {text:?}: not a header"));
        }
        let values = value.trim().split('|').map(str::to_owned).collect();
        headers.push((name.trim().to_owned(), values));
    }
    if let Some(path) = args.path.iter().find(|path| !path.starts_with('/')) {
        return Err(format!("--path {path}: begins with a slash"));
    }
    Ok(Request {
        paths: args.path.clone(),
        headers,
        subprotocol: args.subprotocol.clone(),
        cookies: args.cookies,
    })
}

fn client_secrets(args: &TargetArgs, target: &Target) -> Result<ClientSecrets, String> {
    let name = args.server_name.clone().unwrap_or_else(|| target.host.clone());
    let name = ServerName::try_from(name.clone())
        .map_err(|_| format!("{name}: not a name TLS can check; give one with --server-name"))?;
    Ok(ClientSecrets { config: secure::client_config(args.ca.as_deref(), args.insecure)?, name })
}

/// `0.1` or `10%`.
fn share(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text}: want a share like 10% or 0.1");
    let value = match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().map_err(|_| wrong())? / 100.0,
        None => text.parse::<f64>().map_err(|_| wrong())?,
    };
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(wrong()) }
}

/// `0,2-3` as a list; nothing given means not pinned.
fn cores(text: Option<&str>) -> Result<Vec<usize>, String> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let known = core_affinity::get_core_ids().unwrap_or_default();
    let mut list = Vec::new();
    for part in text.split(',') {
        let wrong = || format!("--cores {text}: want numbers like 0,1 or 2-3");
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().map_err(|_| wrong())?;
        let last: usize = last.trim().parse().map_err(|_| wrong())?;
        list.extend(first..=last.min(first + 1024));
    }
    match list.iter().find(|&&id| !known.iter().any(|core| core.id == id)) {
        Some(id) => Err(format!("--cores {text}: there is no core {id} for us here")),
        None => Ok(list),
    }
}

pub fn echo(args: &EchoArgs) -> Result<Options, String> {
    let mut listens = Vec::new();
    for text in &args.listen {
        for (scheme, address) in listen(text)? {
            let name = args.name.get(listens.len()).cloned();
            let name = name.unwrap_or_else(|| address.to_string());
            listens.push(Listen { scheme, address, name });
        }
    }
    if args.name.len() > listens.len() {
        return Err("more --name than addresses to listen on".into());
    }
    if listens.len() > usize::from(u16::MAX) {
        return Err("too many addresses to listen on".into());
    }
    let manner = match args.manner.as_str() {
        "echo" => Manner::Echo,
        "sink" => Manner::Sink,
        "source" => Manner::Source { sizes: Sizes::parse(&args.size)?, rate: args.rate },
        other => return Err(format!("--manner {other}: want echo, sink or source")),
    };
    let files = args.cert.as_deref().zip(args.key.as_deref());
    let secrets = if listens.iter().any(|listen| listen.scheme.tls) {
        let mut names: Vec<String> =
            listens.iter().map(|listen| listen.address.ip().to_string()).collect();
        names.push("localhost".into());
        names.sort();
        names.dedup();
        Some(secure::server_config(files, names)?)
    } else {
        None
    };
    let cores = cores(args.cores.as_deref())?;
    Ok(Options {
        listens,
        threads: args.threads.unwrap_or(cores.len().max(1)).max(1),
        cores,
        manner,
        form: if args.text { Form::Text } else { Form::Binary },
        delay: args.delay.as_deref().map(Delay::parse).transpose()?,
        stall: args.stall_every.zip(args.stall),
        die_after: args.die_after.as_deref().map(parse_bytes).transpose()?.map(|n| n as u64),
        secrets,
        seed: args.seed,
    })
}

/// `tcp://127.0.0.1:9000-9003` is four addresses.
fn listen(text: &str) -> Result<Vec<(Scheme, SocketAddr)>, String> {
    let wrong = || format!("{text}: want ws://ADDRESS:PORT, tcp://…, wss://… or tls://…");
    let (head, ports) = text.trim_end_matches('/').rsplit_once(':').ok_or_else(wrong)?;
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let first: u16 = first.parse().map_err(|_| wrong())?;
    let last: u16 = last.parse().map_err(|_| wrong())?;
    let (scheme, host) = head.split_once("://").ok_or_else(wrong)?;
    let scheme = match scheme {
        "ws" => Scheme { websocket: true, tls: false },
        "wss" => Scheme { websocket: true, tls: true },
        "tcp" => Scheme { websocket: false, tls: false },
        "tls" => Scheme { websocket: false, tls: true },
        _ => return Err(wrong()),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut list = Vec::new();
    for port in first..=last {
        let address = (host, port)
            .to_socket_addrs()
            .map_err(|error| format!("{text}: {error}"))?
            .next()
            .ok_or_else(wrong)?;
        list.push((scheme, address));
    }
    Ok(list)
}
