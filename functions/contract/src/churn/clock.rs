//! Simulated time, which advances only as far as the running operations allow.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use async_trait::async_trait;
use registry::environment::Environment;
use registry::random::SplitMix64;
use registry::store::Timestamp;

pub(super) const MINUTE: u64 = 60_000;
pub(super) const HOUR: u64 = 60 * MINUTE;

/// A random number generator that a seed repeats.
#[derive(Clone, Debug)]
pub(super) struct Random(SplitMix64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0.bits()
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or(0)
    }

    pub(super) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub(super) fn choose<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        (!of.is_empty()).then(|| self.below(of.len())).and_then(|at| of.get(at))
    }
}

/// The clock of a churn.
#[derive(Debug)]
pub(super) struct Clock(Mutex<ClockState>);

#[derive(Debug)]
struct ClockState {
    now: Timestamp,
    /// The time up to which each running operation lets the clock advance.
    windows: BTreeMap<u64, Timestamp>,
    begun: u64,
    random: Random,
    /// Tasks that wait for the clock to advance.
    resting: Vec<Waker>,
}

/// While this exists, the clock does not advance beyond the given duration.
#[derive(Debug)]
pub(super) struct TimeWindow {
    clock: Arc<Clock>,
    number: u64,
}

impl Drop for TimeWindow {
    fn drop(&mut self) {
        let mut state = self.clock.lock();
        state.windows.remove(&self.number);
        state.wake();
    }
}

impl ClockState {
    fn wake(&mut self) {
        self.resting.drain(..).for_each(Waker::wake);
    }
}

impl Clock {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(ClockState {
            // In 2030, so that the deadlines have not passed for a store that reads a clock of its own.
            now: Timestamp(1_900_000_000_000),
            windows: BTreeMap::new(),
            begun: 0,
            random: Random::new(seed),
            resting: Vec::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, ClockState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an operation that takes at most `window` milliseconds.
    pub(super) fn window(self: &Arc<Self>, window: u64) -> TimeWindow {
        let mut state = self.lock();
        state.begun += 1;
        let (number, until) = (state.begun, state.now.plus_millis(window));
        state.windows.insert(number, until);
        TimeWindow {
            clock: self.clone(),
            number,
        }
    }

    /// Advances the clock by `millis` milliseconds, or as far as the running operations allow.
    pub(super) fn advance(&self, millis: u64) {
        let mut state = self.lock();
        let until = state.now.plus_millis(millis);
        let bound = state.windows.values().min().copied().unwrap_or(until);
        state.now = until.min(bound).max(state.now);
        state.wake();
    }

    /// Waits until `millis` milliseconds have passed, or a running operation stops the clock.
    pub(super) async fn rest(&self, millis: u64) {
        let until = self.lock().now.plus_millis(millis);
        poll_fn(|task| {
            let mut state = self.lock();
            if state.now >= until || state.windows.values().any(|bound| *bound <= state.now) {
                return Poll::Ready(());
            }
            state.resting.push(task.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

#[async_trait]
impl Environment for Clock {
    fn now(&self) -> Timestamp {
        self.lock().now
    }

    fn random(&self, bytes: &mut [u8]) {
        let mut state = self.lock();
        for chunk in bytes.chunks_mut(8) {
            let word = state.random.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    async fn sleep(&self, millis: u64) {
        // Other tasks run first: while an operation stops the clock, this wait ends at once, and a caller that sleeps
        // beside a store request would occupy the thread on which the answer arrives.
        let mut has_yielded = false;
        poll_fn(|task| {
            if has_yielded {
                return Poll::Ready(());
            }
            has_yielded = true;
            task.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        self.rest(millis).await;
    }
}
