//! Operations that remove content: tags, manifests, links. Content that a manifest refers to is not removed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use oci::{Digest, RepositoryName, Tag};
use registry::store::access::Author;
use registry::store::metadata::{Protected, Removal, TagGuard, TagRecord};
use registry::store::{Context, StoreError};
use rusqlite::params;

use super::super::SqliteStore;
use super::super::access::record_event;
use super::super::rows::{OperationFailure, Rows};
use super::super::values::{Columns, one_more};
use super::tag_history::TagChange;
use super::{TAGS_OF_MANIFEST, tag_of, tag_record};

/// Deletes a tag, if the guard allows it.
pub(super) fn tag(
    rows: &Rows<'_>,
    cx: Context,
    repository: &RepositoryName,
    tag: &Tag,
    author: &Author,
    guard: &dyn TagGuard,
) -> Result<Removal, OperationFailure> {
    let Some(record) = tag_record(rows, repository, tag.as_str())? else {
        return Ok(Removal::Absent);
    };
    if let Err(protected) = guard.removed(tag, &record, cx.now) {
        return Ok(Removal::Protected(protected));
    }
    delete_tag(rows, cx, repository, tag, &record, &author.principal)?;
    let event = author.tag_deleted(cx, repository, tag, &record.digest);
    record_event(rows, &event, cx.now)?;
    Ok(Removal::Removed)
}

fn delete_tag(
    rows: &Rows<'_>,
    cx: Context,
    repository: &RepositoryName,
    tag: &Tag,
    record: &TagRecord,
    principal: &str,
) -> Result<(), OperationFailure> {
    let repository = repository.as_str();
    rows.change(
        "DELETE FROM tag WHERE repository = ?1 AND tag = ?2",
        params![repository, tag.as_str()],
    )?;
    let change = TagChange {
        tag: tag.as_str(),
        version: TagRecord::next_version(Some(record.version), cx.now),
        before: Some(&record.digest.to_string()),
        after: None,
        principal,
        promoted_from: None,
        since: Some(record.at),
    };
    change.record(rows, cx, repository)
}

/// The maximum number of tags of a manifest that one transaction deletes. Other writes wait some milliseconds for it.
pub(in super::super) const TAGS_AT_ONCE: usize = 250;

/// Deletes a manifest with its tags and its references. The last [`TAGS_AT_ONCE`] tags are deleted in the manifest's
/// own transaction. Further tags are deleted before, in transactions between which other operations write.
///
/// If a deletion is interrupted, the manifest has fewer tags, and the next deletion continues. Each transaction writes the
/// event of what it deletes.
///
/// The guard is asked for all tags before the first batch, and again for each batch, since other requests add tags in
/// between.
pub(super) async fn in_batches(
    store: &SqliteStore,
    cx: Context,
    removal: ManifestRemoval,
) -> Result<Removal, StoreError> {
    let until = Instant::now() + Duration::from_millis(cx.deadline.millis_since(cx.now));
    let removal = Arc::new(removal);
    let mut is_allowed = removal.guard.allows_deletions();
    let mut part = 1;
    loop {
        // Most manifests have few tags: one transaction, which is synced before the answer.
        let of = Arc::clone(&removal);
        if let Some(outcome) = store.write(cx, move |rows| of.manifest(rows, cx)).await? {
            return Ok(outcome);
        }
        if !is_allowed {
            if let Some(protected) = first_refusal(store, cx, &removal).await? {
                return Ok(Removal::Protected(protected));
            }
            is_allowed = true;
        }
        loop {
            if Instant::now() >= until {
                return Err(StoreError::unavailable(
                    "the manifest has more tags than one request can delete in time; the next request continues",
                ));
            }
            // Not synced: after a power failure, a restored tag is simply not deleted yet.
            let of = Arc::clone(&removal);
            match store
                .write_ordered(cx, move |rows| of.surplus_tags(rows, cx, part))
                .await?
            {
                Surplus::Deleted => part += 1,
                Surplus::None => break,
                Surplus::Protected(protected) => return Ok(Removal::Protected(protected)),
            }
        }
    }
}

/// Asks the guard for all tags of a manifest, in pages, and returns its first refusal.
async fn first_refusal(
    store: &SqliteStore,
    cx: Context,
    removal: &Arc<ManifestRemoval>,
) -> Result<Option<Protected>, StoreError> {
    let mut after = String::new();
    loop {
        let (of, from) = (Arc::clone(removal), after.clone());
        let (tags, more) = store.read(cx, move |rows| of.tags(rows, &from)).await?;
        if let Err(protected) = removal.check(&tags, cx) {
            return Ok(Some(protected));
        }
        match tags.last() {
            Some((last, _)) if more => last.as_str().clone_into(&mut after),
            _ => return Ok(None),
        }
    }
}

/// What a transaction did with the tags of a manifest that has too many for one transaction.
enum Surplus {
    /// It has deleted some of them.
    Deleted,
    /// The manifest cannot be deleted, or has few tags.
    None,
    /// The guard refuses the deletion of one of them, and nothing was changed.
    Protected(Protected),
}

/// The deletion of a manifest.
pub(super) struct ManifestRemoval {
    pub(super) repository: RepositoryName,
    pub(super) digest: String,
    pub(super) author: Author,
    pub(super) guard: Arc<dyn TagGuard>,
}

impl ManifestRemoval {
    /// Some tags of the manifest after `after`, and whether there are more.
    fn tags(&self, rows: &Rows<'_>, after: &str) -> Result<(Vec<(Tag, TagRecord)>, bool), OperationFailure> {
        let mut some = rows.all(
            TAGS_OF_MANIFEST,
            params![self.repository.as_str(), self.digest, after, one_more(TAGS_AT_ONCE)],
            |row| Ok((row.parsed(0)?, tag_of(row, 1)?)),
        )?;
        let more = some.len() > TAGS_AT_ONCE;
        some.truncate(TAGS_AT_ONCE);
        Ok((some, more))
    }

