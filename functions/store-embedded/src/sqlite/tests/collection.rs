//! Tests of what only this store does in a collection: query plans, bounds, the work of readers, and the removal of
//! orphans that an import may have left.

use std::time::Instant;

use registry::store::collection::{CollectionStore, GracePeriods, PassStatistics, Plan};
use registry::store::metadata::Removal;
use registry::store::sessions::State;
use registry::store::{Cursor, Location};

use super::super::{access, collection, records};
use super::*;

const GRACE: u64 = 1_000;

fn plan(deep: bool) -> Plan {
    Plan {
        dry_run: false,
        deep,
        grace_periods: GracePeriods {
            link_ms: GRACE,
            session_ms: GRACE,
            deletion_ms: GRACE,
            orphan_ms: GRACE,
        },
    }
}

/// A context at a time that is later than the previous one by more than each grace period.
fn later(times: u64) -> Context {
    let now = Timestamp(1_000 + times * (GRACE + 1));
    Context::internal(now, 20_000, Uid(times))
}

async fn pass(store: &SqliteStore, cx: Context, plan: &Plan, limit: usize) -> PassStatistics {
    let (mut total, mut after) = (PassStatistics::default(), None::<Cursor>);
    loop {
        let slice = store.collect_metadata(cx, plan, after.as_ref(), limit).await.unwrap();
        total += slice.statistics;
        after = slice.next;
        if after.is_none() {
            return total;
        }
    }
}

/// No step of a walk reads a table from its start, sorts it, or searches another table for each row.
#[test]
fn every_walk_statement_reads_only_its_rows() {
    let opened = open(Sync::Off);
    let connection = opened.other_process();
    let statements = collection::STATEMENTS
        .iter()
        .chain(records::STATEMENTS)
        .chain(access::STATEMENTS);
    for sql in statements {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let parameters = vec![rusqlite::types::Value::Null; statement.parameter_count()];
        let steps: Vec<String> = statement
            .query_map(rusqlite::params_from_iter(parameters), |row| row.get(3))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert!(!steps.is_empty());
        for step in steps {
            // A list in a subquery is made once, by steps of its own.
            let allowed = ["SEARCH ", "CORRELATED SCALAR SUBQUERY", "LIST SUBQUERY"];
            let is_direct = allowed.iter().any(|allowed| step.starts_with(allowed));
            assert!(is_direct, "{step}\nof {sql}");
        }
    }
}

/// A transaction of the writer is bounded for any limit of the caller. If nothing must be changed, there is no
/// transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slice_is_bounded_and_readers_do_the_walk() {
    let opened = open(Sync::Full);
    join_all((0..700).map(|number| opened.commit_blob(number))).await;
    let limit = 100_000;
    let (statistics, cost) = opened.cost(pass(&opened.store, later(0), &plan(true), limit)).await;
    assert_eq!(
        statistics,
        PassStatistics {
            seen: 2_100,
            ..PassStatistics::default()
        }
    );
    assert_eq!((cost.writes, cost.commits), (0, 0), "all are young");
    assert!(cost.reads <= 12, "{} reads", cost.reads);

    let dry = Plan {
        dry_run: true,
        ..plan(false)
    };
    let (statistics, cost) = opened.cost(pass(&opened.store, later(1), &dry, limit)).await;
    assert_eq!((statistics.marked, cost.writes, cost.commits), (700, 0, 0));

    let (statistics, cost) = opened.cost(pass(&opened.store, later(1), &plan(false), limit)).await;
    assert_eq!((statistics.marked, cost.writes, cost.commits), (700, 700, 3));
    let (statistics, cost) = opened.cost(pass(&opened.store, later(2), &plan(false), limit)).await;
    assert_eq!(
        (statistics.unlinked, statistics.scheduled, statistics.scheduled_bytes),
        (700, 700, 700)
    );
    assert_eq!((cost.writes, cost.commits, cost.syncs), (700 * 4, 6, 6));
    let pending_deletions = opened
        .store
        .pending_deletions(later(3), later(3).now, None, 10_000)
        .await
        .unwrap()
        .items;
    assert_eq!(pending_deletions.len(), 700);
    let (_, cost) = opened
        .cost(opened.store.remove_pending_deletions(later(3), &pending_deletions))
        .await;
    assert_eq!((cost.writes, cost.commits, cost.syncs), (700, 3, 0));
    let statistics = pass(&opened.store, later(9), &plan(true), limit).await;
    assert_eq!(statistics, PassStatistics::default(), "no rows are left");
}

