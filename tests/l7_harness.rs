//! The harness itself: its frame maker and its HTTP reader agree with implementations from
//! elsewhere before any other test leans on them.

mod common;

use common::http::{Reader, Server, ok};
use common::ws;

#[test]
fn the_readers_agree_with_the_scripted_server() {
    let server = Server::answering(|request| ok(request.head.target()));
    let mut client = Reader::connect(server.address);
    for path in ["/one", "/two"] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(client.response("GET").text(), path);
    }
    assert_eq!(server.accepted(), 1);
    assert_eq!(server.heads().len(), 2);
}

#[test]
fn a_foreign_client_can_talk_to_the_echo_server() {
    let server = ws::echo_server("a");
    let stream = common::connect(server.address);
    let (mut socket, response) =
        tungstenite::client(format!("ws://{}/chat", server.address), stream).expect("an upgrade");
    assert_eq!(response.status(), 101);
    socket.send(tungstenite::Message::text("hello")).expect("sent");
    assert_eq!(socket.read().expect("an echo"), tungstenite::Message::text("hello"));
}

#[test]
fn ports_are_never_given_twice() {
    let mut ports: Vec<u16> = (0..200).map(|_| common::port()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 200);
}

#[test]
fn metrics_are_added_up_over_matching_samples() {
    let text = "# HELP a b\na{core=\"0\",x=\"1\"} 2\na{core=\"1\",x=\"1\"} 3\nab 7\na{x=\"2\"} 1\n";
    assert_eq!(common::sum_metric(text, "a", &[("x", "1")]), 5.0);
    assert_eq!(common::sum_metric(text, "a", &[]), 6.0);
}
