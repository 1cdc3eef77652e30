//! The admin face, asked as operators, Prometheus and worse do, and what its answers are made of.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::http::{Message, Reader, Server, ok};
use common::process::{Echo, exchange, plain, pools};
use common::{Standpipe, address, connect, tls, wait_until};
use serde_json::Value;

#[test]
fn the_admin_face_lists_its_paths_and_keeps_secrets() {
    let echo = Echo::start();
    let secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ1Njc4";
    let config = format!(
        "[listeners.web]\nbind = [\"{}\"]\nmode = \"l7\"\n\
         [[listeners.web.routes]]\npath = \"/\"\npool = \"chat\"\n\
         [pools.chat]\nservers = [\"{}\"]\nsticky = {{ cookie = \"sp\", key = \"{secret}\" }}\n",
        address(),
        echo.address
    );
    let standpipe = Standpipe::start(&config);
    let (status, body) = standpipe.admin_get("/nothing");
    assert_eq!(status, 404);
    for path in ["/metrics", "/ready", "/live", "/pools", "/config"] {
        assert!(body.contains(path), "{body}");
        assert_eq!(standpipe.admin_get(path).0, 200, "{path}");
    }
    let shown = standpipe.admin_get("/config").1;
    assert!(shown.contains("(set)") && !shown.contains(secret), "{shown}");
    assert!(!standpipe.log().contains(secret));
}

#[test]
fn metrics_are_well_formed() {
    let echo = Echo::start();
    let bind = address();
    let standpipe = Standpipe::start(&plain(bind, &[echo.address]));
    let mut client = connect(bind);
    exchange(&mut client);
    let page = standpipe.metrics();
    let mut seen = std::collections::HashSet::new();
    let mut open = String::new();
    let mut samples = std::collections::HashSet::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            open = rest.split(' ').next().unwrap_or_default().to_owned();
            assert!(open.starts_with("standpipe_"), "{line}");
            assert!(rest.len() > open.len() + 1, "no help: {line}");
            assert!(seen.insert(open.clone()), "{open} stands in two places");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, open);
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
        } else {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let sample = line.rsplit_once(' ').unwrap().0;
            assert!(samples.insert(sample), "{sample} stands there twice");
            let suffixes = ["", "_bucket", "_sum", "_count"];
            assert!(suffixes.iter().any(|s| name == format!("{open}{s}")), "{line}");
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
        }
    }
    wait_until("the connection is counted", || {
        standpipe.metric("standpipe_server_connections", &[("pool", "chat")]) == 1.0
            && standpipe.metric("standpipe_listener_connections", &[("listener", "edge")]) == 1.0
            && standpipe.metric("standpipe_connections_live", &[("core", "0")]) == 1.0
    });
    assert!(standpipe.metric("standpipe_process_resident_memory_bytes", &[]) > 1e6);
    assert!(standpipe.metric("standpipe_core_open_fds", &[("core", "0")]) > 3.0);
}

#[test]
fn every_metric_that_the_manual_names_is_there() {
    let server = Server::answering(|_| ok("here"));
    let scene = tls::Scene::new("l7", "", server.address, "", &[]);
    let mut client = tls::connect(scene.at, &scene.client(), "web.example").unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let _ = client.read_to_end(&mut Vec::new());
    let ended = || scene.standpipe.metric("standpipe_connections_ended_total", &[]) > 0.0;
    wait_until("a connection has ended", ended);
    let page = scene.standpipe.metrics();
    let manual = include_str!("../docs/operations.md");
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut named = 0;
    for (at, _) in manual.match_indices("standpipe_") {
        let name = manual[at..].split(|c| !is_name(c)).next().unwrap();
        assert!(page.contains(&format!("# TYPE {name} ")), "{name} is not on the page");
        named += 1;
    }
    assert!(named >= 15, "{named}");
}

#[test]
fn a_server_that_moved_stands_on_the_page_once() {
    let (one, two) = (Echo::start(), Echo::start());
    let bind = address();
    let config = |echo: &Echo| {
        let from = format!("\"{}\"", echo.address);
        plain(bind, &[echo.address])
            .replace(&from, &format!("{{ address = {from}, name = \"b\" }}"))
    };
    let standpipe = Standpipe::start(&config(&one));
    let mut old = connect(bind);
    exchange(&mut old);
    standpipe.reload(&config(&two));
    let mut new = connect(bind);
    exchange(&mut new);
    let labels = "{pool=\"chat\",server=\"b\"}";
    for (name, value) in [("standpipe_server_connections", 2), ("standpipe_server_weight", 1)] {
        let page = standpipe.metrics();
        let lines: Vec<&str> =
            page.lines().filter(|line| line.starts_with(&format!("{name}{labels}"))).collect();
        assert_eq!(lines, [format!("{name}{labels} {value}")]);
    }
}

