//! The words of the OCI specifications as value types.
//!
//! Each type has private fields and one parser, so that a value that exists is valid; code behind the edge never checks
//! a digest, a name or a tag again. Everything here is pure: bytes and strings in, values out.
//!
//! Read in this order, each module needing only the ones above it:
//!
//! 1. [`hex`]: bytes as text. [`digest`]: content identifiers, and the hasher whose state survives a request.
//! 2. [`name`], [`tag`], [`mod@reference`]: what the path of a request is made of.
//! 3. [`media_type`]: the types this registry knows, and the syntax of those it does not.
//! 4. [`descriptor`]: one link from a manifest to content.
//! 5. [`manifest`]: the validating reader of what clients push; the largest surface for hostile input.
//! 6. [`range`]: `Range` of downloads and `Content-Range` of upload chunks.
//!
//! The words are those of the distribution specification (its main branch), of the image specification 1.1 and of
//! Docker's image manifest version 2, schema 2.

pub mod descriptor;
pub mod digest;
pub mod hex;
pub mod manifest;
pub mod media_type;
pub mod name;
pub mod range;
pub mod reference;
pub mod tag;
mod text;

pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, DigestError, Hasher, UnknownAlgorithm};
pub use manifest::{DescriptorFault, Kind, Limits, Manifest, ManifestError, ReferenceEntry, Role};
pub use media_type::{MediaType, MediaTypeError};
pub use name::{NameError, RepositoryName};
pub use range::{ContentRange, ContentRangeError, RangeHeader, RangeSpec, parse_range};
pub use reference::{Reference, ReferenceError};
pub use tag::{Tag, TagError};
