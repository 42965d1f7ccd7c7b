//! Manifests: validates what a client pushed, and extracts what a registry needs to know of it.
//!
//! [`Manifest::parse`] is the only way to make a [`Manifest`]. The registry stores and serves the bytes themselves
//! unchanged. Parsing extracts the links (so that the registry can protect what they refer to), the subject, and the
//! metadata that the referrers API shows.
//!
//! Programs in several languages read a manifest, and their JSON parsers differ on ambiguous input. The parser refuses
//! everything that two of them could understand differently: a key given twice, a known key in another case (Go's
//! parser takes `Layers` for `layers`), a document that is both an image and an index, a `mediaType` that contradicts
//! `Content-Type`. It accepts every other unknown member, as the image specification demands.
//!
//! This file decides whether a manifest is valid. `document` and `link` read the members that have a meaning, `reader`
//! walks through the JSON strictly, `error` defines the reasons for refusal.

mod document;
mod error;
mod link;
mod reader;

use std::collections::BTreeMap;

use document::{ManifestDocument, SchemaVersion};
pub use error::{DescriptorFault, ManifestError};

use crate::descriptor::Descriptor;
use crate::media_type::MediaType;

/// Limits on a manifest, besides its length in bytes. The caller checks the length before it reads the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestLimits {
    /// Maximum nesting of objects and arrays; the document itself is level 1. A value above 126 counts as 126.
    pub max_depth: usize,
    /// Maximum number of entries in `config`, `layers`, `manifests` and `blobs` together. The subject does not count.
    pub max_references: usize,
    /// Maximum number of JSON values (objects, arrays, strings, numbers, …) in the document. It bounds the memory of
    /// parsing: without it, a few bytes of input could need a hundred bytes of map.
    pub max_values: usize,
}

impl Default for ManifestLimits {
    fn default() -> Self {
        Self {
            max_depth: 64,
            max_references: 4096,
            max_values: 131_072,
        }
    }
}

/// Whether a manifest describes one image or lists other manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An image manifest, or a document of an unknown type without `manifests`.
    Image,
    /// An image index, a manifest list, or a document of an unknown type with `manifests`.
    Index,
}

/// The member of a manifest that contains a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// `config`
    Config,
    /// An entry of `layers`.
    Layer,
    /// An entry of `manifests`. Its content may also be a blob: cache indexes list layers there.
    Manifest,
    /// An entry of `blobs`. Only documents of types that are neither OCI's nor Docker's have this member.
    Blob,
}

/// One link from a manifest to content of its repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceEntry {
    /// The descriptor of the content.
    pub descriptor: Descriptor,
    /// The member that contains the descriptor.
    pub role: Role,
    /// Whether the content must exist in the repository. False for layers that clients do not push
    /// ([`MediaType::is_non_distributable`]).
    pub required: bool,
}

/// A manifest that passed every check which needs only its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The type under which the registry stores and serves it: the `Content-Type` of its push, without parameters. If
    /// the push has none, it is the `mediaType` member.
    pub media_type: MediaType,
    /// Image or index.
    pub kind: Kind,
    /// The type that the referrers API shows: the `artifactType` member. For an image without that member it is the
    /// `mediaType` of its `config` (distribution specification, *Listing referrers*).
    pub artifact_type: Option<MediaType>,
    /// The manifest that this one refers to as its subject. It need not exist.
    pub subject: Option<Descriptor>,
    /// The `annotations` member; empty if it is absent.
    pub annotations: BTreeMap<String, String>,
    /// Every link except the subject, in document order within each role: config, layers, manifests, blobs. The same
    /// digest may occur several times.
    pub references: Vec<ReferenceEntry>,
}

/// The maximum memory, in bytes, that parsing needs for one separator (`:` or `,`) of a manifest. The most expensive
/// case is an annotation, `"ab":"",`: two strings in a map, one remembered key, and two separators.
const BYTES_PER_SEPARATOR: usize = 96;

impl Manifest {
    /// Estimates how many bytes of memory [`Manifest::parse`] needs for `bytes`, besides `bytes` itself. The estimate
    /// is never too low, and seldom more than three times too high. It reads each byte once.
    #[must_use]
    pub fn memory_to_parse(bytes: &[u8], limits: &ManifestLimits) -> usize {
        let separators = bytes.iter().filter(|byte| matches!(byte, b':' | b',')).count();
        let values = separators.min(limits.max_values.saturating_mul(2));
        bytes.len().saturating_add(values.saturating_mul(BYTES_PER_SEPARATOR))
    }

