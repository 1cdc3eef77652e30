//! Start-up, in the only order that is right: what every thread shares comes first, then the
//! cores, each of which takes a descriptor table of its own, and only then everything control
//! opens for itself. A number opened too early would be open in every core's table for ever.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use standpipe::config::plan::{Plan, Service};
use standpipe::config::snapshot::{CoreSeed, Order, Report};
use standpipe::control::logging::{self, Lines};
use standpipe::control::{self, Link, Outset, ports};
use standpipe::core;
use standpipe::meter::{CoreCounters, Passing};
use standpipe::sys::host::{self, Host, PIPE_KERNEL_BYTES, PIPE_USER_BYTES};
use standpipe::sys::listen::Sharing;
use standpipe::sys::process::{self, SignalMask};

/// Reports under way from all cores to control. A core whose log line finds no room drops it.
const REPORTS_MAX: usize = 65_536;

/// How long the last log lines may take: their reader may have stopped reading.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// Runs a proven configuration until a signal ends it.
///
/// # Errors
/// What kept the process from serving, with its cause and cure.
pub fn serve(outset: Outset) -> Result<(), String> {
    let mask = process::block_signals().map_err(|e| format!("signals cannot be blocked: {e}"))?;
    let lines = logging::start(outset.plan().runtime.log.format)
        .map_err(|error| format!("a thread for the log: {error}; see `ulimit -u`"))?;
    let outcome = run(outset, &mask, &lines);
    lines.flush(FLUSH_WITHIN);
    outcome
}

fn run(outset: Outset, mask: &SignalMask, lines: &Lines) -> Result<(), String> {
    for warning in &outset.warnings {
        tracing::warn!("{warning}");
    }
    let cores = outset.plan().runtime.workers;
    raise_limit();
    let host = probe()?;
    if host.connection_budget(cores) == 0 {
        return Err(format!(
            "open files: the limit is {}, and each of {cores} worker(s) needs {} for itself; raise \
             it with `ulimit -n`, or LimitNOFILE= in the unit, or have fewer in runtime.workers",
            host.descriptors,
            host::core_descriptors(cores)
        ));
    }
    announce(&host, cores);
    if outset.sharing == Sharing::WithKin && host.moves_handshakes == Some(false) {
        tracing::warn!(
            "net.ipv4.tcp_migrate_req is 0: who is in the middle of a handshake when the other \
             process closes its listeners is refused; set it to 1 before either of them starts"
        );
    }
    ports::for_start(outset.plan(), outset.sharing)?;
    let shared = Shared::make(cores).map_err(|error| {
        format!("descriptors for {cores} cores: {error}; raise the limit with `ulimit -n 65536`")
    })?;
    let (links, reports) = start_cores(&outset, shared)?;
    control::wait_ready(&reports, cores)?;
    control::run(outset, links, reports, mask, lines)
}

