//! Requests to a [`World`], and their responses. Every response is checked against the rules for all responses,
//! whatever the request ([`Answer::check_form`]).

use std::pin::pin;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body::Body as _;
use registry::{Deadline, Endpoint, RequestRecord, ResponseBody};
use serde_json::Value;

use super::script::Script;
use super::users::Users;
use super::{World, users};

/// The codes of the specification ("Error Codes").
const CODES: [&str; 16] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
    // Not in the specification; as in distribution.
    "UNAVAILABLE",
    "UNKNOWN",
];

/// A request that is being built.
pub(crate) struct TestRequest {
    world: World,
    method: Method,
    target: String,
    headers: HeaderMap,
    deadline: Option<Deadline>,
    body: Script,
}

impl World {
    pub(crate) fn call(&self, method: Method, target: impl Into<String>) -> TestRequest {
        TestRequest {
            world: self.clone(),
            method,
            target: target.into(),
            headers: HeaderMap::new(),
            deadline: None,
            body: Script::new(),
        }
    }

    pub(crate) fn get(&self, target: impl Into<String>) -> TestRequest {
        self.call(Method::GET, target)
    }

    pub(crate) fn head(&self, target: impl Into<String>) -> TestRequest {
        self.call(Method::HEAD, target)
    }

    pub(crate) fn post(&self, target: impl Into<String>) -> TestRequest {
        self.call(Method::POST, target)
    }

    pub(crate) fn put(&self, target: impl Into<String>) -> TestRequest {
        self.call(Method::PUT, target)
    }

    pub(crate) fn patch(&self, target: impl Into<String>) -> TestRequest {
        self.call(Method::PATCH, target)
    }

    pub(crate) fn delete(&self, target: impl Into<String>) -> TestRequest {
        self.call(Method::DELETE, target)
    }
}

impl TestRequest {
    /// Adds a header. The same name again adds another line.
    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let name: HeaderName = name.parse().expect("a header's name");
        let value = HeaderValue::from_bytes(value.as_ref()).expect("a header's value");
        self.headers.append(name, value);
        self
    }

    /// Sets the deadline of the request.
    pub(crate) fn deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Adds the correct password of a user.
    pub(crate) fn user(self, name: &str) -> Self {
        let encoded = STANDARD.encode(format!("{name}:{}", Users::password(name)));
        self.header("authorization", format!("Basic {encoded}"))
    }

    /// A body with a declared length.
    pub(crate) fn bytes(self, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        self.header("content-length", bytes.len().to_string())
            .stream(Script::of(bytes))
    }

    /// A body without a declared length, as in chunked transfer.
    pub(crate) fn stream(mut self, body: Script) -> Self {
        self.body = body;
        self
    }

    pub(crate) async fn send(self) -> Answer {
        let uri: Uri = self.target.parse().expect("a request target");
        self.send_to(uri).await
    }

    pub(crate) async fn send_to(self, uri: Uri) -> Answer {
        let method = self.method.clone();
        let answer = self.exchange(uri).await;
        answer.check_form(&method);
        answer
    }

    /// Sends it, and does not check the form of the answer: for those that have another one.
    pub(crate) async fn send_unchecked(self) -> Answer {
        let uri: Uri = self.target.parse().expect("a request target");
        self.exchange(uri).await
    }

    async fn exchange(self, uri: Uri) -> Answer {
        let mut request = Request::new(registry::RequestBody::stream(self.body));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        if let Some(deadline) = self.deadline {
            request.extensions_mut().insert(deadline);
        }
        // As a shell does with large heads: a header that is read and not listed is missing in the test that sends it.
        *request.headers_mut() = self.headers;
        let is_read = |name: &HeaderName| registry::heads::READ.contains(name);
        let unread: Vec<_> = request
            .headers()
            .keys()
            .filter(|name| !is_read(name))
            .cloned()
            .collect();
        for name in unread {
            request.headers_mut().remove(name);
        }
        let host = request
            .uri()
            .authority()
            .map_or("registry.example", |host| host.as_str());
        let host = HeaderValue::from_str(host).expect("an authority can stand in a header");
        request.headers_mut().entry(HOST).or_insert(host);
        let response = self.world.registry.handle(request).await;
        Answer::read(format!("{} {}", self.method, self.target), response).await
    }
}

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) request: String,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) record: RequestRecord,
    /// The body did not arrive completely.
    pub(crate) broken: bool,
}

impl Answer {
    pub(crate) async fn read(request: String, response: Response<ResponseBody>) -> Self {
        let (head, body) = response.into_parts();
        let mut body = pin!(body);
        let announced = body.size_hint().exact().expect("the length of every body is known");
        let (mut bytes, mut broken) = (BytesMut::new(), false);
        while let Some(frame) = std::future::poll_fn(|task| body.as_mut().poll_frame(task)).await {
            let Ok(frame) = frame else {
                broken = true;
                break;
            };
            bytes.extend_from_slice(&frame.into_data().expect("no trailers"));
        }
        if !broken {
            assert_eq!(
                bytes.len() as u64,
                announced,
                "{request}: the body is as long as it said"
            );
            assert!(body.is_end_stream(), "{request}: the body knows that it has ended");
        }
        Self {
            request,
            status: head.status.as_u16(),
            headers: head.headers,
            body: bytes.freeze(),
            record: head
                .extensions
                .get::<RequestRecord>()
                .cloned()
                .expect("every answer has a record"),
            broken,
        }
    }

