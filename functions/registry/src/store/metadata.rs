//! Metadata: links of repositories to blobs, manifests, tags, and the records that protect them from deletion.
//!
//! Operations are coarse, because each store keeps the invariants in its own way: with one SQL transaction, or with a
//! protocol of back-references and marks. Every implementation records the following, even where nothing reads it yet:
//!
//! * links and manifests, with a *uid* each: a random number for each creation,
//! * an *edge* for each reference: manifest M refers to digest D; also for references that need not be present (the
//!   subject, non-distributable layers, and what `--sparse` allows),
//! * a *back-link* for each repository that uses the object of a digest, through a link or as a large manifest,
//! * one location for each digest: the store and the key of its object,
//! * tags with versions and history,
//! * a catalog row for each repository,
//! * a pending deletion for each object that is not referenced any more.

mod guard;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use oci::{Descriptor, Digest, MediaType, RepositoryName, Tag};
use serde::{Deserialize, Serialize};

use super::access::Author;
use super::{Context, Location, Page, StoreError, Timestamp, Uid};

pub use self::guard::{AllowAll, Deletion, Protected, Protection, TagGuard};

/// What is wrong with an object to which metadata refers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Defect {
    /// The object was not found, or is too short. It is used again if it is found later, for instance after a start
    /// with the wrong blob store.
    Missing,
    /// The object has other bytes than it should have. It is never read again.
    Damaged,
}

impl Defect {
    /// The text that a store may record.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Damaged => "damaged",
        }
    }

    /// Parses the text of [`Defect::as_str`]; `None` for every other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Missing, Self::Damaged]
            .into_iter()
            .find(|defect| defect.as_str() == text)
    }
}

/// Why a repository is listed in the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// A manifest was published in it. Collection removes it from the catalog when it has become empty.
    Published,
    /// It was created ([`MetadataStore::create_repository`]), and is listed for good.
    Permanent,
}

impl Listing {
    /// That of a row of the catalog that is permanent, or is not.
    #[must_use]
    pub const fn of(permanent: bool) -> Self {
        if permanent { Self::Permanent } else { Self::Published }
    }
}

/// A repository's link to a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The location of the bytes.
    pub location: Location,
    /// The size in bytes.
    pub size: u64,
    /// The uid of this link.
    pub uid: Uid,
    /// The known defect of the object ([`MetadataStore::record_defect`]). With a defect the blob cannot be pulled until
    /// its bytes are pushed again.
    pub defect: Option<Defect>,
}

/// The location of a manifest's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// In the record.
    Inline(Bytes),
    /// In an object, because they are too large for the record.
    Stored(Location),
    /// In an object that is known to be missing or damaged ([`MetadataStore::record_defect`]). The manifest cannot be
    /// pulled until its bytes are pushed again.
    Defective(Location, Defect),
    /// In the record, and known not to have the digest ([`MetadataStore::record_damaged_manifest`]). The manifest
    /// cannot be pulled until its bytes are pushed again.
    Damaged(Bytes),
}

impl Content {
    /// Whether the bytes are known to be missing, or not to have the digest.
    #[must_use]
    pub fn is_defective(&self) -> bool {
        matches!(self, Self::Defective(..) | Self::Damaged(_))
    }

    /// The location of the object, if the bytes are in one, with or without a defect.
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
    /// The `Content-Type` of the push. It never changes.
    pub media_type: MediaType,
    /// The size in bytes.
    pub size: u64,
    /// The bytes, exactly as they were pushed.
    pub content: Content,
    /// The manifest that it refers to as its subject, present or not.
    pub subject: Option<Digest>,
    /// The type by which clients filter referrers.
    pub artifact_type: Option<MediaType>,
    /// The uid of this manifest.
    pub uid: Uid,
}

/// A tag as stored; enough to answer HEAD by tag with one read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRecord {
    /// The digest of the manifest that it refers to.
    pub digest: Digest,
    /// That manifest's media type.
    pub media_type: MediaType,
    /// That manifest's size in bytes.
    pub size: u64,
    /// Grows with every change of the tag (see [`TagRecord::next_version`]). It never repeats, even after the tag is
    /// deleted and created again.
    pub version: u64,
    /// Since when it counts as naming the digest: the time of the change that made it name the digest, or the earlier time
    /// that a guard answered when the tag came back after a deletion (see [`TagGuard::create`]).
    pub at: Timestamp,
    /// The manifest's record was recorded as damaged. The manifest may have been pushed again since; its own record
    /// says whether it is still damaged.
    #[serde(skip)]
    pub is_suspect: bool,
}

