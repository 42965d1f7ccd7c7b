//! Everything a registry knows, as records that every store can write and read: for moving to another store, and for
//! checking one.
//!
//! Sessions, graves and the keys that sign tokens are not among them. They belong to the store they were made in:
//! uploads in progress do not move.

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

/// One thing that a registry knows. As JSON it is one line of an export; its form is part of the interface, and only
/// grows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// A repository of the catalog.
    Repository {
        /// Its name.
        name: RepositoryName,
        /// When its first manifest was published.
        created: Timestamp,
    },
    /// Where the bytes of a digest lie.
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
        /// Tells this link from an earlier one of the same repository and digest.
        #[serde(rename = "incarnation")]
        uid: Uid,
        /// When it was made.
        at: Timestamp,
    },
    /// A repository's manifest, with its references, its row under its subject, and the back-link of a large one.
    Manifest(Box<ManifestEntry>),
    /// A tag.
    Tag {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
        /// What it names.
        #[serde(flatten)]
        names: TagRecord,
    },
    /// A change of a tag.
    History {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
        /// What has changed.
        #[serde(flatten)]
        change: HistoryRecord,
    },
}

impl fmt::Display for Record {
    /// What it is, and its key: `tag team/app v1`.
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

/// A record that cannot be read, or of which a part is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// What it is, and its key, as a [`Record`] is displayed.
    pub record: String,
    /// Why.
    pub reason: String,
}

/// What the record of a digest's bytes says of their object. What is wrong with it is not part of an export, since a copy
/// of the bytes may be whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedObject {
    /// Where it lies.
    pub location: Location,
    /// Bytes.
    pub size: u64,
    /// What is known to be wrong with it.
    pub defect: Option<Defect>,
}

/// A manifest with all that hangs on it.
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
    /// The bytes, or where they are.
    pub content: EntryContent,
    /// The manifest it refers to, and the row shown there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<(Digest, Referrer)>,
    /// The type by which referrers are filtered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<MediaType>,
    /// Everything that it refers to but its subject, in the order of their text.
    pub references: Vec<Digest>,
    /// Tells this manifest from an earlier one of the same repository and digest.
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

/// Gives and takes all records.
#[async_trait]
pub trait RecordStore: Send + Sync + 'static {
    /// Walks over all records, about `limit` in a slice. A damaged one does not end the walk: it comes as
    /// [`Unreadable`].
    async fn walk(
        &self,
        cx: Context,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<Result<Record, Unreadable>>, StoreError>;

    /// Like [`RecordStore::walk`], for those who need everything: a damaged record is an error with
    /// [`Damage`](super::Damage), which names it.
    async fn records(&self, cx: Context, after: Option<&Cursor>, limit: usize) -> Result<Slice<Record>, StoreError> {
        let Slice { items, next } = self.walk(cx, after, limit).await?;
        let whole = items.into_iter().collect::<Result<_, _>>();
        let items = whole.map_err(|Unreadable { record, reason }| {
            StoreError::damaged(format_args!("the record \"{record}\" is damaged: {reason}"))
        })?;
        Ok(Slice { items, next })
    }

    /// What the record of a digest's bytes says of their object. One read.
    async fn place(&self, cx: Context, digest: &Digest) -> Result<Option<RecordedObject>, StoreError>;

    /// Which of these holds are not there, in their order. One read of each.
    async fn lost(&self, cx: Context, back_references: &[BackReference]) -> Result<Vec<BackReference>, StoreError>;

    /// Writes records as they are, each with all that belongs to it. Idempotent; in any order. Not meant for a registry
    /// that is serving: a record that is there is replaced, and what it refers to is not looked at.
    async fn insert(&self, cx: Context, records: &[Record]) -> Result<(), StoreError>;
}
