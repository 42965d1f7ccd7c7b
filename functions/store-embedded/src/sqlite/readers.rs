//! Connections that only read.
//!
//! A read runs on the caller's thread when that cannot keep the thread from others for long: on a connection that is
//! open, while another worker thread stays free ([`Inline`]), and without waiting for a lock. Everything else runs on
//! threads that may block: opening a connection, and waiting for a process that recovers the log after a crash.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use registry::store::{Context, Reason, StoreError};
use rusqlite::Connection;
use tokio::time::timeout_at;

use super::rows::{Counters, Failure, Rows};
use super::schema::{Role, connect};
use crate::inline::{self, Inline};
use crate::turns::Turns;

/// A read is tried for at least so long, also when its deadline is over.
const MIN_WAIT: Duration = Duration::from_secs(1);

/// The wait between two tries of a read that has met a lock.
const RETRY: Duration = Duration::from_millis(1);

/// Lends a connection to whoever reads, opening one when all are lent.
#[derive(Debug)]
pub(super) struct Readers {
    connections: Arc<Connections>,
    turns: Turns,
}

impl Readers {
    pub(super) fn new(path: &Path, counters: Arc<Counters>) -> Self {
        Self {
            connections: Arc::new(Connections {
                path: path.to_owned(),
                counters,
                idle: Mutex::new(Some(Vec::new())),
                most: OnceLock::new(),
            }),
            turns: Turns::new(),
        }
    }

    /// Runs `work`, which may run more than once.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        cx: Context,
        mut work: impl FnMut(&Rows<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        if let Some(inline) = Inline::enter().await
            && let Some(outcome) = self.connections.read_inline(&inline, &mut work)?
        {
            return Ok(outcome?);
        }
        self.read_blocking(cx, work).await
    }

    /// The same, on a thread that may block: for what reads many rows.
    pub(super) async fn read_blocking<T: Send + 'static>(
        &self,
        cx: Context,
        mut work: impl FnMut(&Rows<'_>) -> Result<T, Failure> + Send + 'static,
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

    /// Closes all connections that are not lent, and the others when they come back.
    pub(super) fn close(&self) {
        self.connections.lock().take();
    }
}

#[derive(Debug)]
struct Connections {
    path: PathBuf,
    counters: Arc<Counters>,
    /// `None` once closed.
    idle: Mutex<Option<Vec<Connection>>>,
    /// How many are kept.
    most: OnceLock<usize>,
}

impl Connections {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Vec<Connection>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: it must run where it may block.
    fn read_inline<T>(
        &self,
        _: &Inline,
        work: impl FnMut(&Rows<'_>) -> Result<T, Failure>,
    ) -> Result<Option<Result<T, Failure>>, StoreError> {
        let Some(connection) = self.idle()? else {
            return Ok(None);
        };
        let outcome = self.try_on(connection, work);
        let is_busy = outcome.as_ref().is_err_and(Failure::is_busy);
        Ok((!is_busy).then_some(outcome))
    }

    /// Goes on until `until` as long as another process has the lock.
    fn read_blocking<T>(
        &self,
        until: Instant,
        mut work: impl FnMut(&Rows<'_>) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        loop {
            let connection = match self.idle()? {
                Some(connection) => Ok(connection),
                None => connect(&self.path, Role::Reader).map_err(Failure::from),
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
        mut work: impl FnMut(&Rows<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let outcome = work(&Rows::new(&connection, &self.counters));
        self.take_back(connection);
        outcome
    }

    /// A connection that is open and not lent.
    fn idle(&self) -> Result<Option<Connection>, StoreError> {
        match &mut *self.lock() {
            Some(idle) => Ok(idle.pop()),
            None => Err(StoreError::because(
                Reason::MetadataUnreachable,
                "the metadata store is closed",
            )),
        }
    }

    /// As many are kept as worker threads can use at a time: each holds its pages and statements. SQLite itself keeps the
    /// descriptors of the others for those who come later, and closes none while the writer has the file open.
    fn take_back(&self, connection: Connection) {
        let most = *self.most.get_or_init(inline::workers);
        if let Some(idle) = &mut *self.lock()
            && idle.len() < most
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
    use registry::budget::ClientKey;
    use registry::store::{Timestamp, Uid};

    use super::*;
    use crate::Sync;
    use crate::sqlite::schema::prepare;

    fn cx(patience: u64) -> Context {
        Context {
            now: Timestamp(1_000),
            deadline: Timestamp(1_000 + patience),
            uid: Uid(1),
            client: ClientKey::INTERNAL,
        }
    }

    fn readers(directory: &Path) -> Arc<Readers> {
        let path = directory.join("metadata.db");
        std::fs::File::create(&path).unwrap();
        let mut connection = connect(&path, Role::Writer(Sync::Off)).unwrap();
        prepare(&mut connection).unwrap();
        Arc::new(Readers::new(&path, Arc::default()))
    }

    /// So many reads at the same moment.
    async fn read_at_once(readers: &Arc<Readers>, count: usize) {
        let all = Arc::new(Barrier::new(count));
        let reads = (0..count).map(|_| {
            let (readers, all) = (Arc::clone(readers), Arc::clone(&all));
            tokio::spawn(async move {
                let mut met = false;
                readers
                    .read(cx(20_000), move |rows| {
                        if !std::mem::replace(&mut met, true) {
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
    async fn as_many_idle_connections_are_kept_as_there_are_workers() {
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

    /// More reads than the runtime has threads are stuck, and it goes on with everything else; so do other reads.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn reads_that_are_stuck_leave_a_thread_for_others() {
        const STUCK: usize = 8;
        let directory = tempfile::tempdir().unwrap();
        let readers = readers(directory.path());
        read_at_once(&readers, 2).await;
        let gate = Arc::new(Barrier::new(STUCK + 1));
        let stuck: Vec<_> = (0..STUCK)
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
            let (answered, told) = tokio::sync::oneshot::channel();
            tokio::spawn(async move { answered.send(()) });
            told.await.unwrap();
            assert!(
                !readers
                    .read(cx(20_000), |rows| rows.exists("SELECT 1 FROM repository", []))
                    .await
                    .unwrap()
            );
        }
        tokio::task::spawn_blocking(move || gate.wait()).await.unwrap();
        for read in join_all(stuck).await {
            read.unwrap().unwrap();
        }
    }

    /// A read that waits for a thread that may block waits until its deadline.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_read_that_finds_no_thread_ends_at_its_deadline() {
        let directory = tempfile::tempdir().unwrap();
        let readers = readers(directory.path());
        let mut all = Vec::new();
        for last in 1..=u8::MAX {
            let client = registry::budget::ClientKey::of([10, 0, 0, last].into());
            all.extend(std::iter::from_fn(|| readers.turns.try_take(client)));
        }
        // Nothing is open yet, so that it must be opened there.
        let started = Instant::now();
        let late = readers.read(cx(1_500), |rows| rows.exists("SELECT 1", [])).await;
        assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
        assert!(started.elapsed() >= Duration::from_millis(1_500));
        drop(all);
        assert!(readers.read(cx(0), |rows| rows.exists("SELECT 1", [])).await.unwrap());
    }
}
