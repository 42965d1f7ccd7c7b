//! Removals: mark the target, then look for back-references; delete the target only if the mark is still one's own.

use oci::{Digest, RepositoryName, Tag};
use registry::store::access::Author;
use registry::store::collection::YOUNG_MS;
use registry::store::metadata::{Protected, Removal, TagGuard};
use registry::store::{StoreError, Uid};

use super::StoreCall;
use super::commit::{has_uid, unmark};
use super::tags::{ITEMS_PER_TAG, ReadTag};
use crate::keys::{self, RecordKey};
use crate::records::{
    DeletionMark, EdgeRow, ManifestRow, MarkPurpose, ReferenceList, attributes, damaged, has_version,
};
use crate::retrying::WriteOutcome;
use crate::table::{
    Consistency, ITEM_BYTES, ItemKey, RangeQuery, TRANSACTION_BYTES, TRANSACTION_ITEMS, Write, WriteCondition, Written,
};

/// The maximum number of tags in one transaction, together with the other items of a deletion.
const TAGS_AT_ONCE: usize = 20;
// The manifest, its row in the list, its row under its subject, and the event.
const _: () = assert!(TAGS_AT_ONCE * ITEMS_PER_TAG + 4 <= TRANSACTION_ITEMS);
// A put writes as much as a deletion removes: the manifest, its row under its subject, for each tag some small rows, and
// the event, which lists the tags.
const _: () = assert!(2 * ITEM_BYTES + (TAGS_AT_ONCE * (ITEMS_PER_TAG + 1) + 2) * 4096 <= TRANSACTION_BYTES);

/// How many edges are read in one page.
const EDGES_AT_ONCE: usize = 100;

/// The outcome of the removal of a link that has the remover's mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnlinkOutcome {
    /// The link was removed.
    Removed,
    /// This manifest refers to the link. The link stays, and its mark was cleared.
    Referenced(Digest),
    /// Another request has cleared or replaced the mark.
    MarkGone,
}

/// The outcome of the removal of a manifest that has the remover's mark.
enum ManifestRemoval {
    /// The manifest was removed.
    Removed,
    /// The guard refuses the deletion of a tag of the manifest.
    Protected(Protected),
    /// The manifest was put again meanwhile, or a tag was moved.
    Changed,
}

/// The writes that make a manifest invisible, without those of its tags.
fn unpublication(repository: &RepositoryName, digest: &Digest, row: &ManifestRow, mark: &DeletionMark) -> Vec<Write> {
    let mut writes = vec![
        Write::Delete {
            key: keys::manifest(repository, digest),
            condition: WriteCondition::All(vec![mark.is_present(), has_version(row.version)]),
        },
        Write::delete(keys::listed(repository, digest)),
    ];
    if let Some(subject) = &row.record.subject {
        writes.push(Write::delete(keys::referrer(repository, subject, digest)));
    }
    writes
}

