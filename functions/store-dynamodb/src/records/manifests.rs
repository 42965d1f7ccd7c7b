//! Manifests, their references, and the lists in which they appear.

use bytes::Bytes;
use oci::{Algorithm, Digest, RepositoryName};
use registry::store::metadata::{Content, Defect, ManifestRecord, Referrer};
use registry::store::{StoreError, Timestamp, Uid};

use super::fields::ItemBuilder;
use super::{DeletionMark, ItemFields, attributes, damaged};
use crate::keys::{self, RecordKey};
use crate::table::{ITEM_BYTES, Item, ItemKey};

/// The maximum number of digests in a manifest's own item. More digests would make every read of the manifest cost
/// more.
const INLINE_DIGESTS: usize = 120;

/// The number of digests in one [`ReferencesRow`]. With the longest kind of digest, a row has a sixth of the maximum
/// size of an item, so that rows can be written in batches.
const DIGESTS_PER_ROW: usize = 1000;
const _: () = assert!(DIGESTS_PER_ROW * 65 + 4096 <= ITEM_BYTES);

/// Where the references of a manifest are stored. A deletion needs the list, because the edges are stored under their
/// targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReferenceList {
    /// In the manifest's own item, for at most [`INLINE_DIGESTS`].
    Inline(Vec<Digest>),
    /// In this number of separate rows, so that a read of the manifest does not pay for them.
    Separate(u32),
}

impl ReferenceList {
    /// Selects the form in which these references are stored.
    pub(crate) fn of(digests: &[Digest]) -> Self {
        if digests.len() > INLINE_DIGESTS {
            let rows = digests.len().div_ceil(DIGESTS_PER_ROW);
            Self::Separate(u32::try_from(rows).unwrap_or(u32::MAX))
        } else {
            Self::Inline(digests.to_vec())
        }
    }
}

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ManifestRow {
    /// The manifest as readers see it.
    pub(crate) record: ManifestRecord,
    /// When the manifest was published.
    pub(crate) at: Timestamp,
    /// Counts the puts of the manifest under this uid, so that a deletion detects a put that came between.
    pub(crate) version: u64,
    /// The references, without the subject.
    pub(crate) references: ReferenceList,
    /// The mark of a remover.
    pub(crate) mark: Option<DeletionMark>,
}

impl ManifestRow {
    pub(crate) fn item(&self, repository: &RepositoryName, digest: &Digest) -> Item {
        let record = &self.record;
        let making = ItemBuilder::default()
            .text(attributes::MEDIA_TYPE, record.media_type.as_str())
            .number(attributes::SIZE, record.size)
            .text_if_any(attributes::SUBJECT, record.subject)
            .text_if_any(
                attributes::ARTIFACT_TYPE,
                record.artifact_type.as_ref().map(oci::MediaType::as_str),
            )
            .text(attributes::UID, record.uid)
            .timestamp(attributes::AT, self.at)
            .number(attributes::VERSION, self.version)
            .text_if_any(attributes::MARK, self.mark);
        let making = match &record.content {
            Content::Inline(bytes) => making.bytes(attributes::CONTENT, bytes.clone()),
            Content::Damaged(bytes) => making
                .bytes(attributes::CONTENT, bytes.clone())
                .text(attributes::DEFECT, Defect::Damaged.as_str()),
            Content::Stored(location) => making.location(location),
            Content::Defective(location, defect) => making.location(location).text(attributes::DEFECT, defect.as_str()),
        };
        let making = match &self.references {
            ReferenceList::Inline(digests) => making.bytes_if_any(attributes::REFERENCES, &packed(digests)),
            ReferenceList::Separate(rows) => making.number(attributes::REFERENCE_ROWS, *rows),
        };
        making.item(keys::manifest(repository, digest))
    }

    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        let fields = ItemFields(item);
        let content = match (fields.location_if_any()?, fields.defect()?) {
            (Some(location), None) => Content::Stored(location),
            (Some(location), Some(defect)) => Content::Defective(location, defect),
            (None, None) => Content::Inline(fields.bytes(attributes::CONTENT)?.clone()),
            (None, Some(_)) => Content::Damaged(fields.bytes(attributes::CONTENT)?.clone()),
        };
        let references = if fields.flag(attributes::REFERENCE_ROWS) {
            ReferenceList::Separate(fields.small(attributes::REFERENCE_ROWS)?)
        } else {
            let packed = fields.bytes_if_any(attributes::REFERENCES)?;
            ReferenceList::Inline(unpacked(&item.key, packed.map_or(&[], |packed| packed))?)
        };
        Ok(Self {
            record: ManifestRecord {
                media_type: fields.parsed(attributes::MEDIA_TYPE)?,
                size: fields.number(attributes::SIZE)?,
                content,
                subject: fields.parsed_if_any(attributes::SUBJECT)?,
                artifact_type: fields.parsed_if_any(attributes::ARTIFACT_TYPE)?,
                uid: fields.uid(attributes::UID)?,
            },
            at: fields.timestamp(attributes::AT)?,
            version: fields.number(attributes::VERSION)?,
            references,
            mark: fields.parsed_if_any(attributes::MARK)?,
        })
    }
}

/// A part of the references of a manifest, in a separate row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReferencesRow {
    /// The digests.
    pub(crate) digests: Vec<Digest>,
    /// When the row was written.
    pub(crate) at: Timestamp,
}

