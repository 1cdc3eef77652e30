//! TLS around living sockets, and who is turned away: certificates swapped under many of them,
//! secrets for those who debug, keys changed by clients that do not read, ends that come early,
//! servers and clients that prove nothing.

mod common;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::l4::{Accepting, echo, wait_ended};
use common::tls::{
    Authority, Client, Pair, Scene, Served, connect, echo_server, echoed, ended, serving,
};
use common::{PATIENCE, wait_until};
use rustls::{AlertDescription, Error, KeyLog};

fn open(scene: &Scene, count: usize) -> Vec<Client> {
    let config = scene.client();
    (0..count).map(|_| connect(scene.at, &config, "web.example").expect("a handshake")).collect()
}

/// Whether a new client that asks for `name` is shown a certificate for it.
fn shows(scene: &Scene, name: &str) -> bool {
    connect(scene.at, &scene.client(), name).is_ok()
}

#[test]
fn certificates_are_swapped_under_many_sockets_and_bad_ones_touch_nobody() {
    let scene = Scene::l4();
    let mut clients = open(&scene, 2_000);
    let mut all_echo = |when: &str| {
        for client in &mut clients {
            assert_eq!(echoed(client, b"still"), b"still", "{when}");
        }
    };
    all_echo("at first");
    let place = |name: &str, text: &str| {
        std::fs::write(scene.standpipe.folder().join(name), text).expect("written");
    };
    let install = |pair: &Pair| {
        place("web.pem", &pair.cert);
        place("web.key", &pair.key);
    };
    install(&scene.authority.issue("web", &["by-file.example"]));
    wait_until("the change is noticed", || shows(&scene, "by-file.example"));
    assert!(!shows(&scene, "web.example"));
    all_echo("after a change of the file");

    let good = scene.authority.issue("web", &["by-signal.example"]);
    install(&good);
    scene.standpipe.signal("HUP");
    wait_until("the signal is heard", || shows(&scene, "by-signal.example"));
    assert!(!shows(&scene, "by-file.example"));
    all_echo("after a signal");

    let metric = |name: &str| scene.standpipe.metric(name, &[]);
    let bad = scene.authority.issue("web", &["by-mistake.example"]);
    for (what, cert, key, blamed) in [
        ("another's key", &good.cert[..], &bad.key[..], "web.key"),
        ("no key", &good.cert, "garbage", "web.key"),
        ("no certificate", "garbage", &good.key, "web.pem"),
    ] {
        place("web.pem", cert);
        place("web.key", key);
        scene.standpipe.signal("HUP");
        wait_until(what, || metric("standpipe_config_last_reload_good") == 0.0);
        scene.standpipe.wait_log(&["level=error", blamed]);
        scene.standpipe.wait_log(&["level=error", "reload refused"]);
        assert!(shows(&scene, "by-signal.example"), "{what}");
        all_echo(what);
        // Good again, that the next mistake is seen by itself.
        install(&good);
        scene.standpipe.signal("HUP");
        wait_until("it is good again", || metric("standpipe_config_last_reload_good") == 1.0);
    }
    let refused = [("result", "refused")];
    assert!(scene.standpipe.metric("standpipe_config_reloads_total", &refused) >= 3.0);
    all_echo("at last");
}

#[test]
fn a_certificate_that_was_missing_is_taken_when_it_comes() {
    let scene = Scene::l4();
    let standpipe = &scene.standpipe;
    let text = std::fs::read_to_string(standpipe.config_path()).expect("its configuration");
    standpipe.reload(&text.replace("web.pem", "later/web.pem").replace("web.key", "later/web.key"));
    let is_good = || standpipe.metric("standpipe_config_last_reload_good", &[]) == 1.0;
    assert!(!is_good());
    assert!(shows(&scene, "web.example"));
    let later = scene.authority.issue("web", &["later.example"]);
    let folder = standpipe.folder().join("later");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("web.key"), later.key).expect("written");
    std::fs::write(folder.join("web.pem"), later.cert).expect("written");
    wait_until("the files are noticed", is_good);
    wait_until("they are in force", || shows(&scene, "later.example"));
}

