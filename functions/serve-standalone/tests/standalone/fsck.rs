//! The exit code of a check: its findings decide, even if its output is closed.

use std::process::Stdio;

use crate::support::{Server, roadstead};

/// A registry, with an orphan if asked for.
fn registry(with_orphan: bool) -> Server {
    let server = Server::start(&[]);
    server.push_blob("app", b"a blob");
    if with_orphan {
        let orphan = server.data().join(format!("blobs/0/{:032x}.1", 0xabc));
        std::fs::create_dir_all(orphan.parent().unwrap()).unwrap();
        std::fs::write(orphan, b"orphaned").unwrap();
    }
    server
}

/// The exit code of `fsck` if standard output is closed, or standard error too.
fn unread(server: &Server, flags: &[&str], errors_too: bool) -> Option<i32> {
    let closed = || std::io::pipe().unwrap().1;
    let mut command = roadstead();
    command.arg("fsck").args(flags).arg("--data").arg(server.data());
    command.stdout(closed());
    command.stderr(if errors_too { closed().into() } else { Stdio::null() });
    command.status().unwrap().code()
}

#[test]
fn findings_decide_although_the_output_is_closed() {
    for (with_orphan, code) in [(true, Some(1)), (false, Some(0))] {
        let server = registry(with_orphan);
        for flags in [&[][..], &["--json"]] {
            for errors_too in [false, true] {
                let ended = unread(&server, flags, errors_too);
                assert_eq!(ended, code, "{flags:?}, standard error closed: {errors_too}");
            }
        }
    }
}

/// A check that could not be finished is not a check with findings.
#[test]
fn a_check_that_could_not_be_finished_has_its_own_exit_code() {
    let server = registry(true);
    let data = server.data();
    let folder = server.folder.clone();
    drop(server);
    let check = |data: &std::path::Path| {
        let output = roadstead().arg("fsck").arg("--data").arg(data).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(check(&data).0, Some(1));
    assert_eq!(check(&folder.path().join("absent")).0, Some(2));
    for file in ["metadata.db-wal", "metadata.db-shm"] {
        let _ = std::fs::remove_file(data.join(file));
    }
    std::fs::write(data.join("metadata.db"), vec![0x5a; 40_000]).unwrap();
    let (code, reported) = check(&data);
    assert_eq!(code, Some(2), "{reported}");
    assert!(reported.starts_with("roadstead: "), "{reported}");
}
