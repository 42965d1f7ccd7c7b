//! One writer, many operations in one commit.
//!
//! SQLite admits one writing transaction at a time and a commit costs a sync, so operations queue for one thread. It
//! takes all that wait, runs them in one transaction, commits once and answers them all: while one commit is being
//! synced the next group gathers by itself. An operation that fails is undone alone, by a savepoint, and one whose
//! deadline passes in the queue is never run. Other processes that share the file have a writer each; they meet at
//! `BEGIN IMMEDIATE`.

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

use super::rows::{Counters, Failure, Rows, is_busy};
use super::schema::set_durable;
use super::standing_read::StandingRead;
use crate::Sync;

/// The most operations of one commit: a bound for what waits behind a slow one.
const MAX_GROUP: usize = 256;

/// After so many changed rows the log is moved into the file.
const CHECKPOINT_ROWS: u64 = 4_000;

/// From so many pages on, the log is started anew even if readers must be waited for. It could otherwise grow for as
/// long as somebody reads without a pause.
const LONG_LOG: i64 = 16_384;

/// How long a transaction of another process is waited for.
const BACKOFF: Backoff = Backoff::new(Duration::from_micros(100), Duration::from_millis(4));
/// For how long a process that has met others leaves the lock free between two transactions.
const PAUSE: Duration = Duration::from_micros(100);

/// For how long this writer lets others go first after it has met one.
const POLITE: Duration = Duration::from_secs(1);

/// Whether an operation must survive a loss of power by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// Yes: it is acknowledged when it is on the disk.
    Durable,
    /// No: losing it together with everything after it does no harm. It is visible to all when it is acknowledged.
    Ordered,
}

/// The queue to the writer.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Sender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Message {
    Job(Box<dyn Job>),
    Close,
}

impl Writer {
    /// Starts the writer's thread on a connection that was opened for it.
    pub(super) fn start(
        connection: Connection,
        standing: StandingRead,
        sync: Sync,
        counters: Arc<Counters>,
    ) -> rusqlite::Result<Self> {
        // `BEGIN` is retried here, where the operations' deadlines are known.
        connection.busy_timeout(Duration::ZERO)?;
        let (queue, waiting) = channel();
        let transactions = Transactions {
            connection,
            standing,
            sync,
            counters,
            // As it was opened.
            durable: Some(true),
            unmoved: 0,
            met_others: None,
            // Any sequence does that differs between processes.
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

    /// Runs `work`, at most once, in a transaction of the writer. It is not run when its deadline passes before its turn
    /// comes; what was begun is run to its end even if the caller stops waiting.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        cx: Context,
        durability: Durability,
        work: impl FnMut(&Rows<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, mut answer) = oneshot::channel();
        let deadline = Instant::now() + Duration::from_millis(cx.deadline.millis_since(cx.now));
        let turn = Arc::<Turn>::default();
        let job = Queued {
            work,
            result: None,
            reply,
            durability,
            deadline,
            turn: Arc::clone(&turn),
        };
        let closed = || StoreError::because(Reason::MetadataUnreachable, "the metadata store is closed");
        self.queue.send(Message::Job(Box::new(job))).map_err(|_| closed())?;
        let answered = match timeout_at(deadline.into(), &mut answer).await {
            Ok(answered) => answered,
            Err(_) if turn.give_up() => return Err(late()),
            // It is being done: the answer is no longer for the queue to say.
            Err(_) => answer.await,
        };
        answered.unwrap_or_else(|_| Err(closed()))
    }

    /// Lets the writer end after what is queued, and waits for it.
    pub(super) fn close(&self) {
        // An error means that the thread has ended already.
        let _ = self.queue.send(Message::Close);
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
        "the metadata could not be written in time: others write, or another process holds its lock",
    )
}

/// Whose turn it is to decide about an operation: the writer takes it and runs it, or its caller gives it up.
#[derive(Debug, Default)]
struct Turn(AtomicU8);

impl Turn {
    const WAITING: u8 = 0;
    const TAKEN: u8 = 1;
    const GIVEN_UP: u8 = 2;

    fn decide(&self, state: u8) -> bool {
        let decided = self
            .0
            .compare_exchange(Self::WAITING, state, Ordering::AcqRel, Ordering::Acquire);
        decided.is_ok()
    }

    /// `false`: the writer has taken it.
    fn give_up(&self) -> bool {
        self.decide(Self::GIVEN_UP)
    }

