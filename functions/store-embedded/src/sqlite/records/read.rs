//! The walk over all records: one table after the other, each in the order of its key.
//!
//! The rows that belong to a manifest (its edges, its referrer row) are read with it, from one state of the file.

use bytes::Bytes;
use oci::{Digest, MediaType};
use registry::store::metadata::{HistoryRecord, TagRecord};
use registry::store::records::{EntryContent, ManifestEntry, Record, Unreadable};
use registry::store::{Cursor, Slice, StoreError};
use rusqlite::{Row, params};

use super::super::metadata::referrer;
use super::super::rows::{OperationFailure, Rows};
use super::super::values::{Columns, bits};

/// The maximum number of records in a slice.
const MAX_READ: usize = 1_024;

/// The maximum number of manifests in a slice: each may have 32 KiB of content, 32 KiB in its referrer row, and 4,096
/// references.
const MAX_MANIFESTS: usize = 32;

const REPOSITORIES: &str = "SELECT name, created, permanent FROM repository WHERE name > ?1 ORDER BY name LIMIT ?2";

const BLOBS: &str = "SELECT digest, store, key, size, at FROM blob WHERE digest > ?1 ORDER BY digest LIMIT ?2";

const LINKS: &str = "SELECT repository, digest, store, key, size, incarnation, at FROM link \
    WHERE (repository, digest) > (?1, ?2) ORDER BY repository, digest LIMIT ?3";

const MANIFESTS: &str = "SELECT repository, digest, media_type, size, subject, artifact_type, incarnation, at, store, \
    key, content FROM manifest WHERE (repository, digest) > (?1, ?2) ORDER BY repository, digest LIMIT ?3";

const REFERENCES: &str =
    "SELECT target FROM edge WHERE repository = ?1 AND parent = ?2 AND incarnation = ?3 ORDER BY target";

const REFERRER: &str = "SELECT descriptor, annotations_omitted FROM referrer \
    WHERE repository = ?1 AND subject = ?2 AND digest = ?3";

const TAGS: &str = "SELECT repository, tag, digest, media_type, size, version, at FROM tag \
    WHERE (repository, tag) > (?1, ?2) ORDER BY repository, tag LIMIT ?3";

const HISTORY: &str = "SELECT repository, tag, version, before, after, who, promoted_from, at, since FROM tag_history \
    WHERE (repository, tag, version) > (?1, ?2, ?3) ORDER BY repository, tag, version LIMIT ?4";

/// All statements of the walk.
#[cfg(test)]
pub(in super::super) const STATEMENTS: &[&str] = &[
    REPOSITORIES,
    BLOBS,
    LINKS,
    MANIFESTS,
    REFERENCES,
    REFERRER,
    TAGS,
    HISTORY,
];

/// The result of reading one row.
type ReadResult = Result<Record, Unreadable>;

/// The row after which the walk continues: its table and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RecordPosition {
    Repositories(String),
    Blobs(String),
    Links(String, String),
    Manifests(String, String),
    Tags(String, String),
    History(String, String, i64),
}

impl RecordPosition {
    pub(super) fn first() -> Self {
        Self::Repositories(String::new())
    }

    /// Parses the text of [`RecordPosition::cursor`]. Names, tags and digests contain no spaces.
    pub(super) fn parse(cursor: &Cursor) -> Result<Self, StoreError> {
        let fields: Vec<_> = cursor.0.split(' ').collect();
        let position = match *fields.as_slice() {
            ["repositories", name] => Some(Self::Repositories(name.to_owned())),
            ["blobs", digest] => Some(Self::Blobs(digest.to_owned())),
            ["links", repository, digest] => Some(Self::Links(repository.to_owned(), digest.to_owned())),
            ["manifests", repository, digest] => Some(Self::Manifests(repository.to_owned(), digest.to_owned())),
            ["tags", repository, tag] => Some(Self::Tags(repository.to_owned(), tag.to_owned())),
            ["history", repository, tag, version] => version
                .parse()
                .ok()
                .map(|version| Self::History(repository.to_owned(), tag.to_owned(), version)),
            _ => None,
        };
        position.ok_or_else(|| StoreError::failed(format!("{:?} is not a position in the records", cursor.0)))
    }

