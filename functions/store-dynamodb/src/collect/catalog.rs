//! The last part of a walk over the metadata: it removes repositories without manifests and links from the catalog.
//!
//! The list of manifests shows whether a repository has manifests; only the walk over the whole table shows whether it
//! has links. So a pass marks the row of a repository without manifests. A later pass, at least [`grace`] later,
//! deletes the row if the mark is still present and the repository still has no manifests. Two kinds of requests clear
//! the mark: those that publish a manifest ([`StoreCall::keep_listed`]), and every pass that meets a link or a manifest
//! of the repository earlier in its walk.
//!
//! The deletion is safe. A publisher relies on its last read of the row, which found no mark, for at most
//! [`REMEMBERED_MS`], and then publishes within the time of one call. The grace period is longer than both together.
//!
//! The row of a repository that was created explicitly is permanent, and no pass deletes it.

use oci::RepositoryName;
use registry::store::collection::{Collected, GracePeriods, PassStatistics, Plan, YOUNG_MS};
use registry::store::{Cursor, StoreError};

use futures_util::future::try_join_all;

use super::cursor;
use super::metadata::{AT_ONCE, MetadataPass};
use crate::keys::{self, RecordKey};
use crate::metadata::{REMEMBERED_MS, StoreCall, unmark};
use crate::records::{CatalogRow, attributes, damaged};
use crate::table::{Item, ItemKey, Write, WriteCondition};

/// The prefix of the cursors in this part of a walk. No repository name begins with it. A program that does not know
/// this part continues after such a key, with the items that the table has there.
const PREFIX: char = '~';

/// The cursor at which this part begins.
pub(super) fn start() -> Cursor {
    position_after("")
}

fn position_after(repository: &str) -> Cursor {
    let mut key = keys::catalog_partition();
    key.sort = format!("{PREFIX}{repository}");
    cursor(&key)
}

/// The repository after which this part continues, empty at its beginning; `None`: the cursor belongs to the table
/// walk.
pub(super) fn position(key: &ItemKey) -> Option<&str> {
    let is_here = key.partition == keys::catalog_partition().partition;
    key.sort.strip_prefix(PREFIX).filter(|_| is_here)
}

/// How long a mark is present before its row is deleted: longer than a publisher may rely on its last read of the row.
fn grace(grace_periods: &GracePeriods) -> u64 {
    grace_periods.link_ms.max(REMEMBERED_MS + YOUNG_MS)
}

/// Processes one page of the catalog.
pub(super) async fn slice(
    call: &StoreCall<'_>,
    plan: &Plan,
    after: &str,
    limit: usize,
) -> Result<Collected, StoreError> {
    let after = Some(after).filter(|after| !after.is_empty()).map(str::to_owned);
    let (items, more) = call
        .main
        .first(keys::repositories(), after, false, limit.max(1))
        .await?;
    let mut statistics = PassStatistics::default();
    let pass = MetadataPass { call, plan };
    for some in items.chunks(AT_ONCE) {
        for done in try_join_all(some.iter().map(|item| pass.inspect_repository(item))).await? {
            statistics += done;
        }
    }
    let last = items.last().filter(|_| more);
    Ok(Collected {
        statistics,
        next: last.map(|item| position_after(&item.key.sort)),
    })
}

impl MetadataPass<'_> {
    async fn inspect_repository(&self, item: &Item) -> Result<PassStatistics, StoreError> {
        let Some(RecordKey::Repository(repository)) = RecordKey::of(&item.key) else {
            return Err(damaged(&item.key, "not a repository"));
        };
        let row = CatalogRow::read(item)?;
        if row.permanent {
            return Ok(PassStatistics::default());
        }
        let grace = grace(&self.plan.grace_periods);
        let mut statistics = PassStatistics::default();
        let since = row.mark.as_ref().map_or(row.created, |mark| mark.at);
        // The walk has just met links or manifests of most repositories.
        if !self.is_past(since, grace) || self.call.is_known_to_be_listed(&repository) {
            return Ok(statistics);
        }
        let has_manifests = self.has_manifests(&repository).await?;
        match row.mark {
            // A publisher that had read the row before the mark has put a manifest.
            Some(mark) if has_manifests => {
                let unmarked = unmark(item.key.clone(), mark.is_present());
                if !self.plan.dry_run {
                    self.call.main.write(&unmarked).await?;
                }
            }
            Some(mark) => {
                if !self.plan.dry_run {
                    let remove = Write::Delete {
                        key: item.key.clone(),
                        condition: mark.is_present(),
                    };
                    if !self.call.main.write(&remove).await?.is_done() {
                        return Ok(statistics);
                    }
                }
                statistics.repositories = 1;
            }
            None if !has_manifests => {
                let unmarked =
                    WriteCondition::All(vec![WriteCondition::Exists, WriteCondition::Lacks(attributes::MARK)]);
                self.mark(item.key.clone(), &unmarked).await?;
            }
            None => {}
        }
        Ok(statistics)
    }

    async fn has_manifests(&self, repository: &RepositoryName) -> Result<bool, StoreError> {
        let (some, _) = self
            .call
            .main
            .first(keys::all_listed(repository), None, false, 1)
            .await?;
        Ok(!some.is_empty())
    }
}
