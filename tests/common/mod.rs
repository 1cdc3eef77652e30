//! What the end-to-end tests share: a standpipe started from a config in a folder of its own,
//! ports nobody else has, its metrics and memory as numbers, and small scripted peers. It holds
//! no expectation about behaviour; the tests do.
#![allow(dead_code)]

pub mod http;
pub mod l4;
pub mod peers;
pub mod process;
pub mod tls;
pub mod web;
pub mod ws;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use socket2::{Domain, Socket, Type};

/// How long anything that ought to happen may take before a test gives up. Generous, because the
/// suite shares two processors with builds.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running standpipe. Killed (by its own pid) when dropped; its log is shown if the test failed.
pub struct Standpipe {
    child: Child,
    folder: tempfile::TempDir,
    pub admin: SocketAddr,
}

impl Standpipe {
    /// Starts with `config`, in which `{admin}` stands for the admin address; waits until it
    /// serves. `[runtime]` is added unless the text has one.
    pub fn start(config: &str) -> Standpipe {
        Standpipe::start_with(config, &[], &[])
    }

    /// As [`Standpipe::start`], with files (name, content) beside the config and extra variables.
    pub fn start_with(
        config: &str,
        files: &[(&str, &[u8])],
        variables: &[(&str, &str)],
    ) -> Standpipe {
        let mut command = Command::new(binary());
        command.envs(variables.iter().copied());
        Standpipe::launch(command, config, files, None).0
    }

    /// As [`Standpipe::start`], beside another that listens on the same ports.
    pub fn start_beside(config: &str) -> Standpipe {
        let mut command = Command::new(binary());
        command.arg("run").arg("--share-ports");
        Standpipe::launch(command, config, &[], None).0
    }

    /// As [`Standpipe::start`], with a log that the test reads, or does not.
    pub fn start_read(config: &str) -> (Standpipe, ChildStderr) {
        let piped = Some(Stdio::piped());
        let (standpipe, log) = Standpipe::launch(Command::new(binary()), config, &[], piped);
        (standpipe, log.expect("its standard error"))
    }

    /// As [`Standpipe::start`], by way of a program that becomes another (`["prlimit", …]`).
    pub fn start_by(launcher: &[&str], config: &str) -> Standpipe {
        let mut command = Command::new(launcher[0]);
        command.args(&launcher[1..]).arg(binary());
        Standpipe::launch(command, config, &[], None).0
    }

    fn launch(
        mut command: Command,
        config: &str,
        files: &[(&str, &[u8])],
        stderr: Option<Stdio>,
    ) -> (Standpipe, Option<ChildStderr>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).expect("a file beside the config");
        }
        let admin = SocketAddr::from(([127, 0, 0, 1], port()));
        write_config(&folder.path().join("standpipe.toml"), config, admin);
        let log = std::fs::File::create(folder.path().join("log")).expect("a log file");
        if command.get_args().all(|argument| argument != "run") {
            command.arg("run");
        }
        let mut child = command
            .arg(folder.path().join("standpipe.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the same log file"))
            .stderr(stderr.unwrap_or_else(|| log.into()))
            .spawn()
            .expect("the standpipe binary starts");
        let read = child.stderr.take();
        let mut standpipe = Standpipe { child, folder, admin };
        standpipe.wait_ready();
        (standpipe, read)
    }

    fn wait_ready(&mut self) {
        let begun = Instant::now();
        loop {
            if let Some((200, _)) = try_get(self.admin, "/ready") {
                return;
            }
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                panic!("standpipe ended at start with {status}:\n{}", self.log());
            }
            if begun.elapsed() > PATIENCE {
                panic!("standpipe was not ready in {PATIENCE:?}:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join("standpipe.toml")
    }

    /// Everything it wrote to standard output and standard error so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until a line of the log has all of `words`: what is done is written a moment later.
    pub fn wait_log(&self, words: &[&str]) {
        let has_all = |line: &str| words.iter().all(|word| line.contains(word));
        wait_until(&format!("a line with {words:?}"), || self.log().lines().any(has_all));
    }

    /// Sends a signal by name (`"TERM"`, `"HUP"`).
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status()
            .expect("kill runs");
        assert!(status.success(), "kill -{name} {}", self.pid());
    }

    /// Stops every thread of the process until [`Standpipe::go_on`]. A signal is only asked for
    /// when `kill` returns: a thread that is slow to see it would still accept and read.
    pub fn stop(&self) {
        self.signal("STOP");
        wait_until("every thread is stopped", || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("its tasks");
            tasks.flatten().all(|task| {
                let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                // "pid (name) state …", and a name may hold a parenthesis of its own.
                stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
            })
        });
    }

    /// What [`Standpipe::stop`] stopped goes on.
    pub fn go_on(&self) {
        self.signal("CONT");
    }

    /// Writes another config and waits until the running process has taken it, or refused it. (A
    /// count of reloads would not do: the one before is noticed twice, by signal and by file.)
    pub fn reload(&self, config: &str) {
        write_config(&self.config_path(), config, self.admin);
        let written = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
        self.signal("HUP");
        wait_until("the file is read", || {
            let read = self.metric("standpipe_config_last_read_timestamp_seconds", &[]);
            read >= written.as_secs_f64()
        });
    }

    /// Waits for the process to end by itself.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "standpipe did not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// `/metrics` as text.
    pub fn metrics(&self) -> String {
        try_get(self.admin, "/metrics").map(|(_, body)| body).unwrap_or_default()
    }

    /// The sum of every sample of `name` that has all of `labels`.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        sum_metric(&self.metrics(), name, labels)
    }

    /// Asks the admin face; status and body.
    pub fn admin_get(&self, path: &str) -> (u16, String) {
        try_get(self.admin, path).expect("the admin face answers")
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("the process is there");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("a VmRSS line");
        let kilobytes: u64 =
            line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
        kilobytes * 1024
    }

    /// Open descriptors over all of its threads' tables (each core has its own).
    pub fn descriptors(&self) -> usize {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("threads");
        tasks
            .flatten()
            .filter_map(|task| std::fs::read_dir(task.path().join("fd")).ok())
            .map(|fds| fds.count())
            .sum()
    }

    /// Processor time used so far, user and system, over all threads.
    pub fn processor_time(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("threads");
        let nanoseconds: u64 = tasks
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
            .filter_map(|line| line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()))
            .sum();
        Duration::from_nanos(nanoseconds)
    }
}

