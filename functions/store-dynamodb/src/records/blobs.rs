//! Bytes: who may read them, where they lie, who holds them.

use oci::{Digest, RepositoryName};
use registry::store::metadata::{Defect, Link};
pub(crate) use registry::store::records::LinkKind;
use registry::store::{Location, StoreError, Timestamp, Uid};

use super::fields::ItemBuilder;
use super::{DeletionMark, ItemFields, attributes, damaged};
use crate::keys::{self, RecordKey};
use crate::table::Item;

/// A repository's link to a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkRow {
    /// As readers see it.
    pub(crate) link: Link,
    /// When it was made.
    pub(crate) at: Timestamp,
    /// Who is about to remove it.
    pub(crate) mark: Option<DeletionMark>,
}

impl LinkRow {
    pub(crate) fn item(&self, repository: &RepositoryName, digest: &Digest) -> Item {
        ItemBuilder::default()
            .location(&self.link.location)
            .number(attributes::SIZE, self.link.size)
            .text(attributes::UID, self.link.uid)
            .timestamp(attributes::AT, self.at)
            .text_if_any(attributes::DEFECT, self.link.defect.map(Defect::as_str))
            .text_if_any(attributes::MARK, self.mark)
            .item(keys::link(repository, digest))
    }

    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        let fields = ItemFields(item);
        Ok(Self {
            link: Link {
                location: fields.location()?,
                size: fields.number(attributes::SIZE)?,
                uid: fields.uid(attributes::UID)?,
                defect: fields.defect()?,
            },
            at: fields.timestamp(attributes::AT)?,
            mark: fields.parsed_if_any(attributes::MARK)?,
        })
    }
}

/// Where the bytes of a digest lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlobRow {
    /// The object.
    pub(crate) location: Location,
    /// Its bytes.
    pub(crate) size: u64,
    /// When it was recorded.
    pub(crate) at: Timestamp,
    /// What is wrong with it.
    pub(crate) defect: Option<Defect>,
    /// Who is about to remove it.
    pub(crate) mark: Option<DeletionMark>,
}

impl BlobRow {
    pub(crate) fn item(&self, digest: &Digest) -> Item {
        ItemBuilder::default()
            .location(&self.location)
            .number(attributes::SIZE, self.size)
            .timestamp(attributes::AT, self.at)
            .text_if_any(attributes::DEFECT, self.defect.map(Defect::as_str))
            .text_if_any(attributes::MARK, self.mark)
            .item(keys::blob(digest))
    }

    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        let fields = ItemFields(item);
        Ok(Self {
            location: fields.location()?,
            size: fields.number(attributes::SIZE)?,
            at: fields.timestamp(attributes::AT)?,
            defect: fields.defect()?,
            mark: fields.parsed_if_any(attributes::MARK)?,
        })
    }
}

/// Who holds the bytes of a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackLink {
    /// The repository.
    pub(crate) repository: RepositoryName,
    /// The life of the link, or of the manifest.
    pub(crate) uid: Uid,
    /// As what.
    pub(crate) link_kind: LinkKind,
    /// When it was written.
    pub(crate) at: Timestamp,
}

impl BackLink {
    pub(crate) fn item(&self, digest: &Digest) -> Item {
        let link_kind = match self.link_kind {
            LinkKind::Blob => "blob",
            LinkKind::Manifest => "manifest",
        };
        ItemBuilder::default()
            .text(attributes::KIND, link_kind)
            .timestamp(attributes::AT, self.at)
            .item(keys::back_link(digest, &self.repository, self.uid))
    }

    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        let Some(RecordKey::BackLink { repository, uid, .. }) = RecordKey::of(&item.key) else {
            return Err(damaged(&item.key, "not a back-link"));
        };
        let fields = ItemFields(item);
        let link_kind = match fields.text(attributes::KIND)? {
            "blob" => LinkKind::Blob,
            "manifest" => LinkKind::Manifest,
            other => return Err(damaged(&item.key, format_args!("{other} is no kind"))),
        };
        Ok(Self {
            repository,
            uid,
            link_kind,
            at: fields.timestamp(attributes::AT)?,
        })
    }
}
