//! `/token` and `/.well-known/jwks.json`: routes, forms, and the answer to each decision of the endpoint.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Method, Request};
use registry::auth::{Credentials, Forwarded, ForwardedHost, UrlScheme};
use registry::budget::ClientKey;
use registry::token_endpoint::{TokenEndpoint, TokenRefusal, TokenResponse};
use registry::{Client, Endpoint, RequestBody};
use serde_json::json;

use crate::support::client::TestRequest;
use crate::support::log::Log;
use crate::support::tokens::{KEY_SET, TestTokens};
use crate::support::{Script, Setup, Users, World};

const FORM: &str = "application/x-www-form-urlencoded";

/// The largest form, in bytes.
const LIMIT: usize = 16 << 10;

async fn world_of(tokens: &Arc<TestTokens>) -> World {
    World::with(Setup {
        token_endpoint: Some(tokens.clone() as Arc<dyn TokenEndpoint>),
        ..Setup::private(&Arc::new(Users::private()))
    })
    .await
}

fn post(world: &World, form: impl Into<Bytes>) -> TestRequest {
    world.post("/token").header("content-type", FORM).bytes(form)
}

/// The endpoint gets the query of a GET or the body of a POST, as it is, with the credentials of the header.
#[tokio::test]
async fn the_endpoint_gets_form_and_credentials() {
    let tokens = Arc::new(TestTokens::default());
    let world = world_of(&tokens).await;
    let basic = "Basic YWxpY2U6cGFzc3dvcmQ=";
    let get = |target: &str| world.get(target);
    for (call, kinds, form) in [
        (get("/token"), "Absent Query", ""),
        (get("/token?"), "Absent Query", ""),
        (
            get("/token?service=x&scope=repository:a/b:pull&scope=%2a"),
            "Absent Query",
            "service=x&scope=repository:a/b:pull&scope=%2a",
        ),
        (get("/token?a").header("authorization", basic), "Basic Query", "a"),
        (get("/token?a").header("authorization", "Bearer x"), "Bearer Query", "a"),
        (get("/token").header("authorization", "Basic ?"), "Unreadable Query", ""),
        (get("/token").header("authorization", "Basic Og=="), "Absent Query", ""),
        (
            get("/token")
                .header("authorization", basic)
                .header("authorization", basic),
            "Unreadable Query",
            "",
        ),
        (post(&world, ""), "Absent Body", ""),
        (
            post(&world, "grant_type=password&username=a&password=%26"),
            "Absent Body",
            "grant_type=password&username=a&password=%26",
        ),
        (post(&world, "a=b").header("authorization", basic), "Basic Body", "a=b"),
        // The query of a POST is none of its fields (RFC 6749, 3.2).
        (
            world.post("/token?c=d").header("content-type", FORM).bytes("a=b"),
            "Absent Body",
            "a=b",
        ),
        (
            world
                .post("/token")
                .header("content-type", "Application/X-WWW-Form-URLencoded ; charset=UTF-8")
                .stream(Script::of("a=b")),
            "Absent Body",
            "a=b",
        ),
    ] {
        let answer = call.send().await.expect(200);
        let asked = tokens.take();
        assert_eq!(asked.len(), 1, "{}", answer.request);
        assert_eq!((asked[0].kinds.as_str(), asked[0].form.as_str()), (kinds, form));
        assert_eq!(answer.get("cache-control"), Some("no-store"));
        assert_eq!(answer.get("content-type"), Some("application/json"));
        assert_eq!(answer.record.endpoint, Some(Endpoint::IssueToken));
        let principal = answer.record.principal.as_ref().map(ToString::to_string);
        assert_eq!(principal.as_deref(), Some("robot:ci"), "the principal of the token");
        assert_eq!(
            answer.json(),
            json!({
                "token": "a.b.c",
                "access_token": "a.b.c",
                "token_type": "Bearer",
                "expires_in": 600,
                "scope": "repository:a/b:pull",
            })
        );
    }
}

/// The endpoint gets the client's address, and the URL that the client has used.
#[tokio::test]
async fn the_endpoint_gets_the_origin() {
    let tokens = Arc::new(TestTokens::default());
    let world = world_of(&tokens).await;
    let client: IpAddr = "192.0.2.1".parse().unwrap();
    let request = || Request::get("/token").header("host", "localhost:5000");
    let forwarded = Forwarded {
        scheme: Some(UrlScheme::Https),
        host: ForwardedHost::Host("registry.example".parse().unwrap()),
    };
    for (request, address, key, url) in [
        (request(), None, ClientKey::INTERNAL, "http://localhost:5000"),
        (
            request().extension(Client(client)),
            Some(client),
            ClientKey::of(client),
            "http://localhost:5000",
        ),
        (
            request().extension(Client(client)).extension(forwarded),
            Some(client),
            ClientKey::of(client),
            "https://registry.example",
        ),
    ] {
        world.registry.handle(request.body(RequestBody::empty()).unwrap()).await;
        let origin = tokens.take().remove(0).origin;
        let found = origin.url.as_ref().map(ToString::to_string);
        assert_eq!(
            (origin.address, origin.client, found.as_deref()),
            (address, key, Some(url))
        );
    }
}

