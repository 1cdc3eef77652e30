//! The process as an operator meets it: what it refuses to start with, what it says, how it takes
//! another configuration, and how it ends.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use common::process::{Echo, exchange, is_open, plain, pools, quiet, standpipe, text_of};
use common::{PATIENCE, Standpipe, address, connect, is_silent, peers, wait_until};

// === check, and starts that fail ===

#[test]
fn check_prints_every_mistake_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    let text = "[runtime]\n\
                wrokers = 2\n\
                drain_delay = \"5 parsecs\"\n\
                [listeners.edge]\n\
                bind = [\"0.0.0.0:70000\"]\n\
                mode = \"l5\"\n\
                pool = \"chta\"\n\
                [pools.chat]\n\
                balance = \"least-conections\"\n\
                servers = [\"127.0.0.1\"]\n";
    std::fs::write(&file, text).unwrap();
    let output = standpipe(&["check", &file.display().to_string()]);
    let said = text_of(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for (line, word) in [(2, "workers"), (3, "drain_delay"), (5, "bind"), (6, "l5"), (7, "chat")] {
        let place = format!("edge.toml:{line}:");
        let found = said.lines().any(|l| l.contains(&place) && l.contains(word));
        assert!(found, "line {line} and {word} in:\n{said}");
    }
    assert!(said.contains("edge.toml:9:") && said.contains("least-connections"), "{said}");
    assert!(said.contains("edge.toml:10:"), "{said}");
    assert!(!said.contains("panicked"));
}

#[test]
fn check_says_what_a_good_file_would_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    std::fs::write(&file, plain(address(), &[address()])).unwrap();
    let output = standpipe(&["check", &file.display().to_string()]);
    let said = text_of(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("listen on") && said.contains("chat (least-connections, 1 server(s))"));
}

#[test]
fn a_file_that_is_not_there_is_a_mistake_and_not_a_fault() {
    let output = standpipe(&["run", "/nowhere/edge.toml"]);
    let said = text_of(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("/nowhere/edge.toml"), "{said}");
}

#[test]
fn a_listener_port_that_is_taken_ends_the_start_with_cause_and_cure() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let said = fails_to_start(&plain(taken.local_addr().unwrap(), &[address()]));
    assert!(said.contains(&taken.local_addr().unwrap().to_string()), "{said}");
    assert!(said.contains("taken") && said.contains("ss -ltnp"), "{said}");
}

#[test]
fn a_port_of_another_standpipe_is_shared_only_where_that_was_asked_for() {
    let (one, two) = (Echo::start(), Echo::start());
    let bind = address();
    let mut old = Standpipe::start(&plain(bind, &[one.address]));
    let said = fails_to_start(&plain(bind, &[two.address]));
    assert!(said.contains(&bind.to_string()) && said.contains("--share-ports"), "{said}");
    let wide = SocketAddr::from(([0, 0, 0, 0], bind.port()));
    let said = fails_to_start(&plain(wide, &[two.address]));
    assert!(said.contains("another standpipe"), "{said}");
    let mut client = connect(bind);
    exchange(&mut client);
    let new = Standpipe::start_beside(&plain(bind, &[two.address]));
    old.signal("INT");
    let passed = || {
        is_open(&mut connect(bind));
        new.metric("standpipe_connections_accepted_total", &[]) >= 5.0
    };
    wait_until("the new one serves", passed);
    // What the kernel does with handshakes in between is said where it is not what one wants.
    let moves = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_migrate_req");
    if moves.is_ok_and(|switch| switch.trim() == "0") {
        new.wait_log(&["net.ipv4.tcp_migrate_req is 0"]);
    }
    exchange(&mut client);
    drop(client);
    assert_eq!(old.wait_exit().code(), Some(0));
    (0..10).for_each(|_| exchange(&mut connect(bind)));
}

