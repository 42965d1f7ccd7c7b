//! Power failures at any call: everything that was acknowledged exists afterwards, in spite of unsynced writes.

use registry::random::SplitMix64;
use registry::store::blobs::Discarded;

use super::*;

/// A small pseudorandom number generator, so that a failure can report its seed.
struct SeededNumbers(SplitMix64);

impl SeededNumbers {
    /// A number from 0 to `bound` - 1.
    fn below(&mut self, bound: u64) -> u64 {
        self.0.bits() % bound
    }
}

/// An upload, with the values that its session's row would have.
struct RecordedSession {
    id: SessionId,
    attempts: u32,
    state: Vec<u8>,
    parts: Vec<Vec<u8>>,
    /// The acknowledged bytes.
    bytes: Vec<u8>,
    /// The sealed object.
    object: Option<Location>,
}

impl RecordedSession {
    fn new(id: u128) -> Self {
        Self {
            // The ids are spread over several directories.
            id: SessionId(id << 122 | id),
            attempts: 0,
            state: Vec::new(),
            parts: Vec::new(),
            bytes: Vec::new(),
            object: None,
        }
    }

    fn upload(&self) -> Upload {
        Upload {
            session: self.id,
            state: self.state.clone(),
            parts: self.parts.clone(),
            size: self.bytes.len() as u64,
        }
    }

    /// Sends one more body. It counts only if it is acknowledged.
    async fn append(&mut self, blobs: &DiskBlobs, random: &mut SeededNumbers) {
        self.attempts += 1;
        let attempt = Attempt {
            session: self.id,
            number: self.attempts,
        };
        let body = noise(random.below(1 << 32), usize::try_from(random.below(600_000)).unwrap());
        let mut source = Body::of(&body, 50_000);
        if random.below(5) == 0 {
            source = source.failing(BodyError::Cut);
        }
        if let Ok(appended) = blobs.append(cx(), attempt, &self.state, &mut source).await {
            self.state = appended.state;
            self.parts.extend(appended.part);
            self.bytes.extend_from_slice(&body);
            // The session continues, so the sealed object is not its final object.
            self.object = None;
        }
    }

    async fn assert_complete(&self, blobs: &DiskBlobs, what: &str) {
        let Some(object) = &self.object else {
            return;
        };
        let size = self.bytes.len() as u64;
        let stream = blobs.read(cx(), object, 0..size).await.unwrap();
        let stream = stream.unwrap_or_else(|| panic!("{what}: {object:?} is missing"));
        let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
        assert!(chunks.concat() == self.bytes, "{what}: {object:?} has other bytes");
        assert_eq!(blobs.stat(cx(), object).await.unwrap(), Some(size), "{what}");
    }
}

/// Simulates several runs of a machine with the same disk. Each run ends with a power failure. Returns the number of
/// sealed objects.
async fn run_with_power_failures(seed: u64) -> usize {
    let mut random = SeededNumbers(SplitMix64::new(seed));
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("blobs");
    let mut sessions: Vec<_> = (1..=3).map(RecordedSession::new).collect();
    for run in 0..4 {
        let what = format!("seed {seed}, run {run}");
        let files = Arc::new(RecordedFiles::open(&root));
        let blobs = DiskBlobs::new(
            files.clone(),
            Sync::Full,
            UploadBudget::new(8 << 20, EmbeddedOptions::MEMORY_TIMEOUT),
        );
        files.stop_after(usize::try_from(random.below(40)).unwrap());
        for _ in 0..8 {
            let index = usize::try_from(random.below(3)).unwrap();
            let session = &mut sessions[index];
            if random.below(3) < 2 || session.state.is_empty() {
                session.append(&blobs, &mut random).await;
            } else if let Ok(object) = blobs.seal(cx(), &session.upload()).await {
                session.object = Some(object);
            }
        }
        files.lose_power().unwrap();
        for session in &mut sessions {
            session.assert_complete(&blobs, &what).await;
            // Bodies that were acknowledged but not sealed are complete too: the object from them can be read.
            if !session.state.is_empty() {
                let sealed = blobs.seal(cx(), &session.upload()).await;
                session.object = Some(sealed.unwrap_or_else(|error| panic!("{what}: {error}")));
                session.assert_complete(&blobs, &what).await;
            }
        }
    }
    // After all faults, the session's row still leads to all files.
    let files = Arc::new(RecordedFiles::open(&root));
    let blobs = DiskBlobs::new(
        files.clone(),
        Sync::Full,
        UploadBudget::new(8 << 20, EmbeddedOptions::MEMORY_TIMEOUT),
    );
    let sealed = sessions.iter().filter(|session| session.object.is_some()).count();
    for session in &sessions {
        let to_delete = (1..=session.attempts).map(|number| ObjectToDelete {
            location: Location::main(
                Attempt {
                    session: session.id,
                    number,
                }
                .to_string(),
            ),
            unfinished: true,
        });
        if random.below(2) == 0 {
            blobs.delete(cx(), &to_delete.collect::<Vec<_>>()).await.unwrap();
        } else {
            let discarded = blobs.discard(cx(), session.id, session.attempts, &[], None).await;
            assert_eq!(discarded.unwrap(), Discarded::All);
        }
    }
    // A power failure does not restore deleted files.
    files.lose_power().unwrap();
    let left: Vec<_> = std::fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .flat_map(|entry| std::fs::read_dir(entry.path()).unwrap())
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, [] as [&str; 0], "seed {seed}");
    sealed
}

#[tokio::test]
async fn acknowledged_data_survives_a_power_failure() {
    let mut sealed = 0;
    for seed in 0..60 {
        sealed += run_with_power_failures(seed).await;
    }
    assert!(sealed > 80, "only {sealed} objects were sealed");
}

/// The layer loses what was not synced. So it would show the data loss of a store that does not sync.
#[tokio::test]
async fn the_recorded_files_lose_what_was_not_synced() {
    let store = Store::new(8 << 20);
    let file = store.files.create(segment(1)).unwrap();
    store
        .files
        .write(segment(1), &file, &mut [std::io::IoSlice::new(b"bytes")], 0)
        .unwrap();
    store.files.sync_directory(segment(1)).unwrap();
    store.files.create(segment(2)).unwrap();
    assert!(store.files.is_volatile(segment(1)) && store.files.is_volatile(segment(2)));
    store.files.lose_power().unwrap();
    assert_eq!(store.files.look(segment(1)).unwrap(), Some(0), "the bytes were lost");
    assert_eq!(store.files.look(segment(2)).unwrap(), None, "the name was lost");

    store.files.create(segment(3)).unwrap();
    store.files.sync_directory(segment(3)).unwrap();
    store.files.rename(segment(3), segment(1)).unwrap();
    store.files.lose_power().unwrap();
    assert_eq!(store.files.look(segment(3)).unwrap(), Some(0), "the old name");
    assert_eq!(
        store.files.look(segment(1)).unwrap(),
        Some(0),
        "and the file that it replaced"
    );

    store.files.remove(segment(1)).unwrap();
    assert_eq!(store.files.look(segment(1)).unwrap(), None);
    store.files.lose_power().unwrap();
    assert_eq!(store.files.look(segment(1)).unwrap(), Some(0), "the removal was lost");
}
