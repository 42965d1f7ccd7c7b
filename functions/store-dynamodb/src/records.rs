//! The content of each item: conversion between items and the values of the store traits.
//!
//! A record accepts what any program version writes that may share the table. Everything else is an error that calls
//! the item damaged: a missing attribute, or an attribute with a value of another type. Unknown attributes are ignored
//! and kept: an existing row is only changed by updates of single attributes. The exception is `export`, which replaces
//! whole rows when a registry is restored.

mod blobs;
mod fields;
mod local;
mod manifests;
mod mark;
mod tags;
#[cfg(test)]
mod tests;

pub(crate) use blobs::{BackLink, BlobRow, LinkKind, LinkRow};
pub(crate) use fields::{ItemBuilder, ItemFields, damaged};
pub(crate) use local::{FirstKey, PartRow, PassRow, PendingDeletionRow, SessionRow, SigningKeyRow, state_text};
pub(crate) use manifests::{
    CatalogRow, EdgeRow, ListedRow, ManifestRow, ReferenceList, ReferencesRow, ReferrerRow, tagged_item,
};
pub(crate) use mark::{DeletionMark, MarkPurpose};
pub(crate) use tags::{ChangeRow, TagRow, Tombstone, has_version};

/// The names of the attributes. All records share one list, so that each name has one meaning.
pub(crate) mod attributes {
    /// The id of the store that holds an object.
    pub(crate) const STORE: &str = "store";
    /// The key of an object in its store.
    pub(crate) const OBJECT: &str = "object";
    /// The size of a blob or manifest, in bytes.
    pub(crate) const SIZE: &str = "size";
    /// The uid of a link or a manifest: random, new for each creation.
    pub(crate) const UID: &str = "incarnation";
    /// When a record was made or last written, in milliseconds.
    pub(crate) const AT: &str = "at";
    /// The mark of a remover (see [`DeletionMark`](super::DeletionMark)).
    pub(crate) const MARK: &str = "condemned";
    /// What is known to be wrong with an object.
    pub(crate) const DEFECT: &str = "defect";
    /// How a repository uses a blob: as a blob, or as the bytes of a manifest. Whose an account is: a user's or a robot's.
    pub(crate) const KIND: &str = "kind";
    /// The media type with which a manifest was pushed.
    pub(crate) const MEDIA_TYPE: &str = "mediaType";
    /// The type by which referrers are filtered.
    pub(crate) const ARTIFACT_TYPE: &str = "artifactType";
    /// The bytes of a manifest.
    pub(crate) const CONTENT: &str = "bytes";
    /// The subject of a manifest.
    pub(crate) const SUBJECT: &str = "subject";
    /// The references of a manifest, packed.
    pub(crate) const REFERENCES: &str = "references";
    /// The number of separate rows that hold the references.
    pub(crate) const REFERENCE_ROWS: &str = "referenceRows";
    /// A counter of the changes of a record.
    pub(crate) const VERSION: &str = "version";
    /// A referrer's descriptor, as JSON.
    pub(crate) const DESCRIPTOR: &str = "descriptor";
    /// Set: the annotations of the referrer are not in the row; read them from its manifest.
    pub(crate) const ANNOTATIONS_OMITTED: &str = "annotationsOmitted";
    /// A digest.
    pub(crate) const DIGEST: &str = "digest";
    /// The value before a change: the digest of a tag, or what an event of the audit trail says.
    pub(crate) const BEFORE: &str = "before";
    /// The value after a change, likewise.
    pub(crate) const AFTER: &str = "after";
    /// Since when a tag had named its manifest when it was deleted.
    pub(crate) const SINCE: &str = "since";
    /// The name of the principal that made a change of a tag.
    pub(crate) const PRINCIPAL: &str = "who";
    /// What was promoted: the source of a change of a tag that is a promotion.
    pub(crate) const PROMOTED_FROM: &str = "promotedFrom";
    /// When a thing was created.
    pub(crate) const CREATED: &str = "created";
    /// Set: the repository stays in the catalog while it is empty.
    pub(crate) const PERMANENT: &str = "permanent";
    /// The state of a session or of a repository.
    pub(crate) const STATE: &str = "state";
    /// The uid of the call that wrote the present version of a record.
    pub(crate) const WRITER: &str = "writer";
    /// The number of attempts that have claimed a session.
    pub(crate) const ATTEMPTS: &str = "attempts";
    /// The end of a claim.
    pub(crate) const CLAIMED_UNTIL: &str = "claimedUntil";
    /// The number of bytes that a session has stored.
    pub(crate) const OFFSET: &str = "offset";
    /// The saved state of the hash.
    pub(crate) const HASH: &str = "hash";
    /// The state from which a blob store continues an upload.
    pub(crate) const PROGRESS: &str = "progress";
    /// The number of part records of a session.
    pub(crate) const PARTS: &str = "parts";
    /// A part record.
    pub(crate) const PART: &str = "part";
    /// When DynamoDB may remove a row by itself, in seconds. For sessions it is a backstop, long after session expiry.
    pub(crate) const EXPIRES: &str = "ttl";
    /// Set: the object of a pending deletion may be an upload that never ended.
    pub(crate) const UNFINISHED: &str = "unfinished";
    /// Set: a committing session has published its blob.
    pub(crate) const PUBLISHED: &str = "published";
    /// The 32 secret bytes of a signing key, or the seed of one.
    pub(crate) const SECRET: &str = "secret";
    /// The random identity of a table.
    pub(crate) const TABLE: &str = "table";
    /// Set: a registry has used the table.
    pub(crate) const USED: &str = "used";
    /// The id of a signing key.
    pub(crate) const ID: &str = "id";
    /// The uid of the running collection pass.
    pub(crate) const PASS: &str = "pass";
    /// The end of that pass's lease, or of the wait after wrong passwords.
    pub(crate) const UNTIL: &str = "until";
    /// The position at which the pass continues.
    pub(crate) const CURSOR: &str = "cursor";

