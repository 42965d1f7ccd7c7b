//! Collection in the background of a server.

mod report_text;
mod stop;

use std::sync::Arc;
use std::time::Duration;

use registry::collection::{Interrupted, Options, Report, collect};
use registry::store::Timestamp;
use registry::store::collection::Plan;
use registry::{AllStores, Environment};
use tokio::sync::mpsc;

pub(crate) use self::report_text::describe;
pub(crate) use self::stop::{Going, Stop};
use crate::condition::Condition;
use crate::metrics::{Metrics, Pass};

/// How far apart deep passes are, counted from the epoch, so that whoever collects agrees about when, and a server that is
/// started anew every day does one as well. What a deep pass is for grows with crashes and not with pushes.
const DEEP_EVERY: Duration = Duration::from_hours(30 * 24);

/// For how long a pass may take to its next step when the server ends. A store that does not answer must not keep it.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Collects from time to time, until it is dropped: then a pass that is under way stops at its next step, and lets go of
/// the names, so that the next one need not wait. Whoever takes its place goes on where it was.
#[derive(Debug)]
pub(crate) struct Collector {
    #[expect(dead_code, reason = "held for its drop, which tells the passes to stop")]
    going: Going,
}

impl Collector {
    /// Begins a pass about every `every`, the first one somewhere within that time: servers that were started together
    /// must not collect together. `work` is dropped when the last pass has ended.
    pub(crate) fn start(
        every: Duration,
        stores: AllStores,
        environment: Arc<dyn Environment>,
        metrics: Arc<Metrics>,
        condition: Condition,
        work: mpsc::Sender<()>,
    ) -> Self {
        let (going, stop) = Stop::new();
        let mut late = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = passes(every, &stores, &environment, &metrics, &condition, stop) => {}
                () = async {
                    late.asked().await;
                    tokio::time::sleep(STOP_PATIENCE).await;
                } => tracing::warn!("a pass of collection was cut off: a store did not answer"),
            }
            drop(work);
        });
        Self { going }
    }
}

async fn passes(
    every: Duration,
    stores: &AllStores,
    environment: &Arc<dyn Environment>,
    metrics: &Metrics,
    condition: &Condition,
    mut stop: Stop,
) {
    let mut depth = Depth::of_a_start(environment.now(), every);
    let mut wait = fraction(every, &**environment);
    loop {
        tokio::select! {
            () = stop.asked() => return,
            () = tokio::time::sleep(wait) => {}
        }
        let now = environment.now();
        let report = pass(depth.is_due(now), stores, environment, metrics, condition, &stop).await;
        if report.is_some_and(|report| report.complete && (report.deep || !depth.is_due(now))) {
            depth.done(now);
        }
        // A tenth more or less, so that those who met once do not meet again.
        wait = every.mul_f64(0.95) + fraction(every / 10, &**environment);
    }
}

/// Tells which passes of this process are deep.
#[derive(Clone, Copy, Debug)]
struct Depth {
    /// When the last pass that came to its end began.
    last: Timestamp,
}

impl Depth {
    /// As if a pass had begun a period before `now`, by whoever collected until this process did.
    fn of_a_start(now: Timestamp, every: Duration) -> Self {
        Self {
            last: Timestamp(now.0.saturating_sub(millis(every))),
        }
    }

    /// Whether a pass that begins `now` is to be deep.
    fn is_due(self, now: Timestamp) -> bool {
        is_deep(self.last, now)
    }

    /// A pass that began `at` has looked at everything. One that did not leaves a deep pass due.
    fn done(&mut self, at: Timestamp) {
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

/// A random part of a duration.
fn fraction(of: Duration, environment: &dyn Environment) -> Duration {
    let mut random = [0; 4];
    environment.random(&mut random);
    of.mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX))
}

