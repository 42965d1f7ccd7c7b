//! The power goes at any call: what was acknowledged is there afterwards, whatever the disk had not yet written.

use registry::store::blobs::Discarded;

use super::*;

/// A small generator of numbers that look random, so that a failure names a seed.
struct Dice(u64);

impl Dice {
    /// From 0 to `below` - 1.
    fn roll(&mut self, below: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % below
    }
}

/// An upload as its session's row would have it.
struct Session {
    id: SessionId,
    attempts: u32,
    state: Vec<u8>,
    parts: Vec<Vec<u8>>,
    /// What was acknowledged.
    bytes: Vec<u8>,
    /// What was sealed.
    object: Option<Location>,
}

impl Session {
    fn new(id: u128) -> Self {
        Self {
            // Over several directories.
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

    /// One more body; it counts when it is acknowledged.
    async fn append(&mut self, blobs: &DiskBlobs, dice: &mut Dice) {
        self.attempts += 1;
        let attempt = Attempt {
            session: self.id,
            number: self.attempts,
        };
        let body = noise(dice.roll(1 << 32), usize::try_from(dice.roll(600_000)).unwrap());
        let mut source = Body::of(&body, 50_000);
        if dice.roll(5) == 0 {
            source = source.failing(BodyError::Cut);
        }
        if let Ok(appended) = blobs.append(cx(), attempt, &self.state, &mut source).await {
            self.state = appended.state;
            self.parts.extend(appended.part);
            self.bytes.extend_from_slice(&body);
            // The session goes on: what was sealed is not what it will become.
            self.object = None;
        }
    }

    async fn assert_whole(&self, blobs: &DiskBlobs, what: &str) {
        let Some(object) = &self.object else {
            return;
        };
        let size = self.bytes.len() as u64;
        let stream = blobs.read(cx(), object, 0..size).await.unwrap();
        let stream = stream.unwrap_or_else(|| panic!("{what}: {object:?} is gone"));
        let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
        assert!(chunks.concat() == self.bytes, "{what}: {object:?} has other bytes");
        assert_eq!(blobs.stat(cx(), object).await.unwrap(), Some(size), "{what}");
    }
}

/// One life of a machine after the other over the same disk; answers how many objects were sealed.
async fn lives(seed: u64) -> usize {
    let mut dice = Dice(seed);
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("blobs");
    let mut sessions: Vec<_> = (1..=3).map(Session::new).collect();
    for life in 0..4 {
        let what = format!("seed {seed}, life {life}");
        let files = Arc::new(RecordedFiles::open(&root));
        let blobs = DiskBlobs::new(
            files.clone(),
            Sync::Full,
            UploadMemory::new(8 << 20, Options::MEMORY_TIMEOUT),
        );
        files.stop_after(usize::try_from(dice.roll(40)).unwrap());
        for _ in 0..8 {
            let index = usize::try_from(dice.roll(3)).unwrap();
            let session = &mut sessions[index];
            if dice.roll(3) < 2 || session.state.is_empty() {
                session.append(&blobs, &mut dice).await;
            } else if let Ok(object) = blobs.seal(cx(), &session.upload()).await {
                session.object = Some(object);
            }
        }
        files.lose_power().unwrap();
        for session in &mut sessions {
            session.assert_whole(&blobs, &what).await;
            // Bodies that were acknowledged and not sealed are whole too: what they make can be read.
            if !session.state.is_empty() {
                let sealed = blobs.seal(cx(), &session.upload()).await;
                session.object = Some(sealed.unwrap_or_else(|error| panic!("{what}: {error}")));
                session.assert_whole(&blobs, &what).await;
            }
        }
    }
    // Whatever went wrong, the session's row leads to all that is there.
    let files = Arc::new(RecordedFiles::open(&root));
    let blobs = DiskBlobs::new(
        files.clone(),
        Sync::Full,
        UploadMemory::new(8 << 20, Options::MEMORY_TIMEOUT),
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
        if dice.roll(2) == 0 {
            blobs.delete(cx(), &to_delete.collect::<Vec<_>>()).await.unwrap();
        } else {
            let discarded = blobs.discard(cx(), session.id, session.attempts, &[], None).await;
            assert_eq!(discarded.unwrap(), Discarded::All);
        }
    }
    // And what was said to be gone stays gone.
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
async fn what_was_acknowledged_survives_a_loss_of_power() {
    let mut sealed = 0;
    for seed in 0..60 {
        sealed += lives(seed).await;
    }
    assert!(sealed > 80, "only {sealed} objects came to be");
}

/// The layer takes what was not synced: a store that syncs nothing loses what it acknowledged.
#[tokio::test]
async fn the_layer_takes_what_was_not_synced() {
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
    assert_eq!(store.files.look(segment(1)).unwrap(), Some(0), "a name without bytes");
    assert_eq!(store.files.look(segment(2)).unwrap(), None, "no name");

    store.files.create(segment(3)).unwrap();
    store.files.sync_directory(segment(3)).unwrap();
    store.files.rename(segment(3), segment(1)).unwrap();
    store.files.lose_power().unwrap();
    assert_eq!(store.files.look(segment(3)).unwrap(), Some(0), "the old name");
    assert_eq!(
        store.files.look(segment(1)).unwrap(),
        Some(0),
        "and what was there before"
    );

    store.files.remove(segment(1)).unwrap();
    assert_eq!(store.files.look(segment(1)).unwrap(), None);
    store.files.lose_power().unwrap();
    assert_eq!(store.files.look(segment(1)).unwrap(), Some(0), "it is back");
}