    /// `false`: nobody waits for it any more.
    fn take(&self) -> bool {
        self.decide(Self::TAKEN)
    }
}

/// An operation in the queue.
trait Job: Send {
    fn durability(&self) -> Durability;
    fn deadline(&self) -> Instant;
    /// Whether it is to be run now. `false`: its deadline has passed, or its caller has given it up.
    fn take(&self) -> bool;
    fn run(&mut self, rows: &Rows<'_>) -> Result<(), Failure>;
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Queued<W, T> {
    work: W,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
    durability: Durability,
    deadline: Instant,
    turn: Arc<Turn>,
}

impl<T: Send, W: FnMut(&Rows<'_>) -> Result<T, Failure> + Send> Job for Queued<W, T> {
    fn durability(&self) -> Durability {
        self.durability
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn take(&self) -> bool {
        Instant::now() < self.deadline && self.turn.take()
    }

    fn run(&mut self, rows: &Rows<'_>) -> Result<(), Failure> {
        self.result = Some((self.work)(rows)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { result, reply, .. } = *self;
        let outcome = outcome
            .and_then(|()| result.ok_or_else(|| StoreError::failed("an operation was committed without having run")));
        // Nobody waits any more when the request was given up; what it asked for is done all the same.
        let _ = reply.send(outcome);
    }
}

/// The writer's thread.
struct Transactions {
    connection: Connection,
    standing: StandingRead,
    sync: Sync,
    counters: Arc<Counters>,
    /// What the connection was last told about syncs.
    durable: Option<bool>,
    /// Rows changed since the log was last moved into the file.
    unmoved: u64,
    /// When another process's transaction was last waited for.
    met_others: Option<Instant>,
    jitter: Jitter,
}

impl Transactions {
    fn run(mut self, waiting: &Receiver<Message>) {
        let mut open = true;
        while open {
            let first = match waiting.recv_timeout(self.standing.next_look()) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => {
                    self.standing.look();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let mut group = Vec::new();
            for message in std::iter::once(first).chain(waiting.try_iter().take(MAX_GROUP - 1)) {
                match message {
                    Message::Job(job) => group.push(job),
                    Message::Close => open = false,
                }
            }
            self.commit_group(group);
            self.move_log();
            if self.standing.next_look().is_zero() {
                self.standing.look();
            }
        }
        drop(self.standing);
        // Closing the last connection to the file moves the log and removes it.
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(%error, "the metadata could not be closed");
        }
    }

    /// Commits a group and answers every operation in it.
    fn commit_group(&mut self, mut group: Vec<Box<dyn Job>>) {
        if group.is_empty() {
            return;
        }
        match self.attempt(&mut group) {
            Ok(outcomes) => {
                for (job, outcome) in group.into_iter().zip(outcomes) {
                    job.answer(match outcome {
                        Outcome::Done => Ok(()),
                        Outcome::Late => Err(late()),
                        Outcome::Failed(failure) => Err(failure.into()),
                    });
                }
            }
            // What has met another process's lock until its deadline was answered already.
            Err(_) if group.is_empty() => {}
            Err(failure) => {
                tracing::warn!(error = %failure, operations = group.len(), "a commit of the metadata failed");
                let text = failure.to_string();
                let reason = StoreError::from(failure).reason();
                for job in group {
                    job.answer(Err(StoreError::because(reason, text.clone())));
                }
            }
        }
    }

    /// One transaction with all operations that are not late; nothing is changed when it fails. What became of each.
    fn attempt(&mut self, group: &mut Vec<Box<dyn Job>>) -> Result<Vec<Outcome>, Failure> {
        if !self.connection.is_autocommit() {
            // What could not be rolled back before may be by now; otherwise the group fails here.
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
            let is_any_done = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Done));
            execute(&self.connection, if is_any_done { "COMMIT" } else { "ROLLBACK" })?;
            Ok((outcomes, is_any_done))
        });
        if outcome.is_err() && !self.connection.is_autocommit() {
            execute(&self.connection, "ROLLBACK")?;
        }
        let (outcomes, is_any_done) = outcome?;
        if is_any_done {
            self.unmoved += self.counters.writes.load(Ordering::Relaxed) - written;
            self.counters.commits.fetch_add(1, Ordering::Relaxed);
            if durable && self.sync == Sync::Full {
                self.counters.syncs.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(outcomes)
    }

    /// Runs the operations one after the other; what one that fails has changed is undone. An error fails them all.
    fn run_all(
        connection: &Connection,
        counters: &Counters,
        group: &mut [Box<dyn Job>],
    ) -> Result<Vec<Outcome>, Failure> {
        let rows = Rows::new(connection, counters);
        // What one alone has changed is undone with its transaction.
        let is_alone = group.len() == 1;
        let mut outcomes = Vec::with_capacity(group.len());
        for job in group {
            if !job.take() {
                outcomes.push(Outcome::Late);
                continue;
            }
            if !is_alone {
                execute(connection, "SAVEPOINT operation")?;
            }
            // A panic is a defect of one operation; without the thread all others would fail from then on.
            let outcome = catch_unwind(AssertUnwindSafe(|| job.run(&rows)));
            let outcome = outcome.unwrap_or_else(|_| Err(Failure::Panicked));
            if let Err(failure) = outcome {
                if failure.is_systemic() {
                    return Err(failure);
                }
                if !is_alone {
                    execute(connection, "ROLLBACK TO operation")?;
                }
                outcomes.push(Outcome::Failed(failure));
            } else {
                outcomes.push(Outcome::Done);
            }
            if !is_alone {
                execute(connection, "RELEASE operation")?;
            }
        }
        Ok(outcomes)
    }

    /// Takes the lock that all processes share, for as long as an operation of the group may still wait.
    fn begin(&mut self, group: &mut Vec<Box<dyn Job>>) -> Result<(), Failure> {
        if self.met_others.is_some_and(|met| met.elapsed() < POLITE) {
            // Whoever polls for the lock would hardly ever find it free between two of our transactions.
            std::thread::sleep(PAUSE);
        }
        let mut failures = 0;
        loop {
            match execute(&self.connection, "BEGIN IMMEDIATE") {
                Ok(()) => return Ok(()),
                Err(error) if is_busy(&error) => {
                    let now = Instant::now();
                    self.met_others = Some(now);
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

    /// Moves the log into the file now and then, so that it stays short and can be written from its start again.
    fn move_log(&mut self) {
        if self.unmoved < CHECKPOINT_ROWS {
            return;
        }
        self.unmoved = 0;
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

    /// Answers the number of pages in the log.
    fn checkpoint(&self, sql: &'static str) -> rusqlite::Result<i64> {
        self.connection.prepare_cached(sql)?.query_row([], |row| row.get(1))
    }
}

/// What became of an operation.
enum Outcome {
    /// It is in the transaction.
    Done,
    /// It was not run.
    Late,
    /// It has changed nothing.
    Failed(Failure),
}

pub(super) fn execute(connection: &Connection, sql: &'static str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}
