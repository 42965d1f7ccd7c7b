//! A disk that is full: what cannot be stored is refused for now, leaves nothing, and harms nothing that is there.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use futures_util::TryStreamExt;
use registry::contract::source::{Body, noise};
use registry::store::blobs::{AppendError, Appended, BlobStore, Doomed, Upload};
use registry::store::sessions::{Attempt, Claimed, SessionId, SessionKey, SessionStore};
use registry::store::{Context, Incarnation, Location, StoreError, Timestamp};
use store_embedded::{Embedded, Options, Sync};

/// A file system in memory, as small as a test needs it; gone when it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// `None`, with the reason, where this user cannot mount.
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
        println!("not run: {}", String::from_utf8_lossy(&output.stderr).trim());
        None
    }
}

impl Drop for Mounted {
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
    Context {
        now: Timestamp(1_000),
        deadline: Timestamp(11_000),
        incarnation: Incarnation(3),
    }
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

async fn assert_holds(stores: &Embedded, location: &Location, bytes: &Bytes) {
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
async fn a_full_disk_refuses_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = Mounted::new(directory.path(), "4m") else {
        return;
    };
    let data = disk.0.join("data");
    let stores = Embedded::open(&Options {
        data: data.clone(),
        sync: Sync::Full,
        upload_memory: 4 << 20,
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
        assert_eq!(segments(&data), 1, "what did not fit is gone");
    }
    assert_holds(&stores, &location, &kept).await;

    // The metadata fills what is left, until it is refused too.
    let mut sessions: u64 = 0;
    let refused = loop {
        let key = SessionKey {
            expires: Timestamp(90_000 + sessions),
            id: SessionId(u128::from(sessions)),
        };
        match stores.sessions.claim(cx(), key, Timestamp(60_000), u32::MAX).await {
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
    assert_eq!(
        expired.len() as u64,
        sessions,
        "what was acknowledged is there, what was refused is not"
    );

    let doomed = Doomed {
        location,
        unfinished: false,
    };
    stores.blobs.delete(cx(), &[doomed]).await.unwrap();
    let small = noise(3, 200_000);
    let location = seal(&stores, 20, append(&stores, 20, &small).await.unwrap(), &small).await;
    assert_holds(&stores, &location, &small).await;
    let key = SessionKey {
        expires: Timestamp(80_000),
        id: SessionId(1),
    };
    let claimed = stores
        .sessions
        .claim(cx(), key, Timestamp(60_000), u32::MAX)
        .await
        .unwrap();
    assert!(matches!(claimed, Claimed::Granted(_)));
    stores.close();
}
