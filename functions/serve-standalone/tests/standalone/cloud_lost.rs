//! Objects of a bucket that are lost or damaged, over a table: the same as on one host, and where no pull can notice.

use serde_json::Value;
use tempfile::TempDir;

use crate::cloud::follow;
use crate::lost::{pull, push};
use crate::support::cloud::Cloud;
use crate::support::{Server, digest, eventually};

/// What happens to an object.
#[derive(Clone, Copy, Debug)]
enum Accident {
    Deleted,
    Truncated,
    Altered,
}

impl Accident {
    /// To the object of so many bytes.
    fn befall(self, cloud: &Cloud, layer: &[u8]) {
        let size = i64::try_from(layer.len()).unwrap();
        let objects = cloud.objects();
        let found: Vec<_> = objects.iter().filter(|(_, found)| **found == size).collect();
        let [(key, _)] = found.as_slice() else {
            panic!("{objects:?}");
        };
        match self {
            Self::Deleted => cloud.remove(key),
            Self::Truncated => cloud.overwrite(key, layer[1..].to_vec()),
            Self::Altered => cloud.overwrite(key, vec![layer[0] ^ 1; layer.len()]),
        }
    }
}

fn registry(cloud: &Cloud, mode: &str) -> Server {
    let both = cloud.both();
    Cloud::succeed(&both, &["metadata", "init"]);
    Cloud::serve(&both, &["--pull", mode])
}

/// In one repository by a push, in another by a mount.
fn furnish(server: &Server, layer: &[u8]) {
    push(server, "app", layer, "1", 0);
    let mount = format!("/v2/other/blobs/uploads/?mount={}&from=app", digest(layer));
    assert_eq!(server.request("POST", &mount, &[], b"").status, 201);
    push(server, "other", layer, "2", 0);
}

#[test]
#[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
fn a_push_replaces_a_lost_object_of_a_bucket_in_every_repository() {
    let cloud = Cloud::new();
    let server = registry(&cloud, "proxy");
    for (number, accident) in (1..).zip([Accident::Deleted, Accident::Truncated]) {
        for is_pulled in [false, true] {
            let layer = vec![number; 100_000 + usize::from(number) * 2 + usize::from(is_pulled)];
            furnish(&server, &layer);
            accident.befall(&cloud, &layer);
            if is_pulled {
                assert_eq!(pull(&server, "other", &layer).0, 404, "{accident:?}");
                assert!(
                    push(&server, "app", &layer, "1", 0),
                    "HEAD has reported that it is gone"
                );
            } else {
                server.push_blob("app", &layer);
            }
            for repository in ["app", "other"] {
                assert_eq!(pull(&server, repository, &layer), (200, true), "{accident:?}");
            }
        }
    }
    Cloud::succeed(&cloud.both(), &["fsck", "--hash"]);
}

#[test]
#[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
fn behind_redirects_a_repair_finds_what_is_lost() {
    let cloud = Cloud::new();
    let server = registry(&cloud, "redirect");
    for (number, accident) in (10..).zip([Accident::Deleted, Accident::Truncated, Accident::Altered]) {
        let layer = vec![number; 100_000 + usize::from(number)];
        furnish(&server, &layer);
        accident.befall(&cloud, &layer);
        let path = |repository: &str| format!("/v2/{repository}/blobs/{}", digest(&layer));
        for _ in 0..2 {
            assert_eq!(
                server.request("GET", &path("app"), &[], b"").status,
                307,
                "no request looks"
            );
        }
        assert!(!push(&server, "app", &layer, "1", 0), "and so nothing is uploaded");

        let repair = Cloud::run(&cloud.both(), &["fsck", "--hash", "--repair", "--json"]);
        assert_eq!(repair.status.code(), Some(1));
        let reported = String::from_utf8(repair.stdout).unwrap();
        let lines: Vec<Value> = reported
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        for (repository, tag) in [("app", "1"), ("other", "2")] {
            let is_named = lines.iter().any(|line| {
                line["finding"] == "manifest_not_pullable"
                    && line["repository"] == repository
                    && line["tags"][0] == tag
                    && line["missing"][0] == digest(&layer)
            });
            assert!(is_named, "{reported}");
        }
        for repository in ["app", "other"] {
            for method in ["HEAD", "GET"] {
                let answer = server.request(method, &path(repository), &[], b"");
                assert_eq!(answer.status, 404, "{method} {repository} {accident:?}");
            }
        }
        assert!(push(&server, "app", &layer, "1", 0), "it was uploaded");
        for repository in ["app", "other"] {
            let answer = server.request("GET", &path(repository), &[], b"");
            assert_eq!(answer.status, 307, "{answer:?}");
            let bytes = follow(answer.header("location").unwrap(), None);
            assert_eq!((bytes.status, bytes.body == layer), (200, true), "{accident:?}");
        }
        Cloud::succeed(&cloud.both(), &["fsck", "--hash"]);
    }
}