#[test]
fn one_that_was_killed_is_followed_at_once_by_another() {
    let echo = Echo::start();
    let bind = address();
    for _ in 0..5 {
        let standpipe = Standpipe::start(&plain(bind, &[echo.address]));
        exchange(&mut connect(bind));
        // SIGKILL; its ring is taken apart after it was seen to end.
        drop(standpipe);
    }
}

#[test]
fn an_admin_port_that_is_taken_ends_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = taken.local_addr().unwrap();
    let text =
        format!("[runtime]\nworkers = 1\nadmin = \"{admin}\"\n{}", plain(address(), &[address()]));
    let said = fails_to_start(&text);
    assert!(said.contains("runtime.admin") && said.contains(&admin.to_string()), "{said}");
}

#[test]
fn a_host_that_forbids_io_uring_is_told_the_cure() {
    let Some(python) = peers::tool("python3") else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    std::fs::write(&file, quiet(&plain(address(), &[address()]))).unwrap();
    let output = Command::new(python)
        .arg(peers::script("without_io_uring.py"))
        .arg(env!("CARGO_BIN_EXE_standpipe"))
        .arg("run")
        .arg(&file)
        .output()
        .unwrap();
    let said = text_of(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("io_uring") && said.contains("seccomp"), "{said}");
    assert!(!said.contains("panicked"));
}

#[test]
fn too_few_descriptors_are_named_before_anything_listens() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    std::fs::write(&file, quiet(&plain(address(), &[address()]))).unwrap();
    let run =
        format!("ulimit -n 40; exec {} run {}", env!("CARGO_BIN_EXE_standpipe"), file.display());
    let output = Command::new("sh").args(["-c", &run]).output().unwrap();
    let said = text_of(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("ulimit -n"), "{said}");
}

// === reload ===

#[test]
fn a_bad_file_changes_nothing_and_is_shown() {
    let echo = Echo::start();
    let bind = address();
    let good = plain(bind, &[echo.address]);
    let standpipe = Standpipe::start(&good);
    let mut client = connect(bind);
    exchange(&mut client);
    standpipe.reload(&good.replace("least-connections", "most-connections"));
    let shown = standpipe.admin_get("/config").1;
    assert!(shown.contains("most-connections") && shown.contains("last_error"), "{shown}");
    assert_eq!(standpipe.metric("standpipe_config_last_reload_good", &[]), 0.0);
    assert_eq!(standpipe.metric("standpipe_config_reloads_total", &[("result", "applied")]), 0.0);
    exchange(&mut client);
    exchange(&mut connect(bind));
    standpipe.reload(&good);
    assert_eq!(standpipe.metric("standpipe_config_last_reload_good", &[]), 1.0);
    standpipe.wait_log(&["closes 0 pipes"]);
}

#[test]
fn saving_the_file_is_enough() {
    let (one, two) = (Echo::start(), Echo::start());
    let bind = address();
    let standpipe = Standpipe::start(&plain(bind, &[one.address]));
    let before = std::fs::read_to_string(standpipe.config_path()).unwrap();
    let after = before.replace(&one.address.to_string(), &two.address.to_string());
    let beside = standpipe.folder().join("new");
    std::fs::write(&beside, after).unwrap();
    std::fs::rename(beside, standpipe.config_path()).unwrap();
    wait_until("the new server is known", || {
        standpipe.admin_get("/pools").1.contains(&two.address.to_string())
    });
}

#[test]
fn a_removed_server_keeps_its_pipes_and_its_counts() {
    let (one, two) = (Echo::start(), Echo::start());
    let bind = address();
    let both = plain(bind, &[one.address, two.address]);
    let standpipe = Standpipe::start(&both);
    let mut clients: Vec<TcpStream> = (0..4).map(|_| connect(bind)).collect();
    clients.iter_mut().for_each(exchange);
    standpipe.reload(&plain(bind, &[two.address]));
    clients.iter_mut().for_each(exchange);
    let whose = one.address.to_string();
    let labels = [("server", whose.as_str())];
    assert_eq!(standpipe.metric("standpipe_server_connections", &labels), 2.0);
    assert!(pools(&standpipe)["leaving"][0]["address"] == whose.as_str());
    let mut late = connect(bind);
    exchange(&mut late);
    assert_eq!(standpipe.metric("standpipe_server_connections", &labels), 2.0);
    standpipe.reload(&both);
    assert_eq!(standpipe.metric("standpipe_server_connections", &labels), 2.0);
    assert_eq!(standpipe.metric("standpipe_server_connections_total", &labels), 2.0);
    standpipe.wait_log(&["servers_removed=1", "closes 0 pipes"]);
}

