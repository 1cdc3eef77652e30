//! Deadlines of plain HTTP through a running standpipe: each covers what it is named for, nothing
//! beside it, and can be stretched for ever by nobody.

mod common;

use std::io::{Read, Write};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use common::http::{Reader, Server, ok};
use common::web::{Shape, Web};
use common::ws;

const SECOND: Duration = Duration::from_secs(1);

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n")
}

/// A server that reads a request, says `first`, and tells when its connection ended.
fn patient(first: &'static str) -> (Server, Receiver<Duration>) {
    let (told, ends) = std::sync::mpsc::channel();
    let server = Server::scripted(move |mut reader| {
        reader.head();
        reader.send(first);
        let begun = Instant::now();
        reader.rest();
        let _ = told.send(begun.elapsed());
    });
    (server, ends)
}

fn with_timeouts(server: &Server, timeouts: &str) -> Web {
    Web::shaped(&[server], Shape { timeouts, ..Shape::default() })
}

#[test]
fn the_time_of_a_body_is_not_that_of_its_answer() {
    let server = Server::answering(|request| {
        std::thread::sleep(5 * SECOND);
        ok(&request.text())
    });
    let web = with_timeouts(&server, "request = \"3s\"");
    let mut client = Reader::connect(web.address);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n");
    std::thread::sleep(Duration::from_millis(100));
    client.send("hello");
    let answer = client.response("POST");
    assert_eq!((answer.status, answer.text()), (200, "hello".into()));
}

#[test]
fn the_time_of_a_body_is_not_that_of_a_server_that_does_not_take_it() {
    let server = Server::scripted(|mut reader| {
        let head = reader.head().expect("a head");
        std::thread::sleep(3 * SECOND);
        let length: usize = head.header("content-length").expect("one").parse().expect("a number");
        let got = reader.bytes(length).len();
        reader.send(ok(&got.to_string()));
        reader.rest();
    });
    let web = with_timeouts(&server, "request = \"1s\"\nresponse = \"2s\"");
    let mut client = Reader::connect(web.address);
    // More than all buffers on the way hold.
    let length = 32 << 20;
    client.send(format!("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"));
    client.send(vec![7; length]);
    assert_eq!(client.response("PUT").text(), length.to_string());
}

#[test]
fn a_body_may_pause_but_not_dribble() {
    let server = Server::answering(|request| ok(&request.body.len().to_string()));
    let web = with_timeouts(&server, "request = \"4s\"");
    let mut pausing = Reader::connect(web.address);
    pausing.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n");
    for _ in 0..5 {
        std::thread::sleep(SECOND);
        pausing.send(vec![b'x'; 2000]);
    }
    assert_eq!(pausing.response("POST").text(), "10000");

    let mut dribbling = Reader::connect(web.address);
    dribbling.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n");
    let begun = Instant::now();
    while begun.elapsed() < 15 * SECOND && dribbling.stream.write_all(b"x").is_ok() {
        std::thread::sleep(Duration::from_millis(200));
        if !common::is_silent(&mut dribbling.stream, Duration::from_millis(1)) {
            break;
        }
    }
    assert!(begun.elapsed() < 15 * SECOND);
}

#[test]
fn a_body_or_a_head_that_stops_in_the_middle_is_told_408_and_silence_is_told_nothing() {
    let server = Server::answering(|_| ok("x"));
    let web = with_timeouts(&server, "request = \"1s\"\nhandshake = \"1s\"");
    let mut body = Reader::connect(web.address);
    body.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
    let mut head = Reader::connect(web.address);
    head.send("GET / HTTP/1.1\r\nHos");
    let mut second = Reader::connect(web.address);
    second.send(get("/") + "GET / HT");
    let mut silent = Reader::connect(web.address);
    assert_eq!(second.response("GET").status, 200);
    for late in [&mut body, &mut head, &mut second] {
        let answer = late.response("GET");
        assert_eq!(answer.status, 408);
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(late.at_end());
    }
    assert!(silent.at_end());
}

#[test]
fn the_time_of_an_answer_ends_with_its_head() {
    // A stream of events that is quiet for longer than the head may take.
    let server = Server::scripted(|mut reader| {
        reader.head();
        reader.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        std::thread::sleep(3 * SECOND);
        reader.send("6\r\nsecond\r\n0\r\n\r\n");
        reader.rest();
    });
    let web = with_timeouts(&server, "response = \"1s\"");
    let mut client = Reader::connect(web.address);
    client.send(get("/"));
    assert_eq!(client.response("GET").text(), "firstsecond");
}

#[test]
fn a_client_that_reads_slowly_gets_all_of_a_long_answer() {
    let length = 32 << 20;
    let server = Server::scripted(move |mut reader| {
        reader.head();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        reader.send(head);
        reader.send(vec![7; length]);
        reader.rest();
    });
    let web = with_timeouts(&server, "response = \"1s\"\nrequest = \"1s\"");
    let mut client = Reader::connect(web.address);
    client.send(get("/"));
    std::thread::sleep(3 * SECOND);
    assert_eq!(client.response("GET").body.len(), length);
}

#[test]
fn an_answer_that_stops_in_the_middle_falls_to_the_idle_time() {
    let server = Server::scripted(|mut reader| {
        reader.head();
        reader.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
        reader.rest();
    });
    let web = with_timeouts(&server, "response = \"60s\"\nidle = \"1s\"");
    let mut client = Reader::connect(web.address);
    client.send(get("/"));
    assert!(client.try_response("GET").is_none(), "cut, and seen to be cut");
    common::wait_until("it is counted", || {
        let labels = [("side", "server"), ("stage", "http"), ("cause", "idle")];
        web.standpipe.metric("standpipe_connections_ended_total", &labels) == 1.0
    });
}