    fn cursor(&self) -> Cursor {
        Cursor(match self {
            Self::Repositories(name) => format!("repositories {name}"),
            Self::Blobs(digest) => format!("blobs {digest}"),
            Self::Links(repository, digest) => format!("links {repository} {digest}"),
            Self::Manifests(repository, digest) => format!("manifests {repository} {digest}"),
            Self::Tags(repository, tag) => format!("tags {repository} {tag}"),
            Self::History(repository, tag, version) => format!("history {repository} {tag} {version}"),
        })
    }

    /// The start of the next table.
    fn next_table(&self) -> Option<Self> {
        let none = String::new;
        match self {
            Self::Repositories(_) => Some(Self::Blobs(none())),
            Self::Blobs(_) => Some(Self::Links(none(), none())),
            Self::Links(..) => Some(Self::Manifests(none(), none())),
            Self::Manifests(..) => Some(Self::Tags(none(), none())),
            Self::Tags(..) => Some(Self::History(none(), none(), -1)),
            Self::History(..) => None,
        }
    }

    /// The row at this position, in the format in which records are displayed.
    fn record(&self) -> String {
        match self {
            Self::Repositories(name) => format!("repository {name}"),
            Self::Blobs(digest) => format!("blob {digest}"),
            Self::Links(repository, digest) => format!("link {repository} {digest}"),
            Self::Manifests(repository, digest) => format!("manifest {repository} {digest}"),
            Self::Tags(repository, tag) => format!("tag {repository} {tag}"),
            Self::History(repository, tag, version) => format!("change {repository} {tag} {version}"),
        }
    }

    /// The result of reading the row at this position. A damaged row is a result too: only an unreadable file ends a
    /// walk.
    fn found(self, record: Result<Record, OperationFailure>) -> Result<(Self, ReadResult), OperationFailure> {
        match record {
            Ok(record) => Ok((self, Ok(record))),
            Err(OperationFailure::Damaged(reason)) => {
                let record = self.record();
                Ok((self, Err(Unreadable { record, reason })))
            }
            Err(failure) => Err(failure),
        }
    }

    fn max_rows(&self) -> usize {
        match self {
            Self::Manifests(..) => MAX_MANIFESTS,
            _ => MAX_READ,
        }
    }

    fn walk(&self, rows: &Rows<'_>, limit: i64) -> Result<Vec<(Self, ReadResult)>, OperationFailure> {
        match self {
            Self::Repositories(name) => rows.all(REPOSITORIES, params![name, limit], |row| {
                Self::Repositories(row.value(0)?).found(repository(row))
            }),
            Self::Blobs(digest) => rows.all(BLOBS, params![digest, limit], |row| {
                Self::Blobs(row.value(0)?).found(blob(row))
            }),
            Self::Links(repository, digest) => rows.all(LINKS, params![repository, digest, limit], |row| {
                Self::Links(row.value(0)?, row.value(1)?).found(link(row))
            }),
            Self::Manifests(repository, digest) => rows.in_one_snapshot(|rows| {
                let found = rows.all(MANIFESTS, params![repository, digest, limit], |row| {
                    Ok((
                        Self::Manifests(row.value(0)?, row.value(1)?),
                        keep_damage(manifest(row))?,
                    ))
                })?;
                let complete = |(position, entry): (Self, Result<_, OperationFailure>)| {
                    let entry = entry.and_then(|entry| complete(rows, entry));
                    position.found(entry.map(|entry| Record::Manifest(Box::new(entry))))
                };
                found.into_iter().map(complete).collect()
            }),
            Self::Tags(repository, name) => rows.all(TAGS, params![repository, name, limit], |row| {
                Self::Tags(row.value(0)?, row.value(1)?).found(tag(row))
            }),
            Self::History(repository, tag, version) => {
                rows.all(HISTORY, params![repository, tag, version, limit], |row| {
                    Self::History(row.value(0)?, row.value(1)?, row.value(2)?).found(change(row))
                })
            }
        }
    }
}

/// The records of one table after a position, at most `limit`.
pub(super) fn slice(
    rows: &Rows<'_>,
    position: &RecordPosition,
    limit: usize,
) -> Result<Slice<ReadResult>, OperationFailure> {
    let limit = limit.clamp(1, position.max_rows());
    let found = position.walk(rows, i64::try_from(limit).unwrap_or(i64::MAX))?;
    let is_full = found.len() == limit;
    let (mut positions, items): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    let next = match positions.pop() {
        Some(last) if is_full => Some(last),
        _ => position.next_table(),
    };
    Ok(Slice {
        items,
        next: next.map(|position| position.cursor()),
    })
}

