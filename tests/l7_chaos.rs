//! S23: clients and servers that leave at any moment, in any manner, with data in flight both ways.
//! Afterwards nothing may be left: no connection, no lease, no descriptor; and the process lives.
//! The schedule is drawn from a seed, which is printed and can be set by STANDPIPE_SEED.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use common::http::{Reader, Server, ok};
use common::web::{Shape, Web};
use common::ws;

/// Leaves in one of the ways a peer can leave.
fn leave(stream: &TcpStream, chance: &mut fastrand::Rng) {
    match chance.u8(0..4) {
        0 => {
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
        1 => {
            let _ = stream.shutdown(Shutdown::Write);
            std::thread::sleep(Duration::from_millis(chance.u64(0..30)));
        }
        2 => {
            let _ = stream.shutdown(Shutdown::Read);
        }
        _ => {}
    }
}

/// Sends at most the first part of `bytes`, in pieces; true if all of it went out.
fn send_some(stream: &mut TcpStream, bytes: &[u8], chance: &mut fastrand::Rng) -> bool {
    let whole = chance.bool();
    let end = if whole { bytes.len() } else { chance.usize(0..=bytes.len()) };
    let mut at = 0;
    while at < end {
        let piece = chance.usize(1..=(end - at).min(4_000));
        if stream.write_all(&bytes[at..at + piece]).is_err() {
            return false;
        }
        at += piece;
        if chance.u8(0..4) == 0 {
            std::thread::sleep(Duration::from_micros(chance.u64(0..2_000)));
        }
    }
    whole
}

/// What a server does with one connection.
fn serve(mut reader: Reader, mut chance: fastrand::Rng) {
    let _ = reader.stream.set_read_timeout(Some(Duration::from_millis(500)));
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        if chance.u8(0..8) == 0 {
            return leave(&reader.stream, &mut chance);
        }
        let Some(head) = reader.head() else { return };
        let answer = if head.header("upgrade").is_some() && chance.u8(0..6) > 0 {
            let accept = ws::accept_for(&head);
            let mut bytes = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            )
            .into_bytes();
            for _ in 0..chance.u8(0..20) {
                let payload = vec![1; chance.usize(0..9_000)];
                bytes.extend(ws::frame(ws::BINARY, false, &payload));
            }
            bytes
        } else {
            ok(&"x".repeat(chance.usize(0..60_000)))
        };
        if send_some(&mut reader.stream, &answer, &mut chance) && chance.bool() {
            let mut chunk = [0; 3_000];
            for _ in 0..chance.u8(0..10) {
                if !matches!(reader.stream.read(&mut chunk), Ok(n) if n > 0) {
                    break;
                }
            }
        }
        leave(&reader.stream, &mut chance);
    }));
    // A read that timed out is one more way to leave.
    drop(caught);
}

/// One client's whole life.
fn visit(to: std::net::SocketAddr, mut chance: fastrand::Rng) {
    let Ok(mut stream) = TcpStream::connect(to) else { return };
    let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
    let _ = stream.set_write_timeout(Some(Duration::from_millis(300)));
    let mut bytes = match chance.u8(0..4) {
        0 => b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(chance.usize(1..4)),
        1 => {
            let length = chance.usize(0..50_000);
            let mut bytes =
                format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n")
                    .into_bytes();
            bytes.resize(bytes.len() + length, b'b');
            bytes
        }
        _ => ws::request("/").into_bytes(),
    };
    for _ in 0..chance.u8(0..30) {
        let payload = vec![2; chance.usize(0..5_000)];
        bytes.extend(ws::frame(ws::BINARY, true, &payload));
    }
    if chance.bool() {
        bytes.extend(ws::close(1000, true));
    }
    send_some(&mut stream, &bytes, &mut chance);
    let mut chunk = [0; 5_000];
    for _ in 0..chance.u8(0..20) {
        if !matches!(stream.read(&mut chunk), Ok(n) if n > 0) {
            break;
        }
    }
    leave(&stream, &mut chance);
}

#[test]
fn s23_peers_that_leave_at_any_moment_leave_nothing_behind() {
    let seed = std::env::var("STANDPIPE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("STANDPIPE_SEED={seed}");
    let count = std::sync::atomic::AtomicU64::new(0);
    let server = Server::scripted(move |reader| {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        serve(reader, fastrand::Rng::with_seed(seed ^ n.rotate_left(17)));
    });
    let timeouts = "handshake = \"2s\"\nrequest = \"2s\"\nresponse = \"2s\"\nkeepalive = \"2s\"\n\
                    half_close = \"2s\"\nstall = \"2s\"\nidle = \"5s\"";
    let shape = Shape {
        timeouts,
        pool: "idle_connections = 4",
        listener: "ping = { every = \"1s\", timeout = \"1s\" }",
        ..Shape::default()
    };
    let mut web = Web::shaped(&[&server], shape);
    let before = web.standpipe.descriptors();
    let clients: Vec<_> = (0..8_u64)
        .map(|thread| {
            let to = web.address;
            std::thread::spawn(move || {
                let begun = Instant::now();
                for n in 0..150_u64 {
                    let seed = seed.wrapping_mul(31) ^ thread << 32 ^ n;
                    visit(to, fastrand::Rng::with_seed(seed));
                    if begun.elapsed() > Duration::from_secs(15) {
                        return;
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("a client");
    }
    for gauge in ["connections_young", "connections_live", "connections_closing"] {
        common::wait_until(gauge, || {
            web.standpipe.metric(&format!("standpipe_{gauge}"), &[]) == 0.0
        });
    }
    for gauge in [
        "server_connections",
        "route_websockets",
        "http_idle_server_connections",
        "spill_held_bytes",
    ] {
        common::wait_until(gauge, || {
            web.standpipe.metric(&format!("standpipe_{gauge}"), &[]) == 0.0
        });
    }
    common::wait_until("descriptors are given back", || web.standpipe.descriptors() <= before);
    let served = web.standpipe.metric("standpipe_connections_accepted_total", &[]);
    let ended = web.standpipe.metric("standpipe_connections_ended_total", &[]);
    assert_eq!(served, ended, "every connection has one ending");
    assert!(web.standpipe.is_running());
    assert!(!web.standpipe.log().contains("panicked"));
    let mut client = Reader::connect(web.address);
    client.send("CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.response("CONNECT").status, 405, "it still answers by itself");
}
