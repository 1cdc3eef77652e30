//! How WebSockets end when we or the other side want it: with a Close that the peer really gets to
//! read, whatever it is sending at that moment, and never in the middle of a frame.

mod common;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::http::{Reader, Server};
use common::l4;
use common::web::{Shape, Web};
use common::ws;

/// A server that upgrades, and then does what `then` says.
fn upgrading(then: impl Fn(Reader) + Send + Sync + 'static) -> Server {
    Server::scripted(move |mut reader| {
        if reader.head().is_some() {
            reader.send(ws::switching(""));
            then(reader);
        }
    })
}

/// Sends masked text frames every few milliseconds for `span`; an error is the peer's reset.
fn keep_talking(client: &mut Reader, span: Duration) -> std::io::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < span {
        client.stream.write_all(&ws::frame(ws::TEXT, true, b"still here"))?;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Frames until the stream ends.
fn frames_of(reader: &mut Reader) -> Vec<ws::Frame> {
    std::iter::from_fn(|| ws::read_frame(reader)).collect()
}

fn reset(reader: &Reader) {
    let linger = Some(Duration::ZERO);
    socket2::SockRef::from(&reader.stream).set_linger(linger).expect("a linger of nothing");
}

#[test]
fn who_talks_while_its_server_dies_can_still_read_why() {
    let server = upgrading(|reader| {
        std::thread::sleep(Duration::from_millis(300));
        reset(&reader);
    });
    let web = Web::before(&[&server]);
    let (mut client, _) = ws::open(web.address, "/");
    keep_talking(&mut client, Duration::from_secs(2)).expect("nobody resets the client");
    let frames = frames_of(&mut client);
    assert_eq!(frames.last().and_then(ws::Frame::close_code), Some(1011), "{frames:?}");
    drop(client);
    l4::wait_ended(&web.standpipe, "server/pipe/reset", 1);
}

#[test]
fn who_talks_to_a_server_that_has_finished_can_still_read_why() {
    // A FIN first, then a reset for each frame that comes.
    let server = upgrading(drop);
    let web = Web::before(&[&server]);
    let (mut client, _) = ws::open(web.address, "/");
    keep_talking(&mut client, Duration::from_secs(2)).expect("nobody resets the client");
    let frames = frames_of(&mut client);
    assert_eq!(frames.last().and_then(ws::Frame::close_code), Some(1011), "{frames:?}");
}

#[test]
fn a_silent_socket_is_told_that_its_time_is_up_even_if_it_is_pinged() {
    let server = ws::echo_server("a");
    let listener = "ping = { every = \"300ms\", timeout = \"10s\" }";
    let shape = Shape { listener, timeouts: "idle = \"2s\"", ..Shape::default() };
    let web = Web::shaped(&[&server], shape);
    let (mut client, _) = ws::open(web.address, "/");
    let mut pings = 0;
    let code = loop {
        let frame = ws::read_frame(&mut client).expect("a Close comes first");
        match frame.opcode() {
            ws::PING => {
                pings += 1;
                client.send(ws::frame(ws::PONG, true, &frame.payload));
            }
            _ => break frame.close_code(),
        }
    };
    assert!(pings > 0, "it was pinged meanwhile");
    assert_eq!(code, Some(1001));
    client.send(ws::close(1001, true));
    assert_eq!(client.rest(), b"");
    l4::wait_ended(&web.standpipe, "proxy/pipe/idle", 1);
}

#[test]
fn a_stop_has_last_words() {
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let hears = heard.clone();
    let server = upgrading(move |mut reader| {
        let frames = frames_of(&mut reader);
        hears.lock().expect("no panic").extend(frames);
    });
    let mut web = Web::before(&[&server]);
    let (mut client, _) = ws::open(web.address, "/");
    web.standpipe.signal("TERM");
    // Two that come at once may be one.
    common::wait_until("it has heard", || web.standpipe.admin_get("/ready").0 == 503);
    web.standpipe.signal("TERM");
    let frames = frames_of(&mut client);
    assert_eq!(frames.last().and_then(ws::Frame::close_code), Some(1001), "{frames:?}");
    web.standpipe.wait_exit();
    common::wait_until("the server was told too", || {
        heard.lock().expect("no panic").last().and_then(ws::Frame::close_code) == Some(1001)
    });
    assert!(heard.lock().expect("no panic").iter().all(|frame| frame.masked));
}

#[test]
fn the_server_of_a_client_that_takes_nothing_is_told_and_not_reset() {
    let told = std::sync::Arc::new(std::sync::Mutex::new(None));
    let tells = told.clone();
    let server = upgrading(move |mut reader| {
        let mut writer = reader.stream.try_clone().expect("another handle");
        let sender = std::thread::spawn(move || {
            let long = ws::frame(ws::BINARY, false, &vec![7; 60_000]);
            while writer.write_all(&long).is_ok() {}
        });
        let code = frames_of(&mut reader).last().and_then(ws::Frame::close_code);
        *tells.lock().expect("no panic") = Some(code);
        sender.join().expect("the sender ends");
    });
    let shape =
        Shape { timeouts: "stall = \"1s\"", listener: "ping = \"off\"", ..Shape::default() };
    let web = Web::shaped(&[&server], shape);
    let (client, _) = ws::open(web.address, "/");
    l4::wait_ended(&web.standpipe, "client/pipe/stall", 1);
    common::wait_until("the server has seen the end", || told.lock().expect("no panic").is_some());
    assert_eq!(*told.lock().expect("no panic"), Some(Some(1001)));
    drop(client);
}

#[test]
fn who_upgrades_after_the_order_to_drain_is_drained_too() {
    let slow = std::sync::Arc::new(AtomicBool::new(false));
    let is_slow = slow.clone();
    let server = Server::scripted(move |mut reader| {
        if reader.head().is_some() {
            while is_slow.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(10));
            }
            reader.send(ws::switching(""));
            ws::echo(&mut reader);
        }
    });
    let address = common::address();
    let shape = Shape { pool: "drain = { window = \"1s\" }", ..Shape::default() };
    let text = common::web::config(address, &[&server], &shape);
    let runtime = "[runtime]\nworkers = 1\nadmin = \"{admin}\"\ndrain_delay = \"0s\"\n\
                   drain_timeout = \"1m\"\n\n";
    let mut standpipe = common::Standpipe::start(&format!("{runtime}{text}"));
    slow.store(true, Ordering::Release);
    let mut client = Reader::connect(address);
    client.send(ws::request("/"));
    common::wait_until("the server is dialled", || server.accepted() == 1);
    standpipe.signal("TERM");
    common::wait_until("the listener is closed", || {
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err()
    });
    std::thread::sleep(Duration::from_millis(1_500));
    slow.store(false, Ordering::Release);
    let head = client.head().expect("the 101");
    assert!(head.start.contains(" 101 "), "{head:?}");
    let frames = frames_of_answering(&mut client);
    assert_eq!(frames.last().and_then(ws::Frame::close_code), Some(1012), "{frames:?}");
    standpipe.wait_exit();
}

