//! Lists of the audit trail: day by day, the sixteen collections of a day merged in the order of their keys.

use std::ops::ControlFlow;

use futures_util::future::try_join_all;
use registry::store::access::{AuditEvent, AuditQuery};
use registry::store::{Cursor, Slice, StoreError, Timestamp};

use super::day::Day;
use super::keys::{self, EventPosition};
use super::rows::{EventRow, FirstEventRow};
use crate::keys::SHARDS;
use crate::retrying::Requests;

/// The maximum number of times that a slice reads all collections of a day.
const ROUNDS: usize = 32;
/// The difference between the clocks of two instances is less than this. An event may be that much earlier than the first
/// one, and that much later than now.
pub(super) const SKEW_MS: u64 = 60 * 60 * 1000;

/// A list that is asked for: from `position`, exclusive, to `end`, exclusive.
struct List<'a> {
    requests: &'a Requests<'a>,
    query: &'a AuditQuery,
    end: EventPosition,
    /// How many events are read of each collection at once.
    share: usize,
}

pub(super) async fn slice(
    requests: &Requests<'_>,
    now: Timestamp,
    query: &AuditQuery,
    after: Option<&Cursor>,
    limit: usize,
) -> Result<Slice<AuditEvent>, StoreError> {
    let nothing = || Slice {
        items: Vec::new(),
        next: None,
    };
    let mut position = match after {
        Some(cursor) => {
            EventPosition::parse(&cursor.0).ok_or_else(|| StoreError::failed("not a cursor of this store"))?
        }
        None => match first(requests, now, query).await? {
            Some(first) => first,
            None => return Ok(nothing()),
        },
    };
    let latest = now.plus_millis(SKEW_MS);
    let list = List {
        requests,
        query,
        end: EventPosition::before(query.to.map_or(latest, |to| to.min(latest))),
        // The ids of events are random, so that the collections have about the same number of them.
        share: limit.div_ceil(usize::from(SHARDS)) + 4,
    };
    let mut items = Vec::new();
    for _ in 0..ROUNDS {
        if position >= list.end {
            return Ok(Slice { items, next: None });
        }
        position = match list.round(position, limit, &mut items).await? {
            ControlFlow::Continue(position) => position,
            ControlFlow::Break(position) => {
                let next = Some(Cursor(position.sort()));
                return Ok(Slice { items, next });
            }
        };
        if requests.is_half_over() {
            break;
        }
    }
    let next = (position < list.end).then(|| Cursor(position.sort()));
    Ok(Slice { items, next })
}

/// Where the list begins; `None`: there are no events.
async fn first(
    requests: &Requests<'_>,
    now: Timestamp,
    query: &AuditQuery,
) -> Result<Option<EventPosition>, StoreError> {
    let Some(item) = requests.get(&keys::first_event()).await? else {
        return Ok(None);
    };
    let first = FirstEventRow::read(&item)?.0.saturating_sub(SKEW_MS);
    // Rows that have ended are not removed at once.
    let oldest = now.0.saturating_sub(AuditEvent::LIFETIME_MS);
    let from = query.from.map_or(0, |from| from.0);
    Ok(Some(EventPosition::before(Timestamp(from.max(first).max(oldest)))))
}

impl List<'_> {
    /// Reads the next events of the day of `position`, and adds those that are asked for. Continues at the position up to
    /// which everything was read, or breaks at that of the last item of a full slice.
    async fn round(
        &self,
        position: EventPosition,
        limit: usize,
        items: &mut Vec<AuditEvent>,
    ) -> Result<ControlFlow<EventPosition, EventPosition>, StoreError> {
        let day = Day::of(position.at);
        let shards = (0..SHARDS).map(|shard| async move {
            let range = keys::events(day, shard);
            let read = self.requests.first(range, Some(position.sort()), false, self.share);
            let (rows, more) = read.await?;
            let events = rows.iter().map(EventRow::read).collect::<Result<Vec<_>, _>>()?;
            Ok::<_, StoreError>((events, more))
        });
        let mut found = Vec::new();
        // The other events of a collection that has more than were read follow the last one that was read.
        let mut complete = EventPosition::before(day.next().start());
        for (events, more) in try_join_all(shards).await? {
            if let Some(last) = events.last().filter(|_| more) {
                complete = complete.min(EventPosition::of(last));
            }
            found.extend(events);
        }
        found.sort_by_key(EventPosition::of);
        for event in found {
            let position = EventPosition::of(&event);
            if position > complete || position >= self.end {
                break;
            }
            if self.query.matches(&event) {
                items.push(event);
                if items.len() >= limit {
                    return Ok(ControlFlow::Break(position));
                }
            }
        }
        Ok(ControlFlow::Continue(complete))
    }
}
