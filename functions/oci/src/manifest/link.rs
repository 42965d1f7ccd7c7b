//! The links of a manifest: descriptors, alone and in arrays, member by member.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, SeqAccess};

use super::reader::{At, Found, Ignored, Keys, Place, Reader};
use super::{DescriptorFault, ManifestError};
use crate::descriptor::Descriptor;
use crate::digest::{Digest, DigestError};
use crate::media_type::MediaType;

/// Where in the document a value stands, for error texts: `layers[3].digest`.
#[derive(Clone, Copy)]
pub(super) enum Path<'p> {
    Member(&'static str),
    Entry(&'static str, usize),
    Of(&'p Path<'p>, &'static str),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(name) => f.write_str(name),
            Self::Entry(name, index) => write!(f, "{name}[{index}]"),
            Self::Of(parent, name) => write!(f, "{parent}.{name}"),
        }
    }
}

impl Path<'_> {
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

/// An array of descriptors.
pub(super) struct Links(pub(super) &'static str);

impl<'de> Place<'de> for Links {
    type Value = Option<Vec<Descriptor>>;

    fn found(self, found: Found<'_>) -> Result<Self::Value, ManifestError> {
        match found {
            Found::Null => Ok(None),
            _ => Err(Path::Member(self.0).wrong_type("an array of descriptors")),
        }
    }

    fn array<A: SeqAccess<'de>>(self, reader: &Reader<'_>, mut array: A) -> Result<Self::Value, A::Error> {
        let mut descriptors = Vec::new();
        loop {
            let path = Path::Entry(self.0, descriptors.len());
            match array.next_element_seed(At(reader, Link::reference(path)))? {
                Some(Some(descriptor)) => descriptors.push(descriptor),
                Some(None) => return Err(reader.fail(path.wrong_type("a descriptor"))),
                None => return Ok(Some(descriptors)),
            }
        }
    }
}

/// A descriptor, or null.
pub(super) struct Link<'p> {
    path: Path<'p>,
    /// Whether it counts among the references.
    counts: bool,
}

impl<'p> Link<'p> {
    pub(super) const fn reference(path: Path<'p>) -> Self {
        Self { path, counts: true }
    }

    pub(super) const fn subject() -> Self {
        Self {
            path: Path::Member("subject"),
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

impl<'de> Place<'de> for Link<'_> {
    type Value = Option<Descriptor>;

    fn found(self, found: Found<'_>) -> Result<Option<Descriptor>, ManifestError> {
        match found {
            Found::Null => Ok(None),
            _ => Err(self.path.wrong_type("a descriptor")),
        }
    }

    fn object<A: MapAccess<'de>>(self, reader: &Reader<'_>, mut object: A) -> Result<Option<Descriptor>, A::Error> {
        if self.counts {
            reader.count_reference()?;
        }
        let (mut media_type, mut digest, mut size) = (None, None, None);
        let (mut artifact_type, mut annotations, mut urls) = (None, None, Vec::new());
        let mut keys = Keys::default();
        while let Some(key) = keys.next(reader, &mut object, &DESCRIPTOR_MEMBERS)? {
            let at = |name| Path::Of(&self.path, name);
            match key.as_ref() {
                "mediaType" => {
                    let place = LinkType(at("mediaType"));
                    media_type = object.next_value_seed(At(reader, place))?;
                }
                "digest" => digest = Some(object.next_value_seed(At(reader, Hash(at("digest"))))?),
                "size" => size = Some(object.next_value_seed(At(reader, Size(at("size"))))?),
                "artifactType" => {
                    let place = LinkType(at("artifactType"));
                    artifact_type = object.next_value_seed(At(reader, place))?;
                }
                "annotations" => {
                    let place = Annotations(at("annotations"));
                    annotations = object.next_value_seed(At(reader, place))?;
                }
                "urls" => urls = object.next_value_seed(At(reader, Urls(at("urls"))))?,
                _ => object.next_value_seed(At(reader, Ignored))?,
            }
        }
        keys.finish(reader)?;
        let missing = |name| reader.fail(Path::Of(&self.path, name).bad_descriptor(DescriptorFault::Missing));
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

/// A descriptor's `mediaType` or `artifactType`.
struct LinkType<'p>(Path<'p>);

impl Place<'_> for LinkType<'_> {
    type Value = Option<MediaType>;

    fn found(self, found: Found<'_>) -> Result<Option<MediaType>, ManifestError> {
        match found {
            Found::Null | Found::Text("") => Ok(None),
            Found::Text(text) => match text.parse() {
                Ok(media_type) => Ok(Some(media_type)),
                Err(reason) => Err(self.0.bad_descriptor(DescriptorFault::MediaType(reason))),
            },
            _ => Err(self.0.wrong_type("a string")),
        }
    }
}

/// A descriptor's `digest`.
struct Hash<'p>(Path<'p>);

impl Place<'_> for Hash<'_> {
    type Value = Digest;

