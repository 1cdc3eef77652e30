//! The log when nobody reads it: whoever was to read is slow, has stopped or has gone, and the
//! process serves, reloads and answers as before.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use common::http::Reader;
use common::process::{Echo, exchange, is_open, plain};
use common::{Standpipe, address, binary, connect, wait_until};

/// Lines that are lost, for whatever reason.
const LOST: &str = "standpipe_log_lines_unwritten_total";

#[test]
fn a_pipe_has_the_lines_that_the_manual_shows() {
    let echo = Echo::start();
    let bind = address();
    let standpipe = Standpipe::start(&logging(&plain(bind, &[echo.address])));
    exchange(&mut connect(bind));
    standpipe.wait_log(&["msg=end", "ending=client/pipe/fin"]);
    let log = standpipe.log();
    let manual = include_str!("../docs/operations.md").replace("\n    age_ms", " age_ms");
    for message in ["msg=open ", "msg=end "] {
        let keys = |text: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.contains(message)).expect("such a line");
            let fields = line.split("msg=").nth(1).expect("what follows").split(' ');
            fields.skip(1).map(|field| field.split('=').next().expect("a key").to_owned()).collect()
        };
        assert_eq!(keys(&log), keys(&manual), "{message}");
    }
}

#[test]
fn who_stops_reading_the_log_harms_nobody() {
    let (one, two) = (Echo::start(), Echo::start());
    let bind = address();
    let config = |echo: &Echo| logging(&plain(bind, &[echo.address]));
    let (mut standpipe, log) = Standpipe::start_read(&config(&one));
    let mut log = BufReader::new(log);
    let mut first = String::new();
    log.read_line(&mut first).unwrap();
    assert!(first.contains("msg=host"), "{first}");
    // As `2>&1 | head -1` does.
    drop(log);
    let mut client = connect(bind);
    exchange(&mut client);
    wait_until("lines are counted as lost", || standpipe.metric(LOST, &[]) > 0.0);
    standpipe.reload(&config(&two));
    assert_eq!(standpipe.metric("standpipe_config_reloads_total", &[("result", "applied")]), 1.0);
    standpipe.reload("nonsense");
    assert_eq!(standpipe.metric("standpipe_config_last_reload_good", &[]), 0.0);
    exchange(&mut client);
    exchange(&mut connect(bind));
    assert_eq!(standpipe.metric("standpipe_cores_lost", &[]), 0.0);
    standpipe.signal("INT");
    wait_until("unready", || standpipe.admin_get("/ready").0 == 503);
    drop(client);
    assert_eq!(standpipe.wait_exit().code(), Some(0));
}

#[test]
fn a_log_that_nobody_reads_blocks_nothing() {
    let web = common::http::Server::answering(|_| common::http::ok("here"));
    let echo = Echo::start();
    let (bind, edge) = (address(), address());
    let config = |more: &str| {
        logging(&format!(
            "[listeners.web]\nbind = [\"{bind}\"]\nmode = \"l7\"\n\
             [[listeners.web.routes]]\npool = \"web\"\n[pools.web]\nservers = [\"{}\"]\n{more}{}",
            web.address,
            plain(edge, &[echo.address])
        ))
    };
    let (mut standpipe, mut log) = Standpipe::start_read(&config(""));
    let mut pipe = connect(edge);
    exchange(&mut pipe);
    // The pipe's 64 KiB and the lines that may wait, with something to spare.
    let path = "x".repeat(4000);
    let request = format!("GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut client = Reader::connect(bind);
    let mut sent = 0;
    while standpipe.metric(LOST, &[]) == 0.0 {
        assert!(sent < 5000, "{sent} lines of 4 KB were taken");
        for _ in 0..100 {
            client.send(&request);
            assert_eq!(client.response("GET").status, 200);
            sent += 1;
        }
    }
    standpipe.reload(&config("slow_start = \"1s\"\n"));
    assert_eq!(standpipe.metric("standpipe_config_reloads_total", &[("result", "applied")]), 1.0);
    exchange(&mut pipe);
    exchange(&mut connect(edge));
    // Somebody reads again: what waited is there, whole lines of it.
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).map(|_| text)
    });
    end_now(&standpipe);
    assert_eq!(standpipe.wait_exit().code(), Some(0));
    let text = reading.join().unwrap().unwrap();
    assert!(text.matches("msg=request").count() > 500, "{}", text.len());
    assert!(text.lines().all(|line| line.starts_with("ts=")), "a line is torn");
}

#[test]
fn an_end_waits_for_nobody_to_read_its_last_words() {
    let echo = Echo::start();
    let bind = address();
    let (mut standpipe, log) = Standpipe::start_read(&logging(&plain(bind, &[echo.address])));
    while standpipe.metric("standpipe_connections_accepted_total", &[]) < 500.0 {
        (0..100).for_each(|_| exchange(&mut connect(bind)));
    }
    let mut client = connect(bind);
    exchange(&mut client);
    end_now(&standpipe);
    assert_eq!(standpipe.wait_exit().code(), Some(0));
    assert!(!is_open(&mut client));
    drop(log);
}

#[test]
fn check_ends_well_though_nobody_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    for (text, code) in [(plain(address(), &[address()]), 0), ("[nonsense]".to_owned(), 2)] {
        std::fs::write(&file, text).unwrap();
        let mut child = Command::new(binary())
            .args(["check", &file.display().to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
}

/// Asks twice; two signals at the same moment would count as one.
fn end_now(standpipe: &Standpipe) {
    standpipe.signal("TERM");
    wait_until("unready", || standpipe.admin_get("/ready").0 == 503);
    standpipe.signal("TERM");
}

/// With a line for every connection and request.
fn logging(config: &str) -> String {
    format!(
        "[runtime]\nworkers = 1\nadmin = \"{{admin}}\"\nlog = {{ connections = \"all\" }}\n{config}"
    )
}