    /// Whether the guard allows the deletion of these tags.
    fn check(&self, tags: &[(Tag, TagRecord)], cx: Context) -> Result<(), Protected> {
        tags.iter()
            .try_for_each(|(tag, record)| self.guard.removed(tag, record, cx.now))
    }

    fn delete_tags(&self, rows: &Rows<'_>, cx: Context, tags: &[(Tag, TagRecord)]) -> Result<(), OperationFailure> {
        tags.iter()
            .try_for_each(|(tag, record)| delete_tag(rows, cx, &self.repository, tag, record, &self.author.principal))
    }

    /// Deletes some tags of a manifest that can be deleted and has too many tags for one transaction. `part` counts these
    /// transactions.
    fn surplus_tags(&self, rows: &Rows<'_>, cx: Context, part: u64) -> Result<Surplus, OperationFailure> {
        if parent(rows, &self.repository, &self.digest)?.is_some() {
            return Ok(Surplus::None);
        }
        let (tags, more) = self.tags(rows, "")?;
        if !more {
            return Ok(Surplus::None);
        }
        if let Err(protected) = self.check(&tags, cx) {
            return Ok(Surplus::Protected(protected));
        }
        self.delete_tags(rows, cx, &tags)?;
        let names = tags.iter().map(|(tag, _)| tag);
        let event = self
            .author
            .tags_deleted(cx, &self.repository, &self.digest, names, part);
        record_event(rows, &event, cx.now)?;
        Ok(Surplus::Deleted)
    }

    /// Deletes a manifest with its tags and its references. `None`: it has too many tags for one transaction, and nothing
    /// was changed.
    fn manifest(&self, rows: &Rows<'_>, cx: Context) -> Result<Option<Removal>, OperationFailure> {
        let (repository, digest) = (&self.repository, self.digest.as_str());
        let key = params![repository.as_str(), digest];
        let present = rows.one(
            "SELECT incarnation, subject FROM manifest WHERE repository = ?1 AND digest = ?2",
            key,
            |row| Ok((row.value::<i64>(0)?, row.value::<Option<String>>(1)?)),
        )?;
        let Some((uid, subject)) = present else {
            return Ok(Some(Removal::Absent));
        };
        if let Some(parent) = parent(rows, repository, digest)? {
            return Ok(Some(Removal::Referenced(parent)));
        }
        let (tags, more) = self.tags(rows, "")?;
        if more {
            return Ok(None);
        }
        if let Err(protected) = self.check(&tags, cx) {
            return Ok(Some(Removal::Protected(protected)));
        }
        self.delete_tags(rows, cx, &tags)?;
        rows.change("DELETE FROM edge WHERE repository = ?1 AND parent = ?2", key)?;
        if let Some(subject) = subject {
            rows.change(
                "DELETE FROM referrer WHERE repository = ?1 AND subject = ?2 AND digest = ?3",
                params![repository.as_str(), subject, digest],
            )?;
        }
        rows.change(
            "DELETE FROM backlink WHERE digest = ?1 AND repository = ?2 AND incarnation = ?3 AND kind = 'manifest'",
            params![digest, repository.as_str(), uid],
        )?;
        rows.change("DELETE FROM manifest WHERE repository = ?1 AND digest = ?2", key)?;
        let names = tags.iter().map(|(tag, _)| tag);
        let event = self.author.manifest_deleted(cx, repository, &self.digest, names);
        record_event(rows, &event, cx.now)?;
        Ok(Some(Removal::Removed))
    }
}

/// Removes the link of a repository to a blob, as its author asks for.
pub(super) fn link_of_author(
    rows: &Rows<'_>,
    cx: Context,
    repository: &RepositoryName,
    digest: &str,
    author: &Author,
) -> Result<Removal, OperationFailure> {
    let removal = link(rows, repository, digest)?;
    if removal == Removal::Removed {
        record_event(rows, &author.blob_deleted(cx, repository, &digest), cx.now)?;
    }
    Ok(removal)
}

/// Removes the link of a repository to a blob, without an event: collection decides by itself.
pub(in super::super) fn link(
    rows: &Rows<'_>,
    repository: &RepositoryName,
    digest: &str,
) -> Result<Removal, OperationFailure> {
    let key = params![repository.as_str(), digest];
    let uid: Option<i64> = rows.one(
        "SELECT incarnation FROM link WHERE repository = ?1 AND digest = ?2",
        key,
        |row| row.value(0),
    )?;
    let Some(uid) = uid else {
        return Ok(Removal::Absent);
    };
    if let Some(parent) = parent(rows, repository, digest)? {
        return Ok(Removal::Referenced(parent));
    }
    rows.change("DELETE FROM link WHERE repository = ?1 AND digest = ?2", key)?;
    rows.change(
        "DELETE FROM backlink WHERE digest = ?1 AND repository = ?2 AND incarnation = ?3 AND kind = 'blob'",
        params![digest, repository.as_str(), uid],
    )?;
    Ok(Removal::Removed)
}

/// A manifest of the repository that refers to a digest, other than as its subject.
fn parent(rows: &Rows<'_>, repository: &RepositoryName, target: &str) -> Result<Option<Digest>, OperationFailure> {
    rows.one(
        "SELECT parent FROM edge WHERE repository = ?1 AND target = ?2 LIMIT 1",
        params![repository.as_str(), target],
        |row| row.parsed(0),
    )
}