impl StoreCall<'_> {
    /// A manifest whose edge to `target` counts. An edge counts if it is younger than [`YOUNG_MS`], so that its put may
    /// still be running, or if its manifest is published under the uid of the edge. With `tidy`, edges that do not
    /// count are removed on the way.
    pub(crate) async fn find_counting_edge(
        &self,
        repository: &RepositoryName,
        target: &Digest,
        tidy: bool,
    ) -> Result<Option<Digest>, StoreError> {
        let mut query = RangeQuery {
            range: keys::edges(repository, target),
            after: None,
            descending: false,
            limit: EDGES_AT_ONCE,
            consistency: Consistency::Strong,
        };
        loop {
            let found = self.main.query(&query).await?;
            let mut orphaned_records = Vec::new();
            for item in &found.items {
                let edge = EdgeRow::read(item)?;
                if self.counts(repository, &edge).await? {
                    return Ok(Some(edge.parent));
                }
                orphaned_records.push(Write::delete(item.key.clone()));
            }
            if tidy {
                self.main.write_all(&orphaned_records).await?;
            }
            match found.more_after {
                Some(last) => query.after = Some(last.sort),
                None => return Ok(None),
            }
        }
    }

    async fn counts(&self, repository: &RepositoryName, edge: &EdgeRow) -> Result<bool, StoreError> {
        let young = self.cx.now.millis_since(edge.at) < YOUNG_MS;
        if young {
            return Ok(true);
        }
        let parent = self.read_manifest(repository, &edge.parent).await?;
        Ok(parent.is_some_and(|parent| parent.record.uid == edge.uid))
    }

    /// Marks a row on a condition; `None`: the condition did not hold.
    async fn mark(
        &self,
        key: &ItemKey,
        round: u64,
        condition: &WriteCondition,
    ) -> Result<Option<DeletionMark>, StoreError> {
        let mark = |number: u64| DeletionMark {
            purpose: MarkPurpose::Delete,
            at: self.cx.now,
            // Each round and each try has its own value.
            random: self.uid((round << 32) + number),
        };
        let write = |number| Write::Update {
            key: key.clone(),
            set: vec![(attributes::MARK, mark(number).value())],
            remove: Vec::new(),
            condition: condition.clone(),
        };
        let (answer, number) = self.main.write_each(write).await?;
        Ok(answer.is_done().then(|| mark(number)))
    }

    pub(super) async fn unlink(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        author: &Author,
    ) -> Result<Removal, StoreError> {
        let key = keys::link(repository, digest);
        let mut round = 0;
        while let Some(row) = self.read_link(repository, digest).await? {
            let uid = row.link.uid;
            if let Some(mark) = self.mark(&key, round.into(), &has_uid(uid)).await? {
                match self.remove_link(repository, digest, uid, &mark, Some(author)).await? {
                    UnlinkOutcome::Removed => return Ok(Removal::Removed),
                    UnlinkOutcome::Referenced(parent) => return Ok(Removal::Referenced(parent)),
                    UnlinkOutcome::MarkGone => {}
                }
            }
            self.main.lost_race(round).await?;
            round += 1;
        }
        Ok(Removal::Absent)
    }

    /// Removes a link with this uid that has `mark`, and its back-link, unless an edge to it counts. A removal that an
    /// author asks for has an event.
    pub(crate) async fn remove_link(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        uid: Uid,
        mark: &DeletionMark,
        author: Option<&Author>,
    ) -> Result<UnlinkOutcome, StoreError> {
        let key = keys::link(repository, digest);
        if let Some(parent) = self.find_counting_edge(repository, digest, true).await? {
            self.main.write(&unmark(key, mark.is_present())).await?;
            return Ok(UnlinkOutcome::Referenced(parent));
        }
        let remove = Write::Delete {
            key,
            condition: mark.is_present(),
        };
        let outcome = match author {
            None => self.main.write(&remove).await?,
            Some(author) => {
                let event = author.blob_deleted(self.cx, repository, digest);
                let writes = [self.event(event).await?, remove];
                match self.main.transact(&writes).await? {
                    Written::Done => WriteOutcome::Done,
                    // An unanswered try that was applied would have answered the next one.
                    Written::Refused(_) => WriteOutcome::Refused { perhaps_done: false },
                }
            }
        };
        match outcome {
            WriteOutcome::Done => {}
            WriteOutcome::Refused { perhaps_done: false } => return Ok(UnlinkOutcome::MarkGone),
            WriteOutcome::Refused { perhaps_done: true } => {
                // An unanswered try has removed the link, unless the link still has this uid.
                let now = self.read_link(repository, digest).await?;
                if now.is_some_and(|row| row.link.uid == uid) {
                    return Ok(UnlinkOutcome::MarkGone);
                }
            }
        }
        // The link is removed in any case. If this fails, a deep collection pass finds the back-link.
        if let Err(error) = self.drop_back_link(repository, digest, uid).await {
            tracing::warn!(%error, "could not remove the back-link of a removed link: collection removes it later");
        }
        Ok(UnlinkOutcome::Removed)
    }

    pub(super) async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        author: &Author,
        guard: &dyn TagGuard,
    ) -> Result<Removal, StoreError> {
        let key = keys::manifest(repository, digest);
        let mut round = 0;
        while let Some(row) = self.read_manifest(repository, digest).await? {
            let as_read = WriteCondition::All(vec![has_uid(row.record.uid), has_version(row.version)]);
            if let Some(mark) = self.mark(&key, round.into(), &as_read).await? {
                if let Some(parent) = self.find_counting_edge(repository, digest, true).await? {
                    self.main.write(&unmark(key, mark.is_present())).await?;
                    return Ok(Removal::Referenced(parent));
                }
                let removal = self.remove_manifest(repository, digest, &row, &mark, author, guard);
                match removal.await? {
                    ManifestRemoval::Removed => {
                        // The manifest is removed in any case. If this fails, its edges soon stop counting, and are
                        // collected.
                        if let Err(error) = self.delete_manifest_rows(repository, digest, &row).await {
                            tracing::warn!(%error, "could not remove the edges of a deleted manifest: collection removes them later");
                        }
                        return Ok(Removal::Removed);
                    }
                    ManifestRemoval::Protected(protected) => {
                        self.main.write(&unmark(key, mark.is_present())).await?;
                        return Ok(Removal::Protected(protected));
                    }
                    ManifestRemoval::Changed => {}
                }
            }
            self.main.lost_race(round).await?;
            round += 1;
        }
        Ok(Removal::Absent)
    }

    /// Removes a manifest that has `mark`, and its tags. The last transaction removes the manifest with the last tags; earlier
    /// ones remove more tags in batches, each on condition of the mark. Each has the event of what it removes. The guard is
    /// asked for all tags before the first batch, and again for each batch.
    async fn remove_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        row: &ManifestRow,
        mark: &DeletionMark,
        author: &Author,
        guard: &dyn TagGuard,
    ) -> Result<ManifestRemoval, StoreError> {
        let key = keys::manifest(repository, digest);
        let mut is_allowed = guard.allows_deletions();
        let mut round = 0;
        loop {
            // A manifest may have more tags than one call can remove in its time; the next call continues.
            self.main.in_time()?;
            // The tags are read after the mark was written: a later put that adds a tag clears the mark.
            let (tags, more) = self.some_tags_of(repository, digest, None).await?;
            let seen = self.see_tags(repository, &tags).await?;
            let naming = seen.iter().filter(|tag| tag.refers_to(digest));
            let allowed = naming.clone().map(|tag| tag.check_deleting(self.cx, guard));
            if let Err(protected) = allowed.collect::<Result<(), _>>() {
                return Ok(ManifestRemoval::Protected(protected));
            }
            if more && !is_allowed {
                if let Some(protected) = self.first_refusal(repository, digest, tags.last(), guard).await? {
                    return Ok(ManifestRemoval::Protected(protected));
                }
                is_allowed = true;
            }
            let names: Vec<_> = naming.clone().map(ReadTag::tag).collect();
            let of_tags: Vec<_> = naming
                .flat_map(|tag| tag.deleting(self.cx, repository, author))
                .collect();
            if more && of_tags.is_empty() {
                // All these tags were moved since their rows were read; the moves remove the rows.
                self.main.lost_race(round).await?;
                round += 1;
            }
            let mut writes = if more {
                vec![Write::Check {
                    key: key.clone(),
                    condition: mark.is_present(),
                }]
            } else {
                unpublication(repository, digest, row, mark)
            };
            writes.extend(of_tags);
            let event = match (more, names.is_empty()) {
                (false, _) => Some(author.manifest_deleted(self.cx, repository, digest, names)),
                // The event of each transaction gets an id of its own below.
                (true, false) => Some(author.tags_deleted(self.cx, repository, digest, names, 1)),
                (true, true) => None,
            };
            if let Some(event) = event {
                writes.push(self.event(event).await?);
            }
            if self.main.transact(&writes).await? != Written::Done {
                return Ok(ManifestRemoval::Changed);
            }
            if !more {
                return Ok(ManifestRemoval::Removed);
            }
        }
    }

    /// Asks the guard for all tags of a manifest after `after`, and returns its first refusal.
    async fn first_refusal(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        after: Option<&Tag>,
        guard: &dyn TagGuard,
    ) -> Result<Option<Protected>, StoreError> {
        let mut after = after.cloned();
        loop {
            self.main.in_time()?;
            let (tags, more) = self.some_tags_of(repository, digest, after.as_ref()).await?;
            let seen = self.see_tags(repository, &tags).await?;
            let naming = seen.iter().filter(|tag| tag.refers_to(digest));
            let refused = naming
                .map(|tag| tag.check_deleting(self.cx, guard))
                .find_map(Result::err);
            if refused.is_some() || !more {
                return Ok(refused);
            }
            after = tags.into_iter().last().or(after);
        }
    }

    /// Some tags that name a manifest, after `after`, and whether there are more.
    async fn some_tags_of(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        after: Option<&Tag>,
    ) -> Result<(Vec<Tag>, bool), StoreError> {
        let range = keys::all_tagged(repository, digest);
        let after = after.map(|tag| keys::tagged(repository, digest, tag).sort);
        let (items, more) = self.main.first(range, after, false, TAGS_AT_ONCE).await?;
        let tags = items.iter().map(|item| match RecordKey::of(&item.key) {
            Some(RecordKey::Tagged(_, _, tag)) => Ok(tag),
            _ => Err(damaged(&item.key, "not a row of a tag")),
        });
        Ok((tags.collect::<Result<_, _>>()?, more))
    }

    /// Deletes the other rows of a manifest under one uid: its edges, the lists of them, and its back-link.
    async fn delete_manifest_rows(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        row: &ManifestRow,
    ) -> Result<(), StoreError> {
        let uid = row.record.uid;
        let targets = self.references_of(repository, digest, row).await?;
        let edges = targets.iter().map(|target| keys::edge(repository, target, digest, uid));
        let mut writes: Vec<Write> = edges.map(Write::delete).collect();
        if row.record.content.object().is_some() {
            writes.push(Write::delete(keys::back_link(digest, repository, uid)));
        }
        self.main.write_all(&writes).await?;
        // Deleted last, because a repetition needs the lists to find the edges.
        if let ReferenceList::Separate(rows) = row.references {
            let rows = (0..rows).map(|row| keys::references(repository, digest, uid, row));
            self.main
                .write_all(&rows.map(Write::delete).collect::<Vec<_>>())
                .await?;
        }
        Ok(())
    }
}
