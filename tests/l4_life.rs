//! Living through what happens to a fleet: servers killed and returned, reloads, the end of the
//! process, one client address for thousands, and cores that carry more than their share.

mod common;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::l4::{self, Accepting, Pace, Part, Stretch};
use common::{Standpipe, wait_until};
use socket2::Socket;

/// Where the server process of this very test binary listens.
const SERVE_AT: &str = "STANDPIPE_TEST_SERVE_AT";

/// Not a test by itself: started again as a process of its own it is a server, which greets with
/// its port in five digits and then sends back what it hears.
#[test]
fn a_server_process() {
    let Ok(address) = std::env::var(SERVE_AT) else { return };
    let address = address.parse().expect("an address");
    let listener = common::listen(address);
    let greeting = greeting_of(address);
    for stream in listener.incoming().flatten() {
        let greeting = greeting.clone();
        std::thread::spawn(move || {
            let mut stream = stream;
            let _ = stream.set_nodelay(true);
            let mut chunk = vec![0; 64 << 10];
            let mut said = stream.write_all(&greeting);
            while let (Ok(()), Ok(n @ 1..)) = (&said, stream.read(&mut chunk)) {
                said = stream.write_all(&chunk[..n]);
            }
        });
    }
}

fn greeting_of(address: SocketAddr) -> Vec<u8> {
    format!("{:05}", address.port()).into_bytes()
}

/// A server that can be killed.
struct Process {
    address: SocketAddr,
    child: Child,
}

