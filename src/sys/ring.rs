//! The wire's io_uring: one per core, owned by its thread, completions delivered only inside
//! [`Ring::enter`]. Requests are named by a 64-bit token of the caller's.
//!
//! It never holds a send past `enter`: sends carry MSG_DONTWAIT, so they run to their end while
//! they are submitted, and only a send that fell short leaves a completion (CQE_SKIP_SUCCESS).

use std::io;
use std::os::fd::RawFd;

pub use io_uring::types::Timespec;
use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::memory::{BUFFER_BYTES, BUFFERS, Memory, Span};

/// Submission entries; a turn that needs more submits in between.
const ENTRIES: u32 = 4096;
/// Completion entries; an overflow would end multishot requests and cost heap in the kernel.
const COMPLETIONS: u32 = 32_768;
/// Spans that all sends of one submission may gather.
const VECTORS: usize = 16_384;
const MESSAGES: usize = 4096;
/// How long, and how often, a kernel that is out of memory for requests is waited for.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(1);
const PAUSES_MAX: u32 = 10_000;
/// Buffer group of the provided receive buffers.
const GROUP: u16 = 1;
/// Token of requests whose completion is not waited for.
const IGNORED: u64 = u64::MAX;

/// Readiness to wait for.
pub const POLL_IN: u32 = libc::POLLIN as u32 | libc::POLLRDHUP as u32;
pub const POLL_OUT: u32 = libc::POLLOUT as u32;
/// The peer has finished: what is queued is the last of it.
pub const POLL_FINISHED: i32 = libc::POLLRDHUP as i32;
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
    /// Completions taken from the kernel and not yet handed on.
    reaped: Vec<Completion>,
    /// What went wrong while room was made; the next `enter` reports it.
    broken: Option<io::Error>,
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
        Self::with_entries(ENTRIES)
    }

    fn with_entries(entries: u32) -> io::Result<Self> {
        let mut uring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(entries)?;
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
            reaped: Vec::new(),
            broken: None,
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
    pub fn timeout(&mut self, spec: &'static Timespec, token: u64) {
        self.push(opcode::Timeout::new(spec).build().user_data(token));
    }

    /// Ends the request named `token`; that request's own completion tells when it is over.
    pub fn cancel(&mut self, token: u64) {
        let entry = opcode::AsyncCancel::new(token).build().flags(squeue::Flags::SKIP_SUCCESS);
        self.push(entry.user_data(IGNORED));
    }

    /// Sends the spans in order, as one send; `last` if FIN is going to follow at once. Completes
    /// only if it fell short: with what was sent, or the error.
    pub fn send(
        &mut self,
        fd: RawFd,
        spans: impl ExactSizeIterator<Item = Span>,
        last: bool,
        token: u64,
    ) {
        let more = if last { libc::MSG_MORE } else { 0 };
        let flags = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL | more;
        let mut spans = spans;
        let entry = if spans.len() == 1 {
            let span = spans.next().unwrap_or_else(|| unreachable!("the length is one"));
            let address = self.memory.address(span);
            opcode::Send::new(types::Fd(fd), address, span.len() as u32).flags(flags).build()
        } else {
            let message = self.gather(spans);
            opcode::SendMsg::new(types::Fd(fd), message).flags(flags as u32).build()
        };
        self.push(entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(token));
    }

    /// Lays down header and vectors of one gathered send, with room for its entry: between here
    /// and the push of that entry nothing may be submitted, for that would forget both.
    fn gather(&mut self, spans: impl ExactSizeIterator<Item = Span>) -> *const libc::msghdr {
        assert!(spans.len() <= VECTORS, "one send gathers a bounded number of spans");
        let crowded = self.vectors.len() + spans.len() > VECTORS || self.messages.len() == MESSAGES;
        if crowded || self.uring.submission().is_full() {
            self.make_room();
        }
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
        &raw const self.messages[self.messages.len() - 1]
    }

    /// Submits what was pushed, runs what is due, and waits until `want` completions are there;
    /// says how many were submitted. Afterwards the kernel reads no memory of ours any more but
    /// the provided buffers.
    ///
    /// # Errors
    /// Other than interruption and momentary shortage, which are not errors here.
    pub fn enter(&mut self, want: usize) -> io::Result<usize> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        // What a crowded turn has reaped already needs no waiting for.
        let want = if self.reaped.is_empty() { want } else { 0 };
        let mut submitted = self.call(want)?;
        submitted += self.submit_rest()?;
        while self.uring.submission().cq_overflow() {
            self.reap();
            self.call(0)?;
        }
        Ok(submitted)
    }

    /// Submits until nothing is queued: what is queued may point to headers, vectors and scratch
    /// that are used anew from here on. Short of memory the kernel takes only a part of it.
    fn submit_rest(&mut self) -> io::Result<usize> {
        let (mut submitted, mut pauses) = (0, 0);
        while !self.uring.submission().is_empty() {
            match self.call(0)? {
                0 if pauses == PAUSES_MAX => return Err(io::ErrorKind::OutOfMemory.into()),
                0 => {
                    pauses += 1;
                    std::thread::sleep(PAUSE);
                }
                more => submitted += more,
            }
        }
        self.messages.clear();
        self.vectors.clear();
        Ok(submitted)
    }

    fn call(&mut self, want: usize) -> io::Result<usize> {
        self.enters += 1;
        let pending = self.uring.submission().len();
        let getevents = 1; // IORING_ENTER_GETEVENTS: completions are delivered only inside it
        // SAFETY: everything the pushed entries point to lives in `self` until they are submitted:
        // provided and scratch memory, headers and vectors.
        let entered = unsafe {
            self.uring.submitter().enter::<libc::sigset_t>(
                pending as u32,
                want as u32,
                getevents,
                None,
            )
        };
        match entered {
            Err(e)
                if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) =>
            {
                // Old kernels take nothing (EBUSY) while completions overflow.
                self.reap();
                Ok(0)
            }
            other => other,
        }
    }

    /// Moves all completions that are there to the end of `into`, oldest first.
    pub fn completions(&mut self, into: &mut Vec<Completion>) {
        self.reap();
        into.append(&mut self.reaped);
    }

    fn reap(&mut self) {
        for entry in self.uring.completion() {
            if entry.user_data() == IGNORED {
                continue;
            }
            let flags = entry.flags();
            self.reaped.push(Completion {
                token: entry.user_data(),
                result: entry.result(),
                more: cqueue::more(flags),
                buffer: cqueue::buffer_select(flags),
            });
        }
    }

    /// Gives provided buffers back to the kernel.
    pub fn recycle(&mut self, ids: impl Iterator<Item = u16>) {
        self.buffers.give(&self.memory, ids);
    }

    fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: operands are descriptors, numbers, or memory owned by `self` (see `call`).
        while unsafe { self.uring.submission().push(&entry) }.is_err() && self.broken.is_none() {
            self.make_room();
        }
    }

    /// Makes room in the submission queue, the headers and the vectors.
    fn make_room(&mut self) {
        // What a broken ring still holds may point to what was moved since: it is never submitted.
        if self.broken.is_some() {
            return;
        }
        if let Err(error) = self.submit_rest() {
            self.broken.get_or_insert(error);
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

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Gathered sends keep their own bytes when the queue fills up in the middle of them.
    #[test]
    fn a_full_queue_mixes_nothing_up() {
        let mut ring = Ring::with_entries(4).unwrap();
        let pairs: Vec<_> = (0..23).map(|_| UnixStream::pair().unwrap()).collect();
        for round in 0..8usize {
            // So that the queue is filled to another point before each send.
            for _ in 0..round % 4 {
                ring.poll(pairs[0].0.as_raw_fd(), POLL_OUT, IGNORED);
            }
            for (number, (ours, _)) in pairs.iter().enumerate() {
                let spans = [1, 2, 3].map(|part| {
                    let span = ring.memory.allocate(5 + part).unwrap();
                    ring.memory.bytes_mut(span).fill((number * 4 + part) as u8);
                    // A gap, so that no two of them touch.
                    ring.memory.allocate(8).unwrap();
                    span
                });
                ring.send(ours.as_raw_fd(), spans.into_iter(), false, number as u64);
            }
            ring.enter(0).unwrap();
            let mut completions = Vec::new();
            ring.completions(&mut completions);
            assert!(completions.is_empty(), "every send went out whole: {completions:?}");
            for (number, (_, theirs)) in pairs.iter().enumerate() {
                let mut got = [0; 6 + 7 + 8];
                (&*theirs).read_exact(&mut got).unwrap();
                let wanted: Vec<u8> = [1, 2, 3]
                    .into_iter()
                    .flat_map(|part| std::iter::repeat_n((number * 4 + part) as u8, 5 + part))
                    .collect();
                assert_eq!(got[..], wanted[..], "stream {number}, round {round}");
            }
            ring.memory.turn();
            ring.memory.forget();
        }
    }
}
