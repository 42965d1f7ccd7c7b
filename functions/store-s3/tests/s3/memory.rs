//! Bodies that hold memory and stall, and uploads that wait for memory.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use contract::source::{Body, noise};
use registry::budget::ClientKey;
use registry::store::blobs::{AppendError, BlobStore as _, BodyError, Source};
use registry::store::{Context, Reason, StoreError};

use crate::fake::Fake;
use crate::session::{MIB, UploadSession, cx};

fn from(last: u8) -> Context {
    Context {
        client: ClientKey::of([127, 0, 0, last].into()),
        ..cx(60)
    }
}

/// Returns this number of chunks, then stalls.
struct StallingBody(usize);

const CHUNK: usize = 100_000;

#[async_trait]
impl Source for StallingBody {
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

/// Bodies of one client that have sent little hold little memory, whatever their declared length. A body that has sent
/// more holds the base of an upload, which is all memory here. It gives way when another client waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn s31_stalled_bodies_give_way_to_others() {
    let fake = Fake::start().await;
    let store = fake.store(|options| options.upload_memory = 1).await;
    let all = store.statistics().upload_memory_free;
    let stalled = |chunks| {
        let (store, mut session) = (store.clone(), UploadSession::new(&store));
        tokio::spawn(async move {
            let attempt = session.attempt();
            store
                .append(from(2), attempt, &[], &mut StallingBody(chunks))
                .await
                .map(drop)
        })
    };
    let taken = async |least: u64| loop {
        let taken = all - store.statistics().upload_memory_free;
        if taken >= least {
            return taken;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let small = stalled(1);
    // Otherwise the other body may leave it too little memory for first bytes, and this one takes the base.
    taken(CHUNK as u64).await;
    let large = stalled(3);
    let taken = taken(6 * MIB as u64).await;
    assert!(taken <= 6 * MIB as u64 + (256 << 10), "{taken} bytes");

    let mut session = UploadSession::new(&store);
    let attempt = session.attempt();
    let bytes = noise(3, 20 * MIB);
    let mut body = Body::of(&bytes, 60_000);
    let appended = store.append(from(3), attempt, &[], &mut body);
    let appended = tokio::time::timeout(Duration::from_mins(1), appended).await.unwrap();
    session.save(appended.unwrap(), &bytes);
    session.seal_and_check().await;

    let gave_way = large.await.unwrap().unwrap_err();
    let AppendError::Store(gave_way) = gave_way else {
        panic!("{gave_way}");
    };
    assert!(matches!(gave_way, StoreError::Unavailable(_)));
    assert_eq!(gave_way.reason(), Reason::Memory);
    assert!(!small.is_finished(), "other uploads do not wait for its memory");
    small.abort();
    assert!(small.await.unwrap_err().is_cancelled());
    assert_eq!(store.statistics().upload_memory_free, all);
}

/// Fast enough not to give way, and without an end.
struct SteadyBody;

#[async_trait]
impl Source for SteadyBody {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(Some(Bytes::from(vec![1; 20_000])))
    }

    fn remaining(&self) -> Option<u64> {
        None
    }

    fn sha256(&self) -> Option<[u8; 32]> {
        None
    }
}

/// A body of one byte after four megabytes, which are read back to be stored with it. The read must wait until there is
/// memory for them.
#[tokio::test(flavor = "multi_thread")]
async fn s31_reading_back_waits_for_memory() {
    let fake = Fake::start().await;
    let store = fake.store(|options| options.upload_memory = 1).await;
    let all = store.statistics().upload_memory_free;
    let mut session = UploadSession::new(&store);
    session.append(4 * MIB).await;

    let mut other = UploadSession::new(&store);
    let steady = tokio::spawn({
        let (store, attempt) = (store.clone(), other.attempt());
        async move { store.append(from(2), attempt, &[], &mut SteadyBody).await.map(drop) }
    });
    while all - store.statistics().upload_memory_free < 6 * MIB as u64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let reads = || fake.counts().get("GetObject").copied().unwrap_or(0);
    let before = reads();
    let appended = tokio::time::timeout(Duration::from_secs(1), session.append(1)).await;
    assert!(appended.is_err(), "the append waits for memory");
    assert_eq!(reads(), before, "the object was read without memory");
    steady.abort();
    assert!(steady.await.unwrap_err().is_cancelled());
    session.append(1).await;
    assert!(reads() > before);
    session.seal_and_check().await;
}
