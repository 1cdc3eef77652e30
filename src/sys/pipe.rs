//! Pipes that bytes are spliced through, lent from a small pool per core and never owned by a
//! connection. splice(2) is called only after readiness, never through the ring, where it would
//! occupy a kernel thread.

use std::io;
use std::os::fd::RawFd;

/// Bytes asked for a pipe to hold.
pub const PIPE_BYTES: usize = 1 << 20;

/// A pipe and what lies in it.
#[derive(Debug)]
pub struct KernelPipe {
    read: RawFd,
    write: RawFd,
    /// Bytes it can hold at the most.
    pub room: usize,
    /// Bytes in it now.
    pub held: usize,
}

impl KernelPipe {
    /// Makes a non-blocking pipe, as large as the kernel allows up to [`PIPE_BYTES`].
    ///
    /// # Errors
    /// What `pipe2(2)` answers: out of descriptors, or of pipe pages.
    pub fn new() -> io::Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: the kernel writes two descriptors into an array of two.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut asked = PIPE_BYTES;
        let room = loop {
            // SAFETY: plain call on our own descriptor.
            let size = unsafe { libc::fcntl(ends[1], libc::F_SETPIPE_SZ, asked as libc::c_int) };
            if size > 0 {
                break size as usize;
            }
            asked /= 2;
            if asked < 64 << 10 {
                break 16 << 12;
            }
        };
        Ok(Self { read: ends[0], write: ends[1], room, held: 0 })
    }

    /// Moves at most `most` bytes from a socket into the pipe. `Ok(0)` is the peer's FIN.
    ///
    /// # Errors
    /// `WouldBlock`: the socket is empty, or (only if the pipe holds bytes) the pipe is full.
    pub fn fill(&mut self, socket: RawFd, most: usize) -> io::Result<usize> {
        let moved = splice(socket, self.write, most)?;
        self.held += moved;
        Ok(moved)
    }

    /// Moves what the pipe holds into a socket, as far as it takes it.
    ///
    /// # Errors
    /// `WouldBlock`: the socket takes nothing now.
    pub fn drain(&mut self, socket: RawFd) -> io::Result<usize> {
        let moved = splice(self.read, socket, self.held)?;
        self.held -= moved;
        Ok(moved)
    }

    /// Takes everything out of the pipe into `bytes`.
    ///
    /// # Errors
    /// What `read(2)` answers; the pipe must then be thrown away.
    pub fn empty_into(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        while self.held > 0 {
            let start = bytes.len();
            bytes.resize(start + self.held, 0);
            // SAFETY: the kernel writes at most `held` bytes into a buffer of that many.
            let n = unsafe { libc::read(self.read, bytes[start..].as_mut_ptr().cast(), self.held) };
            bytes.truncate(start + n.max(0) as usize);
            match n {
                1.. => self.held -= n as usize,
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => return Err(io::Error::last_os_error()),
            }
        }
        Ok(())
    }
}

impl Drop for KernelPipe {
    fn drop(&mut self) {
        super::socket::close(self.read);
        super::socket::close(self.write);
    }
}

fn splice(from: RawFd, to: RawFd, most: usize) -> io::Result<usize> {
    loop {
        // SAFETY: plain call on two open descriptors; null offsets for streams.
        let n = unsafe {
            libc::splice(
                from,
                std::ptr::null_mut(),
                to,
                std::ptr::null_mut(),
                most,
                libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK,
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
