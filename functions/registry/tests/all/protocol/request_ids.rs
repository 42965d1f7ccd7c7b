//! The ids of requests: in responses, and in the audit trail.

use std::collections::BTreeSet;

use http::Method;
use registry::store::access::{AuditKind, AuditQuery};
use registry::store::{Context, Timestamp, Uid};

use crate::support::content::{bytes_of, index};
use crate::support::{Answer, World};

/// Requests that may change something have an id, and each has another one. The others have none.
#[tokio::test]
async fn requests_that_may_change_something_have_an_id() {
    let world = World::new().await;
    let mut ids = BTreeSet::new();
    for (method, target, has_id) in [
        (Method::GET, "/v2/", false),
        (Method::HEAD, "/v2/a/manifests/t", false),
        (Method::POST, "/v2/a/blobs/uploads/", true),
        (Method::POST, "/v2/a/blobs/uploads/", true),
        (Method::PATCH, "/v2/a/blobs/uploads/unknown", true),
        (Method::DELETE, "/v2/a/manifests/t", true),
        (Method::PUT, "/no/such/endpoint", true),
    ] {
        let answer = world.call(method.clone(), target).send().await;
        let id = answer.get("x-request-id");
        assert_eq!(id.is_some(), has_id, "{method} {target}");
        assert!(id.is_none_or(|id| ids.insert(id.to_owned())), "{method} {target}");
    }
    assert_eq!(ids.len(), 5);
}

#[tokio::test]
async fn the_audit_trail_has_the_ids_of_requests() {
    let world = World::new().await;
    let blob = world.push_blob("a", "a layer").await;
    let id = |answer: Answer| answer.header("x-request-id").to_owned();
    let mut expected = Vec::new();
    for tag in ["one", "two"] {
        let put = world.put_manifest("a", tag, bytes_of(&index(&[]))).await;
        expected.push((AuditKind::ManifestPushed, id(put.expect(201))));
        world.clock.pass(1);
    }
    let manifest = world.get("/v2/a/manifests/one").send().await.expect(200);
    let digest = manifest.header("docker-content-digest").to_owned();
    for (kind, target) in [
        (AuditKind::TagDeleted, "/v2/a/manifests/one".to_owned()),
        (AuditKind::ManifestDeleted, format!("/v2/a/manifests/{digest}")),
        (AuditKind::BlobDeleted, format!("/v2/a/blobs/{blob}")),
    ] {
        expected.push((kind, id(world.delete(target).send().await.expect(202))));
        world.clock.pass(1);
    }
    let cx = Context::internal(Timestamp(0), u64::MAX, Uid(1));
    let query = AuditQuery::default();
    let trail = world.stores.access.audit(cx, &query, None, 100);
    let events = trail.await.unwrap().items.into_iter();
    let found: Vec<_> = events.map(|event| (event.event, event.request.unwrap())).collect();
    assert_eq!(found, expected);
}
