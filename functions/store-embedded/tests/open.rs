//! What opening a data directory creates, and what it refuses.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use registry::store::sessions::{SessionStore, SigningKey};
use registry::store::{Context, Timestamp, Uid};
use store_embedded::{Embedded, EmbeddedOptions, OpenError, Sync};

/// The environment variable with the directory that the restarted test program opens as a user without write access.
const UNPRIVILEGED: &str = "STORE_EMBEDDED_TEST_UNPRIVILEGED";

fn options(data: &Path) -> EmbeddedOptions {
    EmbeddedOptions {
        data: data.to_owned(),
        sync: Sync::Full,
        upload_memory: 1 << 20,
        memory_timeout: EmbeddedOptions::MEMORY_TIMEOUT,
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn key(id: u32) -> SigningKey {
    SigningKey {
        id,
        secret: [7; 32],
        created: Timestamp(1),
    }
}

fn cx() -> Context {
    Context::internal(Timestamp(1), 10_000, Uid(1))
}

#[tokio::test]
async fn created_files_are_accessible_only_to_their_owner() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("some/where");
    let store = Embedded::open(&options(&data)).unwrap();
    store.sessions.signing_keys(cx(), key(1)).await.unwrap();
    assert_eq!(mode(&data), 0o700);
    // The secret is in the log before it is in the file.
    for file in ["metadata.db", "metadata.db-wal", "metadata.db-shm"] {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
    }
    store.close();
    assert!(!data.join("metadata.db-wal").exists(), "closing removes the log");

    // A restored copy can be readable for others.
    let readable = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(data.join("metadata.db"), readable).unwrap();
    let store = Embedded::open_existing(&options(&data)).unwrap();
    assert_eq!(mode(&data.join("metadata.db")), 0o600);
    let keys = store.sessions.signing_keys(cx(), key(2)).await.unwrap();
    assert_eq!(keys.iter().map(|key| key.id).collect::<Vec<_>>(), [1]);
}

#[test]
fn dropping_the_stores_closes_them() {
    let directory = tempfile::tempdir().unwrap();
    let Embedded { metadata, sessions, .. } = Embedded::open(&options(directory.path())).unwrap();
    drop(metadata);
    assert!(directory.path().join("metadata.db-wal").exists());
    drop(sessions);
    assert!(!directory.path().join("metadata.db-wal").exists());
}

#[test]
fn opening_an_existing_registry_creates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("mistyped");
    for path in [missing.as_path(), directory.path()] {
        let error = Embedded::open_existing(&options(path)).unwrap_err();
        assert!(matches!(error, OpenError::Absent(_)), "{error}");
        assert!(error.to_string().contains("start the server once"), "{error}");
    }
    assert!(!missing.exists());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_file_is_not_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    for path in [file.clone(), file.join("data")] {
        for error in [
            Embedded::open(&options(&path)),
            Embedded::open_existing(&options(&path)),
        ] {
            let error = error.unwrap_err();
            assert!(matches!(error, OpenError::NotADirectory(_)), "{error}");
        }
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), "mine");
}

#[test]
fn a_link_to_a_directory_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("real")).unwrap();
    let link = directory.path().join("link");
    symlink("real", &link).unwrap();
    drop(Embedded::open(&options(&link)).unwrap());
    assert!(directory.path().join("real/metadata.db").is_file());
}

#[test]
fn a_file_of_another_program_is_not_changed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("metadata.db");
    let theirs = [b"this is not a database, and it is longer than the header of a database".as_slice(); 100].concat();
    std::fs::write(&file, &theirs).unwrap();
    let error = Embedded::open(&options(directory.path())).unwrap_err();
    assert!(matches!(error, OpenError::Foreign(_)), "{error}");
    assert_eq!(std::fs::read(file).unwrap(), theirs);
}

#[test]
fn a_directory_of_another_user_is_refused_with_its_path() {
    if let Some(data) = std::env::var_os(UNPRIVILEGED) {
        let error = Embedded::open(&options(Path::new(&data))).unwrap_err();
        println!("refused: {error}");
        return;
    }
    // A directory that all users may read and no user may write is opened as a user without privileges.
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    for path in [directory.path(), &data] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o555)).unwrap();
    }
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(&program);
    let root = rustix::process::geteuid().is_root();
    if root {
        // The unprivileged user may not be able to read the directory of this program.
        let copy = directory.path().join("program");
        std::fs::copy(&program, &copy).unwrap();
        command = Command::new(copy);
        command.uid(65_534).gid(65_534);
    }
    let output = command
        .args([
            "--exact",
            "a_directory_of_another_user_is_refused_with_its_path",
            "--nocapture",
        ])
        .env(UNPRIVILEGED, &data)
        .current_dir("/")
        .output()
        .unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let output_text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{output_text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output_text.contains(&format!("refused: cannot write to {}", data.display())),
        "{output_text}"
    );
    assert!(
        output_text.contains("make it and everything in it writable"),
        "{output_text}"
    );
}

/// Opening and closing the file outside SQLite would release SQLite's locks. Another program that then opens the
/// database would remove the log while this process uses it.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn sqlite_keeps_its_file_locks() {
    let folder = tempfile::tempdir().unwrap();
    let first = Embedded::open(&options(folder.path())).unwrap();
    first.sessions.signing_keys(cx(), key(1)).await.unwrap();
    let second = Embedded::open(&options(folder.path())).unwrap();
    second.sessions.signing_keys(cx(), key(2)).await.unwrap();
    let inode = std::fs::metadata(folder.path().join("metadata.db")).unwrap().ino();
    let own = format!(" {} ", std::process::id());
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    let held = |line: &&str| line.contains(&own) && line.contains(&format!(":{inode} "));
    assert!(
        locks.lines().any(|line| held(&line)),
        "no lock on inode {inode}:\n{locks}"
    );
}
