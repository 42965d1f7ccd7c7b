//! How a check ends: by what it found, whoever reads it.

use std::process::Stdio;

use crate::support::{Server, roadstead};

/// A registry with an upload of nobody's, if asked for.
fn registry(with_stray: bool) -> Server {
    let server = Server::start(&[]);
    server.push_blob("app", b"a blob");
    if with_stray {
        let stray = server.data().join(format!("blobs/0/{:032x}.1", 0xabc));
        std::fs::create_dir_all(stray.parent().unwrap()).unwrap();
        std::fs::write(stray, b"nobody's").unwrap();
    }
    server
}

/// The exit code of `fsck` when nobody reads what it prints, or not even its errors.
fn unread(server: &Server, flags: &[&str], errors_too: bool) -> Option<i32> {
    let closed = || std::io::pipe().unwrap().1;
    let mut command = roadstead();
    command.arg("fsck").args(flags).arg("--data").arg(server.data());
    command.stdout(closed());
    command.stderr(if errors_too { closed().into() } else { Stdio::null() });
    command.status().unwrap().code()
}

#[test]
fn findings_decide_although_nobody_reads_them() {
    for (with_stray, code) in [(true, Some(1)), (false, Some(0))] {
        let server = registry(with_stray);
        for flags in [&[][..], &["--json"]] {
            for errors_too in [false, true] {
                let ended = unread(&server, flags, errors_too);
                assert_eq!(ended, code, "{flags:?}, errors read by nobody: {errors_too}");
            }
        }
    }
}

/// Not to know is not to find.
#[test]
fn what_could_not_be_checked_has_a_code_of_its_own() {
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
    let (code, told) = check(&data);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.starts_with("roadstead: "), "{told}");
}
