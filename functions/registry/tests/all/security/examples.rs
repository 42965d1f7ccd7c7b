//! Requests for everything that the registry offers, by endpoint. An endpoint without examples does not compile.

use std::sync::Arc;

use http::Method;
use oci::{Digest, MediaType};
use registry::api_endpoint::ApiOperation;
use registry::{Authenticator, Endpoint, Settings};

use crate::support::client::TestRequest;
use crate::support::content::{Image, artifact, bytes_of, image};
use crate::support::{Setup, Users, World, sha256};

/// A private registry with the repositories `team/app` and `private/x`, which have the same content.
pub(crate) struct Fixture {
    /// Over the same stores, and open to everyone.
    pub(crate) open: World,
    /// Accepts the users of [`Users`].
    pub(crate) guarded: World,
    pub(crate) users: Arc<Users>,
    pub(crate) image: Image,
    /// An unreferenced blob.
    pub(crate) loose: Digest,
    /// Uploads of `alice` in both repositories, with `ab` stored.
    uploads: [String; 2],
}

/// A request, and the status with which it succeeds.
pub(crate) struct Example {
    pub(crate) what: String,
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) body: Vec<u8>,
    pub(crate) success: u16,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::of(Users::private()).await
    }

    pub(crate) async fn of(users: Users) -> Self {
        let users = Arc::new(users);
        let open = World::with(Setup::default()).await;
        let authenticator = users.clone() as Arc<dyn Authenticator>;
        let guarded = open.another(authenticator, Settings::default()).await;
        for repository in ["team/app", "private/x"] {
            open.push_image(repository, "latest", "app").await;
            open.push_blob(repository, "loose").await;
            open.push_blob(repository, "{}").await;
        }
        let uploads = [
            Self::upload(&guarded, "team/app").await,
            Self::upload(&guarded, "private/x").await,
        ];
        let image = open.push_image("private/x", "latest", "app").await;
        let signature = bytes_of(&artifact("application/x.signature", &image.manifest));
        open.put_manifest("private/x", "signature", signature).await.expect(201);
        Self {
            open,
            guarded,
            users,
            image,
            loose: sha256(b"loose"),
            uploads,
        }
    }

    async fn upload(guarded: &World, repository: &str) -> String {
        let post = guarded.post(format!("/v2/{repository}/blobs/uploads/")).user("alice");
        let location = post.send().await.expect(202).location();
        guarded
            .patch(location.clone())
            .user("alice")
            .bytes("ab")
            .send()
            .await
            .expect(202);
        location
    }

    /// The upload of `alice` in a repository.
    pub(crate) fn upload_in(&self, repository: &str) -> &str {
        let place = usize::from(repository == "private/x");
        &self.uploads[place]
    }

    /// Requests of `repository` at an endpoint; each succeeds for a user that may do everything.
    pub(crate) fn examples(&self, endpoint: Endpoint, repository: &str) -> Vec<Example> {
        let v2 = format!("/v2/{repository}");
        let Image { digest, layer, .. } = &self.image;
        let upload = self.upload_in(repository);
        let uploads = format!("{v2}/blobs/uploads/");
        let new = sha256(b"new");
        let manifest = bytes_of(&image(b"{}", &[b"loose"]));
        let example = |method: Method, target: String, body: &[u8], success| Example {
            what: format!("{} {method} {target}", endpoint.as_str()),
            method,
            target,
            body: body.to_vec(),
            success,
        };
        let read = |target: String| {
            let methods = [Method::GET, Method::HEAD].into_iter();
            methods
                .map(|method| example(method, target.clone(), b"", 200))
                .collect::<Vec<_>>()
        };
        match endpoint {
            Endpoint::Home => read("/".into()),
            Endpoint::Base => [read("/v2/".into()), read("/v2".into())].concat_all(),
            Endpoint::ListRepositories => {
                [read("/v2/_catalog".into()), read("/v2/_catalog?n=1&last=a".into())].concat_all()
            }
            Endpoint::GetBlob => read(format!("{v2}/blobs/{layer}")),
            Endpoint::GetManifest => [
                read(format!("{v2}/manifests/latest")),
                read(format!("{v2}/manifests/{digest}")),
                read(format!("{v2}/manifests/latest?ns=registry.example")),
            ]
            .concat_all(),
            Endpoint::ListTags => [
                read(format!("{v2}/tags/list")),
                read(format!("{v2}/tags/list?n=0&last=x")),
            ]
            .concat_all(),
            Endpoint::ListReferrers => [
                read(format!("{v2}/referrers/{digest}")),
                read(format!("{v2}/referrers/{digest}?artifactType=a/b&n=1")),
            ]
            .concat_all(),
            Endpoint::OpenUpload => vec![
                example(Method::POST, uploads.clone(), b"", 202),
                example(Method::POST, format!("{v2}/blobs/uploads"), b"", 202),
                example(Method::POST, format!("{uploads}?digest-algorithm=sha512"), b"", 202),
                example(Method::POST, format!("{uploads}?digest={new}"), b"new", 201),
                example(
                    Method::POST,
                    format!("{uploads}?mount={layer}&from=private/x"),
                    b"",
                    201,
                ),
                example(Method::POST, format!("{uploads}?mount={layer}"), b"", 201),
                example(Method::POST, format!("{uploads}?mount={new}&from=a"), b"", 202),
            ],
            Endpoint::PatchUpload => vec![example(Method::PATCH, upload.into(), b"cd", 202)],
            Endpoint::FinishUpload => {
                let target = format!("{upload}?digest={}", sha256(b"abcd"));
                vec![example(Method::PUT, target, b"cd", 201)]
            }
            Endpoint::GetUpload => vec![
                example(Method::GET, upload.into(), b"", 204),
                example(Method::HEAD, upload.into(), b"", 204),
            ],
            Endpoint::CancelUpload => vec![example(Method::DELETE, upload.into(), b"", 204)],
            Endpoint::PutManifest => ["latest", "other", "latest?tag=x", &sha256(&manifest).to_string()]
                .into_iter()
                .map(str::to_owned)
                .chain([format!("{}?tag=latest&tag=y", sha256(&manifest))])
                .map(|reference| example(Method::PUT, format!("{v2}/manifests/{reference}"), &manifest, 201))
                .collect(),
            Endpoint::DeleteManifest => vec![
                example(Method::DELETE, format!("{v2}/manifests/latest"), b"", 202),
                example(Method::DELETE, format!("{v2}/manifests/{digest}"), b"", 202),
            ],
            Endpoint::DeleteBlob => vec![example(Method::DELETE, format!("{v2}/blobs/{}", self.loose), b"", 202)],
            Endpoint::IssueToken => vec![
                example(
                    Method::GET,
                    format!("/token?scope=repository:{repository}:pull"),
                    b"",
                    200,
                ),
                example(Method::POST, "/token".into(), b"grant_type=password", 200),
            ],
            Endpoint::GetKeySet => read("/.well-known/jwks.json".into()),
            Endpoint::Api(operation) => {
                let (target, body) = api_request(operation, repository, digest);
                vec![example(operation.method(), target, body.as_bytes(), 200)]
            }
        }
    }
}

