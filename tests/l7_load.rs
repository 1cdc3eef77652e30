//! Clients that ask for much through a running standpipe: what they take of it is bounded, and
//! others are served beside them.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::Standpipe;
use common::http::{Reader, Server, ok};
use common::web::{Shape, Web};

#[test]
fn a_client_that_floods_its_core_with_requests_holds_up_nobody() {
    let server = Server::answering(|_| ok("x"));
    let address = common::address();
    let config = format!(
        "[listeners.web]\nbind = [\"{address}\"]\nmode = \"l7\"\n\
         [[listeners.web.routes]]\npath = \"/served\"\npool = \"main\"\n\
         [pools.main]\nservers = [\"{}\"]\n",
        server.address
    );
    let standpipe = Standpipe::start(&config);
    // Requests that are answered here, faster than they can be: nobody else is waited for.
    let stop = Arc::new(AtomicBool::new(false));
    let mut flood = common::connect(address);
    let mut answers = flood.try_clone().expect("the same socket");
    let reading = std::thread::spawn(move || {
        let (mut chunk, mut bytes) = (vec![0; 1 << 16], 0);
        while let Ok(n @ 1..) = answers.read(&mut chunk) {
            bytes += n;
        }
        bytes
    });
    let stopped = stop.clone();
    let flooding = std::thread::spawn(move || {
        let requests = "GET /nowhere HTTP/1.1\r\nHost: a.example\r\n\r\n".repeat(1000);
        while !stopped.load(Ordering::Relaxed) {
            flood.write_all(requests.as_bytes()).expect("taken");
        }
        let _ = flood.shutdown(std::net::Shutdown::Write);
    });
    for _ in 0..20 {
        let mut client = Reader::connect(address);
        client.send("GET /served HTTP/1.1\r\nHost: a.example\r\n\r\n");
        assert_eq!(client.response("GET").status, 200);
    }
    stop.store(true, Ordering::Relaxed);
    flooding.join().expect("the flood was taken");
    assert!(reading.join().expect("and answered") > 100_000);
    // Between two of its requests everybody else had a turn.
    let requests = standpipe.metric("standpipe_http_requests_total", &[]);
    let turns = standpipe.metric("standpipe_turns_total", &[]);
    assert!(turns > requests * 0.9, "{turns} turns, {requests} requests");
}

/// The byte of each client's head that comes next, `rounds` times, each in a packet of its own;
/// what that cost standpipe. `other` is answered after each round, so that no bytes pile up.
fn drip(web: &Web, clients: &[TcpStream], other: &mut Reader, rounds: usize) -> Duration {
    let before = web.standpipe.processor_time();
    for _ in 0..rounds {
        for mut client in clients {
            client.write_all(b"y").expect("taken");
        }
        other.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(other.response("GET").status, 200, "others are served");
    }
    web.standpipe.processor_time() - before
}

#[test]
fn s13_a_thousand_heads_of_one_byte_per_packet_cost_their_bytes_and_no_more() {
    const CLIENTS: usize = 1000;
    const ROUNDS: usize = 100;
    standpipe::sys::process::raise_file_limit().expect("a higher limit");
    let server = Server::answering(|_| ok("x"));
    let web = Web::shaped(&[&server], Shape { timeouts: "handshake = \"5m\"", ..Shape::default() });
    let before = web.standpipe.resident();
    let connect = |_| {
        let client = common::connect(web.address);
        (&client).write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX: y").expect("taken");
        client
    };
    let clients: Vec<TcpStream> = (0..CLIENTS).map(connect).collect();
    let mut other = Reader::connect(web.address);
    let early = drip(&web, &clients, &mut other, ROUNDS);
    // Up to a KiB below the limit of 32, in long lines.
    let bulk = format!("\r\nX: {}", "y".repeat(1000)).repeat(30);
    for mut client in &clients {
        client.write_all(bulk.as_bytes()).expect("taken");
    }
    std::thread::sleep(Duration::from_millis(500));
    let late = drip(&web, &clients, &mut other, ROUNDS);
    // Whoever looks at all of a head again for each byte of it pays many times as much.
    assert!(late < early * 3, "{early:?} for the first bytes, {late:?} behind thirty KiB");
    let grown = web.standpipe.resident().saturating_sub(before);
    assert!(grown < CLIENTS as u64 * (96 << 10), "{grown} bytes for {CLIENTS} heads of 32 KiB");
    let rest = [b'y'; 4 << 10];
    for client in clients {
        let mut client = Reader::new(client);
        let _ = client.stream.write_all(&rest);
        assert_eq!(client.response("GET").status, 431);
    }
    common::wait_until("the memory of the heads is given back", || {
        web.standpipe.resident().saturating_sub(before) < 16 << 20
    });
}
