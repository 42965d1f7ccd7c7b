//! What keeps a thing from being removed: the reverse of a reference or of a link, in the place where a removal or a
//! collection looks for it. It must be there for as long as what it stands for; without it that thing can be removed
//! although it is in use.

use oci::{Digest, RepositoryName};

use crate::store::Uid;

/// As what a repository holds the bytes of a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkKind {
    /// By its link: they can be read as a blob.
    Blob,
    /// As a manifest that is too large for its record: they can not.
    Manifest,
}

/// The reverse of a reference or of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackReference {
    /// An edge: `parent` refers to `target`, which stays in the repository.
    Edge {
        /// The repository of both.
        repository: RepositoryName,
        /// What is referred to.
        target: Digest,
        /// The manifest that does.
        parent: Digest,
        /// In this life.
        uid: Uid,
    },
    /// A back-link: a repository holds the bytes of `digest`, which stay in the blob store.
    BackLink {
        /// The digest.
        digest: Digest,
        /// The repository.
        repository: RepositoryName,
        /// As what.
        link_kind: LinkKind,
        /// The life of its link, or of its manifest.
        uid: Uid,
    },
}