#[test]
fn on_remove_close_ends_what_the_server_had() {
    let (one, two) = (Echo::start(), Echo::start());
    let bind = address();
    let config =
        |servers: &[SocketAddr]| format!("{}on_remove = \"close\"\n", plain(bind, servers));
    let standpipe = Standpipe::start(&config(&[one.address, two.address]));
    let mut clients: Vec<TcpStream> = (0..4).map(|_| connect(bind)).collect();
    clients.iter_mut().for_each(exchange);
    standpipe.reload(&config(&[two.address]));
    let whose = one.address.to_string();
    wait_until("its pipes have ended", || {
        standpipe.metric("standpipe_server_connections", &[("server", &whose)]) == 0.0
    });
    let open = clients.iter_mut().filter_map(|c| is_open(c).then_some(())).count();
    assert_eq!(open, 2);
    let ended = [("cause", "server_removed")];
    assert_eq!(standpipe.metric("standpipe_connections_ended_total", &ended), 2.0);
    standpipe.wait_log(&["closes 2 pipes"]);
}

#[test]
fn listeners_come_and_go_with_the_file() {
    let echo = Echo::start();
    let (first, second) = (address(), address());
    let one = plain(first, &[echo.address]);
    let two =
        format!("{one}[listeners.more]\nbind = [\"{second}\"]\nmode = \"l4\"\npool = \"chat\"\n");
    let standpipe = Standpipe::start(&one);
    let mut old = connect(first);
    exchange(&mut old);
    standpipe.reload(&two);
    wait_until("the second port is open", || TcpStream::connect(second).is_ok());
    let mut on_second = connect(second);
    exchange(&mut on_second);
    standpipe.reload(&one);
    wait_until("the second port is closed", || TcpStream::connect(second).is_err());
    exchange(&mut on_second);
    exchange(&mut old);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let foreign = taken.local_addr().unwrap().to_string();
    standpipe.reload(&two.replace(&second.to_string(), &foreign));
    assert_eq!(standpipe.metric("standpipe_config_last_reload_good", &[]), 0.0);
    standpipe.wait_log(&[&foreign]);
    exchange(&mut old);
}

#[test]
fn a_reload_tells_its_own_ports_from_those_of_others() {
    let echo = Echo::start();
    let (bind, other, foreign) = (address(), address(), address());
    let config = |bind| plain(bind, &[echo.address]);
    let wide = SocketAddr::from(([0, 0, 0, 0], bind.port()));
    let _other = Standpipe::start(&config(foreign));
    let standpipe = Standpipe::start(&config(bind));
    // Wider, narrower, elsewhere and back at once: nobody but ourselves is in the way.
    for next in [wide, bind, other, bind, other, bind] {
        standpipe.reload(&config(next));
        assert_eq!(standpipe.metric("standpipe_config_last_reload_good", &[]), 1.0, "{next}");
    }
    exchange(&mut connect(bind));
    standpipe.reload(&config(foreign));
    standpipe.wait_log(&[&foreign.to_string(), "another standpipe"]);
    exchange(&mut connect(bind));
}

// === the end ===

