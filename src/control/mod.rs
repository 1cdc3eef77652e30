//! The control thread: reads the file, watches the servers, answers the admin face, and tells the
//! cores what to do. It never touches a connection, and it never reaches into a core: orders go
//! down by channel, reports come up by channel, counters are read.

mod admin;
mod answers;
mod drain;
mod fleet;
mod health;
mod heap;
mod host;
pub mod logging;
mod material;
mod metrics;
mod notify;
mod page;
pub mod ports;
mod probe;
mod publish;
mod registry;
mod reload;
mod reports;
mod settle;
mod signals;
mod watch;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::balance::health::Change;
use crate::balance::{MemberState, ServerId};
use crate::config::plan::Plan;
use crate::config::snapshot::{Order, Report, Snapshot};
use crate::config::{self, Loaded};
use crate::meter::{CoreCounters, ServerCounters};
use crate::sys::listen::Sharing;
use crate::sys::process::{SignalMask, restore_signals, wake};

use admin::Ask;
use drain::{Phase, Step, Times};
use fleet::Fleet;
use health::{Checked, Checks};
use logging::Lines;
use material::{Keys, Material};
use probe::Fault;
use publish::Publisher;
use signals::{Asked, Signals, Told};
use watch::Watch;

pub use host::thread_name;

/// How often reports are taken, loads published and time looked at.
const TICK: Duration = Duration::from_millis(100);

/// While the process ends, how often it looks whether it is over.
const ENDING_TICK: Duration = Duration::from_millis(20);

/// A core that has said nothing for this long after its start will not.
const START_WITHIN: Duration = Duration::from_secs(30);

/// What a process has before its first core: the whole truth for all of them.
#[derive(Debug)]
pub struct Outset {
    fleet: Fleet,
    keys: Keys,
    pub first: Arc<Snapshot>,
    /// Who else may listen where we do.
    pub sharing: Sharing,
    /// What is allowed but worth a second look.
    pub warnings: Vec<String>,
}

/// One core, seen from here.
#[derive(Debug)]
pub struct Link {
    pub orders: Sender<Order>,
    /// eventfd the core waits on; see [`crate::config::snapshot::CoreSeed::wake`].
    pub wake: i32,
    pub counters: Arc<CoreCounters>,
    /// Until it has ended.
    pub thread: Option<JoinHandle<()>>,
}

impl Outset {
    /// Reads a configuration and the files it names, and makes the first snapshot.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn new(file: &Path, sharing: Sharing) -> Result<Self, Vec<String>> {
        let mut keys = Keys::default();
        let loaded = config::load(file, keys.tickets()).map_err(|all| all.lines())?;
        let Loaded { plan, warnings, contexts } = loaded;
        let material = Material::make(&plan, contexts, &mut keys)?;
        let warnings = warnings.iter().map(ToString::to_string).collect();
        let cores = plan.runtime.workers;
        let mut fleet = Fleet::begin(plan, material, cores);
        let first = fleet.snapshot();
        Ok(Self { fleet, keys, first, sharing, warnings })
    }

    pub fn plan(&self) -> &Plan {
        &self.fleet.plan
    }

    /// The orders a core finds waiting when it begins: its counter cells for every server.
    pub fn greet(&self, core: usize, orders: &Sender<Order>) {
        for (id, known) in self.fleet.registry.servers() {
            let _ = orders.send(Order::Server { id, counters: known.cells[core].clone() });
        }
    }
}

