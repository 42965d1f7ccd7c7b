//! The file of users: how it may be written, what happens when it breaks, and what changes it.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{EMPTY, Mounted, Server, basic, digest, eventually, folder_with_users, roadstead, write_users};

fn line(user: &str, password: &str) -> String {
    format!("{user}:{}", bcrypt::hash(password, 4).unwrap())
}

fn ping(server: &Server, user: &str, password: &str) -> u16 {
    server
        .request("GET", "/v2/", &[("Authorization", &basic(user, password))], b"")
        .status
}

/// Notepad's mark and line ends, a comment, a blank line, and an old line of a user who has a new one.
#[test]
fn a_file_as_windows_writes_it_lets_users_in_and_the_last_line_of_a_user_counts() {
    let folder = Arc::new(TempDir::new().unwrap());
    let text = format!(
        "\u{feff}# users\r\n{}\r\n\r\n{}  \r\n{}",
        line("alice", "old"),
        line("zo\u{eb}", "secret"),
        line("alice", "new"),
    );
    std::fs::write(folder.path().join("users"), text).unwrap();
    let server = Server::start_in(folder, &["--htpasswd", "users"]);
    assert_eq!(ping(&server, "zo\u{eb}", "secret"), 200);
    assert_eq!(ping(&server, "alice", "new"), 200);
    assert_eq!(ping(&server, "alice", "old"), 401);
    server.says("the user `alice` has more than one line: line 5 counts, and line 2 has no effect");
}

#[test]
fn a_broken_file_neither_ends_the_server_nor_locks_out_known_users() {
    let folder = folder_with_users(&[("alice", "secret")]);
    let users = folder.path().join("users");
    let server = Server::start_in(folder, &["--htpasswd", "users"]);
    assert_eq!(ping(&server, "alice", "secret"), 200);
    std::fs::write(&users, "alice:hunter2\n").unwrap();
    server.hang_up("is not usable: line 1");
    assert_eq!(ping(&server, "alice", "secret"), 200);
    assert!(!server.log().contains("hunter2"));
    std::fs::write(&users, "").unwrap();
    server.hang_up("is not usable: the file has no users");
    assert_eq!(ping(&server, "alice", "secret"), 200);
    std::fs::remove_file(&users).unwrap();
    server.hang_up("is not usable: the file cannot be read");
    assert_eq!(ping(&server, "alice", "secret"), 200);
    // A push that was begun before goes on as well.
    let authorization = basic("alice", "secret");
    let upload = server.open_upload("app", &[("Authorization", &authorization)]);
    let put = server.request("PUT", &format!("{upload}?digest={}", digest(EMPTY)), &[], EMPTY);
    assert_eq!(put.status, 201);
    write_users(&users, &[("bob", "secret")]);
    server.hang_up("the users have changed");
    assert_eq!(ping(&server, "alice", "secret"), 401);
    assert_eq!(ping(&server, "bob", "secret"), 200);
}

/// It reads the users again at once, and never ends the server: without a file, while it starts, while it drains.
#[test]
fn a_hangup_ends_no_server() {
    let server = Server::start(&[]);
    server.hang_up("there are no files to read again");
    assert_eq!(server.request("GET", "/v2/", &[], b"").status, 200);

    let folder = folder_with_users(&[("alice", "secret")]);
    let mut server = Server::start_in(folder.clone(), &["--htpasswd", "users"]);
    server.hang_up("were read again and are the same");
    let authorization = basic("alice", "secret");
    let upload = server.open_upload("app", &[("Authorization", &authorization)]);
    let mut client = server.connect();
    client.send_head("PATCH", &upload, &[], EMPTY.len());
    client.send(&EMPTY[..1]);
    // Answered, so that the upload has begun too.
    assert_eq!(ping(&server, "alice", "secret"), 200);
    server.signal(Signal::TERM);
    server.says("draining");
    write_users(&folder.path().join("users"), &[("bob", "secret")]);
    server.hang_up("the users have changed");
    client.send(&EMPTY[1..]);
    assert_eq!(client.response("PATCH").status, 202);
    assert_eq!(server.wait().code(), Some(0));
}

/// A process that does not outlive a test that fails.
struct KilledAtEnd(std::process::Child);

