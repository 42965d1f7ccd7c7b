//! Manifests, tags and versions as texts: `team/app:1.0.0`, `team/app@sha256:…`.

use oci::{Digest, Reference, RepositoryName, Tag};
use registry::releases::Earlier;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A manifest of a repository: `REPOSITORY:TAG` or `REPOSITORY@DIGEST`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ManifestName {
    pub(super) repository: RepositoryName,
    pub(super) reference: Reference,
}

/// A tag of a repository: `REPOSITORY:TAG`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct TagName {
    pub(super) repository: RepositoryName,
    pub(super) tag: Tag,
}

/// What a rollback goes back to: a digest, or a version of the tag, as a number or as its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct EarlierText(pub(super) Earlier);

impl ManifestName {
    fn parse(text: &str) -> Option<Self> {
        if let Some((repository, digest)) = text.split_once('@') {
            return Some(Self {
                repository: repository.parse().ok()?,
                reference: Reference::Digest(digest.parse().ok()?),
            });
        }
        let TagName { repository, tag } = TagName::parse(text)?;
        Some(Self {
            repository,
            reference: Reference::Tag(tag),
        })
    }
}

impl TagName {
    fn parse(text: &str) -> Option<Self> {
        let (repository, tag) = text.rsplit_once(':')?;
        Some(Self {
            repository: repository.parse().ok()?,
            tag: tag.parse().ok()?,
        })
    }
}

impl Serialize for ManifestName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { repository, reference } = self;
        match reference {
            Reference::Tag(tag) => serializer.collect_str(&format_args!("{repository}:{tag}")),
            Reference::Digest(digest) => serializer.collect_str(&format_args!("{repository}@{digest}")),
        }
    }
}

impl<'de> Deserialize<'de> for ManifestName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("neither REPOSITORY:TAG nor REPOSITORY@DIGEST"))
    }
}

impl Serialize for TagName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}:{}", self.repository, self.tag))
    }
}

impl<'de> Deserialize<'de> for TagName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("not REPOSITORY:TAG"))
    }
}

impl Serialize for EarlierText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Earlier::Version(version) => serializer.serialize_u64(version),
            Earlier::Digest(digest) => digest.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for EarlierText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        let text = match Form::deserialize(deserializer)? {
            Form::Number(version) => return Ok(Self(Earlier::Version(version))),
            Form::Text(text) => text,
        };
        let version = text.parse().ok().map(Earlier::Version);
        let found = version.or_else(|| text.parse::<Digest>().ok().map(Earlier::Digest));
        found
            .map(Self)
            .ok_or_else(|| de::Error::custom("neither a version nor a digest"))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    /// The value that is written for what is read, if it is read.
    fn read_back<T: Serialize + DeserializeOwned>(value: Value) -> Option<Value> {
        let read: T = serde_json::from_value(value).ok()?;
        Some(serde_json::to_value(read).unwrap())
    }

    #[test]
    fn texts_are_read_back() {
        let digest = format!("a/b@{DIGEST}");
        for (text, is_manifest, is_tag) in [
            ("a/b:1.0.0", true, true),
            ("a:b", true, true),
            (&*digest, true, false),
            ("a/b", false, false),
            ("a/b:", false, false),
            ("A:b", false, false),
            ("a/b@sha256:00", false, false),
            (":b", false, false),
        ] {
            let same = |is_read: bool| is_read.then(|| json!(text));
            assert_eq!(read_back::<ManifestName>(json!(text)), same(is_manifest), "{text}");
            assert_eq!(read_back::<TagName>(json!(text)), same(is_tag), "{text}");
        }
        assert_eq!(read_back::<TagName>(json!(7)), None);
    }

    #[test]
    fn an_earlier_manifest_is_a_version_or_a_digest() {
        for (value, expected) in [
            (json!(7), Some(json!(7))),
            (json!("7"), Some(json!(7))),
            (json!(u64::MAX), Some(json!(u64::MAX))),
            (json!(DIGEST), Some(json!(DIGEST))),
            (json!("latest"), None),
            (json!(-1), None),
            (json!(""), None),
            (json!(null), None),
        ] {
            assert_eq!(read_back::<EarlierText>(value.clone()), expected, "{value}");
        }
    }
}
