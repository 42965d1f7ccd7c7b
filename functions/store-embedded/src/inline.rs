//! Which reads may run on the threads that run all requests.
//!
//! A read of what is in memory takes some microseconds, less than handing it to another thread and back. The same call
//! takes as long as the disk or another process likes when it must wait for one of them, and nobody can tell before.
//! So such calls are made at once by all worker threads of the runtime but one, and take nothing along if they are stuck:
//! the worker that stays free goes on with everything else. A call that comes while the others are occupied waits for a
//! moment, since it is mostly over by then, and runs on a thread that may block if not. So does every call in a runtime of
//! one worker.
//!
//! Two things would wait with a call that is stuck. The task that the caller has woken last stands in a slot from which no
//! other worker takes it: a task that does nothing is put there before the call, and pushes it out. And if the caller's
//! worker was the one that waited for the network, no other begins to before it is woken: a thread looks for calls that
//! last, and wakes one. (`block_in_place` does both, and costs more than the call.)

use std::cell::RefCell;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::thread::Thread;
use std::time::Duration;

use tokio::runtime::{Handle, Id};

/// The time between two looks for calls that last: one that both have seen does. So another worker is woken after 10 to
/// 20 ms.
const LOOK: Duration = Duration::from_millis(10);

/// After so many looks without any call the thread sleeps until the next call.
const IDLE_LOOKS: u32 = 100;

/// How often a call that finds the other workers occupied lets other tasks run and tries again.
const TRIES: u32 = 16;

/// How many calls run on worker threads now. One number for the process, because its stores share the threads.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// How many of them were running already at the last look.
static LASTING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

/// A thread that makes calls, as it knows itself.
struct Worker {
    runtime: Id,
    limit: usize,
    calls: Arc<Calls>,
    pusher: Arc<Pusher>,
}

/// The same, as the thread that looks for calls that last sees it.
struct Calls {
    /// How many calls have begun and ended: odd while one runs.
    edges: AtomicU64,
    runtime: Handle,
}

/// Permission to run one call on this thread, until it is dropped.
pub(crate) struct Inline {
    calls: Arc<Calls>,
    /// It belongs to the thread.
    here: PhantomData<*const ()>,
}

impl Inline {
    /// Waits for a moment, if need be. `None`: the call must run on a thread that may block.
    pub(crate) async fn enter() -> Option<Self> {
        for _ in 0..TRIES {
            let occupied = match Self::try_enter() {
                Ok(inline) => return Some(inline),
                Err(occupied) => occupied,
            };
            match occupied {
                Occupied::ForNow => {
                    // The call may wait for this processor.
                    std::thread::yield_now();
                    tokio::task::yield_now().await;
                }
                Occupied::Longer => break,
            }
        }
        None
    }

    fn try_enter() -> Result<Self, Occupied> {
        let runtime = Handle::try_current().map_err(|_| Occupied::Longer)?;
        let calls = WORKER.with_borrow_mut(|worker| {
            let worker = match worker {
                Some(worker) if worker.runtime == runtime.id() => worker,
                other => other.insert(Worker::new(&runtime)),
            };
            if RUNNING.fetch_add(1, Ordering::Relaxed) < worker.limit {
                if !worker.pusher.push() {
                    worker.pusher = Pusher::spawn(&runtime);
                }
                return Ok(Arc::clone(&worker.calls));
            }
            RUNNING.fetch_sub(1, Ordering::Relaxed);
            let lasts = worker.limit == 0 || LASTING.load(Ordering::Relaxed) > 0;
            Err(if lasts { Occupied::Longer } else { Occupied::ForNow })
        })?;
        calls.edges.fetch_add(1, Ordering::SeqCst);
        LOOKER.wake();
        Ok(Self {
            calls,
            here: PhantomData,
        })
    }
}