    fn found(self, found: Found<'_>) -> Result<Digest, ManifestError> {
        match found {
            Found::Text(text) => text
                .parse()
                .map_err(|reason: DigestError| self.0.bad_descriptor(reason.into())),
            _ => Err(self.0.wrong_type("a string")),
        }
    }
}

/// A descriptor's `size`.
struct Size<'p>(Path<'p>);

impl Place<'_> for Size<'_> {
    type Value = u64;

    fn found(self, found: Found<'_>) -> Result<u64, ManifestError> {
        match found {
            Found::Natural(size) if size <= Descriptor::MAX_SIZE => Ok(size),
            Found::Natural(_) | Found::OtherNumber => Err(self.0.bad_descriptor(DescriptorFault::Size)),
            Found::Negative => Err(ManifestError::NegativeSize {
                field: self.0.to_string(),
            }),
            _ => Err(self.0.wrong_type("a number")),
        }
    }
}

/// `annotations`: an object of texts.
pub(super) struct Annotations<'p>(pub(super) Path<'p>);

impl Annotations<'_> {
    const EXPECTED: &'static str = "an object whose values are strings";
}

impl<'de> Place<'de> for Annotations<'_> {
    type Value = Option<BTreeMap<String, String>>;

    fn found(self, found: Found<'_>) -> Result<Self::Value, ManifestError> {
        match found {
            Found::Null => Ok(None),
            _ => Err(self.0.wrong_type(Self::EXPECTED)),
        }
    }

    fn object<A: MapAccess<'de>>(self, reader: &Reader<'_>, mut object: A) -> Result<Self::Value, A::Error> {
        let mut annotations = BTreeMap::new();
        let mut keys = Keys::default();
        while let Some(key) = keys.next(reader, &mut object, &[])? {
            let value = object.next_value_seed(At(reader, Text(self.0, Self::EXPECTED)))?;
            annotations.insert(key.into_owned(), value);
        }
        keys.finish(reader)?;
        Ok(Some(annotations))
    }
}

/// A descriptor's `urls`. Their syntax is not looked at: nothing here fetches them.
struct Urls<'p>(Path<'p>);

impl Urls<'_> {
    const EXPECTED: &'static str = "an array of strings";
}

impl<'de> Place<'de> for Urls<'_> {
    type Value = Vec<String>;

    fn found(self, found: Found<'_>) -> Result<Vec<String>, ManifestError> {
        match found {
            Found::Null => Ok(Vec::new()),
            _ => Err(self.0.wrong_type(Self::EXPECTED)),
        }
    }

    fn array<A: SeqAccess<'de>>(self, reader: &Reader<'_>, mut array: A) -> Result<Vec<String>, A::Error> {
        let mut urls = Vec::new();
        while let Some(url) = array.next_element_seed(At(reader, Text(self.0, Self::EXPECTED)))? {
            urls.push(url);
        }
        Ok(urls)
    }
}

/// A text; the error is about what holds it.
struct Text<'p>(Path<'p>, &'static str);

impl Place<'_> for Text<'_> {
    type Value = String;

    fn found(self, found: Found<'_>) -> Result<String, ManifestError> {
        match found {
            Found::Text(text) => Ok(text.to_owned()),
            _ => Err(self.0.wrong_type(self.1)),
        }
    }
}
