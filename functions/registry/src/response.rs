//! Helpers that build responses.

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

/// Content under a digest never changes. `private`: a shared cache must not serve it to clients that may not pull it.
pub(crate) const IMMUTABLE: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

/// A response without a body.
pub(crate) fn empty(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = status;
    response
}

/// 200, with a body of a known type.
pub(crate) fn json(content_type: &'static str, body: Bytes) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// 201, with the path and the digest of the stored content.
pub(crate) fn created(repository: &RepositoryName, kind: &str, digest: &Digest) -> Response<ResponseBody> {
    let mut response = empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    insert(headers, LOCATION, &format!("/v2/{repository}/{kind}/{digest}"));
    insert(headers, CONTENT_DIGEST, &digest.to_string());
    response
}

/// Sets the digest and the entity tag of content.
pub(crate) fn identify_content(headers: &mut HeaderMap, digest: &Digest) {
    // Enough for all headers of such a response, so that the map does not grow step by step.
    headers.reserve(8);
    let tag = Bytes::from(format!("\"{digest}\""));
    let text = tag.slice(1..tag.len() - 1);
    for (name, value) in [(ETAG, tag), (CONTENT_DIGEST, text)] {
        if let Ok(value) = HeaderValue::from_maybe_shared(value) {
            headers.insert(name, value);
        }
    }
}

/// Sets a header. A value that is not a valid header value is left out. This does not happen, since every value here is
/// made of parsed names.
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

/// The state of an upload. Every response about an upload contains it, so that a client can continue from there.
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

/// Adds the headers that every response has.
pub(crate) fn complete(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let headers = response.headers_mut();
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    // A browser must show pushed content with its declared type, and must not run it as a page.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Some caches keep responses that do not mention caching, errors included. A push must be visible at once.
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    complete_length(&mut response);
    response
}

/// Every response has a length, except 204 and 304 (RFC 9110, 8.6).
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
