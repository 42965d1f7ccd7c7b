//! Accounts that change while a body arrives.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use oci::{Algorithm, Digest};
use registry::RequestBody;
use registry::store::blobs::BodyError;
use serde_json::json;

use super::by_token::{tokens, world};

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

/// Users and robots with tokens, in the last request of an upload and in an upload of one request.
#[tokio::test]
async fn s17_an_account_that_is_disabled_while_its_body_arrives_publishes_nothing() {
    let bytes = Bytes::from_static(b"layer");
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    for (millis, status) in [(9_999, 201), (10_000, 401)] {
        for (number, is_session) in [(0, true), (0, false), (1, true), (1, false)] {
            let world = world().await;
            let token = &tokens(&world).await[number];
            let uploads = "/v2/team/app/blobs/uploads/";
            let open = world.request("POST", uploads).bearer(token).send().await.expect(202);
            let location = open.header("location").unwrap();
            let (method, target) = if is_session {
                ("PUT", location)
            } else {
                ("POST", uploads)
            };
            let arrival = Arc::new(Arrival::default());
            let body = SlowBody {
                halves: [bytes.slice(..2), bytes.slice(2..)].into(),
                arrival: arrival.clone(),
            };
            let push = world
                .request(method, &format!("{target}?digest={digest}"))
                .bearer(token);
            let push = push.send_body(RequestBody::stream(body));
            let disable = async {
                while !arrival.half.load(Ordering::SeqCst) {
                    tokio::task::yield_now().await;
                }
                world.clock.pass(millis);
                for name in ["alice", "ci"] {
                    let call = world.call("PATCH", &format!("accounts/{name}")).user("root");
                    let call = call.header("if-match", "*").json(&json!({ "disabled": true }));
                    call.send().await.expect(200);
                }
                arrival.whole.store(true, Ordering::SeqCst);
            };
            let (reply, ()) = futures_util::future::join(push, disable).await;
            assert_eq!(reply.status, status, "{millis} {number} {is_session}: {reply:?}");
            let pull = world
                .request("GET", &format!("/v2/team/app/blobs/{digest}"))
                .user("root");
            pull.send().await.expect(if status == 201 { 200 } else { 404 });
            if is_session && status == 401 {
                world.request("DELETE", location).send().await.expect(204);
            }
        }
    }
}
