//! Objects that are missing or damaged.
//!
//! Metadata says where the bytes of a digest lie. Only the blob store knows whether they are still there. A read that finds
//! no object records this defect; then HEAD and GET answer 404, and the next push uploads the bytes. HEAD asks the table
//! alone: until the defect is recorded it answers 200, and a client that trusts it does not upload. A push that finds the
//! bytes of its digest recorded at another location looks at the object there, before it gives up its own.

use std::ops::Range;

use oci::{Digest, RepositoryName};

use super::ranges::object_missing;
use crate::call::Call;
use crate::store::blobs::ByteStream;
use crate::store::metadata::Defect;
use crate::store::{Location, StoreError};

/// How often the recorded location of a digest may change within one request.
const MAX_MOVES: usize = 4;

/// Where a record says that the bytes of a digest lie.
pub(super) struct Named<'a> {
    pub(super) repository: &'a RepositoryName,
    pub(super) digest: &'a Digest,
    pub(super) location: &'a Location,
    /// The defect that the record says they have.
    pub(super) defect: Option<Defect>,
}

impl Call<'_> {
    /// Opens a range of the bytes of a digest, and returns their present location. `None`: they are lost, which is recorded
    /// now. An object that was recorded as missing and is back is used again: the store may have been configured wrongly.
    pub(super) async fn open_object(
        &self,
        named: Named<'_>,
        range: Range<u64>,
    ) -> Result<Option<(ByteStream, Location)>, StoreError> {
        let Named { repository, digest, .. } = named;
        let (mut location, mut defect) = (named.location.clone(), named.defect);
        for _ in 0..MAX_MOVES {
            if defect != Some(Defect::Damaged)
                && let Some(stream) = self.stores.blobs.read(self.cx(), &location, range.clone()).await?
            {
                if defect.is_some() {
                    self.is_back(digest, &location).await;
                }
                return Ok(Some((stream, location)));
            }
            // Also where a defect is recorded already: a push may have replaced the object, and not yet this record.
            let found = defect.unwrap_or(Defect::Missing);
            let metadata = &self.stores.metadata;
            let moved = metadata
                .record_defect(self.cx(), Some(repository), digest, &location, found)
                .await?;
            let Some(moved) = moved else {
                if defect.is_none() {
                    tracing::error!(
                        %repository,
                        %digest,
                        store = location.store,
                        key = location.key,
                        "an object is missing or too short; the digest is answered with 404 until it is pushed again"
                    );
                }
                return Ok(None);
            };
            (location, defect) = (moved, None);
        }
        Err(object_missing(&location))
    }

    /// The bytes of an object that was just sealed. If it is missing, that is a fault of the store.
    pub(super) async fn read(&self, location: &Location, range: Range<u64>) -> Result<ByteStream, StoreError> {
        self.stores
            .blobs
            .read(self.cx(), location, range)
            .await?
            .ok_or_else(|| object_missing(location))
    }

    /// Records that a missing object is back. The read is served in any case; if the record stays wrong, the next read costs
    /// as much as this one.
    async fn is_back(&self, digest: &Digest, location: &Location) {
        let recorded = self.stores.metadata.clear_missing(self.cx(), digest, location).await;
        match recorded {
            Ok(()) => tracing::info!(%digest, key = location.key, "an object that was missing is back"),
            Err(error) => tracing::warn!(
                %digest,
                key = location.key,
                error = &error as &dyn std::error::Error,
                "an object that was missing is back, which could not be recorded"
            ),
        }
    }

    /// Makes sure that the bytes of a digest are whole where they lie, after an object of them was sealed at `offered`
    /// and published: one request to the blob store, and only if they lie elsewhere. What is gone there, or has another
    /// size, is replaced by `offered` in every repository.
    pub(super) async fn make_sure(
        &self,
        digest: &Digest,
        size: u64,
        offered: &Location,
        mut location: Location,
    ) -> Result<(), StoreError> {
        for _ in 0..MAX_MOVES {
            if location == *offered || self.is_whole(&location, size).await? {
                return Ok(());
            }
            tracing::warn!(
                %digest,
                key = location.key,
                new_key = offered.key,
                "an object is missing or has another size; what was just pushed takes its place"
            );
            let metadata = &self.stores.metadata;
            let now = metadata
                .replace_location(self.cx(), digest, &location, offered, size)
                .await?;
            match now {
                // It was unlinked meanwhile.
                None => return Ok(()),
                Some(now) if now == *offered => return self.is_still_there(digest, size, offered).await,
                Some(now) => location = now,
            }
        }
        Err(StoreError::unavailable("the bytes of a digest kept moving"))
    }

    /// An object that was scheduled for deletion, since the bytes lay elsewhere, and then took their place: a collection in
    /// between may have deleted it. What it left is recorded, and nothing is acknowledged.
    async fn is_still_there(&self, digest: &Digest, size: u64, offered: &Location) -> Result<(), StoreError> {
        if self.is_whole(offered, size).await? {
            return Ok(());
        }
        let metadata = &self.stores.metadata;
        metadata
            .record_defect(self.cx(), None, digest, offered, Defect::Missing)
            .await?;
        Err(StoreError::unavailable(
            "what was pushed was deleted by a collection before it took the place of a lost object",
        ))
    }

    /// Whether there is an object of this size.
    pub(super) async fn is_whole(&self, location: &Location, size: u64) -> Result<bool, StoreError> {
        Ok(self.stores.blobs.stat(self.cx(), location).await? == Some(size))
    }
}
