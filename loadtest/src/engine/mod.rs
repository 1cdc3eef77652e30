//! One generator thread: it opens its connections, sends what is due, reads what comes, and counts.
//!
//! A turn reads downwards: dial what the connect rate allows, send what is due, wait for readiness
//! no longer than the next due moment, serve what is ready. No connection has a task, a timer or a
//! buffer of its own.

mod churn;
mod dial;
mod habits;
mod inbound;
mod link;
mod opening;
mod outbound;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Sender;
use std::time::Duration;

use standpipe::sys::descriptors::unshare_table;
use standpipe::sys::epoll::{Epoll, Events, Ready};
use standpipe::sys::generator::{exact_timers, monotonic_ns};

use crate::conductor::{Conductor, Report, Step, Times};
use crate::message::Writer;
use crate::plan::{Odd, Plan, Traffic};
use crate::schedule::Schedule;
use crate::socket::Room;
use crate::tally::{How, Tally, Who};
use link::{Habit, Link, Stage};

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
    /// Failed dials that are to be tried again, and when.
    retries: VecDeque<(u64, u32)>,
    /// The dial rate is counted from here.
    first_dial_ns: u64,
    dialled: u64,
    undecided: usize,
    open: usize,
    ready_said: bool,
    quiet_said: bool,
    accounts_asked: bool,
    allowed: u32,
    storms: u32,
    vanishings: u32,
    /// Connections whose short life ends at a time.
    lives: BinaryHeap<Reverse<(u64, u32)>>,
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
    // First, so that it is dropped last, however this ends.
    let _farewell = Farewell { thread, reports: reports.clone() };
    settle(&plan.cores, thread);
    let share = u64::from(plan.share(thread));
    match Engine::new(thread, plan, conductor, reports.clone()) {
        Ok(mut engine) => engine.live(),
        Err(error) => {
            let mut tally = Box::new(Tally::new());
            tally.counts.failed = share;
            tally.errors_of(format!("generator: cannot make an epoll: {error}"), share);
            // The main thread may be gone already; then nobody needs to know.
            let _ = reports.send(Report::Interval(tally));
        }
    }
}

