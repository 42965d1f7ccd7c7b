//! Collection in memory. One slice of a walk is one transaction, so no operation is ever interrupted, and a deep pass
//! finds no orphaned records.

use std::ops::Bound;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use oci::{Digest, RepositoryName};

use super::metadata::{CatalogRow, MetadataRecords};
use super::{MemoryMetadata, MemorySessions, lock};
use crate::store::collection::{
    Collected, CollectionStore, DeletionCheck, GracePeriods, PassStart, PassStatistics, PendingDeletion, Plan, is_held,
    remains,
};
use crate::store::sessions::{Session, SessionKey};
use crate::store::{Context, Cursor, Location, Slice, StoreError, Timestamp, Uid};

/// Collection over the metadata and sessions in memory.
#[derive(Debug)]
pub struct MemoryCollection {
    metadata: Arc<MemoryMetadata>,
    sessions: Arc<MemorySessions>,
    pass: Mutex<Option<Pass>>,
}

/// A pass that has begun and not ended.
#[derive(Debug)]
struct Pass {
    id: Uid,
    until: Timestamp,
    next: Option<Cursor>,
}

impl MemoryCollection {
    /// Makes a collection over these stores.
    #[must_use]
    pub fn new(metadata: Arc<MemoryMetadata>, sessions: Arc<MemorySessions>) -> Self {
        Self {
            metadata,
            sessions,
            pass: Mutex::default(),
        }
    }
}

/// A position in the walk of a pass. The order is: all links, then all records of objects, so that an object whose last
/// link was deleted is scheduled for deletion in the same pass, then the catalog.
#[derive(Clone, Debug)]
enum WalkPosition {
    Link(RepositoryName, Digest),
    Blob(Digest),
    Repository(RepositoryName),
}

impl WalkPosition {
    fn cursor(&self) -> Cursor {
        Cursor(match self {
            Self::Link(repository, digest) => format!("link {repository} {digest}"),
            Self::Blob(digest) => format!("blob {digest}"),
            Self::Repository(name) => format!("repository {name}"),
        })
    }

    fn parse(cursor: &Cursor) -> Option<Self> {
        let words: Vec<&str> = cursor.0.split(' ').collect();
        match words.as_slice() {
            ["link", repository, digest] => Some(Self::Link(repository.parse().ok()?, digest.parse().ok()?)),
            ["blob", digest] => Some(Self::Blob(digest.parse().ok()?)),
            ["repository", name] => Some(Self::Repository(name.parse().ok()?)),
            _ => None,
        }
    }
}

impl MetadataRecords {
    /// At most `limit` positions after `after`.
    fn positions(&self, after: Option<&WalkPosition>, limit: usize) -> Vec<WalkPosition> {
        let all = || Some(Bound::Unbounded);
        let (links, blobs, catalog) = match after {
            None => (Some(Bound::Unbounded), all(), Bound::Unbounded),
            Some(WalkPosition::Link(repository, digest)) => {
                let behind = Bound::Excluded((repository.clone(), *digest));
                (Some(behind), all(), Bound::Unbounded)
            }
            Some(WalkPosition::Blob(digest)) => (None, Some(Bound::Excluded(*digest)), Bound::Unbounded),
            Some(WalkPosition::Repository(name)) => (None, None, Bound::Excluded(name.clone())),
        };
        let links = links
            .into_iter()
            .flat_map(|from| self.links.range((from, Bound::Unbounded)));
        let links = links.map(|((repository, digest), _)| WalkPosition::Link(repository.clone(), *digest));
        let blobs = blobs
            .into_iter()
            .flat_map(|from| self.blobs.range((from, Bound::Unbounded)));
        let blobs = blobs.map(|(digest, _)| WalkPosition::Blob(*digest));
        let catalog = self.catalog.range((catalog, Bound::Unbounded));
        let catalog = catalog.map(|(name, _)| WalkPosition::Repository(name.clone()));
        links.chain(blobs).chain(catalog).take(limit).collect()
    }

    fn collect_link(
        &mut self,
        cx: Context,
        plan: &Plan,
        repository: &RepositoryName,
        digest: Digest,
        statistics: &mut PassStatistics,
    ) {
        if self.parent(repository, digest).is_some() {
            return;
        }
        let Some(row) = self.links.get_mut(&(repository.clone(), digest)) else {
            return;
        };
        let GracePeriods { link_ms, .. } = plan.grace_periods;
        match row.marked {
            None if cx.now.millis_since(row.at) > link_ms => {
                statistics.marked += 1;
                statistics.marked_bytes += row.link.size;
                if !plan.dry_run {
                    row.marked = Some(cx.now);
                }
            }
            Some(marked) if cx.now.millis_since(marked) > link_ms => {
                statistics.unlinked += 1;
                if !plan.dry_run {
                    self.remove_link(repository, digest);
                }
            }
            Some(_) => {
                statistics.waiting += 1;
                statistics.waiting_bytes += row.link.size;
            }
            None => {}
        }
    }

    fn collect_repository(&mut self, cx: Context, plan: &Plan, name: &RepositoryName, statistics: &mut PassStatistics) {
        let has_manifests = self.manifests.get(name).is_some_and(|of| !of.is_empty());
        let has_links = self.links.keys().any(|(repository, _)| repository == name);
        let stays = |row: &CatalogRow| row.permanent || cx.now.millis_since(row.created) <= plan.grace_periods.link_ms;
        if has_manifests || has_links || self.catalog.get(name).is_none_or(stays) {
            return;
        }
        statistics.repositories += 1;
        if !plan.dry_run {
            self.catalog.remove(name);
        }
    }