impl Process {
    fn start(address: SocketAddr) -> Process {
        let itself = std::env::current_exe().expect("this binary");
        let child = Command::new(itself)
            .args(["--exact", "a_server_process", "--nocapture"])
            .env(SERVE_AT, address.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this binary runs again");
        let process = Process { address, child };
        wait_until("the server process listens", || l4::try_reach(address, None).is_ok());
        process
    }

    /// As `kill -9` does.
    fn kill(&mut self) {
        self.child.kill().expect("it was alive");
        self.child.wait().expect("it has gone");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client and the port of the server it was given.
struct Client {
    socket: Socket,
    server: Vec<u8>,
}

fn greeted(edge: SocketAddr) -> Client {
    let socket = l4::reach(edge);
    let server = l4::get(&socket, 5);
    Client { socket, server }
}

const CHECKED: &str = "balance = \"round-robin\"\nslow_start = \"20s\"\n\
                       health = { every = \"100ms\", timeout = \"100ms\", rise = 1, fall = 2 }";

fn usable(pipe: &Standpipe) -> f64 {
    pipe.metric("standpipe_pool_servers_usable", &[("pool", "pool")])
}

fn spread(edge: SocketAddr, servers: &[Process], count: usize) -> Vec<usize> {
    let clients: Vec<Client> = (0..count).map(|_| greeted(edge)).collect();
    let of = |server: &Process| {
        clients.iter().filter(|client| client.server == greeting_of(server.address)).count()
    };
    servers.iter().map(of).collect()
}

/// Asks until told to stop; how many times it went well, or the error it met.
fn keep_asking(client: &Client, stop: &AtomicBool) -> std::io::Result<usize> {
    let mut rounds = 0;
    let mut socket = &client.socket;
    let said = vec![0x5a; 16 << 10];
    let mut heard = vec![0; said.len()];
    while !stop.load(Ordering::Relaxed) {
        socket.write_all(&said)?;
        socket.read_exact(&mut heard)?;
        assert_eq!(said, heard);
        rounds += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(rounds)
}

#[test]
fn a_killed_server_is_felt_by_its_own_pipes_only() {
    let edge = common::address();
    let mut servers: Vec<Process> = (0..3).map(|_| Process::start(common::address())).collect();
    let written: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();
    let written: Vec<&str> = written.iter().map(String::as_str).collect();
    let pipe = Standpipe::start(&l4::config(edge, &written, "", CHECKED, ""));
    let clients: Vec<Client> = (0..30).map(|_| greeted(edge)).collect();
    let killed = greeting_of(servers[1].address);
    let lost = clients.iter().filter(|client| client.server == killed).count();
    assert!((5..=15).contains(&lost), "{lost} of 30 on one of three servers");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = clients.iter().map(|client| scope.spawn(|| keep_asking(client, &stop)));
        let asking: Vec<_> = asking.collect();
        std::thread::sleep(Duration::from_millis(500));
        servers[1].kill();
        // At once, before any check has noticed: a refusal costs another dial, nothing else.
        let meanwhile = spread(edge, &servers, 20);
        assert_eq!((meanwhile[0] + meanwhile[2], meanwhile[1]), (20, 0));
        wait_until("it is down", || usable(&pipe) == 2.0);
        let later = spread(edge, &servers, 20);
        assert!(later[0] >= 8 && later[2] >= 8, "{later:?}");
        stop.store(true, Ordering::Relaxed);
        for (client, asked) in clients.iter().zip(asking) {
            let went = asked.join().expect("no panic");
            assert_eq!(went.is_err(), client.server == killed, "{went:?}");
        }
    });
    drop(clients);
    wait_until("all pipes are over", || pipe.metric("standpipe_connections_live", &[]) == 0.0);
    let of_server = ["server/pipe/reset", "server/pipe/fin", "proxy/pipe/server_down"];
    let ended: usize = of_server.iter().map(|ending| l4::ended(&pipe, ending)).sum();
    assert_eq!(ended, lost, "{}", l4::endings(&pipe));
    returns_slowly(&pipe, edge, &mut servers);
}

/// The killed server comes back: used again, with less than its share at first.
fn returns_slowly(pipe: &Standpipe, edge: SocketAddr, servers: &mut [Process]) {
    servers[1] = Process::start(servers[1].address);
    wait_until("it is up", || usable(pipe) == 3.0);
    let name = servers[1].address.to_string();
    let share = || pipe.metric("standpipe_server_share", &[("server", &name)]);
    let first = share();
    assert!(first < 0.5, "a share of {first} at once");
    let early = spread(edge, servers, 60);
    assert!(early[1] < 15, "{early:?}");
    wait_until("its share has grown", || share() > first + 0.2);
    let later = spread(edge, servers, 90);
    assert!(later[1] > 0, "{later:?}");
}

/// A second listener and pool beside the one under test, whose list of servers changes.
fn with_other_pool(config: &str, bind: SocketAddr, servers: &[String]) -> String {
    format!(
        "{config}\n[listeners.other]\nbind = [\"{bind}\"]\nmode = \"l4\"\npool = \"other\"\n\n\
         [pools.other]\nservers = {servers:?}\n{CHECKED}\n"
    )
}

#[test]
fn reloads_and_kills_in_other_pools_touch_no_byte() {
    let (edge, other) = (common::address(), common::address());
    let server = Accepting::tcp();
    let mut processes: Vec<Process> = (0..3).map(|_| Process::start(common::address())).collect();
    let names: Vec<String> = processes.iter().map(|it| it.address.to_string()).collect();
    let base = l4::config(edge, &[&server.written], "", "", "");
    let config = |round: usize| {
        let shown: Vec<String> = names.iter().skip(round % 2).cloned().collect();
        l4::with_workers(2, &with_other_pool(&base, other, &shown))
    };
    let pipe = Standpipe::start(&config(0));
    let burst = [Stretch::Large(2 << 20), Stretch::Rest(Duration::from_millis(350))];
    let push = Part { script: burst.repeat(10), pace: Pace::Quick };
    let reply = Part { script: vec![Stretch::Lively(20)], pace: Pace::Quick };
    let seed = fastrand::u64(..);
    let done = AtomicBool::new(false);
    let mut reloads = 0;
    std::thread::scope(|scope| {
        let pairs: Vec<_> = (0..10).map(|_| (l4::reach(edge), server.next())).collect();
        let (push, reply, done) = (&push, &reply, &done);
        let pushing = scope.spawn(move || {
            std::thread::scope(|scope| {
                for (number, (client, at_server)) in pairs.iter().enumerate() {
                    let seed = seed ^ (number as u64) << 8;
                    scope.spawn(move || l4::exchange(client, at_server, seed, [push, reply]));
                }
            });
            done.store(true, Ordering::Relaxed);
        });
        while !pushing.is_finished() {
            reloads += 1;
            pipe.reload(&config(reloads));
            let victim = reloads % processes.len();
            processes[victim].kill();
            processes[victim] = Process::start(processes[victim].address);
            std::thread::sleep(Duration::from_millis(150));
        }
        pushing.join().unwrap_or_else(|_| panic!("seed {seed}"));
    });
    assert!(done.load(Ordering::Relaxed));
    assert!(reloads >= 8, "{reloads} reloads");
    assert_eq!(pipe.metric("standpipe_listener_faults_total", &[("listener", "edge")]), 0.0);
    let accepted = [("listener", "edge")];
    assert_eq!(pipe.metric("standpipe_listener_accepted_total", &accepted), 10.0);
    pipe.wait_log(&["closes 0 pipes"]);
    assert!(!pipe.log().lines().any(|line| line.contains("closes ") && !line.contains("closes 0")));
}

/// A pipe that is busy when the end is asked for goes on to its own end, whole.
#[test]
fn a_busy_pipe_outlives_the_listeners() {
    let edge = common::address();
    let server = Accepting::tcp();
    let config = format!(
        "[runtime]\nworkers = 2\nadmin = \"{{admin}}\"\ndrain_delay = \"3s\"\n\
         drain_timeout = \"30s\"\n\n{}",
        l4::config(edge, &[&server.written], "", "", "")
    );
    let mut pipe = Standpipe::start(&config);
    let script = [Stretch::Large(3 << 20), Stretch::Rest(Duration::from_millis(400))].repeat(14);
    let part = Part { script, pace: Pace::Quick };
    let (client, at_server) = (l4::reach(edge), server.next());
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| l4::exchange(&client, &at_server, 9, [&part, &part]));
        std::thread::sleep(Duration::from_millis(300));
        pipe.signal("TERM");
        wait_until("/ready says 503", || pipe.admin_get("/ready").0 == 503);
        drop((l4::try_reach(edge, None).expect("still accepting"), server.next()));
        wait_until("nobody accepts", || l4::try_reach(edge, None).is_err());
        assert!(!pushing.is_finished(), "the pipe lives on");
    });
    // What came in before the listener closed waits there.
    drop(server);
    assert_eq!(pipe.wait_exit().code(), Some(0));
}

