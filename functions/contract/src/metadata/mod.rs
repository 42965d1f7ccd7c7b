//! What a [`MetadataStore`] must do: [`links`] of blobs, [`defects`] of their objects, [`manifests`], [`tags`] and
//! their history, the [`guards`] of tags, [`restored_tags`], [`lists`], [`removals`], and [`races`] between all of them.

pub mod defects;
pub mod guards;
pub mod links;
pub mod lists;
pub mod manifests;
pub mod races;
pub mod removals;
pub mod restored_tags;
pub mod tags;

use std::collections::BTreeSet;

use bytes::Bytes;
use oci::{Algorithm, Descriptor, Digest, MediaType, RepositoryName, Tag};
use registry::store::access::Author;
use registry::store::metadata::{
    AllowAll, HistoryRecord, Link, Listing, ManifestPut, ManifestRecord, MetadataStore, NewContent, PutManifest,
    Referrer, Removal, TagRecord,
};
use registry::store::{Location, Page};

use super::ContractTest;

pub use defects::*;
pub use guards::*;
pub use links::*;
pub use lists::*;
pub use manifests::*;
pub use races::*;
pub use removals::*;
pub use restored_tags::*;
pub use tags::*;

/// The test of a clause about metadata.
pub type MetadataTest = ContractTest<dyn MetadataStore>;

/// The principal that changes tags.
pub(crate) const WHO: &str = "user \"Zoë\"";

/// Who makes the changes, with every member.
pub(crate) fn author() -> Author {
    Author {
        credential: "3f9aK2dQ".parse().ok(),
        address: Some("2001:db8::1".to_owned()),
        request: Some("a request \"\n".to_owned()),
        ..Author::new(WHO)
    }
}

pub(crate) fn repository(name: &str) -> RepositoryName {
    name.parse().expect("a repository name")
}

pub(crate) fn tag(name: &str) -> Tag {
    name.parse().expect("a tag")
}

pub(crate) fn digest(text: impl AsRef<[u8]>) -> Digest {
    Digest::of(Algorithm::Sha256, text.as_ref())
}

pub(crate) fn media_type(text: &str) -> MediaType {
    text.parse().expect("a media type")
}

/// The location of a sealed object that no other call uses.
pub(crate) fn location(number: usize) -> Location {
    Location {
        store: "contract".to_owned(),
        key: format!("{number:032x}.1"),
    }
}

/// The location at which [`MetadataTest::commit`] commits a digest.
pub(crate) fn own_location(digest: &Digest) -> Location {
    Location {
        store: "contract".to_owned(),
        key: format!("{}.1", &digest.hex()[..32]),
    }
}

/// The manifest of these bytes, which refers to nothing.
pub(crate) fn manifest(repository: &RepositoryName, bytes: impl Into<Vec<u8>>) -> PutManifest {
    let bytes = Bytes::from(bytes.into());
    PutManifest {
        repository: repository.clone(),
        digest: digest(&bytes),
        media_type: media_type(MediaType::OCI_MANIFEST),
        size: bytes.len() as u64,
        content: NewContent::Inline(bytes),
        artifact_type: None,
        subject: None,
        required: BTreeSet::new(),
        excepted: BTreeSet::new(),
        tags: Vec::new(),
        author: author(),
    }
}

/// Adds to the manifest that [`manifest`] makes.
pub(crate) trait DescribeManifest: Sized {
    /// With these references, which must exist.
    fn requiring(self, digests: impl IntoIterator<Item = Digest>) -> Self;

    /// With these references, which need not exist.
    fn excepting(self, digests: impl IntoIterator<Item = Digest>) -> Self;

    /// With these tags.
    fn tagged(self, tags: impl IntoIterator<Item = Tag>) -> Self;

    /// With this subject, and a referrer row that has every field.
    fn about(self, subject: Digest) -> Self;

    /// Its row in the list of its subject's referrers.
    fn row(&self) -> Referrer;

