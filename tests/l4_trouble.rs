//! Trouble on an L4 listener, one at a time: what each side sees, how it is counted, and that
//! nothing else is disturbed.

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::l4::{self, Accepting, Seen};
use common::{Standpipe, wait_until};
use socket2::{Domain, Socket, Type};

/// A port where nobody listens.
fn nobody() -> String {
    common::address().to_string()
}

/// A server whose queue is full: it neither accepts nor refuses.
struct Deaf {
    listener: Socket,
    _queued: Vec<Socket>,
}

impl Deaf {
    fn new() -> Deaf {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
        listener.listen(0).expect("listening");
        let address = listener.local_addr().expect("its address");
        let mut queued = Vec::new();
        for _ in 0..4 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.set_nonblocking(true).expect("non-blocking");
            let _ = socket.connect(&address);
            queued.push(socket);
        }
        std::thread::sleep(Duration::from_millis(100));
        Deaf { listener, _queued: queued }
    }

    fn written(&self) -> String {
        let address = self.listener.local_addr().expect("its address");
        address.as_socket().expect("an IP address").to_string()
    }
}

fn standpipe(command: &str, config: &str) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("standpipe.toml");
    std::fs::write(&file, config.replace("{admin}", &nobody())).expect("a config");
    let mut child = Command::new(common::binary());
    child.arg(command).arg(file).output().expect("the binary runs")
}

#[test]
fn a_server_that_cannot_be_resolved_is_a_mistake_with_a_line() {
    let servers = ["127.0.0.1:9000", "no-such-host.invalid:9000"];
    let out = standpipe("check", &l4::config(common::address(), &servers, "", "", ""));
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("no-such-host.invalid") && said.contains("servers[1]"), "{said}");
}

#[test]
fn a_refusing_server_costs_a_second_dial_and_no_byte() {
    let edge = common::address();
    let (dead, echo) = (nobody(), l4::echo().to_string());
    let pipe = Standpipe::start(&l4::config(edge, &[&dead, &echo], "", "", ""));
    for number in 0..6 {
        let client = l4::reach(edge);
        l4::ask(&client, format!("said before anybody listened {number}").as_bytes());
    }
    assert!(pipe.metric("standpipe_dial_failures_total", &[]) >= 1.0);
    assert_eq!(
        pipe.metric("standpipe_dial_failures_total", &[]),
        pipe.metric("standpipe_dial_retries_total", &[])
    );
    assert_eq!(l4::ended(&pipe, "server/dial/refused"), 0, "{}", l4::endings(&pipe));
}

#[test]
fn a_deaf_server_is_left_after_the_connect_timeout() {
    let edge = common::address();
    let deaf = Deaf::new();
    let timeouts = "[timeouts]\nconnect = \"400ms\"";
    let echo = l4::echo().to_string();
    let turns = "balance = \"round-robin\"";
    let pipe = Standpipe::start(&l4::config(edge, &[&deaf.written(), &echo], "", turns, timeouts));
    for _ in 0..2 {
        let begun = Instant::now();
        l4::ask(&l4::reach(edge), b"who is there");
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }
    assert!(pipe.metric("standpipe_dial_retries_total", &[]) >= 1.0);
    drop(pipe);
    let pipe = Standpipe::start(&l4::config(edge, &[&deaf.written()], "", "", timeouts));
    assert_eq!(l4::outcome(&l4::reach(edge)), Seen::End);
    l4::wait_ended(&pipe, "server/dial/timeout", 1);
}

#[test]
fn a_missing_unix_socket_has_its_own_ending() {
    let edge = common::address();
    let pipe = Standpipe::start(&l4::config(edge, &["unix:/nonexistent/socket"], "", "", ""));
    l4::outcome(&l4::reach(edge));
    l4::wait_ended(&pipe, "server/dial/socket_missing", 1);
}

const CHECKS: &str = "health = { every = \"100ms\", timeout = \"500ms\", rise = 1, fall = 2 }\n\
                      slow_start = \"off\"";

fn wait_usable(pipe: &Standpipe, count: f64) {
    wait_until("the checks have their verdict", || {
        pipe.metric("standpipe_pool_servers_usable", &[]) == count
    });
    // Control has decided; the cores hear of it at once, but not before.
    let version = pipe.metric("standpipe_snapshot_version", &[]);
    wait_until("the cores have heard of it", || {
        pipe.metric("standpipe_core_snapshot_version", &[]) >= version
    });
}

