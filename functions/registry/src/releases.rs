//! Rollback and promotion: a tag names an earlier manifest again, or a manifest of another repository.
//!
//! [`Registry::roll_back`](crate::Registry::roll_back) and [`Registry::promote`](crate::Registry::promote) do the work, for a
//! request and for an operator's command. This file has what they are asked, what they answer, and why they refuse.

use oci::{Digest, MediaType, Reference, RepositoryName, Tag};

use crate::auth::{Permit, Pull, TagPermit};
use crate::store::StoreError;
use crate::store::metadata::{Protected, Protection};

/// The maximum number of referrers of a promotion: manifests whose subject is promoted, and manifests of tags that stand for
/// referrers.
pub const MAX_REFERRERS: usize = 100;
/// The maximum number of manifests of a promotion.
pub const MAX_MANIFESTS: usize = 5_000;
/// The maximum depth of indexes in indexes.
pub const MAX_DEPTH: usize = 8;
/// The maximum number of changes of a tag among which a rollback looks for a digest.
pub const MAX_CHANGES: usize = 10_000;

/// What a rollback goes back to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Earlier {
    /// The manifest that the tag named after the change with this version.
    Version(u64),
    /// A manifest that the tag has named.
    Digest(Digest),
}

/// A rollback that was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RolledBack {
    /// The digest that the tag names now.
    pub digest: Digest,
    /// Whether it named another one, or did not exist.
    pub moved: bool,
}

/// A promotion that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Promotion<'a> {
    /// The permission to read what is promoted.
    pub source: &'a Permit<Pull>,
    /// What is promoted.
    pub reference: &'a Reference,
    /// The permission to publish it elsewhere, or in the same repository, and the tags that name it there.
    pub target: &'a TagPermit,
    /// The principal, as the history of the tags records it.
    pub principal: &'a str,
    /// Whether what refers to it is promoted too, such as signatures.
    pub with_referrers: bool,
}

/// A promotion that was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Promoted {
    /// The digest that the tags name now.
    pub digest: Digest,
    /// Whether one of the tags named another one, or did not exist.
    pub moved: bool,
    /// How many manifests it has, with those of its platforms and without referrers. 0 within one repository.
    pub manifests: usize,
    /// How many manifests were promoted because they refer to it.
    pub referrers: usize,
    /// Tags for referrers that stay as they are in the target, because the manifest there has entries that the manifest of the
    /// source lacks.
    pub kept: Vec<Tag>,
    /// Bytes of manifests that were copied, because they are too large for their record. Blobs are never copied.
    pub copied_bytes: u64,
}

