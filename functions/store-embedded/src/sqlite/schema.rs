//! Creates and opens the file, and migrates it to the current version.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::Sync;

/// Migrations in order: the one at index n migrates from version n to version n + 1.
const MIGRATIONS: &[&str] = &[
    include_str!("schema.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
];

/// The version of the schema of a new file. A file with an earlier version is migrated when it is opened. A file with a
/// later version is refused, except the one that the first account or policy sets.
pub const SCHEMA_VERSION: usize = MIGRATIONS.len();

/// The version of a file that has, or had, an account or a policy. Its tables are those of [`SCHEMA_VERSION`]: the version
/// differs only to refuse the file to programs that know no accounts and would let every client in. The next migration
/// begins at this version, so an empty one comes before it in the list.
pub const ACCESS_VERSION: usize = SCHEMA_VERSION + 1;

/// The tables of accounts, which each opening makes. See the file.
const ACCESS: &str = include_str!("access.sql");

/// Indexes of the few rows with a recorded defect, so that looking for a defect costs almost nothing. A program that
/// does not know these indexes works as before, because SQLite maintains them.
const INDEXES: &str = "
    CREATE INDEX IF NOT EXISTS blob_condemned ON blob (digest, condemned) WHERE condemned IS NOT NULL;
    CREATE INDEX IF NOT EXISTS manifest_condemned ON manifest (repository, digest) WHERE condemned IS NOT NULL;
";

/// "Rdst" in ASCII. It distinguishes this program's files from files of other programs.
const APPLICATION_ID: i32 = 0x5264_7374;

/// The page cache of one connection, in bytes.
const CACHE: i64 = 2 << 20;

/// The maximum time that opening waits for another process that creates or recovers the same file.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SchemaError {
    /// A newer version of this program wrote the file.
    #[error("the schema version is {found}, and this program knows versions up to {known}")]
    Newer {
        /// The version of the file.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// The file belongs to another program.
    #[error("the file belongs to another program")]
    Foreign,
    /// SQLite could not read or write the file.
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

/// The purpose of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionRole {
    /// Changes rows. Its commits are synced from the start, even if it never writes. The last process that closes the
    /// file moves the log into it and removes the log. At that time, everything that other processes have acknowledged
    /// must be on the disk.
    Writer(Sync),
    Reader,
}

/// Opens one more connection to an existing file.
pub(super) fn connect(path: &Path, role: ConnectionRole) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_prepared_statement_cache_capacity(96);
    // Readers wait in their own code, which knows their deadlines.
    connection.busy_timeout(match role {
        ConnectionRole::Writer(_) => OPEN_TIMEOUT,
        ConnectionRole::Reader => Duration::ZERO,
    })?;
    // Without this, some statements are prepared again for each new bound value, which takes longer than running them.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "cache_size", -(CACHE >> 10))?;
    // The writer moves the log into the file itself, between two groups, so that no commit waits for it.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    match role {
        ConnectionRole::Writer(sync) => set_durable(&connection, true, sync)?,
        ConnectionRole::Reader => connection.pragma_update(None, "query_only", true)?,
    }
    Ok(connection)
}

/// Sets whether the next commits of a connection are synced. The log keeps the order of commits, so a synced commit
/// makes all earlier commits durable too.
pub(super) fn set_durable(connection: &Connection, durable: bool, sync: Sync) -> rusqlite::Result<()> {
    let sql = match (sync, durable) {
        (Sync::Full, true) => "PRAGMA synchronous = FULL",
        (Sync::Full, false) => "PRAGMA synchronous = NORMAL",
        (Sync::Off, _) => "PRAGMA synchronous = OFF",
    };
    connection.execute_batch(sql)
}

/// Migrates a file, which may be empty, to the current version. Processes that open the same new file race here; all of
/// them end with the same schema.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), SchemaError> {
    prepare_with(connection, MIGRATIONS, ACCESS_VERSION)?;
    connection.execute_batch(INDEXES)?;
    connection.execute_batch(ACCESS)?;
    Ok(())
}

/// Marks the file as one with accounts or a policy, in the transaction of the caller.
pub(super) fn require_access(connection: &Connection) -> rusqlite::Result<()> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version < number(ACCESS_VERSION) {
        connection.pragma_update(None, "user_version", number(ACCESS_VERSION))?;
    }
    Ok(())
}

fn number(version: usize) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