#[tokio::test]
async fn a_refresh_token_is_sent_if_one_is_granted() {
    let tokens = Arc::new(TestTokens::new(|| {
        Ok(TokenResponse {
            refresh_token: Some("d.e.f".to_owned()),
            ..TestTokens::granted()
        })
    }));
    let answer = post(&world_of(&tokens).await, "").send().await.expect(200);
    assert_eq!(answer.json()["refresh_token"], "d.e.f");
}

/// Each refusal has the body of the distribution specification, and the error of RFC 6749 where there is one.
#[tokio::test]
async fn each_refusal_has_its_answer() {
    let refusals: [(fn() -> TokenRefusal, _, _, _, _); 6] = [
        (
            || TokenRefusal::InvalidGrant(TokenRefusal::WRONG_CREDENTIALS.into()),
            401,
            "UNAUTHORIZED",
            json!("invalid_grant"),
            None,
        ),
        (
            || TokenRefusal::InvalidRequest("more than 100 scopes".into()),
            400,
            "UNSUPPORTED",
            json!("invalid_request"),
            None,
        ),
        (
            || TokenRefusal::UnsupportedGrantType,
            400,
            "UNSUPPORTED",
            json!("unsupported_grant_type"),
            None,
        ),
        (
            || TokenRefusal::TooManyAttempts { retry_after: 900 },
            429,
            "TOOMANYREQUESTS",
            json!(null),
            Some("900"),
        ),
        (
            || TokenRefusal::TooManyRequests,
            503,
            "TOOMANYREQUESTS",
            json!(null),
            Some("5"),
        ),
        (
            || TokenRefusal::Unavailable("planned".into()),
            503,
            "UNAVAILABLE",
            json!(null),
            Some("5"),
        ),
    ];
    for (refusal, status, code, error, retry_after) in refusals {
        let tokens = Arc::new(TestTokens::new(move || Err(refusal())));
        let world = world_of(&tokens).await;
        for call in [world.get("/token?scope=x"), post(&world, "a=b")] {
            let answer = call.send_unchecked().await.expect_error(status, code);
            assert_eq!(answer.json()["error"], error);
            assert_eq!(answer.get("retry-after"), retry_after);
            assert_eq!(answer.get("cache-control"), Some("no-store"));
            let challenge = (status == 401).then_some(r#"Basic realm="roadstead", charset="UTF-8""#);
            assert_eq!(answer.get("www-authenticate"), challenge);
            assert_eq!(answer.record.endpoint, Some(Endpoint::IssueToken));
            assert_eq!(answer.record.principal, None);
            assert!(!String::from_utf8_lossy(&answer.body).contains("planned"));
        }
    }
}

/// A POST needs a form. Other content is refused before the endpoint is asked.
#[tokio::test]
async fn a_post_without_a_form_is_refused() {
    let tokens = Arc::new(TestTokens::default());
    let world = world_of(&tokens).await;
    for content_type in [
        None,
        Some(""),
        Some("application/json"),
        Some("multipart/form-data; boundary=x"),
        Some("text/plain; x=application/x-www-form-urlencoded"),
        Some("application/x-www-form-urlencoded2"),
    ] {
        let mut call = world.post("/token").bytes("a=b");
        if let Some(content_type) = content_type {
            call = call.header("content-type", content_type);
        }
        let answer = call.send().await.expect_error(400, "UNSUPPORTED");
        assert_eq!(answer.json()["error"], "invalid_request", "{content_type:?}");
    }
    let answer = post(&world, &b"password=\xff"[..]).send().await;
    assert_eq!(
        answer.expect_error(400, "UNSUPPORTED").json()["error"],
        "invalid_request"
    );
    assert_eq!(tokens.take().len(), 0);
}

/// One byte over the limit is 413. A declared length is refused before the body is read; otherwise the rest of the body is
/// not read.
#[tokio::test]
async fn s07_a_form_over_the_limit_is_refused_without_the_rest() {
    let tokens = Arc::new(TestTokens::default());
    let world = world_of(&tokens).await;
    let exact = Bytes::from(vec![b'a'; LIMIT]);
    let call = || world.post("/token").header("content-type", FORM);
    post(&world, exact.clone()).send().await.expect(200);
    call().stream(Script::in_chunks(&exact, 1000)).send().await.expect(200);
    let lengths: Vec<_> = tokens.take().iter().map(|asked| asked.form.len()).collect();
    assert_eq!(lengths, [LIMIT, LIMIT]);

    let over = || Script::in_chunks(&exact, 1000).data("a").data(vec![b'a'; LIMIT]);
    for (declared, expected) in [(Some(LIMIT + 1), 0), (Some(10 * LIMIT), 0), (None, LIMIT + 1)] {
        let script = over();
        let given = script.given();
        let mut call = call();
        if let Some(declared) = declared {
            call = call.header("content-length", declared.to_string());
        }
        let answer = call.stream(script).send().await.expect_error(413, "UNSUPPORTED");
        assert_eq!(answer.json()["error"], "invalid_request");
        assert_eq!(
            given.load(Ordering::SeqCst),
            expected,
            "bytes that were read, {declared:?}"
        );
    }
    assert_eq!(tokens.take().len(), 0);
}

/// A body that ends early, or is longer than declared, reaches no endpoint.
#[tokio::test]
async fn a_form_that_does_not_arrive_is_refused() {
    let tokens = Arc::new(TestTokens::default());
    let world = world_of(&tokens).await;
    for (declared, body) in [("4", "a=b"), ("2", "a=b")] {
        let call = world.post("/token").header("content-type", FORM);
        let answer = call
            .header("content-length", declared)
            .stream(Script::of(body))
            .send()
            .await;
        answer.expect_error(400, "SIZE_INVALID");
    }
    assert_eq!(tokens.take().len(), 0);
}

#[tokio::test]
async fn the_key_set_needs_no_identity() {
    let world = world_of(&Arc::new(TestTokens::default())).await;
    for method in [Method::GET, Method::HEAD] {
        for credentials in [None, Some("Basic ?"), Some("Bearer expired")] {
            let mut call = world.call(method.clone(), "/.well-known/jwks.json");
            if let Some(credentials) = credentials {
                call = call.header("authorization", credentials);
            }
            let answer = call.send().await.expect(200);
            assert_eq!(answer.get("content-type"), Some("application/json"));
            assert_eq!(answer.get("cache-control"), Some("no-store"));
            assert_eq!(answer.get("content-length"), Some(KEY_SET.len().to_string().as_str()));
            assert_eq!(answer.body, if method == Method::HEAD { "" } else { KEY_SET });
            assert_eq!(answer.record.endpoint, Some(Endpoint::GetKeySet));
            assert_eq!(answer.record.principal, None);
        }
    }
    let tokens = Arc::new(TestTokens::new(|| Err(TokenRefusal::Unavailable("planned".into()))));
    let answer = world_of(&tokens).await.get("/.well-known/jwks.json").send().await;
    answer.expect_error(503, "UNAVAILABLE");
}

/// Other methods are 405; without a token endpoint there are no such paths, whatever the method.
#[tokio::test]
async fn the_routes_exist_with_a_token_endpoint_only() {
    let with = world_of(&Arc::new(TestTokens::default())).await;
    let without = World::with(Setup {
        token_endpoint: None,
        ..Setup::default()
    })
    .await;
    for (target, allowed) in [("/token", "GET, POST"), ("/.well-known/jwks.json", "GET, HEAD")] {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"] {
            let call = |world: &World| world.call(method.parse().unwrap(), target).header("content-type", FORM);
            let answer = without.call(method.parse().unwrap(), target).send().await.expect(404);
            assert_eq!(answer.record.endpoint, None, "{method} {target}");
            let answer = call(&with).send().await;
            if allowed.split(", ").any(|allowed| allowed == method) {
                answer.expect(200);
            } else {
                assert_eq!(answer.expect(405).get("allow"), Some(allowed), "{method} {target}");
            }
        }
    }
}

