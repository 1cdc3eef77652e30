//! Plain HTTP/1.1 through a running standpipe: framing, keeping connections on both sides, bodies
//! streamed both ways, and every trouble with its defined answer.

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::http::{Reader, Server, ok};
use common::web::{Shape, Web};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n")
}

fn status(web: &Web, request: &str) -> u16 {
    let mut client = Reader::connect(web.address);
    client.send(request);
    client.response("GET").status
}

#[test]
fn both_sides_keep_their_connections() {
    let server = Server::answering(|request| ok(request.head.target()));
    let web = Web::before(&[&server]);
    for _ in 0..3 {
        let mut client = Reader::connect(web.address);
        for n in 0..5 {
            client.send(get(&format!("/{n}")));
            assert_eq!(client.response("GET").text(), format!("/{n}"));
        }
    }
    assert_eq!(server.accepted(), 1, "fifteen requests of three clients, one connection");
    let reused = web.standpipe.metric("standpipe_http_reused_server_connections_total", &[]);
    assert_eq!(reused, 14.0);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::answering(|request| {
        if request.head.target() == "/slow" {
            std::thread::sleep(Duration::from_millis(200));
        }
        ok(request.head.target())
    });
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    client.send(get("/slow") + &get("/b") + &get("/c"));
    for path in ["/slow", "/b", "/c"] {
        assert_eq!(client.response("GET").text(), path);
    }
}

#[test]
fn bodies_pass_both_ways_by_length_and_by_chunks_with_trailers() {
    let server = Server::answering(|request| {
        let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for part in request.body.chunks(7_001) {
            answer.extend(format!("{:x}\r\n", part.len()).into_bytes());
            answer.extend_from_slice(part);
            answer.extend_from_slice(b"\r\n");
        }
        let trailer = request.trailers.first().map_or("none", |(_, value)| value);
        answer.extend(format!("0\r\nX-Got: {trailer}\r\n\r\n").into_bytes());
        answer
    });
    let web = Web::before(&[&server]);
    let body: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let mut client = Reader::connect(web.address);

    let length = body.len();
    client.send(format!("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"));
    client.send(&body);
    let answer = client.response("PUT");
    assert!(answer.body == body);
    assert_eq!(answer.trailers, [("X-Got".into(), "none".into())]);

    client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for part in body.chunks(50_000) {
        client.send(format!("{:x};ext=1\r\n", part.len()));
        client.send(part);
        client.send("\r\n");
    }
    client.send("0\r\nX-Sum: 42\r\n\r\n");
    let answer = client.response("POST");
    assert!(answer.body == body);
    assert_eq!(answer.trailers, [("X-Got".into(), "42".into())]);
}

#[test]
fn answers_without_a_body_end_where_their_head_does() {
    let server = Server::answering(|request| match request.head.target() {
        "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n".to_vec(),
    });
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    for (method, path) in [("GET", "/204"), ("GET", "/304"), ("HEAD", "/"), ("GET", "/204")] {
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let answer = client.response(method);
        assert!(answer.body.is_empty());
        assert_eq!(answer.header("transfer-encoding"), None);
    }
    assert_eq!(server.accepted(), 1);
}

#[test]
fn an_answer_that_ends_with_its_connection_ends_the_clients_too() {
    let server = Server::scripted(|mut reader| {
        reader.head();
        reader.send("HTTP/1.1 200 OK\r\n\r\nuntil the end");
    });
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    client.send(get("/"));
    let answer = client.response("GET");
    assert_eq!(answer.text(), "until the end");
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn a_continue_passes_before_the_body() {
    let server = Server::scripted(|mut reader| {
        let head = reader.head().expect("a head");
        assert_eq!(head.header("expect"), Some("100-continue"));
        reader.send("HTTP/1.1 100 Continue\r\n\r\n");
        let body = reader.bytes(5);
        reader.send(ok(&String::from_utf8_lossy(&body)));
        reader.rest();
    });
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head().expect("an interim").start, "HTTP/1.1 100 Continue");
    client.send("hello");
    assert_eq!(client.response("POST").text(), "hello");
}

