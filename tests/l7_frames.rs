//! The frame relay through a running standpipe: frames policed and counted, sockets pinged, and
//! every end told with a Close where a frame ends. S14 to S17 are those of the list of security
//! lessons the project keeps.

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::http::{Reader, Server};
use common::web::{Shape, Web};
use common::ws;

/// Upgrades, then sends `bytes`; the frames that come back until the end.
fn answer_to(web: &Web, bytes: &[u8]) -> Vec<ws::Frame> {
    let (mut client, _) = ws::open(web.address, "/");
    client.send(bytes);
    let mut frames = Vec::new();
    while let Some(frame) = ws::read_frame(&mut client) {
        let is_close = frame.opcode() == ws::CLOSE;
        frames.push(frame);
        if is_close {
            let _ = client.stream.write_all(&ws::close(1000, true));
        }
    }
    frames
}

fn close_code(web: &Web, bytes: &[u8]) -> Option<u16> {
    answer_to(web, bytes).last().and_then(ws::Frame::close_code)
}

/// A server that upgrades, sends `bytes` and then does what `then` says.
fn sending(bytes: Vec<u8>, then: impl Fn(&mut Reader) + Send + Sync + 'static) -> Server {
    Server::scripted(move |mut reader| {
        let Some(_) = reader.head() else { return };
        let _ = reader.stream.write_all(&[ws::switching("").as_bytes(), &bytes].concat());
        then(&mut reader);
    })
}

#[test]
fn s14_a_declared_length_is_only_a_number() {
    let server = ws::echo_server("a");
    let shape = Shape { route: "max_frame = \"1MiB\"", ..Shape::default() };
    let web = Web::shaped(&[&server], shape);
    let before = web.standpipe.resident();
    let header = |length: u64| {
        let mut bytes = vec![0x82, 0xff];
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&[1, 2, 3, 4]);
        bytes
    };
    assert_eq!(close_code(&web, &header(i64::MAX as u64)), Some(1009));
    assert_eq!(close_code(&web, &header(1 << 63)), Some(1002));
    assert_eq!(close_code(&web, &header(u64::MAX)), Some(1002));
    assert_eq!(close_code(&web, &header(125)), Some(1002), "not in its shortest form");
    assert_eq!(close_code(&web, &[0x82, 0xfe, 0, 125, 1, 2, 3, 4]), Some(1002));
    assert_eq!(close_code(&web, &header((1 << 20) + 1)), Some(1009));
    let grown = web.standpipe.resident().saturating_sub(before);
    assert!(grown < 4 << 20, "resident memory grew by {grown} bytes");
}

#[test]
fn s15_frames_that_break_the_rules_are_1002() {
    let server = ws::echo_server("a");
    let web = Web::before(&[&server]);
    let cases: [(&str, Vec<u8>); 13] = [
        ("unmasked", ws::frame(ws::TEXT, false, b"x")),
        ("control too long", ws::raw_frame(0x89, true, &[0; 126])),
        ("control fragmented", ws::raw_frame(0x09, true, b"")),
        ("reserved opcode", ws::raw_frame(0x83, true, b"")),
        ("reserved control opcode", ws::raw_frame(0x8b, true, b"")),
        ("rsv1 without extension", ws::raw_frame(0xc1, true, b"x")),
        ("rsv2", ws::raw_frame(0xa1, true, b"x")),
        ("orphan continuation", ws::raw_frame(0x80, true, b"x")),
        (
            "message in a message",
            [ws::raw_frame(0x01, true, b"x"), ws::raw_frame(0x81, true, b"y")].concat(),
        ),
        ("Close of one byte", ws::frame(ws::CLOSE, true, &[3])),
        ("Close 1005", ws::close(1005, true)),
        ("Close 1006", ws::close(1006, true)),
        ("Close 999", ws::close(999, true)),
    ];
    for (name, bytes) in cases {
        assert_eq!(close_code(&web, &bytes), Some(1002), "{name}");
    }
    common::wait_until("all of them have ended", || {
        let name = "standpipe_connections_ended_total";
        web.standpipe.metric(name, &[("side", "client"), ("cause", "frame_bad")]) == 13.0
    });
    let closes = web
        .standpipe
        .metric("standpipe_route_closes_total", &[("closer", "proxy"), ("code", "1002")]);
    assert_eq!(closes, 13.0);
}

