//! The commands for users, robots, keys, groups, signing keys and the policy, on `SQLite`, beside a running server.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{EMPTY, MANIFEST_TYPE, MAX_WAIT, PAYMENTS_POLICY, Server, manifest, roadstead};

const PASSWORD: &str = "correct horse battery";

/// A directory for a registry.
pub(super) struct Registry {
    pub(super) folder: Arc<TempDir>,
}

impl Registry {
    pub(super) fn new() -> Self {
        Self {
            folder: Arc::new(TempDir::new().unwrap()),
        }
    }

    /// The same, with the administrator `root`, who has no password.
    pub(super) fn with_admin() -> Self {
        let registry = Self::new();
        registry.run(&["user", "add", "root", "--admin", "--no-password"]);
        registry
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Runs a command on the registry, with `input` on its standard input.
    pub(super) fn run_with(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = roadstead()
            .args(arguments)
            .args(["--data", &self.path("data")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that reads nothing may have ended before.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Runs a command that succeeds, and returns its standard output and standard error.
    pub(super) fn run(&self, arguments: &[&str]) -> (String, String) {
        let output = self.run_with(arguments, &format!("{PASSWORD}\n"));
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
        (stdout, stderr)
    }

    /// Runs a command that succeeds, and returns the objects that it prints.
    pub(super) fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let (stdout, _) = self.run(&[arguments, &["--json"]].concat());
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Runs a command that fails with this code, prints nothing to standard output, and says why.
    pub(super) fn fail(&self, arguments: &[&str], code: i32, reported: &str) {
        let output = self.run_with(arguments, "");
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(reported), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn users_are_added_changed_and_removed() {
    let registry = Registry::new();
    // Before there is a registry.
    let (stdout, _) = registry.run(&[
        "user",
        "add",
        "alice",
        "--admin",
        "--group",
        "payments,ops",
        "--password-stdin",
    ]);
    assert_eq!(stdout, "added the user alice, groups: admins,ops,payments\n");
    registry.run(&["user", "add", "bob", "--no-password"]);
    assert_eq!(registry.run(&["user", "list"]).0, "alice\nbob\n");
    let alice = &registry.json(&["user", "show", "alice"])[0];
    assert_eq!(alice["groups"], json!(["admins", "ops", "payments"]));
    assert_eq!(
        (&alice["has_password"], &alice["disabled"], &alice["by"]),
        (&json!(true), &json!(false), &json!(":operator"))
    );
    assert!(!alice.to_string().contains("argon2"), "{alice}");
    assert_eq!(registry.json(&["user", "show", "bob"])[0]["has_password"], false);

    registry.run(&["user", "set", "bob", "--add-group", "payments", "--add-group", "dev"]);
    let bob = &registry.json(&["user", "set", "bob", "--remove-group", "dev"])[0];
    assert_eq!(bob["groups"], json!(["payments"]));
    let groups = registry.json(&["group", "list"]);
    assert_eq!(groups[2], json!({ "group": "payments", "members": ["alice", "bob"] }));
    assert_eq!(registry.run(&["group", "list"]).0.lines().next(), Some("admins\talice"));

    assert_eq!(
        registry.run(&["user", "disable", "bob"]).0,
        "disabled the user bob, groups: payments\n"
    );
    assert!(registry.run(&["user", "disable", "bob"]).0.starts_with("unchanged:"));
    assert_eq!(registry.json(&["user", "show", "bob"])[0]["disabled"], true);
    registry.run(&["user", "enable", "bob"]);
    registry.run(&["user", "passwd", "bob", "--password-stdin"]);
    assert_eq!(registry.json(&["user", "show", "bob"])[0]["has_password"], true);
    registry.run(&["user", "remove", "bob"]);
    assert_eq!(registry.run(&["user", "list"]).0, "alice\n");
}

#[test]
fn s18_a_key_is_printed_once_and_alone() {
    let registry = Registry::with_admin();
    let (key, said) = registry.run(&[
        "robot",
        "add",
        "ci",
        "--allow",
        "pull,create:payments/**",
        "--expires",
        "90d",
    ]);
    let key = key.strip_suffix('\n').unwrap();
    assert!(is_key(key, "ci"), "{key}");
    assert!(
        said.contains("added the robot ci") && said.contains("not shown again"),
        "{said}"
    );
    assert!(!said.contains(key));
    let robot = &registry.json(&["robot", "show", "ci"])[0];
    assert_eq!(
        robot["grants"],
        json!([{ "repositories": "payments/**", "actions": ["pull", "create"] }])
    );
    let listed = registry.json(&["key", "list", "ci"]).remove(0);
    assert_eq!(robot["keys"], json!([listed["id"]]));
    assert_eq!(listed["last_used"], Value::Null);
    let shown = registry.run(&["robot", "show", "ci"]).0 + &robot.to_string();
    assert!(!shown.contains(&key[20..]), "{shown}");

    // In JSON, the key is a member.
    let added = &registry.json(&["key", "add", "ci", "--expires", "never", "--scope", "pull:**"])[0];
    assert!(is_key(added["key"].as_str().unwrap(), "ci"));
    assert_eq!((&added["expires"], &added["account"]), (&json!("never"), &json!("ci")));
    assert_eq!(added["scope"], json!([{ "repositories": "**", "actions": ["pull"] }]));
    assert_eq!(registry.json(&["key", "list", "ci"]).len(), 2);
    // No file of the registry holds a key.
    for entry in std::fs::read_dir(registry.path("data")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let content = std::fs::read(&path).unwrap();
            let secret = &key.as_bytes()[20..];
            assert!(
                !content.windows(secret.len()).any(|part| part == secret),
                "{}",
                path.display()
            );
        }
    }
}

/// Whether the text is a key of this account.
fn is_key(key: &str, account: &str) -> bool {
    let body = key.strip_prefix(&format!("rsk_{account}."));
    body.is_some_and(|body| body.len() == 57 && body.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

#[test]
fn keys_are_rotated_and_removed() {
    let registry = Registry::with_admin();
    registry.run(&["robot", "add", "ci", "--expires", "30d"]);
    let old = registry.json(&["key", "list", "ci"])[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let (key, said) = registry.run(&["key", "rotate", "ci", "--expires", "30d"]);
    assert!(
        is_key(key.trim_end(), "ci") && said.contains(&format!("the old key {old} ends at")),
        "{said}"
    );
    let keys = registry.json(&["key", "list", "ci"]);
    assert_eq!(keys.len(), 2);
    registry.fail(&["key", "rotate", "ci", "--expires", "30d"], 2, "several keys");
    let (_, said) = registry.run(&["key", "rotate", "ci", &old, "--overlap", "0", "--expires", "never"]);
    assert!(said.contains(&format!("removed the old key {old}")), "{said}");
    let keys = registry.json(&["key", "list", "ci"]);
    // In JSON, the new key names the old one.
    registry.run(&["robot", "add", "other", "--expires", "never"]);
    let first = registry.json(&["key", "list", "other"])[0]["id"].clone();
    let second = registry
        .json(&["key", "rotate", "other", "--expires", "never"])
        .remove(0);
    let ends = &registry.json(&["key", "list", "other"]);
    let ends = &ends.iter().find(|key| key["id"] == first).unwrap()["expires"];
    assert_eq!((&second["old_id"], &second["old_ends"]), (&first, ends));
    assert!(ends.as_str().is_some_and(|at| at.ends_with('Z')), "{ends}");
    let id = second["id"].as_str().unwrap();
    let third = &registry.json(&["key", "rotate", "other", id, "--overlap", "0", "--expires", "never"])[0];
    assert_eq!((&third["old_id"], &third["old_ends"]), (&second["id"], &Value::Null));
    assert!(keys.len() == 2 && keys.iter().all(|key| key["id"] != old.as_str()));
    let id = keys[0]["id"].as_str().unwrap();
    assert_eq!(
        registry.run(&["key", "remove", "ci", id]).0,
        format!("removed the key {id} of ci\n")
    );
    registry.fail(&["key", "remove", "ci", id], 3, "no key");
}

#[test]
fn grants_with_which_most_clients_cannot_push_are_warned_of() {
    let registry = Registry::with_admin();
    let warned = |arguments: &[&str], grants: &[&str]| {
        let (_, said) = registry.run(arguments);
        let warnings: Vec<_> = said.lines().filter(|line| line.starts_with("warning: ")).collect();
        assert_eq!(warnings.len(), grants.len(), "{said}");
        for (warning, grant) in warnings.iter().zip(grants) {
            assert!(warning.contains(&format!("the grant {grant} has no pull")), "{said}");
        }
    };
    let add = [
        "robot",
        "add",
        "ci",
        "--expires",
        "never",
        "--allow",
        "push:a/**",
        "--allow",
        "pull,create:b",
    ];
    warned(&add, &["push:a/**"]);
    warned(&["robot", "set", "ci", "--add-group", "dev"], &[]);
    warned(
        &["robot", "set", "ci", "--disallow", "pull:b"],
        &["push:a/**", "create:b"],
    );
    warned(&["robot", "set", "ci", "--allow", "pull:**", "--json"], &[]);
}

#[test]
fn failures_of_administration_have_exit_codes_and_say_what_to_do() {
    let registry = Registry::new();
    registry.run(&["user", "add", "root", "--admin", "--password-stdin"]);
    registry.run(&["robot", "add", "ci", "--allow", "pull:a", "--expires", "never"]);
    for (arguments, code, reported) in [
        (
            &["user", "show", "nobody"][..],
            3,
            "there is no user nobody; `roadstead user list`",
        ),
        (
            &["robot", "show", "nobody"],
            3,
            "there is no robot nobody; `roadstead robot list`",
        ),
        (
            &["key", "list", "nobody"],
            3,
            "there is no account nobody; `roadstead user list`",
        ),
        (&["user", "show", "ci"], 1, "roadstead robot"),
        (
            &["user", "add", "ci", "--no-password"],
            1,
            "there is a robot ci already",
        ),
        (&["user", "add", "zoe", "--password-stdin"], 1, "cannot be empty"),
        (&["user", "disable", "root"], 1, "--force"),
        (&["user", "remove", "root"], 1, "last enabled administrator"),
        (&["user", "set", "root", "--remove-group", "admins"], 1, "--force"),
        (&["user", "set", "root"], 2, "--help"),
        (
            &["user", "set", "root", "--remove-group", "dev"],
            1,
            "not in the group dev",
        ),
        (&["robot", "set", "ci", "--disallow", "push:a"], 1, "no grant push:a"),
        (
            &["key", "remove", "ci", "unknown0"],
            3,
            "no key unknown0; `roadstead key list ci`",
        ),
        (&["policy", "show", "--version", "7"], 3, "no version 7"),
        (
            &["policy", "explain", "robot:nobody", "pull", "a"],
            3,
            "no robot nobody",
        ),
        (&["policy", "explain", "alice", "read", "a"], 2, "expected pull"),
        (
            &["policy", "explain", "alice", "pull", "A"],
            2,
            "not a valid name of a repository",
        ),
        (&["policy", "set", "/no/such/file"], 3, "does not exist"),
    ] {
        registry.fail(arguments, code, reported);
    }
    let short = registry.run_with(&["user", "passwd", "root", "--password-stdin"], "short\n");
    assert_eq!(short.status.code(), Some(1));
    assert!(text(&short.stderr).contains("at least 12 bytes"));
    registry.run(&["user", "disable", "root", "--force"]);
}

/// A mistyped path makes no second registry. The first account may, and says so.
#[test]
fn only_the_first_user_makes_a_registry() {
    let registry = Registry::new();
    let file = registry.path("policy.toml");
    std::fs::write(&file, PAYMENTS_POLICY).unwrap();
    for arguments in [
        &["user", "list"][..],
        &["robot", "add", "ci", "--expires", "never"],
        &["policy", "set", &file],
        &["signing-key", "rotate"],
    ] {
        registry.fail(arguments, 1, "--data");
    }
    let data = registry.path("data");
    assert!(!Path::new(&data).exists());
    let add = |name: &str| registry.run(&["user", "add", name, "--no-password"]).1;
    assert_eq!(add("alice"), format!("made a new registry in {data}\n"));
    assert_eq!(add("bob"), "");
}

#[test]
fn a_policy_is_set_shown_checked_and_explained() {
    let registry = Registry::new();
    registry.run(&["user", "add", "zoe", "--group", "payments", "--password-stdin"]);
    let (default, said) = registry.run(&["policy", "show"]);
    assert!(
        default.contains("name = \"default\"") && said.contains("default policy"),
        "{said}"
    );
    let (explained, _) = registry.run(&["policy", "explain", "bob", "push", "anything"]);
    assert!(
        explained.starts_with("allowed: ") && explained.contains("default"),
        "{explained}"
    );
    // A name may be mistyped.
    assert!(
        explained.ends_with("; there is no account bob: this is the answer for a user of a htpasswd file\n"),
        "{explained}"
    );
    let (explained, _) = registry.run(&["policy", "explain", "zoe", "push", "anything"]);
    assert!(!explained.contains("account"), "{explained}");

    let file = registry.path("policy.toml");
    std::fs::write(&file, PAYMENTS_POLICY).unwrap();
    let (checked, _) = registry.run(&["policy", "check", &file]);
    assert!(checked.contains("2 rules"), "{checked}");
    let set = registry
        .run(&["policy", "set", &file, "--if-version", "0", "--note", "first\nlines"])
        .0;
    assert!(set.contains("set version 2"), "{set}");
    let (shown, said) = registry.run(&["policy", "show"]);
    assert_eq!(shown, format!("{PAYMENTS_POLICY}# roadstead policy version 2\n"));
    assert!(said.contains("version 2") && said.contains("first\\nlines"), "{said}");
    let versions = registry.json(&["policy", "versions"]);
    assert_eq!(
        (versions.len(), &versions[0]["version"], &versions[0]["note"]),
        (1, &json!(2), &json!("first\nlines"))
    );

    let explain = |arguments: &[&str]| registry.json(&[&["policy", "explain"], arguments].concat()).remove(0);
    let decided = |answer: &Value| {
        (
            answer["decision"].clone(),
            answer["rule"].clone(),
            answer["line"].clone(),
        )
    };
    let allowed = (json!("allowed"), json!("payments team"), json!(3));
    assert_eq!(decided(&explain(&["zoe", "push", "payments/api"])), allowed);
    assert_eq!(decided(&explain(&["zoe", "push", "payments/api:1.0.0"])), allowed);
    assert_eq!(
        decided(&explain(&["zoe", "pull", "other"])),
        (json!("denied"), Value::Null, Value::Null)
    );
    assert_eq!(explain(&["anonymous", "pull", "payments/api"])["decision"], "denied");
    registry.run(&["user", "disable", "zoe"]);
    let answer = explain(&["zoe", "push", "payments/api"]);
    assert!(
        answer["decision"] == "denied" && answer["reason"].as_str().unwrap().contains("disabled"),
        "{answer}"
    );
    // A policy that is not in force.
    let other = registry.path("other.json");
    let rule = json!({ "name": "all", "who": ["anyone"], "repositories": ["**"], "actions": ["pull"] });
    std::fs::write(&other, json!({ "syntax": 1, "allow": [rule] }).to_string()).unwrap();
    let answer = explain(&["anonymous", "pull", "payments/api", "--file", &other]);
    assert_eq!(
        (&answer["decision"], &answer["rule"], &answer["version"]),
        (&json!("allowed"), &json!("all"), &Value::Null)
    );

    // Conditions and mistakes change nothing.
    registry.fail(
        &["policy", "set", &other, "--if-version", "1"],
        1,
        "version 2 is in force now",
    );
    let wrong = registry.path("wrong.toml");
    std::fs::write(
        &wrong,
        PAYMENTS_POLICY
            .replace("\"push\"", "\"write\"")
            .replace("who =", "whom ="),
    )
    .unwrap();
    for arguments in [["policy", "set", &wrong], ["policy", "check", &wrong]] {
        registry.fail(&arguments, 1, "wrong.toml:5:1: ");
        registry.fail(&arguments, 1, "wrong.toml:7:20: ");
    }
    assert_eq!(registry.json(&["policy", "show"])[0]["version"], 2);
    let warned = registry.path("warned.toml");
    std::fs::write(&warned, PAYMENTS_POLICY.replace("group:payments", "group:nobody")).unwrap();
    assert_eq!(registry.run(&["policy", "check", &warned]).1, "");
    let (_, said) = registry.run(&["policy", "check", &warned, "--accounts"]);
    assert!(
        said.contains("warned.toml:3:1: warning: ") && said.contains("group:nobody"),
        "{said}"
    );
}

#[test]
fn a_frozen_tag_is_explained_beside_a_running_server() {
    let registry = Registry::new();
    let server = Server::start_in(registry.folder.clone(), &[]);
    server.push_blob("payments/api", EMPTY);
    let put = server.request(
        "PUT",
        "/v2/payments/api/manifests/1.0.0",
        &[MANIFEST_TYPE],
        &manifest("a"),
    );
    assert_eq!(put.status, 201, "{put:?}");
    let file = registry.path("policy.toml");
    std::fs::write(&file, PAYMENTS_POLICY).unwrap();
    // The registry of the server stays open without accounts.
    for (principal, tag, decision, rule) in [
        ("robot", "1.0.0", "denied", Value::Null),
        ("payments", "1.0.0", "denied", json!("releases")),
        ("payments", "2.0.0", "allowed", json!("payments team")),
        ("payments", "latest", "allowed", json!("payments team")),
    ] {
        let policy = PAYMENTS_POLICY.replace("group:payments", "user:payments");
        std::fs::write(&file, policy).unwrap();
        let target = format!("payments/api:{tag}");
        let answer = registry
            .json(&["policy", "explain", principal, "push", &target, "--file", &file])
            .remove(0);
        assert_eq!(
            (&answer["decision"], &answer["rule"]),
            (&json!(decision), &rule),
            "{principal} {tag}: {answer}"
        );
    }
}

#[test]
fn signing_keys_are_rotated() {
    let registry = Registry::with_admin();
    let rotate = |ahead: &[&str]| registry.json(&[&["signing-key", "rotate"], ahead].concat()).remove(0);
    let first = rotate(&[]);
    // No other key could sign.
    for (key, condition) in [
        (&first, "signing"),
        (&rotate(&[]), "published"),
        (&rotate(&["--publish-ahead", "2h"]), "published"),
    ] {
        assert_eq!((&key["condition"], &key["until"]), (&json!(condition), &Value::Null));
    }
    registry.fail(&["signing-key", "rotate", "--publish-ahead", "1s"], 2, "2s to 24h");
    registry.fail(&["signing-key", "rotate", "--publish-ahead", "1h", "--now"], 2, "--now");
    let (said, _) = registry.run(&["signing-key", "rotate", "--now"]);
    assert!(said.contains("signs now"), "{said}");
    let keys = registry.json(&["signing-key", "list"]);
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0]["condition"], "signing");
    assert_ne!(keys[0]["kid"], first["kid"]);
}

/// Each filter of the audit trail, and events that are printed as they come.
#[test]
fn the_audit_trail_is_filtered_and_followed() {
    let registry = Registry::new();
    let server = Server::start_in(registry.folder.clone(), &[]);
    registry.run(&["repo", "create", "payments/one"]);
    let mut follower = roadstead()
        .args(["audit", "--follow", "--json", "--event", "repository.created"])
        .args(["--data", &registry.path("data")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (sender, events) = mpsc::channel();
    let lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let reader = thread::spawn(move || lines.map_while(Result::ok).for_each(|line| sender.send(line).unwrap()));
    let next = || -> Value { serde_json::from_str(&events.recv_timeout(MAX_WAIT).unwrap()).unwrap() };
    assert_eq!(next()["repository"], "payments/one");
    // An event of another kind, and then two that are waited for.
    server.push_blob("payments/api", EMPTY);
    let path = "/v2/payments/api/manifests/1.0.0";
    let put = server.request("PUT", path, &[MANIFEST_TYPE], &manifest("a"));
    assert_eq!(put.status, 201, "{put:?}");
    for name in ["payments/two", "payments/three"] {
        registry.run(&["repo", "create", name]);
        let event = next();
        assert_eq!(
            (&event["repository"], &event["principal"]),
            (&json!(name), &json!(":operator"))
        );
    }
    follower.kill().unwrap();
    follower.wait().unwrap();
    reader.join().unwrap();
    for (flags, expected) in [
        (&["--principal", ":operator"][..], 3),
        (&["--principal", "anonymous"], 1),
        (&["--principal", "alice"], 0),
        (&["--repository", "payments/api"], 1),
        (&["--repository", "payments/two"], 1),
        (&["--event", "manifest.pushed"], 1),
        (&["--event", "repository.created", "--repository", "payments/api"], 0),
        (&["--since", "1h"], 4),
        (&[], 4),
    ] {
        let found = registry.json(&[&["audit"], flags].concat());
        assert_eq!(found.len(), expected, "{flags:?}: {found:?}");
    }
    registry.fail(&["audit", "--event", "coffee"], 2, "manifest.pushed");
}
