//! Shares directory syncs between callers that need one at the same time.

use std::io;
use std::sync::{Condvar, Mutex, PoisonError};

/// Runs a sync for many callers. A caller needs a sync that *started* after its call, because a running sync may
/// already have passed the caller's entry. So at most one sync runs and at most one more is pending.
#[derive(Debug, Default)]
pub(super) struct DirectorySync {
    state: Mutex<SyncRuns>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct SyncRuns {
    started: u64,
    done: u64,
    /// The last run that failed. Callers of earlier runs who have not read their result yet get this error too. This is
    /// rare, and safe.
    failed: Option<(u64, i32)>,
}

impl DirectorySync {
    /// Returns when a sync that started after this call has ended. Blocks.
    pub(super) fn run(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = state.started + 1;
        while state.done < mine {
            if state.started > state.done {
                state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.started += 1;
            let run = state.started;
            drop(state);
            let outcome = sync();
            state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.done = run;
            if let Err(error) = outcome {
                state.failed = Some((run, error.raw_os_error().unwrap_or(0)));
            }
            self.ended.notify_all();
            break;
        }
        match state.failed {
            Some((run, code)) if run >= mine => Err(io::Error::from_raw_os_error(code)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier, mpsc};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_running_sync_does_not_serve_a_later_caller() {
        let sync = Arc::new(DirectorySync::default());
        let runs = Arc::new(AtomicUsize::new(0));
        let (entered_tx, entered) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let first = {
            let (sync, runs) = (Arc::clone(&sync), Arc::clone(&runs));
            std::thread::spawn(move || {
                sync.run(|| {
                    runs.fetch_add(1, Ordering::SeqCst);
                    entered_tx.send(()).unwrap();
                    gate.recv().unwrap();
                    Ok(())
                })
            })
        };
        entered.recv().unwrap();
        let later: Vec<_> = (0..8)
            .map(|_| {
                let (sync, runs) = (Arc::clone(&sync), Arc::clone(&runs));
                std::thread::spawn(move || {
                    sync.run(|| {
                        runs.fetch_add(1, Ordering::SeqCst);
                        Ok(())
                    })
                })
            })
            .collect();
        // The later callers must be waiting, not answered by the first run.
        std::thread::sleep(Duration::from_millis(50));
        assert!(later.iter().all(|thread| !thread.is_finished()));
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        go.send(()).unwrap();
        first.join().unwrap().unwrap();
        for thread in later {
            thread.join().unwrap().unwrap();
        }
        assert_eq!(runs.load(Ordering::SeqCst), 2, "all later callers share one run");
    }

    #[test]
    fn a_failed_run_fails_every_caller_it_served() {
        let sync = Arc::new(DirectorySync::default());
        let barrier = Arc::new(Barrier::new(2));
        let first = {
            let (sync, barrier) = (Arc::clone(&sync), Arc::clone(&barrier));
            std::thread::spawn(move || {
                sync.run(|| {
                    barrier.wait();
                    barrier.wait();
                    Ok(())
                })
            })
        };
        barrier.wait();
        let later: Vec<_> = (0..4)
            .map(|_| {
                let sync = Arc::clone(&sync);
                std::thread::spawn(move || sync.run(|| Err(io::Error::from_raw_os_error(5))))
            })
            .collect();
        std::thread::sleep(Duration::from_millis(50));
        barrier.wait();
        first.join().unwrap().unwrap();
        for thread in later {
            assert_eq!(thread.join().unwrap().unwrap_err().raw_os_error(), Some(5));
        }
        sync.run(|| Ok(())).unwrap();
    }
}