#[test]
fn s15_a_servers_broken_frame_never_reaches_the_client() {
    for bad in [
        ws::frame(ws::TEXT, true, b"masked"),
        ws::raw_frame(0x83, false, b"x"),
        ws::close(1006, false),
    ] {
        let mut bytes = ws::frame(ws::TEXT, false, b"fine");
        bytes.extend(bad);
        let server = sending(bytes, |reader| {
            reader.rest();
        });
        let web = Web::before(&[&server]);
        let (mut client, _) = ws::open(web.address, "/");
        assert_eq!(ws::read_frame(&mut client).expect("a frame").payload, b"fine");
        assert_eq!(ws::read_frame(&mut client).expect("a Close").close_code(), Some(1011));
    }
}

#[test]
fn s16_a_dead_server_is_1011_at_a_boundary_and_a_bare_end_inside_a_frame() {
    let whole = ws::frame(ws::TEXT, false, b"whole");
    let cut = ws::frame(ws::TEXT, false, b"half of it")[..6].to_vec();
    let cut_header = [ws::frame(ws::TEXT, false, b"whole"), vec![0x81]].concat();
    for (bytes, expected) in
        [(whole, Some(1011)), (cut.clone(), None), (cut_header, Some(1011)), (vec![], Some(1011))]
    {
        for reset in [false, true] {
            let server = sending(bytes.clone(), move |reader| {
                std::thread::sleep(Duration::from_millis(100));
                if reset {
                    let socket = socket2::SockRef::from(&reader.stream);
                    let _ = socket.set_linger(Some(Duration::ZERO));
                }
            });
            let web = Web::before(&[&server]);
            let (mut client, _) = ws::open(web.address, "/");
            let got = client.rest();
            let expected_bytes = match expected {
                Some(code) => {
                    let whole = if bytes.last() == Some(&0x81) {
                        &bytes[..bytes.len() - 1]
                    } else {
                        &bytes[..]
                    };
                    [whole, &ws::close(code, false)].concat()
                }
                None => cut.clone(),
            };
            assert_eq!(got, expected_bytes, "reset: {reset}");
        }
    }
}

#[test]
fn a_client_that_dies_is_1001_to_its_server() {
    let (told, ear) = std::sync::mpsc::channel();
    let server = sending(Vec::new(), move |reader| {
        let mut last = None;
        while let Some(frame) = ws::read_frame(reader) {
            last = frame.close_code();
        }
        let _ = told.send(last);
    });
    let web = Web::before(&[&server]);
    for reset in [false, true] {
        let (mut client, _) = ws::open(web.address, "/");
        client.send(ws::frame(ws::TEXT, true, b"hello"));
        std::thread::sleep(Duration::from_millis(50));
        if reset {
            let socket = socket2::SockRef::from(&client.stream);
            socket.set_linger(Some(Duration::ZERO)).expect("a linger");
        }
        drop(client);
        assert_eq!(ear.recv_timeout(common::PATIENCE).expect("an end"), Some(1001));
    }
}

#[test]
fn s17_a_slow_reader_holds_its_server_back_and_is_let_go() {
    let server = sending(Vec::new(), |reader| {
        let frame = ws::frame(ws::BINARY, false, &vec![7; 1 << 16]);
        while reader.stream.write_all(&frame).is_ok() {}
    });
    let shape = Shape { timeouts: "stall = \"2s\"", ..Shape::default() };
    let web = Web::shaped(&[&server], shape);
    let others = ws::echo_server("b");
    let _ = &others;
    let (client, _) = ws::open(web.address, "/");
    let before = web.standpipe.resident();
    std::thread::sleep(Duration::from_millis(1_500));
    let grown = web.standpipe.resident().saturating_sub(before);
    assert!(grown < 16 << 20, "resident memory grew by {grown} bytes");
    common::wait_until("the stall ends it", || {
        web.standpipe.metric("standpipe_connections_ended_total", &[("cause", "stall")]) == 1.0
    });
    drop(client);
}

