//! Small pieces of which answers are made.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LINK, LOCATION, RANGE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use oci::{Digest, RepositoryName};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::body::ResponseBody;

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What a digest names never changes; but a shared cache must not hand it to those who may not pull it.
pub(crate) const IMMUTABLE: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = status;
    response
}

/// 200 with a body of a known type.
pub(crate) fn json(content_type: &'static str, body: Bytes) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// 201: content is stored, and this is where it can be read and what it hashes to.
pub(crate) fn created(repository: &RepositoryName, kind: &str, digest: &Digest) -> Response<ResponseBody> {
    let mut response = empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    insert(headers, LOCATION, &format!("/v2/{repository}/{kind}/{digest}"));
    insert(headers, CONTENT_DIGEST, &digest.to_string());
    response
}

/// Digest and entity tag of content.
pub(crate) fn identify_content(headers: &mut HeaderMap, digest: &Digest) {
    // For all that such an answer has, so that it does not grow step by step.
    headers.reserve(8);
    let tag = Bytes::from(format!("\"{digest}\""));
    let text = tag.slice(1..tag.len() - 1);
    for (name, value) in [(ETAG, tag), (CONTENT_DIGEST, text)] {
        if let Ok(value) = HeaderValue::from_maybe_shared(value) {
            headers.insert(name, value);
        }
    }
}

/// Sets a header. What cannot stand in one is left out: every value here is made of names that were parsed, so that
/// this does not happen.
pub(crate) fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The relative Link to the page after `last` (RFC 8288), with the other parameters of the request.
pub(crate) fn link_next(headers: &mut HeaderMap, path: &str, limit: usize, last: &str, filter: Option<&str>) {
    let mut target = format!("<{path}?n={limit}&last={}", utf8_percent_encode(last, NON_ALPHANUMERIC));
    if let Some(filter) = filter {
        // Writing to a String cannot fail.
        let _ = write!(
            target,
            "&artifactType={}",
            utf8_percent_encode(filter, NON_ALPHANUMERIC)
        );
    }
    target.push_str(">; rel=\"next\"");
    insert(headers, LINK, &target);
}

/// Where an upload stands, told with every answer about it so that a client can go on from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UploadPosition {
    pub(crate) location: HeaderValue,
    pub(crate) range: HeaderValue,
    pub(crate) uuid: HeaderValue,
}

impl UploadPosition {
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        headers.insert(LOCATION, self.location);
        headers.insert(RANGE, self.range);
        headers.insert(UPLOAD_UUID, self.uuid);
    }
}

/// An answer with what every answer has.
pub(crate) fn complete(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let headers = response.headers_mut();
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    // Whatever somebody has pushed is shown as what it is said to be, and not as a page that runs here.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // What says nothing of caches would be kept by some of them, errors included, and a push must be seen at once.
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    complete_length(&mut response);
    response
}

/// Every answer says how long it is. 204 and 304 have no length (RFC 9110, 8.6).
fn complete_length(response: &mut Response<ResponseBody>) {
    use http_body::Body as _;
    let status = response.status();
    if status == http::StatusCode::NO_CONTENT || status == http::StatusCode::NOT_MODIFIED {
        return;
    }
    if !response.headers().contains_key(CONTENT_LENGTH) {
        let length = response.body().size_hint().exact().unwrap_or(0);
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
}
