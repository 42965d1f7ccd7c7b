//! Standard error, written to by a thread of its own, in batches.
//!
//! Without this thread, each request would cost a system call for its line, and a blocked log reader would block the
//! registry. Lines are collected for 2 milliseconds and are written together. If more than 4 MiB are waiting, further
//! lines are dropped and counted. A process that is killed loses the lines that are not written yet.
//!
//! `tracing-appender` has such a thread too. It bounds lines and not bytes, wakes its thread for each line, and does
//! not write how many were lost.

use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The time for which lines are gathered.
const GATHER: Duration = Duration::from_millis(2);
/// Maximum size of the gathered lines, in bytes: some seconds of a busy log.
const MAX_GATHERED: usize = 4 << 20;
/// Maximum time for which the process waits at its end for a reader of the log that reads nothing.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Gathers lines.
#[derive(Default)]
pub(crate) struct Sink {
    state: Mutex<SinkState>,
    filled: Condvar,
    written: Condvar,
}

#[derive(Default)]
struct SinkState {
    gathered: Vec<u8>,
    /// Number of lines that were dropped, because too many were gathered.
    lost: u64,
    /// The thread waits for a first line.
    idle: bool,
    /// The thread is writing what it took.
    writing: bool,
}

impl Sink {
    fn lock(&self) -> MutexGuard<'_, SinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line, which ends with a line feed. Never waits for the reader of the log.
    pub(crate) fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.gathered.len() + line.len() > MAX_GATHERED {
            state.lost += 1;
            return;
        }
        state.gathered.extend_from_slice(line);
        // Only the first line of a batch wakes the thread, because that takes as long as writing a line.
        if std::mem::take(&mut state.idle) {
            self.filled.notify_one();
        }
    }

    /// Writes the gathered lines to `writer`, without end. `lost` makes a line that tells how many lines were lost.
    pub(super) fn drain(&self, mut writer: impl Write, lost: impl Fn(u64) -> String) {
        let mut taken = Vec::new();
        loop {
            let mut state = self.lock();
            while state.gathered.is_empty() {
                state.idle = true;
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            drop(state);
            std::thread::sleep(GATHER);
            let mut state = self.lock();
            std::mem::swap(&mut taken, &mut state.gathered);
            let count = std::mem::take(&mut state.lost);
            state.writing = true;
            drop(state);
            if count > 0 {
                taken.extend(lost(count).into_bytes());
            }
            // If the log cannot be written, there is no other place to report it.
            let _ = writer.write_all(&taken).and_then(|()| writer.flush());
            taken.clear();
            self.lock().writing = false;
            self.written.notify_all();
        }
    }

    /// Waits until all lines are written, at most for [`FLUSH_TIMEOUT`].
    pub(crate) fn flush(&self) {
        let start = Instant::now();
        let mut state = self.lock();
        while !state.gathered.is_empty() || state.writing {
            let Some(left) = FLUSH_TIMEOUT.checked_sub(start.elapsed()) else {
                return;
            };
            state = self
                .written
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// Each write is a whole line, as the formatter of events makes them.
impl Write for &Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;

    use super::*;

    /// A reader that can stop reading: each write waits until the test takes it.
    struct Gate {
        out: Sender<Vec<u8>>,
        go: Receiver<()>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.out.send(bytes.to_vec()).unwrap();
            self.go.recv().map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stops_reading_delays_no_writer_and_gets_the_number_of_lost_lines() {
        let sink: &'static Sink = Box::leak(Box::default());
        let ((out, taken), (go, gate)) = (channel(), channel());
        thread::spawn(move || sink.drain(Gate { out, go: gate }, |count| format!("{count} lost\n")));
        let line = vec![b'x'; 1 << 10];
        sink.push(b"first\n");
        assert_eq!(taken.recv_timeout(FLUSH_TIMEOUT * 10).unwrap(), b"first\n");
        // The reader has stopped from here on.
        for _ in 0..MAX_GATHERED / line.len() + 7 {
            sink.push(&line);
        }
        assert_eq!(sink.lock().gathered.len(), MAX_GATHERED);
        go.send(()).unwrap();
        let rest = taken.recv_timeout(FLUSH_TIMEOUT * 10).unwrap();
        assert!(rest.ends_with(b"x7 lost\n"));
        assert_eq!(rest.len(), MAX_GATHERED + 7);
        go.send(()).unwrap();
        sink.flush();
        let state = sink.lock();
        assert!(state.gathered.is_empty() && !state.writing);
    }
}