impl TagRecord {
    /// The version of a tag after one more change at `now`. `last` is the version of its last change; `None` if the tag
    /// never existed. A deletion is a change too, so versions continue when a tag is deleted and created again.
    ///
    /// The version is a hybrid clock: `max(last + 1, now in milliseconds << 12)`. Clients order the changes of a tag by
    /// it, and it also grows when the clocks of two instances differ. The 12 bits are for changes within one
    /// millisecond. The version is at least 1.
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
    /// The digest before; `None` when the change created the tag.
    pub before: Option<Digest>,
    /// The digest after; `None` when the change deleted the tag.
    pub after: Option<Digest>,
    /// The principal that changed it.
    #[serde(rename = "who")]
    pub principal: String,
    /// If a promotion changed it: what was promoted, a repository with a tag or a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted_from: Option<String>,
    /// The time of the change.
    pub at: Timestamp,
    /// When the change deleted the tag: since when the tag had named its manifest. `None` for other changes, and for
    /// deletions by a version of this program that did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

impl HistoryRecord {
    /// The deletion that the change is; `None` if it is another change.
    #[must_use]
    pub fn deletion(&self) -> Option<Deletion> {
        match (self.before, self.after) {
            (Some(digest), None) => Some(Deletion {
                digest,
                since: self.since,
                at: self.at,
            }),
            _ => None,
        }
    }
}

/// A referrer's row under its subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referrer {
    /// The descriptor as the referrers API shows it. It is complete unless `annotations_omitted` is set.
    pub descriptor: Descriptor,
    /// The annotations were too large for the row; they must be read from the manifest.
    pub annotations_omitted: bool,
}

/// The bytes of a manifest that is put, or their location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewContent {
    /// The bytes; small enough for the record.
    Inline(Bytes),
    /// An object that the caller has sealed for this call only, because the bytes are too large for the record.
    Sealed(Location),
    /// The content that the caller has read from the stored manifest, if it is still the same.
    Unchanged,
}

/// A manifest to be stored with its tags.
#[derive(Clone, Debug)]
pub struct PutManifest {
    /// The repository.
    pub repository: RepositoryName,
    /// The verified digest of the bytes.
    pub digest: Digest,
    /// The media type.
    pub media_type: MediaType,
    /// The size in bytes.
    pub size: u64,
    /// The bytes, or their location.
    pub content: NewContent,
    /// The type by which clients filter referrers.
    pub artifact_type: Option<MediaType>,
    /// The subject, and the row that is listed under it.
    pub subject: Option<(Digest, Referrer)>,
    /// Digests that must be present in the repository, as a blob or as a manifest.
    pub required: BTreeSet<Digest>,
    /// Digests that the manifest refers to and that need not be present. They get edges too.
    pub excepted: BTreeSet<Digest>,
    /// Tags that will refer to it; none, one, or several (the core bounds the number).
    pub tags: Vec<Tag>,
    /// Who puts it.
    pub author: Author,
}

/// The result of [`MetadataStore::put_manifest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestPut {
    /// The manifest and all its tags are visible.
    Stored,
    /// The manifest and all its tags are visible, as they were before: nothing was written.
    AsItWas,
    /// The manifest and all its tags are visible. But its bytes are at this location, where the digest's object already
    /// was. The object that was sealed for this call is scheduled for deletion. The caller checks that the object at
    /// this location exists, or calls [`MetadataStore::replace_location`].
    StoredElsewhere(Location),
    /// These required digests are not in the repository. Nothing was changed.
    Missing(Vec<Digest>),
    /// The manifest is stored with this media type, and was put with another one. Nothing was changed.
    OtherType(MediaType),
    /// Nothing was changed; the caller must put the manifest with its bytes. Either the content was
    /// [`NewContent::Unchanged`] and the manifest does not exist any more, or the manifest exists and its bytes are
    /// recorded as missing or damaged. Bytes that are damaged in the record are put into the record again; all others
    /// are put as an object.
    Gone,
    /// The guard refuses a change of this tag. Nothing was changed.
    Protected(Protected),
}

/// The result of a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is deleted.
    Removed,
    /// It did not exist.
    Absent,
    /// It stays, because this manifest of the same repository refers to it.
    Referenced(Digest),
    /// It stays, because the guard refuses the deletion of this tag.
    Protected(Protected),
}

