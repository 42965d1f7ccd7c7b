//! An import into a table: accounts with everything that decides about a login, and one that is killed in the middle, again
//! and again.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cloud::{Cloud, TableItem, key};
use crate::support::content::push_everything;
use crate::support::{EMPTY, MANIFEST_TYPE, PAYMENTS_POLICY, Server, basic, digest, eventually, manifest};

const PASSWORD: &str = "correct horse battery";
const OTHER_PASSWORD: &str = "another pass word";

/// How much older the events are that the test imports: 30 days, in milliseconds.
const OLDER: u64 = 30 * 24 * 60 * 60 * 1000;

/// How often the records of a small registry are repeated, under other names of repositories: so that an import takes
/// some seconds. Where it comes to its end before it is killed, the next number is tried.
const COPIES: [usize; 4] = [700, 1_400, 2_800, 5_600];

/// An export of a registry that was pushed to.
fn small_export() -> String {
    let mut server = Server::start(&[]);
    push_everything(&server);
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let here = [String::from("--data"), server.data().to_str().unwrap().to_owned()];
    Cloud::succeed(&here, &["metadata", "export"])
}

/// The same of many repositories that are like its own, in a file.
fn repeated(small: &str, copies: usize, folder: &Path) -> String {
    let (mut large, mut count) = (String::new(), 0);
    for line in small.lines() {
        let parsed: Value = serde_json::from_str(line).unwrap();
        let names = ["\"team/app\"", "\"other\""];
        if parsed["export"] == "begin" {
            writeln!(large, "{line}").unwrap();
        } else if parsed["record"].is_string() {
            let of_repository = names.iter().any(|name| line.contains(name));
            for copy in 0..if of_repository { copies } else { 1 } {
                let renamed = line
                    .replace(names[0], &format!("\"team/app{copy}\""))
                    .replace(names[1], &format!("\"other{copy}\""));
                writeln!(large, "{renamed}").unwrap();
                count += 1;
            }
        }
    }
    assert!(count > 10 * copies, "{count} records");
    writeln!(large, "{}", json!({ "export": "end", "records": count })).unwrap();
    let file = folder.join(format!("export-{copies}"));
    fs::write(&file, large).unwrap();
    file.to_str().unwrap().to_owned()
}

/// What a table holds but for the version of its layout, in an order of its own.
fn rows(cloud: &Cloud) -> Vec<String> {
    let text = |row: &TableItem| {
        let mut attributes: Vec<_> = row.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        attributes.sort();
        attributes.join(", ")
    };
    let rows = cloud.rows();
    let mut rows: Vec<_> = rows.iter().filter(|row| key(row).0 != "K").map(text).collect();
    rows.sort();
    rows
}

/// The records of an export in an order of their own.
fn records(export: &str) -> Vec<&str> {
    let mut records: Vec<_> = export.lines().filter(|line| !line.starts_with("{\"export\"")).collect();
    records.sort_unstable();
    records
}

/// A new table, and flags that name it; what lies on disk lies in the folder.
fn table(folder: &Path) -> (Cloud, Vec<String>) {
    let cloud = Cloud::new();
    let data = ["--data".to_owned(), folder.join("data").to_str().unwrap().to_owned()];
    let stores = [cloud.dynamodb(), data.into()].concat();
    Cloud::succeed(&stores, &["metadata", "init"]);
    (cloud, stores)
}

/// Begins an import and kills it as soon as it is ready; whether that was before its end.
fn kill_when(stores: &[String], file: &str, what: &str, ready: impl Fn() -> bool) -> bool {
    let mut import = Cloud::command(stores, &["metadata", "import", file])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually(what, || (ready() || import.try_wait().unwrap().is_some()).then_some(()));
    import.kill().unwrap();
    let status = import.wait().unwrap();
    assert!(
        status.success() || status.signal() == Some(Signal::KILL.as_raw()),
        "{status}"
    );
    !status.success()
}

