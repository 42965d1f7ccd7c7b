//! One slice of the walk over the main table: unreferenced links, blob records without back-links and, in a deep pass,
//! orphaned edges, back-links and lists of references.
//!
//! The walk only nominates records. A record is marked before it is checked for the last time, and is removed only
//! while the mark is present: a request that needs the record clears the mark.

use futures_util::future::try_join_all;
use oci::{Digest, RepositoryName};
use registry::store::collection::{Collected, PassStatistics, PendingDeletion, Plan, YOUNG_MS};
use registry::store::{Location, StoreError, Timestamp, Uid};

use super::cursor;
use crate::deletion_queue;
use crate::keys::{self, RecordKey};
use crate::metadata::{StoreCall, UnlinkOutcome, has_location, has_uid, unmark};
use crate::records::{
    BackLink, BlobRow, DeletionMark, EdgeRow, LinkKind, LinkRow, ListedRow, ManifestRow, MarkPurpose, ReferencesRow,
    attributes,
};
use crate::retrying::WriteOutcome;
use crate::table::{Item, ItemKey, Write, WriteCondition};

/// How many items are processed at once: enough to hide the round trips, and few enough to leave capacity for clients.
pub(super) const AT_ONCE: usize = 16;

/// Processes one page of the table. The walk over the table ends without a next cursor.
pub(super) async fn slice(
    call: &StoreCall<'_>,
    plan: &Plan,
    after: Option<&ItemKey>,
    limit: usize,
) -> Result<Collected, StoreError> {
    let page = call.main.scan(after, limit.max(1)).await?;
    let mut statistics = PassStatistics {
        seen: page.items.len() as u64,
        ..PassStatistics::default()
    };
    for some in page.items.chunks(AT_ONCE) {
        for of_item in try_join_all(some.iter().map(|item| inspect(call, plan, item))).await? {
            statistics += of_item;
        }
    }
    Ok(Collected {
        statistics,
        next: page.more_after.as_ref().map(cursor),
    })
}

async fn inspect(call: &StoreCall<'_>, plan: &Plan, item: &Item) -> Result<PassStatistics, StoreError> {
    let pass = MetadataPass { call, plan };
    match RecordKey::of(&item.key) {
        Some(RecordKey::Link(repository, digest)) => {
            let of_item = pass.link(&repository, &digest, &LinkRow::read(item)?).await?;
            if of_item.unlinked == 0 {
                pass.keep_listed(&repository, None).await?;
            }
            Ok(of_item)
        }
        Some(RecordKey::Listed(repository, _)) => {
            // A missing row is written again: a program that does not know that rows are deleted may have relied on it.
            pass.keep_listed(&repository, Some(ListedRow::read(item)?.at)).await?;
            Ok(PassStatistics::default())
        }
        Some(RecordKey::Blob(digest)) => pass.blob(&digest, &BlobRow::read(item)?).await,
        Some(RecordKey::Edge { repository, .. }) if plan.deep => pass.edge(&repository, item).await,
        Some(RecordKey::BackLink { digest, .. }) if plan.deep => pass.back_link(&digest, item).await,
        Some(RecordKey::References {
            repository,
            digest,
            uid,
            ..
        }) if plan.deep => pass.references(&repository, &digest, uid, item).await,
        _ => Ok(PassStatistics::default()),
    }
}

pub(super) struct MetadataPass<'a> {
    pub(super) call: &'a StoreCall<'a>,
    pub(super) plan: &'a Plan,
}

