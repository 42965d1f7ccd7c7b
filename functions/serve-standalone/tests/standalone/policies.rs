//! Policies in the table, and servers beside the commands that set and explain them.

use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value, json};

use super::administration::Registry;
use crate::support::{Server, basic, eventually, roadstead};

/// Within this time, servers follow a policy.
const FOLLOWED: Duration = Duration::from_secs(10);
/// Between two requests of a client, so that tests beside this one have processors too.
const PAUSE: Duration = Duration::from_millis(5);
pub(super) const INDEX_TYPE: (&str, &str) = ("Content-Type", "application/vnd.oci.image.index.v1+json");

/// A policy that lets the robot `ci` pull and push in some repositories.
fn policy(repositories: &str) -> String {
    format!(
        "syntax = 1\n\n[[allow]]\nname = \"ci\"\nwho = [\"robot:ci\"]\nrepositories = [\"{repositories}\"]\n\
         actions = [\"pull\", \"push\"]\n"
    )
}

impl Registry {
    /// Writes a policy to a file, and returns its path.
    fn write_policy(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(super) fn set_policy(&self, text: &str) {
        let path = self.write_policy("policy.toml", text);
        self.run(&["policy", "set", &path]);
    }

    /// Adds a robot, and returns the field Authorization with its key.
    pub(super) fn add_robot(&self, name: &str, grants: &[&str]) -> String {
        let key = self
            .run(&[&["robot", "add", name, "--expires", "never"], grants].concat())
            .0;
        basic(name, key.trim_end())
    }

    pub(super) fn add_user(&self, name: &str, flags: &[&str]) -> String {
        self.run(&[&["user", "add", name, "--no-password"], flags].concat());
        let key = self.run(&["key", "add", name, "--expires", "never"]).0;
        basic(name, key.trim_end())
    }
}

/// A manifest that refers to nothing, and differs from others by `note`.
pub(super) fn empty_index(note: &str) -> Vec<u8> {
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX_TYPE.1, "manifests": [], "annotations": { "note": note },
    });
    index.to_string().into_bytes()
}

/// Sends requests to a server until it has followed the policy that was set at `set`, and some more. Only the repository
/// `two/app` may be pulled then.
fn follow(server: &Server, authorization: &str, set: &OnceLock<Instant>, requests: &AtomicU64) {
    let mut client = server.connect();
    let mut since_then = 0;
    while since_then < 20 {
        let begun = Instant::now();
        let statuses = ["one/app", "two/app"].map(|repository| {
            let path = format!("/v2/{repository}/manifests/1");
            client
                .request("GET", &path, &[("Authorization", authorization)], b"")
                .status
        });
        requests.fetch_add(1, Ordering::SeqCst);
        match statuses {
            [403, 200] => since_then += 1,
            // The second request may be the first one that the new policy decides.
            [200, 403 | 200] => {
                assert_eq!(since_then, 0, "the policy from before is back");
                let is_late = set
                    .get()
                    .is_some_and(|set| begun.saturating_duration_since(*set) >= FOLLOWED);
                assert!(
                    !is_late,
                    "a request that began {FOLLOWED:?} later met the policy from before"
                );
            }
            statuses => panic!("{statuses:?}"),
        }
        thread::sleep(PAUSE);
    }
}

#[test]
fn three_servers_follow_a_policy_while_requests_run() {
    let registry = Registry::with_admin();
    let ci = registry.add_robot("ci", &[]);
    registry.set_policy(&policy("**"));
    let servers = [(); 3].map(|()| Server::start_in(registry.folder.clone(), &[]));
    for repository in ["one/app", "two/app"] {
        let path = format!("/v2/{repository}/manifests/1");
        let headers = [INDEX_TYPE, ("Authorization", ci.as_str())];
        assert_eq!(servers[0].request("PUT", &path, &headers, &empty_index("")).status, 201);
    }
    registry.set_policy(&policy("one/**"));
    eventually("all servers have the policy from before", || {
        let pull = |server: &Server| {
            let headers = [("Authorization", ci.as_str())];
            server.request("GET", "/v2/two/app/manifests/1", &headers, b"").status
        };
        servers.iter().all(|server| pull(server) == 403).then_some(())
    });
    let (set, requests) = (OnceLock::new(), [(); 3].map(|()| AtomicU64::new(0)));
    thread::scope(|scope| {
        for (server, requests) in servers.iter().zip(&requests) {
            let (ci, set) = (ci.as_str(), &set);
            scope.spawn(move || follow(server, ci, set, requests));
        }
        eventually("requests run", || {
            let mut numbers = requests.iter().map(|number| number.load(Ordering::SeqCst));
            numbers.all(|number| number > 10).then_some(())
        });
        registry.set_policy(&policy("two/**"));
        set.set(Instant::now()).unwrap();
    });
}

