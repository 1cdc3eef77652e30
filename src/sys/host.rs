//! What this machine allows: probed once at start, before anything listens. Every missing ability
//! is named with its cause and the command that cures it; there is no slow path to fall back to.

use std::io;

use io_uring::{IoUring, opcode};

/// User and kernel bytes of one idle TCP pipe, measured on 6.18: two sockets, two polls, port
/// buckets, descriptor slots, and our own slab entry.
pub const PIPE_KERNEL_BYTES: u64 = 8_600;
/// See [`PIPE_KERNEL_BYTES`].
pub const PIPE_USER_BYTES: u64 = 400;
/// Descriptors a core needs for itself: listeners, ring, pipes, reserve.
const CORE_DESCRIPTORS: u64 = 256;

/// Descriptors of a table with a core in it that carry no connection. Each of `workers` cores is
/// born with what all of them share: a wake-up for each, and both ends of a pair for every two.
pub fn core_descriptors(workers: usize) -> u64 {
    CORE_DESCRIPTORS + shared_descriptors(workers)
}

/// Pipes that one of `workers` cores can hold by its descriptors, two for each; `limit` is that of
/// its table, which is its own or everybody's.
pub fn core_room(limit: u64, workers: usize, own_table: bool) -> u64 {
    let tables = if own_table { 1 } else { workers.max(1) as u64 };
    let left = limit.saturating_sub(shared_descriptors(workers)) / tables;
    left.saturating_sub(CORE_DESCRIPTORS) / 2
}

fn shared_descriptors(workers: usize) -> u64 {
    (workers as u64).saturating_mul(workers as u64)
}

/// Something the host lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What is missing, in a few words.
    pub ability: &'static str,
    /// Why, as far as can be told.
    pub cause: String,
    /// What to type or change.
    pub cure: String,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}; {}", self.ability, self.cause, self.cure)
    }
}

/// What the host gives.
#[derive(Debug, Clone)]
pub struct Host {
    /// Kernel release as `uname -r` prints it.
    pub kernel: String,
    /// Descriptors one table may hold.
    pub descriptors: u64,
    /// Whether each worker may have a table of its own.
    pub own_tables: bool,
    /// Memory that could be used now, in bytes: the machine's, or what a container's limit leaves.
    pub memory_available: u64,
    /// Whether a handshake begun with a listener that closes goes on with another of the same
    /// port; `None`: the kernel does not say.
    pub moves_handshakes: Option<bool>,
}

impl Host {
    /// Pipes all workers together can hold by their descriptors.
    pub fn connection_budget(&self, workers: usize) -> u64 {
        workers as u64 * core_room(self.descriptors, workers, self.own_tables)
    }

    /// Idle pipes that the memory available now has room for.
    pub fn memory_budget(&self) -> u64 {
        self.memory_available / (PIPE_KERNEL_BYTES + PIPE_USER_BYTES)
    }
}

/// Probes the host. Call after the descriptor limit was raised.
///
/// # Errors
/// Everything that is missing, at once.
pub fn probe() -> Result<Host, Vec<Missing>> {
    let kernel = kernel_release();
    let mut missing = Vec::new();
    if let Err(lack) = probe_ring(&kernel) {
        missing.push(lack);
    }
    if let Err(e) = super::pipe::KernelPipe::new() {
        missing.push(Missing {
            ability: "pipes for splice(2)",
            cause: format!("pipe2 failed: {e}"),
            cure: "raise the descriptor limit (ulimit -n)".into(),
        });
    }
    if !missing.is_empty() {
        return Err(missing);
    }
    let own_tables =
        std::thread::spawn(|| super::descriptors::unshare_table().is_ok()).join().unwrap_or(false);
    Ok(Host {
        kernel,
        descriptors: descriptor_limit(),
        own_tables,
        memory_available: available(),
        moves_handshakes: moves_handshakes(),
    })
}

