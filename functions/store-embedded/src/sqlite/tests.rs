//! Tests of what only this store does: groups, syncs, faults of the file, locks of other processes, and the cost of
//! operations.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod collection;
mod migration;
mod queue;
mod records;
mod tags;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use oci::{Algorithm, Digest, RepositoryName};
use registry::store::access::Author;
use registry::store::metadata::{AllowAll, ManifestPut, MetadataStore, NewContent, PutManifest};
use registry::store::sessions::{Claim, Claimed, End, Expected, Progress, Publishing, SessionKey, SessionStore};
use registry::store::{Location, SessionId, Timestamp, Uid};
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;

struct OpenedStore {
    store: Arc<SqliteStore>,
    directory: TempDir,
}

fn open(sync: Sync) -> OpenedStore {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metadata.db");
    std::fs::File::create(&path).unwrap();
    let store = Arc::new(SqliteStore::open(&path, sync).unwrap());
    OpenedStore { store, directory }
}

impl OpenedStore {
    /// Runs `work`, and returns its outcome and its cost.
    async fn cost<T>(&self, work: impl Future<Output = T>) -> (T, SqliteStatistics) {
        let before = self.store.statistics();
        let outcome = work.await;
        let after = self.store.statistics();
        let cost = SqliteStatistics {
            reads: after.reads - before.reads,
            writes: after.writes - before.writes,
            commits: after.commits - before.commits,
            syncs: after.syncs - before.syncs,
        };
        (outcome, cost)
    }

    fn other_process(&self) -> Connection {
        Connection::open(self.directory.path().join("metadata.db")).unwrap()
    }

    async fn claim(&self, id: u128) -> Claim {
        match self
            .store
            .claim(cx(), key(id), Expected::New, Timestamp(60_000), u32::MAX)
            .await
            .unwrap()
        {
            Claimed::Granted(claim) => claim,
            other => panic!("{other:?}"),
        }
    }

    async fn commit_blob(&self, number: u64) -> Result<(), StoreError> {
        self.store
            .commit_blob(cx(), &repository(), &digest(number), &location(number), 1)
            .await
            .map(drop)
    }
}

fn cx() -> Context {
    with_timeout(20_000)
}

fn with_timeout(millis: u64) -> Context {
    Context::internal(Timestamp(1_000), millis, Uid(u64::MAX - 7))
}

fn key(id: u128) -> SessionKey {
    SessionKey {
        expires: Timestamp(90_000),
        id: SessionId(id),
    }
}

fn repository() -> RepositoryName {
    "library/app".parse().unwrap()
}

fn digest(number: u64) -> Digest {
    Digest::of(Algorithm::Sha256, &number.to_be_bytes())
}

fn location(number: u64) -> Location {
    Location::main(format!("{number:032x}.1"))
}

fn publishing(number: u64) -> Publishing {
    Publishing {
        digest: digest(number),
        location: location(number),
        size: 1,
    }
}

fn manifest(required: &[u64], tags: &[&str]) -> PutManifest {
    PutManifest {
        repository: repository(),
        digest: digest(1_000_000),
        media_type: "application/vnd.oci.image.manifest.v1+json".parse().unwrap(),
        size: 3,
        content: NewContent::Inline(Bytes::from_static(b"{ }")),
        artifact_type: None,
        subject: None,
        required: required.iter().map(|number| digest(*number)).collect(),
        excepted: std::iter::once(digest(2_000_000)).collect(),
        tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
        author: Author::new("alice"),
    }
}

/// Another process restarts the log, while this process always has an open read.
#[tokio::test(flavor = "multi_thread")]
async fn the_standing_read_does_not_block_other_processes() {
    let opened = open(Sync::Off);
    let other = opened.other_process();
    other.busy_timeout(Duration::from_secs(10)).unwrap();
    for number in 0..5 {
        opened.commit_blob(number).await.unwrap();
        let link = opened.store.link(cx(), &repository(), &digest(number)).await.unwrap();
        assert!(link.is_some());
        let is_busy: bool = other
            .query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0))
            .unwrap();
        assert!(!is_busy, "{number}");
    }
}