#[test]
fn of_two_policies_set_at_the_same_time_one_wins() {
    let registry = Registry::new();
    registry.add_user("root", &["--admin"]);
    let names = ["left", "right"];
    let files = names.map(|name| registry.write_policy(&format!("{name}.toml"), &policy(&format!("{name}/**"))));
    let mut version = 0;
    for round in 1..=5 {
        let children: [Child; 2] = [0, 1].map(|index: usize| {
            roadstead()
                .args(["policy", "set", &files[index], "--note", names[index]])
                .args(["--if-version", &version.to_string(), "--data", &registry.path("data")])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        });
        let outputs = children.map(|child| child.wait_with_output().unwrap());
        let codes = outputs.each_ref().map(|output| output.status.code());
        let winner = match codes {
            [Some(0), Some(1)] => 0,
            [Some(1), Some(0)] => 1,
            codes => panic!("{codes:?}: {outputs:?}"),
        };
        let reported = String::from_utf8_lossy(&outputs[1 - winner].stderr).into_owned();
        assert!(reported.contains("nothing was changed"), "{reported}");
        assert!(outputs[1 - winner].stdout.is_empty());
        let shown = registry.json(&["policy", "show"]).remove(0);
        assert_eq!(shown["note"], names[winner]);
        assert_eq!(shown["source"], policy(&format!("{}/**", names[winner])));
        assert_eq!(registry.json(&["policy", "versions"]).len(), round);
        version = shown["version"].as_u64().unwrap();
    }
}

/// What `policy show` has printed is conditional on the version that it was, and the line that says so is never stored.
#[test]
fn a_shown_policy_is_set_only_if_nobody_has_set_another_one_since() {
    let registry = Registry::with_admin();
    let file = registry.path("shown.toml");
    let show = |flags: &[&str]| {
        let (shown, _) = registry.run(&[&["policy", "show"], flags].concat());
        std::fs::write(&file, &shown).unwrap();
        shown
    };
    let set = |flags: &[&str]| registry.run(&[&["policy", "set", &file], flags].concat()).0;
    // The root is version 1 of the accounts and the policy. The default policy is version 0.
    let default = show(&[]);
    assert!(default.ends_with("\n# roadstead policy version 0\n"), "{default}");
    assert_eq!(
        set(&[]),
        "set version 2 of the policy, made from the default policy; every server follows within 10 seconds\n"
    );
    registry.fail(&["policy", "set", &file], 1, "version 2 is in force now");

    let shown = show(&[]);
    let (text, line) = shown.rsplit_once("# ").unwrap();
    assert_eq!(line, "roadstead policy version 2\n");
    assert!(default.starts_with(text), "{shown}");
    // Rules are added after the line, and a colleague is faster.
    let more = policy("more/**").replace("syntax = 1\n", "");
    std::fs::write(&file, format!("{shown}{more}")).unwrap();
    let other = registry.write_policy("other.toml", &policy("other/**"));
    let (said, _) = registry.run(&["policy", "set", &other]);
    assert!(
        said.contains("set version 3 of the policy, in place of version 2;"),
        "{said}"
    );
    registry.fail(
        &["policy", "set", &file],
        1,
        "version 3 is in force now, and yours was made from version 2",
    );
    registry.fail(&["policy", "set", &file], 1, "`roadstead policy show`");
    registry.fail(&["policy", "set", &file, "--if-version", "2"], 1, "nothing was changed");
    assert_eq!(registry.json(&["policy", "show"])[0]["source"], policy("other/**"));

    let forced = set(&["--if-version", "any"]);
    assert!(
        forced.contains("set version 4 of the policy, in place of version 3;"),
        "{forced}"
    );
    let shown = show(&[]);
    assert_eq!(shown.matches("# roadstead policy version ").count(), 1, "{shown}");
    assert!(shown.ends_with("# roadstead policy version 4\n"), "{shown}");
    let made = set(&[]);
    assert!(
        made.contains("set version 5 of the policy, made from version 4;"),
        "{made}"
    );
    for version in registry.json(&["policy", "versions"]) {
        let number = version["version"].to_string();
        let stored = registry.json(&["policy", "show", "--version", &number]).remove(0);
        let source = stored["source"].as_str().unwrap();
        assert!(!source.contains("# roadstead policy version"), "{number}: {source}");
    }

    // An earlier version is shown to go back to it.
    assert_eq!(show(&["--version", "3"]), policy("other/**"));
    let back = registry.json(&["policy", "set", &file]);
    assert_eq!((&back[0]["version"], &back[0]["replaced"]), (&json!(6), &json!(5)));
    // There is no robot `ci`.
    assert_eq!((back.len(), &back[1]["kind"]), (2, &json!("warning")));
}

