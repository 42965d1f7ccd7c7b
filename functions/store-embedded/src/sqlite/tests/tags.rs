//! Tests of the deletion of a manifest with many tags.

use registry::store::metadata::Removal;
use tokio::task::JoinHandle;

use super::*;
use crate::sqlite::metadata::remove::TAGS_AT_ONCE;

/// A manifest with this number of tags, as pushes create it.
async fn tagged(opened: &OpenedStore, tags: usize) -> Digest {
    let put = manifest(&[], &["latest"]);
    opened
        .store
        .put_manifest(cx(), &put, &AllowAll::shared())
        .await
        .unwrap();
    let (other, name) = (opened.other_process(), repository());
    for (table, columns, values) in [
        (
            "tag",
            "repository, tag, digest, media_type, size, version, at",
            "digest, 'a/b', 3, n, 1",
        ),
        (
            "tag_history",
            "repository, tag, version, before, after, who, at",
            "n, NULL, digest, 'alice', 1",
        ),
    ] {
        let sql = format!(
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?3) \
             INSERT INTO {table} ({columns}) \
             SELECT repository, tag, {values} \
             FROM (SELECT ?1 AS repository, printf('t%07d', n) AS tag, ?2 AS digest, n FROM numbers)"
        );
        let values = rusqlite::params![name.as_str(), put.digest.to_string(), i64::try_from(tags - 1).unwrap()];
        other.execute(&sql, values).unwrap();
    }
    put.digest
}

/// The events of deletions list exactly the tags whose deletion is in the history.
fn assert_events_list_deletions(opened: &OpenedStore) {
    let lists = [
        "SELECT tag FROM tag_history WHERE after IS NULL ORDER BY tag",
        "SELECT json_extract(value, '$.tag') FROM audit, json_each(audit.detail) \
         WHERE event IN ('tag.deleted', 'manifest.deleted') ORDER BY 1",
    ];
    // Both see the same state, whatever is still being written.
    let other = opened.other_process();
    other.execute_batch("BEGIN").unwrap();
    let [history, events] = lists.map(|sql| {
        let mut statement = other.prepare(sql).unwrap();
        let tags = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        tags.map(Result::unwrap).collect::<Vec<_>>()
    });
    assert!(history == events, "{} and {} tags", history.len(), events.len());
}

/// Deletes the manifest, by a call with an id of its own: the ids of its events come from that.
fn deletion(opened: &OpenedStore, digest: Digest, call: u64) -> JoinHandle<Result<Removal, StoreError>> {
    let store = Arc::clone(&opened.store);
    let whole = Context {
        uid: Uid(call),
        ..with_timeout(600_000)
    };
    tokio::spawn(async move {
        store
            .delete_manifest(
                whole,
                &repository(),
                &digest,
                &Author::new("alice"),
                &AllowAll::shared(),
            )
            .await
    })
}

/// Other writes run while a manifest with this number of tags is deleted. Afterwards the manifest and all its tags are
/// deleted.
async fn other_writes_run_during_deletion(tags: usize) {
    let opened = open(Sync::Off);
    let digest = tagged(&opened, tags).await;
    let deletion = deletion(&opened, digest, 1);
    let mut written = 0;
    while !deletion.is_finished() {
        opened.commit_blob(written).await.unwrap();
        written += 1;
    }
    assert_eq!(deletion.await.unwrap().unwrap(), Removal::Removed);
    // Each write waits for at most two transactions of the deletion.
    let transactions = (tags / TAGS_AT_ONCE) as u64;
    assert!(
        written >= transactions / 4,
        "{written} writes were answered during {transactions} transactions"
    );

    let left = opened.store.tags(cx(), &repository(), None, 10).await.unwrap();
    assert_eq!(left.items, []);
    assert!(
        opened
            .store
            .manifest(cx(), &repository(), &digest)
            .await
            .unwrap()
            .is_none()
    );
    let changes: i64 = opened
        .other_process()
        .query_row("SELECT count(*) FROM tag_history WHERE after IS NULL", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(changes, i64::try_from(tags).unwrap(), "each deletion is in its history");
    assert_events_list_deletions(&opened);
    let again = opened
        .store
        .delete_manifest(cx(), &repository(), &digest, &Author::new("alice"), &AllowAll::shared())
        .await;
    assert_eq!(again.unwrap(), Removal::Absent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_writes_run_while_fifty_thousand_tags_are_deleted() {
    other_writes_run_during_deletion(50_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: tests/run --full"]
async fn other_writes_run_while_a_million_tags_are_deleted() {
    other_writes_run_during_deletion(1_000_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_tags_are_deleted_in_one_transaction() {
    for (tags, commits) in [(TAGS_AT_ONCE, 1), (TAGS_AT_ONCE + 1, 4)] {
        let opened = open(Sync::Full);
        let digest = tagged(&opened, tags).await;
        let (removal, cost) = opened.cost(async { deletion(&opened, digest, 2).await }).await;
        assert_eq!(removal.unwrap().unwrap(), Removal::Removed);
        // Two of the four only read and change nothing: one finds too many tags, one finds that no surplus is left.
        assert_eq!(cost.commits, commits, "{tags} tags");
    }
}

/// An interrupted deletion leaves a manifest with fewer tags. The next deletion removes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_deletion_continues_an_interrupted_one() {
    let opened = open(Sync::Off);
    let digest = tagged(&opened, 10_000).await;
    let before = opened.store.statistics().writes;
    let interrupted = deletion(&opened, digest, 3);
    while opened.store.statistics().writes < before + 1_000 {
        tokio::task::yield_now().await;
    }
    interrupted.abort();
    assert!(interrupted.await.is_err(), "it ended before it was interrupted");
    assert_events_list_deletions(&opened);
    assert!(
        opened
            .store
            .manifest(cx(), &repository(), &digest)
            .await
            .unwrap()
            .is_some()
    );
    let removal = opened
        .store
        .delete_manifest(
            with_timeout(0),
            &repository(),
            &digest,
            &Author::new("alice"),
            &AllowAll::shared(),
        )
        .await;
    assert!(
        matches!(removal, Err(StoreError::Unavailable(_))),
        "its deadline has passed: {removal:?}"
    );
    assert_eq!(deletion(&opened, digest, 4).await.unwrap().unwrap(), Removal::Removed);
    assert_eq!(
        opened.store.tags(cx(), &repository(), None, 10).await.unwrap().items,
        []
    );
    assert_events_list_deletions(&opened);
}
