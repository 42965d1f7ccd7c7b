//! The members of a manifest that have a meaning for a registry, and the values that each may have.
//!
//! Null counts as absent for every optional member, and so does an empty string for media types: clients written in Go
//! send both for values that they leave unset.

use std::collections::BTreeMap;

use serde::de::{MapAccess, SeqAccess};

use super::link::{AnnotationsReader, DescriptorReader, DescriptorsReader, FieldPath};
use super::reader::{IgnoredReader, JsonToken, ParseContext, SeenKeys, ValueReader, ValueSeed};
use super::{ManifestError, ManifestLimits};
use crate::descriptor::Descriptor;
use crate::media_type::MediaType;

/// The members of a manifest as written, before its media type determines their meaning.
#[derive(Debug, Default)]
pub(super) struct ManifestDocument {
    pub(super) schema_version: SchemaVersion,
    pub(super) media_type: Option<MediaType>,
    pub(super) artifact_type: Option<MediaType>,
    pub(super) config: Option<Descriptor>,
    pub(super) layers: Option<Vec<Descriptor>>,
    pub(super) manifests: Option<Vec<Descriptor>>,
    /// Whether the member `manifests` is present, also as null. The image specification requires the member, but allows
    /// it to be empty.
    pub(super) has_manifests: bool,
    pub(super) blobs: Option<Vec<Descriptor>>,
    pub(super) subject: Option<Descriptor>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
    has_fs_layers: bool,
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

impl ManifestDocument {
    /// Parses `bytes`. `reads_blobs`: whether `blobs` lists references; otherwise it is an unknown member.
    pub(super) fn read(bytes: &[u8], reads_blobs: bool, limits: &ManifestLimits) -> Result<Self, ManifestError> {
        ParseContext::new(limits).read(bytes, DocumentReader { reads_blobs })
    }

    /// Whether this is Docker schema 1, whatever its media type says: it has `fsLayers` instead of `layers`.
    pub(super) fn is_schema1(&self) -> bool {
        self.schema_version == SchemaVersion::One && self.has_fs_layers
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

struct DocumentReader {
    reads_blobs: bool,
}

impl<'de> ValueReader<'de> for DocumentReader {
    type Value = ManifestDocument;

    fn read(self, _: JsonToken<'_>) -> Result<ManifestDocument, ManifestError> {
        Err(ManifestError::NotAnObject)
    }

    fn read_object<A: MapAccess<'de>>(
        self,
        context: &ParseContext<'_>,
        mut object: A,
    ) -> Result<ManifestDocument, A::Error> {
        let mut document = ManifestDocument::default();
        let mut keys = SeenKeys::default();
        while let Some(key) = keys.next(context, &mut object, &MEMBERS)? {
            match key.as_ref() {
                "schemaVersion" => {
                    document.schema_version = object.next_value_seed(ValueSeed(context, SchemaVersionReader))?;
                }
                "mediaType" => {
                    let reader = DocumentTypeReader("mediaType");
                    document.media_type = object.next_value_seed(ValueSeed(context, reader))?;
                }
                "artifactType" => {
                    let reader = DocumentTypeReader("artifactType");
                    document.artifact_type = object.next_value_seed(ValueSeed(context, reader))?;
                }
                "config" => {
                    let reader = DescriptorReader::reference(FieldPath::Member("config"));
                    document.config = object.next_value_seed(ValueSeed(context, reader))?;
                }
                "layers" => {
                    document.layers = object.next_value_seed(ValueSeed(context, DescriptorsReader("layers")))?;
                }
                "manifests" => {
                    document.has_manifests = true;
                    document.manifests = object.next_value_seed(ValueSeed(context, DescriptorsReader("manifests")))?;
                }
                "blobs" if self.reads_blobs => {
                    document.blobs = object.next_value_seed(ValueSeed(context, DescriptorsReader("blobs")))?;
                }
                "subject" => {
                    let reader = DescriptorReader::subject();
                    document.subject = object.next_value_seed(ValueSeed(context, reader))?;
                }
                "annotations" => {
                    let reader = AnnotationsReader(FieldPath::Member("annotations"));
                    document.annotations = object.next_value_seed(ValueSeed(context, reader))?;
                }
                "fsLayers" => {
                    document.has_fs_layers = true;
                    object.next_value_seed(ValueSeed(context, IgnoredReader))?;
                }
                _ => object.next_value_seed(ValueSeed(context, IgnoredReader))?,
            }
        }
        keys.finish(context)?;
        Ok(document)
    }
}

/// `schemaVersion`: any value, since a type that no specification defines may have any value there.
struct SchemaVersionReader;

impl<'de> ValueReader<'de> for SchemaVersionReader {
    type Value = SchemaVersion;

    fn read(self, token: JsonToken<'_>) -> Result<SchemaVersion, ManifestError> {
        Ok(match token {
            JsonToken::Natural(1) => SchemaVersion::One,
            JsonToken::Natural(2) => SchemaVersion::Two,
            _ => SchemaVersion::Other,
        })
    }

    fn read_array<A: SeqAccess<'de>>(self, context: &ParseContext<'_>, array: A) -> Result<SchemaVersion, A::Error> {
        IgnoredReader.read_array(context, array)?;
        Ok(SchemaVersion::Other)
    }

    fn read_object<A: MapAccess<'de>>(self, context: &ParseContext<'_>, object: A) -> Result<SchemaVersion, A::Error> {
        IgnoredReader.read_object(context, object)?;
        Ok(SchemaVersion::Other)
    }
}

/// The document's own `mediaType` or `artifactType`.
struct DocumentTypeReader(&'static str);

impl ValueReader<'_> for DocumentTypeReader {
    type Value = Option<MediaType>;

    fn read(self, token: JsonToken<'_>) -> Result<Option<MediaType>, ManifestError> {
        match token {
            JsonToken::Null | JsonToken::Text("") => Ok(None),
            JsonToken::Text(text) => match text.parse() {
                Ok(media_type) => Ok(Some(media_type)),
                Err(reason) => Err(ManifestError::BadMediaType {
                    field: self.0.to_owned(),
                    reason,
                }),
            },
            _ => Err(FieldPath::Member(self.0).wrong_type("a string")),
        }
    }
}
