//! The steps scenes are made of: open, hold, measure, weigh, finish.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use standpipe::sys::generator::monotonic_ns;

use crate::cli::TargetArgs;
use crate::conductor::{Conductor, Muster, Report, Step, Times};
use crate::engine;
use crate::live::Live;
use crate::outcome::{Moment, Outcome, Target, Weighing};
use crate::plan::{Plan, Traffic};
use crate::report::Expectation;
use crate::signals::Interrupt;
use crate::tally::{Packed, Tally};
use crate::watch::{self, Look};

/// How often the main thread looks around.
const TICK: Duration = Duration::from_millis(100);
/// How long last answers are still awaited once somebody is in a hurry.
const HURRY_NS: u64 = 500_000_000;
/// From saying "start" to the first message being due.
const LEAD_IN_NS: u64 = 20_000_000;

pub struct Drive {
    plan: Arc<Plan>,
    conductor: Arc<Conductor>,
    interrupt: Interrupt,
    reports: Receiver<Report>,
    threads: Vec<JoinHandle<()>>,
    muster: Muster,
    live: Live,
    outcome: Outcome,
    /// What intervals ending in the current second add up to.
    second: Tally,
    second_ns: u64,
    own: (u64, u64),
}

impl Drive {
    pub fn new(
        scene: &'static str,
        args: &TargetArgs,
        size: &str,
        plan: Plan,
        interrupt: &Interrupt,
    ) -> Result<Drive, String> {
        if let Some(pid) = args.pid.iter().find(|&&pid| !watch::exists(pid)) {
            return Err(format!("--pid {pid}: there is no such process"));
        }
        for text in &args.output.expect {
            Expectation::parse(text)?;
        }
        let plan = Arc::new(plan);
        let conductor = Arc::new(Conductor::new(plan.threads));
        let began_ns = monotonic_ns();
        let outcome = Outcome {
            began_ns,
            talkers: plan.talkers(),
            threads: plan.threads,
            intended_rate: match plan.traffic {
                Traffic::Open { rate } => Some(rate * (1.0 - plan.odd_share())),
                _ => None,
            },
            intended_lives: match plan.traffic {
                Traffic::Churn { rate, .. } => Some(rate),
                _ => None,
            },
            size: size.to_owned(),
            lag_bound_ns: args.output.lag_bound.as_nanos() as u64,
            intervals: args.output.hlog.is_some().then(Vec::new),
            ..Outcome::blank(scene, &plan.target.url, plan.connections)
        };
        let (sender, reports) = channel();
        let mut drive = Drive {
            live: Live::new(args.output.quiet, u64::from(plan.connections)),
            conductor,
            interrupt: interrupt.clone(),
            reports,
            threads: Vec::new(),
            muster: Muster::new(plan.threads),
            outcome,
            second: Tally::new(),
            second_ns: began_ns,
            own: (0, 0),
            plan,
        };
        if !args.pid.is_empty() {
            let before = watch::look(&args.pid, began_ns, true);
            let pids = args.pid.clone();
            drive.outcome.target = Some(Target { pids, before, ..Target::default() });
        }
        for thread in 0..drive.plan.threads {
            let (plan, conductor) = (Arc::clone(&drive.plan), Arc::clone(&drive.conductor));
            let sender = sender.clone();
            let body = move || engine::run(thread, plan, conductor, sender);
            let builder = std::thread::Builder::new().name(format!("load-{thread}"));
            let handle = builder.spawn(body).map_err(|error| format!("cannot start: {error}"))?;
            drive.threads.push(handle);
        }
        Ok(drive)
    }

    /// Waits until every connection is open or was given up. An error when none is open.
    pub fn open(&mut self) -> Result<(), String> {
        self.live.phase("connecting");
        self.wait_ready();
        self.outcome.open_at_start = self.open_now();
        self.outcome.ramp_s = self.since_began();
        if let Some(target) = &mut self.outcome.target {
            target.connected = watch::look(&target.pids, monotonic_ns(), true);
        }
        if self.outcome.open_at_start == 0 && !self.interrupt.came() {
            self.conductor.leave();
            self.wait_done();
            let mut total = std::mem::take(&mut self.outcome.total);
            total.add(std::mem::take(&mut self.second));
            return Err(why_nothing_opened(&self.outcome.url, &total));
        }
        Ok(())
    }

    /// Lets only so many be dialled, from now on or until more are allowed.
    pub fn allow(&mut self, connections: u32) {
        self.conductor.allow(connections);
    }

