//! Collection passes in the background of a server.

use std::ops::ControlFlow;
use std::time::Duration;

use registry::Environment;
use registry::collection::CollectionOptions;
use registry::store::collection::Plan;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::{Depth, Passes};

/// Maximum time of a step of a pass after the server has begun to end. A store that does not answer must not keep the server.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs collection passes at an interval, until it is dropped. Then a pass in progress stops at its next step and releases the
/// metadata, so that the next pass need not wait. The pass of another process continues from there.
#[derive(Debug)]
pub struct Collector {
    #[expect(dead_code, reason = "held for its drop, which tells the passes to stop")]
    stop: DropGuard,
}

impl Collector {
    /// Begins a pass about once in `every`. The first one begins at a random time within it, so that servers that were started
    /// together do not collect together. The task that runs the passes belongs to `work`.
    #[must_use]
    pub fn start(every: Duration, passes: Passes, work: &TaskTracker) -> Self {
        let stop = CancellationToken::new();
        let asked = stop.clone();
        work.spawn(async move {
            tokio::select! {
                () = run(every, &passes, &asked) => {}
                () = async {
                    asked.cancelled().await;
                    tokio::time::sleep(STOP_TIMEOUT).await;
                } => tracing::warn!("a collection pass was cut off, because a store did not answer"),
            }
        });
        Self {
            stop: stop.drop_guard(),
        }
    }
}

async fn run(every: Duration, passes: &Passes, stop: &CancellationToken) {
    let environment = &*passes.environment;
    let mut depth = Depth::of_a_start(environment.now(), every);
    let mut wait = fraction(every, environment);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        let now = environment.now();
        let mut progress = |_: &_| {
            if stop.is_cancelled() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let options = CollectionOptions {
            plan: Plan {
                deep: depth.is_due(now),
                ..Plan::default()
            },
            ..CollectionOptions::default()
        };
        let collected = passes.run(&options, &mut progress).await;
        if collected.is_ok_and(|report| report.complete && (report.deep || !depth.is_due(now))) {
            depth.done(now);
        }
        // A random difference of a tenth, so that two servers that collected together do not do so again.
        wait = every.mul_f64(0.95) + fraction(every / 10, environment);
    }
}

/// A random part of a duration.
fn fraction(of: Duration, environment: &dyn Environment) -> Duration {
    let mut random = [0; 4];
    environment.random(&mut random);
    of.mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemEnvironment;

    #[test]
    fn a_fraction_is_no_more_than_the_whole() {
        let environment = SystemEnvironment;
        let whole = Duration::from_hours(1);
        let drawn: Vec<_> = (0..100).map(|_| fraction(whole, &environment)).collect();
        assert!(drawn.iter().all(|part| *part <= whole));
        assert!(drawn.iter().any(|part| *part > whole / 2) && drawn.iter().any(|part| *part < whole / 2));
    }
}