/// What it has done, unless a store failed.
async fn pass(
    deep: bool,
    stores: &AllStores,
    environment: &Arc<dyn Environment>,
    metrics: &Metrics,
    condition: &Condition,
    stop: &Stop,
) -> Option<Report> {
    if let Err(error) = condition.may_collect().await {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "nothing is collected now; a later pass does it");
        return None;
    }
    let options = Options {
        plan: Plan {
            deep,
            ..Plan::default()
        },
        ..Options::default()
    };
    let collected = collect(stores, environment.clone(), &options, &mut |_| stop.answer()).await;
    let now = environment.now();
    match collected {
        Ok(report) => {
            metrics.collected(Pass::of(&report), &report, now);
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
                leftovers = report.metadata.leftovers,
                repositories = report.metadata.repositories,
                scheduled = report.metadata.scheduled,
                scheduled_bytes = report.metadata.scheduled_bytes,
                sessions = report.sessions_swept,
                deleted = report.objects_deleted,
                deleted_bytes = report.deleted.map(|deleted| deleted.bytes),
                "collected"
            );
            Some(report)
        }
        Err(Interrupted { report, what, source }) => {
            metrics.collected(Pass::Failed, &report, now);
            tracing::warn!(
                error = &source as &dyn std::error::Error,
                what,
                failed = report.failed,
                "not all could be collected; the next pass tries it again"
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use async_trait::async_trait;
    use oci::{Algorithm, Digest};
    use registry::budget::ClientKey;
    use registry::clock::ServiceClock;
    use registry::environment::{Memory, Purpose};
    use registry::store::memory::MemoryMetadata;
    use registry::store::{Context, Location, StoreError, Uid};

    use super::*;
    use crate::condition::{ConditionParts, TimeService};
    use crate::environment::SystemEnvironment;
    use crate::stores::{Statistics, in_memory};

    #[test]
    fn a_fraction_is_no_more_than_the_whole() {
        let environment = SystemEnvironment::new(0);
        let whole = Duration::from_hours(1);
        let drawn: Vec<_> = (0..100).map(|_| fraction(whole, &environment)).collect();
        assert!(drawn.iter().all(|part| *part <= whole));
        assert!(drawn.iter().any(|part| *part > whole / 2) && drawn.iter().any(|part| *part < whole / 2));
    }

    const PERIOD: u64 = 30 * 24 * 3_600_000;
    const HOUR: u64 = 3_600_000;

    #[test]
    fn a_pass_is_deep_when_a_period_has_begun_since_the_last_one() {
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
        assert!(!later.is_due(begin.plus_millis(7 * HOUR)), "somebody else has done it");
        later.done(begin.plus_millis(7 * HOUR));
        assert!(!later.is_due(begin.plus_millis(8 * HOUR)));
    }

    #[test]
    fn a_deep_pass_that_did_not_come_to_its_end_stays_due() {
        let begin = Timestamp(700 * PERIOD);
        let mut depth = Depth::of_a_start(begin, Duration::from_hours(1));
        for hour in 0..3 {
            assert!(depth.is_due(begin.plus_millis(hour * HOUR)));
        }
        depth.done(begin.plus_millis(2 * HOUR));
        assert!(!depth.is_due(begin.plus_millis(3 * HOUR)));
    }

    /// Whoever collects less than once in a period always does so deeply.
    #[test]
    fn rare_passes_are_deep() {
        let begin = Timestamp(700 * PERIOD + HOUR);
        assert!(Depth::of_a_start(begin, DEEP_EVERY).is_due(begin));
        assert!(Depth::of_a_start(Timestamp(5), DEEP_EVERY).is_due(Timestamp(PERIOD)));
    }

    fn stores() -> AllStores {
        in_memory(&Arc::new(MemoryMetadata::new()))
    }

    #[tokio::test]
    async fn a_pass_is_as_deep_as_it_was_told() {
        let stores = stores();
        let environment: Arc<dyn Environment> = Arc::new(SystemEnvironment::new(0));
        let metrics = Metrics::new(Statistics::default());
        let condition = Condition::default();
        let (_going, stop) = Stop::new();
        assert!(
            pass(false, &stores, &environment, &metrics, &condition, &stop)
                .await
                .is_none()
        );
        condition.admit();
        for deep in [false, true] {
            let report = pass(deep, &stores, &environment, &metrics, &condition, &stop)
                .await
                .unwrap();
            assert_eq!((report.deep, report.complete, report.dry_run), (deep, true, false));
        }
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

        async fn memory(&self, _: ClientKey, _: Purpose, _: usize) -> Result<Memory, StoreError> {
            Ok(Box::new(()))
        }

        fn memory_at_once(&self, _: ClientKey, _: Purpose, _: usize) -> Option<Memory> {
            Some(Box::new(()))
        }

        async fn sleep(&self, _: u64) {}
    }

    /// What a service has told before the clock of this host jumped says nothing of it now: each pass asks first, and does
    /// nothing where the answer is another time, or none.
    #[tokio::test]
    async fn s33_a_pass_asks_for_the_time_before_it_removes_anything() {
        let inner = stores();
        let host = Arc::new(Host(AtomicU64::new(700 * PERIOD)));
        let environment: Arc<dyn Environment> = host.clone();
        // What the service shows, and whether it answers.
        let service = Arc::new((AtomicU64::new(700 * PERIOD), AtomicBool::new(true)));
        let clock = Arc::<ServiceClock>::default();
        let told = {
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
            services: vec![told],
            ..ConditionParts::default()
        });
        condition.admit();
        let metrics = Metrics::new(Statistics::default());
        let (_going, stop) = Stop::new();
        let guarded = condition.guarding(&inner);
        let collects = async || {
            let report = pass(false, &guarded, &environment, &metrics, &condition, &stop).await;
            report.map(|report| (report.metadata.marked, report.metadata.unlinked, report.objects_deleted))
        };
        let later = |hours: u64| {
            host.0.fetch_add(hours * HOUR, Ordering::Relaxed);
            service.0.fetch_add(hours * HOUR, Ordering::Relaxed);
        };

        // Nothing refers to one blob; the other was unlinked, and its object waits to be deleted.
        let name = "app".parse().unwrap();
        let cx = || Context {
            now: host.now(),
            deadline: host.now().plus_millis(HOUR),
            uid: Uid(3),
            client: ClientKey::INTERNAL,
        };
        let digests = [b"x", b"y"].map(|bytes| Digest::of(Algorithm::Sha256, bytes));
        for (digest, key) in digests.iter().zip(["1.1", "2.1"]) {
            let location = Location::main(key);
            let committed = inner.metadata.commit_blob(cx(), &name, digest, &location, 1).await;
            committed.unwrap();
        }
        later(2 * 24);
        inner.metadata.unlink(cx(), &name, &digests[1]).await.unwrap();
        assert_eq!(collects().await, Some((1, 0, 0)));

        host.0.fetch_add(PERIOD, Ordering::Relaxed);
        assert_eq!(collects().await, None, "the clock is a month ahead");
        host.0.fetch_sub(PERIOD, Ordering::Relaxed);
        service.1.store(false, Ordering::Relaxed);
        assert_eq!(collects().await, None, "nobody tells the time");
        let link = inner.metadata.marked_link(cx(), &name, &digests[0]).await.unwrap();
        assert!(link.is_some_and(|(_, marked)| marked), "the link stands, with its mark");
        let pending_deletions = inner
            .collection
            .pending_deletions(cx(), Timestamp(u64::MAX), None, 10)
            .await
            .unwrap();
        assert_eq!(pending_deletions.items.len(), 1);

        service.1.store(true, Ordering::Relaxed);
        later(2 * 24);
        assert_eq!(collects().await, Some((0, 1, 1)), "with a right clock both go");
    }
}