    /// Waits for the threads to be ready (again).
    pub fn wait_ready(&mut self) {
        while !self.muster.all(Step::Ready) && self.going() {
            self.tick();
        }
        self.muster.forget(Step::Ready);
    }

    /// Waits until every thread has left.
    fn wait_done(&mut self) {
        while !self.muster.all(Step::Done) {
            self.tick();
        }
    }

    /// All drop everything and come back; returns how long it took until all were back.
    pub fn storm(&mut self, limit: Duration) -> Option<Duration> {
        self.muster.forget(Step::Ready);
        self.live.phase("storm");
        let began = Instant::now();
        self.conductor.storm();
        while !self.muster.all(Step::Ready) && self.going() && began.elapsed() < limit {
            self.tick();
        }
        let back = self.muster.all(Step::Ready) && !self.muster.all(Step::Done);
        self.muster.forget(Step::Ready);
        back.then(|| began.elapsed())
    }

    /// The doomed connections vanish now.
    pub fn vanish(&mut self) {
        self.conductor.vanish();
    }

    /// Anybody still working, and nobody in a hurry?
    pub fn going(&self) -> bool {
        !self.muster.all(Step::Done) && !self.interrupt.came()
    }

    pub fn outcome(&mut self) -> &mut Outcome {
        &mut self.outcome
    }

    /// How many files the target has open.
    pub fn target_files(&self) -> Option<u64> {
        let target = self.outcome.target.as_ref()?;
        Some(watch::look(&target.pids, monotonic_ns(), true).files)
    }

    /// How many files each open connection is to the target, which has `all` of them open: two to a
    /// proxy, one to an echo.
    pub fn files_of_one(&mut self, all: Option<u64>) -> u64 {
        let none = self.outcome.target.as_ref().map_or(0, |target| target.before.files);
        let held = all.unwrap_or(0).saturating_sub(none) as f64;
        (held / f64::from(self.open_now().max(1))).round().max(1.0) as u64
    }

    /// Keeps everything open and silent.
    pub fn hold(&mut self, time: Duration) {
        self.live.phase("holding");
        self.wait(time);
    }

    /// Traffic: warm-up, the measured window, and the wait for the last answers.
    pub fn measure(&mut self) -> Result<(), String> {
        self.begin(self.plan.duration);
        self.until(self.outcome.times.measure_to_ns);
        self.end();
        Ok(())
    }

    /// Starts traffic and waits out the warm-up: the measured window begins.
    pub fn begin(&mut self, duration: Duration) {
        let start_ns = monotonic_ns() + LEAD_IN_NS;
        let measure_from_ns = start_ns + self.plan.warmup.as_nanos() as u64;
        let measure_to_ns = measure_from_ns + duration.as_nanos() as u64;
        let drain_to_ns = measure_to_ns + self.plan.drain.as_nanos() as u64;
        self.outcome.times = Times { start_ns, measure_from_ns, measure_to_ns, drain_to_ns };
        self.muster.forget(Step::Quiet);
        self.conductor.start(self.outcome.times);
        self.live.phase("warming up");
        self.until(measure_from_ns);
        if let Some(target) = self.outcome.target.as_mut().filter(|one| one.connected.at_ns == 0) {
            target.connected = watch::look(&target.pids, monotonic_ns(), true);
        }
        self.mark(true);
        self.live.phase("measuring");
    }

    /// The measured window ends now if it has not ended yet; then the last answers are awaited.
    pub fn end(&mut self) {
        let now = monotonic_ns();
        let times = &mut self.outcome.times;
        if now < times.measure_to_ns {
            if self.interrupt.came() {
                // Also in the warm-up, which nobody waits for any more.
                times.measure_from_ns = times.measure_from_ns.min(now);
            }
            times.measure_to_ns = now.max(times.measure_from_ns + 1);
            let drain = self.plan.drain.as_nanos() as u64;
            let patience = if self.interrupt.came() { HURRY_NS } else { drain };
            times.drain_to_ns = times.measure_to_ns + patience;
            self.conductor.start(*times);
        }
        let times = *times;
        self.mark(false);
        self.outcome.interrupted |= self.interrupt.came();
        self.outcome.measured_s += (times.measure_to_ns - times.measure_from_ns) as f64 / 1e9;
        self.live.phase("last answers");
        let mut hurried = false;
        while !self.muster.all(Step::Quiet) {
            self.tick();
            if self.interrupt.came() && !hurried {
                hurried = true;
                let times = &mut self.outcome.times;
                times.drain_to_ns = times.drain_to_ns.min(monotonic_ns() + HURRY_NS);
                self.conductor.start(*times);
            }
        }
    }

