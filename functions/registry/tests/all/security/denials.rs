//! What a shell and the log learn of requests that are denied.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request};
use oci::MediaType;
use registry::auth::{Actions, AuthenticationError, ImmutableRule, Rules, Scope, SharedRules, TokenError};
use registry::{Client, DenialReason, Identity, Principal, RequestBody, RequestRecord};
use serde_json::json;

use crate::support::content::{bytes_of, index};
use crate::support::log::Log;
use crate::support::users::Deciding;
use crate::support::{Setup, Users, World};

/// A manifest that differs from all others.
fn numbered(number: usize) -> Bytes {
    let mut value = index(&[]);
    value["annotations"] = json!({ "number": number.to_string() });
    bytes_of(&value)
}

/// `alice` may do everything, `reader` may pull, and `creator` may create. Tags `final-…` are immutable.
async fn world() -> World {
    let users = Arc::new(Users::private());
    users.change("creator", Users::may("a/*", Actions::CREATE));
    let rule = ImmutableRule {
        name: "final".into(),
        repositories: vec!["a/**".parse().unwrap()],
        tags: vec!["final-*".parse().unwrap()],
        except: Vec::new(),
        grace_ms: 0,
        delete: false,
    };
    users.share(Arc::new(SharedRules::new(vec![rule], Vec::new())));
    World::with(Setup::private(&users)).await
}

/// The record of a DELETE of a tag, after this decision of the authenticator.
async fn after(decision: fn() -> Result<Identity, AuthenticationError>) -> RequestRecord {
    let world = World::with(Setup {
        authenticator: Arc::new(Deciding(decision)),
        ..Setup::default()
    })
    .await;
    let mut request = Request::delete("/v2/a/b/manifests/t?secret=QUERY")
        .header("host", "registry.example")
        .body(RequestBody::empty())
        .unwrap();
    request.extensions_mut().insert(Client(IpAddr::from([192, 0, 2, 1])));
    let response = world.registry.handle(request).await;
    response.extensions().get::<RequestRecord>().cloned().unwrap()
}

fn alice(rules: Rules) -> Identity {
    let key = "3f9aK2dQ".parse().unwrap();
    let alice = Identity::new(Principal::user("alice").unwrap(), rules);
    alice.with_credential(key).unwrap()
}

