//! Query strings: each parameter of every endpoint is read in one place.

use std::borrow::Cow;
use std::str::FromStr as _;

use oci::{Algorithm, Digest, MediaType, RepositoryName, Tag};

use crate::error::Error;
use crate::limits::Limits;

/// The requested page of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PageRequest {
    /// The maximum number of items; already capped.
    pub(crate) limit: usize,
    /// The page begins after this item.
    pub(crate) last: Option<String>,
}

/// How an upload is opened (end-4a to end-4c, end-11).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum OpenUpload {
    /// Open a session. Its bytes are hashed with this algorithm while they arrive.
    Session(Algorithm),
    /// The body of this request is the blob.
    Monolithic(Digest),
    /// Link a blob that the registry already has. Without a usable source, any repository that the caller may pull is
    /// used.
    Mount { digest: Digest, from: MountSource },
}

/// The source of a mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum MountSource {
    /// This repository.
    Repository(RepositoryName),
    /// The request has no source: search all repositories.
    Anywhere,
    /// The request has a source that is not a valid repository name.
    Nowhere,
}

/// The part of the request target after the question mark.
#[derive(Clone, Copy)]
pub(crate) struct Query<'a>(pub(crate) &'a str);

impl Query<'_> {
    /// The largest `n` that is understood. Clients keep it in a signed 32-bit integer.
    const MAX_N: u64 = (1 << 31) - 1;

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
        form_urlencoded::parse(self.0.as_bytes())
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value)
    }

    pub(crate) fn first(&self, name: &str) -> Option<String> {
        self.all(name).next().map(Cow::into_owned)
    }

    pub(crate) fn page(&self, limits: &Limits) -> Result<PageRequest, Error> {
        let limit = match self.first("n") {
            None => limits.page,
            Some(text) => {
                if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(Error::PageSizeInvalid);
                }
                // Only an overflow can fail here.
                let n: u64 = text.parse().map_err(|_| Error::PageSizeInvalid)?;
                if n > Self::MAX_N {
                    return Err(Error::PageSizeInvalid);
                }
                usize::try_from(n).unwrap_or(usize::MAX).min(limits.page)
            }
        };
        Ok(PageRequest {
            limit,
            last: self.first("last").filter(|last| !last.is_empty()),
        })
    }

    pub(crate) fn artifact_type(&self) -> Result<Option<MediaType>, Error> {
        self.first("artifactType")
            .filter(|text| !text.is_empty())
            // An unescaped plus sign is decoded as a space. Media types contain plus signs and no spaces.
            .map(|text| text.replace(' ', "+").parse())
            .transpose()
            .map_err(|_| Error::QueryInvalid("artifactType must be a media type"))
    }

    pub(crate) fn tags(&self, limits: &Limits) -> Result<Vec<Tag>, Error> {
        let mut tags = Vec::new();
        for (index, text) in self.all("tag").enumerate() {
            if index >= limits.tags_per_push {
                return Err(Error::TooManyTags {
                    limit: limits.tags_per_push,
                });
            }
            let tag = Tag::from_str(&text).map_err(|_| Error::TagInvalid)?;
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        Ok(tags)
    }

    /// The source of a mount, if the query asks for a mount. The digest is not checked.
    pub(crate) fn mount_source(&self) -> Option<MountSource> {
        self.first("mount")?;
        Some(match self.first("from").filter(|from| !from.is_empty()) {
            None => MountSource::Anywhere,
            // A refused mount must open a session, because some clients abort the push otherwise.
            Some(from) => from.parse().map_or(MountSource::Nowhere, MountSource::Repository),
        })
    }

    pub(crate) fn open_upload(&self) -> Result<OpenUpload, Error> {
        if let (Some(digest), Some(from)) = (self.first("mount"), self.mount_source()) {
            let digest = digest.parse()?;
            return Ok(OpenUpload::Mount { digest, from });
        }
        if let Some(digest) = self.first("digest") {
            return Ok(OpenUpload::Monolithic(digest.parse()?));
        }
        match self.first("digest-algorithm") {
            None => Ok(OpenUpload::Session(Algorithm::Sha256)),
            Some(name) => name
                .parse()
                .map(OpenUpload::Session)
                .map_err(|_| Error::AlgorithmUnsupported),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn mounts() {
        let digest = Digest::of(Algorithm::Sha256, b"");
        for (query, from) in [
            (
                format!("mount={digest}&from=a/b"),
                MountSource::Repository("a/b".parse().unwrap()),
            ),
            (
                format!("mount={digest}&from=a%2Fb"),
                MountSource::Repository("a/b".parse().unwrap()),
            ),
            (format!("mount={digest}"), MountSource::Anywhere),
            (format!("mount={digest}&from="), MountSource::Anywhere),
            (format!("mount={digest}&from=.."), MountSource::Nowhere),
        ] {
            let open = Query(&query).open_upload().unwrap();
            assert_eq!(open, OpenUpload::Mount { digest, from });
        }
    }
}
