//! Opening a socket without waiting: source address, port chosen at connect, no Nagle.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};

use socket2::{Domain, Protocol, Socket, Type};
use standpipe::sys::generator::port_at_connect;

/// Starts a connect; the stream is writable when it is decided.
pub fn dial(to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = from {
        port_at_connect(&socket)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

/// What a failed dial is called in the report, with the limit and its cure where one was hit.
pub fn name_failure(error: &io::Error, to: SocketAddr) -> String {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => "connect: refused (nobody listens there)".into(),
        Some(libc::ETIMEDOUT) => "connect: timed out".into(),
        Some(libc::EADDRNOTAVAIL) => format!(
            "connect: local ports exhausted (some 28,000 per source address and target {to}); come \
             from more addresses with --source 127.0.1.0/28, or widen net.ipv4.ip_local_port_range"
        ),
        Some(libc::EMFILE) => "connect: file descriptors exhausted (RLIMIT_NOFILE, per thread \
             here); give more --threads, each has a table of its own, or raise `ulimit -n`"
            .into(),
        Some(libc::ENFILE) => {
            "connect: the system's file table is full; raise fs.file-max (sysctl)".into()
        }
        Some(libc::ENOBUFS | libc::ENOMEM) => {
            "connect: no memory for sockets; see net.ipv4.tcp_mem (sysctl)".into()
        }
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH) => "connect: no route to the target".into(),
        _ => format!("connect: {error}"),
    }
}