#[test]
fn term_says_unready_goes_on_accepting_and_then_lets_pipes_end() {
    let echo = Echo::start();
    let bind = address();
    let mut standpipe = Standpipe::start(&ending(bind, echo.address, "4s", "20s"));
    let mut client = connect(bind);
    exchange(&mut client);
    standpipe.signal("TERM");
    wait_until("unready", || standpipe.admin_get("/ready").0 == 503);
    exchange(&mut connect(bind));
    wait_until("the port is closed", || TcpStream::connect(bind).is_err());
    exchange(&mut client);
    assert!(standpipe.is_running());
    drop(client);
    assert_eq!(standpipe.wait_exit().code(), Some(0));
}

#[test]
fn the_drain_ends_after_its_timeout() {
    let echo = Echo::start();
    let bind = address();
    let mut standpipe = Standpipe::start(&ending(bind, echo.address, "0s", "6s"));
    let mut client = connect(bind);
    exchange(&mut client);
    let begun = Instant::now();
    standpipe.signal("TERM");
    // One by itself has all of the time.
    std::thread::sleep(Duration::from_millis(5600));
    exchange(&mut client);
    assert_eq!(standpipe.wait_exit().code(), Some(0));
    assert!(begun.elapsed() >= Duration::from_secs(6));
    assert!(!is_open(&mut client));
}

#[test]
fn a_second_signal_ends_everything_now() {
    let echo = Echo::start();
    let bind = address();
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("QUIT", "QUIT")] {
        let mut standpipe = Standpipe::start(&ending(bind, echo.address, "1s", "10m"));
        let mut client = connect(bind);
        exchange(&mut client);
        standpipe.signal(first);
        wait_until("unready", || standpipe.admin_get("/ready").0 == 503);
        standpipe.signal(second);
        assert_eq!(standpipe.wait_exit().code(), Some(0));
        assert!(!is_open(&mut client));
    }
}

#[test]
fn a_signal_other_programs_know_ends_nothing() {
    let echo = Echo::start();
    let bind = address();
    let mut standpipe = Standpipe::start(&ending(bind, echo.address, "0s", "20s"));
    let mut client = connect(bind);
    exchange(&mut client);
    for signal in ["USR1", "USR2"] {
        standpipe.signal(signal);
        standpipe.wait_log(&["level=warn", &format!("signal=SIG{signal}"), "changes nothing"]);
    }
    exchange(&mut client);
    exchange(&mut connect(bind));
    standpipe.signal("QUIT");
    standpipe.wait_log(&["asked to end", "signal=SIGQUIT"]);
    wait_until("the port is closed", || TcpStream::connect(bind).is_err());
    exchange(&mut client);
    drop(client);
    assert_eq!(standpipe.wait_exit().code(), Some(0));
}

#[test]
fn a_service_manager_is_told_of_every_step() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut bytes = [0; 512];
        let count = manager.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    let echo = Echo::start();
    let config = ending(address(), echo.address, "0s", "20s");
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let mut standpipe = Standpipe::start_with(&config, &[], &variables);
    assert_eq!(told(), "READY=1\nSTATUS=serving 1 listener(s) with 2 worker(s)\n");
    standpipe.signal("HUP");
    let reloading = told();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert!(told().starts_with("READY=1\nSTATUS=serving 1 "));
    standpipe.reload(&config.replace("least-connections", "most-connections"));
    assert!(told().starts_with("RELOADING=1\n"));
    let refused = told();
    assert!(refused.starts_with("READY=1\n") && refused.contains("refused"), "{refused}");
    standpipe.signal("TERM");
    // (The file's change may have been noticed by itself as well.)
    while !told().starts_with("STOPPING=1\n") {}
    assert_eq!(standpipe.wait_exit().code(), Some(0));
}

#[test]
fn signals_under_load_touch_no_connection() {
    let echo = Echo::start();
    let bind = address();
    let config = plain(bind, &[echo.address]);
    let text = format!("[runtime]\nworkers = 2\nadmin = \"{{admin}}\"\n{config}");
    let standpipe = Standpipe::start(&text);
    let mut clients: Vec<TcpStream> = (0..16).map(|_| connect(bind)).collect();
    for round in 0..40 {
        if round % 2 == 0 {
            standpipe.signal("HUP");
        }
        clients.iter_mut().for_each(exchange);
    }
    assert!(clients.iter_mut().all(|client| is_silent(client, Duration::from_millis(5))));
    assert_eq!(standpipe.metric("standpipe_connections_live", &[]), 16.0);
}

