//! The pass over the metadata, and its lease.

use super::progress::RunningReport;
use super::run::CollectionSetup;
use crate::environment::random_u64;
use crate::store::collection::{PassStart, Plan};
use crate::store::{Cursor, Timestamp, Uid};

/// The position of a pass, as a store keeps it for the next process.
struct PassPosition {
    deep: bool,
    after: Cursor,
}

impl PassPosition {
    fn parse(cursor: &Cursor) -> Option<Self> {
        let (depth, after) = cursor.0.split_once(' ')?;
        let deep = match depth {
            DEEP => true,
            PLAIN => false,
            _ => return None,
        };
        let after = Cursor(after.to_owned());
        Some(Self { deep, after })
    }

    fn cursor(&self) -> Cursor {
        let depth = if self.deep { DEEP } else { PLAIN };
        Cursor(format!("{depth} {}", self.after.0))
    }
}

/// The first word of the stored position.
const DEEP: &str = "deep";
const PLAIN: &str = "plain";

pub(super) async fn walk_metadata(setup: &CollectionSetup<'_>, running: &mut RunningReport<'_>) {
    let mut plan = setup.options.plan;
    if plan.dry_run {
        // A dry run writes nothing, so it takes no lease.
        return walk(setup, running, plan, None, None).await;
    }
    let pass = Uid(random_u64(&*setup.environment));
    let begun = setup.stores.collection.begin_pass(setup.cx(), pass, lease(setup)).await;
    let from = match begun {
        // Without the lease the pass does not start: two processes would do the same work.
        Err(fault) => return running.step_failed("the pass over the metadata cannot begin", fault),
        Ok(PassStart::Busy(until)) => {
            running.report.busy_until = Some(until);
            return;
        }
        Ok(PassStart::New) => None,
        Ok(PassStart::Resumed(cursor)) => match PassPosition::parse(&cursor) {
            // The interrupted pass was not a deep one, so a deep pass starts at the beginning.
            Some(position) if plan.deep && !position.deep => None,
            // An interrupted deep pass continues as a deep pass.
            Some(position) => {
                plan.deep = position.deep;
                running.report.deep = position.deep;
                running.report.resumed = true;
                Some(position.after)
            }
            // The position was written by another version.
            None => None,
        },
    };
    walk(setup, running, plan, Some(pass), from).await;
}

fn lease(setup: &CollectionSetup<'_>) -> Timestamp {
    setup.now().plus_millis(setup.options.lease_ms)
}

/// Walks over the metadata from `next` on. Records the position for `pass`, if there is one.
async fn walk(
    setup: &CollectionSetup<'_>,
    running: &mut RunningReport<'_>,
    plan: Plan,
    pass: Option<Uid>,
    mut next: Option<Cursor>,
) {
    let collection = &setup.stores.collection;
    let position = |next: Option<&Cursor>| {
        next.map(|after| {
            let (deep, after) = (plan.deep, after.clone());
            PassPosition { deep, after }.cursor()
        })
    };
    loop {
        let slice = collection.collect_metadata(setup.cx(), &plan, next.as_ref(), setup.options.records);
        let slice = match slice.await {
            Ok(slice) => slice,
            Err(fault) => {
                // End the lease now, so that the next pass need not wait until it expires. The error is ignored, since
                // the store has just failed anyway.
                if let Some(pass) = pass {
                    let position = position(next.as_ref());
                    drop(
                        collection
                            .checkpoint(setup.cx(), pass, position.as_ref(), setup.now())
                            .await,
                    );
                }
                return running.step_failed("the metadata cannot be read", fault);
            }
        };
        next = slice.next;
        running.report.metadata += slice.statistics;
        let stop = running.report_progress().is_break();
        if let Some(pass) = pass {
            let until = if stop { setup.now() } else { lease(setup) };
            let position = position(next.as_ref());
            match collection.checkpoint(setup.cx(), pass, position.as_ref(), until).await {
                Ok(true) => {}
                Ok(false) => {
                    running.report.busy_until = Some(setup.now());
                    return;
                }
                Err(fault) => return running.step_failed("the position of the pass cannot be recorded", fault),
            }
        }
        if stop || next.is_none() {
            return;
        }
    }
}
