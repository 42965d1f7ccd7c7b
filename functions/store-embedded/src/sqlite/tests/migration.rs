//! Opens a file of version 1 that has rows in every table with the current version.

use futures_util::future::join_all;
use registry::store::collection::{CollectionStore, PendingDeletion};
use registry::store::metadata::Removal;
use registry::store::records::RecordStore;
use registry::store::sessions::{Cancelled, State};

use super::*;

const BLOB: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const OTHER: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const LARGE: &str = "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";
const SMALL: &str = "sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd";

/// The tables of version 1. Its sessions: 1 is open. 2 is done and its object has its final name. 3 was being committed
/// when its process crashed. 4 is like 3, but was already published. 5 is cancelled.
fn version_1() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let connection = Connection::open(directory.path().join("metadata.db")).unwrap();
    connection.execute_batch(include_str!("../schema.sql")).unwrap();
    let rows = format!(
        "INSERT INTO blob VALUES ('{BLOB}', 'disk', '{id:032x}.1', 10, 5, NULL), \
            ('{OTHER}', 'disk', '{other:032x}.2.0', 20, 5, NULL), \
            ('{LARGE}', 'disk', '{id:032x}.7', 40000, 5, NULL); \
         INSERT INTO backlink VALUES ('{BLOB}', 'library/app', 1, 'blob', 5), \
            ('{OTHER}', 'library/app', 2, 'blob', 5), ('{LARGE}', 'library/app', 3, 'manifest', 5); \
         INSERT INTO link VALUES ('library/app', '{BLOB}', 'disk', '{id:032x}.1', 10, 1, 5, NULL), \
            ('library/app', '{OTHER}', 'disk', '{other:032x}.2.0', 20, 2, 5, NULL); \
         INSERT INTO manifest VALUES \
            ('library/app', '{LARGE}', 'a/b', 40000, NULL, NULL, 3, 1, 5, NULL, 'disk', '{id:032x}.7', NULL), \
            ('library/app', '{SMALL}', 'a/b', 2, NULL, NULL, 4, 1, 5, NULL, NULL, NULL, x'7b7d'); \
         INSERT INTO edge VALUES ('library/app', '{BLOB}', '{SMALL}', 4, 5); \
         INSERT INTO tag VALUES ('library/app', 'latest', '{SMALL}', 'a/b', 2, 77, 5); \
         INSERT INTO tag_history VALUES ('library/app', 'latest', 77, NULL, '{SMALL}', 'alice', 5); \
         INSERT INTO repository VALUES ('library/app', 5, 'live'); \
         INSERT INTO session VALUES \
            (90000, {one}, 1, 'open', 1, 60000, 0, x'', x'', 0, NULL), \
            (90000, {two}, 5, 'done', 2, NULL, 10, x'', x'', 0, '{BLOB}'), \
            (90000, {three}, 4, 'committing', 1, NULL, 0, x'', x'', 0, '{missing}'), \
            (90000, {four}, 4, 'committing', 2, NULL, 20, x'', x'', 1, '{OTHER}'), \
            (90000, {five}, 3, 'cancelled', 1, NULL, 0, x'', x'', 0, NULL); \
         INSERT INTO session_part VALUES (90000, {four}, 1, x'01'); \
         INSERT INTO graveyard VALUES (86400300, 'disk', '{id:032x}.3', '{BLOB}'); \
         INSERT INTO signing_key VALUES (7, zeroblob(32), 5, NULL); \
         PRAGMA application_id = 0x52647374; PRAGMA user_version = 1; PRAGMA journal_mode = wal;",
        id = 2,
        other = 4,
        missing = BLOB.replace('a', "e"),
        one = blob(1),
        two = blob(2),
        three = blob(3),
        four = blob(4),
        five = blob(5),
    );
    connection.execute_batch(&rows).unwrap();
    directory
}

fn blob(id: u128) -> String {
    format!("x'{id:032x}'")
}

