//! Bad input and bad luck: each is said clearly, with the cure where there is one; nothing panics.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{Echo, LOAD, Running, free_port, load, said};

#[test]
fn an_impossible_rate_is_shown_and_void() {
    let echo = Echo::start(&["tcp://127.0.0.1:0"]);
    let output = load(&[
        "run",
        echo.url(),
        "-c",
        "10",
        "--rate",
        "20000000",
        "--duration",
        "500ms",
        "--warmup",
        "100ms",
        "--drain",
        "200ms",
    ]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("achieved of 20000000 intended") && text.contains("VOID"), "{text}");
}

#[test]
fn an_unreachable_target_is_named() {
    let url = format!("tcp://127.0.0.1:{}", free_port());
    let output = load(&["run", &url, "-c", "3", "--closed", "--duration", "1s"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("not one connection") && text.contains("3 × connect: refused"), "{text}");
}

#[test]
fn a_refused_upgrade_shows_status_and_body() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/chat", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let _ = client.read(&mut [0; 4096]);
            let body = "no seats left";
            let head = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = client.write_all((head + body).as_bytes());
        }
    });
    let output = load(&["run", &url, "-c", "2", "--closed", "--duration", "1s"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    for part in ["upgrade: HTTP 403", "HTTP/1.1 403 Forbidden", "no seats left"] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

#[test]
fn a_wrong_name_in_a_certificate_is_said() {
    let made = rcgen::generate_simple_self_signed(vec!["right.test".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let echo = Echo::start(&["wss://127.0.0.1:0", "--cert", cert, "--key", key]);
    let run = |name: &str| {
        let fixed = ["run", echo.url(), "-c", "1", "--closed", "--duration", "200ms"];
        load(&[&fixed[..], &["--warmup", "0s", "--ca", cert, "--server-name", name]].concat())
    };
    let text = said(&run("wrong.test"));
    assert!(text.contains("tls: ") && text.contains("wrong.test"), "{text}");
    let output = run("right.test");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn exhausted_files_name_the_limit_and_the_cure() {
    let echo = Echo::start(&["tcp://127.0.0.1:0"]);
    let line =
        format!("ulimit -n 60; exec {LOAD} run {} -c 200 --closed --duration 300ms", echo.url());
    let output = Command::new("/bin/sh").args(["-c", &line]).output().unwrap();
    let text = said(&output);
    assert!(text.contains("file descriptors exhausted (RLIMIT_NOFILE"), "{text}");
    assert!(text.contains("--threads"), "{text}");
}

#[test]
fn an_interrupted_run_reports_what_it_has() {
    let echo = Echo::start(&["ws://127.0.0.1:0"]);
    let child = Command::new(LOAD)
        .args([
            "run",
            echo.url(),
            "-c",
            "20",
            "--rate",
            "200",
            "--duration",
            "10m",
            "--warmup",
            "0s",
        ])
        .args(["--lag-bound", "1s"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_millis(1500));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("INTERRUPTED") && text.contains("p99.99"), "{text}");
    assert!(text.contains(" 0 lost"), "{text}");
}

#[test]
fn ctrl_c_is_heard_while_the_last_answers_are_awaited() {
    // They will never come, and the wait for them is long.
    let echo = Echo::start(&["tcp://127.0.0.1:0", "--delay", "10m"]);
    let child = Command::new(LOAD)
        .args(["run", echo.url(), "-c", "2", "--rate", "20", "--duration", "300ms"])
        .args(["--warmup", "0s", "--drain", "10m", "--threads", "2"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let child = Running(child);
    thread::sleep(Duration::from_millis(1500));
    let pid = child.0.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert!(ends_within(child, Duration::from_secs(30)));
}

#[test]
fn delayed_replies_leave_before_the_echo_server_does() {
    let echo = Echo::start(&["tcp://127.0.0.1:0", "--delay", "uniform:100ms:300ms"]);
    let mut client = TcpStream::connect(echo.url().trim_start_matches("tcp://")).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    client.write_all(b"first").unwrap();
    thread::sleep(Duration::from_millis(20));
    client.write_all(b"second").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    assert_eq!(said, "firstsecond");
}

#[test]
fn a_server_that_never_stops_sending_does_not_keep_the_run_from_ending() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || while client.write_all(&[0; 1 << 16]).is_ok() {});
        }
    });
    let child = Command::new(LOAD)
        .args(["bulk", &url, "-c", "4", "--direction", "down", "--duration", "300ms"])
        .args(["--warmup", "0s", "--drain", "100ms"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert!(ends_within(Running(child), Duration::from_secs(30)));
}

fn ends_within(mut process: Running, time: Duration) -> bool {
    let until = Instant::now() + time;
    while Instant::now() < until {
        if process.0.try_wait().unwrap().is_some() {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    false
}

#[test]
fn a_server_that_dies_in_the_middle_is_recorded() {
    let echo = Echo::start(&["ws://127.0.0.1:0", "--die-after", "2000"]);
    let run = common::measure(&[
        "run",
        echo.url(),
        "-c",
        "5",
        "--rate",
        "500",
        "--duration",
        "1s",
        "--warmup",
        "0s",
        "--drain",
        "200ms",
        "--lag-bound",
        "1s",
    ]);
    assert_eq!(common::number(&run, "/counts/closed_by_peer"), 5.0);
    let close = &run["closes"][0];
    assert!(close["how"].as_str().unwrap().starts_with("by the peer"), "{close}");
    assert!(close["age_ms"].as_f64().unwrap() > 1.0);
    assert!(common::number(&run, "/lost") >= 5.0);
}

#[test]
fn what_was_due_behind_a_full_socket_is_missed_when_the_connection_goes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        // Nobody reads, so that the sockets are full long before the connections end.
        let kept: Vec<_> = listener.incoming().take(2).map_while(Result::ok).collect();
        thread::sleep(Duration::from_millis(1200));
        drop(kept);
    });
    let fixed = ["run", &url, "-c", "2", "--rate", "200", "--size", "256KiB", "--duration", "2s"];
    let rest = ["--warmup", "0s", "--drain", "200ms", "--lag-bound", "1s"];
    let run = common::measure(&[&fixed[..], &rest].concat());
    assert_eq!(common::number(&run, "/counts/closed_by_peer"), 2.0, "{run}");
    let count = |name: &str| common::number(&run, &format!("/counts/{name}"));
    // 200 messages a second for two seconds were due, whatever became of them.
    assert_eq!(count("measured_sent") + count("missed") + count("unsent"), 400.0, "{run}");
    assert!(count("missed") >= 200.0, "{run}");
}

#[test]
fn an_end_behind_a_backlog_is_seen_by_the_echo() {
    let echo = Echo::start(&["tcp://127.0.0.1:0", "--manner", "sink"]);
    for _ in 0..5 {
        let mut client = std::net::TcpStream::connect(echo.address()).unwrap();
        // More than is read in one turn is on its way when the end comes.
        client.write_all(&vec![0; 32 << 20]).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(client.read(&mut [0; 16]).unwrap(), 0, "the sink ends too");
    }
}

#[test]
fn expectations_decide_the_exit_code() {
    let echo = Echo::start(&["tcp://127.0.0.1:0"]);
    let run = |expect: &str| {
        let fixed = ["run", echo.url(), "-c", "5", "--rate", "100", "--duration", "500ms"];
        let rest = ["--warmup", "0s", "--lag-bound", "1s", "--expect", "errors==0", "--expect"];
        load(&[&fixed[..], &rest[..], &[expect]].concat())
    };
    assert_eq!(run("p99<5s").status.code(), Some(0));
    let output = run("p50<1ns");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("FAILED: expected p50<1ns, found "));
    let output = run("speed>3");
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("speed is not measured"));
}

#[test]
fn wrong_flags_are_one_sentence() {
    for (arguments, part) in [
        (&["run", "tcp://127.0.0.1:1", "--closed", "--size", "5"][..], "at least 24 bytes"),
        (&["run", "tcp://127.0.0.1:1"], "--rate N"),
        (&["run", "tcp://127.0.0.1:1", "--rate=-4"], "above 0"),
        (&["run", "ftp://127.0.0.1:1", "--closed"], "unknown scheme ftp"),
        (&["run", "tcp://127.0.0.1:1", "--closed", "--cores", "99999"], "no core 99999"),
        (&["run", "tcp://127.0.0.1:1", "--closed", "--pid", "4194304"], "no such process"),
        (&["run", "wss://127.0.0.1:1", "--closed", "--ca", "/nowhere.pem"], "/nowhere.pem"),
        (&["echo", "tcp://127.0.0.1:70000"], "tcp://127.0.0.1:70000"),
        (&["echo", "tcp://127.0.0.1:0", "--delay", "soon"], "want 10ms, uniform"),
        (&["bulk", "tcp://127.0.0.1:1", "--direction", "left"], "up, down, both"),
        (&["echo", "tcp://127.0.0.1:0", "--manner", "rude"], "echo, sink, source, broadcast"),
        (&["nat", "tcp://127.0.0.1:1", "--servers", "0"], "--servers"),
    ] {
        let output = load(arguments);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(part) && !text.contains("panicked"), "{arguments:?}: {text}");
    }
}