impl Drop for KilledAtEnd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The file is a pipe without a writer, so that the start lasts as long as this test likes.
#[test]
fn a_hangup_ends_no_start() {
    let folder = TempDir::new().unwrap();
    let users = folder.path().join("users");
    let made = std::process::Command::new("mkfifo").arg(&users).status().unwrap();
    assert!(made.success());
    let child = roadstead()
        .args([
            "--listen",
            "127.0.0.1:0",
            "--log",
            "json",
            "--sync",
            "off",
            "--data",
            "data",
            "--htpasswd",
            "users",
        ])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = KilledAtEnd(child);
    let status = format!("/proc/{}/status", child.0.id());
    // Bit 0 of the signals that are caught is SIGHUP.
    eventually("the signal is caught", || {
        let status = std::fs::read_to_string(&status).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        (u64::from_str_radix(caught.trim(), 16).ok()? & 1 == 1).then_some(())
    });
    let pid = Pid::from_raw(child.0.id().try_into().unwrap()).unwrap();
    for _ in 0..3 {
        kill_process(pid, Signal::HUP).unwrap();
    }
    assert!(child.0.try_wait().unwrap().is_none());
    std::fs::write(&users, line("alice", "secret")).unwrap();
    let mut log = std::io::BufReader::new(child.0.stderr.take().unwrap());
    let mut text = String::new();
    // The signals from before are heeded now; a pipe cannot be read twice, which changes nothing.
    while !(text.contains("\"listening\"") && text.contains("reading files again") && text.contains("not usable")) {
        let mut line = String::new();
        assert!(
            std::io::BufRead::read_line(&mut log, &mut line).unwrap() > 0,
            "it ended: {text}"
        );
        text.push_str(&line);
    }
    kill_process(pid, Signal::TERM).unwrap();
    let ended = eventually("the server ends", || child.0.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
}

/// `roadstead htpasswd` with a password on standard input.
fn htpasswd(folder: &Path, arguments: &[&str], password: &str) -> Output {
    let mut child = roadstead()
        .arg("htpasswd")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // With --delete it reads nothing, and may have ended.
    let _ = child.stdin.take().unwrap().write_all(password.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn a_line_is_set_and_removed_in_the_file_itself() {
    let folder = Arc::new(TempDir::new().unwrap());
    let users = folder.path().join("users");
    let done = htpasswd(folder.path(), &["users", "alice"], "first");
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert_eq!(std::fs::metadata(&users).unwrap().mode() & 0o7777, 0o600);
    let server = Server::start_in(folder.clone(), &["--htpasswd", "users"]);
    assert_eq!(ping(&server, "alice", "first"), 200);

    // What a person has added stays: comments, order, line ends, permissions, and a link to the file.
    let text = format!(
        "# the team\r\n{}\r\n# others\r\n",
        std::fs::read_to_string(&users).unwrap().trim()
    );
    std::fs::write(&users, &text).unwrap();
    std::fs::set_permissions(&users, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("users", folder.path().join("link")).unwrap();
    assert!(htpasswd(folder.path(), &["link", "alice"], "second").status.success());
    assert!(htpasswd(folder.path(), &["users", "bob"], "secret").status.success());
    assert!(
        std::fs::symlink_metadata(folder.path().join("link"))
            .unwrap()
            .is_symlink()
    );
    assert_eq!(std::fs::metadata(&users).unwrap().mode() & 0o7777, 0o640);
    let lines = std::fs::read_to_string(&users).unwrap();
    let names: Vec<_> = lines
        .split("\r\n")
        .map(|line| line.split(':').next().unwrap())
        .collect();
    assert_eq!(names, ["# the team", "alice", "# others", "bob", ""]);
    server.hang_up("the users have changed");
    assert_eq!(ping(&server, "alice", "first"), 401);
    assert_eq!(ping(&server, "alice", "second"), 200);
    assert_eq!(ping(&server, "bob", "secret"), 200);

    assert!(
        htpasswd(folder.path(), &["users", "alice", "--delete"], "")
            .status
            .success()
    );
    eventually("without a signal too", || {
        (ping(&server, "alice", "second") == 401).then_some(())
    });
    let absent = htpasswd(folder.path(), &["users", "alice", "--delete"], "");
    assert_eq!(absent.status.code(), Some(3));
    let absent = htpasswd(folder.path(), &["nowhere", "alice", "--delete"], "");
    assert_eq!(absent.status.code(), Some(3));
    // The last one too: no user is left, and no request is let in.
    assert!(
        htpasswd(folder.path(), &["users", "bob", "--delete"], "")
            .status
            .success()
    );
    eventually("no user is left", || {
        (ping(&server, "bob", "secret") == 401).then_some(())
    });
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

/// Links that lead to one another, and to a file that is not there yet.
#[test]
fn links_stay_and_lead_to_what_is_changed() {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir_all(folder.path().join("mounted/current")).unwrap();
    for (link, to) in [
        ("users", "mounted/users"),
        ("mounted/users", "current/users"),
        ("round", "round"),
    ] {
        std::os::unix::fs::symlink(to, folder.path().join(link)).unwrap();
    }
    let names = || {
        let text = std::fs::read_to_string(folder.path().join("mounted/current/users")).unwrap();
        let names = text.lines().map(|line| line.split(':').next().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    let absent = htpasswd(folder.path(), &["users", "alice", "--delete"], "");
    assert_eq!(absent.status.code(), Some(3), "{absent:?}");
    for (user, expected) in [("alice", &["alice"][..]), ("bob", &["alice", "bob"])] {
        let done = htpasswd(folder.path(), &["users", user], "secret");
        assert!(done.status.success(), "{done:?}");
        assert_eq!(names(), expected);
    }
    for link in ["users", "mounted/users"] {
        assert!(
            std::fs::symlink_metadata(folder.path().join(link))
                .unwrap()
                .is_symlink()
        );
    }
    let round = htpasswd(folder.path(), &["round", "alice"], "secret");
    assert_eq!(round.status.code(), Some(1), "{round:?}");
}

/// As a container has it to which one file of its host was given.
#[test]
fn a_file_that_is_a_mount_of_its_own_is_reported() {
    let folder = TempDir::new().unwrap();
    let users = folder.path().join("users");
    let text = format!("{}\n", line("alice", "secret"));
    std::fs::write(&users, &text).unwrap();
    let Some(mounted) = Mounted::over_itself(&users) else {
        return;
    };
    let done = htpasswd(folder.path(), &["users", "bob"], "secret");
    drop(mounted);
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let reported = String::from_utf8_lossy(&done.stderr);
    assert!(reported.contains("mount its directory instead"), "{reported}");
    assert_eq!(std::fs::read_to_string(&users).unwrap(), text);
}

/// A terminal on which nothing that is typed can be seen is of no use to anybody.
#[test]
fn a_prompt_that_is_interrupted_leaves_the_terminal_as_it_was() {
    let program = roadstead().get_program().to_str().unwrap().to_owned();
    let session = format!("trap : INT; '{program}' htpasswd alice; echo code $?; stty -a");
    let child = std::process::Command::new("script")
        .args(["--quiet", "--command", &session, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = KilledAtEnd(child);
    let mut output = child.0.stdout.take().unwrap();
    let mut keys = child.0.stdin.take().unwrap();
    let mut shown = Vec::new();
    while !shown.ends_with(b"Password: ") {
        let mut byte = [0];
        output.read_exact(&mut byte).unwrap();
        shown.extend(byte);
    }
    // Ctrl-C
    keys.write_all(b"hunter2\x03").unwrap();
    output.read_to_end(&mut shown).unwrap();
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("code 130"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    let modes: Vec<_> = shown.split_whitespace().collect();
    assert!(modes.contains(&"echo") && !modes.contains(&"-echo"), "{shown}");
}

/// What cannot be stored is not written, and what is there stays.
#[test]
fn what_cannot_be_set_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let text = format!("{}\n", line("alice", "secret"));
    let users = folder.path().join("users");
    std::fs::write(&users, &text).unwrap();
    let longer = "x".repeat(73);
    for (arguments, password, code, reported) in [
        (&["users", "bob"][..], "", 1, "cannot be empty"),
        (&["users", "bob", "--hash", "bcrypt"], longer.as_str(), 1, "argon2id"),
        (&["users", "#bob"], "secret", 2, "name"),
        (&["users", " bob"], "secret", 2, "name"),
        (&["users", "a:b"], "secret", 2, "colon"),
        (&["no/such/folder", "bob"], "secret", 1, "cannot change"),
    ] {
        let done = htpasswd(folder.path(), arguments, password);
        assert_eq!(done.status.code(), Some(code), "{arguments:?} {done:?}");
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert!(stderr.contains(reported), "{arguments:?}: {stderr}");
    }
    // Latin-1: to rewrite it would be to guess.
    let other = folder.path().join("other");
    std::fs::write(&other, b"zo\xeb:x\n").unwrap();
    let done = htpasswd(folder.path(), &["other", "bob"], "secret");
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&done.stderr).contains("line 1"), "{done:?}");
    assert_eq!(std::fs::read(&other).unwrap(), b"zo\xeb:x\n");
    assert_eq!(std::fs::read_to_string(&users).unwrap(), text);
    assert!(
        htpasswd(folder.path(), &["users", "bob"], &longer).status.success(),
        "argon2id takes it"
    );
}

/// Each waits for the one before, so that no line is lost.
#[test]
fn commands_at_the_same_time_lose_no_line() {
    let folder = TempDir::new().unwrap();
    let names: Vec<_> = (0..6).map(|number| format!("user{number}")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| assert!(htpasswd(folder.path(), &["users", name], "secret").status.success()));
        }
    });
    let text = std::fs::read_to_string(folder.path().join("users")).unwrap();
    let mut found: Vec<_> = text.lines().map(|line| line.split(':').next().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, names);
}
