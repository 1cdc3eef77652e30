//! Programs nobody here wrote, and where to find them. `.ci/run` installs them; where one is
//! absent a test says so and passes, unless `STANDPIPE_PEERS=required`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

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
