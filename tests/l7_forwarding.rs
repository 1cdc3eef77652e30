//! What a server is told about the client and the request through a running standpipe: nothing a
//! stranger made up, whatever way it tries.

mod common;

use std::io::Write;
use std::time::Duration;

use common::http::{Reader, Server, ok};
use common::web::{Shape, Web, config};

#[test]
fn a_client_that_has_left_already_is_not_served_under_a_name_of_its_own() {
    let server = Server::answering(|_| ok("x"));
    let web = Web::before(&[&server]);
    // It is gone before it is looked at.
    web.standpipe.stop();
    let mut client = common::connect(web.address);
    let request = "GET /spoofed HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
    client.write_all(request.as_bytes()).expect("taken by the kernel");
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("set");
    drop(client);
    web.standpipe.go_on();
    common::wait_until("its end is counted", || {
        let labels = [("side", "client"), ("stage", "head"), ("cause", "reset")];
        web.standpipe.metric("standpipe_connections_ended_total", &labels) == 1.0
    });
    let mut client = Reader::connect(web.address);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.response("GET").status, 200);
    assert!(server.heads().iter().all(|head| head.all("x-forwarded-for") == ["127.0.0.1"]));
}

#[test]
fn a_stranger_names_no_host_and_no_length_in_disguise() {
    let server = Server::answering(|_| ok("x"));
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    client.send(
        "GET / HTTP/1.0\r\nX-Forwarded-Host: evil.example\r\nX_Forwarded_Host: evil.example\r\n\
         Content_Length: 5\r\nTransfer_Encoding: chunked\r\nx_real_ip: 6.6.6.6\r\n\
         my_header: kept\r\n\r\n",
    );
    assert_eq!(client.response("GET").status, 200);
    let seen = &server.heads()[0];
    let raw = String::from_utf8_lossy(&seen.raw).to_ascii_lowercase();
    assert!(!raw.contains("evil") && !raw.contains("6.6.6.6"), "{raw}");
    assert!(!raw.contains("content_length") && !raw.contains("transfer_encoding"), "{raw}");
    assert_eq!(seen.header("my_header"), Some("kept"));
}

#[test]
fn no_trailer_says_what_a_head_was_judged_by() {
    let server = Server::answering(|_| ok("x"));
    let web = Web::before(&[&server]);
    for (trailers, status) in [
        ("X-Sum: 42\r\n", 200),
        ("X-Sum: 42\r\nX-Forwarded-For: 6.6.6.6\r\n", 400),
        ("Host: other\r\n", 400),
        ("Authorization: Basic YTpi\r\n", 400),
    ] {
        // In one piece, and with its end still to come.
        for pause in [0, 100] {
            let mut client = Reader::connect(web.address);
            client
                .send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
            std::thread::sleep(Duration::from_millis(pause));
            client.send(format!("0\r\n{trailers}\r\n"));
            assert_eq!(client.response("POST").status, status, "{trailers}");
        }
    }
    // Only whole requests were seen.
    assert_eq!(server.heads().len(), 2);
}

/// RFC 9110 §7.6.1: what Connection nominates is for this hop, wherever it stands.
#[test]
fn no_trailer_passes_that_connection_nominates() {
    let server = Server::answering(|_| ok("x"));
    let web = Web::before(&[&server]);
    for (nominated, status) in [("X-Other", 200), ("X-Sum", 400), ("close, x-sum", 400)] {
        for pause in [0, 100] {
            let mut client = Reader::connect(web.address);
            client.send(format!(
                "POST / HTTP/1.1\r\nHost: x\r\nConnection: {nominated}\r\n\
                 Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
            ));
            std::thread::sleep(Duration::from_millis(pause));
            client.send("0\r\nX-Sum: 42\r\n\r\n");
            assert_eq!(client.response("POST").status, status, "{nominated}");
        }
    }
    assert_eq!(server.heads().len(), 2);
}

#[test]
fn whom_a_listener_trusts_may_change_between_two_requests() {
    let server = Server::answering(|_| ok("x"));
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    let request = "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 6.6.6.6, 7.7.7.7\r\n\r\n";
    client.send(request);
    client.response("GET");
    let shape = Shape { listener: "trusted = [\"127.0.0.0/8\"]", ..Shape::default() };
    web.standpipe.reload(&config(web.address, &[&server], &shape));
    client.send(request);
    client.response("GET");
    let heads = server.heads();
    for (name, before, after) in [
        ("x-forwarded-for", "127.0.0.1", "6.6.6.6, 7.7.7.7, 127.0.0.1"),
        ("x-real-ip", "127.0.0.1", "7.7.7.7"),
    ] {
        assert_eq!([heads[0].all(name), heads[1].all(name)], [[before], [after]]);
    }
}

