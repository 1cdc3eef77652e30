//! Connections to servers that carry one request after another: when one is used again, and when a
//! request that met a dead one may go out once more.

mod common;

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use common::Standpipe;
use common::http::{Reader, Server, ok};
use common::web::{Shape, Web};
use socket2::{SockFilter, SockRef};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n";

/// From now on nothing that comes is seen, let alone acknowledged, by this end's TCP.
fn go_deaf(reader: &Reader) {
    // BPF_RET | BPF_K: accept this many bytes of each packet, which is none.
    let drop_all = SockFilter::new(0x06, 0, 0, 0);
    SockRef::from(&reader.stream).attach_filter(&[drop_all]).expect("attached");
}

/// A server whose first connection answers one request and then hears nothing more, which it tells;
/// once it is told that another was sent it says `last_words` and leaves. Its other connections are
/// in order.
fn deaf_once(last_words: &'static str) -> (Server, Receiver<()>, Sender<()>) {
    deaf_once_then(move |reader| {
        let _ = reader.stream.write_all(last_words.as_bytes());
    })
}

/// The same with something else to be done at last.
fn deaf_once_then(
    leave: impl Fn(&mut Reader) + Send + Sync + 'static,
) -> (Server, Receiver<()>, Sender<()>) {
    let ((deaf, is_deaf), (sent, is_sent)) = (channel(), channel());
    let test = Mutex::new((deaf, is_sent));
    let connections = AtomicUsize::new(0);
    let server = Server::scripted(move |mut reader| {
        let is_first = connections.fetch_add(1, Ordering::SeqCst) == 0;
        while let Some(request) = reader.request() {
            reader.send(ok(&request.text()));
            if is_first {
                // Its answer is acknowledged by then.
                std::thread::sleep(Duration::from_millis(100));
                go_deaf(&reader);
                let test = test.lock().expect("no panic");
                test.0.send(()).expect("the test listens");
                let _ = test.1.recv();
                // The request has gone out by then, unheard.
                std::thread::sleep(Duration::from_millis(600));
                leave(&mut reader);
                return;
            }
        }
    });
    (server, is_deaf, sent)
}

