//! PROXY headers at an L4 listener: what is believed, what is refused and how it is counted, and
//! what a server is told.

mod common;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use common::Standpipe;
use common::l4::{self, Accepting};
use socket2::Socket;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const TRUSTING: &str = "trusted = [\"127.0.0.0/8\"]";

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u16).to_be_bytes();
    [SIGNATURE, &[command, family], &length, body].concat()
}

/// 192.0.2.1:1000 to 198.51.100.2:2000, and what may follow.
fn ipv4(more: &[u8]) -> Vec<u8> {
    [&[192, 0, 2, 1, 198, 51, 100, 2, 0x03, 0xe8, 0x07, 0xd0], more].concat()
}

fn ipv6() -> Vec<u8> {
    let mut body = vec![0; 36];
    body[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    body[15] = 1;
    body[16..20].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    body[31] = 2;
    body[32..].copy_from_slice(&[0x03, 0xe8, 0x07, 0xd0]);
    body
}

/// A standpipe that takes headers as said and tells its server in version 1.
fn taking(edge: SocketAddr, accepts: &str, server: &str) -> Standpipe {
    let listener = format!("accept_proxy = \"{accepts}\"\n{TRUSTING}");
    let timeouts = "[timeouts]\nhandshake = \"2s\"";
    let pool = "send_proxy = \"v1\"";
    Standpipe::start(&l4::config(edge, &[server], &listener, pool, timeouts))
}

/// The line a server is told, which ends with CRLF, and the byte behind it.
fn told(mut server: &Socket) -> String {
    let mut line = Vec::new();
    let mut byte = [0; 1];
    while !line.ends_with(b"\r\n") {
        server.read_exact(&mut byte).expect("a line");
        line.push(byte[0]);
    }
    assert_eq!(l4::get(server, 5), b"hello", "behind {}", String::from_utf8_lossy(&line));
    String::from_utf8_lossy(&line).trim_end().to_string()
}

const TOLD_V4: &str = "PROXY TCP4 192.0.2.1 198.51.100.2 1000 2000";
/// A client that the balancer did not name is named by nobody further on.
const UNNAMED: &str = "PROXY UNKNOWN";

#[test]
fn good_headers_are_believed() {
    let (edge, server) = (common::address(), Accepting::tcp());
    let _pipe = taking(edge, "any", &server.written);
    let longest = "PROXY TCP6 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff \
                   2001:db8:ffff:ffff:ffff:ffff:ffff:fffe 65535 65534";
    let tlv = [0x04, 0, 3, 1, 2, 3];
    let cases: [(Vec<u8>, Option<&str>); 12] = [
        (format!("{TOLD_V4}\r\n").into(), Some(TOLD_V4)),
        (format!("{longest}\r\n").into(), Some(longest)),
        (b"PROXY UNKNOWN\r\n".to_vec(), Some(UNNAMED)),
        (b"PROXY UNKNOWN whatever this may mean\r\n".to_vec(), Some(UNNAMED)),
        (v2(0x21, 0x11, &ipv4(&[])), Some(TOLD_V4)),
        (v2(0x21, 0x11, &ipv4(&tlv)), Some(TOLD_V4)),
        (v2(0x21, 0x21, &ipv6()), Some("PROXY TCP6 2001:db8::1 2001:db8::2 1000 2000")),
        (v2(0x20, 0x00, &[]), None),
        (v2(0x20, 0x11, &ipv4(&[])), None),
        (v2(0x20, 0x00, &[0; 40]), None),
        (v2(0x20, 0xff, &[0; 40]), None),
        (v2(0x21, 0x00, &[9; 7]), Some(UNNAMED)),
    ];
    for (header, expected) in cases {
        let client = l4::reach(edge);
        (&client).write_all(&[&header[..], b"hello"].concat()).expect("taken");
        let ours = client.local_addr().expect("an address").as_socket().expect("an IP address");
        let own = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}", ours.port(), edge.port());
        assert_eq!(told(&server.next()), expected.unwrap_or(&own), "{header:02x?}");
    }
}