/// A collection pass does not block pushes: the time that each push waits is bounded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_continue_during_a_pass() {
    let opened = open(Sync::Off);
    for group in 0..20 {
        let outcomes = join_all((0..500).map(|number| opened.commit_blob(group * 500 + number))).await;
        outcomes.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    }
    let collecting = {
        let store = Arc::clone(&opened.store);
        tokio::spawn(async move {
            pass(&store, later(1), &plan(false), 1_000).await;
            pass(&store, later(2), &plan(false), 1_000).await
        })
    };
    let mut longest = Duration::ZERO;
    let mut pushes = 1_000_000;
    while !collecting.is_finished() {
        let started = Instant::now();
        opened
            .store
            .commit_blob(later(2), &repository(), &digest(pushes), &location(pushes), 1)
            .await
            .unwrap();
        longest = longest.max(started.elapsed());
        pushes += 1;
    }
    let statistics = collecting.await.unwrap();
    assert_eq!((statistics.unlinked, statistics.scheduled), (10_000, 10_000));
    assert!(pushes > 1_000_010, "pushes ran during the pass");
    assert!(longest < Duration::from_secs(2), "a push waited for {longest:?}");
    for number in 1_000_000..pushes {
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

/// An object that is scheduled for deletion again becomes due after the second time, and keeps its recorded values.
#[tokio::test]
async fn the_last_scheduled_deletion_counts() {
    let opened = open(Sync::Full);
    let store = &opened.store;
    opened.commit_blob(1).await.unwrap();
    // Another object was first. The same commit is repeated later: the same pending deletion gets a later time.
    for times in 1..=2 {
        store
            .commit_blob(later(times), &repository(), &digest(1), &location(2), 1)
            .await
            .unwrap();
        let pending_deletions = store
            .pending_deletions(later(3), later(3).now, None, 10)
            .await
            .unwrap()
            .items;
        assert_eq!(pending_deletions.len(), 1);
        assert_eq!(pending_deletions[0].at, later(times).now);
        // A pending deletion that was renewed after it was read is not removed.
        let mut earlier = pending_deletions[0].clone();
        earlier.at = Timestamp(1);
        store.remove_pending_deletions(cx(), &[earlier]).await.unwrap();
        assert_eq!(
            store
                .pending_deletions(later(3), later(3).now, None, 10)
                .await
                .unwrap()
                .items,
            pending_deletions
        );
    }
}

/// A session with more bodies than one transaction handles is swept in several short transactions. After the first one,
/// no request can continue the session. An interrupted sweep repeats all of them.
#[tokio::test]
async fn a_long_session_is_swept_in_steps() {
    let opened = open(Sync::Full);
    let store = &opened.store;
    let session = super::key(1);
    opened.claim(1).await;
    opened
        .other_process()
        .execute_batch(
            "UPDATE session SET attempts = 2500, parts = 2400, claimed_until = NULL;
             WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 2400)
             INSERT INTO session_part (expires, id, number, record) SELECT expires, id, n, x'00' FROM session, number;",
        )
        .unwrap();
    let row = store.get(cx(), session).await.unwrap().unwrap();
    // Only the first step runs, as in a process that is then killed.
    opened
        .other_process()
        .execute_batch(
            "CREATE TRIGGER killed BEFORE INSERT ON graveyard WHEN (SELECT count(*) FROM graveyard) = 1000
             BEGIN SELECT raise(ABORT, 'killed'); END;",
        )
        .unwrap();
    store.sweep(later(1), session, &row).await.unwrap_err();
    let left = store.get(cx(), session).await.unwrap().unwrap();
    assert_eq!(
        (&left.state, left.attempts, left.version),
        (&State::Cancelled(None), 2500, row.version + 1)
    );
    assert_eq!(store.parts(cx(), session).await.unwrap().len(), 1400);
    let pending_deletions = store
        .pending_deletions(later(2), later(2).now, None, 10_000)
        .await
        .unwrap();
    assert_eq!(pending_deletions.items.len(), 1000);
    let claimed = store
        .claim(cx(), session, Expected::New, Timestamp(u64::MAX >> 1), u32::MAX)
        .await;
    assert!(
        matches!(claimed.unwrap(), Claimed::Ended(_)),
        "no request can continue it"
    );

    opened.other_process().execute_batch("DROP TRIGGER killed").unwrap();
    assert_eq!(
        store.sweep(later(1), session, &row).await.unwrap(),
        None,
        "it has changed"
    );
    let (swept, cost) = opened.cost(store.sweep(later(2), session, &left)).await;
    assert_eq!((swept.unwrap(), cost.commits), (Some(2500), 3));
    let pending_deletions = store
        .pending_deletions(later(3), later(3).now, None, 10_000)
        .await
        .unwrap();
    assert_eq!(pending_deletions.items.len(), 2500);
    assert!(
        pending_deletions
            .items
            .iter()
            .all(|pending_deletion| pending_deletion.at == later(2).now && pending_deletion.unfinished)
    );
    assert_eq!(store.get(cx(), session).await.unwrap(), None);
    assert_eq!(store.parts(cx(), session).await.unwrap(), [] as [Vec<u8>; 0]);
}

