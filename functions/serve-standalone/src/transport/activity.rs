//! What a connection is doing. Its socket, its exchanges and the limit of connections share this state.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use registry::budget::ArrivalRate;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::requests::RequestSlot;

/// The speed of a connection is measured over the last one or two of these windows.
const WINDOW: Duration = Duration::from_secs(5);

/// After this number of consecutive requests without a slot, a connection accepts no more requests.
const MAX_REFUSED: u32 = 64;

/// Maximum time between two checks of the answers of a connection.
pub(crate) const LOOK: Duration = Duration::from_millis(ArrivalRate::MEASURED_MS);

/// The exchanges of one connection, and their progress.
#[derive(Debug)]
pub(crate) struct Activity {
    born: Instant,
    open: AtomicU32,
    ended: AtomicU32,
    /// When the last exchange ended, in milliseconds after `born`.
    idle_since: AtomicU64,
    multiplexed: AtomicBool,
    linger: AtomicBool,
    speed: Speed,
    /// The answers in progress that have bodies.
    transfers: Mutex<Vec<Weak<dyn AnswerInFlight>>>,
    /// Number of requests without a slot since the last one with a slot.
    refused: AtomicU32,
    unwelcome: Signal,
    dismissed: Signal,
    cut_off: Signal,
}

/// A notification that a connection gets once.
#[derive(Debug, Default)]
struct Signal {
    given: AtomicBool,
    changed: Notify,
}

impl Signal {
    fn give(&self) {
        self.given.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Completes when the signal was given. Only the task of the connection waits for it.
    async fn given(&self) {
        while !self.given.load(Ordering::Acquire) {
            self.changed.notified().await;
        }
    }
}

impl Default for Activity {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts the bytes that were read from and written to the socket. Only the task of the connection counts.
#[derive(Debug, Default)]
struct Speed {
    /// When the current window began, in milliseconds after the connection was opened.
    began: AtomicU64,
    now: AtomicU64,
    before: AtomicU64,
    last: AtomicU64,
}

/// The progress of a connection, by which a connection to close is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Requests in progress.
    pub(crate) open: u32,
    /// Requests that have ended.
    pub(crate) served: u32,
    /// Whether an answer waits until its client reads more.
    pub(crate) waits_for_reader: bool,
    /// When the connection was opened.
    pub(crate) born: Instant,
    /// When the last byte was read or written.
    pub(crate) moved: Instant,
    /// Recent bytes per second, in both directions.
    pub(crate) speed: u64,
}

/// Whether a client reads its answer.
pub(super) enum ReaderState {
    /// It reads, or there is nothing to read. The next check is due then.
    Good(Instant),
    /// It does not read.
    Stalled,
    /// It reads, but too slowly while others wait for the memory that the answer holds.
    GivesWay,
}

/// An answer whose body is being sent.
pub(super) trait AnswerInFlight: fmt::Debug + Send + Sync {
    /// Bytes that the HTTP library has and that are not written yet.
    fn in_flight(&self) -> u64;

    /// Whether the client has read enough within `stall`, of the bytes that there were; and, if `may_give_way`, whether the
    /// answer must end for others.
    fn reader_state(&self, now: Instant, stall: Duration, may_give_way: bool) -> ReaderState;

