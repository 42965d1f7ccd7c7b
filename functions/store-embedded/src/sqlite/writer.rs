//! One writer that puts many operations into one commit.
//!
//! SQLite allows one writing transaction at a time, and each commit costs a sync. So operations queue for one thread.
//! The thread takes all waiting operations, runs them in one transaction, commits once, and answers all of them. While
//! a commit is being synced, the next group of operations collects in the queue. If an operation fails, a savepoint
//! undoes only that operation. An operation whose deadline passes in the queue is not run. Other processes that share
//! the file have their own writers; `BEGIN IMMEDIATE` orders their transactions.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use registry::backoff::{Backoff, Jitter};
use registry::store::{Context, Reason, StoreError};
use rusqlite::Connection;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::rows::{OperationFailure, RowCounters, Rows, execute, is_busy};
use super::schema::set_durable;
use super::standing_read::StandingRead;
use crate::Sync;

/// The maximum number of operations in one commit. It bounds the number of operations that wait for a slow one.
const MAX_GROUP: usize = 256;

/// After this number of changed rows, the log is moved into the file.
const CHECKPOINT_ROWS: u64 = 4_000;

/// From this number of pages on, the log is restarted even if this must wait for readers. Otherwise the log could grow
/// as long as some reader is always active.
const LONG_LOG: i64 = 16_384;

/// The delays between attempts to get the lock while another process holds it.
const BACKOFF: Backoff = Backoff::new(Duration::from_micros(100), Duration::from_millis(4));
/// The time for which a process leaves the lock free between two transactions after it has met another writer.
const PAUSE: Duration = Duration::from_micros(100);

/// The time for which this writer leaves such pauses after it has met another writer.
const PAUSE_FOR: Duration = Duration::from_secs(1);

/// Whether an operation must survive a power failure by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// Yes: the operation is acknowledged when it is on the disk.
    Durable,
    /// No: the operation may be lost together with all later ones. It is visible to all readers when it is
    /// acknowledged.
    Ordered,
}

