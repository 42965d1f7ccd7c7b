//! What the head of a request says about its body: its position in the upload, its length, and whether it is empty.

use http::HeaderMap;
use http::header::CONTENT_RANGE;
use http_body::Body as _;
use oci::ContentRange;

use crate::body::RequestBody;
use crate::heads::declared_length;
use crate::store::blobs::BodyError;
use crate::store::sessions::Expected;

/// Whether the head says that the body is empty. Other bodies may still turn out to be empty.
pub(super) fn is_empty(headers: &HeaderMap, body: &RequestBody) -> bool {
    match declared_length(headers) {
        Some(length) => length == 0,
        None => body.is_end_stream(),
    }
}

/// Waits for the first bytes of a body, if the head does not say that it has some. Returns the complete body;
/// `is_end_stream` then tells whether it is empty.
pub(super) async fn peek(headers: &HeaderMap, mut body: RequestBody) -> Result<RequestBody, BodyError> {
    if body.is_end_stream() || declared_length(headers).is_some_and(|length| length > 0) {
        return Ok(body);
    }
    Ok(match body.next_chunk().await? {
        Some(first) => RequestBody::with_first(first, body),
        None => RequestBody::empty(),
    })
}

/// Whether a body that was declared empty is empty.
pub(super) async fn has_no_bytes(mut body: RequestBody) -> Result<bool, BodyError> {
    Ok(body.is_end_stream() || body.next_chunk().await?.is_none())
}

/// What the head of a chunk suggests about its session: a chunk with an offset above 0 comes after other chunks.
pub(super) fn expected(headers: &HeaderMap) -> Expected {
    match content_range(headers) {
        Some(Ok(range)) if range.first > 0 => Expected::Existing,
        _ => Expected::New,
    }
}

fn content_range(headers: &HeaderMap) -> Option<Result<ContentRange, OutOfOrder>> {
    let value = headers.get(CONTENT_RANGE)?;
    let range = value.to_str().ok().and_then(|text| text.parse().ok());
    Some(range.ok_or(OutOfOrder))
}

/// A chunk does not continue the upload, or does not have its declared length.
pub(super) struct OutOfOrder;

/// The length that a chunk declares in `Content-Range` or `Content-Length`, if it continues the upload at `offset`.
pub(super) fn declared_chunk(headers: &HeaderMap, offset: u64) -> Result<Option<u64>, OutOfOrder> {
    let length = declared_length(headers);
    let Some(range) = content_range(headers) else {
        return Ok(length);
    };
    let range = range?;
    if range.first != offset || length.is_some_and(|length| length != range.len()) {
        return Err(OutOfOrder);
    }
    Ok(Some(range.len()))
}
