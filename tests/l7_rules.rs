//! What RFC 9110 and RFC 9112 ask of whoever stands in between, through a running standpipe.

mod common;

use common::http::{Reader, Server, ok};
use common::web::{Shape, Web};
use common::ws;

/// RFC 9112 §3.2.1 and §3.2.4: the server is not told that its client took it for a proxy.
#[test]
fn an_absolute_target_goes_on_as_path_and_query() {
    let server = Server::answering(|_| ok("x"));
    let web = Web::before(&[&server]);
    for (method, target, host, goes) in [
        ("GET", "http://a.example/b?c", "a.example", "/b?c"),
        ("GET", "https://a.example", "a.example:443", "/"),
        ("GET", "http://a.example?c", "a.example:80", "/?c"),
        ("GET", "ws://a.example/", "a.example", "/"),
        ("OPTIONS", "http://a.example", "a.example", "*"),
        ("OPTIONS", "*", "a.example", "*"),
    ] {
        let mut client = Reader::connect(web.address);
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.response(method).status, 200, "{target}");
        let heads = server.heads();
        let head = heads.last().expect("a head");
        assert_eq!((head.target(), head.all("host")), (goes, vec![host]), "{target}");
    }
    let mut client = Reader::connect(web.address);
    client.send("GET http://a.example:81/ HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(client.response("GET").status, 400);
}

#[test]
fn a_websocket_may_be_asked_for_by_its_whole_address() {
    let web = Web::before(&[&ws::echo_server("a")]);
    for target in ["ws://x/chat", "ws://x?room=1"] {
        let request = ws::request("/here").replace("GET /here ", &format!("GET {target} "));
        let host = request.lines().find_map(|line| line.strip_prefix("Host: ")).expect("a host");
        let request = request.replace("ws://x", &format!("ws://{host}"));
        let mut client = Reader::connect(web.address);
        client.send(request);
        assert_eq!(client.response("GET").status, 101, "{target}");
    }
}

/// RFC 9110 §7.6.2.
#[test]
fn a_trace_and_an_options_go_no_further_than_they_may() {
    let server = Server::answering(|_| ok("x"));
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    for (method, target, hops, status) in [
        ("OPTIONS", "/", "0", 200),
        ("OPTIONS", "*", "0", 200),
        ("TRACE", "/", "0", 405),
        ("TRACE", "/", "1", 200),
        ("OPTIONS", "*", "10", 200),
        ("GET", "/", "0", 200),
    ] {
        let before = server.heads().len();
        let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nMax-Forwards: {hops}\r\n\r\n");
        client.send(head);
        let answer = client.response(method);
        assert_eq!(answer.status, status, "{method} {hops}");
        let heads = server.heads();
        if method == "GET" {
            assert_eq!(heads[before].all("max-forwards"), ["0"], "the field says nothing of a GET");
        } else if hops == "0" {
            assert_eq!(heads.len(), before, "{method} is answered here");
            assert!(answer.header("allow").expect("a list").contains("OPTIONS"));
            assert_eq!(answer.body.is_empty(), method == "OPTIONS");
        } else {
            let left = (hops.parse::<u32>().expect("a number") - 1).to_string();
            assert_eq!(heads[before].all("max-forwards"), [left]);
        }
    }
    client.send("OPTIONS / HTTP/1.1\r\nHost: x\r\nMax-Forwards: many\r\n\r\n");
    assert_eq!(client.response("OPTIONS").status, 400);
}

/// RFC 9110 §6.6.1.
#[test]
fn an_answer_without_a_date_gets_the_one_it_came_at() {
    const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    let server = Server::answering(|request| match request.head.target() {
        "/none" => ok("x"),
        "/own" => format!("HTTP/1.1 304 Same\r\nDate: {OLD}\r\n\r\n").into_bytes(),
        _ => format!("HTTP/1.1 204 No\r\nConnection: date\r\nDate: {OLD}\r\n\r\n").into_bytes(),
    });
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    let mut dates = |path: &str| {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let answer = client.response("GET");
        answer.head.all("date").into_iter().map(str::to_string).collect::<Vec<_>>()
    };
    assert_eq!(dates("/own"), [OLD]);
    for path in ["/none", "/nominated"] {
        let told = dates(path);
        assert_eq!(told.len(), 1, "{path}");
        let date = httpdate::parse_http_date(&told[0]).expect("as RFC 9110 writes it");
        let age = std::time::SystemTime::now().duration_since(date).expect("not in the future");
        assert!(age < common::PATIENCE, "{path}: {age:?}");
    }
}

