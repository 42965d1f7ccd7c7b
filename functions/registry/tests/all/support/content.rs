//! Blobs and manifests, and the requests that push them.

use bytes::Bytes;
use oci::{Algorithm, Digest, MediaType};
use serde_json::{Value, json};

use super::{Answer, World};

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

pub(crate) fn sha512(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha512, bytes)
}

/// The descriptor of `bytes`.
pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": sha256(bytes), "size": bytes.len() })
}

/// An image manifest over these bytes.
pub(crate) fn image(config: &[u8], layers: &[&[u8]]) -> Value {
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| descriptor(MediaType::OCI_LAYER, layer))
        .collect();
    json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_MANIFEST,
        "config": descriptor(MediaType::OCI_CONFIG, config),
        "layers": layers,
    })
}

/// An index over manifests.
pub(crate) fn index(manifests: &[&[u8]]) -> Value {
    let manifests: Vec<_> = manifests
        .iter()
        .map(|bytes| descriptor(MediaType::OCI_MANIFEST, bytes))
        .collect();
    json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": manifests })
}

/// The bytes of the empty configuration of artifacts.
pub(crate) const EMPTY: &[u8] = b"{}";

/// An artifact with a type and a subject.
pub(crate) fn artifact(artifact_type: &str, subject: &[u8]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": descriptor(MediaType::OCI_EMPTY, EMPTY),
        "layers": [],
        "subject": descriptor(MediaType::OCI_MANIFEST, subject),
    })
}

/// `value` as JSON, padded with white space to exactly `length` bytes.
pub(crate) fn padded(value: &Value, length: usize) -> Bytes {
    let mut bytes = value.to_string().into_bytes();
    assert!(bytes.len() <= length, "{} bytes already", bytes.len());
    bytes.resize(length, b' ');
    bytes.into()
}

pub(crate) fn bytes_of(value: &Value) -> Bytes {
    value.to_string().into()
}

/// The result of [`World::push_image`].
pub(crate) struct Image {
    pub(crate) manifest: Bytes,
    pub(crate) digest: Digest,
    pub(crate) config: Digest,
    pub(crate) layer: Digest,
}

impl World {
    pub(crate) async fn push_blob(&self, repository: &str, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = sha256(&bytes);
        let target = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        self.post(target).bytes(bytes).send().await.expect(201);
        digest
    }

    /// Opens an upload. Returns its location.
    pub(crate) async fn open_upload(&self, repository: &str) -> String {
        let target = format!("/v2/{repository}/blobs/uploads/");
        self.post(target).send().await.expect(202).location()
    }

    pub(crate) async fn put_manifest(
        &self,
        repository: &str,
        reference: impl ToString,
        bytes: impl Into<Bytes>,
    ) -> Answer {
        let bytes = bytes.into();
        let value: Value = serde_json::from_slice(&bytes).expect("a manifest");
        let media_type = value["mediaType"].as_str().expect("a media type");
        self.put(format!("/v2/{repository}/manifests/{}", reference.to_string()))
            .header("content-type", media_type)
            .bytes(bytes.clone())
            .send()
            .await
    }

    /// Pushes an image with one layer, which contains `text`, and tags it.
    pub(crate) async fn push_image(&self, repository: &str, tag: &str, text: &str) -> Image {
        let config = format!("{{\"config\":\"{text}\"}}");
        let layer = format!("layer of {text}");
        let manifest = bytes_of(&image(config.as_bytes(), &[layer.as_bytes()]));
        let image = Image {
            digest: sha256(&manifest),
            config: self.push_blob(repository, config).await,
            layer: self.push_blob(repository, layer).await,
            manifest,
        };
        self.put_manifest(repository, tag, image.manifest.clone())
            .await
            .expect(201);
        image
    }

    /// The bytes of the blob in the repository, if it can be read.
    pub(crate) async fn blob(&self, repository: &str, digest: &Digest) -> Option<Bytes> {
        let answer = self.get(format!("/v2/{repository}/blobs/{digest}")).send().await;
        if answer.status == 200 {
            return Some(answer.body);
        }
        answer.expect_error(404, "BLOB_UNKNOWN");
        None
    }
}
