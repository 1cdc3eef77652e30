//! What the service manager is told: that we serve, that the file is read again, that we end. It
//! is systemd's protocol (sd_notify): one datagram a message, to which nobody answers. Where no
//! manager asks to be told, nothing is opened and nothing sent.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::sys::process::monotonic_microseconds;

/// The environment variable that says where the manager listens.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// How long a message may wait for room in the manager's queue: control has other things to do.
const SEND_WITHIN: Duration = Duration::from_millis(100);

/// Whoever started this process and wants to know how far it is; nobody by default.
#[derive(Debug, Default)]
pub struct Manager(Option<Place>);

#[derive(Debug)]
struct Place {
    /// Not connected: the manager may be started anew and listen there again.
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Manager {
    /// The one the environment names. It opens a descriptor, so it is for the control thread, once
    /// the cores have their own tables.
    pub fn of_environment() -> Self {
        let Some(name) = std::env::var_os(VARIABLE) else { return Self::default() };
        Self::at(&name).unwrap_or_else(|error| {
            tracing::warn!(%error, "NOTIFY_SOCKET cannot be used; the service manager hears nothing");
            Self::default()
        })
    }

    /// The one that listens at a path, or at an abstract name, which begins with `@`.
    fn at(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
            _ => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_WITHIN))?;
        Ok(Self(Some(Place { socket, address })))
    }

    /// We serve: at first, and again when a reload is over, whatever became of it.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}\n"));
    }

    /// The file is being read again. The time tells the manager whether that began after its own
    /// request.
    pub fn reloading(&self) {
        let now = monotonic_microseconds();
        let status = "reading the configuration again";
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS={status}\n"));
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=ending; what is open is given time\n");
    }

    fn tell(&self, message: &str) {
        let Some(Place { socket, address }) = &self.0 else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::warn!(%error, "the service manager could not be told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 512];
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    #[test]
    fn every_step_is_one_message() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::at(path.as_os_str()).unwrap();
        manager.ready("serving");
        assert_eq!(heard(&socket), "READY=1\nSTATUS=serving\n");
        let before = monotonic_microseconds();
        manager.reloading();
        let reloading = heard(&socket);
        assert!(reloading.starts_with("RELOADING=1\n"), "{reloading}");
        let time = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        let time: u64 = time.unwrap().parse().unwrap();
        assert!((before..=monotonic_microseconds()).contains(&time), "{time}");
        manager.stopping();
        assert!(heard(&socket).starts_with("STOPPING=1\n"));
    }

    #[test]
    fn an_abstract_name_begins_with_an_at_sign() {
        let name = format!("standpipe-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let manager = Manager::at(OsStr::new(&format!("@{name}"))).unwrap();
        manager.ready("serving");
        assert_eq!(heard(&socket), "READY=1\nSTATUS=serving\n");
    }

    #[test]
    fn who_does_not_listen_harms_nobody() {
        Manager::default().ready("serving");
        Manager::at(OsStr::new("/nowhere/at/all")).unwrap().ready("serving");
        assert!(Manager::at(OsStr::new("vsock:2:1234")).is_err());
    }
}
