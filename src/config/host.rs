//! The little a configuration asks of the machine it is proven on, behind a trait so that proving
//! is a function of its arguments.

use std::io::{self, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Files, names and processors.
pub trait Host {
    /// Is this a regular file we may read?
    fn readable(&self, path: &Path) -> io::Result<()>;
    /// May every user of this machine read it?
    fn is_exposed(&self, path: &Path) -> bool;
    /// The content of a small regular file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Every address of a host name, in no particular order.
    fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
    /// Usable processors.
    fn processors(&self) -> usize;
}

/// The machine we run on.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl System {
    /// The content of a small file of any kind: a configuration may come through a pipe.
    pub fn read_any(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
        match content.len() as u64 > FILE_BYTES_MAX {
            true => Err(io::Error::other("the file is larger than 1 MiB")),
            false => Ok(content),
        }
    }
}

impl Host for System {
    fn readable(&self, path: &Path) -> io::Result<()> {
        // Asked before it is opened: opening a pipe waits for whoever is to write to it.
        let data = std::fs::metadata(path)?;
        if data.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        if !data.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        std::fs::File::open(path).map(drop)
    }

    fn is_exposed(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|data| data.mode() & READ_BY_OTHERS != 0)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.readable(path)?;
        self.read_any(path)
    }

    fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok((name, port).to_socket_addrs()?.collect())
    }

    fn processors(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}

/// `r` for others, as `chmod o+r` sets it.
const READ_BY_OTHERS: u32 = 0o004;
/// No configuration and no key is as large; a device or a log file given by mistake is.
const FILE_BYTES_MAX: u64 = 1 << 20;