impl ReferencesRow {
    /// The rows that together hold `digests`.
    pub(crate) fn all(
        repository: &RepositoryName,
        digest: &Digest,
        uid: Uid,
        digests: &[Digest],
        at: Timestamp,
    ) -> Vec<Item> {
        let rows = digests.chunks(DIGESTS_PER_ROW).zip(0..);
        rows.map(|(digests, row)| {
            ItemBuilder::default()
                .bytes(attributes::REFERENCES, packed(digests))
                .timestamp(attributes::AT, at)
                .item(keys::references(repository, digest, uid, row))
        })
        .collect()
    }

    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        let fields = ItemFields(item);
        Ok(Self {
            digests: unpacked(&item.key, fields.bytes(attributes::REFERENCES)?)?,
            at: fields.timestamp(attributes::AT)?,
        })
    }
}

/// Encodes digests one after the other: one byte for the algorithm, then the hash.
fn packed(digests: &[Digest]) -> Vec<u8> {
    let mut packed = Vec::new();
    for digest in digests {
        packed.push(match digest.algorithm() {
            Algorithm::Sha256 => 1,
            Algorithm::Sha512 => 2,
        });
        packed.extend_from_slice(digest.as_bytes());
    }
    packed
}

fn unpacked(key: &ItemKey, mut packed: &[u8]) -> Result<Vec<Digest>, StoreError> {
    let mut digests = Vec::new();
    while let Some((algorithm, rest)) = packed.split_first() {
        let (algorithm, length) = match algorithm {
            1 => (Algorithm::Sha256, 32),
            2 => (Algorithm::Sha512, 64),
            _ => return Err(damaged(key, "a reference with an unknown algorithm")),
        };
        let hash = rest.split_at_checked(length);
        let digest = hash.and_then(|(hash, _)| Digest::from_hash(algorithm, hash));
        digests.push(digest.ok_or_else(|| damaged(key, "a reference is truncated"))?);
        packed = &rest[length..];
    }
    Ok(digests)
}

/// An edge: the manifest `parent`, with this uid, refers to `target`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EdgeRow {
    /// The digest that the manifest refers to.
    pub(crate) target: Digest,
    /// The digest of the manifest.
    pub(crate) parent: Digest,
    /// The uid of the manifest.
    pub(crate) uid: Uid,
    /// When the edge was written.
    pub(crate) at: Timestamp,
}

impl EdgeRow {
    pub(crate) fn item(&self, repository: &RepositoryName) -> Item {
        ItemBuilder::default()
            .timestamp(attributes::AT, self.at)
            .item(keys::edge(repository, &self.target, &self.parent, self.uid))
    }

    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        let Some(RecordKey::Edge {
            target, parent, uid, ..
        }) = RecordKey::of(&item.key)
        else {
            return Err(damaged(&item.key, "not an edge"));
        };
        Ok(Self {
            target,
            parent,
            uid,
            at: ItemFields(item).timestamp(attributes::AT)?,
        })
    }
}

/// The row of a referrer under its subject. It is written and removed together with the referrer.
pub(crate) struct ReferrerRow;

impl ReferrerRow {
    pub(crate) fn item(repository: &RepositoryName, subject: &Digest, row: &Referrer) -> Result<Item, StoreError> {
        let descriptor = serde_json::to_vec(&row.descriptor).map_err(StoreError::failed)?;
        Ok(ItemBuilder::default()
            .bytes(attributes::DESCRIPTOR, descriptor)
            .flag(attributes::ANNOTATIONS_OMITTED, row.annotations_omitted)
            .item(keys::referrer(repository, subject, &row.descriptor.digest)))
    }

    pub(crate) fn read(item: &Item) -> Result<Referrer, StoreError> {
        let fields = ItemFields(item);
        let descriptor: &Bytes = fields.bytes(attributes::DESCRIPTOR)?;
        Ok(Referrer {
            descriptor: serde_json::from_slice(descriptor).map_err(|why| damaged(&item.key, why))?,
            annotations_omitted: fields.flag(attributes::ANNOTATIONS_OMITTED),
        })
    }
}

/// The row under a manifest that says that a tag names it. It is written and removed together with the tag.
pub(crate) fn tagged_item(repository: &RepositoryName, digest: &Digest, tag: &oci::Tag) -> Item {
    ItemBuilder::default().item(keys::tagged(repository, digest, tag))
}

/// The entry of a manifest in the list of its repository's manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListedRow {
    /// When the manifest was published.
    pub(crate) at: Timestamp,
    /// The size of the manifest, in bytes.
    pub(crate) size: u64,
}

impl ListedRow {
    pub(crate) fn item(&self, repository: &RepositoryName, digest: &Digest) -> Item {
        ItemBuilder::default()
            .timestamp(attributes::AT, self.at)
            .number(attributes::SIZE, self.size)
            .item(keys::listed(repository, digest))
    }

    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        let fields = ItemFields(item);
        Ok(Self {
            at: fields.timestamp(attributes::AT)?,
            size: fields.number(attributes::SIZE)?,
        })
    }
}

/// The row of a repository in the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CatalogRow {
    /// When the first manifest of the repository was put, or when the repository was created.
    pub(crate) created: Timestamp,
    /// The repository stays in the catalog while it is empty.
    pub(crate) permanent: bool,
    /// The mark of a collection pass that found no manifest in the repository.
    pub(crate) mark: Option<DeletionMark>,
}

impl CatalogRow {
    pub(crate) fn item(self, repository: &RepositoryName) -> Item {
        ItemBuilder::default()
            .timestamp(attributes::CREATED, self.created)
            .flag(attributes::PERMANENT, self.permanent)
            .text(attributes::STATE, "live")
            .text_if_any(attributes::MARK, self.mark.map(|mark| mark.to_string()).as_deref())
            .item(keys::repository(repository))
    }

    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        Ok(Self {
            created: ItemFields(item).timestamp(attributes::CREATED)?,
            permanent: ItemFields(item).flag(attributes::PERMANENT),
            mark: ItemFields(item).parsed_if_any(attributes::MARK)?,
        })
    }
}
