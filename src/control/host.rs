//! What `/proc` says of this process: memory, threads and the descriptors of each core. Numbers
//! of one moment, read when somebody asks.

use std::fs;
use std::path::Path;

use crate::sys::process::page_bytes;

/// Name of a core's thread; the kernel keeps at most 15 bytes of it.
pub fn thread_name(core: usize) -> String {
    format!("core-{core}")
}

/// What this process uses, by `/proc`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Usage {
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub threads: u64,
    /// User and system time in hundredths of a second.
    pub cpu_ticks: u64,
    /// Open descriptors of control's own table.
    pub descriptors: u64,
    /// Core and the open descriptors of its table.
    pub core_descriptors: Vec<(usize, u64)>,
}

pub fn usage() -> Usage {
    let mut usage = Usage::default();
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = statm.split(' ').map(|n| n.trim().parse::<u64>().unwrap_or(0));
    usage.virtual_bytes = pages.next().unwrap_or(0) * page_bytes();
    usage.resident_bytes = pages.next().unwrap_or(0) * page_bytes();
    usage.cpu_ticks = fs::read_to_string("/proc/self/stat").map_or(0, |stat| cpu_ticks(&stat));
    usage.descriptors = descriptors(Path::new("/proc/self/fd"));
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return usage };
    for task in tasks.flatten().map(|entry| entry.path()) {
        usage.threads += 1;
        let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
        let core = name.trim().strip_prefix("core-").and_then(|n| n.parse().ok());
        if let Some(core) = core {
            usage.core_descriptors.push((core, descriptors(&task.join("fd"))));
        }
    }
    usage.core_descriptors.sort_unstable();
    usage
}

/// Since Linux 6.2 the folder's size is the count; before, it is 0 and the entries are counted.
fn descriptors(folder: &Path) -> u64 {
    match fs::metadata(folder).map(|data| data.len()) {
        Ok(0) | Err(_) => fs::read_dir(folder).map_or(0, |entries| entries.count() as u64),
        Ok(count) => count,
    }
}

/// The 14th and 15th fields of `/proc/self/stat`. The second may hold spaces and parentheses, so
/// counting starts after its last closing one.
fn cpu_ticks(stat: &str) -> u64 {
    let Some((_, rest)) = stat.rsplit_once(')') else { return 0 };
    let ticks = rest.split_whitespace().skip(11).take(2);
    ticks.filter_map(|field| field.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_threads() {
        let usage = usage();
        assert!(usage.resident_bytes > 0);
        assert!(usage.threads >= 1);
        assert!(usage.descriptors >= 3);
    }

    #[test]
    fn a_named_thread_is_found_as_a_core() {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let (runs, begun) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name(thread_name(77));
        let thread = thread.spawn(move || {
            // A thread names itself, so it has to run before it can be found.
            let _ = runs.send(());
            let _ = wait.recv();
        });
        let thread = thread.unwrap();
        begun.recv().unwrap();
        let found = usage().core_descriptors.iter().any(|(core, count)| *core == 77 && *count > 0);
        drop(done);
        let _ = thread.join();
        assert!(found);
    }

    #[test]
    fn processor_time_is_read_past_a_strange_name() {
        let stat = "1 (a b) c) S 1 1 1 0 -1 4 10 0 0 0 7 5 0 0 20 0 1 0";
        assert_eq!(cpu_ticks(stat), 12);
    }
}
