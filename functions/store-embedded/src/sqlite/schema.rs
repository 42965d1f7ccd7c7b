//! The file: how it is created, opened and brought to the present version.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::Sync;

/// Migrations in order: the one at index n leads from version n to version n + 1.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql"), include_str!("schema_2.sql")];

/// The version of the schema that this program writes: a file of an earlier version is brought to it when it is opened, and
/// a file of a later one is refused.
pub const SCHEMA_VERSION: usize = MIGRATIONS.len();

/// Indexes of the few rows about which something is recorded, so that asking costs next to nothing. They change nothing for
/// a program that does not know them: SQLite keeps them.
const INDEXES: &str = "
    CREATE INDEX IF NOT EXISTS blob_condemned ON blob (digest, condemned) WHERE condemned IS NOT NULL;
    CREATE INDEX IF NOT EXISTS manifest_condemned ON manifest (repository, digest) WHERE condemned IS NOT NULL;
";

/// "Rdst" in ASCII, so that another program's file is never taken for ours.
const APPLICATION_ID: i32 = 0x5264_7374;

/// Bytes of pages that one connection keeps.
const CACHE: i64 = 2 << 20;

/// For how long opening waits for another process that creates or recovers the same file.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SchemaError {
    /// It was written by a newer version of this program.
    #[error("schema version {found}, this program knows up to {known}")]
    Newer {
        /// The version of the file.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// It belongs to another program.
    #[error("it was not made by this program")]
    Foreign,
    /// SQLite could not read or write it.
    #[error(transparent)]
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for SchemaError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::Foreign,
            _ => Self::Sqlite(error),
        }
    }
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Changes rows. Synced from the first moment, also if it never does: whoever is the last to close the file moves
    /// the log into it and removes the log, and what others had acknowledged must be on the disk by then.
    Writer(Sync),
    Reader,
}

/// Opens one more connection to a file that exists.
pub(super) fn connect(path: &Path, role: Role) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_prepared_statement_cache_capacity(96);
    // Readers wait where their deadlines are known.
    connection.busy_timeout(match role {
        Role::Writer(_) => PATIENCE,
        Role::Reader => Duration::ZERO,
    })?;
    // Otherwise some statements are prepared again for each value that is bound, which takes longer than they do.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "cache_size", -(CACHE >> 10))?;
    // The writer moves the log into the file itself, between two groups, not while somebody waits for a commit.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    match role {
        Role::Writer(sync) => set_durable(&connection, true, sync)?,
        Role::Reader => connection.pragma_update(None, "query_only", true)?,
    }
    Ok(connection)
}

/// Chooses whether the next commits of a connection are synced. The log keeps its order, so that a commit which is
/// synced makes all earlier ones durable too.
pub(super) fn set_durable(connection: &Connection, durable: bool, sync: Sync) -> rusqlite::Result<()> {
    let sql = match (sync, durable) {
        (Sync::Full, true) => "PRAGMA synchronous = FULL",
        (Sync::Full, false) => "PRAGMA synchronous = NORMAL",
        (Sync::Off, _) => "PRAGMA synchronous = OFF",
    };
    connection.execute_batch(sql)
}

/// Brings a file, also an empty one, to the present version. Processes that open the same new file race here; all of
/// them end with the same schema.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), SchemaError> {
    prepare_with(connection, MIGRATIONS)?;
    connection.execute_batch(INDEXES)?;
    Ok(())
}

