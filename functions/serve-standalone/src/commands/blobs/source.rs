//! An object that is copied from one store to another. It is hashed while it is copied, so that the destination gets only
//! content that matches its digest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use oci::{Digest, Hasher};
use registry::store::StoreError;
use registry::store::blobs::{BodyError, ByteStream, Source};

/// The state that all copies of a command share.
#[derive(Debug, Default)]
pub(super) struct CopyState {
    /// Bytes that all copies together have read.
    pub(super) bytes: AtomicU64,
    /// Whether the command is to end. Copies in progress then fail, so that the store deletes what they have stored.
    pub(super) stop: AtomicBool,
}

/// Why the object cannot be read. The destination learns only that the bytes ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// The source store failed.
    #[error("the object cannot be read: {0}")]
    Unreadable(#[source] StoreError),
    /// The content does not match the digest.
    #[error("the object is damaged: its content hashes to {0}")]
    Damaged(Digest),
    /// The object is shorter or longer than its record says.
    #[error("the object has another size than its record says: {0} bytes were read")]
    Length(u64),
    /// The command was stopped.
    #[error("interrupted")]
    Interrupted,
}

/// The bytes of an object, hashed while they are read.
pub(super) struct ObjectSource {
    stream: ByteStream,
    hasher: Option<Hasher>,
    digest: Digest,
    size: u64,
    read: u64,
    shared: Arc<CopyState>,
    /// Why the bytes ended early.
    pub(super) error: Option<SourceError>,
}

impl ObjectSource {
    pub(super) fn new(stream: ByteStream, digest: Digest, size: u64, shared: Arc<CopyState>) -> Self {
        Self {
            stream,
            hasher: Some(Hasher::new(digest.algorithm())),
            digest,
            size,
            read: 0,
            shared,
            error: None,
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, SourceError> {
        if self.shared.stop.load(Ordering::Relaxed) {
            return Err(SourceError::Interrupted);
        }
        let Some(chunk) = self.stream.next().await else {
            if self.read != self.size {
                return Err(SourceError::Length(self.read));
            }
            let hash = self.hasher.take().map(Hasher::finish);
            return match hash {
                Some(hash) if hash != self.digest => Err(SourceError::Damaged(hash)),
                _ => Ok(None),
            };
        };
        let chunk = chunk.map_err(SourceError::Unreadable)?;
        self.read += chunk.len() as u64;
        if self.read > self.size {
            return Err(SourceError::Length(self.read));
        }
        self.shared.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&chunk);
        }
        Ok(Some(chunk))
    }
}

#[async_trait]
impl Source for ObjectSource {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            match self.read().await {
                Ok(Some(chunk)) if chunk.is_empty() => {}
                Ok(chunk) => return Ok(chunk),
                Err(error) => {
                    self.error = Some(error);
                    return Err(BodyError::Cut);
                }
            }
        }
    }

    fn remaining(&self) -> Option<u64> {
        Some(self.size.saturating_sub(self.read))
    }

    fn sha256(&self) -> Option<[u8; 32]> {
        None
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use futures_util::stream;
    use oci::Algorithm;

    use super::*;

    async fn read(chunks: &[&'static str], of: &str, size: u64) -> (usize, Option<String>) {
        let chunks: Vec<_> = chunks
            .iter()
            .map(|chunk| Ok(Bytes::from_static(chunk.as_bytes())))
            .collect();
        let digest = Digest::of(Algorithm::Sha256, of.as_bytes());
        let mut source = ObjectSource::new(stream::iter(chunks).boxed(), digest, size, Arc::default());
        let mut read = 0;
        loop {
            match source.next().await {
                Ok(Some(chunk)) => read += chunk.len(),
                Ok(None) => return (read, None),
                Err(_) => return (read, source.error.map(|error| error.to_string())),
            }
        }
    }

    #[tokio::test]
    async fn only_content_that_matches_the_digest_is_read_to_its_end() {
        assert_eq!(read(&["ab", "", "c"], "abc", 3).await, (3, None));
        assert_eq!(read(&[], "", 0).await, (0, None));
        let (_, damaged) = read(&["ab", "d"], "abc", 3).await;
        assert!(damaged.unwrap().contains("damaged"));
        let (_, short) = read(&["ab"], "abc", 3).await;
        assert!(short.unwrap().contains("2 bytes"));
        let (taken, long) = read(&["ab", "cd"], "abcd", 3).await;
        assert!(long.unwrap().contains("4 bytes"));
        assert_eq!(taken, 2, "nothing beyond the recorded size is stored");
    }

    #[tokio::test]
    async fn an_interruption_ends_the_copy() {
        let shared = Arc::new(CopyState::default());
        let digest = Digest::of(Algorithm::Sha256, b"abc");
        let chunks = [Ok(Bytes::from_static(b"abc"))];
        let mut source = ObjectSource::new(stream::iter(chunks).boxed(), digest, 3, shared.clone());
        shared.stop.store(true, Ordering::Relaxed);
        assert!(source.next().await.is_err());
        assert!(matches!(source.error, Some(SourceError::Interrupted)));
    }
}