#[test]
fn an_early_answer_reaches_the_client_while_its_body_is_still_coming() {
    let server = Server::scripted(|mut reader| {
        reader.head();
        reader.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
    });
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n");
    client.send(vec![0; 300_000]);
    let answer = client.response("POST");
    assert_eq!((answer.status, answer.text()), (413, "big".into()));
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn a_body_answered_while_it_comes_is_carried_in_step() {
    // An echo in lockstep: each part is answered before the next is sent.
    let server = Server::scripted(|mut reader| {
        reader.head();
        reader.send("HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n");
        for _ in 0..3 {
            let part = reader.bytes(10);
            reader.send(part);
        }
        reader.rest();
    });
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\n");
    let head = client.head().expect("a head");
    assert!(head.start.contains("200"));
    for part in [b"0123456789", b"abcdefghij", b"ABCDEFGHIJ"] {
        client.send(part);
        assert_eq!(client.bytes(10), part);
    }
}

#[test]
fn old_clients_are_served_in_their_own_tongue() {
    let server = Server::answering(|_| {
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
            .to_vec()
    });
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    client.send("GET / HTTP/1.0\r\n\r\n");
    let answer = client.response("GET");
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!(answer.text(), "abcde");
    let seen = &server.heads()[0];
    assert!(seen.start.ends_with("HTTP/1.1"));
    assert!(seen.header("host").is_some());

    let plain = Server::answering(|_| ok("x"));
    let web = Web::before(&[&plain]);
    let mut client = Reader::connect(web.address);
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let answer = client.response("GET");
        assert_eq!(answer.header("connection"), Some("keep-alive"));
    }
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.response("GET").header("connection"), Some("close"));
    assert!(client.at_end());
}

