//! Operations that make content visible: blobs, mounts, and manifests with their tags.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use oci::{Digest, RepositoryName, Tag};
use registry::store::access::Author;
use registry::store::metadata::{ManifestPut, NewContent, Protected, PutManifest, TagGuard, TagRecord};
use registry::store::records::LinkKind;
use registry::store::{Context, Location, StoreError, Timestamp};
use rusqlite::params;

use super::super::access::record_event;
use super::super::deletion_queue;
use super::super::rows::{OperationFailure, Rows};
use super::super::values::{Columns, bits, integer, link_kind_text, timestamp};
use super::tag_history::{TagChange, last_change};
use super::{objects, tag_record};

/// Publishes a sealed object as a blob of a repository.
pub(super) fn blob(
    rows: &Rows<'_>,
    cx: Context,
    repository: &RepositoryName,
    digest: &str,
    location: &Location,
    size: u64,
) -> Result<Location, OperationFailure> {
    let kept = choose_location(rows, cx, digest, location, size)?;
    link(rows, cx, repository, digest, &kept, size)?;
    Ok(kept)
}

/// Lists a repository, and makes it permanent. `true`: it was not listed.
pub(super) fn create_repository(
    rows: &Rows<'_>,
    cx: Context,
    repository: &RepositoryName,
    author: &Author,
) -> Result<bool, OperationFailure> {
    let created = rows.change(
        "INSERT INTO repository (name, created, state, permanent) VALUES (?1, ?2, 'live', 1) ON CONFLICT DO NOTHING",
        params![repository.as_str(), timestamp(cx.now)],
    )?;
    let was_listed = created == 0;
    let mut changed = created;
    if was_listed {
        changed = rows.change(
            "UPDATE repository SET permanent = 1 WHERE name = ?1 AND permanent = 0",
            [repository.as_str()],
        )?;
    }
    if changed > 0 {
        record_event(rows, &author.repository_created(cx, repository, was_listed), cx.now)?;
    }
    Ok(!was_listed)
}

/// Links a blob of another repository.
pub(super) fn mount(
    rows: &Rows<'_>,
    cx: Context,
    repository: &RepositoryName,
    digest: &str,
    from: &RepositoryName,
) -> Result<bool, OperationFailure> {
    let source = rows.one(
        "SELECT store, key, size FROM link WHERE repository = ?1 AND digest = ?2",
        params![from.as_str(), digest],
        |row| Ok((row.location(0, 1)?, row.unsigned(2)?)),
    )?;
    let Some((location, size)) = source else {
        return Ok(false);
    };
    if objects::find(rows, digest)?.is_some_and(|(_, defect)| defect.is_some()) {
        return Ok(false);
    }
    link(rows, cx, repository, digest, &location, size)?;
    Ok(true)
}

/// Decides the location of a digest's bytes. It is the first location, unless the object there has a defect; then it is
/// `location`. The object that is not needed is scheduled for deletion.
fn choose_location(
    rows: &Rows<'_>,
    cx: Context,
    digest: &str,
    location: &Location,
    size: u64,
) -> Result<Location, OperationFailure> {
    let Some((kept, defect)) = objects::find(rows, digest)? else {
        rows.change(
            "INSERT INTO blob (digest, store, key, size, at) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![digest, location.store, location.key, integer(size), timestamp(cx.now)],
        )?;
        return Ok(location.clone());
    };
    if kept == *location {
        return Ok(kept);
    }
    if defect.is_some() {
        objects::replace(rows, cx, digest, &kept, location, size)?;
        return Ok(location.clone());
    }
    // The deletion checks again whether the digest has another location. One pending deletion is enough, even if the
    // same commit is repeated.
    deletion_queue::schedule_deletion(rows, cx.now, location, Some(digest), false)?;
    Ok(kept)
}

