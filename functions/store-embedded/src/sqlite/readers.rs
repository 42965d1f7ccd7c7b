//! Connections that only read.
//!
//! A read runs on the caller's thread if it cannot block that thread for long. This requires an open connection and
//! another worker thread that stays free ([`Inline`]), and the read must not wait for a lock. Everything else runs on
//! threads that may block: opening a connection, and waiting for a process that recovers the log after a crash.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use registry::store::{Context, Reason, StoreError};
use rusqlite::Connection;
use tokio::time::timeout_at;

use super::rows::{OperationFailure, RowCounters, Rows};
use super::schema::{ConnectionRole, connect};
use crate::inline::{self, Inline};
use crate::turns::Turns;

/// The minimum time for which a read is retried, even if its deadline has passed.
const MIN_WAIT: Duration = Duration::from_secs(1);

/// The delay between two attempts of a read that finds the file locked.
const RETRY: Duration = Duration::from_millis(1);

/// Lends a connection to each read. Opens a new one when all are lent.
#[derive(Debug)]
pub(super) struct Readers {
    connections: Arc<ReaderConnections>,
    turns: Turns,
}

impl Readers {
    pub(super) fn new(path: &Path, counters: Arc<RowCounters>) -> Self {
        Self {
            connections: Arc::new(ReaderConnections {
                path: path.to_owned(),
                counters,
                idle: Mutex::new(Some(Vec::new())),
                maximum: OnceLock::new(),
            }),
            turns: Turns::new(),
        }
    }

    /// Runs `work`, possibly more than once.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        cx: Context,
        mut work: impl FnMut(&Rows<'_>) -> Result<T, OperationFailure> + Send + 'static,
    ) -> Result<T, StoreError> {
        if let Some(inline) = Inline::enter().await
            && let Some(outcome) = self.connections.read_inline(&inline, &mut work)?
        {
            return Ok(outcome?);
        }
        self.read_blocking(cx, work).await
    }

    /// Like [`Readers::read`], but on a thread that may block: for operations that read many rows.
    pub(super) async fn read_blocking<T: Send + 'static>(
        &self,
        cx: Context,
        mut work: impl FnMut(&Rows<'_>) -> Result<T, OperationFailure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let left = Duration::from_millis(cx.deadline.millis_since(cx.now));
        let until = Instant::now() + left.max(MIN_WAIT);
        let late = |_| StoreError::because(Reason::MetadataUnreachable, "the metadata could not be read in time");
        let connections = Arc::clone(&self.connections);
        let reading = self
            .turns
            .run(cx.client, move || connections.read_blocking(until, &mut work));
        timeout_at(until.into(), reading).await.map_err(late)??
    }

    /// Closes all connections that are not lent. The others are closed when they are returned.
    pub(super) fn close(&self) {
        self.connections.lock().take();
    }
}

#[derive(Debug)]
struct ReaderConnections {
    path: PathBuf,
    counters: Arc<RowCounters>,
    /// `None` after the store was closed.
    idle: Mutex<Option<Vec<Connection>>>,
    /// The maximum number of idle connections that are kept.
    maximum: OnceLock<usize>,
}