#[test]
fn a_header_may_come_byte_by_byte() {
    let (edge, server) = (common::address(), Accepting::tcp());
    let _pipe = taking(edge, "any", &server.written);
    for header in [format!("{TOLD_V4}\r\n").into_bytes(), v2(0x21, 0x11, &ipv4(&[4, 0, 1, 7]))] {
        let client = l4::reach(edge);
        client.set_tcp_nodelay(true).expect("no delay");
        for byte in header {
            (&client).write_all(&[byte]).expect("taken");
            std::thread::sleep(Duration::from_millis(2));
        }
        (&client).write_all(b"hello").expect("taken");
        assert_eq!(told(&server.next()), TOLD_V4);
    }
}

#[test]
fn bad_headers_are_refused_and_reach_no_server() {
    let (edge, server) = (common::address(), Accepting::tcp());
    let pipe = taking(edge, "any", &server.written);
    let no_end = [b"PROXY TCP4 ".as_slice(), &[b'1'; 120]].concat();
    let mut late_signature = v2(0x21, 0x11, &ipv4(&[]));
    late_signature[11] = b'\r';
    let cases: [(&str, &[u8]); 16] = [
        ("missing", b"GET / HTTP/1.1\r\n\r\n"),
        ("missing", &[0; 64]),
        ("missing", b"PROXX TCP4 1.2.3.4 1.2.3.4 1 2\r\n"),
        ("missing", &late_signature),
        ("bad", &no_end),
        ("bad", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\nhello"),
        ("bad", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 70000\r\n"),
        ("bad", b"PROXY TCP4 ::1 ::1 1 2\r\n"),
        ("bad", b"PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n"),
        ("bad", b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n"),
        ("bad", &v2(0x21, 0x11, &ipv4(&[4, 0, 200, 1]))),
        ("bad", &v2(0x21, 0x11, &ipv4(&[4, 0]))),
        ("bad", &v2(0x21, 0x11, &[1; 11])),
        ("bad", &v2(0x21, 0x21, &ipv4(&[]))),
        ("version", &v2(0x22, 0x11, &ipv4(&[]))),
        ("version", &v2(0x11, 0x11, &ipv4(&[]))),
    ];
    for (cause, bytes) in cases {
        let ending = format!("client/front/proxy_header_{cause}");
        let before = l4::ended(&pipe, &ending);
        let client = l4::reach(edge);
        (&client).write_all(bytes).expect("taken");
        l4::outcome(&client);
        let shown = String::from_utf8_lossy(bytes).into_owned();
        common::wait_until(&shown, || l4::ended(&pipe, &ending) == before + 1);
    }
    assert!(server.next_within(Duration::from_millis(100)).is_none());
}

#[test]
fn only_the_version_asked_for_is_taken() {
    for (accepts, header) in
        [("v1", v2(0x21, 0x11, &ipv4(&[]))), ("v2", format!("{TOLD_V4}\r\n").into_bytes())]
    {
        let (edge, server) = (common::address(), Accepting::tcp());
        let pipe = taking(edge, accepts, &server.written);
        let client = l4::reach(edge);
        (&client).write_all(&header).expect("taken");
        l4::outcome(&client);
        l4::wait_ended(&pipe, "client/front/proxy_header_missing", 1);
    }
}

#[test]
fn a_header_cut_by_the_end_is_told_apart_from_silence() {
    let (edge, server) = (common::address(), Accepting::tcp());
    let pipe = taking(edge, "any", &server.written);
    drop(l4::reach(edge));
    l4::wait_ended(&pipe, "client/front/quiet", 1);
    let client = l4::reach(edge);
    (&client).write_all(b"PROXY TCP4").expect("taken");
    l4::finish(&client);
    l4::outcome(&client);
    l4::wait_ended(&pipe, "client/front/proxy_header_missing", 1);
}

#[test]
fn an_untrusted_peer_is_closed_whatever_it_says() {
    let (edge, server) = (common::address(), Accepting::tcp());
    let listener = "accept_proxy = \"any\"\ntrusted = [\"127.0.0.9\", \"10.0.0.0/8\"]";
    let pipe = Standpipe::start(&l4::config(edge, &[&server.written], listener, "", ""));
    let client = l4::reach(edge);
    let _ = (&client).write_all(format!("{TOLD_V4}\r\n").as_bytes());
    l4::outcome(&client);
    l4::wait_ended(&pipe, "client/front/untrusted", 1);
    let trusted = l4::try_reach(edge, Some([127, 0, 0, 9].into())).expect("a connection");
    (&trusted).write_all(format!("{TOLD_V4}\r\nhello").as_bytes()).expect("taken");
    assert_eq!(l4::get(&server.next(), 5), b"hello");
}

#[test]
fn the_client_a_header_names_is_the_one_balanced_by() {
    let edge = common::address();
    let servers = [Accepting::tcp(), Accepting::tcp(), Accepting::tcp()];
    let written: Vec<&str> = servers.iter().map(|server| &*server.written).collect();
    let listener = format!("accept_proxy = \"v1\"\n{TRUSTING}");
    let pool = "balance = \"source-hash\"\nbounded = false";
    let _pipe = Standpipe::start(&l4::config(edge, &written, &listener, pool, ""));
    let mut used = [0; 3];
    for host in 0..40 {
        let client = l4::reach(edge);
        let header = format!("PROXY TCP4 192.0.2.{host} 198.51.100.2 1000 2000\r\n");
        (&client).write_all(header.as_bytes()).expect("taken");
        let arrived = |server: &Accepting| server.next_within(Duration::from_millis(2)).is_some();
        let at = std::iter::repeat_with(|| servers.iter().position(arrived)).flatten().next();
        used[at.expect("it arrives somewhere")] += 1;
    }
    assert!(used.iter().all(|count| *count > 0), "{used:?}");
}

/// What a server reads at once when a client's first bytes are there before the dial is done.
fn first_read(version: &str, server: &Accepting) -> (Vec<u8>, u16, u16) {
    let edge = common::address();
    let pool = format!("send_proxy = \"{version}\"");
    let pipe = Standpipe::start(&l4::config(edge, &[&server.written], "", &pool, ""));
    // Held still, so that connection and first bytes are both there when it looks.
    pipe.stop();
    let client = l4::reach(edge);
    (&client).write_all(b"first bytes").expect("taken");
    pipe.go_on();
    let mut at_server = server.next();
    let mut bytes = vec![0; 4096];
    let n = at_server.read(&mut bytes).expect("a header");
    bytes.truncate(n);
    let ours = client.local_addr().expect("an address").as_socket().expect("an IP address");
    (&client).write_all(b", more").expect("taken");
    assert_eq!(l4::get(&at_server, 6), b", more");
    (bytes, ours.port(), edge.port())
}

#[test]
fn version_1_goes_out_with_the_first_bytes() {
    let (bytes, ours, edge) = first_read("v1", &Accepting::tcp());
    let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {ours} {edge}\r\nfirst bytes");
    assert_eq!(String::from_utf8_lossy(&bytes), line);
}

#[test]
fn version_2_goes_out_with_the_first_bytes() {
    let (bytes, ours, edge) = first_read("v2", &Accepting::tcp());
    assert_eq!(bytes, [&told_in_v2(ours, edge)[..], b"first bytes"].concat());
}

fn told_in_v2(ours: u16, edge: u16) -> Vec<u8> {
    let [a, b] = ours.to_be_bytes();
    let [c, d] = edge.to_be_bytes();
    v2(0x21, 0x11, &[127, 0, 0, 1, 127, 0, 0, 1, a, b, c, d])
}

#[test]
fn a_unix_socket_is_told_of_the_client_as_any_other_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let (bytes, ours, edge) = first_read("v1", &Accepting::unix(folder.path()));
    let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {ours} {edge}\r\nfirst bytes");
    assert_eq!(String::from_utf8_lossy(&bytes), line);
    let folder = tempfile::tempdir().expect("a folder");
    let (bytes, ours, edge) = first_read("v2", &Accepting::unix(folder.path()));
    assert_eq!(bytes, [&told_in_v2(ours, edge)[..], b"first bytes"].concat());
}

#[test]
fn a_client_without_a_name_is_passed_on_as_one_in_version_2_too() {
    let (edge, server) = (common::address(), Accepting::tcp());
    let listener = format!("accept_proxy = \"v2\"\n{TRUSTING}");
    let pool = "send_proxy = \"v2\"";
    let _pipe = Standpipe::start(&l4::config(edge, &[&server.written], &listener, pool, ""));
    let client = l4::reach(edge);
    (&client).write_all(&[&v2(0x21, 0x00, &[])[..], b"hello"].concat()).expect("taken");
    let expected = [&v2(0x21, 0x00, &[])[..], b"hello"].concat();
    assert_eq!(l4::get(&server.next(), expected.len()), expected);
}

#[test]
fn a_server_that_speaks_first_is_told_before_anything_else() {
    let (edge, server) = (common::address(), Accepting::tcp());
    let pool = "send_proxy = \"v1\"";
    let _pipe = Standpipe::start(&l4::config(edge, &[&server.written], "", pool, ""));
    let client = l4::reach(edge);
    let at_server = server.next();
    assert_eq!(l4::get(&at_server, 6), b"PROXY ");
    (&at_server).write_all(b"banner").expect("taken");
    assert_eq!(l4::get(&client, 6), b"banner");
}

#[test]
fn a_second_standpipe_hears_who_the_client_is() {
    let (front, back) = (common::address(), common::address());
    let server = Accepting::tcp();
    let _inner = taking(back, "v2", &server.written);
    let inner = back.to_string();
    let _outer = Standpipe::start(&l4::config(front, &[&inner], "", "send_proxy = \"v2\"", ""));
    let client = l4::try_reach(front, Some([127, 0, 0, 77].into())).expect("a connection");
    (&client).write_all(b"hello").expect("taken");
    let ours = client.local_addr().expect("an address").as_socket().expect("an IP address");
    let line = format!("PROXY TCP4 127.0.0.77 127.0.0.1 {} {}", ours.port(), front.port());
    assert_eq!(told(&server.next()), line);
}

#[test]
fn a_source_is_whom_the_header_tells_of() {
    let (edge, server) = (common::address(), Accepting::tcp());
    let listener = format!("accept_proxy = \"v1\"\n{TRUSTING}\nmax_per_source = 2");
    let pipe = Standpipe::start(&l4::config(edge, &[&server.written], &listener, "", ""));
    let connect = |source: &str| {
        let client = l4::reach(edge);
        let header = format!("PROXY TCP4 {source} 198.51.100.2 1000 2000\r\nhello");
        (&client).write_all(header.as_bytes()).expect("taken");
        client
    };
    let pair = |source| (connect(source), server.next());
    let held = [pair("192.0.2.1"), pair("192.0.2.1"), pair("192.0.2.2")];
    for (_, at_server) in &held {
        assert_eq!(l4::get(at_server, 5), b"hello");
    }
    let _refused = connect("192.0.2.1");
    l4::wait_ended(&pipe, "proxy/front/max_per_source", 1);
    assert_eq!(pipe.metric("standpipe_listener_refused_total", &[]), 1.0);
    drop(held);
    common::wait_until("all have ended", || pipe.metric("standpipe_connections_live", &[]) == 0.0);
    let (_again, at_server) = pair("192.0.2.1");
    assert_eq!(l4::get(&at_server, 5), b"hello");
}
