//! The operator's commands, beside a running server and after it.

use std::io::Write as _;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::support::{EMPTY, MANIFEST_TYPE, Server, basic, digest, folder_with_users, manifest, roadstead, run};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(output: &Output) -> Vec<Value> {
    text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A server with three repositories.
fn server() -> Server {
    let server = Server::start(&[]);
    for (repository, tags) in [
        ("team/app", &["v1", "v2", "latest"][..]),
        ("zoo", &["latest"]),
        ("base", &[]),
    ] {
        server.push_blob(repository, EMPTY);
        for tag in tags {
            put(&server, repository, tag, tag);
        }
        if tags.is_empty() {
            put(&server, repository, &digest(&manifest("untagged")), "untagged");
        }
    }
    server
}

fn put(server: &Server, repository: &str, reference: &str, note: &str) {
    let response = server.request(
        "PUT",
        &format!("/v2/{repository}/manifests/{reference}"),
        &[MANIFEST_TYPE],
        &manifest(note),
    );
    assert_eq!(response.status, 201, "{response:?}");
}

#[test]
fn lists_are_lines_in_a_pipe_and_json_where_asked_for() {
    let server = server();
    let data = server.data();
    let command = |arguments: &[&str]| {
        let output = roadstead().args(arguments).arg("--data").arg(&data).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        output
    };
    assert_eq!(text(&command(&["repo", "list"]).stdout), "base\nteam/app\nzoo\n");
    assert_eq!(json(&command(&["repo", "list", "--json"]))[1]["repository"], "team/app");
    assert_eq!(text(&command(&["tag", "list", "team/app"]).stdout), "latest\nv1\nv2\n");
    assert_eq!(text(&command(&["tag", "list", "base"]).stdout), "");
    let tags = json(&command(&["tag", "list", "team/app", "--json"]));
    assert_eq!(tags.len(), 3);
    assert_eq!(tags[1]["tag"], "v1");
    assert_eq!(tags[1]["digest"], digest(&manifest("v1")));
    assert_eq!(tags[1]["size"], manifest("v1").len());
    assert_eq!(tags[1]["media_type"], MANIFEST_TYPE.1);
    assert!(tags[1]["updated"].as_str().unwrap().ends_with('Z'));

    put(&server, "team/app", "v1", "v1 again");
    let path = "/v2/team/app/manifests/v1";
    assert_eq!(server.request("DELETE", path, &[], b"").status, 202);
    let history = json(&command(&["tag", "history", "team/app", "v1", "--json"]));
    let (first, second) = (digest(&manifest("v1")), digest(&manifest("v1 again")));
    let changes: Vec<_> = history
        .iter()
        .map(|change| (change["before"].as_str(), change["after"].as_str()))
        .collect();
    assert_eq!(
        changes,
        [
            (Some(&*second), None),
            (Some(&*first), Some(&*second)),
            (None, Some(&*first))
        ]
    );
    let lines = text(&command(&["tag", "history", "team/app", "v1"]).stdout);
    assert_eq!(lines.lines().count(), 3);
    assert!(
        lines.lines().next().unwrap().ends_with(&format!("\t{second}\t-")),
        "{lines}"
    );
}

#[test]
fn the_history_of_a_tag_names_the_principal() {
    let folder = folder_with_users(&[("alice", "secret")]);
    let server = Server::start_in(folder, &["--htpasswd", "users"]);
    let alice = basic("alice", "secret");
    let authorization = ("Authorization", alice.as_str());
    let upload = server.open_upload("app", &[authorization]);
    let finish = format!("{upload}?digest={}", digest(EMPTY));
    assert_eq!(server.request("PUT", &finish, &[authorization], EMPTY).status, 201);
    let put = server.request(
        "PUT",
        "/v2/app/manifests/a",
        &[authorization, MANIFEST_TYPE],
        &manifest("a"),
    );
    assert_eq!(put.status, 201);
    let data = server.data();
    let output = run(["tag", "history", "app", "a", "--json", "--data", data.to_str().unwrap()]);
    assert_eq!(json(&output)[0]["principal"], "alice");
}

/// The id of a request is in its response, in its access line, and in the audit trail. Commands have none.
#[test]
fn the_audit_trail_names_the_request() {
    let server = Server::start(&[]);
    let path = "/v2/app/manifests/latest";
    server.push_blob("app", EMPTY);
    let pushed = server.request("PUT", path, &[MANIFEST_TYPE], &manifest("one"));
    let id = pushed.header("X-Request-Id").unwrap();
    assert_eq!(server.request("GET", path, &[], b"").header("X-Request-Id"), None);
    let line = server.wait_for_line("the push is logged", |line| {
        line["target"] == "access" && line["request"] == id
    });
    assert_eq!((&line["method"], &line["path"]), (&"PUT".into(), &path.into()));
    let data = server.data();
    let command = |arguments: &[&str]| {
        let output = roadstead().args(arguments).arg("--data").arg(&data).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        output
    };
    command(&["repo", "create", "listed"]);
    let events = json(&command(&["audit", "--json"]));
    let found: Vec<_> = events
        .iter()
        .map(|event| (event["event"].as_str(), event["request"].as_str()))
        .collect();
    assert_eq!(
        found,
        [(Some("manifest.pushed"), Some(id)), (Some("repository.created"), None)]
    );
}

/// More than one page of both kinds, read page by page.
#[test]
fn long_lists_are_whole_and_in_order() {
    let server = Server::start(&[]);
    server.push_blob("app", EMPTY);
    let mut client = server.connect();
    let body = manifest("many");
    for group in 0..51 {
        let tags: Vec<_> = (0..20).map(|index| format!("tag=t{:04}", group * 20 + index)).collect();
        let path = format!("/v2/app/manifests/{}?{}", digest(&body), tags.join("&"));
        let put = client.request("PUT", &path, &[MANIFEST_TYPE], &body);
        assert_eq!(put.status, 201, "{put:?}");
    }
    let data = server.data();
    let output = run(["tag", "list", "app", "--data", data.to_str().unwrap()]);
    let printed = text(&output.stdout);
    let expected = (0..1020).map(|index| format!("t{index:04}"));
    assert!(printed.lines().eq(expected), "{printed}");
}

#[test]
fn a_repository_is_created_beside_a_running_server() {
    let server = server();
    let data = server.data();
    let data = data.to_str().unwrap();
    for (created, outcome) in [(true, "created"), (false, "exists")] {
        let json = run(["repo", "create", "new/app", "--json", "--data", data]);
        assert_eq!(json.status.code(), Some(0), "{}", text(&json.stderr));
        let expected = format!("{{\"created\":{created},\"repository\":\"new/app\"}}\n");
        assert_eq!(text(&json.stdout), expected);
        let name = format!("other/{outcome}");
        let lines = run(["repo", "create", &name, "--data", data]);
        assert_eq!(text(&lines.stdout), format!("{name}\tcreated\n"));
        let lines = run(["repo", "create", &name, "--data", data]);
        assert_eq!(text(&lines.stdout), format!("{name}\texists\n"));
    }
    let listed = run(["repo", "list", "--data", data]);
    assert!(text(&listed.stdout).lines().any(|line| line == "new/app"));
    let tags = server.connect().request("GET", "/v2/new/app/tags/list", &[], b"");
    assert_eq!(tags.status, 200, "{tags:?}");
}

#[test]
fn failures_have_exit_codes_and_say_what_to_do() {
    let server = server();
    let data = server.data();
    let data = data.to_str().unwrap();
    let absent = server.folder.path().join("absent");
    let absent_text = absent.to_str().unwrap();
    for (arguments, code, reported) in [
        (&["tag", "list", "no/such", "--data", data][..], 3, "repo list"),
        (&["tag", "history", "zoo", "never", "--data", data], 3, "tag list zoo"),
        (&["tag", "history", "no/such", "a", "--data", data], 3, "repo list"),
        (
            &["tag", "list", "Not/A/Name", "--data", data],
            2,
            "not a valid name of a repository",
        ),
        (
            &["tag", "history", "zoo", "not a tag", "--data", data],
            2,
            "not a valid name of a tag",
        ),
        (&["repo", "list", "--data", absent_text], 1, "--data"),
        (&["repo", "create", "new", "--data", absent_text], 1, "--data"),
        (
            &["repo", "create", "Not/A/Name", "--data", data],
            2,
            "not a valid name of a repository",
        ),
        (&["htpasswd", "a:b"], 2, "colon"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(
            text(&output.stderr).contains(reported),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    assert!(!absent.exists(), "a command that reads makes nothing");
}

#[test]
fn a_reader_who_leaves_early_is_no_failure() {
    let server = server();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = roadstead()
        .args(["repo", "list", "--data"])
        .arg(server.data())
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

/// What the command prints is what the server takes.
#[test]
fn a_line_for_a_user_lets_that_user_in() {
    let make = |password: &str| {
        let mut child = roadstead()
            .args(["htpasswd", "zoë"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = make("pass word\n");
    let folder = folder_with_users(&[]);
    std::fs::write(folder.path().join("users"), &output.stdout).unwrap();
    let server = Server::start_in(folder, &["--htpasswd", "users"]);
    let ping = |password: &str| {
        server
            .request("GET", "/v2/", &[("Authorization", &basic("zoë", password))], b"")
            .status
    };
    assert_eq!(ping("pass word"), 200);
    assert_eq!(ping("pass word\n"), 401);
    for refused in ["", "\n", "a\0b", &"x".repeat(12 << 10)] {
        assert_eq!(make(refused).status.code(), Some(1), "{refused:?}");
    }
}
