//! `/api/v1/`: routes, forms, and the answer to each decision of the API.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::Method;
use registry::api_endpoint::{ApiBodyKind, ApiEndpoint, ApiOperation, ApiRefusal};
use registry::store::StoreError;
use registry::{Authenticator, DenialReason, Endpoint};
use serde_json::json;

use crate::support::api::{DOCUMENT, TestApi};
use crate::support::client::TestRequest;
use crate::support::{Script, Setup, Users, World};

const JSON: &str = "application/json";

/// The largest body, in bytes.
const LIMIT: usize = 64 << 10;

async fn world_of(refuse: fn() -> Option<ApiRefusal>) -> (World, Arc<TestApi>) {
    let users = Arc::new(Users::private());
    let api = Arc::new(TestApi::refusing(users.clone(), refuse));
    let made = api.clone();
    let world = World::with(Setup {
        api_endpoint: Some(Arc::new(move |_: Arc<dyn Authenticator>| {
            made.clone() as Arc<dyn ApiEndpoint>
        })),
        ..Setup::private(&users)
    })
    .await;
    (world, api)
}

fn target(operation: ApiOperation) -> String {
    let path = operation.path().replace("{account}", "ci");
    let path = path.replace("{key}", "3f9aK2dQ").replace("{version}", "7");
    format!("/api/v1/{path}")
}

/// A request with everything that the operation needs.
fn whole(world: &World, operation: ApiOperation) -> TestRequest {
    let call = world.call(operation.method(), target(operation)).user("alice");
    let call = call.header("content-type", JSON).header("if-match", "\"7\"");
    call.bytes("{}")
}