#[test]
fn the_real_address_is_the_last_that_nobody_trusted_stands_for() {
    let server = Server::answering(|_| ok("x"));
    let listener = "trusted = [\"127.0.0.0/8\", \"7.7.0.0/16\"]";
    let web = Web::shaped(&[&server], Shape { listener, ..Shape::default() });
    let mut client = Reader::connect(web.address);
    for (hops, real) in [
        ("1.1.1.1, 6.6.6.6, 7.7.7.7", "6.6.6.6"),
        ("6.6.6.6:1234", "6.6.6.6"),
        ("7.7.7.7, [2001:db8::1]:80, 7.7.1.1", "2001:db8::1"),
        ("7.7.7.7, 7.7.1.1", "7.7.7.7"),
        ("6.6.6.6, unknown, 7.7.7.7", "7.7.7.7"),
        ("unknown", "127.0.0.1"),
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {hops}\r\n\r\n");
        client.send(head);
        assert_eq!(client.response("GET").status, 200);
        let heads = server.heads();
        assert_eq!(heads.last().expect("a head").all("x-real-ip"), [real], "{hops}");
    }
}

#[test]
fn a_proxy_header_vouches_for_an_address_and_not_for_what_it_says() {
    let server = Server::answering(|_| ok("x"));
    let listener = "accept_proxy = \"v1\"\ntrusted = [\"127.0.0.0/8\"]";
    let web = Web::shaped(&[&server], Shape { listener, ..Shape::default() });
    for (told, list, real) in [
        ("9.9.9.9", "9.9.9.9", "9.9.9.9"),
        // Another balancer of ours behind it.
        ("127.0.0.9", "6.6.6.6, 127.0.0.9", "6.6.6.6"),
    ] {
        let mut client = Reader::connect(web.address);
        client.send(format!(
            "PROXY TCP4 {told} 127.0.0.1 1234 80\r\nGET / HTTP/1.1\r\nHost: x\r\n\
             X-Forwarded-For: 6.6.6.6\r\n\r\n"
        ));
        assert_eq!(client.response("GET").status, 200);
        let heads = server.heads();
        let head = heads.last().expect("a head");
        assert_eq!([head.all("x-forwarded-for"), head.all("x-real-ip")], [[list], [real]]);
    }
}

/// Version 1 `PROXY UNKNOWN`, version 2 `PROXY` without an address and with a Unix socket's: nobody
/// has said who the client is, so it is not the balancer that is trusted.
#[test]
fn a_client_that_a_proxy_header_does_not_name_is_a_stranger() {
    let server = Server::answering(|_| ok("x"));
    let listener = "accept_proxy = \"any\"\ntrusted = [\"127.0.0.0/8\"]";
    let web = Web::shaped(&[&server], Shape { listener, ..Shape::default() });
    let v2 = |command: u8, family: u8, body: &[u8]| {
        let [high, low] = (body.len() as u16).to_be_bytes();
        [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, family, high, low][..], body].concat()
    };
    for (seconds, (header, list, real)) in (1..).zip([
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1", "127.0.0.1"),
        (v2(0x21, 0x00, &[]), "127.0.0.1", "127.0.0.1"),
        (v2(0x21, 0x31, &[b'/'; 216]), "127.0.0.1", "127.0.0.1"),
        // The balancer itself.
        (v2(0x20, 0x00, &[]), "6.6.6.6, 127.0.0.1", "6.6.6.6"),
    ]) {
        let mut client = Reader::connect(web.address);
        client.send(&header);
        let request = "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
        for reloads in [false, true] {
            if reloads {
                // It is asked anew whom the listener trusts, and must come to the same.
                let pool = &format!("slow_start = \"{seconds}s\"");
                let shape = Shape { listener, pool, ..Shape::default() };
                web.standpipe.reload(&config(web.address, &[&server], &shape));
            }
            client.send(request);
            assert_eq!(client.response("GET").status, 200);
            let heads = server.heads();
            let head = heads.last().expect("a head");
            let told = [head.all("x-forwarded-for"), head.all("x-real-ip")];
            assert_eq!(told, [[list], [real]], "{header:02x?}");
        }
    }
}
