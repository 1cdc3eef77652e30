//! Clients that ask for much through a running standpipe: what they take of it is bounded, and
//! others are served beside them.

mod common;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::Standpipe;
use common::http::{Reader, Server, ok};

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
