//! Lost content: reported as what cannot be pulled, recorded by a repair, and pushed again.

use oci::Digest;
use registry::check::{CheckOptions, Finding};
use registry::store::records::{EntryContent, Record};
use serde_json::json;

use super::check::{CX, is_for_pulls, options};
use crate::support::content::{bytes_of, image, index, padded};
use crate::support::{World, sha256};

impl World {
    async fn not_pullable(&self, options: &CheckOptions) -> Vec<Finding> {
        let mut findings = self.check_as(options).await.1;
        findings.retain(is_for_pulls);
        findings
    }

    async fn records(&self) -> Vec<Record> {
        let slice = self.stores.records.records(CX, None, 1000).await.unwrap();
        assert_eq!(slice.next, None);
        slice.items
    }

    async fn status(&self, method: &str, path: String) -> u16 {
        let call = if method == "HEAD" {
            self.head(path)
        } else {
            self.get(path)
        };
        call.send().await.status
    }
}

fn repairing() -> CheckOptions {
    CheckOptions {
        repair: true,
        ..options()
    }
}

fn manifest(repository: &str, digest: Digest, tags: &[&str], mut missing: Vec<Digest>) -> Finding {
    missing.sort();
    Finding::ManifestNotPullable {
        repository: repository.parse().unwrap(),
        digest,
        tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
        missing,
    }
}

/// Every image that needs lost content is reported with its tags, and so are indexes over such images. Intact images
/// are not reported.
#[tokio::test]
async fn what_cannot_be_pulled_is_reported_with_its_tags() {
    let world = World::new().await;
    let one = world.push_image("a", "one", "one").await;
    world.put_manifest("a", "again", one.manifest.clone()).await.expect(201);
    let other = world.push_image("a", "other", "other").await;
    let list = bytes_of(&index(&[&one.manifest, &other.manifest]));
    world.put_manifest("a", "list", list.clone()).await.expect(201);
    let outer = bytes_of(&index(&[&list]));
    world.put_manifest("a", "outer", outer.clone()).await.expect(201);
    let mount = format!("/v2/b/blobs/uploads/?mount={}&from=a", one.layer);
    world.post(mount).send().await.expect(201);
    assert_eq!(world.not_pullable(&options()).await, []);

    let location = world.location_of("a", &one.layer).await;
    world.blobs.lose(&location).unwrap();
    let mut expected = vec![
        manifest("a", one.digest, &["again", "one"], vec![one.layer]),
        manifest("a", sha256(&list), &["list"], vec![one.digest]),
        manifest("a", sha256(&outer), &["outer"], vec![sha256(&list)]),
        Finding::BlobNotPullable {
            repository: "b".parse().unwrap(),
            digest: one.layer,
        },
    ];
    let mut found = world.not_pullable(&options()).await;
    let name = |finding: &Finding| format!("{finding:?}");
    found.sort_by_key(name);
    expected.sort_by_key(name);
    assert_eq!(found, expected);
    let value = serde_json::to_value(manifest("a", one.digest, &["one"], vec![one.layer])).unwrap();
    assert_eq!(
        value,
        json!({
            "finding": "manifest_not_pullable",
            "repository": "a",
            "digest": one.digest,
            "tags": ["one"],
            "missing": [one.layer],
        })
    );
}

/// Each repository has its own record of a small manifest, so damage in one does not affect the others. A push of the
/// right bytes repairs it.
#[tokio::test]
async fn a_manifest_that_is_damaged_in_its_record_is_pushed_again() {
    let world = World::new().await;
    let one = world.push_image("a", "one", "one").await;
    world.push_image("b", "one", "one").await;
    let mut records = world.records().await;
    let entry = records.iter_mut().find_map(|record| match record {
        Record::Manifest(entry) if entry.repository.as_str() == "a" => Some(entry),
        _ => None,
    });
    let mut damaged = entry.unwrap().clone();
    let bytes = String::from_utf8(one.manifest.to_vec()).unwrap();
    damaged.content = EntryContent::Inline(bytes.replace("layer", "liver").into());
    world.plant(Record::Manifest(damaged)).await;

    let expected = [manifest("a", one.digest, &["one"], vec![one.digest])];
    assert_eq!(world.not_pullable(&options()).await, expected);
    world.put_manifest("a", "one", one.manifest.clone()).await.expect(201);
    let answer = world.get("/v2/a/manifests/one".to_owned()).send().await.expect(200);
    assert_eq!(answer.body, one.manifest);
    assert_eq!(world.check_as(&options()).await.1, []);
}

