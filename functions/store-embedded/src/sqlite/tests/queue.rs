//! Operations that wait for the writer.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use tokio::sync::oneshot;

use super::*;

/// Does something while one operation keeps the writer; and what lets that one go.
async fn behind<T>(opened: &Opened, others: impl Future<Output = T>) -> (T, Arc<Barrier>) {
    let gate = Arc::new(Barrier::new(2));
    let (store, held) = (Arc::clone(&opened.store), Arc::clone(&gate));
    let (begun, begins) = oneshot::channel();
    let mut begun = Some(begun);
    tokio::spawn(async move {
        store
            .write(cx(), move |_| {
                begun.take().map(|begun| begun.send(()));
                held.wait();
                Ok(())
            })
            .await
    });
    begins.await.unwrap();
    (others.await, gate)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fails_makes_no_other_run_again() {
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
                // Polled once, it is in the queue.
                assert!((&mut queued).now_or_never().is_none());
                queued
            })
            .collect::<Vec<_>>()
    };
    let before = opened.store.statistics().commits;
    let (queued, gate) = behind(&opened, queue).await;
    tokio::task::spawn_blocking(move || gate.wait()).await.unwrap();
    for (number, outcome) in join_all(queued).await.into_iter().enumerate() {
        assert_eq!(outcome.is_ok(), number != BROKEN, "{number}: {outcome:?}");
        assert_eq!(runs[number].load(Ordering::Relaxed), 1, "{number}");
        let name = format!("r{number}").parse().unwrap();
        let is_there = opened.store.repository(cx(), &name).await.unwrap();
        assert_eq!(is_there, number != BROKEN, "{number}");
    }
    assert_eq!(
        opened.store.statistics().commits - before,
        2,
        "the one that kept the writer, and the group"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_waits_in_the_queue_ends_at_its_deadline_and_is_not_run() {
    let opened = open(Sync::Full);
    let runs = Arc::new(AtomicUsize::new(0));
    let hasty = |patience| {
        let runs = Arc::clone(&runs);
        opened.store.write(with_patience(patience), move |_| {
            runs.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
    };
    // Answered while the writer is still kept.
    let ((late, over), gate) = behind(&opened, futures_util::future::join(hasty(200), hasty(0))).await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
    assert!(matches!(over, Err(StoreError::Unavailable(_))), "{over:?}");
    tokio::task::spawn_blocking(move || gate.wait()).await.unwrap();
    opened.commit_blob(1).await.unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 0);
    hasty(20_000).await.unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}