#[test]
fn s8_ambiguous_framing_is_refused_and_the_connection_ends() {
    let server = Server::answering(|_| ok("never"));
    let web = Web::before(&[&server]);
    for (version, lines) in [
        ("1.1", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ("1.1", "Content-Length: 5\r\nContent-Length: 5\r\n"),
        ("1.1", "Content-Length: 5, 5\r\n"),
        ("1.1", "Content-Length: +5\r\n"),
        ("1.1", "Content-Length: 0x5\r\n"),
        ("1.1", "Content-Length: -1\r\n"),
        ("1.1", "Content-Length:\r\n"),
        ("1.1", "Content-Length: 99999999999999999999\r\n"),
        ("1.1", "Transfer-Encoding:\r\n"),
        ("1.0", "Transfer-Encoding: chunked\r\n"),
        ("1.1", "Transfer-Encoding: chunked, gzip\r\n"),
        ("1.1", "Transfer-Encoding: chunked, chunked\r\n"),
        ("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ("1.1", "Transfer-Encoding: xchunked\r\n"),
    ] {
        let mut client = Reader::connect(web.address);
        client.send(format!(
            "POST / HTTP/{version}\r\nHost: x\r\n{lines}\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\
             Host: x\r\n\r\n"
        ));
        let answer = client.response("POST");
        assert!(matches!(answer.status, 400 | 501), "{lines}: {}", answer.status);
        assert!(client.at_end(), "{lines}");
    }
    assert_eq!(server.accepted(), 0);
}

#[test]
fn s9_lines_that_two_readers_could_read_differently_are_refused() {
    let server = Server::answering(|_| ok("never"));
    let web = Web::before(&[&server]);
    for lines in [
        ": x\r\n",
        "X : y\r\n",
        "X: y\r\n folded\r\n",
        "X: y\nZ: z\r\n",
        "X: a\0b\r\n",
        "X: a\rb\r\n",
        "Host: second\r\n",
        "Ho\0st: x\r\n",
        "no colon here\r\n",
    ] {
        assert_eq!(status(&web, &format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n")), 400);
    }
    assert_eq!(status(&web, "GET / HTTP/1.1\r\n\r\n"), 400, "no Host");
    assert_eq!(status(&web, "GET / HTTP/1.1\nHost: x\n\n"), 400);
    assert_eq!(status(&web, "GET  / HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
    assert_eq!(status(&web, "GET / HTTP/2.0\r\nHost: x\r\n\r\n"), 505);
    assert_eq!(server.accepted(), 0);
}

#[test]
fn s9_limits_have_their_own_answers() {
    let server = Server::answering(|_| ok("never"));
    let web = Web::before(&[&server]);
    let long = "a".repeat(20_000);
    assert_eq!(status(&web, &get(&format!("/{long}"))), 414);
    let many = "X: y\r\n".repeat(200);
    assert_eq!(status(&web, &format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n")), 431);
    let fat = "a".repeat(200_000);
    assert_eq!(status(&web, &format!("GET / HTTP/1.1\r\nHost: x\r\nX: {fat}\r\n\r\n")), 431);
    assert_eq!(server.accepted(), 0);
}

#[test]
fn s10_connection_cannot_strip_what_the_proxy_adds() {
    let server = Server::answering(|_| ok("x"));
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    client.send(
        "GET / HTTP/1.1\r\nHost: a.example:8080\r\nX-Forwarded-For: 6.6.6.6\r\n\
         Forwarded: for=6.6.6.6\r\nX_Forwarded_For: 7.7.7.7\r\nX-Hop: 1\r\n\
         Connection: close, X-Forwarded-For, X-Forwarded-Proto, Forwarded, Host, X-Hop\r\n\r\n",
    );
    assert_eq!(client.response("GET").status, 200);
    let seen = &server.heads()[0];
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.all("x-forwarded-host"), ["a.example:8080"]);
    assert_eq!(seen.all("x-forwarded-port"), [web.address.port().to_string().as_str()]);
    assert!(seen.header("forwarded").expect("one").starts_with("for=127.0.0.1;"));
    assert_eq!(seen.all("host"), ["a.example:8080"]);
    assert_eq!(seen.header("x-hop"), None);
    assert_eq!(seen.header("x_forwarded_for"), None);
    assert_eq!(seen.header("connection"), None);
}

#[test]
fn a_trusted_peers_word_is_continued() {
    let server = Server::answering(|_| ok("x"));
    let shape = Shape { listener: "trusted = [\"127.0.0.0/8\"]", ..Shape::default() };
    let web = Web::shaped(&[&server], shape);
    let mut client = Reader::connect(web.address);
    client.send(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\r\n",
    );
    client.response("GET");
    let seen = &server.heads()[0];
    assert_eq!(seen.all("x-forwarded-for"), ["6.6.6.6, 127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
}

#[test]
fn s13_a_head_of_one_byte_per_packet_costs_no_more_than_its_bytes_and_falls_to_its_deadline() {
    let server = Server::answering(|_| ok("x"));
    let shape = Shape { timeouts: "handshake = \"2s\"", ..Shape::default() };
    let web = Web::shaped(&[&server], shape);
    let before = web.standpipe.processor_time();
    let begun = Instant::now();
    let drips: Vec<_> = (0..20)
        .map(|_| {
            let to = web.address;
            std::thread::spawn(move || {
                let mut stream = common::connect(to);
                let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{}", "X: y\r\n".repeat(10_000));
                for byte in head.bytes() {
                    if stream.write_all(&[byte]).is_err() {
                        return;
                    }
                    std::thread::sleep(Duration::from_micros(200));
                }
            })
        })
        .collect();
    for drip in drips {
        drip.join().expect("a client");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "the deadline of two seconds holds");
    let used = web.standpipe.processor_time() - before;
    assert!(used < Duration::from_secs(3), "{used:?}");
    assert_eq!(status(&web, &get("/")), 200, "others are served");
}

#[test]
fn no_route_no_server_no_answer_each_has_its_status() {
    let dead_address = common::address();
    let mute = Server::scripted(|mut reader| {
        reader.rest();
    });
    let rude = Server::scripted(|mut reader| {
        reader.head();
    });
    let babble = Server::scripted(|mut reader| {
        reader.head();
        reader.send("this is no HTTP\r\n\r\n");
    });
    let address = common::address();
    let pool = |name: &str, server: &str| {
        (
            format!("[[listeners.web.routes]]\npath = \"/{name}\"\npool = \"{name}\"\n"),
            format!("[pools.{name}]\nservers = [\"{server}\"]\n"),
        )
    };
    let pools = [
        pool("dead", &dead_address.to_string()),
        pool("mute", &mute.address.to_string()),
        pool("rude", &rude.address.to_string()),
        pool("babble", &babble.address.to_string()),
    ];
    let routes: String = pools.iter().map(|(route, _)| route.as_str()).collect();
    let tables: String = pools.iter().map(|(_, table)| table.as_str()).collect();
    let config = format!(
        "[listeners.web]\nbind = [\"{address}\"]\nmode = \"l7\"\n{routes}{tables}\
         [timeouts]\nresponse = \"1s\"\n"
    );
    let web = Web { standpipe: common::Standpipe::start(&config), address };
    assert_eq!(status(&web, &get("/nowhere")), 404);
    assert_eq!(status(&web, &get("/dead")), 502);
    assert_eq!(status(&web, &get("/mute")), 504);
    assert_eq!(status(&web, &get("/rude")), 502);
    assert_eq!(status(&web, &get("/babble")), 502);

    let mut client = Reader::connect(web.address);
    client.send(get("/nowhere"));
    let text = client.response("GET");
    assert_eq!(text.header("content-type"), Some("text/plain; charset=utf-8"));
    let id = text.header("x-request-id").expect("an id").to_string();
    assert!(text.text().contains(&id));
    // A request that fits no route harms nobody: the connection goes on.
    client.send("GET /nowhere HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n");
    let json = client.response("GET");
    let value: serde_json::Value = serde_json::from_slice(&json.body).expect("JSON");
    assert_eq!(value["status"], 404);
}

#[test]
fn a_full_pool_asks_to_come_back() {
    let server = Server::scripted(|mut reader| {
        reader.head();
        std::thread::sleep(Duration::from_secs(3));
    });
    let address = common::address();
    let config = format!(
        "[listeners.web]\nbind = [\"{address}\"]\nmode = \"l7\"\n\
         [[listeners.web.routes]]\npath = \"/\"\npool = \"main\"\n\
         [pools.main]\nservers = [{{ address = \"{}\", max_connections = 1 }}]\n",
        server.address
    );
    let web = Web { standpipe: common::Standpipe::start(&config), address };
    let mut first = Reader::connect(web.address);
    first.send(get("/"));
    std::thread::sleep(Duration::from_millis(300));
    let mut second = Reader::connect(web.address);
    second.send(get("/"));
    let answer = second.response("GET");
    assert_eq!(answer.status, 503);
    let seconds: u32 = answer.header("retry-after").expect("one").parse().expect("a number");
    assert!((1..=10).contains(&seconds));
}

#[test]
fn a_cut_answer_is_never_passed_off_as_whole() {
    for head in ["Content-Length: 1000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let server = Server::scripted(move |mut reader| {
            reader.head();
            reader.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n3e8\r\npart of it"));
        });
        let web = Web::before(&[&server]);
        let mut client = Reader::connect(web.address);
        client.send(get("/"));
        assert!(client.try_response("GET").is_none(), "{head}");
    }
}

#[test]
fn a_large_upload_passes_at_flat_memory() {
    let server = Server::scripted(|mut reader| {
        let head = reader.head().expect("a head");
        let mut left: usize = head.header("content-length").expect("one").parse().expect("one");
        let mut sum = 0_u64;
        while left > 0 {
            let part = reader.bytes(left.min(1 << 16));
            if part.is_empty() {
                return;
            }
            left -= part.len();
            sum = part.iter().fold(sum, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
        }
        reader.send(ok(&sum.to_string()));
        reader.rest();
    });
    let web = Web::before(&[&server]);
    let part: Vec<u8> = (0..1_u32 << 16).map(|n| (n * 7 % 256) as u8).collect();
    let parts = 1024; // 64 MiB
    let mut client = Reader::connect(web.address);
    let length = part.len() * parts;
    let before = web.standpipe.resident();
    client.send(format!("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"));
    let mut sum = 0_u64;
    for _ in 0..parts {
        client.send(&part);
        sum = part.iter().fold(sum, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
    }
    assert_eq!(client.response("PUT").text(), sum.to_string());
    let grown = web.standpipe.resident().saturating_sub(before);
    assert!(grown < 4 << 20, "resident memory grew by {grown} bytes");
}

#[test]
fn a_client_that_reads_nothing_holds_its_server_back() {
    let server = Server::scripted(|mut reader| {
        reader.head();
        reader.send("HTTP/1.1 200 OK\r\n\r\n");
        let part = vec![7; 1 << 16];
        while reader.stream.write_all(&part).is_ok() {}
    });
    let shape = Shape { timeouts: "stall = \"2s\"", ..Shape::default() };
    let web = Web::shaped(&[&server], shape);
    let mut client = common::connect(web.address);
    let before = web.standpipe.resident();
    client.write_all(get("/").as_bytes()).expect("sent");
    std::thread::sleep(Duration::from_millis(1500));
    let grown = web.standpipe.resident().saturating_sub(before);
    assert!(grown < 4 << 20, "resident memory grew by {grown} bytes");
    // The stall is over then: what the kernel held comes, then the end.
    common::wait_until("the stall ends it", || {
        let stall = [("cause", "stall")];
        web.standpipe.metric("standpipe_connections_ended_total", &stall) == 1.0
    });
    let mut chunk = vec![0; 1 << 20];
    let begun = Instant::now();
    while matches!(client.read(&mut chunk), Ok(n) if n > 0) {
        assert!(begun.elapsed() < common::PATIENCE);
    }
}

#[test]
fn silent_clients_are_let_go_by_their_deadlines() {
    let server = Server::answering(|_| ok("x"));
    let shape = Shape {
        timeouts: "handshake = \"1s\"\nkeepalive = \"1s\"\nrequest = \"1s\"",
        ..Shape::default()
    };
    let web = Web::shaped(&[&server], shape);
    let mut silent = Reader::connect(web.address);
    let mut half = Reader::connect(web.address);
    half.send("GET / HTT");
    let mut kept = Reader::connect(web.address);
    kept.send(get("/"));
    kept.response("GET");
    let mut stuck = Reader::connect(web.address);
    stuck.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
    let begun = Instant::now();
    for late in [&mut half, &mut stuck] {
        assert_eq!(late.response("GET").status, 408);
    }
    for client in [&mut silent, &mut half, &mut kept, &mut stuck] {
        assert!(client.at_end());
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    for (cause, count) in [("timeout", 3.0), ("keepalive_over", 1.0)] {
        common::wait_until(cause, || {
            let name = "standpipe_connections_ended_total";
            web.standpipe.metric(name, &[("side", "client"), ("cause", cause)]) == count
        });
    }
}

#[test]
fn a_sticky_cookie_leads_back_and_a_forged_one_is_just_fresh() {
    let servers: Vec<Server> =
        ["a", "b", "c"].into_iter().map(|name| Server::answering(move |_| ok(name))).collect();
    let all: Vec<&Server> = servers.iter().collect();
    let pool = "sticky = { cookie = \"sp\", key = \"0123456789abcdef0123456789abcdef\" }\n\
                balance = \"round-robin\"";
    let web = Web::shaped(&all, Shape { pool, ..Shape::default() });
    let ask = |cookie: &str| {
        let mut client = Reader::connect(web.address);
        client.send(format!("GET / HTTP/1.1\r\nHost: x\r\n{cookie}\r\n"));
        let answer = client.response("GET");
        (answer.text(), answer.header("set-cookie").map(str::to_string))
    };
    let (first, cookie) = ask("");
    let cookie = cookie.expect("a cookie");
    let pair = cookie.split(';').next().expect("a pair").to_string();
    assert!(pair.starts_with("sp="));
    for address in &servers {
        assert!(!cookie.contains(&address.address.to_string()));
    }
    for _ in 0..6 {
        let (again, set) = ask(&format!("Cookie: other=1; {pair}\r\n"));
        assert_eq!((again, set), (first.clone(), None));
    }
    let mut seen = std::collections::HashSet::new();
    for forged in ["sp=AAAAAAAAAAAAAAAAAAAAAA", "sp=", "sp=../../etc", "sp"] {
        let (name, set) = ask(&format!("Cookie: {forged}\r\n"));
        assert!(set.is_some());
        seen.insert(name);
    }
    assert!(seen.len() > 1, "fresh picks go round");
}

#[test]
fn an_old_client_is_told_of_no_chunks_even_where_there_is_no_body() {
    let server = Server::answering(|_| {
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n".to_vec()
    });
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    client.send("HEAD / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n");
    let answer = client.response("HEAD");
    assert_eq!(answer.status, 200);
    assert_eq!((answer.header("transfer-encoding"), answer.header("trailer")), (None, None));
}

/// RFC 9110 §15.5.22.
#[test]
fn a_426_says_what_to_upgrade_to() {
    let server = Server::answering(|_| {
        b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Content-Length: 0\r\n\r\n"
            .to_vec()
    });
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    client.send(get("/"));
    let answer = client.response("GET");
    assert_eq!((answer.status, answer.header("upgrade")), (426, Some("websocket")));
    assert_eq!(answer.header("connection"), Some("Upgrade"));
    client.send(get("/"));
    assert_eq!(client.response("GET").status, 426, "the connection goes on");
}
