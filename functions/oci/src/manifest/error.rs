//! Why a manifest is refused. Each text tells the author what to correct, and quotes at most a short piece of the
//! input.

use thiserror::Error;

use crate::digest::DigestError;
use crate::media_type::{MediaType, MediaTypeError};

/// Why bytes are not an acceptable manifest. `field` is a path into the document, for example `layers[3].digest`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ManifestError {
    /// The bytes are not one JSON document in UTF-8. The text is the JSON parser's reason, with line and column. A byte
    /// order mark, anything after the document, and numbers beyond an IEEE 754 double are refused too.
    #[error("manifest is not valid JSON: {0}")]
    NotJson(String),
    /// The document is JSON, but its top level is not an object.
    #[error("manifest is not a JSON object")]
    NotAnObject,
    /// An object anywhere in the document contains a key twice.
    #[error("manifest has the key {0:?} twice in one object")]
    DuplicateKey(String),
    /// A key differs from a key of the specification only by case, so some parsers take it for that key.
    #[error("manifest has the key {found:?}: spell it {known:?}, or choose a different key")]
    AmbiguousKey {
        /// The key as it stands in the document.
        found: String,
        /// The key of the specification.
        known: &'static str,
    },
    /// Objects and arrays are nested deeper than this many levels.
    #[error("manifest is nested deeper than {0} levels")]
    TooDeep(usize),
    /// The document has more references than this.
    #[error("manifest has more than {0} references")]
    TooManyReferences(usize),
    /// The document has more JSON values than this.
    #[error("manifest has more than {0} values")]
    TooManyValues(usize),
    /// `Content-Type` and the `mediaType` member differ.
    #[error("Content-Type is {content_type} but the manifest's mediaType is {media_type}: they must be equal")]
    MediaTypeMismatch {
        /// The header, without parameters.
        content_type: MediaType,
        /// The member.
        media_type: MediaType,
    },
    /// The request has no `Content-Type`, and the document has no `mediaType` member.
    #[error("manifest has no media type: send Content-Type, or set mediaType")]
    MissingMediaType,
    /// The media type does not denote JSON ([`MediaType::is_json`]).
    #[error("{0} is no media type of a manifest: expected application/json or an application type that ends in +json")]
    UnsupportedMediaType(MediaType),
    /// The document is a Docker image manifest version 2, schema 1.
    #[error("Docker image manifest version 2, schema 1 is not supported: push the image as schema 2 or OCI")]
    Schema1,
    /// `schemaVersion` of a known type is not the integer 2.
    #[error("schemaVersion must be the integer 2")]
    SchemaVersion,
    /// A member that the media type requires is absent or null.
    #[error("manifest has no {0}, which its media type requires")]
    MissingField(&'static str),
    /// The document is an image manifest with `manifests`, or an index with `config` or `layers`.
    #[error(
        "manifest has members of an image manifest (config, layers, blobs) and of an index (manifests): keep only those of its media type"
    )]
    BothImageAndIndex,
    /// A member does not have the JSON type that the specification requires.
    #[error("{field} must be {expected}")]
    WrongType {
        /// The path of the member.
        field: String,
        /// The required type.
        expected: &'static str,
    },
    /// The document's own `mediaType` or `artifactType` is malformed.
    #[error("{field}: {reason}")]
    BadMediaType {
        /// The path of the member.
        field: String,
        /// What is wrong with it.
        reason: MediaTypeError,
    },
    /// A member of a descriptor is absent or malformed.
    #[error("{field}: {reason}")]
    BadDescriptor {
        /// The path of the member.
        field: String,
        /// What is wrong with it.
        reason: DescriptorFault,
    },
    /// A descriptor's size is negative.
    #[error("{field} must not be negative")]
    NegativeSize {
        /// The path of the member.
        field: String,
    },
}

/// What is wrong with a member of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DescriptorFault {
    /// A required member is absent.
    #[error("a descriptor requires it")]
    Missing,
    /// `digest` is not a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// `mediaType` or `artifactType` is not a media type.
    #[error(transparent)]
    MediaType(#[from] MediaTypeError),
    /// `size` is a number, but not an integer from 0 to 2^63 - 1 without fraction and exponent.
    #[error("expected an integer from 0 to 9223372036854775807, without fraction or exponent")]
    Size,
}
