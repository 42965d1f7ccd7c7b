//! Collection passes of a shell: when they run, how deep they are, and the report of each.

mod failure;
#[cfg(feature = "native")]
mod periodic;
mod report_text;

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use registry::collection::{CollectionOptions, Report, collect};
use registry::store::Timestamp;
use registry::{Environment, Stores};

pub use self::failure::{IncompletePass, PassFailure, conclude};
#[cfg(feature = "native")]
pub use self::periodic::Collector;
pub use self::report_text::describe;
use crate::condition::Condition;
use crate::opened::Opened;

/// Time between two deep passes. It is counted from the epoch: so all processes that collect agree about it, and a server
/// that is restarted every day runs deep passes too. A deep pass deletes what crashes have left, which pushes do not increase.
const DEEP_EVERY: Duration = Duration::from_hours(30 * 24);

/// Decides which passes are deep: one in 30 days, counted from the epoch. If a deep pass is not completed, the next pass is
/// deep too.
#[derive(Clone, Copy, Debug)]
pub struct Depth {
    /// When the last completed pass began.
    last: Timestamp,
}

impl Depth {
    /// The state at the start of a process: it assumes that another process began a pass `every` before `now`.
    #[must_use]
    pub fn of_a_start(now: Timestamp, every: Duration) -> Self {
        Self {
            last: Timestamp(now.0.saturating_sub(millis(every))),
        }
    }

    /// Whether a pass that begins `now` is to be deep.
    #[must_use]
    pub fn is_due(self, now: Timestamp) -> bool {
        is_deep(self.last, now)
    }

    /// Notes that a pass which began `at` was completed. A pass that was not completed must not be noted: a deep pass then
    /// stays due.
    pub fn done(&mut self, at: Timestamp) {
        self.last = at;
    }
}

/// Whether a multiple of [`DEEP_EVERY`] since the epoch lies after `last`, and not after `now`.
fn is_deep(last: Timestamp, now: Timestamp) -> bool {
    let period = millis(DEEP_EVERY);
    last.0 / period < now.0 / period
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How a collection pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassOutcome {
    /// It examined everything.
    Whole,
    /// Another process was examining the metadata. Expired uploads and pending deletions were handled.
    Busy,
    /// At least one operation failed.
    Failed,
    /// It was stopped before its end.
    Stopped,
}

impl PassOutcome {
    /// The outcome of a pass without failures.
    #[must_use]
    pub fn of(report: &Report) -> Self {
        match conclude(report) {
            Ok(()) => Self::Whole,
            Err(IncompletePass::Busy(_)) => Self::Busy,
            Err(IncompletePass::Stopped) => Self::Stopped,
        }
    }
}

/// Is called at the end of each pass.
pub trait PassObserver: Send + Sync + 'static {
    /// A pass with this outcome and report ended `at` that time.
    fn ended(&self, outcome: PassOutcome, report: &Report, at: Timestamp);
}

/// An observer that does nothing.
impl PassObserver for () {
    fn ended(&self, _: PassOutcome, _: &Report, _: Timestamp) {}
}

/// The stores of collection passes, and what a pass needs in addition.
#[derive(Clone)]
pub struct Passes {
    /// The stores, guarded by `condition`.
    stores: Stores,
    environment: Arc<dyn Environment>,
    condition: Condition,
    observer: Arc<dyn PassObserver>,
}

impl fmt::Debug for Passes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passes").finish_non_exhaustive()
    }
}

impl Passes {
    /// Passes over the stores of `opened`, each call of which checks the condition of the stores. `environment` is the clock and
    /// the random source, and `observer` is called at the end of each pass.
    #[must_use]
    pub fn new(opened: &Opened, environment: Arc<dyn Environment>, observer: Arc<dyn PassObserver>) -> Self {
        Self {
            stores: opened.condition.guarding(&opened.stores),
            environment,
            condition: opened.condition.clone(),
            observer,
        }
    }