/// Secrets as a client knows them.
#[derive(Debug, Default)]
struct Secrets(Mutex<Vec<String>>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, random: &[u8], secret: &[u8]) {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let line = format!("{label} {} {}", hex(random), hex(secret));
        self.0.lock().expect("nobody panicked").push(line);
    }
}

#[test]
fn secrets_are_written_where_a_listener_says_so_and_only_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("secrets");
    let authority = Authority::new();
    let web = authority.issue("web", &["web.example"]);
    let (quiet, open) = (common::address(), common::address());
    let listener = |name: &str, at, more: &str| {
        format!(
            "[listeners.{name}]\nbind = [\"{at}\"]\nmode = \"l4\"\npool = \"pool\"\n\
             tls = {{ certificates = [{{ cert = \"web.pem\", key = \"web.key\" }}]{more} }}\n"
        )
    };
    let config = format!(
        "{}{}[pools.pool]\nservers = [\"{}\"]\n",
        listener("quiet", quiet, ""),
        listener("open", open, ", key_log = true"),
        echo()
    );
    let files = [("web.pem", web.cert.as_bytes()), ("web.key", web.key.as_bytes())];
    let variables = [("SSLKEYLOGFILE", file.to_str().expect("a plain path"))];
    let _standpipe = common::Standpipe::start_with(&config, &files, &variables);
    let visit = |at| {
        let secrets = Arc::new(Secrets::default());
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let mut config = authority.client(&[version]);
            config.key_log = secrets.clone();
            let mut client = connect(at, &Arc::new(config), "web.example").expect("a handshake");
            assert_eq!(echoed(&mut client, b"hello"), b"hello");
        }
        secrets.0.lock().expect("nobody panicked").clone()
    };
    let written = || std::fs::read_to_string(&file).unwrap_or_default();
    // One core serves both in order: what the first would have written stands before the second's.
    let (unwritten, due) = (visit(quiet), visit(open));
    assert!(due.len() >= 5, "{due:?}");
    wait_until("every secret is written", || {
        let text = written();
        due.iter().all(|secret| text.lines().any(|line| line == secret))
    });
    let text = written();
    for secret in &unwritten {
        let random = secret.split(' ').nth(1).expect("a random");
        assert!(!text.contains(random), "{secret}");
    }
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_server_of_another_name_or_authority_gets_no_request_and_a_line_says_why() {
    let known = Authority::new();
    let ca = Pair { cert: known.pem(), key: String::new() };
    let misnamed = known.issue("server", &["mail.internal"]);
    let untrusted = Authority::new().issue("server", &["chat.internal"]);
    let pool = "tls = { ca = \"ca.pem\", server_name = \"chat.internal\" }\n";
    let all = "[runtime]\nworkers = 1\nadmin = \"{admin}\"\nlog = { connections = \"all\" }";
    let pool = &format!("{pool}{all}");
    for pair in [misnamed, untrusted] {
        let behind = echo_server(&pair, None);
        let scene = Scene::new("l7", "", behind, pool, &[("ca", &ca)]);
        let mut client = open(&scene, 1).remove(0);
        let request = "GET / HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n";
        client.write_all(request.as_bytes()).expect("a request");
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        let server = format!("server=pool/{behind}");
        let line = &["msg=end", "ending=server/dial/certificate_bad", &server];
        scene.standpipe.wait_log(line);
        scene.standpipe.wait_log(&["msg=request", "status=502", &server]);
        // For whom it has no lines for connections, too.
        let cause = "cause=certificate_bad";
        scene.standpipe.wait_log(&[
            "level=warn",
            "could not be dialled",
            &format!("={behind}"),
            cause,
        ]);

        let scene = Scene::new("l4", "", behind, pool, &[("ca", &ca)]);
        let _ = ended(&mut open(&scene, 1)[0]);
        wait_ended(&scene.standpipe, "server/dial/certificate_bad", 1);
        scene.standpipe.wait_log(line);
    }
}

