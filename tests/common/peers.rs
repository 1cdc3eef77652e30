//! Programs nobody here wrote, and where to find them. `.ci/run` installs them; where one is
//! absent a test says so and passes, unless `STANDPIPE_PEERS=required`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The interpreter of `target/peers/venv`, if `module` can be imported there.
pub fn python(module: &str) -> Option<PathBuf> {
    let python = folder().join("venv/bin/python");
    let found = python.exists()
        && Command::new(&python)
            .args(["-c", &format!("import {module}")])
            .output()
            .is_ok_and(|out| out.status.success());
    found.then_some(python).or_else(|| missing(module))
}

/// `node`, if `package` is in `target/peers/node/node_modules`.
pub fn node(package: &str) -> Option<PathBuf> {
    let found = folder().join("node/node_modules").join(package).exists();
    match tool_path("node") {
        Some(node) if found => Some(node),
        _ => missing(package),
    }
}

/// A program on the path (or in the system's own folders).
pub fn tool(name: &str) -> Option<PathBuf> {
    tool_path(name).or_else(|| missing(name))
}

/// Where npm packages stand; `node` finds them when run from here.
pub fn node_folder() -> PathBuf {
    folder().join("node")
}

/// A script of `tests/peers`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers")
}

fn tool_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/usr/local/bin", "/usr/bin"])
        .map(|folder| Path::new(folder).join(name))
        .find(|candidate| candidate.is_file())
}

/// Says what is absent; a failure where peers are required.
fn missing<T>(name: &str) -> Option<T> {
    let required = std::env::var("STANDPIPE_PEERS").is_ok_and(|v| v == "required");
    assert!(!required, "{name} is required here (STANDPIPE_PEERS=required) and absent");
    println!("skipped: no {name}");
    None
}

/// A foreign process, ended by its pid when the test is over.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server of `tests/peers` and waits until it says that it is ready.
pub fn start(program: &Path, name: &str, arguments: &[&str]) -> Running {
    let mut child = command(program, name, arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let first = lines.next().and_then(Result::ok);
    assert_eq!(first.as_deref(), Some("ready"), "{name}");
    // Whatever else it says must not block it.
    std::thread::spawn(move || lines.for_each(drop));
    Running(child)
}

/// Runs a client of `tests/peers` to its end; what it printed.
pub fn run(program: &Path, name: &str, arguments: &[&str]) -> String {
    run_with(program, name, arguments, &[])
}

/// The same with more variables.
pub fn run_with(
    program: &Path,
    name: &str,
    arguments: &[&str],
    variables: &[(&str, &Path)],
) -> String {
    let mut command = command(program, name, arguments);
    command.envs(variables.iter().copied());
    let out = command.output().unwrap_or_else(|e| panic!("{name}: {e}"));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let trouble = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{name}: {}\n{text}{trouble}", out.status);
    text
}

fn command(program: &Path, name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg(script(name)).args(arguments).env("NODE_PATH", node_folder().join("node_modules"));
    command
}
