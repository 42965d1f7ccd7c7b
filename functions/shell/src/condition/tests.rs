#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU32;

use bytes::Bytes;
use contract::source::Body;
use oci::{Algorithm, Digest, MediaType};
use registry::clock::ServiceClock;
use registry::store::access::Author;
use registry::store::blobs::Upload;
use registry::store::collection::{GracePeriods, Plan};
use registry::store::memory::MemoryMetadata;
use registry::store::metadata::{AllowAll, NewContent, PutManifest};
use registry::store::sessions::{Claimed, Expected, SessionKey};
use registry::store::wrapped::{CallEnd, Hook as _, StoreMethod};
use registry::store::{Attempt, Context, Location, SessionId, Timestamp, Uid};
use store_embedded::{Embedded, EmbeddedOptions, MinFree};
use tempfile::TempDir;

use super::*;
use crate::opened::in_memory;
use crate::stores::{files_of, files_of_blobs};

fn stores() -> Stores {
    in_memory(&Arc::new(MemoryMetadata::new()))
}

fn cx() -> Context {
    Context::internal(Timestamp(1_000), 10_000, Uid(3))
}

/// A condition of a process whose start has been let through.
fn admitted(parts: ConditionParts) -> Condition {
    let condition = Condition::of(parts);
    condition.admit();
    condition
}

fn embedded(folder: &TempDir) -> Embedded {
    let options = EmbeddedOptions {
        data: folder.path().join("data"),
        sync: store_embedded::Sync::Off,
        upload_memory: 1 << 20,
        memory_timeout: EmbeddedOptions::MEMORY_TIMEOUT,
    };
    Embedded::open(&options).unwrap()
}

/// A condition that knows nothing but a clock, and is asked for the time in vain.
fn reported_by(clock: &Arc<ServiceClock>) -> Condition {
    let service = TimeService::new("test", clock.clone(), async || Ok(()));
    admitted(ConditionParts {
        services: vec![service],
        ..ConditionParts::default()
    })
}

async fn reads(stores: &Stores) -> Option<Reason> {
    stores
        .metadata
        .repositories(cx(), None, 1)
        .await
        .err()
        .map(|error| error.reason())
}

async fn stores_a_blob(stores: &Stores) -> Option<Reason> {
    let digest = Digest::of(Algorithm::Sha256, b"x");
    let (name, location) = ("app".parse().unwrap(), Location::main("1.1"));
    let committed = stores.metadata.commit_blob(cx(), &name, &digest, &location, 1).await;
    committed.err().map(|error| error.reason())
}

async fn unlinks(stores: &Stores) -> Option<Reason> {
    let digest = Digest::of(Algorithm::Sha256, b"y");
    let removed = stores
        .metadata
        .unlink(cx(), &"app".parse().unwrap(), &digest, &Author::new("user"))
        .await;
    removed.err().map(|error| error.reason())
}

#[tokio::test]
async fn nothing_is_asked_before_the_stores_are_known() {
    let condition = Condition::default();
    let guarded = condition.guarding(&stores());
    assert_eq!(reads(&guarded).await, Some(Reason::MetadataUnreachable));
    condition.admit();
    assert_eq!(reads(&guarded).await, None);
    assert_eq!(stores_a_blob(&guarded).await, None);
}

#[tokio::test]
async fn s33_with_a_wrong_clock_nothing_is_stored_or_removed() {
    let clock = Arc::<ServiceClock>::default();
    let condition = reported_by(&clock);
    let guarded = condition.guarding(&stores());
    let day = 24 * 3_600_000;
    clock.observe(day, day - 7_200_000, day - 7_200_000);
    assert_eq!(reads(&guarded).await, None);
    assert_eq!(stores_a_blob(&guarded).await, Some(Reason::ClockOff));
    assert_eq!(unlinks(&guarded).await, Some(Reason::ClockOff));
    let begun = guarded.collection.begin_pass(cx(), Uid(1), Timestamp(2_000)).await;
    assert_eq!(begun.unwrap_err().reason(), Reason::ClockOff);
    assert!(condition.push_blocks().contains_key(&Reason::ClockOff));
    clock.observe(day, day, day);
    assert_eq!((stores_a_blob(&guarded).await, unlinks(&guarded).await), (None, None));
}

