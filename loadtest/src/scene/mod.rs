//! What the main thread does: it starts the generator threads, tells them the times, gathers what
//! they count, and looks at the target. Each scene is a sequence of such steps.

mod drive;

use std::time::Duration;

use crate::cli::{BulkArgs, IdleArgs, RunArgs, TargetArgs};
use crate::outcome::{Outcome, Weighing};
use crate::plan::Traffic;
use crate::resolve;
use crate::signals::Interrupt;
use drive::Drive;

/// Messages on open connections, at a rate or in ping-pong.
pub fn run(args: &RunArgs, interrupt: &Interrupt) -> Result<Outcome, String> {
    let plan = resolve::run(args)?;
    let mut drive = Drive::new("run", &args.target, &args.traffic.size, plan, interrupt)?;
    drive.open()?;
    drive.measure()?;
    Ok(drive.finish())
}

/// Streams with digests.
pub fn bulk(args: &BulkArgs, interrupt: &Interrupt) -> Result<Outcome, String> {
    let mut plan = resolve::bulk(args)?;
    // A stream's answers come back in its own time; asking at the end tells what arrived.
    plan.ask = false;
    let up = args.direction == "up";
    let down = args.direction == "down";
    let mut drive = Drive::new("bulk", &args.target, &args.size, plan, interrupt)?;
    drive.open()?;
    drive.measure()?;
    let mut outcome = drive.finish();
    outcome.streams(up, down);
    Ok(outcome)
}

/// Connections that are held and speak once.
pub fn idle(args: &IdleArgs, interrupt: &Interrupt) -> Result<Outcome, String> {
    let mut plan = resolve::idle(args)?;
    // One message each, spread over the time allowed.
    let speak = args.speak.as_secs_f64().max(0.1);
    plan.traffic = Traffic::Open { rate: f64::from(plan.connections) / speak };
    plan.duration = Duration::from_secs_f64(speak);
    let hold = args.hold;
    let mut drive = Drive::new("idle", &args.target, &args.size, plan, interrupt)?;
    drive.open()?;
    drive.weigh(false);
    drive.hold(hold)?;
    drive.weigh(false);
    drive.measure()?;
    drive.weigh(true);
    Ok(drive.finish())
}

impl Outcome {
    /// Figures of a stream, by direction.
    fn streams(&mut self, up: bool, down: bool) {
        let counts = &mut self.total.counts;
        if up {
            // A sink answers nothing: that is not a loss.
            counts.unanswered = 0;
        }
        let seconds = self.measured_s.max(1e-9);
        let bytes = if down { counts.bytes_received } else { counts.bytes_sent };
        self.extra.push(("gigabits_per_second".into(), bytes as f64 * 8.0 / seconds / 1e9));
        if let (Some(cpu), true) = (self.target_cpu_ns(), bytes > 0) {
            self.extra.push(("target_cpu_ns_per_byte".into(), cpu as f64 / bytes as f64));
        }
    }
}

impl Weighing {
    fn of(connections: u32, spoken: bool, look: crate::watch::Look) -> Weighing {
        Weighing { connections, spoken, look }
    }
}

/// Checks that must hold before anything is opened.
fn check(args: &TargetArgs) -> Result<(), String> {
    if let Some(pid) = args.pid.iter().find(|&&pid| !crate::watch::exists(pid)) {
        return Err(format!("--pid {pid}: there is no such process"));
    }
    Ok(())
}
