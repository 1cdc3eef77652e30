//! TLS through a running standpipe: as server and as client, on l4 and on l7, with rustls as the
//! other end; what is carried, what is refused, and how each side is told.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use common::l4::{echo, ended as count_ended, wait_ended};
use common::tls::{Authority, Pair, Scene, connect, echo_server, echoed, ended};
use rustls::{AlertDescription, ClientConfig, Error};

/// Bytes that tell their place.
fn words(length: usize) -> Vec<u8> {
    (0..length).map(|at| at.wrapping_mul(0x9e37_79b1).to_be_bytes()[5]).collect()
}

#[test]
fn both_versions_carry_everything_and_part_cleanly() {
    let scene = Scene::l4();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(scene.authority.client(&[version]));
        let mut client = connect(scene.at, &config, "web.example").expect("a handshake");
        for length in [1, 128, 4096, 16_384, 70_000] {
            assert!(echoed(&mut client, &words(length)) == words(length), "{length} bytes");
        }
        client.conn.send_close_notify();
        client.conn.complete_io(&mut client.sock).expect("goodbye goes out");
        ended(&mut client).expect("close_notify comes back");
    }
    wait_ended(&scene.standpipe, "client/pipe/fin", 2);
}

#[test]
fn bulk_passes_both_ways_at_once_whatever_its_records() {
    let scene = Scene::l4();
    for fragment in [None, Some(1000)] {
        let mut config = scene.authority.client(&[]);
        config.max_fragment_size = fragment;
        let client = connect(scene.at, &Arc::new(config), "web.example").expect("a handshake");
        let whole = words(6 << 20);
        // rustls in one thread: write and read by turns, more in flight than any buffer holds.
        let (mut client, mut back, mut sent) = (client, Vec::new(), 0);
        let mut buffer = vec![0; 256 << 10];
        while back.len() < whole.len() {
            if sent < whole.len() && sent - back.len() < 400_000 {
                let to = (sent + 100_000).min(whole.len());
                client.write_all(&whole[sent..to]).expect("bulk goes out");
                sent = to;
            } else {
                let got = client.read(&mut buffer).expect("bulk comes back");
                back.extend_from_slice(&buffer[..got]);
            }
        }
        assert!(back == whole);
    }
    assert!(scene.standpipe.metric("standpipe_tls_records_opened_total", &[]) > 6000.0);
}

#[test]
fn a_client_that_changes_its_keys_is_followed() {
    let scene = Scene::l4();
    let config = Arc::new(scene.authority.client(&[&rustls::version::TLS13]));
    let mut client = connect(scene.at, &config, "web.example").expect("a handshake");
    for round in 0..5 {
        client.conn.refresh_traffic_keys().expect("TLS 1.3");
        assert_eq!(echoed(&mut client, b"with new keys"), b"with new keys", "round {round}");
    }
    let metric = |name: &str| scene.standpipe.metric(name, &[]);
    assert_eq!(metric("standpipe_tls_key_updates_received_total"), 5.0);
    assert_eq!(metric("standpipe_tls_key_updates_sent_total"), 5.0);
}

#[test]
fn sessions_are_resumed_and_counted_also_after_a_reload() {
    let scene = Scene::l4();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(scene.authority.client(&[version]));
        for _ in 0..3 {
            let mut client = connect(scene.at, &config, "web.example").expect("a handshake");
            assert_eq!(echoed(&mut client, b"hello"), b"hello");
        }
        scene.standpipe.signal("HUP");
        std::thread::sleep(Duration::from_millis(300));
    }
    let metric = |name: &str| scene.standpipe.metric(name, &[]);
    assert_eq!(metric("standpipe_tls_handshakes_full_total"), 2.0);
    assert_eq!(metric("standpipe_tls_handshakes_resumed_total"), 4.0);
}

/// What is answered to `words`, up to a clean end.
fn answer_to(words: &[u8], scene: &Scene) -> Vec<u8> {
    let mut stream = common::connect(scene.at);
    stream.write_all(words).expect("words go out");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer and an end");
    answer
}

