//! What a clause receives: the store, a fixed clock, deterministic randomness, and tasks.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{BoxFuture, join_all};
use registry::store::{Context, Timestamp, Uid};

/// Keeps alive what a store depends on, for example a temporary directory.
pub type Guard = Box<dyn Any + Send>;

/// Starts a task at once. The returned future ends with the task, and panics if the task panicked.
pub type Spawn = fn(BoxFuture<'static, ()>) -> BoxFuture<'static, ()>;

/// The time at which every clause begins: 17 March 2030, so that the deadlines have not passed for a store that reads a
/// clock of its own.
const START: Timestamp = Timestamp(1_900_000_000_000);

/// The maximum time of a store call, in milliseconds.
const MAX_CALL_MILLIS: u64 = 60_000;

/// One run of one clause against one empty store. Clones share everything.
pub struct ContractTest<S: ?Sized> {
    /// The store.
    pub store: Arc<S>,
    elapsed: Arc<AtomicU64>,
    calls: Arc<AtomicU64>,
    spawn: Spawn,
    guard: Arc<Mutex<Guard>>,
}

impl<S: ?Sized> Clone for ContractTest<S> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            elapsed: self.elapsed.clone(),
            calls: self.calls.clone(),
            spawn: self.spawn,
            guard: self.guard.clone(),
        }
    }
}

impl<S: ?Sized> ContractTest<S> {
    /// A test of `store`, which `guard` keeps alive. `spawn` starts its tasks.
    pub fn new((store, guard): (Arc<S>, Guard), spawn: Spawn) -> Self {
        Self {
            store,
            elapsed: Arc::default(),
            calls: Arc::default(),
            spawn,
            guard: Arc::new(Mutex::new(guard)),
        }
    }

    /// The same test of another store.
    #[must_use]
    pub fn of<T: ?Sized>(&self, store: Arc<T>) -> ContractTest<T> {
        ContractTest {
            store,
            elapsed: self.elapsed.clone(),
            calls: self.calls.clone(),
            spawn: self.spawn,
            guard: self.guard.clone(),
        }
    }

    /// The present time. Only [`ContractTest::advance`] changes it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        START.plus_millis(self.elapsed.load(Ordering::SeqCst))
    }

    /// Advances the clock by `millis` milliseconds.
    pub fn advance(&self, millis: u64) {
        self.elapsed.fetch_add(millis, Ordering::SeqCst);
    }

    /// The context of one call, with a uid that no other call has.
    #[must_use]
    pub fn cx(&self) -> Context {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        // Spread over all 64 bits, like random numbers.
        let uid = Uid(call.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Context::internal(self.now(), MAX_CALL_MILLIS, uid)
    }

    /// Runs a future as a task of its own, and returns its result.
    pub fn task<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> BoxFuture<'static, T> {
        let result = Arc::new(Mutex::new(None));
        let writer = result.clone();
        let ended = (self.spawn)(Box::pin(async move {
            let value = work.await;
            *writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        }));
        Box::pin(async move {
            ended.await;
            let value = result.lock().unwrap_or_else(PoisonError::into_inner).take();
            value.expect("the task has ended")
        })
    }

    /// Runs `count` tasks concurrently, each made by `work` from its number, and returns their results in order.
    pub async fn together<T: Send + 'static, F>(&self, count: usize, mut work: impl FnMut(usize) -> F) -> Vec<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let tasks: Vec<_> = (0..count).map(|number| self.task(work(number))).collect();
        join_all(tasks).await
    }

    /// Runs two tasks concurrently. `swap` starts the second first, so that a loop runs both orders.
    pub async fn race<A: Send + 'static, B: Send + 'static>(
        &self,
        swap: bool,
        first: impl Future<Output = A> + Send + 'static,
        second: impl Future<Output = B> + Send + 'static,
    ) -> (A, B) {
        if swap {
            let second = self.task(second);
            let first = self.task(first);
            (first.await, second.await)
        } else {
            let first = self.task(first);
            let second = self.task(second);
            (first.await, second.await)
        }
    }
}
