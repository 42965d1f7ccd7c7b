//! Graves that are due.

use std::ops::ControlFlow;

use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::Over;
use super::told::Told;
use crate::store::blobs::Freed;
use crate::store::collection::{Clearing, Grave, Standing};
use crate::store::{Cursor, StoreError};

/// A grave that is to be settled, and whether its object is in use.
type Settled = (Grave, bool);

pub(super) async fn graves(over: &Over<'_>, told: &mut Told<'_>) {
    told.begin();
    let Over { stores, options, .. } = over;
    let before = over.due(options.plan.graces.grave_ms);
    let mut next: Option<Cursor> = None;
    loop {
        let page = stores
            .collection
            .graves(over.cx(), before, next.as_ref(), options.graves);
        let page = match page.await {
            Ok(page) => page,
            Err(fault) => return told.step_failed("the graveyard cannot be read", fault),
        };
        next = page.next;
        let settled = settle(over, told, page.items).await;
        if settled.is_break() || told.tell().is_break() || next.is_none() {
            return;
        }
    }
}

/// Does what is to be done about a page of graves. Breaks when the step is given up.
async fn settle(over: &Over<'_>, told: &mut Told<'_>, graves: Vec<Grave>) -> ControlFlow<()> {
    let mut settled = look(over, told, graves).await?;
    if !over.options.plan.dry_run && !settled.is_empty() {
        settled = clear(over, told, settled).await?;
        let graves: Vec<Grave> = settled.iter().map(|(grave, _)| grave.clone()).collect();
        if !graves.is_empty() {
            match over.stores.collection.forget(over.cx(), &graves).await {
                Ok(()) => told.went(),
                // Its objects are gone or in use, as the next run will find.
                Err(fault) => told.failed(|| "graves cannot be removed".to_owned(), fault)?,
            }
        }
    }
    let spared = settled.iter().filter(|(_, in_use)| *in_use).count() as u64;
    told.report.graves_spared += spared;
    told.report.objects_deleted += settled.len() as u64 - spared;
    ControlFlow::Continue(())
}

/// Those that are settled now.
async fn look(over: &Over<'_>, told: &mut Told<'_>, graves: Vec<Grave>) -> ControlFlow<(), Vec<Settled>> {
    // Boxed, or the compiler cannot tell that the whole may move between threads.
    let looks = graves.into_iter().map(|grave| look_at(over, grave).boxed());
    let looks: Vec<_> = looks.collect();
    let mut looks = stream::iter(looks).buffer_unordered(over.options.at_once);
    let mut settled = Vec::new();
    while let Some((grave, standing)) = looks.next().await {
        match standing {
            Ok(standing) => {
                told.went();
                match standing {
                    Standing::Due => settled.push((grave, false)),
                    Standing::Named => settled.push((grave, true)),
                    Standing::Changed => {}
                }
            }
            Err(fault) => told.failed(|| format!("the grave of {} cannot be read", grave.location.key), fault)?,
        }
    }
    ControlFlow::Continue(settled)
}

async fn look_at(over: &Over<'_>, grave: Grave) -> (Grave, Result<Standing, StoreError>) {
    let standing = over.stores.collection.standing(over.cx(), &grave).await;
    (grave, standing)
}

/// Deletes, and tidies up, many objects at once. When that fails, each alone, to find those that cannot be. The graves
/// whose objects are cleared.
async fn clear(over: &Over<'_>, told: &mut Told<'_>, settled: Vec<Settled>) -> ControlFlow<(), Vec<Settled>> {
    if let Ok(freed) = clear_all(over, &settled).await {
        told.went();
        told.freed(freed);
        return ControlFlow::Continue(settled);
    }
    // Some may be gone by now, and nobody has told of them.
    told.freed(None);
    let each = settled.into_iter().map(|one| clear_one(over, one).boxed());
    let each: Vec<_> = each.collect();
    let mut each = stream::iter(each).buffer_unordered(over.options.at_once);
    let mut cleared = Vec::new();
    while let Some((one, outcome)) = each.next().await {
        match outcome {
            Ok(freed) => {
                told.went();
                told.freed(freed);
                cleared.push(one);
            }
            Err(fault) => {
                let (Grave { location, .. }, in_use) = &one;
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

async fn clear_one(over: &Over<'_>, one: Settled) -> (Settled, Result<Option<Freed>, StoreError>) {
    let cleared = clear_all(over, std::slice::from_ref(&one)).await;
    (one, cleared)
}

/// What was there under the keys that were deleted, if the store has told.
async fn clear_all(over: &Over<'_>, settled: &[Settled]) -> Result<Option<Freed>, StoreError> {
    let Clearing { doomed, kept } = settled.iter().cloned().collect();
    let blobs = &over.stores.blobs;
    let mut freed = None;
    if !doomed.is_empty() {
        freed = blobs.delete(over.cx(), &doomed).await?;
    }
    if !kept.is_empty() {
        blobs.tidy(over.cx(), &kept).await?;
    }
    Ok(freed)
}
