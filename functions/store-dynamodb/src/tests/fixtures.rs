//! The fixtures of the scenarios: two repositories, a few digests and a few tags, by number and by name.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use bytes::Bytes;
use oci::{Algorithm, Descriptor, Digest, MediaType, RepositoryName, Tag};
use registry::store::access::Author;
use registry::store::metadata::{NewContent, PutManifest, Referrer};

use super::linearizable;

/// A blob.
pub(super) const BLOB: u8 = 0;
/// Another.
pub(super) const OTHER: u8 = 1;
/// A manifest that refers to [`BLOB`].
pub(super) const IMAGE: u8 = 2;
/// A manifest that refers to [`BLOB`], with the subject [`IMAGE`].
pub(super) const SIGNATURE: u8 = 3;
/// A manifest that refers to [`IMAGE`].
pub(super) const INDEX: u8 = 4;
/// A manifest too large for its record that refers to [`BLOB`]. The same bytes are also pushed as a blob.
pub(super) const LARGE: u8 = 5;
/// A manifest that refers to nothing.
pub(super) const EMPTY: u8 = 6;
/// Another.
pub(super) const VOID: u8 = 7;

/// The number of digests.
const NAMES: u8 = 8;
/// The number of tags.
pub(super) const TAGS: u8 = 27;

pub(super) fn references(name: linearizable::Name) -> &'static [linearizable::Name] {
    match name {
        IMAGE | SIGNATURE | LARGE => &[BLOB],
        INDEX => &[IMAGE],
        _ => &[],
    }
}

fn subject(name: u8) -> Option<u8> {
    (name == SIGNATURE).then_some(IMAGE)
}

/// All fixtures by their numbers.
pub(super) struct Fixtures {
    pub(super) repositories: [RepositoryName; 2],
    digests: Vec<Digest>,
    texts: Vec<String>,
    tags: Vec<Tag>,
    media_type: MediaType,
    index_type: MediaType,
}

pub(super) static FIXTURES: LazyLock<Fixtures> = LazyLock::new(|| {
    let digests: Vec<Digest> = (0..NAMES).map(|name| Digest::of(Algorithm::Sha256, &[name])).collect();
    Fixtures {
        repositories: ["r", "s/deep"].map(|name| name.parse().expect("a name")),
        texts: digests.iter().map(ToString::to_string).collect(),
        digests,
        tags: (0..TAGS).map(|tag| format!("t{tag}").parse().expect("a tag")).collect(),
        media_type: MediaType::OCI_MANIFEST.parse().expect("a media type"),
        index_type: MediaType::OCI_INDEX.parse().expect("a media type"),
    }
});

/// Who makes all changes.
pub(super) fn author() -> Author {
    Author::new("a principal")
}

impl Fixtures {
    pub(super) fn digest(&self, name: u8) -> &Digest {
        &self.digests[usize::from(name)]
    }

    pub(super) fn tag(&self, tag: u8) -> &Tag {
        &self.tags[usize::from(tag)]
    }

    /// The number of a tag of the fixtures.
    pub(super) fn number_of(&self, tag: &str) -> Option<u8> {
        (0..TAGS).find(|number| self.tag(*number).as_str() == tag)
    }

    pub(super) fn name_of(&self, digest: &Digest) -> u8 {
        let found = self.digests.iter().position(|known| known == digest);
        u8::try_from(found.expect("a digest of the fixtures")).expect("a few")
    }

    /// The digests, as text, to which the manifest with this digest refers.
    pub(super) fn references(&self, digest: &str) -> impl Iterator<Item = &str> {
        let name = self.texts.iter().position(|text| text == digest);
        let name = name.and_then(|name| u8::try_from(name).ok());
        let targets = name.map_or(&[] as &[u8], references);
        targets.iter().map(|target| self.texts[usize::from(*target)].as_str())
    }

    /// The put of a manifest; the large one is put without its bytes.
    pub(super) fn put(&self, repository: u8, name: u8, tags: &[u8]) -> PutManifest {
        let digest = *self.digest(name);
        let media_type = if name == INDEX {
            &self.index_type
        } else {
            &self.media_type
        };
        let subject = subject(name).map(|subject| {
            let row = Referrer {
                descriptor: Descriptor::new(media_type.clone(), digest, 1),
                annotations_omitted: false,
            };
            (*self.digest(subject), row)
        });
        PutManifest {
            repository: self.repositories[usize::from(repository)].clone(),
            digest,
            media_type: media_type.clone(),
            size: 1,
            content: if name == LARGE {
                NewContent::Unchanged
            } else {
                NewContent::Inline(Bytes::from(vec![name]))
            },
            artifact_type: None,
            subject,
            required: references(name).iter().map(|target| *self.digest(*target)).collect(),
            excepted: BTreeSet::new(),
            tags: tags.iter().map(|tag| self.tag(*tag).clone()).collect(),
            author: author(),
        }
    }
}