/// Frames until the stream ends, answering a Close.
fn frames_of_answering(client: &mut Reader) -> Vec<ws::Frame> {
    let mut frames = Vec::new();
    while let Some(frame) = ws::read_frame(client) {
        if let Some(code) = frame.close_code() {
            let _ = client.stream.write_all(&ws::close(code, true));
        }
        frames.push(frame);
    }
    frames
}

#[test]
fn a_long_frame_to_a_slow_client_is_whole_when_the_drain_closes_it() {
    const LONG: usize = 24 << 20;
    let server = upgrading(|mut reader| {
        let long = ws::frame(ws::BINARY, false, &vec![7; LONG]);
        let _ = reader.stream.write_all(&long);
        reader.rest();
    });
    let shape = Shape { pool: "drain = { window = \"100ms\" }", ..Shape::default() };
    let mut web = Web::shaped(&[&server], shape);
    let (mut client, _) = ws::open(web.address, "/");
    common::wait_until("bytes wait for the client", || {
        web.standpipe.metric("standpipe_bytes_moved_total", &[]) > (1 << 20) as f64
    });
    web.standpipe.signal("INT");
    // Longer than the time a Close has for its answer, in steps shorter than it.
    let mut taken = Vec::new();
    while taken.len() < LONG / 2 {
        std::thread::sleep(Duration::from_millis(700));
        taken.extend(client.bytes(1 << 20));
    }
    let rest = client.rest();
    let all = [&taken[..], &rest[..]].concat();
    let frame = ws::frame(ws::BINARY, false, &vec![7; LONG]);
    assert!(all.len() >= frame.len() && all[..frame.len()] == frame[..], "{} bytes", all.len());
    assert_eq!(all[frame.len()..], ws::close(1012, false)[..]);
    web.standpipe.wait_exit();
}

#[test]
fn who_connected_and_said_nothing_yet_is_served_after_the_listeners_are_closed() {
    let server = Server::answering(|_| common::http::ok("late"));
    let address = common::address();
    let text = common::web::config(address, &[&server], &Shape::default());
    let runtime = "[runtime]\nworkers = 1\nadmin = \"{admin}\"\ndrain_delay = \"2s\"\n\
                   drain_timeout = \"1m\"\n\n";
    let mut standpipe = common::Standpipe::start(&format!("{runtime}{text}"));
    let mut client = Reader::connect(address);
    standpipe.signal("TERM");
    common::wait_until("the listener is closed", || {
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err()
    });
    client.send("GET / HTTP/1.1\r\nHost: test.example\r\n\r\n");
    assert_eq!(client.response("GET").text(), "late");
    standpipe.wait_exit();
}

#[test]
fn a_reset_behind_long_frames_is_a_reset_and_every_frame_before_it_is_whole() {
    const FRAMES: usize = 300;
    // Long enough to be spliced, and no two of one length: headers fall anywhere in a packet.
    let payload = |number: usize| vec![number as u8; (17 << 10) + number * 401];
    let server = upgrading(move |mut reader| {
        for number in 0..FRAMES {
            reader.send(ws::frame(ws::BINARY, false, &payload(number)));
        }
        // The client has them all: what comes now meets a flow with nothing under way.
        let heard = ws::read_frame(&mut reader);
        assert!(heard.is_some(), "the client says that it has them all");
        reset(&reader);
    });
    let web = Web::before(&[&server]);
    let (mut client, _) = ws::open(web.address, "/");
    for number in 0..FRAMES {
        let frame = ws::read_frame(&mut client).expect("a frame");
        assert!(frame.payload == payload(number), "frame {number} is whole and in its place");
    }
    client.stream.write_all(&ws::frame(ws::TEXT, true, b"all")).expect("a frame goes out");
    let frames = frames_of(&mut client);
    assert_eq!(frames.last().and_then(ws::Frame::close_code), Some(1011), "{frames:?}");
    drop(client);
    l4::wait_ended(&web.standpipe, "server/pipe/reset", 1);
}