/// Kills two imports of the file into one table, before they come to their end: then the number of records that the
/// second has noted as done.
fn interrupted(cloud: &Cloud, stores: &[String], file: &str) -> Option<u64> {
    // Before it has noted how far it has come: as soon as there is anything.
    if !kill_when(stores, file, "the first rows", || cloud.has_rows()) {
        return None;
    }
    // After it has.
    let progress = format!("{file}.progress");
    if !kill_when(stores, file, "it notes how far it has come", || {
        Path::new(&progress).exists()
    }) {
        return None;
    }
    // Its end was near if the note is gone.
    let noted: Value = serde_json::from_slice(&fs::read(&progress).ok()?).unwrap();
    noted["records"].as_u64()
}

#[test]
#[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
fn an_import_that_was_killed_goes_on_and_ends_with_the_same() {
    let folder = TempDir::new().unwrap();
    let small = small_export();
    let (killed, stores, file, reached) = COPIES
        .into_iter()
        .find_map(|copies| {
            let file = repeated(&small, copies, folder.path());
            let (cloud, stores) = table(folder.path());
            let reached = interrupted(&cloud, &stores, &file)?;
            Some((cloud, stores, file, reached))
        })
        .expect("an import that is killed in the middle");
    let progress = format!("{file}.progress");
    let all = fs::read_to_string(&file).unwrap();
    let all = records(&all);
    assert!(reached > 0 && reached < all.len() as u64, "{reached} of {}", all.len());

    let last = Cloud::run(&stores, &["metadata", "import", &file]);
    let reported = String::from_utf8_lossy(&last.stderr);
    assert_eq!(last.status.code(), Some(0), "{reported}");
    assert!(
        reported.contains(&format!("continuing after {reached} records")),
        "{reported}"
    );
    assert!(!Path::new(&progress).exists(), "nothing is left beside the file");

    let (whole, whole_stores) = table(folder.path());
    Cloud::succeed(&whole_stores, &["metadata", "import", &file]);
    assert!(rows(&killed) == rows(&whole), "every row is as without an interruption");
    for stores in [&stores, &whole_stores] {
        let export = Cloud::succeed(stores, &["metadata", "export"]);
        assert!(records(&export) == all, "every record is as in the file");
    }
}

