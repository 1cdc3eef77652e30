//! `/metrics`: every cell the cores write, and what control knows itself.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::balance::MemberState;
use crate::meter::Family;
use crate::sys::process::file_limit;

use super::Control;
use super::fleet::Fleet;
use super::host;
use super::page::{Page, Sum};

macro_rules! families {
    ($($name:ident = $kind:ident($metric:literal, $help:literal);)*) => {
        $(static $name: Family = Family::$kind($metric, $help);)*
    };
}

families! {
    BUILD = gauge("build_info", "Always 1; the version is a label.");
    UPTIME = gauge("uptime_seconds", "Time since the process began.");
    READY = gauge("ready", "1 while /ready answers 200.");
    CORES_LOST = gauge("cores_lost", "Cores whose thread has ended unexpectedly.");
    SNAPSHOT = gauge("snapshot_version", "Version of the snapshot last sent to the cores.");
    RELOADS = counter("config_reloads_total", "Reloads by result.");
    RELOAD_GOOD = gauge("config_last_reload_good", "0 if the file as it is now was refused.");
    LAST_READ = gauge(
        "config_last_read_timestamp_seconds",
        "When the last reload began to read the file, in seconds since 1970; 0 before any."
    );
    CHECKS = counter(
        "health_checks_total",
        "Active checks by result; unmade: we had nothing left to check with."
    );
    LINES_LOST = counter("log_lines_unwritten_total", "Lines that standard error did not take.");
    STATE = gauge("server_state", "1 for the state the server is in.");
    WEIGHT = gauge("server_weight", "Weight as configured.");
    SHARE = gauge("server_share", "Part of the weight that counts now (slow start).");
    USABLE = gauge("pool_servers_usable", "Servers new connections may go to.");
    SERVERS = gauge("pool_servers", "Servers in the file.");
    SERVER_MAX = gauge("server_connections_max", "max_connections, where it is set.");
    OPEN = gauge("listener_open", "1 while the listener takes connections.");
    LISTENER_MAX = gauge("listener_connections_max", "max_connections, where it is set.");
    EXPIRY = gauge(
        "certificate_expiry_timestamp_seconds",
        "When the certificate is no longer valid, in seconds since 1970."
    );
    RESIDENT = gauge("process_resident_memory_bytes", "Memory of the process in RAM.");
    VIRTUAL = gauge("process_virtual_memory_bytes", "Address space of the process.");
    THREADS = gauge("process_threads", "Threads of the process.");
    CPU = counter("process_cpu_seconds_total", "Processor time used, user and system.");
    DESCRIPTORS = gauge("process_open_fds", "Open descriptors of control's own table.");
    MAX_DESCRIPTORS = gauge("process_max_fds", "Descriptors that any one table may have.");
    CORE_DESCRIPTORS = gauge("core_open_fds", "Open descriptors of the core's table.");
}

/// Hundredths of a second, as `/proc` counts processor time.
const TICKS_PER_SECOND: f64 = 100.0;

const STATES: [MemberState; 4] =
    [MemberState::Up, MemberState::Draining, MemberState::Down, MemberState::Ejected];

pub fn page(control: &Control) -> String {
    let mut page = Page::default();
    process(&mut page);
    own(control, &mut page);
    pools(control, &mut page);
    cells(control, &mut page);
    page.finish()
}

