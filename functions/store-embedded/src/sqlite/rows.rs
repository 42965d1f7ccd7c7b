//! The statements of one operation: bound, cached, and counted.

use std::sync::atomic::{AtomicU64, Ordering};

use registry::store::{Reason, StoreError};
use rusqlite::{Connection, ErrorCode, Params, Row};

/// What the operations of one store have asked of its tables since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Statements that read.
    pub reads: u64,
    /// Rows that were inserted, updated or deleted.
    pub writes: u64,
    /// Transactions that were committed to write; fewer than the operations that wrote, when they came together.
    pub commits: u64,
    /// Those among `commits` that were synced.
    pub syncs: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) reads: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) syncs: AtomicU64,
    /// How often a statement of a reader for one row was prepared again.
    #[cfg(test)]
    pub(super) prepared_again: AtomicU64,
}

impl Counters {
    pub(super) fn statistics(&self) -> Statistics {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics {
            reads: value(&self.reads),
            writes: value(&self.writes),
            commits: value(&self.commits),
            syncs: value(&self.syncs),
        }
    }
}

/// Why an operation failed inside its transaction.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A row holds what this program would not have written.
    #[error("a row of the metadata is damaged: {0}")]
    Damaged(String),
    /// A defect of this program, met in this operation.
    #[error("the operation panicked; what it did is undone")]
    Panicked,
}

impl Failure {
    /// Another connection has the lock that this one needs.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Sqlite(error) if is_busy(error))
    }

    /// Nothing that comes next would fare better: the fault is in the file or the disk, not in the operation.
    pub(super) fn is_systemic(&self) -> bool {
        let Self::Sqlite(rusqlite::Error::SqliteFailure(error, _)) = self else {
            return false;
        };
        !matches!(
            error.code,
            ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig
        )
    }
}

pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        let error = match &failure {
            Failure::Sqlite(error) => error,
            Failure::Damaged(_) => return Self::damaged(failure),
            Failure::Panicked => return Self::failed(failure),
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::because(Reason::NoSpace, failure),
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::because(Reason::NotWritable, failure),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::because(Reason::Damaged, failure),
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
                | ErrorCode::FileLockingProtocolFailed,
            ) => Self::because(Reason::MetadataUnreachable, failure),
            _ => Self::failed(failure),
        }
    }
}

/// A connection inside an operation. Statements are constants: what a client sent can only be bound.
pub(super) struct Rows<'a> {
    connection: &'a Connection,
    counters: &'a Counters,
}

impl<'a> Rows<'a> {
    pub(super) fn new(connection: &'a Connection, counters: &'a Counters) -> Self {
        Self { connection, counters }
    }

    /// The first row, if there is one.
    pub(super) fn one<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        map: impl FnOnce(&Row<'_>) -> Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        self.counters.reads.fetch_add(1, Ordering::Relaxed);
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        let found = rows.next()?.map(map).transpose();
        #[cfg(test)]
        {
            drop(rows);
            let again = statement.reset_status(rusqlite::StatementStatus::RePrepare);
            self.counters
                .prepared_again
                .fetch_add(u64::try_from(again).unwrap_or(0), Ordering::Relaxed);
        }
        found
    }

    /// Whether there is a row.
    pub(super) fn exists(&self, sql: &'static str, params: impl Params) -> Result<bool, Failure> {
        Ok(self.one(sql, params, |_| Ok(()))?.is_some())
    }

    /// All rows. The statement bounds their number.
    pub(super) fn all<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        mut map: impl FnMut(&Row<'_>) -> Result<T, Failure>,
    ) -> Result<Vec<T>, Failure> {
        self.counters.reads.fetch_add(1, Ordering::Relaxed);
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(map(row)?);
        }
        Ok(all)
    }

    /// Lets several statements of a reader see one state of the file.
    pub(super) fn at_one_moment<T>(&self, work: impl FnOnce(&Self) -> Result<T, Failure>) -> Result<T, Failure> {
        // Ended when it is dropped; there is nothing to commit.
        let _moment = self.connection.unchecked_transaction()?;
        work(self)
    }

    /// Changes rows, and answers how many.
    pub(super) fn change(&self, sql: &'static str, params: impl Params) -> Result<usize, Failure> {
        let changed = self.connection.prepare_cached(sql)?.execute(params)?;
        self.counters.writes.fetch_add(changed as u64, Ordering::Relaxed);
        Ok(changed)
    }

    /// Bounds what the file may grow to, as a full disk would.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: i64) -> Result<(), Failure> {
        Ok(self
            .connection
            .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?)
    }
}