/// What is wrong with a server is said to the server, too, and not only to our log.
#[test]
fn a_server_that_is_not_believed_is_told_by_an_alert() {
    let known = Authority::new();
    let ca = Pair { cert: known.pem(), key: String::new() };
    let misnamed = known.issue("server", &["mail.internal"]);
    let untrusted = Authority::new().issue("server", &["chat.internal"]);
    let pool = "tls = { ca = \"ca.pem\", server_name = \"chat.internal\" }";
    for pair in [misnamed, untrusted] {
        let (told, errors) = channel();
        let behind = serving(&pair, None, move |mut stream: Served| {
            if let Err(error) = stream.conn.complete_io(&mut stream.sock) {
                let _ = told.send(error.to_string());
            }
        });
        let scene = Scene::new("l4", "", behind, pool, &[("ca", &ca)]);
        let _ = ended(&mut open(&scene, 1)[0]);
        let error = errors.recv_timeout(PATIENCE).expect("the handshake fails");
        assert!(error.contains("fatal alert"), "{error}");
    }
    // So is one that speaks no TLS at all.
    let server = Accepting::tcp();
    let behind = server.written.parse().expect("an address");
    let scene = Scene::new("l4", "", behind, pool, &[("ca", &ca)]);
    let mut client = open(&scene, 1).remove(0);
    let stranger = server.next();
    let front = common::l4::get(&stranger, 5);
    common::l4::get(&stranger, usize::from(u16::from_be_bytes([front[3], front[4]])));
    (&stranger).write_all(b"220 ready\r\n").expect("it greets");
    let told = common::l4::get(&stranger, 7);
    assert_eq!((told[0], told[5]), (21, 2), "a fatal alert: {told:?}");
    let _ = ended(&mut client);
}

#[test]
fn who_must_show_a_certificate_and_does_not_reaches_no_server() {
    let (clients, others) = (Authority::new(), Authority::new());
    let ca = Pair { cert: clients.pem(), key: String::new() };
    let scene =
        Scene::new("l4", "tls.client_ca = \"clients.pem\"", echo(), "", &[("clients", &ca)]);
    let (member, stranger) = (clients.issue("member", &[]), others.issue("stranger", &[]));
    let told = |config| -> Option<Error> {
        // In TLS 1.3 a client is done before the server has seen its certificate.
        let refused = match connect(scene.at, &Arc::new(config), "web.example") {
            Err(error) => error,
            Ok(mut client) => ended(&mut client).expect_err("a refusal"),
        };
        refused.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).cloned()
    };
    let none = told(scene.authority.client(&[&rustls::version::TLS13]));
    assert_eq!(none, Some(Error::AlertReceived(AlertDescription::CertificateRequired)));
    assert!(told(scene.authority.client(&[&rustls::version::TLS12])).is_some());
    wait_ended(&scene.standpipe, "client/tls/certificate_missing", 2);
    let strange = told(scene.authority.client_with(&stranger));
    // Its authority has the name of ours and another key.
    assert_eq!(strange, Some(Error::AlertReceived(AlertDescription::DecryptError)));
    wait_ended(&scene.standpipe, "client/tls/certificate_bad", 1);
    let config = Arc::new(scene.authority.client_with(&member));
    let mut client = connect(scene.at, &config, "web.example").expect("a handshake");
    assert_eq!(echoed(&mut client, b"one of us"), b"one of us");
    let counted = |name: &str| scene.standpipe.metric(name, &[]);
    assert_eq!(counted("standpipe_tls_handshakes_full_total"), 1.0);
}

