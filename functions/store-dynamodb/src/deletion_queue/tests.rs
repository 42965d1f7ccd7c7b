//! Walks over more pending deletions than one page or one call reads, and objects that are scheduled more than once.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use registry::store::{Context, Uid};

use super::*;
use crate::memory::MemoryTable;
use crate::retrying::{TableClient, TestRetryEnvironment};

const NOW: Timestamp = Timestamp(1_900_000_000_000);

fn local() -> TableClient {
    TableClient::new(Arc::new(MemoryTable::new()), Arc::new(TestRetryEnvironment::new(1)))
}

fn cx() -> Context {
    Context::internal(NOW, 30_000, Uid(1))
}

fn pending_deletion(key: String, at: Timestamp) -> PendingDeletion {
    PendingDeletion {
        location: Location::main(key),
        digest: None,
        unfinished: true,
        at,
    }
}

/// Walks in slices of `limit`, and returns the items of each slice.
async fn walk(client: &TableClient, before: Timestamp, limit: usize) -> Vec<Vec<PendingDeletion>> {
    let mut slices = Vec::new();
    let mut next = None;
    loop {
        let found = slice(&client.within(cx()), before, next.as_ref(), limit).await.unwrap();
        slices.push(found.items);
        next = found.next;
        if next.is_none() {
            return slices;
        }
    }
}

#[tokio::test]
async fn an_empty_deletion_queue_is_read_in_one_call() {
    assert_eq!(walk(&local(), NOW, 1).await, [Vec::new()]);
}

#[tokio::test]
async fn a_call_reads_a_bounded_number_of_pending_deletions_that_are_not_due() {
    const MANY: usize = PAGE * PAGES * 2 + 7;
    let client = local();
    let requests = client.within(cx());
    // All of these are in one shard. Two more are due: the last of this shard, and one of the last shard.
    let young = (0..MANY).map(|number| pending_deletion(format!("{number:032x}.1"), NOW));
    schedule_deletions(&requests, young).await.unwrap();
    let old = Timestamp(NOW.0 - 1);
    let due = [
        pending_deletion(format!("0{:f>31}.1", ""), old),
        pending_deletion(format!("{:f>32}.1", ""), old),
    ];
    schedule_deletions(&requests, due.clone().into_iter()).await.unwrap();

    let before = client.statistics().queries;
    let slices = walk(&client, NOW, 10).await;
    assert_eq!(slices, [Vec::new(), Vec::new(), due.to_vec()]);
    let pages = (MANY + 1).div_ceil(PAGE) + usize::from(SHARDS) - 1;
    assert_eq!(client.statistics().queries - before, pages as u64);

    let all = walk(&client, NOW.plus_millis(1), 1000).await;
    assert!(all.iter().all(|slice| slice.len() <= 1000));
    let mut keys: Vec<String> = all
        .into_iter()
        .flatten()
        .map(|pending_deletion| pending_deletion.location.key)
        .collect();
    assert_eq!(keys.len(), MANY + 2);
    keys.dedup();
    assert_eq!(keys.len(), MANY + 2, "each item once");
}

#[tokio::test]
async fn a_cursor_of_another_store_is_an_error() {
    let client = local();
    for text in ["", "x", "x y", "-1 a", "256 a"] {
        let cursor = Cursor(text.to_owned());
        let found = slice(&client.within(cx()), NOW, Some(&cursor), 1).await;
        assert!(matches!(found, Err(StoreError::Failed(_))), "{text:?}");
    }
}

/// The result does not depend on the order of the calls.
#[tokio::test]
async fn scheduling_an_object_again_joins_what_is_known() {
    let digest = Digest::of(oci::Algorithm::Sha256, b"a");
    let ones = [
        (None, true, NOW),
        (Some(digest), false, Timestamp(NOW.0 - 5)),
        (Some(digest), false, NOW),
        (
            Some(Digest::of(oci::Algorithm::Sha256, b"b")),
            false,
            Timestamp(NOW.0 + 5),
        ),
    ];
    let ones = ones.map(|(digest, unfinished, at)| PendingDeletion {
        digest,
        unfinished,
        ..pending_deletion("a.1".to_owned(), at)
    });
    for one in &ones {
        for other in &ones {
            let client = local();
            let requests = client.within(cx());
            schedule_deletion(&requests, one).await.unwrap();
            schedule_deletion(&requests, other).await.unwrap();
            let found = walk(&client, NOW.plus_millis(10), 10).await.concat();
            assert_eq!(found, [one.clone().joined(other.clone())]);
            schedule_deletion(&requests, one).await.unwrap();
            assert_eq!(walk(&client, NOW.plus_millis(10), 10).await.concat(), found);
            assert_eq!(found[0].at, one.at.max(other.at));
            assert_eq!(found[0].digest.is_some(), one.digest.or(other.digest).is_some());
        }
    }
}
