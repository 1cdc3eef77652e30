//! `standpipe-load`: a load generator for WebSocket and TCP servers and proxies, and the servers to
//! test them with. It imports the proxy's pure protocol rooms and its syscalls, nothing else.

#![deny(unsafe_code)]

mod cli;
mod conductor;
mod echo;
mod engine;
mod frame;
mod hop;
mod live;
mod message;
mod outcome;
mod plan;
mod proof;
mod report;
mod resolve;
mod scene;
mod schedule;
mod secure;
mod signals;
mod sizes;
mod socket;
mod tally;
mod target;
mod units;
mod upgrade;
mod watch;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use clap::Parser;

use cli::{Cli, EchoArgs, HopArgs, Scene};
use signals::Interrupt;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let interrupt = match Interrupt::listen() {
        Ok(interrupt) => interrupt,
        Err(error) => return fail(&format!("cannot listen for signals: {error}")),
    };
    let (done, target) = match &cli.scene {
        Scene::Run(args) => (scene::run(args, &interrupt), &args.target),
        Scene::Idle(args) => (scene::idle(args, &interrupt), &args.target),
        Scene::Bulk(args) => (scene::bulk(args, &interrupt), &args.target),
        Scene::Storm(args) => (scene::storm(args, &interrupt), &args.target),
        Scene::Slow(args) => (scene::slow(args, &interrupt), &args.target),
        Scene::HalfOpen(args) => (scene::half_open(args, &interrupt), &args.target),
        Scene::Nat(args) => (scene::nat(args, &interrupt), &args.target),
        Scene::Churn(args) => (scene::churn(args, &interrupt), &args.target),
        Scene::Audit(args) => (scene::audit(args, &interrupt), &args.target),
        Scene::Echo(args) => return echo(args, &interrupt),
        Scene::Hop(args) => return hop(args),
    };
    match done.and_then(|outcome| report::deliver(&outcome, &target.output)) {
        Ok(code) => ExitCode::from(code),
        Err(why) => fail(&why),
    }
}

fn echo(args: &EchoArgs, interrupt: &Interrupt) -> ExitCode {
    let options = match echo::resolve::options(args) {
        Ok(options) => options,
        Err(why) => return fail(&why),
    };
    let seen = Arc::new(echo::Seen::default());
    let listens = options.listens.clone();
    let until = args.duration.map(|time| Instant::now() + time);
    let watcher = {
        let (seen, interrupt) = (Arc::clone(&seen), interrupt.clone());
        std::thread::spawn(move || {
            while !interrupt.came()
                && !seen.stop.load(Relaxed)
                && until.is_none_or(|until| Instant::now() < until)
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            seen.stop.store(true, Relaxed);
        })
    };
    let outcome = echo::serve(options, &seen, || {
        for listen in &listens {
            let kind = match (listen.scheme.websocket, listen.scheme.tls) {
                (true, true) => "wss",
                (true, false) => "ws",
                (false, true) => "tls",
                (false, false) => "tcp",
            };
            println!("listening on {kind}://{} as {}", listen.address, listen.name);
        }
    });
    seen.stop.store(true, Relaxed);
    // The watcher only sleeps and looks; it cannot have come to grief.
    let _ = watcher.join();
    match outcome {
        Ok(()) => {
            println!(
                "{} connections served, {} received",
                units::show_count(seen.accepted.load(Relaxed)),
                units::show_bytes(seen.bytes.load(Relaxed) as f64)
            );
            ExitCode::SUCCESS
        }
        Err(why) => fail(&why),
    }
}

fn hop(args: &HopArgs) -> ExitCode {
    match hop::round_trip_ns(args.one, args.other) {
        Ok(ns) => {
            println!("{ns:.1} ns");
            ExitCode::SUCCESS
        }
        Err(why) => fail(&why),
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("standpipe-load: {why}");
    ExitCode::from(2)
}