#[test]
fn an_interim_answer_and_a_switch_of_protocols_get_no_date() {
    let server = Server::scripted(|mut reader| {
        reader.head();
        reader.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        reader.send(ok("x"));
        reader.rest();
    });
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.head().expect("an interim").header("date"), None);
    assert!(client.response("GET").header("date").is_some());
    let web = Web::before(&[&ws::echo_server("a")]);
    let mut client = Reader::connect(web.address);
    client.send(ws::request("/"));
    let answer = client.response("GET");
    assert_eq!((answer.status, answer.header("date")), (101, None));
}

/// RFC 9110 §9.3.2.
#[test]
fn a_head_request_that_cannot_be_read_is_answered_without_a_body() {
    let server = Server::answering(|_| ok("never"));
    let timeouts = "handshake = \"1s\"";
    let web = Web::shaped(&[&server], Shape { timeouts, ..Shape::default() });
    for (request, status) in [
        ("HEAD / HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n", " 400 "),
        ("\r\nHEAD / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", " 400 "),
        ("HEAD / HTTP/1.1\r\nHost: x\r\n", " 408 "),
    ] {
        let mut client = Reader::connect(web.address);
        client.send(request);
        let head = client.head().expect("a head");
        assert!(head.start.contains(status), "{request:?}: {}", head.start);
        assert_ne!(head.header("content-length"), Some("0"), "{request:?}");
        assert!(client.at_end(), "{request:?}");
    }
    let mut client = Reader::connect(web.address);
    client.send("GET / HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n");
    assert!(!client.response("GET").body.is_empty());
    assert_eq!(server.accepted(), 0);
}

/// RFC 9110 §10.1.1.
#[test]
fn an_old_client_expects_nothing() {
    let server = Server::answering(|request| ok(&request.text()));
    let web = Web::before(&[&server]);
    for (version, expected) in [("1.0", None), ("1.1", Some("100-continue"))] {
        let mut client = Reader::connect(web.address);
        client.send(format!(
            "POST / HTTP/{version}\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n\
             hello"
        ));
        assert_eq!(client.response("POST").text(), "hello");
        let heads = server.heads();
        assert_eq!(heads.last().expect("a head").header("expect"), expected, "{version}");
    }
}

/// RFC 9112 §5.1.
#[test]
fn an_answers_blank_before_a_colon_is_taken_out() {
    let server = Server::answering(|_| {
        Vec::from("HTTP/1.1 200 OK\r\nContent-Length : 2\r\nX-Own \t: y\r\n\r\nok")
    });
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = client.response("GET");
        assert_eq!((answer.status, answer.text()), (200, "ok".into()));
        assert_eq!(answer.header("x-own"), Some("y"));
        assert!(!String::from_utf8_lossy(&answer.head.raw).contains(" :"));
    }
    assert_eq!(server.accepted(), 1, "its length was understood");
}

/// RFC 9112 §7.1.1: some servers write every size in a field of fixed width.
#[test]
fn an_answers_chunk_sizes_may_have_blanks_behind_them() {
    let server = Server::answering(|_| {
        Vec::from(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
             5  \r\nhello\r\n1 ;a=b\r\n!\r\n0 \r\n\r\n",
        )
    });
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    for version in ["1.1", "1.0"] {
        client.send(format!("GET / HTTP/{version}\r\nHost: x\r\n\r\n"));
        assert_eq!(client.response("GET").text(), "hello!", "{version}");
    }
    let mut client = Reader::connect(web.address);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\n");
    assert_eq!(client.response("POST").status, 400, "a request stays strict");
}
