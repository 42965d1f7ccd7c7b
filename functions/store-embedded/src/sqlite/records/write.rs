//! Writes records unchanged. Each record includes all that belongs to it, and replaces an existing one.

use oci::Digest;
use registry::store::StoreError;
use registry::store::records::{EntryContent, LinkKind, ManifestEntry, Record};
use rusqlite::params;

use super::super::rows::{OperationFailure, Rows};
use super::super::values::{bits, integer, link_kind_text, timestamp};

/// A record to be written.
pub(super) struct RecordRow {
    record: Record,
    /// The descriptor in the referrers list of the subject, as JSON.
    descriptor: Option<String>,
}

impl RecordRow {
    /// Prepares everything that needs no transaction.
    pub(super) fn new(record: &Record) -> Result<Self, StoreError> {
        let subject = match record {
            Record::Manifest(entry) => entry.subject.as_ref(),
            _ => None,
        };
        let descriptor = subject.map(|(_, referrer)| serde_json::to_string(&referrer.descriptor));
        Ok(Self {
            record: record.clone(),
            descriptor: descriptor.transpose().map_err(StoreError::failed)?,
        })
    }

    pub(super) fn insert(&self, rows: &Rows<'_>) -> Result<(), OperationFailure> {
        match &self.record {
            Record::Repository {
                name,
                created,
                permanent,
            } => {
                rows.change(
                    "INSERT OR REPLACE INTO repository (name, created, state, permanent) VALUES (?1, ?2, 'live', ?3)",
                    params![name.as_str(), timestamp(*created), permanent],
                )?;
            }
            Record::Blob {
                digest,
                location,
                size,
                at,
            } => {
                rows.change(
                    "INSERT OR REPLACE INTO blob (digest, store, key, size, at) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![
                        digest.to_string(),
                        location.store,
                        location.key,
                        integer(*size),
                        timestamp(*at)
                    ],
                )?;
            }
            Record::Link {
                repository,
                digest,
                location,
                size,
                uid,
                at,
            } => {
                let digest = digest.to_string();
                delete_back_links(rows, LinkKind::Blob, repository.as_str(), &digest)?;
                rows.change(
                    "INSERT OR REPLACE INTO link (repository, digest, store, key, size, incarnation, at) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    params![
                        repository.as_str(),
                        digest,
                        location.store,
                        location.key,
                        integer(*size),
                        bits(*uid),
                        timestamp(*at),
                    ],
                )?;
                rows.change(
                    INSERT_BACK_LINK,
                    params![digest, repository.as_str(), bits(*uid), "blob", timestamp(*at)],
                )?;
            }
            Record::Manifest(entry) => self.insert_manifest(rows, entry)?,
            Record::Tag {
                repository,
                tag,
                target,
            } => {
                rows.change(
                    "INSERT OR REPLACE INTO tag (repository, tag, digest, media_type, size, version, at) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    params![
                        repository.as_str(),
                        tag.as_str(),
                        target.digest.to_string(),
                        target.media_type.to_string(),
                        integer(target.size),
                        integer(target.version),
                        timestamp(target.at),
                    ],
                )?;
            }
            Record::History {
                repository,
                tag,
                change,
            } => {
                rows.change(
                    "INSERT OR REPLACE INTO tag_history (repository, tag, version, before, after, who, promoted_from, at, \
                     since) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                    params![
                        repository.as_str(),
                        tag.as_str(),
                        integer(change.version),
                        change.before.as_ref().map(Digest::to_string),
                        change.after.as_ref().map(Digest::to_string),
                        change.principal,
                        change.promoted_from,
                        timestamp(change.at),
                        change.since.map(timestamp),
                    ],
                )?;
            }
        }
        Ok(())
    }

    fn insert_manifest(&self, rows: &Rows<'_>, entry: &ManifestEntry) -> Result<(), OperationFailure> {
        let (repository, digest) = (entry.repository.as_str(), entry.digest.to_string());
        let subject = entry.subject.as_ref().map(|(subject, _)| subject.to_string());
        rows.change(
            "DELETE FROM edge WHERE repository = ?1 AND parent = ?2",
            params![repository, digest],
        )?;
        rows.change(
            "DELETE FROM referrer WHERE repository = ?1 AND digest = ?2 AND subject = \
             (SELECT subject FROM manifest WHERE repository = ?1 AND digest = ?2)",
            params![repository, digest],
        )?;
        delete_back_links(rows, LinkKind::Manifest, repository, &digest)?;
        let (bytes, location) = match &entry.content {
            EntryContent::Inline(bytes) => (Some(&bytes[..]), None),
            EntryContent::Stored(location) => (None, Some(location)),
        };
        rows.change(
            "INSERT OR REPLACE INTO manifest (repository, digest, media_type, size, subject, artifact_type, \
             incarnation, version, at, store, key, content) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8, ?9, ?10, ?11)",
            params![
                repository,
                digest,
                entry.media_type.to_string(),
                integer(entry.size),
                subject,
                entry.artifact_type.as_ref().map(ToString::to_string),
                bits(entry.uid),
                timestamp(entry.at),
                location.map(|location| location.store.as_str()),
                location.map(|location| location.key.as_str()),
                bytes,
            ],
        )?;
        for target in &entry.references {
            rows.change(
                "INSERT OR REPLACE INTO edge (repository, target, parent, incarnation, at) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    repository,
                    target.to_string(),
                    digest,
                    bits(entry.uid),
                    timestamp(entry.at)
                ],
            )?;
        }
        if location.is_some() {
            rows.change(
                INSERT_BACK_LINK,
                params![
                    digest,
                    repository,
                    bits(entry.uid),
                    link_kind_text(LinkKind::Manifest),
                    timestamp(entry.at)
                ],
            )?;
        }
        if let Some((_, referrer)) = &entry.subject {
            rows.change(
                "INSERT OR REPLACE INTO referrer (repository, subject, digest, annotations_omitted, descriptor) \
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    repository,
                    subject,
                    digest,
                    referrer.annotations_omitted,
                    self.descriptor
                ],
            )?;
        }
        Ok(())
    }
}

const INSERT_BACK_LINK: &str =
    "INSERT OR REPLACE INTO backlink (digest, repository, incarnation, kind, at) VALUES (?1, ?2, ?3, ?4, ?5)";

/// Removes the back-links of a link or manifest that is replaced: the new one may have another uid.
fn delete_back_links(
    rows: &Rows<'_>,
    link_kind: LinkKind,
    repository: &str,
    digest: &str,
) -> Result<(), OperationFailure> {
    rows.change(
        "DELETE FROM backlink WHERE digest = ?1 AND repository = ?2 AND kind = ?3",
        params![digest, repository, link_kind_text(link_kind)],
    )?;
    Ok(())
}
