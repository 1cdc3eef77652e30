//! How far two cores are from each other: the time a cache line takes there and back. A host moves
//! the cores of a virtual machine about, and what costs 60 ns while they share a cache costs five
//! times as much when they do not; everything that one core hands to another pays it.

use std::hint::spin_loop;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread;
use std::time::{Duration, Instant};

use core_affinity::CoreId;

/// Trips that are timed as one; the median of the parts is what counts, so that a pause in one of
/// them does not.
const PART_TRIPS: u32 = 4_000;
const PARTS: usize = 9;
/// With a core taken by others a trip lasts as long as their time slice.
const TIME_MAX: Duration = Duration::from_secs(1);
/// What the answering thread takes for the end.
const OVER: u32 = u32::MAX;
/// Spins between two looks at the clock, over all trips: a look costs about as much as a trip.
const SPINS: u32 = 1 << 13;

/// A cache line and nothing else in it, nor in the one that is fetched along with it.
#[repr(align(128))]
struct Line(AtomicU32);

/// Nanoseconds of a round trip between two cores.
///
/// # Errors
/// The two are one, one of them is not ours to run on, or others held them for too long.
pub fn round_trip_ns(one: usize, other: usize) -> Result<f64, String> {
    if one == other {
        return Err(format!("core {one} is given twice: a hop needs two cores"));
    }
    let ours = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(core) = [one, other].iter().find(|&&core| !ours.contains(&CoreId { id: core })) {
        return Err(format!("there is no core {core} for us here"));
    }
    let line = Line(AtomicU32::new(0));
    let line = &line.0;
    thread::scope(|scope| {
        // A thread that cannot be had must not leave the other one waiting.
        let thread = |why: std::io::Error| {
            line.store(OVER, Release);
            format!("no thread to be had: {why}")
        };
        let answering = thread::Builder::new()
            .spawn_scoped(scope, move || pin(other).map(|()| answer(line)))
            .map_err(thread)?;
        let asking = thread::Builder::new()
            .spawn_scoped(scope, move || {
                let parts = pin(one).and_then(|()| ask(line));
                line.store(OVER, Release);
                parts
            })
            .map_err(thread)?;
        let parts = asking.join().map_err(|_| "the asking thread panicked".to_owned())?;
        answering.join().map_err(|_| "the answering thread panicked".to_owned())??;
        let mut parts = parts?;
        parts.sort_by(f64::total_cmp);
        Ok(parts[parts.len() / 2])
    })
}

fn pin(core: usize) -> Result<(), String> {
    let done = core_affinity::set_for_current(CoreId { id: core });
    done.then_some(()).ok_or_else(|| format!("cannot be pinned to core {core}"))
}

/// Says odd numbers, and waits for the even one that follows each.
fn ask(line: &AtomicU32) -> Result<Vec<f64>, String> {
    let until = Instant::now() + TIME_MAX;
    let (mut said, mut spins) = (0, 0_u32);
    let mut parts = Vec::with_capacity(PARTS);
    for _ in 0..PARTS {
        let began = Instant::now();
        for _ in 0..PART_TRIPS {
            line.store(said + 1, Release);
            said += 2;
            while line.load(Acquire) != said {
                spin_loop();
                spins = spins.wrapping_add(1);
                if spins % SPINS == 0 && Instant::now() > until {
                    return Err(format!(
                        "no hop within {} s: others hold a core",
                        TIME_MAX.as_secs()
                    ));
                }
            }
        }
        parts.push(began.elapsed().as_nanos() as f64 / f64::from(PART_TRIPS));
    }
    Ok(parts)
}

fn answer(line: &AtomicU32) {
    loop {
        match line.load(Acquire) {
            OVER => return,
            asked if asked % 2 == 1 => {
                // Only one of the two may say that it is over.
                let _ = line.compare_exchange(asked, asked + 1, Release, Acquire);
            }
            _ => spin_loop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cores_answer_each_other() {
        let ours = core_affinity::get_core_ids().unwrap();
        let [one, other, ..] = ours[..] else { return };
        match round_trip_ns(one.id, other.id) {
            Ok(hop) => assert!(hop > 1.0 && hop < 1e6, "{hop} ns"),
            Err(why) => assert!(why.contains("others hold a core"), "{why}"),
        }
    }

    #[test]
    fn one_core_is_no_pair_and_a_core_that_is_not_there_is_named() {
        assert!(round_trip_ns(0, 0).unwrap_err().contains("core 0 is given twice"));
        let one = core_affinity::get_core_ids().unwrap()[0].id;
        assert!(round_trip_ns(one, 9999).unwrap_err().contains("no core 9999"));
        assert!(round_trip_ns(9999, one).unwrap_err().contains("no core 9999"));
    }
}