    /// With its bytes in this object.
    fn stored_at(self, location: Location) -> Self;
}

impl DescribeManifest for PutManifest {
    fn requiring(mut self, digests: impl IntoIterator<Item = Digest>) -> Self {
        self.required.extend(digests);
        self
    }

    fn excepting(mut self, digests: impl IntoIterator<Item = Digest>) -> Self {
        self.excepted.extend(digests);
        self
    }

    fn tagged(mut self, tags: impl IntoIterator<Item = Tag>) -> Self {
        self.tags.extend(tags);
        self
    }

    fn about(mut self, subject: Digest) -> Self {
        self.subject = Some((subject, self.row()));
        self
    }

    fn row(&self) -> Referrer {
        let mut descriptor = Descriptor::new(self.media_type.clone(), self.digest, self.size);
        descriptor.artifact_type = Some(media_type("application/vnd.example+json"));
        let annotations = [("org.example.key", "värde \"\n"), ("a", "")];
        let annotations = annotations.map(|(name, value)| (name.to_owned(), value.to_owned()));
        descriptor.annotations = Some(annotations.into());
        Referrer {
            descriptor,
            annotations_omitted: false,
        }
    }

    fn stored_at(mut self, location: Location) -> Self {
        self.content = NewContent::Sealed(location);
        self
    }
}

impl MetadataTest {
    pub(crate) async fn link(&self, repository: &RepositoryName, digest: &Digest) -> Option<Link> {
        self.store.link(self.cx(), repository, digest).await.expect("link")
    }

    pub(crate) async fn manifest(&self, repository: &RepositoryName, digest: &Digest) -> Option<ManifestRecord> {
        let answer = self.store.manifest(self.cx(), repository, digest).await;
        answer.expect("manifest")
    }

    pub(crate) async fn tag(&self, repository: &RepositoryName, tag: &Tag) -> Option<TagRecord> {
        self.store.tag(self.cx(), repository, tag).await.expect("tag")
    }

    pub(crate) async fn tags(&self, repository: &RepositoryName, after: Option<&str>, limit: usize) -> Page<Tag> {
        let answer = self.store.tags(self.cx(), repository, after, limit).await;
        answer.expect("tags")
    }

    pub(crate) async fn history_page(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        before: Option<u64>,
        limit: usize,
    ) -> Page<HistoryRecord> {
        let answer = self.store.history(self.cx(), repository, tag, before, limit).await;
        answer.expect("history")
    }

    /// The whole history, newest first.
    pub(crate) async fn history(&self, repository: &RepositoryName, tag: &Tag) -> Vec<HistoryRecord> {
        let page = self.history_page(repository, tag, None, 1000).await;
        assert!(!page.more);
        page.items
    }

    pub(crate) async fn listing(&self, repository: &RepositoryName) -> Option<Listing> {
        self.store.repository(self.cx(), repository).await.expect("repository")
    }

    pub(crate) async fn is_listed(&self, repository: &RepositoryName) -> bool {
        let known = self.listing(repository).await.is_some();
        let page = self.repositories(None, 1000).await;
        assert_eq!(page.items.contains(repository), known, "the list and the look-up agree");
        known
    }

    pub(crate) async fn repositories(&self, after: Option<&str>, limit: usize) -> Page<RepositoryName> {
        let answer = self.store.repositories(self.cx(), after, limit).await;
        answer.expect("repositories")
    }

    pub(crate) async fn create_repository(&self, repository: &RepositoryName) -> bool {
        let answer = self.store.create_repository(self.cx(), repository, &author()).await;
        answer.expect("create_repository")
    }

    pub(crate) async fn manifests(
        &self,
        repository: &RepositoryName,
        after: Option<&Digest>,
        limit: usize,
    ) -> Page<Digest> {
        let answer = self.store.manifests(self.cx(), repository, after, limit).await;
        answer.expect("manifests")
    }

