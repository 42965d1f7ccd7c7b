//! The pass over the names, and who holds it.

use super::progress::RunningReport;
use super::run::Over;
use crate::environment::random_u64;
use crate::store::collection::{PassStart, Plan};
use crate::store::{Cursor, Timestamp, Uid};

/// How far a pass has come, as stores keep it for the next one.
struct Place {
    deep: bool,
    after: Cursor,
}

impl Place {
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

/// Begin what is kept of a pass.
const DEEP: &str = "deep";
const PLAIN: &str = "plain";

pub(super) async fn walk_metadata(over: &Over<'_>, told: &mut RunningReport<'_>) {
    let mut plan = over.options.plan;
    if plan.dry_run {
        // Writes nothing, and so also does not say that it is there.
        return walk(over, told, plan, None, None).await;
    }
    let pass = Uid(random_u64(&*over.environment));
    let begun = over.stores.collection.begin_pass(over.cx(), pass, lease(over)).await;
    let from = match begun {
        // Nothing without the lease: two processes would do the same work.
        Err(fault) => return told.step_failed("the pass over the names cannot begin", fault),
        Ok(PassStart::Busy(until)) => {
            told.report.busy_until = Some(until);
            return;
        }
        Ok(PassStart::New) => None,
        Ok(PassStart::Resumed(cursor)) => match Place::parse(&cursor) {
            // What was passed over so far was not looked at as deeply.
            Some(place) if plan.deep && !place.deep => None,
            // A deep pass that was cut off is gone on with as one.
            Some(place) => {
                plan.deep = place.deep;
                told.report.deep = place.deep;
                told.report.resumed = true;
                Some(place.after)
            }
            // Another version's.
            None => None,
        },
    };
    walk(over, told, plan, Some(pass), from).await;
}

fn lease(over: &Over<'_>) -> Timestamp {
    over.now().plus_millis(over.options.lease_ms)
}

/// Walks over the names from `next` on; records how far it has come for `pass`, if it is one.
async fn walk(over: &Over<'_>, told: &mut RunningReport<'_>, plan: Plan, pass: Option<Uid>, mut next: Option<Cursor>) {
    let collection = &over.stores.collection;
    let noted = |next: Option<&Cursor>| {
        next.map(|after| {
            let (deep, after) = (plan.deep, after.clone());
            Place { deep, after }.cursor()
        })
    };
    loop {
        let slice = collection.collect_metadata(over.cx(), &plan, next.as_ref(), over.options.names);
        let slice = match slice.await {
            Ok(slice) => slice,
            Err(fault) => {
                // Whoever comes next need not wait until this pass would have shown a sign of life. That this too
                // fails is to be expected of a store that has just failed.
                if let Some(pass) = pass {
                    let noted = noted(next.as_ref());
                    drop(collection.checkpoint(over.cx(), pass, noted.as_ref(), over.now()).await);
                }
                return told.step_failed("the names cannot be gone through", fault);
            }
        };
        next = slice.next;
        told.report.metadata += slice.statistics;
        let stop = told.tell().is_break();
        if let Some(pass) = pass {
            let until = if stop { over.now() } else { lease(over) };
            let noted = noted(next.as_ref());
            match collection.checkpoint(over.cx(), pass, noted.as_ref(), until).await {
                Ok(true) => {}
                Ok(false) => {
                    told.report.busy_until = Some(over.now());
                    return;
                }
                Err(fault) => return told.step_failed("how far the pass has come cannot be noted", fault),
            }
        }
        if stop || next.is_none() {
            return;
        }
    }
}
