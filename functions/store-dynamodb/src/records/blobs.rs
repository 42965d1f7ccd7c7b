//! Links, blob records and back-links.

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
    /// The link as readers see it.
    pub(crate) link: Link,
    /// When the link was created.
    pub(crate) at: Timestamp,
    /// The mark of a remover.
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

/// The blob record of a digest: where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlobRow {
    /// The object that holds the bytes.
    pub(crate) location: Location,
    /// The number of bytes.
    pub(crate) size: u64,
    /// When the record was created.
    pub(crate) at: Timestamp,
    /// The known defect of the object.
    pub(crate) defect: Option<Defect>,
    /// The mark of a remover.
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

/// A back-link: a repository uses the bytes of a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackLink {
    /// The repository that uses the bytes.
    pub(crate) repository: RepositoryName,
    /// The uid of the link or of the manifest.
    pub(crate) uid: Uid,
    /// Whether a link or a manifest uses them.
    pub(crate) link_kind: LinkKind,
    /// When the back-link was written.
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
            other => return Err(damaged(&item.key, format_args!("unknown kind {other}"))),
        };
        Ok(Self {
            repository,
            uid,
            link_kind,
            at: fields.timestamp(attributes::AT)?,
        })
    }
}
