//! The little a configuration asks of the machine it is proven on, behind a trait so that proving
//! is a function of its arguments.

use std::io::{self, Read};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Files, names, addresses and processors.
pub trait Host {
    /// Is this a regular file we may read?
    fn readable(&self, path: &Path) -> io::Result<()>;
    /// May every user of this machine read it?
    fn is_exposed(&self, path: &Path) -> bool;
    /// The content of a small regular file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Every address of a host name, in no particular order.
    fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
    /// Whether the machine has this address; the port is not looked at.
    fn has_address(&self, address: SocketAddr) -> bool;
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

    fn has_address(&self, mut address: SocketAddr) -> bool {
        address.set_port(0);
        let bound = UdpSocket::bind(address);
        !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
    }

    fn processors(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}

/// `r` for others, as `chmod o+r` sets it.
const READ_BY_OTHERS: u32 = 0o004;
/// No configuration and no key is as large; a device or a log file given by mistake is.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_its_loopback_and_no_address_of_an_example() {
        let has = |text: &str| System.has_address(text.parse().unwrap());
        assert!(has("127.0.0.1:80") && has("0.0.0.0:80"));
        // Nothing is known of an address that cannot be asked for.
        assert!(has("224.0.0.1:80"));
        assert!(!has("192.0.2.1:80"));
    }
}
