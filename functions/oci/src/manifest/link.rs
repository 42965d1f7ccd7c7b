//! Reads the links of a manifest: descriptors, alone and in arrays.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, SeqAccess};

use super::reader::{IgnoredReader, JsonToken, ParseContext, SeenKeys, ValueReader, ValueSeed};
use super::{DescriptorFault, ManifestError};
use crate::descriptor::Descriptor;
use crate::digest::{Digest, DigestError};
use crate::media_type::MediaType;

/// The path of a value in the document, for error texts: `layers[3].digest`.
#[derive(Clone, Copy)]
pub(super) enum FieldPath<'p> {
    Member(&'static str),
    Entry(&'static str, usize),
    Of(&'p FieldPath<'p>, &'static str),
}

impl fmt::Display for FieldPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(name) => f.write_str(name),
            Self::Entry(name, index) => write!(f, "{name}[{index}]"),
            Self::Of(parent, name) => write!(f, "{parent}.{name}"),
        }
    }
}

impl FieldPath<'_> {
    pub(super) fn wrong_type(self, expected: &'static str) -> ManifestError {
        ManifestError::WrongType {
            field: self.to_string(),
            expected,
        }
    }

    fn bad_descriptor(self, reason: DescriptorFault) -> ManifestError {
        ManifestError::BadDescriptor {
            field: self.to_string(),
            reason,
        }
    }
}

/// Reads an array of descriptors.
pub(super) struct DescriptorsReader(pub(super) &'static str);

impl<'de> ValueReader<'de> for DescriptorsReader {
    type Value = Option<Vec<Descriptor>>;

    fn read(self, token: JsonToken<'_>) -> Result<Self::Value, ManifestError> {
        match token {
            JsonToken::Null => Ok(None),
            _ => Err(FieldPath::Member(self.0).wrong_type("an array of descriptors")),
        }
    }

    fn read_array<A: SeqAccess<'de>>(self, context: &ParseContext<'_>, mut array: A) -> Result<Self::Value, A::Error> {
        let mut descriptors = Vec::new();
        loop {
            let path = FieldPath::Entry(self.0, descriptors.len());
            match array.next_element_seed(ValueSeed(context, DescriptorReader::reference(path)))? {
                Some(Some(descriptor)) => descriptors.push(descriptor),
                Some(None) => return Err(context.fail(path.wrong_type("a descriptor"))),
                None => return Ok(Some(descriptors)),
            }
        }
    }
}

/// Reads a descriptor, or null.
pub(super) struct DescriptorReader<'p> {
    path: FieldPath<'p>,
    /// Whether the descriptor counts as a reference.
    counts: bool,
}

impl<'p> DescriptorReader<'p> {
    pub(super) const fn reference(path: FieldPath<'p>) -> Self {
        Self { path, counts: true }
    }

    pub(super) const fn subject() -> Self {
        Self {
            path: FieldPath::Member("subject"),
            counts: false,
        }
    }
}

const DESCRIPTOR_MEMBERS: [&str; 8] = [
    "mediaType",
    "digest",
    "size",
    "urls",
    "annotations",
    "data",
    "artifactType",
    "platform",
];

impl<'de> ValueReader<'de> for DescriptorReader<'_> {
    type Value = Option<Descriptor>;

    fn read(self, token: JsonToken<'_>) -> Result<Option<Descriptor>, ManifestError> {
        match token {
            JsonToken::Null => Ok(None),
            _ => Err(self.path.wrong_type("a descriptor")),
        }
    }

    fn read_object<A: MapAccess<'de>>(
        self,
        context: &ParseContext<'_>,
        mut object: A,
    ) -> Result<Option<Descriptor>, A::Error> {
        if self.counts {
            context.count_reference()?;
        }
        let (mut media_type, mut digest, mut size) = (None, None, None);
        let (mut artifact_type, mut annotations, mut urls) = (None, None, Vec::new());
        let mut keys = SeenKeys::default();
        while let Some(key) = keys.next(context, &mut object, &DESCRIPTOR_MEMBERS)? {
            let at = |name| FieldPath::Of(&self.path, name);
            match key.as_ref() {
                "mediaType" => {
                    let reader = DescriptorTypeReader(at("mediaType"));
                    media_type = object.next_value_seed(ValueSeed(context, reader))?;
                }
                "digest" => digest = Some(object.next_value_seed(ValueSeed(context, DigestReader(at("digest"))))?),
                "size" => size = Some(object.next_value_seed(ValueSeed(context, SizeReader(at("size"))))?),
                "artifactType" => {
                    let reader = DescriptorTypeReader(at("artifactType"));
                    artifact_type = object.next_value_seed(ValueSeed(context, reader))?;
                }
                "annotations" => {
                    let reader = AnnotationsReader(at("annotations"));
                    annotations = object.next_value_seed(ValueSeed(context, reader))?;
                }
                "urls" => urls = object.next_value_seed(ValueSeed(context, UrlsReader(at("urls"))))?,
                _ => object.next_value_seed(ValueSeed(context, IgnoredReader))?,
            }
        }
        keys.finish(context)?;
        let missing = |name| context.fail(FieldPath::Of(&self.path, name).bad_descriptor(DescriptorFault::Missing));
        Ok(Some(Descriptor {
            media_type: media_type.ok_or_else(|| missing("mediaType"))?,
            digest: digest.ok_or_else(|| missing("digest"))?,
            size: size.ok_or_else(|| missing("size"))?,
            artifact_type,
            annotations,
            urls,
        }))
    }
}

