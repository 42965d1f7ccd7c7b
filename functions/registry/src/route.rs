//! Parses the method, the path and the query of a request into a [`Route`], once.

pub(crate) mod api;
mod challenge_scope;
mod resource;

use std::str::FromStr as _;

use http::request::Parts;
use http::{Method, Uri};
use oci::{Digest, MediaType, Reference, RepositoryName, Tag};

use crate::error::Error;
use crate::limits::Limits;
use crate::query::{OpenUpload, PageRequest, Query};

use self::api::{ApiOperation, ApiRoute};
use self::resource::{Resource, decode_slashes, find, segments};

macro_rules! endpoints {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The endpoints of the specification, as names for logs, metrics and tables of tests.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Endpoint {
            $($(#[$doc])* $name,)*
            /// `/api/v1/`: the administration of the registry.
            Api(ApiOperation),
        }

        impl Endpoint {
            /// All endpoints.
            pub const ALL: &'static [Self] = &Self::all();

            const fn all() -> [Self; Self::OWN.len() + ApiOperation::ALL.len()] {
                let mut all = [Self::Home; Self::OWN.len() + ApiOperation::ALL.len()];
                let mut next = 0;
                // A constant function cannot use `for`.
                while next < all.len() {
                    all[next] = if next < Self::OWN.len() {
                        Self::OWN[next]
                    } else {
                        Self::Api(ApiOperation::ALL[next - Self::OWN.len()])
                    };
                    next += 1;
                }
                all
            }

            /// All endpoints but those of the API.
            const OWN: &'static [Self] = &[$(Self::$name,)*];

            /// The endpoint of a request, by its method and path, without performing the request. For a shell that
            /// counts or logs requests which the registry does not answer. `None`: there is no such endpoint, or it
            /// does not have this method. The rest of the request is not checked, and neither is a digest in the path.
            #[must_use]
            pub fn of(head: &Parts) -> Option<Self> {
                find(head, |_, endpoint| endpoint)
            }

            /// A short stable name of the endpoint.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    Self::Api(operation) => operation.as_str(),
                }
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
    /// The list of repositories, as in Docker's API.
    ListRepositories,
    /// `/token`: the token endpoint, as in distribution's token specification and in `OAuth2`.
    IssueToken,
    /// `/.well-known/jwks.json`: the keys that verify tokens.
    GetKeySet,
}

/// A parsed request line. GET and HEAD have the same route: the response to a HEAD has no body.
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
    IssueToken,
    GetKeySet,
    Api(ApiRoute),
}

/// The parts of a registry that have routes of their own. Without such a part, there are no such routes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OptionalParts {
    /// The token endpoint.
    pub(crate) tokens: bool,
    /// The API.
    pub(crate) api: bool,
}

impl Route {
    /// Parses a request line of a registry with these parts.
    pub(crate) fn parse(method: &Method, uri: &Uri, limits: &Limits, parts: OptionalParts) -> Result<Self, Error> {
        let path = decode_slashes(uri.path());
        let segments = segments(&path).ok_or(Error::NoSuchEndpoint)?;
        let resource = Resource::parse(&segments)?;
        let is_there = match resource {
            Resource::Token | Resource::KeySet => parts.tokens,
            Resource::Api(_) => parts.api,
            _ => true,
        };
        if !is_there {
            return Err(Error::NoSuchEndpoint);
        }
        let endpoint = resource.endpoint(method)?;
        let query = Query(uri.query().unwrap_or_default());
        Ok(match resource {
            Resource::Home => Self::Home,
            Resource::Base => Self::Base,
            Resource::Token => Self::IssueToken,
            Resource::KeySet => Self::GetKeySet,
            Resource::Api(path) => match endpoint {
                Endpoint::Api(operation) => Self::Api(path.route(operation)?),
                _ => return Err(Error::NoSuchEndpoint),
            },
            Resource::Repositories => Self::ListRepositories {
                page: query.page(limits)?,
            },
            Resource::Tags(repository) => Self::ListTags {
                repository,
                page: query.page(limits)?,
            },
            Resource::Referrers(repository, subject) => Self::ListReferrers {
                repository,
                subject: subject.parse()?,
                artifact_type: query.artifact_type()?,
                page: query.page(limits)?,
            },
            Resource::Blob(repository, digest) => {
                let digest = digest.parse()?;
                match endpoint {
                    Endpoint::DeleteBlob => Self::DeleteBlob { repository, digest },
                    _ => Self::GetBlob { repository, digest },
                }
            }
            Resource::Manifest(repository, reference) => {
                let reference = existing_reference(reference)?;
                match endpoint {
                    Endpoint::PutManifest => Self::PutManifest {
                        repository,
                        reference: reference.ok_or(Error::TagInvalid)?,
                        tags: query.tags(limits)?,
                    },
                    Endpoint::DeleteManifest => Self::DeleteManifest { repository, reference },
                    _ => Self::GetManifest { repository, reference },
                }
            }
            Resource::Uploads(repository) => Self::OpenUpload {
                repository,
                open: query.open_upload()?,
            },
            Resource::Upload(repository, token) => {
                let token = token.to_owned();
                match endpoint {
                    Endpoint::PatchUpload => Self::PatchUpload { repository, token },
                    Endpoint::FinishUpload => {
                        let digest = query.first("digest").ok_or(Error::DigestMissing)?.parse()?;
                        Self::FinishUpload {
                            repository,
                            token,
                            digest,
                        }
                    }
                    Endpoint::CancelUpload => Self::CancelUpload { repository, token },
                    _ => Self::GetUpload { repository, token },
                }
            }
        })
    }

