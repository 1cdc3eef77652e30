//! The loader as a whole, on a pretended machine.

mod fuzz;
mod keys;
mod mistakes;
mod slips;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use super::*;

/// A machine with every file but those called `missing`, every address but those of 192.0.2.0/24,
/// a few names, and four processors.
pub struct Pretend;

impl Host for Pretend {
    fn readable(&self, path: &Path) -> io::Result<()> {
        match path.to_string_lossy().contains("missing") {
            true => Err(io::Error::from(io::ErrorKind::NotFound)),
            false => Ok(()),
        }
    }

    fn is_exposed(&self, path: &Path) -> bool {
        path.to_string_lossy().contains("exposed")
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.readable(path)?;
        match path.to_string_lossy().contains("short") {
            true => Ok(b"short\n".to_vec()),
            false => Ok(b"a key of more than sixteen bytes\n".to_vec()),
        }
    }

    fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let many = [[10, 0, 0, 9], [10, 0, 0, 8]].map(|ip| SocketAddr::from((ip, port)));
        let v6 = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port));
        match name {
            "one.example.org" | "live.example.org" => Ok(vec![v6, many[0]]),
            "many.example.org" => Ok(many.to_vec()),
            "empty.example.org" => Ok(Vec::new()),
            _ => Err(io::Error::other("no such name")),
        }
    }

    fn has_address(&self, address: SocketAddr) -> bool {
        !address.to_string().contains("192.0.2.")
    }

    fn processors(&self) -> usize {
        4
    }
}

pub fn read(text: &str) -> Result<Loaded, Problems> {
    parse(text, Path::new("/etc/sp/sp.toml"), &Pretend)
}

pub fn good(text: &str) -> Loaded {
    read(text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Each problem as `line: key`, with its whole text beside it.
pub fn bad(text: &str) -> Vec<(String, String)> {
    let Err(Problems(problems)) = read(text) else { panic!("no problem was found in:\n{text}") };
    problems.iter().map(|it| (format!("{}: {}", it.line, it.key), it.to_string())).collect()
}

/// Shapes of every key the reader asks for while it reads `text`.
pub fn known(text: &str) -> BTreeSet<String> {
    let notes = Notes::new("f", text);
    prove_text(text, Path::new("f"), &Pretend, &notes);
    notes.known()
}

pub const MINIMAL: &str = r#"
[listeners.edge]
bind = ["0.0.0.0:7000"]
mode = "l4"
pool = "chat"

[pools.chat]
servers = ["10.0.0.1:9000"]
"#;