fn prepare_with(connection: &mut Connection, migrations: &[&str]) -> Result<(), SchemaError> {
    let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    // In a transaction, or another process could finish between two of its questions.
    let transaction = connection.transaction()?;
    let current = is_current(&transaction, known)?;
    drop(transaction);
    // Also of a file that is current: a copy that SQLite made has no log.
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode != "wal" {
        // SQLite does not wait by itself for the lock that this change needs.
        let started = Instant::now();
        while let Err(error) = switch_to_log(connection) {
            if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) || started.elapsed() > PATIENCE {
                return Err(error.into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    if !current {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if !is_current(&transaction, known)? {
            let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
            let done = usize::try_from(version).unwrap_or(0);
            for migration in &migrations[done..] {
                transaction.execute_batch(migration)?;
            }
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", known)?;
        }
        transaction.commit()?;
    }
    Ok(())
}

/// SQLite may answer with the mode that the file keeps, and no error.
fn switch_to_log(connection: &Connection) -> rusqlite::Result<()> {
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode == "wal" {
        return Ok(());
    }
    let refused = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_PROTOCOL);
    Err(rusqlite::Error::SqliteFailure(
        refused,
        Some(format!("the journal mode stays {mode}")),
    ))
}

/// Whether the file has the present schema; an error when it is one that must not be touched.
fn is_current(connection: &Connection, known: i64) -> Result<bool, SchemaError> {
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if application != APPLICATION_ID {
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        return if application == 0 && found == 0 && tables == 0 {
            Ok(false)
        } else {
            Err(SchemaError::Foreign)
        };
    }
    if found > known {
        return Err(SchemaError::Newer { found, known });
    }
    Ok(found == known)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn version(connection: &Connection) -> i64 {
        connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap()
    }

    fn empty(directory: &Path) -> Connection {
        let path = directory.join("metadata.db");
        std::fs::File::create(&path).unwrap();
        connect(&path, Role::Writer(Sync::Full)).unwrap()
    }

    #[test]
    fn an_empty_file_becomes_the_present_version() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = empty(directory.path());
        assert_eq!(version(&connection), 0);
        prepare(&mut connection).unwrap();
        assert_eq!(version(&connection), i64::try_from(MIGRATIONS.len()).unwrap());
        // Again, and by another connection: nothing to do.
        prepare(&mut connection).unwrap();
        prepare(&mut connect(&directory.path().join("metadata.db"), Role::Writer(Sync::Full)).unwrap()).unwrap();
    }

    /// A file that an earlier program of the same version has made.
    #[test]
    fn a_file_without_the_indexes_gets_them() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = empty(directory.path());
        prepare_with(&mut connection, MIGRATIONS).unwrap();
        let indexes = |connection: &Connection| {
            let sql = "SELECT count(*) FROM sqlite_schema WHERE name IN ('blob_condemned', 'manifest_condemned')";
            connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(indexes(&connection), 0);
        prepare(&mut connection).unwrap();
        assert_eq!(indexes(&connection), 2);
    }

    #[test]
    fn a_file_of_an_older_version_is_migrated_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = empty(directory.path());
        let steps = [
            "CREATE TABLE a (x)",
            "INSERT INTO a VALUES (1)",
            "UPDATE a SET x = x + 10",
        ];
        prepare_with(&mut connection, &steps[..1]).unwrap();
        assert_eq!(version(&connection), 1);
        prepare_with(&mut connection, &steps).unwrap();
        assert_eq!(version(&connection), 3);
        let x: i64 = connection.query_row("SELECT x FROM a", [], |row| row.get(0)).unwrap();
        assert_eq!(x, 11);

        // A step that fails leaves the version that was there.
        let broken = [steps[0], steps[1], steps[2], "UPDATE a SET x = 5; SELECT nonsense"];
        prepare_with(&mut connection, &broken).unwrap_err();
        assert_eq!(version(&connection), 3);
        let x: i64 = connection.query_row("SELECT x FROM a", [], |row| row.get(0)).unwrap();
        assert_eq!(x, 11);
    }

    fn setting(connection: &Connection, name: &str) -> String {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
            .map(|value| format!("{value:?}"))
            .unwrap()
    }

    /// Closing the last connection moves the log into the file: with what `connect` and `prepare` have set, if nothing
    /// was ever written.
    #[test]
    fn connections_are_opened_synced() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = empty(directory.path());
        prepare(&mut connection).unwrap();
        assert_eq!(setting(&connection, "synchronous"), "Integer(2)");
        let off = connect(&directory.path().join("metadata.db"), Role::Writer(Sync::Off)).unwrap();
        assert_eq!(setting(&off, "synchronous"), "Integer(0)");
        let reader = connect(&directory.path().join("metadata.db"), Role::Reader).unwrap();
        assert_eq!(setting(&reader, "synchronous"), "Integer(2)");
    }

    #[test]
    fn a_copy_that_has_no_log_gets_one() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = empty(directory.path());
        prepare(&mut connection).unwrap();
        let copy = directory.path().join("copy.db");
        connection.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
        let mut connection = connect(&copy, Role::Writer(Sync::Full)).unwrap();
        assert_eq!(setting(&connection, "journal_mode"), "Text(\"delete\")");
        prepare(&mut connection).unwrap();
        assert_eq!(setting(&connection, "journal_mode"), "Text(\"wal\")");
    }

    #[test]
    fn a_newer_file_is_refused_untouched() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = empty(directory.path());
        prepare(&mut connection).unwrap();
        let newer = i64::try_from(MIGRATIONS.len()).unwrap() + 1;
        connection.pragma_update(None, "user_version", newer).unwrap();
        let error = prepare(&mut connection).unwrap_err();
        assert!(matches!(error, SchemaError::Newer { found, known } if found == newer && known == newer - 1));
        assert_eq!(version(&connection), newer);
    }

    #[test]
    fn a_file_of_another_program_is_refused_untouched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metadata.db");
        Connection::open(&path)
            .unwrap()
            .execute_batch("CREATE TABLE theirs (x)")
            .unwrap();
        let before = std::fs::read(&path).unwrap();
        let error = prepare(&mut connect(&path, Role::Writer(Sync::Full)).unwrap()).unwrap_err();
        assert!(matches!(error, SchemaError::Foreign), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
