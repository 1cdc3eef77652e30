//! The last step of a log line. A thread of its own writes to standard error, so that a reader who
//! is slow, has stopped reading or has gone holds nobody up: lines that find no room are dropped
//! and counted. It knows nothing of what a line says.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that may wait: a burst of some 20,000 lines.
const WAITING_MAX: usize = 4 << 20;

/// Bytes written at once, where so many wait.
const BATCH: usize = 32 << 10;

/// Before a write that would have had to wait is tried again: another process that shares the
/// stream has made it non-blocking.
const AGAIN: Duration = Duration::from_millis(10);

/// Where log lines go. Cloned freely; no call waits but [`Lines::flush`].
#[derive(Debug, Clone)]
pub struct Lines {
    queue: Sender<Entry>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: AtomicUsize,
    lost: AtomicU64,
}

#[derive(Debug)]
enum Entry {
    Line(Vec<u8>),
    /// Tells that everything before it was written, or given up.
    Flush(Sender<()>),
}

impl Lines {
    /// Begins to write to `out`. The thread inherits the caller's signal mask.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn begin(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, entries) = crossbeam_channel::unbounded();
        let state = Arc::new(State::default());
        let lines = Self { queue, state: Arc::clone(&state) };
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(out, &entries, &state))?;
        Ok(lines)
    }

    /// Lines that were dropped for want of room, or that `out` refused.
    pub fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::Relaxed)
    }

    /// Waits until every line so far was written or given up, but no longer than `within`.
    pub fn flush(&self, within: Duration) {
        let until = Instant::now() + within;
        let (done, wait) = crossbeam_channel::bounded(1);
        if self.queue.send(Entry::Flush(done)).is_ok() {
            let _ = wait.recv_deadline(until);
        }
    }

    fn put(&self, line: &[u8]) {
        let waiting = self.state.waiting.fetch_add(line.len(), Ordering::Relaxed);
        if waiting + line.len() > WAITING_MAX {
            self.state.waiting.fetch_sub(line.len(), Ordering::Relaxed);
            self.state.lost.fetch_add(1, Ordering::Relaxed);
        } else {
            let _ = self.queue.send(Entry::Line(line.to_vec()));
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> &'a Lines {
        self
    }
}

/// Never an error: nobody could be told of it.
impl Write for &Lines {
    /// One whole line, as the subscriber hands it over.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(mut out: impl Write, entries: &Receiver<Entry>, state: &State) {
    let mut batch = Vec::new();
    while let Ok(first) = entries.recv() {
        let mut next = Some(first);
        let mut told = None;
        while let Some(entry) = next {
            match entry {
                Entry::Line(line) => batch.extend_from_slice(&line),
                Entry::Flush(done) => {
                    told = Some(done);
                    break;
                }
            }
            next = if batch.len() < BATCH { entries.try_recv().ok() } else { None };
        }
        let refused = write_batch(&mut out, &batch);
        state.lost.fetch_add(refused, Ordering::Relaxed);
        state.waiting.fetch_sub(batch.len(), Ordering::Relaxed);
        batch.clear();
        if let Some(done) = told {
            let _ = done.send(());
        }
    }
}

/// How many lines of it were refused.
fn write_batch(out: &mut impl Write, mut batch: &[u8]) -> u64 {
    while !batch.is_empty() {
        match out.write(batch) {
            Ok(written @ 1..) => batch = &batch[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(AGAIN),
            Ok(0) | Err(_) => break,
        }
    }
    memchr::memchr_iter(b'\n', batch).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Takes a few bytes at a time, and is not always in the mood.
    #[derive(Clone, Default)]
    struct Moody(Arc<Mutex<(Vec<u8>, u32)>>);

    impl Write for Moody {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut inner = self.0.lock().unwrap();
            inner.1 += 1;
            match inner.1 % 3 {
                0 => Err(ErrorKind::WouldBlock.into()),
                1 => Err(ErrorKind::Interrupted.into()),
                _ => {
                    let count = bytes.len().min(7);
                    inner.0.extend_from_slice(&bytes[..count]);
                    Ok(count)
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_arrive_whole_and_in_order() {
        let out = Moody::default();
        let lines = Lines::begin(out.clone()).unwrap();
        let expected: String = (0..50).map(|number| format!("line {number}\n")).collect();
        expected.split_inclusive('\n').for_each(|line| lines.put(line.as_bytes()));
        lines.flush(PATIENCE);
        assert_eq!(String::from_utf8_lossy(&out.0.lock().unwrap().0), expected);
        assert_eq!(lines.lost(), 0);
    }

    #[test]
    fn what_is_refused_is_counted_line_by_line() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::begin(Broken).unwrap();
        (0..9).for_each(|_| lines.put(b"nobody reads this\n"));
        lines.flush(PATIENCE);
        assert_eq!(lines.lost(), 9);
    }

    #[test]
    fn where_nobody_reads_lines_are_dropped_and_nobody_waits() {
        let (reader, writer) = io::pipe().unwrap();
        let lines = Lines::begin(writer).unwrap();
        let line = [&[b'x'; 4095][..], b"\n"].concat();
        for _ in 0..2 * WAITING_MAX / line.len() {
            lines.put(&line);
        }
        let lost = lines.lost();
        assert!(lost >= (WAITING_MAX / line.len()) as u64 - 100, "{lost}");
        // It gives up, for nothing else can be done.
        lines.flush(Duration::from_millis(50));
        drop(reader);
        lines.flush(PATIENCE);
        assert!(lines.lost() > lost);
        assert_eq!(lines.state.waiting.load(Ordering::Relaxed), 0);
    }
}
