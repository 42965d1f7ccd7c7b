//! Objects of a bucket that are lost or damaged, over a table: the same as on one host, and where no pull can notice.

use serde_json::Value;

use crate::cloud::follow;
use crate::lost::{pull, push};
use crate::support::cloud::Cloud;
use crate::support::{Server, digest};

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
                assert!(push(&server, "app", &layer, "1", 0), "HEAD has told that it is gone");
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
                "nobody looks"
            );
        }
        assert!(!push(&server, "app", &layer, "1", 0), "and so nothing is uploaded");

        let repair = Cloud::run(&cloud.both(), &["fsck", "--hash", "--repair", "--json"]);
        assert_eq!(repair.status.code(), Some(1));
        let told = String::from_utf8(repair.stdout).unwrap();
        let lines: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for (repository, tag) in [("app", "1"), ("other", "2")] {
            let is_told = lines.iter().any(|line| {
                line["finding"] == "manifest_not_pullable"
                    && line["repository"] == repository
                    && line["tags"][0] == tag
                    && line["lost"][0] == digest(&layer)
            });
            assert!(is_told, "{told}");
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
