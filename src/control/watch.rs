//! Notices that the configuration, or a file it names, has changed. It only says so; it reads
//! nothing but names, sizes and times.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Editors and deployment tools write in several steps: a change counts once it has been quiet
/// for this long.
const QUIET: Duration = Duration::from_millis(200);

/// What tells two states of a file apart without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Print {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

/// How files looked at one moment; one that is absent has no entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prints(HashMap<PathBuf, Print>);

impl Prints {
    pub fn take(files: &BTreeSet<PathBuf>) -> Self {
        let print = |file: &PathBuf| {
            let data = std::fs::metadata(file).ok()?;
            let modified = (data.mtime(), data.mtime_nsec());
            Some((file.clone(), Print { inode: data.ino(), bytes: data.len(), modified }))
        };
        Self(files.iter().filter_map(print).collect())
    }

    /// The same files as before where they were known, the others as they are now.
    fn completed(mut self, files: &BTreeSet<PathBuf>) -> Self {
        let now = Self::take(files);
        self.0.retain(|file, _| files.contains(file));
        for (file, print) in now.0 {
            self.0.entry(file).or_insert(print);
        }
        self
    }
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watch {
    task: JoinHandle<()>,
}

impl Watch {
    /// Sends `()` whenever one of `files` no longer looks as in `before`. A host without a free
    /// inotify instance gives an error; everything else works without watching.
    pub fn start(
        files: BTreeSet<PathBuf>,
        before: Prints,
        changed: mpsc::Sender<()>,
    ) -> notify::Result<Self> {
        let (events, mut heard) = mpsc::unbounded_channel();
        let mut watcher: RecommendedWatcher =
            notify::recommended_watcher(move |_: notify::Result<notify::Event>| {
                let _ = events.send(());
            })?;
        // Folders rather than files: a file that is replaced by renaming is another file.
        let folders: BTreeSet<&Path> = files.iter().filter_map(|file| folder(file)).collect();
        for folder in folders {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        let mut seen = before.completed(&files);
        let task = tokio::spawn(async move {
            let _watcher = watcher;
            loop {
                let now = Prints::take(&files);
                if now != seen {
                    seen = now;
                    if changed.send(()).await.is_err() {
                        return;
                    }
                }
                if heard.recv().await.is_none() {
                    return;
                }
                settled(&files).await;
                // (Other files of the folder may be written all the time.)
                while heard.try_recv().is_ok() {}
            }
        });
        Ok(Self { task })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until the files look alike for as long as a change has to be quiet.
async fn settled(files: &BTreeSet<PathBuf>) {
    let mut before = Prints::take(files);
    loop {
        tokio::time::sleep(QUIET).await;
        let now = Prints::take(files);
        if now == before {
            return;
        }
        before = now;
    }
}

fn folder(file: &Path) -> Option<&Path> {
    let folder = file.parent()?;
    Some(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(changes: &mut mpsc::Receiver<()>, within: Duration) -> bool {
        tokio::time::timeout(within, changes.recv()).await.is_ok_and(|told| told.is_some())
    }

    #[tokio::test]
    async fn a_file_replaced_by_renaming_is_noticed_and_reading_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("edge.toml");
        std::fs::write(&file, "a").unwrap();
        let files = BTreeSet::from([file.clone()]);
        let (sender, mut changes) = mpsc::channel(4);
        let _watch = Watch::start(files.clone(), Prints::take(&files), sender).unwrap();

        std::fs::read(&file).unwrap();
        std::fs::write(folder.path().join("other"), "x").unwrap();
        assert!(!told(&mut changes, Duration::from_millis(600)).await);

        std::fs::write(folder.path().join("new"), "bb").unwrap();
        std::fs::rename(folder.path().join("new"), &file).unwrap();
        assert!(told(&mut changes, Duration::from_secs(5)).await);
        assert!(!told(&mut changes, Duration::from_millis(600)).await);
    }

    #[tokio::test]
    async fn a_busy_folder_hides_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("edge.toml");
        std::fs::write(&file, "a").unwrap();
        let files = BTreeSet::from([file.clone()]);
        let (sender, mut changes) = mpsc::channel(4);
        let _watch = Watch::start(files.clone(), Prints::take(&files), sender).unwrap();
        let log = folder.path().join("edge.log");
        let busy = tokio::spawn(async move {
            for line in 0.. {
                std::fs::write(&log, format!("{line}")).unwrap();
                tokio::time::sleep(QUIET / 10).await;
            }
        });
        tokio::time::sleep(QUIET).await;
        std::fs::write(&file, "longer").unwrap();
        assert!(told(&mut changes, Duration::from_secs(10)).await);
        busy.abort();
    }

    #[tokio::test]
    async fn a_change_from_before_the_watch_began_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("edge.toml");
        std::fs::write(&file, "a").unwrap();
        let files = BTreeSet::from([file.clone()]);
        let before = Prints::take(&files);
        std::fs::write(&file, "longer").unwrap();
        let (sender, mut changes) = mpsc::channel(4);
        let _watch = Watch::start(files, before, sender).unwrap();
        assert!(told(&mut changes, Duration::from_secs(5)).await);
    }
}
