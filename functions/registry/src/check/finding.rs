//! What a check may find.

use oci::{Digest, RepositoryName, Tag};
use serde::Serialize;

use crate::store::Location;

/// Something that does not agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// A repository links a blob whose bytes, by their own record, do not lie there; or there is no such record.
    LinkAstray {
        /// The repository.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
        /// Where the link leads.
        location: Location,
    },
    /// A link says another number of bytes than the record of these: a pull would be told the wrong length.
    LinkResized {
        /// The repository.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
        /// By the link, in bytes.
        recorded: u64,
        /// By the record of the bytes.
        found: u64,
    },
    /// A repository links a blob and is, in this life of the link, not among those who hold its bytes: a collection
    /// would bury them.
    LinkWithoutHolder {
        /// The repository.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
    },
    /// There is no object where the bytes of a digest should lie.
    ObjectMissing {
        /// The digest.
        digest: Digest,
        /// Where it should lie.
        location: Location,
    },
    /// An object has another size than its record says.
    ObjectResized {
        /// The digest.
        digest: Digest,
        /// The object.
        location: Location,
        /// By the record, in bytes.
        recorded: u64,
        /// In the store, in bytes.
        found: u64,
    },
    /// Bytes do not hash to the digest under which they are served.
    Corrupt {
        /// The repository, if the bytes are in a manifest's record; others may have the same manifest whole.
        #[serde(skip_serializing_if = "Option::is_none")]
        repository: Option<RepositoryName>,
        /// The digest.
        digest: Digest,
        /// The object; `None`: the record itself, of a manifest.
        location: Option<Location>,
        /// What they hash to.
        computed: Digest,
    },
    /// An object is recorded as missing, and is there, with the right size: it may have been looked for in a wrong place.
    /// Pulls of it are answered with 404 until one reads it, or a repair takes the record back.
    RecordedAsMissing {
        /// The digest.
        digest: Digest,
        /// The object.
        location: Location,
    },
    /// An object is recorded as damaged, by a check that has read it: it is never read again, and its bytes must be pushed.
    RecordedAsDamaged {
        /// The digest.
        digest: Digest,
        /// The object.
        location: Location,
    },
    /// A manifest has its bytes in an object where, by their own record, they do not lie; or there is no such record.
    ManifestAstray {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// Where its record leads.
        location: Location,
    },
    /// A manifest's record says another number of bytes than it has.
    ManifestResized {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// By its record, in bytes.
        recorded: u64,
        /// In the record, or by the record of the bytes.
        found: u64,
    },
    /// A manifest has its bytes in an object, and is, in this life, not among those who hold them: a collection would
    /// bury them.
    ManifestWithoutHolder {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
    },
    /// A manifest's bytes are whole, and would be refused if they were pushed now. What it refers to is not known.
    ManifestRefused {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// Why.
        reason: String,
    },
    /// A manifest refers to what must be there, and is not.
    ReferenceMissing {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// What is missing.
        target: Digest,
    },
    /// A manifest refers to something that nothing keeps for it: a delete or a collection would remove that.
    EdgeMissing {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// What it refers to.
        target: Digest,
    },
    /// A manifest refers to something that its record does not list: an export would not tell of it, and what keeps it
    /// would outlive the manifest.
    ReferenceUnlisted {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// What it refers to.
        target: Digest,
    },
    /// A tag names a manifest that is not there.
    TagDangling {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
        /// What it names.
        digest: Digest,
    },
    /// A tag says something else of its manifest than the manifest's own record: its media type or size.
    TagDiffers {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
        /// What it names.
        digest: Digest,
    },
    /// A repository holds a manifest and is not in the catalog.
    RepositoryUnlisted {
        /// The repository.
        repository: RepositoryName,
    },
    /// A manifest cannot be pulled whole, because of something else that was found: it must be pushed again.
    ManifestNotPullable {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// The tags that name it.
        tags: Vec<Tag>,
        /// What is lost of it: its own digest, or what it refers to.
        lost: Vec<Digest>,
    },
    /// A blob cannot be pulled, because of something else that was found, and no manifest refers to it: it must be pushed
    /// again.
    BlobNotPullable {
        /// The repository.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
    },
    /// A record cannot be read, or something that it has to be compared with cannot. `metadata export` ends with an
    /// error here.
    Damaged {
        /// What it is, and its key.
        record: String,
        /// Why.
        reason: String,
    },
    /// An orphan: an object without a record, a session or a pending deletion. No collection deletes it. Orphans are reported
    /// only if nothing is damaged, because a damaged record may refer to the object.
    Orphan {
        /// The object.
        location: Location,
        /// Its bytes.
        size: u64,
    },
}