#[test]
fn with_all_servers_down_a_connection_is_closed_at_once() {
    let (edge, server) = (common::address(), common::address());
    let pipe = Standpipe::start(&l4::config(edge, &[&server.to_string()], "", CHECKS, ""));
    wait_usable(&pipe, 0.0);
    let begun = Instant::now();
    l4::outcome(&l4::reach(edge));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    l4::wait_ended(&pipe, "proxy/pick/pool_empty", 1);
    let returned = Accepting::tcp_at(server);
    wait_usable(&pipe, 1.0);
    let client = l4::reach(edge);
    (&client).write_all(b"again").expect("taken");
    let found = std::iter::from_fn(|| Some(returned.next()))
        .find_map(|mut socket| {
            let mut word = [0; 5];
            socket.read_exact(&mut word).is_ok().then_some(word)
        })
        .expect("checks open connections too; one of them is the client's");
    assert_eq!(&found, b"again");
}

#[test]
fn with_all_servers_down_a_listener_may_refuse() {
    let (edge, server) = (common::address(), common::address());
    let refuse = "when_empty = \"refuse\"";
    let config = l4::config(edge, &[&server.to_string()], refuse, CHECKS, "");
    let pipe = Standpipe::start(&l4::with_workers(2, &config));
    let refused = || l4::try_reach(edge, None).is_err();
    wait_until("the listener is closed", refused);
    wait_usable(&pipe, 0.0);
    let listener = common::listen(server);
    std::thread::spawn(move || l4::echo_on(&listener));
    wait_until("the listener is open again", || !refused());
    l4::ask(&l4::reach(edge), b"here again");
}

#[test]
fn who_says_nothing_where_a_header_is_due_is_closed() {
    let edge = common::address();
    let listener = "accept_proxy = \"any\"\ntrusted = [\"127.0.0.0/8\"]";
    let timeouts = "[timeouts]\nhandshake = \"500ms\"";
    let echo = l4::echo().to_string();
    let pipe = Standpipe::start(&l4::config(edge, &[&echo], listener, "", timeouts));
    let begun = Instant::now();
    let silent = l4::reach(edge);
    let begins = l4::reach(edge);
    (&begins).write_all(b"PROXY TCP4 ").expect("taken");
    l4::outcome(&silent);
    l4::outcome(&begins);
    let lasted = begun.elapsed();
    assert!(lasted > Duration::from_millis(400) && lasted < Duration::from_secs(4), "{lasted:?}");
    l4::wait_ended(&pipe, "client/front/timeout", 2);
}

#[test]
fn the_end_comes_after_the_last_byte() {
    let edge = common::address();
    let server = Accepting::tcp();
    let pipe = Standpipe::start(&l4::config(edge, &[&server.written], "", "", ""));
    let client = l4::reach_narrow(edge);
    let mut at_server = server.next();
    let speaking = std::thread::spawn(move || {
        at_server.write_all(&vec![7; 5 << 20]).expect("taken");
        // Closed with nothing unread: FIN, right behind the last byte.
    });
    std::thread::sleep(Duration::from_millis(800));
    assert_eq!(l4::get(&client, 5 << 20), vec![7; 5 << 20]);
    assert_eq!(l4::outcome(&client), Seen::End);
    speaking.join().expect("all was taken");
    drop(client);
    l4::wait_ended(&pipe, "server/pipe/fin", 1);
}

#[test]
fn a_server_that_never_reads_is_given_up_and_costs_little() {
    let edge = common::address();
    let server = Accepting::narrow();
    let timeouts = "[timeouts]\nstall = \"5s\"";
    let pipe = Standpipe::start(&l4::config(edge, &[&server.written], "", "", timeouts));
    let before = pipe.resident();
    let clients: Vec<Socket> = (0..8).map(|_| l4::reach(edge)).collect();
    let servers: Vec<Socket> = clients.iter().map(|_| server.next()).collect();
    std::thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| assert!(l4::stuff(client) > 0));
        }
    });
    let grown = pipe.resident().saturating_sub(before);
    assert!(grown < 8 * (2 << 20) + (8 << 20), "{grown} bytes for eight stalled pipes");
    l4::wait_ended(&pipe, "server/pipe/stall", 8);
    for client in &clients {
        assert_eq!(l4::outcome(client), Seen::Reset);
    }
    for server in &servers {
        assert_eq!(l4::outcome(server), Seen::Reset);
    }
}

/// The hearer has finished and takes nothing; a poll on its socket returns at once, every time.
fn half_closed_slow_reader(from_server: bool, is_unix: bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let edge = common::address();
    let server = if is_unix { Accepting::unix(folder.path()) } else { Accepting::tcp() };
    let pipe = Standpipe::start(&l4::config(edge, &[&server.written], "", "", ""));
    let client = l4::reach(edge);
    let at_server = server.next();
    let (speaker, hearer) = if from_server { (&at_server, &client) } else { (&client, &at_server) };
    l4::finish(hearer);
    let sent = l4::stuff(speaker);
    assert!(sent > 0);
    // The last of it is settled, and a sweep has come by.
    std::thread::sleep(Duration::from_millis(1_500));
    let before = pipe.processor_time();
    std::thread::sleep(Duration::from_secs(2));
    let used = pipe.processor_time() - before;
    assert!(used < Duration::from_millis(150), "{used:?} of processor time in 2 s");
    l4::finish(speaker);
    assert_eq!(l4::get(hearer, sent).len(), sent);
    assert_eq!(l4::outcome(hearer), Seen::End);
}

