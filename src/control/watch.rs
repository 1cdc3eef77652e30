//! Notices that the configuration, or a file it names, has changed: at once where the kernel tells
//! of it (inotify), and by looking every few seconds where it does not. It only says so; it reads
//! nothing but names, sizes and times.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{ErrorKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Editors and deployment tools write in several steps: a change counts once it has been quiet
/// for this long.
const QUIET: Duration = Duration::from_millis(200);

/// How often files are looked at though nothing was heard. What happens behind a symbolic link,
/// and to a folder that was made anew, is heard of by nobody.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// What tells two states of a file apart without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Print {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    /// Of what is not content: a file that could not be read and now can has changed too.
    altered: (i64, i64),
}

impl Print {
    fn of(file: &Path) -> Option<Self> {
        let data = std::fs::metadata(file).ok()?;
        Some(Self {
            inode: data.ino(),
            bytes: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
            altered: (data.ctime(), data.ctime_nsec()),
        })
    }
}

/// How files looked when each was first looked at; `None` if one was absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prints(HashMap<PathBuf, Option<Print>>);

impl Prints {
    pub fn take(files: &BTreeSet<PathBuf>) -> Self {
        Self(files.iter().map(|file| (file.clone(), Print::of(file))).collect())
    }

    /// Adds one more file as it is now, unless it is known already.
    pub fn look(&mut self, file: &Path) {
        self.0.entry(file.to_owned()).or_insert_with(|| Print::of(file));
    }

    /// Every file that was looked at.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.0.keys()
    }

    /// The same files as before where they were known, the others as they are now.
    fn completed(mut self, files: &BTreeSet<PathBuf>) -> Self {
        self.0.retain(|file, _| files.contains(file));
        files.iter().for_each(|file| self.look(file));
        self
    }
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watch {
    task: JoinHandle<()>,
    /// Why changes are found by looking only, if so: a host may have no inotify instance left.
    pub deaf: Option<notify::Error>,
}

impl Watch {
    /// Sends `()` whenever one of `files` no longer looks as in `before`.
    pub fn start(files: BTreeSet<PathBuf>, before: Prints, changed: mpsc::Sender<()>) -> Self {
        let (events, mut heard) = mpsc::unbounded_channel();
        let (watcher, deaf) = listen(&files, events.clone());
        let mut seen = before.completed(&files);
        let task = tokio::spawn(async move {
            let _watcher = watcher;
            // Without a watcher nothing is heard; it is not over for that.
            let _events = events;
            if Prints::take(&files) != seen {
                settled(&files).await;
            }
            loop {
                let now = Prints::take(&files);
                if now != seen {
                    seen = now;
                    if changed.send(()).await.is_err() {
                        return;
                    }
                }
                while timeout(LOOK_EVERY, heard.recv()).await.is_err()
                    && Prints::take(&files) == seen
                {}
                settled(&files).await;
                // (Other files of the folder may be written all the time.)
                while heard.try_recv().is_ok() {}
            }
        });
        Self { task, deaf }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Hears of what happens in the files' folders, as long as the watcher lives; and why some of it is
/// not heard of.
fn listen(
    files: &BTreeSet<PathBuf>,
    events: mpsc::UnboundedSender<()>,
) -> (Option<RecommendedWatcher>, Option<notify::Error>) {
    let tell = move |_: notify::Result<notify::Event>| {
        let _ = events.send(());
    };
    let mut watcher = match notify::recommended_watcher(tell) {
        Ok(watcher) => watcher,
        Err(error) => return (None, Some(error)),
    };
    let mut deaf = None;
    // Folders rather than files: a file that is replaced by renaming is another file.
    let folders: BTreeSet<&Path> = files.iter().filter_map(|file| folder(file)).collect();
    for folder in folders {
        match watcher.watch(folder, RecursiveMode::NonRecursive) {
            // A file that is missing with its folder was told of by whoever wanted to read it.
            Err(error) if !matches!(error.kind, ErrorKind::PathNotFound) => deaf = Some(error),
            _ => {}
        }
    }
    (Some(watcher), deaf)
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
        let _watch = Watch::start(files.clone(), Prints::take(&files), sender);

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
        let _watch = Watch::start(files.clone(), Prints::take(&files), sender);
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
    async fn a_link_that_points_elsewhere_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        for release in ["1", "2"] {
            std::fs::create_dir(place(release)).unwrap();
            std::fs::write(place(release).join("edge.toml"), release).unwrap();
        }
        std::os::unix::fs::symlink("1", place("current")).unwrap();
        let files = BTreeSet::from([place("current").join("edge.toml")]);
        let (sender, mut changes) = mpsc::channel(4);
        let _watch = Watch::start(files.clone(), Prints::take(&files), sender);
        std::os::unix::fs::symlink("2", place("next")).unwrap();
        std::fs::rename(place("next"), place("current")).unwrap();
        assert!(told(&mut changes, LOOK_EVERY * 3).await);
        // The folder that is heard of is still the first one.
        std::fs::write(place("2").join("edge.toml"), "longer").unwrap();
        assert!(told(&mut changes, LOOK_EVERY * 3).await);
        assert!(!told(&mut changes, LOOK_EVERY * 2).await);
    }

    #[tokio::test]
    async fn a_folder_that_was_made_anew_is_watched_on() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("conf");
        let file = inner.join("edge.toml");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(&file, "a").unwrap();
        let files = BTreeSet::from([file.clone()]);
        let (sender, mut changes) = mpsc::channel(4);
        let _watch = Watch::start(files.clone(), Prints::take(&files), sender);
        std::fs::remove_dir_all(&inner).unwrap();
        assert!(told(&mut changes, LOOK_EVERY * 3).await);
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(&file, "a").unwrap();
        assert!(told(&mut changes, LOOK_EVERY * 3).await);
    }

    #[tokio::test]
    async fn a_file_of_a_folder_that_is_not_there_yet_is_noticed_when_it_comes() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("tls");
        let file = inner.join("cert.pem");
        let files = BTreeSet::from([file.clone()]);
        let (sender, mut changes) = mpsc::channel(4);
        let watch = Watch::start(files.clone(), Prints::take(&files), sender);
        assert!(watch.deaf.is_none(), "{:?}", watch.deaf);
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(&file, "a").unwrap();
        assert!(told(&mut changes, LOOK_EVERY * 3).await);
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
        let _watch = Watch::start(files, before, sender);
        assert!(told(&mut changes, Duration::from_secs(5)).await);
    }
}
