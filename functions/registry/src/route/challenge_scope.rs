//! What a challenge for tokens asks for, by the endpoint of the request.

use http::request::Parts;
use oci::RepositoryName;

use super::api::ApiOperation;
use super::{Endpoint, Resource, find};
use crate::auth::{ChallengeActions, ChallengeScope};
use crate::query::{MountSource, Query};

impl ChallengeScope {
    /// What a challenge to the request with this head asks for. `None`: the request needs an identity at most, or there
    /// is no such endpoint.
    #[must_use]
    pub fn of(head: &Parts) -> Option<Self> {
        let query = Query(head.uri.query().unwrap_or_default());
        find(head, |resource, endpoint| match (resource, endpoint) {
            (Resource::Uploads(repository), Endpoint::OpenUpload) => Some(Self::of_open_upload(repository, query)),
            (resource, endpoint) => Self::of_endpoint(resource, endpoint),
        })?
    }

    /// A mount also reads its source. Without a source, the token decides which repositories are searched.
    fn of_open_upload(repository: RepositoryName, query: Query) -> Self {
        match query.mount_source() {
            Some(MountSource::Repository(source)) if source != repository => Self::Mount { repository, source },
            _ => Self::Repository {
                repository,
                actions: ChallengeActions::PullAndPush,
            },
        }
    }

    fn of_endpoint(resource: Resource, endpoint: Endpoint) -> Option<Self> {
        let actions = match endpoint {
            Endpoint::Home
            | Endpoint::Base
            | Endpoint::IssueToken
            | Endpoint::GetKeySet
            | Endpoint::Api(ApiOperation::GetApiDocument) => return None,
            Endpoint::ListRepositories => return Some(Self::Catalog),
            Endpoint::Api(_) => return Some(Self::Api),
            Endpoint::GetBlob | Endpoint::GetManifest | Endpoint::ListTags | Endpoint::ListReferrers => {
                ChallengeActions::Pull
            }
            Endpoint::OpenUpload
            | Endpoint::PatchUpload
            | Endpoint::FinishUpload
            | Endpoint::GetUpload
            | Endpoint::CancelUpload
            | Endpoint::PutManifest => ChallengeActions::PullAndPush,
            Endpoint::DeleteManifest | Endpoint::DeleteBlob => ChallengeActions::Delete,
        };
        match resource {
            Resource::Home
            | Resource::Base
            | Resource::Repositories
            | Resource::Token
            | Resource::KeySet
            | Resource::Api(_) => None,
            Resource::Blob(repository, _)
            | Resource::Manifest(repository, _)
            | Resource::Uploads(repository)
            | Resource::Upload(repository, _)
            | Resource::Tags(repository)
            | Resource::Referrers(repository, _) => Some(Self::Repository { repository, actions }),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use oci::{Algorithm, Digest};

    use super::*;

    /// The scope of a challenge depends on the method and the URL only.
    #[test]
    fn what_challenges_ask_for() {
        let digest = Digest::of(Algorithm::Sha256, b"");
        let [pull, push, delete] = ["pull", "pull,push", "delete"].map(|actions| format!("repository:a/b:{actions}"));
        let (pull, push, delete) = (Some(&*pull), Some(&*push), Some(&*delete));
        let mut seen = std::collections::BTreeSet::new();
        for (methods, target, expected) in [
            ("GET HEAD", "/".to_owned(), None),
            ("GET HEAD", "/v2/".to_owned(), None),
            ("GET POST", "/token".to_owned(), None),
            ("GET HEAD", "/.well-known/jwks.json".to_owned(), None),
            ("GET HEAD", "/v2/_catalog".to_owned(), Some("registry:catalog:*")),
            ("GET HEAD", "/v2/a/b/manifests/t".to_owned(), pull),
            ("GET HEAD", format!("/v2/a/b/manifests/{digest}"), pull),
            ("GET HEAD", format!("/v2/a/b/blobs/{digest}"), pull),
            ("GET HEAD", "/v2/a/b/tags/list".to_owned(), pull),
            ("GET HEAD", format!("/v2/a/b/referrers/{digest}"), pull),
            ("POST", "/v2/a/b/blobs/uploads/".to_owned(), push),
            (
                "POST",
                format!("/v2/a/b/blobs/uploads/?mount={digest}&from=c%2Fd"),
                Some("repository:a/b:pull,push repository:c/d:pull"),
            ),
            // There is no other source than the repository itself.
            ("POST", format!("/v2/a/b/blobs/uploads/?mount={digest}"), push),
            ("POST", format!("/v2/a/b/blobs/uploads/?mount={digest}&from=a/b"), push),
            ("POST", format!("/v2/a/b/blobs/uploads/?mount={digest}&from=C"), push),
            ("POST", "/v2/a/b/blobs/uploads/?from=c".to_owned(), push),
            // Other requests mount nothing.
            (
                "PUT PATCH",
                format!("/v2/a/b/blobs/uploads/x?digest={digest}&mount={digest}&from=c"),
                push,
            ),
            (
                "GET HEAD PATCH PUT DELETE",
                format!("/v2/a/b/blobs/uploads/x?digest={digest}"),
                push,
            ),
            ("PUT", "/v2/a/b/manifests/t".to_owned(), push),
            ("PUT", format!("/v2/a/b/manifests/{digest}"), push),
            ("DELETE", "/v2/a/b/manifests/t".to_owned(), delete),
            ("DELETE", format!("/v2/a/b/blobs/{digest}"), delete),
        ] {
            for method in methods.split(' ') {
                let request = http::Request::builder().method(method).uri(&target).body(()).unwrap();
                let (head, ()) = request.into_parts();
                let scope = ChallengeScope::of(&head).map(|scope| scope.to_string());
                assert_eq!(scope.as_deref(), expected, "{method} {target}");
                seen.extend(Endpoint::of(&head));
            }
        }
        for &operation in ApiOperation::ALL {
            let path = operation.example_path();
            let request = http::Request::builder()
                .method(operation.method())
                .uri(format!("/api/v1/{path}"))
                .body(())
                .unwrap();
            let (head, ()) = request.into_parts();
            let scope = ChallengeScope::of(&head).map(|scope| scope.to_string());
            let expected = (operation != ApiOperation::GetApiDocument).then_some("registry:api:*");
            assert_eq!(scope.as_deref(), expected, "{path}");
            seen.extend(Endpoint::of(&head));
        }
        assert_eq!(seen.len(), Endpoint::ALL.len(), "every endpoint is in the table");
    }
}