/// Runs a command that reads a password, and returns what it has printed.
fn with_password(stores: &[String], arguments: &[&str], password: &str) -> String {
    let mut command = Cloud::command(stores, arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
    let output = child.wait_with_output().unwrap();
    let reported = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {reported}");
    String::from_utf8(output.stdout).unwrap()
}

/// A registry on this machine: a manifest, a policy, and logins of every kind. Returns these: names with their secrets.
fn with_logins(here: &[String], folder: &Path) -> Vec<(&'static str, String)> {
    with_password(here, &["user", "add", "alice", "--admin", "--password-stdin"], PASSWORD);
    let bob = ["user", "add", "bob", "--group", "payments", "--password-stdin"];
    with_password(here, &bob, OTHER_PASSWORD);
    let key = |arguments: &[&str]| Cloud::succeed(here, arguments).trim().to_owned();
    let of_bob = key(&["key", "add", "bob", "--expires", "90d"]);
    let robot = ["robot", "add", "ci", "--allow", "pull,create:payments/**"];
    let of_ci = key(&[&robot[..], &["--expires", "90d"]].concat());
    let policy = folder.join("policy.toml");
    fs::write(&policy, PAYMENTS_POLICY).unwrap();
    Cloud::succeed(here, &["policy", "set", policy.to_str().unwrap()]);

    let mut server = Cloud::serve(here, &[]);
    let authorization = basic("bob", OTHER_PASSWORD);
    let login = ("Authorization", authorization.as_str());
    let upload = server.open_upload("payments/api", &[login]);
    let finish = format!("{upload}?digest={}", digest(EMPTY));
    assert_eq!(server.request("PUT", &finish, &[login], EMPTY).status, 201);
    let target = "/v2/payments/api/manifests/1.0.0";
    let put = server.request("PUT", target, &[login, MANIFEST_TYPE], &manifest("one"));
    assert_eq!(put.status, 201, "{put:?}");
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let logins = [
        ("alice", PASSWORD),
        ("bob", OTHER_PASSWORD),
        ("bob", of_bob.as_str()),
        ("key", of_bob.as_str()),
        ("ci", of_ci.as_str()),
    ];
    logins.map(|(name, secret)| (name, secret.to_owned())).into()
}

/// An export whose events are that much older, as those of a registry that has run for a while. Returns how many there are.
fn aged(export: &str, file: &Path) -> usize {
    let (mut text, mut events) = (String::new(), 0);
    for line in export.lines() {
        let mut parsed: Value = serde_json::from_str(line).unwrap();
        if parsed["record"] == "audit" {
            events += 1;
            parsed["at"] = json!(parsed["at"].as_u64().unwrap() - OLDER);
            // The kind of a record is its first member.
            parsed.as_object_mut().unwrap().remove("record");
            let members = parsed.to_string();
            writeln!(text, "{{\"record\":\"audit\",{}", &members[1..]).unwrap();
        } else {
            writeln!(text, "{line}").unwrap();
        }
    }
    fs::write(file, text).unwrap();
    events
}

/// Every password and key of the old registry is a login of the new one, with the same rights, and the audit trail is there.
#[test]
#[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
fn every_login_works_in_a_table_that_has_imported_it() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("here").to_str().unwrap().to_owned();
    let here = [String::from("--data"), data];
    let logins = with_logins(&here, folder.path());
    let file = folder.path().join("export");
    let events = aged(&Cloud::succeed(&here, &["metadata", "export", "--audit"]), &file);
    assert_eq!(events, 6, "three accounts, a key, a policy and a push");

    let (_cloud, stores) = table(folder.path());
    Cloud::succeed(&stores, &["metadata", "import", file.to_str().unwrap()]);
    let blobs = format!("disk:{}", folder.path().join("data").display());
    Cloud::succeed(&here, &["blobs", "copy", "--to", &blobs]);
    let server = Cloud::serve(&stores, &[]);
    let target = "/v2/payments/api/manifests/1.0.0";
    for (name, secret) in &logins {
        let authorization = basic(name, secret);
        let login = ("Authorization", authorization.as_str());
        assert_eq!(
            server.request("GET", target, &[login], b"").body,
            manifest("one"),
            "{name}"
        );
        let asked = "/token?service=roadstead&scope=repository:payments/api:pull,push";
        let granted = server.request("GET", asked, &[login], b"");
        assert_eq!(granted.status, 200, "{name}: {granted:?}");
        let bearer = format!("Bearer {}", granted.json()["token"].as_str().unwrap());
        let token = ("Authorization", bearer.as_str());
        assert_eq!(server.request("GET", target, &[token], b"").status, 200, "{name}");
        // The policy is in force: the tag is frozen for everyone.
        let moved = server.request("PUT", target, &[token, MANIFEST_TYPE], &manifest("two"));
        assert_eq!(moved.status, 403, "{name}: {moved:?}");
        // The robot has the rights of its grants, and no others.
        let elsewhere = server.request("POST", "/v2/other/blobs/uploads/", &[login], b"");
        assert_eq!(elsewhere.status, if *name == "alice" { 202 } else { 403 }, "{name}");
    }
    assert_eq!(server.request("GET", target, &[], b"").status, 401);
    let wrong = basic("alice", OTHER_PASSWORD);
    assert_eq!(
        server
            .request("GET", "/token", &[("Authorization", &wrong)], b"")
            .status,
        401
    );

    let lines = |stores: &[String]| -> Vec<Value> {
        let printed = Cloud::succeed(stores, &["audit", "--json"]);
        printed
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let (old, new) = (lines(&here), lines(&stores));
    assert_eq!(new.len(), events + 3 + 1, "and those of the import: {new:?}");
    for (old, new) in old.iter().zip(&new) {
        for member in ["id", "event", "principal", "repository", "reference", "after", "detail"] {
            assert_eq!(old[member], new[member], "{new}");
        }
    }
    assert!(new.is_sorted_by_key(|event| event["at"].as_str().unwrap().to_owned()));
}
