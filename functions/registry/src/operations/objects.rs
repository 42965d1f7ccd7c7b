//! Missing and damaged objects: what a read does that finds none, and what a push does that finds an older one.
//!
//! Metadata has the location of each object. Only the blob store can tell whether the object still exists, and pulls do
//! not ask it in advance. So a read that finds no object records the loss. From then on HEAD and GET answer 404, and
//! the next push uploads the blob. Before that, HEAD answers 200, because it reads only the table, and clients skip the
//! upload. A push that finds another object of the digest checks that object before it drops its own.

use std::ops::Range;

use oci::{Digest, RepositoryName};

use super::ranges::object_missing;
use crate::call::Call;
use crate::store::blobs::ByteStream;
use crate::store::metadata::Defect;
use crate::store::{Location, StoreError};

/// How often the location of a digest may change within one request.
const MAX_MOVES: usize = 4;

/// The recorded location of a digest's object.
pub(super) struct RecordedLocation<'a> {
    pub(super) repository: &'a RepositoryName,
    pub(super) digest: &'a Digest,
    pub(super) location: &'a Location,
    /// The recorded defect of the object.
    pub(super) defect: Option<Defect>,
}

impl Call<'_> {
    /// Opens a range of a digest's object, and returns its current location. `None`: the object is lost, which is
    /// recorded. An object that was recorded as missing and exists is used again: the registry may have run with the
    /// wrong blob store.
    pub(super) async fn open_object(
        &self,
        named: RecordedLocation<'_>,
        range: Range<u64>,
    ) -> Result<Option<(ByteStream, Location)>, StoreError> {
        let RecordedLocation { repository, digest, .. } = named;
        let (mut location, mut defect) = (named.location.clone(), named.defect);
        for _ in 0..MAX_MOVES {
            if defect != Some(Defect::Damaged)
                && let Some(stream) = self.stores.blobs.read(self.cx(), &location, range.clone()).await?
            {
                if defect.is_some() {
                    self.clear_missing(digest, &location).await;
                }
                return Ok(Some((stream, location)));
            }
            // Also if the defect is recorded: a push may have replaced the object, and have been interrupted before it
            // corrected this repository.
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

    /// The bytes of an object that was just sealed. If it is missing, that is a fault of the server.
    pub(super) async fn read(&self, location: &Location, range: Range<u64>) -> Result<ByteStream, StoreError> {
        self.stores
            .blobs
            .read(self.cx(), location, range)
            .await?
            .ok_or_else(|| object_missing(location))
    }

    /// Clears the recorded defect of an object that exists again. A failure is ignored: the read has succeeded, and the
    /// next read tries again.
    async fn clear_missing(&self, digest: &Digest, location: &Location) {
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

    /// Makes sure that the object of a digest is intact, after another object of it was sealed at `offered` and
    /// published. Costs one request to the blob store, and only if the digest has another location. If the object there
    /// is missing or has another size, `offered` replaces it in every repository.
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
                "an object is missing or has another size; the pushed object replaces it"
            );
            let metadata = &self.stores.metadata;
            let now = metadata
                .replace_location(self.cx(), digest, &location, offered, size)
                .await?;
            match now {
                // A client has unlinked the blob meanwhile, so it need not be intact.
                None => return Ok(()),
                Some(now) if now == *offered => return self.check_not_collected(digest, size, offered).await,
                Some(now) => location = now,
            }
        }
        Err(StoreError::unavailable("the location of a digest kept changing"))
    }

    /// Checks an object that was scheduled for deletion, because the digest had another location, and then took that
    /// object's place. A collection in between may have deleted it. Then the loss is recorded, and the push is not
    /// acknowledged.
    async fn check_not_collected(&self, digest: &Digest, size: u64, offered: &Location) -> Result<(), StoreError> {
        if self.is_whole(offered, size).await? {
            return Ok(());
        }
        let metadata = &self.stores.metadata;
        metadata
            .record_defect(self.cx(), None, digest, offered, Defect::Missing)
            .await?;
        Err(StoreError::unavailable(
            "a collection deleted the pushed object before it replaced a lost object",
        ))
    }

    /// Whether an object of this size exists.
    pub(super) async fn is_whole(&self, location: &Location, size: u64) -> Result<bool, StoreError> {
        Ok(self.stores.blobs.stat(self.cx(), location).await? == Some(size))
    }
}
