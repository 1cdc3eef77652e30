//! Descriptor tables and descriptors that travel: each core has its own table, and a socket
//! reaches another core only as a message (SCM_RIGHTS), never as a number.

use std::io;
use std::os::fd::RawFd;

/// Gives the calling thread a descriptor table of its own, a copy of the shared one.
///
/// # Errors
/// What `unshare(2)` answers; the thread then goes on with the shared table.
pub fn unshare_table() -> io::Result<()> {
    // SAFETY: affects the calling thread's table only.
    if unsafe { libc::unshare(libc::CLONE_FILES) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A descriptor kept back so that one more can be opened when all others are in use.
#[derive(Debug)]
pub struct Reserve(RawFd);

impl Reserve {
    /// Takes one descriptor.
    ///
    /// # Errors
    /// What `open(2)` answers.
    pub fn new() -> io::Result<Self> {
        // SAFETY: a constant path, closed in drop.
        let fd = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(fd)) }
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        super::socket::close(self.0);
    }
}

/// Accepts one queued connection without waiting; non-blocking and close-on-exec.
///
/// # Errors
/// What `accept4(2)` answers; `WouldBlock` when none is queued.
pub fn accept(listener: RawFd) -> io::Result<RawFd> {
    loop {
        // SAFETY: no address is asked for.
        let fd = unsafe {
            libc::accept4(
                listener,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
            )
        };
        if fd >= 0 {
            return Ok(fd);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Sends a descriptor and a small note over a Unix socket; the sender still has to close its own.
///
/// # Errors
/// What `sendmsg(2)` answers; `WouldBlock` when the other side does not keep up.
pub fn pass(over: RawFd, fd: RawFd, note: u64) -> io::Result<()> {
    let mut note = note.to_ne_bytes();
    let mut vector = libc::iovec { iov_base: note.as_mut_ptr().cast(), iov_len: note.len() };
    let mut control = [0u64; 4];
    // SAFETY: a message with one vector and one descriptor, all on this stack for the call; the
    // control buffer is aligned and large enough for one header and one int.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
        if libc::sendmsg(over, &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Receives a descriptor and its note without waiting.
///
/// # Errors
/// `WouldBlock` when none is there; `InvalidData` for a message without a descriptor, which is what
/// the kernel makes of one for which this thread's table has no room left.
pub fn take(over: RawFd) -> io::Result<(RawFd, u64)> {
    let mut note = [0u8; 8];
    let mut vector = libc::iovec { iov_base: note.as_mut_ptr().cast(), iov_len: note.len() };
    let mut control = [0u64; 4];
    // SAFETY: as in `pass`; a received descriptor is read only where the kernel says it is whole.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        let got = libc::recvmsg(over, &raw mut message, flags);
        if got < 0 {
            return Err(io::Error::last_os_error());
        }
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        let whole = !header.is_null()
            && (*header).cmsg_level == libc::SOL_SOCKET
            && (*header).cmsg_type == libc::SCM_RIGHTS
            && (*header).cmsg_len == libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize;
        if !whole {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let fd = libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned();
        if got as usize != note.len() || message.msg_flags & libc::MSG_CTRUNC != 0 {
            super::socket::close(fd);
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok((fd, u64::from_ne_bytes(note)))
    }
}

/// The io_uring descriptors open in this thread's table.
pub fn rings() -> Vec<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/thread-self/fd") else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| {
            std::fs::read_link(entry.path())
                .is_ok_and(|to| to.to_string_lossy().contains("[io_uring]"))
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Reads and so resets an eventfd; the count does not matter to a wake-up.
pub fn acknowledge(eventfd: RawFd) {
    let mut count = [0u8; 8];
    // SAFETY: an eight-byte read into eight bytes.
    unsafe { libc::read(eventfd, count.as_mut_ptr().cast(), count.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    fn pair() -> (OwnedFd, OwnedFd) {
        let mut ends = [0; 2];
        // SAFETY: two descriptors into an array of two, owned at once.
        unsafe {
            let kind = libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK;
            assert_eq!(libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()), 0);
            (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
        }
    }

    #[test]
    fn a_descriptor_travels_with_its_note() {
        let (a, b) = pair();
        let file = Reserve::new().unwrap();
        pass(a.as_raw_fd(), file.0, 42).unwrap();
        let (fd, note) = take(b.as_raw_fd()).unwrap();
        assert_eq!(note, 42);
        assert_ne!(fd, file.0);
        super::super::socket::close(fd);
        assert_eq!(take(b.as_raw_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_descriptor_that_finds_no_room_is_told_from_none_at_all() {
        let (a, b) = pair();
        pass(a.as_raw_fd(), a.as_raw_fd(), 42).unwrap();
        let take_with_a_full_table = move || {
            unshare_table().unwrap();
            let all = std::iter::from_fn(|| Reserve::new().ok()).collect::<Vec<_>>();
            let lost = take(b.as_raw_fd()).unwrap_err();
            drop(all);
            (lost.kind(), take(b.as_raw_fd()).unwrap_err().kind())
        };
        let seen = std::thread::spawn(take_with_a_full_table).join().unwrap();
        assert_eq!(seen, (io::ErrorKind::InvalidData, io::ErrorKind::WouldBlock));
    }

    #[test]
    fn a_message_without_a_descriptor_is_refused() {
        let (a, b) = pair();
        super::super::socket::send(a.as_raw_fd(), b"12345678").unwrap();
        assert_eq!(take(b.as_raw_fd()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