fn link(
    rows: &Rows<'_>,
    cx: Context,
    repository: &RepositoryName,
    digest: &str,
    location: &Location,
    size: u64,
) -> Result<(), OperationFailure> {
    let present = rows.one(
        "SELECT condemned IS NOT NULL FROM link WHERE repository = ?1 AND digest = ?2",
        params![repository.as_str(), digest],
        |row| row.value(0),
    )?;
    if let Some(marked_for_deletion) = present {
        if marked_for_deletion {
            unmark_link(rows, repository, digest)?;
        }
        return Ok(());
    }
    rows.change(
        "INSERT INTO link (repository, digest, store, key, size, incarnation, at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            repository.as_str(),
            digest,
            location.store,
            location.key,
            integer(size),
            bits(cx.uid),
            timestamp(cx.now),
        ],
    )?;
    back_link(rows, cx, repository, digest, LinkKind::Blob)
}

fn back_link(
    rows: &Rows<'_>,
    cx: Context,
    repository: &RepositoryName,
    digest: &str,
    link_kind: LinkKind,
) -> Result<(), OperationFailure> {
    rows.change(
        "INSERT INTO backlink (digest, repository, incarnation, kind, at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            digest,
            repository.as_str(),
            bits(cx.uid),
            link_kind_text(link_kind),
            timestamp(cx.now)
        ],
    )?;
    Ok(())
}

/// Removes the mark of a collection pass from a link.
pub(super) fn unmark_link(rows: &Rows<'_>, repository: &RepositoryName, digest: &str) -> Result<(), OperationFailure> {
    rows.change(
        "UPDATE link SET condemned = NULL WHERE repository = ?1 AND digest = ?2 AND condemned IS NOT NULL",
        params![repository.as_str(), digest],
    )?;
    Ok(())
}

/// Removes the mark of a collection pass from a manifest. Returns whether there was a mark.
fn unmark_manifest(rows: &Rows<'_>, repository: &RepositoryName, digest: &str) -> Result<bool, OperationFailure> {
    let changed = rows.change(
        "UPDATE manifest SET condemned = NULL, version = version + 1 \
         WHERE repository = ?1 AND digest = ?2 AND condemned IS NOT NULL",
        params![repository.as_str(), digest],
    )?;
    Ok(changed > 0)
}

/// The write of a manifest, with its values in the form of its rows.
pub(super) struct ManifestWrite {
    repository: RepositoryName,
    name: Digest,
    digest: String,
    media_type: String,
    size: u64,
    content: NewContent,
    artifact_type: Option<String>,
    subject: Option<SubjectRow>,
    required: Vec<(Digest, String)>,
    excepted: Vec<String>,
    tags: BTreeSet<Tag>,
    author: Author,
    guard: Arc<dyn TagGuard>,
}

struct SubjectRow {
    digest: String,
    annotations_omitted: bool,
    descriptor: String,
}

/// What a lookup of the digests that a manifest refers to has found.
struct FoundReferences<'a> {
    /// Required digests that are missing.
    missing: Vec<Digest>,
    /// Existing digests that a collection pass has marked.
    marked: Vec<&'a str>,
}

/// A change of a tag that the guard allows.
struct AllowedChange<'a> {
    tag: &'a Tag,
    before: Option<String>,
    version: u64,
    /// Since when the tag counts as naming the manifest.
    since: Timestamp,
}

/// What a tag copies from the manifest that it points at.
struct TaggedManifest {
    media_type: String,
    size: u64,
}