    /// Parses and validates a manifest that was pushed with `content_type`.
    ///
    /// The time is linear in the length of `bytes` (sorting keys adds a logarithm of their number). `limits` and the
    /// length bound the memory. The structure is checked fully for the OCI and Docker types. A document of another JSON
    /// type is accepted. If it has members that image manifests and indexes have, these must have the same form,
    /// because they are links too.
    pub fn parse(
        bytes: &[u8],
        content_type: Option<&MediaType>,
        limits: &ManifestLimits,
    ) -> Result<Self, ManifestError> {
        if let Some(content_type) = content_type {
            check_servable(content_type)?;
        }
        // Without Content-Type, the type is known only after parsing. `blobs` is then read with the rest, and dropped
        // later.
        let reads_blobs = !content_type.is_some_and(is_specified);
        let mut document = ManifestDocument::read(bytes, reads_blobs, limits)?;
        if document.is_schema1() {
            return Err(ManifestError::Schema1);
        }
        let media_type = media_type_of(content_type, document.media_type.take())?;
        check_servable(&media_type)?;
        if is_specified(&media_type) {
            document.blobs = None;
        }
        let kind = kind_of(&media_type, &document)?;
        if is_specified(&media_type) {
            check_required(kind, &document)?;
        }
        let artifact_type = match kind {
            Kind::Image => document.artifact_type.or_else(|| {
                let config = document.config.as_ref()?;
                Some(config.media_type.clone())
            }),
            Kind::Index => document.artifact_type,
        };
        let references = [
            (Role::Config, document.config.map(|config| vec![config])),
            (Role::Layer, document.layers),
            (Role::Manifest, document.manifests),
            (Role::Blob, document.blobs),
        ]
        .into_iter()
        .flat_map(|(role, descriptors)| {
            descriptors
                .unwrap_or_default()
                .into_iter()
                .map(move |descriptor| ReferenceEntry {
                    required: role == Role::Config || !descriptor.media_type.is_non_distributable(),
                    descriptor,
                    role,
                })
        })
        .collect();
        Ok(Self {
            media_type,
            kind,
            artifact_type,
            subject: document.subject,
            annotations: document.annotations.unwrap_or_default(),
            references,
        })
    }
}

/// Whether a specification defines the structure of this type. There are four such types.
fn is_specified(media_type: &MediaType) -> bool {
    media_type.is_manifest() || media_type.is_index()
}

fn check_servable(media_type: &MediaType) -> Result<(), ManifestError> {
    if media_type.is_schema1() {
        return Err(ManifestError::Schema1);
    }
    if !media_type.is_json() {
        return Err(ManifestError::UnsupportedMediaType(media_type.clone()));
    }
    Ok(())
}

fn media_type_of(content_type: Option<&MediaType>, member: Option<MediaType>) -> Result<MediaType, ManifestError> {
    match (content_type, member) {
        (Some(content_type), Some(member)) if *content_type != member => Err(ManifestError::MediaTypeMismatch {
            content_type: content_type.clone(),
            media_type: member,
        }),
        (Some(content_type), _) => Ok(content_type.clone()),
        (None, Some(member)) => Ok(member),
        (None, None) => Err(ManifestError::MissingMediaType),
    }
}

/// By media type where a specification defines it, otherwise by the members; never both.
fn kind_of(media_type: &MediaType, document: &ManifestDocument) -> Result<Kind, ManifestError> {
    let has_image_members = document.config.is_some() || document.layers.is_some() || document.blobs.is_some();
    let has_index_members = document.manifests.is_some();
    let kind = if media_type.is_index() || (has_index_members && !media_type.is_manifest()) {
        Kind::Index
    } else {
        Kind::Image
    };
    let contradicted = match kind {
        Kind::Image => has_index_members,
        Kind::Index => has_image_members,
    };
    if contradicted {
        return Err(ManifestError::BothImageAndIndex);
    }
    Ok(kind)
}

/// Checks the members that the image specification requires of its own types and Docker's. An image without `layers` is
/// accepted: artifacts have been pushed that way, and no link is lost by it.
fn check_required(kind: Kind, document: &ManifestDocument) -> Result<(), ManifestError> {
    match document.schema_version {
        SchemaVersion::Two => {}
        SchemaVersion::Absent => return Err(ManifestError::MissingField("schemaVersion")),
        SchemaVersion::One | SchemaVersion::Other => return Err(ManifestError::SchemaVersion),
    }
    match kind {
        Kind::Image if document.config.is_none() => Err(ManifestError::MissingField("config")),
        Kind::Index if !document.has_manifests => Err(ManifestError::MissingField("manifests")),
        Kind::Image | Kind::Index => Ok(()),
    }
}