impl ReaderConnections {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Vec<Connection>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: the read must run on a thread that may block.
    fn read_inline<T>(
        &self,
        _: &Inline,
        work: impl FnMut(&Rows<'_>) -> Result<T, OperationFailure>,
    ) -> Result<Option<Result<T, OperationFailure>>, StoreError> {
        let Some(connection) = self.idle()? else {
            return Ok(None);
        };
        let outcome = self.try_on(connection, work);
        let is_busy = outcome.as_ref().is_err_and(OperationFailure::is_busy);
        Ok((!is_busy).then_some(outcome))
    }

    /// Retries until `until` while another process holds the lock.
    fn read_blocking<T>(
        &self,
        until: Instant,
        mut work: impl FnMut(&Rows<'_>) -> Result<T, OperationFailure>,
    ) -> Result<T, StoreError> {
        loop {
            let connection = match self.idle()? {
                Some(connection) => Ok(connection),
                None => connect(&self.path, ConnectionRole::Reader).map_err(OperationFailure::from),
            };
            let outcome = connection.and_then(|connection| self.try_on(connection, &mut work));
            match outcome {
                Err(failure) if failure.is_busy() && Instant::now() < until => std::thread::sleep(RETRY),
                outcome => return Ok(outcome?),
            }
        }
    }

    fn try_on<T>(
        &self,
        connection: Connection,
        mut work: impl FnMut(&Rows<'_>) -> Result<T, OperationFailure>,
    ) -> Result<T, OperationFailure> {
        let outcome = work(&Rows::new(&connection, &self.counters));
        self.take_back(connection);
        outcome
    }

    /// Takes an open connection that is not lent.
    fn idle(&self) -> Result<Option<Connection>, StoreError> {
        match &mut *self.lock() {
            Some(idle) => Ok(idle.pop()),
            None => Err(StoreError::because(
                Reason::MetadataUnreachable,
                "the metadata store is closed",
            )),
        }
    }

    /// Keeps at most as many connections as worker threads can use at the same time, because each has its own pages and
    /// statements. SQLite keeps the file descriptors of the others for later connections. It closes none of them while
    /// the writer has the file open.
    fn take_back(&self, connection: Connection) {
        let maximum = *self.maximum.get_or_init(inline::workers);
        if let Some(idle) = &mut *self.lock()
            && idle.len() < maximum
        {
            idle.push(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::Barrier;

    use futures_util::future::join_all;
    use registry::store::{Timestamp, Uid};

    use super::*;
    use crate::Sync;
    use crate::sqlite::schema::prepare;

    fn cx(timeout: u64) -> Context {
        Context::internal(Timestamp(1_000), timeout, Uid(1))
    }

    fn readers(directory: &Path) -> Arc<Readers> {
        let path = directory.join("metadata.db");
        std::fs::File::create(&path).unwrap();
        let mut connection = connect(&path, ConnectionRole::Writer(Sync::Off)).unwrap();
        prepare(&mut connection).unwrap();
        Arc::new(Readers::new(&path, Arc::default()))
    }

    /// Runs `count` reads at the same time.
    async fn read_at_once(readers: &Arc<Readers>, count: usize) {
        let all = Arc::new(Barrier::new(count));
        let reads = (0..count).map(|_| {
            let (readers, all) = (Arc::clone(readers), Arc::clone(&all));
            tokio::spawn(async move {
                let mut has_waited = false;
                readers
                    .read(cx(20_000), move |rows| {
                        if !std::mem::replace(&mut has_waited, true) {
                            all.wait();
                        }
                        rows.exists("SELECT 1 FROM repository", [])
                    })
                    .await
            })
        });
        for read in join_all(reads).await {
            assert!(!read.unwrap().unwrap());
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 11)]
    async fn at_most_one_idle_connection_per_worker_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let readers = readers(directory.path());
        for (count, kept) in [(3, 3), (11, 11), (12, 11), (30, 11)] {
            read_at_once(&readers, count).await;
            assert_eq!(
                readers.connections.lock().as_ref().unwrap().len(),
                kept,
                "{count} reads"
            );
        }
        readers.close();
        let closed = readers.read(cx(0), |rows| rows.exists("SELECT 1", [])).await;
        assert!(matches!(closed, Err(StoreError::Unavailable(_))), "{closed:?}");
    }

    /// More reads than the runtime has threads block. The runtime still runs other tasks and other reads.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn reads_that_are_stuck_leave_a_thread_for_others() {
        const BLOCKED: usize = 8;
        let directory = tempfile::tempdir().unwrap();
        let readers = readers(directory.path());
        read_at_once(&readers, 2).await;
        let gate = Arc::new(Barrier::new(BLOCKED + 1));
        let blocked: Vec<_> = (0..BLOCKED)
            .map(|_| {
                let (readers, gate) = (Arc::clone(&readers), Arc::clone(&gate));
                tokio::spawn(async move {
                    readers
                        .read(cx(60_000), move |_| {
                            gate.wait();
                            Ok(())
                        })
                        .await
                })
            })
            .collect();
        for _ in 0..100 {
            let (answered, received) = tokio::sync::oneshot::channel();
            tokio::spawn(async move { answered.send(()) });
            received.await.unwrap();
            assert!(
                !readers
                    .read(cx(20_000), |rows| rows.exists("SELECT 1 FROM repository", []))
                    .await
                    .unwrap()
            );
        }
        tokio::task::spawn_blocking(move || gate.wait()).await.unwrap();
        for read in join_all(blocked).await {
            read.unwrap().unwrap();
        }
    }

    /// A read that waits for a thread that may block waits until its deadline.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_read_without_a_free_thread_ends_at_its_deadline() {
        let directory = tempfile::tempdir().unwrap();
        let readers = readers(directory.path());
        let mut all = Vec::new();
        for last in 1..=u8::MAX {
            let client = registry::budget::ClientKey::of([10, 0, 0, last].into());
            all.extend(std::iter::from_fn(|| readers.turns.try_take(client)));
        }
        // No connection is open yet, so the read needs a thread that may block.
        let started = Instant::now();
        let late = readers.read(cx(1_500), |rows| rows.exists("SELECT 1", [])).await;
        assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
        assert!(started.elapsed() >= Duration::from_millis(1_500));
        drop(all);
        assert!(readers.read(cx(0), |rows| rows.exists("SELECT 1", [])).await.unwrap());
    }
}