/// The API gets the query and the body; the answer has the version as its entity tag, and is not cached.
#[tokio::test]
async fn the_api_gets_query_and_body() {
    let (world, api) = world_of(|| None).await;
    for &operation in ApiOperation::ALL {
        let answer = whole(&world, operation).send().await.expect(200);
        assert_eq!(answer.record.endpoint, Some(Endpoint::Api(operation)));
        assert_eq!(answer.get("cache-control"), Some("no-store"));
        assert_eq!(answer.get("content-type"), Some(JSON));
        let asked = api.take();
        if operation == ApiOperation::GetApiDocument {
            assert_eq!((answer.body.as_ref(), asked.len()), (DOCUMENT.as_bytes(), 0));
            continue;
        }
        let body = match operation.body() {
            ApiBodyKind::None => "None 0",
            ApiBodyKind::Json | ApiBodyKind::Policy => "Json 2",
        };
        assert_eq!(asked, [format!("{} \"\" {body}", operation.as_str())]);
        assert_eq!(answer.get("etag"), Some("\"7\""));
        assert_eq!(
            answer
                .record
                .principal
                .map(|principal| principal.to_string())
                .as_deref(),
            Some("alice")
        );
    }
    world
        .get("/api/v1/accounts?n=1&after=a%2Fb")
        .user("alice")
        .send()
        .await
        .expect(200);
    assert_eq!(api.take(), [r#"ListAccounts "n=1&after=a%2Fb" None 0"#]);
    let toml = world.put("/api/v1/policy").user("alice").header("if-match", "*");
    toml.header("content-type", "application/toml; charset=utf-8")
        .bytes("a=1")
        .send()
        .await
        .expect(200);
    assert_eq!(api.take(), [r#"SetPolicy "" Toml 3"#]);
}

/// What does not have the right form does not reach the API.
#[tokio::test]
async fn a_request_of_the_wrong_form_is_refused() {
    let (world, api) = world_of(|| None).await;
    for &operation in ApiOperation::ALL {
        if operation.body() != ApiBodyKind::None {
            for wrong in ["text/plain", "application/x-www-form-urlencoded", ""] {
                let call = world.call(operation.method(), target(operation)).user("alice");
                let call = call.header("if-match", "*").header("content-type", wrong).bytes("{}");
                call.send().await.expect_error(415, "UNSUPPORTED");
            }
        }
        if operation.is_conditional() {
            let call = world.call(operation.method(), target(operation)).user("alice");
            let call = call.header("content-type", JSON).bytes("{}");
            call.send().await.expect_error(428, "UNSUPPORTED");
        }
    }
    assert!(api.take().is_empty());
}

/// One byte over the limit is 413. A declared length is refused before the body is read; otherwise the rest of the body is
/// not read.
#[tokio::test]
async fn s07_a_body_over_the_limit_is_refused_without_the_rest() {
    let (world, api) = world_of(|| None).await;
    let exact = Bytes::from(vec![b' '; LIMIT]);
    let call = || world.post("/api/v1/explain").user("alice").header("content-type", JSON);
    call().bytes(exact.clone()).send().await.expect(200);
    call().stream(Script::in_chunks(&exact, 1000)).send().await.expect(200);
    assert_eq!(api.take().len(), 2);
    for (declared, expected) in [(Some(LIMIT + 1), 0), (None, LIMIT + 1)] {
        let script = Script::in_chunks(&exact, 1000).data("a").data(vec![b'a'; LIMIT]);
        let given = script.given();
        let mut call = call();
        if let Some(declared) = declared {
            call = call.header("content-length", declared.to_string());
        }
        call.stream(script).send().await.expect_error(413, "UNSUPPORTED");
        assert_eq!(given.load(Ordering::SeqCst), expected, "bytes that were read");
    }
    assert!(api.take().is_empty());
}

/// Each refusal has the body of the distribution specification.
#[tokio::test]
async fn each_refusal_has_its_answer() {
    type Refuses = fn() -> Option<ApiRefusal>;
    let refusals: [(Refuses, _, _, _); 9] = [
        (
            || {
                Some(ApiRefusal::Invalid {
                    message: "planned".into(),
                    detail: Some(json!({ "line": 3 })),
                })
            },
            400,
            "UNSUPPORTED",
            None,
        ),
        (|| Some(ApiRefusal::Unknown), 404, "NAME_UNKNOWN", None),
        (
            || Some(ApiRefusal::Denied("planned".into())),
            403,
            "DENIED",
            Some(DenialReason::Policy),
        ),
        (
            || Some(ApiRefusal::Conflict("planned".into())),
            409,
            "UNSUPPORTED",
            None,
        ),
        (|| Some(ApiRefusal::Changed), 412, "UNSUPPORTED", None),
        (
            || Some(ApiRefusal::TooManyAttempts { retry_after: 9 }),
            429,
            "TOOMANYREQUESTS",
            Some(DenialReason::TooManyAttempts),
        ),
        (
            || Some(ApiRefusal::TooManyChanges { retry_after: 9 }),
            429,
            "TOOMANYREQUESTS",
            Some(DenialReason::TooManyChanges),
        ),
        (|| Some(ApiRefusal::TooManyRequests), 503, "TOOMANYREQUESTS", None),
        (
            || Some(ApiRefusal::Failed(StoreError::unavailable("hidden"))),
            503,
            "UNAVAILABLE",
            None,
        ),
    ];
    for (refuse, status, code, denial) in refusals {
        let (world, _) = world_of(refuse).await;
        let answer = whole(&world, ApiOperation::ChangeAccount).send_unchecked().await;
        let answer = answer.expect_error(status, code);
        assert_eq!(answer.record.denial, denial);
        let error = &answer.json()["errors"][0];
        if status == 400 {
            assert_eq!(
                (&error["message"], &error["detail"]["line"]),
                (&json!("planned"), &json!(3))
            );
        }
        assert!(!error["message"].as_str().unwrap().contains("hidden"));
        assert_eq!(answer.get("cache-control"), Some("no-store"));
        assert!(status != 429 || answer.get("retry-after") == Some("9"));
    }
}

/// Without an API there are no such paths, whatever the method.
#[tokio::test]
async fn the_routes_exist_with_an_api_only() {
    let without = World::with(Setup {
        api_endpoint: None,
        ..Setup::private(&Arc::new(Users::private()))
    })
    .await;
    let (with, _) = world_of(|| None).await;
    for &operation in ApiOperation::ALL {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let method: Method = method.parse().unwrap();
            let answer = without
                .call(method.clone(), target(operation))
                .user("alice")
                .send()
                .await;
            assert_eq!(answer.expect(404).record.endpoint, None);
        }
        let answer = with.call(Method::OPTIONS, target(operation)).send().await.expect(405);
        let allowed = answer.get("allow").unwrap();
        assert!(allowed.split(", ").any(|method| method == operation.method().as_str()));
    }
    for path in [
        "/api",
        "/api/",
        "/api/v1",
        "/api/v1/",
        "/api/v1/whoami/",
        "/api/v1/accounts/A",
        "/api/v2/whoami",
    ] {
        with.get(path).user("alice").send().await.expect(404);
    }
}
