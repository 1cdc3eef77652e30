//! What a load generator asks of the kernel and the proxy does not: an exact clock shared by
//! processes, timers without slack, and a source address whose port is chosen at connect.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// CLOCK_MONOTONIC in nanoseconds: the same in every process of a machine, so that a time written
/// by one can be compared by another.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec that outlives the call; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Takes the calling thread's 50 µs of timer slack away: a message due is a message sent.
pub fn exact_timers() {
    // SAFETY: this prctl takes plain numbers and changes the calling thread only.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1usize, 0usize, 0usize, 0usize) };
}

/// Lets a following `bind(address, port 0)` leave the port to `connect`, which then only has to be
/// unique per destination.
pub fn port_at_connect(socket: &impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an int that outlives the call, its length is given. Level and
    // name hold for IPv6 sockets as well (the kernel keeps the flag in the common inet part).
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&on as *const libc::c_int).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