#[test]
fn a_kept_connection_that_its_server_left_is_not_noticed_by_the_client() {
    // Closes after each answer without saying so.
    let server = Server::scripted(|mut reader| {
        if reader.request().is_some() {
            reader.send(ok("once"));
        }
    });
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    for n in 0..10 {
        client.send(GET);
        assert_eq!(client.response("GET").status, 200, "request {n}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(server.accepted(), 10);
}

#[test]
fn a_request_that_no_server_can_have_seen_goes_out_once_more() {
    for request in [GET.to_string(), POST.to_string() + "hello"] {
        let (server, is_deaf, sent) = deaf_once("");
        let web = Web::before(&[&server]);
        let mut client = Reader::connect(web.address);
        client.send(GET);
        assert_eq!(client.response("GET").status, 200);
        is_deaf.recv_timeout(common::PATIENCE).expect("it is deaf");
        client.send(&request);
        sent.send(()).expect("the server waits");
        let answer = client.response("GET");
        let body = request.rsplit("\r\n").next().expect("a body");
        assert_eq!((answer.status, answer.text().as_str()), (200, body));
        assert_eq!(server.accepted(), 2);
    }
}

#[test]
fn behind_a_reset_only_what_may_be_done_twice_goes_out_once_more() {
    for (request, status) in [(GET.to_string(), 200), (POST.to_string() + "hello", 502)] {
        let (server, is_deaf, sent) = deaf_once_then(|reader| {
            SockRef::from(&reader.stream).set_linger(Some(Duration::ZERO)).expect("set");
        });
        let web = Web::before(&[&server]);
        let mut client = Reader::connect(web.address);
        client.send(GET);
        assert_eq!(client.response("GET").status, 200);
        is_deaf.recv_timeout(common::PATIENCE).expect("it is deaf");
        client.send(&request);
        sent.send(()).expect("the server waits");
        assert_eq!(client.response("GET").status, status, "{request}");
        assert_eq!(server.accepted(), if status == 200 { 2 } else { 1 });
    }
}

#[test]
fn a_server_that_spoke_has_seen_the_request() {
    let (server, is_deaf, sent) = deaf_once("HTTP/1.1 103 Early Hints\r\n\r\n");
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    client.send(GET);
    assert_eq!(client.response("GET").status, 200);
    is_deaf.recv_timeout(common::PATIENCE).expect("it is deaf");
    client.send(GET);
    sent.send(()).expect("the server waits");
    assert_eq!(client.response("GET").status, 502);
    assert_eq!(server.accepted(), 1);
}

#[test]
fn a_request_that_was_acknowledged_is_never_sent_twice() {
    for request in [GET.to_string(), POST.to_string() + "hello"] {
        let server = Server::scripted(|mut reader| {
            if reader.request().is_some() {
                reader.send(ok("first"));
            }
            // The second request on this connection is read and never answered.
            let _ = reader.request();
        });
        let web = Web::before(&[&server]);
        let mut client = Reader::connect(web.address);
        client.send(GET);
        assert_eq!(client.response("GET").status, 200);
        client.send(&request);
        assert_eq!(client.response("GET").status, 502, "{request}");
        assert_eq!(server.accepted(), 1);
        // The whole request was taken from the client: its connection is as good as before.
        client.send(GET);
        assert_eq!(client.response("GET").status, 200);
    }
}

#[test]
fn a_body_still_to_come_goes_out_on_a_fresh_connection_only() {
    let server = Server::answering(|request| ok(&request.text()));
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    let mut ask = |pause: u64, in_one: bool| {
        std::thread::sleep(Duration::from_millis(pause));
        if in_one {
            client.send(POST.to_string() + "hello");
        } else {
            client.send(POST);
            std::thread::sleep(Duration::from_millis(100));
            client.send("hello");
        }
        assert_eq!(client.response("POST").text(), "hello");
        server.accepted()
    };
    assert_eq!(ask(0, false), 1);
    assert_eq!(ask(0, false), 1, "it was in use a moment ago");
    assert_eq!(ask(1500, true), 1, "the request could be repeated");
    assert_eq!(ask(1500, false), 2, "it could not");
}

#[test]
fn a_connection_that_answered_early_is_not_used_again() {
    let server = Server::scripted(|mut reader| {
        while let Some(head) = reader.head() {
            if head.target() != "/early" {
                std::thread::sleep(Duration::from_millis(500));
            }
            reader.send(ok(head.target()));
        }
    });
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    client.send("POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n");
    let answer = client.response("POST");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    // The rest of the body would be the beginning of whatever that server is sent next.
    client.send("GET /smuggled HTTP/1.1\r\nHost: xxxxxx\r\n\r\n");
    client.rest();
    std::thread::sleep(Duration::from_millis(100));
    let mut other = Reader::connect(web.address);
    other.send("GET /other HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(other.response("GET").text(), "/other");
    assert_eq!(server.accepted(), 2);
}

#[test]
fn a_body_is_never_read_as_a_request() {
    let server = Server::scripted(|mut reader| drop(reader.head()));
    let web = Web::before(&[&server]);
    let mut client = Reader::connect(web.address);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n");
    std::thread::sleep(Duration::from_millis(200));
    let _ =
        client.stream.write_all("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n".repeat(9).as_bytes());
    let answer = client.response("POST");
    assert_eq!((answer.status, answer.header("connection")), (502, Some("close")));
    assert!(client.at_end(), "and no second answer");
}

#[test]
fn a_kept_connection_serves_only_who_would_be_dialled_as_it_was() {
    let server = Server::answering(|_| ok("here"));
    let address = common::address();
    let config =
        |pool| common::web::config(address, &[&server], &Shape { pool, ..Shape::default() });
    let standpipe = Standpipe::start(&config(""));
    let mut client = Reader::connect(address);
    let mut ask = || {
        client.send(GET);
        assert_eq!(client.response("GET").status, 200);
    };
    (0..3).for_each(|_| ask());
    assert_eq!(server.accepted(), 1);
    let reload = |pool| {
        standpipe.reload(&config(pool));
        let version = standpipe.metric("standpipe_snapshot_version", &[]);
        common::wait_until("the core has heard of it", || {
            standpipe.metric("standpipe_core_snapshot_version", &[]) >= version
        });
    };
    reload("balance = \"round-robin\"");
    ask();
    assert_eq!(server.accepted(), 1, "it is dialled as before");
    reload("source = [\"127.0.0.2\"]");
    ask();
    assert_eq!(server.accepted(), 2, "from another address");
}

/// Kept connections need descriptors that nobody set aside for them: clients go before them.
#[test]
fn kept_connections_give_way_to_clients() {
    if common::peers::tool("prlimit").is_none() {
        return;
    }
    standpipe::sys::process::raise_file_limit().expect("a higher limit");
    // Nobody is answered before all have asked, so that each has a connection to the server.
    let all = std::sync::Barrier::new(340);
    let server = Server::answering(move |_| {
        all.wait();
        ok("")
    });
    let (address, edge, echo) = (common::address(), common::address(), common::l4::echo());
    let more = format!(
        "[listeners.edge]\nbind = [\"{edge}\"]\nmode = \"l4\"\npool = \"echo\"\n\
         [pools.echo]\nservers = [\"{echo}\"]\n\
         [runtime]\nworkers = 1\nadmin = \"{{admin}}\"\n"
    );
    let shape = Shape { pool: "idle_connections = 1000", more: &more, ..Shape::default() };
    let config = common::web::config(address, &[&server], &shape);
    let standpipe = Standpipe::start_by(&["prlimit", "--nofile=1280:1280"], &config);
    let room = standpipe.metric("standpipe_core_connections_max", &[]) as usize;
    assert_eq!(room, (1280 - 1 - 256) / 2);
    let kept = || standpipe.metric("standpipe_http_idle_server_connections", &[]) as usize;
    let mut clients: Vec<Reader> = (0..340).map(|_| Reader::connect(address)).collect();
    clients.iter_mut().for_each(|client| client.send(GET));
    assert!(clients.iter_mut().all(|client| client.response("GET").status == 200));
    common::wait_until("connections are kept", || kept() >= 280);
    drop(clients);
    common::wait_until("they have left", || {
        standpipe.metric("standpipe_connections_young", &[]) == 0.0
    });
    let pipes: Vec<_> = (0..room).map(|_| common::l4::reach(edge)).collect();
    for pipe in &pipes {
        common::l4::ask(pipe, b"hello");
    }
    common::wait_until("they gave way", || kept() == 0);
}