impl ManifestWrite {
    /// Prepares everything that needs no transaction.
    pub(super) fn new(put: &PutManifest, guard: &Arc<dyn TagGuard>) -> Result<Self, StoreError> {
        let subject = put.subject.as_ref().map(|(digest, referrer)| {
            Ok::<_, StoreError>(SubjectRow {
                digest: digest.to_string(),
                annotations_omitted: referrer.annotations_omitted,
                descriptor: serde_json::to_string(&referrer.descriptor).map_err(StoreError::failed)?,
            })
        });
        Ok(Self {
            repository: put.repository.clone(),
            name: put.digest,
            digest: put.digest.to_string(),
            media_type: put.media_type.to_string(),
            size: put.size,
            content: put.content.clone(),
            artifact_type: put.artifact_type.as_ref().map(ToString::to_string),
            subject: subject.transpose()?,
            required: put
                .required
                .iter()
                .map(|digest| (*digest, digest.to_string()))
                .collect(),
            // A digest that is both required and excepted is one reference, and it is required.
            excepted: put.excepted.difference(&put.required).map(Digest::to_string).collect(),
            tags: put.tags.iter().cloned().collect(),
            author: put.author.clone(),
            guard: Arc::clone(guard),
        })
    }

    /// Runs the whole operation.
    pub(super) fn publish(&self, rows: &Rows<'_>, cx: Context) -> Result<ManifestPut, OperationFailure> {
        let present = rows.one(
            "SELECT media_type, size, condemned IS NOT NULL, \
             iif(content IS NULL, (SELECT condemned FROM blob WHERE blob.digest = ?2), condemned), content IS NULL \
             FROM manifest WHERE repository = ?1 AND digest = ?2",
            params![self.repository.as_str(), self.digest],
            |row| {
                let target = TaggedManifest {
                    media_type: row.value(0)?,
                    size: row.unsigned(1)?,
                };
                Ok((
                    target,
                    row.value::<bool>(2)?,
                    objects::defect(row, 3)?,
                    row.value::<bool>(4)?,
                ))
            },
        )?;
        if let Some((target, _, defect, is_large)) = &present {
            if target.media_type != self.media_type {
                let stored = target.media_type.parse();
                let stored =
                    stored.map_err(|_| OperationFailure::Damaged(format!("a manifest is {:?}", target.media_type)))?;
                return Ok(ManifestPut::OtherType(stored));
            }
            let repairs = match self.content {
                NewContent::Sealed(_) => *is_large,
                NewContent::Inline(_) => !is_large,
                NewContent::Unchanged => false,
            };
            if defect.is_some() && !repairs {
                return Ok(ManifestPut::Gone);
            }
        } else if self.content == NewContent::Unchanged {
            return Ok(ManifestPut::Gone);
        }
        // Nothing is written before the guard has allowed every change.
        let changes = match self.allowed_changes(rows, cx)? {
            Ok(changes) => changes,
            Err(protected) => return Ok(ManifestPut::Protected(protected)),
        };
        let is_new = present.is_none();
        let mut marked = Vec::new();
        if is_new {
            let references = self.references(rows)?;
            if !references.missing.is_empty() {
                return Ok(ManifestPut::Missing(references.missing));
            }
            marked = references.marked;
        }
        let mut is_written = true;
        let (target, stored_at) = if let Some((target, marked_for_deletion, ..)) = present {
            let stored_at;
            (stored_at, is_written) = self.update(rows, cx, marked_for_deletion)?;
            (target, stored_at)
        } else {
            for text in marked {
                unmark_link(rows, &self.repository, text)?;
                unmark_manifest(rows, &self.repository, text)?;
            }
            let stored_at = self.insert(rows, cx)?;
            let target = TaggedManifest {
                media_type: self.media_type.clone(),
                size: self.size,
            };
            (target, stored_at)
        };
        is_written |= !changes.is_empty();
        for change in &changes {
            self.set_tag(rows, cx, change, &target)?;
        }
        if is_new || !changes.is_empty() {
            let tags = changes.iter().map(|change| (change.tag, change.before.as_deref()));
            let event = self.author.manifest_pushed(cx, &self.repository, &self.name, tags);
            record_event(rows, &event, cx.now)?;
        }
        Ok(match (stored_at, &self.content) {
            (Some(kept), NewContent::Sealed(offered)) if kept != *offered => ManifestPut::StoredElsewhere(kept),
            _ if is_written => ManifestPut::Stored,
            _ => ManifestPut::AsItWas,
        })
    }