#[test]
fn limits_of_a_route_hold_without_collecting_anything() {
    let server = ws::echo_server("a");
    let route = "max_message = \"100KiB\"\nmessages_per_second = 10";
    let web = Web::shaped(&[&server], Shape { route, ..Shape::default() });
    let part = vec![b'x'; 60 << 10];
    let two = [ws::raw_frame(0x02, true, &part), ws::raw_frame(0x80, true, &part)].concat();
    assert_eq!(close_code(&web, &two), Some(1009));
    let many: Vec<u8> = (0..40).flat_map(|_| ws::frame(ws::TEXT, true, b"m")).collect();
    assert_eq!(close_code(&web, &many), Some(1008));
    let (mut client, _) = ws::open(web.address, "/");
    for _ in 0..15 {
        client.send(ws::frame(ws::TEXT, true, b"m"));
        assert_eq!(ws::read_frame(&mut client).expect("an echo").payload, b"m");
        std::thread::sleep(Duration::from_millis(110));
    }
}

#[test]
fn a_silent_client_is_pinged_and_its_pong_stays_here() {
    let server = ws::echo_server("a");
    let listener = "ping = { every = \"1s\", timeout = \"2s\" }";
    let web = Web::shaped(&[&server], Shape { listener, ..Shape::default() });
    let (mut client, _) = ws::open(web.address, "/");
    for _ in 0..2 {
        let ping = ws::read_frame(&mut client).expect("a Ping");
        assert_eq!((ping.opcode(), ping.payload.len()), (ws::PING, 8));
        client.send(ws::frame(ws::PONG, true, &ping.payload));
    }
    // Somebody else's Pong and Ping go through to the server, whose Pong comes back.
    client.send(ws::frame(ws::PONG, true, b"12345678"));
    client.send(ws::frame(ws::PING, true, b"mine"));
    loop {
        let frame = ws::read_frame(&mut client).expect("a frame");
        match frame.opcode() {
            ws::PONG => {
                assert_eq!(frame.payload, b"mine");
                break;
            }
            _ => client.send(ws::frame(ws::PONG, true, &frame.payload)),
        }
    }
    let measured = web.standpipe.metric("standpipe_route_ping_rtt_seconds_count", &[]);
    assert!(measured >= 2.0);
    // From here on it says nothing.
    common::wait_until("the ping timeout ends it", || {
        let name = "standpipe_connections_ended_total";
        web.standpipe.metric(name, &[("side", "client"), ("cause", "ping_timeout")]) == 1.0
    });
}

#[test]
fn a_relay_of_bytes_looks_at_nothing() {
    let server = sending(Vec::new(), |reader| {
        let got = reader.bytes(9);
        let _ = reader.stream.write_all(&got);
        reader.rest();
    });
    let web = Web::shaped(&[&server], Shape { route: "relay = \"bytes\"", ..Shape::default() });
    let (mut client, _) = ws::open(web.address, "/");
    client.send(b"no frames");
    assert_eq!(client.bytes(9), b"no frames");
    assert_eq!(web.standpipe.metric("standpipe_route_websockets", &[]), 1.0);
}

#[test]
fn sigterm_closes_every_socket_with_1012_at_a_boundary() {
    // Endless frames of odd sizes: almost no instant is a boundary.
    let server = sending(Vec::new(), |reader| {
        let mut reading = reader.stream.try_clone().expect("a clone");
        let ear = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while matches!(reading.read(&mut chunk), Ok(n) if n > 0) {}
        });
        let frame = ws::frame(ws::BINARY, false, &vec![7; 3_333]);
        while !ear.is_finished() && reader.stream.write_all(&frame).is_ok() {
            std::thread::sleep(Duration::from_millis(3));
        }
    });
    let address = common::address();
    let config = format!(
        "[runtime]\nworkers = 1\nadmin = \"{{admin}}\"\ndrain_delay = \"0s\"\n\
         drain_timeout = \"20s\"\n{}",
        common::web::config(
            address,
            &[&server],
            &Shape { pool: "drain = { window = \"1s\" }", ..Shape::default() }
        )
    );
    let mut standpipe = common::Standpipe::start(&config);
    let clients: Vec<_> = (0..30)
        .map(|_| {
            std::thread::spawn(move || {
                let (mut client, _) = ws::open(address, "/");
                let mut last = None;
                while let Some(frame) = ws::read_frame(&mut client) {
                    match frame.close_code() {
                        Some(code) => {
                            last = Some(code);
                            let _ = client.stream.write_all(&ws::close(code, true));
                        }
                        None => assert_eq!(frame.payload.len(), 3_333, "a cut frame"),
                    }
                }
                last
            })
        })
        .collect();
    common::wait_until("all sockets are open", || {
        standpipe.metric("standpipe_route_websockets", &[]) == 30.0
    });
    standpipe.signal("TERM");
    for client in clients {
        assert_eq!(client.join().expect("a client"), Some(1012));
    }
    assert_eq!(standpipe.wait_exit().code(), Some(0));
}

