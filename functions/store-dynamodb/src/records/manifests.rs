//! Manifests, what they refer to, and where they are listed.

use bytes::Bytes;
use oci::{Algorithm, Digest, RepositoryName};
use registry::store::metadata::{Content, Defect, ManifestRecord, Referrer};
use registry::store::{StoreError, Timestamp, Uid};

use super::fields::Making;
use super::{Fields, Mark, damaged, names};
use crate::keys::{self, Name};
use crate::table::{ITEM_BYTES, Item, Key};

/// How many digests are kept in a manifest's own item; with more, every read of the manifest would cost more.
const DIGESTS_HERE: usize = 120;

/// How many digests one [`ReferencesRow`] holds: with the longest kind of digest a sixth of what an item may be, so
/// that it travels in batches.
const DIGESTS_PER_ROW: usize = 1000;
const _: () = assert!(DIGESTS_PER_ROW * 65 + 4096 <= ITEM_BYTES);

/// Where the list of what a manifest refers to is kept. It is needed when the manifest is deleted, since its edges lie
/// under their targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum References {
    /// In the manifest's own item: its bytes are there too, so that there cannot be many.
    Here(Vec<Digest>),
    /// In this number of rows beside it, so that a read of the manifest does not pay for them.
    Apart(u32),
}

impl References {
    /// The form in which these are kept.
    pub(crate) fn of(digests: &[Digest]) -> Self {
        if digests.len() > DIGESTS_HERE {
            let rows = digests.len().div_ceil(DIGESTS_PER_ROW);
            Self::Apart(u32::try_from(rows).unwrap_or(u32::MAX))
        } else {
            Self::Here(digests.to_vec())
        }
    }
}

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ManifestRow {
    /// As readers see it.
    pub(crate) record: ManifestRecord,
    /// When it was published.
    pub(crate) at: Timestamp,
    /// Counts the puts of this life, so that a delete sees that there was one.
    pub(crate) version: u64,
    /// What it refers to, but for its subject.
    pub(crate) references: References,
    /// Who is about to remove it.
    pub(crate) mark: Option<Mark>,
}

impl ManifestRow {
    pub(crate) fn item(&self, repository: &RepositoryName, digest: &Digest) -> Item {
        let record = &self.record;
        let making = Making::default()
            .text(names::MEDIA_TYPE, record.media_type.as_str())
            .number(names::SIZE, record.size)
            .text_if_any(names::SUBJECT, record.subject)
            .text_if_any(
                names::ARTIFACT_TYPE,
                record.artifact_type.as_ref().map(oci::MediaType::as_str),
            )
            .text(names::INCARNATION, record.uid)
            .timestamp(names::AT, self.at)
            .number(names::VERSION, self.version)
            .text_if_any(names::CONDEMNED, self.mark);
        let making = match &record.content {
            Content::Inline(bytes) => making.bytes(names::BYTES, bytes.clone()),
            Content::Damaged(bytes) => making
                .bytes(names::BYTES, bytes.clone())
                .text(names::DEFECT, Defect::Damaged.as_str()),
            Content::Stored(location) => making.location(location),
            Content::Defective(location, defect) => making.location(location).text(names::DEFECT, defect.as_str()),
        };
        let making = match &self.references {
            References::Here(digests) => making.bytes_if_any(names::REFERENCES, &packed(digests)),
            References::Apart(rows) => making.number(names::REFERENCE_ROWS, *rows),
        };
        making.item(keys::manifest(repository, digest))
    }

    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        let fields = Fields(item);
        let content = match (fields.location_if_any()?, fields.defect()?) {
            (Some(location), None) => Content::Stored(location),
            (Some(location), Some(defect)) => Content::Defective(location, defect),
            (None, None) => Content::Inline(fields.bytes(names::BYTES)?.clone()),
            (None, Some(_)) => Content::Damaged(fields.bytes(names::BYTES)?.clone()),
        };
        let references = if fields.flag(names::REFERENCE_ROWS) {
            References::Apart(fields.small(names::REFERENCE_ROWS)?)
        } else {
            let packed = fields.bytes_if_any(names::REFERENCES)?;
            References::Here(unpacked(&item.key, packed.map_or(&[], |packed| packed))?)
        };
        Ok(Self {
            record: ManifestRecord {
                media_type: fields.parsed(names::MEDIA_TYPE)?,
                size: fields.number(names::SIZE)?,
                content,
                subject: fields.parsed_if_any(names::SUBJECT)?,
                artifact_type: fields.parsed_if_any(names::ARTIFACT_TYPE)?,
                uid: fields.uid(names::INCARNATION)?,
            },
            at: fields.timestamp(names::AT)?,
            version: fields.number(names::VERSION)?,
            references,
            mark: fields.parsed_if_any(names::CONDEMNED)?,
        })
    }
}

/// Some of what a manifest refers to, in a row beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReferencesRow {
    /// The digests.
    pub(crate) digests: Vec<Digest>,
    /// When it was written.
    pub(crate) at: Timestamp,
}

