//! Collection in the background of a server.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use registry::collection::{Interrupted, Options, Report, collect};
use registry::{AllStores, Environment};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::metrics::{Metrics, Pass};

/// Collects from time to time, until it is dropped.
///
/// Dropping it in the middle of a pass is the same as a crash: what was done is done, and the next pass of whichever
/// process goes on where this one was.
#[derive(Debug)]
pub(crate) struct Collector {
    #[expect(dead_code, reason = "held for its drop, which the other end notices")]
    alive: oneshot::Sender<Infallible>,
}

impl Collector {
    /// Begins a pass about every `every`, the first one somewhere within that time: servers that were started together
    /// must not collect together. On a thread of its own, because a collection is one future that cannot change
    /// threads.
    pub(crate) fn start(
        every: Duration,
        stores: AllStores,
        environment: Arc<dyn Environment>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (alive, dropped) = oneshot::channel();
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = dropped => {}
                    () = passes(every, &stores, &environment, &metrics) => {}
                }
            });
        });
        Self { alive }
    }
}

async fn passes(every: Duration, stores: &AllStores, environment: &Arc<dyn Environment>, metrics: &Metrics) {
    let mut wait = fraction(every, &**environment);
    loop {
        tokio::time::sleep(wait).await;
        pass(stores, environment, metrics).await;
        // A tenth more or less, so that those who met once do not meet again.
        wait = every.mul_f64(0.95) + fraction(every / 10, &**environment);
    }
}

/// A random part of a duration.
fn fraction(of: Duration, environment: &dyn Environment) -> Duration {
    let mut random = [0; 4];
    environment.random(&mut random);
    of.mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX))
}

async fn pass(stores: &AllStores, environment: &Arc<dyn Environment>, metrics: &Metrics) {
    let options = Options::default();
    let collected = collect(stores, environment.clone(), &options, &mut |_| {}).await;
    let now = environment.now();
    match collected {
        Ok(report) => {
            let pass = if report.complete { Pass::Whole } else { Pass::Busy };
            metrics.collected(pass, &report, now);
            tracing::info!(
                complete = report.complete,
                seen = report.names.seen,
                marked = report.names.marked,
                unlinked = report.names.unlinked,
                buried = report.names.buried,
                buried_bytes = report.names.buried_bytes,
                sessions = report.sessions_swept,
                deleted = report.objects_deleted,
                "collected"
            );
        }
        Err(Interrupted { report, source }) => {
            metrics.collected(Pass::Failed, &report, now);
            tracing::warn!(
                error = &source as &dyn std::error::Error,
                "a store failed during collection; the next pass goes on from there"
            );
        }
    }
}

/// What a pass has done, for people.
pub(crate) fn describe(report: &Report, size: impl Fn(u64) -> String) -> String {
    let names = &report.names;
    let (marked, deleted) = if report.dry_run {
        ("would be marked", "would be deleted")
    } else {
        ("marked", "deleted")
    };
    let mut text = format!(
        "{} records seen\n\
         {} links {marked}: nothing refers to them, and a later pass removes them if that is still so\n\
         {} links removed, {} objects ({}) without a name buried\n\
         {} uploads past their end ended, {} of their objects buried\n\
         {} objects {deleted} from the graveyard",
        names.seen,
        names.marked,
        names.unlinked,
        names.buried,
        size(names.buried_bytes),
        report.sessions_swept,
        report.session_graves,
        report.objects_deleted,
    );
    if report.deep {
        let _ = write!(text, "\n{} leftovers among the names removed", names.leftovers);
    }
    if report.busy_until.is_some() {
        text += "\nanother process is going through the names: only uploads and the graveyard were looked at";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::SystemEnvironment;

    #[test]
    fn a_fraction_is_no_more_than_the_whole() {
        let environment = SystemEnvironment::new(0);
        let whole = Duration::from_hours(1);
        let drawn: Vec<_> = (0..100).map(|_| fraction(whole, &environment)).collect();
        assert!(drawn.iter().all(|part| *part <= whole));
        assert!(drawn.iter().any(|part| *part > whole / 2) && drawn.iter().any(|part| *part < whole / 2));
    }

    #[test]
    fn a_dry_run_does_not_say_that_anything_was_done() {
        let report = Report {
            dry_run: true,
            ..Report::default()
        };
        let text = describe(&report, |bytes| bytes.to_string());
        assert!(
            text.contains("would be deleted") && text.contains("would be marked"),
            "{text}"
        );
    }
}