fn raise_limit() {
    if let Err(error) = process::raise_file_limit() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Every ability the host lacks, one a line.
fn probe() -> Result<Host, String> {
    host::probe().map_err(|missing| {
        let lines: Vec<String> = missing.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })
}

fn announce(host: &Host, cores: usize) {
    if !host.own_tables {
        tracing::warn!(
            "unshare(CLONE_FILES) is refused, so all cores share one descriptor table; allow the \
             call in the container's seccomp profile for a budget per core"
        );
    }
    tracing::info!(
        kernel = host.kernel,
        descriptors = host.descriptors,
        own_tables = host.own_tables,
        idle_pipe_bytes = PIPE_USER_BYTES + PIPE_KERNEL_BYTES,
        connections_by_descriptors = host.connection_budget(cores),
        connections_by_memory = host.memory_budget(),
        "host"
    );
}

/// Descriptors every table has under the same number.
struct Shared {
    /// One eventfd for each core.
    wakes: Vec<i32>,
    /// `pairs[a][b]` is core a's end of its pair with core b; -1 for itself.
    pairs: Vec<Vec<i32>>,
}

impl Shared {
    fn make(cores: usize) -> io::Result<Self> {
        let wakes = (0..cores).map(|_| process::eventfd()).collect::<io::Result<_>>()?;
        let mut pairs = vec![vec![-1; cores]; cores];
        for (a, b) in (0..cores).flat_map(|a| (a + 1..cores).map(move |b| (a, b))) {
            (pairs[a][b], pairs[b][a]) = process::socket_pair()?;
        }
        Ok(Self { wakes, pairs })
    }
}

/// One thread for each core. The mask they inherit blocks every signal.
fn start_cores(outset: &Outset, shared: Shared) -> Result<(Vec<Link>, Receiver<Report>), String> {
    let cores = shared.wakes.len();
    let processors = core_affinity::get_core_ids().unwrap_or_default();
    let counters: Vec<Arc<CoreCounters>> = (0..cores).map(|_| Arc::default()).collect();
    let passing = Arc::new(Passing::new(cores));
    let (reports_in, reports) = crossbeam_channel::bounded(REPORTS_MAX);
    let mut links = Vec::new();
    for (number, (wake, handoff)) in shared.wakes.into_iter().zip(shared.pairs).enumerate() {
        let (orders, orders_out) = crossbeam_channel::unbounded();
        outset.greet(number, &orders);
        let seed = CoreSeed {
            core: number,
            cores,
            processor: processors.get(number % processors.len().max(1)).map(|found| found.id),
            orders: orders_out,
            reports: reports_in.clone(),
            wake,
            handoff,
            counters: counters[number].clone(),
            all_counters: counters.clone(),
            passing: passing.clone(),
            first: outset.first.clone(),
        };
        links.push(link(seed, orders)?);
    }
    Ok((links, reports))
}

fn link(seed: CoreSeed, orders: Sender<Order>) -> Result<Link, String> {
    let (wake, counters) = (seed.wake, seed.counters.clone());
    let thread = thread::Builder::new()
        .name(control::thread_name(seed.core))
        .spawn(move || core::run(seed))
        .map_err(|error| format!("a thread for a core: {error}; see `ulimit -u`"))?;
    Ok(Link { orders, wake, counters, thread: Some(thread) })
}

/// What `standpipe check` says of a file that can be run.
pub fn summary(outset: &Outset) -> String {
    let plan = outset.plan();
    let mut text = String::new();
    for warning in &outset.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    let workers = plan.runtime.workers;
    if let Ok(limit) = process::file_limit()
        && host::core_room(limit.hard, workers, true) == 0
    {
        let _ = writeln!(
            text,
            "warning: {}: runtime.workers: each of {workers} needs {} descriptors for itself, and \
             the limit here is {}; have fewer, or raise it with `ulimit -n` or LimitNOFILE=",
            plan.file.display(),
            host::core_descriptors(workers),
            limit.hard
        );
    }
    let _ = writeln!(
        text,
        "{}: good. It would run {} worker(s) and",
        plan.file.display(),
        plan.runtime.workers
    );
    for listener in &plan.listeners {
        let binds: Vec<String> = listener.bind.iter().map(ToString::to_string).collect();
        let secure = if listener.tls.is_some() { ", ending TLS" } else { "" };
        let _ = writeln!(text, "  listen on {} ({}{secure})", binds.join(", "), listener.name);
        match &listener.service {
            Service::L4 { pool } => {
                let _ = writeln!(text, "    every connection -> {}", pool_line(plan, *pool));
            }
            Service::L7(l7) => {
                for rule in &l7.rules {
                    let pools = rule.pools.iter().map(|share| pool_line(plan, share.pool));
                    let pools: Vec<String> = pools.collect();
                    let _ = writeln!(text, "    {} -> {}", rule.label, pools.join(", "));
                }
            }
        }
    }
    match plan.runtime.admin {
        Some(admin) => {
            let _ = writeln!(text, "  answer on {admin}: /metrics /ready /live /pools /config");
        }
        None => text.push_str("  have no admin face\n"),
    }
    text
}

fn pool_line(plan: &Plan, index: usize) -> String {
    let pool = &plan.pools[index];
    format!("{} ({}, {} server(s))", pool.name, pool.policy.name(), pool.servers.len())
}