#[test]
fn a_half_closed_slow_client_costs_no_processor_time() {
    half_closed_slow_reader(true, false);
    half_closed_slow_reader(true, true);
}

#[test]
fn a_half_closed_slow_server_costs_no_processor_time() {
    half_closed_slow_reader(false, false);
    half_closed_slow_reader(false, true);
}

#[test]
fn a_silent_pipe_ends_when_its_time_is_up() {
    let edge = common::address();
    let server = Accepting::tcp();
    let timeouts = "[timeouts]\nidle = \"4s\"";
    let pipe = Standpipe::start(&l4::config(edge, &[&server.written], "", "", timeouts));
    let quiet = l4::reach(edge);
    let at_server = server.next();
    let busy = l4::reach(edge);
    let other = server.next();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(9) {
        (&other).write_all(b".").expect("taken");
        l4::get(&busy, 1);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(l4::outcome(&quiet), Seen::End);
    assert_eq!(l4::outcome(&at_server), Seen::End);
    l4::wait_ended(&pipe, "proxy/pipe/idle", 1);
    assert_eq!(pipe.metric("standpipe_connections_live", &[]), 1.0);
}

#[test]
fn a_half_that_does_not_follow_ends_too() {
    let edge = common::address();
    let server = Accepting::tcp();
    let timeouts = "[timeouts]\nhalf_close = \"1s\"";
    let pipe = Standpipe::start(&l4::config(edge, &[&server.written], "", "", timeouts));
    for (client_first, ending) in
        [(true, "server/pipe/half_close"), (false, "client/pipe/half_close")]
    {
        let client = l4::reach(edge);
        let at_server = server.next();
        let (first, second) =
            if client_first { (&client, &at_server) } else { (&at_server, &client) };
        l4::finish(first);
        assert_eq!(l4::outcome(second), Seen::End);
        assert_eq!(l4::outcome(first), Seen::End);
        l4::wait_ended(&pipe, ending, 1);
    }
}

fn sources(last: u8) -> Option<IpAddr> {
    Some(IpAddr::from([127, 0, 0, last]))
}

/// Connects all at once; those that are still open.
fn storm(edge: SocketAddr, from: &[Option<IpAddr>], count: usize) -> Vec<Socket> {
    let all: Vec<Socket> = std::thread::scope(|scope| {
        let connects = (0..count).map(|number| {
            let source = from[number % from.len()];
            scope.spawn(move || l4::try_reach(edge, source).expect("a connection"))
        });
        let connects: Vec<_> = connects.collect();
        connects.into_iter().map(|connect| connect.join().expect("connected")).collect()
    });
    all.into_iter().filter(answers).collect()
}

/// Whether an echo comes back; a refused connection is closed instead.
fn answers(mut socket: &Socket) -> bool {
    let mut byte = [0; 1];
    socket.write_all(b"?").is_ok() && matches!(socket.read(&mut byte), Ok(1))
}

#[test]
fn max_connections_holds_exactly_over_cores() {
    let edge = common::address();
    let echo = l4::echo().to_string();
    let config = l4::config(edge, &[&echo], "max_connections = 20", "", "");
    let pipe = Standpipe::start(&l4::with_workers(2, &config));
    let mut open = storm(edge, &[None], 60);
    assert_eq!(open.len(), 20);
    l4::wait_ended(&pipe, "proxy/accept/max_connections", 40);
    assert_eq!(pipe.metric("standpipe_listener_refused_total", &[]), 40.0);
    open.truncate(15);
    wait_until("five have ended", || pipe.metric("standpipe_connections_live", &[]) == 15.0);
    assert_eq!(storm(edge, &[None], 9).len(), 5);
    assert!(open.iter().all(answers), "living ones are never refused");
}

#[test]
fn a_limit_that_comes_by_a_reload_knows_of_who_is_in() {
    let edge = common::address();
    let echo = l4::echo().to_string();
    let config = |limit| l4::config(edge, &[&echo], limit, "", "");
    let pipe = Standpipe::start(&config(""));
    let open = storm(edge, &[None], 5);
    assert_eq!(open.len(), 5);
    pipe.reload(&config("max_connections = 6"));
    assert_eq!(storm(edge, &[None], 4).len(), 1);
    assert!(open.iter().all(answers));
}

#[test]
fn max_per_source_holds_exactly_over_cores() {
    let edge = common::address();
    let echo = l4::echo().to_string();
    let config = l4::config(edge, &[&echo], "max_per_source = 7", "", "");
    let pipe = Standpipe::start(&l4::with_workers(2, &config));
    let open = storm(edge, &[sources(2), sources(3)], 40);
    assert_eq!(open.len(), 14);
    l4::wait_ended(&pipe, "proxy/accept/max_per_source", 26);
    assert!(storm(edge, &[sources(2)], 3).is_empty());
    assert_eq!(storm(edge, &[sources(4)], 3).len(), 3);
    drop(open);
    wait_until("all have ended", || pipe.metric("standpipe_connections_live", &[]) == 0.0);
    assert_eq!(storm(edge, &[sources(2)], 8).len(), 7);
}

#[test]
fn a_full_pool_is_told_apart_from_an_empty_one() {
    let edge = common::address();
    let echo = l4::echo().to_string();
    let pipe = Standpipe::start(&l4::config(edge, &[&echo], "", "max_connections = 3", ""));
    let open = storm(edge, &[None], 8);
    assert_eq!(open.len(), 3);
    l4::wait_ended(&pipe, "proxy/pick/pool_full", 5);
}

fn set_limit(pipe: &Standpipe, descriptors: &str) {
    let pid = pipe.pid().to_string();
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &pid, &format!("--nofile={descriptors}:")]);
    let done = prlimit.status().expect("prlimit runs");
    assert!(done.success());
}