    /// Waits without changing anything.
    pub fn wait(&mut self, time: Duration) {
        self.until(monotonic_ns() + time.as_nanos() as u64);
    }

    /// A look at both ends of the measured window: the target's CPU and our own.
    fn mark(&mut self, begin: bool) {
        let now = monotonic_ns();
        let own = watch::look(&[std::process::id()], now, false);
        if begin {
            self.own.0 = own.cpu_ns;
        } else {
            self.own.1 = own.cpu_ns;
            self.outcome.own_cpu_ns += self.own.1.saturating_sub(self.own.0);
            self.outcome.own_rss_bytes = own.rss_bytes;
        }
        if let Some(target) = &mut self.outcome.target {
            let look = watch::look(&target.pids, now, false);
            if begin {
                target.measure_from = look;
            } else {
                target.measure_to = look;
            }
        }
    }

    /// Weighs the target with what is open now.
    pub fn weigh(&mut self, spoken: bool) {
        let connections = self.open_now();
        if let Some(target) = &mut self.outcome.target {
            let look = watch::look(&target.pids, monotonic_ns(), true);
            target.weighings.push(Weighing { connections, spoken, look });
        }
    }

    fn until(&mut self, ns: u64) {
        while monotonic_ns() < ns && self.going() {
            let left = Duration::from_nanos(ns.saturating_sub(monotonic_ns()));
            self.tick_for(left.min(TICK));
        }
    }

    fn tick(&mut self) {
        self.tick_for(TICK);
    }

    fn tick_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            match self.reports.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Report::Interval(tally)) => self.second.add(*tally),
                // A change of state is for the caller to look at, at once.
                Ok(Report::Reached(thread, step)) => break self.muster.note(thread, step),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => break self.muster.dismiss(),
            }
        }
        let now = monotonic_ns();
        if now - self.second_ns >= 1_000_000_000 {
            self.close_second(now);
        }
        self.live.show(&self.conductor);
    }

    fn close_second(&mut self, now: u64) {
        let second = std::mem::take(&mut self.second);
        let look = match &self.outcome.target {
            Some(target) => watch::look(&target.pids, now, false),
            None => Look::default(),
        };
        let counts = &second.counts;
        let at_s = (now - self.outcome.began_ns) as f64 / 1e9;
        let latency = &second.latency;
        let span_s = (now - self.second_ns) as f64 / 1e9;
        self.outcome.moments.push(Moment {
            at_s,
            span_s,
            open: self.open_now(),
            sent: counts.sent,
            received: counts.received,
            errors: crate::outcome::errors(counts),
            p50_ns: latency.value_at_quantile(0.5),
            p99_ns: latency.value_at_quantile(0.99),
            max_ns: latency.max(),
            target_cpu_ns: look.cpu_ns,
            target_rss_bytes: look.rss_bytes,
        });
        self.live.second(self.outcome.moments.last());
        if let Some(intervals) = &mut self.outcome.intervals
            && !latency.is_empty()
        {
            let from_s = (self.second_ns - self.outcome.began_ns) as f64 / 1e9;
            intervals.push((from_s, at_s, Packed::new(latency)));
        }
        self.second_ns = now;
        self.outcome.total.add(second);
    }

    /// Closes everything and hands over what was measured.
    pub fn finish(mut self) -> Outcome {
        self.outcome.interrupted |= self.interrupt.came();
        self.conductor.leave();
        self.wait_done();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                let why = "a generator thread came to grief, and with it what it had counted";
                self.outcome.void_why.get_or_insert(why.into());
            }
        }
        self.close_second(monotonic_ns());
        if let Some(target) = &mut self.outcome.target {
            target.after = watch::look(&target.pids, monotonic_ns(), true);
        }
        self.live.finish();
        self.outcome
    }

    pub fn open_now(&self) -> u32 {
        self.conductor.gauges().iter().map(|gauge| gauge.open.load(Relaxed)).sum()
    }

    fn since_began(&self) -> f64 {
        (monotonic_ns() - self.outcome.began_ns) as f64 / 1e9
    }
}

/// What there is to say when not one connection was ever open.
pub fn why_nothing_opened(url: &str, total: &Tally) -> String {
    let mut text = format!("{url}: not one connection could be opened");
    for (kind, count) in &total.errors {
        text.push_str(&format!("\n  {count} × {kind}"));
    }
    if let Some(refusal) = &total.refusal {
        text.push_str("\nthe first answer was:\n  ");
        text.push_str(&refusal.replace('\n', "\n  "));
    }
    text
}
