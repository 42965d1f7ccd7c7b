//! Bytes: who may read them, where they lie, who holds them.

use oci::{Digest, RepositoryName};
use registry::store::metadata::{Defect, Link};
pub(crate) use registry::store::records::LinkKind;
use registry::store::{Location, StoreError, Timestamp, Uid};

use super::fields::Making;
use super::{Fields, Mark, damaged, names};
use crate::keys::{self, Name};
use crate::table::Item;

/// A repository's link to a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkRow {
    /// As readers see it.
    pub(crate) link: Link,
    /// When it was made.
    pub(crate) at: Timestamp,
    /// Who is about to remove it.
    pub(crate) mark: Option<Mark>,
}

impl LinkRow {
    pub(crate) fn item(&self, repository: &RepositoryName, digest: &Digest) -> Item {
        Making::default()
            .location(&self.link.location)
            .number(names::SIZE, self.link.size)
            .text(names::INCARNATION, self.link.uid)
            .timestamp(names::AT, self.at)
            .text_if_any(names::DEFECT, self.link.defect.map(Defect::as_str))
            .text_if_any(names::CONDEMNED, self.mark)
            .item(keys::link(repository, digest))
    }

    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        let fields = Fields(item);
        Ok(Self {
            link: Link {
                location: fields.location()?,
                size: fields.number(names::SIZE)?,
                uid: fields.uid(names::INCARNATION)?,
                defect: fields.defect()?,
            },
            at: fields.timestamp(names::AT)?,
            mark: fields.parsed_if_any(names::CONDEMNED)?,
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
    pub(crate) mark: Option<Mark>,
}

impl BlobRow {
    pub(crate) fn item(&self, digest: &Digest) -> Item {
        Making::default()
            .location(&self.location)
            .number(names::SIZE, self.size)
            .timestamp(names::AT, self.at)
            .text_if_any(names::DEFECT, self.defect.map(Defect::as_str))
            .text_if_any(names::CONDEMNED, self.mark)
            .item(keys::blob(digest))
    }

    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        let fields = Fields(item);
        Ok(Self {
            location: fields.location()?,
            size: fields.number(names::SIZE)?,
            at: fields.timestamp(names::AT)?,
            defect: fields.defect()?,
            mark: fields.parsed_if_any(names::CONDEMNED)?,
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
        Making::default()
            .text(names::KIND, link_kind)
            .timestamp(names::AT, self.at)
            .item(keys::back_link(digest, &self.repository, self.uid))
    }

    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        let Some(Name::BackLink { repository, uid, .. }) = Name::of(&item.key) else {
            return Err(damaged(&item.key, "not a back-link"));
        };
        let fields = Fields(item);
        let link_kind = match fields.text(names::KIND)? {
            "blob" => LinkKind::Blob,
            "manifest" => LinkKind::Manifest,
            other => return Err(damaged(&item.key, format_args!("{other} is no kind"))),
        };
        Ok(Self {
            repository,
            uid,
            link_kind,
            at: fields.timestamp(names::AT)?,
        })
    }
}
