//! Sockets by descriptor number: the numbers belong to the thread that made them, so nothing here
//! is an owning type. The code that opened a socket closes it with [`close`].

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::memory::Memory;
use super::memory::Span;

/// Options both sides of a TCP pipe carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpOptions {
    /// TCP_USER_TIMEOUT: how long sent bytes may stay unacknowledged.
    pub user_timeout: Option<Duration>,
    /// Silence before keepalive probes.
    pub keepalive: Option<Duration>,
}

impl TcpOptions {
    pub(super) fn apply(self, socket: &Socket) -> io::Result<()> {
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_user_timeout(self.user_timeout)?;
        match self.keepalive {
            Some(time) => {
                let probes = socket2::TcpKeepalive::new().with_time(time).with_interval(time / 3);
                socket.set_tcp_keepalive(&probes)
            }
            None => socket.set_keepalive(false),
        }
    }
}

/// How a dial began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialling {
    /// Connected at once.
    Connected,
    /// Becomes writable when connected; then ask [`take_error`].
    Pending,
}

/// Begins to connect to a TCP server. The local port is chosen at connect time
/// (IP_BIND_ADDRESS_NO_PORT), so that ports only run out per server address. With `speaks_first`
/// the handshake's last acknowledgement goes out with the first bytes sent, which must follow at
/// once: one packet less, and the server wakes for connection and request together.
///
/// # Errors
/// What `socket(2)`, `bind(2)` or `connect(2)` answer; the socket is closed again.
pub fn dial(
    server: SocketAddr,
    source: Option<IpAddr>,
    speaks_first: bool,
) -> io::Result<(RawFd, Dialling)> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM.nonblocking(), None)?;
    // Only what a dial needs: the rest is set on pipes that turn out to live.
    socket.set_tcp_nodelay(true)?;
    if speaks_first {
        set_option(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_QUICKACK, 0)?;
    }
    if let Some(source) = source {
        leave_port_to_connect(socket.as_raw_fd())?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    start(socket, &server.into())
}

/// Has a bind that names no port choose none (IP_BIND_ADDRESS_NO_PORT): the port is chosen by the
/// connect that follows, so that one port serves many servers.
///
/// # Errors
/// What `setsockopt(2)` answers.
pub fn leave_port_to_connect(fd: RawFd) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// Begins to connect to a Unix stream socket.
///
/// # Errors
/// What `socket(2)` or `connect(2)` answer; a path too long for an address is `InvalidInput`.
pub fn dial_unix(path: &Path) -> io::Result<(RawFd, Dialling)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    start(socket, &SockAddr::unix(path)?)
}

fn start(socket: Socket, server: &SockAddr) -> io::Result<(RawFd, Dialling)> {
    let dialling = match socket.connect(server) {
        Ok(()) => Dialling::Connected,
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => Dialling::Pending,
        Err(e) => return Err(e),
    };
    Ok((socket.into_raw_fd(), dialling))
}

fn set_option(fd: RawFd, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    // SAFETY: an int option read by the kernel during the call.
    let set = unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as u32,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a listener keep connections to itself until their first bytes are there, or a second has
/// passed (TCP_DEFER_ACCEPT): for protocols in which the client speaks first. `false` undoes it,
/// also for connections that wait already. A refusal costs a wake-up for each connection.
pub fn set_deferred(listener: RawFd, deferred: bool) {
    let _ = set_option(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, deferred.into());
}

/// The events of `mask` that a descriptor has now, errors and hang-up included.
pub fn events(fd: RawFd, mask: u32) -> u32 {
    let mut asked = libc::pollfd { fd, events: mask as libc::c_short, revents: 0 };
    // SAFETY: one pollfd, written by the kernel during a call that does not wait.
    match unsafe { libc::poll(&raw mut asked, 1, 0) } {
        1 => u32::from(asked.revents as u16),
        _ => 0,
    }
}

/// Takes a socket's pending error: how a dial went, or what became of a socket that is not read.
pub fn take_error(fd: RawFd) -> Option<io::Error> {
    with(fd, |socket| socket.take_error()).unwrap_or_else(Some)
}

/// Whether a TCP socket is connected to itself. Where nobody listens on a port of this machine out
/// of which dials are served as well, one in some ten thousand is given that very port, and the
/// kernel lets it meet itself: its client would hear its own words.
pub fn has_met_itself(fd: RawFd, dialled: SocketAddr) -> bool {
    local(fd) == Some(dialled)
}

/// The address a TCP socket was accepted from.
pub fn peer(fd: RawFd) -> Option<SocketAddr> {
    with(fd, |socket| socket.peer_addr()).ok()?.as_socket()
}

/// The address a TCP socket was accepted on.
pub fn local(fd: RawFd) -> Option<SocketAddr> {
    with(fd, |socket| socket.local_addr()).ok()?.as_socket()
}

/// Sets the options of a socket that did not inherit them.
///
/// # Errors
/// What `setsockopt(2)` answers.
pub fn set_options(fd: RawFd, options: TcpOptions) -> io::Result<()> {
    with(fd, |socket| options.apply(socket))
}

/// What a non-blocking receive found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    Bytes(Span),
    /// Nothing is there yet.
    Empty,
    /// The peer has finished sending.
    End,
    /// This turn's scratch is used up; nothing was read.
    NoRoom,
}

