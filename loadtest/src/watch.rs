//! Looking at another process from outside: CPU, memory, threads, files. Everything comes from
//! /proc; children are included; a process that is gone is simply no longer counted.

use std::fs;
use std::path::{Path, PathBuf};

/// One look at a set of processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Look {
    pub at_ns: u64,
    pub processes: u64,
    /// On-CPU time of all threads since each began.
    pub cpu_ns: u64,
    pub rss_bytes: u64,
    /// Private memory that is its own: anonymous and shared-memory pages, by proportional share.
    pub own_bytes: u64,
    pub threads: u64,
    pub files: u64,
}

/// Looks at `pids` and all their descendants. `thorough`: count files and weigh memory too, which
/// walks page tables and takes a while in large processes.
pub fn look(pids: &[u32], at_ns: u64, thorough: bool) -> Look {
    let mut look = Look { at_ns, ..Look::default() };
    let mut todo = pids.to_vec();
    let mut done = Vec::new();
    while let Some(pid) = todo.pop() {
        if done.contains(&pid) {
            continue;
        }
        done.push(pid);
        look_at(pid, &mut look, &mut todo, thorough);
    }
    look
}

/// Whether there is such a process at all.
pub fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}/task")).exists()
}

fn look_at(pid: u32, look: &mut Look, todo: &mut Vec<u32>, thorough: bool) {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return };
    look.processes += 1;
    let mut tables = Vec::new();
    for task in tasks.flatten() {
        let path = task.path();
        look.threads += 1;
        if let Ok(text) = fs::read_to_string(path.join("schedstat")) {
            look.cpu_ns += first_number(&text);
        }
        if let Ok(text) = fs::read_to_string(path.join("children")) {
            todo.extend(text.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
        }
        if thorough {
            let table = table(&path.join("fd"));
            // Threads that share a table show the same files: they count once.
            if !tables.contains(&table) {
                look.files += table.0;
                tables.push(table);
            }
        }
    }
    if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/status")) {
        look.rss_bytes += kilobytes(&text, "VmRSS:");
    }
    if thorough && let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
        look.own_bytes += kilobytes(&text, "Pss_Anon:") + kilobytes(&text, "Pss_Shmem:");
    }
}

/// How many files a table has, and what the highest few are: enough to know it again.
fn table(folder: &Path) -> (u64, Vec<(u32, Option<PathBuf>)>) {
    let Ok(list) = fs::read_dir(folder) else { return (0, Vec::new()) };
    let numbers = list.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    let highest = numbers.iter().take(4);
    let known = highest.map(|fd| (*fd, fs::read_link(folder.join(fd.to_string())).ok())).collect();
    (numbers.len() as u64, known)
}

fn first_number(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn kilobytes(text: &str, key: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(key)).map_or(0, |rest| first_number(rest) * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_at_oneself() {
        let pid = std::process::id();
        assert!(exists(pid));
        let look = look(&[pid, pid], 5, true);
        assert_eq!(look.processes, 1);
        assert!(look.threads >= 1 && look.files >= 3 && look.cpu_ns > 0);
        assert!(look.rss_bytes > 100_000 && look.own_bytes > 10_000);
        assert_eq!(super::look(&[u32::MAX], 0, true).processes, 0);
    }
}
