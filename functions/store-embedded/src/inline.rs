//! Which reads may run on the threads that run all requests.
//!
//! A read of what is in memory takes some microseconds, less than handing it to another thread and back. The same call
//! takes as long as the disk or another process likes when it must wait for one of them, and nobody can tell before.
//! So such calls are made at once by all worker threads of the runtime but one, and take nothing along if they are stuck:
//! the worker that stays free goes on with everything else. A call that comes while the others are occupied runs on a
//! thread that may block, and so does every call in a runtime of one worker.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;

/// How many calls run on worker threads now. One number for the process, because its stores share the threads.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Permission to run one call on this thread, until it is dropped.
#[derive(Debug)]
pub(crate) struct Inline(());

impl Inline {
    /// `None`: the call must run on a thread that may block.
    pub(crate) fn enter() -> Option<Self> {
        let runtime = Handle::try_current().ok()?;
        let limit = runtime.metrics().num_workers().saturating_sub(1);
        if RUNNING.fetch_add(1, Ordering::Relaxed) >= limit {
            RUNNING.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        // Two things would wait with this call. The task that this one has woken last stands in a slot from which no other
        // worker takes it; and if this worker was the one that waited for the network, no other begins to before it is
        // woken. The first of these two tasks pushes that task into the queue, the second one wakes another worker.
        // `block_in_place` does the same, for ten times the price.
        for _ in 0..2 {
            runtime.spawn(async {});
        }
        Some(Self(()))
    }
}

impl Drop for Inline {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The worker threads of this runtime; 1 outside of any.
pub(crate) fn workers() -> usize {
    Handle::try_current().map_or(1, |runtime| runtime.metrics().num_workers())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::Notify;

    use super::*;

    /// What a stuck call may not delay: a task that was woken just before it, and the network.
    #[test]
    fn a_stuck_call_takes_nothing_along() {
        const LIMIT: Duration = Duration::from_secs(10);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        for _ in 0..20 {
            let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
            let address = listener.local_addr().unwrap();
            let (woken, has_run) = mpsc::channel();
            let (answered, is_answered) = mpsc::channel();
            let wake = Arc::new(Notify::new());
            runtime.spawn({
                let wake = wake.clone();
                async move {
                    wake.notified().await;
                    woken.send(()).unwrap();
                }
            });
            let stuck = runtime.spawn(async move {
                let (mut first, _) = listener.accept().await.unwrap();
                let second = tokio::spawn(async move {
                    let (mut second, _) = listener.accept().await.unwrap();
                    let byte = second.read_u8().await.unwrap();
                    second.write_u8(byte).await.unwrap();
                });
                first.write_u8(1).await.unwrap();
                first.read_u8().await.unwrap();
                wake.notify_one();
                let _inline = loop {
                    // Other tests of this process may be inside.
                    match Inline::enter() {
                        Some(inline) => break inline,
                        None => tokio::task::yield_now().await,
                    }
                };
                assert!(Inline::enter().is_none(), "the other worker stays free");
                let others = (has_run.recv_timeout(LIMIT), is_answered.recv_timeout(LIMIT));
                drop(second);
                others
            });
            let mut first = TcpStream::connect(address).unwrap();
            first.read_exact(&mut [0]).unwrap();
            // Both workers wait for something to do.
            std::thread::sleep(Duration::from_millis(20));
            first.write_all(&[1]).unwrap();
            let mut second = TcpStream::connect(address).unwrap();
            second.set_read_timeout(Some(LIMIT)).unwrap();
            std::thread::sleep(Duration::from_millis(5));
            second.write_all(&[7]).unwrap();
            let mut answer = [0];
            second.read_exact(&mut answer).unwrap();
            answered.send(()).unwrap();
            assert_eq!(runtime.block_on(stuck).unwrap(), (Ok(()), Ok(())));
        }
    }

    #[test]
    fn a_runtime_of_one_worker_runs_nothing_inline() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert!(runtime.block_on(async { Inline::enter().is_none() }));
        assert!(Inline::enter().is_none(), "outside of any runtime");
    }
}
