//! Graves that are due.

use std::ops::ControlFlow;

use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::progress::RunningReport;
use super::run::Over;
use crate::store::blobs::DeletedObjects;
use crate::store::collection::{Clearing, PendingDeletion, Standing};
use crate::store::{Cursor, StoreError};

/// A grave that is to be settled, and whether its object is in use.
type Settled = (PendingDeletion, bool);

pub(super) async fn delete_due(over: &Over<'_>, told: &mut RunningReport<'_>) {
    told.begin();
    let Over { stores, options, .. } = over;
    let before = over.due(options.plan.grace_periods.deletion_ms);
    let mut next: Option<Cursor> = None;
    loop {
        let page = stores
            .collection
            .pending_deletions(over.cx(), before, next.as_ref(), options.pending_deletions);
        let page = match page.await {
            Ok(page) => page,
            Err(fault) => return told.step_failed("the graveyard cannot be read", fault),
        };
        next = page.next;
        let settled = settle_page(over, told, page.items).await;
        if settled.is_break() || told.tell().is_break() || next.is_none() {
            return;
        }
    }
}

/// Does what is to be done about a page of graves. Breaks when the step is given up.
async fn settle_page(
    over: &Over<'_>,
    told: &mut RunningReport<'_>,
    pending_deletions: Vec<PendingDeletion>,
) -> ControlFlow<()> {
    let mut settled = look(over, told, pending_deletions).await?;
    if !over.options.plan.dry_run && !settled.is_empty() {
        settled = clear(over, told, settled).await?;
        let pending_deletions: Vec<PendingDeletion> = settled
            .iter()
            .map(|(pending_deletion, _)| pending_deletion.clone())
            .collect();
        if !pending_deletions.is_empty() {
            match over.stores.collection.forget(over.cx(), &pending_deletions).await {
                Ok(()) => told.went(),
                // Its objects are gone or in use, as the next run will find.
                Err(fault) => told.failed(|| "graves cannot be removed".to_owned(), fault)?,
            }
        }
    }
    let spared = settled.iter().filter(|(_, in_use)| *in_use).count() as u64;
    told.report.deletions_cancelled += spared;
    told.report.objects_deleted += settled.len() as u64 - spared;
    ControlFlow::Continue(())
}

/// Those that are settled now.
async fn look(
    over: &Over<'_>,
    told: &mut RunningReport<'_>,
    pending_deletions: Vec<PendingDeletion>,
) -> ControlFlow<(), Vec<Settled>> {
    // Boxed, or the compiler cannot tell that the whole may move between threads.
    let looks = pending_deletions
        .into_iter()
        .map(|pending_deletion| look_at(over, pending_deletion).boxed());
    let looks: Vec<_> = looks.collect();
    let mut looks = stream::iter(looks).buffer_unordered(over.options.at_once);
    let mut settled = Vec::new();
    while let Some((pending_deletion, standing)) = looks.next().await {
        match standing {
            Ok(standing) => {
                told.went();
                match standing {
                    Standing::Due => settled.push((pending_deletion, false)),
                    Standing::Named => settled.push((pending_deletion, true)),
                    Standing::Changed => {}
                }
            }
            Err(fault) => told.failed(
                || format!("the grave of {} cannot be read", pending_deletion.location.key),
                fault,
            )?,
        }
    }
    ControlFlow::Continue(settled)
}

async fn look_at(
    over: &Over<'_>,
    pending_deletion: PendingDeletion,
) -> (PendingDeletion, Result<Standing, StoreError>) {
    let standing = over.stores.collection.standing(over.cx(), &pending_deletion).await;
    (pending_deletion, standing)
}

/// Deletes, and tidies up, many objects at once. When that fails, each alone, to find those that cannot be. The graves
/// whose objects are cleared.
async fn clear(over: &Over<'_>, told: &mut RunningReport<'_>, settled: Vec<Settled>) -> ControlFlow<(), Vec<Settled>> {
    if let Ok(deleted) = clear_all(over, &settled).await {
        told.went();
        told.deleted(deleted);
        return ControlFlow::Continue(settled);
    }
    // Some may be gone by now, and nobody has told of them.
    told.deleted(None);
    let each = settled.into_iter().map(|one| clear_one(over, one).boxed());
    let each: Vec<_> = each.collect();
    let mut each = stream::iter(each).buffer_unordered(over.options.at_once);
    let mut cleared = Vec::new();
    while let Some((one, outcome)) = each.next().await {
        match outcome {
            Ok(deleted) => {
                told.went();
                told.deleted(deleted);
                cleared.push(one);
            }
            Err(fault) => {
                let (PendingDeletion { location, .. }, in_use) = &one;
                let what = || {
                    if *in_use {
                        format!("what lies beside the object {} cannot be deleted", location.key)
                    } else {
                        format!("the object {} cannot be deleted", location.key)
                    }
                };
                // What is cleared and not forgotten is cleared again by the next run.
                told.failed(what, fault)?;
            }
        }
    }
    ControlFlow::Continue(cleared)
}

async fn clear_one(over: &Over<'_>, one: Settled) -> (Settled, Result<Option<DeletedObjects>, StoreError>) {
    let cleared = clear_all(over, std::slice::from_ref(&one)).await;
    (one, cleared)
}

/// What was there under the keys that were deleted, if the store has told.
async fn clear_all(over: &Over<'_>, settled: &[Settled]) -> Result<Option<DeletedObjects>, StoreError> {
    let Clearing { to_delete, kept } = settled.iter().cloned().collect();
    let blobs = &over.stores.blobs;
    let mut deleted = None;
    if !to_delete.is_empty() {
        deleted = blobs.delete(over.cx(), &to_delete).await?;
    }
    if !kept.is_empty() {
        blobs.tidy(over.cx(), &kept).await?;
    }
    Ok(deleted)
}