    /// Looks up all references.
    fn references(&self, rows: &Rows<'_>) -> Result<FoundReferences<'_>, OperationFailure> {
        let mut missing = Vec::new();
        let mut marked = Vec::new();
        let required = self.required.iter().map(|(digest, text)| (Some(digest), text));
        for (digest, text) in required.chain(self.excepted.iter().map(|text| (None, text))) {
            // Both are looked up, because a digest can be a blob and a manifest, and each can have a mark.
            let found: Option<(Option<bool>, Option<bool>)> = rows.one(
                "SELECT (SELECT condemned IS NOT NULL FROM link WHERE repository = ?1 AND digest = ?2), \
                 (SELECT condemned IS NOT NULL FROM manifest WHERE repository = ?1 AND digest = ?2), \
                 (SELECT content IS NULL FROM manifest WHERE repository = ?1 AND digest = ?2), \
                 (SELECT condemned FROM blob WHERE digest = ?2), \
                 (SELECT condemned FROM manifest WHERE repository = ?1 AND digest = ?2 AND content IS NOT NULL)",
                params![self.repository.as_str(), text],
                |row| {
                    // Content that cannot be pulled counts as missing, and its mark stays.
                    let is_large: Option<bool> = row.value(2)?;
                    let is_blob_defective = objects::defect(row, 3)?.is_some();
                    let is_manifest_defective = match is_large {
                        Some(true) => is_blob_defective,
                        _ => objects::defect(row, 4)?.is_some(),
                    };
                    let link = if is_blob_defective { None } else { row.value(0)? };
                    let manifest = if is_manifest_defective { None } else { row.value(1)? };
                    Ok((link, manifest))
                },
            )?;
            match found {
                None | Some((None, None)) => missing.extend(digest),
                Some((link, manifest)) if link == Some(true) || manifest == Some(true) => marked.push(text.as_str()),
                Some(_) => {}
            }
        }
        Ok(FoundReferences { missing, marked })
    }

    /// Updates a manifest that exists. It stays unchanged, unless its bytes are damaged. Returns the location of the
    /// bytes of a large manifest, and whether anything was written.
    fn update(
        &self,
        rows: &Rows<'_>,
        cx: Context,
        marked_for_deletion: bool,
    ) -> Result<(Option<Location>, bool), OperationFailure> {
        let is_unmarked = marked_for_deletion && unmark_manifest(rows, &self.repository, &self.digest)?;
        match &self.content {
            NewContent::Sealed(location) => Ok((
                Some(choose_location(rows, cx, &self.digest, location, self.size)?),
                true,
            )),
            NewContent::Inline(bytes) => {
                // The new bytes match the digest, so different stored bytes are damaged.
                let repaired = rows.change(
                    "UPDATE manifest SET content = ?3, size = ?4 WHERE repository = ?1 AND digest = ?2 \
                     AND content IS NOT NULL AND (content <> ?3 OR size <> ?4)",
                    params![
                        self.repository.as_str(),
                        self.digest,
                        Bytes::as_ref(bytes),
                        integer(bytes.len() as u64)
                    ],
                )?;
                Ok((None, is_unmarked || repaired > 0))
            }
            NewContent::Unchanged => Ok((None, is_unmarked)),
        }
    }

    /// Inserts a new manifest. Returns the location of the bytes of a large manifest.
    fn insert(&self, rows: &Rows<'_>, cx: Context) -> Result<Option<Location>, OperationFailure> {
        let (bytes, location) = match &self.content {
            NewContent::Inline(bytes) => (Some(Bytes::as_ref(bytes)), None),
            NewContent::Unchanged => (None, None),
            NewContent::Sealed(location) => {
                let kept = choose_location(rows, cx, &self.digest, location, self.size)?;
                back_link(rows, cx, &self.repository, &self.digest, LinkKind::Manifest)?;
                (None, Some(kept))
            }
        };
        rows.change(
            "INSERT INTO repository (name, created, state) VALUES (?1, ?2, 'live') ON CONFLICT DO NOTHING",
            params![self.repository.as_str(), timestamp(cx.now)],
        )?;
        rows.change(
            "INSERT INTO manifest (repository, digest, media_type, size, subject, artifact_type, incarnation, \
             version, at, store, key, content) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8, ?9, ?10, ?11)",
            params![
                self.repository.as_str(),
                self.digest,
                self.media_type,
                integer(self.size),
                self.subject.as_ref().map(|subject| subject.digest.as_str()),
                self.artifact_type,
                bits(cx.uid),
                timestamp(cx.now),
                location.as_ref().map(|location| location.store.as_str()),
                location.as_ref().map(|location| location.key.as_str()),
                bytes,
            ],
        )?;
        for target in self.required.iter().map(|(_, text)| text).chain(&self.excepted) {
            rows.change(
                "INSERT INTO edge (repository, target, parent, incarnation, at) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    self.repository.as_str(),
                    target,
                    self.digest,
                    bits(cx.uid),
                    timestamp(cx.now)
                ],
            )?;
        }
        if let Some(subject) = &self.subject {
            rows.change(
                "INSERT INTO referrer (repository, subject, digest, annotations_omitted, descriptor) \
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    self.repository.as_str(),
                    subject.digest,
                    self.digest,
                    subject.annotations_omitted,
                    subject.descriptor,
                ],
            )?;
        }
        Ok(location)
    }

    /// The changes of the tags that do not name the manifest yet, or the first refusal of the guard.
    fn allowed_changes(
        &self,
        rows: &Rows<'_>,
        cx: Context,
    ) -> Result<Result<Vec<AllowedChange<'_>>, Protected>, OperationFailure> {
        let mut changes = Vec::new();
        for tag in &self.tags {
            let present = tag_record(rows, &self.repository, tag.as_str())?;
            let (allowed, before, last) = match present {
                Some(record) if record.digest == self.name => continue,
                Some(record) => {
                    let allowed = self.guard.moved(tag, &record, &self.name, cx.now);
                    let allowed = allowed.map(|()| cx.now);
                    (allowed, Some(record.digest.to_string()), Some(record.version))
                }
                None => {
                    let last = last_change(rows, self.repository.as_str(), tag.as_str())?;
                    let deletion = last.and_then(|(_, deletion)| deletion);
                    let allowed = self.guard.create(tag, &self.name, deletion.as_ref(), cx.now);
                    (allowed, None, last.map(|(version, _)| version))
                }
            };
            let since = match allowed {
                Ok(since) => since,
                Err(protected) => return Ok(Err(protected)),
            };
            changes.push(AllowedChange {
                tag,
                before,
                version: TagRecord::next_version(last, cx.now),
                since,
            });
        }
        Ok(Ok(changes))
    }

    /// Lets a tag name the manifest.
    fn set_tag(
        &self,
        rows: &Rows<'_>,
        cx: Context,
        change: &AllowedChange<'_>,
        target: &TaggedManifest,
    ) -> Result<(), OperationFailure> {
        let repository = self.repository.as_str();
        rows.change(
            "INSERT INTO tag (repository, tag, digest, media_type, size, version, at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
             ON CONFLICT (repository, tag) DO UPDATE SET digest = excluded.digest, \
             media_type = excluded.media_type, size = excluded.size, version = excluded.version, at = excluded.at",
            params![
                repository,
                change.tag.as_str(),
                self.digest,
                target.media_type,
                integer(target.size),
                integer(change.version),
                timestamp(change.since),
            ],
        )?;
        let change = TagChange {
            tag: change.tag.as_str(),
            version: change.version,
            before: change.before.as_deref(),
            after: Some(&self.digest),
            principal: &self.author.principal,
            promoted_from: self.author.promoted_from(),
            since: None,
        };
        change.record(rows, cx, repository)
    }
}