/// `newest` is the latest version that can be used without a migration.
fn prepare_with(connection: &mut Connection, migrations: &[&str], newest: usize) -> Result<(), SchemaError> {
    let (migrated, known) = (number(migrations.len()), number(newest));
    // In one transaction: otherwise another process could migrate the file between the two queries.
    let transaction = connection.transaction()?;
    let current = is_current(&transaction, migrated, known)?;
    drop(transaction);
    // Also for a file of the current version: a copy that SQLite made has no log.
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode != "wal" {
        // SQLite itself does not wait for the lock that this change needs.
        let started = Instant::now();
        while let Err(error) = switch_to_log(connection) {
            if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) || started.elapsed() > OPEN_TIMEOUT {
                return Err(error.into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    if !current {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if !is_current(&transaction, migrated, known)? {
            let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
            let done = usize::try_from(version).unwrap_or(0);
            for migration in &migrations[done..] {
                transaction.execute_batch(migration)?;
            }
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", migrated)?;
        }
        transaction.commit()?;
    }
    Ok(())
}

/// Checks the answer, because SQLite may return the unchanged mode without an error.
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

/// Whether the file needs no migration. Returns an error if the file must not be changed.
fn is_current(connection: &Connection, migrated: i64, known: i64) -> Result<bool, SchemaError> {
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
    Ok(found >= migrated)
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
        connect(&path, ConnectionRole::Writer(Sync::Full)).unwrap()
    }

    #[test]
    fn an_empty_file_gets_the_current_schema() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = empty(directory.path());
        assert_eq!(version(&connection), 0);
        prepare(&mut connection).unwrap();
        assert_eq!(version(&connection), i64::try_from(MIGRATIONS.len()).unwrap());
        // A second run, and a run on another connection, change nothing.
        prepare(&mut connection).unwrap();
        prepare(
            &mut connect(
                &directory.path().join("metadata.db"),
                ConnectionRole::Writer(Sync::Full),
            )
            .unwrap(),
        )
        .unwrap();
    }

    /// The file comes from an earlier program with the same schema version.
    #[test]
    fn opening_a_file_creates_missing_indexes() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = empty(directory.path());
        prepare_with(&mut connection, MIGRATIONS, SCHEMA_VERSION).unwrap();
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
        prepare_with(&mut connection, &steps[..1], 1).unwrap();
        assert_eq!(version(&connection), 1);
        prepare_with(&mut connection, &steps, 3).unwrap();
        assert_eq!(version(&connection), 3);
        let x: i64 = connection.query_row("SELECT x FROM a", [], |row| row.get(0)).unwrap();
        assert_eq!(x, 11);

        // A migration that fails leaves the earlier version unchanged.
        let broken = [steps[0], steps[1], steps[2], "UPDATE a SET x = 5; SELECT nonsense"];
        prepare_with(&mut connection, &broken, 4).unwrap_err();
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

    /// Closing the last connection moves the log into the file. If nothing was written, this uses the settings of
    /// `connect` and `prepare`.
    #[test]
    fn connections_start_with_synced_commits() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = empty(directory.path());
        prepare(&mut connection).unwrap();
        assert_eq!(setting(&connection, "synchronous"), "Integer(2)");
        let off = connect(&directory.path().join("metadata.db"), ConnectionRole::Writer(Sync::Off)).unwrap();
        assert_eq!(setting(&off, "synchronous"), "Integer(0)");
        let reader = connect(&directory.path().join("metadata.db"), ConnectionRole::Reader).unwrap();
        assert_eq!(setting(&reader, "synchronous"), "Integer(2)");
    }

    #[test]
    fn opening_a_copy_without_a_log_creates_one() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = empty(directory.path());
        prepare(&mut connection).unwrap();
        let copy = directory.path().join("copy.db");
        connection.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
        let mut connection = connect(&copy, ConnectionRole::Writer(Sync::Full)).unwrap();
        assert_eq!(setting(&connection, "journal_mode"), "Text(\"delete\")");
        prepare(&mut connection).unwrap();
        assert_eq!(setting(&connection, "journal_mode"), "Text(\"wal\")");
    }

    #[test]
    fn a_newer_file_is_refused_and_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = empty(directory.path());
        prepare(&mut connection).unwrap();
        let newer = number(ACCESS_VERSION) + 1;
        connection.pragma_update(None, "user_version", newer).unwrap();
        let error = prepare(&mut connection).unwrap_err();
        assert!(matches!(error, SchemaError::Newer { found, known } if found == newer && known == newer - 1));
        assert_eq!(version(&connection), newer);
    }

    /// A program that knows every migration but no accounts uses a file until the first account or policy.
    #[test]
    fn a_file_with_accounts_is_refused_by_programs_without_them() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = empty(directory.path());
        let open_without_accounts = |connection: &mut Connection| prepare_with(connection, MIGRATIONS, SCHEMA_VERSION);
        open_without_accounts(&mut connection).unwrap();
        prepare(&mut connection).unwrap();
        open_without_accounts(&mut connection).unwrap();
        assert_eq!(version(&connection), number(SCHEMA_VERSION));

        for _ in 0..2 {
            require_access(&connection).unwrap();
            assert_eq!(version(&connection), number(ACCESS_VERSION));
        }
        let refused = open_without_accounts(&mut connection).unwrap_err();
        assert!(matches!(refused, SchemaError::Newer { .. }), "{refused}");
        prepare(&mut connection).unwrap();
        assert_eq!(version(&connection), number(ACCESS_VERSION));

        // The mark of a later program stays.
        connection
            .pragma_update(None, "user_version", number(ACCESS_VERSION) + 1)
            .unwrap();
        require_access(&connection).unwrap();
        assert_eq!(version(&connection), number(ACCESS_VERSION) + 1);
    }

    #[test]
    fn a_file_of_another_program_is_refused_and_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metadata.db");
        Connection::open(&path)
            .unwrap()
            .execute_batch("CREATE TABLE theirs (x)")
            .unwrap();
        let before = std::fs::read(&path).unwrap();
        let error = prepare(&mut connect(&path, ConnectionRole::Writer(Sync::Full)).unwrap()).unwrap_err();
        assert!(matches!(error, SchemaError::Foreign), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