impl Drop for Inline {
    fn drop(&mut self) {
        self.calls.edges.fetch_add(1, Ordering::SeqCst);
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a call cannot begin on this thread.
enum Occupied {
    /// The other workers are making calls that have just begun.
    ForNow,
    /// Some call lasts, or none is made on this runtime's workers.
    Longer,
}

impl Worker {
    fn new(runtime: &Handle) -> Self {
        let calls = Arc::new(Calls {
            edges: AtomicU64::new(0),
            runtime: runtime.clone(),
        });
        // Without the thread that looks for those that last, none is made.
        let is_seen = LOOKER.looks_at(&calls);
        Self {
            runtime: runtime.id(),
            limit: if is_seen { workers() - 1 } else { 0 },
            calls,
            pusher: Pusher::new(),
        }
    }
}

/// A task that takes the slot of this worker for the task that was woken last, whenever it is woken itself. A worker keeps
/// one, since to make a task for each call would show in what a request costs.
struct Pusher {
    /// From when it is woken until it has run. Written by its worker alone.
    is_due: AtomicBool,
    waker: OnceLock<Waker>,
}

impl Pusher {
    /// One whose task is not there yet.
    fn new() -> Arc<Self> {
        Arc::new(Self {
            is_due: AtomicBool::new(true),
            waker: OnceLock::new(),
        })
    }

    /// Puts a new one into the slot.
    fn spawn(runtime: &Handle) -> Arc<Self> {
        let pusher = Self::new();
        let task = Arc::clone(&pusher);
        runtime.spawn(poll_fn(move |context| {
            if !task.is_here() {
                return Poll::Ready(());
            }
            task.waker.get_or_init(|| context.waker().clone());
            task.is_due.store(false, Ordering::Relaxed);
            Poll::Pending
        }));
        pusher
    }

    /// Whether this is the task of the worker that runs it. One that another worker has taken over ends: it could be
    /// running there when it is woken here, and would not come into the slot.
    fn is_here(self: &Arc<Self>) -> bool {
        WORKER.with_borrow(|worker| worker.as_ref().is_some_and(|worker| Arc::ptr_eq(&worker.pusher, self)))
    }

    /// Puts it into the slot. `false`: it has not run since it was woken, so that it may wait elsewhere, and another one is
    /// needed.
    fn push(&self) -> bool {
        match self.waker.get() {
            Some(waker) if !self.is_due.swap(true, Ordering::Relaxed) => {
                waker.wake_by_ref();
                true
            }
            _ => false,
        }
    }
}

/// The thread that looks for calls that last.
static LOOKER: Looker = Looker {
    thread: OnceLock::new(),
    is_awake: AtomicBool::new(true),
    looked_at: Mutex::new(Vec::new()),
};

struct Looker {
    thread: OnceLock<Option<Thread>>,
    is_awake: AtomicBool,
    looked_at: Mutex<Vec<LookedAt>>,
}

/// A thread's calls, and how many edges there were at the last look.
struct LookedAt {
    calls: Weak<Calls>,
    edges: u64,
}

impl Looker {
    /// From now on these calls are looked at. `false`: there can be no thread that does so.
    fn looks_at(&'static self, calls: &Arc<Calls>) -> bool {
        let thread = self.thread.get_or_init(|| {
            let thread = std::thread::Builder::new().name("stuck-reads".to_owned());
            let thread = thread.spawn(|| self.run());
            thread.ok().map(|running| running.thread().clone())
        });
        self.lock().push(LookedAt {
            calls: Arc::downgrade(calls),
            edges: 0,
        });
        thread.is_some()
    }

    /// Called when a call has begun.
    fn wake(&self) {
        if !self.is_awake.load(Ordering::SeqCst)
            && !self.is_awake.swap(true, Ordering::SeqCst)
            && let Some(Some(thread)) = self.thread.get()
        {
            thread.unpark();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<LookedAt>> {
        self.looked_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut idle = 0;
        loop {
            std::thread::sleep(LOOK);
            let (has_changed, lasting) = self.look();
            LASTING.store(lasting.len(), Ordering::Relaxed);
            for calls in &lasting {
                calls.runtime.spawn(async {});
            }
            if has_changed || !lasting.is_empty() {
                idle = 0;
                continue;
            }
            idle += 1;
            if idle < IDLE_LOOKS {
                continue;
            }
            idle = 0;
            // A call that begins now either is seen by this look, or sees that it has to wake this thread.
            self.is_awake.store(false, Ordering::SeqCst);
            let (has_changed, _) = self.look();
            if !has_changed {
                std::thread::park();
            }
            self.is_awake.store(true, Ordering::SeqCst);
        }
    }

    /// Whether any call has begun or ended since the last look, and which were running already then and still do.
    fn look(&self) -> (bool, Vec<Arc<Calls>>) {
        let mut has_changed = false;
        let mut lasting = Vec::new();
        self.lock().retain_mut(|looked_at| {
            let Some(calls) = looked_at.calls.upgrade() else {
                return false;
            };
            let edges = calls.edges.load(Ordering::SeqCst);
            if edges != std::mem::replace(&mut looked_at.edges, edges) {
                has_changed = true;
            } else if edges % 2 == 1 {
                lasting.push(calls);
            }
            true
        });
        (has_changed, lasting)
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

    /// Other tests of this process may be inside.
    fn enter() -> Inline {
        loop {
            match Inline::try_enter() {
                Ok(inline) => return inline,
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    /// What a stuck call may not delay: a task that was woken just before it, and the network.
    #[test]
    fn a_stuck_call_takes_nothing_along() {
        const LIMIT: Duration = Duration::from_secs(10);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        for round in 0..20 {
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
                // What was in the slot for the call before is behind the task that is woken now.
                drop((round % 2 == 1).then(enter));
                wake.notify_one();
                let _inline = enter();
                assert!(Inline::try_enter().is_err(), "the other worker stays free");
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

    /// The tasks that push others out of the slot are as many as the workers, also when other workers have taken some over.
    #[test]
    fn calls_leave_no_tasks_behind() {
        const TASKS: usize = 64;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build()
            .unwrap();
        let running: Vec<_> = (0..TASKS)
            .map(|_| {
                runtime.spawn(async {
                    for _ in 0..200 {
                        drop(Inline::enter().await);
                        // Fills the slot behind it, and lets others go on.
                        tokio::spawn(async {}).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for task in running {
            runtime.block_on(task).unwrap();
        }
        // Those that were taken over end when they run next, which nothing here waits for.
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while runtime.metrics().num_alive_tasks() > 4 && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(runtime.metrics().num_alive_tasks() <= 4);
    }

    #[test]
    fn a_runtime_of_one_worker_runs_nothing_inline() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert!(runtime.block_on(Inline::enter()).is_none());
        assert!(
            futures_util::FutureExt::now_or_never(Inline::enter())
                .unwrap()
                .is_none()
        );
    }
}
