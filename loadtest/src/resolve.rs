//! From flags as typed to a plan that can be carried out, or one sentence saying why not.

use std::time::Duration;

use rustls::pki_types::ServerName;

use crate::cli::{
    AuditArgs, BackgroundArgs, BulkArgs, ChurnArgs, Direction, HalfOpenArgs, IdleArgs, NatArgs,
    RunArgs, SlowArgs, StormArgs, TargetArgs,
};
use crate::message::{Form, header_bytes};
use crate::plan::{Odd, Plan, Request, Traffic};
use crate::secure::{self, ClientSecrets};
use crate::sizes::{Sizes, parse_bytes};
use crate::target::{Sources, Target};

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
    plan.sink = args.direction == Direction::Up;
    plan.traffic = match args.direction {
        Direction::Up | Direction::Both => Traffic::Stream,
        Direction::Down => Traffic::Listen,
    };
    plan.duration = args.duration;
    plan.warmup = args.warmup;
    plan.drain = args.drain;
    Ok(plan)
}

pub fn storm(args: &StormArgs) -> Result<Plan, String> {
    let mut plan = background(&args.target, &args.traffic)?;
    plan.redial = true;
    plan.reset = args.reset;
    Ok(plan)
}

pub fn slow(args: &SlowArgs) -> Result<Plan, String> {
    let mut plan = background(&args.target, &args.traffic)?;
    let bytes_per_second = parse_bytes(&args.reads).map_err(|why| format!("--reads {why}"))? as u64;
    plan.odd = Odd::Slow { share: share(&args.share)?, bytes_per_second };
    Ok(plan)
}

pub fn half_open(args: &HalfOpenArgs) -> Result<Plan, String> {
    let mut plan = background(&args.target, &args.traffic)?;
    plan.odd = Odd::Doomed { share: share(&args.share)?, freeze: args.freeze };
    Ok(plan)
}

pub fn nat(args: &NatArgs) -> Result<Plan, String> {
    let mut plan = base(&args.target, "128")?;
    let stay = args.stay.max(Duration::from_millis(100));
    plan.traffic = Traffic::Open { rate: f64::from(plan.connections) / stay.as_secs_f64() };
    plan.duration = stay;
    plan.ask = !plan.target.scheme.websocket;
    Ok(plan)
}

pub fn churn(args: &ChurnArgs) -> Result<Plan, String> {
    let mut plan = base(&args.target, &args.size)?;
    if !(args.rate.is_finite() && args.rate > 0.0) {
        return Err(format!("--rate {}: want connections per second above 0", args.rate));
    }
    let life_ns = args.life.as_nanos() as u64;
    plan.traffic = Traffic::Churn { rate: args.rate, messages: args.messages, life_ns };
    plan.duration = args.duration;
    plan.warmup = args.warmup;
    plan.reset = args.reset;
    if args.no_resumption
        && let Some(secrets) = &mut plan.secrets
    {
        let mut config = rustls::ClientConfig::clone(&secrets.config);
        config.resumption = rustls::client::Resumption::disabled();
        secrets.config = std::sync::Arc::new(config);
    }
    Ok(plan)
}

pub fn audit(args: &AuditArgs) -> Result<Plan, String> {
    background(&args.target, &args.traffic)
}

/// Scenes that want some open-loop traffic while something else happens.
fn background(target: &TargetArgs, traffic: &BackgroundArgs) -> Result<Plan, String> {
    let mut plan = base(target, &traffic.size)?;
    plan.active = share(&traffic.active)?;
    plan.duration = traffic.duration;
    plan.drain = traffic.drain;
    plan.warmup = Duration::from_millis(500);
    let rate = traffic.rate.unwrap_or(f64::from(plan.talkers().max(1)));
    if !rate.is_finite() || rate < 0.0 {
        return Err(format!("--rate {rate}: want messages per second"));
    }
    plan.traffic = if rate > 0.0 { Traffic::Open { rate } } else { Traffic::Silent };
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
        sink: false,
        odd: Odd::Nobody,
        redial: false,
        reset: false,
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
pub fn cores(text: Option<&str>) -> Result<Vec<usize>, String> {
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
