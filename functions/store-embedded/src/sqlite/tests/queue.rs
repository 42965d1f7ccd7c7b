//! Tests of operations that wait for the writer.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use tokio::sync::oneshot;

use super::*;

/// Runs `others` while one operation blocks the writer. Returns the barrier that unblocks it.
async fn while_writer_is_blocked<T>(opened: &OpenedStore, others: impl Future<Output = T>) -> (T, Arc<Barrier>) {
    let gate = Arc::new(Barrier::new(2));
    let (store, blocked) = (Arc::clone(&opened.store), Arc::clone(&gate));
    let (started, has_started) = oneshot::channel();
    let mut started = Some(started);
    tokio::spawn(async move {
        store
            .write(cx(), move |_| {
                started.take().map(|started| started.send(()));
                blocked.wait();
                Ok(())
            })
            .await
    });
    has_started.await.unwrap();
    (others.await, gate)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_operation_does_not_make_others_run_again() {
    const OPERATIONS: usize = 20;
    const BROKEN: usize = 7;
    let opened = open(Sync::Full);
    let runs: Arc<Vec<_>> = Arc::new((0..OPERATIONS).map(|_| AtomicUsize::new(0)).collect());
    let queue = async {
        (0..OPERATIONS)
            .map(|number| {
                let runs = Arc::clone(&runs);
                let mut queued = Box::pin(opened.store.write(cx(), move |rows| {
                    runs[number].fetch_add(1, Ordering::Relaxed);
                    rows.change(
                        "INSERT INTO repository (name, created, state) VALUES (?1, 1, 'live')",
                        [format!("r{number}")],
                    )?;
                    if number == BROKEN {
                        return Err(OperationFailure::Damaged("on purpose".to_owned()));
                    }
                    Ok(())
                }));
                // The first poll puts it into the queue.
                assert!((&mut queued).now_or_never().is_none());
                queued
            })
            .collect::<Vec<_>>()
    };
    let before = opened.store.statistics().commits;
    let (queued, gate) = while_writer_is_blocked(&opened, queue).await;
    tokio::task::spawn_blocking(move || gate.wait()).await.unwrap();
    for (number, outcome) in join_all(queued).await.into_iter().enumerate() {
        assert_eq!(outcome.is_ok(), number != BROKEN, "{number}: {outcome:?}");
        assert_eq!(runs[number].load(Ordering::Relaxed), 1, "{number}");
        let name = format!("r{number}").parse().unwrap();
        let listing = opened.store.repository(cx(), &name).await.unwrap();
        assert_eq!(listing.is_some(), number != BROKEN, "{number}");
    }
    assert_eq!(
        opened.store.statistics().commits - before,
        2,
        "the operation that blocked the writer, and the group"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_waits_in_the_queue_ends_at_its_deadline_and_is_not_run() {
    let opened = open(Sync::Full);
    let runs = Arc::new(AtomicUsize::new(0));
    let write = |timeout| {
        let runs = Arc::clone(&runs);
        opened.store.write(with_timeout(timeout), move |_| {
            runs.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
    };
    // Both are answered while the writer is still blocked.
    let ((late, over), gate) = while_writer_is_blocked(&opened, futures_util::future::join(write(200), write(0))).await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
    assert!(matches!(over, Err(StoreError::Unavailable(_))), "{over:?}");
    tokio::task::spawn_blocking(move || gate.wait()).await.unwrap();
    opened.commit_blob(1).await.unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 0);
    write(20_000).await.unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}
