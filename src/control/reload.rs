//! Reading the file again: loaded and proven apart from control's own loop, then fitted onto what
//! runs, then told to the cores as one snapshot. A bad file changes nothing.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::config::plan::{Plan, Sticky};
use crate::config::{self, Host, Loaded, System};
use crate::sys::listen::Sharing;

use super::Control;
use super::drain::Step;
use super::material::{Keys, Material};
use super::ports;
use super::settle::{Settled, settle};
use super::watch::{Prints, Watch};

/// What became of reloads so far.
#[derive(Debug, Default)]
pub struct Reloads {
    pub applied: u64,
    pub unchanged: u64,
    pub refused: u64,
    /// Why the file as it is now was refused, and when.
    pub last_error: Option<(SystemTime, Vec<String>)>,
    /// When the reading of the file as it was last taken or refused began.
    pub last_read: Option<SystemTime>,
    /// One load at a time; what comes meanwhile is done after it.
    under_way: bool,
    again: bool,
}

/// A load came back from its thread.
#[derive(Debug)]
pub struct Outcome {
    why: &'static str,
    read_at: SystemTime,
    /// How the files in force, and those the new one names, looked before they were read.
    prints: Prints,
    result: Result<(Loaded, Material), Vec<String>>,
    keys: Keys,
}

impl Control {
    /// Begins to load. Resolving names may take long, so it happens on a thread of its own.
    pub(super) fn reload(&mut self, why: &'static str) -> Step {
        if !self.phase.is_serving() {
            return Step::Wait;
        }
        if self.reloads.under_way {
            self.reloads.again = true;
            return Step::Wait;
        }
        self.reloads.under_way = true;
        self.manager.reloading();
        let running = self.fleet.plan.clone();
        let files = self.files();
        let mut keys = self.keys.clone();
        let sharing = self.sharing;
        let reply = self.loaded.clone();
        tokio::task::spawn_blocking(move || {
            let read_at = SystemTime::now();
            let looking = Looking(RefCell::new(Prints::take(&files)));
            let result = guarded(|| load(&running, &mut keys, sharing, &looking));
            let prints = looking.0.into_inner();
            let _ = reply.blocking_send(Outcome { why, read_at, prints, result, keys });
        });
        Step::Wait
    }

    /// Goes over to what was loaded, or says why not.
    pub(super) fn apply(&mut self, outcome: Outcome) -> Step {
        self.reloads.under_way = false;
        let Outcome { why, read_at, prints, result, keys } = outcome;
        self.reloads.last_read = Some(read_at);
        match result {
            Err(mistakes) => {
                self.refuse(why, mistakes);
                // What it named may be what is wrong with it, or missing as yet.
                let mut files = self.files();
                files.extend(prints.files().cloned());
                self.watch_files(files, prints);
            }
            Ok((loaded, material)) => {
                self.keys = keys;
                self.reloads.last_error = None;
                self.go_over(why, loaded, material);
                self.watch_files(self.files(), prints);
            }
        }
        if self.phase.is_serving() {
            self.tell_ready();
        }
        if std::mem::take(&mut self.reloads.again) {
            return self.reload("asked for while another was under way");
        }
        Step::Wait
    }

    fn refuse(&mut self, why: &str, mistakes: Vec<String>) {
        self.reloads.refused += 1;
        for mistake in &mistakes {
            tracing::error!("{mistake}");
        }
        let count = mistakes.len();
        tracing::error!(why, mistakes = count, "reload refused: everything stays as it was");
        self.reloads.last_error = Some((SystemTime::now(), mistakes));
    }

    fn go_over(&mut self, why: &str, loaded: Loaded, material: Material) {
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let settled = settle(loaded.plan, &self.fleet.plan);
        for warning in &settled.warnings {
            tracing::warn!("{warning}");
        }
        let touched = Touched::of(&settled);
        let known = self.fleet.registry.servers().count();
        let now = self.now();
        let ends = self.fleet.reload(now, settled, material);
        let new: Vec<_> = self.fleet.registry.servers().skip(known).collect();
        for (id, server) in &new {
            self.introduce(*id, &server.cells);
        }
        let servers_added = new.len();
        drop(new);
        for order in &ends.keeps {
            self.order_all(order);
        }
        self.send_snapshot();
        for order in &ends.orders {
            self.order_all(order);
        }
        let targets = self.fleet.targets();
        self.check_faults.retain(|id, _| targets.iter().any(|(checked, _)| checked == id));
        self.checks.set(targets);
        let pipes = ends.pipes;
        if touched.nothing {
            self.reloads.unchanged += 1;
            let what = "its certificates at most";
            tracing::info!(why, touches = what, "reloaded: closes {pipes} pipes");
        } else {
            self.reloads.applied += 1;
            tracing::info!(
                why,
                pools = touched.pools,
                listeners = touched.listeners,
                servers_added,
                servers_removed = ends.removed,
                "reloaded: closes {pipes} pipes"
            );
        }
    }

