//! Ready means what it says: what stops pulls, what stops pushes alone, wrong clocks, stores that are removed under a
//! running server, and what ends a start.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use tempfile::TempDir;

use crate::support::objects::Objects;
use crate::support::{EMPTY, MANIFEST_TYPE, Mounted, Response, Server, digest, eventually, manifest, roadstead};

fn text(response: &Response) -> String {
    String::from_utf8(response.body.clone()).unwrap()
}

pub(super) fn ready(server: &Server, query: &str) -> (u16, String) {
    let response = server.request("GET", &format!("/readyz{query}"), &[], b"");
    (response.status, text(&response))
}

/// Tries to push a blob; the status and the text of the answer.
fn push(server: &Server, bytes: &[u8]) -> (u16, String) {
    let path = format!("/v2/app/blobs/uploads/?digest={}", digest(bytes));
    let response = server.request("POST", &path, &[], bytes);
    (response.status, text(&response))
}

/// Asserts that something is refused with 503 for this reason, and that nothing else is said.
fn assert_refused((status, body): &(u16, String), words: &str) {
    assert_eq!(*status, 503, "{body}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let error = &body["errors"][0];
    assert_eq!(error["code"], "UNAVAILABLE", "{body}");
    assert!(error["message"].as_str().unwrap().contains(words), "{body}");
}

fn over(objects: &Objects, flags: &[&str]) -> Server {
    let own = objects.flags();
    let folder = Arc::new(TempDir::new().unwrap());
    let flags: Vec<_> = own.iter().map(String::as_str).chain(flags.iter().copied()).collect();
    Server::start_on(folder, &flags, &Objects::variables())
}

/// A command line that ends by itself.
fn ends(data: &Path, arguments: &[&str]) -> Output {
    roadstead()
        .args(arguments)
        .args(["--data", data.to_str().unwrap()])
        .envs(Objects::variables())
        .output()
        .unwrap()
}

/// The same, over a bucket.
fn ends_over(objects: &Objects, data: &Path, arguments: &[&str]) -> Output {
    let own = objects.flags();
    let own = own.iter().map(String::as_str);
    ends(data, &arguments.iter().copied().chain(own).collect::<Vec<_>>())
}

/// A backup is copied over the database of a running server, which keeps the file and changes what is in it: nothing is
/// acknowledged that would be lost, and the backup can be put back afterwards.
#[test]
fn s34_a_backup_that_is_copied_over_the_database_is_noticed() {
    let mut server = Server::start(&[]);
    let layer = server.push_blob("app", b"a layer");
    let (live, backup) = (
        server.data().join("metadata.db"),
        server.folder.path().join("backup.db"),
    );
    let backup_of = rusqlite::Connection::open(&live).unwrap();
    backup_of.execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
    drop(backup_of);
    server.push_blob("app", b"after the backup");
    assert_eq!(ready(&server, "").0, 200);

    std::fs::copy(&backup, &live).unwrap();
    let (_, reported) = eventually("it is noticed", || {
        let answer = ready(&server, "");
        (answer.0 == 503).then_some(answer)
    });
    assert!(reported.contains("replaced"), "{reported}");
    assert!(
        server.log().contains("was overwritten while it was in use"),
        "{}",
        server.log()
    );
    assert_eq!(push(&server, b"another layer").0, 503);
    server.signal(rustix::process::Signal::TERM);
    server.wait();

    for left in ["metadata.db-wal", "metadata.db-shm"] {
        let _ = std::fs::remove_file(server.data().join(left));
    }
    std::fs::copy(&backup, &live).unwrap();
    let again = Server::start_in(server.folder.clone(), &[]);
    assert_eq!(ready(&again, "").0, 200);
    assert_eq!(
        again
            .request("HEAD", &format!("/v2/app/blobs/{layer}"), &[], b"")
            .status,
        200
    );
    assert_eq!(push(&again, b"another layer").0, 201);
}

/// A start that is refused; what it says.
fn refused_start(data: &Path, flags: &[&str]) -> String {
    let output = ends(
        data,
        &[&["serve", "--listen", "127.0.0.1:0", "--log", "text"], flags].concat(),
    );
    let reported = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{reported}");
    reported
}

/// The same, over a bucket.
fn refused_start_over(objects: &Objects, data: &Path) -> String {
    let own = objects.flags();
    refused_start(data, &own.each_ref().map(String::as_str))
}

#[test]
fn s33_with_a_wrong_clock_nothing_is_stored_or_removed() {
    let objects = Objects::start();
    let server = over(&objects, &["--metrics", "here", "--pull", "proxy"]);
    let layer = server.push_blob("app", b"a layer");
    assert_eq!(ready(&server, "").0, 200);
    for hours in [2, -2] {
        objects.set_ahead(hours * 3_600);
        let (status, reported) = eventually("it is noticed", || {
            let answer = ready(&server, "");
            (answer.0 == 503).then_some(answer)
        });
        assert!(status == 503 && reported.contains("clock is wrong"), "{reported}");
        assert_refused(&push(&server, b"another layer"), "clock is wrong");
        let path = format!("/v2/app/blobs/{layer}");
        let deleted = server.request("DELETE", &path, &[], b"");
        assert_refused(&(deleted.status, text(&deleted)), "clock is wrong");
        assert_eq!(server.request("HEAD", &path, &[], b"").status, 200, "reads go on");
        let metrics = text(&server.request("GET", "/metrics", &[], b""));
        assert!(
            metrics.contains("roadstead_pushes_refused{cause=\"clock_off\"} 1"),
            "{metrics}"
        );
        let ahead = metrics
            .lines()
            .find_map(|line| line.strip_prefix("roadstead_clock_ahead_seconds{service=\"object_store\"} "))
            .unwrap();
        let ahead: i64 = ahead.parse().unwrap();
        assert!((ahead + hours * 3_600).abs() < 60, "{ahead}");
        objects.set_ahead(0);
        eventually("it is right again", || (ready(&server, "").0 == 200).then_some(()));
        assert_eq!(push(&server, format!("after {hours}").as_bytes()).0, 201);
    }
    assert_eq!(objects.deleted(), 0);
    server.wait_for_line("the log says it", |line| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.contains("clock of this host is off"))
    });
}