/// The rest of a cut record gathers in the kernel; a pipe that begins to flow at that moment may
/// have read a part of it already.
#[test]
fn a_record_cut_where_its_pipe_begins_to_flow_is_waited_for_and_comes() {
    let scene = Scene::l4();
    let mut clients = open(&scene, 150);
    std::thread::sleep(Duration::from_millis(2_200));
    for client in &mut clients {
        assert_eq!(echoed(client, b"once"), b"once");
        client.conn.writer().write_all(&[7; 12_000]).expect("room");
        let mut record = Vec::new();
        client.conn.write_tls(&mut record).expect("a record");
        let (first, rest) = record.split_at(300);
        for piece in first.chunks(100) {
            client.sock.write_all(piece).expect("a piece goes out");
        }
        client.sock.write_all(&rest[..3_000]).expect("more of it");
        client.sock.write_all(&rest[3_000..]).expect("the rest");
        let mut back = [0; 12_000];
        client.read_exact(&mut back).expect("all of it comes back");
    }
}

/// Resuming looks at no certificate again.
#[test]
fn a_session_is_not_resumed_with_a_certificate_that_has_expired() {
    let clients = Authority::new();
    let ca = Pair { cert: clients.pem(), key: String::new() };
    let scene =
        Scene::new("l4", "tls.client_ca = \"clients.pem\"", echo(), "", &[("clients", &ca)]);
    let brief = clients.issue_for("member", &[], Duration::from_secs(4));
    let config = Arc::new(scene.authority.client_with(&brief));
    for _ in 0..2 {
        let mut client = connect(scene.at, &config, "web.example").expect("a handshake");
        assert_eq!(echoed(&mut client, b"one of us"), b"one of us");
    }
    let counted = |name: &str| scene.standpipe.metric(name, &[]);
    assert_eq!(counted("standpipe_tls_handshakes_resumed_total"), 1.0);
    std::thread::sleep(Duration::from_secs(6));
    let mut client = connect(scene.at, &config, "web.example").expect("resumed, as it believes");
    assert_eq!(client.conn.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
    let told = ended(&mut client).expect_err("a refusal").to_string();
    assert!(told.contains("CertificateExpired"), "{told}");
    wait_ended(&scene.standpipe, "client/tls/certificate_bad", 1);
}

/// Answers to key changes go out with the data that wait; alone they would pile up in front of a
/// client that does not read.
#[test]
fn key_changes_of_a_client_that_does_not_read_are_not_answered_one_by_one() {
    let server = Accepting::tcp();
    let address = server.written.parse().expect("an address");
    let scene = Scene::new("l4", "", address, "", &[]);
    let config = Arc::new(scene.authority.client(&[&rustls::version::TLS13]));
    let mut client = connect(scene.at, &config, "web.example").expect("a handshake");
    let mut server = server.next();
    let flood = common::l4::stuff(&server);
    let metric = |name: &str| scene.standpipe.metric(name, &[]);
    assert!(metric("standpipe_spill_held_bytes") > 0.0, "nothing waits");
    for _ in 0..500 {
        client.conn.refresh_traffic_keys().expect("TLS 1.3");
        client.write_all(b"x").expect("a byte goes out");
    }
    assert_eq!(common::l4::get(&server, 500), [b'x'; 500]);
    assert_eq!(metric("standpipe_tls_key_updates_received_total"), 500.0);
    assert!(metric("standpipe_tls_key_updates_sent_total") <= 2.0);
    // They were not forgotten: what it reads in the end was sealed with the new keys.
    let last = std::thread::spawn(move || server.write_all(b"the last").map(|()| server));
    let mut back = vec![0; flood + 8];
    client.read_exact(&mut back).expect("all of the flood");
    assert!(back.ends_with(b"the last"));
    let _server = last.join().expect("no panic").expect("more goes out");
    assert!(metric("standpipe_tls_key_updates_sent_total") >= 1.0);
}

/// A runtime that drains as soon as it is told to.
const DRAINS_AT_ONCE: &str = "[runtime]\nworkers = 1\nadmin = \"{admin}\"\ndrain_delay = \"0s\"\n";

const GET: &str = "GET / HTTP/1.1\r\nHost: web.example\r\n\r\n";

/// One request, and all of its answer, which ends with `end`.
fn ask(client: &mut Client, request: &str, end: &str) {
    client.write_all(request.as_bytes()).expect("a request");
    let (mut answer, mut chunk) = (Vec::new(), [0; 1024]);
    while !answer.ends_with(end.as_bytes()) {
        let got = client.read(&mut chunk).expect("an answer");
        assert!(got > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&chunk[..got]);
    }
}

/// RFC 8446 section 6.1 and RFC 9112 section 9.8: where nothing is cut, no connection ends as if
/// something were.
#[test]
fn an_http_connection_that_ends_in_order_is_told_close_notify() {
    let server = common::http::Server::answering(|_| common::http::ok("fine"));
    let timeouts = "handshake = \"2s\"\nkeepalive = \"1s\"";
    let scene = Scene::timed(timeouts, "l7", "", server.address, "", &[]);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(scene.authority.client(&[version]));
        let new = || connect(scene.at, &config, "web.example").expect("a handshake");
        let leave = |client: &mut Client| {
            client.conn.send_close_notify();
            client.conn.complete_io(&mut client.sock).expect("goodbye goes out");
        };
        let (mut asked, mut quiet) = (new(), new());
        ask(&mut asked, GET, "fine");
        for client in [&mut asked, &mut quiet] {
            leave(client);
            ended(client).expect("close_notify comes back, though no FIN went out");
        }
        let (mut kept, mut silent) = (new(), new());
        ask(&mut kept, GET, "fine");
        ended(&mut kept).expect("close_notify when the time for another request is over");
        ended(&mut silent).expect("close_notify when the time for the first one is over");
    }
    for ending in ["client/http/done", "client/head/quiet", "client/http/keepalive_over"] {
        wait_ended(&scene.standpipe, ending, 2);
    }
    wait_ended(&scene.standpipe, "client/head/timeout", 2);
}

