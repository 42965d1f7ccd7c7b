//! The sweep of an expired session. It is one transaction, or several short ones if the session had many bodies.

use oci::Digest;
use registry::store::collection::{PendingDeletion, remains};
use registry::store::sessions::{Session, SessionKey, State};
use registry::store::{Context, StoreError};
use rusqlite::params;

use super::super::SqliteStore;
use super::super::deletion_queue::schedule_deletion;
use super::super::rows::{OperationFailure, Rows};
use super::super::sessions::get;
use super::super::values::session_key;

/// The maximum number of deletions that one transaction schedules, and of part records that it removes. Other writes
/// wait some milliseconds for it.
const MAX_IN_TRANSACTION: usize = 1000;

/// Schedules the deletion of all objects that the attempts of a session may have made, and removes the session's rows.
/// Returns the number of scheduled deletions. `None`: the session has changed or does not exist.
pub(super) async fn sweep(
    store: &SqliteStore,
    cx: Context,
    key: SessionKey,
    session: &Session,
) -> Result<Option<u64>, StoreError> {
    let mut left = remains(key, session, cx.now).peekable();
    let mut expected = session.clone();
    let (mut pending_deletions, mut parts) = (0, 0);
    loop {
        let some: Vec<PendingDeletion> = left.by_ref().take(MAX_IN_TRANSACTION).collect();
        pending_deletions += some.len() as u64;
        parts += MAX_IN_TRANSACTION;
        let is_last = left.peek().is_none() && parts >= session.progress.parts as usize;
        let step = SweepStep {
            key,
            expected: expected.clone(),
            pending_deletions: some,
            parts,
            is_last,
        };
        let Some(now) = store.write(cx, move |rows| step.take(rows)).await? else {
            return Ok(None);
        };
        if is_last {
            return Ok(Some(pending_deletions));
        }
        expected = now;
    }
}

/// One transaction of a sweep.
struct SweepStep {
    key: SessionKey,
    expected: Session,
    pending_deletions: Vec<PendingDeletion>,
    /// Part records up to this number are removed.
    parts: usize,
    is_last: bool,
}

impl SweepStep {
    /// Runs the step, and returns the new session. `None`: the session has changed, and nothing was done.
    fn take(&self, rows: &Rows<'_>) -> Result<Option<Session>, OperationFailure> {
        let mut session = self.expected.clone();
        // All fields are compared, because renewing a claim does not change the version.
        if get(rows, self.key)?.as_ref() != Some(&session) {
            return Ok(None);
        }
        for pending_deletion in &self.pending_deletions {
            let digest = pending_deletion.digest.as_ref().map(Digest::to_string);
            schedule_deletion(
                rows,
                pending_deletion.at,
                &pending_deletion.location,
                digest.as_deref(),
                pending_deletion.unfinished,
            )?;
        }
        let (expires, id) = session_key(self.key);
        let parts = i64::try_from(self.parts).unwrap_or(i64::MAX);
        if self.is_last {
            rows.change(
                "DELETE FROM session_part WHERE expires = ?1 AND id = ?2",
                params![expires, id],
            )?;
            rows.change(
                "DELETE FROM session WHERE expires = ?1 AND id = ?2",
                params![expires, id],
            )?;
            return Ok(Some(session));
        }
        rows.change(
            "DELETE FROM session_part WHERE expires = ?1 AND id = ?2 AND number <= ?3",
            params![expires, id, parts],
        )?;
        if session.is_open() {
            // Until the next transaction, no request may continue the session, because what it would publish is
            // scheduled for deletion without its digest. Sessions in other states accept no more bodies, so an
            // interruption leaves them with the same objects.
            session = Session {
                version: session.version + 1,
                state: State::Cancelled(None),
                ..session
            };
            rows.change(
                "UPDATE session SET version = version + 1, state = 'cancelled', claimed_until = NULL \
                 WHERE expires = ?1 AND id = ?2",
                params![expires, id],
            )?;
        }
        Ok(Some(session))
    }
}