/// Keeps the error of a damaged row until it can be reported with its position. Any other error ends the walk.
fn keep_damage<T>(read: Result<T, OperationFailure>) -> Result<Result<T, OperationFailure>, OperationFailure> {
    match read {
        Err(OperationFailure::Damaged(_)) | Ok(_) => Ok(read),
        Err(failure) => Err(failure),
    }
}

fn repository(row: &Row<'_>) -> Result<Record, OperationFailure> {
    Ok(Record::Repository {
        name: row.parsed(0)?,
        created: row.timestamp(1)?,
        permanent: row.value(2)?,
    })
}

fn blob(row: &Row<'_>) -> Result<Record, OperationFailure> {
    Ok(Record::Blob {
        digest: row.parsed(0)?,
        location: row.location(1, 2)?,
        size: row.unsigned(3)?,
        at: row.timestamp(4)?,
    })
}

fn link(row: &Row<'_>) -> Result<Record, OperationFailure> {
    Ok(Record::Link {
        repository: row.parsed(0)?,
        digest: row.parsed(1)?,
        location: row.location(2, 3)?,
        size: row.unsigned(4)?,
        uid: row.uid(5)?,
        at: row.timestamp(6)?,
    })
}

fn tag(row: &Row<'_>) -> Result<Record, OperationFailure> {
    Ok(Record::Tag {
        repository: row.parsed(0)?,
        tag: row.parsed(1)?,
        target: TagRecord {
            is_suspect: false,
            digest: row.parsed(2)?,
            media_type: row.parsed(3)?,
            size: row.unsigned(4)?,
            version: row.unsigned(5)?,
            at: row.timestamp(6)?,
        },
    })
}

fn change(row: &Row<'_>) -> Result<Record, OperationFailure> {
    Ok(Record::History {
        repository: row.parsed(0)?,
        tag: row.parsed(1)?,
        change: HistoryRecord {
            version: row.unsigned(2)?,
            before: row.parsed_if_any(3)?,
            after: row.parsed_if_any(4)?,
            principal: row.value(5)?,
            promoted_from: row.value(6)?,
            at: row.timestamp(7)?,
            since: row.timestamp_if_any(8)?,
        },
    })
}

/// A manifest without the values from other tables, and its subject.
fn manifest(row: &Row<'_>) -> Result<(ManifestEntry, Option<Digest>), OperationFailure> {
    let content: Option<Vec<u8>> = row.value(10)?;
    let entry = ManifestEntry {
        repository: row.parsed(0)?,
        digest: row.parsed(1)?,
        media_type: row.parsed(2)?,
        size: row.unsigned(3)?,
        content: match content {
            Some(bytes) => EntryContent::Inline(Bytes::from(bytes)),
            None => EntryContent::Stored(row.location(8, 9)?),
        },
        subject: None,
        artifact_type: row.parsed_if_any::<MediaType>(5)?,
        references: Vec::new(),
        uid: row.uid(6)?,
        at: row.timestamp(7)?,
    };
    Ok((entry, row.parsed_if_any(4)?))
}

fn complete(
    rows: &Rows<'_>,
    (mut entry, subject): (ManifestEntry, Option<Digest>),
) -> Result<ManifestEntry, OperationFailure> {
    let (repository, digest) = (entry.repository.as_str(), entry.digest.to_string());
    entry.references = rows.all(REFERENCES, params![repository, digest, bits(entry.uid)], |row| {
        row.parsed(0)
    })?;
    if let Some(subject) = subject {
        let referrer = rows.one(REFERRER, params![repository, subject.to_string(), digest], |row| {
            referrer(row, 0, 1)
        })?;
        let referrer =
            referrer.ok_or_else(|| OperationFailure::Damaged("its subject has no referrer row for it".to_owned()))?;
        entry.subject = Some((subject, referrer));
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_written_cursor_is_parsed_back() {
        let mut position = RecordPosition::first();
        loop {
            assert_eq!(RecordPosition::parse(&position.cursor()).unwrap(), position);
            match position.next_table() {
                Some(next) => position = next,
                None => break,
            }
        }
        let position = RecordPosition::History("a/b".to_owned(), "v1".to_owned(), 7);
        assert_eq!(RecordPosition::parse(&position.cursor()).unwrap(), position);
        for text in ["", "tags a", "history a b c", "edges a b c 1"] {
            assert!(RecordPosition::parse(&Cursor(text.to_owned())).is_err(), "{text:?}");
        }
    }
}
