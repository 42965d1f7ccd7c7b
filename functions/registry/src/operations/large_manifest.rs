//! Pushes of manifests that are too large for the metadata table: their bytes become an object.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::session_states::leave_to_expiry;
use crate::call::Call;
use crate::error::Error;
use crate::store::blobs::{BodyError, Source, Upload};
use crate::store::metadata::{Content, Defect, ManifestPut, NewContent, PutManifest, TagGuard};
use crate::store::sessions::{Claim, Claimed, End, Expected, Publishing};
use crate::store::{Location, StoreError};

impl Call<'_> {
    /// Puts a manifest that is too large for the table. Its bytes become an object, unless the digest already has one.
    /// As in an upload, a session's row names the object before it exists, so a crash leaves nothing that cannot be
    /// found.
    pub(super) async fn put_large(
        &self,
        put: &mut PutManifest,
        bytes: Bytes,
        guard: &Arc<dyn TagGuard>,
    ) -> Result<ManifestPut, Error> {
        let metadata = &self.stores.metadata;
        let known = match self.found(put).await? {
            StoredManifestBytes::Whole => Some(NewContent::Unchanged),
            StoredManifestBytes::DamagedRecord => Some(NewContent::Inline(bytes.clone())),
            StoredManifestBytes::None => None,
        };
        if let Some(content) = known {
            put.content = content;
            let outcome = metadata.put_manifest(self.cx(), put, guard).await?;
            // The manifest was deleted in between, so its bytes are stored again.
            if outcome != ManifestPut::Gone {
                return Ok(outcome);
            }
        }
        let Claimed::Granted(claim) = self.claim(self.new_session_key(), Expected::New, 1).await? else {
            return Err(StoreError::failed("a new session is not new").into());
        };
        let (location, leaves_something) = self.store_bytes(&claim, bytes).await?;
        let publishing = Publishing {
            digest: put.digest,
            location,
            size: put.size,
        };
        if !self.stores.sessions.commit(self.cx(), &claim, &publishing).await? {
            return Err(StoreError::unavailable("storing a manifest took longer than its claim").into());
        }
        put.content = NewContent::Sealed(publishing.location);
        let outcome = metadata.put_manifest(self.cx(), put, guard).await?;
        if let (ManifestPut::StoredElsewhere(other), NewContent::Sealed(offered)) = (&outcome, &put.content) {
            self.make_sure(&put.digest, put.size, offered, other.clone()).await?;
        }
        let end = match outcome {
            ManifestPut::Stored | ManifestPut::AsItWas | ManifestPut::StoredElsewhere(_) => End::Done,
            ManifestPut::Missing(_) | ManifestPut::OtherType(_) | ManifestPut::Gone | ManifestPut::Protected(_) => {
                End::Cancelled
            }
        };
        // Collection deletes only the row of a done session, and would not find what is left.
        if !(end == End::Done && leaves_something) {
            leave_to_expiry(self.stores.sessions.finish(self.cx(), &claim, end).await);
        }
        Ok(outcome)
    }

    /// The state of the manifest's stored bytes: one request to the blob store, if they are in an object. A missing
    /// object is recorded, so that it can be replaced.
    async fn found(&self, put: &PutManifest) -> Result<StoredManifestBytes, StoreError> {
        let metadata = &self.stores.metadata;
        let record = metadata.manifest(self.cx(), &put.repository, &put.digest).await?;
        match record.map(|record| record.content) {
            None | Some(Content::Defective(..)) => Ok(StoredManifestBytes::None),
            Some(Content::Inline(_)) => Ok(StoredManifestBytes::Whole),
            Some(Content::Damaged(_)) => Ok(StoredManifestBytes::DamagedRecord),
            Some(Content::Stored(location)) => {
                if self.is_whole(&location, put.size).await? {
                    return Ok(StoredManifestBytes::Whole);
                }
                let (repository, defect) = (Some(&put.repository), Defect::Missing);
                metadata
                    .record_defect(self.cx(), repository, &put.digest, &location, defect)
                    .await?;
                Ok(StoredManifestBytes::None)
            }
        }
    }

    /// Stores the bytes. Returns their location, and whether anything else was left.
    async fn store_bytes(&self, claim: &Claim, bytes: Bytes) -> Result<(Location, bool), Error> {
        let size = bytes.len() as u64;
        let appended = self
            .stores
            .blobs
            .append(self.cx(), claim.attempt, &[], &mut OneChunk(Some(bytes)))
            .await?;
        let leaves_something = self.stores.blobs.leaves_something(&appended.state);
        let parts = appended.part.into_iter().collect();
        let upload = Upload {
            session: claim.key.id,
            state: appended.state,
            parts,
            size,
        };
        let location = self.stores.blobs.seal(self.sealing(), &upload).await?;
        Ok((location, leaves_something))
    }
}

/// The state of the stored bytes of a manifest that is put.
enum StoredManifestBytes {
    /// They are intact, as far as is known.
    Whole,
    /// The record has other bytes, and must get the right ones.
    DamagedRecord,
    /// They are not stored.
    None,
}

/// Bytes in memory, as a body.
struct OneChunk(Option<Bytes>);

#[async_trait]
impl Source for OneChunk {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        Ok(self.0.take())
    }

    fn remaining(&self) -> Option<u64> {
        Some(self.0.as_ref().map_or(0, Bytes::len) as u64)
    }

    fn sha256(&self) -> Option<[u8; 32]> {
        None
    }
}
