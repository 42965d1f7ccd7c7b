//! What lies under each key: between items and the values of the contracts.
//!
//! A record reads what any version of this program has written that may share the table, and refuses everything else
//! as damaged: an attribute that is missing or is no text of its type. Attributes that it does not know are left
//! alone: whatever changes a row that is there is an update of single attributes, except that a restored registry
//! (`export`) replaces whole rows.

mod blobs;
mod fields;
mod local;
mod manifests;
mod mark;
mod tags;
#[cfg(test)]
mod tests;

pub(crate) use blobs::{BackLink, BlobRow, LinkKind, LinkRow};
pub(crate) use fields::{ItemFields, damaged};
pub(crate) use local::{FirstKey, PartRow, PassRow, PendingDeletionRow, SessionRow, SigningKeyRow, state_text};
pub(crate) use manifests::{
    CatalogRow, EdgeRow, ListedRow, ManifestRow, ReferenceList, ReferencesRow, ReferrerRow, tagged_item,
};
pub(crate) use mark::{DeletionMark, MarkPurpose};
pub(crate) use tags::{ChangeRow, TagRow, Tombstone, has_version};

/// The names of the attributes, one list for all records so that a name means one thing.
pub(crate) mod attributes {
    /// The id of the store that holds an object.
    pub(crate) const STORE: &str = "store";
    /// The key of an object in its store.
    pub(crate) const OBJECT: &str = "object";
    /// Bytes of content.
    pub(crate) const SIZE: &str = "size";
    /// This life of a thing.
    pub(crate) const UID: &str = "incarnation";
    /// When a record was made or last written, in milliseconds.
    pub(crate) const AT: &str = "at";
    /// Who is about to remove the record (see [`DeletionMark`](super::DeletionMark)).
    pub(crate) const MARK: &str = "condemned";
    /// What is known to be wrong with an object.
    pub(crate) const DEFECT: &str = "defect";
    /// As what a repository holds bytes.
    pub(crate) const KIND: &str = "kind";
    /// The type with which a manifest was pushed.
    pub(crate) const MEDIA_TYPE: &str = "mediaType";
    /// The type by which referrers are filtered.
    pub(crate) const ARTIFACT_TYPE: &str = "artifactType";
    /// A manifest's own bytes.
    pub(crate) const CONTENT: &str = "bytes";
    /// What a manifest refers to as its subject.
    pub(crate) const SUBJECT: &str = "subject";
    /// What a manifest refers to, packed.
    pub(crate) const REFERENCES: &str = "references";
    /// In how many rows of their own the references are.
    pub(crate) const REFERENCE_ROWS: &str = "referenceRows";
    /// RequestCounts changes of a record.
    pub(crate) const VERSION: &str = "version";
    /// A referrer's descriptor, as JSON.
    pub(crate) const DESCRIPTOR: &str = "descriptor";
    /// The annotations of a referrer are to be read from it.
    pub(crate) const ANNOTATIONS_OMITTED: &str = "annotationsOmitted";
    /// A digest.
    pub(crate) const DIGEST: &str = "digest";
    /// What a tag named before a change.
    pub(crate) const BEFORE: &str = "before";
    /// What a tag names since a change.
    pub(crate) const AFTER: &str = "after";
    /// The principal that made a change.
    pub(crate) const PRINCIPAL: &str = "who";
    /// When a thing came to be.
    pub(crate) const CREATED: &str = "created";
    /// Where a thing is in its life.
    pub(crate) const STATE: &str = "state";
    /// Which call has written a session's present version.
    pub(crate) const WRITER: &str = "writer";
    /// How many attempts a session has claimed.
    pub(crate) const ATTEMPTS: &str = "attempts";
    /// The end of a claim.
    pub(crate) const CLAIMED_UNTIL: &str = "claimedUntil";
    /// Bytes stored by a session.
    pub(crate) const OFFSET: &str = "offset";
    /// The saved state of a hash.
    pub(crate) const HASH: &str = "hash";
    /// What a blob store needs to go on.
    pub(crate) const PROGRESS: &str = "progress";
    /// How many part records a session has.
    pub(crate) const PARTS: &str = "parts";
    /// A part record.
    pub(crate) const PART: &str = "part";
    /// When DynamoDB may remove a row by itself, in seconds: a backstop, long after the sweep.
    pub(crate) const EXPIRES: &str = "ttl";
    /// A grave may name something that was begun and never finished.
    pub(crate) const UNFINISHED: &str = "unfinished";
    pub(crate) const PUBLISHED: &str = "published";
    /// The 32 secret bytes of a signing key.
    pub(crate) const SECRET: &str = "secret";
    /// What tells a table from all others.
    pub(crate) const TABLE: &str = "table";
    /// Whether a registry has begun to use a table.
    pub(crate) const USED: &str = "used";
    /// The id of a signing key.
    pub(crate) const ID: &str = "id";
    /// Who walks over the names.
    pub(crate) const PASS: &str = "pass";
    /// Until when it does.
    pub(crate) const UNTIL: &str = "until";
    /// Where it goes on.
    pub(crate) const CURSOR: &str = "cursor";
}
