//! A read transaction that stays open to make all other reads cheaper.
//!
//! A connection that starts to read takes a shared lock on a position in the log, and releases it at the end. These two
//! system calls are a large part of the cost of a small read. SQLite makes neither of them while another connection of
//! the process holds the same lock. So one connection keeps a read transaction open, and the others need no system call
//! for the lock.
//!
//! The read restarts many times a second, for two reasons: after a commit, other connections read from a later
//! position, and an open read prevents SQLite from restarting the log. It closes during a checkpoint, and when there
//! are no other reads.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::rows::{RowCounters, execute};

/// The interval at which the read starts again while there are other reads. Restarting the log waits for at most two
/// such intervals: one until the whole log has been moved, and one until this read has left the log.
const RENEW_INTERVAL: Duration = Duration::from_millis(50);

/// The interval at which the read checks for other reads while it is not open.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// The connection that keeps a read transaction open; see the module.
#[derive(Debug)]
pub(super) struct StandingRead {
    connection: Connection,
    counters: Arc<RowCounters>,
    /// The number of reads at the last update.
    reads: u64,
    /// The time of the last update.
    updated: Instant,
}

impl StandingRead {
    /// Uses a connection of its own.
    pub(super) fn new(connection: Connection, counters: Arc<RowCounters>) -> Self {
        Self {
            connection,
            counters,
            reads: 0,
            updated: Instant::now(),
        }
    }

    /// The time until the next call of [`StandingRead::update`].
    pub(super) fn next_update(&self) -> Duration {
        self.interval().saturating_sub(self.updated.elapsed())
    }

    fn interval(&self) -> Duration {
        if self.connection.is_autocommit() {
            IDLE_INTERVAL
        } else {
            RENEW_INTERVAL
        }
    }

    /// Starts the read again, or ends it if there were no reads since the last update.
    pub(super) fn update(&mut self) {
        self.updated = Instant::now();
        let reads = self.counters.reads.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.reads, reads) == reads {
            self.end();
        } else {
            self.renew();
        }
    }

    /// Starts the read again, at the current end of the log.
    fn renew(&self) {
        self.end();
        let begun = execute(&self.connection, "BEGIN").and_then(|()| {
            let mut statement = self.connection.prepare_cached("SELECT 1 FROM repository LIMIT 1")?;
            let mut rows = statement.query([])?;
            rows.next().map(drop)
        });
        if let Err(error) = begun {
            // Other reads then only cost more.
            tracing::debug!(%error, "the standing read of the metadata could not start");
            self.end();
        }
    }

    /// Ends the read until it is renewed.
    pub(super) fn end(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = execute(&self.connection, "ROLLBACK")
        {
            tracing::warn!(%error, "the standing read of the metadata could not end");
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::super::schema::{ConnectionRole, connect, prepare};
    use super::*;
    use crate::Sync;

    #[test]
    fn the_read_stays_open_only_while_there_are_other_reads() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metadata.db");
        std::fs::File::create(&path).unwrap();
        prepare(&mut connect(&path, ConnectionRole::Writer(Sync::Off)).unwrap()).unwrap();
        let counters = Arc::<RowCounters>::default();
        let mut standing = StandingRead::new(connect(&path, ConnectionRole::Reader).unwrap(), counters.clone());
        assert_eq!(standing.interval(), IDLE_INTERVAL);
        for _ in 0..3 {
            counters.reads.fetch_add(1, Ordering::Relaxed);
            standing.update();
            assert_eq!(standing.interval(), RENEW_INTERVAL);
            assert!(standing.next_update() <= RENEW_INTERVAL);
        }
        standing.update();
        assert_eq!(standing.interval(), IDLE_INTERVAL);
    }
}