/// An import or a manual change may leave rows without an owner. Only a deep pass removes them, when they are old
/// enough.
#[tokio::test]
async fn a_deep_pass_removes_orphans() {
    let opened = open(Sync::Full);
    let store = &opened.store;
    for number in 0..3 {
        opened.commit_blob(number).await.unwrap();
    }
    store
        .put_manifest(cx(), &manifest(&[0], &["latest"]), &AllowAll::shared())
        .await
        .unwrap();
    let [linked, unlinked] = [digest(1), digest(2)].map(|digest| digest.to_string());
    let parent = digest(1_000_000).to_string();
    let other = opened.other_process();
    other
        .execute_batch(&format!(
            "INSERT INTO edge VALUES ('library/app', '{linked}', '{parent}', 99, 1000); \
             INSERT INTO edge VALUES ('library/app', '{linked}', 'sha256:gone', -8, 1000); \
             INSERT INTO backlink VALUES ('{unlinked}', 'library/app', 99, 'blob', 1000); \
             INSERT INTO backlink VALUES ('{unlinked}', 'elsewhere', 99, 'manifest', 1000);"
        ))
        .unwrap();
    assert_eq!(
        store
            .unlink(cx(), &repository(), &digest(2), &Author::new("alice"))
            .await
            .unwrap(),
        Removal::Removed
    );

    let young = pass(store, later(0), &plan(true), 2).await;
    assert_eq!((young.orphaned_records, young.marked, young.scheduled), (0, 0, 0));
    let shallow = pass(store, later(1), &plan(false), 2).await;
    assert_eq!(
        (shallow.orphaned_records, shallow.marked, shallow.scheduled),
        (0, 0, 0),
        "everything looks referenced"
    );
    let dry = Plan {
        dry_run: true,
        ..plan(true)
    };
    assert_eq!(pass(store, later(1), &dry, 2).await.orphaned_records, 4);
    let deep = pass(store, later(1), &plan(true), 2).await;
    assert_eq!(
        (deep.orphaned_records, deep.marked, deep.scheduled),
        (4, 1, 1),
        "what they referred to is collected"
    );
    let again = pass(store, later(1), &plan(true), 2).await;
    assert_eq!((again.orphaned_records, again.marked, again.scheduled), (0, 0, 0));
    let kept = store
        .unlink(cx(), &repository(), &digest(0), &Author::new("alice"))
        .await
        .unwrap();
    assert_eq!(
        kept,
        Removal::Referenced(digest(1_000_000)),
        "a manifest's reference is not an orphan"
    );
}

/// A mark that this version does not write stays unchanged until a client pushes.
#[tokio::test]
async fn an_unknown_mark_is_not_changed() {
    let opened = open(Sync::Full);
    opened.commit_blob(1).await.unwrap();
    let other = opened.other_process();
    other
        .execute("UPDATE link SET condemned = 'by a later version'", [])
        .unwrap();
    let statistics = pass(&opened.store, later(5), &plan(true), 10).await;
    assert_eq!((statistics.marked, statistics.unlinked), (0, 0));
    let kept = opened
        .store
        .link_and_unmark(later(5), &repository(), &digest(1))
        .await
        .unwrap();
    assert_eq!(kept.unwrap().location, Location::main(location(1).key));
    assert_eq!(pass(&opened.store, later(5), &plan(true), 10).await.marked, 1);
    let (_, cost) = opened
        .cost(opened.store.link_and_unmark(later(5), &repository(), &digest(1)))
        .await;
    assert_eq!((cost.reads, cost.writes), (2, 1));
    let (_, cost) = opened
        .cost(opened.store.link_and_unmark(later(5), &repository(), &digest(1)))
        .await;
    assert_eq!((cost.reads, cost.writes, cost.commits), (1, 0, 0));
}

#[tokio::test]
async fn a_foreign_cursor_is_refused() {
    let opened = open(Sync::Full);
    for text in ["", "links", "links a", "edges a b c d", "tags a b", "blobs a b"] {
        let cursor = Cursor(text.to_owned());
        let outcome = opened.store.collect_metadata(cx(), &plan(true), Some(&cursor), 1).await;
        assert!(matches!(outcome, Err(StoreError::Failed(_))), "{text:?}");
    }
}