    pub(crate) async fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Page<Referrer> {
        let answer = self.store.referrers(self.cx(), repository, subject, after, limit).await;
        answer.expect("referrers")
    }

    /// The digests of all referrers.
    pub(crate) async fn referring(&self, repository: &RepositoryName, subject: &Digest) -> Vec<Digest> {
        let page = self.referrers(repository, subject, None, 1000).await;
        page.items.iter().map(|row| row.descriptor.digest).collect()
    }

    pub(crate) async fn commit_at(&self, repository: &RepositoryName, digest: &Digest, location: &Location) {
        self.committed(repository, digest, location).await;
    }

    /// The location after a commit.
    pub(crate) async fn committed(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        location: &Location,
    ) -> Location {
        let size = 1000;
        let answer = self
            .store
            .commit_blob(self.cx(), repository, digest, location, size)
            .await;
        answer.expect("commit_blob")
    }

    /// Commits a blob at a location that follows from its digest, so that no other blob has it.
    pub(crate) async fn commit(&self, repository: &RepositoryName, digest: &Digest) {
        self.commit_at(repository, digest, &own_location(digest)).await;
    }

    pub(crate) async fn mount(&self, repository: &RepositoryName, digest: &Digest, from: &RepositoryName) -> bool {
        let answer = self.store.mount(self.cx(), repository, digest, from).await;
        answer.expect("mount")
    }

    pub(crate) async fn linking_repositories(&self, digest: &Digest) -> Vec<RepositoryName> {
        let mut linking_repositories = self
            .store
            .linking_repositories(self.cx(), digest, 1000)
            .await
            .expect("linking_repositories");
        linking_repositories.sort();
        linking_repositories
    }

    pub(crate) async fn try_put(&self, put: &PutManifest) -> ManifestPut {
        self.store
            .put_manifest(self.cx(), put, &AllowAll::shared())
            .await
            .expect("put_manifest")
    }

    pub(crate) async fn put(&self, put: &PutManifest) {
        let outcome = self.try_put(put).await;
        let stored = matches!(
            outcome,
            ManifestPut::Stored | ManifestPut::AsItWas | ManifestPut::StoredElsewhere(_)
        );
        assert!(stored, "{outcome:?}");
    }

    pub(crate) async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> bool {
        let answer = self
            .store
            .delete_tag(self.cx(), repository, tag, &author(), &AllowAll::shared())
            .await;
        match answer.expect("delete_tag") {
            Removal::Removed => true,
            Removal::Absent => false,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn delete_manifest(&self, repository: &RepositoryName, digest: &Digest) -> Removal {
        let answer = self
            .store
            .delete_manifest(self.cx(), repository, digest, &author(), &AllowAll::shared())
            .await;
        answer.expect("delete_manifest")
    }

    pub(crate) async fn unlink(&self, repository: &RepositoryName, digest: &Digest) -> Removal {
        let answer = self.store.unlink(self.cx(), repository, digest, &author()).await;
        answer.expect("unlink")
    }

    /// Asserts that the history of a tag is a chain from nothing to its present manifest, with growing versions.
    pub(crate) async fn assert_chain(&self, repository: &RepositoryName, tag: &Tag) -> Vec<HistoryRecord> {
        let history = self.history(repository, tag).await;
        let mut named = None;
        let mut version = 0;
        for change in history.iter().rev() {
            assert_eq!(change.before, named, "{tag} of {repository}: {history:#?}");
            assert_ne!(change.after, named, "a change changes something");
            assert!(change.version > version, "{tag} of {repository}: {history:#?}");
            (named, version) = (change.after, change.version);
        }
        let record = self.tag(repository, tag).await;
        assert_eq!(record.as_ref().map(|record| record.digest), named);
        if let Some(record) = record {
            assert_eq!(record.version, version, "the tag has the version of its last change");
        }
        history
    }
}