fn shortages(pipe: &Standpipe) -> usize {
    l4::ended(pipe, "proxy/accept/no_descriptors") + l4::ended(pipe, "proxy/dial/no_descriptors")
}

#[test]
fn at_the_descriptor_limit_what_lives_is_kept() {
    if common::peers::tool("prlimit").is_none() {
        return;
    }
    let edge = common::address();
    let echo = l4::echo().to_string();
    let config = l4::config(edge, &[&echo], "", "", "");
    let pipe = Standpipe::start(&config);
    let early = storm(edge, &[None], 10);
    assert_eq!(early.len(), 10);
    // The budget was made under a higher limit. A pipe needs two descriptors: at one of these
    // limits the dial finds none left, at the other accept(2) itself. (A listener accepts under
    // the limit it was opened with, so each gets one of its own.)
    let mut late = Vec::new();
    let mut config = config;
    for (limit, asked) in [("60", 60), ("62", 120)] {
        set_limit(&pipe, limit);
        let other = common::address();
        let more = format!("[listeners.l{limit}]\nbind = [\"{other}\"]\nmode = \"l4\"\n");
        config = format!("{config}\n{more}pool = \"pool\"\n");
        pipe.reload(&config);
        wait_until("it listens", || l4::try_reach(other, None).is_ok());
        late.extend(storm(other, &[None], 60));
        assert!(early.iter().chain(&late).all(answers));
        assert!(shortages(&pipe) > asked / 2, "{}", l4::endings(&pipe));
    }
    assert!(pipe.metric("standpipe_accept_errors_total", &[]) >= 1.0, "{}", l4::endings(&pipe));
    assert!(l4::ended(&pipe, "proxy/accept/no_descriptors") >= 1, "{}", l4::endings(&pipe));
    let before = pipe.processor_time();
    std::thread::sleep(Duration::from_secs(1));
    let used = pipe.processor_time() - before;
    assert!(used < Duration::from_millis(200), "{used:?} in a second of shortage");
    set_limit(&pipe, "4096");
    wait_until("it goes on", || storm(edge, &[None], 1).len() == 1);
    assert!(early.iter().chain(&late).all(answers));
}

#[test]
fn beyond_the_budget_connections_are_closed_at_once() {
    if common::peers::tool("prlimit").is_none() {
        return;
    }
    let edge = common::address();
    let echo = l4::echo().to_string();
    let config = l4::with_workers(2, &l4::config(edge, &[&echo], "", "", ""));
    let pipe = Standpipe::start_by(&["prlimit", "--nofile=320:320"], &config);
    // 30 on each of two cores, by what is left of 320 descriptors: a core has 256 for itself, and
    // four that both are born with.
    assert_eq!(pipe.metric("standpipe_core_connections_max", &[("core", "1")]), 30.0);
    let open = storm(edge, &[None], 100);
    assert_eq!(open.len(), 60, "{}", l4::endings(&pipe));
    l4::wait_ended(&pipe, "proxy/accept/no_room", 40);
    assert!(open.iter().all(answers));
    drop(open);
    wait_until("all have ended", || pipe.metric("standpipe_connections_live", &[]) == 0.0);
    assert_eq!(storm(edge, &[None], 50).len(), 50);
}