/// Clients ask for a manifest, by tag or by digest, before they push it. After a repair they push the manifest whose
/// record is damaged. If the length is wrong, the first read finds and records it.
#[tokio::test]
async fn a_manifest_that_is_damaged_in_its_record_is_absent_after_a_repair() {
    for (replaced, finds_itself) in [("liver", false), ("lay", true)] {
        let world = World::new().await;
        let one = world.push_image("a", "one", "one").await;
        world.put_manifest("a", "again", one.manifest.clone()).await.expect(201);
        let bytes = String::from_utf8(one.manifest.to_vec()).unwrap();
        let mut records = world.records().await;
        let entry = records.iter_mut().find_map(|record| match record {
            Record::Manifest(entry) => Some(entry),
            _ => None,
        });
        let mut damaged = entry.unwrap().clone();
        damaged.content = EntryContent::Inline(bytes.replace("layer", replaced).into());
        world.plant(Record::Manifest(damaged)).await;

        let by_digest = one.digest.to_string();
        let all = [
            ("HEAD", "one"),
            ("HEAD", "again"),
            ("HEAD", &by_digest),
            ("GET", "one"),
            ("GET", &by_digest),
        ];
        let statuses = async || {
            let mut statuses = Vec::new();
            for (method, reference) in all {
                statuses.push(world.status(method, format!("/v2/a/manifests/{reference}")).await);
            }
            statuses
        };
        if finds_itself {
            assert_eq!(
                world.status("HEAD", "/v2/a/manifests/one".to_owned()).await,
                200,
                "it asks for the tag alone"
            );
            assert_eq!(world.status("GET", "/v2/a/manifests/one".to_owned()).await, 404);
        } else {
            assert_eq!(statuses().await, [200; 5]);
            let (summary, _) = world.check_as(&repairing()).await;
            assert_eq!(summary.repaired, 1);
        }
        assert_eq!(statuses().await, [404; 5]);
        world.put_manifest("a", "one", one.manifest.clone()).await.expect(201);
        assert_eq!(statuses().await, [200; 5]);
        let answer = world.get("/v2/a/manifests/again".to_owned()).send().await.expect(200);
        assert_eq!(answer.body, one.manifest);
        assert_eq!(world.check_as(&options()).await.1, []);
    }
}

/// After a repair, HEAD and GET of a lost blob are 404 in every repository. A push in one of them repairs all. A check
/// without repair changes nothing.
#[tokio::test]
async fn a_push_replaces_what_a_repair_has_recorded() {
    let world = World::new().await;
    let one = world.push_image("a", "one", "one").await;
    let mount = format!("/v2/b/blobs/uploads/?mount={}&from=a", one.layer);
    world.post(mount).send().await.expect(201);
    world.push_blob("a", "{}").await;
    let large = padded(&image(b"{}", &[]), 40_000);
    world.put_manifest("a", "large", large.clone()).await.expect(201);
    let paths = ["a", "b"].map(|name| format!("/v2/{name}/blobs/{}", one.layer));
    let large_path = format!("/v2/a/manifests/{}", sha256(&large));

    world.blobs.lose(&world.location_of("a", &one.layer).await).unwrap();
    let stored = world
        .stores
        .metadata
        .manifest(CX, &"a".parse().unwrap(), &sha256(&large))
        .await;
    let stored = stored.unwrap().unwrap().content.object().cloned().unwrap();
    world.blobs.lose(&stored).unwrap();
    let (summary, _) = world.check_as(&options()).await;
    assert_eq!(summary.repaired, 0);
    assert_eq!(
        world.status("HEAD", paths[0].clone()).await,
        200,
        "the loss is not recorded"
    );

    let (summary, found) = world.check_as(&repairing()).await;
    assert_eq!((summary.repaired, summary.findings), (2, found.len() as u64));
    for path in paths.iter().chain([&large_path]) {
        for method in ["HEAD", "GET"] {
            assert_eq!(world.status(method, path.clone()).await, 404, "{method} {path}");
        }
    }
    assert_eq!(
        world.not_pullable(&options()).await.len(),
        3,
        "the images and the mount, still"
    );

    world.push_blob("a", "layer of one").await;
    world.put_manifest("a", "large", large.clone()).await.expect(201);
    for path in paths.iter().chain([&large_path]) {
        assert_eq!(world.status("HEAD", path.clone()).await, 200, "{path}");
    }
    for path in &paths {
        let answer = world.get(path.clone()).send().await.expect(200);
        assert_eq!(answer.body, "layer of one");
    }
    assert_eq!(world.get(large_path).send().await.expect(200).body, large);
    let (summary, found) = world.check_as(&repairing()).await;
    assert_eq!((summary.repaired, found), (0, Vec::new()));
}

/// A store without any object is the wrong one: no losses are recorded.
#[tokio::test]
async fn losses_of_an_empty_store_are_not_recorded() {
    let world = World::new().await;
    let blob = world.push_blob("a", "the only one").await;
    world.blobs.lose(&world.location_of("a", &blob).await).unwrap();
    let checked = registry::check::check(&world.stores, world.clock.clone(), &repairing(), &mut |_| {}).await;
    let error = checked.expect_err("it says so").to_string();
    assert!(error.contains("has no object at all"), "{error}");
    let link = world.stores.metadata.link(CX, &"a".parse().unwrap(), &blob).await;
    assert_eq!(link.unwrap().unwrap().defect, None);
}