/// Neither credentials nor the form reach a log, whatever is decided.
#[tokio::test]
async fn s18_nothing_of_a_form_is_logged() {
    let (log, _guard) = Log::capture();
    let decisions: [fn() -> Result<TokenResponse, TokenRefusal>; 3] = [
        || Ok(TestTokens::granted()),
        || Err(TokenRefusal::InvalidGrant("wrong".into())),
        || Err(TokenRefusal::Unavailable("planned".into())),
    ];
    for decide in decisions {
        let world = world_of(&Arc::new(TestTokens::new(decide))).await;
        for call in [
            world.get("/token?password=hunter2"),
            post(&world, "grant_type=password&password=hunter2"),
            post(&world, "password=hunter2").header("authorization", "Basic YWxpY2U6aHVudGVyMg=="),
            world
                .post("/token")
                .header("content-type", "text/hunter2")
                .bytes("hunter2"),
        ] {
            let answer = call.send_unchecked().await;
            let shown = format!("{:?} {:?} {:?}", answer.headers, answer.body, answer.record);
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
    let text = log.text();
    assert!(text.contains("planned"), "faults are logged: {text}");
    for secret in ["hunter2", "aHVudGVy", "a.b.c"] {
        assert!(!text.contains(secret), "{text}");
    }
}

/// The maximum length of a header with credentials is one for both schemes.
#[tokio::test]
async fn credentials_up_to_12_kib_reach_the_endpoint() {
    let tokens = Arc::new(TestTokens::default());
    let world = world_of(&tokens).await;
    let longest = "x".repeat(Credentials::MAX_LEN - "Bearer ".len());
    for (token, kinds) in [
        (longest.clone(), "Bearer Query"),
        (format!("{longest}x"), "Unreadable Query"),
    ] {
        let call = world.get("/token").header("authorization", format!("Bearer {token}"));
        call.send().await.expect(200);
        assert_eq!(tokens.take()[0].kinds, kinds);
    }
}
