//! Lists expired sessions, shard by shard and ordered by expiry within each shard.

use registry::store::sessions::{Session, SessionKey};
use registry::store::{StoreError, Timestamp};

use crate::keys::{self, SHARDS};
use crate::records::SessionRow;
use crate::retrying::Requests;
use crate::table::{Consistency, RangeQuery};

/// The maximum number of rows in one page.
const PAGE: usize = 1000;

/// At most `limit` sessions after `after` that expired before `before`.
pub(super) async fn expired(
    requests: &Requests<'_>,
    before: Timestamp,
    after: Option<SessionKey>,
    limit: usize,
) -> Result<Vec<(SessionKey, Session)>, StoreError> {
    let mut found = Vec::new();
    let first = after.map_or(0, shard_of);
    for shard in first..SHARDS {
        // The part records of a session are between its row and the next session.
        let start = after.filter(|_| shard == first).map(|session| keys::parts(session).to);
        due(requests, shard, before, start, limit, &mut found).await?;
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

/// Adds the expired sessions of one shard to `found`.
async fn due(
    requests: &Requests<'_>,
    shard: u8,
    before: Timestamp,
    start: Option<String>,
    limit: usize,
    found: &mut Vec<(SessionKey, Session)>,
) -> Result<(), StoreError> {
    let mut query = RangeQuery {
        range: keys::sessions_due(shard, before),
        after: start,
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
        // A session may have thousands of part records. The next page starts after them.
        query.after = Some(last.map_or(more.sort, |session| keys::parts(session).to));
    }
    Ok(())
}