#[test]
fn a_drain_tells_idle_http_clients_close_notify_and_waits_for_none_of_them() {
    let server = common::http::Server::answering(|_| common::http::ok("fine"));
    let mut scene = Scene::new("l7", "", server.address, DRAINS_AT_ONCE, &[]);
    let mut clients = open(&scene, 50);
    for client in &mut clients {
        ask(client, GET, "fine");
    }
    scene.standpipe.signal("TERM");
    // None of them has read its goodbye, let alone answered it.
    scene.standpipe.wait_exit();
    for client in &mut clients {
        ended(client).expect("close_notify");
    }
}

/// A server behind TLS that answers every request with `answer`, and tells how each connection that
/// asked it something ended: `Ok` for close_notify.
fn telling_server(
    pair: &Pair,
    answer: &'static str,
) -> (SocketAddr, Receiver<std::io::Result<()>>) {
    let (told, endings) = channel();
    let serve = move |mut stream: Served| {
        let (mut asked, mut chunk, mut requests) = (Vec::new(), [0; 4096], 0);
        let ending = loop {
            match stream.read(&mut chunk) {
                Ok(0) => break Ok(()),
                Ok(got) => asked.extend_from_slice(&chunk[..got]),
                Err(error) => break Err(error),
            }
            if asked.ends_with(b"\r\n\r\n") {
                asked.clear();
                requests += 1;
                stream.write_all(answer.as_bytes()).expect("an answer goes out");
            }
        };
        if requests > 0 {
            let _ = told.send(ending);
        }
    };
    (serving(pair, None, serve), endings)
}

