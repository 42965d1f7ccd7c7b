//! Expired upload sessions.

use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::progress::RunningReport;
use super::run::CollectionSetup;
use crate::store::StoreError;
use crate::store::collection::remains;
use crate::store::sessions::{Session, SessionKey};

pub(super) async fn sweep_expired(setup: &CollectionSetup<'_>, running: &mut RunningReport<'_>) {
    running.begin_step();
    let CollectionSetup { stores, options, .. } = setup;
    let before = setup.due(options.plan.grace_periods.session_ms);
    let mut after = None;
    loop {
        let page = stores.sessions.expired(setup.cx(), before, after, options.sessions);
        let page = match page.await {
            Ok(page) => page,
            Err(fault) => return running.step_failed("expired uploads cannot be listed", fault),
        };
        let Some((last, _)) = page.last() else {
            return;
        };
        after = Some(*last);
        // Boxed: otherwise the compiler cannot prove that the future is `Send`.
        let ends = page.into_iter().map(|(key, session)| end(setup, key, session).boxed());
        let ends: Vec<_> = ends.collect();
        let mut ends = stream::iter(ends).buffer_unordered(options.at_once);
        while let Some((key, ended)) = ends.next().await {
            match ended {
                Ok(Some(pending_deletions)) => {
                    running.succeeded();
                    running.report.sessions_swept += 1;
                    running.report.objects_scheduled += pending_deletions;
                }
                Ok(None) => {
                    running.succeeded();
                    running.report.sessions_skipped += 1;
                }
                Err(fault) => {
                    let what = || format!("the upload {} cannot be ended", key.id);
                    if running.failed(what, fault).is_break() {
                        return;
                    }
                }
            }
        }
        if running.report_progress().is_break() {
            return;
        }
    }
}

/// Sweeps an expired session. Returns the number of objects that were scheduled for deletion; `None`: the session was
/// skipped.
async fn end(
    setup: &CollectionSetup<'_>,
    key: SessionKey,
    session: Session,
) -> (SessionKey, Result<Option<u64>, StoreError>) {
    let now = setup.now();
    if session.is_claimed(now) {
        return (key, Ok(None));
    }
    if setup.options.plan.dry_run {
        return (key, Ok(Some(remains(key, &session, now).count() as u64)));
    }
    let swept = setup.stores.collection.sweep(setup.cx(), key, &session).await;
    (key, swept)
}
