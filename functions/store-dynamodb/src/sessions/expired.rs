//! Which sessions are due, in the order of their shards, and in each of their ends.

use registry::store::sessions::{Session, SessionKey};
use registry::store::{StoreError, Timestamp};

use crate::keys::{self, SHARDS};
use crate::records::SessionRow;
use crate::retrying::Requests;
use crate::table::{Consistency, RangeQuery};

/// The most rows that are looked at in one request.
const PAGE: usize = 1000;

/// At most `limit` sessions that ended before `before`, those behind `after`.
pub(super) async fn expired(
    requests: &Requests<'_>,
    before: Timestamp,
    after: Option<SessionKey>,
    limit: usize,
) -> Result<Vec<(SessionKey, Session)>, StoreError> {
    let mut found = Vec::new();
    let first = after.map_or(0, shard_of);
    for shard in first..SHARDS {
        // The part records of a session lie between it and the next.
        let behind = after.filter(|_| shard == first).map(|session| keys::parts(session).to);
        due(requests, shard, before, behind, limit, &mut found).await?;
        if found.len() == limit {
            break;
        }
    }
    Ok(found)
}

/// See [`keys::session`].
fn shard_of(session: SessionKey) -> u8 {
    session.id.0.to_be_bytes()[0] >> 4
}

/// Adds the sessions of one shard.
async fn due(
    requests: &Requests<'_>,
    shard: u8,
    before: Timestamp,
    behind: Option<String>,
    limit: usize,
    found: &mut Vec<(SessionKey, Session)>,
) -> Result<(), StoreError> {
    let mut query = RangeQuery {
        range: keys::sessions_due(shard, before),
        after: behind,
        descending: false,
        limit: PAGE,
        consistency: Consistency::Strong,
    };
    while found.len() < limit {
        if query.after.as_ref().is_some_and(|after| *after > query.range.to) {
            break;
        }
        query.limit = (limit - found.len()).min(PAGE);
        let page = requests.query(&query).await?;
        let mut last = None;
        for item in &page.items {
            if let Some(key) = SessionRow::key(item) {
                found.push((key, SessionRow::read(item)?));
                last = Some(key);
            }
        }
        let Some(more) = page.more_after else { break };
        // A session may have thousands of part records: they are stepped over, not read through.
        query.after = Some(last.map_or(more.sort, |session| keys::parts(session).to));
    }
    Ok(())
}