#[test]
fn what_is_not_tls_gets_a_clear_answer() {
    let scene = Scene::lasting("2s", "l4", "", echo(), "", &[]);
    let ask = |words: &[u8]| answer_to(words, &scene);
    let answer = ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with(b"HTTP/1.1 400 Bad Request\r\n"));
    wait_ended(&scene.standpipe, "client/tls/plain_on_tls", 1);
    assert_eq!(ask(b"\x16\x03\x01\x00\x04\x01\xff\xff\xff")[..2], [21, 3]);
    wait_ended(&scene.standpipe, "client/tls/hello_bad", 1);
    ask(b"\x16\x03");
    wait_ended(&scene.standpipe, "client/tls/timeout", 1);
}

/// RFC 8446 sections 5 and 5.1. The only handshake of a second is still there for who comes next.
#[test]
fn a_first_record_that_is_none_is_told_so_and_takes_nobodys_turn() {
    let scene = Scene::new("l4", "tls.handshakes_per_second = 1", echo(), "", &[]);
    let (unexpected_message, record_overflow) = (10, 22);
    let cases: [(&[u8], u8); 8] = [
        // Data, a heartbeat, a change of ciphers, and what SSL 2 began with.
        (&[0x17, 3, 3, 0, 1, 0x78], unexpected_message),
        (&[0x18, 3, 1, 0, 3, 1, 0x40, 0], unexpected_message),
        (&[0x14, 3, 3, 0, 1, 1], unexpected_message),
        (&[0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10], unexpected_message),
        (&[0x16, 2, 0, 0, 4], unexpected_message),
        (b"SSH-2.0-OpenSSH_9.2\r\n", unexpected_message),
        // Handshake records longer than any, and than any in the clear.
        (&[0x16, 3, 1, 0xff, 0xff], record_overflow),
        (&[0x16, 3, 1, 0x40, 1], record_overflow),
    ];
    for (words, description) in cases {
        let told = answer_to(words, &scene);
        assert_eq!(told, [21, 3, 3, 0, 2, 2, description], "{words:?}");
    }
    wait_ended(&scene.standpipe, "client/tls/hello_bad", cases.len());
    let mut client = connect(scene.at, &scene.client(), "web.example").expect("a handshake");
    assert_eq!(echoed(&mut client, b"hello"), b"hello");
}

