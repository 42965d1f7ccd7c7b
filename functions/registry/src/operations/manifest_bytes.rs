//! Reads the stored bytes of a manifest, from its record or from an object.

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use oci::{Digest, Manifest, ManifestLimits, RepositoryName};

use super::objects::RecordedLocation;
use crate::call::Call;
use crate::memory::{Memory, Purpose};
use crate::store::StoreError;
use crate::store::blobs::ByteStream;
use crate::store::metadata::{Content, ManifestRecord};

/// The limits by which stored manifests are parsed: a manifest was accepted under earlier limits, which may have been higher.
pub(super) const UNLIMITED: ManifestLimits = ManifestLimits {
    max_depth: usize::MAX,
    max_references: usize::MAX,
    max_values: usize::MAX,
};

impl Call<'_> {
    /// Whether the record has fewer or more bytes than its size says. It is then damaged, which is recorded.
    pub(super) async fn is_cut(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        record: &ManifestRecord,
    ) -> Result<bool, StoreError> {
        match &record.content {
            Content::Inline(bytes) if bytes.len() as u64 != record.size => {
                let metadata = &self.stores.metadata;
                metadata.record_damaged_manifest(self.cx(), repository, digest).await?;
                tracing::error!(
                    %repository,
                    %digest,
                    "a manifest is damaged in its record; it is answered with 404 until it is pushed again"
                );
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// The bytes of a manifest in an object; `None`: they are lost.
    pub(super) async fn open_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        content: &Content,
        size: u64,
    ) -> Result<Option<ByteStream>, StoreError> {
        let Some(location) = content.object() else {
            return Ok(None);
        };
        let recorded = RecordedLocation {
            repository,
            digest,
            location,
            defect: match content {
                Content::Defective(_, defect) => Some(*defect),
                Content::Inline(_) | Content::Stored(_) | Content::Damaged(_) => None,
            },
        };
        let opened = self.open_object(recorded, 0..size).await?;
        Ok(opened.map(|(stream, _)| stream))
    }

    /// All bytes of a manifest. Their size is bounded, as that of every manifest. `None`: they are lost.
    pub(super) async fn manifest_bytes(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        record: ManifestRecord,
    ) -> Result<Option<Bytes>, StoreError> {
        if let Content::Inline(bytes) = record.content {
            return Ok(Some(bytes));
        }
        let stream = self
            .open_manifest(repository, digest, &record.content, record.size)
            .await?;
        let Some(mut stream) = stream else {
            return Ok(None);
        };
        let mut bytes = BytesMut::new();
        while let Some(chunk) = stream.try_next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes.freeze()))
    }

    /// All bytes of a manifest that is parsed next, and the memory for both. `None`: they are lost.
    pub(super) async fn bytes_to_parse(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        record: &ManifestRecord,
    ) -> Result<Option<(Bytes, Memory)>, StoreError> {
        let size = usize::try_from(record.size).unwrap_or(usize::MAX);
        let mut memory = self.memory_for(Purpose::Work, size).await?;
        let read = || self.manifest_bytes(repository, digest, record.clone());
        let Some(mut bytes) = read().await? else {
            return Ok(None);
        };
        let parsing = Manifest::memory_to_parse(&bytes, &UNLIMITED);
        if !memory.try_grow(parsing) {
            // Nothing is kept in memory while this waits for more; then the manifest is read again.
            drop((bytes, memory));
            memory = self.memory_for(Purpose::Work, size.saturating_add(parsing)).await?;
            let Some(again) = read().await? else {
                return Ok(None);
            };
            bytes = again;
        }
        Ok(Some((bytes, memory)))
    }
}