/// RFC 8446 section 6.1, towards servers: whether a connection was kept and its time is over, its
/// core drains, its server wants no other request, or was asked for a WebSocket and has none.
#[test]
fn a_server_that_is_needed_no_more_is_told_close_notify() {
    const KEPT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";
    const LAST: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfine";
    let known = Authority::new();
    let ca = Pair { cert: known.pem(), key: String::new() };
    let pair = known.issue("server", &["chat.internal"]);
    let tls = "tls = { ca = \"ca.pem\", server_name = \"chat.internal\" }\n";
    let upgrade = common::ws::request("/");
    for (what, answer, request, keepalive, drains) in [
        ("its time is over", KEPT, GET, "1s", false),
        ("its core drains", KEPT, GET, "60s", true),
        ("it says that it closes", LAST, GET, "60s", false),
        ("it refuses an upgrade", KEPT, &upgrade[..], "60s", false),
    ] {
        let (behind, endings) = telling_server(&pair, answer);
        let timeouts = format!("keepalive = \"{keepalive}\"");
        let pool = format!("{tls}{DRAINS_AT_ONCE}");
        let scene = Scene::timed(&timeouts, "l7", "", behind, &pool, &[("ca", &ca)]);
        let mut client = open(&scene, 1).remove(0);
        ask(&mut client, request, "fine");
        if drains {
            scene.standpipe.signal("TERM");
        }
        let ending = endings.recv_timeout(PATIENCE).expect("the connection ends");
        assert!(ending.is_ok(), "{what}: {ending:?}");
    }
}

/// What came with the record that broke a session lies unread behind it: closing over that would be
/// a reset, which may overtake the alert.
#[test]
fn an_http_client_whose_session_breaks_can_still_read_why() {
    let server = common::http::Server::answering(|_| common::http::ok("fine"));
    let scene = Scene::new("l7", "", server.address, "", &[]);
    let mut client = open(&scene, 1).remove(0);
    ask(&mut client, GET, "fine");
    let mut burst = vec![23_u8, 3, 3, 0, 40];
    burst.resize(200_000, 0);
    client.sock.write_all(&burst).expect("all of it goes out");
    let told = ended(&mut client).expect_err("an alert").to_string();
    assert!(told.contains("BadRecordMac"), "{told}");
}

/// A request for an upgrade and, in the same write, the end of the client's session.
#[test]
fn an_ending_that_comes_with_the_upgrade_is_heard_by_the_long_life() {
    let (told, codes) = std::sync::mpsc::channel();
    let server = common::http::Server::scripted(move |mut reader| {
        reader.head().expect("a request");
        reader.send(common::ws::switching(""));
        let frame = common::ws::read_frame(&mut reader);
        told.send(frame.as_ref().and_then(common::ws::Frame::close_code)).expect("the test waits");
        reader.send(common::ws::close(1001, false));
    });
    let scene = Scene::new("l7", "", server.address, "", &[]);
    for broken in [false, true] {
        let mut client = connect(scene.at, &scene.client(), "web.example").expect("a handshake");
        let request = common::ws::request("/");
        client.conn.writer().write_all(request.as_bytes()).expect("room");
        let mut burst = Vec::new();
        if broken {
            client.conn.write_tls(&mut burst).expect("records");
            burst.extend_from_slice(&[23, 3, 3, 0, 40]);
            burst.resize(burst.len() + 40, 0);
        } else {
            client.conn.send_close_notify();
            client.conn.write_tls(&mut burst).expect("records");
        }
        client.sock.write_all(&burst).expect("all of it goes out");
        let outcome = ended(&mut client);
        if broken {
            let told = outcome.expect_err("an alert").to_string();
            assert!(told.contains("BadRecordMac"), "{told}");
            wait_ended(&scene.standpipe, "client/pipe/record_bad", 1);
        } else {
            outcome.expect("close_notify comes back, though no FIN went out");
            assert_eq!(codes.recv_timeout(PATIENCE), Ok(Some(1001)));
        }
    }
}
