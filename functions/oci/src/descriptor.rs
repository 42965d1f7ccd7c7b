//! Descriptors (image specification, *OCI Content Descriptors*): one link to content.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::media_type::MediaType;

/// What a manifest states about content that it refers to, and what the referrers API states about a manifest.
///
/// Its JSON is that of the image specification; absent members are omitted. `data` and `platform` are not kept: a
/// registry serves manifests as the bytes that it received, and needs neither.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The type of the content.
    pub media_type: MediaType,
    /// The digest of the content.
    pub digest: Digest,
    /// The length of the content in bytes, at most `i64::MAX`.
    pub size: u64,
    /// The type of the artifact, if the content is a manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<MediaType>,
    /// Arbitrary metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Other URLs of the content. The registry never fetches them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
}

impl Descriptor {
    /// The largest size that the specification's `int64` can state.
    pub const MAX_SIZE: u64 = i64::MAX.cast_unsigned();

    /// A descriptor with the three required members only.
    #[must_use]
    pub const fn new(media_type: MediaType, digest: Digest, size: u64) -> Self {
        Self {
            media_type,
            digest,
            size,
            artifact_type: None,
            annotations: None,
            urls: Vec::new(),
        }
    }
}
