//! The content that is pushed: a few blobs, some of them under two digests, and manifests over them.

use std::sync::Arc;

use bytes::Bytes;
use oci::{Algorithm, Digest, MediaType};
use serde_json::{Value, json};

use super::clock::Random;
use crate::source::noise;

/// The number of blobs.
pub(super) const BLOBS: usize = 24;

/// All blobs, each made once.
#[derive(Clone, Debug)]
pub(super) struct Pool(Arc<Vec<(Digest, Bytes)>>);

impl Pool {
    /// The first eight are four contents, each under its sha256 and its sha512 digest. The last one has `largest`
    /// bytes.
    pub(super) fn new(largest: usize) -> Self {
        let blob = |number: usize| {
            let (content, algorithm) = match number {
                0..8 if number % 2 == 1 => (number / 2, Algorithm::Sha512),
                0..8 => (number / 2, Algorithm::Sha256),
                _ => (number, Algorithm::Sha256),
            };
            // Large enough that no two are equal, except for the empty one.
            let sizes = [16, 700, 32, 3000, 100, 70_000];
            let size = match number {
                9 => 0,
                number if number + 1 == BLOBS => largest,
                _ => sizes[content % sizes.len()],
            };
            let bytes = noise(content as u64 + 1, size);
            (Digest::of(algorithm, &bytes), bytes)
        };
        Self(Arc::new((0..BLOBS).map(blob).collect()))
    }

    /// A blob by its number, which is below [`BLOBS`].
    pub(super) fn blob(&self, number: usize) -> (Digest, Bytes) {
        self.0[number].clone()
    }

    fn descriptor(&self, media_type: &str, number: usize) -> Value {
        let (digest, bytes) = &self.0[number];
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    /// An image that is the same for the same `name`, wherever it is pushed. Every third one is too large for a record.
    pub(super) fn image(&self, name: &str, random: &mut Random, subject: Option<&Document>) -> Document {
        let mut blobs: Vec<usize> = (0..=1 + random.below(3)).map(|_| random.below(BLOBS)).collect();
        blobs.dedup();
        let layers: Vec<_> = blobs[1..]
            .iter()
            .map(|number| self.descriptor(MediaType::OCI_LAYER, *number))
            .collect();
        let padding = if random.percent(33) {
            "x".repeat(2500)
        } else {
            String::new()
        };
        let mut value = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OCI_MANIFEST,
            "artifactType": "application/vnd.example.churn",
            "config": self.descriptor(MediaType::OCI_CONFIG, blobs[0]),
            "layers": layers,
            "annotations": { "name": name, "padding": padding },
        });
        if let Some(subject) = subject {
            value["subject"] = json!({
                "mediaType": subject.media_type, "digest": subject.digest, "size": subject.bytes.len(),
            });
        }
        Document {
            blobs,
            subject: subject.map(|subject| subject.digest),
            ..document(MediaType::OCI_MANIFEST, &value)
        }
    }
}

/// A manifest as it is pushed.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) digest: Digest,
    pub(super) bytes: Bytes,
    pub(super) media_type: &'static str,
    /// Blobs of the pool.
    pub(super) blobs: Vec<usize>,
    /// Manifests that must be in the same repository.
    pub(super) children: Vec<Digest>,
    pub(super) subject: Option<Digest>,
}

fn document(media_type: &'static str, value: &Value) -> Document {
    let bytes = Bytes::from(value.to_string());
    Document {
        digest: Digest::of(Algorithm::Sha256, &bytes),
        bytes,
        media_type,
        blobs: Vec::new(),
        children: Vec::new(),
        subject: None,
    }
}

/// An index over manifests.
pub(super) fn index(name: &str, children: &[&Document]) -> Document {
    let manifests: Vec<_> = children
        .iter()
        .map(|child| json!({ "mediaType": child.media_type, "digest": child.digest, "size": child.bytes.len() }))
        .collect();
    let value = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_INDEX,
        "manifests": manifests,
        "annotations": { "name": name },
    });
    Document {
        children: children.iter().map(|child| child.digest).collect(),
        ..document(MediaType::OCI_INDEX, &value)
    }
}
