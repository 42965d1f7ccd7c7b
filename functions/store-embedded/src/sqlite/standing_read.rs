//! A read that goes on all the time, for the sake of all others.
//!
//! A connection that begins to read takes a shared lock on a place in the log, and gives it back in the end: two system
//! calls, which are a good part of what a small read costs. SQLite makes neither while another connection of the process
//! holds the same lock. So one connection reads all the time, from where the log ends.
//!
//! After a commit others read from another place, and nobody can begin the log anew while somebody reads in it. So this
//! read begins again many times a second; it ends while the log is moved into the file, and when nobody else reads.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::rows::Counters;
use super::writer::execute;

/// How often it begins again, while others read. Whoever wants to begin the log anew waits for two of these at most: for one
/// until the whole log was read over, for another until this read has left the log.
const RENEW: Duration = Duration::from_millis(50);

/// How often it is looked whether somebody reads again.
const LOOK: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct StandingRead {
    connection: Connection,
    counters: Arc<Counters>,
    /// How many reads there had been when it was looked at them last.
    reads: u64,
    /// When that was.
    looked: Instant,
}

impl StandingRead {
    /// On a connection of its own.
    pub(super) fn new(connection: Connection, counters: Arc<Counters>) -> Self {
        Self {
            connection,
            counters,
            reads: 0,
            looked: Instant::now(),
        }
    }

    /// After which time to call [`StandingRead::look`].
    pub(super) fn next_look(&self) -> Duration {
        self.interval().saturating_sub(self.looked.elapsed())
    }

    fn interval(&self) -> Duration {
        if self.connection.is_autocommit() { LOOK } else { RENEW }
    }

    /// Begins again, or ends if nobody has read since the last look.
    pub(super) fn look(&mut self) {
        self.looked = Instant::now();
        let reads = self.counters.reads.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.reads, reads) == reads {
            self.end();
        } else {
            self.renew();
        }
    }

    /// Begins again, where the log ends now.
    fn renew(&self) {
        self.end();
        let begun = execute(&self.connection, "BEGIN").and_then(|()| {
            let mut statement = self.connection.prepare_cached("SELECT 1 FROM repository LIMIT 1")?;
            let mut rows = statement.query([])?;
            rows.next().map(drop)
        });
        if let Err(error) = begun {
            // Others only read for more without it.
            tracing::debug!(%error, "the standing read of the metadata could not begin");
            self.end();
        }
    }

    /// Ends, until it is renewed.
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

    use super::super::schema::{Role, connect, prepare};
    use super::*;
    use crate::Sync;

    #[test]
    fn it_goes_on_while_others_read_and_ends_when_nobody_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metadata.db");
        std::fs::File::create(&path).unwrap();
        prepare(&mut connect(&path, Role::Writer(Sync::Off)).unwrap()).unwrap();
        let counters = Arc::<Counters>::default();
        let mut standing = StandingRead::new(connect(&path, Role::Reader).unwrap(), counters.clone());
        assert_eq!(standing.interval(), LOOK);
        for _ in 0..3 {
            counters.reads.fetch_add(1, Ordering::Relaxed);
            standing.look();
            assert_eq!(standing.interval(), RENEW);
            assert!(standing.next_look() <= RENEW);
        }
        standing.look();
        assert_eq!(standing.interval(), LOOK);
    }
}
