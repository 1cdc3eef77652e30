//! What the main thread does: it starts the generator threads, tells them the times, gathers what
//! they count, and looks at the target. Each scene is a sequence of such steps, to be read as one.

mod drive;
mod during;

use std::time::Duration;

use crate::cli::{
    AuditArgs, BulkArgs, ChurnArgs, HalfOpenArgs, IdleArgs, NatArgs, RunArgs, SlowArgs, StormArgs,
};
use crate::outcome::Outcome;
use crate::plan::Traffic;
use crate::resolve;
use crate::signals::Interrupt;
use crate::units::{show_count, show_ns};
use drive::{Drive, why_nothing_opened};
use during::Command;

type Result = std::result::Result<Outcome, String>;

/// Messages on open connections, at a rate or in ping-pong.
pub fn run(args: &RunArgs, interrupt: &Interrupt) -> Result {
    let plan = resolve::run(args)?;
    let mut drive = Drive::new("run", &args.target, &args.traffic.size, plan, interrupt)?;
    drive.open()?;
    drive.measure()?;
    Ok(drive.finish())
}

/// Streams with digests.
pub fn bulk(args: &BulkArgs, interrupt: &Interrupt) -> Result {
    let plan = resolve::bulk(args)?;
    let mut drive = Drive::new("bulk", &args.target, &args.size, plan, interrupt)?;
    drive.open()?;
    drive.measure()?;
    let mut outcome = drive.finish();
    outcome.note_streams(args.direction);
    Ok(outcome)
}

/// Connections that are held and speak once, at every step.
pub fn idle(args: &IdleArgs, interrupt: &Interrupt) -> Result {
    let mut plan = resolve::idle(args)?;
    let mut steps = args.steps.clone();
    steps.push(plan.connections);
    steps.sort_unstable();
    steps.dedup();
    plan.connections = steps[steps.len() - 1];
    // One message each, spread over the time allowed.
    let speak = args.speak.max(Duration::from_millis(100));
    plan.traffic = Traffic::Open { rate: f64::from(plan.connections) / speak.as_secs_f64() };
    plan.duration = speak;
    let mut drive = Drive::new("idle", &args.target, &args.size, plan, interrupt)?;
    drive.outcome().intended_rate = None;
    for (at, &step) in steps.iter().enumerate() {
        drive.allow(step);
        drive.open()?;
        drive.hold(args.hold);
        drive.weigh(false);
        if drive.going() {
            drive.measure()?;
            drive.hold(Duration::from_secs(1));
            drive.weigh(true);
        }
        if at + 1 == steps.len() || !drive.going() {
            break;
        }
    }
    Ok(drive.finish())
}

/// All drop and return; how long until all are back?
pub fn storm(args: &StormArgs, interrupt: &Interrupt) -> Result {
    let plan = resolve::storm(args)?;
    let size = &args.traffic.size;
    let mut drive = Drive::new("storm", &args.target, size, plan, interrupt)?;
    drive.open()?;
    drive.begin(Duration::from_secs(24 * 3600));
    let mut worst = Some(0.0f64);
    for _ in 0..args.storms {
        drive.wait(args.calm);
        let open = drive.open_now();
        let Some(time) = drive.storm(args.patience) else {
            if !drive.going() {
                break;
            }
            let text = format!(
                "not all came back within {}: {} of {}",
                show_ns(args.patience.as_nanos() as u64),
                show_count(u64::from(drive.open_now())),
                show_count(u64::from(open))
            );
            worst = None;
            let missing = open.saturating_sub(drive.open_now());
            let total = &mut drive.outcome().total;
            total.counts.failed += u64::from(missing);
            total.error(text);
            break;
        };
        worst = worst.map(|worst| worst.max(time.as_secs_f64()));
    }
    drive.wait(args.calm);
    drive.end();
    // (Where not all came back there is no such time.)
    let worst = worst.map(|worst| ("seconds_until_all_were_back".into(), worst));
    drive.outcome().extra.extend(worst);
    Ok(drive.finish())
}

