//! Options that say something about the process, its sockets and its cookies, each seen from
//! outside to do what the reference says.

mod common;

use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

use common::http::{Message, Reader, Server, ok};
use common::l4::Accepting;
use common::process::{Echo, exchange, plain};
use common::web::{Shape, Web, config};
use common::ws::{self, PING, PONG};
use common::{Standpipe, address, connect, peers, wait_until};
use serde_json::Value;

#[test]
fn a_log_in_json_has_one_object_a_line() {
    let echo = Echo::start();
    let bind = address();
    let log = "log = { format = \"json\", connections = \"all\" }";
    let runtime = format!("[runtime]\nworkers = 1\nadmin = \"{{admin}}\"\n{log}\n");
    let standpipe = Standpipe::start(&(runtime + &plain(bind, &[echo.address])));
    exchange(&mut connect(bind));
    standpipe.wait_log(&["\"message\":\"end\""]);
    let log = standpipe.log();
    let lines = log.lines().map(|line| -> Value { serde_json::from_str(line).expect(line) });
    let end = lines.clone().find(|line| line["message"] == "end").unwrap();
    assert_eq!(end["ending"], "client/pipe/fin");
    assert_eq!(end["bytes_from_client"], 13);
    assert_eq!(end["listener"], "edge");
    for line in lines {
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
    }
}

#[test]
fn a_drain_keeps_its_rate() {
    let (one, two) = (Echo::start(), Echo::start());
    let bind = address();
    let servers = |more: &str| {
        let first = format!("\"{}\"", one.address);
        let entry = format!("{{ address = {first}{more} }}");
        plain(bind, &[one.address, two.address]).replace(&first, &entry) + "drain = { rate = 20 }\n"
    };
    let standpipe = Standpipe::start(&servers(""));
    let mut clients: Vec<_> = (0..80).map(|_| connect(bind)).collect();
    clients.iter_mut().for_each(exchange);
    let whose = one.address.to_string();
    let left = || standpipe.metric("standpipe_server_connections", &[("server", &whose)]);
    assert_eq!(left(), 40.0);
    let begun = Instant::now();
    standpipe.reload(&servers(", drain = true"));
    let mut seen = Vec::new();
    wait_until("it has none left", || {
        seen.push(left());
        seen.last() == Some(&0.0)
    });
    // Forty at twenty a second: the last one falls into the last twentieth.
    assert!(begun.elapsed() > Duration::from_millis(1700), "{:?}", begun.elapsed());
    let ended = [("cause", "server_draining")];
    assert_eq!(standpipe.metric("standpipe_connections_ended_total", &ended), 40.0);
    assert_eq!(standpipe.metric("standpipe_connections_live", &[]), 40.0);
}

#[test]
fn limits_are_told_beside_what_they_bound() {
    let echo = Echo::start();
    let (bind, text) = (address(), plain(address(), &[echo.address]));
    let text = format!("{text}[listeners.bounded]\nbind = [\"{bind}\"]\nmode = \"l4\"\n");
    let text = format!("{text}pool = \"few\"\nmax_connections = 7\n[pools.few]\n");
    let servers = "servers = [\"127.0.0.1:1\", { address = \"127.0.0.1:2\", max_connections = 0 }]";
    let standpipe = Standpipe::start(&format!("{text}{servers}\nmax_connections = 5\n"));
    let page = standpipe.metrics();
    let told = |name: &str| -> Vec<&str> {
        let of_it = page.lines().filter_map(|line| line.strip_prefix(name));
        of_it.filter(|rest| rest.starts_with(['{', ' '])).collect()
    };
    assert_eq!(told("standpipe_listener_connections_max"), ["{listener=\"bounded\"} 7"]);
    let server = "{pool=\"few\",server=\"127.0.0.1:1\"} 5";
    assert_eq!(told("standpipe_server_connections_max"), [server]);
    let descriptors = standpipe.metric("standpipe_process_max_fds", &[]);
    let rooms = told("standpipe_core_connections_max");
    assert!(descriptors >= 256.0 && !rooms.is_empty(), "{descriptors} {rooms:?}");
    let room = standpipe.metric("standpipe_core_connections_max", &[("core", "0")]);
    assert!(room > 0.0 && room < descriptors / 2.0, "{room} of {descriptors}");
}

