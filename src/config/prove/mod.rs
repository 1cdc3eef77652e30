//! From what is written to a plan: defaults filled in, names looked up, files opened, limits
//! related to each other. Every rule is tried, whatever the ones before it found.

mod circle;
mod listener;
mod pool;
mod route;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::certificates::Sections;
use super::host::Host;
use super::plan::{Log, LogConnections, LogFormat, Plan, Runtime, Timeouts, overlap};
use super::problem::{At, Notes, Place, set, suggestion};
use super::written::{self, File};

/// What every rule may ask.
struct Proof<'a> {
    notes: &'a Notes,
    host: &'a dyn Host,
    /// What is read.
    file: &'a Path,
    /// Relative paths are taken from here.
    folder: &'a Path,
    /// Names of the pools as written, in order.
    pools: Vec<String>,
    /// The TLS sections met so far.
    sections: RefCell<Sections>,
}

/// The plan, unless something was noted; and, even then, the TLS sections with the files they name.
pub fn plan(
    written: File,
    file: &Path,
    host: &dyn Host,
    notes: &Notes,
) -> (Option<Plan>, Sections) {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let pools = written.pools.iter().map(|pool| pool.name.value.clone()).collect();
    let proof = Proof { notes, host, file, folder, pools, sections: RefCell::default() };
    proof.something_to_do(&written);
    proof.binds(&written);
    let runtime = proof.runtime(&written.runtime);
    let timeouts = timeouts(&written.timeouts);
    let uses = Uses::of(&written);
    let pools: Vec<_> =
        written.pools.iter().map(|pool| proof.pool(pool, &uses).map(Arc::new)).collect();
    let listeners: Vec<_> =
        written.listeners.iter().map(|it| proof.listener(it).map(Arc::new)).collect();
    proof.drain_fits(&written, &runtime);
    proof.no_circle(&written, &pools, &listeners);
    let sections = proof.sections.into_inner();
    let listeners: Option<Vec<_>> = listeners.into_iter().collect();
    let pools: Option<Vec<_>> = pools.into_iter().collect();
    let plan = listeners.zip(pools).filter(|_| notes.is_clean()).map(|(listeners, pools)| Plan {
        file: file.to_owned(),
        runtime,
        listeners,
        pools,
        timeouts,
    });
    (plan, sections)
}

/// Who uses a pool, and how.
#[derive(Debug, Default)]
struct Uses {
    pools: HashMap<String, PoolUse>,
}

#[derive(Debug, Clone, Copy, Default)]
struct PoolUse {
    l4: bool,
    plain_l7: bool,
    tls_l7: bool,
}

impl Uses {
    fn of(written: &File) -> Uses {
        let mut uses = Uses::default();
        for listener in &written.listeners {
            if let Some(pool) = &listener.pool {
                uses.pools.entry(pool.value.clone()).or_default().l4 = true;
            }
            for route in listener.routes.iter().flat_map(|routes| &routes.value) {
                let split = route.split.iter().flat_map(|split| &split.value).map(|(name, _)| name);
                for name in route.pool.iter().chain(split) {
                    let pool = uses.pools.entry(name.value.clone()).or_default();
                    pool.tls_l7 |= listener.tls.is_some();
                    pool.plain_l7 |= listener.tls.is_none();
                }
            }
        }
        uses
    }
}