impl MetadataPass<'_> {
    /// Whether `grace` has passed since `at`.
    pub(super) fn is_past(&self, at: Timestamp, grace: u64) -> bool {
        self.call.cx.now.millis_since(at) >= grace
    }

    async fn keep_listed(&self, repository: &RepositoryName, created: Option<Timestamp>) -> Result<(), StoreError> {
        if self.plan.dry_run {
            return Ok(());
        }
        self.call.keep_listed(repository, created).await
    }

    async fn link(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        row: &LinkRow,
    ) -> Result<PassStatistics, StoreError> {
        let grace = self.plan.grace_periods.link_ms;
        let uid = row.link.uid;
        let mut statistics = PassStatistics::default();
        if !self.is_past(row.at, grace) {
            return Ok(statistics);
        }
        match row.mark {
            Some(mark) if mark.purpose == MarkPurpose::Collection => {
                if self.is_past(mark.at, grace) {
                    statistics.unlinked = self.unlink(repository, digest, uid, &mark).await?.into();
                } else {
                    statistics.waiting = 1;
                    statistics.waiting_bytes = row.link.size;
                }
            }
            // A deletion is running. A mark older than this belongs to an interrupted deletion and is ignored.
            Some(mark) if !self.is_past(mark.at, YOUNG_MS) => {}
            before => {
                if self
                    .call
                    .find_counting_edge(repository, digest, !self.plan.dry_run)
                    .await?
                    .is_some()
                {
                    return Ok(statistics);
                }
                let as_read = before.map_or(WriteCondition::Lacks(attributes::MARK), |mark| mark.is_present());
                let condition = WriteCondition::All(vec![has_uid(uid), as_read]);
                if self.mark(keys::link(repository, digest), &condition).await?.is_some() {
                    statistics.marked = 1;
                    statistics.marked_bytes = row.link.size;
                }
            }
        }
        Ok(statistics)
    }

    async fn unlink(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        uid: Uid,
        mark: &DeletionMark,
    ) -> Result<bool, StoreError> {
        if self.plan.dry_run {
            return Ok(self.call.find_counting_edge(repository, digest, false).await?.is_none());
        }
        let unlinked = self.call.remove_link(repository, digest, uid, mark, None).await?;
        Ok(unlinked == UnlinkOutcome::Removed)
    }

    /// Marks a row on a condition. The outer `None`: the condition did not hold. The inner `None`: a dry run writes
    /// nothing.
    pub(super) async fn mark(
        &self,
        key: ItemKey,
        condition: &WriteCondition,
    ) -> Result<Option<Option<DeletionMark>>, StoreError> {
        if self.plan.dry_run {
            return Ok(Some(None));
        }
        let cx = self.call.cx;
        let mark = |number: u64| DeletionMark {
            purpose: MarkPurpose::Collection,
            at: cx.now,
            // Each try has its own value (see [`DeletionMark`]).
            random: Uid(cx.uid.0.wrapping_add(number)),
        };
        let write = |number| Write::Update {
            key: key.clone(),
            set: vec![(attributes::MARK, mark(number).value())],
            remove: Vec::new(),
            condition: condition.clone(),
        };
        let (answer, number) = self.call.main.write_each(write).await?;
        match answer {
            WriteOutcome::Done => Ok(Some(Some(mark(number)))),
            WriteOutcome::Refused { perhaps_done: false } => Ok(None),
            WriteOutcome::Refused { perhaps_done: true } => {
                // An unanswered try may have written the mark.
                let item = self.call.main.get(&key).await?;
                let found = item.and_then(|item| item.attributes.get(attributes::MARK).cloned());
                let mine = (0..number).map(mark).find(|mark| Some(mark.value()) == found);
                Ok(mine.map(Some))
            }
        }
    }

    async fn has_back_links(&self, digest: &Digest) -> Result<bool, StoreError> {
        let range = keys::back_links(digest);
        let (back_links, _) = self.call.main.first(range, None, false, 1).await?;
        Ok(!back_links.is_empty())
    }

    async fn blob(&self, digest: &Digest, row: &BlobRow) -> Result<PassStatistics, StoreError> {
        let mut statistics = PassStatistics::default();
        // Most blob records have back-links. They are checked before the mark is written.
        if self.has_back_links(digest).await? {
            return Ok(statistics);
        }
        let Some(marked) = self.mark(keys::blob(digest), &has_location(&row.location)).await? else {
            return Ok(statistics);
        };
        let is_removed = match marked {
            None => true,
            Some(mark) => self.schedule_deletion(digest, &row.location, &mark).await?,
        };
        if is_removed {
            statistics.scheduled = 1;
            statistics.scheduled_bytes = row.size;
        }
        Ok(statistics)
    }

    /// Removes a marked blob record without back-links after it has scheduled the deletion of its object. Record and
    /// queue may be in two tables, so that no transaction covers both. An object that is in the queue but still
    /// recorded is kept when it is due.
    async fn schedule_deletion(
        &self,
        digest: &Digest,
        location: &Location,
        mark: &DeletionMark,
    ) -> Result<bool, StoreError> {
        let call = self.call;
        let key = keys::blob(digest);
        if self.has_back_links(digest).await? {
            call.main.write(&unmark(key, mark.is_present())).await?;
            return Ok(false);
        }
        let pending_deletion = PendingDeletion {
            location: location.clone(),
            digest: Some(*digest),
            unfinished: false,
            at: call.cx.now,
        };
        let remove = Write::Delete {
            key,
            condition: mark.is_present(),
        };
        deletion_queue::schedule_deletion(&call.local, &pending_deletion).await?;
        match call.main.write(&remove).await? {
            WriteOutcome::Done => Ok(true),
            WriteOutcome::Refused { perhaps_done: false } => Ok(false),
            // An unanswered try has removed the record, unless only the mark is missing.
            WriteOutcome::Refused { perhaps_done: true } => {
                let item = call.main.get(&keys::blob(digest)).await?;
                let row = item.as_ref().map(BlobRow::read).transpose()?;
                Ok(row.is_none_or(|row| row.location != *location))
            }
        }
    }

    /// The manifest with this uid, if it is published.
    async fn manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        uid: Uid,
    ) -> Result<Option<ManifestRow>, StoreError> {
        let item = self.call.main.get(&keys::manifest(repository, digest)).await?;
        let row = item.as_ref().map(ManifestRow::read).transpose()?;
        Ok(row.filter(|row| row.record.uid == uid))
    }

    /// Removes an orphaned row. The call that wrote it has ended long ago, because the grace period is longer than any
    /// call.
    async fn remove_leftover(&self, key: &ItemKey) -> Result<PassStatistics, StoreError> {
        if !self.plan.dry_run {
            self.call.main.write(&Write::delete(key.clone())).await?;
        }
        Ok(PassStatistics {
            orphaned_records: 1,
            ..PassStatistics::default()
        })
    }

    fn is_young(&self, at: Timestamp) -> bool {
        !self.is_past(at, self.plan.grace_periods.orphan_ms.max(YOUNG_MS))
    }

    async fn edge(&self, repository: &RepositoryName, item: &Item) -> Result<PassStatistics, StoreError> {
        let edge = EdgeRow::read(item)?;
        if self.is_young(edge.at) || self.manifest(repository, &edge.parent, edge.uid).await?.is_some() {
            return Ok(PassStatistics::default());
        }
        self.remove_leftover(&item.key).await
    }

    async fn references(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        uid: Uid,
        item: &Item,
    ) -> Result<PassStatistics, StoreError> {
        let row = ReferencesRow::read(item)?;
        if self.is_young(row.at) || self.manifest(repository, digest, uid).await?.is_some() {
            return Ok(PassStatistics::default());
        }
        self.remove_leftover(&item.key).await
    }

    async fn back_link(&self, digest: &Digest, item: &Item) -> Result<PassStatistics, StoreError> {
        let back_link = BackLink::read(item)?;
        if self.is_young(back_link.at) {
            return Ok(PassStatistics::default());
        }
        let (repository, uid) = (&back_link.repository, back_link.uid);
        let is_in_use = match back_link.link_kind {
            LinkKind::Blob => {
                let link = self.call.main.get(&keys::link(repository, digest)).await?;
                let link = link.as_ref().map(LinkRow::read).transpose()?;
                link.is_some_and(|row| row.link.uid == uid)
            }
            LinkKind::Manifest => {
                let manifest = self.manifest(repository, digest, uid).await?;
                manifest.is_some_and(|row| row.record.content.object().is_some())
            }
        };
        if is_in_use {
            return Ok(PassStatistics::default());
        }
        self.remove_leftover(&item.key).await
    }
}
