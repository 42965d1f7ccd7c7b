//! Collections that are asked to end, killed, kept from the names, or that meet what cannot be deleted: what they say,
//! and how the next one goes on.
//!
//! Tables are filled by hand: to push as much takes longer than a pass over it.

use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Server, eventually, roadstead, run};

/// Links, and as many records of bytes. A pass that is not deep looks at these.
const LINKS: u64 = 40_000;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn database(data: &Path) -> Connection {
    let database = Connection::open(data.join("metadata.db")).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    database
}

/// How many rows there are of a table, and a condition behind it.
fn rows(database: &Connection, of: &str) -> u64 {
    let rows: u32 = database
        .query_row(&format!("SELECT count(*) FROM {of}"), [], |row| row.get(0))
        .unwrap();
    rows.into()
}

/// A data directory whose pass takes a moment: nothing refers to any of its links.
fn large() -> Arc<TempDir> {
    let mut server = Server::start(&[]);
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let numbers = format!("WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {LINKS})");
    let digest = "'sha256:' || printf('%064x', n)";
    let sql = format!(
        "PRAGMA synchronous = OFF; BEGIN; \
         {numbers} INSERT INTO blob SELECT {digest}, 'main', printf('%032x.1', n), 10, 1, NULL FROM n; \
         {numbers} INSERT INTO backlink SELECT {digest}, 'app', n, 'blob', 1 FROM n; \
         {numbers} INSERT INTO link SELECT 'app', {digest}, 'main', printf('%032x.1', n), 10, n, 1, NULL FROM n; \
         COMMIT;"
    );
    database(&server.data()).execute_batch(&sql).unwrap();
    // A registry whose blobs are all gone would not be collected.
    std::fs::write(
        server.data().join("blobs/0").join(format!("{:032x}.1", 1)),
        "0123456789",
    )
    .unwrap();
    server.folder.clone()
}

/// Waits until a pass has noted how far it came, and is going on.
fn wait_for_a_pass(data: &Path) {
    let database = database(data);
    eventually("a pass is on its way", || {
        (rows(&database, "pass WHERE cursor IS NOT NULL") == 1).then_some(())
    });
}

