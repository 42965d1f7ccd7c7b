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

use super::{Context, Location, Page, StoreError, Timestamp, Uid};

/// What is wrong with an object that metadata names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Defect {
    /// It was not found, or is too short to be it. It may come back, if the blob store was not the right one.
    Missing,
    /// It has other bytes than it should have. It is never read again.
    Damaged,
}

impl Defect {
    /// As a store may record it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Damaged => "damaged",
        }
    }

    /// What [`Defect::as_str`] has made; `None` for every other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Missing, Self::Damaged]
            .into_iter()
            .find(|defect| defect.as_str() == text)
    }
}

/// A repository's link to a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where the bytes lie.
    pub location: Location,
    /// Their number.
    pub size: u64,
    /// This life of the link.
    pub uid: Uid,
    /// What is known to be wrong with the object ([`MetadataStore::record_defect`]): the blob cannot be pulled until its
    /// bytes are pushed again.
    pub defect: Option<Defect>,
}

/// Where a manifest's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// In the record.
    Inline(Bytes),
    /// In an object, because they are more than the record may hold.
    Stored(Location),
    /// In an object that is known to be missing or damaged ([`MetadataStore::record_defect`]): the manifest cannot be
    /// pulled until its bytes are pushed again.
    Defective(Location, Defect),
    /// In the record, and known to be others than those of the digest ([`MetadataStore::record_damaged_manifest`]): the
    /// manifest cannot be pulled until its bytes are pushed again.
    Damaged(Bytes),
}

impl Content {
    /// Whether it is known that these are not the bytes of the digest, or that they are lost.
    #[must_use]
    pub fn is_defective(&self) -> bool {
        matches!(self, Self::Defective(..) | Self::Damaged(_))
    }

    /// The object, if the bytes are in one, whole or not.
    #[must_use]
    pub fn object(&self) -> Option<&Location> {
        match self {
            Self::Inline(_) | Self::Damaged(_) => None,
            Self::Stored(location) | Self::Defective(location, _) => Some(location),
        }
    }
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
    pub uid: Uid,
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
    /// Grows with every change of the tag, as [`TagRecord::next_version`] tells; never repeats, also after a delete.
    pub version: u64,
    /// When it was last written.
    pub at: Timestamp,
    /// The manifest's record was recorded as damaged. It may have been pushed again since: its own record tells.
    #[serde(skip)]
    pub is_suspect: bool,
}

