//! Time that flies, as far as those who are under way allow it.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use async_trait::async_trait;

use registry::environment::Environment;
use registry::store::Timestamp;

pub(super) const MINUTE: u64 = 60_000;
pub(super) const HOUR: u64 = 60 * MINUTE;

/// A generator of numbers that a seed repeats.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
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

/// The time of a churn.
#[derive(Debug)]
pub(super) struct Clock(Mutex<State>);

#[derive(Debug)]
struct State {
    now: Timestamp,
    /// Until when time may pass while each of these is under way.
    flights: BTreeMap<u64, Timestamp>,
    begun: u64,
    random: Random,
    /// Those who wait for time to pass.
    resting: Vec<Waker>,
}

/// While this is held, time passes by no more than was said.
#[derive(Debug)]
pub(super) struct Flight {
    clock: Arc<Clock>,
    number: u64,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut state = self.clock.lock();
        state.flights.remove(&self.number);
        state.wake();
    }
}

impl State {
    fn wake(&mut self) {
        self.resting.drain(..).for_each(Waker::wake);
    }
}

impl Clock {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(State {
            // 2030, so that a store that looks at a clock of its own does not find its deadlines passed.
            now: Timestamp(1_900_000_000_000),
            flights: BTreeMap::new(),
            begun: 0,
            random: Random::new(seed),
            resting: Vec::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something begins that takes at most `window` milliseconds.
    pub(super) fn flight(self: &Arc<Self>, window: u64) -> Flight {
        let mut state = self.lock();
        state.begun += 1;
        let (number, until) = (state.begun, state.now.plus_millis(window));
        state.flights.insert(number, until);
        Flight {
            clock: self.clone(),
            number,
        }
    }

    /// Lets `millis` milliseconds pass, or as many as those who are under way allow.
    pub(super) fn pass(&self, millis: u64) {
        let mut state = self.lock();
        let until = state.now.plus_millis(millis);
        let bound = state.flights.values().min().copied().unwrap_or(until);
        state.now = until.min(bound).max(state.now);
        state.wake();
    }

    /// Waits until `millis` milliseconds have passed, or time stands still because of somebody who is under way.
    pub(super) async fn rest(&self, millis: u64) {
        let until = self.lock().now.plus_millis(millis);
        poll_fn(|task| {
            let mut state = self.lock();
            if state.now >= until || state.flights.values().any(|bound| *bound <= state.now) {
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
        // Others get their turn first: while an operation holds the clock, resting ends at once, and whoever sleeps beside
        // a request to a store would keep the thread on which that request's answer arrives.
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