    /// The version of the policy in force.
    pub(crate) const POLICY: &str = "policy";
    /// Keys, as JSON: the public keys of tokens, or the keys of an account.
    pub(crate) const KEYS: &str = "keys";
    /// The number of accounts.
    pub(crate) const ACCOUNTS: &str = "accounts";
    /// The number of administrators that are enabled.
    pub(crate) const ADMINS: &str = "admins";
    /// Set: an administrator was made at any time.
    pub(crate) const HAD_ADMIN: &str = "hadAdmin";
    /// The tokens that were withdrawn, as JSON.
    pub(crate) const WITHDRAWN: &str = "withdrawn";
    /// The generation of an account.
    pub(crate) const GENERATION: &str = "generation";
    /// Set: an account is disabled.
    pub(crate) const DISABLED: &str = "disabled";
    /// The groups of an account, as JSON.
    pub(crate) const GROUPS: &str = "groups";
    /// The grants of an account, as JSON.
    pub(crate) const GRANTS: &str = "grants";
    /// The password hash of an account.
    pub(crate) const PASSWORD: &str = "password";
    /// The text of the principal that made an account.
    pub(crate) const BY: &str = "by";
    /// The canonical JSON of a policy.
    pub(crate) const DOCUMENT: &str = "document";
    /// A policy as it was written.
    pub(crate) const SOURCE: &str = "source";
    /// The syntax of `source`.
    pub(crate) const FORM: &str = "form";
    /// Why a policy was set.
    pub(crate) const NOTE: &str = "note";
    /// The text of the principal of a change of administration, or of an event of the audit trail.
    pub(crate) const ACTOR: &str = "principal";
    /// The kind of an event.
    pub(crate) const EVENT: &str = "event";
    /// The id of the key that proved a principal.
    pub(crate) const CREDENTIAL: &str = "credential";
    /// The address of a client.
    pub(crate) const ADDRESS: &str = "address";
    /// The repository of an event.
    pub(crate) const REPOSITORY: &str = "repository";
    /// What an event is about.
    pub(crate) const REFERENCE: &str = "reference";
    /// The id of the request of an event.
    pub(crate) const REQUEST: &str = "request";
    /// What else there is to know of an event.
    pub(crate) const DETAIL: &str = "detail";
    /// The number of wrong passwords.
    pub(crate) const COUNT: &str = "count";
    /// The hashes of the last wrong passwords, 8 bytes each.
    pub(crate) const LAST: &str = "last";
    /// A day: days since the Unix epoch.
    pub(crate) const DAY: &str = "day";
}
