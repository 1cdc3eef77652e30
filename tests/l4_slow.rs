//! Readers that take their time: what is meant for them is never cut short to look whole, costs
//! little memory however many they are, and keeps nobody else waiting.

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::l4::{self, Accepting};
use common::tls::{self, Authority};
use common::{Standpipe, wait_until};

const MIB: usize = 1 << 20;

/// Reads to the end; an error is a reset.
fn read_all(mut from: impl Read) -> std::io::Result<usize> {
    let (mut total, mut chunk) = (0, vec![0; 64 << 10]);
    loop {
        match from.read(&mut chunk)? {
            0 => return Ok(total),
            n => total += n,
        }
    }
}

#[test]
fn a_half_closed_download_that_pauses_is_not_cut_short() {
    const LONG: usize = 12 * MIB;
    let server = Accepting::tcp();
    let edge = common::address();
    let rest = "[timeouts]\nhalf_close = \"1s\"\nstall = \"1m\"";
    let pipe = Standpipe::start(&l4::config(edge, &[&server.written], "", "", rest));
    let client = l4::reach(edge);
    client.shutdown(Shutdown::Write).expect("half closed");
    let sending = server.next();
    let sender = std::thread::spawn(move || {
        let _ = (&sending).write_all(&vec![7; LONG]);
    });
    wait_until("bytes wait", || {
        let waiting = pipe.metric("standpipe_pipes_lent", &[]);
        waiting + pipe.metric("standpipe_spill_held_bytes", &[]) > 0.0
    });
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(read_all(&client).expect("no reset"), LONG);
    sender.join().expect("all was sent");
}

#[test]
fn what_is_ended_with_bytes_waiting_does_not_look_whole() {
    let server = Accepting::tcp();
    let edge = common::address();
    let runtime = "[runtime]\nworkers = 1\nadmin = \"{admin}\"\ndrain_delay = \"0s\"\n\
                   drain_timeout = \"100ms\"\n\n";
    let config = l4::config(edge, &[&server.written], "", "", "");
    let mut pipe = Standpipe::start(&format!("{runtime}{config}"));
    let client = l4::reach(edge);
    let sending = server.next();
    let sender = std::thread::spawn(move || (&sending).write_all(&vec![7; 32 * MIB]).is_err());
    wait_until("bytes wait", || {
        let waiting = pipe.metric("standpipe_pipes_lent", &[]);
        waiting + pipe.metric("standpipe_spill_held_bytes", &[]) > 0.0
    });
    pipe.signal("TERM");
    pipe.wait_exit();
    let error = read_all(&client).expect_err("a clean end would be a lie");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(sender.join().expect("the sender ends"), "the server is told as well");
}

/// A read stops at the mark of urgent data, however much lies behind it.
#[test]
fn urgent_data_before_the_end_is_not_the_end() {
    let server = Accepting::tcp();
    let edge = common::address();
    let _pipe = Standpipe::start(&l4::config(edge, &[&server.written], "", "", ""));
    for _ in 0..20 {
        let client = l4::reach(edge);
        (&client).write_all(b"before").expect("taken");
        client.send_out_of_band(b"!").expect("taken");
        (&client).write_all(b"after").expect("taken");
        l4::finish(&client);
        let mut heard = String::new();
        (&server.next()).read_to_string(&mut heard).expect("an orderly end");
        // The urgent byte itself goes beside the stream, which no proxy of streams passes on.
        assert_eq!(heard, "beforeafter");
    }
}

/// Four hundred clients that read an endless stream quickly, then next to nothing of it.
#[test]
fn many_slow_readers_cost_little_memory() {
    const READERS: usize = 400;
    let server = Accepting::tcp();
    let edge = common::address();
    let pipe = Standpipe::start(&l4::config(edge, &[&server.written], "", "", ""));
    let before = pipe.resident();
    let mut clients = Vec::new();
    let mut servers = Vec::new();
    for _ in 0..READERS {
        clients.push(l4::reach(edge));
        let server = server.next();
        server.set_nonblocking(true).expect("non-blocking");
        servers.push(server);
    }
    let (chunk, mut much) = (vec![7; 256 << 10], vec![0; 256 << 10]);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(9) {
        for server in &servers {
            while matches!((&*server).write(&chunk), Ok(n) if n > 0) {}
        }
        let quick = begun.elapsed() < Duration::from_secs(3);
        for client in &clients {
            let _ = (&*client).read(if quick { &mut much } else { &mut much[..512] });
        }
        if !quick {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let held = pipe.metric("standpipe_spill_held_bytes", &[]);
    let grown = pipe.resident().saturating_sub(before);
    println!("{READERS} slow readers: {held} bytes held, {grown} resident");
    // Each has at first as much as a pipe lends, for a second or two; all of that together stops
    // at what a core allows, and what comes later is a few kilobytes each.
    assert!(grown < (160 * MIB) as u64, "{grown} bytes for {READERS} slow readers");
}

/// More busy TLS sessions than one turn's memory would serve at once.
#[test]
fn many_busy_sessions_share_the_memory_of_a_turn() {
    const CLIENTS: usize = 160;
    const LONG: usize = 2 * MIB;
    let authority = Authority::new();
    let pair = authority.issue("edge", &["localhost"]);
    let server = Accepting::tcp();
    let edge = common::address();
    let listener = "tls.certificates = [{ cert = \"cert.pem\", key = \"key.pem\" }]";
    let config = l4::config(edge, &[&server.written], listener, "", "");
    let files = [("cert.pem", pair.cert.as_bytes()), ("key.pem", pair.key.as_bytes())];
    let pipe = Standpipe::start_with(&config, &files, &[]);
    let trusting = Arc::new(authority.client(&[]));
    let connected = |_| tls::connect(edge, &trusting, "localhost").expect("a session");
    let mut clients: Vec<_> = (0..CLIENTS).map(connected).collect();
    // All streams are full before anybody reads.
    let senders: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let server = server.next();
            std::thread::spawn(move || (&server).write_all(&vec![7; LONG]))
        })
        .collect();
    std::thread::sleep(Duration::from_secs(1));
    for (number, client) in clients.iter_mut().enumerate() {
        let read = read_all(client).unwrap_or_else(|error| {
            panic!("client {number}: {error}\n{}", l4::endings(&pipe));
        });
        assert_eq!(read, LONG, "client {number}");
    }
    for sender in senders {
        sender.join().expect("no panic").expect("all was sent");
    }
}