#[test]
fn draining_one_of_three_servers_touches_only_its_own_sockets() {
    let servers = [ws::echo_server("a"), ws::echo_server("b"), ws::echo_server("c")];
    let address = common::address();
    let config = |draining: &str| {
        let list: Vec<String> = servers
            .iter()
            .enumerate()
            .map(|(n, s)| match n {
                1 => format!("{{ address = \"{}\"{draining} }}", s.address),
                _ => format!("\"{}\"", s.address),
            })
            .collect();
        format!(
            "[listeners.web]\nbind = [\"{address}\"]\nmode = \"l7\"\n\
             [[listeners.web.routes]]\npath = \"/\"\npool = \"main\"\n\
             [pools.main]\nbalance = \"round-robin\"\nservers = [{}]\n\
             drain = {{ window = \"2s\" }}\n",
            list.join(", ")
        )
    };
    let standpipe = common::Standpipe::start(&config(""));
    let mut clients: Vec<(Reader, String)> = (0..60)
        .map(|_| {
            let (client, head) = ws::open(address, "/");
            let server = head.header("x-server").expect("a name").to_string();
            (client, server)
        })
        .collect();
    standpipe.reload(&config(", drain = true"));
    let begun = Instant::now();
    for (client, _) in clients.iter_mut().filter(|(_, server)| server == "b") {
        let close = ws::read_frame(client).expect("a Close");
        assert_eq!(close.close_code(), Some(1012));
        client.send(ws::close(1012, true));
        assert!(client.at_end());
    }
    assert!(begun.elapsed() < Duration::from_secs(8));
    for (client, _) in clients.iter_mut().filter(|(_, server)| server != "b") {
        client.send(ws::frame(ws::TEXT, true, b"still here"));
        assert_eq!(ws::read_frame(client).expect("an echo").payload, b"still here");
    }
    for _ in 0..6 {
        let (_, head) = ws::open(address, "/");
        assert_ne!(head.header("x-server"), Some("b"));
    }
}

#[test]
fn frames_and_closes_are_counted_by_route() {
    let server = ws::echo_server("a");
    let web = Web::before(&[&server]);
    let (mut client, _) = ws::open(web.address, "/");
    client.send(ws::frame(ws::TEXT, true, b"12345"));
    ws::read_frame(&mut client).expect("an echo");
    client.send(ws::frame(ws::BINARY, true, &[0; 1000]));
    ws::read_frame(&mut client).expect("an echo");
    client.send(ws::close(4321, true));
    ws::read_frame(&mut client).expect("a Close");
    drop(client);
    let count = |name: &str, labels: &[(&str, &str)]| web.standpipe.metric(name, labels);
    common::wait_until("it is over", || count("standpipe_route_websockets", &[]) == 0.0);
    let up = |opcode| [("direction", "from_client"), ("opcode", opcode)];
    assert_eq!(count("standpipe_route_frames_total", &up("text")), 1.0);
    assert_eq!(count("standpipe_route_frame_bytes_total", &up("text")), 5.0);
    assert_eq!(count("standpipe_route_frame_bytes_total", &up("binary")), 1000.0);
    assert_eq!(count("standpipe_route_frames_total", &up("close")), 1.0);
    let closes = [("closer", "client"), ("code", "private")];
    assert_eq!(count("standpipe_route_closes_total", &closes), 1.0);
    assert_eq!(count("standpipe_route_websocket_age_seconds_count", &[]), 1.0);
    assert_eq!(count("standpipe_route_handshakes_total", &[("result", "upgraded")]), 1.0);
    assert_eq!(
        count("standpipe_connections_ended_total", &[("side", "client"), ("cause", "closed")]),
        1.0
    );
}
