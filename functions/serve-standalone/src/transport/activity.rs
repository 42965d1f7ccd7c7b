//! What a connection is doing, shared between its socket, the exchanges on it, and whoever decides which connection
//! has to leave.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use registry::budget::ArrivalRate;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::requests::RequestPlace;

/// A connection's speed is told over the last one to two of these.
const WINDOW: Duration = Duration::from_secs(5);

/// After so many requests in a row for which there was no place a connection takes no more.
const MAX_REFUSED: u32 = 64;

/// The longest time between two looks at the answers of a connection.
pub(crate) const LOOK: Duration = Duration::from_millis(ArrivalRate::MEASURED_MS);

/// The exchanges of one connection, and how they get on.
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
    /// The answers that have bodies.
    transfers: Mutex<Vec<Weak<dyn AnswerInFlight>>>,
    /// Requests that found no place, since the last one that did.
    refused: AtomicU32,
    unwelcome: Signal,
    dismissed: Signal,
    cut_off: Signal,
}

/// Something that a connection is told once.
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

    /// Completes when it was given. Only the connection's own task waits for it.
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

/// Bytes that were read from and written to the socket. Only the connection's own task counts.
#[derive(Debug, Default)]
struct Speed {
    /// When the present window began, in milliseconds after the connection was opened.
    began: AtomicU64,
    now: AtomicU64,
    before: AtomicU64,
    last: AtomicU64,
}

/// How a connection gets on, for whoever has to choose between connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Requests in progress.
    pub(crate) open: u32,
    /// Requests that have ended.
    pub(crate) served: u32,
    /// Whether some answer waits for its client to read on.
    pub(crate) waits_for_reader: bool,
    /// Since when the connection exists.
    pub(crate) born: Instant,
    /// When the last byte was read or written.
    pub(crate) moved: Instant,
    /// Bytes per second of late, in both directions.
    pub(crate) speed: u64,
}

/// Whether a client reads.
pub(super) enum Standing {
    /// It does, or need not; not to be asked again before then.
    Good(Instant),
    /// It does not.
    Stalled,
    /// It does, and too slowly while others wait for the memory that the answer holds.
    GivesWay,
}

/// An answer whose body is being sent.
pub(super) trait AnswerInFlight: fmt::Debug + Send + Sync {
    /// Bytes that the library has and that are not written.
    fn in_flight(&self) -> u64;

    /// Whether the client has read enough within `stall`, of what there was to read; and whether the answer has to give
    /// way, if `may_give_way`.
    fn standing(&self, now: Instant, stall: Duration, may_give_way: bool) -> Standing;

    /// Ends the answer, and nothing else of its connection, if that is possible: by a reset of its stream. Once the
    /// library has all of the answer, only the end of the connection ends it.
    fn cut(&self) -> bool;
}

/// What is to be done about answers that nobody reads.
pub(crate) enum Verdict {
    /// Look again then, or at any time before.
    LookAgain(Instant),
    /// An answer that is not read cannot be ended alone.
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

    /// How many exchanges are in progress: from a request's head until the last byte of its answer was written.
    pub(crate) fn open(&self) -> u32 {
        self.open.load(Ordering::Acquire)
    }

    /// How many exchanges have ended, modulo 2^32.
    pub(crate) fn served(&self) -> u32 {
        self.ended.load(Ordering::Acquire)
    }

    /// When the last exchange ended.
    pub(super) fn idle_since(&self) -> Instant {
        self.at(self.idle_since.load(Ordering::Acquire))
    }

    /// The last bytes have been written only now.
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

    /// Asks that the connection, when it is closed, waits for the client to notice: it is still sending a body that
    /// nobody reads, and a reset could take the answer from it before it was read.
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

    /// How the connection gets on.
    pub(crate) fn pace(&self) -> Pace {
        let speed = &self.speed;
        let age = self.millis().saturating_sub(speed.began.load(Ordering::Relaxed));
        let (now, before) = (speed.now.load(Ordering::Relaxed), speed.before.load(Ordering::Relaxed));
        // At most two windows are told of; a young connection is not taken for a slow one.
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

    /// Ends the answers that have got on too little for `stall`, or took longer than they may; and one of those that have to
    /// give way to others, who wait for the memory that it holds.
    pub(crate) fn end_stalled(&self, stall: Duration) -> Verdict {
        let now = Instant::now();
        let mut next = now + stall.min(LOOK);
        let mut has_given_way = false;
        // Cut outside of the lock: what ends then looks here again.
        let transfers: Vec<_> = self.transfers().iter().filter_map(Weak::upgrade).collect();
        for transfer in transfers {
            match transfer.standing(now, stall, !has_given_way) {
                Standing::Good(until) => next = next.min(until),
                Standing::Stalled if transfer.cut() => {}
                Standing::GivesWay if transfer.cut() => {
                    has_given_way = true;
                    // Others may have to follow.
                    next = next.min(now + Duration::from_millis(ArrivalRate::ASK_EVERY_MS));
                }
                // It cannot end alone, and the rest of the connection gets on.
                Standing::GivesWay if self.pace().speed >= ArrivalRate::LEAST_RATE => {}
                Standing::Stalled | Standing::GivesWay => return Verdict::End,
            }
        }
        Verdict::LookAgain(next)
    }

    /// Tells the connection to end now: others need its place more.
    pub(crate) fn dismiss(&self) {
        self.dismissed.give();
    }

    /// Completes when the connection has to end.
    pub(crate) async fn dismissed(&self) {
        self.dismissed.given().await;
    }

    /// Tells a connection that was dismissed that its time to say goodbye is over.
    pub(crate) fn cut_off(&self) {
        self.cut_off.give();
    }

    /// Completes when the connection has to end without a word.
    pub(crate) async fn is_cut_off(&self) {
        self.cut_off.given().await;
    }

    /// Counts a request for which there was a place.
    pub(crate) fn found_place(&self) {
        self.refused.store(0, Ordering::Relaxed);
    }

    /// Counts a request for which there was none. A client that goes on asking is told to stop: to refuse takes time,
    /// too.
    pub(crate) fn found_no_place(&self) {
        if self.refused.fetch_add(1, Ordering::Relaxed) + 1 == MAX_REFUSED {
            self.unwelcome.give();
        }
    }

    /// Completes when the connection has to end after what is in progress on it.
    pub(crate) async fn is_unwelcome(&self) {
        self.unwelcome.given().await;
    }

    /// Begins an exchange, which lasts until the value is dropped.
    pub(crate) fn begin(self: Arc<Self>) -> Exchange {
        self.open.fetch_add(1, Ordering::AcqRel);
        Exchange {
            activity: self,
            place: None,
        }
    }
}

/// One request and its response, in progress.
#[derive(Debug)]
pub(crate) struct Exchange {
    activity: Arc<Activity>,
    place: Option<Arc<RequestPlace>>,
}

impl Exchange {
    /// The connection's.
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// The same, whose request has a place until the exchange has ended.
    pub(crate) fn occupying(mut self, place: Arc<RequestPlace>) -> Self {
        self.place = Some(place);
        self
    }

    /// The place of its request.
    pub(crate) fn place(&self) -> Option<Arc<RequestPlace>> {
        self.place.clone()
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
            activity.found_no_place();
        }
        activity.found_place();
        for _ in 1..MAX_REFUSED {
            activity.found_no_place();
        }
        assert!(!is_unwelcome());
        activity.found_no_place();
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
        waiting.await.expect("it is told");
        activity.dismissed().await;
    }
}
