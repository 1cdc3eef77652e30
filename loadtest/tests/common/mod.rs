//! Harness of the load generator's tests: an echo of its own, a run and its JSON, foreign programs.
#![allow(dead_code)]

pub mod faults;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

pub const LOAD: &str = env!("CARGO_BIN_EXE_standpipe-load");

/// A process that is ended by its own pid when the test is over.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An echo with its addresses, in the order asked for.
pub struct Echo {
    pub process: Running,
    pub urls: Vec<String>,
}

impl Echo {
    /// `listen` like `tcp://127.0.0.1:0`, then more flags.
    pub fn start(arguments: &[&str]) -> Echo {
        let wanted = arguments.iter().filter(|text| text.contains("://")).count();
        let mut child =
            Command::new(LOAD).arg("echo").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let urls: Vec<String> = lines
            .map_while(Result::ok)
            .filter_map(|line| {
                let url = line.strip_prefix("listening on ")?.split(' ').next()?;
                Some(url.to_owned())
            })
            .take(wanted)
            .collect();
        assert_eq!(urls.len(), wanted, "the echo did not come up");
        Echo { process: Running(child), urls }
    }

    pub fn url(&self) -> &str {
        &self.urls[0]
    }

    /// The address part: `127.0.0.1:1234`.
    pub fn address(&self) -> &str {
        self.urls[0].split("://").nth(1).unwrap()
    }

    pub fn pid(&self) -> String {
        self.process.0.id().to_string()
    }
}

/// Runs the generator to its end and gives back its JSON.
pub fn measure(arguments: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("run.json");
    let output = load_in(&json, arguments);
    let text = std::fs::read_to_string(&json)
        .unwrap_or_else(|_| panic!("no JSON was written:\n{}", said(&output)));
    serde_json::from_str(&text).unwrap()
}

fn load_in(json: &Path, arguments: &[&str]) -> Output {
    Command::new(LOAD).args(arguments).arg("--json").arg(json).output().unwrap()
}

/// Runs the generator to its end.
pub fn load(arguments: &[&str]) -> Output {
    Command::new(LOAD).args(arguments).output().unwrap()
}

/// Everything a program said, for looking into.
pub fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

pub fn number(value: &Value, path: &str) -> f64 {
    let found = value.pointer(path).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("no number at {path} in {value}"))
}

/// A latency percentile in milliseconds.
pub fn ms(value: &Value, name: &str) -> f64 {
    value["latency"][name].as_f64().unwrap_or(f64::NAN) / 1e6
}

/// A port that is this process's until it ends, for a server that is yet to begin or never will. A
/// socket that is bound and never listens keeps it from outgoing connections and from whoever binds
/// port 0; a server that reuses addresses, as all do, can listen on it.
pub fn free_port() -> u16 {
    static KEPT: Mutex<Vec<Socket>> = Mutex::new(Vec::new());
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    KEPT.lock().unwrap().push(socket);
    port
}

/// Runs until one holds: a machine that stood still for a moment spoils one run, not all of them.
pub fn one_of_five(mut run: impl FnMut() -> Result<(), String>) {
    let mut last = String::new();
    for _ in 0..5 {
        match run() {
            Ok(()) => return,
            Err(why) => last = why,
        }
    }
    panic!("none of five runs holds; the last one: {last}");
}

/// Waits until something listens there.
pub fn wait_for(address: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(address).is_err() {
        assert!(Instant::now() < until, "nothing came up at {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The interpreter of `target/peers/venv`, if it has that module.
pub fn python(module: &str) -> Option<PathBuf> {
    let python = peers().join("venv/bin/python");
    let found = python.exists()
        && Command::new(&python)
            .args(["-c", &format!("import {module}")])
            .output()
            .is_ok_and(|out| out.status.success());
    found.then_some(python).or_else(|| absent(module))
}

/// The folder to run node in, if npm has put that package there.
pub fn node(package: &str) -> Option<PathBuf> {
    let folder = peers().join("node");
    let found = folder.join("node_modules").join(package).exists();
    found.then_some(folder).or_else(|| absent(package))
}

/// A program on the path or in the system's own folders.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut folders = path.split(':').chain(["/usr/sbin", "/usr/bin"]).map(Path::new);
    folders
        .find_map(|folder| Some(folder.join(name)).filter(|file| file.is_file()))
        .or_else(|| absent(name))
}

fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers")
}

fn absent<T>(name: &str) -> Option<T> {
    let required = std::env::var("STANDPIPE_PEERS").is_ok_and(|value| value == "required");
    assert!(!required, "{name} is required here (STANDPIPE_PEERS=required) and absent");
    println!("skipped: no {name}");
    None
}
