//! Connections that only read.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use registry::store::{Context, Reason, StoreError};
use rusqlite::Connection;

use super::rows::{Counters, Failure, Rows};
use super::schema::{Role, connect};

/// How many idle connections are kept. There are never more than threads that run requests, and each holds its pages
/// and statements.
const MAX_IDLE: usize = 8;

/// Lends a connection to whoever reads, opening one when all are lent; nobody waits for another reader.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    /// `None` once closed.
    idle: Mutex<Option<Vec<Connection>>>,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            idle: Mutex::new(Some(Vec::new())),
        }
    }

    /// Runs `work` on the caller's thread. It may run more than once.
    pub(super) fn read<T>(
        &self,
        cx: Context,
        counters: &Counters,
        mut work: impl FnMut(&Rows<'_>) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + Duration::from_millis(cx.deadline.millis_since(cx.now));
        loop {
            let connection = self.lend()?;
            let outcome = work(&Rows::new(&connection, counters));
            self.take_back(connection);
            match outcome {
                // Readers wait for nobody but a process that recovers the log after a crash.
                Err(failure) if failure.is_busy() && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                outcome => return Ok(outcome?),
            }
        }
    }

    /// Closes all connections that are not lent, and the others when they come back.
    pub(super) fn close(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn lend(&self) -> Result<Connection, StoreError> {
        let idle = match &mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(idle) => idle.pop(),
            None => {
                return Err(StoreError::because(
                    Reason::MetadataUnreachable,
                    "the metadata store is closed",
                ));
            }
        };
        match idle {
            Some(connection) => Ok(connection),
            None => Ok(connect(&self.path, Role::Reader).map_err(Failure::from)?),
        }
    }

    fn take_back(&self, connection: Connection) {
        if let Some(idle) = &mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner)
            && idle.len() < MAX_IDLE
        {
            idle.push(connection);
        }
    }
}