/// Why a tag was not changed. What a promotion has put in the target before is complete, and has no new tag.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The tag does not exist; for a rollback: it never existed.
    #[error("the repository {repository} has no tag {tag}")]
    NoTag {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
    },
    /// The manifest does not exist.
    #[error("the repository {repository} has no manifest {digest}")]
    NoManifest {
        /// The repository.
        repository: RepositoryName,
        /// The digest.
        digest: Digest,
    },
    /// The target does not exist, and the policy does not let pushes create it.
    #[error("there is no repository {0}, and by the policy a push does not create it")]
    NoRepository(RepositoryName),
    /// A blob is larger than the policy allows in the target, which does not have it yet.
    #[error("the blob {digest} has more than the {limit} bytes that the policy allows in {repository}")]
    BlobTooLarge {
        /// The target.
        repository: RepositoryName,
        /// The digest.
        digest: Digest,
        /// The maximum size in bytes.
        limit: u64,
    },
    /// A manifest says of some content that it is stored elsewhere, and the policy does not allow that in the target.
    #[error("a manifest says that {digest} is stored elsewhere, which the policy does not allow in {repository}")]
    ForeignLayer {
        /// The target.
        repository: RepositoryName,
        /// The digest of the content.
        digest: Digest,
    },
    /// The history has no change with this version.
    #[error("the history of the tag {tag} of {repository} has no version {version}")]
    NoVersion {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
        /// The version.
        version: u64,
    },
    /// The change with this version deleted the tag.
    #[error("version {version} of the tag {tag} of {repository} is its deletion: it names no manifest")]
    Deletion {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
        /// The version.
        version: u64,
    },
    /// The history does not have the digest.
    #[error(
        "in its last {} changes, the tag {tag} of {repository} did not name {digest}",
        MAX_CHANGES
    )]
    NeverNamed {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
        /// The digest.
        digest: Digest,
    },
    /// The tag has named the manifest, which was deleted.
    #[error("the manifest {digest} was deleted from {repository} since; push it again")]
    ManifestDeleted {
        /// The repository.
        repository: RepositoryName,
        /// The digest.
        digest: Digest,
    },
    /// The bytes of the manifest are missing or damaged.
    #[error("the manifest {digest} of {repository} is lost or damaged; push it again")]
    Lost {
        /// The repository.
        repository: RepositoryName,
        /// The digest.
        digest: Digest,
    },
    /// The source lacks something to which the manifest refers, or its object is missing or damaged.
    #[error("{0}")]
    Incomplete(Box<MissingReference>),
    /// The target has the manifest with another media type.
    #[error("the repository {repository} has the manifest {digest} with the type {media_type}; delete it there first")]
    OtherType {
        /// The repository.
        repository: RepositoryName,
        /// The digest.
        digest: Digest,
        /// The type there.
        media_type: MediaType,
    },
    /// The guard refuses the change of a tag.
    #[error("{}", protection_text(.0))]
    Protected(Box<Protected>),
    /// There are too many referrers.
    #[error("more than {} manifests refer to it; promote it without referrers", MAX_REFERRERS)]
    TooManyReferrers,
    /// There are too many manifests.
    #[error("it has more than {} manifests", MAX_MANIFESTS)]
    TooManyManifests,
    /// Indexes are in indexes too deeply.
    #[error("its indexes are nested more than {} levels deep", MAX_DEPTH)]
    TooDeep,
    /// Another request has changed one of the repositories at the same time.
    #[error("another request has changed the repository at the same time; run this again")]
    Changed,
    /// A store could not do its work.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A reference of a manifest that the source lacks.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the repository {repository} lacks {digest}, to which the manifest {manifest} refers; push the image again")]
pub struct MissingReference {
    /// The repository.
    pub repository: RepositoryName,
    /// The manifest.
    pub manifest: Digest,
    /// What is absent.
    pub digest: Digest,
}

/// Why the guard refuses the change of a tag.
fn protection_text(Protected { tag, why }: &Protected) -> String {
    match why {
        Protection::Frozen { rule, digest } => {
            format!("the tag {tag} is immutable by the rule {rule:?} of the policy: it keeps naming {digest}")
        }
        Protection::DeletedWhileFrozen { rule, digest } => format!(
            "the deleted tag {tag} stays immutable by the rule {rule:?} of the policy: it can only name {digest} again"
        ),
        Protection::CreateOnly { digest } => {
            format!("the tag {tag} exists and names {digest}, and the principal may only create tags")
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use oci::Algorithm;

    use super::*;

    #[test]
    fn a_refused_change_names_the_rule_and_the_digest() {
        let digest = Digest::of(Algorithm::Sha256, b"one");
        let rule = || "re\"leases".into();
        for (why, words) in [
            (Protection::Frozen { rule: rule(), digest }, "is immutable by the rule"),
            (
                Protection::DeletedWhileFrozen { rule: rule(), digest },
                "stays immutable",
            ),
            (Protection::CreateOnly { digest }, "only create"),
        ] {
            let names_rule = why.rule().is_some();
            let tag = "1.0.0".parse().unwrap();
            let text = ReleaseError::Protected(Box::new(Protected { tag, why })).to_string();
            assert!(text.contains(words) && text.contains(&digest.to_string()), "{text}");
            assert_eq!(text.contains(r#""re\"leases""#), names_rule, "{text}");
        }
    }
}
