//! The requests to the object store: their number and their content.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::fake::Fake;
use crate::session::{LongBody, MIB, UploadSession, cx};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use registry::store::Timestamp;
use registry::store::blobs::{BlobStore as _, BodyError, Reached, RedirectRequest, Source};
use store_s3::{Encryption, Operation, Parts, S3Blobs, S3Options};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The number of requests since the last call, by operation.
fn counts_since(store: &S3Blobs, before: &mut store_s3::ObjectStoreStatistics) -> BTreeMap<&'static str, u64> {
    let now = store.statistics();
    let counts = Operation::ALL.iter().filter_map(|operation| {
        let count = now.sent(*operation) - before.sent(*operation);
        (count > 0).then(|| (operation.name(), count))
    });
    let counts = counts.collect();
    *before = now;
    counts
}

fn table<const N: usize>(rows: [(&'static str, u64); N]) -> BTreeMap<&'static str, u64> {
    rows.into_iter().collect()
}

/// Compares the table in the documentation of the crate with the requests, line by line.
async fn requests_are_as_documented(store: S3Blobs) {
    let mut before = store.statistics();

    // PATCH+PUT and POST+PUT of 1 MiB: the seal sends no request.
    let mut small = UploadSession::new(&store);
    small.append(MIB).await;
    let location = small.seal().await;
    assert_eq!(counts_since(&store, &mut before), table([("PutObject", 1)]));

    // Pulls.
    let request = RedirectRequest {
        content_type: "application/octet-stream",
        reached_by: Reached::ByAll,
    };
    store.redirect(cx(1).now, &location, request).await.unwrap().unwrap();
    assert_eq!(counts_since(&store, &mut before), table([]));
    small.check(&location).await;
    assert_eq!(counts_since(&store, &mut before), table([("GetObject", 1)]));
    assert_eq!(store.stat(cx(60), &location).await.unwrap(), Some(MIB as u64));
    assert_eq!(counts_since(&store, &mut before), table([("HeadObject", 1)]));

    // The largest body that is one request, and the smallest that is not.
    let mut whole = UploadSession::new(&store);
    whole.append(13 * MIB - 1).await;
    whole.seal().await;
    assert_eq!(counts_since(&store, &mut before), table([("PutObject", 1)]));
    let mut parts = UploadSession::new(&store);
    parts.append(13 * MIB).await;
    parts.seal().await;
    let two_parts = [
        ("CreateMultipartUpload", 1),
        ("UploadPart", 2),
        ("CompleteMultipartUpload", 1),
    ];
    assert_eq!(counts_since(&store, &mut before), table(two_parts));

    // Chunks of 5 MiB or more leave no rest; a single object becomes a part by a copy.
    let mut chunks = UploadSession::new(&store);
    chunks.append(5 * MIB).await;
    assert_eq!(counts_since(&store, &mut before), table([("PutObject", 1)]));
    chunks.append(5 * MIB).await;
    let second = [("CreateMultipartUpload", 1), ("UploadPartCopy", 1), ("UploadPart", 1)];
    assert_eq!(counts_since(&store, &mut before), table(second));
    chunks.append(7 * MIB).await;
    assert_eq!(counts_since(&store, &mut before), table([("UploadPart", 1)]));
    // Smaller chunks are staged, and read back.
    chunks.append(MIB).await;
    assert_eq!(counts_since(&store, &mut before), table([("PutObject", 1)]));
    chunks.append(MIB).await;
    assert_eq!(
        counts_since(&store, &mut before),
        table([("GetObject", 1), ("PutObject", 1)])
    );
    let location = chunks.seal().await;
    assert_eq!(
        counts_since(&store, &mut before),
        table([("UploadPartCopy", 1), ("CompleteMultipartUpload", 1), ("HeadObject", 1)])
    );
    chunks.check(&location).await;
    assert_eq!(counts_since(&store, &mut before), table([("GetObject", 1)]));
    chunks.end(Some(&location)).await;
    assert_eq!(counts_since(&store, &mut before), table([("DeleteObjects", 1)]));

    // Small bodies that become one object.
    let mut little = UploadSession::new(&store);
    little.append(10).await;
    little.append(10).await;
    assert_eq!(
        counts_since(&store, &mut before),
        table([("PutObject", 2), ("GetObject", 1)])
    );
    little.seal().await;
    assert_eq!(counts_since(&store, &mut before), table([("HeadObject", 1)]));

    // A cancelled upload.
    let mut cancelled = UploadSession::new(&store);
    cancelled.append(20 * MIB).await;
    counts_since(&store, &mut before);
    cancelled.end(None).await;
    assert_eq!(
        counts_since(&store, &mut before),
        table([("AbortMultipartUpload", 1), ("DeleteObjects", 1)])
    );
}

/// 1 GiB in one body of unknown length: its parts, and two more requests.
async fn a_gibibyte_needs_one_request_per_part_and_two_more(store: S3Blobs) {
    let mut before = store.statistics();
    let mut session = UploadSession::new(&store);
    let attempt = session.attempt();
    let mut body = LongBody::new(1024 * MIB);
    let appended = store.append(cx(60), attempt, &[], &mut body).await.unwrap();
    session.save(appended, &[]);
    let upload = registry::store::blobs::Upload {
        size: 1024 * MIB as u64,
        ..session.upload()
    };
    let location = store.seal(cx(120), &upload).await.unwrap();
    let counts_since = counts_since(&store, &mut before);
    // 127 parts of 8 MiB, and the last part with the rest.
    let expected = [
        ("CreateMultipartUpload", 1),
        ("UploadPart", 128),
        ("CompleteMultipartUpload", 1),
    ];
    assert_eq!(counts_since, table(expected));
    assert_eq!(store.stat(cx(60), &location).await.unwrap(), Some(1024 * MIB as u64));
    session.end(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_as_documented_in_memory() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    requests_are_as_documented(store.clone()).await;
    let counted: u64 = store.statistics().requests.iter().map(|(_, counts)| counts.sent).sum();
    assert_eq!(
        fake.seen().len() as u64,
        counted,
        "the statistics count the requests that were sent"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an S3 server"]
async fn requests_are_as_documented_on_a_real_server() {
    // With checksums, a store that returns none for copies needs more requests.
    requests_are_as_documented(crate::server::store_with(|options| options.part_checksums = false).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an S3 server"]
async fn a_gibibyte_needs_one_request_per_part_and_two_more_on_a_real_server() {
    a_gibibyte_needs_one_request_per_part_and_two_more(crate::server::store_with(|_| {}).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unsupported_features_are_not_used_again() {
    let fake = Fake::start().await;
    fake.state(|state| state.lacks_features = true);
    let store = fake.store(|_| {}).await;
    for round in 0..2 {
        let mut session = UploadSession::new(&store);
        session.append(20 * MIB).await;
        session.append(1000).await;
        let location = session.seal_and_check().await;
        session.end(Some(&location)).await;
        session.check(&location).await;
        let counts = fake.counts();
        // The store stops using a feature after the first refusal.
        let (puts, many) = if round == 0 { (2, Some(&1)) } else { (1, None) };
        assert_eq!(counts["PutObject"], puts);
        assert_eq!(counts["CreateMultipartUpload"], puts);
        assert_eq!(counts["CompleteMultipartUpload"], 1);
        assert_eq!(counts.get("DeleteObjects"), many);
        assert_eq!(counts["DeleteObject"], 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_copied_without_checksums_are_sent_again_or_signed() {
    let fake = Fake::start().await;
    fake.state(|state| state.copies_without_checksums = true);
    let store = fake.store(|_| {}).await;
    let mut session = UploadSession::new(&store);
    for size in [6 * MIB, 6 * MIB, 1000] {
        session.append(size).await;
    }
    session.seal_and_check().await;
    // After a failed body the copied bytes are large, and parts are signed instead of having checksums.
    session.append_lost(10).await;
    fake.seen();
    session.append(20 * MIB).await;
    let seen = fake.seen();
    let parts: Vec<_> = seen
        .iter()
        .filter(|seen| seen.operation == Operation::UploadPart)
        .collect();
    assert_eq!(parts.len(), 2);
    for part in parts {
        assert!(!part.headers.contains_key("x-amz-checksum-crc32"));
        assert_ne!(part.headers["x-amz-content-sha256"], "UNSIGNED-PAYLOAD");
    }
    session.seal_and_check().await;
}

/// A body whose chunks count their bytes while they exist.
struct TrackedBody {
    left: usize,
    alive: Arc<AtomicUsize>,
    maximum: Arc<AtomicUsize>,
}

struct TrackedChunk {
    bytes: Vec<u8>,
    alive: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for TrackedChunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for TrackedChunk {
    fn drop(&mut self) {
        self.alive.fetch_sub(self.bytes.len(), Ordering::SeqCst);
    }
}

const CHUNK: usize = 256 << 10;

#[async_trait]
impl Source for TrackedBody {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= CHUNK;
        let alive = self.alive.fetch_add(CHUNK, Ordering::SeqCst) + CHUNK;
        self.maximum.fetch_max(alive, Ordering::SeqCst);
        Ok(Some(Bytes::from_owner(TrackedChunk {
            bytes: vec![1; CHUNK],
            alive: Arc::clone(&self.alive),
        })))
    }

    fn remaining(&self) -> Option<u64> {
        None
    }

    fn sha256(&self) -> Option<[u8; 32]> {
        None
    }
}

/// The maximum number of bytes in memory while `count` bodies of `size` bytes are stored at once.
async fn memory_of(store: &S3Blobs, count: usize, size: usize) -> usize {
    let (alive, maximum) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let uploads: Vec<_> = (0..count)
        .map(|_| {
            let (store, mut session) = (store.clone(), UploadSession::new(store));
            let mut body = TrackedBody {
                left: size,
                alive: Arc::clone(&alive),
                maximum: Arc::clone(&maximum),
            };
            tokio::spawn(async move {
                let attempt = session.attempt();
                let appended = store.append(cx(60), attempt, &[], &mut body).await.unwrap();
                session.save(appended, &[]);
                session.end(None).await;
            })
        })
        .collect();
    for upload in uploads {
        upload.await.unwrap();
    }
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    maximum.load(Ordering::SeqCst)
}

async fn memory_is_bounded(store: S3Blobs, bound: usize) {
    let alone = memory_of(&store, 1, 128 * MIB).await;
    assert!(alone <= 64 * MIB + 2 * CHUNK, "one upload holds {alone} bytes");
    // Each upload may exceed its memory by the chunk that filled a part in flight, and by one more chunk.
    let many = memory_of(&store, 16, 64 * MIB).await;
    assert!(many <= bound + 33 * CHUNK, "16 uploads hold {many} bytes");
    assert!(many > bound / 2, "uploads run in parallel: {many}");
    assert_eq!(store.statistics().upload_memory_free, bound as u64);
    assert_eq!(store.statistics().uploads, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_with_growing_parts() {
    let fake = Fake::start().await;
    let store = fake.store(|options| options.upload_memory = 96 << 20).await;
    memory_is_bounded(store, 96 * MIB).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an S3 server"]
async fn memory_is_bounded_on_a_real_server() {
    for parts in [Parts::Growing, Parts::Equal] {
        let store = crate::server::store_with(|options| {
            options.upload_memory = 256 << 20;
            options.parts = parts;
        });
        memory_is_bounded(store.await, 256 * MIB).await;
    }
}

/// All uploads complete although there is memory for only one.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_wait_for_memory_and_never_for_each_other() {
    for parts in [Parts::Growing, Parts::Equal] {
        let fake = Fake::start().await;
        let store = fake
            .store(|options| {
                options.upload_memory = 1;
                options.parts = parts;
            })
            .await;
        let stored = memory_of(&store, 6, 60 * MIB);
        tokio::time::timeout(Duration::from_mins(1), stored).await.unwrap();
    }
}

/// A plain HTTP client fetches the object at the redirect's URL.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an S3 server"]
async fn a_redirect_leads_to_the_bytes() {
    let store = crate::server::store_with(|_| {}).await;
    let mut session = UploadSession::new(&store);
    session.append(100_000).await;
    let location = session.seal().await;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let request = RedirectRequest {
        content_type: "application/octet-stream",
        reached_by: Reached::By([127, 0, 0, 1].into()),
    };
    let now = Timestamp(u64::try_from(now.as_millis()).unwrap());
    let redirect = store.redirect(now, &location, request).await.unwrap().unwrap();
    let rest = redirect.url.strip_prefix("http://").unwrap();
    let (authority, path) = rest.split_once('/').unwrap();
    for (range, status, bytes) in [
        ("", "200", &session.whole[..]),
        ("Range: bytes=10-19\r\n", "206", &session.whole[10..20]),
    ] {
        let mut stream = TcpStream::connect(authority).await.unwrap();
        let request = format!("GET /{path} HTTP/1.1\r\nHost: {authority}\r\n{range}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}");
        assert!(head.contains("content-type: application/octet-stream"), "{head}");
        assert!(answer[end..] == *bytes);
    }
}

#[test]
fn the_debug_output_of_options_shows_no_key() {
    let mut options = S3Options::new("bucket");
    options.encryption = Encryption::Kms(Some("arn-of-a-key".to_owned()));
    let printed = format!("{options:?}");
    assert!(!printed.contains("arn-of-a-key"), "{printed}");
}

#[tokio::test]
async fn the_debug_output_of_the_store_shows_only_bucket_and_prefix() {
    let fake = Fake::start().await;
    let store = fake.store(|options| options.prefix = "p".to_owned()).await;
    assert_eq!(
        format!("{store:?}"),
        "S3Blobs { bucket: \"bucket\", prefix: \"p/\", .. }"
    );
}

#[tokio::test]
async fn a_read_buffers_at_most_a_window() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    let mut session = UploadSession::new(&store);
    session.append(12 * MIB).await;
    let location = session.seal().await;
    let mut stream = store
        .read(cx(60), &location, 0..12 * MIB as u64)
        .await
        .unwrap()
        .unwrap();
    let first = stream.try_next().await.unwrap().unwrap();
    assert!(first.len() <= MIB);
    tokio::time::sleep(Duration::from_millis(200)).await;
    // Bytes that are not requested stay in the store, except those in the sockets' buffers.
    assert!(store.statistics().bytes_received <= MIB as u64);
}
