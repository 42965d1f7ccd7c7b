//! What is pushed: blobs of any size, each different from every other, that cost neither memory nor hashing while a row
//! is timed.
//!
//! All blobs of one size share everything but their last [`TAIL`] bytes. The shared part is a pool of random bytes, read
//! round and round, so even a blob of 1 GiB occupies no more than the pool; the state of the hash after the shared part
//! is kept ([`Series`]), so the digest of one more blob costs one block of SHA-256. No registry gains by it: they all
//! hash and store whole blobs, and nothing repeats inside a window that a file system would fold.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use sha2::{Digest as _, Sha256};

/// Bytes at the end of a blob that are its own. A blob is never smaller.
pub(crate) const TAIL: u64 = 64;

/// Bytes in the pool of random data.
const POOL: usize = 16 << 20;

/// Bytes handed to the connection at once when the length of a body is known.
const WHOLE_FRAME: u64 = 1 << 20;

/// Bytes in one chunk of a chunked body: the buffer that Go's HTTP client copies through, hence docker's.
const CHUNK_FRAME: u64 = 32 << 10;

/// Random bytes that every blob of one run is cut from.
#[derive(Clone)]
pub(crate) struct Pool {
    bytes: Bytes,
    seed: u64,
}

impl Pool {
    /// A pool grown from `seed`. The same seed gives the same blobs.
    pub(crate) fn new(seed: u64) -> Self {
        let mut state = seed;
        let mut bytes = Vec::with_capacity(POOL);
        while bytes.len() < POOL {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            bytes.extend_from_slice(&mix(state).to_le_bytes());
        }
        Self {
            bytes: bytes.into(),
            seed,
        }
    }

    /// Up to `limit` bytes of the endless repetition of the pool from `offset`.
    fn cut(&self, offset: u64, limit: u64) -> Bytes {
        let length = self.bytes.len() as u64;
        let start = offset % length;
        let end = length.min(start + limit);
        let (start, end) = (to_usize(start), to_usize(end));
        self.bytes.slice(start..end)
    }
}

/// The blobs of one size.
pub(crate) struct Series {
    pool: Pool,
    size: u64,
    hashed: Sha256,
}

impl Series {
    /// Hashes the part that the blobs of `size` bytes share; a size below [`TAIL`] is raised to it.
    pub(crate) fn new(pool: &Pool, size: u64) -> Self {
        let size = size.max(TAIL);
        let shared = size - TAIL;
        let mut hashed = Sha256::new();
        let mut offset = 0;
        while offset < shared {
            let piece = pool.cut(offset, shared - offset);
            hashed.update(&piece);
            offset += piece.len() as u64;
        }
        Self {
            pool: pool.clone(),
            size,
            hashed,
        }
    }

    /// The blob named `label`: equal labels give equal blobs within a run, different labels different ones.
    pub(crate) fn blob(&self, label: &str) -> Blob {
        let mut own = Sha256::new();
        own.update(self.pool.seed.to_le_bytes());
        own.update(label);
        let tail: Bytes = hex(&own.finalize()).into();
        let mut whole = self.hashed.clone();
        whole.update(&tail);
        Blob {
            pool: self.pool.clone(),
            tail,
            size: self.size,
            digest: digest(whole),
        }
    }
}

/// One blob. Clones share their bytes.
#[derive(Clone)]
pub(crate) struct Blob {
    pool: Pool,
    tail: Bytes,
    /// Length in bytes.
    pub(crate) size: u64,
    /// `sha256:` and 64 hexadecimal digits.
    pub(crate) digest: String,
}

impl Blob {
    /// Between 1 and `limit` bytes from `offset`, nothing at the end.
    fn cut(&self, offset: u64, limit: u64) -> Bytes {
        let shared = self.size - TAIL;
        if offset < shared {
            self.pool.cut(offset, limit.min(shared - offset))
        } else {
            let start = to_usize((offset - shared).min(TAIL));
            let end = self.tail.len().min(start + to_usize(limit));
            self.tail.slice(start..end)
        }
    }
}

/// The body of a request.
pub(crate) enum Payload {
    /// No body.
    Empty,
    /// A small body held in memory.
    Held(Bytes),
    /// A blob with its length in the head, sent from the offset on.
    Whole(Blob, u64),
    /// A blob sent from the offset on in chunks without saying its length.
    Chunked(Blob, u64),
}

impl Payload {
    /// A blob sent with `Content-Length`.
    pub(crate) fn whole(blob: Blob) -> Self {
        Self::Whole(blob, 0)
    }