    /// Ends only this answer, by a reset of its stream, if that is possible. When the HTTP library has the whole answer, only
    /// the end of the connection ends it.
    fn cut(&self) -> bool;
}

/// What to do about answers that their clients do not read.
pub(crate) enum StallCheck {
    /// Check again at this time, or before.
    LookAgain(Instant),
    /// End the connection, because an answer that is not read cannot be ended alone.
    End,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self {
            born: Instant::now(),
            open: AtomicU32::new(0),
            ended: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
            multiplexed: AtomicBool::new(false),
            linger: AtomicBool::new(false),
            speed: Speed::default(),
            transfers: Mutex::default(),
            refused: AtomicU32::new(0),
            unwelcome: Signal::default(),
            dismissed: Signal::default(),
            cut_off: Signal::default(),
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn at(&self, millis: u64) -> Instant {
        self.born + Duration::from_millis(millis)
    }

    /// When the connection was opened.
    pub(crate) fn born(&self) -> Instant {
        self.born
    }

    /// The number of exchanges in progress. An exchange lasts from a request's head until the last byte of its answer was
    /// written.
    pub(crate) fn open(&self) -> u32 {
        self.open.load(Ordering::Acquire)
    }

    /// The number of exchanges that have ended, modulo 2^32.
    pub(crate) fn served(&self) -> u32 {
        self.ended.load(Ordering::Acquire)
    }

    /// When the last exchange ended.
    pub(super) fn idle_since(&self) -> Instant {
        self.at(self.idle_since.load(Ordering::Acquire))
    }

    /// Notes that the last bytes were written now.
    pub(super) fn flushed(&self) {
        self.idle_since.fetch_max(self.millis(), Ordering::AcqRel);
    }

    /// Whether this is HTTP/2.
    pub(crate) fn is_multiplexed(&self) -> bool {
        self.multiplexed.load(Ordering::Relaxed)
    }

    pub(crate) fn set_multiplexed(&self, multiplexed: bool) {
        self.multiplexed.store(multiplexed, Ordering::Relaxed);
    }

    /// Makes the connection linger when it is closed: its client still sends a body that the server does not read, and a reset
    /// could destroy the answer before the client has read it.
    pub(crate) fn linger(&self) {
        self.linger.store(true, Ordering::Release);
    }

    pub(super) fn lingers(&self) -> bool {
        self.linger.load(Ordering::Acquire)
    }

    /// Counts bytes that were read or written.
    pub(super) fn moved(&self, bytes: usize) {
        let now = self.millis();
        let speed = &self.speed;
        let window = u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX);
        let age = now.saturating_sub(speed.began.load(Ordering::Relaxed));
        if age >= window {
            let before = speed.now.swap(0, Ordering::Relaxed);
            let before = if age >= 2 * window { 0 } else { before };
            speed.before.store(before, Ordering::Relaxed);
            speed.began.store(now, Ordering::Relaxed);
        }
        speed.now.fetch_add(bytes as u64, Ordering::Relaxed);
        speed.last.store(now, Ordering::Relaxed);
    }

    /// The progress of the connection.
    pub(crate) fn pace(&self) -> Pace {
        let speed = &self.speed;
        let age = self.millis().saturating_sub(speed.began.load(Ordering::Relaxed));
        let (now, before) = (speed.now.load(Ordering::Relaxed), speed.before.load(Ordering::Relaxed));
        // Over at most two windows, and not less than the age, so that a new connection does not look slow.
        let span = (age + u64::try_from(WINDOW.as_millis()).unwrap_or_default())
            .min(self.millis())
            .max(1000);
        Pace {
            open: self.open(),
            served: self.served(),
            waits_for_reader: self
                .transfers()
                .iter()
                .filter_map(Weak::upgrade)
                .any(|transfer| transfer.in_flight() > 0),
            born: self.born,
            moved: self.at(speed.last.load(Ordering::Relaxed)),
            speed: (now + before).saturating_mul(1000) / span,
        }
    }

    fn transfers(&self) -> MutexGuard<'_, Vec<Weak<dyn AnswerInFlight>>> {
        self.transfers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches over an answer until its last byte is written.
    pub(super) fn watch(&self, transfer: &Weak<dyn AnswerInFlight>) {
        let mut transfers = self.transfers();
        transfers.retain(|transfer| transfer.strong_count() > 0);
        transfers.push(transfer.clone());
    }

    /// Ends the answers that made too little progress for `stall`, or took longer than allowed. Also ends one of the slow
    /// answers whose memory others wait for.
    pub(crate) fn end_stalled(&self, stall: Duration) -> StallCheck {
        let now = Instant::now();
        let mut next = now + stall.min(LOOK);
        let mut has_given_way = false;
        // Answers are ended without the lock, because their end takes it again.
        let transfers: Vec<_> = self.transfers().iter().filter_map(Weak::upgrade).collect();
        for transfer in transfers {
            match transfer.reader_state(now, stall, !has_given_way) {
                ReaderState::Good(until) => next = next.min(until),
                ReaderState::Stalled if transfer.cut() => {}
                ReaderState::GivesWay if transfer.cut() => {
                    has_given_way = true;
                    // Further answers may have to end.
                    next = next.min(now + Duration::from_millis(ArrivalRate::ASK_EVERY_MS));
                }
                // It cannot end alone, and the other exchanges of the connection make progress.
                ReaderState::GivesWay if self.pace().speed >= ArrivalRate::LEAST_RATE => {}
                ReaderState::Stalled | ReaderState::GivesWay => return StallCheck::End,
            }
        }
        StallCheck::LookAgain(next)
    }