    /// The repository that the request names, and the tag or the digest in it.
    pub(crate) fn subject(&self) -> Option<(&RepositoryName, Option<String>)> {
        match self {
            Self::GetBlob { repository, digest }
            | Self::DeleteBlob { repository, digest }
            | Self::FinishUpload { repository, digest, .. }
            | Self::ListReferrers {
                repository,
                subject: digest,
                ..
            } => Some((repository, Some(digest.to_string()))),
            Self::GetManifest { repository, reference } | Self::DeleteManifest { repository, reference } => {
                Some((repository, reference.as_ref().map(ToString::to_string)))
            }
            Self::PutManifest {
                repository, reference, ..
            } => Some((repository, Some(reference.to_string()))),
            Self::OpenUpload { repository, .. }
            | Self::PatchUpload { repository, .. }
            | Self::GetUpload { repository, .. }
            | Self::CancelUpload { repository, .. }
            | Self::ListTags { repository, .. } => Some((repository, None)),
            _ => None,
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
            Self::IssueToken => Endpoint::IssueToken,
            Self::GetKeySet => Endpoint::GetKeySet,
            Self::Api(route) => Endpoint::Api(route.operation()),
        }
    }
}

/// A reference to something that may exist. `None` for text that cannot be a tag: no tag has that name, so a read of it
/// is a 404. A malformed digest is a 400 for every request.
fn existing_reference(text: &str) -> Result<Option<Reference>, Error> {
    if text.contains(':') {
        return Ok(Some(Reference::Digest(text.parse()?)));
    }
    Ok(Tag::from_str(text).ok().map(Reference::Tag))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use oci::Algorithm;

    use super::*;

    fn endpoint(method: &str, target: &str) -> Option<(Endpoint, Option<String>)> {
        let route = Route::parse(
            &method.parse().unwrap(),
            &target.parse().unwrap(),
            &Limits::default(),
            OptionalParts {
                tokens: true,
                api: true,
            },
        )
        .ok()?;
        let name = match &route {
            Route::Home
            | Route::Base
            | Route::ListRepositories { .. }
            | Route::IssueToken
            | Route::GetKeySet
            | Route::Api(_) => None,
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

    /// A path is read from its end: the part before the last words of the protocol is the name.
    #[test]
    fn repository_names_that_look_like_paths() {
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

    fn endpoint_of(method: &str, target: &str) -> Option<Endpoint> {
        let request = http::Request::builder().method(method).uri(target).body(()).unwrap();
        Endpoint::of(&request.into_parts().0)
    }

    /// Method and path alone determine the endpoint, and it is the endpoint of the parsed request line. If the request
    /// line is refused for its query or its digest, the endpoint is the one that refuses it.
    #[test]
    fn the_endpoint_of_a_head() {
        let digest = Digest::of(Algorithm::Sha256, b"");
        let all = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"];
        let mut found_endpoints = std::collections::BTreeSet::new();
        for (target, expected) in [
            ("/", [("GET", Endpoint::Home), ("HEAD", Endpoint::Home)].as_slice()),
            ("/v2/", &[("GET", Endpoint::Base), ("HEAD", Endpoint::Base)]),
            (
                "/v2/_catalog",
                &[
                    ("GET", Endpoint::ListRepositories),
                    ("HEAD", Endpoint::ListRepositories),
                ],
            ),
            (
                "/v2/a%2Fb/tags/list",
                &[("GET", Endpoint::ListTags), ("HEAD", Endpoint::ListTags)],
            ),
            (
                &format!("/v2/a/referrers/{digest}"),
                &[("GET", Endpoint::ListReferrers), ("HEAD", Endpoint::ListReferrers)],
            ),
            (
                &format!("/v2/a/b/blobs/{digest}"),
                &[
                    ("GET", Endpoint::GetBlob),
                    ("HEAD", Endpoint::GetBlob),
                    ("DELETE", Endpoint::DeleteBlob),
                ],
            ),
            (
                "/v2/a/manifests/latest",
                &[
                    ("GET", Endpoint::GetManifest),
                    ("HEAD", Endpoint::GetManifest),
                    ("PUT", Endpoint::PutManifest),
                    ("DELETE", Endpoint::DeleteManifest),
                ],
            ),
            ("/v2/a/blobs/uploads/", &[("POST", Endpoint::OpenUpload)]),
            (
                &format!("/v2/a/blobs/uploads/x?digest={digest}"),
                &[
                    ("GET", Endpoint::GetUpload),
                    ("HEAD", Endpoint::GetUpload),
                    ("PATCH", Endpoint::PatchUpload),
                    ("PUT", Endpoint::FinishUpload),
                    ("DELETE", Endpoint::CancelUpload),
                ],
            ),
            ("/v2", &[("GET", Endpoint::Base), ("HEAD", Endpoint::Base)]),
            (
                "/token?service=x",
                &[("GET", Endpoint::IssueToken), ("POST", Endpoint::IssueToken)],
            ),
            (
                "/.well-known/jwks.json",
                &[("GET", Endpoint::GetKeySet), ("HEAD", Endpoint::GetKeySet)],
            ),
            ("/token/", &[]),
            ("/v2/token", &[]),
            ("/.well-known/", &[]),
            ("/.well-known/jwks.json/", &[]),
            ("/v2/A/tags/list", &[]),
            ("/v2/a/tags/%ff", &[]),
            ("/v1/", &[]),
        ] {
            for method in all {
                let expected = expected.iter().find(|(known, _)| *known == method);
                let expected = expected.map(|(_, endpoint)| *endpoint);
                assert_eq!(endpoint_of(method, target), expected, "{method} {target}");
                let parsed = endpoint(method, target).map(|(endpoint, _)| endpoint);
                assert_eq!(parsed, expected, "{method} {target}");
                found_endpoints.extend(expected);
            }
        }
        for &operation in ApiOperation::ALL {
            let path = operation.example_path();
            let (method, target) = (operation.method(), format!("/api/v1/{path}?n=1"));
            let expected = Some(Endpoint::Api(operation));
            assert_eq!(endpoint_of(method.as_str(), &target), expected, "{method} {target}");
            let parsed = endpoint(method.as_str(), &target).map(|(endpoint, _)| endpoint);
            assert_eq!(parsed, expected, "{method} {target}");
            found_endpoints.extend(expected);
        }
        assert_eq!(found_endpoints.len(), Endpoint::ALL.len(), "every endpoint is found");
        for (method, target, expected) in [
            ("GET", "/v2/_catalog?n=x", Endpoint::ListRepositories),
            ("GET", "/v2/a/blobs/sha256:0", Endpoint::GetBlob),
            ("GET", "/v2/a/referrers/x", Endpoint::ListReferrers),
            ("PUT", "/v2/a/manifests/-", Endpoint::PutManifest),
            ("PUT", "/v2/a/blobs/uploads/x", Endpoint::FinishUpload),
        ] {
            assert_eq!(endpoint(method, target), None, "{method} {target}");
            assert_eq!(endpoint_of(method, target), Some(expected), "{method} {target}");
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