/// A start with `flags` over blobs in `data`, which is refused; what it says.
fn refused_start(stores: &[String], data: &str, flags: &[&str]) -> String {
    let serve = ["serve", "--listen", "127.0.0.1:0", "--log", "text", "--data", data];
    let output = Cloud::run(stores, &[&serve, flags].concat());
    let reported = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{reported}");
    reported
}

/// Stops a server that has begun to use its stores: one whose table is slow listens before.
fn stop(mut server: Server) {
    eventually("it takes uploads", || {
        let opened = server.request("POST", "/v2/app/blobs/uploads/", &[], b"");
        (opened.status == 202).then_some(())
    });
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait().success());
}

/// The main table is lost, and the local one beside it is not: that holds keys and sessions, and nothing of what was pushed.
#[test]
#[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
fn s34_a_main_table_that_is_lost_beside_a_local_one_is_noticed() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().to_str().unwrap();
    let (cloud, other) = (Cloud::new(), Cloud::new());
    let local = ["--local-table".to_owned(), format!("{}-local", cloud.name())];
    let stores = |main: &Cloud| [main.dynamodb(), local.to_vec(), cloud.s3()].concat();
    let serve = |stores: &[String], flags: &[&str]| Cloud::serve(stores, &[&["--data", data], flags].concat());
    let init = |main: &Cloud| {
        let tables = [main.dynamodb(), local.to_vec()].concat();
        Cloud::succeed(&tables, &["metadata", "init"]);
    };
    init(&cloud);
    let server = serve(&stores(&cloud), &[]);
    // An upload that is not published yet is in the local table alone.
    let upload = server.open_upload("app", &[]);
    assert_eq!(server.request("PATCH", &upload, &[], b"some bytes").status, 202);
    stop(server);
    let server = serve(&stores(&cloud), &[]);
    push(&server, "app", b"a layer", "1", 0);
    stop(server);

    init(&other);
    for _ in 0..2 {
        let reported = refused_start(&stores(&other), data, &[]);
        assert!(
            reported.contains("is empty") && reported.contains("--begin-anew"),
            "{reported}"
        );
    }
    stop(serve(&stores(&other), &["--begin-anew"]));
    stop(serve(&stores(&other), &[]));
    let whole = serve(&stores(&cloud), &["--pull", "proxy"]);
    assert_eq!(pull(&whole, "app", b"a layer").0, 200);
}

/// A table beside a disk or a bucket: either may be the one that is lost.
#[test]
#[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
fn s34_a_registry_over_a_table_without_blobs_or_metadata_is_not_taken_for_a_new_one() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().to_str().unwrap();
    for on_disk in [true, false] {
        let (cloud, other) = (Cloud::new(), Cloud::new());
        let blobs = |cloud: &Cloud| if on_disk { Vec::new() } else { cloud.s3() };
        let stores = [cloud.dynamodb(), blobs(&cloud)].concat();
        let serve = |stores: &[String], flags: &[&str]| Cloud::serve(stores, &[&["--data", data], flags].concat());
        Cloud::succeed(&cloud.dynamodb(), &["metadata", "init"]);
        let server = serve(&stores, &[]);
        push(&server, "app", b"a layer", "1", 0);
        stop(server);
        stop(serve(&stores, &[]));

        // A table that was made once more.
        Cloud::succeed(&other.dynamodb(), &["metadata", "init"]);
        let without_table = [other.dynamodb(), blobs(&cloud)].concat();
        let reported = refused_start(&without_table, data, &[]);
        assert!(
            reported.contains("is empty") && reported.contains("--begin-anew"),
            "{reported}"
        );
        let listed = Cloud::run(&without_table, &["repo", "list", "--data", data]);
        assert_ne!(listed.status.code(), Some(0));
        stop(serve(&without_table, &["--begin-anew"]));
        // From then on it is a registry like any other.
        stop(serve(&without_table, &[]));

        // A disk that is not mounted, a bucket that was emptied.
        let away = folder.path().join("away");
        if on_disk {
            std::fs::rename(folder.path().join("blobs"), &away).unwrap();
        }
        let without_blobs = [cloud.dynamodb(), blobs(&other)].concat();
        for _ in 0..2 {
            let reported = refused_start(&without_blobs, data, &[]);
            assert!(
                reported.contains("refers to blobs") && reported.contains("--begin-anew"),
                "{reported}"
            );
        }
        stop(serve(&without_blobs, &["--begin-anew"]));
        if on_disk {
            std::fs::remove_dir_all(folder.path().join("blobs")).unwrap();
            std::fs::rename(&away, folder.path().join("blobs")).unwrap();
        }
        let whole = serve(&stores, &["--pull", "proxy"]);
        assert_eq!(pull(&whole, "app", b"a layer").0, 200);
    }
}