#[test]
fn an_answer_beside_a_body_that_stops_is_seen_to_be_cut() {
    // Its end is the connection's: only a reset tells that this is none.
    let server = Server::scripted(|mut reader| {
        reader.head();
        reader.send("HTTP/1.1 200 OK\r\n\r\nso far");
        reader.rest();
    });
    let web = with_timeouts(&server, "request = \"1s\"");
    let mut client = common::connect(web.address);
    let request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc";
    client.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    let outcome = client.read_to_end(&mut answer);
    assert!(answer.ends_with(b"so far"));
    assert_eq!(outcome.expect_err("a reset").kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn what_comes_after_an_early_answer_is_waited_for_once() {
    let server = Server::scripted(|mut reader| {
        reader.head();
        reader.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig");
        reader.rest();
    });
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n");
    assert_eq!(client.response("POST").status, 413);
    let begun = Instant::now();
    let mut chunk = [0; 16];
    while begun.elapsed() < 15 * SECOND {
        if client.stream.write_all(b"x").is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(begun.elapsed() < 15 * SECOND, "a byte now and then does not hold it open");
    let _ = client.stream.read(&mut chunk);
    let mut hasty = Reader::connect(web.address);
    hasty.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n");
    assert_eq!(hasty.response("POST").status, 413);
    let part = vec![b'x'; 1 << 20];
    let taken = (0..200).take_while(|_| hasty.stream.write_all(&part).is_ok()).count();
    assert!(taken < 200, "nor do many");
    // The answer was given and the clients went on: nobody is to blame.
    common::wait_until("it is counted", || {
        let labels = [("side", "client"), ("stage", "http"), ("cause", "done")];
        web.standpipe.metric("standpipe_connections_ended_total", &labels) == 2.0
    });
}

/// A client sends `request`, reads as much as `first` if the server said that, and leaves.
fn leave_waiting(request: &str, first: &'static str, reset: bool) {
    let (server, ends) = patient(first);
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    client.send(request);
    std::thread::sleep(Duration::from_millis(300));
    if !first.is_empty() {
        client.head().expect("the beginning of an answer");
    }
    if reset {
        socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).expect("set");
    }
    drop(client);
    // The server would have answered after a minute.
    ends.recv_timeout(10 * SECOND).expect("its connection ended before");
    common::wait_until("the client's end is counted", || {
        let labels = [("side", "client"), ("cause", if reset { "reset" } else { "cut" })];
        web.standpipe.metric("standpipe_connections_ended_total", &labels) == 1.0
    });
}

#[test]
fn a_client_that_leaves_while_it_waits_lets_go_of_its_server() {
    let streaming = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
    std::thread::scope(|scope| {
        for (request, first) in
            [(get("/poll"), ""), (get("/events"), streaming), (ws::request("/socket"), "")]
        {
            for reset in [false, true] {
                let request = request.clone();
                scope.spawn(move || leave_waiting(&request, first, reset));
            }
        }
    });
}

#[test]
fn a_client_that_wants_one_answer_may_say_that_it_sends_no_more() {
    let server = Server::answering(|_| {
        std::thread::sleep(4 * SECOND);
        ok("late")
    });
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    client.stream.shutdown(std::net::Shutdown::Write).expect("half-closed");
    assert_eq!(client.response("GET").text(), "late");
}

/// Its FIN makes a poll for room return at once, every time.
#[test]
fn a_client_that_has_finished_and_reads_slowly_costs_no_processor_time() {
    const LENGTH: usize = 64 << 20;
    let server = Server::answering(|_| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
        [head.into_bytes(), vec![b'x'; LENGTH]].concat()
    });
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    client.stream.shutdown(std::net::Shutdown::Write).expect("half-closed");
    std::thread::sleep(Duration::from_millis(1_500));
    let before = web.standpipe.processor_time();
    std::thread::sleep(2 * SECOND);
    let used = web.standpipe.processor_time() - before;
    assert!(used < Duration::from_millis(150), "{used:?} of processor time in 2 s");
    assert_eq!(client.response("GET").body.len(), LENGTH);
}

#[test]
fn who_expects_to_be_asked_waits_for_the_server() {
    let expecting =
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let (silent, _ends) = patient("");
    let web = with_timeouts(&silent, "request = \"20s\"\nresponse = \"1s\"");
    let mut client = Reader::connect(web.address);
    client.send(expecting);
    assert_eq!(client.response("POST").status, 504, "the server said nothing");
    // Once it is asked, it is the client that is waited for.
    let (asking, _ends) = patient("HTTP/1.1 100 Continue\r\n\r\n");
    let web = with_timeouts(&asking, "request = \"1s\"\nresponse = \"20s\"");
    let mut client = Reader::connect(web.address);
    client.send(expecting);
    assert_eq!(client.response("POST").status, 408, "the client sent nothing");
    // One that does not wait to be asked is served as anybody.
    let plain = Server::answering(|request| ok(&request.text()));
    let web = with_timeouts(&plain, "request = \"10s\"\nresponse = \"10s\"");
    let mut client = Reader::connect(web.address);
    client.send(expecting);
    std::thread::sleep(Duration::from_millis(300));
    client.send("hello");
    assert_eq!(client.response("POST").text(), "hello");
}

#[test]
fn an_empty_line_behind_a_body_begins_no_request() {
    let server = Server::answering(|request| ok(&request.text()));
    let web = with_timeouts(&server, "handshake = \"1s\"\nkeepalive = \"20s\"");
    let mut client = Reader::connect(web.address);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello\r\n");
    assert_eq!(client.response("POST").text(), "hello");
    std::thread::sleep(Duration::from_millis(1_500));
    client.send(get("/"));
    assert_eq!(client.response("GET").status, 200);
}