#[tokio::test]
async fn s34_in_a_store_that_was_replaced_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let embedded = embedded(&folder);
    let condition = admitted(ConditionParts {
        files: vec![files_of(&embedded.metadata), files_of_blobs(&embedded.blobs)],
        ..ConditionParts::default()
    });
    let guarded = condition.guarding(&stores());
    condition.look();
    assert_eq!(stores_a_blob(&guarded).await, None, "{:?}", condition.push_blocks());
    std::fs::rename(
        folder.path().join("data").join("blobs"),
        folder.path().join("data").join("away"),
    )
    .unwrap();
    condition.look();
    assert_eq!(stores_a_blob(&guarded).await, Some(Reason::StoreReplaced));
    assert_eq!(unlinks(&guarded).await, Some(Reason::StoreReplaced));
    assert_eq!(reads(&guarded).await, None);
    std::fs::rename(
        folder.path().join("data").join("away"),
        folder.path().join("data").join("blobs"),
    )
    .unwrap();
    condition.look();
    assert_eq!(stores_a_blob(&guarded).await, None);
}

#[tokio::test]
async fn without_space_nothing_is_stored_and_everything_else_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let embedded = embedded(&folder);
    let space = embedded.metadata.space().clone();
    let condition = admitted(ConditionParts {
        files: vec![files_of(&embedded.metadata)],
        ..ConditionParts::default()
    });
    let guarded = condition.guarding(&stores());
    space.keep(MinFree::Bytes(u64::MAX));
    condition.look();
    assert_eq!(stores_a_blob(&guarded).await, Some(Reason::NoSpace));
    assert_eq!((unlinks(&guarded).await, reads(&guarded).await), (None, None));
    assert!(condition.push_blocks()[&Reason::NoSpace].contains("setting min-free"));
    space.keep(MinFree::Bytes(0));
    assert_eq!(stores_a_blob(&guarded).await, None);
    assert!(condition.push_blocks().is_empty());
}

/// A write that met the floor counts until enough is free; what the file system itself has refused, until one
/// succeeds, or enough is free after less was.
#[tokio::test]
async fn space_that_is_free_again_is_reported_without_a_write() {
    let folder = tempfile::tempdir().unwrap();
    let embedded = embedded(&folder);
    let space = embedded.metadata.space().clone();
    let condition = admitted(ConditionParts {
        files: vec![files_of(&embedded.metadata)],
        ..ConditionParts::default()
    });
    let guard = ConditionGuard(condition.clone());
    let set = |bytes| {
        space.keep(MinFree::Bytes(bytes));
        condition.look();
    };
    set(u64::MAX);
    let met = space.check().unwrap_err();
    guard.ended(StoreMethod::Append, CallEnd::Failed(&met));
    assert!(condition.push_blocks().contains_key(&Reason::NoSpace));
    set(1);
    assert!(condition.push_blocks().is_empty(), "a look tells");
    set(0);
    assert!(
        condition.push_blocks().contains_key(&Reason::NoSpace),
        "without a floor only a write tells"
    );

    set(1);
    let full = StoreError::because(Reason::NoSpace, std::io::Error::from(std::io::ErrorKind::StorageFull));
    guard.ended(StoreMethod::Append, CallEnd::Failed(&full));
    condition.look();
    assert!(
        condition.push_blocks().contains_key(&Reason::NoSpace),
        "files, or a quota, may be what is used up"
    );
    set(u64::MAX);
    set(1);
    assert!(condition.push_blocks().is_empty());
}

/// A client that may push relies on the answer to a HEAD: a link that a collection has marked is not promised where
/// its mark cannot be removed, and all others are answered.
#[tokio::test]
async fn where_nothing_may_change_a_marked_link_is_not_promised() {
    let clock = Arc::<ServiceClock>::default();
    let condition = reported_by(&clock);
    let inner = stores();
    let guarded = condition.guarding(&inner);
    assert_eq!(stores_a_blob(&guarded).await, None);
    let (name, digest) = ("app".parse().unwrap(), Digest::of(Algorithm::Sha256, b"x"));
    let day = 24 * 3_600_000;
    let keep = async || {
        let kept = guarded.metadata.link_and_unmark(cx(), &name, &digest).await;
        kept.map(|link| link.is_some()).map_err(|error| error.reason())
    };
    clock.observe(day, day - 7_200_000, day - 7_200_000);
    assert_eq!(keep().await, Ok(true), "there is no mark");

    let later = Context {
        now: Timestamp(2_000),
        ..cx()
    };
    let plan = Plan {
        grace_periods: GracePeriods {
            link_ms: 0,
            ..GracePeriods::default()
        },
        ..Plan::default()
    };
    let collected = inner
        .collection
        .collect_metadata(later, &plan, None, 100)
        .await
        .unwrap();
    assert_eq!(collected.statistics.marked, 1);
    let is_marked = async || {
        let found = inner.metadata.marked_link(cx(), &name, &digest).await.unwrap();
        found.unwrap().1
    };
    assert_eq!(keep().await, Err(Reason::ClockOff));
    assert!(is_marked().await, "nothing was written");
    clock.observe(day, day, day);
    assert_eq!(keep().await, Ok(true));
    assert!(!is_marked().await);
}

