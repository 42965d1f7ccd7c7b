//! Names: what links a repository to bytes, manifests, tags, and everything that keeps them alive.
//!
//! Operations are coarse, because each must keep the invariants by its store's own means: one SQL transaction, or a
//! protocol of claims and marks. What every implementation records, even where nothing reads it yet: links and
//! manifests with incarnations, an edge per reference (also excepted and sparse ones), a back-link per holder of a
//! digest's bytes, one location per digest, tags with versions and history, a catalog row per repository, and a
//! graveyard row for every object that lost its name.

use std::collections::BTreeSet;

use async_trait::async_trait;
use bytes::Bytes;
use oci::{Descriptor, Digest, MediaType, RepositoryName, Tag};
use serde::{Deserialize, Serialize};

use super::{Context, Incarnation, Location, Page, StoreError, Timestamp};

/// A repository's link to a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where the bytes lie.
    pub location: Location,
    /// Their number.
    pub size: u64,
    /// This life of the link.
    pub incarnation: Incarnation,
}

/// Where a manifest's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// In the record.
    Inline(Bytes),
    /// In an object, because they are more than the record may hold.
    Stored(Location),
}

/// A manifest as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestRecord {
    /// The `Content-Type` with which it was pushed, for ever.
    pub media_type: MediaType,
    /// Bytes.
    pub size: u64,
    /// Exactly what was pushed.
    pub content: Content,
    /// The manifest it refers to, present or not.
    pub subject: Option<Digest>,
    /// The type by which referrers are filtered.
    pub artifact_type: Option<MediaType>,
    /// This life of the manifest.
    pub incarnation: Incarnation,
}

/// A tag as stored; enough to answer HEAD by tag with one read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRecord {
    /// What it names.
    pub digest: Digest,
    /// That manifest's media type.
    pub media_type: MediaType,
    /// That manifest's size in bytes.
    pub size: u64,
    /// Grows with every change of the tag: `max(previous + 1, now in ms << 12)`; never repeats, also after a delete.
    pub version: u64,
    /// When it was last written.
    pub at: Timestamp,
}

/// One change of a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRecord {
    /// The tag's version after the change.
    pub version: u64,
    /// What it named before; `None` when it was created.
    pub before: Option<Digest>,
    /// What it names since; `None` when it was deleted.
    pub after: Option<Digest>,
    /// The principal that changed it.
    pub who: String,
    /// When.
    pub at: Timestamp,
}

/// A referrer's row under its subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referrer {
    /// The descriptor as the referrers API shows it, complete unless `annotations_omitted`.
    pub descriptor: Descriptor,
    /// The annotations were too large for the row; they must be read from the manifest.
    pub annotations_omitted: bool,
}

/// Where the bytes of a manifest that is put are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewContent {
    /// Here; few enough for the record.
    Inline(Bytes),
    /// In an object that the caller has sealed for this call alone, because they are more than the record may hold.
    Sealed(Location),
    /// Where they were when the caller saw the manifest stored, if it still is.
    Unchanged,
}

/// A manifest to be stored with its tags.
#[derive(Clone, Debug)]
pub struct PutManifest {
    /// The repository.
    pub repository: RepositoryName,
    /// The digest of the bytes, verified.
    pub digest: Digest,
    /// What is stored.
    pub media_type: MediaType,
    /// Bytes.
    pub size: u64,
    /// The bytes, or where they are.
    pub content: NewContent,
    /// The type by which referrers are filtered.
    pub artifact_type: Option<MediaType>,
    /// The subject and the row to be shown under it.
    pub subject: Option<(Digest, Referrer)>,
    /// Digests that must be present in the repository, as a blob or as a manifest.
    pub required: BTreeSet<Digest>,
    /// Digests that are referred to and need not be present: edges are written for them all the same.
    pub excepted: BTreeSet<Digest>,
    /// Tags that will name it; none, one, or several (bounded by the core).
    pub tags: Vec<Tag>,
    /// The principal, for the history.
    pub who: String,
}

/// The answer to [`MetadataStore::put_manifest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestPut {
    /// The manifest and all its tags are visible.
    Stored,
    /// These required digests are not in the repository; nothing was changed.
    Missing(Vec<Digest>),
    /// The manifest is stored with this media type, and was put with another one. Nothing was changed.
    OtherType(MediaType),
    /// The content was to be [`NewContent::Unchanged`], and the manifest is not there any more: it must be put with its
    /// bytes. Nothing was changed.
    Gone,
}

/// The answer to a removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// It was not there.
    Absent,
    /// This manifest of the same repository refers to it; it stays.
    Referenced(Digest),
}

