//! Tests of what only this store does: the order of syncs, files after faults, the memory budget, and reads from the
//! disk.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod joins;
mod power;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use contract::source::{Body, noise};
use futures_util::TryStreamExt;
use registry::store::Uid;
use registry::store::blobs::BodyError;
use tempfile::TempDir;

use super::*;
use crate::files::FileForm;
use crate::files::recorded::FileCall::{Create, SyncDirectory, SyncFile, Write};
use crate::files::recorded::{FileCall, RecordedFiles};

const SESSION: SessionId = SessionId(42);
const NO_SPACE: i32 = 28;
const IO_ERROR: i32 = 5;

struct Store {
    blobs: Arc<DiskBlobs>,
    files: Arc<RecordedFiles>,
    directory: TempDir,
}

impl Store {
    fn new(upload_memory: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = Arc::new(RecordedFiles::open(&directory.path().join("blobs")));
        Self {
            blobs: Arc::new(DiskBlobs::new(
                files.clone(),
                Sync::Full,
                UploadBudget::new(upload_memory, EmbeddedOptions::MEMORY_TIMEOUT),
            )),
            files,
            directory,
        }
    }

    async fn append(&self, number: u32, state: &[u8], source: &mut dyn Source) -> Result<Appended, AppendError> {
        self.blobs
            .append(
                cx(),
                Attempt {
                    session: SESSION,
                    number,
                },
                state,
                source,
            )
            .await
    }

    async fn seal(&self, appended: Appended, size: usize) -> Result<Location, StoreError> {
        let upload = Upload {
            session: SESSION,
            state: appended.state,
            parts: appended.part.into_iter().collect(),
            size: size as u64,
        };
        self.blobs.seal(cx(), &upload).await
    }

    /// The first `size` bytes of an object.
    async fn bytes(&self, location: &Location, size: usize) -> Vec<u8> {
        let stream = self.blobs.read(cx(), location, 0..size as u64).await.unwrap().unwrap();
        let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
        chunks.concat()
    }

    /// The number of files.
    fn files(&self) -> usize {
        let directories = std::fs::read_dir(self.directory.path().join("blobs")).unwrap();
        directories
            .map(|entry| std::fs::read_dir(entry.unwrap().path()).unwrap().count())
            .sum()
    }
}

fn cx() -> Context {
    Context::internal(Timestamp(1), 60_000, Uid(1))
}

fn segment(number: u32) -> FileName {
    FileName::new(SESSION, number, FileForm::Segment)
}

fn whole(location: Location) -> ObjectToDelete {
    ObjectToDelete {
        location,
        unfinished: false,
    }
}

fn of_segment(calls: &[FileCall], number: u32) -> Vec<(FileCall, FileForm, u32)> {
    calls.iter().map(|call| (*call, FileForm::Segment, number)).collect()
}

#[tokio::test]
async fn a_body_is_durable_before_it_is_acknowledged() {
    let store = Store::new(8 << 20);
    store.append(1, &[], &mut Body::of(&noise(1, 1000), 300)).await.unwrap();
    // A small body is written with one write.
    assert_eq!(
        store.files.calls(),
        of_segment(&[Create, Write, SyncFile, SyncDirectory], 1)
    );

    store
        .append(2, &[], &mut Body::of(&noise(1, 5 << 20), 64 << 10))
        .await
        .unwrap();
    let calls = store.files.calls();
    assert_eq!(calls.first(), of_segment(&[Create], 2).first());
    assert_eq!(
        calls[calls.len() - 3..],
        of_segment(&[Write, SyncFile, SyncDirectory], 2)
    );
    assert!(calls.len() > 6, "a large body is written while it arrives: {calls:?}");
    assert!(!store.files.is_volatile(segment(1)) && !store.files.is_volatile(segment(2)));
}

