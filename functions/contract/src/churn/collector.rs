//! Collections and checks, one after the other, while the clock advances.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::join;
use registry::check::{self, Event};
use registry::collection::{CollectionOptions, Report, collect};
use registry::store::collection::Plan;

use super::clock::{MINUTE, Random};
use super::{ChurnStatistics, GRACES, Shared};

/// Collects until the workers have ended.
pub(super) async fn run(shared: Arc<Shared>) -> ChurnStatistics {
    let mut random = Random::new(shared.options.seed ^ 0xc011);
    let mut statistics = ChurnStatistics::default();
    while !shared.over.load(Ordering::SeqCst) {
        for _ in 0..=random.below(4) {
            shared.clock.advance(1 + random.next() % (40 * MINUTE));
        }
        let plan = Plan {
            dry_run: random.percent(8),
            deep: random.percent(30),
            grace_periods: GRACES,
        };
        let first = options(&mut random, plan);
        if random.percent(20) {
            let second = options(&mut random, plan);
            let (one, other) = join(once(&shared, &first), once(&shared, &second)).await;
            statistics.collect(&one);
            statistics.collect(&other);
        } else {
            statistics.collect(&once(&shared, &first).await);
        }
        if random.percent(15) {
            statistics.checks += 1;
            look(&shared, false).await;
        }
    }
    statistics
}

fn options(random: &mut Random, plan: Plan) -> CollectionOptions {
    CollectionOptions {
        plan,
        records: 5 + random.below(60),
        sessions: 2 + random.below(20),
        pending_deletions: 2 + random.below(40),
        ..CollectionOptions::default()
    }
}

pub(super) async fn once(shared: &Shared, options: &CollectionOptions) -> Report {
    let mut report = collect(&shared.stores, shared.clock.clone(), options, &mut |_| {
        ControlFlow::Continue(())
    })
    .await
    .expect("a collection succeeds");
    if options.plan.dry_run {
        report = Report::default();
    }
    report
}

/// Asserts that a check finds nothing.
pub(super) async fn look(shared: &Shared, hash: bool) {
    let options = check::CheckOptions {
        hash,
        limits: super::limits(),
        slice: 50,
        ..check::CheckOptions::default()
    };
    let mut found = Vec::new();
    let mut tell = |event: Event<'_>| {
        if let Event::Found(finding) = event {
            found.push(finding.clone());
        }
    };
    let checked = check::check(&shared.stores, shared.clock.clone(), &options, &mut tell).await;
    checked.expect("a check succeeds");
    assert!(found.is_empty(), "found: {found:#?}");
}
