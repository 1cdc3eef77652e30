//! The WebSocket handshake through a running standpipe: what is an upgrade, what is none, and that
//! a tunnel exists only after a valid 101. Names S1 to S12, S21 and S22 are those of the list of
//! security lessons the project keeps.

mod common;

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::http::{Reader, Server, ok};
use common::web::{Shape, Web};
use common::{tls, ws};

/// Sends one request and gives back the answer's status.
fn status(web: &Web, request: &str) -> u16 {
    let mut client = Reader::connect(web.address);
    client.send(request);
    client.response("GET").status
}

/// A server that answers every head with the same bytes and remembers all it was sent.
fn recording(answer: &'static str) -> (Server, Arc<Mutex<Vec<u8>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let all = seen.clone();
    let server = Server::scripted(move |mut reader| {
        let Some(head) = reader.head() else { return };
        all.lock().unwrap().extend_from_slice(&head.raw);
        if reader.stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
        let rest = reader.rest();
        all.lock().unwrap().extend_from_slice(&rest);
    });
    (server, seen)
}

#[test]
fn a_websocket_is_established_and_carries_frames_both_ways() {
    let server = ws::echo_server("a");
    let web = Web::before(&[&server]);
    let (mut client, head) = ws::open(web.address, "/chat");
    assert_eq!(head.header("sec-websocket-accept"), Some(ws::ACCEPT));
    for size in [0, 1, 125, 126, 65_535, 65_536, 300_000] {
        let payload = vec![b'x'; size];
        client.send(ws::frame(ws::BINARY, true, &payload));
        let echo = ws::read_frame(&mut client).expect("an echo");
        assert_eq!(echo.payload.len(), size);
    }
    client.send(ws::close(1000, true));
    let close = ws::read_frame(&mut client).expect("the server's Close");
    assert_eq!(close.close_code(), Some(1000));
    assert!(client.at_end());
}

#[test]
fn s1_nothing_sent_early_reaches_a_server_that_did_not_agree() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n",
    ] {
        let (server, seen) = recording(answer);
        let web = Web::before(&[&server]);
        let mut client = Reader::connect(web.address);
        client.send(ws::request("/chat") + "GET /admin HTTP/1.1\r\nHost: x\r\n\r\n");
        let expected: u16 = answer[9..12].parse().unwrap();
        assert_eq!(client.response("GET").status, expected);
        assert!(client.at_end(), "the rest of that connection is in doubt");
        std::thread::sleep(Duration::from_millis(50));
        let seen = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
        assert!(seen.starts_with("GET /chat"), "{seen}");
        assert!(!seen.contains("/admin"), "{seen}");
    }
}