#[tokio::test]
async fn a_fault_leaves_no_file() {
    let store = Store::new(8 << 20);
    for size in [1000, 5 << 20] {
        for call in [Create, Write, SyncFile, SyncDirectory] {
            for (code, is_temporary) in [(NO_SPACE, true), (IO_ERROR, false)] {
                store.files.fail(Some((call, code)));
                let error = store
                    .append(1, &[], &mut Body::of(&noise(1, size), 64 << 10))
                    .await
                    .unwrap_err();
                let AppendError::Store(error) = error else {
                    panic!("{call:?}: {error}");
                };
                assert_eq!(
                    matches!(error, StoreError::Unavailable(_)),
                    is_temporary,
                    "{call:?}: {error}"
                );
                assert_eq!(store.files(), 0, "{call:?} of {size} bytes");
            }
        }
    }
    store.files.fail(None);
    store
        .append(1, &[], &mut Body::of(&noise(1, 1000), 1000))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_body_that_is_cut_off_leaves_no_file() {
    let store = Store::new(8 << 20);
    for size in [1000, 5 << 20] {
        let mut body = Body::of(&noise(1, size), 64 << 10).failing(BodyError::Cut);
        let error = store.append(1, &[], &mut body).await.unwrap_err();
        assert!(matches!(error, AppendError::Body(BodyError::Cut)));
        assert_eq!(store.files(), 0);
    }
}

#[tokio::test]
async fn a_body_that_cannot_fit_is_refused_before_it_is_read() {
    let store = Store::new(8 << 20);
    let mut body = Body::of(&noise(1, 5 << 20), 64 << 10).declaring(Some(u64::MAX / 2));
    let error = store.append(1, &[], &mut body).await.unwrap_err();
    assert!(
        matches!(error, AppendError::Store(StoreError::Unavailable(_))),
        "{error}"
    );
    assert_eq!(store.files.calls(), []);
}

/// A chunk that counts its bytes while it is in memory.
struct CountedChunk(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for CountedChunk {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for CountedChunk {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0.len(), Ordering::SeqCst);
    }
}

/// A body of counted chunks. It also records the maximum number of bytes that were in memory at once.
struct CountedBody {
    chunks: usize,
    in_memory: Arc<AtomicUsize>,
    maximum: Arc<AtomicUsize>,
}

const CHUNK: usize = 16 << 10;

#[async_trait]
impl Source for CountedBody {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        if self.chunks == 0 {
            return Ok(None);
        }
        self.chunks -= 1;
        tokio::task::yield_now().await;
        let in_memory = self.in_memory.fetch_add(CHUNK, Ordering::SeqCst) + CHUNK;
        self.maximum.fetch_max(in_memory, Ordering::SeqCst);
        Ok(Some(Bytes::from_owner(CountedChunk(
            vec![7; CHUNK],
            Arc::clone(&self.in_memory),
        ))))
    }

    fn remaining(&self) -> Option<u64> {
        None
    }

    fn sha256(&self) -> Option<[u8; 32]> {
        None
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_stay_within_their_memory_budget() {
    const MEMORY: usize = 1 << 20;
    const UPLOADS: u32 = 40;
    let store = Store::new(MEMORY as u64);
    let (in_memory, maximum) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let uploads: Vec<_> = (1..=UPLOADS)
        .map(|number| {
            let blobs = Arc::clone(&store.blobs);
            let mut body = CountedBody {
                chunks: 64,
                in_memory: Arc::clone(&in_memory),
                maximum: Arc::clone(&maximum),
            };
            let attempt = Attempt {
                session: SESSION,
                number,
            };
            tokio::spawn(async move { blobs.append(cx(), attempt, &[], &mut body).await.map(drop) })
        })
        .collect();
    for upload in uploads {
        upload.await.unwrap().unwrap();
    }
    // Each upload may hold one chunk while it waits for memory.
    let maximum = maximum.load(Ordering::SeqCst);
    assert!(maximum <= MEMORY + UPLOADS as usize * CHUNK, "{maximum} bytes at once");
    assert!(maximum > 4 * CHUNK, "uploads run concurrently");
    assert_eq!(in_memory.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn stalled_uploads_do_not_block_others() {
    // Memory for two uploads.
    let store = Store::new(256 << 10);
    let stalled: Vec<_> = (1..=5)
        .map(|session| {
            let blobs = Arc::clone(&store.blobs);
            tokio::spawn(async move {
                let attempt = Attempt {
                    session: SessionId(session),
                    number: 1,
                };
                // Some send much, some send little, and then all send nothing.
                let mut body = BodyThatStalls(session as usize * 20);
                blobs.append(cx(), attempt, &[], &mut body).await.map(drop)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let attempt = Attempt {
        session: SESSION,
        number: 1,
    };
    let mut body = Body::of(&noise(1, 300_000), 10_000);
    let stored = store.blobs.append(cx(), attempt, &[], &mut body);
    tokio::time::timeout(Duration::from_secs(20), stored)
        .await
        .unwrap()
        .unwrap();
    assert!(stalled.iter().all(|upload| !upload.is_finished()));
    stalled.iter().for_each(tokio::task::JoinHandle::abort);
}

/// A body with one chunk, which is written at once. After it, the client sends nothing.
struct WrittenThenStalled(Option<Bytes>);

#[async_trait]
impl Source for WrittenThenStalled {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        match self.0.take() {
            Some(chunk) => Ok(Some(chunk)),
            None => std::future::pending().await,
        }
    }

    fn remaining(&self) -> Option<u64> {
        None
    }

    fn sha256(&self) -> Option<[u8; 32]> {
        None
    }
}

/// An upload without unwritten bytes holds no memory.
#[tokio::test]
async fn an_upload_that_stalls_after_a_write_holds_no_memory() {
    const MEMORY: u64 = 8 << 20;
    let store = Store::new(MEMORY);
    let stalled: Vec<_> = (1..=20)
        .map(|number| {
            let blobs = Arc::clone(&store.blobs);
            let attempt = Attempt {
                session: SESSION,
                number,
            };
            let mut body = WrittenThenStalled(Some(Bytes::from(vec![7; 256 << 10])));
            tokio::spawn(async move { blobs.append(cx(), attempt, &[], &mut body).await.map(drop) })
        })
        .collect();
    let all_is_free = async {
        while store.blobs.upload_memory.free() < MEMORY || store.files() < stalled.len() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all_is_free)
        .await
        .unwrap();
    assert!(stalled.iter().all(|upload| !upload.is_finished()));
    stalled.iter().for_each(tokio::task::JoinHandle::abort);
}

/// There are more uploads than there is memory for. Each sends a byte from time to time and never pauses. An upload of
/// another client is stored without delay.
#[tokio::test]
async fn slow_uploads_do_not_block_others() {
    let store = Store::new(256 << 10);
    let from = |last| Context {
        client: registry::budget::ClientKey::of([127, 0, 0, last].into()),
        ..cx()
    };
    let slow: Vec<_> = (1..=40)
        .map(|session| {
            let blobs = Arc::clone(&store.blobs);
            tokio::spawn(async move {
                let attempt = Attempt {
                    session: SessionId(session),
                    number: 1,
                };
                blobs.append(from(2), attempt, &[], &mut SlowBody).await.map(drop)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(
        store.blobs.upload_memory.is_short(),
        "there is not enough memory for all of them"
    );
    for number in 1..=3 {
        let attempt = Attempt {
            session: SESSION,
            number,
        };
        let mut body = Body::of(&noise(1, 300_000), 10_000);
        let stored = store.blobs.append(from(3), attempt, &[], &mut body);
        tokio::time::timeout(Duration::from_secs(20), stored)
            .await
            .unwrap()
            .unwrap();
    }
    slow.iter().for_each(tokio::task::JoinHandle::abort);
    for upload in slow {
        assert!(
            upload.await.unwrap_err().is_cancelled(),
            "it still ran, and did not fail"
        );
    }
    assert_eq!(store.blobs.upload_memory.free(), 256 << 10);
}

/// A body that sends a byte from time to time, without an end.
struct SlowBody;

#[async_trait]
impl Source for SlowBody {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(Some(Bytes::from_static(b".")))
    }

    fn remaining(&self) -> Option<u64> {
        None
    }

    fn sha256(&self) -> Option<[u8; 32]> {
        None
    }
}

/// A body of some chunks, after which the client sends nothing.
struct BodyThatStalls(usize);

#[async_trait]
impl Source for BodyThatStalls {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        if self.0 == 0 {
            std::future::pending::<()>().await;
        }
        self.0 -= 1;
        Ok(Some(Bytes::from(vec![1; CHUNK])))
    }

    fn remaining(&self) -> Option<u64> {
        None
    }

    fn sha256(&self) -> Option<[u8; 32]> {
        None
    }
}

#[tokio::test]
async fn uncached_data_is_read_from_the_disk() {
    let store = Store::new(8 << 20);
    let bytes = noise(1, 3_000_000);
    let appended = store.append(1, &[], &mut Body::of(&bytes, 64 << 10)).await.unwrap();
    let location = store.seal(appended, bytes.len()).await.unwrap();
    for range in [0..3_000_000, 17..2_999_999, 2_999_000..3_000_000, 5..6] {
        let file = store.files.open(segment(1)).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let stream = store
            .blobs
            .read(cx(), &location, range.start as u64..range.end as u64)
            .await
            .unwrap()
            .unwrap();
        let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
        assert!(chunks.concat() == bytes[range.clone()], "{range:?}");
    }
}

#[tokio::test]
async fn reading_a_truncated_object_fails_at_its_end() {
    let store = Store::new(8 << 20);
    let bytes = noise(1, 600_000);
    let appended = store.append(1, &[], &mut Body::of(&bytes, 64 << 10)).await.unwrap();
    let location = store.seal(appended, bytes.len()).await.unwrap();
    let path = store.directory.path().join("blobs/0").join(&location.key);
    let mut stream = store.blobs.read(cx(), &location, 0..600_000).await.unwrap().unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(400_000)
        .unwrap();

    let mut read = 0;
    let error = loop {
        match stream.try_next().await {
            Ok(Some(chunk)) => read += chunk.len(),
            Ok(None) => panic!("the stream ended like a complete one"),
            Err(error) => break error,
        }
    };
    assert_eq!(read, 400_000);
    assert!(matches!(error, StoreError::Failed(_)), "{error}");
    // A file that is already too short when it is opened counts as missing.
    for range in [500_000..500_010, 0..600_000] {
        let opened = store.blobs.read(cx(), &location, range).await.unwrap();
        assert!(opened.is_none());
    }
}

#[tokio::test]
async fn a_location_of_another_store_is_refused() {
    let store = Store::new(8 << 20);
    store.append(1, &[], &mut Body::of(&noise(1, 10), 10)).await.unwrap();
    let key = segment(1).to_string();
    let foreign = [
        ("s3", key.as_str()),
        ("disk", key.as_str()),
        (Location::MAIN, "../../metadata.db"),
        (Location::MAIN, ""),
    ];
    for (id, key) in foreign {
        let location = Location {
            store: id.to_owned(),
            key: key.to_owned(),
        };
        assert!(store.blobs.read(cx(), &location, 0..1).await.is_err(), "{location:?}");
        assert!(store.blobs.delete(cx(), &[whole(location)]).await.is_err());
    }
    assert_eq!(store.files(), 1);
}

/// Another client can write, even when many writes of one client occupy threads. Reads have threads of their own.
#[tokio::test]
async fn one_client_cannot_occupy_all_write_threads() {
    const SOON: Duration = Duration::from_millis(200);
    let of = |number| Context {
        client: ClientKey::of([10, 0, 0, number].into()),
        ..cx()
    };
    let store = Store::new(8 << 20);
    let append = async |cx: Context, number: u32| {
        let attempt = Attempt {
            session: SESSION,
            number,
        };
        let mut body = Body::of(&Bytes::from_static(b"bytes"), 5);
        store.blobs.append(cx, attempt, &[], &mut body).await
    };
    let first = store.seal(append(of(1), 1).await.unwrap(), 5).await.unwrap();
    let to_delete = [whole(location(segment(9)))];
    let kept = [location(segment(9))];

    let occupied: Vec<_> = std::iter::from_fn(|| store.blobs.writes.try_take(of(1).client)).collect();
    assert_eq!(occupied.len(), 48);
    let mut waiting = std::pin::pin!(append(of(1), 2));
    assert!(tokio::time::timeout(SOON, waiting.as_mut()).await.is_err());
    let discarding = store.blobs.discard(of(1), SessionId(43), 9, &[], None);
    assert!(tokio::time::timeout(SOON, discarding).await.is_err());
    let deleting = store.blobs.delete(of(1), &to_delete);
    assert!(tokio::time::timeout(SOON, deleting).await.is_err());
    let tidying = store.blobs.tidy(of(1), &kept);
    assert!(tokio::time::timeout(SOON, tidying).await.is_err());
    assert!(append(of(2), 3).await.is_ok());
    assert_eq!(store.blobs.stat(of(1), &first).await.unwrap(), Some(5));
    assert_eq!(store.bytes(&first, 5).await, b"bytes");

    drop(occupied);
    assert!(waiting.await.is_ok());
    // All turns were returned.
    let all: Vec<_> = std::iter::from_fn(|| store.blobs.writes.try_take(of(1).client)).collect();
    assert_eq!(all.len(), 48);
}
