//! Media types: the syntax of RFC 6838, and the types whose meaning a registry must know.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::text::serde_as_text;

/// A media type: `type/subtype`, both restricted names of RFC 6838, section 4.2. A media type from a manifest may also
/// have parameters.
///
/// The spelling is kept as received, and types compare by their exact spelling, as clients compare them. A type in
/// another case is therefore an unknown type and never matches a known one. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaType(Arc<str>);

impl MediaType {
    /// OCI image manifest.
    pub const OCI_MANIFEST: &'static str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const OCI_INDEX: &'static str = "application/vnd.oci.image.index.v1+json";
    /// Docker image manifest version 2, schema 2.
    pub const DOCKER_MANIFEST: &'static str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_LIST: &'static str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker image manifest version 2, schema 1: refused.
    pub const DOCKER_SCHEMA1: &'static str = "application/vnd.docker.distribution.manifest.v1+json";
    /// Docker image manifest version 2, schema 1, signed: refused.
    pub const DOCKER_SCHEMA1_SIGNED: &'static str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    /// The type of the two bytes `{}`, which stand for "no content".
    pub const OCI_EMPTY: &'static str = "application/vnd.oci.empty.v1+json";
    /// OCI image configuration.
    pub const OCI_CONFIG: &'static str = "application/vnd.oci.image.config.v1+json";
    /// Docker image configuration.
    pub const DOCKER_CONFIG: &'static str = "application/vnd.docker.container.image.v1+json";
    /// OCI layer, uncompressed.
    pub const OCI_LAYER: &'static str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    pub const OCI_LAYER_GZIP: &'static str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, zstd.
    pub const OCI_LAYER_ZSTD: &'static str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker layer, gzip.
    pub const DOCKER_LAYER_GZIP: &'static str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// OCI layer with distribution restrictions, uncompressed.
    pub const OCI_NONDISTRIBUTABLE: &'static str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
    /// OCI layer with distribution restrictions, gzip.
    pub const OCI_NONDISTRIBUTABLE_GZIP: &'static str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    /// OCI layer with distribution restrictions, zstd.
    pub const OCI_NONDISTRIBUTABLE_ZSTD: &'static str = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd";
    /// Docker foreign layer, uncompressed.
    pub const DOCKER_FOREIGN: &'static str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
    /// Docker foreign layer, gzip.
    pub const DOCKER_FOREIGN_GZIP: &'static str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

    /// The maximum length, in bytes, of the parameters of a type in a manifest, without the semicolon before them.
    pub const MAX_PARAMETERS: usize = 255;

    /// Parses the value of a `Content-Type` header. Parameters (`; charset=utf-8`) and surrounding white space are
    /// removed, as the distribution specification asks of registries.
    pub fn parse(header: &str) -> Result<Self, MediaTypeError> {
        let essence = header.split_once(';').map_or(header, |(essence, _)| essence);
        essence
            .trim_matches(|character| matches!(character, ' ' | '\t'))
            .parse()
    }

    /// The type as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is an OCI image index or a Docker manifest list.
    #[must_use]
    pub fn is_index(&self) -> bool {
        matches!(self.as_str(), Self::OCI_INDEX | Self::DOCKER_LIST)
    }

    /// Whether this is an OCI or Docker image manifest (not an index).
    #[must_use]
    pub fn is_manifest(&self) -> bool {
        matches!(self.as_str(), Self::OCI_MANIFEST | Self::DOCKER_MANIFEST)
    }

    /// Whether this is one of the two types of Docker schema 1, which this registry refuses.
    #[must_use]
    pub fn is_schema1(&self) -> bool {
        matches!(self.as_str(), Self::DOCKER_SCHEMA1 | Self::DOCKER_SCHEMA1_SIGNED)
    }

    /// Whether this is a layer with distribution restrictions (OCI) or a foreign layer (Docker). Clients do not push
    /// such layers, so they need not exist in the registry.
    #[must_use]
    pub fn is_non_distributable(&self) -> bool {
        matches!(
            self.as_str(),
            Self::OCI_NONDISTRIBUTABLE
                | Self::OCI_NONDISTRIBUTABLE_GZIP
                | Self::OCI_NONDISTRIBUTABLE_ZSTD
                | Self::DOCKER_FOREIGN
                | Self::DOCKER_FOREIGN_GZIP
        )
    }

    /// Whether a manifest, which is a JSON document, can have this type: `application/json`, or an application type
    /// with the suffix `+json`, in any case.
    ///
    /// A registry serves a manifest under the type of its push. A manifest pushed as `text/html` would otherwise run as
    /// a page in the browser of a user who follows a link to it.
    #[must_use]
    pub fn is_json(&self) -> bool {
        let lower = self.0.to_ascii_lowercase();
        lower
            .strip_prefix("application/")
            .is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
    }
}

/// The text is not a [`MediaType`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("malformed media type: expected type/subtype, named as in RFC 6838, section 4.2")]
pub struct MediaTypeError;

impl FromStr for MediaType {
    type Err = MediaTypeError;

    /// Parses a media type as written in a manifest or in the `artifactType` filter of a referrers request.
    ///
    /// RFC 6838 defines no parameters there. But existing artifacts have them
    /// (`application/vnd.dev.sigstore.bundle+json;version=0.2`), and the referrers API must show them unchanged. Up to
    /// [`MediaType::MAX_PARAMETERS`] bytes of printable ASCII after a semicolon are kept as written.
    fn from_str(text: &str) -> Result<Self, MediaTypeError> {
        let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
        let (kind, subtype) = essence.split_once('/').ok_or(MediaTypeError)?;
        let valid = is_restricted_name(kind)
            && is_restricted_name(subtype)
            && parameters.len() <= Self::MAX_PARAMETERS
            && parameters.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(MediaTypeError)
        }
    }
}

/// RFC 6838, section 4.2: at most 127 characters, the first a letter or digit.
fn is_restricted_name(name: &str) -> bool {
    name.len() <= 127
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
}

impl TryFrom<&str> for MediaType {
    type Error = MediaTypeError;

    fn try_from(text: &str) -> Result<Self, MediaTypeError> {
        text.parse()
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MediaType({self})")
    }
}

impl AsRef<str> for MediaType {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for MediaType {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for MediaType {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for MediaType {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

serde_as_text!(MediaType, "a media type");
