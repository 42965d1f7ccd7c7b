//! Decides which reads may run on the worker threads of the runtime.
//!
//! A read of cached data takes some microseconds. That is less than the cost of moving it to another thread and back.
//! But the same call can block for a long time when it must wait for the disk or for another process, and this cannot
//! be known before the call. So all worker threads except one may make such calls directly. If all of these calls
//! block, the remaining worker still runs all other tasks. A call that finds the other workers occupied waits for a
//! short time, because most calls end within it. Otherwise it runs on a thread that may block. In a runtime with one
//! worker, every call runs on a thread that may block.
//!
//! A blocked call could delay two other things:
//!
//! * The task that the caller has woken last. It is in tokio's LIFO slot of the worker, from which no other worker
//!   takes tasks. So before the call, a task that does nothing is woken; it moves the other task out of the slot.
//! * The network. If the caller's worker was the one that ran the I/O driver, no other worker runs it until it is
//!   woken. So a separate thread looks for calls that block for long, and wakes a worker.
//!
//! `block_in_place` does both, but costs more than the call.

use std::cell::RefCell;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::thread::Thread;
use std::time::Duration;

use tokio::runtime::{Handle, Id};

/// The time between two checks for blocked calls. A call is blocked when two checks in a row find it running. So
/// another worker is woken after 10 to 20 ms.
const CHECK_EVERY: Duration = Duration::from_millis(10);

/// After this many checks without a call, the thread sleeps until the next call.
const IDLE_CHECKS: u32 = 100;

/// The maximum number of times that a call lets other tasks run and tries again while the other workers are occupied.
const MAX_TRIES: u32 = 16;

/// The number of calls that run on worker threads now. The process has one number, because its stores share the
/// threads.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// The number of these calls that were already running at the previous check.
static BLOCKED: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static WORKER: RefCell<Option<InlineWorker>> = const { RefCell::new(None) };
}

/// A worker thread that makes calls, as the thread itself sees it.
struct InlineWorker {
    runtime: Id,
    limit: usize,
    calls: Arc<WorkerCalls>,
    filler: Arc<SlotFiller>,
}

/// The calls of a worker thread, as the thread that looks for blocked calls sees them.
struct WorkerCalls {
    /// The number of starts and ends of calls. It is odd while a call runs.
    edges: AtomicU64,
    runtime: Handle,
}

/// Permission to run one call on this thread. It ends when it is dropped.
pub(crate) struct Inline {
    calls: Arc<WorkerCalls>,
    /// Not `Send`, because the permission belongs to the thread.
    here: PhantomData<*const ()>,
}

impl Inline {
    /// Waits for a short time if the other workers are occupied. `None`: the call must run on a thread that may block.
    pub(crate) async fn enter() -> Option<Self> {
        for _ in 0..MAX_TRIES {
            let occupied = match Self::try_enter() {
                Ok(inline) => return Some(inline),
                Err(occupied) => occupied,
            };
            match occupied {
                Occupied::Briefly => {
                    // The running call may be waiting for this processor.
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
                other => other.insert(InlineWorker::new(&runtime)),
            };
            if RUNNING.fetch_add(1, Ordering::Relaxed) < worker.limit {
                if !worker.filler.fill() {
                    worker.filler = SlotFiller::spawn(&runtime);
                }
                return Ok(Arc::clone(&worker.calls));
            }
            RUNNING.fetch_sub(1, Ordering::Relaxed);
            let is_blocked = worker.limit == 0 || BLOCKED.load(Ordering::Relaxed) > 0;
            Err(if is_blocked {
                Occupied::Longer
            } else {
                Occupied::Briefly
            })
        })?;
        calls.edges.fetch_add(1, Ordering::SeqCst);
        BLOCKED_CALLS.wake();
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
    /// The other workers make calls that have just started.
    Briefly,
    /// A call is blocked, or the workers of this runtime may not make calls.
    Longer,
}

impl InlineWorker {
    fn new(runtime: &Handle) -> Self {
        let calls = Arc::new(WorkerCalls {
            edges: AtomicU64::new(0),
            runtime: runtime.clone(),
        });
        // Without the thread that looks for blocked calls, no worker may make a call.
        let is_checked = BLOCKED_CALLS.start_checking(&calls);
        Self {
            runtime: runtime.id(),
            limit: if is_checked { workers() - 1 } else { 0 },
            calls,
            filler: SlotFiller::new(),
        }
    }
}

/// A task that takes the slot for the last woken task of its worker each time it is woken. Each worker keeps one such
/// task, because creating a task for each call would make requests measurably slower.
struct SlotFiller {
    /// `true` from the time the task is woken until it has run. Only its worker writes this.
    is_due: AtomicBool,
    waker: OnceLock<Waker>,
}

impl SlotFiller {
    /// Creates a filler whose task has not started.
    fn new() -> Arc<Self> {
        Arc::new(Self {
            is_due: AtomicBool::new(true),
            waker: OnceLock::new(),
        })
    }

    /// Creates a filler whose task is in the slot.
    fn spawn(runtime: &Handle) -> Arc<Self> {
        let filler = Self::new();
        let task = Arc::clone(&filler);
        runtime.spawn(poll_fn(move |context| {
            if !task.is_here() {
                return Poll::Ready(());
            }
            task.waker.get_or_init(|| context.waker().clone());
            task.is_due.store(false, Ordering::Relaxed);
            Poll::Pending
        }));
        filler
    }

