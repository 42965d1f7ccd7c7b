//! Stores that fail: what the client gets, what is logged, and that nothing acknowledged is lost.

use std::sync::Arc;

use async_trait::async_trait;
use contract::faulty::{Fault, FaultKind, FaultPoint};
use http::Method;
use oci::MediaType;
use registry::auth::{AuthenticationError, CredentialId, Credentials, Origin, SharedRules};
use registry::store::wrapped::StoreMethod;
use registry::{Authenticator, Identity, Principal};

use crate::support::client::TestRequest;
use crate::support::content::{Image, artifact, bytes_of, image, padded};
use crate::support::log::Log;
use crate::support::{Answer, Setup, World, sha256, sha512};

macro_rules! operations {
    ($($name:ident,)*) => {
        /// An operation on a registry that has an image in `a`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Operation { $($name,)* }
        use Operation::*;

        const OPERATIONS: &[Operation] = &[$($name,)*];
    };
}

operations! {
    GetBlob,
    GetRanges,
    HeadBlob,
    GetManifestByTag,
    GetManifestByDigest,
    GetLargeManifest,
    ListTags,
    ListRepositories,
    ListReferrers,
    OpenUpload,
    Mount,
    MountFromAnywhere,
    Post,
    Patch,
    FinalPut,
    FinalPutOfAnotherAlgorithm,
    GetUpload,
    CancelUpload,
    PutManifest,
    PutLargeManifest,
    DeleteTag,
    DeleteManifest,
    DeleteBlob,
}

/// A registry with content of every kind.
struct Scene {
    world: World,
    image: Image,
    upload: String,
}

impl Scene {
    async fn new() -> Self {
        let world = World::new().await;
        world.clock.flow();
        let image = world.push_image("a", "t", "app").await;
        world.push_blob("a", "{}").await;
        world.push_blob("a", "loose").await;
        world.push_blob("b", "elsewhere").await;
        world.put_manifest("a", "large", large("large")).await.expect(201);
        let signature = bytes_of(&artifact("a/signature", &image.manifest));
        world.put_manifest("a", "signature", signature).await.expect(201);
        let upload = world.open_upload("a").await;
        world.patch(upload.clone()).bytes("ab").send().await.expect(202);
        Self { world, image, upload }
    }

    /// The request of an operation, and the status with which it succeeds.
    fn call(&self, operation: Operation) -> (TestRequest, u16) {
        let Self { world, image, upload } = self;
        let elsewhere = sha256(b"elsewhere");
        let put = |tag: &str, bytes| {
            let call = world.put(format!("/v2/a/manifests/{tag}"));
            call.header("content-type", MediaType::OCI_MANIFEST).bytes(bytes)
        };
        match operation {
            GetBlob => (world.get(format!("/v2/a/blobs/{}", image.layer)), 200),
            GetRanges => {
                let call = world.get(format!("/v2/a/blobs/{}", image.layer));
                (call.header("range", "bytes=0-0,2-2"), 206)
            }
            HeadBlob => (world.head(format!("/v2/a/blobs/{}", image.layer)), 200),
            GetManifestByTag => (world.get("/v2/a/manifests/t"), 200),
            GetManifestByDigest => (world.get(format!("/v2/a/manifests/{}", image.digest)), 200),
            GetLargeManifest => (world.get("/v2/a/manifests/large"), 200),
            ListTags => (world.get("/v2/a/tags/list?last=zzz"), 200),
            ListRepositories => (world.get("/v2/_catalog"), 200),
            ListReferrers => (world.get(format!("/v2/a/referrers/{}", image.digest)), 200),
            OpenUpload => (world.post("/v2/a/blobs/uploads/"), 202),
            Mount => (
                world.post(format!("/v2/a/blobs/uploads/?mount={elsewhere}&from=b")),
                201,
            ),
            MountFromAnywhere => (world.post(format!("/v2/a/blobs/uploads/?mount={elsewhere}")), 201),
            Post => {
                let call = world.post(format!("/v2/a/blobs/uploads/?digest={}", sha256(b"new")));
                (call.bytes("new"), 201)
            }
            Patch => (world.patch(upload.clone()).bytes("cd"), 202),
            FinalPut => (
                world.put(format!("{upload}?digest={}", sha256(b"abcd"))).bytes("cd"),
                201,
            ),
            FinalPutOfAnotherAlgorithm => (world.put(format!("{upload}?digest={}", sha512(b"ab"))), 201),
            GetUpload => (world.get(upload.clone()), 204),
            CancelUpload => (world.delete(upload.clone()), 204),
            PutManifest => (put("new", bytes_of(&image_of("{}"))), 201),
            PutLargeManifest => (put("new", large("other")), 201),
            DeleteTag => (world.delete("/v2/a/manifests/t"), 202),
            DeleteManifest => (world.delete(format!("/v2/a/manifests/{}", image.digest)), 202),
            DeleteBlob => (world.delete(format!("/v2/a/blobs/{}", sha256(b"loose"))), 202),
        }
    }