/// Many pipes that cannot be asked to close leave one after another, not all in one instant.
#[test]
fn pipes_that_outlive_the_drain_do_not_all_come_back_at_once() {
    standpipe::sys::process::raise_file_limit().expect("a higher limit");
    let (echo, bind) = (Echo::start(), common::address());
    let mut standpipe = Standpipe::start(&ending(bind, echo.address, "0s", "15s"));
    let mut clients: Vec<TcpStream> = (0..400).map(|_| connect(bind)).collect();
    clients.iter_mut().for_each(exchange);
    let asked = Instant::now();
    standpipe.signal("TERM");
    let ends: Vec<Duration> = std::thread::scope(|scope| {
        let end = |client: &mut TcpStream| {
            let _ = client.set_read_timeout(Some(Duration::from_secs(60)));
            let end = client.read(&mut [0]).map_err(|error| error.kind());
            assert!(matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)), "{end:?}");
            asked.elapsed()
        };
        let waits: Vec<_> =
            clients.iter_mut().map(|client| scope.spawn(move || end(client))).collect();
        waits.into_iter().map(|wait| wait.join().unwrap()).collect()
    });
    let (first, last) = (ends.iter().min().unwrap(), ends.iter().max().unwrap());
    assert!(*first >= Duration::from_secs(13), "{first:?}: they have nine tenths for themselves");
    assert!(*last - *first >= Duration::from_millis(400), "{first:?} {last:?}: over 1.5 s");
    assert_eq!(standpipe.wait_exit().code(), Some(0));
}

/// A connection may live for days: its bytes are counted meanwhile, and none of them twice.
#[test]
fn bytes_are_counted_while_their_connection_lives() {
    let (echo, bind) = (Echo::start(), common::address());
    let config = plain(bind, &[echo.address]);
    let standpipe =
        Standpipe::start(&format!("[runtime]\nworkers = 1\nadmin = \"{{admin}}\"\n{config}"));
    let mut client = connect(bind);
    let server = echo.address.to_string();
    let counted = || {
        let of = |name: &str, label| standpipe.metric(name, &[label]) as u64;
        [
            of("standpipe_listener_bytes_from_clients_total", ("listener", "edge")),
            of("standpipe_listener_bytes_to_clients_total", ("listener", "edge")),
            of("standpipe_server_bytes_to_total", ("server", &server)),
            of("standpipe_server_bytes_from_total", ("server", &server)),
        ]
    };
    for round in 1..=3 {
        client.write_all(&[b'x'; 1000]).unwrap();
        client.read_exact(&mut [0; 1000]).unwrap();
        wait_until("the round is counted", || counted() == [1000 * round; 4]);
    }
    client.write_all(&[b'x'; 234]).unwrap();
    client.read_exact(&mut [0; 234]).unwrap();
    drop(client);
    wait_until("it is over", || standpipe.metric("standpipe_connections_live", &[]) == 0.0);
    assert_eq!(counted(), [3234; 4]);
}

// === scenery ===

fn ending(bind: SocketAddr, server: SocketAddr, delay: &str, timeout: &str) -> String {
    format!(
        "[runtime]\nworkers = 2\nadmin = \"{{admin}}\"\ndrain_delay = \"{delay}\"\n\
         drain_timeout = \"{timeout}\"\n{}",
        plain(bind, &[server])
    )
}

fn fails_to_start(config: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    let config = if config.contains("[runtime]") { config.to_owned() } else { quiet(config) };
    std::fs::write(&file, config).unwrap();
    let output = standpipe(&["run", &file.display().to_string()]);
    let said = text_of(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}
