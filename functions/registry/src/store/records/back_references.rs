//! Back-references: the reverse of a reference or of a link, where a deletion or a collection looks for it.
//!
//! A back-reference protects its target from deletion. It must exist as long as the reference or the link exists:
//! without it, the target could be deleted although it is in use.

use oci::{Digest, RepositoryName};

use crate::store::Uid;

/// How a repository refers to a blob's object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkKind {
    /// By a link: the bytes can be read as a blob.
    Blob,
    /// By a manifest that is too large for its record: the bytes cannot be read as a blob.
    Manifest,
}

/// The reverse of a reference or of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackReference {
    /// An edge: the manifest `parent` refers to `target`, so `target` stays in the repository.
    Edge {
        /// The repository of both.
        repository: RepositoryName,
        /// The digest that is referred to.
        target: Digest,
        /// The manifest that refers to it.
        parent: Digest,
        /// The uid of that manifest.
        uid: Uid,
    },
    /// A back-link: a repository refers to the object of `digest`, so the object stays in the blob store.
    BackLink {
        /// The digest.
        digest: Digest,
        /// The repository.
        repository: RepositoryName,
        /// How the repository refers to it.
        link_kind: LinkKind,
        /// The uid of the link, or of the manifest.
        uid: Uid,
    },
}