/// Where no request asks `/readyz` and pulls are redirected, only what is refused would ask the object store: it is asked for
/// the time all the same.
#[test]
fn s33_a_clock_that_is_set_right_is_noticed_without_a_probe() {
    let objects = Objects::start();
    let server = over(&objects, &[]);
    assert_eq!(push(&server, b"before").0, 201);
    objects.set_ahead(7_200);
    assert_refused(&push(&server, b"meanwhile"), "clock is wrong");
    objects.set_ahead(0);
    eventually("a push is taken again", || {
        (push(&server, b"after").0 == 201).then_some(())
    });
}

#[test]
fn s33_a_collection_with_a_wrong_clock_does_nothing() {
    let objects = Objects::start();
    let server = over(&objects, &[]);
    let data = server.folder.path().join("roadstead-data");
    let collect = || ends_over(&objects, &data, &["collect", "--grace", "1ms", "--json"]);
    let collected = || -> serde_json::Value {
        let output = collect();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    // One link is marked, and nothing refers to another object. A pass would take both, and the next one delete them.
    server.push_blob("app", b"a layer");
    assert_eq!(collected()["marked"], 1);
    let other = server.push_blob("app", b"another layer");
    let deleted = server.request("DELETE", &format!("/v2/app/blobs/{other}"), &[], b"");
    assert_eq!(deleted.status, 202);
    for hours in [2, -2] {
        objects.set_ahead(hours * 3_600);
        let output = collect();
        let reported = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{reported}");
        assert!(
            reported.contains("nothing is collected") && reported.contains("clock"),
            "{reported}"
        );
    }
    assert_eq!(objects.deleted(), 0);
    objects.set_ahead(0);
    let report = collected();
    assert_eq!(
        (&report["marked"], &report["unlinked"]),
        (&0.into(), &1.into()),
        "the old mark stood: {report}"
    );
    eventually("the objects go, too", || {
        collected();
        (objects.deleted() > 0).then_some(())
    });
}

#[test]
fn s34_a_store_that_is_removed_under_a_server_takes_no_writes() {
    for name in ["metadata.db", "blobs"] {
        let server = Server::start(&[]);
        server.push_blob("app", EMPTY);
        let put = server.request("PUT", "/v2/app/manifests/a", &[MANIFEST_TYPE], &manifest("a"));
        assert_eq!(put.status, 201);
        let (path, away) = (server.data().join(name), server.folder.path().join("away"));
        std::fs::rename(&path, &away).unwrap();
        eventually("it is noticed", || {
            let (status, reported) = ready(&server, "");
            (status == 503 && reported.contains("removed or replaced")).then_some(())
        });
        assert_refused(&push(&server, b"a layer"), "removed or replaced");
        let put = server.request("PUT", "/v2/app/manifests/b", &[MANIFEST_TYPE], &manifest("b"));
        assert_refused(&(put.status, text(&put)), "removed or replaced");
        let deleted = server.request("DELETE", "/v2/app/manifests/a", &[], b"");
        assert_refused(&(deleted.status, text(&deleted)), "removed or replaced");
        let line = server.wait_for_line("the log says what to do", |line| {
            line["error"]
                .as_str()
                .is_some_and(|error| error.contains("restore the previous file"))
        });
        assert_eq!(line["level"], "ERROR", "{line}");
        std::fs::rename(&away, &path).unwrap();
        eventually("what was there is back", || (ready(&server, "").0 == 200).then_some(()));
        assert_eq!(push(&server, b"a layer").0, 201, "{name}");
        let got = server.request("GET", "/v2/app/manifests/a", &[], b"");
        assert_eq!(got.body, manifest("a"));
    }
}

/// Metadata that is empty beside blobs, and blobs that are all gone beside metadata, were lost or are not mounted.
#[test]
fn s34_a_registry_without_blobs_or_metadata_is_not_taken_for_a_new_one() {
    let folder = Arc::new(TempDir::new().unwrap());
    let mut server = Server::start_in(folder.clone(), &[]);
    server.push_blob("app", EMPTY);
    let data = server.data();
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait().success());
    let away = folder.path().join("away");

    // Blobs without metadata: no file, and an empty one.
    std::fs::rename(data.join("metadata.db"), &away).unwrap();
    for _ in 0..2 {
        let reported = refused_start(&data, &[]);
        assert!(
            reported.contains("--begin-anew") && reported.contains("Put back a backup"),
            "{reported}"
        );
    }
    for command in [&["collect"][..], &["repo", "list"], &["fsck"]] {
        let output = ends(&data, command);
        let reported = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_ne!(output.status.code(), Some(0), "{command:?}: {reported}");
        assert!(
            reported.contains("metadata of these blobs is lost"),
            "{command:?}: {reported}"
        );
    }
    // PassStart anew by name, it is a registry like any other from then on.
    for flags in [&["--begin-anew"][..], &[]] {
        let mut anew = Server::start_in(folder.clone(), flags);
        let absent = anew.request("HEAD", &format!("/v2/app/blobs/{}", digest(EMPTY)), &[], b"");
        assert_eq!(absent.status, 404);
        anew.signal(rustix::process::Signal::TERM);
        assert!(anew.wait().success());
    }

    // Metadata without blobs.
    std::fs::rename(&away, data.join("metadata.db")).unwrap();
    std::fs::rename(data.join("blobs"), &away).unwrap();
    for _ in 0..2 {
        let reported = refused_start(&data, &[]);
        assert!(
            reported.contains("refers to blobs") && reported.contains("--begin-anew"),
            "{reported}"
        );
    }
    let output = ends(&data, &["collect"]);
    assert_eq!(output.status.code(), Some(1));
    // Once a pull has recorded that the only one is lost, that needs to be said no more.
    for flags in [&["--begin-anew"][..], &[]] {
        let mut anew = Server::start_in(folder.clone(), flags);
        assert_eq!(ready(&anew, "").0, 200);
        let lost = anew.request("GET", &format!("/v2/app/blobs/{}", digest(EMPTY)), &[], b"");
        assert_eq!(lost.status, 404);
        anew.signal(rustix::process::Signal::TERM);
        assert!(anew.wait().success());
    }
    std::fs::remove_dir_all(data.join("blobs")).unwrap();
    std::fs::rename(&away, data.join("blobs")).unwrap();
    let whole = Server::start_in(folder, &[]);
    let blob = whole.request("GET", &format!("/v2/app/blobs/{}", digest(EMPTY)), &[], b"");
    assert_eq!(blob.body, EMPTY, "nothing was lost meanwhile");
}