fn begin(data: &Path) -> Child {
    let mut command = roadstead();
    command.args(["collect", "--json", "--data"]).arg(data);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn collect(data: &Path, flags: &[&str]) -> Output {
    run([&["collect", "--json", "--data", data.to_str().unwrap()], flags].concat())
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

fn seen(report: &Value) -> u64 {
    report["seen"].as_u64().unwrap()
}

/// The next pass goes on at once, and together they have seen everything.
fn assert_gone_on_with(data: &Path, before: u64) {
    let next = collect(data, &[]);
    assert_eq!(next.status.code(), Some(0), "{}", text(&next.stderr));
    let next = report(&next);
    assert_eq!(
        (&next["resumed"], &next["complete"]),
        (&true.into(), &true.into()),
        "{next}"
    );
    assert_eq!(seen(&next) + before, 2 * LINKS, "{next}");
}

#[test]
fn a_collection_that_a_signal_ended_resumes_at_once() {
    for signal_sent in [Signal::TERM, Signal::INT] {
        let folder = large();
        let data = folder.path().join("data");
        let child = begin(&data);
        wait_for_a_pass(&data);
        signal(&child, signal_sent);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let stderr = text(&output.stderr);
        assert!(stderr.contains("interrupted: the next pass continues"), "{stderr}");
        let first = report(&output);
        assert_eq!((&first["stopped"], &first["complete"]), (&true.into(), &false.into()));
        assert_gone_on_with(&data, seen(&first));
    }
}

#[test]
fn a_server_that_ends_releases_the_collection_pass() {
    let folder = large();
    let mut server = Server::start_in(folder.clone(), &["--collect-every", "50ms"]);
    wait_for_a_pass(&server.data());
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    let stopped = server.wait_for_line("the pass is logged", |line| line["message"] == "collected");
    assert_eq!(stopped["stopped"], true, "{stopped}");
    assert_gone_on_with(&folder.path().join("data"), seen(&stopped));
}

#[test]
fn a_collection_that_was_killed_is_gone_on_with_when_its_time_is_over() {
    let folder = large();
    let data = folder.path().join("data");
    let mut child = begin(&data);
    wait_for_a_pass(&data);
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    let marked = || rows(&database(&data), "link WHERE condemned IS NOT NULL");
    assert!(marked() < LINKS, "it was killed in the middle");

    // Another collection does not examine the metadata, carries out pending deletions, and says what to do.
    let pending_deletions = "INSERT INTO graveyard VALUES (1, 'main', printf('%032x.7', 1), NULL, 0)";
    database(&data).execute(pending_deletions, []).unwrap();
    let busy = collect(&data, &[]);
    assert_eq!(busy.status.code(), Some(1));
    let stderr = text(&busy.stderr);
    for word in [
        "another collection examines it at least until 20",
        "expired uploads and pending deletions were handled",
        "run this again after",
    ] {
        assert!(stderr.contains(word), "{stderr}");
    }
    let busy = report(&busy);
    assert_eq!(
        (seen(&busy), &busy["objects_deleted"], &busy["complete"]),
        (0, &1.into(), &false.into())
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let until = u128::from(busy["busy_until"].as_u64().unwrap());
    assert!(until > now && until - now <= 300_000, "five minutes at most");

    database(&data).execute("UPDATE pass SET until = 1", []).unwrap();
    let next = collect(&data, &[]);
    assert_eq!(next.status.code(), Some(0), "{}", text(&next.stderr));
    let next = report(&next);
    assert_eq!((&next["resumed"], &next["complete"]), (&true.into(), &true.into()));
    assert!(seen(&next) < 2 * LINKS);
    assert_eq!(marked(), LINKS, "all were gone through by the two");
}

/// A file that cannot be unlinked: something else has its name.
fn obstruct(data: &Path, id: u128) -> String {
    let key = format!("{id:032x}.1");
    let path = data.join("blobs").join(&key[..1]).join(&key);
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("in the way"), "").unwrap();
    key
}

fn schedule_deletion(data: &Path, key: &str, at: u32) {
    let schedule_deletion = "INSERT INTO graveyard VALUES (?1, 'main', ?2, NULL, 0)";
    database(data).execute(schedule_deletion, (at, key)).unwrap();
}

#[test]
fn a_file_that_cannot_be_unlinked_keeps_nothing_else_back() {
    let server = Server::start(&[]);
    let data = server.data();
    let stuck = obstruct(&data, 5);
    // The first of all.
    schedule_deletion(&data, &stuck, 1);
    for id in 100..350_u128 {
        let key = format!("{id:032x}.1");
        std::fs::write(data.join("blobs/0").join(&key), [0; 10]).unwrap();
        schedule_deletion(&data, &key, 2);
    }
    let output = collect(&data, &[]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains(&format!("the object {stuck} cannot be deleted: ")),
        "{stderr}"
    );
    let reported = report(&output);
    assert_eq!(
        (&reported["failed"], &reported["objects_deleted"], &reported["complete"]),
        (&1.into(), &250.into(), &false.into())
    );
    let people = run(["collect", "--data", data.to_str().unwrap()]);
    assert_eq!(people.status.code(), Some(1));
    assert!(text(&people.stdout).contains("\n1 operation failed"), "{people:?}");

    std::fs::remove_dir_all(data.join("blobs/0").join(&stuck)).unwrap();
    let output = collect(&data, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(report(&output)["complete"], true);
    assert_eq!(rows(&database(&data), "graveyard"), 0);
}

#[test]
fn the_report_text_says_what_was_deleted() {
    let server = Server::start(&[]);
    let data = server.data();
    let key = format!("{:032x}.1", 9);
    std::fs::write(data.join("blobs/0").join(&key), [0; 2048]).unwrap();
    schedule_deletion(&data, &key, 1);
    // Announced, and never stored.
    schedule_deletion(&data, &format!("{:032x}.2", 9), 1);
    let dry = text(&run(["collect", "--dry-run", "--data", data.to_str().unwrap()]).stdout);
    assert!(dry.contains("\n2 pending deletions would be carried out"), "{dry}");
    let reported = text(&run(["collect", "--data", data.to_str().unwrap()]).stdout);
    assert!(
        reported.contains("\n2 pending deletions carried out: 1 object deleted, 2.0 KiB freed\n"),
        "{reported}"
    );
}

#[test]
fn every_outcome_of_a_pass_is_counted_and_what_it_did() {
    let mut server = Server::start(&[]);
    let data = server.data();
    let upload = server.open_upload("app", &[]);
    assert_eq!(server.request("PATCH", &upload, &[], &[1; 5000]).status, 202);
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    database(&data)
        .execute_batch(
            "UPDATE session SET expires = 1; UPDATE session_part SET expires = 1; \
             INSERT INTO blob VALUES ('sha256:' || printf('%064x', 1), 'main', printf('%032x.1', 1), 12345, 1, NULL);",
        )
        .unwrap();
    schedule_deletion(&data, &format!("{:032x}.1", 2), 1);

    let server = Server::start_in(server.folder.clone(), &["--collect-every", "50ms", "--metrics", "here"]);
    let count = |series: &str| {
        let metrics = text(&server.request("GET", "/metrics", &[], b"").body);
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(&format!("roadstead_collection_{series} ")));
        line.map_or(0, |value| value.parse::<u64>().unwrap())
    };
    let passes = |outcome: &str| count(&format!("passes_total{{outcome=\"{outcome}\"}}"));
    eventually("a whole pass", || (passes("whole") >= 1).then_some(()));
    assert_eq!(count("deleted_objects_total"), 1);
    assert_eq!(count("swept_uploads_total"), 1);
    assert_eq!(count("scheduled_bytes_total"), 12345);

    assert_eq!(passes("busy"), 0);
    let hold = "INSERT OR REPLACE INTO pass VALUES (1, 1, 1 << 60, NULL)";
    eventually("a pass that finds the metadata held", || {
        database(&data).execute(hold, []).unwrap();
        (passes("busy") >= 1).then_some(())
    });
    database(&data).execute("DELETE FROM pass", []).unwrap();

    assert_eq!(passes("failed"), 0);
    schedule_deletion(&data, &obstruct(&data, 3), 1);
    eventually("a pass in which something fails", || {
        (passes("failed") >= 1).then_some(())
    });
    let failed = server.wait_for_line("the failure is logged", |line| {
        line["message"]
            .as_str()
            .is_some_and(|reported| reported.starts_with("a collection pass has failed in part"))
    });
    assert!(failed["what"].as_str().unwrap().starts_with("the object "), "{failed}");
}
