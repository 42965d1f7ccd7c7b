//! How often the object store is asked, for everything that clients do: as the server's own metrics count it.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::cloud::Cloud;
use crate::support::{EMPTY, MANIFEST_TYPE, Response, Server, digest};

const MIB: usize = 1 << 20;

/// A server, and what it had asked of the object store at the last look.
struct Counted {
    server: Server,
    before: BTreeMap<String, u64>,
}

impl Counted {
    fn new(cloud: &Cloud) -> Self {
        let both = cloud.both();
        Cloud::succeed(&both, &["metadata", "init"]);
        let mut counted = Self {
            server: Cloud::serve(&both, &["--pull", "redirect", "--metrics", "here"]),
            before: BTreeMap::new(),
        };
        counted.asked();
        counted
    }

    /// What was asked since the last look, by operation.
    fn asked(&mut self) -> BTreeMap<String, u64> {
        let metrics = self.request("GET", "/metrics", &[], b"").body;
        let metrics = String::from_utf8(metrics).unwrap();
        let now: BTreeMap<String, u64> = metrics
            .lines()
            .filter_map(|line| line.strip_prefix("roadstead_object_store_requests_total{operation=\""))
            .map(|line| {
                let (operation, count) = line.split_once("\"} ").expect(line);
                (operation.to_owned(), count.parse().unwrap())
            })
            .collect();
        assert!(now.contains_key("PutObject"), "{metrics}");
        let before = std::mem::replace(&mut self.before, now);
        let grown = self.before.iter().filter_map(|(operation, count)| {
            let more = count - before.get(operation).copied().unwrap_or(0);
            (more > 0).then(|| (operation.clone(), more))
        });
        grown.collect()
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.server.request(method, path, headers, body)
    }

    fn patch_and_put(&self, bytes: &[u8]) {
        let upload = self.server.open_upload("app", &[]);
        let patched = self.request("PATCH", &upload, &[], bytes);
        assert_eq!(patched.status, 202, "{patched:?}");
        let finish = format!("{}?digest={}", patched.header("location").unwrap(), digest(bytes));
        let finished = self.request("PUT", &finish, &[], b"");
        assert_eq!(finished.status, 201, "{finished:?}");
    }
}

fn table<const N: usize>(rows: [(&str, u64); N]) -> BTreeMap<String, u64> {
    rows.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

/// Bytes that no other call with another `seed` makes.
fn layer(length: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![seed; length];
    bytes[length / 2] = seed.wrapping_add(1);
    bytes
}

#[test]
#[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
fn a_small_blob_is_one_request_however_it_is_pushed() {
    let cloud = Cloud::new();
    let mut counted = Counted::new(&cloud);
    let one = table([("PutObject", 1)]);

    counted.patch_and_put(&layer(MIB, 1));
    assert_eq!(counted.asked(), one, "POST, PATCH, PUT");
    counted.server.push_blob("app", &layer(MIB, 2));
    assert_eq!(counted.asked(), one, "POST, PUT");
    let whole = layer(MIB, 3);
    let monolithic = format!("/v2/app/blobs/uploads/?digest={}", digest(&whole));
    assert_eq!(counted.request("POST", &monolithic, &[], &whole).status, 201);
    assert_eq!(counted.asked(), one, "POST alone");

    // The same bytes for another repository are not asked for at all.
    let mount = format!("/v2/other/blobs/uploads/?mount={}&from=app", digest(&whole));
    assert_eq!(counted.request("POST", &mount, &[], b"").status, 201);
    let head = format!("/v2/other/blobs/{}", digest(&whole));
    assert_eq!(counted.request("HEAD", &head, &[], b"").status, 200);
    assert_eq!(counted.asked(), table([]), "a mount");
}

#[test]
#[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
fn a_large_blob_is_its_parts_and_two_requests() {
    let cloud = Cloud::new();
    let mut counted = Counted::new(&cloud);
    // Five parts of 8 MiB.
    let parts = table([
        ("CreateMultipartUpload", 1),
        ("UploadPart", 5),
        ("CompleteMultipartUpload", 1),
    ]);
    counted.patch_and_put(&layer(40 * MIB, 1));
    assert_eq!(counted.asked(), parts, "POST, PATCH, PUT");
    counted.server.push_blob("app", &layer(40 * MIB, 2));
    assert_eq!(counted.asked(), parts, "POST, PUT");
}

#[test]
#[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
fn a_pull_asks_for_nothing() {
    let cloud = Cloud::new();
    let mut counted = Counted::new(&cloud);
    let layer = layer(MIB, 1);
    for blob in [EMPTY, &layer] {
        counted.server.push_blob("app", blob);
    }
    counted.asked();
    let descriptor = |media_type: &str, bytes: &[u8]| json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() });
    let image = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE.1,
        "config": descriptor("application/vnd.oci.image.config.v1+json", EMPTY),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let image = image.to_string().into_bytes();
    let put = counted.request("PUT", "/v2/app/manifests/v1", &[MANIFEST_TYPE], &image);
    assert_eq!(put.status, 201, "{put:?}");
    assert_eq!(counted.asked(), table([]), "a manifest that its record holds");

    for method in ["HEAD", "GET"] {
        for reference in ["v1", &digest(&image)] {
            let path = format!("/v2/app/manifests/{reference}");
            let answer = counted.request(method, &path, &[], b"");
            assert_eq!(answer.status, 200, "{method} {path}");
            assert!(method == "HEAD" || answer.body == image, "{path}");
        }
    }
    for blob in [EMPTY, &layer] {
        let path = format!("/v2/app/blobs/{}", digest(blob));
        assert_eq!(counted.request("HEAD", &path, &[], b"").status, 200);
        let answer = counted.request("GET", &path, &[], b"");
        assert_eq!(answer.status, 307, "{answer:?}");
    }
    assert_eq!(counted.asked(), table([]), "a pull");
}
