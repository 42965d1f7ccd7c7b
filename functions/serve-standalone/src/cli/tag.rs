//! The flags of `roadstead tag`.

use std::str::FromStr;

use clap::{Args, Subcommand};
use oci::{Digest, Reference, RepositoryName, Tag};
use registry::releases::Earlier;

use super::StoreArgs;
use super::examples;
use super::operate::ReadArgs;
use super::sparse::SparseArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum TagCommand {
    /// List the tags of a repository
    #[command(after_help = examples::TAG_LIST)]
    List {
        /// The repository, for example team/app
        repository: String,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// List the changes of a tag, the latest one first
    #[command(after_help = examples::TAG_HISTORY)]
    History {
        /// The repository, for example team/app
        repository: String,
        /// The tag, for example latest
        tag: String,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Make a tag name a manifest again that it named before
    #[command(after_help = examples::TAG_ROLLBACK)]
    Rollback(TagRollbackArgs),
    /// Give what a tag names to another repository, or another tag, without moving blobs
    #[command(after_help = examples::TAG_PROMOTE)]
    Promote(TagPromoteArgs),
}

#[derive(Args, Debug)]
pub(crate) struct TagRollbackArgs {
    /// The repository, for example team/app
    pub(crate) repository: RepositoryName,
    /// The tag, for example latest
    pub(crate) tag: Tag,
    /// A version that `roadstead tag history --json` lists, or a digest
    #[arg(value_name = "VERSION|DIGEST", value_parser = earlier)]
    pub(crate) to: Earlier,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

#[derive(Args, Debug)]
pub(crate) struct TagPromoteArgs {
    /// What is promoted, for example staging/app:1.4.0, or staging/app@sha256:DIGEST
    #[arg(value_name = "FROM")]
    pub(crate) from: ManifestName,
    /// The tag that names it then, for example prod/app:1.4.0
    #[arg(value_name = "TO")]
    pub(crate) to: TagName,
    /// Promote no signatures, attestations or other manifests that refer to it
    #[arg(long)]
    pub(crate) without_referrers: bool,
    #[command(flatten)]
    pub(crate) sparse: SparseArgs,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

/// A manifest of a repository, by tag or by digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ManifestName {
    pub(crate) repository: RepositoryName,
    pub(crate) reference: Reference,
}

/// A tag of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TagName {
    pub(crate) repository: RepositoryName,
    pub(crate) tag: Tag,
}

impl FromStr for ManifestName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((repository, digest)) = text.split_once('@') {
            let digest: Digest = digest.parse().map_err(|error| format!("{digest:?}: {error}"))?;
            let repository = self::repository(repository)?;
            let reference = Reference::Digest(digest);
            return Ok(Self { repository, reference });
        }
        let TagName { repository, tag } = text
            .parse::<TagName>()
            .map_err(|error| format!("{error}, or REPOSITORY@DIGEST"))?;
        let reference = Reference::Tag(tag);
        Ok(Self { repository, reference })
    }
}

impl FromStr for TagName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (repository, tag) = text.rsplit_once(':').ok_or("expected REPOSITORY:TAG")?;
        let repository = self::repository(repository)?;
        let tag = tag
            .parse()
            .map_err(|error| format!("{tag:?} is not a valid name of a tag: {error}"))?;
        Ok(Self { repository, tag })
    }
}

fn repository(text: &str) -> Result<RepositoryName, String> {
    text.parse()
        .map_err(|error| format!("{text:?} is not a valid name of a repository: {error}"))
}

/// A version of a tag, or a digest.
fn earlier(text: &str) -> Result<Earlier, String> {
    if text.contains(':') {
        let digest = text.parse().map_err(|error: oci::DigestError| error.to_string())?;
        return Ok(Earlier::Digest(digest));
    }
    let version = text.parse().map(Earlier::Version);
    version.map_err(|_| "expected the number of a version, or a digest".to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn manifests_are_named_by_tag_or_digest() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let read = |text: &str| {
            let found: ManifestName = text.parse().ok()?;
            Some((found.repository.to_string(), found.reference.to_string()))
        };
        let named = |reference: &str| Some(("team/app".to_owned(), reference.to_owned()));
        assert_eq!(read("team/app:1.4.0"), named("1.4.0"));
        assert_eq!(read(&format!("team/app@{digest}")), named(&digest));
        let tag: TagName = "team/app:1.4.0".parse().unwrap();
        assert_eq!((tag.repository.as_str(), tag.tag.as_str()), ("team/app", "1.4.0"));
        for wrong in ["", "team/app", "team/app:", ":1", "Team:1", "team/app@1", "a:b:c"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert!(format!("team/app@{digest}").parse::<TagName>().is_err());
    }

    #[test]
    fn a_rollback_is_to_a_version_or_a_digest() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(earlier("17"), Ok(Earlier::Version(17)));
        assert_eq!(earlier(&digest), Ok(Earlier::Digest(digest.parse().unwrap())));
        for wrong in ["", "-1", "latest", "sha256:0", "md5:00"] {
            assert!(earlier(wrong).is_err(), "{wrong}");
        }
    }
}
