//! What is refused at start, and what a start tells.

use std::io::{BufRead as _, BufReader};
use std::process::{Output, Stdio};

use tempfile::TempDir;

use crate::support::{Server, roadstead, run, write_users};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a server that is not expected to start.
fn refused(flags: &[&str], folder: &TempDir) -> Output {
    let data = folder.path().join("data");
    let mut arguments = vec!["serve", "--log", "text", "--data", data.to_str().unwrap()];
    arguments.extend(flags);
    run(arguments)
}

#[test]
fn s15_a_public_address_is_refused_without_authentication() {
    let folder = TempDir::new().unwrap();
    for listen in ["0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:5000", "[::ffff:192.0.2.1]:0"] {
        let output = refused(&["--listen", listen], &folder);
        assert_eq!(output.status.code(), Some(2), "{listen}");
        let reported = stderr(&output);
        for remedy in [
            "roadstead user add NAME --admin --password-stdin",
            "--htpasswd",
            "--allow-anonymous",
            "--bootstrap-secret-file",
            "--listen 127.0.0.1",
        ] {
            assert!(reported.contains(remedy), "{listen}: {reported}");
        }
    }
    assert!(!folder.path().join("data").exists(), "nothing is made before that");
}

/// The address is one that no machine has, so that nothing is ever served on it: the refusal is past when the address
/// cannot be used.
#[test]
fn a_public_address_is_taken_when_it_was_asked_for_by_name_or_has_users() {
    let folder = TempDir::new().unwrap();
    let users = folder.path().join("users");
    write_users(&users, &[("alice", "secret")]);
    let users = users.to_str().unwrap();
    for flags in [
        &["--allow-anonymous", "pull"][..],
        &["--allow-anonymous", "all"],
        &["--htpasswd", users],
        &["--htpasswd", users, "--allow-anonymous", "pull"],
    ] {
        let output = refused(&[&["--listen", "192.0.2.1:5000"], flags].concat(), &folder);
        assert_eq!(output.status.code(), Some(1), "{flags:?}");
        let reported = stderr(&output);
        assert!(
            reported.contains("cannot listen on 192.0.2.1:5000") && reported.contains("--listen"),
            "{reported}"
        );
    }
}

#[test]
fn passwords_that_would_protect_nothing_are_refused() {
    let folder = TempDir::new().unwrap();
    let users = folder.path().join("users");
    write_users(&users, &[("alice", "secret")]);
    let output = refused(
        &["--htpasswd", users.to_str().unwrap(), "--allow-anonymous", "all"],
        &folder,
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("contradict"), "{}", stderr(&output));
}

#[test]
fn a_file_of_users_that_cannot_be_used_stops_the_start() {
    let folder = TempDir::new().unwrap();
    let users = folder.path().join("users");
    let path = users.to_str().unwrap();
    for (text, reported) in [
        (
            "# nobody\n\nbob:$apr1$salt$hash\n",
            "line 3: the password of `bob` is stored as an MD5 hash",
        ),
        ("bob:hunter2\n", "roadstead htpasswd bob"),
        ("", "the file has no users"),
    ] {
        std::fs::write(&users, text).unwrap();
        let output = refused(&["--listen", "127.0.0.1:0", "--htpasswd", path], &folder);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let stderr = stderr(&output);
        assert!(stderr.contains(reported) && stderr.contains(path), "{stderr}");
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
}

#[test]
fn an_address_in_use_is_reported_with_a_remedy() {
    let server = Server::start(&[]);
    let folder = TempDir::new().unwrap();
    let output = refused(&["--listen", &server.address.to_string()], &folder);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("port 0"), "{}", stderr(&output));
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    for arguments in [
        &["serve", "--listen", "nowhere"][..],
        &["--sparse", "maybe"],
        &["unknown"],
        &["--log-level", "a=b=c"],
    ] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn help_and_version_succeed() {
    for arguments in [
        &["--help"][..],
        &["serve", "--help"],
        &["repo", "list", "--help"],
        &["tag", "list", "--help"],
        &["tag", "history", "--help"],
        &["htpasswd", "--help"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("Examples:"),
            "{arguments:?}"
        );
    }
}

#[test]
fn the_version_names_the_commit_and_the_layouts() {
    let stdout = |flag: &str| String::from_utf8(run([flag]).stdout).unwrap();
    let short = format!("roadstead {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(stdout("-V"), short);
    let commit = option_env!("ROADSTEAD_COMMIT").filter(|commit| !commit.is_empty());
    let commit = commit.unwrap_or("unknown (ROADSTEAD_COMMIT was not set when this was built)");
    let layouts = "layouts: SQLite schema 3 (4 with accounts), DynamoDB table 2 (3 with accounts), export 1";
    assert_eq!(stdout("--version"), format!("{short}commit: {commit}\n{layouts}\n"));
}

/// The first lines of standard output, which a person reads, name the port that was chosen and a push that works.
#[test]
fn the_chosen_address_and_a_push_are_printed() {
    let folder = TempDir::new().unwrap();
    let mut child = roadstead()
        .args(["--listen", "127.0.0.1:0", "--log", "text"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    let (_, address) = first.rsplit_once("http://").unwrap();
    let push = lines.find(|line| line.contains("docker push")).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let address: std::net::SocketAddr = address.parse().unwrap();
    assert_ne!(address.port(), 0);
    assert!(push.contains(&format!("docker push {address}/")), "{push}");
    assert!(
        folder.path().join("roadstead-data").is_dir(),
        "the default data directory"
    );
}

#[test]
fn every_flag_is_an_environment_variable_and_an_empty_one_is_unset() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let start = |listen: &str| {
        roadstead()
            .args(["--data", data.to_str().unwrap()])
            .env("ROADSTEAD_LISTEN", listen)
            .env("ROADSTEAD_HTPASSWD", "")
            .env("ROADSTEAD_ALLOW_ANONYMOUS", "")
            .env("ROADSTEAD_IDLE_TIMEOUT", "")
            .output()
            .unwrap()
    };
    // An empty file name or policy would be an error of its own; the address from the environment is refused.
    let output = start("0.0.0.0:0");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("refusing to serve 0.0.0.0:0"),
        "{}",
        stderr(&output)
    );
    // So do the variables of a command, and of one below another.
    for command in [&["collect"][..], &["repo", "create", "team/app"]] {
        let output = roadstead()
            .args(command)
            .args(["--data", data.to_str().unwrap()])
            .env("ROADSTEAD_BLOBS", "")
            .output()
            .unwrap();
        let text = stderr(&output);
        assert!(text.contains("cannot open the data directory"), "{command:?}: {text}");
    }
    let help = String::from_utf8(run(["serve", "--help"]).stdout).unwrap();
    let (help, _) = help.split_once("Examples:").unwrap();
    let flags = help.lines().filter(|line| line.trim_start().starts_with("--")).count();
    let variables = help
        .lines()
        .filter(|line| line.trim_start().starts_with("[env: ROADSTEAD_"))
        .count();
    assert!(flags > 15, "{help}");
    assert_eq!(flags, variables, "{help}");
}

/// The allocator asks the system for huge pages; then each of a size that is used for the first time takes 2 MiB.
#[cfg(target_os = "linux")]
#[test]
fn memory_is_taken_in_pages_of_the_usual_size() {
    let server = Server::start(&[]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    // Systems before Linux 5.0 do not tell.
    let enabled = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"));
    assert!(enabled.is_none_or(|enabled| enabled.trim() == "0"), "{status}");
}