#[tokio::test]
async fn each_denial_has_its_reason() {
    use DenialReason::{InsufficientScope, InvalidToken, KeyScope, Policy, TooManyAttempts};

    type Decides = fn() -> Result<Identity, AuthenticationError>;
    let decisions: [(Decides, _); 9] = [
        (|| Ok(alice(Rules::everything())), None),
        (
            || Err(AuthenticationError::Token(TokenError::Invalid)),
            Some(InvalidToken),
        ),
        (
            || Ok(alice(Rules::everything()).with_token_scope(Scope::PULL_ONLY)),
            Some(InsufficientScope),
        ),
        (
            || Ok(alice(Rules::everything()).with_token_scope(Scope::PULL_ONLY.of_key())),
            Some(KeyScope),
        ),
        (
            || Ok(alice(Rules::everything()).with_token_scope(Scope::PULL_ONLY.within_key(Scope::PULL_ONLY))),
            Some(KeyScope),
        ),
        (|| Ok(alice(Rules::pull_only())), Some(Policy)),
        (
            || Err(AuthenticationError::TooManyAttempts { retry_after: 1 }),
            Some(TooManyAttempts),
        ),
        (|| Err(AuthenticationError::TooManyRequests), None),
        (|| Err(AuthenticationError::Unavailable("planned".into())), None),
    ];
    for (number, (decision, expected)) in decisions.into_iter().enumerate() {
        let record = after(decision).await;
        assert_eq!(record.denial, expected, "{number}");
        let known = decision().ok();
        assert_eq!(record.principal.as_ref(), known.as_ref().map(Identity::principal));
        assert_eq!(record.credential, known.and_then(|identity| identity.credential()));
    }

    let world = world().await;
    let (first, second) = (numbered(1), numbered(2));
    for tag in ["latest", "final-1"] {
        let put = world.put(format!("/v2/a/b/manifests/{tag}")).user("alice");
        let put = put.header("content-type", MediaType::OCI_INDEX).bytes(first.clone());
        assert_eq!(put.send().await.expect(201).record.denial, None);
    }
    for (method, target, user, expected) in [
        (Method::GET, "/v2/", None, DenialReason::NoCredentials),
        (Method::GET, "/v2/_catalog", None, DenialReason::NoCredentials),
        (Method::GET, "/v2/a/b/tags/list", None, DenialReason::NoCredentials),
        (Method::GET, "/v2/", Some("stranger"), DenialReason::InvalidCredentials),
        (Method::DELETE, "/v2/a/b/manifests/latest", Some("reader"), Policy),
        (
            Method::DELETE,
            "/v2/a/b/manifests/final-1",
            Some("alice"),
            DenialReason::FrozenTag,
        ),
        (
            Method::PUT,
            "/v2/a/b/manifests/final-1",
            Some("alice"),
            DenialReason::FrozenTag,
        ),
        (
            Method::PUT,
            "/v2/a/b/manifests/latest",
            Some("creator"),
            DenialReason::CreateOnly,
        ),
    ] {
        let mut call = world.call(method.clone(), target);
        if let Some(user) = user {
            call = call.user(user);
        }
        if method == Method::PUT {
            call = call.header("content-type", MediaType::OCI_INDEX).bytes(second.clone());
        }
        let answer = call.send().await;
        assert_eq!(answer.record.denial, Some(expected), "{method} {target} {user:?}");
    }
    // What fails for another reason is not denied.
    let absent = world.get("/v2/a/b/manifests/absent").user("alice").send().await;
    assert_eq!(absent.expect(404).record.denial, None);
}

/// The log says who was refused what, and why: one line for a client that was identified, none for one that has to log in.
#[tokio::test]
async fn s18_the_log_of_denials_holds_no_secret_and_no_forged_line() {
    let (log, guard) = Log::capture();
    let mut ids = vec![
        after(|| Ok(alice(Rules::pull_only()))).await.id,
        after(|| Ok(alice(Rules::everything()).with_token_scope(Scope::PULL_ONLY)))
            .await
            .id,
    ];
    after(|| Err(AuthenticationError::Unauthenticated)).await;
    after(|| Err(AuthenticationError::Token(TokenError::Invalid))).await;
    after(|| Err(AuthenticationError::TooManyAttempts { retry_after: 1 })).await;
    let world = world().await;
    for number in 0..2 {
        let put = world.put("/v2/a/b/manifests/final-1?secret=QUERY").user("alice");
        let put = put.header("content-type", MediaType::OCI_INDEX);
        let id = put.bytes(numbered(number)).send().await.record.id;
        if number == 1 {
            ids.push(id);
        }
    }
    drop(guard);
    let ids: Vec<_> = ids.into_iter().flatten().collect();
    let [first, second, third] = &ids[..] else {
        panic!("{ids:?}");
    };
    let text = log.text();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("request.denied")).collect();
    let known = "INFO event=request.denied principal=alice";
    let from = "credential=3f9aK2dQ address=192.0.2.1 repository=a/b reference=t";
    assert_eq!(
        lines,
        [
            &*format!(
                "{known} {from} request={first} detail=policy: no rule of the policy allows you the action delete in a/b"
            ),
            &format!("{known} {from} request={second} detail=insufficient_scope"),
            &format!(
                "{known} repository=a/b reference=final-1 request={third} detail=frozen_tag: the tag final-1 is \
                 immutable: only a push of the digest that it names would be accepted"
            ),
        ]
    );
    for secret in [&*Users::password("alice"), "QUERY"] {
        assert!(!text.contains(secret), "{text}");
    }
}