/// Reads a descriptor's `mediaType` or `artifactType`.
struct DescriptorTypeReader<'p>(FieldPath<'p>);

impl ValueReader<'_> for DescriptorTypeReader<'_> {
    type Value = Option<MediaType>;

    fn read(self, token: JsonToken<'_>) -> Result<Option<MediaType>, ManifestError> {
        match token {
            JsonToken::Null | JsonToken::Text("") => Ok(None),
            JsonToken::Text(text) => match text.parse() {
                Ok(media_type) => Ok(Some(media_type)),
                Err(reason) => Err(self.0.bad_descriptor(DescriptorFault::MediaType(reason))),
            },
            _ => Err(self.0.wrong_type("a string")),
        }
    }
}

/// Reads a descriptor's `digest`.
struct DigestReader<'p>(FieldPath<'p>);

impl ValueReader<'_> for DigestReader<'_> {
    type Value = Digest;

    fn read(self, token: JsonToken<'_>) -> Result<Digest, ManifestError> {
        match token {
            JsonToken::Text(text) => text
                .parse()
                .map_err(|reason: DigestError| self.0.bad_descriptor(reason.into())),
            _ => Err(self.0.wrong_type("a string")),
        }
    }
}

/// Reads a descriptor's `size`.
struct SizeReader<'p>(FieldPath<'p>);

impl ValueReader<'_> for SizeReader<'_> {
    type Value = u64;

    fn read(self, token: JsonToken<'_>) -> Result<u64, ManifestError> {
        match token {
            JsonToken::Natural(size) if size <= Descriptor::MAX_SIZE => Ok(size),
            JsonToken::Natural(_) | JsonToken::OtherNumber => Err(self.0.bad_descriptor(DescriptorFault::Size)),
            JsonToken::Negative => Err(ManifestError::NegativeSize {
                field: self.0.to_string(),
            }),
            _ => Err(self.0.wrong_type("a number")),
        }
    }
}

/// Reads `annotations`: an object whose values are strings.
pub(super) struct AnnotationsReader<'p>(pub(super) FieldPath<'p>);

impl AnnotationsReader<'_> {
    const EXPECTED: &'static str = "an object whose values are strings";
}

impl<'de> ValueReader<'de> for AnnotationsReader<'_> {
    type Value = Option<BTreeMap<String, String>>;

    fn read(self, token: JsonToken<'_>) -> Result<Self::Value, ManifestError> {
        match token {
            JsonToken::Null => Ok(None),
            _ => Err(self.0.wrong_type(Self::EXPECTED)),
        }
    }

    fn read_object<A: MapAccess<'de>>(
        self,
        context: &ParseContext<'_>,
        mut object: A,
    ) -> Result<Self::Value, A::Error> {
        let mut annotations = BTreeMap::new();
        let mut keys = SeenKeys::default();
        while let Some(key) = keys.next(context, &mut object, &[])? {
            let value = object.next_value_seed(ValueSeed(context, StringReader(self.0, Self::EXPECTED)))?;
            annotations.insert(key.into_owned(), value);
        }
        keys.finish(context)?;
        Ok(Some(annotations))
    }
}

/// Reads a descriptor's `urls`. It does not check their syntax: the registry never fetches them.
struct UrlsReader<'p>(FieldPath<'p>);

impl UrlsReader<'_> {
    const EXPECTED: &'static str = "an array of strings";
}

impl<'de> ValueReader<'de> for UrlsReader<'_> {
    type Value = Vec<String>;

    fn read(self, token: JsonToken<'_>) -> Result<Vec<String>, ManifestError> {
        match token {
            JsonToken::Null => Ok(Vec::new()),
            _ => Err(self.0.wrong_type(Self::EXPECTED)),
        }
    }

    fn read_array<A: SeqAccess<'de>>(self, context: &ParseContext<'_>, mut array: A) -> Result<Vec<String>, A::Error> {
        let mut urls = Vec::new();
        while let Some(url) = array.next_element_seed(ValueSeed(context, StringReader(self.0, Self::EXPECTED)))? {
            urls.push(url);
        }
        Ok(urls)
    }
}

/// Reads a string. The error names the path and the type of the value that contains the string.
struct StringReader<'p>(FieldPath<'p>, &'static str);

impl ValueReader<'_> for StringReader<'_> {
    type Value = String;

    fn read(self, token: JsonToken<'_>) -> Result<String, ManifestError> {
        match token {
            JsonToken::Text(text) => Ok(text.to_owned()),
            _ => Err(self.0.wrong_type(self.1)),
        }
    }
}
