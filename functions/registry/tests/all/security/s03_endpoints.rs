//! S3: immutable tags at every endpoint. An endpoint without a decision whether it can change a tag does not compile.

use std::collections::BTreeMap;
use std::sync::Arc;

use oci::Digest;
use registry::Endpoint;
use registry::api_endpoint::ApiOperation;
use registry::auth::{ImmutableRule, SharedRules};

use super::examples::{Example, Fixture};
use crate::support::content::{bytes_of, index};
use crate::support::{World, sha256};

/// The repository of all requests.
const REPOSITORY: &str = "private/x";

/// A registry in which the tag `latest` has named another manifest before, and that manifest.
async fn fixture() -> (Fixture, Digest) {
    let fixture = Fixture::new().await;
    let earlier = fixture.open.push_image(REPOSITORY, "latest", "earlier").await;
    fixture.open.push_image(REPOSITORY, "latest", "app").await;
    (fixture, earlier.digest)
}

/// Freezes every tag at once.
fn freeze_all(fixture: &Fixture) {
    let rule = ImmutableRule {
        name: "all".into(),
        repositories: vec!["**".parse().unwrap()],
        tags: vec!["*".parse().unwrap()],
        except: Vec::new(),
        grace_ms: 0,
        delete: false,
    };
    fixture.users.share(Arc::new(SharedRules::new(vec![rule], Vec::new())));
}

/// Each tag of the repository with its digest.
async fn tags(world: &World) -> BTreeMap<String, String> {
    let list = world
        .get(format!("/v2/{REPOSITORY}/tags/list"))
        .send()
        .await
        .expect(200);
    let list = list.json();
    let mut tags = BTreeMap::new();
    for tag in list["tags"].as_array().unwrap() {
        let tag = tag.as_str().unwrap();
        let head = world.head(format!("/v2/{REPOSITORY}/manifests/{tag}")).send().await;
        let digest = head.expect(200).header("docker-content-digest").to_owned();
        tags.insert(tag.to_owned(), digest);
    }
    tags
}

/// Requests that move or delete the tag `latest`, unless it is frozen. Those of an endpoint that cannot change a tag are none.
fn changes(fixture: &Fixture, endpoint: Endpoint, earlier: &Digest) -> Vec<Example> {
    let by_api = |operation: ApiOperation, body: String| {
        vec![Example {
            what: format!("{} {body}", operation.as_str()),
            method: operation.method(),
            target: format!("/api/v1/{}", operation.path()),
            body: body.into_bytes(),
            success: 200,
        }]
    };
    match endpoint {
        Endpoint::PutManifest => {
            let examples = fixture.examples(endpoint, REPOSITORY).into_iter();
            examples.filter(|example| example.target.contains("latest")).collect()
        }
        Endpoint::DeleteManifest => fixture.examples(endpoint, REPOSITORY),
        Endpoint::Api(operation @ ApiOperation::RollBackTag) => {
            let body = format!(r#"{{"tag":"{REPOSITORY}:latest","to":"{earlier}"}}"#);
            by_api(operation, body)
        }
        Endpoint::Api(operation @ ApiOperation::PromoteTag) => {
            let body = format!(r#"{{"from":"{REPOSITORY}:signature","to":"{REPOSITORY}:latest"}}"#);
            by_api(operation, body)
        }
        // A blob is not deleted while a manifest refers to it.
        Endpoint::DeleteBlob
        | Endpoint::Home
        | Endpoint::Base
        | Endpoint::ListRepositories
        | Endpoint::GetBlob
        | Endpoint::GetManifest
        | Endpoint::ListTags
        | Endpoint::ListReferrers
        | Endpoint::OpenUpload
        | Endpoint::PatchUpload
        | Endpoint::FinishUpload
        | Endpoint::GetUpload
        | Endpoint::CancelUpload
        | Endpoint::IssueToken
        | Endpoint::GetKeySet
        | Endpoint::Api(
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
            | ApiOperation::CreateRepository
            | ApiOperation::DescribeTags
            | ApiOperation::GetTagHistory
            | ApiOperation::ListAuditEvents
            | ApiOperation::ListSigningKeys
            | ApiOperation::RotateSigningKeys
            | ApiOperation::GetApiDocument,
        ) => Vec::new(),
    }
}

/// Each of these requests changes the tag, and is refused and changes nothing if the tag is frozen.
#[tokio::test]
async fn s03_each_change_of_a_frozen_tag_is_refused() {
    for &endpoint in Endpoint::ALL {
        let (first, earlier) = fixture().await;
        let count = changes(&first, endpoint, &earlier).len();
        for (number, is_frozen) in (0..count).flat_map(|number| [(number, false), (number, true)]) {
            let (fixture, earlier) = fixture().await;
            if is_frozen {
                freeze_all(&fixture);
            }
            let change = &changes(&fixture, endpoint, &earlier)[number];
            let before = tags(&fixture.open).await;
            let answer = change.call(&fixture.guarded).user("alice").send().await;
            let expected = if is_frozen { 403 } else { change.success };
            assert_eq!(answer.status, expected, "{}", change.what);
            let after = tags(&fixture.open).await;
            if is_frozen {
                assert_eq!(after, before, "{}", change.what);
            } else {
                assert_ne!(after.get("latest"), before.get("latest"), "{}", change.what);
            }
        }
    }
}

/// All other requests are answered as ever, and the tags that exist name what they named.
#[tokio::test]
async fn s03_no_request_at_any_endpoint_changes_a_frozen_tag() {
    for &endpoint in Endpoint::ALL {
        let count = fixture().await.0.examples(endpoint, REPOSITORY).len();
        for number in 0..count {
            let (fixture, earlier) = fixture().await;
            freeze_all(&fixture);
            let example = &fixture.examples(endpoint, REPOSITORY)[number];
            let of_example = |change: &Example| change.target == example.target && change.body == example.body;
            let is_change = changes(&fixture, endpoint, &earlier).iter().any(of_example);
            let before = tags(&fixture.open).await;
            let answer = example.call(&fixture.guarded).user("alice").send().await;
            let expected = if is_change { 403 } else { example.success };
            assert_eq!(answer.status, expected, "{}", example.what);
            let after = tags(&fixture.open).await;
            for (tag, digest) in &before {
                assert_eq!(after.get(tag), Some(digest), "{tag}: {}", example.what);
            }
        }
    }
}

/// What the manifest of a frozen tag refers to is not deleted either: the manifests of an index, and their blobs.
#[tokio::test]
async fn s03_what_a_frozen_tag_refers_to_is_not_deleted() {
    let (fixture, _) = fixture().await;
    let image = &fixture.image;
    let parent = bytes_of(&index(&[&image.manifest[..]]));
    let put = fixture.open.put_manifest(REPOSITORY, "index", parent.clone());
    put.await.expect(201);
    let parent = sha256(&parent);
    // The image itself has no tag.
    let latest = fixture.open.delete(format!("/v2/{REPOSITORY}/manifests/latest"));
    latest.send().await.expect(202);
    freeze_all(&fixture);
    for (path, status) in [
        ("manifests/index".to_owned(), 403),
        (format!("manifests/{parent}"), 403),
        (format!("manifests/{}", image.digest), 405),
        (format!("blobs/{}", image.layer), 405),
        (format!("blobs/{}", image.config), 405),
    ] {
        let target = format!("/v2/{REPOSITORY}/{path}");
        let deleted = fixture.guarded.delete(target.clone()).user("alice").send().await;
        deleted.expect_error(status, "DENIED");
        fixture.open.get(target).send().await.expect(200);
    }
}