/// Keeps names.
///
/// Every method is atomic towards every other on every instance: what was acknowledged is durable and visible to the
/// next call, and what was not is either wholly there or not at all. Implementations retry their own faults and lost
/// races until the deadline of the [`Context`].
#[async_trait]
pub trait MetadataStore: Send + Sync + 'static {
    /// The repository's link to a blob. A manifest is not a blob: its digest answers `None` unless the same bytes
    /// were also pushed as one. One read.
    async fn link(&self, cx: Context, repository: &RepositoryName, digest: &Digest)
    -> Result<Option<Link>, StoreError>;

    /// Like [`MetadataStore::link`], for somebody who may push and is about to rely on the answer: a link that a
    /// collection has marked is kept, its mark removed. One read; one write where there is a mark.
    async fn keep_link(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Link>, StoreError>;

    /// A manifest by digest. One read.
    async fn manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<ManifestRecord>, StoreError>;

    /// A tag. One read.
    async fn tag(&self, cx: Context, repository: &RepositoryName, tag: &Tag) -> Result<Option<TagRecord>, StoreError>;

    /// Tags in ASCII order, at most `limit` (1 or more), those after `after` (any text, not only a legal tag). Costs
    /// the page, not the list.
    async fn tags(
        &self,
        cx: Context,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Tag>, StoreError>;

    /// The changes of a tag, newest first, at most `limit`, those with a version below `before`.
    async fn history(
        &self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<HistoryRecord>, StoreError>;

    /// Whether the repository has ever held a manifest.
    async fn repository(&self, cx: Context, repository: &RepositoryName) -> Result<bool, StoreError>;

    /// Repositories in ASCII order, at most `limit` (1 or more), those after `after`. A repository is listed once a
    /// manifest was published in it.
    async fn repositories(
        &self,
        cx: Context,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<RepositoryName>, StoreError>;

    /// The manifests of a repository, in the order of their digests' text, at most `limit`, those after `after`.
    async fn manifests(
        &self,
        cx: Context,
        repository: &RepositoryName,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Digest>, StoreError>;

    /// What refers to `subject` in the repository, in the order of the referrers' digests' text, at most `limit`,
    /// those after `after`. The subject itself need not exist.
    async fn referrers(
        &self,
        cx: Context,
        repository: &RepositoryName,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Referrer>, StoreError>;

    /// Publishes a blob of `size` bytes, sealed at `location`, in a repository. Idempotent. If the digest's bytes lie
    /// elsewhere already, those are linked and `location` goes to the graveyard. 32 commits of one digest at once
    /// leave one location and one link per repository, and none of them fails.
    async fn commit_blob(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        location: &Location,
        size: u64,
    ) -> Result<(), StoreError>;

    /// Links a blob that `from` links, without copying. `false`: `from` has no such link (any more). The caller has
    /// checked that the principal may pull `from`.
    async fn mount(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        from: &RepositoryName,
    ) -> Result<bool, StoreError>;

    /// Some repositories that link the blob, at most `limit`: nominations for a mount without a source. Grants
    /// nothing.
    async fn holders(&self, cx: Context, digest: &Digest, limit: usize) -> Result<Vec<RepositoryName>, StoreError>;

    /// Publishes a manifest and its tags together, or not at all, if all required digests are present. Putting it
    /// again moves or adds the tags, changes nothing else, and does not look at what it refers to: that was present
    /// when it was published, and has stayed. It has its media type for ever, so that it cannot be put with another. A tag that already names the digest gets no new history.
    /// [`NewContent::Sealed`] is treated like [`MetadataStore::commit_blob`] treats a location, but makes no link: the
    /// object cannot be read as a blob. After [`ManifestPut::Missing`] and [`ManifestPut::OtherType`] the caller leaves the object to the sweep of
    /// the session that names it, since the store may have used it for another repository meanwhile.
    async fn put_manifest(&self, cx: Context, put: &PutManifest) -> Result<ManifestPut, StoreError>;

    /// Deletes a tag; the manifest stays. `false`: there was none.
    async fn delete_tag(
        &self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
        who: &str,
    ) -> Result<bool, StoreError>;

    /// Deletes a manifest with all its tags, unless another manifest refers to it as more than its subject.
    async fn delete_manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        who: &str,
    ) -> Result<Removal, StoreError>;

    /// Removes the repository's link to a blob, unless a manifest refers to it. The bytes stay for other repositories.
    async fn unlink(&self, cx: Context, repository: &RepositoryName, digest: &Digest) -> Result<Removal, StoreError>;
}