    /// Whether this task belongs to the worker that runs it. A task that another worker has taken over ends. Otherwise
    /// it could be running there when it is woken here, and would not get into the slot.
    fn is_here(self: &Arc<Self>) -> bool {
        WORKER.with_borrow(|worker| worker.as_ref().is_some_and(|worker| Arc::ptr_eq(&worker.filler, self)))
    }

    /// Puts the task into the slot. `false`: the task has not run since it was last woken. It may then be in another
    /// queue, so that the worker needs a new task.
    fn fill(&self) -> bool {
        match self.waker.get() {
            Some(waker) if !self.is_due.swap(true, Ordering::Relaxed) => {
                waker.wake_by_ref();
                true
            }
            _ => false,
        }
    }
}

/// The thread that looks for blocked calls.
static BLOCKED_CALLS: BlockedCallWatch = BlockedCallWatch {
    thread: OnceLock::new(),
    is_awake: AtomicBool::new(true),
    checked: Mutex::new(Vec::new()),
};

struct BlockedCallWatch {
    thread: OnceLock<Option<Thread>>,
    is_awake: AtomicBool,
    checked: Mutex<Vec<CheckedCalls>>,
}

/// The calls of one worker, and the number of starts and ends at the previous check.
struct CheckedCalls {
    calls: Weak<WorkerCalls>,
    edges: u64,
}

impl BlockedCallWatch {
    /// Starts to check these calls. `false`: the thread cannot be started.
    fn start_checking(&'static self, calls: &Arc<WorkerCalls>) -> bool {
        let thread = self.thread.get_or_init(|| {
            let thread = std::thread::Builder::new().name("blocked-calls".to_owned());
            let thread = thread.spawn(|| self.run());
            thread.ok().map(|running| running.thread().clone())
        });
        self.lock().push(CheckedCalls {
            calls: Arc::downgrade(calls),
            edges: 0,
        });
        thread.is_some()
    }

    /// Wakes the thread. Called when a call has started.
    fn wake(&self) {
        if !self.is_awake.load(Ordering::SeqCst)
            && !self.is_awake.swap(true, Ordering::SeqCst)
            && let Some(Some(thread)) = self.thread.get()
        {
            thread.unpark();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<CheckedCalls>> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut idle = 0;
        loop {
            std::thread::sleep(CHECK_EVERY);
            let (has_changed, blocked) = self.check();
            BLOCKED.store(blocked.len(), Ordering::Relaxed);
            for calls in &blocked {
                calls.runtime.spawn(async {});
            }
            if has_changed || !blocked.is_empty() {
                idle = 0;
                continue;
            }
            idle += 1;
            if idle < IDLE_CHECKS {
                continue;
            }
            idle = 0;
            // A call that starts now is either seen by this check, or sees that it must wake this thread.
            self.is_awake.store(false, Ordering::SeqCst);
            let (has_changed, _) = self.check();
            if !has_changed {
                std::thread::park();
            }
            self.is_awake.store(true, Ordering::SeqCst);
        }
    }

    /// Whether any call has started or ended since the previous check, and the calls that were already running then and
    /// still run.
    fn check(&self) -> (bool, Vec<Arc<WorkerCalls>>) {
        let mut has_changed = false;
        let mut blocked = Vec::new();
        self.lock().retain_mut(|checked| {
            let Some(calls) = checked.calls.upgrade() else {
                return false;
            };
            let edges = calls.edges.load(Ordering::SeqCst);
            if edges != std::mem::replace(&mut checked.edges, edges) {
                has_changed = true;
            } else if edges % 2 == 1 {
                blocked.push(calls);
            }
            true
        });
        (has_changed, blocked)
    }
}

/// The number of worker threads of this runtime; 1 outside a runtime.
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

    /// Repeats, because other tests of this process may be making calls.
    fn enter() -> Inline {
        loop {
            match Inline::try_enter() {
                Ok(inline) => return inline,
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    /// A blocked call must not delay a task that was woken just before it, and must not delay the network.
    #[test]
    fn a_blocked_call_delays_no_other_task() {
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
            let blocked_task = runtime.spawn(async move {
                let (mut first, _) = listener.accept().await.unwrap();
                let second = tokio::spawn(async move {
                    let (mut second, _) = listener.accept().await.unwrap();
                    let byte = second.read_u8().await.unwrap();
                    second.write_u8(byte).await.unwrap();
                });
                first.write_u8(1).await.unwrap();
                first.read_u8().await.unwrap();
                // The slot's content for the previous call comes after the task that is woken now.
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
            // Both workers become idle.
            std::thread::sleep(Duration::from_millis(20));
            first.write_all(&[1]).unwrap();
            let mut second = TcpStream::connect(address).unwrap();
            second.set_read_timeout(Some(LIMIT)).unwrap();
            std::thread::sleep(Duration::from_millis(5));
            second.write_all(&[7]).unwrap();
            let mut answer = [0];
            second.read_exact(&mut answer).unwrap();
            answered.send(()).unwrap();
            assert_eq!(runtime.block_on(blocked_task).unwrap(), (Ok(()), Ok(())));
        }
    }

    /// The number of slot-filling tasks equals the number of workers, even when workers have taken over tasks of
    /// others.
    #[test]
    fn the_number_of_slot_filling_tasks_is_bounded() {
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
                        // Fills the slot after the call, and lets other tasks run.
                        tokio::spawn(async {}).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for task in running {
            runtime.block_on(task).unwrap();
        }
        // Tasks that another worker has taken over end the next time they run. No event reports this.
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
