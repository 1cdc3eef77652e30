//! One engine with one connection, turned by hand: what a run shows only now and then.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::channel;

use clap::Parser;

use super::*;
use crate::cli::{Cli, Scene};
use crate::resolve;
use crate::schedule::Due;

/// The engine's own listener, and the other end of its connection, which is open.
fn engine() -> (Engine, TcpListener, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let line = ["standpipe-load", "run", url.as_str(), "-c", "1", "--rate", "1"];
    let Scene::Run(args) = Cli::parse_from(line).scene else { panic!("a run was asked for") };
    let plan = Arc::new(resolve::run(&args).unwrap());
    let (reports, _nobody) = channel();
    let mut engine = Engine::new(0, plan, Arc::new(Conductor::new(1)), reports).unwrap();
    let peer = open(&mut engine, &listener);
    (engine, listener, peer)
}

/// Dials, and serves the connection until it is open.
fn open(engine: &mut Engine, listener: &TcpListener) -> TcpStream {
    engine.dialled = 0;
    engine.dial_some(monotonic_ns());
    let (peer, _) = listener.accept().unwrap();
    while engine.links[0].stage != Stage::Open {
        turn(engine);
    }
    peer
}

fn turn(engine: &mut Engine) {
    let mut events = Events::new();
    let count = engine.epoll.wait(&mut events, Duration::from_secs(10)).unwrap();
    assert!(count > 0, "nothing happened in ten seconds");
    for at in 0..count {
        if let Some(ready) = events.at(at) {
            engine.serve(ready);
        }
    }
}

#[test]
fn an_end_behind_a_backlog_is_seen() {
    let (mut engine, _listener, mut peer) = engine();
    // In small reads some bytes are more than one turn takes, and a read that takes less than it
    // might have is no sign of the end.
    engine.room.limit(512);
    peer.write_all(&[0; 10_000]).unwrap();
    drop(peer);
    while !engine.links[0].finished {
        turn(&mut engine);
    }
    // The edge was used up: nothing else will say that there is more.
    while let Some(index) = engine.again.pop_front() {
        engine.go_on(index);
    }
    assert_eq!(engine.links[0].stage, Stage::Down);
    assert_eq!(engine.tally.counts.closed_by_peer, 1);
    assert_eq!(engine.tally.counts.bytes_received, 10_000);
}

#[test]
fn a_link_that_had_messages_waiting_speaks_again_when_it_is_back() {
    let (mut engine, listener, _peer) = engine();
    let now = monotonic_ns();
    let end = now + 60_000_000_000;
    let times = Times { start_ns: now, measure_from_ns: now, measure_to_ns: end, drain_to_ns: end };
    engine.times = Some(times);
    engine.begin_traffic(times);
    // Three messages were due, one a second, and found no room.
    engine.links[0].due = 3;
    engine.links[0].due_ns = now + 2_500_000_000;
    engine.drop_link(0, Who::Peer, How::Reset);
    assert_eq!(engine.tally.counts.missed, 3);
    engine.dialling.push_back(0);
    let _peer = open(&mut engine, &listener);
    engine.fall_due(Due { link: 0, round: 3, due_ns: now + 3_500_000_000 }, times);
    assert_eq!(engine.tally.counts.sent, 1);
    assert_eq!(engine.links[0].account.outstanding(engine.links[0].sent), 1);
}

#[test]
fn a_thread_that_comes_to_grief_has_left_as_well() {
    let (reports, heard) = channel();
    let thread = std::thread::spawn(move || {
        let _farewell = Farewell { thread: 3, reports };
        panic!("on purpose");
    });
    assert!(thread.join().is_err());
    assert!(matches!(heard.recv(), Ok(Report::Reached(3, Step::Done))));
}
