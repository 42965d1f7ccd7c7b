//! A little of everything that a registry holds, and whether it is all there.

use serde_json::json;

use super::{EMPTY, MANIFEST_TYPE, Server, digest, manifest};

const REPOSITORY: &str = "team/app";

/// What was pushed.
pub(crate) struct Pushed {
    /// Blobs of the repository.
    blobs: Vec<Vec<u8>>,
    /// Tags of the repository, and the manifests that they name.
    tags: Vec<(&'static str, Vec<u8>)>,
    /// What refers to the first of them.
    referrer: Vec<u8>,
}

/// Pushes blobs in one piece and in several, a manifest that lies in the record and one too large for it, an index, a
/// referrer, a second repository that shares a blob, and a tag with a history.
pub(crate) fn push_everything(server: &Server) -> Pushed {
    let layer = noise(300_000, 1);
    let chunked = noise(150_000, 2);
    for blob in [EMPTY, &layer] {
        server.push_blob(REPOSITORY, blob);
    }
    push_in_chunks(server, &chunked);
    let small = image(&layer, &chunked, "");
    let large = image(&layer, &chunked, &"x".repeat(60_000));
    let put = |reference: &str, body: &[u8]| {
        let media_type = serde_json::from_slice::<serde_json::Value>(body).unwrap()["mediaType"].clone();
        let headers = [("Content-Type", media_type.as_str().unwrap())];
        let path = format!("/v2/{REPOSITORY}/manifests/{reference}");
        let response = server.request("PUT", &path, &headers, body);
        assert_eq!(response.status, 201, "{response:?}");
    };
    put("moved", &large);
    put("moved", &small);
    put("small", &small);
    put("large", &large);
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [descriptor(MANIFEST_TYPE.1, &small), descriptor(MANIFEST_TYPE.1, &large)],
    });
    let index = index.to_string().into_bytes();
    put("index", &index);
    let referrer = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE.1,
        "artifactType": "application/x.signature",
        "config": descriptor("application/vnd.oci.empty.v1+json", EMPTY),
        "layers": [],
        "subject": descriptor(MANIFEST_TYPE.1, &small),
        "annotations": { "signed": "yes" },
    });
    let referrer = referrer.to_string().into_bytes();
    put(&digest(&referrer), &referrer);
    let mount = format!("/v2/other/blobs/uploads/?mount={}&from={REPOSITORY}", digest(EMPTY));
    assert_eq!(server.request("POST", &mount, &[], b"").status, 201);
    let response = server.request("PUT", "/v2/other/manifests/a", &[MANIFEST_TYPE], &manifest("a"));
    assert_eq!(response.status, 201);
    Pushed {
        blobs: vec![EMPTY.to_vec(), layer, chunked],
        tags: vec![
            ("index", index),
            ("large", large),
            ("moved", small.clone()),
            ("small", small),
        ],
        referrer,
    }
}

impl Pushed {
    /// How many tags there are in all repositories.
    pub(crate) fn tags(&self) -> usize {
        self.tags.len() + 1
    }

    /// The bytes of a blob that was pushed in one piece.
    pub(crate) fn layer(&self) -> &[u8] {
        &self.blobs[1]
    }

    /// Asserts that all of it can be pulled, byte for byte.
    pub(crate) fn is_all_there(&self, server: &Server) {
        let get = |path: &str| {
            let response = server.request("GET", &format!("/v2/{path}"), &[], b"");
            assert_eq!(response.status, 200, "{path}: {response:?}");
            response
        };
        for blob in &self.blobs {
            assert_eq!(&get(&format!("{REPOSITORY}/blobs/{}", digest(blob))).body, blob);
        }
        for (tag, body) in &self.tags {
            assert_eq!(&get(&format!("{REPOSITORY}/manifests/{tag}")).body, body);
            assert_eq!(&get(&format!("{REPOSITORY}/manifests/{}", digest(body))).body, body);
        }
        let tags: Vec<_> = self.tags.iter().map(|(tag, _)| *tag).collect();
        assert_eq!(get(&format!("{REPOSITORY}/tags/list")).json()["tags"], json!(tags));
        let subject = digest(&self.tags[3].1);
        let referrers = get(&format!("{REPOSITORY}/referrers/{subject}")).json();
        assert_eq!(referrers["manifests"][0]["digest"], json!(digest(&self.referrer)));
        assert_eq!(referrers["manifests"][0]["annotations"]["signed"], "yes");
        assert_eq!(get("other/manifests/a").body, manifest("a"));
        assert_eq!(get(&format!("other/blobs/{}", digest(EMPTY))).body, EMPTY);
        let listed = get("_catalog").json()["repositories"].clone();
        let listed = listed.as_array().unwrap();
        assert!(
            listed.contains(&json!("other")) && listed.contains(&json!(REPOSITORY)),
            "{listed:?}"
        );
        // What a manifest refers to stays, wherever the reference was recorded.
        let referenced = format!("/v2/{REPOSITORY}/blobs/{}", digest(self.layer()));
        assert_eq!(server.request("DELETE", &referenced, &[], b"").status, 405);
    }
}

fn push_in_chunks(server: &Server, bytes: &[u8]) {
    let upload = server.open_upload(REPOSITORY, &[]);
    let (first, second) = bytes.split_at(bytes.len() / 3);
    let patched = server.request("PATCH", &upload, &[], first);
    assert_eq!(patched.status, 202, "{patched:?}");
    let range = format!("{}-{}", first.len(), bytes.len() - 1);
    let location = patched.header("location").unwrap();
    let patched = server.request("PATCH", location, &[("Content-Range", &range)], second);
    assert_eq!(patched.status, 202, "{patched:?}");
    let finish = format!("{}?digest={}", patched.header("location").unwrap(), digest(bytes));
    assert_eq!(server.request("PUT", &finish, &[], b"").status, 201);
}

fn image(layer: &[u8], chunked: &[u8], note: &str) -> Vec<u8> {
    let image = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE.1,
        "config": descriptor("application/vnd.oci.image.config.v1+json", EMPTY),
        "layers": [
            descriptor("application/vnd.oci.image.layer.v1.tar", layer),
            descriptor("application/vnd.oci.image.layer.v1.tar", chunked),
        ],
        "annotations": { "note": note },
    });
    image.to_string().into_bytes()
}

fn descriptor(media_type: &str, bytes: &[u8]) -> serde_json::Value {
    json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
}

/// Bytes that differ from each other, the same for the same `seed`.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}
