//! `standpipe demo` as a user and as a script see it. Nothing here looks inside; what it prints
//! and how it ends is all that counts.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use common::PATIENCE;
use common::peers::tool;

/// Demonstrations choose free ports and give them to another process: one at a time.
static STAGE: Mutex<()> = Mutex::new(());

fn stage() -> MutexGuard<'static, ()> {
    STAGE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn demo(seconds: u32) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_standpipe"));
    command.args(["demo", "--seconds", &seconds.to_string()]).stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    format!("{out}{err}")
}

/// The number before `word` on a line.
fn number(line: &str, word: &str) -> f64 {
    let before = line.split(word).next().unwrap_or_default();
    before.split_whitespace().last().and_then(|n| n.parse().ok()).unwrap_or(-1.0)
}

#[test]
fn a_script_sees_traffic_on_every_listener_and_a_good_end() {
    let _stage = stage();
    let output = demo(3).output().expect("the demo runs");
    let text = text(&output);
    assert!(output.status.success(), "{}:\n{text}", output.status);
    assert!(!text.contains('\u{1b}'), "escape codes in:\n{text}");
    assert!(!text.contains("faults"), "{text}");
    let (table, summary) = text.split_once("Summary of").expect("a summary");
    // Usually the third second; on a busy machine a later one.
    let cookies = table.lines().rfind(|line| line.contains(" s  cookies")).expect("plain lines");
    let second = &cookies[..cookies.find(" s ").expect("a second")];
    let last: Vec<&str> = table.lines().filter(|line| line.starts_with(second)).collect();
    for place in ["edge ", "web  ", "secure "] {
        let rows: Vec<&&str> = last.iter().filter(|line| line.contains(place)).collect();
        assert!(!rows.is_empty(), "no line for {place} in:\n{text}");
        for row in rows {
            assert!(number(row, " connections") > 0.0, "{row}");
            assert!(number(row, " messages/s") > 0.0, "{row}");
            assert!(row.contains("p99"), "{row}");
        }
    }
    for lane in ["tcp://", "ws://", "wss://"] {
        let total: f64 = summary
            .lines()
            .filter(|line| line.contains(&format!(" {lane}")))
            .map(|line| number(line, " messages"))
            .sum();
        assert!(total > 0.0, "no messages over {lane} in:\n{text}");
    }
    for server in ["chat-a", "chat-b", "chat-c", "live-a", "live-b"] {
        let row = summary.lines().find(|line| line.contains(server)).expect("a line");
        assert!(number(row, " messages") > 0.0, "{row}");
    }
    let cookies = summary.lines().find(|line| line.contains("cookies")).expect("a line");
    let (back, same) = (number(cookies, " clients came"), number(cookies, " to the same"));
    assert!(back > 0.0 && back == same, "{cookies}");
    assert_eq!(number(cookies, " in a wrong pool"), 0.0, "{cookies}");
}

/// A demo that is told to end when the test is over: killed, it could not tidy up.
struct Running(Child);

impl Running {
    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.expect("kill runs").success(), "kill -{name} {pid}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.signal("TERM");
            let _ = self.0.wait();
        }
    }
}

/// A running demo and what it said until its first line of figures.
fn begin(seconds: u32) -> (Running, BufReader<ChildStdout>, String) {
    let mut child: Child = demo(seconds).stdout(Stdio::piped()).spawn().expect("the demo starts");
    let mut out = BufReader::new(child.stdout.take().expect("its output"));
    let child = Running(child);
    let mut said = String::new();
    while !said.contains(" s  cookies") {
        assert!(out.read_line(&mut said).expect("its output") > 0, "it ended:\n{said}");
    }
    (child, out, said)
}

#[test]
fn an_interrupt_ends_it_with_a_summary_and_leaves_nothing_behind() {
    let _stage = stage();
    let taken = TcpListener::bind("127.0.0.1:7000");
    let (mut child, mut out, mut said) = begin(60);
    child.signal("INT");
    let begun = Instant::now();
    out.read_to_string(&mut said).expect("the rest");
    let status = child.0.wait().expect("its end");
    assert!(begun.elapsed() < PATIENCE, "it took {:?}", begun.elapsed());
    assert!(status.success(), "{status}:\n{said}");
    assert!(said.contains("Summary of"), "{said}");
    // Ours, or somebody else's: it was not free for the demo.
    drop(taken);
    assert!(said.contains("port 7000 is taken, so edge listens on"), "{said}");
    let folder = said
        .split_whitespace()
        .find_map(|word| word.strip_suffix("/demo.toml:"))
        .expect("the folder is named");
    assert!(!std::path::Path::new(folder).exists(), "{folder} is left behind");
}

#[test]
fn a_browser_talks_over_wss() {
    let Some(chromium) = tool("chromium") else { return };
    let _stage = stage();
    let (_demo, _out, said) = begin(60);
    let page = said
        .split_whitespace()
        .find(|word| word.starts_with("https://") && word.ends_with("/live"))
        .expect("the page is named");
    let profile = tempfile::tempdir().expect("a folder for the browser");
    let begun = Instant::now();
    loop {
        let output = Command::new(&chromium)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--ignore-certificate-errors", "--virtual-time-budget=4000", "--dump-dom"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(page)
            .output()
            .expect("chromium runs");
        let seen = String::from_utf8_lossy(&output.stdout).into_owned();
        let named = |id: &str| {
            let rest = seen.split(&format!("id=\"{id}\">")).nth(1)?;
            rest.split('<').next().map(str::to_owned)
        };
        let count = named("count").and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
        if count > 0 {
            let server = named("server").expect("the socket's server");
            assert!(server.starts_with("live-"), "{seen}");
            // The page and its socket share a cookie, so they share a server.
            assert!(seen.contains(&format!("came from <code>{server}</code>")), "{seen}");
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "no echo in the browser:\n{seen}");
    }
}