fn probe_ring(kernel: &str) -> Result<(), Missing> {
    let ring: io::Result<IoUring> =
        IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_submit_all().build(8);
    let ring = ring.map_err(|e| refused(kernel, &e))?;
    let mut probe = io_uring::Probe::new();
    let lack = |what: &str| Missing {
        ability: "io_uring operations",
        cause: format!("kernel {kernel} lacks {what}"),
        cure: "run Linux 6.1 or newer".into(),
    };
    ring.submitter().register_probe(&mut probe).map_err(|_| lack("IORING_REGISTER_PROBE"))?;
    let needed = [
        (opcode::PollAdd::CODE, "POLL_ADD"),
        (opcode::RecvMulti::CODE, "RECV"),
        (opcode::Send::CODE, "SEND"),
        (opcode::SendMsg::CODE, "SENDMSG"),
        (opcode::AcceptMulti::CODE, "ACCEPT"),
        (opcode::Timeout::CODE, "TIMEOUT"),
        (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
    ];
    for (code, name) in needed {
        if !probe.is_supported(code) {
            return Err(lack(name));
        }
    }
    Ok(())
}

fn refused(kernel: &str, error: &io::Error) -> Missing {
    let ability = "io_uring";
    let (cause, cure) = match error.raw_os_error() {
        Some(libc::EPERM) => {
            let switch = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
            match switch.as_deref().map(str::trim) {
                Ok("2") => (
                    "kernel.io_uring_disabled is 2".into(),
                    "sysctl -w kernel.io_uring_disabled=0".into(),
                ),
                Ok("1") => (
                    "kernel.io_uring_disabled is 1 and this user is not in its group".into(),
                    "sysctl -w kernel.io_uring_disabled=0, or put this user's group in \
                     kernel.io_uring_group"
                        .into(),
                ),
                _ => (
                    "a seccomp or LSM policy forbids it".into(),
                    "allow io_uring_setup, io_uring_enter and io_uring_register in the \
                     container's seccomp profile"
                        .into(),
                ),
            }
        }
        Some(libc::ENOSYS) => {
            (format!("kernel {kernel} was built without it"), "run Linux 6.1 or newer".into())
        }
        Some(libc::EINVAL) => {
            (format!("kernel {kernel} is too old"), "run Linux 6.1 or newer".into())
        }
        Some(libc::ENOMEM) => (
            "the locked-memory limit is too small".to_string(),
            "ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit".to_string(),
        ),
        _ => (error.to_string(), "see dmesg for what the kernel refused".into()),
    };
    Missing { ability, cause, cure }
}

fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map(|release| release.trim().to_string())
        .unwrap_or_else(|_| "unknown".into())
}

/// Descriptors one table may hold.
pub fn descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills the struct.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur
}

fn available() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    let machine = kib.unwrap_or(0) * 1024;
    super::cgroup::memory_left().map_or(machine, |left| left.min(machine))
}

fn moves_handshakes() -> Option<bool> {
    let switch = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_migrate_req").ok()?;
    Some(switch.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_a_cause_and_a_cure() {
        for code in [libc::EPERM, libc::ENOSYS, libc::EINVAL, libc::ENOMEM, libc::EIO] {
            let missing = refused("6.0", &io::Error::from_raw_os_error(code));
            assert!(!missing.cause.is_empty() && !missing.cure.is_empty());
        }
    }

    #[test]
    fn the_budget_follows_from_tables_and_limit() {
        let host = Host {
            kernel: "6.18".into(),
            descriptors: 20_000,
            own_tables: true,
            memory_available: 9_000_000,
            moves_handshakes: None,
        };
        assert_eq!(host.connection_budget(8), 8 * (20_000 - 256 - 64) / 2);
        let shared = Host { own_tables: false, ..host.clone() };
        assert_eq!(shared.connection_budget(8), 8 * ((20_000 - 64) / 8 - 256) / 2);
        // What the cores share grows with their square.
        assert_eq!(core_descriptors(100), 10_256);
        assert_eq!(host.connection_budget(141), 0);
        assert_eq!(core_room(1 << 20, 1024, true), 0);
        assert_eq!(host.memory_budget(), 1_000);
    }
}