    /// Content that was acknowledged before, and that no operation here deletes.
    async fn check_kept(&self) {
        let large_manifest = self.world.get("/v2/a/manifests/large").send().await.expect(200);
        assert!(large_manifest.body == large("large"));
        for (repository, bytes) in [("a", "{}"), ("a", "layer of app"), ("b", "elsewhere")] {
            assert_eq!(
                self.world.blob(repository, &sha256(bytes.as_bytes())).await.unwrap(),
                bytes
            );
        }
    }
}

fn image_of(config: &str) -> serde_json::Value {
    image(config.as_bytes(), &[])
}

/// A manifest of more than 32 KiB.
fn large(text: &str) -> bytes::Bytes {
    let mut manifest = image_of("{}");
    manifest["annotations"] = serde_json::json!({ "text": text });
    padded(&manifest, 50_000)
}

/// The response to a fault has an id and nothing of its cause. The log has the cause with that id.
fn check_fault(answer: &Answer, kind: FaultKind, log: &Log) {
    let status = match kind {
        FaultKind::Unavailable => 503,
        FaultKind::Failed => 500,
    };
    assert_eq!(answer.status, status, "{}", answer.request);
    let everything = format!("{:?} {:?}", answer.headers, answer.body);
    for internal in ["planned", "fault in"] {
        assert!(!everything.contains(internal), "{}: {everything}", answer.request);
    }
    // The body has the same id; the test client checks that in every response.
    let id = answer.header("x-request-id");
    let text = log.text();
    let line = text.lines().find(|line| line.contains(id));
    let line = line.unwrap_or_else(|| panic!("{}: the log has no {id}: {text}", answer.request));
    assert!(line.starts_with("ERROR") && line.contains("planned fault"), "{line}");
    assert_eq!(text.matches(id).count(), 1, "logged once");
}

/// Every call of every operation fails once, before its work and after it, with both kinds of faults. The client gets a
/// server error, or a success that is true. Existing content stays. A repetition of the operation succeeds, or says
/// that it is done.
#[tokio::test]
async fn every_call_of_every_operation_fails_once() {
    let mut struck = 0;
    for &operation in OPERATIONS {
        for kind in [FaultKind::Unavailable, FaultKind::Failed] {
            for point in [FaultPoint::Before, FaultPoint::After] {
                for nth in 1.. {
                    let scene = Scene::new().await;
                    let (log, guard) = Log::capture();
                    scene.world.faults.plan(Fault {
                        method: None,
                        nth,
                        kind,
                        point,
                    });
                    let (call, success) = scene.call(operation);
                    let answer = call.send().await;
                    let hit = scene.world.faults.struck() > 0;
                    let calls = scene.world.faults.calls();
                    scene.world.faults.clear();
                    drop(guard);
                    if !hit {
                        assert_eq!(answer.status, success, "{operation:?} without a fault");
                        break;
                    }
                    struck += 1;
                    if answer.broken {
                        // The head was sent already: the connection is closed, and the log has the reason.
                        assert!(log.text().contains("planned fault"));
                    } else if answer.status != success {
                        check_fault(&answer, kind, &log);
                    }
                    scene.check_kept().await;
                    check_again(&scene, operation, answer.status == success).await;
                    assert!(nth < 30, "{operation:?}: {calls:?}");
                }
            }
        }
    }
    assert!(struck > 200, "{struck} faults struck");
}

/// Repeats the operation without a fault.
async fn check_again(scene: &Scene, operation: Operation, succeeded: bool) {
    let (call, success) = scene.call(operation);
    let again = call.send().await;
    match (operation, again.status) {
        (_, status) if status == success => {}
        // It was done, whether the client got that answer or not.
        (DeleteTag | DeleteManifest | DeleteBlob | CancelUpload, 404) => {}
        // A session with an interrupted publication accepts no more bodies: the blob is pushed again.
        (FinalPut | FinalPutOfAnotherAlgorithm, 404) if !succeeded => {
            scene.world.push_blob("a", "abcd").await;
        }
        // The claim of a request that could not release it is valid for a minute.
        (Patch | FinalPut | FinalPutOfAnotherAlgorithm, 416 | 429) if !succeeded => {
            scene.world.clock.pass(60_000);
            let (call, _) = scene.call(operation);
            let status = call.send().await.status;
            assert!(matches!(status, 201 | 202 | 404), "{operation:?}: {status}");
        }
        (_, status) => panic!("{operation:?} again: {status}"),
    }
    if succeeded && matches!(operation, FinalPut) {
        assert_eq!(scene.world.blob("a", &sha256(b"abcd")).await.unwrap(), "abcd");
    }
    if matches!(operation, PutManifest | PutLargeManifest) {
        scene.world.get("/v2/a/manifests/new").send().await.expect(200);
    }
}

