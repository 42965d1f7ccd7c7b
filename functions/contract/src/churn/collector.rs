//! Collections and checks, one after the other, while time flies.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::join;

use super::clock::{MINUTE, Random};
use super::{Churned, Field, GRACES};
use registry::check::{self, Event};
use registry::collection::{Options, Report, collect};
use registry::store::collection::Plan;

/// Collects until the workers have ended.
pub(super) async fn run(field: Arc<Field>) -> Churned {
    let mut random = Random::new(field.options.seed ^ 0xc011);
    let mut churned = Churned::default();
    while !field.over.load(Ordering::SeqCst) {
        for _ in 0..=random.below(4) {
            field.clock.pass(1 + random.next() % (40 * MINUTE));
        }
        let plan = Plan {
            dry_run: random.percent(8),
            deep: random.percent(30),
            grace_periods: GRACES,
        };
        let first = options(&mut random, plan);
        if random.percent(20) {
            let second = options(&mut random, plan);
            let (one, other) = join(once(&field, &first), once(&field, &second)).await;
            churned.collect(&one);
            churned.collect(&other);
        } else {
            churned.collect(&once(&field, &first).await);
        }
        if random.percent(15) {
            churned.checks += 1;
            look(&field, false).await;
        }
    }
    churned
}

fn options(random: &mut Random, plan: Plan) -> Options {
    Options {
        plan,
        names: 5 + random.below(60),
        sessions: 2 + random.below(20),
        pending_deletions: 2 + random.below(40),
        ..Options::default()
    }
}

pub(super) async fn once(field: &Field, options: &Options) -> Report {
    let mut report = collect(&field.stores, field.clock.clone(), options, &mut |_| {
        ControlFlow::Continue(())
    })
    .await
    .expect("a collection goes through");
    if options.plan.dry_run {
        report = Report::default();
    }
    report
}

/// Everything agrees, at every moment.
pub(super) async fn look(field: &Field, hash: bool) {
    let options = check::Options {
        hash,
        limits: super::limits(),
        slice: 50,
        ..check::Options::default()
    };
    let mut found = Vec::new();
    let mut tell = |event: Event<'_>| {
        if let Event::Found(finding) = event {
            found.push(finding.clone());
        }
    };
    let checked = check::check(&field.stores, field.clock.clone(), &options, &mut tell).await;
    checked.expect("a check goes through");
    assert!(found.is_empty(), "found: {found:#?}");
}