// === one address for thousands ===

/// Connections that one address opens over four servers; how many each has got.
fn nat(balance: &str, count: usize) -> Vec<usize> {
    standpipe::sys::process::raise_file_limit().expect("a higher limit");
    let edge = common::address();
    let servers: Vec<Accepting> = (0..4).map(|_| Accepting::tcp()).collect();
    let written: Vec<&str> = servers.iter().map(|server| &*server.written).collect();
    let config = l4::config(edge, &written, "", balance, "");
    let pipe = Standpipe::start(&l4::with_workers(2, &config));
    let clients: Vec<Socket> = (0..count).map(|_| l4::reach(edge)).collect();
    wait_until("all are established", || {
        pipe.metric("standpipe_connections_live", &[]) == count as f64
    });
    let on =
        |server: &&str| pipe.metric("standpipe_server_connections", &[("server", server)]) as usize;
    let each = written.iter().map(on).collect();
    drop(clients);
    each
}

#[test]
fn a_hash_is_bounded_unless_told_otherwise() {
    let each = nat("balance = \"source-hash\"", 2000);
    assert_eq!(each.iter().sum::<usize>(), 2000);
    let most = each.iter().max().expect("four servers");
    assert!(*most <= 625, "{each:?}: more than 1.25 of the fair share of 500");
    assert!(each.iter().filter(|count| **count > 0).count() >= 4, "{each:?}");
}

#[test]
fn an_unbounded_hash_keeps_one_address_on_one_server() {
    let mut each = nat("balance = \"source-hash\"\nbounded = false", 400);
    each.sort_unstable();
    assert_eq!(each, [0, 0, 0, 400]);
}

/// What a request would be placed by does not exist here, and the address is only for the log.
#[test]
fn a_pool_that_is_sticky_by_header_is_balanced_as_it_says() {
    let edge = common::address();
    let servers: Vec<Accepting> = (0..4).map(|_| Accepting::tcp()).collect();
    let written: Vec<&str> = servers.iter().map(|server| &*server.written).collect();
    let pool = "balance = \"round-robin\"\nsticky = { header = \"X-User\" }";
    let config = format!(
        "[runtime]\nworkers = 1\nadmin = \"{{admin}}\"\nlog = {{ connections = \"all\" }}\n\n{}",
        l4::config(edge, &written, "", pool, "")
    );
    let pipe = Standpipe::start(&config);
    let clients: Vec<Socket> = (0..8).map(|_| l4::reach(edge)).collect();
    wait_until("all are established", || pipe.metric("standpipe_connections_live", &[]) == 8.0);
    for server in &written {
        let on = pipe.metric("standpipe_server_connections", &[("server", server)]);
        assert_eq!(on, 2.0, "{server}");
    }
    drop(clients);
}

