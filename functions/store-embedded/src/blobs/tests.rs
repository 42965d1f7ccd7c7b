//! What is this store's own: the order of syncs, what faults leave behind, the bound of memory, reading from a disk.
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
                UploadMemory::new(upload_memory, Options::MEMORY_TIMEOUT),
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

    /// The first bytes of an object.
    async fn bytes(&self, location: &Location, size: usize) -> Vec<u8> {
        let stream = self.blobs.read(cx(), location, 0..size as u64).await.unwrap().unwrap();
        let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
        chunks.concat()
    }

    /// How many files there are.
    fn files(&self) -> usize {
        let directories = std::fs::read_dir(self.directory.path().join("blobs")).unwrap();
        directories
            .map(|entry| std::fs::read_dir(entry.unwrap().path()).unwrap().count())
            .sum()
    }
}

fn cx() -> Context {
    Context {
        now: Timestamp(1),
        deadline: Timestamp(60_001),
        uid: Uid(1),
        client: registry::budget::ClientKey::INTERNAL,
    }
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
    // A small body is written at once.
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
async fn a_fault_leaves_nothing_behind() {
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
async fn a_body_that_is_cut_is_gone_when_it_is_refused() {
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

/// A chunk that counts the bytes that are alive.
struct Counted(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0.len(), Ordering::SeqCst);
    }
}

/// A body of chunks that are counted while they live, and the most that lived at once.
struct CountedBody {
    chunks: usize,
    alive: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
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
        let alive = self.alive.fetch_add(CHUNK, Ordering::SeqCst) + CHUNK;
        self.most.fetch_max(alive, Ordering::SeqCst);
        Ok(Some(Bytes::from_owner(Counted(
            vec![7; CHUNK],
            Arc::clone(&self.alive),
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
async fn uploads_hold_no_more_than_their_bound() {
    const MEMORY: usize = 1 << 20;
    const UPLOADS: u32 = 40;
    let store = Store::new(MEMORY as u64);
    let (alive, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let uploads: Vec<_> = (1..=UPLOADS)
        .map(|number| {
            let blobs = Arc::clone(&store.blobs);
            let mut body = CountedBody {
                chunks: 64,
                alive: Arc::clone(&alive),
                most: Arc::clone(&most),
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
    // Each upload may have a chunk at hand for which it waits for memory.
    let most = most.load(Ordering::SeqCst);
    assert!(most <= MEMORY + UPLOADS as usize * CHUNK, "{most} bytes at once");
    assert!(most > 4 * CHUNK, "uploads run side by side");
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn uploads_that_stall_do_not_keep_others_out() {
    // UploadMemory for two.
    let store = Store::new(256 << 10);
    let stalled: Vec<_> = (1..=5)
        .map(|session| {
            let blobs = Arc::clone(&store.blobs);
            tokio::spawn(async move {
                let attempt = Attempt {
                    session: SessionId(session),
                    number: 1,
                };
                // Some of them much, some of them little, and then nothing.
                let mut body = Stalling(session as usize * 20);
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

/// One chunk, which is written at once, and then nothing.
struct WrittenAndStalled(Option<Bytes>);

#[async_trait]
impl Source for WrittenAndStalled {
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

/// What has no bytes to keep keeps no memory either.
#[tokio::test]
async fn uploads_that_stall_after_a_write_hold_nothing() {
    const MEMORY: u64 = 8 << 20;
    let store = Store::new(MEMORY);
    let stalled: Vec<_> = (1..=20)
        .map(|number| {
            let blobs = Arc::clone(&store.blobs);
            let attempt = Attempt {
                session: SESSION,
                number,
            };
            let mut body = WrittenAndStalled(Some(Bytes::from(vec![7; 256 << 10])));
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

/// More uploads than there is memory for, each of which sends a byte now and then and never pauses, and one of another
/// client: it is stored at once.
#[tokio::test]
async fn uploads_that_trickle_do_not_keep_others_out() {
    let store = Store::new(256 << 10);
    let from = |last| Context {
        client: registry::budget::ClientKey::of([127, 0, 0, last].into()),
        ..cx()
    };
    let trickling: Vec<_> = (1..=40)
        .map(|session| {
            let blobs = Arc::clone(&store.blobs);
            tokio::spawn(async move {
                let attempt = Attempt {
                    session: SessionId(session),
                    number: 1,
                };
                blobs.append(from(2), attempt, &[], &mut Trickling).await.map(drop)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(
        store.blobs.upload_memory.is_short(),
        "there is not enough for all of them"
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
    trickling.iter().for_each(tokio::task::JoinHandle::abort);
    for upload in trickling {
        assert!(
            upload.await.unwrap_err().is_cancelled(),
            "it goes on, and is not given up"
        );
    }
    assert_eq!(store.blobs.upload_memory.free(), 256 << 10);
}

/// A byte now and then, for ever.
struct Trickling;

#[async_trait]
impl Source for Trickling {
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

/// Some chunks, and then silence.
struct Stalling(usize);

#[async_trait]
impl Source for Stalling {
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
async fn what_the_kernel_no_longer_holds_is_read_from_the_disk() {
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
async fn an_object_that_is_too_short_is_an_error_where_it_ends() {
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
            Ok(None) => panic!("the stream ended as if it were whole"),
            Err(error) => break error,
        }
    };
    assert_eq!(read, 400_000);
    assert!(matches!(error, StoreError::Failed(_)), "{error}");
    // One that is too short when it is opened is not there.
    for range in [500_000..500_010, 0..600_000] {
        let opened = store.blobs.read(cx(), &location, range).await.unwrap();
        assert!(opened.is_none());
    }
}

#[tokio::test]
async fn a_location_of_another_store_is_never_touched() {
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

/// However many writes of one client occupy threads, another client writes; and reads have threads of their own.
#[tokio::test]
async fn writes_take_turns_by_client() {
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
    // Each turn came back.
    let all: Vec<_> = std::iter::from_fn(|| store.blobs.writes.try_take(of(1).client)).collect();
    assert_eq!(all.len(), 48);
}
