//! Accounts that change while a body arrives.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use oci::{Algorithm, Digest, MediaType};
use registry::RequestBody;
use registry::auth::{Actions, RepositoryGrant};
use registry::store::blobs::BodyError;
use serde_json::json;

use super::by_token::{tokens, world};
use super::support::{Call, POLICY, Reply, World, name};
use crate::administration::Author;
use crate::administration::keys::KeyEdit;

/// How much of a body has arrived.
#[derive(Default)]
struct Arrival {
    half: AtomicBool,
    /// The test sets it.
    whole: AtomicBool,
}

/// A body whose second half arrives when the test wants it.
struct SlowBody {
    halves: VecDeque<Bytes>,
    arrival: Arc<Arrival>,
}

impl Body for SlowBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.halves.len() == 1 {
            self.arrival.half.store(true, Ordering::SeqCst);
            if !self.arrival.whole.load(Ordering::SeqCst) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        Poll::Ready(self.halves.pop_front().map(|half| Ok(Frame::data(half))))
    }
}

/// Sends a request with this body. `meanwhile` runs after the first half of the body was read, and before the rest arrives.
async fn send_slowly(call: Call<'_>, body: Bytes, meanwhile: impl Future<Output = ()>) -> Reply {
    let arrival = Arc::new(Arrival::default());
    let half = body.len() / 2;
    let slow = SlowBody {
        halves: [body.slice(..half), body.slice(half..)].into(),
        arrival: arrival.clone(),
    };
    let rest = async {
        while !arrival.half.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        meanwhile.await;
        arrival.whole.store(true, Ordering::SeqCst);
    };
    let sent = call.send_body(RequestBody::stream(slow));
    Box::pin(futures_util::future::join(sent, rest)).await.0
}

/// Disables an account, as the user `root`.
async fn disable(world: &World, name: &str) {
    let call = world.call("PATCH", &format!("accounts/{name}")).user("root");
    let call = call.header("if-match", "*").json(&json!({ "disabled": true }));
    call.send().await.expect(200);
}

/// How old the state is when a request begins, how long its body takes, and whether the request is performed. The two times
/// count together.
const AGES: [(u64, u64, bool); 4] = [
    (0, 9_999, true),
    (0, 10_000, false),
    (6_000, 3_999, true),
    (6_000, 4_000, false),
];

/// Users and robots with tokens, in the last request of an upload and in an upload of one request.
#[tokio::test]
async fn s17_an_account_that_is_disabled_while_its_body_arrives_publishes_nothing() {
    let bytes = Bytes::from_static(b"layer");
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    for (age, millis, publishes) in AGES {
        let status = if publishes { 201 } else { 401 };
        for (number, is_session) in [(0, true), (0, false), (1, true), (1, false)] {
            let world = world().await;
            let token = &tokens(&world).await[number];
            world.clock.pass(age);
            let uploads = "/v2/team/app/blobs/uploads/";
            let open = world.request("POST", uploads).bearer(token).send().await.expect(202);
            let location = open.header("location").unwrap();
            let (method, target) = if is_session {
                ("PUT", location)
            } else {
                ("POST", uploads)
            };
            let push = world
                .request(method, &format!("{target}?digest={digest}"))
                .bearer(token);
            let reply = send_slowly(push, bytes.clone(), async {
                world.clock.pass(millis);
                disable(&world, "alice").await;
                disable(&world, "ci").await;
            });
            let reply = reply.await;
            assert_eq!(reply.status, status, "{age} {millis} {number} {is_session}: {reply:?}");
            let pull = world
                .request("GET", &format!("/v2/team/app/blobs/{digest}"))
                .user("root");
            pull.send().await.expect(if publishes { 200 } else { 404 });
            if is_session && !publishes {
                world.request("DELETE", location).send().await.expect(204);
            }
        }
    }
}

/// A key that may only create tags from now on moves none, although its scope was wider when the request began.
#[tokio::test]
async fn s17_a_key_that_is_narrowed_while_a_manifest_arrives_moves_no_tag() {
    let scope = |actions| {
        let repositories = "team/**".parse().unwrap();
        Some(vec![RepositoryGrant { repositories, actions }])
    };
    for (millis, status, named) in [(9_999, 201, 2), (10_000, 403, 1)] {
        for by_token in [false, true] {
            let world = world().await;
            world.put("team/app", &["t"], 1).await;
            let (id, key) = world.issue("alice", scope(Actions::PUSH)).await;
            let secret = if by_token {
                let call = world.request("GET", "/token?scope=repository:team/app:push");
                let reply = call.basic("alice", &key).send().await.expect(200);
                reply.json()["token"].as_str().unwrap().to_owned()
            } else {
                key
            };
            let push = world.request("PUT", "/v2/team/app/manifests/t").bearer(&secret);
            let push = push.header("content-type", MediaType::OCI_INDEX);
            let reply = send_slowly(push, World::manifest(2).into(), async {
                world.clock.pass(millis);
                let edit = KeyEdit {
                    scope: scope(Actions::CREATE),
                    ..KeyEdit::default()
                };
                let (author, alice) = (Author::operator(), name("alice"));
                let changed = world
                    .administration
                    .change_key(&author, (&alice).into(), id.parse().unwrap(), &edit);
                changed.await.unwrap();
            });
            let reply = reply.await;
            assert_eq!(reply.status, status, "{millis} {by_token}: {reply:?}");
            let tag = world.named("team/app", "t").await;
            assert_eq!(tag, Some(World::digest(named)), "{millis} {by_token}");
        }
    }
}

/// An administrator who is disabled while the body of a change arrives changes nothing.
#[tokio::test]
async fn s17_a_right_in_the_api_is_lost_while_a_body_arrives() {
    for (age, millis, changes) in AGES {
        for by_token in [false, true] {
            let world = World::new().await;
            let promote = world.call("PATCH", "accounts/bob").user("root").header("if-match", "*");
            let promote = promote.json(&json!({ "groups": ["admins"] }));
            promote.send().await.expect(200);
            let before = world.administration.state().await.unwrap().policy;
            let call = world.call("PUT", "policy").header("if-match", "*");
            let call = call.header("content-type", "application/json");
            let call = if by_token {
                call.bearer(&world.token_of("bob", "registry:api:*").await)
            } else {
                call.user("bob")
            };
            world.clock.pass(age);
            let reply = send_slowly(call, Bytes::from_static(POLICY.as_bytes()), async {
                world.clock.pass(millis);
                disable(&world, "bob").await;
            });
            let reply = reply.await;
            let status = if changes { 200 } else { 401 };
            assert_eq!(reply.status, status, "{age} {millis} {by_token}: {reply:?}");
            let after = world.administration.state().await.unwrap().policy;
            assert_eq!(after != before, changes, "{age} {millis} {by_token}");
        }
    }
}
