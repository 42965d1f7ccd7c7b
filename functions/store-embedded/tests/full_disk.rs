//! A full disk: writes are refused temporarily, leave no files, and do not damage stored data.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use contract::fixed_clock::FixedClock;
use contract::source::{Body, noise};
use futures_util::TryStreamExt;
use oci::{Algorithm, Digest};
use registry::Stores;
use registry::collection::{self, collect};
use registry::store::access::Author;
use registry::store::blobs::{AppendError, Appended, BlobStore, ObjectToDelete, Upload};
use registry::store::collection::CollectionStore;
use registry::store::metadata::MetadataStore;
use registry::store::sessions::{Claimed, Expected, SessionKey, SessionStore};
use registry::store::{Attempt, Context, Location, Reason, SessionId, StoreError, Timestamp, Uid};
use store_embedded::{Embedded, EmbeddedOptions, MinFree, Sync};

/// A small file system in memory. Dropping it unmounts it.
struct MountedDisk(PathBuf);

impl MountedDisk {
    /// Mounts the file system. `None` if this user cannot mount; the reason is printed.
    fn new(at: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size},mode=0700");
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(at)
            .output()
            .unwrap();
        if output.status.success() {
            return Some(Self(at.to_owned()));
        }
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "needs to mount a file system in memory"
        );
        let refused = String::from_utf8_lossy(&output.stderr);
        println!("not run: {}", refused.trim().replace('\n', "; "));
        None
    }
}

impl Drop for MountedDisk {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(&self.0).status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "{} stays mounted",
            self.0.display()
        );
    }
}

fn cx() -> Context {
    Context::internal(Timestamp(1_000), 10_000, Uid(3))
}

fn attempt(session: u128) -> Attempt {
    Attempt {
        session: SessionId(session),
        number: 1,
    }
}

async fn append(stores: &Embedded, session: u128, bytes: &Bytes) -> Result<Appended, AppendError> {
    let mut body = Body::of(bytes, 64 << 10).declaring(None);
    stores.blobs.append(cx(), attempt(session), &[], &mut body).await
}

async fn seal(stores: &Embedded, session: u128, appended: Appended, bytes: &Bytes) -> Location {
    let upload = Upload {
        session: SessionId(session),
        state: appended.state,
        parts: appended.part.into_iter().collect(),
        size: bytes.len() as u64,
    };
    stores.blobs.seal(cx(), &upload).await.unwrap()
}

async fn assert_stored(stores: &Embedded, location: &Location, bytes: &Bytes) {
    let stream = stores
        .blobs
        .read(cx(), location, 0..bytes.len() as u64)
        .await
        .unwrap()
        .unwrap();
    let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
    assert!(chunks.concat() == *bytes);
}

fn segments(data: &Path) -> usize {
    let directories = std::fs::read_dir(data.join("blobs")).unwrap();
    directories
        .map(|entry| std::fs::read_dir(entry.unwrap().path()).unwrap().count())
        .sum()
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = MountedDisk::new(directory.path(), "4m") else {
        return;
    };
    let data = disk.0.join("data");
    let stores = Embedded::open(&EmbeddedOptions {
        data: data.clone(),
        sync: Sync::Full,
        upload_memory: 4 << 20,
        memory_timeout: EmbeddedOptions::MEMORY_TIMEOUT,
    })
    .unwrap();

    let kept = noise(1, 1_500_000);
    let location = seal(&stores, 1, append(&stores, 1, &kept).await.unwrap(), &kept).await;
    let large = noise(2, 3_000_000);
    for round in 0..3 {
        let refused = append(&stores, 10 + round, &large).await.unwrap_err();
        assert!(
            matches!(refused, AppendError::Store(StoreError::Unavailable(_))),
            "{refused}"
        );
        assert_eq!(segments(&data), 1, "the segment that did not fit was removed");
    }
    assert_stored(&stores, &location, &kept).await;

    // Sessions fill the rest of the disk until they are refused too.
    let mut sessions: u64 = 0;
    let refused = loop {
        let key = SessionKey {
            expires: Timestamp(90_000 + sessions),
            id: SessionId(u128::from(sessions)),
        };
        match stores
            .sessions
            .claim(cx(), key, Expected::New, Timestamp(60_000), u32::MAX)
            .await
        {
            Ok(Claimed::Granted(_)) => sessions += 1,
            Ok(other) => panic!("{other:?}"),
            Err(refused) => break refused,
        }
        assert!(sessions < 100_000);
    };
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
    let expired = stores
        .sessions
        .expired(cx(), Timestamp(u64::MAX), None, 1_000_000)
        .await
        .unwrap();
    assert_eq!(expired.len() as u64, sessions, "only acknowledged sessions exist");

    let to_delete = ObjectToDelete {
        location,
        unfinished: false,
    };
    stores.blobs.delete(cx(), &[to_delete]).await.unwrap();
    let small = noise(3, 200_000);
    let location = seal(&stores, 20, append(&stores, 20, &small).await.unwrap(), &small).await;
    assert_stored(&stores, &location, &small).await;
    let key = SessionKey {
        expires: Timestamp(80_000),
        id: SessionId(1),
    };
    let claimed = stores
        .sessions
        .claim(cx(), key, Expected::New, Timestamp(60_000), u32::MAX)
        .await
        .unwrap();
    assert!(matches!(claimed, Claimed::Granted(_)));
    stores.close();
}

