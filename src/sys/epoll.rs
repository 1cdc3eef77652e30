//! Readiness for programs that hold very many sockets and do little with each: the load generator
//! and its echo. The proxy's own long life never comes here (it lives on its ring).
//!
//! Interest is edge-triggered and set once per socket, so that a message costs no `epoll_ctl`.
//! An `Epoll` never owns the sockets in it: closing a socket takes it out.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// One wait brings at most this many events: enough to amortise the call, and 6 KiB of stack.
pub const EVENTS_MAX: usize = 512;

/// An epoll instance, usable only from the thread (and fd table) that made it.
pub struct Epoll {
    fd: OwnedFd,
}

/// What one wait brought back.
pub struct Events {
    list: Vec<libc::epoll_event>,
    ready: usize,
}

/// A socket's readiness, under the token it was added with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    pub token: u64,
    flags: u32,
}

impl Epoll {
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: no pointers are passed; the result is checked before it is owned.
        let raw = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `raw` was just made by the kernel for us and nobody else owns it.
        Ok(Epoll { fd: unsafe { OwnedFd::from_raw_fd(raw) } })
    }

    /// Watches a socket for both directions, edge-triggered, until it is closed.
    pub fn add(&self, socket: &impl AsFd, token: u64) -> io::Result<()> {
        let flags = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        self.control(socket, flags as u32, token)
    }

    /// Watches a listener: level-triggered, so that what one turn leaves in the queue comes again.
    pub fn add_listener(&self, socket: &impl AsFd, token: u64) -> io::Result<()> {
        self.control(socket, libc::EPOLLIN as u32, token)
    }

    fn control(&self, socket: &impl AsFd, flags: u32, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: flags, u64: token };
        let fd = socket.as_fd().as_raw_fd();
        // SAFETY: both descriptors are borrowed and open; `event` is copied during the call.
        let result =
            unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits for events, at most `timeout` (with the kernel's nanosecond timer, not a millisecond).
    pub fn wait(&self, events: &mut Events, timeout: Duration) -> io::Result<usize> {
        let limit = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(timeout.subsec_nanos()),
        };
        events.ready = 0;
        // SAFETY: `list` has room for `EVENTS_MAX` entries and outlives the call, as does `limit`;
        // the null mask leaves signals as they are (its size is then not looked at).
        let result = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.fd.as_raw_fd(),
                events.list.as_mut_ptr(),
                events.list.len() as libc::c_int,
                &limit as *const libc::timespec,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        if result < 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                return Ok(0);
            }
            return Err(error);
        }
        events.ready = result as usize;
        Ok(events.ready)
    }
}

impl Events {
    pub fn new() -> Events {
        Events { list: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX], ready: 0 }
    }

    pub fn at(&self, index: usize) -> Option<Ready> {
        let event = self.list[..self.ready].get(index)?;
        Some(Ready { token: event.u64, flags: event.events })
    }
}

impl Default for Events {
    fn default() -> Events {
        Events::new()
    }
}

impl Ready {
    /// There are bytes, an end of stream or an error to be read.
    pub fn readable(self) -> bool {
        self.flags & (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32
            != 0
    }

    pub fn writable(self) -> bool {
        self.flags & (libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0
    }

    /// The peer has finished sending: what is readable ends in an end of stream.
    pub fn ended(self) -> bool {
        self.flags & (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn an_edge_comes_once_with_its_token() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.add(&server, 77).unwrap();
        client.write_all(b"x").unwrap();
        let mut events = Events::new();
        let mut seen = false;
        for _ in 0..10 {
            let count = epoll.wait(&mut events, Duration::from_millis(100)).unwrap();
            seen |= (0..count).any(|at| {
                let ready = events.at(at).unwrap();
                ready.token == 77 && ready.readable()
            });
            if seen {
                break;
            }
        }
        assert!(seen);
        assert_eq!(epoll.wait(&mut events, Duration::from_millis(5)).unwrap(), 0);
    }
}
