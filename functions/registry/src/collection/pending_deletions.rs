//! Due pending deletions.

use std::ops::ControlFlow;

use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::progress::RunningReport;
use super::run::CollectionSetup;
use crate::store::blobs::DeletedObjects;
use crate::store::collection::{Clearing, DeletionCheck, PendingDeletion};
use crate::store::{Cursor, StoreError};

/// A pending deletion that was checked, and whether its object is in use.
type Checked = (PendingDeletion, bool);

pub(super) async fn delete_due(setup: &CollectionSetup<'_>, running: &mut RunningReport<'_>) {
    running.begin_step();
    let CollectionSetup { stores, options, .. } = setup;
    let before = setup.due(options.plan.grace_periods.deletion_ms);
    let mut next: Option<Cursor> = None;
    loop {
        let page = stores
            .collection
            .pending_deletions(setup.cx(), before, next.as_ref(), options.pending_deletions);
        let page = match page.await {
            Ok(page) => page,
            Err(fault) => return running.step_failed("the deletion queue cannot be read", fault),
        };
        next = page.next;
        let checked = process_page(setup, running, page.items).await;
        if checked.is_break() || running.report_progress().is_break() || next.is_none() {
            return;
        }
    }
}

/// Processes one page of pending deletions. Breaks when the step is aborted.
async fn process_page(
    setup: &CollectionSetup<'_>,
    running: &mut RunningReport<'_>,
    pending_deletions: Vec<PendingDeletion>,
) -> ControlFlow<()> {
    let mut checked = check_page(setup, running, pending_deletions).await?;
    if !setup.options.plan.dry_run && !checked.is_empty() {
        checked = delete_page(setup, running, checked).await?;
        let pending_deletions: Vec<PendingDeletion> = checked
            .iter()
            .map(|(pending_deletion, _)| pending_deletion.clone())
            .collect();
        if !pending_deletions.is_empty() {
            match setup
                .stores
                .collection
                .remove_pending_deletions(setup.cx(), &pending_deletions)
                .await
            {
                Ok(()) => running.succeeded(),
                // The objects are deleted or in use. The next run deletes the pending deletions.
                Err(fault) => running.failed(|| "pending deletions cannot be removed".to_owned(), fault)?,
            }
        }
    }
    let in_use = checked.iter().filter(|(_, in_use)| *in_use).count() as u64;
    running.report.deletions_cancelled += in_use;
    running.report.objects_deleted += checked.len() as u64 - in_use;
    ControlFlow::Continue(())
}

/// Checks a page of pending deletions. Returns those that can be processed now.
async fn check_page(
    setup: &CollectionSetup<'_>,
    running: &mut RunningReport<'_>,
    pending_deletions: Vec<PendingDeletion>,
) -> ControlFlow<(), Vec<Checked>> {
    // Boxed: otherwise the compiler cannot prove that the future is `Send`.
    let checks = pending_deletions
        .into_iter()
        .map(|pending_deletion| check_one(setup, pending_deletion).boxed());
    let checks: Vec<_> = checks.collect();
    let mut checks = stream::iter(checks).buffer_unordered(setup.options.at_once);
    let mut checked = Vec::new();
    while let Some((pending_deletion, check)) = checks.next().await {
        match check {
            Ok(check) => {
                running.succeeded();
                match check {
                    DeletionCheck::Due => checked.push((pending_deletion, false)),
                    DeletionCheck::InUse => checked.push((pending_deletion, true)),
                    DeletionCheck::Changed => {}
                }
            }
            Err(fault) => running.failed(
                || {
                    format!(
                        "the pending deletion of {} cannot be read",
                        pending_deletion.location.key
                    )
                },
                fault,
            )?,
        }
    }
    ControlFlow::Continue(checked)
}

async fn check_one(
    setup: &CollectionSetup<'_>,
    pending_deletion: PendingDeletion,
) -> (PendingDeletion, Result<DeletionCheck, StoreError>) {
    let check = setup
        .stores
        .collection
        .check_pending_deletion(setup.cx(), &pending_deletion)
        .await;
    (pending_deletion, check)
}

/// Deletes and tidies up many objects at once. If that fails, tries each alone, to find those that cannot be deleted.
/// Returns the pending deletions whose objects were processed.
async fn delete_page(
    setup: &CollectionSetup<'_>,
    running: &mut RunningReport<'_>,
    checked: Vec<Checked>,
) -> ControlFlow<(), Vec<Checked>> {
    if let Ok(deleted) = delete_all(setup, &checked).await {
        running.succeeded();
        running.deleted(deleted);
        return ControlFlow::Continue(checked);
    }
    // The failed call may have deleted some objects, and has not reported them.
    running.deleted(None);
    let each = checked.into_iter().map(|one| delete_one(setup, one).boxed());
    let each: Vec<_> = each.collect();
    let mut each = stream::iter(each).buffer_unordered(setup.options.at_once);
    let mut processed = Vec::new();
    while let Some((one, outcome)) = each.next().await {
        match outcome {
            Ok(deleted) => {
                running.succeeded();
                running.deleted(deleted);
                processed.push(one);
            }
            Err(fault) => {
                let (PendingDeletion { location, .. }, in_use) = &one;
                let what = || {
                    if *in_use {
                        format!("unfinished writes beside the object {} cannot be deleted", location.key)
                    } else {
                        format!("the object {} cannot be deleted", location.key)
                    }
                };
                // Its pending deletion stays, so that the next run deletes the object again.
                running.failed(what, fault)?;
            }
        }
    }
    ControlFlow::Continue(processed)
}

async fn delete_one(
    setup: &CollectionSetup<'_>,
    one: Checked,
) -> (Checked, Result<Option<DeletedObjects>, StoreError>) {
    let processed = delete_all(setup, std::slice::from_ref(&one)).await;
    (one, processed)
}

/// Deletes the objects that are not in use, and tidies up beside the others. Returns what was deleted, if the store has
/// reported it.
async fn delete_all(setup: &CollectionSetup<'_>, checked: &[Checked]) -> Result<Option<DeletedObjects>, StoreError> {
    let Clearing { to_delete, kept } = checked.iter().cloned().collect();
    let blobs = &setup.stores.blobs;
    let mut deleted = None;
    if !to_delete.is_empty() {
        deleted = blobs.delete(setup.cx(), &to_delete).await?;
    }
    if !kept.is_empty() {
        blobs.tidy(setup.cx(), &kept).await?;
    }
    Ok(deleted)
}
