//! What the control groups of this process leave it of the machine's memory. A container's limit is
//! no limit of the machine, and `/proc/meminfo` knows nothing of it.

use std::fs;
use std::path::{Path, PathBuf};

/// The two interfaces, each with its own names of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Memory that the tightest of the groups we are in leaves us, in bytes; `None`: none has a limit.
pub fn memory_left() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    folders(&groups).iter().filter_map(|(version, folder)| left_in(*version, folder)).min()
}

/// The groups memory is counted in, from our own up to the root. In a container the path may be the
/// host's, of which nothing but the root can be seen.
fn folders(groups: &str) -> Vec<(Version, PathBuf)> {
    let mut all = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (version, root) = match controllers {
            "" => (Version::Two, "/sys/fs/cgroup"),
            list if list.split(',').any(|it| it == "memory") => {
                (Version::One, "/sys/fs/cgroup/memory")
            }
            _ => continue,
        };
        let below = Path::new(path.trim_start_matches('/')).ancestors();
        all.extend(below.map(|group| (version, Path::new(root).join(group))));
    }
    all
}

fn left_in(version: Version, folder: &Path) -> Option<u64> {
    let (limit, used, cached) = match version {
        Version::One => ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
        Version::Two => ("memory.max", "memory.current", "inactive_file "),
    };
    let read = |name: &str| fs::read_to_string(folder.join(name));
    left(&read(limit).ok()?, &read(used).ok()?, &read("memory.stat").unwrap_or_default(), cached)
}

/// The limit without what is used; pages of files that nobody looks at are given up when asked for.
fn left(limit: &str, used: &str, stat: &str, cached: &str) -> Option<u64> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let cached = stat.lines().find_map(|line| number(line.strip_prefix(cached)?)).unwrap_or(0);
    // "max" is no number, and no limit.
    Some(number(limit)?.saturating_sub(number(used)?.saturating_sub(cached)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(groups: &str) -> Vec<(Version, String)> {
        let all = folders(groups).into_iter();
        all.map(|(version, folder)| {
            // The root joined with nothing ends with a slash.
            (version, folder.display().to_string().trim_end_matches('/').to_owned())
        })
        .collect()
    }

    #[test]
    fn every_group_up_to_the_root_is_looked_at() {
        use Version::{One, Two};
        let unified = shown("0::/system.slice/standpipe.service\n");
        let expected = [
            (Two, "/sys/fs/cgroup/system.slice/standpipe.service".to_owned()),
            (Two, "/sys/fs/cgroup/system.slice".to_owned()),
            (Two, "/sys/fs/cgroup".to_owned()),
        ];
        assert_eq!(unified, expected);
        let hybrid = shown("9:name=systemd:/\n5:cpu,memory:/docker/a:b\n1:cpuset:/x\n0::/\n");
        let expected = [
            (One, "/sys/fs/cgroup/memory/docker/a:b".to_owned()),
            (One, "/sys/fs/cgroup/memory/docker".to_owned()),
            (One, "/sys/fs/cgroup/memory".to_owned()),
            (Two, "/sys/fs/cgroup".to_owned()),
        ];
        assert_eq!(hybrid, expected);
        assert!(shown("nonsense\n4:memory\n").is_empty());
    }

    #[test]
    fn what_is_left_is_the_limit_without_what_cannot_be_given_up() {
        let stat = "anon 5\ninactive_file 300\nactive_file 7\ntotal_inactive_file 400\n";
        assert_eq!(left("1000\n", "600\n", stat, "inactive_file "), Some(700));
        assert_eq!(left("1000\n", "600\n", stat, "total_inactive_file "), Some(800));
        assert_eq!(left("1000\n", "600\n", "", "inactive_file "), Some(400));
        assert_eq!(left("1000\n", "2000\n", "", "inactive_file "), Some(0));
        assert_eq!(left("max\n", "600\n", stat, "inactive_file "), None);
        assert_eq!(left("", "", "", "inactive_file "), None);
    }
}
