//! What is asked of the object store: how often, and with what.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::fake::Fake;
use crate::session::{Long, MIB, Session, cx};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use registry::store::Timestamp;
use registry::store::blobs::{BlobStore as _, BodyError, Reached, RedirectRequest, Source};
use store_s3::{Encryption, Operation, Options, Parts, S3Blobs};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Names and numbers of the operations that were asked for since the last call.
fn asked(store: &S3Blobs, before: &mut store_s3::Statistics) -> BTreeMap<&'static str, u64> {
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

/// The table in the documentation of the crate, line by line.
async fn requests_are_as_documented(store: S3Blobs) {
    let mut before = store.statistics();

    // PATCH+PUT and POST+PUT of 1 MiB: the seal asks for nothing.
    let mut small = Session::new(&store);
    small.append(MIB).await;
    let location = small.seal().await;
    assert_eq!(asked(&store, &mut before), table([("PutObject", 1)]));

    // Pulls.
    let request = RedirectRequest {
        content_type: "application/octet-stream",
        reached_by: Reached::ByAll,
    };
    store.redirect(cx(1).now, &location, request).await.unwrap().unwrap();
    assert_eq!(asked(&store, &mut before), table([]));
    small.check(&location).await;
    assert_eq!(asked(&store, &mut before), table([("GetObject", 1)]));
    assert_eq!(store.stat(cx(60), &location).await.unwrap(), Some(MIB as u64));
    assert_eq!(asked(&store, &mut before), table([("HeadObject", 1)]));

    // The largest body that is one request, and the smallest that is not.
    let mut whole = Session::new(&store);
    whole.append(13 * MIB - 1).await;
    whole.seal().await;
    assert_eq!(asked(&store, &mut before), table([("PutObject", 1)]));
    let mut parts = Session::new(&store);
    parts.append(13 * MIB).await;
    parts.seal().await;
    let two_parts = [
        ("CreateMultipartUpload", 1),
        ("UploadPart", 2),
        ("CompleteMultipartUpload", 1),
    ];
    assert_eq!(asked(&store, &mut before), table(two_parts));

    // Chunks of 5 MiB or more leave nothing over; a single object becomes a part by a copy.
    let mut chunks = Session::new(&store);
    chunks.append(5 * MIB).await;
    assert_eq!(asked(&store, &mut before), table([("PutObject", 1)]));
    chunks.append(5 * MIB).await;
    let second = [("CreateMultipartUpload", 1), ("UploadPartCopy", 1), ("UploadPart", 1)];
    assert_eq!(asked(&store, &mut before), table(second));
    chunks.append(7 * MIB).await;
    assert_eq!(asked(&store, &mut before), table([("UploadPart", 1)]));
    // Smaller ones are staged, and read back.
    chunks.append(MIB).await;
    assert_eq!(asked(&store, &mut before), table([("PutObject", 1)]));
    chunks.append(MIB).await;
    assert_eq!(asked(&store, &mut before), table([("GetObject", 1), ("PutObject", 1)]));
    let location = chunks.seal().await;
    assert_eq!(
        asked(&store, &mut before),
        table([("UploadPartCopy", 1), ("CompleteMultipartUpload", 1), ("HeadObject", 1)])
    );
    chunks.check(&location).await;
    assert_eq!(asked(&store, &mut before), table([("GetObject", 1)]));
    chunks.end(Some(&location)).await;
    assert_eq!(asked(&store, &mut before), table([("DeleteObjects", 1)]));

    // Small bodies that are one object.
    let mut little = Session::new(&store);
    little.append(10).await;
    little.append(10).await;
    assert_eq!(asked(&store, &mut before), table([("PutObject", 2), ("GetObject", 1)]));
    little.seal().await;
    assert_eq!(asked(&store, &mut before), table([("HeadObject", 1)]));

    // A cancelled upload.
    let mut cancelled = Session::new(&store);
    cancelled.append(20 * MIB).await;
    asked(&store, &mut before);
    cancelled.end(None).await;
    assert_eq!(
        asked(&store, &mut before),
        table([("AbortMultipartUpload", 1), ("DeleteObjects", 1)])
    );
}

