//! The deletion of a manifest with many tags.

use registry::store::metadata::Removal;
use tokio::task::JoinHandle;

use super::*;
use crate::sqlite::metadata::remove::TAGS_AT_ONCE;

/// A manifest with so many tags, as pushes would leave it.
async fn tagged(opened: &Opened, tags: usize) -> Digest {
    let put = manifest(&[], &["latest"]);
    opened.store.put_manifest(cx(), &put).await.unwrap();
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
            "n, NULL, digest, 'somebody', 1",
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

fn deletion(opened: &Opened, digest: Digest) -> JoinHandle<Result<Removal, StoreError>> {
    let store = Arc::clone(&opened.store);
    let whole = with_patience(600_000);
    tokio::spawn(async move { store.delete_manifest(whole, &repository(), &digest, "somebody").await })
}

/// Others write while a manifest with so many tags is deleted; afterwards it is gone with all of them.
async fn others_write_meanwhile(tags: usize) {
    let opened = open(Sync::Off);
    let digest = tagged(&opened, tags).await;
    let deletion = deletion(&opened, digest);
    let mut written = 0;
    while !deletion.is_finished() {
        opened.commit_blob(written).await.unwrap();
        written += 1;
    }
    assert_eq!(deletion.await.unwrap().unwrap(), Removal::Removed);
    // Each is at most behind two transactions of the deletion.
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
    assert_eq!(changes, i64::try_from(tags).unwrap(), "each in its history");
    let again = opened
        .store
        .delete_manifest(cx(), &repository(), &digest, "somebody")
        .await;
    assert_eq!(again.unwrap(), Removal::Absent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_write_while_fifty_thousand_tags_go() {
    others_write_meanwhile(50_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: tests/run --full"]
async fn others_write_while_a_million_tags_go() {
    others_write_meanwhile(1_000_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_in_one_transaction_goes_in_one() {
    for (tags, commits) in [(TAGS_AT_ONCE, 1), (TAGS_AT_ONCE + 1, 4)] {
        let opened = open(Sync::Full);
        let digest = tagged(&opened, tags).await;
        let (removal, cost) = opened.cost(async { deletion(&opened, digest).await }).await;
        assert_eq!(removal.unwrap().unwrap(), Removal::Removed);
        // Two of the four look, and change nothing: whether there are too many, and whether there still are.
        assert_eq!(cost.commits, commits, "{tags} tags");
    }
}

/// A deletion that is cut off leaves a manifest with fewer tags, which the next one deletes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_is_cut_off_is_gone_on_with() {
    let opened = open(Sync::Off);
    let digest = tagged(&opened, 10_000).await;
    let before = opened.store.statistics().writes;
    let cut_off = deletion(&opened, digest);
    while opened.store.statistics().writes < before + 1_000 {
        tokio::task::yield_now().await;
    }
    cut_off.abort();
    assert!(cut_off.await.is_err(), "it was through before it was cut off");
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
        .delete_manifest(with_patience(0), &repository(), &digest, "somebody")
        .await;
    assert!(
        matches!(removal, Err(StoreError::Unavailable(_))),
        "its time is over: {removal:?}"
    );
    assert_eq!(deletion(&opened, digest).await.unwrap().unwrap(), Removal::Removed);
    assert_eq!(
        opened.store.tags(cx(), &repository(), None, 10).await.unwrap().items,
        []
    );
}
