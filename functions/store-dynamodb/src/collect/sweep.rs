//! The end of a session: marked, so that nobody goes on with it; then what it may have left is buried; then its rows go.
//!
//! In this order, because its row is what names its objects until the graves do.

use registry::store::collection::remains;
use registry::store::sessions::{Session, SessionKey, State};
use registry::store::{Context, StoreError};

use super::{delete, graveyard};
use crate::keys;
use crate::mutation::{Mutation, active};
use crate::records::{SessionRow, at_version, names};
use crate::retrying::Requests;
use crate::sessions::change;
use crate::table::{Condition, Consistency, Query, Value, Write};

/// How many part records are removed at a time.
const PARTS_AT_ONCE: usize = 500;

/// Ends the session if it is still as given; the number of graves that were dug.
pub(super) async fn sweep(
    requests: &Requests<'_>,
    cx: Context,
    key: SessionKey,
    session: &Session,
) -> Result<Option<u64>, StoreError> {
    let ended = match session.state {
        State::Open | State::Committing | State::Cancelled => {
            let swept = Session {
                version: session.version + 1,
                state: State::Swept,
                ..session.clone()
            };
            if !change(requests, cx, key, &swept, as_given(session)).await? {
                return Ok(None);
            }
            swept
        }
        // Nobody but sweeps has anything more to do with it.
        State::Done | State::Swept => {
            let item = requests.get(&keys::session(key)).await?;
            let row = item.as_ref().map(SessionRow::read).transpose()?;
            if row.is_none_or(|row| row.version != session.version) {
                return Ok(None);
            }
            session.clone()
        }
    };
    if active(Mutation::BuryLate) {
        forget(requests, key, &ended).await?;
        return Ok(Some(bury(requests, cx, key, &ended).await?));
    }
    let buried = bury(requests, cx, key, &ended).await?;
    forget(requests, key, &ended).await?;
    Ok(Some(buried))
}

/// The row is as it was read. A renewal of a claim does not change the version.
fn as_given(session: &Session) -> Condition {
    let claim = match session.claimed_until {
        Some(until) => Condition::Is(names::CLAIMED_UNTIL, Value::N(until.0)),
        None => Condition::Lacks(names::CLAIMED_UNTIL),
    };
    Condition::All(vec![at_version(session.version), claim])
}

async fn bury(requests: &Requests<'_>, cx: Context, key: SessionKey, session: &Session) -> Result<u64, StoreError> {
    graveyard::bury_all(requests, remains(key, session, cx.now)).await
}

async fn forget(requests: &Requests<'_>, key: SessionKey, session: &Session) -> Result<(), StoreError> {
    let mut query = Query {
        range: keys::parts(key),
        after: None,
        descending: false,
        limit: PARTS_AT_ONCE,
        consistency: Consistency::Strong,
    };
    loop {
        let found = requests.query(&query).await?;
        let parts: Vec<_> = found.items.into_iter().map(|item| delete(item.key)).collect();
        requests.write_all(&parts).await?;
        match found.more_after {
            Some(last) => query.after = Some(last.sort),
            None => break,
        }
    }
    let row = Write::Delete {
        key: keys::session(key),
        condition: at_version(session.version),
    };
    requests.write(&row).await.map(|_| ())
}
