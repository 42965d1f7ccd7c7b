//! The value types of the OCI specifications: digests, names, tags, references, media types, descriptors, manifests and
//! ranges.
//!
//! Each type has private fields and one parser, so every value that exists is valid. Code behind the HTTP edge never
//! checks a digest, a name or a tag again. Everything here is pure: the functions take bytes and strings and return
//! values.
//!
//! Read the modules in this order. Each module needs only the ones above it:
//!
//! 1. [`hex`]: bytes as text. [`digest`]: content identifiers, and the hasher whose state can be saved between
//!    requests.
//! 2. [`name`], [`tag`], [`mod@reference`]: the elements of a request's path.
//! 3. [`media_type`]: the media types that this registry knows, and the syntax of all others.
//! 4. [`descriptor`]: one link from a manifest to content.
//! 5. [`manifest`]: the validating parser of manifests; most hostile input arrives here.
//! 6. [`range`]: `Range` of downloads and `Content-Range` of upload chunks.
//!
//! The terms are those of the distribution specification (its main branch), of the image specification 1.1 and of
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
pub use manifest::{DescriptorFault, Kind, Manifest, ManifestError, ManifestLimits, ReferenceEntry, Role};
pub use media_type::{MediaType, MediaTypeError};
pub use name::{NameError, RepositoryName};
pub use range::{ContentRange, ContentRangeError, RangeHeader, RangeSpec, parse_range};
pub use reference::{Reference, ReferenceError};
pub use tag::{Tag, TagError};
