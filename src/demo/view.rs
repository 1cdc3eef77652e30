//! One moment of a demonstration as numbers, ready to be shown: what the proxy counts beside what
//! the driver has measured. It formats nothing and asks nobody.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::driver::LANES;
use super::figures::Page;
use super::scene::SERVERS;
use super::tally::{Moved, Seen};

/// Everything a table shows.
#[derive(Debug)]
pub struct View {
    /// Since the load began.
    pub age: Duration,
    /// One for each of [`LANES`].
    pub lanes: Vec<Row>,
    pub all: Row,
    /// One for each of [`SERVERS`].
    pub servers: Vec<Carried>,
    pub returned: u64,
    pub returned_same: u64,
    pub astray: u64,
    pub crowd: u64,
    pub faults: u64,
    pub last_fault: Option<String>,
    pub memory: Memory,
    /// Part of one processor the proxy uses.
    pub processor: f64,
}

/// A line of the upper table.
#[derive(Debug, Clone, Copy, Default)]
pub struct Row {
    pub connections: u64,
    pub pace: Pace,
    /// Microseconds.
    pub p50: u64,
    pub p99: u64,
}

/// A line of the lower one.
#[derive(Debug, Clone, Copy)]
pub struct Carried {
    pub connections: u64,
    pub state: &'static str,
    pub pace: Pace,
}

/// How much in a second.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    pub messages: f64,
    pub bytes: f64,
}

impl Pace {
    fn of(moved: Moved, time: Duration) -> Self {
        let seconds = time.as_secs_f64().max(0.001);
        Self { messages: moved.messages as f64 / seconds, bytes: moved.bytes as f64 / seconds }
    }
}

/// The proxy's memory in RAM; it has no one else's in it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    pub resident: u64,
    /// Before the first client came.
    pub before: u64,
    /// What has come since then for each connection, the cores' shared buffers included.
    pub per_connection: u64,
    /// What each of a silent crowd has added, once it is there.
    pub idle: Option<u64>,
}

/// The proxy's memory and pipes at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Weight {
    pub resident: u64,
    pub live: u64,
}

impl Weight {
    pub fn of(page: &Page) -> Self {
        Self { resident: page.resident(), live: page.live() }
    }

    /// What each pipe since `before` has added.
    pub fn slope(self, before: Self) -> u64 {
        let added = self.resident.saturating_sub(before.resident);
        added.checked_div(self.live.saturating_sub(before.live)).unwrap_or(0)
    }
}

/// What a moment is compared with.
#[derive(Debug)]
pub struct Before {
    pub seen: Seen,
    pub processor: f64,
}

/// When and with what weights a moment is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Since the load began.
    pub age: Duration,
    /// The last part of it, since the look before.
    pub time: Duration,
    /// Before the first client came.
    pub empty: Weight,
    /// Before the crowd came, once all of it is there.
    pub uncrowded: Option<Weight>,
}

/// What went on since `before`.
pub fn compare(page: &Page, seen: &Seen, before: &Before, moment: Moment) -> View {
    let Moment { age, time, .. } = moment;
    let span = Span { seen, before, time };
    let lanes: Vec<Row> = LANES
        .iter()
        .enumerate()
        .map(|(at, lane)| {
            let route = (!lane.path.is_empty()).then_some(lane.path);
            let connections = page.connections(lane.listener, route);
            span.row(connections, &[at])
        })
        .collect();
    let everyone: Vec<usize> = (0..LANES.len()).collect();
    let all = span.row(lanes.iter().map(|row| row.connections).sum(), &everyone);
    let servers = SERVERS.iter().enumerate().map(|(at, server)| {
        let moved = seen.servers[at];
        Carried {
            connections: page.carried(server.pool, server.name),
            state: page.state(server.pool, server.name),
            pace: Pace::of(moved.since(before.seen.servers[at]), time),
        }
    });
    View {
        age,
        servers: servers.collect(),
        returned: seen.returned,
        returned_same: seen.returned_same,
        astray: seen.astray,
        faults: seen.faults,
        last_fault: seen.last_fault.clone(),
        crowd: seen.crowd,
        memory: memory(page, moment),
        processor: (page.processor() - before.processor).max(0.0) / time.as_secs_f64().max(0.001),
        lanes,
        all,
    }
}

/// Two looks at the driver's counts, and the time between them.
struct Span<'a> {
    seen: &'a Seen,
    before: &'a Before,
    time: Duration,
}

impl Span<'_> {
    /// Some lanes as one row.
    fn row(&self, connections: u64, lanes: &[usize]) -> Row {
        let moved: Moved = lanes.iter().map(|at| self.seen.lanes[*at].moved).sum();
        let before: Moved = lanes.iter().map(|at| self.before.seen.lanes[*at].moved).sum();
        let times = lanes.iter().map(|at| &self.seen.lanes[*at].recent);
        let (p50, p99) = quantiles(times);
        Row { connections, pace: Pace::of(moved.since(before), self.time), p50, p99 }
    }
}

/// The median and the 99th percentile of several histograms together; 0 where all are empty.
pub fn quantiles<'a>(times: impl Iterator<Item = &'a Histogram<u64>>) -> (u64, u64) {
    let mut all: Option<Histogram<u64>> = None;
    for one in times {
        match &mut all {
            None => all = Some(one.clone()),
            // They were made with the same bounds, so nothing can be out of them.
            Some(all) => all.add(one).unwrap_or_default(),
        }
    }
    let of = |quantile| all.as_ref().map_or(0, |all| all.value_at_quantile(quantile));
    (of(0.50), of(0.99))
}

fn memory(page: &Page, moment: Moment) -> Memory {
    let now = Weight::of(page);
    Memory {
        resident: now.resident,
        before: moment.empty.resident,
        per_connection: now.slope(moment.empty),
        idle: moment.uncrowded.map(|before| now.slope(before)),
    }
}
