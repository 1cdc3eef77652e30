//! One generator thread: it opens its connections, sends what is due, reads what comes, and counts.
//!
//! A turn reads downwards: dial what the connect rate allows, send what is due, wait for readiness
//! no longer than the next due moment, serve what is ready. No connection has a task, a timer or a
//! buffer of its own.

mod dial;
mod inbound;
mod link;
mod opening;
mod outbound;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Sender;
use std::time::Duration;

use standpipe::sys::descriptors::unshare_table;
use standpipe::sys::epoll::{Epoll, Events, Ready};
use standpipe::sys::generator::{exact_timers, monotonic_ns};

use crate::conductor::{Conductor, Report, Times};
use crate::message::Writer;
use crate::plan::{Plan, Traffic};
use crate::schedule::Schedule;
use crate::socket::Room;
use crate::tally::{How, Tally, Who};
use link::{Link, Stage};

/// Counts are handed over this often.
const INTERVAL_NS: u64 = 1_000_000_000;
/// Due messages sent before readiness is looked at again.
const BURST: usize = 64;
/// Connects under way at once per thread: more only overflows the target's accept queue.
const DIALS_IN_FLIGHT_MAX: usize = 512;
/// The longest sleep: how soon a word of the main thread is heard.
const SLEEP_MAX: Duration = Duration::from_millis(20);
/// How long goodbyes may take.
const LEAVE_NS: u64 = 1_500_000_000;

pub struct Engine {
    thread: usize,
    plan: Arc<Plan>,
    conductor: Arc<Conductor>,
    reports: Sender<Report>,
    epoll: Epoll,
    links: Vec<Link>,
    /// Links that have more to read or write than one turn allows.
    again: VecDeque<u32>,
    dialling: VecDeque<u32>,
    first_dial_ns: u64,
    dialled: u64,
    undecided: usize,
    open: usize,
    ready_said: bool,
    schedule: Option<Schedule>,
    times: Option<Times>,
    writer: Writer,
    room: Room,
    out: Vec<u8>,
    random: fastrand::Rng,
    tally: Tally,
    began_ns: u64,
    interval_ns: u64,
    timeouts_ns: u64,
}

/// A generator thread's body. Its first act is to take a table of file descriptors of its own.
pub fn run(thread: usize, plan: Arc<Plan>, conductor: Arc<Conductor>, reports: Sender<Report>) {
    settle(&plan.cores, thread);
    let engine = Engine::new(thread, plan, conductor, reports.clone());
    match engine {
        Ok(mut engine) => engine.live(),
        Err(error) => {
            let mut tally = Box::new(Tally::new());
            tally.error(format!("generator: cannot make an epoll: {error}"));
            // The main thread may be gone already; then nobody needs to know.
            let _ = reports.send(Report::Interval { end_ns: monotonic_ns(), tally });
            let _ = reports.send(Report::Ready);
        }
    }
    let _ = reports.send(Report::Done);
}

/// What every busy thread of this program does first: its own table, its own core, exact timers.
pub fn settle(cores: &[usize], thread: usize) {
    // Refused in odd sandboxes: then the threads share one table, and one limit.
    let _ = unshare_table();
    if !cores.is_empty() {
        core_affinity::set_for_current(core_affinity::CoreId { id: cores[thread % cores.len()] });
    }
    exact_timers();
}

impl Engine {
    fn new(
        thread: usize,
        plan: Arc<Plan>,
        conductor: Arc<Conductor>,
        reports: Sender<Report>,
    ) -> std::io::Result<Engine> {
        let now = monotonic_ns();
        let count = plan.share(thread);
        let threads = plan.threads as u32;
        let links =
            (0..count).map(|at| Link::new(plan.talks(at * threads + thread as u32))).collect();
        Ok(Engine {
            thread,
            reports,
            epoll: Epoll::new()?,
            links,
            again: VecDeque::new(),
            dialling: (0..count).collect(),
            first_dial_ns: now,
            dialled: 0,
            undecided: 0,
            open: 0,
            ready_said: false,
            schedule: None,
            times: None,
            writer: Writer::new(plan.form),
            room: Room::new(),
            out: Vec::new(),
            random: fastrand::Rng::with_seed(plan.seed.wrapping_add(thread as u64)),
            tally: Tally::new(),
            began_ns: now,
            interval_ns: now + INTERVAL_NS,
            timeouts_ns: now,
            plan,
            conductor,
        })
    }

    fn live(&mut self) {
        let mut events = Events::new();
        loop {
            let now = monotonic_ns();
            self.keep_time(now);
            if self.finished(now) {
                break;
            }
            self.dial_some(now);
            self.say_ready();
            let behind = self.send_due(now);
            let sleep = self.sleep(behind);
            let Ok(count) = self.epoll.wait(&mut events, sleep) else { break };
            for at in 0..count {
                if let Some(ready) = events.at(at) {
                    self.serve(ready);
                }
            }
            for _ in 0..self.again.len() {
                if let Some(index) = self.again.pop_front() {
                    self.go_on(index);
                }
            }
        }
        self.leave(&mut events);
        self.hand_over(monotonic_ns());
    }

    /// The number of a link over all threads.
    fn number(&self, index: u32) -> u32 {
        index * self.plan.threads as u32 + self.thread as u32
    }