    /// Tells the connection to end now, because others need its slot.
    pub(crate) fn dismiss(&self) {
        self.dismissed.give();
    }

    /// Completes when the connection must end.
    pub(crate) async fn dismissed(&self) {
        self.dismissed.given().await;
    }

    /// Tells a dismissed connection to end without a graceful close.
    pub(crate) fn cut_off(&self) {
        self.cut_off.give();
    }

    /// Completes when the connection must end without a graceful close.
    pub(crate) async fn is_cut_off(&self) {
        self.cut_off.given().await;
    }

    /// Notes that a request has got a slot.
    pub(crate) fn found_slot(&self) {
        self.refused.store(0, Ordering::Relaxed);
    }

    /// Notes that a request has got no slot. Refusals take time too, so the connection ends after too many of them.
    pub(crate) fn found_no_slot(&self) {
        if self.refused.fetch_add(1, Ordering::Relaxed) + 1 == MAX_REFUSED {
            self.unwelcome.give();
        }
    }

    /// Completes when the connection must end after its exchanges in progress.
    pub(crate) async fn is_unwelcome(&self) {
        self.unwelcome.given().await;
    }

    /// Begins an exchange, which lasts until the value is dropped.
    pub(crate) fn begin(self: Arc<Self>) -> Exchange {
        self.open.fetch_add(1, Ordering::AcqRel);
        Exchange {
            activity: self,
            slot: None,
        }
    }
}

/// One request and its response, in progress.
#[derive(Debug)]
pub(crate) struct Exchange {
    activity: Arc<Activity>,
    slot: Option<Arc<RequestSlot>>,
}

impl Exchange {
    /// The activity of the connection.
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Keeps the slot of the request until the exchange has ended.
    pub(crate) fn occupying(mut self, slot: Arc<RequestSlot>) -> Self {
        self.slot = Some(slot);
        self
    }

    /// The slot of its request.
    pub(crate) fn slot(&self) -> Option<Arc<RequestSlot>> {
        self.slot.clone()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let activity = &self.activity;
        activity.idle_since.store(activity.millis(), Ordering::Release);
        activity.ended.fetch_add(1, Ordering::AcqRel);
        activity.open.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_speed_is_that_of_the_last_seconds() {
        let activity = Activity::new();
        assert_eq!(activity.pace().speed, 0);
        activity.moved(50_000);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(activity.pace().speed, 25_000);
        for _ in 0..10 {
            tokio::time::advance(Duration::from_secs(1)).await;
            activity.moved(1_000);
        }
        let slow = activity.pace().speed;
        assert!((500..=1_500).contains(&slow), "{slow}");
        tokio::time::advance(Duration::from_mins(10)).await;
        let pace = activity.pace();
        assert!(pace.speed < 100, "{pace:?}");
        assert_eq!(pace.moved.elapsed(), Duration::from_mins(10));
    }

    #[tokio::test]
    async fn a_connection_is_unwelcome_after_many_refusals_in_a_row() {
        let activity = Activity::new();
        let is_unwelcome = || activity.is_unwelcome().now_or_never().is_some();
        for _ in 1..MAX_REFUSED {
            activity.found_no_slot();
        }
        activity.found_slot();
        for _ in 1..MAX_REFUSED {
            activity.found_no_slot();
        }
        assert!(!is_unwelcome());
        activity.found_no_slot();
        assert!(is_unwelcome());
    }

    #[tokio::test]
    async fn a_connection_is_dismissed_before_and_while_it_waits_for_that() {
        let activity = Arc::new(Activity::new());
        let waiting = tokio::spawn({
            let activity = activity.clone();
            async move { activity.dismissed().await }
        });
        tokio::task::yield_now().await;
        activity.dismiss();
        waiting.await.expect("it is notified");
        activity.dismissed().await;
    }
}