/// Receives at most `most` bytes into this turn's scratch, behind `front` bytes left free for what
/// the caller holds of the stream already; the span covers both.
///
/// # Errors
/// What `recv(2)` answers, other than "not yet".
pub fn receive(fd: RawFd, memory: &mut Memory, front: usize, most: usize) -> io::Result<Received> {
    let Some(span) = memory.allocate(front + most) else { return Ok(Received::NoRoom) };
    let got = read_into(fd, &mut memory.bytes_mut(span)[front..]);
    let kept = memory.shrink(span, got.as_ref().map_or(0, |n| front + n));
    match got {
        Ok(0) => Ok(Received::End),
        Ok(_) => Ok(Received::Bytes(kept)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Received::Empty),
        Err(e) => Err(e),
    }
}

/// Receives into `bytes` without waiting.
///
/// # Errors
/// What `recv(2)` answers; `WouldBlock` when nothing is there.
pub fn read_into(fd: RawFd, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the kernel writes at most `bytes.len()` bytes into a buffer lent for the call.
        let n =
            unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) };
        if n >= 0 {
            return Ok(n as usize);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Sends what fits without waiting.
///
/// # Errors
/// What `send(2)` answers; `WouldBlock` when nothing fits.
pub fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the kernel reads at most `bytes.len()` bytes from a buffer borrowed for the call.
        let n = unsafe {
            libc::send(
                fd,
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        if n >= 0 {
            return Ok(n as usize);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Looks at the first bytes a peer sent without taking them.
///
/// # Errors
/// As [`read_into`].
pub fn peek(fd: RawFd, bytes: &mut [u8]) -> io::Result<usize> {
    // SAFETY: as for `read_into`.
    let n = unsafe {
        libc::recv(fd, bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT | libc::MSG_PEEK)
    };
    if n >= 0 { Ok(n as usize) } else { Err(io::Error::last_os_error()) }
}

/// Where [`peek`] looks: beyond so many unread bytes, moving on by what it sees, or (`None`) always
/// at the first unread one (SO_PEEK_OFF).
///
/// # Errors
/// What `setsockopt(2)` answers: `Unsupported` for TCP before Linux 6.9.
pub fn set_peek_offset(fd: RawFd, beyond: Option<usize>) -> io::Result<()> {
    let offset = match beyond {
        Some(bytes) => libc::c_int::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?,
        None => -1,
    };
    set_option(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, offset)
}

/// Bytes that lie in a socket, unread (SIOCINQ).
///
/// # Errors
/// What `ioctl(2)` answers.
pub fn unread(fd: RawFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int.
    if unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut bytes) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Whether bytes sent to a TCP peer wait to be taken (SIOCOUTQ), and it has acknowledged any within
/// so many milliseconds. `None` for a socket that cannot tell: a Unix one.
pub fn is_taking(fd: RawFd, within: u32) -> Option<bool> {
    let mut queued: libc::c_int = 0;
    // SAFETY: an all-zero tcp_info is a valid one.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes one int, and at most `length` bytes of the struct.
    let told = unsafe {
        libc::ioctl(fd, libc::TIOCOUTQ, &raw mut queued) == 0
            && libc::getsockopt(
                fd,
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut length,
            ) == 0
    };
    told.then_some(queued > 0 && info.tcpi_last_ack_recv < within)
}

/// Holds readiness back until `bytes` are queued (SO_RCVLOWAT); 1 undoes it.
pub fn set_low_water(fd: RawFd, bytes: usize) {
    let value = bytes.clamp(1, i32::MAX as usize) as libc::c_int;
    // A refusal only costs wake-ups.
    let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, value);
}

/// Sends FIN after what is queued.
pub fn finish(fd: RawFd) {
    // SAFETY: plain call; an error means the connection is gone already.
    unsafe { libc::shutdown(fd, libc::SHUT_WR) };
}

/// Reads no more, so that a task that waits for bytes is woken; writing goes on.
pub fn stop_reading(fd: RawFd) {
    // SAFETY: plain call; an error means the connection is gone already.
    unsafe { libc::shutdown(fd, libc::SHUT_RD) };
}

/// Ends both directions, so that every request waiting on the socket completes.
pub fn end(fd: RawFd) {
    // SAFETY: plain call; an error means the connection is gone already.
    unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
}

/// Drops the connection: the peer of a TCP socket sees RST, and every request waiting on it
/// completes. A Unix socket has no reset; its peer sees the end.
pub fn abort(fd: RawFd) {
    let nobody = libc::sockaddr { sa_family: libc::AF_UNSPEC as u16, sa_data: [0; 14] };
    // SAFETY: a short address read by the kernel during the call.
    let done = unsafe { libc::connect(fd, &raw const nobody, size_of::<libc::sockaddr>() as u32) };
    if done != 0 {
        end(fd);
    }
}

/// A descriptor that is closed when its holder lets go of it, on the thread that opened it.
#[derive(Debug)]
pub struct Owned(RawFd);

impl Owned {
    /// Takes charge of an open descriptor that no other code will close.
    pub fn new(fd: RawFd) -> Self {
        Self(fd)
    }

    pub fn fd(&self) -> RawFd {
        self.0
    }

    /// Passes the charge on.
    pub fn release(self) -> RawFd {
        let fd = self.0;
        std::mem::forget(self);
        fd
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        close(self.0);
    }
}

/// Closes a descriptor of this thread's table.
pub fn close(fd: RawFd) {
    // SAFETY: the caller opened it in this table and forgets the number now.
    unsafe { libc::close(fd) };
}

/// Which of many sockets, by their places, have lost their peer; `true`: by a reset. All are seen
/// in one call that does not wait. Beside each stands whether the end of what its peer sends
/// counts.
pub fn departed(sockets: &[(RawFd, bool)]) -> Vec<(usize, bool)> {
    let entry = |(fd, whole): &(RawFd, bool)| libc::pollfd {
        fd: *fd,
        events: if *whole { libc::POLLRDHUP } else { 0 },
        revents: 0,
    };
    let mut polled: Vec<libc::pollfd> = sockets.iter().map(entry).collect();
    // SAFETY: the kernel writes `revents` of the entries lent for the call. After an error all of
    // them are 0.
    unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, 0) };
    let lost = polled.iter().enumerate().filter(|(_, entry)| entry.revents != 0);
    lost.map(|(place, entry)| (place, entry.revents & libc::POLLERR != 0)).collect()
}

/// Bytes the peer's kernel has acknowledged since the connection began; `None` where nobody counts
/// them, as on a Unix socket.
pub fn acknowledged(fd: RawFd) -> Option<u64> {
    // SAFETY: all zeroes is a valid `tcp_info`.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut size = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes into a buffer lent for the call.
    let got = unsafe {
        let info = (&raw mut info).cast();
        libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info, &raw mut size)
    };
    let end = std::mem::offset_of!(libc::tcp_info, tcpi_bytes_acked) + size_of::<u64>();
    (got == 0 && size as usize >= end).then_some(info.tcpi_bytes_acked)
}

