//! The wire's io_uring: one per core, owned by its thread, completions delivered only inside
//! [`Ring::enter`]. Requests are named by a 64-bit token of the caller's.
//!
//! It never holds a send past `enter`: sends carry MSG_DONTWAIT, so they run to their end while
//! they are submitted, and only a send that fell short leaves a completion (CQE_SKIP_SUCCESS).

use std::io;
use std::os::fd::RawFd;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::memory::{BUFFER_BYTES, BUFFERS, Memory, Span};

/// Submission entries; a turn that needs more submits in between.
const ENTRIES: u32 = 4096;
/// Completion entries; an overflow would end multishot requests and cost heap in the kernel.
const COMPLETIONS: u32 = 32_768;
/// Spans that all sends of one submission may gather.
const VECTORS: usize = 16_384;
const MESSAGES: usize = 4096;
/// Buffer group of the provided receive buffers.
const GROUP: u16 = 1;
/// Token of requests whose completion nobody waits for.
const IGNORED: u64 = u64::MAX;

/// Readiness to wait for.
pub const POLL_IN: u32 = libc::POLLIN as u32 | libc::POLLRDHUP as u32;
pub const POLL_OUT: u32 = libc::POLLOUT as u32;
/// The connection failed, or both its sides have ended.
pub const POLL_FAILED: i32 = libc::POLLERR as i32 | libc::POLLHUP as i32;
/// The connection was reset, or failed otherwise.
pub const POLL_ERR: i32 = libc::POLLERR as i32;

/// What became of a request.
#[derive(Debug, Clone, Copy)]
pub struct Completion {
    pub token: u64,
    /// As the system call: a count or mask, or a negated errno.
    pub result: i32,
    /// The request lives on and will complete again.
    pub more: bool,
    /// The provided buffer that was filled.
    pub buffer: Option<u16>,
}

/// The ring, its memory and its provided buffers.
pub struct Ring {
    uring: IoUring,
    pub memory: Memory,
    buffers: BufferRing,
    /// Headers and vectors of gathered sends, kept in place until submitted.
    messages: Vec<libc::msghdr>,
    vectors: Vec<libc::iovec>,
    /// Calls of io_uring_enter so far.
    pub enters: u64,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("enters", &self.enters).finish_non_exhaustive()
    }
}

impl Ring {
    /// Sets up the ring of this thread. Must be called on the thread that will use it, after it
    /// has its own descriptor table.
    ///
    /// # Errors
    /// What `io_uring_setup(2)`, `io_uring_register(2)` or `mmap(2)` answer.
    pub fn new() -> io::Result<Self> {
        let mut uring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(ENTRIES)?;
        // Saves a descriptor look-up per enter; older kernels refuse and lose nothing else.
        let _ = uring.submitter().register_ring_fd();
        let memory = Memory::new()?;
        let buffers = BufferRing::register(&mut uring, &memory)?;
        Ok(Self {
            uring,
            memory,
            buffers,
            messages: Vec::with_capacity(MESSAGES),
            vectors: Vec::with_capacity(VECTORS),
            enters: 0,
        })
    }

    /// Waits once for any of `mask`; errors and hang-up always count.
    pub fn poll(&mut self, fd: RawFd, mask: u32, token: u64) {
        self.push(opcode::PollAdd::new(types::Fd(fd), mask).build().user_data(token));
    }

    /// Reports every edge of `mask` (errors and hang-up too) until cancelled.
    pub fn watch(&mut self, fd: RawFd, mask: u32, token: u64) {
        let entry = opcode::PollAdd::new(types::Fd(fd), mask).multi(true).build();
        self.push(entry.user_data(token));
    }

    /// Receives into provided buffers until the stream ends, the buffers do, or it is cancelled.
    pub fn receive_all(&mut self, fd: RawFd, token: u64) {
        self.push(opcode::RecvMulti::new(types::Fd(fd), GROUP).build().user_data(token));
    }

    /// Accepts until cancelled or out of descriptors; sockets are non-blocking and close-on-exec.
    pub fn accept_all(&mut self, fd: RawFd, token: u64) {
        let entry = opcode::AcceptMulti::new(types::Fd(fd))
            .flags(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC)
            .build();
        self.push(entry.user_data(token));
    }

    /// Completes once after `spec` of time.
    pub fn timeout(&mut self, spec: &'static types::Timespec, token: u64) {
        self.push(opcode::Timeout::new(spec).build().user_data(token));
    }

    /// Ends the request named `token`; that request's own completion tells when it is over.
    pub fn cancel(&mut self, token: u64) {
        let entry = opcode::AsyncCancel::new(token).build().flags(squeue::Flags::SKIP_SUCCESS);
        self.push(entry.user_data(IGNORED));
    }

