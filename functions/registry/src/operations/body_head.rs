//! What a request says about its body before the body arrives: its place in the upload, its length, and whether it has
//! any bytes.

use http::HeaderMap;
use http::header::CONTENT_RANGE;
use http_body::Body as _;
use oci::ContentRange;

use crate::body::RequestBody;
use crate::heads::declared_length;
use crate::store::blobs::BodyError;
use crate::store::sessions::Expected;

/// Whether a request says that it has no body. Others may turn out to have none.
pub(super) fn is_empty(headers: &HeaderMap, body: &RequestBody) -> bool {
    match declared_length(headers) {
        Some(length) => length == 0,
        None => body.is_end_stream(),
    }
}

/// Waits for the first bytes of a body whose head does not say that there are some. What comes back is the whole body;
/// `is_end_stream` tells whether it has no bytes.
pub(super) async fn peek(headers: &HeaderMap, mut body: RequestBody) -> Result<RequestBody, BodyError> {
    if body.is_end_stream() || declared_length(headers).is_some_and(|length| length > 0) {
        return Ok(body);
    }
    Ok(match body.next_chunk().await? {
        Some(first) => RequestBody::with_first(first, body),
        None => RequestBody::empty(),
    })
}

/// Whether a body is as empty as it says.
pub(super) async fn has_no_bytes(mut body: RequestBody) -> Result<bool, BodyError> {
    Ok(body.is_end_stream() || body.next_chunk().await?.is_none())
}

/// What the head of a chunk tells of its session: one that says that it begins further on comes after others.
pub(super) fn expected(headers: &HeaderMap) -> Expected {
    match content_range(headers) {
        Some(Ok(range)) if range.first > 0 => Expected::Existing,
        _ => Expected::New,
    }
}

fn content_range(headers: &HeaderMap) -> Option<Result<ContentRange, OutOfPlace>> {
    let value = headers.get(CONTENT_RANGE)?;
    let range = value.to_str().ok().and_then(|text| text.parse().ok());
    Some(range.ok_or(OutOfPlace))
}

/// A chunk that does not continue the upload, or is not as long as it says.
pub(super) struct OutOfPlace;

/// The length that a chunk declares, by `Content-Range` or `Content-Length`, if it fits behind `offset`.
pub(super) fn declared_chunk(headers: &HeaderMap, offset: u64) -> Result<Option<u64>, OutOfPlace> {
    let length = declared_length(headers);
    let Some(range) = content_range(headers) else {
        return Ok(length);
    };
    let range = range?;
    if range.first != offset || length.is_some_and(|length| length != range.len()) {
        return Err(OutOfPlace);
    }
    Ok(Some(range.len()))
}
