//! Conditions and ranges of a read (RFC 9110, sections 13 and 14). They are evaluated here for every store.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use http::HeaderMap;
use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE};
use oci::{Digest, RangeHeader, parse_range};

use crate::error::Error;
use crate::store::blobs::{BlobStore, ByteStream};
use crate::store::{Context, Location, StoreError};

/// The requested part of the content. Ranges are half-open and within the content.
pub(super) enum Wanted {
    Whole,
    One(Range<u64>),
    Several(Vec<Range<u64>>),
}

/// Whether the client already has this content: `If-None-Match` lists it (13.1.2; weak comparison), on one header line
/// or several.
pub(super) fn not_modified(headers: &HeaderMap, digest: &Digest) -> bool {
    if !headers.contains_key(IF_NONE_MATCH) {
        return false;
    }
    let own = format!("\"{digest}\"");
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|tag| {
            let tag = tag.trim();
            tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == own
        })
}

/// Fails if the client wants only other content (`If-Match`, 13.1.1; strong comparison). Conditions on dates are
/// ignored, because content under a digest has no date (13.1.3, 13.1.4).
pub(super) fn check_match(headers: &HeaderMap, digest: &Digest) -> Result<(), Error> {
    if !headers.contains_key(IF_MATCH) {
        return Ok(());
    }
    let own = format!("\"{digest}\"");
    let lines = headers.get_all(IF_MATCH).iter();
    let mut tags = lines
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim);
    if tags.any(|tag| tag == "*" || tag == own) {
        Ok(())
    } else {
        Err(Error::PreconditionFailed)
    }
}

/// Whether a request has conditions that an object store would evaluate with dates and entity tags of its own.
pub(super) fn has_conditions(headers: &HeaderMap) -> bool {
    let conditions = [IF_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE];
    conditions.iter().any(|condition| headers.contains_key(condition))
}

/// Reads `Range` and `If-Range`. An invalid range is ignored (14.2); a range outside of the content is an error
/// (15.5.17). If the ranges together are larger than the content, as overlapping ones can be, the client gets the whole
/// content. Every range of empty content gets the whole content too: some clients send `Range` with each request, and
/// distribution v3 ignores it there, too.
pub(super) fn wanted(headers: &HeaderMap, digest: &Digest, size: u64, max: usize) -> Result<Wanted, Error> {
    let mut values = headers.get_all(RANGE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Ok(Wanted::Whole);
    };
    if size == 0 {
        return Ok(Wanted::Whole);
    }
    // 13.1.5: an entity tag must match strongly. A date never matches, because content under a digest has no date.
    if let Some(condition) = headers.get(IF_RANGE)
        && condition.as_bytes() != format!("\"{digest}\"").as_bytes()
    {
        return Ok(Wanted::Whole);
    }
    let specs = match value.to_str().map(|value| parse_range(value, max)) {
        Err(_) | Ok(RangeHeader::Ignored) => return Ok(Wanted::Whole),
        Ok(RangeHeader::TooMany) => return Err(Error::RangeNotSatisfiable { size }),
        Ok(RangeHeader::Specs(specs)) => specs,
    };
    let mut ranges: Vec<_> = specs.into_iter().filter_map(|spec| spec.resolve(size)).collect();
    let total = ranges
        .iter()
        .fold(0, |sum: u64, range| sum.saturating_add(range.end - range.start));
    match ranges.len() {
        0 => Err(Error::RangeNotSatisfiable { size }),
        1 => Ok(Wanted::One(ranges.remove(0))),
        _ if total > size => Ok(Wanted::Whole),
        _ => Ok(Wanted::Several(ranges)),
    }
}

/// Whether a request has more than one range, valid or not.
pub(super) fn are_several(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(RANGE).iter();
    let first = values.next().and_then(|value| value.to_str().ok());
    values.next().is_some() || first.is_some_and(|value| parse_range(value, 1) == RangeHeader::TooMany)
}

pub(super) fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end - 1)
}

pub(super) fn object_missing(location: &Location) -> StoreError {
    StoreError::damaged(format!(
        "the object {} of store {} is missing",
        location.key, location.store
    ))
}

/// A `multipart/byteranges` body (14.6). Each part is read while it is sent.
pub(super) struct Multipart {
    parts: Vec<(Bytes, Range<u64>)>,
    end: Bytes,
    boundary: String,
}

impl Multipart {
    pub(super) fn new(ranges: Vec<Range<u64>>, size: u64, content_type: &str, boundary: &str) -> Self {
        let parts = ranges
            .into_iter()
            .map(|range| {
                let mut head = String::new();
                // Writing to a String cannot fail.
                let _ = write!(
                    head,
                    "\r\n--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: {}\r\n\r\n",
                    content_range(&range, size)
                );
                (Bytes::from(head), range)
            })
            .collect();
        Self {
            parts,
            end: Bytes::from(format!("\r\n--{boundary}--\r\n")),
            boundary: boundary.to_owned(),
        }
    }

    pub(super) fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    pub(super) fn length(&self) -> u64 {
        let parts = self
            .parts
            .iter()
            .map(|(head, range)| head.len() as u64 + (range.end - range.start));
        parts.sum::<u64>() + self.end.len() as u64
    }

    /// `first` is the first range, which is open already. `cx` makes the context of each read of another range: such
    /// reads begin when the client has received the parts before, which may be much later.
    pub(super) fn stream(
        self,
        cx: impl Fn() -> Context + Clone + Send + 'static,
        blobs: Arc<dyn BlobStore>,
        location: Location,
        first: ByteStream,
    ) -> ByteStream {
        let open = std::iter::once(Some(first)).chain(std::iter::repeat_with(|| None));
        let parts: Vec<_> = self.parts.into_iter().zip(open).collect();
        let parts = stream::iter(parts).then(move |((head, range), open)| {
            let (cx, blobs, location) = (cx.clone(), blobs.clone(), location.clone());
            async move {
                let body = match open {
                    Some(body) => body,
                    None => match blobs.read(cx(), &location, range).await {
                        Ok(Some(body)) => body,
                        Ok(None) => stream::once(async move { Err(object_missing(&location)) }).boxed(),
                        Err(error) => stream::once(async { Err(error) }).boxed(),
                    },
                };
                stream::once(async { Ok(head) }).chain(body)
            }
        });
        parts.flatten().chain(stream::once(async { Ok(self.end) })).boxed()
    }
}
