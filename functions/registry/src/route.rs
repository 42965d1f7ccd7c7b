//! From method, path and query to a [`Route`]: everything that a request line says, parsed once.
//!
//! A path is read from its end, because a repository's name may itself hold the words `blobs`, `manifests`, `tags`,
//! `uploads` and `referrers`.
//!
//! `%2F` is read as `/` first, because some clients encode the whole repository name (Portainer). Then the path is
//! split, and each segment is percent-decoded once. Every check comes after that, so a decoded dot or backslash never
//! changes what a path means, and text that was encoded twice is still encoded when it is checked.

use std::borrow::Cow;
use std::str::FromStr as _;

use http::{Method, Uri};
use oci::{Digest, MediaType, Reference, RepositoryName, Tag};
use percent_encoding::percent_decode_str;

use crate::error::Error;
use crate::limits::Limits;
use crate::query::{OpenUpload, PageRequest, Query};

macro_rules! endpoints {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The endpoints of the specification, as names for logs, counters and tables of tests.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Endpoint { $($(#[$doc])* $name,)* }

        impl Endpoint {
            /// Every endpoint there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// A short stable name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

endpoints! {
    /// `/`: a page for people. It is not part of the specification.
    Home,
    /// end-1
    Base,
    /// end-2
    GetBlob,
    /// end-3
    GetManifest,
    /// end-4a, end-4b, end-4c, end-11
    OpenUpload,
    /// end-5
    PatchUpload,
    /// end-6
    FinishUpload,
    /// end-7a, end-7b
    PutManifest,
    /// end-8a, end-8b
    ListTags,
    /// end-9
    DeleteManifest,
    /// end-10
    DeleteBlob,
    /// end-12a, end-12b
    ListReferrers,
    /// end-13
    GetUpload,
    /// end-14
    CancelUpload,
    /// The list of repositories, of Docker's API.
    ListRepositories,
}

/// A request line, understood. GET and HEAD are one route: a HEAD is a GET whose answer has no body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Route {
    Home,
    Base,
    GetBlob {
        repository: RepositoryName,
        digest: Digest,
    },
    GetManifest {
        repository: RepositoryName,
        reference: Option<Reference>,
    },
    OpenUpload {
        repository: RepositoryName,
        open: OpenUpload,
    },
    PatchUpload {
        repository: RepositoryName,
        token: String,
    },
    FinishUpload {
        repository: RepositoryName,
        token: String,
        digest: Digest,
    },
    PutManifest {
        repository: RepositoryName,
        reference: Reference,
        tags: Vec<Tag>,
    },
    ListTags {
        repository: RepositoryName,
        page: PageRequest,
    },
    DeleteManifest {
        repository: RepositoryName,
        reference: Option<Reference>,
    },
    DeleteBlob {
        repository: RepositoryName,
        digest: Digest,
    },
    ListReferrers {
        repository: RepositoryName,
        subject: Digest,
        artifact_type: Option<MediaType>,
        page: PageRequest,
    },
    GetUpload {
        repository: RepositoryName,
        token: String,
    },
    CancelUpload {
        repository: RepositoryName,
        token: String,
    },
    ListRepositories {
        page: PageRequest,
    },
}

/// What a path names, before the method decides what is done with it.
enum Resource<'a> {
    Home,
    Base,
    Repositories,
    Blob(RepositoryName, &'a str),
    Manifest(RepositoryName, &'a str),
    Uploads(RepositoryName),
    Upload(RepositoryName, &'a str),
    Tags(RepositoryName),
    Referrers(RepositoryName, &'a str),
}

const READ: &[Method] = &[Method::GET, Method::HEAD];
const BLOB: &[Method] = &[Method::GET, Method::HEAD, Method::DELETE];
const MANIFEST: &[Method] = &[Method::GET, Method::HEAD, Method::PUT, Method::DELETE];
const UPLOADS: &[Method] = &[Method::POST];
const UPLOAD: &[Method] = &[Method::GET, Method::HEAD, Method::PATCH, Method::PUT, Method::DELETE];

impl Route {
    pub(crate) fn parse(method: &Method, uri: &Uri, limits: &Limits) -> Result<Self, Error> {
        let path = decode_slashes(uri.path());
        let segments = path
            .split('/')
            .map(|segment| percent_decode_str(segment).decode_utf8())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Error::NoSuchEndpoint)?;
        let query = Query(uri.query().unwrap_or_default());
        let read = *method == Method::GET || *method == Method::HEAD;
        match Resource::parse(&segments)? {
            Resource::Home if read => Ok(Self::Home),
            Resource::Base if read => Ok(Self::Base),
            Resource::Repositories if read => Ok(Self::ListRepositories {
                page: query.page(limits)?,
            }),
            Resource::Tags(repository) if read => Ok(Self::ListTags {
                repository,
                page: query.page(limits)?,
            }),
            Resource::Referrers(repository, subject) if read => Ok(Self::ListReferrers {
                repository,
                subject: subject.parse()?,
                artifact_type: query.artifact_type()?,
                page: query.page(limits)?,
            }),
            Resource::Home | Resource::Base | Resource::Repositories | Resource::Tags(_) | Resource::Referrers(..) => {
                Err(Error::MethodNotAllowed(READ))
            }
            Resource::Blob(repository, digest) => match *method {
                Method::GET | Method::HEAD => Ok(Self::GetBlob {
                    repository,
                    digest: digest.parse()?,
                }),
                Method::DELETE => Ok(Self::DeleteBlob {
                    repository,
                    digest: digest.parse()?,
                }),
                _ => Err(Error::MethodNotAllowed(BLOB)),
            },
            Resource::Manifest(repository, reference) => match *method {
                Method::GET | Method::HEAD => Ok(Self::GetManifest {
                    repository,
                    reference: existing_reference(reference)?,
                }),
                Method::DELETE => Ok(Self::DeleteManifest {
                    repository,
                    reference: existing_reference(reference)?,
                }),
                Method::PUT => {
                    let reference = existing_reference(reference)?.ok_or(Error::TagInvalid)?;
                    Ok(Self::PutManifest {
                        repository,
                        reference,
                        tags: query.tags(limits)?,
                    })
                }
                _ => Err(Error::MethodNotAllowed(MANIFEST)),
            },
            Resource::Uploads(repository) if *method == Method::POST => Ok(Self::OpenUpload {
                repository,
                open: query.open_upload()?,
            }),
            Resource::Uploads(_) => Err(Error::MethodNotAllowed(UPLOADS)),
            Resource::Upload(repository, token) => {
                let token = token.to_owned();
                match *method {
                    Method::GET | Method::HEAD => Ok(Self::GetUpload { repository, token }),
                    Method::PATCH => Ok(Self::PatchUpload { repository, token }),
                    Method::PUT => {
                        let digest = query.first("digest").ok_or(Error::DigestMissing)?.parse()?;
                        Ok(Self::FinishUpload {
                            repository,
                            token,
                            digest,
                        })
                    }
                    Method::DELETE => Ok(Self::CancelUpload { repository, token }),
                    _ => Err(Error::MethodNotAllowed(UPLOAD)),
                }
            }
        }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        match self {
            Self::Home => Endpoint::Home,
            Self::Base => Endpoint::Base,
            Self::GetBlob { .. } => Endpoint::GetBlob,
            Self::GetManifest { .. } => Endpoint::GetManifest,
            Self::OpenUpload { .. } => Endpoint::OpenUpload,
            Self::PatchUpload { .. } => Endpoint::PatchUpload,
            Self::FinishUpload { .. } => Endpoint::FinishUpload,
            Self::PutManifest { .. } => Endpoint::PutManifest,
            Self::ListTags { .. } => Endpoint::ListTags,
            Self::DeleteManifest { .. } => Endpoint::DeleteManifest,
            Self::DeleteBlob { .. } => Endpoint::DeleteBlob,
            Self::ListReferrers { .. } => Endpoint::ListReferrers,
            Self::GetUpload { .. } => Endpoint::GetUpload,
            Self::CancelUpload { .. } => Endpoint::CancelUpload,
            Self::ListRepositories { .. } => Endpoint::ListRepositories,
        }
    }
}

impl<'a> Resource<'a> {
    fn parse(segments: &'a [Cow<'a, str>]) -> Result<Self, Error> {
        let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        let rest = match segments.as_slice() {
            ["", "v2", rest @ ..] => rest,
            ["", ""] => return Ok(Self::Home),
            _ => return Err(Error::NoSuchEndpoint),
        };
        match rest {
            [] | [""] => Ok(Self::Base),
            // A slash at the end of a list changes nothing: distribution v3 redirects it to the list.
            ["_catalog"] | ["_catalog", ""] => Ok(Self::Repositories),
            [name @ .., "blobs", "uploads", ""] | [name @ .., "blobs", "uploads"] => {
                Ok(Self::Uploads(repository(name)?))
            }
            [name @ .., "blobs", "uploads", token] => Ok(Self::Upload(repository(name)?, token)),
            [name @ .., "blobs", digest] => Ok(Self::Blob(repository(name)?, digest)),
            [name @ .., "manifests", reference] => Ok(Self::Manifest(repository(name)?, reference)),
            [name @ .., "referrers", digest] => Ok(Self::Referrers(repository(name)?, digest)),
            [name @ .., "tags", "list"] | [name @ .., "tags", "list", ""] => Ok(Self::Tags(repository(name)?)),
            _ => Err(Error::NoSuchEndpoint),
        }
    }
}

fn repository(segments: &[&str]) -> Result<RepositoryName, Error> {
    Ok(segments.join("/").parse()?)
}

/// The path with every `%2F` as the slash that it stands for.
fn decode_slashes(path: &str) -> Cow<'_, str> {
    if path.contains('%') {
        Cow::Owned(path.replace("%2F", "/").replace("%2f", "/"))
    } else {
        Cow::Borrowed(path)
    }
}

/// A reference to something that may exist. `None` for text that cannot be a tag: then nothing has that name, which is
/// a 404 to a reader; a malformed digest is a 400 to everyone.
fn existing_reference(text: &str) -> Result<Option<Reference>, Error> {
    if text.contains(':') {
        return Ok(Some(Reference::Digest(text.parse()?)));
    }
    Ok(Tag::from_str(text).ok().map(Reference::Tag))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]
mod tests {
    use oci::Algorithm;

    use super::*;

    fn endpoint(method: &str, target: &str) -> Option<(Endpoint, Option<String>)> {
        let route = Route::parse(&method.parse().unwrap(), &target.parse().unwrap(), &Limits::default()).ok()?;
        let name = match &route {
            Route::Home | Route::Base | Route::ListRepositories { .. } => None,
            Route::GetBlob { repository, .. }
            | Route::GetManifest { repository, .. }
            | Route::OpenUpload { repository, .. }
            | Route::PatchUpload { repository, .. }
            | Route::FinishUpload { repository, .. }
            | Route::PutManifest { repository, .. }
            | Route::ListTags { repository, .. }
            | Route::DeleteManifest { repository, .. }
            | Route::DeleteBlob { repository, .. }
            | Route::ListReferrers { repository, .. }
            | Route::GetUpload { repository, .. }
            | Route::CancelUpload { repository, .. } => Some(repository.to_string()),
        };
        Some((route.endpoint(), name))
    }

    /// A path is read from its end: what stands before the last words of the protocol is the name.
    #[test]
    fn names_that_look_like_paths() {
        let digest = Digest::of(Algorithm::Sha256, b"");
        for (method, target, expected, name) in [
            (
                "GET",
                "/v2/a/blobs/uploads/manifests/x".to_owned(),
                Endpoint::GetManifest,
                "a/blobs/uploads",
            ),
            (
                "GET",
                "/v2/a/blobs/uploads/tags/list".to_owned(),
                Endpoint::ListTags,
                "a/blobs/uploads",
            ),
            (
                "GET",
                format!("/v2/a/blobs/uploads/blobs/{digest}"),
                Endpoint::GetBlob,
                "a/blobs/uploads",
            ),
            (
                "GET",
                format!("/v2/a/blobs/uploads/referrers/{digest}"),
                Endpoint::ListReferrers,
                "a/blobs/uploads",
            ),
            (
                "POST",
                "/v2/a/blobs/uploads/blobs/uploads/".to_owned(),
                Endpoint::OpenUpload,
                "a/blobs/uploads",
            ),
            (
                "PATCH",
                "/v2/a/blobs/uploads/blobs/uploads/x".to_owned(),
                Endpoint::PatchUpload,
                "a/blobs/uploads",
            ),
            (
                "POST",
                "/v2/blobs/blobs/uploads/".to_owned(),
                Endpoint::OpenUpload,
                "blobs",
            ),
            (
                "POST",
                "/v2/uploads/blobs/uploads".to_owned(),
                Endpoint::OpenUpload,
                "uploads",
            ),
            (
                "GET",
                "/v2/a/manifests/manifests/manifests".to_owned(),
                Endpoint::GetManifest,
                "a/manifests",
            ),
            (
                "GET",
                "/v2/a/manifests/tags/list".to_owned(),
                Endpoint::ListTags,
                "a/manifests",
            ),
            (
                "GET",
                "/v2/a/tags/list/tags/list".to_owned(),
                Endpoint::ListTags,
                "a/tags/list",
            ),
            (
                "GET",
                "/v2/a/tags/manifests/list".to_owned(),
                Endpoint::GetManifest,
                "a/tags",
            ),
            (
                "GET",
                "/v2/a/blobs/manifests/uploads".to_owned(),
                Endpoint::GetManifest,
                "a/blobs",
            ),
            (
                "DELETE",
                "/v2/a/blobs/uploads/x".to_owned(),
                Endpoint::CancelUpload,
                "a",
            ),
            ("GET", "/v2/v2/tags/list".to_owned(), Endpoint::ListTags, "v2"),
        ] {
            assert_eq!(
                endpoint(method, &target),
                Some((expected, Some(name.to_owned()))),
                "{method} {target}"
            );
        }
    }

    #[test]
    fn endpoints_have_names_of_their_own() {
        let mut names: Vec<_> = Endpoint::ALL.iter().map(|endpoint| endpoint.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Endpoint::ALL.len());
    }
}