    /// Sends the spans in order, as one send. Completes only if it fell short: with what was
    /// sent, or the error.
    pub fn send(&mut self, fd: RawFd, spans: impl ExactSizeIterator<Item = Span>, token: u64) {
        let flags = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let mut spans = spans;
        let entry = if spans.len() == 1 {
            let span = spans.next().unwrap_or_else(|| unreachable!("the length is one"));
            let address = self.memory.address(span);
            opcode::Send::new(types::Fd(fd), address, span.len() as u32).flags(flags).build()
        } else {
            if self.vectors.len() + spans.len() > VECTORS || self.messages.len() == MESSAGES {
                self.submit();
            }
            assert!(spans.len() <= VECTORS, "one send gathers a bounded number of spans");
            let start = self.vectors.len();
            let memory = &self.memory;
            self.vectors.extend(spans.map(|span| libc::iovec {
                iov_base: memory.address(span).cast(),
                iov_len: span.len(),
            }));
            // SAFETY: an all-zero msghdr is a valid empty one.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            message.msg_iov = self.vectors[start..].as_mut_ptr();
            message.msg_iovlen = (self.vectors.len() - start) as _;
            self.messages.push(message);
            let message = &raw const self.messages[self.messages.len() - 1];
            opcode::SendMsg::new(types::Fd(fd), message).flags(flags as u32).build()
        };
        self.push(entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(token));
    }

    /// Submits what was pushed, runs what is due, and waits until `want` completions are there;
    /// says how many were submitted.
    ///
    /// # Errors
    /// Other than interruption and momentary shortage, which are not errors here.
    pub fn enter(&mut self, want: usize) -> io::Result<usize> {
        self.enters += 1;
        let pending = self.uring.submission().len();
        let getevents = 1; // IORING_ENTER_GETEVENTS: completions are delivered only inside it
        // SAFETY: everything the pushed entries point to lives in `self` until this returns:
        // provided and scratch memory, headers and vectors.
        let entered = unsafe {
            self.uring.submitter().enter::<libc::sigset_t>(
                pending as u32,
                want as u32,
                getevents,
                None,
            )
        };
        self.messages.clear();
        self.vectors.clear();
        match entered {
            Ok(submitted) => Ok(submitted),
            Err(e)
                if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) =>
            {
                Ok(0)
            }
            Err(e) => Err(e),
        }
    }

    /// Moves all completions that are there to the end of `into`.
    pub fn completions(&mut self, into: &mut Vec<Completion>) {
        for entry in self.uring.completion() {
            if entry.user_data() == IGNORED {
                continue;
            }
            let flags = entry.flags();
            into.push(Completion {
                token: entry.user_data(),
                result: entry.result(),
                more: cqueue::more(flags),
                buffer: cqueue::buffer_select(flags),
            });
        }
    }

    /// Whether a completion is waiting to be taken.
    pub fn has_completions(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }

    /// Gives provided buffers back to the kernel.
    pub fn recycle(&mut self, ids: impl Iterator<Item = u16>) {
        self.buffers.give(&self.memory, ids);
    }

    fn push(&mut self, entry: squeue::Entry) {
        loop {
            // SAFETY: operands are descriptors, numbers, or memory owned by `self` (see `enter`).
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
            self.submit();
        }
    }

    /// Makes room in the submission queue without looking for completions.
    fn submit(&mut self) {
        self.enters += 1;
        // An error leaves the entries queued; the next try or `enter` reports it.
        let _ = self.uring.submitter().submit();
        if self.uring.submission().is_empty() {
            self.messages.clear();
            self.vectors.clear();
        }
    }
}

/// The kernel's ring of provided buffers.
struct BufferRing {
    entries: *mut types::BufRingEntry,
    bytes: usize,
    tail: u16,
}

impl BufferRing {
    fn register(uring: &mut IoUring, memory: &Memory) -> io::Result<Self> {
        let bytes = BUFFERS * size_of::<types::BufRingEntry>();
        // SAFETY: a fresh anonymous mapping, page aligned as the kernel demands, unmapped in drop.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping above has room for exactly BUFFERS entries and outlives the ring's
        // use of it: `Ring` drops `uring` first.
        unsafe {
            uring.submitter().register_buf_ring_with_flags(at as u64, BUFFERS as u16, GROUP, 0)?;
        }
        let mut ring = Self { entries: at.cast(), bytes, tail: 0 };
        ring.give(memory, 0..BUFFERS as u16);
        Ok(ring)
    }

    fn give(&mut self, memory: &Memory, ids: impl Iterator<Item = u16>) {
        for id in ids {
            let index = self.tail as usize & (BUFFERS - 1);
            // SAFETY: inside the mapping; the kernel reads an entry only below the tail it sees.
            let entry = unsafe { &mut *self.entries.add(index) };
            entry.set_addr(memory.address(memory.buffer(id, BUFFER_BYTES)) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
        }
        // SAFETY: the tail lies in the ring's first entry; a release store publishes the entries.
        unsafe {
            let tail = types::BufRingEntry::tail(self.entries).cast_mut();
            (*tail.cast::<std::sync::atomic::AtomicU16>())
                .store(self.tail, std::sync::atomic::Ordering::Release);
        }
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `register`; the ring that used it was dropped before.
        unsafe { libc::munmap(self.entries.cast(), self.bytes) };
    }
}