/// Waits until every core serves.
///
/// # Errors
/// What the cores that could not start say, each thing once.
pub fn wait_ready(reports: &Receiver<Report>, cores: usize) -> Result<(), String> {
    let mut faults: Vec<String> = Vec::new();
    let deadline = Instant::now() + START_WITHIN;
    let mut waiting = cores;
    while waiting > 0 {
        match reports.recv_deadline(deadline) {
            Ok(Report::Ready { .. }) => waiting -= 1,
            Ok(Report::Failed { reason, .. }) => {
                waiting -= 1;
                if !faults.contains(&reason) {
                    faults.push(reason);
                }
            }
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => {
                faults.push(format!("{waiting} of {cores} cores did not answer in time"));
                break;
            }
            Err(RecvTimeoutError::Disconnected) => {
                faults.push(format!("{waiting} of {cores} cores ended while starting"));
                break;
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// Runs until the process is to end. Signals, blocked until now, arrive from here on.
///
/// # Errors
/// What kept control from starting.
pub fn run(
    outset: Outset,
    links: Vec<Link>,
    reports: Receiver<Report>,
    mask: &SignalMask,
    lines: &Lines,
) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime for the control thread: {error}"))?;
    let outcome = runtime.block_on(async {
        let (control, inbox) = Control::new(outset, links, reports, lines.clone());
        control.serve(inbox, mask).await
    });
    // A reload may be waiting for a name server: nobody waits for it.
    runtime.shutdown_background();
    outcome
}

/// Everything control knows. One task owns it; the others send it messages.
struct Control {
    born: Instant,
    fleet: Fleet,
    keys: Keys,
    sharing: Sharing,
    lines: Lines,
    links: Vec<Link>,
    reports: Receiver<Report>,
    publisher: Publisher,
    heap: heap::Heap,
    checks: Checks,
    checks_good: u64,
    checks_bad: u64,
    /// Checks that could not be made for want of something of ours.
    checks_unmade: u64,
    /// When that was last said.
    unmade_said: Option<Instant>,
    /// What the last bad check of a server said, by id.
    check_faults: HashMap<ServerId, String>,
    /// When a server was last said not to be dialled.
    dial_faults: HashMap<ServerId, Instant>,
    /// A server changed its state: groups are to be built anew with the next tick.
    changed_health: bool,
    phase: Phase,
    gone: Vec<bool>,
    lost: Vec<bool>,
    reloads: reload::Reloads,
    changed: mpsc::Sender<()>,
    loaded: mpsc::Sender<reload::Outcome>,
    watch: Option<Watch>,
    key_log: Option<File>,
    /// Who is told how far the process is.
    manager: notify::Manager,
    admin: Option<SocketAddr>,
    asks: mpsc::Sender<Ask>,
}

/// What other tasks send to control.
struct Inbox {
    asks: mpsc::Receiver<Ask>,
    checked: mpsc::Receiver<Checked>,
    changed: mpsc::Receiver<()>,
    loaded: mpsc::Receiver<reload::Outcome>,
}

impl Control {
    fn new(
        outset: Outset,
        links: Vec<Link>,
        reports: Receiver<Report>,
        lines: Lines,
    ) -> (Self, Inbox) {
        let (asks_in, asks) = mpsc::channel(64);
        let (checked_in, checked) = mpsc::channel(256);
        let (changed_in, changed) = mpsc::channel(4);
        let (loaded_in, loaded) = mpsc::channel(4);
        let cores = links.len();
        let control = Self {
            born: Instant::now(),
            fleet: outset.fleet,
            keys: outset.keys,
            sharing: outset.sharing,
            lines,
            reports,
            publisher: Publisher::new(cores),
            heap: heap::Heap::default(),
            checks: Checks::new(checked_in),
            checks_good: 0,
            checks_bad: 0,
            checks_unmade: 0,
            unmade_said: None,
            check_faults: HashMap::new(),
            dial_faults: HashMap::new(),
            changed_health: false,
            phase: Phase::Serving,
            gone: vec![false; cores],
            lost: vec![false; cores],
            reloads: reload::Reloads::default(),
            changed: changed_in,
            loaded: loaded_in,
            watch: None,
            key_log: None,
            manager: notify::Manager::of_environment(),
            admin: None,
            asks: asks_in,
            links,
        };
        (control, Inbox { asks, checked, changed, loaded })
    }

    async fn serve(mut self, mut inbox: Inbox, mask: &SignalMask) -> Result<(), String> {
        let mut signals = Signals::listen().map_err(|e| format!("no signal handlers: {e}"))?;
        restore_signals(mask).map_err(|e| format!("signals stay blocked: {e}"))?;
        self.open_admin().await?;
        self.checks.set(self.fleet.targets());
        let files = self.files();
        let prints = watch::Prints::take(&files);
        self.watch_files(files, prints);
        self.announce();
        self.tell_ready();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let step = tokio::select! {
                _ = tick.tick() => self.tick(),
                Some(ask) = inbox.asks.recv() => self.answer(ask),
                Some(checked) = inbox.checked.recv() => self.checked(&checked),
                Some(()) = inbox.changed.recv() => self.reload("the file has changed"),
                Some(outcome) = inbox.loaded.recv() => self.apply(outcome),
                told = signals.next() => self.signalled(told),
            };
            let was_serving = self.phase.is_serving();
            if self.perform(step) {
                break;
            }
            if was_serving && !self.phase.is_serving() {
                tick = tokio::time::interval(ENDING_TICK);
            }
        }
        self.take_last_reports();
        if self.all_lost() {
            return Err("every core has ended unexpectedly".to_owned());
        }
        tracing::info!("ended");
        Ok(())
    }

    async fn open_admin(&mut self) -> Result<(), String> {
        let Some(address) = self.fleet.plan.runtime.admin else { return Ok(()) };
        let opened = admin::start(address, self.asks.clone()).await;
        self.admin = Some(opened.map_err(|error| {
            let cure = match error.kind() {
                io::ErrorKind::AddrInUse => "another process has it; choose another port",
                io::ErrorKind::AddrNotAvailable => "it is no address of this machine",
                io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE",
                _ => "choose another one",
            };
            format!("runtime.admin = \"{address}\" cannot be bound: {error}; {cure}")
        })?);
        Ok(())
    }

    fn announce(&self) {
        let plan = &self.fleet.plan;
        for listener in &plan.listeners {
            for bind in &listener.bind {
                tracing::info!(listener = &*listener.name, address = %bind, "listening");
            }
        }
        let admin = self.admin.map(|address| address.to_string());
        tracing::info!(
            workers = self.links.len(),
            pools = plan.pools.len(),
            admin,
            file = %plan.file.display(),
            "ready"
        );
    }

    /// Tells the service manager that we serve, and whether by the file as it is now.
    fn tell_ready(&self) {
        let (listeners, workers) = (self.fleet.plan.listeners.len(), self.links.len());
        let status = match &self.reloads.last_error {
            None => format!("serving {listeners} listener(s) with {workers} worker(s)"),
            Some((_, mistakes)) => format!(
                "serving by the configuration of before: the last one was refused, {} mistake(s)",
                mistakes.len()
            ),
        };
        self.manager.ready(&status);
    }

    /// Time since control began; what balance counts in.
    fn now(&self) -> Duration {
        self.born.elapsed()
    }

    fn is_ready(&self) -> bool {
        self.phase.is_serving()
    }

    fn cores_lost(&self) -> usize {
        self.lost.iter().filter(|lost| **lost).count()
    }

    fn tick(&mut self) -> Step {
        self.take_reports();
        self.look_for_lost_cores();
        if self.all_lost() {
            return Step::Leave;
        }
        let now = self.now();
        let mut changes = Vec::new();
        for ward in &mut self.fleet.wards {
            changes.extend(ward.checkup.tick(now));
        }
        for change in changes {
            self.tell_change(&change);
        }
        if (self.changed_health || self.fleet.is_warming()) && self.fleet.regroup(now) {
            self.send_snapshot();
        }
        self.changed_health = false;
        self.publish_loads();
        let sum = |cell: fn(&CoreCounters) -> u64| {
            self.links.iter().map(|link| cell(&link.counters)).sum::<u64>()
        };
        let (accepted, young) = (sum(|c| c.accepted.get()), sum(|c| c.young.get()));
        self.heap.tick(now, accepted, young);
        let all_gone = self.gone.iter().zip(&self.lost).all(|(gone, lost)| *gone || *lost);
        self.phase.passed(Instant::now(), self.times(), all_gone)
    }

    fn publish_loads(&mut self) {
        let counters: Vec<Arc<CoreCounters>> =
            self.links.iter().map(|link| link.counters.clone()).collect();
        let maxima = self.fleet.maxima();
        if let Some(loads) = self.publisher.publish(&counters, &self.fleet.registry, &maxima) {
            self.order_all(&Order::Loads(loads));
        }
    }

    fn send_snapshot(&mut self) {
        let snapshot = self.fleet.snapshot();
        self.order_all(&Order::Snapshot(snapshot));
    }

    fn order_all(&self, order: &Order) {
        for link in &self.links {
            // A core that is gone has nobody left to tell.
            let _ = link.orders.send(order.clone());
            wake(link.wake);
        }
    }

    /// Counter cells for a server the cores have not met.
    fn introduce(&self, id: ServerId, cells: &[Arc<ServerCounters>]) {
        for (link, counters) in self.links.iter().zip(cells) {
            let _ = link.orders.send(Order::Server { id, counters: counters.clone() });
        }
    }

    fn checked(&mut self, checked: &Checked) -> Step {
        let now = self.now();
        let id = checked.id;
        match &checked.result {
            Ok(()) => {
                self.checks_good += 1;
                self.check_faults.remove(&id);
            }
            // Neither good nor bad: the server was not asked, and its pipes have done nothing.
            Err(Fault::Ours(fault)) => {
                self.tell_unmade(id, fault);
                return Step::Wait;
            }
            Err(fault) => {
                self.checks_bad += 1;
                self.check_faults.insert(id, fault.to_string());
            }
        }
        let good = checked.result.is_ok();
        let change = self.fleet.ward_mut(id).and_then(|w| w.checkup.checked(now, id, good));
        if let Some(change) = change {
            self.tell_change(&change);
        }
        Step::Wait
    }

    /// Says why a check could not be made. Whatever is short is so for many servers at once.
    fn tell_unmade(&mut self, id: ServerId, fault: &io::Error) {
        self.checks_unmade += 1;
        if self.unmade_said.is_some_and(|said| said.elapsed() < reports::SAY_AGAIN) {
            return;
        }
        self.unmade_said = Some(Instant::now());
        let known = self.fleet.registry.known(id);
        let (pool, server) = (&*known.pool, &*known.name);
        tracing::warn!(pool, server, %fault, "a check could not be made; servers stay as they are");
    }

    /// Says that a server is in another state, and ends its pipes if the file says so.
    fn tell_change(&mut self, change: &Change) {
        self.changed_health = true;
        let known = self.fleet.registry.known(change.id);
        let fault = self.check_faults.get(&change.id).map(String::as_str);
        let (pool, server) = (&*known.pool, &*known.name);
        let (from, to) = (change.from.name(), change.to.name());
        let live = known.live();
        if matches!(change.to, MemberState::Down | MemberState::Ejected) {
            tracing::warn!(pool, server, from, to, live, fault, "a server is out of service");
        } else {
            tracing::info!(pool, server, from, to, live, "a server has changed");
        }
        if let Some(order) = self.fleet.on_change(change) {
            self.order_all(&order);
        }
    }

    // === the end ===

    fn times(&self) -> Times {
        let runtime = &self.fleet.plan.runtime;
        Times { delay: runtime.drain_delay, timeout: runtime.drain_timeout }
    }

    fn signalled(&mut self, told: Told) -> Step {
        match told {
            Told::Reload => self.reload("SIGHUP"),
            Told::End(asked) => self.asked_to_end(asked),
            Told::Nothing(signal) => {
                tracing::warn!(signal, "a signal that changes nothing here");
                Step::Wait
            }
        }
    }

    fn asked_to_end(&mut self, asked: Asked) -> Step {
        let mut times = self.times();
        if asked.is_hasty() {
            times.delay = Duration::ZERO;
        }
        if self.phase.is_serving() {
            self.manager.stopping();
        }
        tracing::info!(signal = asked.name(), phase = self.phase.name(), "asked to end");
        let step = self.phase.asked(Instant::now(), times);
        if matches!(self.phase, Phase::Leaving { .. }) {
            self.order_all(&Order::Leaving);
        }
        step
    }

    /// Says whether it is over.
    fn perform(&mut self, step: Step) -> bool {
        match step {
            Step::Wait => {}
            Step::Drain => {
                let over = self.drain_over();
                tracing::info!(live = self.live(), "listeners close; pipes are given time to end");
                self.order_all(&Order::Drain { over, within: self.times().timeout });
            }
            Step::Stop => {
                tracing::info!(live = self.live(), "every pipe is ended now");
                self.order_all(&Order::Stop);
            }
            Step::Leave => return true,
        }
        false
    }

    fn live(&self) -> u64 {
        self.links.iter().map(|l| l.counters.live.get() + l.counters.young.get()).sum()
    }

    /// The slowest pool's pace, but never beyond half of what the drain may take in all.
    fn drain_over(&self) -> Duration {
        let longest = self
            .fleet
            .wards
            .iter()
            .map(|ward| fleet::pace(ward.plan.drain, self.fleet.registry.live(&ward.ids)));
        longest.max().unwrap_or_default().min(self.times().timeout / 2)
    }
}