    /// A blob sent with `Transfer-Encoding: chunked`.
    pub(crate) fn chunked(blob: Blob) -> Self {
        Self::Chunked(blob, 0)
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match &mut *self {
            Self::Empty => Bytes::new(),
            Self::Held(bytes) => std::mem::take(bytes),
            Self::Whole(blob, offset) => advance(blob, offset, WHOLE_FRAME),
            Self::Chunked(blob, offset) => advance(blob, offset, CHUNK_FRAME),
        };
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Held(bytes) => bytes.is_empty(),
            Self::Whole(blob, offset) | Self::Chunked(blob, offset) => *offset == blob.size,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Held(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Whole(blob, offset) => SizeHint::with_exact(blob.size - offset),
            Self::Chunked(..) => SizeHint::default(),
        }
    }
}

/// A body that tells when its last byte was handed over to the connection.
pub(crate) struct Timed {
    /// The body.
    payload: Payload,
    /// When it ended; never set by a body without bytes.
    ended: Arc<OnceLock<Instant>>,
}

impl Timed {
    /// The body, and where the moment of its end will be.
    pub(crate) fn new(payload: Payload) -> (Self, Arc<OnceLock<Instant>>) {
        let ended = Arc::default();
        let moment = Arc::clone(&ended);
        (Self { payload, ended }, moment)
    }
}

impl Body for Timed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = Pin::new(&mut self.payload).poll_frame(cx);
        if matches!(frame, Poll::Ready(Some(_))) && self.payload.is_end_stream() {
            // Only the first end counts, and there is but one.
            let _ = self.ended.set(Instant::now());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.payload.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.payload.size_hint()
    }
}

fn advance(blob: &Blob, offset: &mut u64, limit: u64) -> Bytes {
    let piece = blob.cut(*offset, limit);
    *offset += piece.len() as u64;
    piece
}

/// The digest of what a hash has taken in, as registries write it.
pub(crate) fn digest(hash: Sha256) -> String {
    format!("sha256:{}", hex(&hash.finalize()))
}

/// The digest of `bytes`.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    digest(Sha256::new_with_prefix(bytes))
}

/// An image manifest with `config` and at most one layer, and its bytes as they are to be sent.
pub(crate) fn manifest(config: &Blob, layer: Option<&Blob>) -> Bytes {
    let layers = layer.map_or_else(String::new, |layer| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":{}}}"#,
            layer.digest, layer.size
        )
    });
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{layers}]}}"#,
        config.digest, config.size
    )
    .into()
}

/// The media type of the manifests pushed here.
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Spreads consecutive numbers over all 64 bits (the finalizer of `SplitMix64`).
pub(crate) fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing into a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Offsets inside the pool and a tail are far below 2^32.
fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use http_body_util::BodyExt;

    async fn gather(payload: Payload) -> Bytes {
        payload.collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn a_body_has_the_size_and_the_digest_it_claims() {
        let pool = Pool::new(7);
        for size in [TAIL, 1024, (16 << 20) + TAIL, (40 << 20) + 3] {
            let blob = Series::new(&pool, size).blob("one");
            for payload in [Payload::whole(blob.clone()), Payload::chunked(blob.clone())] {
                let bytes = gather(payload).await;
                assert_eq!(bytes.len() as u64, size);
                assert_eq!(digest_of(&bytes), blob.digest);
            }
        }
    }

    #[tokio::test]
    async fn the_end_of_a_body_has_a_time() {
        let blob = Series::new(&Pool::new(1), 3 << 20).blob("a");
        let (timed, ended) = Timed::new(Payload::whole(blob));
        assert!(ended.get().is_none());
        assert_eq!(timed.collect().await.unwrap().to_bytes().len(), 3 << 20);
        assert!(ended.get().is_some());
        let (timed, ended) = Timed::new(Payload::Empty);
        timed.collect().await.unwrap();
        assert!(ended.get().is_none());
    }

    #[test]
    fn labels_and_seeds_tell_blobs_apart() {
        let series = Series::new(&Pool::new(1), 1024);
        let other = Series::new(&Pool::new(2), 1024);
        assert_eq!(series.blob("a").digest, series.blob("a").digest);
        assert_ne!(series.blob("a").digest, series.blob("b").digest);
        assert_ne!(series.blob("a").digest, other.blob("a").digest);
    }

    #[test]
    fn only_a_chunked_body_hides_its_length() {
        let blob = Series::new(&Pool::new(1), 1024).blob("a");
        assert_eq!(Payload::whole(blob.clone()).size_hint().exact(), Some(1024));
        assert_eq!(Payload::chunked(blob).size_hint().exact(), None);
        assert!(Payload::Empty.is_end_stream());
    }

    #[test]
    fn a_manifest_is_json_with_the_descriptors_given() {
        let series = Series::new(&Pool::new(1), 1024);
        let (config, layer) = (series.blob("c"), series.blob("l"));
        let value: serde_json::Value = serde_json::from_slice(&manifest(&config, Some(&layer))).unwrap();
        assert_eq!(value["config"]["digest"], config.digest);
        assert_eq!(value["layers"][0]["size"], 1024);
        let bare: serde_json::Value = serde_json::from_slice(&manifest(&config, None)).unwrap();
        assert_eq!(bare["layers"].as_array().unwrap().len(), 0);
    }
}
