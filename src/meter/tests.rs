//! What control relies on: cells apart, one order of samples, names that Prometheus takes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::*;

type Each<'a> = (&'static str, &'a dyn Fn(&mut Sink<'_>));

/// Every struct of counters, by name.
fn all(look: impl Fn(&[Each<'_>])) {
    let core = CoreCounters::default();
    let listener = ListenerCounters::default();
    let server = ServerCounters::default();
    let route = RouteCounters::default();
    look(&[
        ("core", &|f| core.each(f)),
        ("listener", &|f| listener.each(f)),
        ("server", &|f| server.each(f)),
        ("route", &|f| route.each(f)),
    ]);
}

fn line(sample: Sample<'_>) -> String {
    let label = |(k, v): &(&str, &str)| format!("{k}={v}");
    let labels: Vec<String> = sample.labels.iter().map(label).collect();
    format!("{}{}{{{}}}", sample.family.name, sample.suffix, labels.join(","))
}

#[test]
fn the_cells_of_two_cores_share_no_line() {
    fn apart<T: Default>() {
        let two: Vec<Arc<T>> = (0..2).map(|_| Arc::new(T::default())).collect();
        let starts: Vec<usize> = two.iter().map(|c| Arc::as_ptr(c) as usize).collect();
        assert!(starts.iter().all(|start| start % 128 == 0));
        assert_eq!(size_of::<T>() % 128, 0);
        assert!(starts[0].abs_diff(starts[1]) >= size_of::<T>());
    }
    apart::<CoreCounters>();
    apart::<ListenerCounters>();
    apart::<ServerCounters>();
    apart::<RouteCounters>();
    // A fleet of a thousand servers on eight cores: a megabyte, no more.
    assert_eq!(size_of::<ServerCounters>(), 128);
}

#[test]
fn samples_come_once_each_and_always_in_the_same_order() {
    all(|structs| {
        for (name, each) in structs {
            let mut rounds = [Vec::new(), Vec::new()];
            for round in &mut rounds {
                each(&mut |sample| round.push(line(sample)));
            }
            assert_eq!(rounds[0], rounds[1]);
            let different: HashSet<&String> = rounds[0].iter().collect();
            assert_eq!(different.len(), rounds[0].len(), "{name} tells a sample twice");
        }
    });
}

#[test]
fn families_are_named_by_the_rules() {
    all(|structs| {
        let mut owners: HashMap<&str, (&str, Kind)> = HashMap::new();
        for (owner, each) in structs {
            each(&mut |sample| {
                let Family { name, kind, help, .. } = sample.family;
                let fit = |b: u8| b.is_ascii_lowercase() || b == b'_';
                assert!(name.bytes().all(fit), "{name}");
                assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
                assert!(help.ends_with('.'), "{name} has no sentence");
                let known = owners.entry(name).or_insert((owner, *kind));
                assert_eq!(*known, (*owner, *kind), "{name} is told by two structs");
            });
        }
    });
}

#[test]
fn an_ending_is_counted_where_it_is_read() {
    let core = CoreCounters::default();
    let ending = Ending::server(Stage::Dial, Cause::Refused);
    core.endings.count(ending);
    core.endings.count(ending);
    assert_eq!((core.endings.get(ending), core.endings.total()), (2, 2));
    let mut shown = Vec::new();
    core.endings.each(&mut |s| {
        if s.value > 0.0 {
            shown.push(line(s));
        }
    });
    assert_eq!(shown, ["connections_ended_total{side=server,stage=dial,cause=refused}"]);
}

#[test]
fn gears_balance() {
    let gears = Gears::default();
    let way = Direction::FromClient;
    gears.enter(way, Gear::Parked);
    gears.shift(way, Gear::Parked, Gear::Flowing);
    gears.shift(way, Gear::Flowing, Gear::Flowing);
    gears.shift(way, Gear::Flowing, Gear::Bulk);
    gears.leave(way, Gear::Bulk);
    assert!(Gear::ALL.iter().all(|g| gears.occupancy(way, *g) == 0));
    let moved: Vec<u64> = Move::ALL.iter().map(|m| gears.moves(*m)).collect();
    assert_eq!(moved.iter().sum::<u64>(), 2);
    assert_eq!(gears.moves(Move::ParkedFlowing), 1);
}

#[test]
fn close_codes_fall_into_their_cells() {
    let closes = CloseCodes::default();
    for code in [Some(1000), Some(4001), Some(4999), Some(3001), Some(999), None] {
        closes.count(Side::Client, code);
    }
    closes.count(Side::Server, CloseCodes::ABNORMAL);
    let mut shown = HashMap::new();
    closes.each(&mut |s| {
        if s.value > 0.0 {
            shown.insert(line(s), s.value as u64);
        }
    });
    let count = |side: &str, code: &str| {
        shown.get(&format!("route_closes_total{{closer={side},code={code}}}")).copied()
    };
    assert_eq!(count("client", "1000"), Some(1));
    assert_eq!(count("client", "private"), Some(2));
    assert_eq!(count("client", "registered"), Some(1));
    assert_eq!(count("client", "other"), Some(1));
    assert_eq!(count("client", "none"), Some(1));
    assert_eq!(count("server", "abnormal"), Some(1));
    assert_eq!(shown.len(), 6);
    // The stand-ins for ranges must not be hit by a lying peer's code 0.
    closes.count(Side::Client, Some(0));
    assert_eq!(closes.get(Side::Client, Some(0)), closes.get(Side::Client, Some(999)));
    assert_eq!(closes.get(Side::Client, None), 1);
}

#[test]
fn a_histogram_is_cumulative_and_its_bounds_inclusive() {
    static BOUNDS: [(u64, &str); 2] = [(1_000, "0.001"), (2_000, "0.002")];
    static FAMILY: Family = Family::histogram("x_seconds", "X.");
    let histogram = Histogram::new(&BOUNDS);
    for us in [0, 1_000, 1_001, 2_000, 2_001, 9_000_000] {
        histogram.record(Duration::from_micros(us));
    }
    let mut told = Vec::new();
    histogram.each(&FAMILY, &mut |s| told.push((line(s), s.value)));
    let expected = [
        ("x_seconds_bucket{le=0.001}", 2.0),
        ("x_seconds_bucket{le=0.002}", 4.0),
        ("x_seconds_bucket{le=+Inf}", 6.0),
        ("x_seconds_sum{}", 9.006_002),
        ("x_seconds_count{}", 6.0),
    ];
    let expected: Vec<(String, f64)> =
        expected.iter().map(|(l, v)| ((*l).to_string(), *v)).collect();
    assert_eq!(told, expected);
    assert_eq!(histogram.count(), 6);
}

#[test]
fn bounds_say_what_they_are() {
    let route = RouteCounters::default();
    let mut last: HashMap<&str, f64> = HashMap::new();
    route.each(&mut |s| {
        if let [("le", bound)] = s.labels {
            let bound: f64 = bound.parse().unwrap_or(f64::INFINITY);
            let before = last.insert(s.family.name, bound).unwrap_or(0.0);
            assert!(bound > before, "{} of {}", bound, s.family.name);
        }
    });
}

#[test]
fn frames_are_counted_by_direction_and_kind() {
    let frames = Frames::default();
    frames.add(Direction::FromServer, Opcode::Text, 1, 128);
    frames.add(Direction::FromServer, Opcode::Text, 2, 10);
    let mut told = Vec::new();
    frames.each(&mut |s| {
        if s.value > 0.0 {
            told.push((line(s), s.value as u64));
        }
    });
    let labels = "direction=from_server,opcode=text";
    let expected = [
        (format!("route_frames_total{{{labels}}}"), 3),
        (format!("route_frame_bytes_total{{{labels}}}"), 138),
    ];
    assert_eq!(told, expected);
}