/// As `policy check` does.
#[test]
fn mistakes_in_a_policy_that_is_set_are_objects_if_asked() {
    let registry = Registry::with_admin();
    let file = registry.write_policy("wrong.toml", &policy("**").replace("who =", "whom ="));
    let mut printed = Vec::new();
    for command in ["check", "set"] {
        let output = registry.run_with(&["policy", command, &file, "--json"], "");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let found: Vec<Value> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(
            !found.is_empty() && found.iter().all(|one| one["kind"] == "mistake"),
            "{found:?}"
        );
        assert!(!String::from_utf8_lossy(&output.stderr).contains("wrong.toml:"));
        printed.push(found);
    }
    assert_eq!(printed[0], printed[1]);
    assert_eq!(registry.json(&["policy", "versions"]).len(), 0);
}

/// Neither the default policy nor the one from before would be what an administrator has set.
#[test]
fn a_policy_that_a_newer_program_has_set_decides_nothing() {
    let registry = Registry::new();
    let alice = registry.add_user("alice", &[]);
    registry.set_policy(&policy("**"));
    let database = Connection::open(registry.folder.path().join("data/metadata.db")).unwrap();
    let newer = "UPDATE policy SET document = replace(document, '\"syntax\":1', '\"syntax\":2'), \
                 source = replace(source, 'syntax = 1', 'syntax = 2')";
    assert_eq!(database.execute(newer, []).unwrap(), 1);
    drop(database);
    let server = Server::start_in(registry.folder.clone(), &[]);
    let ask = |headers: &[(&str, &str)]| server.request("GET", "/v2/app/tags/list", headers, b"");
    for headers in [&[("Authorization", alice.as_str())][..], &[]] {
        let refused = ask(headers);
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(refused.header("retry-after").is_some(), "{refused:?}");
    }
    registry.fail(&["policy", "explain", "alice", "pull", "app"], 1, "policy");
    // Another policy puts an end to it.
    registry.set_policy(&policy("**").replace("robot:ci", "user:alice"));
    eventually("the server follows", || {
        let answer = ask(&[("Authorization", &alice)]);
        (answer.status != 503).then(|| assert_eq!(answer.status, 404, "{answer:?}"))
    });
}

const TEAM: &str = "syntax = 1