// === cores ===

fn of_core(pipe: &Standpipe, core: usize, name: &str) -> usize {
    pipe.metric(name, &[("core", &core.to_string())]) as usize
}

fn live(pipe: &Standpipe) -> [usize; 3] {
    [0, 1, 2].map(|core| of_core(pipe, core, "standpipe_connections_live"))
}

/// Opens connections one at a time; each with the core it is on.
fn placed(pipe: &Standpipe, edge: SocketAddr, count: usize) -> Vec<(usize, Socket)> {
    let mut all = Vec::new();
    for _ in 0..count {
        let before = live(pipe);
        let client = l4::reach(edge);
        l4::ask(&client, b"here");
        let after = live(pipe);
        let core = (0..3).find(|core| after[*core] > before[*core]).expect("some core has it");
        all.push((core, client));
    }
    all
}

#[test]
fn more_workers_than_processors_all_serve_and_even_out() {
    let edge = common::address();
    let echo = l4::echo().to_string();
    let pipe = Standpipe::start(&l4::with_workers(3, &l4::config(edge, &[&echo], "", "", "")));
    let mut clients = placed(&pipe, edge, 240);
    for core in 0..3 {
        let accepted = of_core(&pipe, core, "standpipe_connections_accepted_total");
        assert!(accepted > 40, "core {core} accepted {accepted} of 240");
    }
    // Two cores lose what they have: the third carries more than its share until others come.
    clients.retain(|(core, _)| *core == 0);
    wait_until("two cores are empty", || live(&pipe)[1..] == [0, 0]);
    let kept = clients.len();
    assert!(kept > 64, "{kept} on one core");
    let handed = || pipe.metric("standpipe_connections_handed_over_total", &[]);
    let before = handed();
    // One after another: a burst is placed by what cores knew of each other when it began.
    let fresh = (0..2 * kept).map(|_| l4::reach(edge)).inspect(|client| l4::ask(client, b"fresh"));
    let fresh: Vec<Socket> = fresh.collect();
    assert!(handed() - before >= kept as f64 * 0.3, "{} handed over", handed() - before);
    assert_eq!(handed(), pipe.metric("standpipe_connections_taken_over_total", &[]));
    let each = live(&pipe);
    assert!(each.iter().all(|count| *count * 4 < kept * 5), "{each:?}, {kept} were kept");
    for client in clients.iter().map(|(_, client)| client).chain(&fresh) {
        l4::ask(client, b"still here");
    }
}

/// Law 5: a number of one core's table is never written to, or closed, by another thread.
#[test]
fn signals_under_load_change_no_byte() {
    let edge = common::address();
    let server = Accepting::tcp();
    let config = l4::config(edge, &[&server.written], "", "", "");
    let pipe = Standpipe::start(&l4::with_workers(3, &config));
    let script = vec![Stretch::Lively(400), Stretch::Large(8 << 20), Stretch::Lively(200)];
    let part = Part { script, pace: Pace::Quick };
    let pairs: Vec<_> = (0..12).map(|_| (l4::reach(edge), server.next())).collect();
    std::thread::scope(|scope| {
        let pushing = pairs.iter().enumerate().map(|(number, (client, at_server))| {
            let (seed, part) = (number as u64, &part);
            scope.spawn(move || l4::exchange(client, at_server, seed, [part, part]))
        });
        let pushing: Vec<_> = pushing.collect();
        let begun = Instant::now();
        while !pushing.iter().all(|it| it.is_finished()) && begun.elapsed() < common::PATIENCE {
            for signal in ["HUP", "PIPE", "WINCH", "HUP"] {
                pipe.signal(signal);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(pipe.metric("standpipe_listener_faults_total", &[]), 0.0);
    let reloads = pipe.metric("standpipe_config_reloads_total", &[]);
    assert!(reloads > 3.0, "{reloads} reloads");
}
