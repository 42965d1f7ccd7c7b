//! Small pieces of which answers are made.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, LINK, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use oci::{Digest, RepositoryName};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::body::ResponseBody;
use crate::query::PageRequest;

pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

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
pub(crate) fn link_next(headers: &mut HeaderMap, path: &str, page: &PageRequest, last: &str, filter: Option<&str>) {
    let mut target = format!(
        "<{path}?n={}&last={}",
        page.limit,
        utf8_percent_encode(last, NON_ALPHANUMERIC)
    );
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
