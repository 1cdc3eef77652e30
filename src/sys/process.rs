//! What a process does before it has threads, and to whole threads: signal masks, descriptor
//! limits, eventfds, socket pairs, and the clock of the system. It never touches a connection.

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A descriptor that lives as long as the process and is known to every thread by its number.
/// It is a plain number on purpose: once a core has its own table, only the number is common.
pub type RawFd = i32;

/// Soft and hard limit of open descriptors in one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLimit {
    pub soft: u64,
    pub hard: u64,
}

/// The limits of open descriptors as they are.
pub fn file_limit() -> io::Result<FileLimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit that lives through the call.
    let read = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    done(read)?;
    Ok(FileLimit { soft: limit.rlim_cur, hard: limit.rlim_max })
}

/// Raises the soft limit of open descriptors to the hard one and says what it is now.
pub fn raise_file_limit() -> io::Result<FileLimit> {
    let FileLimit { soft, hard } = file_limit()?;
    if soft < hard {
        let limit = libc::rlimit { rlim_cur: hard, rlim_max: hard };
        // SAFETY: the kernel only reads `limit`, which lives through the call.
        let raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
        done(raised)?;
    }
    Ok(FileLimit { soft: hard, hard })
}

/// A new eventfd, close-on-exec and non-blocking. It must be made before any core has a table of
/// its own, and is never closed: a number closed here could be a stranger's socket there.
pub fn eventfd() -> io::Result<RawFd> {
    // SAFETY: no pointers are involved.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    done(fd)
}

/// Adds one to an eventfd: a thread that waits on it wakes. A counter that is full wakes as well,
/// so a refused write is no fault.
pub fn wake(eventfd: RawFd) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: eight readable bytes, as an eventfd asks; the number was made by `eventfd()`.
    let _ = unsafe { libc::write(eventfd, one.as_ptr().cast(), one.len()) };
}

/// Two ends of a Unix sequenced-packet pair, non-blocking and close-on-exec. Made before any
/// core has its own table, never closed; descriptors travel over it from core to core.
pub fn socket_pair() -> io::Result<(RawFd, RawFd)> {
    let mut ends = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: `ends` has room for the two numbers the kernel writes.
    let made = unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) };
    done(made)?;
    Ok((ends[0], ends[1]))
}

/// The signal mask a thread had, to be put back.
pub struct SignalMask(libc::sigset_t);

/// Blocks every signal in this thread and in those it starts from now on, so that a handler
/// never runs where descriptor numbers mean something else.
pub fn block_signals() -> io::Result<SignalMask> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises `all`; pthread_sigmask reads it and initialises `before`.
    let error = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr())
    };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    // SAFETY: the call above succeeded and filled it.
    Ok(SignalMask(unsafe { before.assume_init() }))
}

/// Puts a mask back in this thread; signals that waited arrive now.
pub fn restore_signals(mask: &SignalMask) -> io::Result<()> {
    // SAFETY: the mask was filled by the kernel; no old mask is asked for.
    let error = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &mask.0, std::ptr::null_mut()) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    Ok(())
}

/// Has a program that is about to be started end with the thread that starts it, however that
/// one ends.
pub fn die_with_parent(command: &mut Command) {
    let last_wish = || {
        // SAFETY: prctl with this option takes one number and touches no memory of ours.
        let set = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        done(set).map(|_| ())
    };
    // SAFETY: between fork and exec only that one system call is made: no lock, no allocation.
    unsafe { command.pre_exec(last_wish) };
    // The terminal's Ctrl-C is for the parent, which ends its child in its own time.
    command.process_group(0);
}

/// Asks a process to end (SIGTERM).
pub fn terminate(process: u32) -> io::Result<()> {
    let process = libc::pid_t::try_from(process).map_err(io::Error::other)?;
    // SAFETY: kill takes two numbers.
    let sent = unsafe { libc::kill(process, libc::SIGTERM) };
    done(sent).map(|_| ())
}

/// Columns and rows of the terminal that standard output is, if it is one and says so.
pub fn terminal_size() -> Option<(usize, usize)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` is a valid winsize that lives through the call.
    let asked = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &mut size) };
    let is_known = asked == 0 && size.ws_col > 0 && size.ws_row > 0;
    is_known.then(|| (usize::from(size.ws_col), usize::from(size.ws_row)))
}

/// Microseconds of CLOCK_MONOTONIC, the clock that a service manager compares ours with.
pub fn monotonic_microseconds() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec that lives through the call.
    let read = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    debug_assert_eq!(read, 0, "every kernel has this clock");
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}

/// Bytes of a memory page, for the counts `/proc` gives in pages.
pub fn page_bytes() -> u64 {
    // SAFETY: sysconf takes a number and returns one.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096)
}

fn done(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_limit_is_raised_to_the_hard_one() {
        let limit = raise_file_limit().unwrap();
        assert_eq!(limit.soft, limit.hard);
    }

    #[test]
    fn a_full_eventfd_can_still_be_woken() {
        let fd = eventfd().unwrap();
        for _ in 0..1000 {
            wake(fd);
        }
    }

    #[test]
    fn a_blocked_mask_is_put_back() {
        let mask = block_signals().unwrap();
        restore_signals(&mask).unwrap();
    }

    #[test]
    fn a_child_is_asked_to_end() {
        use std::os::unix::process::ExitStatusExt;
        let mut command = Command::new("sleep");
        command.arg("60");
        die_with_parent(&mut command);
        let mut child = command.spawn().unwrap();
        terminate(child.id()).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
    }

    #[test]
    fn the_clock_goes_on() {
        let before = monotonic_microseconds();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(monotonic_microseconds() >= before + 2_000);
    }

    #[test]
    fn a_pair_has_two_ends() {
        let (a, b) = socket_pair().unwrap();
        assert_ne!(a, b);
    }
}
