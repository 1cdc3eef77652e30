//! How a request is known: its id, the same wherever it is shown, its line in the log, and what is
//! counted of it.

mod common;

use std::time::Duration;

use common::http::{Reader, Server, ok};
use common::web::{Shape, Web};
use common::ws;

fn logging(servers: &[&Server], connections: &str, listener: &str) -> Web {
    let runtime = format!(
        "[runtime]\nworkers = 1\nadmin = \"{{admin}}\"\nlog = {{ connections = \"{connections}\" }}"
    );
    Web::shaped(servers, Shape { more: &runtime, listener, ..Shape::default() })
}

/// The log's only line with all of `parts`, once it is there.
fn line(web: &Web, parts: &[&str]) -> String {
    let mut found = Vec::new();
    common::wait_until(&format!("a line with {parts:?}"), || {
        let log = web.standpipe.log();
        let fits = |line: &&str| parts.iter().all(|part| line.contains(part));
        found = log.lines().filter(fits).map(str::to_string).collect();
        !found.is_empty()
    });
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn id_of(line: &str) -> &str {
    let rest = line.split("request_id=").nth(1).expect("an id");
    rest.split(' ').next().expect("its end")
}

#[test]
fn a_request_has_one_id_everywhere() {
    let server = Server::answering(|request| match request.head.target() {
        "/mute" => Vec::from("no answer at all\r\n\r\n"),
        _ => ok("x"),
    });
    let web = logging(&[&server], "all", "");
    let mut client = Reader::connect(web.address);
    client.send("GET /one HTTP/1.1\r\nHost: x\r\nX-Request-Id: forged\r\n\r\n");
    client.response("GET");
    client.send("GET /mute HTTP/1.1\r\nHost: x\r\n\r\n");
    let refused = client.response("GET");
    assert_eq!(refused.status, 502);
    client.send("GET /a//b HTTP/1.1\r\nHost: x\r\n\r\n");
    let bad = client.response("GET");
    assert_eq!(bad.status, 400);

    let heads = server.heads();
    for (head, path) in heads.iter().zip(["path=/one", "path=/mute"]) {
        let ids = head.all("x-request-id");
        assert_eq!(ids.len(), 1);
        assert_ne!(ids[0], "forged");
        assert_eq!(ids[0], id_of(&line(&web, &["msg=request", path])));
    }
    assert_eq!(refused.header("x-request-id"), heads[1].header("x-request-id"));
    let bad_line = line(&web, &["msg=request", "path=/a//b"]);
    assert_eq!(bad.header("x-request-id"), Some(id_of(&bad_line)));
    assert!(bad_line.contains(" status=400 answered_by=proxy "));
}

#[test]
fn a_trusted_peers_id_is_kept_if_it_can_be_written_anywhere() {
    let server = ws::echo_server("a");
    let seen = Server::answering(|_| ok("x"));
    for (server, path) in [(&seen, "/"), (&server, "/socket")] {
        let web = logging(&[server], "all", "trusted = [\"127.0.0.0/8\"]");
        let mut client = Reader::connect(web.address);
        let lines = "X-Request-Id: trace-7f/3.a\r\n";
        if path == "/" {
            client.send(format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n"));
        } else {
            client.send(ws::request_with(path, lines));
        }
        client.response("GET");
        line(&web, &["request_id=trace-7f/3.a"]);
        for strange in ["two words", "\"quoted\"", "<b>", "", &"x".repeat(129)] {
            client = Reader::connect(web.address);
            client.send(format!(
                "GET /nowhere HTTP/1.1\r\nHost: x\r\nX-Request-Id: {strange}\r\n\r\n"
            ));
            client.response("GET");
        }
    }
    let heads = seen.heads();
    assert_eq!(heads[0].all("x-request-id"), ["trace-7f/3.a"]);
    assert!(heads[1..].iter().all(|head| head.header("x-request-id").expect("ours").len() == 16));
}

#[test]
fn a_line_says_what_a_request_was_and_never_its_query() {
    let server = Server::answering(|request| ok(&request.text()));
    let web = logging(&[&server], "all", "");
    let mut client = Reader::connect(web.address);
    let request = "PUT /a\"b?token=secret HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    client.send(request);
    let answer = client.response("PUT");
    let line = line(&web, &["msg=request"]);
    for part in [
        "listener=web".to_string(),
        format!("client={}", client.stream.local_addr().expect("an address")),
        "route=/".to_string(),
        format!("server=main/{}", server.address),
        "method=PUT path=\"/a\\\"b\" status=200 answered_by=server duration_ms=".to_string(),
        format!("bytes_from_client={}", request.len()),
        format!("bytes_to_client={}", answer.head.raw.len() + answer.body.len()),
    ] {
        assert!(line.contains(&part), "{part}: {line}");
    }
    assert!(!web.standpipe.log().contains("secret"));
}

#[test]
fn a_sample_has_every_failure_of_ours() {
    let dead = Server::scripted(drop);
    let web = logging(&[&dead], "sampled", "");
    for _ in 0..5 {
        let mut client = Reader::connect(web.address);
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response("GET").status, 502);
    }
    common::wait_until("five lines", || {
        web.standpipe.log().matches("status=502 answered_by=proxy").count() == 5
    });
}

#[test]
fn an_answer_counts_though_its_client_leaves_in_the_middle() {
    let server = Server::scripted(|mut reader| {
        reader.head();
        reader.send("HTTP/1.1 404 Not Found\r\n\r\nso far");
        let part = vec![7; 1 << 16];
        std::thread::sleep(Duration::from_millis(300));
        while std::io::Write::write_all(&mut reader.stream, &part).is_ok() {}
    });
    let web = logging(&[&server], "all", "");
    let mut client = Reader::connect(web.address);
    client.send("GET /left HTTP/1.1\r\nHost: x\r\n\r\n");
    client.head().expect("a head");
    drop(client);
    line(&web, &["msg=request", "path=/left", "status=404", "answered_by=server"]);
    let labels = [("from", "server"), ("class", "4xx")];
    assert_eq!(web.standpipe.metric("standpipe_route_answers_total", &labels), 1.0);
}

#[test]
fn bytes_of_requests_and_answers_are_counted_for_their_server() {
    let server = Server::answering(|_| ok(&"a".repeat(5000)));
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n";
    client.send(head.to_owned() + &"q".repeat(3000));
    assert_eq!(client.response("POST").status, 200);
    // The heads are counted too, as they went out.
    let of = |name: &str| web.standpipe.metric(name, &[]) as u32;
    let (to, from) =
        (of("standpipe_server_bytes_to_total"), of("standpipe_server_bytes_from_total"));
    assert!((3050..4000).contains(&to) && (5020..6000).contains(&from), "{to} {from}");
}
