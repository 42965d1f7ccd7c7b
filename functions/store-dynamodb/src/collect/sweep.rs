//! The expiry of a session: mark it as swept, so that no request continues it; schedule the deletion of its objects;
//! delete its rows.
//!
//! The row is deleted last. Until the deletions are scheduled, the row is the only record of the objects.

use registry::store::collection::remains;
use registry::store::sessions::{Session, SessionKey, State};
use registry::store::{Context, StoreError};

use crate::deletion_queue;
use crate::keys;
use crate::records::{SessionRow, attributes, has_version};
use crate::retrying::Requests;
use crate::sessions::change;
use crate::table::{Consistency, RangeQuery, Value, Write, WriteCondition};

/// How many objects are scheduled before the row records the progress.
const STEP: usize = 1000;

/// How many part records are removed at a time.
const PARTS_PER_PAGE: usize = 500;

/// Ends the session if it is still as given. Returns the number of objects that were scheduled for deletion; `None`:
/// the session has changed, or another call must continue.
pub(super) async fn sweep(
    requests: &Requests<'_>,
    cx: Context,
    key: SessionKey,
    session: &Session,
) -> Result<Option<u64>, StoreError> {
    let ended = match session.state {
        State::Open { .. } | State::Committing(_) | State::Published(_) | State::Cancelled(_) => {
            let swept = Session {
                version: session.version + 1,
                state: State::Swept(session.state.publishing().cloned()),
                ..session.clone()
            };
            if !change(requests, cx, key, &swept, is_unchanged(session)).await? {
                return Ok(None);
            }
            swept
        }
        // Only sweeps still change such a session.
        State::Done(_) | State::Swept(_) => {
            let item = requests.get(&keys::session(key)).await?;
            let row = item.as_ref().map(SessionRow::read).transpose()?;
            if row.is_none_or(|row| row.version != session.version) {
                return Ok(None);
            }
            session.clone()
        }
    };
    let Some((scheduled, ended)) = schedule_in_steps(requests, cx, key, ended).await? else {
        return Ok(None);
    };
    delete_rows(requests, key, &ended).await?;
    Ok(Some(scheduled))
}

/// Schedules the deletion of the session's objects, for at most half of the call's time, and records in the row how
/// many are left. So several passes together end an upload of any number of attempts, and a later pass does not reset
/// the time of what an earlier one has scheduled. `None`: there is more to do, or another call does it.
async fn schedule_in_steps(
    requests: &Requests<'_>,
    cx: Context,
    key: SessionKey,
    mut session: Session,
) -> Result<Option<(u64, Session)>, StoreError> {
    let mut left = remains(key, &session, cx.now).count();
    let mut pending_deletions = remains(key, &session, cx.now);
    let mut scheduled = 0;
    loop {
        let step = deletion_queue::schedule_deletions(requests, pending_deletions.by_ref().take(STEP)).await?;
        scheduled += step;
        left -= usize::try_from(step).unwrap_or(left);
        if left == 0 {
            return Ok(Some((scheduled, session)));
        }
        // The first attempts are left.
        let rest = Session {
            version: session.version + 1,
            attempts: u32::try_from(left).unwrap_or(session.attempts),
            ..session.clone()
        };
        if !change(requests, cx, key, &rest, has_version(session.version)).await? || requests.is_half_over() {
            return Ok(None);
        }
        session = rest;
    }
}

/// The condition that the row is as it was read. It includes the claim, because a renewal does not change the version.
fn is_unchanged(session: &Session) -> WriteCondition {
    let claim = match session.claimed_until() {
        Some(until) => WriteCondition::Is(attributes::CLAIMED_UNTIL, Value::N(until.0)),
        None => WriteCondition::Lacks(attributes::CLAIMED_UNTIL),
    };
    WriteCondition::All(vec![has_version(session.version), claim])
}

async fn delete_rows(requests: &Requests<'_>, key: SessionKey, session: &Session) -> Result<(), StoreError> {
    let mut query = RangeQuery {
        range: keys::parts(key),
        after: None,
        descending: false,
        limit: PARTS_PER_PAGE,
        consistency: Consistency::Strong,
    };
    loop {
        let found = requests.query(&query).await?;
        let parts: Vec<_> = found.items.into_iter().map(|item| Write::delete(item.key)).collect();
        requests.write_all(&parts).await?;
        match found.more_after {
            Some(last) => query.after = Some(last.sort),
            None => break,
        }
    }
    let row = Write::Delete {
        key: keys::session(key),
        condition: has_version(session.version),
    };
    requests.write(&row).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use async_trait::async_trait;
    use registry::store::sessions::Progress;
    use registry::store::{SessionId, Timestamp, Uid};

    use super::*;
    use crate::memory::MemoryTable;
    use crate::retrying::{RetryEnvironment, TableClient};

    /// A clock that advances by one second each time it is read.
    #[derive(Default)]
    struct SteppingClock(AtomicU64);

    #[async_trait]
    impl RetryEnvironment for SteppingClock {
        fn elapsed(&self) -> Duration {
            Duration::from_millis(self.0.fetch_add(1000, Ordering::SeqCst))
        }

        async fn sleep(&self, time: Duration) {
            self.0
                .fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
        }

        async fn alarm(&self, _at: Duration) {
            std::future::pending::<()>().await;
        }

        fn random(&self) -> u64 {
            self.0.fetch_add(1, Ordering::SeqCst)
        }
    }

    #[tokio::test]
    async fn an_upload_of_many_attempts_is_swept_over_several_calls() {
        const BODIES: u32 = 20_500;
        let client = TableClient::new(Arc::new(MemoryTable::new()), Arc::new(SteppingClock::default()));
        // One step takes a second.
        let cx = |pass: u64| Context::internal(Timestamp(1_900_000_000_000 + pass), 10_000, Uid(pass + 1));
        let key = SessionKey {
            expires: Timestamp(1),
            id: SessionId(7),
        };
        let session = Session {
            version: 9,
            state: State::Cancelled(None),
            attempts: BODIES,
            progress: Progress::default(),
        };
        let put = Write::Put {
            item: SessionRow::item(key, &session),
            condition: WriteCondition::Always,
        };
        client.within(cx(0)).write(&put).await.unwrap();
        let mut passes = 0;
        loop {
            let requests = client.within(cx(passes));
            let item = requests.get(&keys::session(key)).await.unwrap();
            let Some(item) = item else { break };
            let row = SessionRow::read(&item).unwrap();
            drop(sweep(&requests, cx(passes), key, &row).await);
            passes += 1;
            assert!(passes < 100, "the sweep comes to an end");
        }
        assert!(passes > 2, "{passes}");
        let mut scheduled = BTreeMap::new();
        let mut next = None;
        loop {
            let requests = client.within(cx(0));
            let far = Timestamp(u64::MAX);
            let found = deletion_queue::slice(&requests, far, next.as_ref(), 1000)
                .await
                .unwrap();
            for pending_deletion in found.items {
                assert!(pending_deletion.unfinished);
                *scheduled.entry(pending_deletion.at).or_insert(0) += 1;
            }
            next = found.next;
            if next.is_none() {
                break;
            }
        }
        assert_eq!(scheduled.values().sum::<u32>(), BODIES);
        // A call may end after it has begun one step and before it has recorded that step.
        let step = u32::try_from(STEP).unwrap();
        assert!(scheduled.values().all(|of_a_call| *of_a_call >= 1), "{scheduled:?}");
        assert!(
            scheduled.values().filter(|of_a_call| **of_a_call >= step).count() >= 2,
            "{scheduled:?}"
        );
    }
}