    /// The rules for all responses.
    fn check_form(&self, method: &Method) {
        let what = &self.request;
        assert_eq!(
            self.get("docker-distribution-api-version"),
            Some("registry/2.0"),
            "{what}"
        );
        assert_eq!(self.get("x-content-type-options"), Some("nosniff"), "{what}");
        assert!(self.get("cache-control").is_some(), "{what}: says what a cache may do");
        assert!(
            matches!(self.status, 200 | 201 | 202 | 204 | 206 | 304 | 307 | 400..=599),
            "{what}: {}",
            self.status
        );
        let length = self
            .get(CONTENT_LENGTH.as_str())
            .map(|text| text.parse::<usize>().expect("a length"));
        match (self.status, method) {
            (204 | 304, _) => {
                assert_eq!(length, None, "{what}: no length (RFC 9110, 8.6)");
                assert!(self.body.is_empty(), "{what}");
            }
            (_, &Method::HEAD) => {
                assert!(length.is_some(), "{what}: tells the length of what a GET would answer");
                assert!(self.body.is_empty(), "{what}: a HEAD has no body");
            }
            _ if self.broken => assert!(length.is_some_and(|length| length > self.body.len()), "{what}"),
            _ => assert_eq!(length, Some(self.body.len()), "{what}"),
        }
        if let Some(location) = self.get("location")
            && self.status != 307
        {
            assert!(
                location.starts_with("/v2/"),
                "{what}: Location is path-absolute: {location}"
            );
        }
        let id = self.get("x-request-id");
        assert_eq!(
            id.map(str::len),
            (self.status >= 500 || !method.is_safe()).then_some(16),
            "{what}: the id that the log and the audit trail have"
        );
        assert_eq!(
            id,
            self.record.id.map(|id| id.to_string()).as_deref(),
            "{what}: the id for the access log"
        );
        if self.status >= 400 {
            self.check_error(method);
        }
    }

    fn check_error(&self, method: &Method) {
        let what = &self.request;
        assert_eq!(self.get("content-type"), Some("application/json"), "{what}");
        match self.status {
            401 => assert_eq!(self.get("www-authenticate"), Some(users::CHALLENGE), "{what}"),
            405 => assert!(self.get("allow").is_some(), "{what}: a 405 says what is allowed"),
            503 => assert!(
                self.get("retry-after").is_some_and(|text| text.parse::<u32>().is_ok()),
                "{what}"
            ),
            416 => assert!(
                self.get(CONTENT_RANGE.as_str()).is_some() || self.get("range").is_some(),
                "{what}: a 416 tells where things stand"
            ),
            _ => {}
        }
        if method == Method::HEAD {
            return;
        }
        let body = self.json();
        let keys: Vec<_> = body.as_object().expect("an object").keys().collect();
        // Requests for tokens get the error of RFC 6749 as well.
        let is_for_token = self.record.endpoint == Some(Endpoint::IssueToken) && self.status < 500;
        assert!(
            keys == ["errors"] || (is_for_token && keys == ["error", "errors"]),
            "{what}: {keys:?}"
        );
        let errors = body["errors"].as_array().expect("a list of errors");
        assert!(!errors.is_empty(), "{what}");
        for error in errors {
            let error = error.as_object().expect("an object");
            let code = error["code"].as_str().expect("a code");
            assert!(CODES.contains(&code), "{what}: {code} is not in the specification");
            assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{what}");
            assert!(
                error
                    .keys()
                    .all(|key| matches!(key.as_str(), "code" | "message" | "detail")),
                "{what}: {error:?}"
            );
            if self.status >= 500 {
                let id = error["detail"]["id"].as_str().expect("an id of the log");
                assert_eq!(Some(id), self.get("x-request-id"), "{what}");
            }
        }
    }

    /// The header, if the response has it.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("printable"))
    }

    /// The header, which the response must have.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let Some(value) = self.get(name) else {
            panic!("{}: {} has no {name}", self.request, self.status);
        };
        value
    }

    /// All lines of a header.
    pub(crate) fn lines(&self, name: &str) -> Vec<&str> {
        let lines = self.headers.get_all(name).iter();
        lines.map(|value| value.to_str().expect("printable")).collect()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{}: {error}: {:?}", self.request, self.body))
    }

    /// The code of the first error.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().expect("a code").to_owned()
    }

    /// Checks the status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(600)]).into_owned();
        assert_eq!(self.status, status, "{}: {text}", self.request);
        self
    }

    /// Checks that the response is this error.
    #[track_caller]
    pub(crate) fn expect_error(self, status: u16, code: &str) -> Self {
        let answer = self.expect(status);
        assert_eq!(answer.code(), code, "{}", answer.request);
        answer
    }

    /// The target of `Location`.
    #[track_caller]
    pub(crate) fn location(&self) -> String {
        self.header("location").to_owned()
    }

    /// The target of the Link to the next page (RFC 8288).
    pub(crate) fn next(&self) -> Option<String> {
        let link = self.get("link")?;
        let target = link
            .strip_prefix('<')
            .and_then(|rest| rest.strip_suffix(">; rel=\"next\""));
        let target = target.unwrap_or_else(|| panic!("{}: not a link to a next page: {link}", self.request));
        assert!(
            target.starts_with("/v2/"),
            "{}: the link is relative: {link}",
            self.request
        );
        Some(target.to_owned())
    }
}
