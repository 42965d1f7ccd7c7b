//! The guard of every call in a scenario: a few tags are frozen from the time at which they are created.

use std::sync::Arc;

use oci::{Digest, Tag};
use registry::store::Timestamp;
use registry::store::metadata::{Deletion, Protected, Protection, TagGuard, TagRecord};

use super::fixtures::{FIXTURES, TAGS};

/// The first frozen tag. All tags from here on are frozen.
pub(super) const FROZEN: u8 = 24;

/// Whether a tag is frozen.
pub(super) fn is_frozen(tag: u8) -> bool {
    tag >= FROZEN
}

pub(super) fn frozen_tags() -> Arc<dyn TagGuard> {
    Arc::new(FrozenTags)
}

#[derive(Debug)]
struct FrozenTags;

impl FrozenTags {
    fn check(tag: &Tag, digest: &Digest) -> Result<(), Protected> {
        if (FROZEN..TAGS).any(|frozen| FIXTURES.tag(frozen) == tag) {
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
        _digest: &Digest,
        last: Option<&Deletion>,
        now: Timestamp,
    ) -> Result<Timestamp, Protected> {
        last.map_or(Ok(()), |last| Self::check(tag, &last.digest))?;
        Ok(now)
    }

    fn moved(&self, tag: &Tag, row: &TagRecord, _digest: &Digest, _now: Timestamp) -> Result<(), Protected> {
        Self::check(tag, &row.digest)
    }

    fn removed(&self, tag: &Tag, row: &TagRecord, _now: Timestamp) -> Result<(), Protected> {
        Self::check(tag, &row.digest)
    }

    fn allows_deletions(&self) -> bool {
        false
    }
}