/// The messages of a handshake know no records, and records no packets.
#[test]
fn a_hello_may_come_in_many_records_and_packets() {
    let scene = Scene::l4();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(scene.authority.client(&[version]));
        let name = "web.example".try_into().expect("a name");
        let mut silent = rustls::ClientConnection::new(config, name).expect("a client");
        let mut hello = Vec::new();
        while silent.wants_write() {
            silent.write_tls(&mut hello).expect("a vector takes all");
        }
        let mut stream = common::connect(scene.at);
        for piece in hello[5..].chunks(23) {
            let record = [&[22, 3, 1, 0, piece.len() as u8][..], piece].concat();
            for part in [&record[..3], &record[3..]] {
                stream.write_all(part).expect("a part of the hello");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let mut client = rustls::StreamOwned::new(silent, stream);
        while client.conn.is_handshaking() {
            client.conn.complete_io(&mut client.sock).expect("a handshake");
        }
        assert_eq!(echoed(&mut client, b"hello"), b"hello");
    }
}

#[test]
fn a_damaged_record_is_told_and_reaches_nobody_as_an_end() {
    let scene = Scene::l4();
    let mut client = connect(scene.at, &scene.client(), "web.example").expect("a handshake");
    assert_eq!(echoed(&mut client, b"whole"), b"whole");
    client.sock.write_all(&[23, 3, 3, 0, 32]).expect("a header");
    client.sock.write_all(&[7; 32]).expect("a record that no key sealed");
    let error = ended(&mut client).expect_err("an alert");
    let told = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    assert_eq!(told, Some(&Error::AlertReceived(AlertDescription::BadRecordMac)));
    wait_ended(&scene.standpipe, "client/pipe/record_bad", 1);
}

#[test]
fn a_stream_cut_without_close_notify_is_no_clean_end() {
    let scene = Scene::l4();
    let mut client = connect(scene.at, &scene.client(), "web.example").expect("a handshake");
    assert_eq!(echoed(&mut client, b"whole"), b"whole");
    client.sock.shutdown(std::net::Shutdown::Write).expect("FIN alone");
    let _ = ended(&mut client);
    wait_ended(&scene.standpipe, "client/pipe/cut", 1);
}

#[test]
fn a_record_in_crumbs_is_joined_and_held_bytes_are_given_back() {
    let scene = Scene::l4();
    let mut client = connect(scene.at, &scene.client(), "web.example").expect("a handshake");
    client.conn.writer().write_all(&words(3000)).expect("buffered");
    let mut record = Vec::new();
    while client.conn.wants_write() {
        client.conn.write_tls(&mut record).expect("a vector takes all");
    }
    let held = || scene.standpipe.metric("standpipe_tls_held_bytes", &[]);
    for (at, crumb) in record.chunks(97).enumerate() {
        client.sock.write_all(crumb).expect("a crumb");
        std::thread::sleep(Duration::from_millis(3));
        assert!(at != 20 || held() > 0.0);
    }
    let mut back = vec![0; 3000];
    client.read_exact(&mut back).expect("the echo");
    assert!(back == words(3000));
    assert_eq!(held(), 0.0);
    client.sock.write_all(&[23, 3, 3, 0x10, 0, 1, 2, 3]).expect("the front of a record");
    common::wait_until("a front is held", || held() > 0.0);
    drop(client);
    common::wait_until("what a closed pipe held is given back", || held() == 0.0);
}

#[test]
fn an_unknown_name_is_refused_if_the_file_says_so() {
    let scene = Scene::new("l4", "tls.unknown_name = \"refuse\"", echo(), "", &[]);
    let refused = connect(scene.at, &scene.client(), "other.example").expect_err("a refusal");
    let told = refused.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    assert_eq!(told, Some(&Error::AlertReceived(AlertDescription::UnrecognisedName)));
    assert!(connect(scene.at, &scene.client(), "web.example").is_ok());
    wait_ended(&scene.standpipe, "client/tls/unknown_name", 1);
}

#[test]
fn new_certificates_serve_new_handshakes_and_bad_ones_nobody() {
    let scene = Scene::l4();
    let mut old = connect(scene.at, &scene.client(), "web.example").expect("a handshake");
    let folder = scene.standpipe.folder();
    std::fs::write(folder.join("web.key"), "nonsense").expect("written");
    scene.standpipe.signal("HUP");
    std::thread::sleep(Duration::from_millis(500));
    assert!(connect(scene.at, &scene.client(), "web.example").is_ok(), "a bad set changes nothing");
    let new = scene.authority.issue("web", &["new.example"]);
    std::fs::write(folder.join("web.pem"), new.cert).expect("written");
    std::fs::write(folder.join("web.key"), new.key).expect("written");
    scene.standpipe.signal("HUP");
    common::wait_until("the new certificate is shown", || {
        connect(scene.at, &scene.client(), "new.example").is_ok()
    });
    assert_eq!(echoed(&mut old, b"still here"), b"still here");
}

#[test]
fn servers_are_spoken_to_in_tls_and_verified() {
    let other = Authority::new();
    let server = other.issue("server", &["chat.internal"]);
    let proxy = other.issue("proxy", &[]);
    let ca = Pair { cert: other.pem(), key: String::new() };
    let address = echo_server(&server, Some(&other));
    let tls = "tls = { ca = \"ca.pem\", server_name = \"chat.internal\", \
               client_cert = \"proxy.pem\", client_key = \"proxy.key\" }";
    let files = [("ca", &ca), ("proxy", &proxy)];
    let scene = Scene::new("l4", "", address, tls, &files);
    for _ in 0..3 {
        let mut client = connect(scene.at, &scene.client(), "web.example").expect("a handshake");
        assert!(echoed(&mut client, &words(50_000)) == words(50_000));
        client.conn.send_close_notify();
        client.conn.complete_io(&mut client.sock).expect("goodbye goes out");
        ended(&mut client).expect("close_notify comes back");
    }
    let metric = |name: &str| scene.standpipe.metric(name, &[]);
    assert_eq!(metric("standpipe_tls_server_handshakes_full_total"), 1.0);
    assert_eq!(metric("standpipe_tls_server_handshakes_resumed_total"), 2.0);
    wait_ended(&scene.standpipe, "client/pipe/fin", 3);
}

#[test]
fn a_server_with_a_strange_certificate_is_not_believed() {
    let server = Authority::new().issue("server", &["chat.internal"]);
    let address = echo_server(&server, None);
    let tls = "tls = { ca = \"own-ca.pem\", server_name = \"chat.internal\" }";
    let scene = Scene::new("l4", "", address, tls, &[]);
    let mut client = connect(scene.at, &scene.client(), "web.example").expect("a handshake");
    let _ = ended(&mut client);
    wait_ended(&scene.standpipe, "server/dial/certificate_bad", 1);
    assert_eq!(count_ended(&scene.standpipe, "client/pipe/fin"), 0);
}

#[test]
fn websockets_over_tls_are_relayed_by_frames() {
    let server = common::ws::echo_server("echo");
    let scene = Scene::new("l7", "", server.address, "", &[]);
    let mut config = scene.authority.client(&[]);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let client = connect(scene.at, &Arc::new(config), "web.example").expect("a handshake");
    assert_eq!(client.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    let url = format!("wss://web.example:{}/", scene.at.port());
    let (mut socket, _) = tungstenite::client(url, client).expect("an upgrade");
    let opened = || scene.standpipe.metric("standpipe_tls_records_opened_total", &[]);
    let sealed = || scene.standpipe.metric("standpipe_tls_records_sealed_total", &[]);
    let before = (opened(), sealed());
    for n in 0..20 {
        let text = format!("message {n}");
        socket.send(tungstenite::Message::text(text.clone())).expect("sent");
        assert_eq!(socket.read().expect("an echo").into_text().expect("text"), text);
    }
    let (opened, sealed) = (opened() - before.0, sealed() - before.1);
    assert_eq!((opened, sealed), (20.0, 20.0), "one record a message");
    socket.close(None).expect("a Close");
    while socket.read().is_ok() {}
    wait_ended(&scene.standpipe, "client/pipe/closed", 1);
}

#[test]
fn the_clients_certificate_is_told_in_headers_nobody_else_can_set() {
    let clients = Authority::new();
    let ca = Pair { cert: clients.pem(), key: String::new() };
    let somebody = clients.issue("somebody", &[]);
    let two = clients.issue("somebody, OU=admins", &[]);
    let server = common::http::Server::answering(|_| common::http::ok("fine"));
    let plain = common::address();
    let tls = "tls.client_ca = { file = \"clients.pem\", required = false }\n\
               tls.client_headers = { subject = \"X-Client\", fingerprint = \"X-Print\" }";
    let beside = format!(
        "[listeners.plain]\nbind = [\"{plain}\"]\nmode = \"l7\"\n\
         [[listeners.plain.routes]]\npath = \"/\"\npool = \"pool\"\n"
    );
    let scene = Scene::new("l7", tls, server.address, &beside, &[("clients", &ca)]);
    let ask = |config: ClientConfig| {
        let mut client = connect(scene.at, &Arc::new(config), "web.example").expect("a handshake");
        let request = "GET / HTTP/1.1\r\nHost: web.example\r\nX-Client: CN=forged\r\n\
                       X-Print: 00\r\nConnection: close\r\n\r\n";
        client.write_all(request.as_bytes()).expect("a request");
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    };
    let mut with = scene.authority.client_with(&somebody);
    with.alpn_protocols = Vec::new();
    ask(with);
    ask(scene.authority.client(&[]));
    let mut with = scene.authority.client_with(&two);
    with.alpn_protocols = Vec::new();
    ask(with);
    // Nor by another way to the same servers, where nobody is asked for a certificate.
    let mut other = common::http::Reader::connect(plain);
    other.send("GET / HTTP/1.1\r\nHost: x\r\nX-Client: CN=forged\r\nX-Print: 00\r\n\r\n");
    assert_eq!(other.response("GET").status, 200);
    let heads = server.heads();
    assert_eq!(heads[2].header("X-Client"), Some("CN=somebody\\, OU\\=admins"));
    assert_eq!((heads[3].header("X-Client"), heads[3].header("X-Print")), (None, None));
    assert_eq!(heads[0].header("X-Client"), Some("CN=somebody"));
    assert_eq!(heads[0].header("X-Print").map(str::len), Some(64));
    assert_eq!((heads[1].header("X-Client"), heads[1].header("X-Print")), (None, None));
}

#[test]
fn an_idle_session_costs_no_more_than_its_keys_and_its_slot() {
    let scene = Scene::l4();
    let open = |count: usize| -> Vec<_> {
        let open = |_| {
            let mut client =
                connect(scene.at, &scene.client(), "web.example").expect("a handshake");
            assert_eq!(echoed(&mut client, b"hello"), b"hello");
            client
        };
        (0..count).map(open).collect()
    };
    // The first ones fill what every process has: buffers, pages, the allocator's own.
    let mut clients = open(300);
    let before = scene.standpipe.resident();
    clients.extend(open(600));
    std::thread::sleep(Duration::from_millis(1500));
    let each = scene.standpipe.resident().saturating_sub(before) / 600;
    println!("{each} bytes of resident memory for each idle TLS pipe");
    assert!(each < 4096, "{each} bytes");
    for client in &mut clients {
        assert_eq!(echoed(client, b"still"), b"still");
    }
}

#[test]
fn who_finds_the_core_busy_with_handshakes_waits_in_line() {
    let scene = Scene::lasting("60s", "l4", "tls.handshakes_in_flight = 4", echo(), "", &[]);
    let stalled: Vec<TcpStream> = (0..4)
        .map(|_| {
            let name = "web.example".try_into().expect("a name");
            let mut silent = rustls::ClientConnection::new(scene.client(), name).expect("a client");
            let mut stream = TcpStream::connect(scene.at).expect("a connection");
            silent.write_tls(&mut stream).expect("a hello, and then nothing");
            stream
        })
        .collect();
    let in_flight = || scene.standpipe.metric("standpipe_tls_handshakes_in_flight", &[]);
    common::wait_until("all places are taken", || in_flight() == 4.0);
    let mut client = connect(scene.at, &scene.client(), "web.example").expect("its turn comes");
    assert_eq!(echoed(&mut client, b"at last"), b"at last");
    // Who kept the core waiting made way, and has its own time none the less.
    assert!(in_flight() <= 3.0, "{}", in_flight());
    let labels = [("stage", "tls"), ("cause", "timeout")];
    assert_eq!(scene.standpipe.metric("standpipe_connections_ended_total", &labels), 0.0);
    drop(stalled);
    common::wait_until("nobody is in the handshake", || in_flight() == 0.0);

    let config = scene.client();
    let storm: Vec<_> = (0..200)
        .map(|_| {
            let (at, config) = (scene.at, config.clone());
            std::thread::spawn(move || {
                let mut client = connect(at, &config, "web.example").expect("its turn comes");
                assert_eq!(echoed(&mut client, b"hello"), b"hello");
            })
        })
        .collect();
    storm.into_iter().for_each(|one| one.join().expect("no one is turned away"));
    common::wait_until("nobody is in the handshake", || in_flight() == 0.0);
}

#[test]
fn a_listener_counts_its_own_handshakes_only() {
    let other = common::address();
    let more = format!(
        "[listeners.other]\nbind = [\"{other}\"]\nmode = \"l4\"\npool = \"pool\"\n\
         tls.certificates = [{{ cert = \"web.pem\", key = \"web.key\" }}]\n\
         tls.handshakes_per_second = 2\n"
    );
    let scene = Scene::new("l4", "", echo(), &more, &[]);
    let config = scene.client();
    // All of it within a second on any machine, but for the slowest: for them it proves nothing.
    for _ in 0..10 {
        connect(scene.at, &config, "web.example").expect("no bound here");
    }
    let mut client = connect(other, &config, "web.example").expect("the first of its listener");
    assert_eq!(echoed(&mut client, b"hello"), b"hello");
    // Nor does one that comes by turns make another's forgotten.
    let refused = || {
        connect(scene.at, &config, "web.example").expect("no bound here");
        connect(other, &config, "web.example").is_err()
    };
    assert!((0..50).any(|_| refused()), "two a second are the most");
}