/// Some read slowly or not at all: what do the others feel?
pub fn slow(args: &SlowArgs, interrupt: &Interrupt) -> Result {
    let plan = resolve::slow(args)?;
    let mut drive = Drive::new("slow", &args.target, &args.traffic.size, plan, interrupt)?;
    drive.open()?;
    drive.measure()?;
    Ok(drive.finish())
}

/// Some vanish without FIN: when does the target let go of them?
pub fn half_open(args: &HalfOpenArgs, interrupt: &Interrupt) -> Result {
    let plan = resolve::half_open(args)?;
    let mut drive = Drive::new("halfopen", &args.target, &args.traffic.size, plan, interrupt)?;
    drive.open()?;
    drive.begin(args.traffic.duration);
    drive.wait(args.after);
    // Not as soon as they are open here: the target may have yet to accept them.
    let before = drive.target_files();
    let each = drive.files_of_one(before);
    drive.vanish();
    let began = std::time::Instant::now();
    let mut released = None;
    while drive.going() && began.elapsed() < args.traffic.duration.saturating_sub(args.after) {
        drive.wait(Duration::from_millis(500));
        let vanished = drive.outcome().total.counts.vanished;
        let (Some(before), Some(now)) = (before, drive.target_files()) else { continue };
        if vanished > 0 && released.is_none() && before.saturating_sub(now) >= each * vanished {
            released = Some(began.elapsed().as_secs_f64());
            if args.stop_when_released {
                break;
            }
        }
    }
    drive.end();
    let after = drive.target_files();
    let outcome = drive.outcome();
    outcome.extra.push(("connections_vanished".into(), outcome.total.counts.vanished as f64));
    match (before, after) {
        (Some(before), Some(after)) => {
            outcome.extra.push(("target_files_before".into(), before as f64));
            outcome.extra.push(("target_files_after".into(), after as f64));
            match released {
                Some(time) => outcome.extra.push(("seconds_until_released".into(), time)),
                None => outcome.notes.push("the target had not let go of them all".into()),
            }
        }
        _ => outcome.notes.push("give --pid to see when the target lets go".into()),
    }
    Ok(drive.finish())
}

/// Many users behind one address: how are they split over servers?
pub fn nat(args: &NatArgs, interrupt: &Interrupt) -> Result {
    let plan = resolve::nat(args)?;
    let mut drive = Drive::new("nat", &args.target, "128", plan, interrupt)?;
    drive.outcome().intended_rate = None;
    drive.open()?;
    drive.measure()?;
    let mut outcome = drive.finish();
    outcome.note_split(args.servers);
    Ok(outcome)
}

/// Short lives at a rate.
pub fn churn(args: &ChurnArgs, interrupt: &Interrupt) -> Result {
    let plan = resolve::churn(args)?;
    let mut drive = Drive::new("churn", &args.target, &args.size, plan, interrupt)?;
    drive.measure()?;
    let mut outcome = drive.finish();
    if outcome.total.counts.opened == 0 && !outcome.interrupted {
        return Err(why_nothing_opened(&outcome.url, &outcome.total));
    }
    outcome.note_churn();
    Ok(outcome)
}

/// Traffic while something is done to the target: what did it cost?
pub fn audit(args: &AuditArgs, interrupt: &Interrupt) -> Result {
    let plan = resolve::audit(args)?;
    let mut drive = Drive::new("audit", &args.target, &args.traffic.size, plan, interrupt)?;
    drive.open()?;
    drive.begin(Duration::from_secs(24 * 3600));
    drive.wait(args.before);
    let mut command = Command::start(&args.during)?;
    let began = std::time::Instant::now();
    while drive.going() && command.running() && began.elapsed() < args.limit {
        drive.wait(Duration::from_millis(50));
    }
    let took = began.elapsed().as_secs_f64();
    let (ended, well) = command.end();
    drive.wait(args.after);
    drive.end();
    let outcome = drive.outcome();
    if !(well || outcome.interrupted) {
        let why = format!("the command did not do what it should: {}: {ended}", args.during);
        outcome.void_why = Some(why);
    }
    outcome.extra.push(("command_seconds".into(), took));
    outcome.notes.push(format!("{}: {ended}", args.during));
    let mut outcome = drive.finish();
    outcome.note_audit();
    Ok(outcome)
}
