//! Manifests: what a client pushed, checked and reduced to what a registry needs to know of it.
//!
//! [`Manifest::parse`] is the only way in. The bytes themselves are stored and served unchanged; what is read here are
//! the links (so that nothing they name can vanish), the subject and the metadata that the referrers API shows.
//!
//! A manifest is read by programs in several languages, whose JSON readers differ on sloppy input. Whatever two of them
//! could understand differently is refused: a key given twice, a known key in another case (Go's reader takes `Layers`
//! for `layers`), a document that is both an image and an index, a `mediaType` that contradicts `Content-Type`.
//! Everything else that is unknown is let through, as the image specification demands.
//!
//! Here is the verdict; `document` and `link` know the members that matter, `reader` walks the JSON strictly, `error` holds the
//! reasons for refusal.

mod document;
mod error;
mod link;
mod reader;

use std::collections::BTreeMap;

use document::{Document, SchemaVersion};
pub use error::{DescriptorFault, ManifestError};

use crate::descriptor::Descriptor;
use crate::media_type::MediaType;

/// Bounds on a manifest, beside its length in bytes, which the caller checks before it reads the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How deep objects and arrays may lie in each other; the document itself is 1. Above 126 counts as 126.
    pub max_depth: usize,
    /// How many entries `config`, `layers`, `manifests` and `blobs` may have together. The subject is not counted.
    pub max_references: usize,
    /// How many JSON values (objects, arrays, strings, numbers, …) the document may have in all. Bounds the memory of
    /// parsing: without it, a few bytes of input cost a hundred of map.
    pub max_values: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_depth: 64,
            max_references: 4096,
            max_values: 131_072,
        }
    }
}

/// Whether a manifest describes one thing or lists other manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An image manifest; also every document of an unknown type that has no `manifests`.
    Image,
    /// An image index or manifest list; also every document of an unknown type that has `manifests`.
    Index,
}

/// In which member of a manifest a reference stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// `config`
    Config,
    /// An entry of `layers`.
    Layer,
    /// An entry of `manifests`. Its content may nevertheless be a blob: cache indexes list layers there.
    Manifest,
    /// An entry of `blobs`, which only documents of types that are neither OCI's nor Docker's have.
    Blob,
}

/// One link from a manifest to content of its repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceEntry {
    /// What the manifest says of the content.
    pub descriptor: Descriptor,
    /// Where the manifest says it.
    pub role: Role,
    /// Whether the content must be in the repository: false for layers that clients do not push
    /// ([`MediaType::is_non_distributable`]).
    pub required: bool,
}

/// A manifest that passed every check which needs nothing but its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The type it is stored and served under: the `Content-Type` of its push, without parameters, or else its
    /// `mediaType` member.
    pub media_type: MediaType,
    /// Image or index.
    pub kind: Kind,
    /// The type that the referrers API shows: the `artifactType` member; where an image has none, the `mediaType` of its
    /// `config` (distribution specification, *Listing referrers*).
    pub artifact_type: Option<MediaType>,
    /// The manifest that this one is about. It need not exist.
    pub subject: Option<Descriptor>,
    /// The `annotations` member; empty when there is none.
    pub annotations: BTreeMap<String, String>,
    /// Every link but the subject, in document order within each role: config, layers, manifests, blobs. The same digest
    /// may stand there several times.
    pub references: Vec<ReferenceEntry>,
}

/// What one separator (`:` or `,`) of a manifest may cost in memory when it is parsed, in bytes. The dearest is an
/// annotation, `"ab":"",`: two strings in a map, a key that is remembered, and two separators.
const BYTES_PER_SEPARATOR: usize = 96;

impl Manifest {
    /// About how many bytes of memory [`Manifest::parse`] takes for `bytes`, beside these: no less than it does, and
    /// seldom more than three times as much. Costs one look at each byte.
    #[must_use]
    pub fn memory_to_parse(bytes: &[u8], limits: &Limits) -> usize {
        let separators = bytes.iter().filter(|byte| matches!(byte, b':' | b',')).count();
        let values = separators.min(limits.max_values.saturating_mul(2));
        bytes.len().saturating_add(values.saturating_mul(BYTES_PER_SEPARATOR))
    }

    /// Reads and checks a manifest that was pushed with `content_type`.
    ///
    /// Time is linear in the length of `bytes` (sorting keys adds a logarithm of their number), memory is bounded by it
    /// and by `limits`. Structure is checked fully for the OCI and Docker types. A document of another JSON type is
    /// accepted; where it has members that image manifests and indexes have, these must have the same form, because
    /// they are links all the same.
    pub fn parse(bytes: &[u8], content_type: Option<&MediaType>, limits: &Limits) -> Result<Self, ManifestError> {
        if let Some(content_type) = content_type {
            check_servable(content_type)?;
        }
        // Without Content-Type the type is known only at the end; `blobs` is then read with the rest.
        let reads_blobs = !content_type.is_some_and(is_known);
        let mut document = Document::read(bytes, reads_blobs, limits)?;
        if document.is_schema1() {
            return Err(ManifestError::Schema1);
        }
        let media_type = decide_media_type(content_type, document.media_type.take())?;
        check_servable(&media_type)?;
        if is_known(&media_type) {
            document.blobs = None;
        }
        let kind = decide_kind(&media_type, &document)?;
        if is_known(&media_type) {
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

/// One of the four types whose structure a specification fixes.
fn is_known(media_type: &MediaType) -> bool {
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

fn decide_media_type(content_type: Option<&MediaType>, member: Option<MediaType>) -> Result<MediaType, ManifestError> {
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

/// By media type where a specification fixes it, else by shape; never both.
fn decide_kind(media_type: &MediaType, document: &Document) -> Result<Kind, ManifestError> {
    let like_image = document.config.is_some() || document.layers.is_some() || document.blobs.is_some();
    let like_index = document.manifests.is_some();
    let kind = if media_type.is_index() || (like_index && !media_type.is_manifest()) {
        Kind::Index
    } else {
        Kind::Image
    };
    let contradicted = match kind {
        Kind::Image => like_index,
        Kind::Index => like_image,
    };
    if contradicted {
        return Err(ManifestError::BothImageAndIndex);
    }
    Ok(kind)
}

/// What the image specification requires of its own types and Docker's. An image without `layers` passes: artifacts
/// have been pushed so, and nothing is lost by it.
fn check_required(kind: Kind, document: &Document) -> Result<(), ManifestError> {
    match document.schema_version {
        SchemaVersion::Two => {}
        SchemaVersion::Absent => return Err(ManifestError::MissingField("schemaVersion")),
        SchemaVersion::One | SchemaVersion::Other => return Err(ManifestError::SchemaVersion),
    }
    match kind {
        Kind::Image if document.config.is_none() => Err(ManifestError::MissingField("config")),
        Kind::Index if !document.names_manifests => Err(ManifestError::MissingField("manifests")),
        Kind::Image | Kind::Index => Ok(()),
    }
}