/// Whether the peer has neither finished nor sent anything: fit for another request.
pub fn is_quiet(fd: RawFd) -> bool {
    let mut byte = [0; 1];
    matches!(peek(fd, &mut byte), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
}

/// Lends the descriptor to socket2 for one call.
fn with<T>(fd: RawFd, f: impl FnOnce(&Socket) -> io::Result<T>) -> io::Result<T> {
    // SAFETY: the number is open in this table for as long as the call lasts, and is not closed by
    // the borrowed view.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    let socket = SockRef::from(&borrowed);
    f(&socket)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_the_peer_acknowledged_is_counted_where_somebody_does() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let before = acknowledged(near.as_raw_fd()).unwrap();
        near.write_all(b"hello").unwrap();
        far.read_exact(&mut [0; 5]).unwrap();
        far.write_all(b"hi").unwrap();
        near.read_exact(&mut [0; 2]).unwrap();
        // The answer carried the acknowledgement.
        assert_eq!(acknowledged(near.as_raw_fd()), Some(before + 5));
        let (near, _far) = UnixStream::pair().unwrap();
        assert_eq!(acknowledged(near.as_raw_fd()), None);
    }

    #[test]
    fn a_dial_that_met_itself_is_told_from_one_that_was_answered() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let own = socket.local_addr().unwrap();
        socket.connect(&own).expect("the kernel lets it");
        assert!(has_met_itself(socket.as_raw_fd(), own.as_socket().unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answered = TcpStream::connect(address).unwrap();
        assert!(!has_met_itself(answered.as_raw_fd(), address));
    }

    #[test]
    fn who_left_is_told_from_who_only_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pair = || {
            let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (near, listener.accept().unwrap().0)
        };
        let [(here, _a), (done, finished), (gone, reset)] = [pair(), pair(), pair()];
        finished.shutdown(std::net::Shutdown::Write).unwrap();
        SockRef::from(&reset).set_linger(Some(Duration::ZERO)).unwrap();
        drop(reset);
        let [here, done, gone] = [&here, &done, &gone].map(AsRawFd::as_raw_fd);
        assert_eq!(departed(&[(here, true), (done, false), (gone, false)]), [(2, true)]);
        assert_eq!(departed(&[(here, true), (done, true)]), [(1, false)]);
        assert_eq!(departed(&[]), []);
    }
}