[[allow]]
name = \"team\"
who = [\"group:team\"]
repositories = [\"team/**\", \"listed/**\"]
actions = [\"pull\", \"push\", \"delete\"]

[[allow]]
name = \"public\"
who = [\"anyone\"]
repositories = [\"team/public\"]
actions = [\"pull\"]

[[immutable]]
name = \"releases\"
repositories = [\"**\"]
tags = [\"semver\"]

[[repository]]
match = [\"listed/**\"]
create = \"listed\"
max-blob = \"1GiB\"
";

/// For every principal, action and target: what the command says is what the server answers to the request.
#[test]
fn an_explanation_is_what_the_server_answers() {
    let registry = Registry::new();
    let alice = registry.add_user("alice", &["--group", "team"]);
    let bob = registry.add_user("bob", &[]);
    let ci = registry.add_robot("ci", &["--allow", "create:team/**"]);
    registry.set_policy(TEAM);
    registry.run(&["repo", "create", "listed/made"]);
    let server = Server::start_in(registry.folder.clone(), &[]);
    let send = |method: &str, target: &str, authorization: Option<&str>, body: &[u8]| {
        let mut headers = vec![INDEX_TYPE];
        headers.extend(authorization.map(|line| ("Authorization", line)));
        server.request(method, &format!("/v2/{target}"), &headers, body).status
    };
    for repository in ["team/app", "team/public"] {
        for tag in ["1.0.0", "latest"] {
            let target = format!("{repository}/manifests/{tag}");
            assert_eq!(send("PUT", &target, Some(&alice), &empty_index(tag)), 201);
        }
    }
    let mut number = 0;
    let mut decisions = [0, 0];
    for (principal, authorization) in [
        ("alice", Some(alice.as_str())),
        ("bob", Some(bob.as_str())),
        ("robot:ci", Some(ci.as_str())),
        ("anonymous", None),
    ] {
        for action in ["pull", "create", "push", "delete"] {
            for (repository, tag) in [
                ("team/app", "1.0.0"),
                ("team/app", "latest"),
                ("team/public", "new"),
                ("listed/made", "latest"),
                ("listed/new", "latest"),
            ] {
                let about = format!("{repository}:{tag}");
                let question = ["policy", "explain", principal, action, &about];
                let answer = registry.json(&question).remove(0);
                let is_allowed = answer["decision"] == "allowed";
                number += 1;
                let manifest = empty_index(&format!("number {number}"));
                let target = format!("{repository}/manifests/{tag}");
                let status = match action {
                    "pull" => send("GET", &target, authorization, b""),
                    "delete" => send("DELETE", &target, authorization, b""),
                    _ => send("PUT", &target, authorization, &manifest),
                };
                let is_permitted = match (action, status) {
                    ("pull", 200) | ("delete", 202) | ("create" | "push", 201) | ("pull" | "delete", 404) => true,
                    (_, 401 | 403) | ("create" | "push", 404) => false,
                    _ => panic!("{status}: {question:?}"),
                };
                assert_eq!(is_permitted, is_allowed, "{question:?}: {status}, {answer}");
                decisions[usize::from(is_allowed)] += 1;
            }
        }
    }
    assert!(decisions.iter().all(|number| *number > 10), "{decisions:?}");
    let explained = |question: [&str; 3]| registry.run(&[&["policy", "explain"][..], &question].concat()).0;
    assert_eq!(
        explained(["alice", "push", "listed/new"]),
        "denied: the repository listed/new does not exist, and its settings (line 20) do not let a push create it: \
         `roadstead repo create listed/new` does\n"
    );
    assert_eq!(
        explained(["alice", "push", "listed/made"]),
        "allowed: the rule \"team\" (line 3) allows it; the settings of the repository (line 20) demand: blobs have at \
         most 1GiB\n"
    );
}

/// A workload is a rule and the name that it gives. The rules are read, also while this version puts no such policy in force.
#[test]
fn explain_answers_for_workloads_of_a_file() {
    const POLICY: &str = r#"syntax = 1
[[issuer]]
name = "ci"
url = "https://ci.example"
audience = ["roadstead"]
[[workload]]
name = "main"
issuer = "ci"
claims = { branch = "main" }
as = "{repository}"
[[allow]]
name = "own"
who = ["workload:main"]
repositories = ["{name}"]
actions = ["pull", "create"]
"#;
    let registry = Registry::with_admin();
    let file = registry.write_policy("policy.toml", POLICY);
    let explained = |principal: &str, action: &str, target: &str| {
        let question = ["policy", "explain", principal, action, target, "--file", &file];
        registry.json(&question).remove(0)
    };
    let allowed = explained("workload:main:acme/app", "create", "acme/app:1.0.0");
    assert_eq!(
        (&allowed["decision"], &allowed["rule"], &allowed["line"]),
        (&"allowed".into(), &"own".into(), &11.into())
    );
    for (principal, action, target) in [
        ("workload:main:acme/app", "delete", "acme/app"),
        ("workload:main:acme/app", "pull", "acme/other"),
        ("workload:other:acme/app", "pull", "acme/app"),
        ("alice", "pull", "acme/app"),
    ] {
        assert_eq!(
            explained(principal, action, target)["decision"],
            "denied",
            "{principal} {action} {target}"
        );
    }
    registry.fail(&["policy", "set", &file], 1, "accepts no ID tokens yet");
    registry.fail(
        &["policy", "explain", "workload:main", "pull", "app", "--file", &file],
        2,
        "workload:RULE:NAME",
    );
}

/// The log says of a request in the API by which key it was made, as it does of the others.
#[test]
fn a_request_in_the_api_is_logged_with_its_key() {
    let registry = Registry::new();
    let alice = registry.add_user("alice", &[]);
    let key = registry.json(&["key", "list", "alice"])[0]["id"].clone();
    let server = Server::start_in(registry.folder.clone(), &[]);
    for target in ["/api/v1/accounts/alice", "/v2/"] {
        let answer = server.request("GET", target, &[("Authorization", &alice)], b"");
        assert_eq!(answer.status, 200, "{answer:?}");
        server.wait_for_line(target, |line| {
            line["target"] == "access" && line["path"] == target && line["credential"] == key
        });
    }
}