fn digest(text: &str) -> Digest {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_file_of_version_1_can_be_used() {
    let directory = version_1();
    let store = SqliteStore::open(&directory.path().join("metadata.db"), Sync::Full).unwrap();
    let link = store.link(cx(), &repository(), &digest(BLOB)).await.unwrap().unwrap();
    assert_eq!(link.location, Location::main(format!("{:032x}.1", 2)));
    let joined = store.link(cx(), &repository(), &digest(OTHER)).await.unwrap().unwrap();
    assert_eq!(joined.location, Location::main(format!("{:032x}.2.0", 4)));
    let large = store
        .manifest(cx(), &repository(), &digest(LARGE))
        .await
        .unwrap()
        .unwrap();
    let object = Location::main(format!("{:032x}.7", 2));
    assert_eq!(large.content, registry::store::metadata::Content::Stored(object));
    let records = store.records(cx(), None, 100).await.unwrap();
    assert_eq!(records.items.len(), 1);
    let latest = store
        .tag(cx(), &repository(), &"latest".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(latest.unwrap().version, 77);

    let pending_deletion = PendingDeletion {
        location: Location::main(format!("{:032x}.3", 2)),
        digest: Some(digest(BLOB)),
        unfinished: false,
        at: Timestamp(300),
    };
    assert_eq!(
        store
            .pending_deletions(cx(), Timestamp(300), None, 10)
            .await
            .unwrap()
            .items,
        []
    );
    assert_eq!(
        store
            .pending_deletions(cx(), Timestamp(301), None, 10)
            .await
            .unwrap()
            .items,
        [pending_deletion]
    );

    // Writes work too.
    assert_eq!(
        store
            .unlink(cx(), &repository(), &digest(BLOB), &Author::new("alice"))
            .await
            .unwrap(),
        Removal::Referenced(digest(SMALL))
    );
    let new = super::digest(1);
    store
        .commit_blob(cx(), &repository(), &new, &location(9), 1)
        .await
        .unwrap();
    let twice = store
        .commit_blob(cx(), &repository(), &digest(OTHER), &location(8), 20)
        .await;
    twice.unwrap();
    assert_eq!(
        store
            .pending_deletions(cx(), Timestamp(2_000), None, 10)
            .await
            .unwrap()
            .items
            .len(),
        2
    );
    let candidate = registry::store::sessions::SigningKey {
        id: 8,
        secret: [8; 32],
        created: Timestamp(9),
    };
    assert_eq!(store.signing_keys(cx(), candidate).await.unwrap()[0].id, 7);

    // The history goes on with what version 3 records, and an old repository can become permanent.
    let (latest, guard) = ("latest".parse().unwrap(), AllowAll::shared());
    let removal = store
        .delete_tag(cx(), &repository(), &latest, &Author::new("alice"), &guard)
        .await;
    assert_eq!(removal.unwrap(), Removal::Removed);
    let history = store.history(cx(), &repository(), &latest, None, 10).await.unwrap();
    let since: Vec<_> = history.items.iter().map(|change| change.since).collect();
    assert_eq!(since, [Some(Timestamp(5)), None]);
    assert!(
        !store
            .create_repository(cx(), &repository(), &Author::new("alice"))
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn sessions_of_version_1_can_end() {
    let directory = version_1();
    let store = SqliteStore::open(&directory.path().join("metadata.db"), Sync::Full).unwrap();
    let rows = join_all((1..=5).map(|id| store.get(cx(), key(id)))).await;
    let rows: Vec<_> = rows.into_iter().map(|row| row.unwrap().unwrap()).collect();
    // A done session is finished again, and a session that cannot be finished is cancelled.
    let [
        State::Open { .. },
        State::Committing(in_place),
        State::Cancelled(None),
        State::Committing(joined),
        State::Cancelled(None),
    ] = [0, 1, 2, 3, 4].map(|number: usize| rows[number].state.clone())
    else {
        panic!("{rows:?}");
    };
    assert_eq!(in_place.location.key, format!("{:032x}.1", 2));
    assert_eq!(joined.location.key, format!("{:032x}.2.0", 4));
    assert_eq!(joined.size, 20);

    let cancelled = store.cancel(cx(), key(1)).await.unwrap();
    assert!(matches!(cancelled, Cancelled::Now(Some(_))));
    store.finish_committing(cx(), key(2), End::Done).await.unwrap();
    for (id, pending_deletions) in [(1, 1), (2, 0), (3, 1), (4, 3), (5, 1)] {
        let row = store.get(cx(), key(id)).await.unwrap().unwrap();
        assert_eq!(
            store.sweep(cx(), key(id), &row).await.unwrap(),
            Some(pending_deletions),
            "session {id}"
        );
        assert_eq!(store.get(cx(), key(id)).await.unwrap(), None);
    }
    assert_eq!(store.parts(cx(), key(4)).await.unwrap(), [] as [Vec<u8>; 0]);
    // A published object is scheduled for deletion only under its digest. The digest shows that the object is in use.
    let pending_deletions = store
        .pending_deletions(cx(), Timestamp(u64::MAX >> 1), None, 100)
        .await
        .unwrap()
        .items;
    let joined = Location::main(format!("{:032x}.2.0", 4));
    let pending_deletion = pending_deletions
        .iter()
        .find(|pending_deletion| pending_deletion.location == joined)
        .unwrap();
    assert!(!pending_deletion.unfinished);
    let object = store
        .recorded_object(cx(), &pending_deletion.digest.unwrap())
        .await
        .unwrap();
    assert_eq!(object.unwrap().location, joined);
}

/// A program of version 1 that keeps the file open cannot write the old name of the store again.
#[tokio::test]
async fn a_running_older_program_cannot_write_old_locations() {
    let directory = version_1();
    let path = directory.path().join("metadata.db");
    let older = Connection::open(&path).unwrap();
    let store = SqliteStore::open(&path, Sync::Full).unwrap();
    let statements = [
        "INSERT INTO blob (digest, store, key, size, at) VALUES ('sha256:00', 'disk', 'k', 1, 1)",
        "INSERT INTO graveyard (due, store, key, digest) VALUES (1, 'disk', 'k', 'sha256:00')",
    ];
    for statement in statements {
        older.execute(statement, []).unwrap_err();
    }
    drop(store);
    let refused = SqliteStore::open(&path, Sync::Full).map(drop);
    refused.unwrap();
}