/// Tells the main thread that this one has left, also where it came to grief.
struct Farewell {
    thread: usize,
    reports: Sender<Report>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        let _ = self.reports.send(Report::Reached(self.thread, Step::Done));
    }
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
        let links = (0..count)
            .map(|at| at * threads + thread as u32)
            .map(|number| Link::new(plan.talks(number), habit(&plan, number)))
            .collect();
        let churning = matches!(plan.traffic, Traffic::Churn { .. });
        Ok(Engine {
            thread,
            reports,
            epoll: Epoll::new()?,
            links,
            again: VecDeque::new(),
            dialling: (0..count).collect(),
            retries: VecDeque::new(),
            first_dial_ns: now,
            dialled: 0,
            undecided: 0,
            open: 0,
            ready_said: churning,
            quiet_said: true,
            accounts_asked: false,
            allowed: conductor.allowed(),
            storms: 0,
            vanishings: 0,
            lives: BinaryHeap::new(),
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
            if self.conductor.leaving() {
                break;
            }
            self.dial_some(now);
            self.end_lives(now);
            self.say_where_we_are(now);
            let behind = self.send_due(now);
            let sleep = self.sleep(behind);
            let Ok(count) = self.epoll.wait(&mut events, sleep) else { break };
            for at in 0..count {
                if let Some(ready) = events.at(at) {
                    self.serve(ready);
                }
            }
            self.go_on_all();
        }
        self.leave(&mut events);
        self.hand_over();
    }

    /// The number of a link over all threads.
    fn number(&self, index: u32) -> u32 {
        index * self.plan.threads as u32 + self.thread as u32
    }

    fn keep_time(&mut self, now: u64) {
        let times = self.conductor.times();
        if times != self.times {
            let started = self.times.map(|times| times.start_ns);
            self.times = times;
            if let Some(times) = times.filter(|times| Some(times.start_ns) != started) {
                self.begin_traffic(times);
            }
        }
        if self.conductor.allowed() != self.allowed {
            self.allowed = self.conductor.allowed();
            self.ready_said = self.churning();
            self.first_dial_ns = now;
            self.dialled = 0;
        }
        if self.conductor.storms() != self.storms {
            self.storms = self.conductor.storms();
            self.storm(now);
        }
        if self.conductor.vanishings() != self.vanishings {
            self.vanishings = self.conductor.vanishings();
            self.vanish();
        }
        if now >= self.interval_ns {
            self.hand_over();
            self.interval_ns = now + INTERVAL_NS;
        }
        if now >= self.timeouts_ns {
            self.timeouts_ns = now + 100_000_000;
            self.time_out(now);
            self.read_slowly();
        }
    }

    fn begin_traffic(&mut self, times: Times) {
        self.quiet_said = false;
        for link in &mut self.links {
            link.base = link.sent;
            link.due = link.sent;
        }
        // Connections that are not allowed yet are not due either.
        let allowed = self.allowed;
        let talking: Vec<u32> = (0..self.links.len() as u32)
            .filter(|&at| self.links[at as usize].talks && self.number(at) < allowed)
            .collect();
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
            Traffic::Churn { .. } => {
                self.first_dial_ns = times.start_ns;
                self.dialled = 0;
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
        link.finished |= ready.ended();
        if link.stage == Stage::Connecting {
            self.connected(index);
            // What came together with the connect will not be said again.
            if !ready.readable() {
                return;
            }
        }
        let link = &self.links[index as usize];
        match link.stage {
            Stage::Down | Stage::Connecting => {}
            Stage::Securing | Stage::Upgrading => self.open_further(index),
            Stage::Open | Stage::Leaving => {
                let blocked = link.socket.as_ref().is_some_and(|socket| socket.blocked());
                if ready.writable() && blocked {
                    self.unblock(index);
                }
                if ready.readable() {
                    self.read(index);
                }
            }
        }
    }

    /// One turn for each link that waits for one now; who wants another waits for the next round.
    fn go_on_all(&mut self) {
        for _ in 0..self.again.len() {
            if let Some(index) = self.again.pop_front() {
                self.go_on(index);
            }
        }
    }

    /// A link whose turn was cut short, or that is to begin.
    fn go_on(&mut self, index: u32) {
        let link = &self.links[index as usize];
        if link.stage != Stage::Open && link.stage != Stage::Leaving {
            return;
        }
        self.read(index);
        self.speak_on(index);
    }

    /// Tells the main thread when everything allowed is open, and when nothing is awaited any more.
    fn say_where_we_are(&mut self, now: u64) {
        let waiting =
            self.undecided > 0 || !self.retries.is_empty() || self.next_dial_ns().is_some();
        if !self.ready_said && !waiting {
            self.ready_said = true;
            let _ = self.reports.send(Report::Reached(self.thread, Step::Ready));
        }
        if self.quiet_said {
            return;
        }
        let Some(times) = self.times else { return };
        if self.plan.sink && now >= times.measure_to_ns && !self.accounts_asked {
            self.accounts_asked = true;
            for index in 0..self.links.len() as u32 {
                if self.links[index as usize].stage == Stage::Open {
                    self.ask(index);
                }
            }
        }
        let next = self.schedule.as_ref().and_then(Schedule::peek);
        let all_tried = next.is_none_or(|due| due.due_ns >= times.measure_to_ns);
        let over = now >= times.measure_to_ns
            && (now >= times.drain_to_ns || (all_tried && !self.awaits_anything()));
        if over {
            self.quiet_said = true;
            self.count_undialled(times);
            // Before the schedule is gone, which knows what of it was due inside the window.
            for index in 0..self.links.len() as u32 {
                self.settle_waiting(index);
            }
            if let Some(schedule) = self.schedule.take() {
                self.tally.counts.untried += schedule.left_until(times.measure_to_ns);
            }
            self.hand_over();
            let _ = self.reports.send(Report::Reached(self.thread, Step::Quiet));
        }
    }

    /// Whether a connection owes an answer, or a short life that was due has yet to open.
    fn awaits_anything(&self) -> bool {
        (self.churning() && self.undecided > 0)
            || self.life_due_ns().is_some()
            || self.links.iter().any(Link::expects)
    }

    fn hand_over(&mut self) {
        let gauge = self.conductor.gauge(self.thread);
        gauge.open.store(self.open as u32, Relaxed);
        let tally = Box::new(self.tally.take());
        gauge.sent.fetch_add(tally.counts.sent, Relaxed);
        gauge.received.fetch_add(tally.counts.received, Relaxed);
        gauge.failed.fetch_add(tally.counts.failed as u32, Relaxed);
        let _ = self.reports.send(Report::Interval(tally));
    }

    fn churning(&self) -> bool {
        matches!(self.plan.traffic, Traffic::Churn { .. })
    }

    /// Says goodbye on every connection, and waits a little for the answers.
    fn leave(&mut self, events: &mut Events) {
        for index in 0..self.links.len() as u32 {
            self.settle_account(index);
            self.say_goodbye(index);
        }
        let until = monotonic_ns() + LEAVE_NS;
        while self.open > 0 && monotonic_ns() < until {
            let sleep = if self.again.is_empty() { SLEEP_MAX } else { Duration::ZERO };
            let Ok(count) = self.epoll.wait(events, sleep) else { break };
            for at in 0..count {
                if let Some(ready) = events.at(at) {
                    self.serve(ready);
                }
            }
            self.go_on_all();
        }
        for index in 0..self.links.len() as u32 {
            if !self.links[index as usize].is_down() {
                self.drop_link(index, Who::Us, How::Fin);
            }
        }
    }
}

fn habit(plan: &Plan, number: u32) -> Habit {
    match plan.odd {
        Odd::Slow { .. } if plan.is_odd(number) => Habit::Slow,
        Odd::Doomed { .. } if plan.is_odd(number) => Habit::Doomed,
        _ => Habit::Normal,
    }
}