#[test]
fn only_reading_is_allowed_and_is_answered_whole() {
    let standpipe = Standpipe::start(&plain(address(), &[address()]));
    let mut reader = Reader::connect(standpipe.admin);
    let mut ask = |method: &str, path: &str| -> Message {
        reader.send(format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
        reader.response(method)
    };
    for path in ["/metrics", "/ready", "/live", "/pools", "/config"] {
        let (whole, head) = (ask("GET", path), ask("HEAD", path));
        assert_eq!((whole.status, head.status), (200, 200), "{path}");
        assert!(head.body.is_empty() && !whole.body.is_empty());
        assert_eq!(head.head.all("content-type"), whole.head.all("content-type"));
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let refused = ask(method, path);
            assert_eq!(refused.status, 405, "{method} {path}");
            assert!(refused.head.all("allow").concat().contains("GET"), "{:?}", refused.head.raw);
            assert!(refused.text().contains("only GET and HEAD"));
        }
    }
    assert_eq!(ask("GET", "/pools/").status, 404);
    assert_eq!(ask("GET", "//metrics").status, 404);
}

#[test]
fn who_is_silent_or_slow_keeps_nobody_from_asking() {
    let standpipe = Standpipe::start(&plain(address(), &[address()]));
    let mut silent: Vec<TcpStream> = (0..300)
        .map(|number| {
            let mut stream = connect(standpipe.admin);
            if number % 2 == 0 {
                stream.write_all(b"GET /metrics HTTP/1.1\r\nHo").unwrap();
            }
            stream
        })
        .collect();
    assert_eq!(standpipe.admin_get("/ready").0, 200);
    // The oldest had to leave, without a word.
    for stream in &mut silent[..100] {
        assert!(matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_)));
    }
    let last = silent.last_mut().unwrap();
    last.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    last.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
}

#[test]
fn many_scrapes_at_once_are_all_answered_and_harm_no_pipe() {
    let echo = Echo::start();
    let bind = address();
    let standpipe = Standpipe::start(&plain(bind, &[echo.address]));
    let mut client = connect(bind);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut reader = Reader::connect(standpipe.admin);
                for path in ["/metrics", "/pools", "/metrics", "/config", "/metrics"] {
                    reader.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
                    assert_eq!(reader.response("GET").status, 200);
                }
            });
        }
        (0..50).for_each(|_| exchange(&mut client));
    });
    assert_eq!(standpipe.metric("standpipe_connections_live", &[]), 1.0);
}

#[test]
fn the_answers_have_the_members_that_the_manual_shows() {
    let (echo, gone) = (Echo::start(), address());
    let bind = address();
    let text = plain(bind, &[echo.address, gone])
        + "health = { every = \"100ms\", timeout = \"100ms\", rise = 1, fall = 1 }\n";
    let standpipe = Standpipe::start(&text);
    wait_until("one is down", || pools(&standpipe)["pools"][0]["usable"] == 1);
    let mut client = connect(bind);
    exchange(&mut client);
    let answer =
        |path: &str| -> Value { serde_json::from_str(&standpipe.admin_get(path).1).unwrap() };
    assert_eq!(members(&answer("/ready")), ["connections", "phase", "ready"]);
    assert_eq!(members(&answer("/live")), ["live"]);
    assert_eq!(members(&answer("/config")), ["config", "file", "last_error", "snapshot"]);
    let all = answer("/pools");
    assert_eq!(members(&all), ["leaving", "pools"]);
    let pool = &all["pools"][0];
    assert_eq!(members(pool), ["balance", "connections", "name", "servers", "usable"]);
    let [up, down] = [&pool["servers"][0], &pool["servers"][1]];
    let expected = [
        "address",
        "connections",
        "failed_connects",
        "last_fault",
        "max_connections",
        "name",
        "share",
        "state",
        "weight",
    ];
    assert_eq!((members(up), members(down)), (expected.to_vec(), expected.to_vec()));
    assert_eq!((&up["state"], &up["connections"]), (&"up".into(), &1.into()));
    assert_eq!((&down["state"], &down["connections"]), (&"down".into(), &0.into()));
    assert!(down["last_fault"].as_str().is_some_and(|said| said.contains("refused")), "{down}");
    let manual = include_str!("../docs/operations.md");
    for member in expected {
        assert!(manual.contains(&format!("\"{member}\":")), "{member} is not in the manual");
    }
}

#[test]
fn failed_connects_are_counted_where_they_are_looked_for() {
    let (echo, gone) = (Echo::start(), address());
    let bind = address();
    let config = plain(bind, &[echo.address, gone]).replace("least-connections", "round-robin");
    let standpipe = Standpipe::start(&config);
    (0..8).for_each(|_| exchange(&mut connect(bind)));
    let shown = pools(&standpipe)["pools"][0]["servers"][1]["failed_connects"].as_u64().unwrap();
    let whose = [("server", &*gone.to_string())];
    assert!(shown >= 1, "{shown}");
    assert_eq!(standpipe.metric("standpipe_server_dial_failures_total", &whose), shown as f64);
}

// === scenery ===

/// Names of an object's members, sorted.
fn members(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}
