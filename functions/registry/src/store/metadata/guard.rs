//! The guard of tags: which changes of tags a request may make.
//!
//! A tag may change between the check of a permission and the write. So the stores ask the guard inside the operation,
//! about the rows that its transaction is conditional on.

use std::fmt::Debug;
use std::sync::Arc;

use oci::{Digest, Tag};

use super::TagRecord;
use crate::store::Timestamp;

/// Decides which changes of the tags of one repository a request may make.
///
/// A guard is pure: it makes no request, does not wait, and answers equal questions equally. Stores may ask several
/// times. A tag that names the digest already is not changed by a put, so a store does not ask about it.
pub trait TagGuard: Debug + Send + Sync {
    /// Whether a tag that does not exist may be created. `last` is its deletion, if the tag existed before.
    ///
    /// The answer is the time since which the tag counts as naming `digest`, and the store writes it as
    /// [`TagRecord::at`]: `now`, or an earlier time if a tag comes back that had to keep its digest. Without this, a tag
    /// that is deleted and comes back would be as movable as a new one.
    fn create(
        &self,
        tag: &Tag,
        digest: &Digest,
        last: Option<&Deletion>,
        now: Timestamp,
    ) -> Result<Timestamp, Protected>;

    /// Whether a tag that names another manifest may name `digest`.
    fn moved(&self, tag: &Tag, row: &TagRecord, digest: &Digest, now: Timestamp) -> Result<(), Protected>;

    /// Whether a tag may be deleted, alone or with its manifest.
    fn removed(&self, tag: &Tag, row: &TagRecord, now: Timestamp) -> Result<(), Protected>;

    /// Whether the guard never refuses a deletion. Then a store need not read all tags of a manifest before it deletes
    /// the first.
    fn allows_deletions(&self) -> bool;
}

/// A deletion of a tag, which is the last change of every tag that existed and does not exist now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// The digest that the tag named.
    pub digest: Digest,
    /// Since when it named that digest. `None`: a version of this program that did not record it deleted the tag.
    pub since: Option<Timestamp>,
    /// When it was deleted.
    pub at: Timestamp,
}

/// A change that a guard refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protected {
    /// The tag, or one of the tags.
    pub tag: Tag,
    /// Why.
    pub why: Protection,
}

/// Why a guard refuses a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protection {
    /// The tag is frozen: it keeps its digest.
    Frozen {
        /// The name of the rule.
        rule: Arc<str>,
        /// The digest that the tag names.
        digest: Digest,
    },
    /// The tag was deleted, and had stood for so long that the rule had it frozen, or would have had: the rule may be
    /// newer than the deletion. The tag can only be created with the digest that it had.
    DeletedWhileFrozen {
        /// The name of the rule.
        rule: Arc<str>,
        /// The digest that it had.
        digest: Digest,
    },
    /// The tag exists, and the principal may only create tags.
    CreateOnly {
        /// The digest that the tag names.
        digest: Digest,
    },
}

impl Protection {
    /// The digest that the tag names, or had. A put of this digest is accepted.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        match self {
            Self::Frozen { digest, .. } | Self::DeletedWhileFrozen { digest, .. } | Self::CreateOnly { digest } => {
                digest
            }
        }
    }

    /// The name of the rule that freezes the tag, if it is frozen.
    #[must_use]
    pub fn rule(&self) -> Option<&Arc<str>> {
        match self {
            Self::Frozen { rule, .. } | Self::DeletedWhileFrozen { rule, .. } => Some(rule),
            Self::CreateOnly { .. } => None,
        }
    }
}

/// Allows every change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllowAll;

impl AllowAll {
    /// The guard as the stores take it.
    #[must_use]
    pub fn shared() -> Arc<dyn TagGuard> {
        Arc::new(Self)
    }
}

impl TagGuard for AllowAll {
    fn create(
        &self,
        _tag: &Tag,
        _digest: &Digest,
        _last: Option<&Deletion>,
        now: Timestamp,
    ) -> Result<Timestamp, Protected> {
        Ok(now)
    }

    fn moved(&self, _tag: &Tag, _row: &TagRecord, _digest: &Digest, _now: Timestamp) -> Result<(), Protected> {
        Ok(())
    }

    fn removed(&self, _tag: &Tag, _row: &TagRecord, _now: Timestamp) -> Result<(), Protected> {
        Ok(())
    }

    fn allows_deletions(&self) -> bool {
        true
    }
}