#[test]
fn exhausted_ports_name_the_limit_and_the_cure() {
    // A network of its own, with ten ports: only who may make one can run this.
    let line = format!(
        "ip link set lo up && echo 40000 40009 >/proc/sys/net/ipv4/ip_local_port_range || exit 9
         {LOAD} echo tcp://127.0.0.1:9000 --duration 60s & echo=$!
         for i in $(seq 200); do ss -Hltn | grep -q 127.0.0.1:9000 && break; sleep 0.1; done
         {LOAD} run tcp://127.0.0.1:9000 -c 30 --closed --duration 200ms --warmup 0s
         {LOAD} run tcp://127.0.0.1:9000 -c 30 --closed --duration 200ms --warmup 0s \
             --source 127.0.1.0/29
         kill $echo"
    );
    let output = Command::new("unshare").args(["-n", "/bin/sh", "-c", &line]).output().unwrap();
    let text = said(&output);
    if output.status.code() == Some(9) || text.contains("unshare: ") {
        println!("skipped: no right to make a network namespace");
        return;
    }
    assert!(text.contains("local ports exhausted") && text.contains("--source"), "{text}");
    // With eight source addresses the same ten ports are enough.
    assert!(text.contains("30 opened in") && text.contains("10 opened in"), "{text}");
}

#[test]
fn an_audit_whose_command_fails_proves_nothing() {
    let echo = Echo::start(&["tcp://127.0.0.1:0"]);
    let around = ["--before", "100ms", "--after", "100ms", "--lag-bound", "1s"];
    let audit = |command: &str, limit: &str| {
        let fixed = ["audit", echo.url(), "-c", "5", "--rate", "50", "--during", command];
        load(&[&fixed[..], &around, &["--limit", limit]].concat())
    };
    for (command, limit, why) in
        [("exit 7", "5s", "exit status: 7"), ("sleep 9", "300ms", "longer")]
    {
        let output = audit(command, limit);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(3), "{command}: {text}");
        assert!(text.contains(why), "{command}: {text}");
    }
}

#[test]
fn a_churn_or_a_storm_that_opens_nothing_says_so() {
    let nobody = format!("tcp://127.0.0.1:{}", common::free_port());
    for scene in ["churn", "storm"] {
        let times: &[&str] =
            if scene == "churn" { &["--rate", "20", "--duration", "300ms"] } else { &[] };
        let output = load(&[&[scene, &nobody, "-c", "3"][..], times].concat());
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{scene}: {text}");
        assert!(text.contains("not one connection could be opened"), "{scene}: {text}");
    }
}
