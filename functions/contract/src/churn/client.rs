//! Requests to one of several instances, and their answers.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::{Body, Frame};
use registry::body::{RequestBody, ResponseBody};
use registry::registry::Registry;
use registry::store::blobs::BodyError;

use super::REQUEST;
use super::clock::Clock;

/// Sends requests to the instances in turn, without credentials or as a user.
#[derive(Clone)]
pub(super) struct RoundRobinClient {
    instances: Vec<Arc<Registry>>,
    clock: Arc<Clock>,
    turn: Arc<AtomicUsize>,
    authorization: Option<HeaderValue>,
}

/// A request.
pub(super) struct TestRequest {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) content_type: Option<&'static str>,
    pub(super) body: Bytes,
}

impl TestRequest {
    pub(super) fn new(method: Method, target: impl Into<String>) -> Self {
        Self {
            method,
            target: target.into(),
            content_type: None,
            body: Bytes::new(),
        }
    }

    pub(super) fn body(self, body: Bytes) -> Self {
        Self { body, ..self }
    }

    pub(super) fn content_type(self, content_type: &'static str) -> Self {
        Self {
            content_type: Some(content_type),
            ..self
        }
    }
}

/// A complete answer.
#[derive(Debug)]
pub(super) struct Answer {
    what: String,
    pub(super) status: u16,
    headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn location(&self) -> &str {
        self.header(LOCATION.as_str()).expect("a location")
    }

    /// Whether its body contains this text.
    pub(super) fn says(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.body).contains(text)
    }

    /// The answer, which must have one of these statuses.
    pub(super) fn expect(self, statuses: &[u16]) -> Self {
        assert!(
            statuses.contains(&self.status),
            "{}: {} instead of one of {statuses:?}: {:?}",
            self.what,
            self.status,
            self.body
        );
        self
    }
}

impl RoundRobinClient {
    pub(super) fn new(instances: Vec<Arc<Registry>>, clock: Arc<Clock>) -> Self {
        Self {
            instances,
            clock,
            turn: Arc::default(),
            authorization: None,
        }
    }

    /// The same client, which sends the credentials of a user.
    pub(super) fn signed_in(&self, user: &str) -> Self {
        let line = format!("Bearer {user}");
        Self {
            authorization: Some(HeaderValue::try_from(line).expect("a header's value")),
            ..self.clone()
        }
    }

    pub(super) async fn send(&self, call: TestRequest) -> Answer {
        let _flight = self.clock.window(REQUEST);
        let turn = self.turn.fetch_add(1, Ordering::SeqCst);
        let what = format!("{} {}", call.method, call.target);
        let length = call.body.len();
        let mut request = Request::new(RequestBody::stream(Chunks::of(&call.body)));
        *request.method_mut() = call.method;
        *request.uri_mut() = call.target.parse().expect("a request target");
        request
            .headers_mut()
            .insert(HOST, HeaderValue::from_static("localhost"));
        request.headers_mut().insert(CONTENT_LENGTH, length.into());
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        if let Some(content_type) = call.content_type {
            request
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        let instance = &self.instances[turn % self.instances.len()];
        read(what, instance.handle(request).await).await
    }
}

async fn read(what: String, response: Response<ResponseBody>) -> Answer {
    let (head, body) = response.into_parts();
    let mut body = pin!(body);
    let mut bytes = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|task| body.as_mut().poll_frame(task)).await {
        match frame.map(Frame::into_data) {
            Ok(Ok(chunk)) => bytes.extend_from_slice(&chunk),
            other => panic!("{what}: the body was interrupted: {other:?}"),
        }
    }
    Answer {
        what,
        status: head.status.as_u16(),
        headers: head.headers,
        body: bytes.freeze(),
    }
}

/// A body in a few chunks, with a wait before each.
struct Chunks {
    chunks: VecDeque<Bytes>,
    waited: bool,
}

impl Chunks {
    fn of(bytes: &Bytes) -> Self {
        let size = bytes.len().div_ceil(3).max(1);
        let starts = (0..bytes.len()).step_by(size);
        Self {
            chunks: starts.map(|at| bytes.slice(at..bytes.len().min(at + size))).collect(),
            waited: false,
        }
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.waited = !self.waited;
        if self.waited {
            task.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.chunks.pop_front().map(|chunk| Ok(Frame::data(chunk))))
    }
}
