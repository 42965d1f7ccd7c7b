//! What a check may find.

use oci::{Digest, RepositoryName, Tag};
use serde::Serialize;

use crate::store::Location;

/// A mismatch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// A link has another location than the record of the blob's object, or there is no such record.
    LinkLocationDiffers {
        /// The repository.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
        /// The location in the link.
        location: Location,
    },
    /// A link has another size than the record of the blob's object: a pull would get the wrong length.
    LinkResized {
        /// The repository.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
        /// The size in the link, in bytes.
        recorded: u64,
        /// The size in the record of the object, in bytes.
        found: u64,
    },
    /// A link has no back-link with its uid: a collection would delete the blob's object.
    LinkWithoutBackReference {
        /// The repository.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
    },
    /// The object of a digest does not exist.
    ObjectMissing {
        /// The digest.
        digest: Digest,
        /// Its recorded location.
        location: Location,
    },
    /// An object has another size than its record.
    ObjectResized {
        /// The digest.
        digest: Digest,
        /// The object.
        location: Location,
        /// The size in the record, in bytes.
        recorded: u64,
        /// The size in the blob store, in bytes.
        found: u64,
    },
    /// Bytes do not have the digest under which they are served.
    Corrupt {
        /// The repository, if the bytes are in a manifest's record; the same manifest in other repositories may be
        /// intact.
        #[serde(skip_serializing_if = "Option::is_none")]
        repository: Option<RepositoryName>,
        /// The digest.
        digest: Digest,
        /// The object; `None`: the bytes are in the manifest's record.
        location: Option<Location>,
        /// The digest that the bytes have.
        computed: Digest,
    },
    /// An object is recorded as missing, and exists, with the right size. For instance, the registry ran with the wrong
    /// blob store. Pulls of it get 404 until a read finds it, or a repair removes the record.
    RecordedAsMissing {
        /// The digest.
        digest: Digest,
        /// The object.
        location: Location,
    },
    /// An object is recorded as damaged, by a check that has read it. It is never read again, and its bytes must be
    /// pushed again.
    RecordedAsDamaged {
        /// The digest.
        digest: Digest,
        /// The object.
        location: Location,
    },
    /// The record of a large manifest has another location than the record of its object, or there is no such record.
    ManifestLocationDiffers {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// The location in the manifest's record.
        location: Location,
    },
    /// The size in a manifest's record is not the size of the manifest.
    ManifestResized {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// The size in its record, in bytes.
        recorded: u64,
        /// The size of its bytes in the record, or the size in the record of its object.
        found: u64,
    },
    /// A large manifest has no back-link with its uid: a collection would delete its object.
    ManifestWithoutBackReference {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
    },
    /// The bytes of a manifest are intact, but a push of them would be refused now. Its references are unknown.
    ManifestRefused {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// Why.
        reason: String,
    },
    /// A manifest refers to a digest that must be present and is absent.
    ReferenceMissing {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// What is missing.
        target: Digest,
    },
    /// A manifest refers to a digest, and the edge is missing: a deletion or a collection could delete the target.
    EdgeMissing {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// What it refers to.
        target: Digest,
    },
    /// A manifest refers to a digest that is not listed in its record. An export would not contain the reference, and
    /// its edge would stay when the manifest is deleted.
    ReferenceUnlisted {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// What it refers to.
        target: Digest,
    },
    /// A tag refers to a manifest that does not exist.
    TagDangling {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
        /// The digest in the tag.
        digest: Digest,
    },
    /// A tag has another media type or size than the record of its manifest.
    TagDiffers {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
        /// The digest in the tag.
        digest: Digest,
    },
    /// A repository has a manifest and is not in the catalog.
    RepositoryUnlisted {
        /// The repository.
        repository: RepositoryName,
    },
    /// A manifest cannot be pulled completely, because of another finding: it must be pushed again.
    ManifestNotPullable {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// The tags that refer to it.
        tags: Vec<Tag>,
        /// The missing digests: its own, or digests that it refers to.
        missing: Vec<Digest>,
    },
    /// A blob cannot be pulled, because of another finding, and no manifest refers to it: it must be pushed again.
    BlobNotPullable {
        /// The repository.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
    },
    /// A record, or something that must be compared with it, cannot be read. `metadata export` fails at this record.
    Damaged {
        /// The kind of the record, and its key.
        record: String,
        /// Why.
        reason: String,
    },
    /// An orphan: an object without a record, a session or a pending deletion. No collection deletes it. Orphans are reported
    /// only if nothing is damaged, because a damaged record may refer to the object.
    Orphan {
        /// The object.
        location: Location,
        /// Its size in bytes.
        size: u64,
    },
}