/// A body that would go below the floor is refused in its middle, and its segment is removed. Deletions still work.
#[tokio::test]
async fn the_floor_is_enforced_in_the_middle_of_a_body() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = MountedDisk::new(directory.path(), "64m") else {
        return;
    };
    let data = disk.0.join("data");
    let stores = Embedded::open(&EmbeddedOptions {
        data: data.clone(),
        sync: Sync::Full,
        upload_memory: 4 << 20,
        memory_timeout: EmbeddedOptions::MEMORY_TIMEOUT,
    })
    .unwrap();
    stores.blobs.space().keep(MinFree::Percent(50));
    let kept = noise(1, 8 << 20);
    let location = seal(&stores, 1, append(&stores, 1, &kept).await.unwrap(), &kept).await;
    let large = noise(2, 48 << 20);
    let refused = append(&stores, 2, &large).await.unwrap_err();
    let AppendError::Store(refused) = refused else {
        panic!("{refused}")
    };
    assert_eq!(refused.reason(), Reason::NoSpace, "{refused}");
    assert!(refused.to_string().contains("setting min-free"), "{refused}");
    assert_eq!(segments(&data), 1, "the refused segment was removed");
    // A body whose declared length is too large is not started.
    let mut body = Body::of(&large, 64 << 10);
    let refused = stores.blobs.append(cx(), attempt(3), &[], &mut body).await.unwrap_err();
    assert!(
        matches!(&refused, AppendError::Store(error) if error.reason() == Reason::NoSpace),
        "{refused}"
    );
    assert_stored(&stores, &location, &kept).await;
    let to_delete = ObjectToDelete {
        location,
        unfinished: false,
    };
    stores.blobs.space().keep(MinFree::Percent(99));
    stores.blobs.delete(cx(), &[to_delete]).await.unwrap();
    assert_eq!(segments(&data), 0);
    stores.close();
}

/// Writes to a file until the disk is full.
fn fill(file: &Path) {
    let mut file = std::fs::File::create(file).unwrap();
    for size in [1 << 20, 1 << 16, 1 << 12] {
        let zeros = vec![0; size];
        while std::io::Write::write_all(&mut file, &zeros).is_ok() {}
    }
}

/// Pending deletions are carried out even when the database can record neither a pass nor the end of an upload.
/// Afterwards there is space for both.
#[tokio::test]
async fn collection_works_on_a_full_disk() {
    const HOUR: u64 = 3_600_000;

    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = MountedDisk::new(directory.path(), "4m") else {
        return;
    };
    let options = EmbeddedOptions {
        data: disk.0.join("data"),
        sync: Sync::Full,
        upload_memory: 4 << 20,
        memory_timeout: EmbeddedOptions::MEMORY_TIMEOUT,
    };
    let stores = Embedded::open(&options).unwrap();
    let bytes = noise(1, 1_500_000);
    let location = seal(&stores, 1, append(&stores, 1, &bytes).await.unwrap(), &bytes).await;
    let (digest, app) = (Digest::of(Algorithm::Sha256, &bytes), "app".parse().unwrap());
    let (metadata, size) = (&stores.metadata, bytes.len() as u64);
    metadata
        .commit_blob(cx(), &app, &digest, &location, size)
        .await
        .unwrap();
    let _ = metadata
        .unlink(cx(), &app, &digest, &Author::new("alice"))
        .await
        .unwrap();
    let plan = registry::store::collection::Plan::default();
    let (mut scheduled, mut after) = (0, None);
    loop {
        let slice = metadata
            .collect_metadata(cx(), &plan, after.as_ref(), 100)
            .await
            .unwrap();
        scheduled += slice.statistics.scheduled;
        after = slice.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(scheduled, 1);
    // Fills the free space, and then the space that the database has reserved.
    let filler = disk.0.join("filler");
    fill(&filler);
    let mut sessions: u128 = 0;
    loop {
        let key = SessionKey {
            expires: Timestamp(90_000),
            id: SessionId(1000 + sessions),
        };
        let claimed = stores.sessions.claim(cx(), key, Expected::New, Timestamp(60_000), 9);
        if claimed.await.is_err() {
            break;
        }
        sessions += 1;
        assert!(sessions < 100_000);
    }

    let all = Stores {
        blobs: stores.blobs.clone(),
        metadata: stores.metadata.clone(),
        sessions: stores.sessions.clone(),
        collection: stores.metadata.clone(),
        records: stores.metadata.clone(),
        access: stores.metadata.clone(),
    };
    let later = Arc::new(FixedClock::at(Timestamp(26 * HOUR)));
    let whole = collection::CollectionOptions::default();
    let mut progress = |_: &collection::Report| ControlFlow::Continue(());
    let full = collect(&all, later.clone(), &whole, &mut progress).await.unwrap_err();
    assert!(
        full.to_string()
            .starts_with("the pass over the metadata cannot begin: "),
        "{full}"
    );
    assert!(matches!(full.source, StoreError::Unavailable(_)), "{full}");
    assert_eq!(
        (full.report.objects_deleted, segments(&options.data)),
        (1, 0),
        "{full:?}"
    );
    assert_eq!(full.report.deleted.unwrap().bytes, size);

    let report = collect(&all, later, &whole, &mut progress).await.unwrap();
    assert!(
        report.complete && u128::from(report.sessions_swept) == sessions,
        "{report:?}, {sessions}"
    );

    // The database is closed everywhere, and SQLite has no space for its other files.
    drop(all);
    stores.close();
    fill(&filler);
    let refused = Embedded::open(&options).unwrap_err();
    assert!(
        refused.to_string().starts_with("cannot open the metadata in "),
        "{refused}"
    );
    std::fs::remove_file(&filler).unwrap();
    std::fs::write(&filler, vec![0; 10]).unwrap();
    Embedded::open(&options).unwrap().close();
}