/// The URL and the body of a request of the API; one about a repository is about this one, in which `latest` names the digest.
fn api_request(operation: ApiOperation, repository: &str, digest: &Digest) -> (String, String) {
    let (query, body) = match operation {
        ApiOperation::CreateRepository => (format!("?name={repository}"), "{}".to_owned()),
        ApiOperation::DescribeTags => (format!("?repository={repository}"), "{}".to_owned()),
        ApiOperation::GetTagHistory => (format!("?repository={repository}&tag=latest"), "{}".to_owned()),
        ApiOperation::RollBackTag => {
            let body = format!(r#"{{"tag":"{repository}:latest","to":"{digest}"}}"#);
            (String::new(), body)
        }
        ApiOperation::PromoteTag => {
            let body = format!(r#"{{"from":"{repository}:latest","to":"{repository}:promoted"}}"#);
            (String::new(), body)
        }
        ApiOperation::GetIdentity
        | ApiOperation::Explain
        | ApiOperation::ListAccounts
        | ApiOperation::CreateAccount
        | ApiOperation::GetAccount
        | ApiOperation::ChangeAccount
        | ApiOperation::RemoveAccount
        | ApiOperation::SetPassword
        | ApiOperation::ListKeys
        | ApiOperation::CreateKey
        | ApiOperation::ChangeKey
        | ApiOperation::RemoveKey
        | ApiOperation::RotateKey
        | ApiOperation::GetPolicy
        | ApiOperation::SetPolicy
        | ApiOperation::CheckPolicy
        | ApiOperation::ListPolicyVersions
        | ApiOperation::GetPolicyVersion
        | ApiOperation::SearchRepositories
        | ApiOperation::ListAuditEvents
        | ApiOperation::ListSigningKeys
        | ApiOperation::RotateSigningKeys
        | ApiOperation::GetApiDocument => (String::new(), "{}".to_owned()),
    };
    (format!("{}{query}", api_path(operation)), body)
}

/// A path of an operation of the API; those about an account are about one that nobody here has.
fn api_path(operation: ApiOperation) -> String {
    let path = operation.path().replace("{account}", "carol");
    let path = path.replace("{key}", "3f9aK2dQ").replace("{version}", "7");
    format!("/api/v1/{path}")
}

trait ConcatAll {
    fn concat_all(self) -> Vec<Example>;
}

impl<const N: usize> ConcatAll for [Vec<Example>; N] {
    fn concat_all(self) -> Vec<Example> {
        self.into_iter().flatten().collect()
    }
}

impl Example {
    pub(crate) fn call(&self, world: &World) -> TestRequest {
        let call = world
            .call(self.method.clone(), self.target.clone())
            .bytes(self.body.clone());
        if self.target.contains("/manifests/") && self.method == Method::PUT {
            call.header("content-type", MediaType::OCI_MANIFEST)
        } else if self.method == Method::POST && self.target == "/token" {
            call.header("content-type", "application/x-www-form-urlencoded")
        } else if self.target.starts_with("/api/v1/") {
            call.header("content-type", "application/json").header("if-match", "*")
        } else {
            call
        }
    }
}

/// Whether an endpoint is authorized by an upload token, because some clients send no credentials there.
pub(crate) fn is_by_token(endpoint: Endpoint) -> bool {
    match endpoint {
        Endpoint::PatchUpload | Endpoint::FinishUpload | Endpoint::GetUpload | Endpoint::CancelUpload => true,
        Endpoint::Home
        | Endpoint::Base
        | Endpoint::ListRepositories
        | Endpoint::GetBlob
        | Endpoint::GetManifest
        | Endpoint::ListTags
        | Endpoint::ListReferrers
        | Endpoint::OpenUpload
        | Endpoint::PutManifest
        | Endpoint::DeleteManifest
        | Endpoint::DeleteBlob
        | Endpoint::IssueToken
        | Endpoint::GetKeySet
        | Endpoint::Api(_) => false,
    }
}
