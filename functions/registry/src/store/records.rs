//! All metadata of a registry, as records that every store can write and read. They serve to move a registry to another
//! store, and to check one.
//!
//! Sessions, pending deletions and the keys that sign tokens are not among them. They belong to the store in which they
//! were made: uploads in progress do not move.

mod back_references;

use std::fmt;

use async_trait::async_trait;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use oci::{Digest, MediaType, RepositoryName, Tag};
use serde::{Deserialize, Serialize};

use super::metadata::{Defect, HistoryRecord, Referrer, TagRecord};
use super::{Context, Cursor, Location, Slice, StoreError, Timestamp, Uid};

pub use self::back_references::{BackReference, LinkKind};

/// One record of a registry's metadata. As JSON it is one line of an export. Its format is a public interface: fields
/// are only added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// A repository of the catalog.
    Repository {
        /// Its name.
        name: RepositoryName,
        /// When its first manifest was published, or when it was created.
        created: Timestamp,
        /// It stays in the catalog while it is empty.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        permanent: bool,
    },
    /// The location of a blob's object.
    Blob {
        /// The digest.
        digest: Digest,
        /// The object.
        location: Location,
        /// Bytes.
        size: u64,
        /// When it was recorded.
        at: Timestamp,
    },
    /// A repository's link to a blob, with its back-link.
    Link {
        /// The repository.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
        /// The object.
        location: Location,
        /// Bytes.
        size: u64,
        /// Differs from the uid of an earlier link of the same repository and digest.
        #[serde(rename = "incarnation")]
        uid: Uid,
        /// When it was made.
        at: Timestamp,
    },
    /// A manifest of a repository, with its references, its row under its subject, and the back-link of a large
    /// manifest.
    Manifest(Box<ManifestEntry>),
    /// A tag.
    Tag {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
        /// The manifest that the tag refers to, with its version and time.
        #[serde(flatten)]
        target: TagRecord,
    },
    /// A change of a tag.
    History {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
        /// The change.
        #[serde(flatten)]
        change: HistoryRecord,
    },
}

impl fmt::Display for Record {
    /// The kind of the record, and its key: `tag team/app v1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repository { name, .. } => write!(f, "repository {name}"),
            Self::Blob { digest, .. } => write!(f, "blob {digest}"),
            Self::Link { repository, digest, .. } => write!(f, "link {repository} {digest}"),
            Self::Manifest(entry) => write!(f, "manifest {} {}", entry.repository, entry.digest),
            Self::Tag { repository, tag, .. } => write!(f, "tag {repository} {tag}"),
            Self::History {
                repository,
                tag,
                change,
            } => write!(f, "change {repository} {tag} {}", change.version),
        }
    }
}

/// A record that cannot be read, or that is incomplete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The kind of the record, and its key, as a [`Record`] is displayed.
    pub record: String,
    /// Why.
    pub reason: String,
}

/// The record of a blob's object. An export does not contain the defect, since a copy of the object may be intact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedObject {
    /// Its location.
    pub location: Location,
    /// Bytes.
    pub size: u64,
    /// The known defect of the object.
    pub defect: Option<Defect>,
}

/// A manifest with everything that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestEntry {
    /// The repository.
    pub repository: RepositoryName,
    /// The digest.
    pub digest: Digest,
    /// The `Content-Type` with which it was pushed.
    pub media_type: MediaType,
    /// Bytes.
    pub size: u64,
    /// The bytes, or their location.
    pub content: EntryContent,
    /// The manifest that it refers to as its subject, and the row that is listed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<(Digest, Referrer)>,
    /// The type by which clients filter referrers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<MediaType>,
    /// Every digest that it refers to, except its subject, in the order of the digests' text.
    pub references: Vec<Digest>,
    /// Differs from the uid of an earlier manifest of the same repository and digest.
    #[serde(rename = "incarnation")]
    pub uid: Uid,
    /// When it was published.
    pub at: Timestamp,
}

/// The bytes of a manifest, in the form of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryContent {
    /// In the record; base64 in JSON.
    #[serde(with = "inline")]
    Inline(Bytes),
    /// In an object.
    Stored(Location),
}

mod inline {
    use base64::Engine as _;
    use serde::de::Error as _;
    use serde::{Deserializer, Serializer};

    use super::{Bytes, Deserialize, STANDARD};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Bytes::from).map_err(D::Error::custom)
    }
}

/// Reads and writes all records.
#[async_trait]
pub trait RecordStore: Send + Sync + 'static {
    /// Walks over all records, about `limit` in a slice. A damaged record does not end the walk: it is an
    /// [`Unreadable`] item.
    async fn walk(
        &self,
        cx: Context,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<Result<Record, Unreadable>>, StoreError>;

    /// Like [`RecordStore::walk`], for callers that need every record. A damaged record is an error with
    /// [`Damage`](super::Damage), which contains its key.
    async fn records(&self, cx: Context, after: Option<&Cursor>, limit: usize) -> Result<Slice<Record>, StoreError> {
        let Slice { items, next } = self.walk(cx, after, limit).await?;
        let whole = items.into_iter().collect::<Result<_, _>>();
        let items = whole.map_err(|Unreadable { record, reason }| {
            StoreError::damaged(format_args!("the record \"{record}\" is damaged: {reason}"))
        })?;
        Ok(Slice { items, next })
    }

    /// The record of a blob's object. `None`: there is no such record. One read.
    async fn recorded_object(&self, cx: Context, digest: &Digest) -> Result<Option<RecordedObject>, StoreError>;

    /// Which of these back-references are missing, in their order. One read for each.
    async fn missing_back_references(
        &self,
        cx: Context,
        back_references: &[BackReference],
    ) -> Result<Vec<BackReference>, StoreError>;

    /// Writes records unchanged, each with all that belongs to it. Idempotent; the order of the records does not
    /// matter. Not for a registry that serves requests: an existing record is replaced, and references are not checked.
    async fn insert(&self, cx: Context, records: &[Record]) -> Result<(), StoreError>;
}