fn own(control: &Control, page: &mut Page) {
    page.put(&BUILD, &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    page.put(&UPTIME, &[], control.now().as_secs_f64());
    page.put(&READY, &[], flag(control.is_ready()));
    page.put(&CORES_LOST, &[], control.cores_lost() as f64);
    page.put(&SNAPSHOT, &[], control.fleet.version() as f64);
    let reloads = &control.reloads;
    page.put(&RELOADS, &[("result", "applied")], reloads.applied as f64);
    page.put(&RELOADS, &[("result", "unchanged")], reloads.unchanged as f64);
    page.put(&RELOADS, &[("result", "refused")], reloads.refused as f64);
    page.put(&RELOAD_GOOD, &[], flag(reloads.last_error.is_none()));
    let since_1970 = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let read = reloads.last_read.map_or(0.0, |at| since_1970(at).as_secs_f64());
    page.put(&LAST_READ, &[], read);
    page.put(&CHECKS, &[("result", "good")], control.checks_good as f64);
    page.put(&CHECKS, &[("result", "bad")], control.checks_bad as f64);
    page.put(&CHECKS, &[("result", "unmade")], control.checks_unmade as f64);
    page.put(&LINES_LOST, &[], control.lines.lost() as f64);
    for (listener, open) in control.fleet.plan.listeners.iter().zip(control.fleet.open()) {
        page.put(&OPEN, &[("listener", &listener.name)], flag(open));
        if listener.max_connections > 0 {
            let most = f64::from(listener.max_connections);
            page.put(&LISTENER_MAX, &[("listener", &listener.name)], most);
        }
    }
    for (listener, tls) in control.fleet.certificates() {
        for shown in &tls.certificates {
            let file = shown.file.display().to_string();
            let names = shown.names.join(" ");
            let whose = [("listener", listener), ("file", &*file), ("names", &*names)];
            page.put(&EXPIRY, &whose, shown.not_after as f64);
        }
    }
}

fn pools(control: &Control, page: &mut Page) {
    for ward in &control.fleet.wards {
        let pool = &*ward.plan.name;
        page.put(&USABLE, &[("pool", pool)], ward.group.usable() as f64);
        page.put(&SERVERS, &[("pool", pool)], ward.ids.len() as f64);
        for (server, member) in ward.plan.servers.iter().zip(ward.group.members()) {
            let whose = [("pool", pool), ("server", &*server.name)];
            page.put(&WEIGHT, &whose, f64::from(member.weight));
            page.put(&SHARE, &whose, f64::from(member.share));
            if server.max_connections > 0 {
                page.put(&SERVER_MAX, &whose, f64::from(server.max_connections));
            }
            for state in STATES {
                let [pool, server] = whose;
                let labels = [pool, server, ("state", state.name())];
                page.put(&STATE, &labels, flag(member.state == state));
            }
        }
    }
}

fn cells(control: &Control, page: &mut Page) {
    for (number, core) in control.links.iter().enumerate() {
        let number = number.to_string();
        core.counters.each(&mut |sample| page.add(&[("core", &number)], sample));
    }
    let registry = &control.fleet.registry;
    for (name, cores) in registry.listeners() {
        let mut sum = Sum::default();
        for cell in cores {
            sum.core();
            cell.each(&mut |sample| sum.add(sample));
        }
        sum.onto(page, &[("listener", name)]);
    }
    for (listener, label, cores) in registry.routes() {
        let mut sum = Sum::default();
        for cell in cores {
            sum.core();
            cell.each(&mut |sample| sum.add(sample));
        }
        sum.onto(page, &[("listener", listener), ("route", label)]);
    }
    servers(&control.fleet, page);
}

/// By name: a server that moved to another address counts together with what it was before, for a
/// line of metrics may stand on a page but once, and what it has counted may not become less when
/// the last connection to the old address ends.
pub(super) fn servers(fleet: &Fleet, page: &mut Page) {
    let mut sums: BTreeMap<(&str, &str), Sum> = BTreeMap::new();
    for (id, known) in fleet.registry.servers() {
        // Names that are gone from the file and carry nothing are no longer of interest.
        if known.live() > 0 || fleet.ward(id).is_some() {
            sums.entry((&known.pool, &known.name)).or_default();
        }
    }
    for (_, known) in fleet.registry.servers() {
        let Some(sum) = sums.get_mut(&(&*known.pool, &*known.name)) else { continue };
        for cell in &known.cells {
            sum.core();
            cell.each(&mut |sample| sum.add(sample));
        }
    }
    for ((pool, server), sum) in sums {
        sum.onto(page, &[("pool", pool), ("server", server)]);
    }
}

fn process(page: &mut Page) {
    let usage = host::usage();
    page.put(&RESIDENT, &[], usage.resident_bytes as f64);
    page.put(&VIRTUAL, &[], usage.virtual_bytes as f64);
    page.put(&THREADS, &[], usage.threads as f64);
    page.put(&CPU, &[], usage.cpu_ticks as f64 / TICKS_PER_SECOND);
    page.put(&DESCRIPTORS, &[], usage.descriptors as f64);
    if let Ok(limit) = file_limit() {
        page.put(&MAX_DESCRIPTORS, &[], limit.soft as f64);
    }
    for (core, count) in usage.core_descriptors {
        page.put(&CORE_DESCRIPTORS, &[("core", &core.to_string())], count as f64);
    }
}

fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}
