//! WebSocket frames so long that their payload never enters standpipe's memory, among short ones
//! and control frames: every byte arrives in its place, and all of it is counted. Traffic comes
//! from a seed that is printed; `STANDPIPE_SEED=…` runs the same again.

mod common;

use std::io::Write;

use common::http::Server;
use common::web::{Shape, Web};
use common::ws;

fn seed() -> u64 {
    let given = std::env::var("STANDPIPE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("STANDPIPE_SEED={seed}");
    seed
}

/// Messages of one to three fragments and Pings between them, mostly long.
fn traffic(random: &mut fastrand::Rng, bytes: usize) -> Vec<ws::Frame> {
    let (mut frames, mut total) = (Vec::new(), 0);
    while total < bytes {
        let fragments = random.usize(1..=3);
        for fragment in 0..fragments {
            let opcode = if fragment == 0 { ws::BINARY } else { 0 };
            let fin = if fragment + 1 == fragments { 0x80 } else { 0 };
            let length = match random.u8(..) {
                0..40 => random.usize(0..200),
                40..80 => random.usize(16_000..17_000),
                _ => random.usize(20_000..400_000),
            };
            let payload: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
            total += length;
            frames.push(ws::Frame { first: fin | opcode, masked: true, payload });
            if random.u8(..) < 30 {
                let payload = vec![random.u8(..); random.usize(0..=125)];
                frames.push(ws::Frame { first: 0x80 | ws::PING, masked: true, payload });
            }
        }
    }
    frames
}

#[test]
fn long_frames_among_short_ones_arrive_whole_and_are_counted() {
    let sent = traffic(&mut fastrand::Rng::with_seed(seed()), 64 << 20);
    let server: Server = ws::echo_server("a");
    let web = Web::shaped(&[&server], Shape { listener: "ping = \"off\"", ..Shape::default() });
    let (mut client, _) = ws::open(web.address, "/");
    let mut writer = client.stream.try_clone().expect("another handle");
    std::thread::scope(|scope| {
        let frames = &sent;
        scope.spawn(move || {
            for frame in frames {
                writer.write_all(&ws::raw_frame(frame.first, true, &frame.payload)).expect("sent");
            }
        });
        for (number, frame) in sent.iter().enumerate() {
            let got = ws::read_frame(&mut client).expect("an echo");
            let pong = frame.opcode() == ws::PING;
            let first = if pong { 0x80 | ws::PONG } else { frame.first };
            assert_eq!(got.first, first, "frame {number}");
            assert!(got.payload == frame.payload, "frame {number} of {}", frame.payload.len());
        }
    });
    let moved = |gear| web.standpipe.metric("standpipe_bytes_moved_total", &[("gear", gear)]);
    assert!(moved("bulk") > (32 << 20) as f64, "{} bytes were spliced", moved("bulk"));
    client.send(ws::close(1000, true));
    client.rest();
    let of = |name, opcode| {
        let labels = [("direction", "from_client"), ("opcode", opcode)];
        web.standpipe.metric(name, &labels)
    };
    for (name, opcode) in [("binary", ws::BINARY), ("continuation", 0), ("ping", ws::PING)] {
        let alike = || sent.iter().filter(|frame| frame.opcode() == opcode);
        let bytes: usize = alike().map(|frame| frame.payload.len()).sum();
        assert_eq!(of("standpipe_route_frames_total", name), alike().count() as f64, "{name}");
        assert_eq!(of("standpipe_route_frame_bytes_total", name), bytes as f64, "{name}");
    }
}

#[test]
fn a_bad_frame_behind_long_ones_in_one_burst_is_refused_and_they_are_not() {
    let (seen, arrived) = std::sync::mpsc::channel();
    let seen = std::sync::Mutex::new(seen);
    let server = Server::scripted(move |mut reader| {
        reader.head().expect("a request");
        reader.send(ws::switching(""));
        while let Some(got) = ws::read_frame(&mut reader) {
            if got.opcode() == ws::CLOSE {
                reader.send(ws::close(1002, false));
            }
            seen.lock().expect("unpoisoned").send(got).expect("the test listens");
        }
    });
    let web = Web::shaped(&[&server], Shape { listener: "ping = \"off\"", ..Shape::default() });
    let (mut client, _) = ws::open(web.address, "/");
    let arrives = || arrived.recv_timeout(common::PATIENCE).expect("a frame");
    let long = |number: u8| ws::frame(ws::BINARY, true, &vec![number; 64 << 10]);
    let mut sent = 0_u32;
    common::wait_until("long frames are spliced", || {
        client.send((0..8).flat_map(|_| long(0)).collect::<Vec<u8>>());
        (0..8).for_each(|_| drop(arrives()));
        sent += 8;
        web.standpipe.metric("standpipe_bytes_moved_total", &[("gear", "bulk")]) > 0.0
    });
    // Several and the bad one are there when it looks: RSV2 was never agreed on.
    web.standpipe.stop();
    let mut burst: Vec<u8> = (1..=5).flat_map(long).collect();
    burst.extend(ws::raw_frame(0x80 | 0x20 | ws::BINARY, true, &[9; 64 << 10]));
    let mut writer = client.stream.try_clone().expect("another handle");
    // (What is behind the bad frame may no longer be taken.)
    let writing = std::thread::spawn(move || drop(writer.write_all(&burst)));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(1);
    while !writing.is_finished() && std::time::Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    web.standpipe.go_on();
    for number in 1..=5 {
        let got = arrives();
        assert!(got.payload == vec![number; 64 << 10], "frame {number}: {:x}", got.first);
    }
    assert!(arrives().opcode() == ws::CLOSE);
    assert_eq!(ws::read_frame(&mut client).expect("a Close").close_code(), Some(1002));
    client.send(ws::close(1002, true));
    client.rest();
    writing.join().expect("it ends");
    let labels = [("direction", "from_client"), ("opcode", "binary")];
    let frames = web.standpipe.metric("standpipe_route_frames_total", &labels);
    assert_eq!(frames, f64::from(sent) + 5.0);
}