/// A refused write counts until one of the same store succeeds.
#[tokio::test]
async fn a_refused_write_is_remembered() {
    let condition = admitted(ConditionParts::default());
    let refused = StoreError::because(Reason::ObjectStoreRefuses, "403 AccessDenied");
    let guard = ConditionGuard(condition.clone());
    guard.ended(StoreMethod::Stat, CallEnd::Failed(&refused));
    guard.ended(
        StoreMethod::Append,
        CallEnd::Failed(&StoreError::unavailable("not now")),
    );
    assert!(condition.push_blocks().is_empty());
    guard.ended(StoreMethod::Append, CallEnd::Failed(&refused));
    assert!(condition.push_blocks()[&Reason::ObjectStoreRefuses].contains("403"));
    let guarded = condition.guarding(&stores());
    let key = SessionKey {
        expires: Timestamp(90_000),
        id: SessionId(1),
    };
    let claimed = guarded
        .sessions
        .claim(cx(), key, Expected::New, Timestamp(60_000), 9)
        .await;
    assert!(
        claimed.is_ok(),
        "it is tried; otherwise its recovery would not be noticed"
    );
    assert!(
        !condition.push_blocks().is_empty(),
        "another store says nothing of this one"
    );
    guard.ended(StoreMethod::Append, CallEnd::Done);
    assert!(condition.push_blocks().is_empty());
}

/// An answer that has written nothing, and a write of another kind, say nothing of a refused one.
#[tokio::test]
async fn a_refused_write_counts_until_one_of_its_kind_has_written() {
    let condition = admitted(ConditionParts::default());
    let inner = stores();
    let guarded = condition.guarding(&inner);
    let guard = ConditionGuard(condition.clone());
    let refused = StoreError::because(Reason::MetadataRefuses, "AccessDeniedException");
    guard.ended(StoreMethod::PutManifest, CallEnd::Failed(&refused));
    let (name, from) = ("app".parse().unwrap(), "other".parse().unwrap());
    let absent = Digest::of(Algorithm::Sha256, b"absent");
    let mounted = guarded.metadata.mount(cx(), &name, &absent, &from).await;
    assert!(!mounted.unwrap());
    assert!(
        condition.push_blocks().contains_key(&Reason::MetadataRefuses),
        "a mount of what is not there"
    );
    assert_eq!(stores_a_blob(&guarded).await, None);
    assert!(condition.push_blocks().is_empty());

    let key = SessionKey {
        expires: Timestamp(90_000),
        id: SessionId(1),
    };
    let claim = async || {
        let claimed = guarded.sessions.claim(cx(), key, Expected::New, Timestamp(60_000), 9);
        claimed.await.unwrap()
    };
    assert!(matches!(claim().await, Claimed::Granted(_)));
    guard.ended(StoreMethod::Save, CallEnd::Failed(&refused));
    assert!(matches!(claim().await, Claimed::Busy(_)));
    assert!(!condition.push_blocks().is_empty(), "a claim that another has");
    guard.ended(StoreMethod::Claim, CallEnd::Done);
    assert!(condition.push_blocks().is_empty());

    // The end of an upload, and of its object, are refused apart from all before them.
    for (method, others) in [
        (StoreMethod::Commit, [StoreMethod::Claim, StoreMethod::Save]),
        (StoreMethod::Finish, [StoreMethod::ClaimExisting, StoreMethod::Save]),
        (StoreMethod::Seal, [StoreMethod::Append, StoreMethod::Stat]),
    ] {
        guard.ended(method, CallEnd::Failed(&refused));
        for other in others {
            guard.ended(other, CallEnd::Done);
            assert!(!condition.push_blocks().is_empty(), "{method:?} {other:?}");
        }
        guard.ended(method, CallEnd::NothingWritten);
        assert!(!condition.push_blocks().is_empty(), "{method:?}");
        guard.ended(method, CallEnd::Done);
        assert!(condition.push_blocks().is_empty(), "{method:?}");
    }

    // Pushes work where nothing may be deleted.
    guard.ended(StoreMethod::Delete, CallEnd::Failed(&refused));
    guard.ended(StoreMethod::DeleteTag, CallEnd::Failed(&refused));
    assert!(condition.push_blocks().is_empty());
}