#[test]
fn s1_what_came_with_an_upgrade_to_nowhere_is_no_request() {
    let server = ws::echo_server("a");
    let address = common::address();
    let config = common::web::config(address, &[&server], &Shape::default())
        .replace("path = \"/\"", "path = \"/chat\"");
    let web = Web { standpipe: common::Standpipe::start(&config), address };
    let mut client = Reader::connect(web.address);
    client.send(ws::request("/nowhere") + "GET /chat HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = client.response("GET");
    assert_eq!((answer.status, answer.header("connection")), (404, Some("close")));
    assert!(client.at_end());
    assert_eq!(server.accepted(), 0);
}

#[test]
fn s1_too_much_sent_early_is_refused() {
    let server = ws::echo_server("a");
    let scene = tls::Scene::new("l7", "", server.address, "", &[]);
    let mut client = tls::connect(scene.at, &scene.client(), "web.example").expect("a handshake");
    // Of plain bytes no more is read than a head may need; records are opened whole.
    let mut early = ws::request("/chat").into_bytes();
    early.resize(16 << 10, b'x');
    // Both are there when it looks: the second would otherwise be an upgraded client's frame.
    scene.standpipe.stop();
    client.write_all(&early).expect("one full record");
    client.write_all(&[b'x'; 1000]).expect("and another");
    scene.standpipe.go_on();
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    common::wait_until("it is counted", || {
        let labels = [("side", "client"), ("cause", "early_too_much")];
        scene.standpipe.metric("standpipe_connections_ended_total", &labels) == 1.0
    });
    assert_eq!(server.accepted(), 0);
}

#[test]
fn s1_frames_sent_early_are_held_and_delivered_after_the_101() {
    let server = ws::echo_server("a");
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    let mut early = ws::request("/chat").into_bytes();
    for n in 0..20_u8 {
        early.extend(ws::frame(ws::BINARY, true, &[n; 100]));
    }
    client.send(early);
    assert!(client.head().expect("a head").start.contains("101"));
    for n in 0..20_u8 {
        assert_eq!(ws::read_frame(&mut client).expect("an echo").payload, [n; 100]);
    }
}

#[test]
fn s2_only_a_101_is_a_success() {
    for status in ["200 OK", "204 No Content", "301 Moved", "426 Upgrade Required", "500 Oops"] {
        for echoed in ["", "Upgrade: websocket\r\nConnection: Upgrade\r\n"] {
            let length = if status.starts_with("204") { "" } else { "Content-Length: 0\r\n" };
            let answer = format!("HTTP/1.1 {status}\r\n{echoed}{length}\r\n");
            let (server, seen) = recording(Box::leak(answer.into_boxed_str()));
            let web = Web::before(&[&server]);
            let mut client = Reader::connect(web.address);
            client.send(ws::request("/chat"));
            let response = client.response("GET");
            assert_eq!(response.status.to_string(), status[..3]);
            // A 426 says what to upgrade to (RFC 9110 §15.5.22).
            let told = status.starts_with("426") && !echoed.is_empty();
            assert_eq!(response.header("upgrade"), told.then_some("websocket"));
            // What follows is a request of its own, never bytes for that server.
            let _ = client.stream.write_all(&ws::frame(ws::TEXT, true, b"smuggled"));
            std::thread::sleep(Duration::from_millis(30));
            let tail = seen.lock().unwrap().clone();
            assert!(tail.ends_with(b"\r\n\r\n"), "{status}: {:?}", String::from_utf8_lossy(&tail));
        }
    }
}

#[test]
fn s3_a_101_that_is_not_the_answer_is_a_502() {
    let good =
        [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", ws::ACCEPT)];
    type Lines = Vec<(String, String)>;
    let with = |change: &dyn Fn(&mut Lines)| {
        let mut lines: Vec<_> = good.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        change(&mut lines);
        let lines: String = lines.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        format!("HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n")
    };
    let cases = [
        with(&|lines| drop(lines.remove(0))),
        with(&|lines| lines[0].1 = "h2c".into()),
        with(&|lines| lines[0].1 = "websocket, h2c".into()),
        with(&|lines| drop(lines.remove(1))),
        with(&|lines| lines[1].1 = "keep-alive".into()),
        with(&|lines| drop(lines.remove(2))),
        with(&|lines| lines[2].1 = "AAAAAAAAAAAAAAAAAAAAAAAAAAA=".into()),
        with(&|lines| lines.push(("Sec-WebSocket-Accept".into(), ws::ACCEPT.into()))),
        with(&|lines| lines.push(("Sec-WebSocket-Protocol".into(), "never-offered".into()))),
        with(&|lines| lines.push(("Sec-WebSocket-Extensions".into(), "permessage-x".into()))),
    ];
    for answer in cases {
        let (server, seen) = recording(Box::leak(answer.clone().into_boxed_str()));
        let web = Web::before(&[&server]);
        let mut client = Reader::connect(web.address);
        client.send(ws::request("/chat"));
        assert_eq!(client.response("GET").status, 502, "{answer}");
        assert!(client.at_end());
        let tail = seen.lock().unwrap().clone();
        assert!(tail.ends_with(b"\r\n\r\n"));
    }
}

#[test]
fn s4_a_handshake_is_judged_here_and_no_server_is_dialled_for_a_bad_one() {
    let server = ws::echo_server("a");
    let web = Web::before(&[&server]);
    let good = ws::request("/chat");
    let key = format!("Sec-WebSocket-Key: {}\r\n", ws::KEY);
    let cases = [
        (good.replace(&key, ""), 400),
        (good.replace(&key, &format!("{key}{key}")), 400),
        (good.replace(ws::KEY, "c2hvcnQ="), 400),
        (good.replace(ws::KEY, "not base64 at all!!!!!!!"), 400),
        (good.replace("Version: 13", "Version: 8"), 426),
        (good.replace("Version: 13", "Version: 13, 8"), 426),
        (good.replace("Sec-WebSocket-Version: 13\r\n", ""), 426),
        (
            good.replace(
                "Sec-WebSocket-Version: 13\r\n",
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n",
            ),
            400,
        ),
        (good.replace("GET ", "POST "), 400),
        (good.replace("HTTP/1.1", "HTTP/1.0"), 400),
        (good.replace("Connection: Upgrade", "Connection: keep-alive"), 400),
        (good.replace("Connection: Upgrade\r\n", ""), 400),
    ];
    for (request, expected) in cases {
        let mut client = Reader::connect(web.address);
        client.send(&request);
        let response = client.response("GET");
        assert_eq!(response.status, expected, "{request}");
        if expected == 426 {
            assert_eq!(response.header("sec-websocket-version"), Some("13"));
        }
        assert!(client.at_end());
    }
    assert_eq!(server.accepted(), 0);
}

#[test]
fn s5_an_upgrade_with_a_body_is_refused() {
    let server = ws::echo_server("a");
    let web = Web::before(&[&server]);
    for more in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
        assert_eq!(status(&web, &(ws::request_with("/chat", more) + "hello")), 400);
    }
    assert_eq!(server.accepted(), 0);
    // A length of zero is no body.
    let (_, head) = ws::open_with(web.address, "/chat", "Content-Length: 0\r\n");
    assert!(head.start.contains("101"));
}

#[test]
fn s6_only_the_one_token_websocket_may_tunnel() {
    let server = Server::answering(|_| ok("plain"));
    let web = Web::before(&[&server]);
    for upgrade in [
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Upgrade: websocket, h2c\r\n",
        "Upgrade: h2c, websocket\r\n",
        "Upgrade: H2C\r\n",
        "Upgrade: websocket\r\nUpgrade: h2c\r\n",
        "Upgrade: websocket\r\nUpgrade: websocket\r\n",
        "Upgrade: websocket/13\r\n",
        "Upgrade:\r\n",
    ] {
        let request = ws::request("/x").replace("Upgrade: websocket\r\n", upgrade);
        let request =
            request.replace("Connection: Upgrade\r\n", "Connection: Upgrade, HTTP2-Settings\r\n");
        let before = server.heads().len();
        assert_eq!(status(&web, &request), 200, "{upgrade}");
        let head = server.heads()[before].clone();
        for gone in ["upgrade", "http2-settings", "connection"] {
            assert_eq!(head.header(gone), None, "{upgrade}: {head:?}");
        }
    }
}

#[test]
fn s7_connect_is_never_served() {
    let server = Server::answering(|_| ok("never"));
    let web = Web::before(&[&server]);
    for target in ["example.org:443", "/", "http://example.org/"] {
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: example.org:443\r\n\r\nearly");
        let mut client = Reader::connect(web.address);
        client.send(request);
        let response = client.response("CONNECT");
        assert_eq!(response.status, 405);
        assert!(client.at_end());
    }
    assert_eq!(server.accepted(), 0);
}

#[test]
fn s11_a_server_that_refused_an_upgrade_is_never_used_again() {
    let server = Server::answering(|request| match request.head.header("upgrade") {
        Some(_) => b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope".to_vec(),
        None => ok("plain"),
    });
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    client.send(ws::request("/chat"));
    assert_eq!(client.response("GET").text(), "nope");
    // The client's own connection is in order and may go on.
    client.send("GET /page HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.response("GET").text(), "plain");
    client.send(ws::request("/chat"));
    assert_eq!(client.response("GET").status, 403);
    client.send("GET /page HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.response("GET").text(), "plain");
    // Two upgrades, one connection each; the two pages shared a third.
    assert_eq!(server.accepted(), 3);
}

#[test]
fn s12_bytes_that_come_with_the_101_are_delivered_once() {
    for drip in [false, true] {
        let server = Server::scripted(move |mut reader| {
            let Some(_) = reader.head() else { return };
            let mut bytes = ws::switching("").into_bytes();
            bytes.extend(ws::frame(ws::TEXT, false, b"first"));
            bytes.extend(ws::frame(ws::TEXT, false, b"second"));
            if drip {
                for byte in bytes {
                    let _ = reader.stream.write_all(&[byte]);
                    std::thread::sleep(Duration::from_micros(300));
                }
            } else {
                let _ = reader.stream.write_all(&bytes);
            }
            reader.rest();
        });
        let web = Web::before(&[&server]);
        let (mut client, _) = ws::open(web.address, "/chat");
        assert_eq!(ws::read_frame(&mut client).expect("a frame").payload, b"first");
        assert_eq!(ws::read_frame(&mut client).expect("a frame").payload, b"second");
        assert!(common::is_silent(&mut client.stream, Duration::from_millis(100)));
    }
}

#[test]
fn s21_names_are_read_in_any_case() {
    let server = ws::echo_server("a");
    let web = Web::before(&[&server]);
    let request = format!(
        "GET /chat HTTP/1.1\r\nhOST: test.example\r\nupgrade: WebSocket\r\n\
         CONNECTION: keep-alive, Upgrade\r\nSEC-WEBSOCKET-KEY: {}\r\n\
         sec-WebSocket-version: 13\r\n\r\n",
        ws::KEY
    );
    assert_eq!(status(&web, &request), 101);
}

#[test]
fn s21_a_path_that_can_be_read_in_two_ways_is_refused_and_others_go_on_as_they_came() {
    let public = Server::answering(|_| ok("public"));
    let admin = Server::answering(|_| ok("admin"));
    let more = format!(
        "[[listeners.web.routes]]\npath = \"/admin\"\npool = \"admin\"\n\
         [pools.admin]\nservers = [\"{}\"]\n",
        admin.address
    );
    let address = common::address();
    let shape = Shape::default();
    let config = common::web::config(address, &[&public], &shape)
        .replace("[pools.main]", &format!("{more}[pools.main]"));
    let standpipe = common::Standpipe::start(&config);
    let web = Web { standpipe, address };
    let ask = |target: &str| {
        let mut client = Reader::connect(web.address);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
        let response = client.response("GET");
        (response.status, response.text())
    };
    for target in [
        "/ws/../admin",
        "/ws/%2e%2e/admin",
        "//admin",
        "/%61dmin",
        "/admin%2f",
        "/./admin",
        "http://other.example/admin",
    ] {
        let (status, _) = ask(target);
        assert_eq!(status, 400, "{target}");
    }
    for target in ["/admin", "/admin/", "/admin/x?y=/../z", "http://a.example/admin"] {
        assert_eq!(ask(target), (200, "admin".into()), "{target}");
    }
    for target in ["/", "/administrator", "/ws/admin", "/caf%C3%A9"] {
        assert_eq!(ask(target), (200, "public".into()), "{target}");
    }
    let seen: Vec<String> = admin.heads().iter().map(|head| head.target().to_string()).collect();
    assert_eq!(seen, ["/admin", "/admin/", "/admin/x?y=/../z", "/admin"]);
}

#[test]
fn s22_origins_are_allowed_by_name_only() {
    let server = ws::echo_server("a");
    let shape =
        Shape { route: "origins = [\"https://app.example.org\", \"null\"]", ..Shape::default() };
    let web = Web::shaped(&[&server], shape);
    let with = |origin: &str| status(&web, &ws::request_with("/chat", origin));
    assert_eq!(with("Origin: https://app.example.org\r\n"), 101);
    assert_eq!(with("Origin: null\r\n"), 101);
    assert_eq!(with(""), 403, "missing was not listed");
    assert_eq!(with("Origin: https://evil.example\r\n"), 403);
    assert_eq!(with("Origin: https://app.example.org.evil.example\r\n"), 403);
    assert_eq!(
        with("Origin: https://app.example.org\r\nOrigin: https://evil.example\r\n"),
        403,
        "two origins are none"
    );
    assert_eq!(server.accepted(), 2);
    // Pages are not WebSockets: the list says nothing about them.
    assert_eq!(status(&web, "GET / HTTP/1.1\r\nHost: x\r\nOrigin: https://evil\r\n\r\n"), 200);
}

#[test]
fn subprotocols_and_extensions_pass_and_rsv1_is_legal_only_where_agreed() {
    let server = Server::scripted(|mut reader| {
        let Some(head) = reader.head() else { return };
        let agreed = match head.header("sec-websocket-extensions") {
            Some(_) => "Sec-WebSocket-Extensions: permessage-deflate\r\n",
            None => "",
        };
        reader.send(ws::switching(&format!("Sec-WebSocket-Protocol: b\r\n{agreed}")));
        ws::echo(&mut reader);
    });
    let web = Web::before(&[&server]);
    let more = "Sec-WebSocket-Protocol: a, b\r\n\
                Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let (mut client, head) = ws::open_with(web.address, "/", more);
    assert_eq!(head.header("sec-websocket-protocol"), Some("b"));
    client.send(ws::raw_frame(0xc1, true, b"compressed"));
    assert_eq!(ws::read_frame(&mut client).expect("an echo").first, 0xc1);

    let (mut client, _) = ws::open_with(web.address, "/", "Sec-WebSocket-Protocol: a, b\r\n");
    client.send(ws::raw_frame(0xc1, true, b"compressed"));
    let close = ws::read_frame(&mut client).expect("a Close");
    assert_eq!(close.close_code(), Some(1002));
}

#[test]
fn an_extension_nobody_here_understands_is_offered_only_where_bytes_are_relayed() {
    let offer = "Sec-WebSocket-Extensions: x-mux; a=1, permessage-deflate\r\n";
    for (relay, offered, status) in
        [("frames", "permessage-deflate", 502), ("bytes", "x-mux; a=1, permessage-deflate", 101)]
    {
        let (server, seen) = recording(Box::leak(
            ws::switching("Sec-WebSocket-Extensions: x-mux\r\n").into_boxed_str(),
        ));
        let route = format!("relay = \"{relay}\"");
        let web = Web::shaped(&[&server], Shape { route: &route, ..Shape::default() });
        // A server that agrees to it all the same is not believed.
        let connection = "Connection: Upgrade\r\n";
        let nominating = "Connection: Upgrade, Sec-WebSocket-Key, Sec-WebSocket-Extensions\r\n";
        let request = ws::request_with("/", offer).replace(connection, nominating);
        assert_eq!(self::status(&web, &request), status, "{relay}");
        let seen = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
        assert!(seen.contains(&format!("Sec-WebSocket-Extensions: {offered}\r\n")), "{seen}");
        assert!(seen.contains("Sec-WebSocket-Key: "), "{seen}");
    }
}
