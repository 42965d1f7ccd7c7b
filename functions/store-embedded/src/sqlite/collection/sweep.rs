//! The end of a session that has expired: in one transaction, or, if it had many bodies, in several short ones.

use oci::Digest;
use registry::store::collection::{PendingDeletion, remains};
use registry::store::sessions::{Session, SessionKey, State};
use registry::store::{Context, StoreError};
use rusqlite::params;

use super::super::SqliteStore;
use super::super::rows::{Failure, Rows};
use super::super::sessions::get;
use super::super::values::session_key;
use super::deletion_queue::schedule_deletion;

/// The most graves that one transaction digs, and the most part records that it removes: others wait for a few
/// milliseconds.
const AT_ONCE: usize = 1000;

/// Buries what the attempts of a session may have left, and removes its rows. The number of graves; `None`: the
/// session is not as given, or gone.
pub(super) async fn sweep(
    store: &SqliteStore,
    cx: Context,
    key: SessionKey,
    session: &Session,
) -> Result<Option<u64>, StoreError> {
    let mut left = remains(key, session, cx.now).peekable();
    let mut as_given = session.clone();
    let (mut pending_deletions, mut parts) = (0, 0);
    loop {
        let some: Vec<PendingDeletion> = left.by_ref().take(AT_ONCE).collect();
        pending_deletions += some.len() as u64;
        parts += AT_ONCE;
        let is_last = left.peek().is_none() && parts >= session.progress.parts as usize;
        let step = Step {
            key,
            as_given: as_given.clone(),
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
        as_given = now;
    }
}

/// One transaction of a sweep.
struct Step {
    key: SessionKey,
    as_given: Session,
    pending_deletions: Vec<PendingDeletion>,
    /// Part records with numbers up to this are removed.
    parts: usize,
    is_last: bool,
}

impl Step {
    /// How it leaves the session. `None`: the session is not as it should be, and nothing was done.
    fn take(&self, rows: &Rows<'_>) -> Result<Option<Session>, Failure> {
        let mut session = self.as_given.clone();
        // The whole of it: a renewed claim changes no version.
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
        if session.state == State::Open {
            // Until the next transaction nobody may go on with it: what it would publish is buried without its digest.
            // Sessions in other states take no more bodies, and leave the same when this is cut off.
            session = Session {
                version: session.version + 1,
                state: State::Cancelled,
                claimed_until: None,
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