/// What is there already, and the seal of an upload of one body, are answered without a write.
#[tokio::test]
async fn what_needs_no_write_says_nothing_of_a_refused_one() {
    let condition = admitted(ConditionParts::default());
    let inner = stores();
    let guarded = condition.guarding(&inner);
    let guard = ConditionGuard(condition.clone());
    let refused = StoreError::because(Reason::MetadataRefuses, "AccessDeniedException");
    let name = "app".parse().unwrap();
    assert_eq!(stores_a_blob(&inner).await, None);
    let put = PutManifest {
        repository: "app".parse().unwrap(),
        digest: Digest::of(Algorithm::Sha256, b"{}"),
        media_type: MediaType::OCI_MANIFEST.parse().unwrap(),
        size: 2,
        content: NewContent::Inline(Bytes::from_static(b"{}")),
        artifact_type: None,
        subject: None,
        required: BTreeSet::new(),
        excepted: BTreeSet::new(),
        tags: vec!["latest".parse().unwrap()],
        author: Author::new("user"),
    };
    inner
        .metadata
        .put_manifest(cx(), &put, &AllowAll::shared())
        .await
        .unwrap();
    guard.ended(StoreMethod::PutManifest, CallEnd::Failed(&refused));
    guarded
        .metadata
        .put_manifest(cx(), &put, &AllowAll::shared())
        .await
        .unwrap();
    assert!(!condition.push_blocks().is_empty(), "the manifest is there");
    let linked = Digest::of(Algorithm::Sha256, b"x");
    let mounted = guarded.metadata.mount(cx(), &name, &linked, &name).await;
    assert!(mounted.unwrap());
    assert!(!condition.push_blocks().is_empty(), "the blob is linked");
    let tagged = PutManifest {
        tags: vec!["new".parse().unwrap()],
        ..put
    };
    guarded
        .metadata
        .put_manifest(cx(), &tagged, &AllowAll::shared())
        .await
        .unwrap();
    assert!(condition.push_blocks().is_empty());

    guard.ended(StoreMethod::Seal, CallEnd::Failed(&refused));
    let bodies = async |id: u128, count: u32| {
        let (mut state, mut parts) = (Vec::new(), Vec::new());
        for number in 1..=count {
            let attempt = Attempt {
                session: SessionId(id),
                number,
            };
            let mut body = Body::of(&Bytes::from_static(b"ab"), 2);
            let appended = inner.blobs.append(cx(), attempt, &state, &mut body).await.unwrap();
            state = appended.state;
            parts.extend(appended.part);
        }
        let upload = Upload {
            session: SessionId(id),
            state,
            parts,
            size: 2 * u64::from(count),
        };
        guarded.blobs.seal(cx(), &upload).await.unwrap();
    };
    bodies(7, 1).await;
    assert!(!condition.push_blocks().is_empty(), "one body is the object already");
    bodies(8, 2).await;
    assert!(condition.push_blocks().is_empty());
}

/// A clock that is set right is noticed without a request: what would ask a service is refused until then.
#[tokio::test(start_paused = true)]
async fn s33_a_wrong_clock_is_compared_again_without_being_asked() {
    let clock = Arc::<ServiceClock>::default();
    let asked = Arc::<AtomicU32>::default();
    let right_after = 3;
    let day = 24 * 3_600_000;
    let service = {
        let (clock, asked) = (clock.clone(), asked.clone());
        TimeService::new("test", clock.clone(), move || {
            if asked.fetch_add(1, Ordering::Relaxed) + 1 >= right_after {
                clock.observe(day, day, day);
            }
            // Whether it works otherwise does not matter.
            async { Err(StoreError::unavailable("403")) }
        })
    };
    let condition = admitted(ConditionParts {
        services: vec![service],
        ..ConditionParts::default()
    });
    condition.watch();
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(
        asked.load(Ordering::Relaxed),
        0,
        "no service is asked while nothing is wrong"
    );
    clock.observe(day, day - 7_200_000, day - 7_200_000);
    let guarded = condition.guarding(&stores());
    assert_eq!(stores_a_blob(&guarded).await, Some(Reason::ClockOff));
    tokio::time::sleep(Duration::from_secs(35)).await;
    assert_eq!(stores_a_blob(&guarded).await, None);
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(asked.load(Ordering::Relaxed), right_after);
}

/// The checks end with the last clone of the condition.
#[tokio::test(start_paused = true)]
async fn the_checks_end_with_the_condition() {
    let folder = tempfile::tempdir().unwrap();
    let embedded = embedded(&folder);
    let service = TimeService::new("test", Arc::default(), async || Ok(()));
    let condition = admitted(ConditionParts {
        services: vec![service],
        files: vec![files_of(&embedded.metadata)],
    });
    let tasks = tokio::runtime::Handle::current().metrics();
    condition.watch();
    let clone = condition.clone();
    drop(condition);
    tokio::time::sleep(2 * time::ASK_EVERY).await;
    assert_eq!(tasks.num_alive_tasks(), 2, "a clone is left");
    drop(clone);
    tokio::time::sleep(2 * time::ASK_EVERY).await;
    assert_eq!(tasks.num_alive_tasks(), 0);
}
