//! Small manifests as text, and the result of parsing them.

use oci::{Manifest, ManifestError, ManifestLimits, MediaType};

pub(crate) const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

pub(crate) fn parse_as(content_type: &str, text: impl AsRef<[u8]>) -> Result<Manifest, ManifestError> {
    let content_type = content_type.parse().unwrap();
    Manifest::parse(text.as_ref(), Some(&content_type), &ManifestLimits::default())
}

pub(crate) fn link() -> String {
    format!(r#"{{"mediaType":"a/b","digest":"{A}","size":1}}"#)
}

/// An OCI image manifest that ends in `more`.
pub(crate) fn image(more: &str) -> String {
    format!(r#"{{"schemaVersion":2,"config":{}{more}}}"#, link())
}

pub(crate) fn refusal_of_image(more: &str) -> ManifestError {
    assert!(
        parse_as(MediaType::OCI_MANIFEST, image("")).is_ok(),
        "the base manifest is refused"
    );
    parse_as(MediaType::OCI_MANIFEST, image(more)).unwrap_err()
}

/// The refusal of an image whose second layer is this descriptor.
pub(crate) fn refusal_of_layer(descriptor: &str) -> ManifestError {
    refusal_of_image(&format!(r#","layers":[{}, {descriptor}]"#, link()))
}