    /// Runs one pass, and logs its report or failure. Does nothing if the condition of the stores does not allow a pass.
    /// `progress` is called after each step, and decides whether the pass continues. A pass without failures may have left
    /// something for a later one: see [`conclude`].
    pub async fn run(
        &self,
        options: &CollectionOptions,
        progress: &mut (dyn FnMut(&Report) -> ControlFlow<()> + Send),
    ) -> Result<Report, PassFailure> {
        if let Err(error) = self.condition.may_collect().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "nothing is collected now; the next pass tries it again"
            );
            return Err(PassFailure::NotAllowed(error));
        }
        let collected = collect(&self.stores, self.environment.clone(), options, progress).await;
        let now = self.environment.now();
        match collected {
            Ok(report) => {
                self.observer.ended(PassOutcome::of(&report), &report, now);
                tracing::info!(
                    complete = report.complete,
                    stopped = report.stopped,
                    deep = report.deep,
                    resumed = report.resumed,
                    seen = report.metadata.seen,
                    marked = report.metadata.marked,
                    marked_bytes = report.metadata.marked_bytes,
                    waiting = report.metadata.waiting,
                    waiting_bytes = report.metadata.waiting_bytes,
                    unlinked = report.metadata.unlinked,
                    orphaned_records = report.metadata.orphaned_records,
                    repositories = report.metadata.repositories,
                    scheduled = report.metadata.scheduled,
                    scheduled_bytes = report.metadata.scheduled_bytes,
                    sessions = report.sessions_swept,
                    deleted = report.objects_deleted,
                    deleted_bytes = report.deleted.map(|deleted| deleted.bytes),
                    "collected"
                );
                Ok(report)
            }
            Err(interrupted) => {
                self.observer.ended(PassOutcome::Failed, &interrupted.report, now);
                tracing::warn!(
                    error = &interrupted.source as &dyn std::error::Error,
                    what = interrupted.what,
                    failed = interrupted.report.failed,
                    "a collection pass has failed in part; the next pass tries it again"
                );
                Err(PassFailure::Interrupted(interrupted))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use async_trait::async_trait;
    use oci::{Algorithm, Digest};
    use registry::clock::ServiceClock;
    use registry::store::access::Author;
    use registry::store::collection::Plan;
    use registry::store::memory::MemoryMetadata;
    use registry::store::wrapped::{Hook, StoreMethod, Wrapped};
    use registry::store::{Context, Location, StoreError, Uid};

    use super::*;
    use crate::clock::SystemEnvironment;
    use crate::condition::{ConditionParts, TimeService};
    use crate::opened::{StoreStatistics, in_memory};

    const PERIOD: u64 = 30 * 24 * 3_600_000;
    const HOUR: u64 = 3_600_000;

    #[test]
    fn a_pass_is_deep_if_a_period_has_begun_since_the_last_one() {
        for boundary in [PERIOD, 700 * PERIOD] {
            let at = |offset: i64| Timestamp(boundary.checked_add_signed(offset).unwrap());
            assert!(is_deep(at(-1), at(0)), "at the boundary itself");
            assert!(is_deep(at(-1), at(1)));
            assert!(!is_deep(at(-2), at(-1)), "before it");
            assert!(!is_deep(at(0), at(1)), "the pass at the boundary was it");
            assert!(!is_deep(at(0), at(0)));
            assert!(!is_deep(at(1), at(-1)), "a clock that was set back");
            assert!(!is_deep(at(0), Timestamp(boundary + PERIOD - 1)), "until the next one");
            assert!(is_deep(at(0), Timestamp(boundary + PERIOD)));
            assert!(is_deep(at(0), Timestamp(boundary + 5 * PERIOD)), "after a long rest");
        }
    }

    #[test]
    fn a_year_of_passes_has_a_deep_one_each_month() {
        let every = Duration::from_hours(6);
        let begin = Timestamp(700 * PERIOD + 3 * HOUR);
        let mut depth = Depth::of_a_start(begin, every);
        let mut deep = Vec::new();
        for number in 0..365 * 4 {
            let now = begin.plus_millis(number * 6 * HOUR);
            if depth.is_due(now) {
                deep.push(number);
            }
            depth.done(now);
        }
        let expected: Vec<_> = (0..13).map(|month| month * 30 * 4).collect();
        assert_eq!(
            deep, expected,
            "the first one because its period began less than six hours ago"
        );
        let mut later = Depth::of_a_start(begin.plus_millis(6 * HOUR), every);
        assert!(!later.is_due(begin.plus_millis(7 * HOUR)), "another process has run it");
        later.done(begin.plus_millis(7 * HOUR));
        assert!(!later.is_due(begin.plus_millis(8 * HOUR)));
    }

    #[test]
    fn a_deep_pass_that_was_not_completed_stays_due() {
        let begin = Timestamp(700 * PERIOD);
        let mut depth = Depth::of_a_start(begin, Duration::from_hours(1));
        for hour in 0..3 {
            assert!(depth.is_due(begin.plus_millis(hour * HOUR)));
        }
        depth.done(begin.plus_millis(2 * HOUR));
        assert!(!depth.is_due(begin.plus_millis(3 * HOUR)));
    }

    /// If passes are rarer than once in a period, all of them are deep.
    #[test]
    fn rare_passes_are_deep() {
        let begin = Timestamp(700 * PERIOD + HOUR);
        assert!(Depth::of_a_start(begin, DEEP_EVERY).is_due(begin));
        assert!(Depth::of_a_start(Timestamp(5), DEEP_EVERY).is_due(Timestamp(PERIOD)));
    }

    /// Stores in memory with this condition.
    fn opened(condition: Condition) -> Opened {
        Opened {
            stores: in_memory(&Arc::new(MemoryMetadata::new())),
            statistics: StoreStatistics::default(),
            condition,
            blobs_description: String::new(),
            metadata_description: String::new(),
        }
    }

    /// Does not end a pass.
    fn go_on(_: &Report) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    #[tokio::test]
    async fn a_pass_does_what_its_options_say() {
        let passes = Passes::new(&opened(Condition::default()), Arc::new(SystemEnvironment), Arc::new(()));
        let run = async |plan| {
            let options = CollectionOptions {
                plan,
                ..CollectionOptions::default()
            };
            passes.run(&options, &mut go_on).await
        };
        let refused = run(Plan::default()).await.unwrap_err();
        assert!(matches!(refused, PassFailure::NotAllowed(_)), "{refused}");
        passes.condition.admit();
        for (deep, dry_run) in [(false, false), (true, false), (false, true)] {
            let plan = Plan {
                deep,
                dry_run,
                ..Plan::default()
            };
            let report = run(plan).await.unwrap();
            assert_eq!((report.deep, report.complete, report.dry_run), (deep, true, dry_run));
        }
    }

    /// Counts the outcomes of passes.
    #[derive(Default)]
    struct Outcomes(Mutex<Vec<PassOutcome>>);

    impl PassObserver for Outcomes {
        fn ended(&self, outcome: PassOutcome, _: &Report, _: Timestamp) {
            self.0.lock().unwrap().push(outcome);
        }
    }

    /// Refuses to list expired sessions.
    struct NoExpired;

    impl Hook for NoExpired {
        fn before(&self, method: StoreMethod) -> Result<(), StoreError> {
            match method {
                StoreMethod::Expired => Err(StoreError::failed("a damaged page")),
                _ => Ok(()),
            }
        }

        fn after(&self, _: StoreMethod) -> Result<(), StoreError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn the_result_of_a_pass_says_how_it_ended() {
        let condition = Condition::default();
        condition.admit();
        let mut opened = opened(condition);
        let outcomes = Arc::<Outcomes>::default();
        let options = CollectionOptions::default();
        let passes = |opened: &Opened| Passes::new(opened, Arc::new(SystemEnvironment), outcomes.clone());

        let stop = &mut |_: &_| ControlFlow::Break(());
        let stopped = passes(&opened).run(&options, stop).await.unwrap();
        assert_eq!(conclude(&stopped), Err(IncompletePass::Stopped));
        let whole = passes(&opened).run(&options, &mut go_on).await.unwrap();
        assert_eq!(conclude(&whole), Ok(()));

        opened.stores.sessions = Arc::new(Wrapped::new(opened.stores.sessions.clone(), NoExpired));
        let failure = passes(&opened).run(&options, &mut go_on).await.unwrap_err();
        assert_eq!(failure.report().map(|report| report.failed), Some(1));
        let text = failure.to_string();
        assert!(
            text.contains("a damaged page") && text.ends_with(". The next pass tries this again"),
            "{text}"
        );
        assert_eq!(
            *outcomes.0.lock().unwrap(),
            [PassOutcome::Stopped, PassOutcome::Whole, PassOutcome::Failed]
        );
    }

    /// A host whose clock a test sets.
    struct Host(AtomicU64);

    #[async_trait]
    impl Environment for Host {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::Relaxed))
        }

        fn random(&self, bytes: &mut [u8]) {
            bytes.fill(7);
        }

        async fn sleep(&self, _: u64) {}
    }

    /// The time that a service reported before the clock of this host jumped says nothing about the clock now. So each pass asks
    /// for the time first, and does nothing if the answer is another time, or if there is no answer.
    #[tokio::test]
    async fn s33_a_pass_asks_for_the_time_before_it_removes_anything() {
        let host = Arc::new(Host(AtomicU64::new(700 * PERIOD)));
        let environment: Arc<dyn Environment> = host.clone();
        // The time of the service, and whether it answers.
        let service = Arc::new((AtomicU64::new(700 * PERIOD), AtomicBool::new(true)));
        let clock = Arc::<ServiceClock>::default();
        let time_service = {
            let (host, service, clock) = (host.clone(), service.clone(), clock.clone());
            TimeService::new("test", clock.clone(), move || {
                let own = host.now().0;
                let answers = service.1.load(Ordering::Relaxed);
                if answers {
                    clock.observe(service.0.load(Ordering::Relaxed), own, own);
                }
                async move {
                    if answers {
                        Ok(())
                    } else {
                        Err(StoreError::unavailable("silent"))
                    }
                }
            })
        };
        let condition = Condition::of(ConditionParts {
            services: vec![time_service],
            ..ConditionParts::default()
        });
        condition.admit();
        let opened = opened(condition);
        let inner = opened.stores.clone();
        let passes = Passes::new(&opened, environment, Arc::new(()));
        let collects = async || {
            let report = passes.run(&CollectionOptions::default(), &mut go_on).await.ok()?;
            Some((report.metadata.marked, report.metadata.unlinked, report.objects_deleted))
        };
        let later = |hours: u64| {
            host.0.fetch_add(hours * HOUR, Ordering::Relaxed);
            service.0.fetch_add(hours * HOUR, Ordering::Relaxed);
        };

        // One blob is unreferenced. The other one was unlinked, and its object is pending deletion.
        let name = "app".parse().unwrap();
        let cx = || Context::internal(host.now(), HOUR, Uid(3));
        let digests = [b"x", b"y"].map(|bytes| Digest::of(Algorithm::Sha256, bytes));
        for (digest, key) in digests.iter().zip(["1.1", "2.1"]) {
            let location = Location::main(key);
            let committed = inner.metadata.commit_blob(cx(), &name, digest, &location, 1).await;
            committed.unwrap();
        }
        later(2 * 24);
        inner
            .metadata
            .unlink(cx(), &name, &digests[1], &Author::new("user"))
            .await
            .unwrap();
        assert_eq!(collects().await, Some((1, 0, 0)));

        host.0.fetch_add(PERIOD, Ordering::Relaxed);
        assert_eq!(collects().await, None, "the clock is a month ahead");
        host.0.fetch_sub(PERIOD, Ordering::Relaxed);
        service.1.store(false, Ordering::Relaxed);
        assert_eq!(collects().await, None, "no service tells the time");
        let link = inner.metadata.marked_link(cx(), &name, &digests[0]).await.unwrap();
        assert!(
            link.is_some_and(|(_, marked)| marked),
            "the link is still there, with its mark"
        );
        let pending_deletions = inner
            .collection
            .pending_deletions(cx(), Timestamp(u64::MAX), None, 10)
            .await
            .unwrap();
        assert_eq!(pending_deletions.items.len(), 1);

        service.1.store(true, Ordering::Relaxed);
        later(2 * 24);
        assert_eq!(collects().await, Some((0, 1, 1)), "with a right clock both are deleted");
    }
}
