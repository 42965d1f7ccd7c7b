//! An object on its way from one store to another: hashed as it passes, so that nothing arrives that is not what its
//! name says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use oci::{Digest, Hasher};
use registry::store::StoreError;
use registry::store::blobs::{BodyError, ByteStream, Source};

/// What all copies of a command share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Bytes read so far, by all.
    pub(super) bytes: AtomicU64,
    /// The command is to end: what is under way is given up, so that the store can clean up behind it.
    pub(super) stop: AtomicBool,
}

/// Why the bytes cannot be had; the store that takes them only learns that they ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Spoiled {
    /// The store that they come from failed.
    #[error("cannot read it: {0}")]
    Unreadable(#[source] StoreError),
    /// They are not what the digest names.
    #[error("its bytes are damaged: they hash to {0}")]
    Damaged(Digest),
    /// They are fewer or more than recorded.
    #[error("it has {0} bytes, which is not what was recorded")]
    Length(u64),
    /// The command is to end.
    #[error("interrupted")]
    Interrupted,
}

/// The bytes of an object.
pub(super) struct ObjectSource {
    stream: ByteStream,
    hasher: Option<Hasher>,
    digest: Digest,
    size: u64,
    read: u64,
    shared: Arc<Shared>,
    /// Why it ended early.
    pub(super) spoiled: Option<Spoiled>,
}

impl ObjectSource {
    pub(super) fn new(stream: ByteStream, digest: Digest, size: u64, shared: Arc<Shared>) -> Self {
        Self {
            stream,
            hasher: Some(Hasher::new(digest.algorithm())),
            digest,
            size,
            read: 0,
            shared,
            spoiled: None,
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, Spoiled> {
        if self.shared.stop.load(Ordering::Relaxed) {
            return Err(Spoiled::Interrupted);
        }
        let Some(chunk) = self.stream.next().await else {
            if self.read != self.size {
                return Err(Spoiled::Length(self.read));
            }
            let hash = self.hasher.take().map(Hasher::finish);
            return match hash {
                Some(hash) if hash != self.digest => Err(Spoiled::Damaged(hash)),
                _ => Ok(None),
            };
        };
        let chunk = chunk.map_err(Spoiled::Unreadable)?;
        self.read += chunk.len() as u64;
        if self.read > self.size {
            return Err(Spoiled::Length(self.read));
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
                Err(spoiled) => {
                    self.spoiled = Some(spoiled);
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
                Err(_) => return (read, source.spoiled.map(|spoiled| spoiled.to_string())),
            }
        }
    }

    #[tokio::test]
    async fn only_the_bytes_that_the_digest_names_come_through() {
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
    async fn an_interruption_ends_it() {
        let shared = Arc::new(Shared::default());
        let digest = Digest::of(Algorithm::Sha256, b"abc");
        let chunks = [Ok(Bytes::from_static(b"abc"))];
        let mut source = ObjectSource::new(stream::iter(chunks).boxed(), digest, 3, shared.clone());
        shared.stop.store(true, Ordering::Relaxed);
        assert!(source.next().await.is_err());
        assert!(matches!(source.spoiled, Some(Spoiled::Interrupted)));
    }
}