/// Preparing a statement takes longer than running most of them.
#[tokio::test]
async fn reads_are_not_prepared_again_for_each_value() {
    let opened = open(Sync::Off);
    let store = &opened.store;
    for number in 0..3 {
        opened.commit_blob(number).await.unwrap();
        let tag = format!("t{number}");
        let put = manifest(&[number], &[&tag]);
        store.put_manifest(cx(), &put, &AllowAll::shared()).await.unwrap();
        let (name, tag) = (repository(), tag.parse().unwrap());
        assert!(store.tag(cx(), &name, &tag).await.unwrap().is_some());
        assert!(store.tagged_manifest(cx(), &name, &tag).await.unwrap().is_some());
        assert!(store.manifest(cx(), &name, &put.digest).await.unwrap().is_some());
        assert!(
            store
                .link_and_unmark(cx(), &name, &digest(number))
                .await
                .unwrap()
                .is_some()
        );
        assert!(store.link(cx(), &name, &digest(number)).await.unwrap().is_some());
    }
    assert_eq!(store.counters.prepared_again.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simultaneous_operations_share_a_commit() {
    let opened = open(Sync::Full);
    let (outcomes, cost) = opened
        .cost(join_all((0..64).map(|number| opened.commit_blob(number))))
        .await;
    outcomes.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(cost.writes, 64 * 3, "a blob, a link and a back-link each");
    assert!(cost.commits <= 16, "64 operations took {} commits", cost.commits);
    assert!(cost.syncs <= cost.commits);
    for number in 0..64 {
        assert!(
            opened
                .store
                .link(cx(), &repository(), &digest(number))
                .await
                .unwrap()
                .is_some()
        );
    }
}

#[tokio::test]
async fn only_durable_operations_are_synced() {
    let opened = open(Sync::Full);
    let (claim, cost) = opened.cost(opened.claim(1)).await;
    assert_eq!((cost.commits, cost.syncs), (1, 1), "claim");
    let (renewed, cost) = opened.cost(opened.store.renew(cx(), &claim, Timestamp(70_000))).await;
    assert!(renewed.unwrap());
    assert_eq!((cost.commits, cost.syncs), (1, 0), "renew");
    let (saved, cost) = opened
        .cost(opened.store.save(cx(), &claim, Progress::default(), Some(vec![1])))
        .await;
    assert!(saved.unwrap());
    assert_eq!((cost.commits, cost.syncs, cost.writes), (1, 1, 2), "save");
    let claim = opened.claim(1).await;
    let (released, cost) = opened.cost(opened.store.release(cx(), &claim)).await;
    released.unwrap();
    assert_eq!((cost.commits, cost.syncs), (1, 0), "release");
    let claim = opened.claim(1).await;
    let (marked, cost) = opened.cost(opened.store.commit(cx(), &claim, &publishing(1))).await;
    assert!(marked.unwrap());
    assert_eq!((cost.commits, cost.syncs), (1, 0), "commit of the session");
    let (published, cost) = opened.cost(opened.commit_blob(1)).await;
    published.unwrap();
    assert_eq!((cost.commits, cost.syncs), (1, 1), "commit blob");
    let (finished, cost) = opened.cost(opened.store.finish(cx(), &claim, End::Done)).await;
    finished.unwrap();
    assert_eq!((cost.commits, cost.syncs), (1, 0), "finish");
    let (cancelled, cost) = opened.cost(opened.store.cancel(cx(), key(2))).await;
    cancelled.unwrap();
    assert_eq!((cost.commits, cost.syncs), (1, 1), "cancel");

    let unsynced = open(Sync::Off);
    let (_, cost) = unsynced.cost(unsynced.claim(1)).await;
    assert_eq!((cost.commits, cost.syncs), (1, 0));
}

#[test]
fn the_connection_has_the_sync_level_of_the_durability() {
    let directory = tempfile::tempdir().unwrap();
    let connection = Connection::open(directory.path().join("a.db")).unwrap();
    for (sync, durable, level) in [(Sync::Full, true, 2), (Sync::Full, false, 1), (Sync::Off, true, 0)] {
        schema::set_durable(&connection, durable, sync).unwrap();
        let found: i64 = connection
            .pragma_query_value(None, "synchronous", |row| row.get(0))
            .unwrap();
        assert_eq!(found, level);
    }
}

#[tokio::test]
async fn operations_have_their_documented_costs() {
    let opened = open(Sync::Full);
    for number in 0..11 {
        opened.commit_blob(number).await.unwrap();
    }
    let layers: Vec<_> = (0..11).collect();
    let put = manifest(&layers, &["latest"]);
    let (stored, cost) = opened
        .cost(opened.store.put_manifest(cx(), &put, &AllowAll::shared()))
        .await;
    assert_eq!(stored.unwrap(), ManifestPut::Stored);
    // Reads: the manifest, 12 references, the tag, its history. Writes: the repository, the manifest, 12 edges, the
    // tag, its history.
    assert_eq!((cost.reads, cost.writes), (15, 17));

    let (_, cost) = opened
        .cost(opened.store.put_manifest(cx(), &put, &AllowAll::shared()))
        .await;
    assert_eq!((cost.reads, cost.writes), (2, 0), "the same put again");

    let latest = "latest".parse().unwrap();
    let (_, cost) = opened.cost(opened.store.tag(cx(), &repository(), &latest)).await;
    assert_eq!((cost.reads, cost.writes, cost.commits), (1, 0, 0));
    let (_, cost) = opened
        .cost(opened.store.manifest(cx(), &repository(), &put.digest))
        .await;
    assert_eq!((cost.reads, cost.writes, cost.commits), (1, 0, 0));
    let (_, cost) = opened.cost(opened.store.link(cx(), &repository(), &digest(1))).await;
    assert_eq!((cost.reads, cost.writes, cost.commits), (1, 0, 0));
    let (_, cost) = opened.cost(opened.store.tags(cx(), &repository(), None, 100)).await;
    assert_eq!((cost.reads, cost.writes, cost.commits), (1, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_operation_fails_no_other() {
    let opened = open(Sync::Full);
    // A row that this program does not write, and that makes one operation fail.
    let other = opened.other_process();
    let damage = "INSERT INTO tag VALUES (?1, 'broken', 'no digest', 'a/b', 1, -1, 1)";
    other.execute(damage, [repository().as_str()]).unwrap();
    opened
        .store
        .put_manifest(cx(), &manifest(&[], &[]), &AllowAll::shared())
        .await
        .unwrap();

    let broken = manifest(&[], &["broken"]);
    let failing = async {
        let outcome = opened.store.put_manifest(cx(), &broken, &AllowAll::shared()).await;
        assert!(matches!(outcome, Err(StoreError::Failed(_))), "{outcome:?}");
    };
    let others = join_all((0..32).map(|number| opened.commit_blob(number)));
    let ((), outcomes) = futures_util::future::join(failing, others).await;
    outcomes.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    for number in 0..32 {
        assert!(
            opened
                .store
                .link(cx(), &repository(), &digest(number))
                .await
                .unwrap()
                .is_some()
        );
    }
}

#[tokio::test]
async fn a_full_disk_is_a_temporary_error() {
    let opened = open(Sync::Full);
    opened.commit_blob(0).await.unwrap();
    // The maximum size of the file, in pages: below its current size.
    let limit = |pages: i64| {
        opened.store.write_ordered(cx(), move |rows| {
            rows.one("SELECT 1", [], |_| Ok(()))?;
            rows.limit_pages(pages)
        })
    };
    limit(1).await.unwrap();
    let mut refused = 0;
    for number in 1..200 {
        match opened.commit_blob(number).await {
            Ok(()) => {}
            Err(StoreError::Unavailable(cause)) => {
                assert!(cause.to_string().contains("full"), "{cause}");
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 0);
    limit(1 << 30).await.unwrap();
    opened.commit_blob(1_000).await.unwrap();
    let linking = opened
        .store
        .linking_repositories(cx(), &digest(1_000), 10)
        .await
        .unwrap();
    assert_eq!(linking, [repository()]);
}

#[tokio::test]
async fn a_write_waits_for_the_lock_of_another_process_until_its_deadline() {
    let opened = open(Sync::Full);
    let other = opened.other_process();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let outcome = opened
        .store
        .commit_blob(with_timeout(150), &repository(), &digest(1), &location(1), 1)
        .await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    // Reads do not wait for writers.
    assert_eq!(
        opened
            .store
            .link(with_timeout(0), &repository(), &digest(1))
            .await
            .unwrap(),
        None
    );

    let waiting = opened.commit_blob(2);
    let release = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        other.execute_batch("COMMIT").unwrap();
    };
    let (outcome, ()) = futures_util::future::join(waiting, release).await;
    outcome.unwrap();
    for (number, exists) in [(1, false), (2, true)] {
        let link = opened.store.link(cx(), &repository(), &digest(number)).await.unwrap();
        assert_eq!(link.is_some(), exists, "{number}");
    }
}

#[tokio::test]
async fn a_closed_store_leaves_one_file_and_refuses_operations() {
    let opened = open(Sync::Full);
    opened.commit_blob(1).await.unwrap();
    assert!(
        opened
            .store
            .link(cx(), &repository(), &digest(1))
            .await
            .unwrap()
            .is_some()
    );
    opened.store.close();
    let files: Vec<_> = std::fs::read_dir(opened.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(files, ["metadata.db"]);
    assert!(matches!(opened.commit_blob(2).await, Err(StoreError::Unavailable(_))));
    let read = opened.store.link(cx(), &repository(), &digest(1)).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))));
    opened.store.close();

    let again = SqliteStore::open(&opened.directory.path().join("metadata.db"), Sync::Full).unwrap();
    assert!(again.link(cx(), &repository(), &digest(1)).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_moved_while_others_read() {
    let opened = open(Sync::Off);
    let reading = {
        let store = Arc::clone(&opened.store);
        tokio::spawn(async move {
            loop {
                store.tags(cx(), &repository(), None, 1_000).await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    };
    for round in 0..40 {
        let outcomes = join_all((0..200).map(|number| opened.commit_blob(round * 200 + number))).await;
        outcomes.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    }
    reading.abort();
    // Without the move, the log has about 50 MiB and the file is almost empty.
    let log = std::fs::metadata(opened.directory.path().join("metadata.db-wal"))
        .unwrap()
        .len();
    let file = std::fs::metadata(opened.directory.path().join("metadata.db"))
        .unwrap()
        .len();
    assert!(file > 1 << 20, "the file has {file} bytes");
    assert!(log < 32 << 20, "the log has {log} bytes");
}

#[tokio::test]
async fn the_schema_has_a_table_for_every_record() {
    let opened = open(Sync::Full);
    let other = opened.other_process();
    let mut tables: Vec<String> = other
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    tables.sort();
    let records = [
        "access_state",
        "account",
        "account_key",
        "audit",
        "backlink",
        "blob",
        "edge",
        "failure",
        "graveyard",
        "key_use",
        "link",
        "manifest",
        "pass",
        "policy",
        "referrer",
        "repository",
        "session",
        "session_part",
        "signing_key",
        "tag",
        "tag_history",
        "token_key",
    ];
    assert_eq!(tables, records);
    let mode: String = other
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .unwrap();
    assert_eq!(mode, "wal");
}

/// A bug in one operation fails only that operation: its changes are undone, and the writer continues.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_fails_one_operation() {
    let opened = open(Sync::Full);
    let broken = opened
        .store
        .write(cx(), |rows: &Rows<'_>| -> Result<(), OperationFailure> {
            rows.change(
                "INSERT INTO repository (name, created, state) VALUES ('a', 1, 'live')",
                [],
            )?;
            panic!("a bug, on purpose")
        });
    let (broken, sound) = futures_util::future::join(broken, opened.commit_blob(1)).await;
    assert!(matches!(broken, Err(StoreError::Failed(_))), "{broken:?}");
    sound.unwrap();
    assert_eq!(
        opened.store.repository(cx(), &"a".parse().unwrap()).await.unwrap(),
        None
    );
    opened.commit_blob(2).await.unwrap();
}

/// A transaction that was left open is ended before the connection is used again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_left_open_is_ended() {
    let opened = open(Sync::Full);
    opened.commit_blob(1).await.unwrap();
    // The COMMIT ends the group's transaction; a second one stays open after it.
    let left_open = opened.store.write(cx(), |rows: &Rows<'_>| {
        rows.change("COMMIT", [])?;
        rows.change("BEGIN", [])?;
        rows.change("SAVEPOINT inner", [])?;
        Err::<(), _>(OperationFailure::Damaged("on purpose".to_owned()))
    });
    assert!(left_open.await.is_err());
    let claim = opened.claim(1).await;
    opened.store.release(cx(), &claim).await.unwrap();
    opened.commit_blob(2).await.unwrap();
}

/// A recorded defect was already reported, so a start does not look for that object again.
#[tokio::test]
async fn locations_of_defective_objects_are_not_returned() {
    let opened = open(Sync::Off);
    let locations = async |limit| opened.store.some_locations(cx(), limit).await.unwrap();
    assert!(locations(3).await.is_empty());
    for number in [1, 2] {
        opened.commit_blob(number).await.unwrap();
    }
    assert_eq!((locations(1).await.len(), locations(3).await.len()), (1, 2));
    for (number, defect) in [(1, Defect::Missing), (2, Defect::Damaged)] {
        assert!(locations(3).await.contains(&location(number)), "{number}");
        let recorded = opened
            .store
            .record_defect(cx(), Some(&repository()), &digest(number), &location(number), defect)
            .await;
        recorded.unwrap();
    }
    assert!(locations(3).await.is_empty());
    let other = opened.other_process();
    other
        .execute("UPDATE blob SET condemned = 'by a later version'", [])
        .unwrap();
    assert_eq!(locations(3).await.len(), 2);
}

/// Each request for a missing object makes the registry look for it. Only the first defect that is found is written,
/// once in each repository whose link has another location.
#[tokio::test]
async fn a_recorded_defect_is_not_written_again() {
    let opened = open(Sync::Off);
    opened.commit_blob(1).await.unwrap();
    opened.commit_blob(2).await.unwrap();
    let (store, name) = (&opened.store, repository());
    let record = async |repository: Option<&RepositoryName>, number, at, defect| {
        let (digest, location) = (digest(number), location(at));
        let recorded = store.record_defect(cx(), repository, &digest, &location, defect);
        let (answer, cost) = opened.cost(recorded).await;
        (answer.unwrap(), cost.commits)
    };
    let some = Some(&name);
    for (repository, number, at, defect, expected) in [
        (some, 1, 1, Defect::Missing, (None, 1)),
        (some, 1, 1, Defect::Missing, (None, 0)),
        (None, 1, 1, Defect::Missing, (None, 0)),
        (some, 1, 1, Defect::Damaged, (None, 1)),
        (some, 1, 1, Defect::Missing, (None, 0)),
        // The defect was found at a location that is no longer the recorded one.
        (some, 2, 7, Defect::Missing, (Some(location(2)), 0)),
        (None, 2, 7, Defect::Missing, (Some(location(2)), 0)),
        (None, 3, 3, Defect::Missing, (None, 0)),
    ] {
        let found = record(repository, number, at, defect).await;
        assert_eq!(found, expected, "{number} at {at}, {defect:?}");
    }
    // A restored record has another location.
    let other = opened.other_process();
    other.execute("UPDATE link SET key = 'elsewhere'", []).unwrap();
    assert_eq!(record(some, 2, 7, Defect::Missing).await, (Some(location(2)), 1));
    assert_eq!(record(some, 2, 7, Defect::Missing).await, (Some(location(2)), 0));
}