#[test]
fn s34_an_empty_metadata_file_beside_a_bucket_with_blobs_is_refused() {
    let objects = Objects::start();
    objects.put(&format!("{:032x}.1", 7));
    let folder = TempDir::new().unwrap();
    let reported = refused_start_over(&objects, folder.path());
    assert!(reported.contains("--begin-anew"), "{reported}");
}

#[test]
fn below_the_floor_uploads_are_refused_and_everything_else_goes_on() {
    let folder = Arc::new(TempDir::new().unwrap());
    let mut before = Server::start_in(folder.clone(), &["--min-free", "0"]);
    let layer = before.push_blob("app", b"a layer");
    before.push_blob("app", EMPTY);
    let put = before.request("PUT", "/v2/app/manifests/a", &[MANIFEST_TYPE], &manifest("a"));
    assert_eq!(put.status, 201);
    before.signal(rustix::process::Signal::TERM);
    assert!(before.wait().success());

    let server = Server::start_in(folder, &["--min-free", "1000TiB", "--metrics", "here"]);
    let words = "no space is left for uploads";
    assert_refused(&push(&server, b"another layer"), words);
    let opened = server.open_upload("app", &[]);
    let patched = server.request("PATCH", &opened, &[], b"abc");
    assert_refused(&(patched.status, text(&patched)), words);
    let put = server.request("PUT", "/v2/app/manifests/b", &[MANIFEST_TYPE], &manifest("b"));
    assert_refused(&(put.status, text(&put)), words);
    assert_eq!(put.header("retry-after"), Some("5"));

    let (status, reported) = ready(&server, "");
    assert_eq!(
        (status, reported.starts_with("ready\npushes are refused: ")),
        (200, true),
        "{reported}"
    );
    let (status, reported) = ready(&server, "?push");
    assert!(status == 503 && reported.contains(words), "{reported}");
    let metrics = text(&server.request("GET", "/metrics", &[], b""));
    assert!(
        metrics.contains("roadstead_pushes_refused{cause=\"no_space\"} 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("roadstead_pushes_refused{cause=\"clock_off\"} 0"),
        "{metrics}"
    );

    let pulled = server.request("GET", &format!("/v2/app/blobs/{layer}"), &[], b"");
    assert_eq!(pulled.body, b"a layer");
    assert_eq!(server.request("DELETE", "/v2/app/manifests/a", &[], b"").status, 202);
    assert_eq!(
        server
            .request("DELETE", &format!("/v2/app/blobs/{layer}"), &[], b"")
            .status,
        202
    );
    assert!(ends(&server.data(), &["collect"]).status.success());
}

/// A store that cannot be written is noticed before the first push, where looking is free.
#[test]
fn a_store_that_may_not_be_written_is_reported_before_a_push() {
    let server = Server::start(&[]);
    assert_eq!(ready(&server, "?push").0, 200);
    let Some(read_only) = Mounted::read_only(&server.data()) else {
        return;
    };
    let reported = eventually("it is noticed", || {
        let (status, reported) = ready(&server, "?push");
        (status == 503).then_some(reported)
    });
    assert!(reported.contains("may not write"), "{reported}");
    let (status, reported) = ready(&server, "");
    assert!(
        status == 200 && reported.contains("may not write"),
        "pulls work: {reported}"
    );
    drop(read_only);
    eventually("it is writable again", || {
        (ready(&server, "?push").0 == 200).then_some(())
    });
}

/// What only a write can tell: a refused one counts until one succeeds.
#[test]
fn a_refused_write_is_reported_until_one_succeeds() {
    let objects = Objects::start();
    let server = over(&objects, &["--metrics", "here"]);
    assert_eq!(ready(&server, "?push"), (200, "ready\n".into()));
    objects.refuse_writes(Some((403, "AccessDenied")));
    let (status, reported) = push(&server, b"a layer");
    assert_eq!(status, 500, "{reported}");
    assert!(
        reported.contains("object store refuses the registry") && reported.contains("UNKNOWN"),
        "{reported}"
    );
    assert!(
        !reported.contains("AccessDenied") && !reported.contains("bucket\""),
        "{reported}"
    );
    let (status, reported) = eventually("it is reported", || {
        let answer = ready(&server, "?push");
        (answer.0 == 503).then_some(answer)
    });
    assert!(status == 503 && reported.contains("object store refuses"), "{reported}");
    assert_eq!(ready(&server, "").0, 200, "pulls work");
    let metrics = text(&server.request("GET", "/metrics", &[], b""));
    assert!(
        metrics.contains("roadstead_pushes_refused{cause=\"object_store_refuses\"} 1"),
        "{metrics}"
    );
    objects.refuse_writes(None);
    assert_eq!(push(&server, b"a layer").0, 201);
    eventually("it works again", || (ready(&server, "?push").0 == 200).then_some(()));
}

#[test]
fn a_bucket_that_is_forbidden_or_gone_is_not_ready() {
    let objects = Objects::start();
    let server = over(&objects, &[]);
    for (status, code, logged) in [
        (403, "AccessDenied", "AccessDenied"),
        (404, "NoSuchBucket", "there is no bucket bucket"),
    ] {
        eventually("it is ready", || (ready(&server, "").0 == 200).then_some(()));
        objects.refuse(Some((status, code)));
        let reported = eventually("it is noticed", || {
            let (status, reported) = ready(&server, "");
            (status == 503).then_some(reported)
        });
        assert!(reported.contains("object store refuses"), "{reported}");
        let id = reported.split(['(', ')']).nth(1).unwrap().to_owned();
        let line = server.wait_for_line("the log says why", |line| line["id"] == *id);
        assert!(line["error"].as_str().unwrap().contains(logged), "{line}");
        objects.refuse(None);
    }
}

#[test]
fn a_bucket_that_does_not_exist_ends_the_start() {
    let objects = Objects::start();
    objects.refuse(Some((404, "NoSuchBucket")));
    let folder = TempDir::new().unwrap();
    let reported = refused_start_over(&objects, folder.path());
    assert!(
        reported.contains("there is no bucket bucket") && reported.contains("create it"),
        "{reported}"
    );
}

/// The same, where the bucket is silent at first: the server has started by then, and ends.
#[test]
fn a_bucket_that_is_found_missing_later_ends_the_server() {
    let objects = Objects::start();
    objects.refuse(Some((404, "NoSuchBucket")));
    objects.be_silent(true);
    let mut server = over(&objects, &[]);
    assert_eq!(server.request("GET", "/livez", &[], b"").status, 200);
    objects.be_silent(false);
    assert_eq!(server.wait().code(), Some(1));
    let reported = server.log();
    assert!(
        reported.contains("there is no bucket bucket") && reported.contains("create it"),
        "{reported}"
    );
}

/// Other things may lie in the bucket, before all that is the registry's: how many of them are looked at is bounded, and
/// what lies behind them is not taken for lost.
#[test]
fn s34_many_foreign_objects_in_a_bucket_are_not_a_lost_registry() {
    /// As many as a start looks at.
    const LOOKED_AT: usize = 1_000;
    let objects = Objects::start();
    let data = Arc::new(TempDir::new().unwrap());
    let own = objects.flags();
    let own: Vec<_> = own.iter().map(String::as_str).collect();
    let stop = |mut server: Server| {
        server.signal(rustix::process::Signal::TERM);
        assert!(server.wait().success());
    };
    let server = Server::start_on(data.clone(), &own, &Objects::variables());
    server.push_blob("app", b"a layer");
    let folder = server.folder.path().join("roadstead-data");
    stop(server);

    objects.clear();
    for number in 0..LOOKED_AT {
        objects.put(&format!("-foreign.{number:04}"));
    }
    let reported = refused_start_over(&objects, &folder);
    assert!(
        reported.contains("refers to blobs") && reported.contains("--begin-anew"),
        "{reported}"
    );

    objects.put(&format!("-foreign.{LOOKED_AT:04}"));
    let server = Server::start_on(data, &own, &Objects::variables());
    assert_eq!(ready(&server, "").0, 200);
    stop(server);
}

/// A table that is away may come: the server starts, is not ready, and says for what it waits.
#[test]
fn a_server_starts_while_its_table_is_away() {
    let folder = Arc::new(TempDir::new().unwrap());
    // Takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let variables = Objects::variables();
    let flags = [
        "--metadata",
        "dynamodb://table",
        "--dynamodb-endpoint",
        &url,
        "--aws-region",
        "x",
    ];
    let server = Server::start_on(folder, &flags, &variables);
    let line = server.wait_for_line("it says for what it waits", |line| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.contains("still waiting for a store"))
    });
    assert!(line["store"].as_str().unwrap().contains("dynamodb://table"), "{line}");
    let (status, reported) = ready(&server, "");
    assert!(
        status == 503 && reported.contains("metadata store cannot be reached"),
        "{reported}"
    );
    assert_eq!(server.request("GET", "/livez", &[], b"").status, 200);
    // It is not known whether there are accounts, which would end that every client may do everything.
    assert_eq!(server.request("GET", "/v2/", &[], b"").status, 503);
    let pulled = server.request("GET", "/v2/app/manifests/a", &[], b"");
    assert_refused(&(pulled.status, text(&pulled)), "credentials cannot be checked now");
    assert_refused(&push(&server, b"a layer"), "credentials cannot be checked now");
}