/// Stores links, manifests, tags, history and the catalog.
///
/// # All methods
///
/// Every method is atomic towards every other method on every instance. What was acknowledged is durable, and visible
/// to the next call. What was not acknowledged exists as a whole or not at all. Implementations retry their own faults
/// and lost races until the deadline of the [`Context`].
///
/// # The audit trail
///
/// The changes that have an [`Author`] write one event of the audit trail in the transaction that makes them visible:
/// neither exists without the other. The event has the time of the call's [`Context`], and its uid or another random number
/// as its id. A call that is refused, or finds everything as it should be, writes no event.
#[async_trait]
pub trait MetadataStore: Send + Sync + 'static {
    /// The repository's link to a blob. A manifest is not a blob: its digest returns `None`, unless the same bytes were
    /// also pushed as a blob. One read.
    async fn link(&self, cx: Context, repository: &RepositoryName, digest: &Digest)
    -> Result<Option<Link>, StoreError>;

    /// Like [`MetadataStore::link`], for a client that may push and is about to rely on the result. If a collection has
    /// marked the link, the mark is removed. One read, and one write if there is a mark.
    async fn link_and_unmark(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Link>, StoreError>;

    /// Like [`MetadataStore::link`], and whether a collection has marked the link for deletion. One read.
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

    /// A tag and the manifest that it refers to, or `None` for an absent manifest. The two may be read one after the
    /// other, and the tag may change in between. One read if the store can join the two, otherwise two.
    async fn tagged_manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<(TagRecord, Option<ManifestRecord>)>, StoreError>;

    /// Tags in ASCII order, at most `limit` (1 or more), after `after` (any text, not only a valid tag). The cost
    /// depends on the page, not on the list.
    async fn tags(
        &self,
        cx: Context,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Tag>, StoreError>;

    /// The changes of a tag with a version below `before`, newest first, at most `limit`.
    async fn history(
        &self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<HistoryRecord>, StoreError>;

    /// Why the repository is known: at least one manifest was published in it, or it was created. `None`: it is not known.
    async fn repository(&self, cx: Context, repository: &RepositoryName) -> Result<Option<Listing>, StoreError>;

    /// Repositories in ASCII order, at most `limit` (1 or more), after `after`. A repository is listed once a manifest
    /// was published in it, or it was created.
    async fn repositories(
        &self,
        cx: Context,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<RepositoryName>, StoreError>;

    /// Lists a repository in the catalog before anything is published in it, and makes it permanent: collection does not
    /// remove it from the catalog while it is empty. `true`: it was not listed before. A repository that is listed
    /// already becomes permanent too. Idempotent. The event is [`Author::repository_created`].
    async fn create_repository(
        &self,
        cx: Context,
        repository: &RepositoryName,
        author: &Author,
    ) -> Result<bool, StoreError>;

    /// The manifests of a repository, in the order of their digests' text, at most `limit`, after `after`.
    async fn manifests(
        &self,
        cx: Context,
        repository: &RepositoryName,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Digest>, StoreError>;

    /// The referrers of `subject` in the repository, in the order of their digests' text, at most `limit`, after
    /// `after`. The subject itself need not exist.
    async fn referrers(
        &self,
        cx: Context,
        repository: &RepositoryName,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Referrer>, StoreError>;

    /// Publishes in a repository a blob of `size` bytes that is sealed at `location`. Returns the current location of
    /// the digest's bytes. Idempotent.
    ///
    /// * If the digest already has an object at another location, that object is linked, and `location` is scheduled
    ///   for deletion. The caller then checks that the linked object is intact, or calls
    ///   [`MetadataStore::replace_location`].
    /// * If the other object has a recorded defect, `location` replaces it at once, in every repository.
    ///
    /// 32 concurrent commits of one digest leave one location, and one link per repository. None of them fails.
    async fn commit_blob(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        location: &Location,
        size: u64,
    ) -> Result<Location, StoreError>;

    /// Changes the location of a digest from `old` to `new`, because the caller has found that the object at `old` is
    /// missing or damaged. Afterwards every repository with the digest, as a blob or as a large manifest, reads at
    /// `new`, and `old` is scheduled for deletion.
    ///
    /// Returns the location of the bytes. If that is not `new`, the location had changed before, and this
    /// call changed nothing. `None`: no repository has the digest any more, and its location is unknown. Idempotent. An
    /// interrupted call may leave repositories that still read at `old`; [`MetadataStore::record_defect`] repairs
    /// these.
    async fn replace_location(
        &self,
        cx: Context,
        digest: &Digest,
        old: &Location,
        new: &Location,
        size: u64,
    ) -> Result<Option<Location>, StoreError>;

    /// Records a defect of the object of a digest at `location`.
    ///
    /// If this is the digest's recorded location, the links and large manifests of the digest have the defect from now
    /// on, in every repository. Mounts of the digest are refused, and so are manifests that refer to it. The location
    /// stays known, for [`MetadataStore::clear_missing`]. An object that is recorded as damaged stays damaged.
    ///
    /// If the digest has another location, returns it and records no defect; afterwards the records of `repository`
    /// refer to that location. `repository` is the repository in which the caller has read `location`; with `None` all
    /// repositories with the digest are corrected. With a `repository`, the call does not wait long for the other
    /// repositories: if there are too many, some of them are corrected only when this is called for them, or with
    /// `None`.
    async fn record_defect(
        &self,
        cx: Context,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        location: &Location,
        defect: Defect,
    ) -> Result<Option<Location>, StoreError>;

    /// Records that the object that was missing exists again. Changes nothing if the digest has another location, or is
    /// not recorded as missing.
    async fn clear_missing(&self, cx: Context, digest: &Digest, location: &Location) -> Result<(), StoreError>;

    /// Records that the bytes in a manifest's record do not have its digest, if that is so. From now on
    /// [`MetadataStore::manifest`] returns [`Content::Damaged`], its tags are suspect, and other manifests cannot refer
    /// to it, until it is put with its bytes. The manifest keeps its uid, its tags and its references. Changes nothing
    /// if the record has the right bytes, or if they are in an object. Idempotent. An interrupted call may leave tags
    /// that are not suspect.
    async fn record_damaged_manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), StoreError>;

    /// Links a blob that `from` links, without a copy. `false`: `from` has no such link (any more), or its object has a
    /// recorded defect. The caller has checked that the principal may pull from `from`.
    async fn mount(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        from: &RepositoryName,
    ) -> Result<bool, StoreError>;

    /// Some repositories that link the blob, at most `limit`: candidates for a mount without a source. Grants nothing.
    async fn linking_repositories(
        &self,
        cx: Context,
        digest: &Digest,
        limit: usize,
    ) -> Result<Vec<RepositoryName>, StoreError>;

    /// Publishes a manifest and its tags together, if all required digests are present; otherwise changes nothing. A
    /// digest with a recorded defect is not present.
    ///
    /// Putting a stored manifest again moves or adds the tags. It replaces the bytes in the record if they differ (they
    /// are then damaged, since the new bytes have the digest), and changes nothing else. It does not check references
    /// again: they were present when the manifest was published, and have stayed. The media type of a manifest never
    /// changes, so a put with another one is refused. A tag that already refers to the digest gets no new history.
    ///
    /// `guard` is asked for each tag that does not name the digest yet. If it refuses one of them, the result is
    /// [`ManifestPut::Protected`] and nothing is changed, not even another tag or the manifest. It is asked before the
    /// references are checked. After [`ManifestPut::OtherType`] and [`ManifestPut::Gone`] a store need not ask. A tag that is
    /// created gets the time that the guard answers ([`TagRecord::at`]); its history has the time of the change.
    ///
    /// [`NewContent::Sealed`] is treated as [`MetadataStore::commit_blob`] treats a location, but no link is made, so
    /// the object cannot be read as a blob. After [`ManifestPut::Missing`], [`ManifestPut::OtherType`] and
    /// [`ManifestPut::Protected`], the caller does not delete the object, since the store may use it for another
    /// repository meanwhile. It is deleted when the session that names it is swept.
    ///
    /// The event is [`Author::manifest_pushed`], if the put makes the manifest or sets a tag. A put that only repairs bytes
    /// has none.
    async fn put_manifest(
        &self,
        cx: Context,
        put: &PutManifest,
        guard: &Arc<dyn TagGuard>,
    ) -> Result<ManifestPut, StoreError>;

    /// Deletes a tag, unless `guard` refuses it; the manifest stays. The history records since when the tag had named
    /// its manifest. The result is never [`Removal::Referenced`]. The event is [`Author::tag_deleted`].
    async fn delete_tag(
        &self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
        author: &Author,
        guard: &Arc<dyn TagGuard>,
    ) -> Result<Removal, StoreError>;

    /// Deletes a manifest with all its tags, unless another manifest refers to it, or `guard` refuses the deletion of
    /// one of its tags. A reference as subject does not count.
    ///
    /// A store may delete the tags in several transactions if there are many. It asks for all tags before it deletes the
    /// first. So tags are only deleted before a refusal if another request adds a protected tag meanwhile.
    ///
    /// The event is [`Author::manifest_deleted`], in the transaction that deletes the manifest. An earlier transaction, which
    /// deletes only tags, has the event [`Author::tags_deleted`]. So each tag is in the event of the transaction that deletes
    /// it, however far the deletion gets.
    async fn delete_manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        author: &Author,
        guard: &Arc<dyn TagGuard>,
    ) -> Result<Removal, StoreError>;

    /// Deletes the repository's link to a blob, unless a manifest refers to it. The bytes stay for other repositories. The
    /// event is [`Author::blob_deleted`].
    async fn unlink(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        author: &Author,
    ) -> Result<Removal, StoreError>;
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
            // The clock of the last writer was ahead.
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
