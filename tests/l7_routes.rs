//! Where requests go through a running standpipe: by host, path and conditions, by share, and to
//! the server that a client is tied to.

mod common;

use std::collections::{HashMap, HashSet};

use common::http::{Message, Reader, Server, ok};
use common::web::{Shape, Web};
use common::{Standpipe, ws};

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn named(name: &'static str) -> Server {
    Server::answering(move |_| ok(name))
}

/// An l7 listener with these routes (what stands in their tables) and these tables.
fn routed(routes: &[&str], tables: &str) -> Web {
    let address = common::address();
    let routes: String =
        routes.iter().map(|route| format!("[[listeners.web.routes]]\n{route}\n")).collect();
    let text = format!("[listeners.web]\nbind = [\"{address}\"]\nmode = \"l7\"\n{routes}{tables}");
    Web { standpipe: Standpipe::start(&text), address }
}

fn pool(name: &str, server: &Server) -> String {
    format!("[pools.{name}]\nservers = [\"{}\"]\n", server.address)
}

fn ask(web: &Web, target: &str, lines: &str) -> Message {
    let mut client = Reader::connect(web.address);
    let host = if lines.contains("Host:") { "" } else { "Host: a.example\r\n" };
    client.send(format!("GET {target} HTTP/1.1\r\n{host}{lines}\r\n"));
    client.response("GET")
}

/// The pair of a `Set-Cookie` line.
fn cookie(answer: &common::http::Head) -> Option<String> {
    let line = answer.header("set-cookie")?;
    Some(line.split(';').next().unwrap_or_default().to_string())
}

#[test]
fn hosts_and_conditions_lead_to_their_pools() {
    let names = ["plain", "suffix", "host", "protocol", "query", "header"];
    let servers: Vec<Server> = names.into_iter().map(named).collect();
    let tables: String =
        names.iter().zip(&servers).map(|(name, server)| pool(name, server)).collect();
    let web = routed(
        &[
            "path = \"/\"\npool = \"plain\"",
            "host = \"*.example.org\"\npool = \"suffix\"",
            "host = \"chat.example.org\"\npool = \"host\"",
            "path = \"/chat\"\nprotocol = \"chat.v2\"\npool = \"protocol\"",
            "path = \"/chat\"\nquery = { beta = \"1\" }\npool = \"query\"",
            "path = \"/chat\"\nheader = { \"X-Canary\" = \"yes\" }\npool = \"header\"",
        ],
        &tables,
    );
    for (target, lines, name) in [
        ("/", "", "plain"),
        ("/chat", "", "plain"),
        ("/chat", "Sec-WebSocket-Protocol: chat.v1, chat.v2\r\n", "protocol"),
        ("/chat", "Sec-WebSocket-Protocol: chat.v1\r\n", "plain"),
        ("/chat/room?beta=1&x=2", "", "query"),
        ("/chat?beta=%31", "", "query"),
        ("/chat?beta=2&beta=1", "", "plain"),
        ("/chat", "x-canary: yes\r\n", "header"),
        ("/chat", "X-Canary: yes, no\r\n", "plain"),
        ("/chat", "Host: a.example.org\r\n", "suffix"),
        ("/", "Host: A.B.Example.ORG:8080\r\n", "suffix"),
        ("/", "Host: example.org\r\n", "plain"),
        ("/x", "Host: chat.example.org\r\n", "host"),
    ] {
        assert_eq!(ask(&web, target, lines).text(), name, "{target} {lines}");
    }
}

#[test]
fn a_query_goes_on_as_a_browser_wrote_it() {
    let server = named("x");
    let web = Web::before(&[&server]);
    let target = "/a?path=C:\\dir&list={1|2}&hat=^`\"<>&name=\u{e9}";
    assert_eq!(ask(&web, target, "").status, 200);
    assert_eq!(server.heads()[0].target(), target);
    assert_eq!(ask(&web, "/a\\b", "").status, 400);
}