impl ReferencesRow {
    /// The rows that hold all of `digests`.
    pub(crate) fn all(
        repository: &RepositoryName,
        digest: &Digest,
        uid: Uid,
        digests: &[Digest],
        at: Timestamp,
    ) -> Vec<Item> {
        let rows = digests.chunks(DIGESTS_PER_ROW).zip(0..);
        rows.map(|(digests, row)| {
            Making::default()
                .bytes(names::REFERENCES, packed(digests))
                .timestamp(names::AT, at)
                .item(keys::references(repository, digest, uid, row))
        })
        .collect()
    }

    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        let fields = Fields(item);
        Ok(Self {
            digests: unpacked(&item.key, fields.bytes(names::REFERENCES)?)?,
            at: fields.timestamp(names::AT)?,
        })
    }
}

/// Digests one after the other: a byte for the algorithm, then the hash.
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

fn unpacked(key: &Key, mut packed: &[u8]) -> Result<Vec<Digest>, StoreError> {
    let mut digests = Vec::new();
    while let Some((algorithm, rest)) = packed.split_first() {
        let (algorithm, length) = match algorithm {
            1 => (Algorithm::Sha256, 32),
            2 => (Algorithm::Sha512, 64),
            _ => return Err(damaged(key, "a reference of an unknown kind")),
        };
        let hash = rest.split_at_checked(length);
        let digest = hash.and_then(|(hash, _)| Digest::from_hash(algorithm, hash));
        digests.push(digest.ok_or_else(|| damaged(key, "a reference is cut off"))?);
        packed = &rest[length..];
    }
    Ok(digests)
}

/// A life of the manifest `parent` refers to `target`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EdgeRow {
    /// What is referred to.
    pub(crate) target: Digest,
    /// Who refers to it.
    pub(crate) parent: Digest,
    /// In which life.
    pub(crate) uid: Uid,
    /// When it was written.
    pub(crate) at: Timestamp,
}

impl EdgeRow {
    pub(crate) fn item(&self, repository: &RepositoryName) -> Item {
        Making::default().timestamp(names::AT, self.at).item(keys::edge(
            repository,
            &self.target,
            &self.parent,
            self.uid,
        ))
    }

    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        let Some(Name::Edge {
            target, parent, uid, ..
        }) = Name::of(&item.key)
        else {
            return Err(damaged(&item.key, "not an edge"));
        };
        Ok(Self {
            target,
            parent,
            uid,
            at: Fields(item).timestamp(names::AT)?,
        })
    }
}

/// A referrer's row under its subject. Written and removed together with the referrer.
pub(crate) struct ReferrerRow;

impl ReferrerRow {
    pub(crate) fn item(repository: &RepositoryName, subject: &Digest, row: &Referrer) -> Result<Item, StoreError> {
        let descriptor = serde_json::to_vec(&row.descriptor).map_err(StoreError::failed)?;
        Ok(Making::default()
            .bytes(names::DESCRIPTOR, descriptor)
            .flag(names::OMITTED, row.annotations_omitted)
            .item(keys::referrer(repository, subject, &row.descriptor.digest)))
    }

    pub(crate) fn read(item: &Item) -> Result<Referrer, StoreError> {
        let fields = Fields(item);
        let descriptor: &Bytes = fields.bytes(names::DESCRIPTOR)?;
        Ok(Referrer {
            descriptor: serde_json::from_slice(descriptor).map_err(|why| damaged(&item.key, why))?,
            annotations_omitted: fields.flag(names::OMITTED),
        })
    }
}

/// A tag names the manifest. Written and removed together with the tag.
pub(crate) fn tagged_item(repository: &RepositoryName, digest: &Digest, tag: &oci::Tag) -> Item {
    Making::default().item(keys::tagged(repository, digest, tag))
}

/// A manifest in the list of a repository's manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListedRow {
    /// When it was published.
    pub(crate) at: Timestamp,
    /// Its bytes.
    pub(crate) size: u64,
}

impl ListedRow {
    pub(crate) fn item(&self, repository: &RepositoryName, digest: &Digest) -> Item {
        Making::default()
            .timestamp(names::AT, self.at)
            .number(names::SIZE, self.size)
            .item(keys::listed(repository, digest))
    }

    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        let fields = Fields(item);
        Ok(Self {
            at: fields.timestamp(names::AT)?,
            size: fields.number(names::SIZE)?,
        })
    }
}

/// A repository in the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CatalogRow {
    /// When its first manifest was put.
    pub(crate) created: Timestamp,
    /// A collection has found no manifest in it.
    pub(crate) mark: Option<Mark>,
}

impl CatalogRow {
    pub(crate) fn item(self, repository: &RepositoryName) -> Item {
        Making::default()
            .timestamp(names::CREATED, self.created)
            .text(names::STATE, "live")
            .text_if_any(names::CONDEMNED, self.mark.map(|mark| mark.to_string()).as_deref())
            .item(keys::repository(repository))
    }

    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        Ok(Self {
            created: Fields(item).timestamp(names::CREATED)?,
            mark: Fields(item).parsed_if_any(names::CONDEMNED)?,
        })
    }
}
