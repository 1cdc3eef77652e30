//! What comes up from the cores: lines for the log, how connects went, and that one of them is no
//! more. It touches nothing of theirs but the cells of a core that is dead.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::balance::ServerId;
use crate::config::snapshot::Report;
use crate::meter::Cause;

use super::{Control, logging};

/// The part of a tick that may go into reports. Where more come than can be written, cores find
/// the channel full and count what they drop; checks, signals and questions have their turn.
const WITHIN: Duration = Duration::from_millis(50);

/// The same at the end, when there is nothing else to do.
const LAST_WITHIN: Duration = Duration::from_secs(1);

/// How long a server that could not be dialled is not spoken of again, whatever comes between; nor
/// that checks cannot be made.
pub(super) const SAY_AGAIN: Duration = Duration::from_secs(60);

impl Control {
    pub(super) fn take_reports(&mut self) {
        self.take_reports_until(Instant::now() + WITHIN);
    }

    pub(super) fn take_last_reports(&mut self) {
        self.take_reports_until(Instant::now() + LAST_WITHIN);
    }

    fn take_reports_until(&mut self, until: Instant) {
        while Instant::now() < until
            && let Ok(report) = self.reports.try_recv()
        {
            match report {
                Report::Ready { .. } => {}
                Report::Failed { core, reason } => {
                    tracing::error!(core, reason, "a core has failed; its pipes are lost");
                    self.bury(core);
                }
                Report::Trouble { core, reason } => {
                    tracing::error!(core, reason, "a core could not do as told");
                }
                Report::Dialled { id, fault } => self.dialled(id, fault),
                Report::Line(line) => logging::connection(&line),
                Report::KeyLog(line) => self.log_key(&line),
                Report::Gone { core } => self.gone[core] = true,
            }
        }
    }

    /// A thread that ended by a fault of ours said nothing; the others serve on.
    pub(super) fn look_for_lost_cores(&mut self) {
        for core in 0..self.links.len() {
            let thread = &mut self.links[core].thread;
            let ended = thread.take_if(|thread| thread.is_finished());
            // (One that returned has reported why.)
            if ended.is_some_and(|thread| thread.join().is_err()) {
                tracing::error!(core, "a core has ended unexpectedly; its pipes are lost");
                self.bury(core);
            }
        }
    }

    /// A core has died: its connections are counted no more.
    fn bury(&mut self, core: usize) {
        self.lost[core] = true;
        self.fleet.registry.bury(core);
        let counters = &self.links[core].counters;
        counters.bury();
        counters.gears.bury();
        // It will not use what it was lent: as if it had heard of every cut.
        counters.loads_heard.set(u64::MAX);
    }

    /// No core is left to serve.
    pub(super) fn all_lost(&self) -> bool {
        self.cores_lost() == self.links.len()
    }

    fn dialled(&mut self, id: ServerId, fault: Option<Cause>) {
        self.tell_dialled(id, fault);
        let now = self.now();
        let good = fault.is_none();
        let change = self.fleet.ward_mut(id).and_then(|w| w.checkup.dialled(now, id, good));
        if let Some(change) = change {
            self.tell_change(&change);
        }
    }

    /// Why clients of a server are turned away, whether or not it may be put out of service for it:
    /// its certificate may be refused while every check finds it well.
    fn tell_dialled(&mut self, id: ServerId, fault: Option<Cause>) {
        let known = self.fleet.registry.known(id);
        let (pool, server) = (&*known.pool, &*known.name);
        let said = self.dial_faults.get(&id);
        if let Some(cause) = fault
            && said.is_none_or(|said| said.elapsed() >= SAY_AGAIN)
        {
            self.dial_faults.insert(id, Instant::now());
            tracing::warn!(pool, server, cause = cause.name(), "a server could not be dialled");
        }
    }

    /// TLS secrets go where the environment says, readable by nobody else.
    fn log_key(&mut self, line: &str) {
        if self.key_log.is_none() {
            let Some(path) = std::env::var_os("SSLKEYLOGFILE") else { return };
            let mut options = File::options();
            let opened = options.create(true).append(true).mode(0o600).open(Path::new(&path));
            match opened {
                Ok(file) => self.key_log = Some(file),
                Err(error) => {
                    tracing::warn!(%error, "SSLKEYLOGFILE cannot be opened");
                    return;
                }
            }
        }
        if let Some(file) = &mut self.key_log {
            let _ = writeln!(file, "{}", line.trim_end());
        }
    }
}