    fn is_recorded_location(&self, digest: &Digest, location: &Location) -> bool {
        let blob = self.blobs.get(digest);
        blob.is_some_and(|blob| blob.location == *location)
    }

    fn collect_blob(&mut self, cx: Context, plan: &Plan, digest: Digest, statistics: &mut PassStatistics) {
        if self
            .back_links
            .get(&digest)
            .is_some_and(|linking_repositories| !linking_repositories.is_empty())
        {
            return;
        }
        let Some(blob) = self.blobs.get(&digest).cloned() else {
            return;
        };
        statistics.scheduled += 1;
        statistics.scheduled_bytes += blob.size;
        if !plan.dry_run {
            self.schedule_deletion(PendingDeletion {
                location: blob.location,
                digest: Some(digest),
                unfinished: false,
                at: cx.now,
            });
            self.blobs.remove(&digest);
            self.back_links.remove(&digest);
        }
    }
}

#[async_trait]
impl CollectionStore for MemoryCollection {
    async fn begin_pass(&self, cx: Context, pass: Uid, until: Timestamp) -> Result<PassStart, StoreError> {
        let mut current = lock(&self.pass);
        let next = match current.take() {
            Some(held) if held.id != pass && is_held(held.until, cx.now) => {
                let busy = PassStart::Busy(held.until);
                *current = Some(held);
                return Ok(busy);
            }
            held => held.and_then(|held| held.next),
        };
        *current = Some(Pass {
            id: pass,
            until,
            next: next.clone(),
        });
        Ok(next.map_or(PassStart::New, PassStart::Resumed))
    }

    async fn checkpoint(
        &self,
        _cx: Context,
        pass: Uid,
        next: Option<&Cursor>,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut current = lock(&self.pass);
        if current.as_ref().is_none_or(|held| held.id != pass) {
            return Ok(false);
        }
        *current = next.map(|next| Pass {
            id: pass,
            until,
            next: Some(next.clone()),
        });
        Ok(true)
    }

    async fn collect_metadata(
        &self,
        cx: Context,
        plan: &Plan,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Collected, StoreError> {
        let unreadable = || StoreError::failed("not a cursor of this store");
        let after = after.map(|after| WalkPosition::parse(after).ok_or_else(unreadable));
        let after = after.transpose()?;
        let mut records = self.metadata.begin();
        let positions = records.positions(after.as_ref(), limit);
        let mut statistics = PassStatistics {
            seen: positions.len() as u64,
            ..PassStatistics::default()
        };
        for position in &positions {
            match position {
                WalkPosition::Link(repository, digest) => {
                    records.collect_link(cx, plan, repository, *digest, &mut statistics);
                }
                WalkPosition::Blob(digest) => records.collect_blob(cx, plan, *digest, &mut statistics),
                WalkPosition::Repository(name) => records.collect_repository(cx, plan, name, &mut statistics),
            }
        }
        let last = positions.last().filter(|_| positions.len() == limit);
        Ok(Collected {
            statistics,
            next: last.map(WalkPosition::cursor),
        })
    }

    async fn sweep(&self, cx: Context, key: SessionKey, session: &Session) -> Result<Option<u64>, StoreError> {
        Ok(self.sessions.remove(key, session, || {
            let mut records = self.metadata.begin();
            let mut scheduled = 0;
            for pending_deletion in remains(key, session, cx.now) {
                records.schedule_deletion(pending_deletion);
                scheduled += 1;
            }
            scheduled
        }))
    }

    async fn pending_deletions(
        &self,
        _cx: Context,
        before: Timestamp,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<PendingDeletion>, StoreError> {
        let unreadable = || StoreError::failed("not a cursor of this store");
        let records = self.metadata.begin();
        let after = after.map(|after| after.0.split_once(' ').ok_or_else(unreadable));
        let after = after.transpose()?;
        let after = after.map(|(key, store)| (store.to_owned(), key.to_owned()));
        let following = after.map_or(Bound::Unbounded, Bound::Excluded);
        let pending_deletions = records.deletion_queue.range((following, Bound::Unbounded));
        let due = pending_deletions
            .map(|(_, pending_deletion)| pending_deletion)
            .filter(|pending_deletion| pending_deletion.at < before);
        let items: Vec<PendingDeletion> = due.take(limit).cloned().collect();
        let last = items.last().filter(|_| items.len() == limit);
        let next = last.map(|pending_deletion| {
            Cursor(format!(
                "{} {}",
                pending_deletion.location.key, pending_deletion.location.store
            ))
        });
        Ok(Slice { items, next })
    }

    async fn check_pending_deletion(
        &self,
        _cx: Context,
        pending_deletion: &PendingDeletion,
    ) -> Result<DeletionCheck, StoreError> {
        let records = self.metadata.begin();
        let PendingDeletion { location, digest, .. } = pending_deletion;
        if digest.is_some_and(|digest| records.is_recorded_location(&digest, location)) {
            return Ok(DeletionCheck::InUse);
        }
        let now = records
            .deletion_queue
            .get(&(location.store.clone(), location.key.clone()));
        Ok(if now == Some(pending_deletion) {
            DeletionCheck::Due
        } else {
            DeletionCheck::Changed
        })
    }

    async fn remove_pending_deletions(
        &self,
        _cx: Context,
        pending_deletions: &[PendingDeletion],
    ) -> Result<(), StoreError> {
        let mut records = self.metadata.begin();
        for PendingDeletion { location, at, .. } in pending_deletions {
            let key = (location.store.clone(), location.key.clone());
            if records.deletion_queue.get(&key).is_some_and(|now| now.at == *at) {
                records.deletion_queue.remove(&key);
            }
        }
        Ok(())
    }
}