#[test]
fn nodes_with_one_key_file_agree_until_it_changes() {
    let servers: Vec<Server> =
        ["a", "b", "c"].map(|name| Server::answering(move |_| ok(name))).into_iter().collect();
    let servers: Vec<&Server> = servers.iter().collect();
    let pool = "sticky = { cookie = \"node\", key_file = \"sticky.key\", path = \"/\", \
                domain = \"example.org\", secure = true, http_only = false, \
                same_site = \"strict\", max_age = \"1h\" }";
    let key = b"a key that all nodes of the fleet have\n".as_slice();
    let node = || {
        let at = address();
        let text = config(at, &servers, &Shape { pool, ..Shape::default() });
        (Standpipe::start_with(&text, &[("sticky.key", key)], &[]), at)
    };
    let ((_first, at), (second, beside)) = (node(), node());
    let ask = |at, cookie: &str| -> Message {
        let mut reader = Reader::connect(at);
        reader.send(format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n"));
        reader.response("GET")
    };
    for _ in 0..6 {
        let answer = ask(at, "none=0");
        let line = answer.header("set-cookie").expect("a cookie").to_owned();
        for part in ["; Path=/", "; Domain=example.org", "; Secure", "; SameSite=Strict", "=3600"] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(!line.contains("HttpOnly"), "{line}");
        let cookie = line.split(';').next().unwrap();
        let other = ask(beside, cookie);
        assert_eq!(other.text(), answer.text());
        assert!(other.header("set-cookie").is_none(), "the other node knows it");
    }
    let cookie = ask(beside, "none=0").header("set-cookie").unwrap().to_owned();
    std::fs::write(second.folder().join("sticky.key"), b"another key, for whatever reason")
        .unwrap();
    wait_until("its cookie is a stranger's", || {
        ask(beside, &cookie).header("set-cookie").is_some()
    });
}

#[test]
fn limits_of_a_head_are_the_listeners() {
    let server = Server::answering(|_| ok("here"));
    let listener = "http = { head = \"1KiB\", headers = 8, target = \"256B\" }\nerrors = \"json\"";
    let web = Web::shaped(&[&server], Shape { listener, ..Shape::default() });
    let ask = |target: &str, lines: &str| -> Message {
        let mut reader = Reader::connect(web.address);
        reader.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{lines}\r\n"));
        reader.response("GET")
    };
    let path = |length: usize| format!("/{}", "x".repeat(length - 1));
    assert_eq!(ask(&path(256), "").status, 200);
    assert_eq!(ask(&path(257), "").status, 414);
    // Beside Host.
    let lines = |count: usize| (0..count).map(|n| format!("A{n}: 1\r\n")).collect::<String>();
    assert_eq!(ask("/", &lines(7)).status, 200);
    let refused = ask("/", &lines(8));
    assert_eq!(refused.status, 431);
    let body: Value = serde_json::from_str(&refused.text()).expect("errors as JSON");
    assert_eq!(body["status"], 431);
    assert_eq!(ask("/", &format!("A: {}\r\n", "x".repeat(1000))).status, 431);
}

#[test]
fn the_server_is_pinged_where_that_is_asked_for() {
    let (told, pongs) = std::sync::mpsc::channel();
    let server = Server::scripted(move |mut reader| {
        let head = reader.head().expect("a request");
        reader.send(ws::switching("").replace(ws::ACCEPT, &ws::accept_for(&head)));
        while let Some(frame) = ws::read_frame(&mut reader) {
            if frame.opcode() == PING {
                assert!(frame.masked, "towards a server every frame is masked");
                reader.send(ws::frame(PONG, false, &frame.payload));
                let _ = told.send(frame.payload.len());
            }
        }
    });
    let listener = "ping = { every = \"1s\", timeout = \"10s\", server = true }";
    let web = Web::shaped(&[&server], Shape { listener, ..Shape::default() });
    let (mut client, _) = ws::open(web.address, "/");
    for _ in 0..2 {
        assert_eq!(pongs.recv_timeout(common::PATIENCE), Ok(8));
        // The client has its own, and hears nothing of the server's.
        let frame = ws::read_frame(&mut client).expect("a Ping");
        assert_eq!(frame.opcode(), PING);
        client.send(ws::frame(PONG, true, &frame.payload));
    }
}

#[test]
fn living_pipes_have_their_tcp_options_on_both_sides() {
    let Some(tool) = peers::tool("ss") else { return };
    let server = Accepting::tcp();
    let bind = address();
    let text = plain(bind, &[server.written.parse().unwrap()])
        + "[timeouts]\ntcp_keepalive = \"77s\"\nuser_timeout = \"5s\"\n";
    let _standpipe = Standpipe::start(&text);
    let mut client = connect(bind);
    let mut far = server.next();
    far.set_read_timeout(Some(common::PATIENCE)).unwrap();
    exchange_with(&mut client, &mut far);
    let shows = |filter: String| {
        let out = Command::new(&tool).args(["-tnoH", "state", "established"]).arg(filter).output();
        let text = String::from_utf8_lossy(&out.expect("ss runs").stdout).into_owned();
        text.contains("keepalive,1min1") && text.lines().count() == 1
    };
    wait_until("keepalive towards the client", || shows(format!("sport = :{}", bind.port())));
    let port = server.written.rsplit(':').next().unwrap();
    wait_until("keepalive towards the server", || shows(format!("dport = :{port}")));
}

/// Both ends of a pipe, which is one from then on.
fn exchange_with(client: &mut std::net::TcpStream, far: &mut socket2::Socket) {
    use std::io::Write;
    client.write_all(b"x").unwrap();
    far.read_exact(&mut [0]).unwrap();
}