    /// The configuration and every file it names.
    pub(super) fn files(&self) -> BTreeSet<PathBuf> {
        files_of(&self.fleet.plan)
    }

    pub(super) fn watch_files(&mut self, files: BTreeSet<PathBuf>, before: Prints) {
        let watch = Watch::start(files, before, self.changed.clone());
        if let Some(error) = &watch.deaf {
            tracing::warn!(%error, "changes of files are noticed some seconds late");
        }
        self.watch = Some(watch);
    }
}

/// A panic while a file is read refuses it. (Control would wait for the outcome for ever, and no
/// reload begins before.) What was half read is dropped; the panic's own line says where it was.
fn guarded<T>(load: impl FnOnce() -> Result<T, Vec<String>>) -> Result<T, Vec<String>> {
    panic::catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|_| {
        Err(vec!["a mistake of ours: reading the file panicked; please report the line".to_owned()])
    })
}

/// Everything that can be wrong with a file is found here, before anything changes.
fn load(
    running: &Plan,
    keys: &mut Keys,
    sharing: Sharing,
    looking: &Looking,
) -> Result<(Loaded, Material), Vec<String>> {
    let mut loaded = config::load_on(&running.file, keys.tickets(), looking)
        .map_err(|problems| problems.lines())?;
    let mut mistakes = ports::for_reload(&loaded.plan, running, sharing);
    let contexts = std::mem::take(&mut loaded.contexts);
    match Material::make(&loaded.plan, contexts, keys) {
        Ok(material) if mistakes.is_empty() => Ok((loaded, material)),
        Ok(_) => Err(mistakes),
        Err(more) => {
            mistakes.extend(more);
            Err(mistakes)
        }
    }
}

/// This machine, with how every file looked before it was first read: also of a configuration that
/// is refused, so that the missing one is noticed when it comes.
struct Looking(RefCell<Prints>);

impl Host for Looking {
    fn readable(&self, path: &Path) -> io::Result<()> {
        self.0.borrow_mut().look(path);
        System.readable(path)
    }

    fn is_exposed(&self, path: &Path) -> bool {
        System.is_exposed(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.borrow_mut().look(path);
        System.read(path)
    }

    fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        System.resolve(name, port)
    }

    fn has_address(&self, address: SocketAddr) -> bool {
        System.has_address(address)
    }

    fn processors(&self) -> usize {
        System.processors()
    }
}

struct Touched {
    nothing: bool,
    pools: String,
    listeners: String,
}

impl Touched {
    fn of(settled: &Settled) -> Self {
        Self {
            nothing: settled.touches_nothing(),
            pools: settled.pools_touched.join(" "),
            listeners: settled.listeners_touched.join(" "),
        }
    }
}

fn files_of(plan: &Plan) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::from([plan.file.clone()]);
    for tls in plan.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
        for pair in &tls.certificates {
            files.extend([pair.cert.clone(), pair.key.clone()]);
        }
        files.extend(tls.client_ca.iter().map(|ca| ca.file.clone()));
        files.extend(tls.ticket_keys.clone());
    }
    for pool in &plan.pools {
        if let Some(Sticky::Cookie(cookie)) = &pool.sticky {
            files.extend(cookie.key_file.clone());
        }
        let Some(tls) = &pool.tls else { continue };
        files.extend(tls.ca.clone());
        if let Some(pair) = &tls.client_cert {
            files.extend([pair.cert.clone(), pair.key.clone()]);
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_refuses_the_file_and_says_so() {
        let mistakes = guarded::<()>(|| panic!("on purpose")).unwrap_err();
        assert!(mistakes[0].contains("panicked"), "{mistakes:?}");
        assert_eq!(guarded(|| Ok(7)), Ok(7));
        assert!(guarded::<()>(|| Err(vec!["a mistake".to_owned()])).is_err());
    }
}
