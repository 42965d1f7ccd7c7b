//! The guard of every call in a scenario: a few tags are frozen from the time at which they are created, and some of these
//! may be deleted.

use std::sync::Arc;

use oci::{Digest, Tag};
use registry::store::Timestamp;
use registry::store::metadata::{Deletion, Protected, Protection, TagGuard, TagRecord};

use super::fixtures::FIXTURES;

/// The first frozen tag. All tags from here on are frozen.
pub(super) const FROZEN: u8 = 24;

/// The first frozen tag that may be deleted, and all tags from here on. They come back only with the digest that they had.
pub(super) const RETURNING: u8 = 26;

/// Whether a tag is frozen.
pub(super) fn is_frozen(tag: u8) -> bool {
    tag >= FROZEN
}

/// Whether a tag is frozen and may not be deleted.
pub(super) fn is_kept(tag: u8) -> bool {
    (FROZEN..RETURNING).contains(&tag)
}

pub(super) fn frozen_tags() -> Arc<dyn TagGuard> {
    Arc::new(FrozenTags)
}

#[derive(Debug)]
struct FrozenTags;

impl FrozenTags {
    /// Refuses a change of these tags.
    fn refuse(these: fn(u8) -> bool, tag: &Tag, digest: &Digest) -> Result<(), Protected> {
        if FIXTURES.number_of(tag.as_str()).is_some_and(these) {
            return Err(Protected {
                tag: tag.clone(),
                why: Protection::Frozen {
                    rule: "frozen".into(),
                    digest: *digest,
                },
            });
        }
        Ok(())
    }
}

impl TagGuard for FrozenTags {
    fn create(
        &self,
        tag: &Tag,
        digest: &Digest,
        last: Option<&Deletion>,
        now: Timestamp,
    ) -> Result<Timestamp, Protected> {
        let Some(last) = last else {
            return Ok(now);
        };
        match Self::refuse(is_frozen, tag, &last.digest) {
            Ok(()) => Ok(now),
            Err(_) if last.digest == *digest => Ok(last.since.unwrap_or(now)),
            Err(protected) => Err(protected),
        }
    }

    fn moved(&self, tag: &Tag, row: &TagRecord, _digest: &Digest, _now: Timestamp) -> Result<(), Protected> {
        Self::refuse(is_frozen, tag, &row.digest)
    }

    fn removed(&self, tag: &Tag, row: &TagRecord, _now: Timestamp) -> Result<(), Protected> {
        Self::refuse(is_kept, tag, &row.digest)
    }

    fn allows_deletions(&self) -> bool {
        false
    }
}
