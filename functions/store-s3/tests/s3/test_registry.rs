//! A registry over the server in memory: the core with this store.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use contract::fixed_clock::FixedClock;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::{HeaderMap, Method, Request};
use oci::{Algorithm, Digest};
use registry::store::Timestamp;
use registry::store::blobs::BodyError;
use registry::store::memory::{MemoryCollection, MemoryMetadata, MemorySessions};
use registry::{Anonymous, Registry, RequestBody, Settings, Stores};
use store_s3::S3Options;

use crate::fake::Fake;

/// A registry over the server in memory.
pub(crate) struct TestRegistry {
    pub(crate) fake: Fake,
    registry: Registry,
}

/// The body of a request.
pub(crate) enum RequestContent<'a> {
    /// With a declared length.
    Whole(&'a [u8]),
    /// In chunked transfer encoding.
    Chunked(&'a [u8]),
    /// In chunked transfer encoding; then the connection ends.
    Cut(&'a [u8]),
}

impl TestRegistry {
    pub(crate) async fn new(change: impl FnOnce(&mut S3Options, &mut Settings)) -> Self {
        let fake = Fake::start().await;
        let mut settings = Settings::default();
        let store = fake.store(|options| change(options, &mut settings)).await;
        let (metadata, sessions) = (Arc::new(MemoryMetadata::new()), Arc::new(MemorySessions::new()));
        let stores = Stores {
            blobs: Arc::new(store),
            collection: Arc::new(MemoryCollection::new(metadata.clone(), sessions.clone())),
            records: metadata.clone(),
            access: metadata.clone(),
            metadata,
            sessions,
        };
        let (users, environment) = (
            Arc::new(Anonymous::all()),
            Arc::new(FixedClock::at(Timestamp(1_900_000_000_000))),
        );
        let registry = Registry::open(stores, users, environment, Arc::new(()), settings)
            .await
            .unwrap();
        Self { fake, registry }
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        target: &str,
        range: Option<(usize, usize)>,
        sent: RequestContent<'_>,
    ) -> (u16, HeaderMap) {
        let (bytes, is_cut) = match sent {
            RequestContent::Whole(bytes) | RequestContent::Chunked(bytes) => (bytes, false),
            RequestContent::Cut(bytes) => (bytes, true),
        };
        let chunks: Vec<_> = bytes.chunks(60_000).map(Bytes::copy_from_slice).collect();
        let frames = chunks.into_iter().map(|chunk| Ok(Frame::data(chunk)));
        let end = is_cut.then_some(Err(BodyError::Cut));
        let body = StreamBody::new(stream::iter(frames.chain(end).collect::<Vec<_>>()));
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "localhost");
        if let RequestContent::Whole(bytes) = sent {
            request = request.header("content-length", bytes.len());
        }
        if let Some((first, length)) = range {
            request = request.header("content-range", format!("{first}-{}", first + length - 1));
        }
        let request = request.body(RequestBody::stream(body)).unwrap();
        let response = self.registry.handle(request).await;
        let (head, body) = response.into_parts();
        drop(body.collect().await);
        (head.status.as_u16(), head.headers)
    }

    pub(crate) async fn open(&self) -> String {
        let (status, headers) = self
            .call(Method::POST, "/v2/a/blobs/uploads/", None, RequestContent::Whole(b""))
            .await;
        assert_eq!(status, 202);
        headers["location"].to_str().unwrap().to_owned()
    }

    pub(crate) async fn patch(&self, upload: &str, at: usize, bytes: &[u8]) -> u16 {
        let range = Some((at, bytes.len()));
        self.call(Method::PATCH, upload, range, RequestContent::Whole(bytes))
            .await
            .0
    }

    /// Finishes the upload, and returns the number of store requests for that.
    pub(crate) async fn finish(&self, upload: &str, whole: &[u8]) -> BTreeMap<&'static str, usize> {
        let digest = Digest::of(Algorithm::Sha256, whole);
        self.fake.counts();
        let target = format!("{upload}?digest={digest}");
        let (status, _) = self.call(Method::PUT, &target, None, RequestContent::Whole(b"")).await;
        assert_eq!(status, 201);
        let counts = self.fake.counts();
        let (_, _, bytes) = self.get(&digest, "").await;
        assert!(bytes == *whole);
        counts
    }

    /// The response to a GET of a blob.
    pub(crate) async fn get(&self, digest: &Digest, range: &str) -> (u16, HeaderMap, Bytes) {
        let mut request = Request::get(format!("/v2/a/blobs/{digest}")).header("host", "localhost");
        if !range.is_empty() {
            request = request.header("range", range);
        }
        let request = request.body(RequestBody::empty()).unwrap();
        let (head, body) = self.registry.handle(request).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (head.status.as_u16(), head.headers, bytes)
    }
}