impl TagRecord {
    /// The version of a tag after one more change at `now`, when its last change had the version `last`; `None`: the tag
    /// was never there. A deletion is a change too, so that versions go on over all lives of a tag.
    ///
    /// The version is a hybrid clock, `max(last + 1, now in milliseconds << 12)`: clients order a tag's life by it, and it
    /// grows also where the clocks of two instances differ. The 12 bits have room for changes within one millisecond. It
    /// is at least 1.
    #[must_use]
    pub fn next_version(last: Option<u64>, now: Timestamp) -> u64 {
        let by_clock = now.0.saturating_mul(1 << 12);
        last.map_or(1, |last| last.saturating_add(1)).max(by_clock)
    }
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
    /// The same, and it was so before: nothing was written.
    AsItWas,
    /// The manifest and all its tags are visible; but the bytes lie at this location, where those of the digest lay
    /// before, and not in the object that was sealed for this call, which is scheduled for deletion. The caller makes
    /// sure that the object is there, or calls [`MetadataStore::replace_location`].
    StoredElsewhere(Location),
    /// These required digests are not in the repository; nothing was changed.
    Missing(Vec<Digest>),
    /// The manifest is stored with this media type, and was put with another one. Nothing was changed.
    OtherType(MediaType),
    /// The manifest must be put with its bytes: in its record, if these are recorded as damaged there, and otherwise in an
    /// object. The content was to be [`NewContent::Unchanged`], and the manifest is not there any more; or the manifest is
    /// there, and what holds its bytes is recorded as missing or damaged. Nothing was changed.
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
    async fn link_and_unmark(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Link>, StoreError>;

    /// Like [`MetadataStore::link`], and whether a collection has marked the link, so that it may be gone soon. One read.
    async fn marked_link(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<(Link, bool)>, StoreError>;

    /// A manifest by digest. One read.
    async fn manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<ManifestRecord>, StoreError>;

    /// A tag. One read.
    async fn tag(&self, cx: Context, repository: &RepositoryName, tag: &Tag) -> Result<Option<TagRecord>, StoreError>;

    /// A tag and the manifest that it names, which is `None` where there is none: the two may be read one after the other,
    /// and the tag move in between. One read where a store can join the two, two elsewhere.
    async fn tagged_manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<(TagRecord, Option<ManifestRecord>)>, StoreError>;

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

    /// Publishes a blob of `size` bytes, sealed at `location`, in a repository. Idempotent. Answers where the bytes of
    /// the digest lie now. If they lay elsewhere already, those are linked and `location` goes to the graveyard; then the
    /// caller makes sure that the object there is whole, or calls [`MetadataStore::replace_location`]. If the object
    /// elsewhere has a recorded defect, `location` takes its place at once, in every repository. 32 commits of one
    /// digest at once leave one location and one link per repository, and none of them fails.
    async fn commit_blob(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        location: &Location,
        size: u64,
    ) -> Result<Location, StoreError>;

    /// Lets the bytes of a digest lie at `new` and no longer at `old`, where the caller has found no object or a damaged
    /// one. Every repository that holds the digest, as a blob or as a large manifest, reads at `new` afterwards; `old`
    /// goes to the graveyard. Answers where the bytes lie: at `new`, or elsewhere, if they did not lie at `old` any
    /// more, and then nothing was changed. `None`: no repository holds the digest any more, and its location is not
    /// known. Idempotent. Cut off, it may leave repositories that still read at `old`: [`MetadataStore::record_defect`]
    /// mends these.
    async fn replace_location(
        &self,
        cx: Context,
        digest: &Digest,
        old: &Location,
        new: &Location,
        size: u64,
    ) -> Result<Option<Location>, StoreError>;

    /// Records what somebody has found wrong with the object of a digest at `location`. If the bytes lie there by their
    /// own record, links and large manifests of the digest tell of the defect in every repository from now on, mounts
    /// are refused, and so are manifests that refer to it. The location stays known, for
    /// [`MetadataStore::clear_missing`]. An object that is known to be damaged stays damaged.
    ///
    /// Answers where the bytes lie, if that is another location: then nothing is recorded, and the records of
    /// `repository` say so afterwards if they did not. `repository` is where the location was read; `None` looks at all
    /// that hold the digest. With a `repository` the answer does not wait long for others: where there are too many, some
    /// are told when this is called for them, or with `None`.
    async fn record_defect(
        &self,
        cx: Context,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        location: &Location,
        defect: Defect,
    ) -> Result<Option<Location>, StoreError>;

    /// The object that was recorded as missing is there again. Changes nothing if the digest's bytes lie elsewhere, or
    /// are not recorded as missing.
    async fn clear_missing(&self, cx: Context, digest: &Digest, location: &Location) -> Result<(), StoreError>;

    /// Records that the bytes in a manifest's record are not those of its digest, if they are not: from now on
    /// [`MetadataStore::manifest`] answers [`Content::Damaged`], its tags say that they are suspect, and other manifests
    /// cannot refer to it, until it is put with its bytes. The manifest keeps its incarnation, its tags and what it refers
    /// to. Changes nothing where the record has the right bytes, or they lie in an object. Idempotent; cut off, it may
    /// leave tags that are not suspect.
    async fn record_damaged_manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), StoreError>;

    /// Links a blob that `from` links, without copying. `false`: `from` has no such link (any more), or its object has a
    /// recorded defect. The caller has checked that the principal may pull `from`.
    async fn mount(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        from: &RepositoryName,
    ) -> Result<bool, StoreError>;

    /// Some repositories that link the blob, at most `limit`: nominations for a mount without a source. Grants
    /// nothing.
    async fn linking_repositories(
        &self,
        cx: Context,
        digest: &Digest,
        limit: usize,
    ) -> Result<Vec<RepositoryName>, StoreError>;

    /// Publishes a manifest and its tags together, or not at all, if all required digests are present. Putting it
    /// again moves or adds the tags, replaces bytes in its record that are not those that are put (they are damaged, since
    /// these have the digest), changes nothing else, and does not look at what it refers to: that was present when it
    /// was published, and has stayed. It has its media type for ever, so that it cannot be put with another. A
    /// tag that already names the digest gets no new history. What has a recorded defect is not present.
    /// [`NewContent::Sealed`] is treated like [`MetadataStore::commit_blob`] treats a location, but makes no link: the
    /// object cannot be read as a blob. After [`ManifestPut::Missing`] and [`ManifestPut::OtherType`] the caller leaves
    /// the object to the sweep of the session that names it, since the store may have used it for another repository
    /// meanwhile.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_a_tag_grow_with_its_changes_and_with_the_time() {
        for (last, now, expected) in [
            (None, 0, 1),
            (None, 5, 5 << 12),
            (Some(1), 5, 5 << 12),
            (Some(5 << 12), 5, (5 << 12) + 1),
            // The clock that wrote the last one was ahead.
            (Some(9 << 12), 5, (9 << 12) + 1),
            (Some(u64::MAX), u64::MAX, u64::MAX),
        ] {
            assert_eq!(
                TagRecord::next_version(last, Timestamp(now)),
                expected,
                "{last:?} {now}"
            );
        }
    }
}