    fn keep_time(&mut self, now: u64) {
        let times = self.conductor.times();
        if times != self.times {
            let starting = self.times.is_none();
            self.times = times;
            if let (true, Some(times)) = (starting, times) {
                self.begin_traffic(times);
            }
        }
        if now >= self.interval_ns {
            self.hand_over(now);
            self.interval_ns = now + INTERVAL_NS;
        }
        if now >= self.timeouts_ns {
            self.timeouts_ns = now + 100_000_000;
            self.time_out(now);
        }
    }

    fn begin_traffic(&mut self, times: Times) {
        let talking: Vec<u32> =
            (0..self.links.len() as u32).filter(|&at| self.links[at as usize].talks).collect();
        match self.plan.traffic {
            Traffic::Open { rate } => {
                let period = 1e9 * f64::from(self.plan.talkers().max(1)) / rate;
                self.schedule =
                    Some(Schedule::new(times.start_ns, period, &talking, &mut self.random));
            }
            Traffic::Closed | Traffic::Stream => {
                for index in talking {
                    if self.links[index as usize].stage == Stage::Open {
                        self.again.push_back(index);
                    }
                }
            }
            Traffic::Silent | Traffic::Listen => {}
        }
    }

    /// Sends what is due, at most a burst of it. True: more is due already.
    fn send_due(&mut self, mut now: u64) -> bool {
        let Some(times) = self.times else { return false };
        for _ in 0..BURST {
            let Some(due) = self.schedule.as_ref().and_then(Schedule::peek) else { return false };
            if due.due_ns >= times.measure_to_ns {
                return false;
            }
            if due.due_ns > now {
                now = monotonic_ns();
                if due.due_ns > now {
                    return false;
                }
            }
            if let Some(schedule) = &mut self.schedule {
                schedule.advance();
            }
            self.fall_due(due, times);
        }
        true
    }

    fn sleep(&self, behind: bool) -> Duration {
        if behind || !self.again.is_empty() {
            return Duration::ZERO;
        }
        let now = monotonic_ns();
        let mut until = SLEEP_MAX;
        if let (Some(due), Some(times)) =
            (self.schedule.as_ref().and_then(Schedule::peek), self.times)
            && due.due_ns < times.measure_to_ns
        {
            until = until.min(Duration::from_nanos(due.due_ns.saturating_sub(now)));
        }
        if let Some(next) = self.next_dial_ns() {
            until = until.min(Duration::from_nanos(next.saturating_sub(now)));
        }
        until
    }

    fn serve(&mut self, ready: Ready) {
        let index = ready.token as u32;
        let Some(link) = self.links.get_mut(index as usize) else { return };
        match link.stage {
            Stage::Down => {}
            Stage::Connecting => self.connected(index),
            Stage::Securing | Stage::Upgrading => self.open_further(index),
            Stage::Open | Stage::Leaving => {
                let blocked = link.socket.as_ref().is_some_and(|socket| socket.blocked());
                if ready.writable() && blocked {
                    self.unblock(index);
                }
                if ready.readable() {
                    self.read(index, ready.ended());
                }
            }
        }
    }

    /// A link whose turn was cut short, or that is to begin.
    fn go_on(&mut self, index: u32) {
        let link = &self.links[index as usize];
        if link.stage != Stage::Open && link.stage != Stage::Leaving {
            return;
        }
        self.read(index, false);
        self.speak_on(index);
    }

    fn say_ready(&mut self) {
        if !self.ready_said && self.dialling.is_empty() && self.undecided == 0 {
            self.ready_said = true;
            let _ = self.reports.send(Report::Ready);
        }
    }

    fn hand_over(&mut self, now: u64) {
        let gauge = self.conductor.gauge(self.thread);
        gauge.open.store(self.open as u32, Relaxed);
        let tally = Box::new(self.tally.take());
        gauge.sent.fetch_add(tally.counts.sent, Relaxed);
        gauge.received.fetch_add(tally.counts.received, Relaxed);
        gauge.failed.fetch_add(tally.counts.failed as u32, Relaxed);
        let _ = self.reports.send(Report::Interval { end_ns: now, tally });
    }

    /// Is there nothing more to do or to wait for?
    fn finished(&self, now: u64) -> bool {
        if self.conductor.leaving() {
            return true;
        }
        let Some(times) = self.times else { return false };
        if now < times.measure_to_ns {
            return false;
        }
        now >= times.drain_to_ns || !self.links.iter().any(Link::expects)
    }

    /// Says goodbye on every connection, and waits a little for the answers.
    fn leave(&mut self, events: &mut Events) {
        for index in 0..self.links.len() as u32 {
            self.settle_account(index);
            self.say_goodbye(index);
        }
        let until = monotonic_ns() + LEAVE_NS;
        while self.open > 0 && monotonic_ns() < until {
            let Ok(count) = self.epoll.wait(events, SLEEP_MAX) else { break };
            for at in 0..count {
                if let Some(ready) = events.at(at) {
                    self.serve(ready);
                }
            }
            while let Some(index) = self.again.pop_front() {
                self.go_on(index);
            }
        }
        for index in 0..self.links.len() as u32 {
            if !self.links[index as usize].is_down() {
                self.drop_link(index, Who::Us, How::Fin);
            }
        }
    }
}