/// A failed cleanup after the publication does not fail the push. The end of the session is more than cleanup: without
/// it, a repeated PUT would publish again what was deleted since. So if that fails, the client gets an error and
/// repeats the request.
#[tokio::test]
async fn what_is_published_is_acknowledged_when_a_repetition_cannot_undo_a_deletion() {
    for (operation, method, status) in [
        (FinalPut, StoreMethod::Finish, 500),
        (FinalPut, StoreMethod::Discard, 201),
        (PutLargeManifest, StoreMethod::Finish, 201),
    ] {
        let scene = Scene::new().await;
        scene.world.faults.plan(Fault {
            method: Some(method),
            nth: 1,
            kind: FaultKind::Failed,
            point: FaultPoint::Before,
        });
        let (call, _) = scene.call(operation);
        call.send().await.expect(status);
        assert_eq!(scene.world.faults.struck(), 1, "{operation:?} {method:?}");
        scene.world.faults.clear();
        let (again, _) = scene.call(operation);
        again.send().await.expect(201);
        if matches!(operation, FinalPut) {
            let blob = format!("/v2/a/blobs/{}", sha256(b"abcd"));
            scene.world.delete(blob).send().await.expect(202);
            let (again, _) = scene.call(operation);
            again.send().await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
            assert_eq!(scene.world.blob("a", &sha256(b"abcd")).await, None);
        }
    }
}

/// A wrong digest is a fault of the client, also if the cleanup fails. So is a missing reference.
#[tokio::test]
async fn a_refusal_stays_a_refusal_when_cleanup_fails() {
    let scene = Scene::new().await;
    let fault = |method| Fault {
        method: Some(method),
        nth: 1,
        kind: FaultKind::Failed,
        point: FaultPoint::Before,
    };
    for digest in [sha256(b"wrong"), sha512(b"wrong")] {
        scene.world.faults.plan(fault(StoreMethod::Discard));
        let location = scene.world.open_upload("a").await;
        let location = scene
            .world
            .patch(location)
            .bytes("right")
            .send()
            .await
            .expect(202)
            .location();
        let put = scene.world.put(format!("{location}?digest={digest}"));
        put.send().await.expect_error(400, "DIGEST_INVALID");
        assert_eq!(scene.world.faults.struck(), 1);
    }
    let manifest = padded(&image_of("missing"), 50_000);
    scene.world.faults.plan(fault(StoreMethod::Finish));
    let answer = scene.world.put_manifest("a", "x", manifest).await;
    answer.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(scene.world.faults.struck(), 1);
}

/// Each fault has an id of its own.
#[tokio::test]
async fn each_fault_has_its_own_id() {
    let world = World::new().await;
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..10 {
        world.faults.plan(Fault {
            method: None,
            nth: 1,
            kind: FaultKind::Failed,
            point: FaultPoint::Before,
        });
        let answer = world.get("/v2/a/manifests/t").send().await.expect_error(500, "UNKNOWN");
        ids.insert(answer.json()["errors"][0]["detail"]["id"].to_string());
    }
    assert_eq!(ids.len(), 10);
}

/// An authenticator that panics.
struct Defective;

#[async_trait]
impl Authenticator for Defective {
    async fn authenticate(&self, _: &Origin, _: &Credentials) -> Result<Identity, AuthenticationError> {
        panic!("a defect, on purpose: planned")
    }

    async fn reauthorize(&self, _: &Principal, _: Option<CredentialId>) -> Result<Identity, AuthenticationError> {
        Err(AuthenticationError::Unauthenticated)
    }

    fn shared_rules(&self) -> Option<Arc<SharedRules>> {
        None
    }

    fn takes_credentials(&self) -> bool {
        false
    }
}

/// A panic is answered like any other fault, with an id in body and header, and without its cause.
#[tokio::test]
async fn a_panic_is_a_server_fault() {
    let world = World::with(Setup {
        authenticator: Arc::new(Defective),
        ..Setup::default()
    })
    .await;
    let answer = world.get("/v2/").send().await.expect(500);
    assert!(!String::from_utf8_lossy(&answer.body).contains("planned"));
    let id = answer.json()["errors"][0]["detail"]["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("x-request-id"), id);
    let head = world.call(Method::HEAD, "/v2/").send().await.expect(500);
    assert_eq!(head.header("x-request-id").len(), 16);
}