impl Drop for Standpipe {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- standpipe's log ---\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_config(path: &Path, config: &str, admin: SocketAddr) {
    let text = if config.contains("[runtime]") {
        config.replace("{admin}", &admin.to_string())
    } else {
        format!("[runtime]\nworkers = 1\nadmin = \"{admin}\"\n\n{config}")
    };
    std::fs::write(path, text).expect("the config is written");
}

/// The program under test. Another build of it may be put to the same tests.
pub fn binary() -> String {
    let built = env!("CARGO_BIN_EXE_standpipe").to_string();
    std::env::var("STANDPIPE_BINARY").unwrap_or(built)
}

/// Adds up the samples of a Prometheus text that match.
pub fn sum_metric(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(key, _)| {
            let (metric, rest) = key.split_once('{').unwrap_or((key, ""));
            metric == name
                && labels
                    .iter()
                    .all(|(label, value)| rest.contains(&format!("{label}=\"{value}\"")))
        })
        .filter_map(|(_, value)| value.parse::<f64>().ok())
        .sum()
}

/// A port that is this process's until it ends, taken or not. A socket that is bound and never
/// listens keeps it: the kernel gives it to no outgoing connection and to nobody who binds port 0,
/// here or in another process, while whoever names it and reuses addresses, as servers do, can
/// listen on it, and again later. Until somebody does, a connection to it is refused.
pub fn port() -> u16 {
    static KEPT: Mutex<Vec<Socket>> = Mutex::new(Vec::new());
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("an address that can be reused");
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    socket.bind(&any.into()).expect("a free port");
    let bound = socket.local_addr().ok().and_then(|address| address.as_socket());
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
    bound.expect("its number").port()
}

/// Listens where a server of the test is to be, or is to be again: who had the port before may
/// take a moment to let go of it.
pub fn listen(address: SocketAddr) -> TcpListener {
    let begun = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return listener,
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse && begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(e) => panic!("{address} cannot be listened on: {e}"),
        }
    }
}

/// A loopback address with a port of [`port`].
pub fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port()))
}

/// Polls until `met`, or fails the test naming `what`.
pub fn wait_until(what: &str, mut met: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !met() {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A connected client socket with a read timeout, so that no test hangs.
pub fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a write timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// Reads until end of file or reset; what came before it.
pub fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut chunk = [0_u8; 16 * 1024];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return all,
            Ok(n) => all.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return all,
            Err(e) => panic!("after {} bytes: {e}", all.len()),
        }
    }
}

/// Reads exactly `n` bytes.
pub fn read_exactly(stream: &mut TcpStream, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    stream.read_exact(&mut bytes).unwrap_or_else(|e| panic!("{n} bytes wanted: {e}"));
    bytes
}

/// Whether the stream is silent and open for `span`.
pub fn is_silent(stream: &mut TcpStream, span: Duration) -> bool {
    stream.set_read_timeout(Some(span)).expect("a read timeout");
    let mut byte = [0_u8; 1];
    let nothing_yet = [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut];
    let silent = stream.read(&mut byte).is_err_and(|e| nothing_yet.contains(&e.kind()));
    stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
    silent
}

/// One GET over a connection of its own; `None` if nobody answered.
fn try_get(to: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut reader = http::Reader::new(stream);
    let response = reader.try_response("GET")?;
    Some((response.status, String::from_utf8_lossy(&response.body).into_owned()))
}
