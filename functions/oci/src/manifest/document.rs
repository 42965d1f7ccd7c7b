//! The members of a manifest that mean something to a registry, and what each may hold.
//!
//! Null counts as absent for every optional member, and so does an empty text for media types: clients written in Go
//! send both for what they leave unset.

use std::collections::BTreeMap;

use serde::de::{MapAccess, SeqAccess};

use super::link::{Annotations, Link, Links, Path};
use super::reader::{At, Found, Ignored, Keys, Place, Reader};
use super::{Limits, ManifestError};
use crate::descriptor::Descriptor;
use crate::media_type::MediaType;

/// A manifest as written, before its media type gives it a meaning.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) schema_version: SchemaVersion,
    pub(super) media_type: Option<MediaType>,
    pub(super) artifact_type: Option<MediaType>,
    pub(super) config: Option<Descriptor>,
    pub(super) layers: Option<Vec<Descriptor>>,
    pub(super) manifests: Option<Vec<Descriptor>>,
    /// `manifests` stands there, be it as null: the image specification requires the member, but lets it be empty.
    pub(super) names_manifests: bool,
    pub(super) blobs: Option<Vec<Descriptor>>,
    pub(super) subject: Option<Descriptor>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
    names_fs_layers: bool,
}

/// The value of `schemaVersion`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SchemaVersion {
    #[default]
    Absent,
    One,
    Two,
    Other,
}

impl Document {
    /// Reads the bytes; `reads_blobs` says whether `blobs` lists references or is an unknown member like any other.
    pub(super) fn read(bytes: &[u8], reads_blobs: bool, limits: &Limits) -> Result<Self, ManifestError> {
        Reader::new(limits).read(bytes, Top { reads_blobs })
    }

    /// Docker schema 1, whatever it was labelled as: it has `fsLayers` where later ones have `layers`.
    pub(super) fn is_schema1(&self) -> bool {
        self.schema_version == SchemaVersion::One && self.names_fs_layers
    }
}

const MEMBERS: [&str; 9] = [
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "blobs",
    "subject",
    "annotations",
];

struct Top {
    reads_blobs: bool,
}

impl<'de> Place<'de> for Top {
    type Value = Document;

    fn found(self, _: Found<'_>) -> Result<Document, ManifestError> {
        Err(ManifestError::NotAnObject)
    }

    fn object<A: MapAccess<'de>>(self, reader: &Reader<'_>, mut object: A) -> Result<Document, A::Error> {
        let mut document = Document::default();
        let mut keys = Keys::default();
        while let Some(key) = keys.next(reader, &mut object, &MEMBERS)? {
            match key.as_ref() {
                "schemaVersion" => {
                    document.schema_version = object.next_value_seed(At(reader, Version))?;
                }
                "mediaType" => {
                    let place = OwnType("mediaType");
                    document.media_type = object.next_value_seed(At(reader, place))?;
                }
                "artifactType" => {
                    let place = OwnType("artifactType");
                    document.artifact_type = object.next_value_seed(At(reader, place))?;
                }
                "config" => {
                    let place = Link::reference(Path::Member("config"));
                    document.config = object.next_value_seed(At(reader, place))?;
                }
                "layers" => {
                    document.layers = object.next_value_seed(At(reader, Links("layers")))?;
                }
                "manifests" => {
                    document.names_manifests = true;
                    document.manifests = object.next_value_seed(At(reader, Links("manifests")))?;
                }
                "blobs" if self.reads_blobs => {
                    document.blobs = object.next_value_seed(At(reader, Links("blobs")))?;
                }
                "subject" => {
                    let place = Link::subject();
                    document.subject = object.next_value_seed(At(reader, place))?;
                }
                "annotations" => {
                    let place = Annotations(Path::Member("annotations"));
                    document.annotations = object.next_value_seed(At(reader, place))?;
                }
                "fsLayers" => {
                    document.names_fs_layers = true;
                    object.next_value_seed(At(reader, Ignored))?;
                }
                _ => object.next_value_seed(At(reader, Ignored))?,
            }
        }
        keys.finish(reader)?;
        Ok(document)
    }
}

/// `schemaVersion`: any value, since types that no specification fixes may hold what they like there.
struct Version;

impl<'de> Place<'de> for Version {
    type Value = SchemaVersion;

    fn found(self, found: Found<'_>) -> Result<SchemaVersion, ManifestError> {
        Ok(match found {
            Found::Natural(1) => SchemaVersion::One,
            Found::Natural(2) => SchemaVersion::Two,
            _ => SchemaVersion::Other,
        })
    }

    fn array<A: SeqAccess<'de>>(self, reader: &Reader<'_>, array: A) -> Result<SchemaVersion, A::Error> {
        Ignored.array(reader, array)?;
        Ok(SchemaVersion::Other)
    }

    fn object<A: MapAccess<'de>>(self, reader: &Reader<'_>, object: A) -> Result<SchemaVersion, A::Error> {
        Ignored.object(reader, object)?;
        Ok(SchemaVersion::Other)
    }
}

/// The document's own `mediaType` or `artifactType`.
struct OwnType(&'static str);

impl Place<'_> for OwnType {
    type Value = Option<MediaType>;

    fn found(self, found: Found<'_>) -> Result<Option<MediaType>, ManifestError> {
        match found {
            Found::Null | Found::Text("") => Ok(None),
            Found::Text(text) => match text.parse() {
                Ok(media_type) => Ok(Some(media_type)),
                Err(reason) => Err(ManifestError::BadMediaType {
                    field: self.0.to_owned(),
                    reason,
                }),
            },
            _ => Err(Path::Member(self.0).wrong_type("a string")),
        }
    }
}