/// 1 GiB in one body of unknown length: parts, and two requests more.
async fn a_gibibyte_is_its_parts_and_two_requests(store: S3Blobs) {
    let mut before = store.statistics();
    let mut session = Session::new(&store);
    let attempt = session.attempt();
    let mut body = Long::new(1024 * MIB);
    let appended = store.append(cx(60), attempt, &[], &mut body).await.unwrap();
    session.save(appended, &[]);
    let upload = registry::store::blobs::Upload {
        size: 1024 * MIB as u64,
        ..session.upload()
    };
    let location = store.seal(cx(120), &upload).await.unwrap();
    let asked = asked(&store, &mut before);
    // 127 of 8 MiB, and the last one of what is left, joined.
    let expected = [
        ("CreateMultipartUpload", 1),
        ("UploadPart", 128),
        ("CompleteMultipartUpload", 1),
    ];
    assert_eq!(asked, table(expected));
    assert_eq!(store.stat(cx(60), &location).await.unwrap(), Some(1024 * MIB as u64));
    session.end(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_as_documented_in_memory() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    requests_are_as_documented(store.clone()).await;
    let counted: u64 = store.statistics().requests.iter().map(|(_, counts)| counts.sent).sum();
    assert_eq!(fake.seen().len() as u64, counted, "what is counted is what was sent");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an S3 server"]
async fn requests_are_as_documented_on_a_real_server() {
    // Where checksums are asked for, a store that yields none for copies costs more.
    requests_are_as_documented(crate::server::store_with(|options| options.part_checksums = false).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an S3 server"]
async fn a_gibibyte_is_its_parts_and_two_requests_on_a_real_server() {
    a_gibibyte_is_its_parts_and_two_requests(crate::server::store_with(|_| {}).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_knows_less_is_asked_for_less() {
    let fake = Fake::start().await;
    fake.held(|held| held.is_old = true);
    let store = fake.store(|_| {}).await;
    for round in 0..2 {
        let mut session = Session::new(&store);
        session.append(20 * MIB).await;
        session.append(1000).await;
        let location = session.seal_and_check().await;
        session.end(Some(&location)).await;
        session.check(&location).await;
        let counts = fake.counts();
        // The first refusal teaches it.
        let (puts, many) = if round == 0 { (2, Some(&1)) } else { (1, None) };
        assert_eq!(counts["PutObject"], puts);
        assert_eq!(counts["CreateMultipartUpload"], puts);
        assert_eq!(counts["CompleteMultipartUpload"], 1);
        assert_eq!(counts.get("DeleteObjects"), many);
        assert_eq!(counts["DeleteObject"], 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_without_checksums_are_made_good() {
    let fake = Fake::start().await;
    fake.held(|held| held.copies_blindly = true);
    let store = fake.store(|_| {}).await;
    let mut session = Session::new(&store);
    for size in [6 * MIB, 6 * MIB, 1000] {
        session.append(size).await;
    }
    session.seal_and_check().await;
    // Behind a body that was lost, what is copied is large, and parts are signed in place of checksums.
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

/// Chunks that count while they live.
struct Tracked {
    left: usize,
    alive: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

struct Owned {
    bytes: Vec<u8>,
    alive: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.alive.fetch_sub(self.bytes.len(), Ordering::SeqCst);
    }
}

const CHUNK: usize = 256 << 10;

#[async_trait]
impl Source for Tracked {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= CHUNK;
        let alive = self.alive.fetch_add(CHUNK, Ordering::SeqCst) + CHUNK;
        self.most.fetch_max(alive, Ordering::SeqCst);
        Ok(Some(Bytes::from_owner(Owned {
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

/// The most bytes that were in memory while `count` bodies of `size` bytes were stored at once.
async fn memory_of(store: &S3Blobs, count: usize, size: usize) -> usize {
    let (alive, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let uploads: Vec<_> = (0..count)
        .map(|_| {
            let (store, mut session) = (store.clone(), Session::new(store));
            let mut body = Tracked {
                left: size,
                alive: Arc::clone(&alive),
                most: Arc::clone(&most),
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
    most.load(Ordering::SeqCst)
}

async fn memory_is_bounded(store: S3Blobs, bound: usize) {
    let alone = memory_of(&store, 1, 128 * MIB).await;
    assert!(alone <= 64 * MIB + 2 * CHUNK, "{alone} bytes of one upload");
    // Each upload may exceed its room by the chunk that filled a part which is on its way, and by one behind it.
    let many = memory_of(&store, 16, 64 * MIB).await;
    assert!(many <= bound + 33 * CHUNK, "{many} bytes of 16");
    assert!(many > bound / 2, "uploads run side by side: {many}");
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

/// With no more room than one upload needs, all of them come to their end.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_wait_for_room_and_never_for_each_other() {
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

/// A client of nothing but HTTP fetches what it was redirected to.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an S3 server"]
async fn a_redirect_leads_to_the_bytes() {
    let store = crate::server::store_with(|_| {}).await;
    let mut session = Session::new(&store);
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
fn nothing_that_can_be_printed_shows_a_secret() {
    let mut options = Options::new("bucket");
    options.encryption = Encryption::Kms(Some("arn-of-a-key".to_owned()));
    let printed = format!("{options:?}");
    assert!(!printed.contains("arn-of-a-key"), "{printed}");
}

#[tokio::test]
async fn the_store_prints_only_its_name() {
    let fake = Fake::start().await;
    let store = fake.store(|options| options.prefix = "p".to_owned()).await;
    assert_eq!(
        format!("{store:?}"),
        "S3Blobs { bucket: \"bucket\", prefix: \"p/\", .. }"
    );
}

#[tokio::test]
async fn a_read_holds_no_more_than_a_window() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    let mut session = Session::new(&store);
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
    // What is not asked for stays where it is, but for what the sockets hold.
    assert!(store.statistics().bytes_received <= MIB as u64);
}
