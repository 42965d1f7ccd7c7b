//! The statements of one operation. They are bound, cached, and counted.

use std::sync::atomic::{AtomicU64, Ordering};

use registry::store::{Reason, StoreError};
use rusqlite::{Connection, ErrorCode, Params, Row};

use super::schema;

/// The number of requests to the tables of one store since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SqliteStatistics {
    /// The number of statements that read.
    pub reads: u64,
    /// The number of rows that were inserted, updated or deleted.
    pub writes: u64,
    /// The number of committed transactions that wrote. It is below the number of writing operations if some were
    /// committed together.
    pub commits: u64,
    /// The number of these commits that were synced.
    pub syncs: u64,
}

#[derive(Debug, Default)]
pub(super) struct RowCounters {
    pub(super) reads: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) syncs: AtomicU64,
    /// The number of times that a reader's statement for one row was prepared again.
    #[cfg(test)]
    pub(super) prepared_again: AtomicU64,
}

impl RowCounters {
    pub(super) fn statistics(&self) -> SqliteStatistics {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SqliteStatistics {
            reads: value(&self.reads),
            writes: value(&self.writes),
            commits: value(&self.commits),
            syncs: value(&self.syncs),
        }
    }
}

/// Why an operation failed inside its transaction.
#[derive(Debug, thiserror::Error)]
pub(super) enum OperationFailure {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A row has a value that this program does not write.
    #[error("a row of the metadata is damaged: {0}")]
    Damaged(String),
    /// This operation panicked because of a bug in this program.
    #[error("the operation panicked, and its changes were undone")]
    Panicked,
}

impl OperationFailure {
    /// Whether another connection holds the lock that this connection needs.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Sqlite(error) if is_busy(error))
    }

    /// Whether the next operation would fail too, because the fault is in the file or on the disk and not in this
    /// operation.
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

impl From<OperationFailure> for StoreError {
    fn from(failure: OperationFailure) -> Self {
        let error = match &failure {
            OperationFailure::Sqlite(error) => error,
            OperationFailure::Damaged(_) => return Self::damaged(failure),
            OperationFailure::Panicked => return Self::failed(failure),
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

/// Runs a statement that begins or ends a transaction.
pub(super) fn execute(connection: &Connection, sql: &'static str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

/// A connection inside an operation. All statements are constants. Values from clients are always bound.
pub(super) struct Rows<'a> {
    connection: &'a Connection,
    counters: &'a RowCounters,
}

impl<'a> Rows<'a> {
    pub(super) fn new(connection: &'a Connection, counters: &'a RowCounters) -> Self {
        Self { connection, counters }
    }

    /// Returns the first row, if there is one.
    pub(super) fn one<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        map: impl FnOnce(&Row<'_>) -> Result<T, OperationFailure>,
    ) -> Result<Option<T>, OperationFailure> {
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

    /// Whether a row exists.
    pub(super) fn exists(&self, sql: &'static str, params: impl Params) -> Result<bool, OperationFailure> {
        Ok(self.one(sql, params, |_| Ok(()))?.is_some())
    }

    /// Returns all rows. The statement bounds their number.
    pub(super) fn all<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        mut map: impl FnMut(&Row<'_>) -> Result<T, OperationFailure>,
    ) -> Result<Vec<T>, OperationFailure> {
        self.counters.reads.fetch_add(1, Ordering::Relaxed);
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(map(row)?);
        }
        Ok(all)
    }

    /// Lets several statements of a reader see the same state of the file.
    pub(super) fn in_one_snapshot<T>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, OperationFailure>,
    ) -> Result<T, OperationFailure> {
        // Rolled back when it is dropped; a reader has nothing to commit.
        let _snapshot = self.connection.unchecked_transaction()?;
        work(self)
    }

    /// Changes rows, and returns their number.
    pub(super) fn change(&self, sql: &'static str, params: impl Params) -> Result<usize, OperationFailure> {
        let changed = self.connection.prepare_cached(sql)?.execute(params)?;
        self.counters.writes.fetch_add(changed as u64, Ordering::Relaxed);
        Ok(changed)
    }

    /// Refuses the file to programs that know no accounts, from the commit of this operation on.
    pub(super) fn require_access(&self) -> Result<(), OperationFailure> {
        Ok(schema::require_access(self.connection)?)
    }

    /// Limits the size of the file, as a full disk does.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: i64) -> Result<(), OperationFailure> {
        Ok(self
            .connection
            .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?)
    }
}