#[test]
fn a_question_to_the_server_itself_goes_to_the_pages_of_its_host() {
    let (pages, other) = (named("pages"), named("other"));
    let routes = ["path = \"/\"\npool = \"pages\"", "path = \"/other\"\npool = \"other\""];
    let web = routed(&routes, &(pool("pages", &pages) + &pool("other", &other)));
    let mut client = Reader::connect(web.address);
    client.send("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(client.response("OPTIONS").text(), "pages");
    assert_eq!(pages.heads()[0].start, "OPTIONS * HTTP/1.1");
    client.send("GET * HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(client.response("GET").status, 400);
}

#[test]
fn a_split_shares_out_by_weight() {
    let (big, small) = (named("big"), named("small"));
    let split = ["path = \"/\"\nsplit = { big = 3, small = 1 }"];
    let web = routed(&split, &(pool("big", &big) + &pool("small", &small)));
    let mut counts: HashMap<String, u32> = HashMap::new();
    let mut client = Reader::connect(web.address);
    for _ in 0..800 {
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        *counts.entry(client.response("GET").text()).or_default() += 1;
    }
    // Six hundred of eight hundred, give or take five times what chance does.
    assert!((540..=660).contains(&counts["big"]), "{counts:?}");
}

#[test]
fn a_key_keeps_its_pool() {
    let (old, new) = (named("old"), named("new"));
    let sticky = "sticky = { query = \"room\" }\n";
    let tables = pool("old", &old) + sticky + &pool("new", &new) + sticky;
    let web = routed(&["path = \"/\"\nsplit = { old = 1, new = 1 }"], &tables);
    let mut counts: HashMap<String, u32> = HashMap::new();
    for room in 0..40 {
        let target = format!("/?room={room}");
        let first = ask(&web, &target, "").text();
        for _ in 0..4 {
            assert_eq!(ask(&web, &target, "").text(), first, "{target}");
        }
        *counts.entry(first).or_default() += 1;
    }
    assert_eq!(counts.len(), 2, "both have some: {counts:?}");
}

#[test]
fn the_share_of_a_pool_that_cannot_serve_falls_to_the_others() {
    let (open, shut) = (named("open"), named("shut"));
    let tables = |open_drains: bool| {
        format!(
            "[pools.open]\nservers = [{{ address = \"{}\", drain = {open_drains} }}]\n\
             [pools.shut]\nservers = [{{ address = \"{}\", drain = true }}]\n",
            open.address, shut.address
        )
    };
    let split = ["path = \"/\"\nsplit = { open = 1, shut = 9 }"];
    let web = routed(&split, &tables(false));
    for _ in 0..30 {
        assert_eq!(ask(&web, "/", "").text(), "open");
    }
    let none = routed(&split, &tables(true));
    assert_eq!(ask(&none, "/", "").status, 503);
}

#[test]
fn a_websocket_gets_its_cookie_on_the_101_and_comes_back_with_it() {
    let servers = [ws::echo_server("a"), ws::echo_server("b"), ws::echo_server("c")];
    let sticky = format!("sticky = {{ cookie = \"sp\", key = \"{KEY}\" }}");
    let all: Vec<&Server> = servers.iter().collect();
    let web = Web::shaped(&all, Shape { pool: &sticky, ..Shape::default() });
    let (_first, head) = ws::open(web.address, "/chat");
    let pair = cookie(&head).expect("a cookie on the 101");
    let server = head.header("x-server").expect("a name").to_string();
    let mut held = Vec::new();
    for _ in 0..6 {
        let (socket, head) = ws::open_with(web.address, "/chat", &format!("Cookie: {pair}\r\n"));
        assert_eq!(head.header("x-server"), Some(&*server));
        assert_eq!(cookie(&head), None, "it has it already");
        held.push(socket);
    }
    assert_eq!(ask(&web, "/page", &format!("Cookie: {pair}\r\n")).text(), server);
}

#[test]
fn an_answer_with_a_cookie_of_ours_is_for_its_client_alone() {
    let server = Server::answering(|request| match request.head.target() {
        "/public" => {
            b"HTTP/1.1 200 OK\r\nCache-Control: public, max-age=60\r\nContent-Length: 1\r\n\r\nx"
                .to_vec()
        }
        _ => ok("x"),
    });
    let sticky = format!("sticky = {{ cookie = \"sp\", key = \"{KEY}\" }}");
    let web = Web::shaped(&[&server], Shape { pool: &sticky, ..Shape::default() });
    let fresh = ask(&web, "/", "");
    assert_eq!(fresh.head.all("cache-control"), ["private"]);
    let pair = cookie(&fresh.head).expect("a cookie");
    let tied = ask(&web, "/", &format!("Cookie: {pair}\r\n"));
    assert_eq!(tied.header("cache-control"), None);
    let public = ask(&web, "/public", "");
    assert_eq!(public.head.all("cache-control"), ["public, max-age=60"], "the server's own word");
}

#[test]
fn a_draining_server_keeps_the_requests_of_its_clients_and_gets_no_others() {
    let (a, b) = (named("a"), named("b"));
    let address = common::address();
    let config = |drain: &str| {
        format!(
            "[listeners.web]\nbind = [\"{address}\"]\nmode = \"l7\"\n\
             [[listeners.web.routes]]\npool = \"main\"\n\
             [pools.main]\nbalance = \"round-robin\"\n\
             servers = [{{ address = \"{}\"{drain} }}, \"{}\"]\n\
             sticky = {{ cookie = \"sp\", key = \"{KEY}\" }}\n",
            a.address, b.address
        )
    };
    let web = Web { standpipe: Standpipe::start(&config("")), address };
    let answers: Vec<Message> = (0..4).map(|_| ask(&web, "/", "")).collect();
    let tied = answers.iter().find(|answer| answer.text() == "a").expect("one of four on a");
    let pair = cookie(&tied.head).expect("a cookie");
    web.standpipe.reload(&config(", drain = true"));
    for _ in 0..10 {
        assert_eq!(ask(&web, "/", "").text(), "b");
        assert_eq!(ask(&web, "/", &format!("Cookie: {pair}\r\n")).text(), "a");
    }
}

#[test]
fn a_header_or_a_parameter_has_one_server() {
    let names = ["a", "b", "c", "d"];
    let servers: Vec<Server> = names.into_iter().map(named).collect();
    let all: Vec<&Server> = servers.iter().collect();
    for (sticky, target, lines) in [
        ("sticky = { header = \"X-User\" }", "/", "X-User: NAME\r\n"),
        ("sticky = { query = \"room\" }", "/?x=1&room=NAME", ""),
    ] {
        let web = Web::shaped(&all, Shape { pool: sticky, ..Shape::default() });
        let place = |name: &str| {
            let answer = ask(&web, &target.replace("NAME", name), &lines.replace("NAME", name));
            assert_eq!(answer.status, 200);
            answer.text()
        };
        let mut seen = HashSet::new();
        for n in 0..24 {
            let name = format!("name-{n}");
            let first = place(&name);
            assert_eq!([place(&name), place(&name)], [first.clone(), first.clone()], "{sticky}");
            seen.insert(first);
        }
        assert!(seen.len() > 2, "{sticky}: {seen:?}");
    }
}

#[test]
fn errors_are_json_where_the_file_says_so() {
    let gone = Server::scripted(drop);
    let web = Web::shaped(&[&gone], Shape { listener: "errors = \"json\"", ..Shape::default() });
    for (target, status) in [("/", 502), ("/a//b", 400)] {
        let answer = ask(&web, target, "Accept: text/html\r\n");
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let value: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(value["status"], status);
        assert_eq!(value["request_id"].as_str(), answer.header("x-request-id"));
    }
}

#[test]
fn a_listener_that_left_the_file_serves_one_more_request() {
    let server = named("x");
    let (address, other) = (common::address(), common::address());
    let config = |name: &str, address| {
        format!(
            "[listeners.{name}]\nbind = [\"{address}\"]\nmode = \"l7\"\n\
             [[listeners.{name}.routes]]\npool = \"main\"\n{}",
            pool("main", &server)
        )
    };
    let standpipe = Standpipe::start(&config("web", address));
    let mut client = Reader::connect(address);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.response("GET").header("connection"), None);
    standpipe.reload(&config("next", other));
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let last = client.response("GET");
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert!(client.at_end());
}