impl Proof<'_> {
    fn something_to_do(&self, written: &File) {
        let whole = Place { line: 0, key: String::new() };
        // Broken syntax, which has no key, may have swallowed them.
        let told = self.notes.is_spoken_for("listeners") || self.notes.is_spoken_for_whole("");
        if written.listeners.is_empty() && !told {
            let remedy = "add [listeners.NAME] with bind, mode and pool or routes";
            self.notes.mistake(&whole, "there is no listener", remedy);
        }
    }

    /// No address may be asked for twice: with SO_REUSEPORT the kernel would not object, it would
    /// share connections out between the two.
    fn binds(&self, written: &File) {
        // In the order of the file, the admin face first: what is said is the same at every look.
        let mut taken: Vec<(SocketAddr, &Place)> = Vec::new();
        let admin = written.runtime.admin.as_ref();
        if let Some(At { value: Some(address), place }) = admin {
            taken.push((*address, place));
        }
        let binds = written.listeners.iter().filter_map(|listener| listener.bind.as_ref());
        for bind in binds.flat_map(|binds| &binds.value) {
            if let Some((_, first)) = taken.iter().find(|(other, _)| *other == bind.value) {
                let found = format!("{} is already bound by {}", bind.value, first.key);
                let remedy = format!("see line {}; choose another address or port", first.line);
                self.notes.mistake(&bind.place, found, remedy);
                continue;
            }
            if let Some((other, first)) = taken.iter().find(|(it, _)| overlap(*it, bind.value)) {
                self.overlap(bind, *other, first, admin.is_some_and(|it| it.place == **first));
            }
            taken.push((bind.value, &bind.place));
        }
    }

    /// An address within another: what comes to the narrow one never sees the wide one. The admin
    /// face shares its port with nobody.
    fn overlap(&self, bind: &At<SocketAddr>, other: SocketAddr, first: &Place, is_admin: bool) {
        let (at, line) = (bind.value, first.line);
        let (narrow, wide) = if at.ip().is_unspecified() { (other, at) } else { (at, other) };
        let found = format!("{narrow} lies within {wide}");
        if is_admin {
            let remedy = format!("line {line} takes it for the admin face; choose another port");
            self.notes.mistake(&bind.place, found, remedy);
        } else {
            let remedy = format!(
                "see line {line}; connections to {} go to the listener that names it, all others \
                 to the other one",
                narrow.ip()
            );
            self.notes.warning(&bind.place, found, remedy);
        }
    }

    fn runtime(&self, written: &written::Runtime) -> Runtime {
        let workers = set(&written.workers, None).unwrap_or_else(|| self.host.processors());
        let admin = set(&written.admin, Some(ADMIN));
        if let (Some(address), Some(at)) = (admin, &written.admin)
            && !address.ip().is_loopback()
        {
            let remedy = "anyone who reaches it reads the configuration; bind 127.0.0.1 unless a \
                          firewall stands before it";
            self.notes.warning(&at.place, format!("{address} is not a loopback address"), remedy);
        }
        if let (Some(address), Some(at)) = (admin, &written.admin) {
            self.is_ours(address, &at.place);
        }
        Runtime {
            workers: workers.max(1),
            admin,
            drain_delay: set(&written.drain_delay, Duration::from_secs(5)),
            drain_timeout: set(&written.drain_timeout, Duration::from_secs(600)),
            log: Log {
                format: set(&written.log_format, LogFormat::Logfmt),
                connections: set(&written.log_connections, LogConnections::Off),
            },
        }
    }

    /// An address to bind that the machine may yet be given, but does not have now.
    fn is_ours(&self, address: SocketAddr, place: &Place) {
        if !self.host.has_address(address) {
            let found = format!("this machine does not have the address {}", address.ip());
            self.notes.warning(place, found, "use one that `ip address` lists");
        }
    }

    /// The end of the process spreads its Closes over half of what it may take in all.
    fn drain_fits(&self, written: &File, runtime: &Runtime) {
        for drain in written.pools.iter().filter_map(|pool| pool.drain.as_ref()) {
            let Some(window) = &drain.value.window else { continue };
            if window.value > runtime.drain_timeout / 2 {
                let found = "is longer than half of runtime.drain_timeout";
                let remedy = "when the process ends it is cut to that half; shorten one or \
                              lengthen the other";
                self.notes.warning(&window.place, found, remedy);
            }
        }
    }

    /// Index of the pool of this name.
    fn pool_index(&self, name: &At<String>) -> Option<usize> {
        let found = self.pools.iter().position(|pool| *pool == name.value);
        let told = self.notes.is_spoken_for_whole("pools")
            || self.notes.is_spoken_for_whole(&format!("pools.{}", name.value));
        if found.is_none() && !told {
            let known: Vec<&str> = self.pools.iter().map(String::as_str).collect();
            let (_, remedy) = suggestion(&name.value, &known, "pool");
            let found = format!("there is no pool {:?}", name.value);
            self.notes.mistake(&name.place, found, remedy);
        }
        found
    }

    fn path(&self, written: &str) -> PathBuf {
        self.folder.join(written)
    }

    /// The path of a file that can be read, and had better not be by others.
    fn secret_file(&self, written: &At<String>) -> Option<PathBuf> {
        let path = self.file(written)?;
        self.keeps_secret(&path, &written.place);
        Some(path)
    }

    fn keeps_secret(&self, path: &Path, place: &Place) {
        if self.host.is_exposed(path) {
            let found = format!("every user of this machine can read {}", path.display());
            self.notes.warning(place, found, format!("run `chmod o-r {}`", path.display()));
        }
    }

    /// The path of a file that can be read.
    fn file(&self, written: &At<String>) -> Option<PathBuf> {
        let path = self.path(&written.value);
        match self.host.readable(&path) {
            Ok(()) => Some(path),
            Err(error) => {
                let found = format!("cannot read {}: {error}", path.display());
                let remedy = "name a file the proxy may read; relative paths start at the folder \
                              of this file";
                self.notes.mistake(&written.place, found, remedy);
                None
            }
        }
    }
}

fn timeouts(written: &written::Timeouts) -> Timeouts {
    let seconds = Duration::from_secs;
    Timeouts {
        handshake: set(&written.handshake, seconds(10)),
        connect: set(&written.connect, seconds(5)),
        keepalive: set(&written.keepalive, seconds(60)),
        idle: set(&written.idle, Some(seconds(3600))),
        half_close: set(&written.half_close, Some(seconds(60))),
        request: set(&written.request, Some(seconds(60))),
        response: set(&written.response, Some(seconds(60))),
        stall: set(&written.stall, Some(seconds(300))),
        user_timeout: set(&written.user_timeout, Some(seconds(60))),
        tcp_keepalive: set(&written.tcp_keepalive, Some(seconds(120))),
    }
}

/// Loopback: the admin face shows the configuration and asks nobody who they are.
const ADMIN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9901);
