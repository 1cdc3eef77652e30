//! Listening TCP sockets: opened by every core on the same addresses, and, before any core is told
//! to, asked for once, because the kernel shares such an address with strangers without a word.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{IntoRawFd, RawFd};

use socket2::{Domain, Socket, Type};

use super::socket::TcpOptions;

/// Length of a listener's queue asked for; the kernel caps it at `net.core.somaxconn`.
pub const BACKLOG: i32 = 65_535;

/// Which other processes may listen on an address of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// None.
    #[default]
    Alone,
    /// Another process of the same user that shares its ports as we do: a standpipe that is about
    /// to end, or has just begun.
    WithKin,
}

/// A listening TCP socket, one of several that share the address (SO_REUSEPORT). Accepted sockets
/// inherit the options.
///
/// # Errors
/// What `socket(2)`, `bind(2)` or `listen(2)` answer: the address taken, no permission.
pub fn listen(address: SocketAddr, options: TcpOptions) -> io::Result<RawFd> {
    let socket = socket(address, Sharing::WithKin)?;
    options.apply(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into_raw_fd())
}

/// Whether the address could be listened on: bound and let go, never listened on.
///
/// # Errors
/// What `socket(2)` or `bind(2)` answer.
pub fn probe(address: SocketAddr, sharing: Sharing) -> io::Result<()> {
    socket(address, sharing)?.bind(&address.into())
}

/// Whether the address is taken, but by a process that would share it with us.
pub fn is_held_by_kin(address: SocketAddr) -> bool {
    let alone = probe(address, Sharing::Alone);
    let taken = alone.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
    taken && probe(address, Sharing::WithKin).is_ok()
}

/// Why an address cannot be listened on, and what to do about it.
pub fn refusal(name: &str, address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    let (cause, cure) = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => (
            "the port is taken".to_owned(),
            format!("see who has it with `ss -ltnp 'sport = :{port}'`, or choose another"),
        ),
        Some(libc::EACCES) => (
            "no permission for this port".to_owned(),
            "give the binary CAP_NET_BIND_SERVICE, or choose a port from 1024 up".to_owned(),
        ),
        Some(libc::EADDRNOTAVAIL) => (
            "this machine does not have the address".to_owned(),
            "use one that `ip address` lists, or 0.0.0.0".to_owned(),
        ),
        _ => (error.to_string(), "see the kernel's word on the left".to_owned()),
    };
    format!("listener {name}: cannot listen on {address}: {cause}; {cure}")
}

fn socket(address: SocketAddr, sharing: Sharing) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(sharing == Sharing::WithKin)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket::close;

    #[test]
    fn kin_are_told_from_strangers_and_from_nobody() {
        // Held by a socket that never listens, so that no other test is given the port.
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let held = socket(any, Sharing::Alone).unwrap();
        held.bind(&any.into()).unwrap();
        let address = held.local_addr().unwrap().as_socket().unwrap();
        assert!(probe(address, Sharing::Alone).is_ok() && !is_held_by_kin(address));
        let kin = [(); 2].map(|()| listen(address, TcpOptions::default()).unwrap());
        assert!(is_held_by_kin(address));
        assert!(probe(address, Sharing::WithKin).is_ok());
        kin.into_iter().for_each(close);
        let stranger = socket(address, Sharing::Alone).unwrap();
        stranger.bind(&address.into()).unwrap();
        stranger.listen(1).unwrap();
        assert!(!is_held_by_kin(address));
        let error = probe(address, Sharing::WithKin).unwrap_err();
        assert!(refusal("edge", address, &error).contains("taken; see who has it"));
    }
}