/// The queue of the writer.
#[derive(Debug)]
pub(super) struct MetadataWriter {
    queue: Sender<WriterMessage>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum WriterMessage {
    Job(Box<dyn WriteJob>),
    Close,
}

impl MetadataWriter {
    /// Starts the writer's thread with a connection of its own.
    pub(super) fn start(
        connection: Connection,
        standing: StandingRead,
        sync: Sync,
        counters: Arc<RowCounters>,
    ) -> rusqlite::Result<Self> {
        // `BEGIN` is retried in this module, which knows the deadlines of the operations.
        connection.busy_timeout(Duration::ZERO)?;
        let (queue, waiting) = channel();
        let transactions = WriterThread {
            connection,
            standing,
            sync,
            counters,
            // The state in which the connection was opened.
            durable: Some(true),
            rows_in_log: 0,
            met_other_writer: None,
            // Every seed works that differs between processes.
            jitter: Jitter::new(std::process::id().into()),
        };
        let thread = std::thread::Builder::new()
            .name("metadata-writer".to_owned())
            .spawn(move || transactions.run(&waiting))
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        Ok(Self {
            queue,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Runs `work` in a transaction of the writer, at most once. `work` is not run if its deadline passes while it
    /// waits. After it was started, it runs to its end even if the caller stops waiting.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        cx: Context,
        durability: Durability,
        work: impl FnMut(&Rows<'_>) -> Result<T, OperationFailure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, mut answer) = oneshot::channel();
        let deadline = Instant::now() + Duration::from_millis(cx.deadline.millis_since(cx.now));
        let decision = Arc::<JobDecision>::default();
        let job = QueuedJob {
            work,
            result: None,
            reply,
            durability,
            deadline,
            decision: Arc::clone(&decision),
        };
        let closed = || StoreError::because(Reason::MetadataUnreachable, "the metadata store is closed");
        self.queue
            .send(WriterMessage::Job(Box::new(job)))
            .map_err(|_| closed())?;
        let answered = match timeout_at(deadline.into(), &mut answer).await {
            Ok(answered) => answered,
            Err(_) if decision.abandon() => return Err(late()),
            // The writer runs the operation, so only the operation itself can give the answer.
            Err(_) => answer.await,
        };
        answered.unwrap_or_else(|_| Err(closed()))
    }

    /// Stops the writer after all queued operations, and waits until it has stopped.
    pub(super) fn close(&self) {
        // An error means that the thread has already ended.
        let _ = self.queue.send(WriterMessage::Close);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the writer of the metadata has panicked");
        }
    }
}

fn late() -> StoreError {
    StoreError::because(
        Reason::MetadataUnreachable,
        "the metadata could not be written in time: other operations wrote, or another process held the lock",
    )
}

/// Decides an operation once: either the writer takes it and runs it, or its caller abandons it.
#[derive(Debug, Default)]
struct JobDecision(AtomicU8);

impl JobDecision {
    const WAITING: u8 = 0;
    const TAKEN: u8 = 1;
    const ABANDONED: u8 = 2;

    fn decide(&self, state: u8) -> bool {
        let decided = self
            .0
            .compare_exchange(Self::WAITING, state, Ordering::AcqRel, Ordering::Acquire);
        decided.is_ok()
    }

    /// `false`: the writer has taken the operation.
    fn abandon(&self) -> bool {
        self.decide(Self::ABANDONED)
    }

    /// `false`: the caller has abandoned the operation.
    fn take(&self) -> bool {
        self.decide(Self::TAKEN)
    }
}

/// An operation in the queue.
trait WriteJob: Send {
    fn durability(&self) -> Durability;
    fn deadline(&self) -> Instant;
    /// Whether the operation must be run now. `false`: its deadline has passed, or its caller has abandoned it.
    fn take(&self) -> bool;
    fn run(&mut self, rows: &Rows<'_>) -> Result<(), OperationFailure>;
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct QueuedJob<W, T> {
    work: W,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
    durability: Durability,
    deadline: Instant,
    decision: Arc<JobDecision>,
}

impl<T: Send, W: FnMut(&Rows<'_>) -> Result<T, OperationFailure> + Send> WriteJob for QueuedJob<W, T> {
    fn durability(&self) -> Durability {
        self.durability
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn take(&self) -> bool {
        Instant::now() < self.deadline && self.decision.take()
    }

    fn run(&mut self, rows: &Rows<'_>) -> Result<(), OperationFailure> {
        self.result = Some((self.work)(rows)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { result, reply, .. } = *self;
        let outcome = outcome
            .and_then(|()| result.ok_or_else(|| StoreError::failed("an operation was committed but did not run")));
        // The send fails if the request was cancelled. The operation is done in any case.
        let _ = reply.send(outcome);
    }
}

/// The state of the writer's thread.
struct WriterThread {
    connection: Connection,
    standing: StandingRead,
    sync: Sync,
    counters: Arc<RowCounters>,
    /// The current sync setting of the connection; `None` if it is unknown.
    durable: Option<bool>,
    /// The number of rows that changed since the log was last moved into the file.
    rows_in_log: u64,
    /// When this writer last waited for a transaction of another process.
    met_other_writer: Option<Instant>,
    jitter: Jitter,
}

impl WriterThread {
    fn run(mut self, waiting: &Receiver<WriterMessage>) {
        let mut open = true;
        while open {
            let first = match waiting.recv_timeout(self.standing.next_update()) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => {
                    self.standing.update();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let mut group = Vec::new();
            for message in std::iter::once(first).chain(waiting.try_iter().take(MAX_GROUP - 1)) {
                match message {
                    WriterMessage::Job(job) => group.push(job),
                    WriterMessage::Close => open = false,
                }
            }
            self.commit_group(group);
            self.move_log();
            if self.standing.next_update().is_zero() {
                self.standing.update();
            }
        }
        drop(self.standing);
        // Closing the last connection to the file moves the log into it and removes the log.
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(%error, "the metadata file could not be closed");
        }
    }

    /// Commits a group of operations and answers each of them.
    fn commit_group(&mut self, mut group: Vec<Box<dyn WriteJob>>) {
        if group.is_empty() {
            return;
        }
        match self.attempt(&mut group) {
            Ok(outcomes) => {
                for (job, outcome) in group.into_iter().zip(outcomes) {
                    job.answer(match outcome {
                        JobOutcome::Done => Ok(()),
                        JobOutcome::Late => Err(late()),
                        JobOutcome::Failed(failure) => Err(failure.into()),
                    });
                }
            }
            // The operations that waited for another process's lock until their deadlines were already answered.
            Err(_) if group.is_empty() => {}
            Err(failure) => {
                tracing::warn!(
                    error = %failure,
                    operations = group.len(),
                    "a commit of the metadata failed; its operations are answered with an error"
                );
                let text = failure.to_string();
                let reason = StoreError::from(failure).reason();
                for job in group {
                    job.answer(Err(StoreError::because(reason, text.clone())));
                }
            }
        }
    }

    /// Runs one transaction with all operations whose deadlines have not passed. Returns the outcome of each operation.
    /// On an error, nothing was changed.
    fn attempt(&mut self, group: &mut Vec<Box<dyn WriteJob>>) -> Result<Vec<JobOutcome>, OperationFailure> {
        if !self.connection.is_autocommit() {
            // If an earlier rollback failed, it may succeed now; otherwise the group fails here.
            execute(&self.connection, "ROLLBACK")?;
        }
        let durable = group.iter().any(|job| job.durability() == Durability::Durable);
        if self.durable != Some(durable) {
            self.durable = None;
            set_durable(&self.connection, durable, self.sync)?;
            self.durable = Some(durable);
        }
        self.begin(group)?;
        let written = self.counters.writes.load(Ordering::Relaxed);
        let outcome = Self::run_all(&self.connection, &self.counters, group).and_then(|outcomes| {
            let is_any_done = outcomes.iter().any(|outcome| matches!(outcome, JobOutcome::Done));
            execute(&self.connection, if is_any_done { "COMMIT" } else { "ROLLBACK" })?;
            Ok((outcomes, is_any_done))
        });
        if outcome.is_err() && !self.connection.is_autocommit() {
            execute(&self.connection, "ROLLBACK")?;
        }
        let (outcomes, is_any_done) = outcome?;
        if is_any_done {
            self.rows_in_log += self.counters.writes.load(Ordering::Relaxed) - written;
            self.counters.commits.fetch_add(1, Ordering::Relaxed);
            if durable && self.sync == Sync::Full {
                self.counters.syncs.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(outcomes)
    }

    /// Runs the operations in order, and undoes the changes of each operation that fails. An error fails all of them.
    fn run_all(
        connection: &Connection,
        counters: &RowCounters,
        group: &mut [Box<dyn WriteJob>],
    ) -> Result<Vec<JobOutcome>, OperationFailure> {
        let rows = Rows::new(connection, counters);
        // The changes of a single operation are undone with its transaction.
        let is_alone = group.len() == 1;
        let mut outcomes = Vec::with_capacity(group.len());
        for job in group {
            if !job.take() {
                outcomes.push(JobOutcome::Late);
                continue;
            }
            if !is_alone {
                execute(connection, "SAVEPOINT operation")?;
            }
            // A panic is a bug in one operation. If it ended the thread, all later operations would fail.
            let outcome = catch_unwind(AssertUnwindSafe(|| job.run(&rows)));
            let outcome = outcome.unwrap_or_else(|_| Err(OperationFailure::Panicked));
            if let Err(failure) = outcome {
                if failure.is_systemic() {
                    return Err(failure);
                }
                if !is_alone {
                    execute(connection, "ROLLBACK TO operation")?;
                }
                outcomes.push(JobOutcome::Failed(failure));
            } else {
                outcomes.push(JobOutcome::Done);
            }
            if !is_alone {
                execute(connection, "RELEASE operation")?;
            }
        }
        Ok(outcomes)
    }

    /// Takes the lock that all processes share. Waits as long as the deadline of any operation in the group allows.
    fn begin(&mut self, group: &mut Vec<Box<dyn WriteJob>>) -> Result<(), OperationFailure> {
        if self.met_other_writer.is_some_and(|met| met.elapsed() < PAUSE_FOR) {
            // Otherwise a process that polls for the lock would hardly ever find it free between two transactions.
            std::thread::sleep(PAUSE);
        }
        let mut failures = 0;
        loop {
            match execute(&self.connection, "BEGIN IMMEDIATE") {
                Ok(()) => return Ok(()),
                Err(error) if is_busy(&error) => {
                    let now = Instant::now();
                    self.met_other_writer = Some(now);
                    for late in group.extract_if(.., |job| job.deadline() <= now) {
                        late.answer(Err(StoreError::because(
                            Reason::MetadataUnreachable,
                            "the metadata is locked by another process",
                        )));
                    }
                    if group.is_empty() {
                        return Err(error.into());
                    }
                    std::thread::sleep(BACKOFF.delay_of_half_or_more(failures, self.jitter.bits()));
                    failures += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Moves the log into the file from time to time. So the log stays short and can be written from its start again.
    fn move_log(&mut self) {
        if self.rows_in_log < CHECKPOINT_ROWS {
            return;
        }
        self.rows_in_log = 0;
        self.standing.end();
        let moved = self.checkpoint("PRAGMA wal_checkpoint(PASSIVE)").and_then(|pages| {
            if pages < LONG_LOG {
                return Ok(pages);
            }
            self.connection.busy_timeout(Duration::from_millis(200))?;
            let pages = self.checkpoint("PRAGMA wal_checkpoint(RESTART)");
            self.connection.busy_timeout(Duration::ZERO)?;
            pages
        });
        if let Err(error) = moved {
            tracing::warn!(%error, "the log of the metadata could not be moved into its file");
        }
    }

    /// Runs a checkpoint and returns the number of pages in the log.
    fn checkpoint(&self, sql: &'static str) -> rusqlite::Result<i64> {
        self.connection.prepare_cached(sql)?.query_row([], |row| row.get(1))
    }
}

/// What happened to an operation.
enum JobOutcome {
    /// It is part of the transaction.
    Done,
    /// It was not run, because its deadline has passed or its caller has abandoned it.
    Late,
    /// It failed and has changed nothing.
    Failed(OperationFailure),
}