/// A read that finds no object records that. When the object exists again, it is used.
#[tokio::test]
async fn a_missing_object_that_comes_back_is_used() {
    let world = World::new().await;
    let blob = world.push_blob("a", "here and there").await;
    let path = format!("/v2/a/blobs/{blob}");
    let location = world.location_of("a", &blob).await;
    let object = world.blobs.lose(&location).unwrap();
    let answer = world.get(path.clone()).send().await.expect(404);
    assert_eq!(answer.code(), "BLOB_UNKNOWN");
    assert_eq!(world.status("HEAD", path.clone()).await, 404);
    world.blobs.restore(&location, object);
    assert_eq!(
        world.status("HEAD", path.clone()).await,
        404,
        "HEAD asks the table alone"
    );
    assert_eq!(world.get(path.clone()).send().await.expect(200).body, "here and there");
    assert_eq!(world.status("HEAD", path).await, 200);
}

/// Bytes that are known to be wrong are never served.
#[tokio::test]
async fn damaged_bytes_are_not_served_after_a_repair() {
    let world = World::new().await;
    let blob = world.push_blob("a", "right bytes").await;
    let path = format!("/v2/a/blobs/{blob}");
    let location = world.location_of("a", &blob).await;
    world.blobs.lose(&location).unwrap();
    world.blobs.restore(&location, "wrong bytes");
    let (summary, _) = world.check_as(&repairing()).await;
    assert_eq!(summary.repaired, 1);
    for method in ["HEAD", "GET", "GET"] {
        assert_eq!(world.status(method, path.clone()).await, 404);
    }
    world.push_blob("a", "right bytes").await;
    assert_eq!(world.get(path).send().await.expect(200).body, "right bytes");
}

/// Damage that a check with `--hash` has recorded is reported by every later check, until the bytes are pushed.
#[tokio::test]
async fn recorded_damage_is_reported_by_every_check() {
    let world = World::new().await;
    let one = world.push_image("a", "one", "one").await;
    let location = world.location_of("a", &one.layer).await;
    world.blobs.lose(&location).unwrap();
    world.blobs.restore(&location, "LAYER OF ONE");
    assert_eq!(world.check_as(&repairing()).await.0.repaired, 1);

    let quick = CheckOptions {
        hash: false,
        ..options()
    };
    let digest = one.layer;
    let expected = [
        Finding::RecordedAsDamaged { digest, location },
        manifest("a", one.digest, &["one"], vec![digest]),
    ];
    for repair in [false, true] {
        let options = CheckOptions {
            repair,
            ..quick.clone()
        };
        let (summary, found) = world.check_as(&options).await;
        assert_eq!(
            (summary.repaired, found),
            (u64::from(repair), expected.to_vec()),
            "repair: {repair}"
        );
    }
    world.push_blob("a", "layer of one").await;
    assert_eq!(world.check_as(&quick).await.1, []);
}

/// A disk comes back after a check has recorded its objects as missing. The next check reports that they exist, and its
/// repair makes HEAD, mounts and manifests find them.
#[tokio::test]
async fn a_recorded_loss_of_an_object_that_exists_is_repaired() {
    let world = World::new().await;
    let one = world.push_image("a", "one", "one").await;
    let location = world.location_of("a", &one.layer).await;
    let object = world.blobs.lose(&location).unwrap();
    assert_eq!(world.check_as(&repairing()).await.0.repaired, 1);
    world.blobs.restore(&location, object);

    let digest = one.layer;
    let expected = [Finding::RecordedAsMissing { digest, location }];
    let path = format!("/v2/a/blobs/{digest}");
    let (summary, found) = world.check_as(&options()).await;
    assert_eq!((summary.repaired, found), (0, expected.to_vec()));
    assert_eq!(
        world.status("HEAD", path.clone()).await,
        404,
        "the record is not repaired"
    );
    let (summary, found) = world.check_as(&repairing()).await;
    assert_eq!((summary.repaired, found), (1, expected.to_vec()));
    assert_eq!(world.status("HEAD", path).await, 200);
    let mount = format!("/v2/b/blobs/uploads/?mount={digest}&from=a");
    world.post(mount).send().await.expect(201);
    assert_eq!(world.check_as(&options()).await.1, []);
}

/// An object that exists again with other bytes is damaged, and is not used.
#[tokio::test]
async fn an_object_that_returns_with_wrong_bytes_is_recorded_as_damaged() {
    let world = World::new().await;
    let blob = world.push_blob("a", "right bytes").await;
    world.push_blob("a", "another").await;
    let location = world.location_of("a", &blob).await;
    world.blobs.lose(&location).unwrap();
    assert_eq!(world.check_as(&repairing()).await.0.repaired, 1);
    world.blobs.restore(&location, "wrong bytes");
    let (summary, found) = world.check_as(&repairing()).await;
    assert_eq!(summary.repaired, 1);
    assert!(matches!(&found[0], Finding::Corrupt { .. }), "{found:?}");
    assert_eq!(world.status("GET", format!("/v2/a/blobs/{blob}")).await, 404);
}
