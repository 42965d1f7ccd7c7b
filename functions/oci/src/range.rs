//! Byte ranges: `Range` of a download (RFC 9110, section 14) and `Content-Range` of an upload chunk (distribution
//! specification, *Pushing a blob in chunks*).

use std::ops::Range;
use std::str::FromStr;

use thiserror::Error;

/// One element of a `Range` header. A number beyond `u64` is read as `u64::MAX`, which no size reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSpec {
    /// `first-last`, both included. `last` may be smaller than `first`; such a range selects no bytes.
    FromTo(u64, u64),
    /// `first-`: from `first` to the end.
    From(u64),
    /// `-length`: the last `length` bytes.
    Suffix(u64),
}

impl RangeSpec {
    /// The bytes that the range selects of a representation of `size` bytes, as a non-empty half-open range inside
    /// `0..size`.
    ///
    /// Returns `None` if it selects no bytes: it starts at or after the end, its last byte is before its first, or it
    /// is a suffix of length 0. No range can be satisfied for an empty representation, because `Content-Range` cannot
    /// express an empty range.
    #[must_use]
    pub fn resolve(self, size: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::FromTo(first, last) => first..last.saturating_add(1).min(size),
            Self::From(first) => first..size,
            Self::Suffix(length) => size.saturating_sub(length)..size,
        };
        (!range.is_empty()).then_some(range)
    }
}

/// What a `Range` header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeHeader {
    /// An unknown unit or a malformed value. The caller must treat the header as absent (RFC 9110, section 14.2).
    Ignored,
    /// More ranges than the caller allows.
    TooMany,
    /// The ranges in the requested order: at least one, at most as many as the caller allows.
    Specs(Vec<RangeSpec>),
}

/// Parses the value of a `Range` header, allowing up to `max_ranges` ranges.
///
/// Parsing stops at the first range beyond that limit; the rest of the header is not checked.
#[must_use]
pub fn parse_range(header: &str, max_ranges: usize) -> RangeHeader {
    let Some((unit, set)) = trim(header).split_once('=') else {
        return RangeHeader::Ignored;
    };
    if !unit.eq_ignore_ascii_case("bytes") {
        return RangeHeader::Ignored;
    }
    let mut specs = Vec::new();
    // Empty elements are legal in every list of RFC 9110 (section 5.6.1).
    for element in set.split(',').map(trim).filter(|text| !text.is_empty()) {
        let Some(spec) = parse_spec(element) else {
            return RangeHeader::Ignored;
        };
        if specs.len() == max_ranges {
            return RangeHeader::TooMany;
        }
        specs.push(spec);
    }
    if specs.is_empty() {
        return RangeHeader::Ignored;
    }
    RangeHeader::Specs(specs)
}

fn parse_spec(text: &str) -> Option<RangeSpec> {
    match text.split_once('-')? {
        ("", length) => Some(RangeSpec::Suffix(saturating(length)?)),
        (first, "") => Some(RangeSpec::From(saturating(first)?)),
        (first, last) => Some(RangeSpec::FromTo(saturating(first)?, saturating(last)?)),
    }
}

/// `1*DIGIT`, clamped to `u64::MAX`.
fn saturating(text: &str) -> Option<u64> {
    is_digits(text).then(|| text.parse().unwrap_or(u64::MAX))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Strips `OWS` (RFC 9110, section 5.6.3), which contains fewer characters than Unicode's white space.
fn trim(text: &str) -> &str {
    text.trim_matches(|character| matches!(character, ' ' | '\t'))
}

/// The position of an upload chunk in its blob. Both ends are included, so a chunk is never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The position of the chunk's first byte.
    pub first: u64,
    /// The position of the chunk's last byte; not smaller than `first`.
    pub last: u64,
}

impl ContentRange {
    /// The number of bytes in the chunk.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a range with both ends included is never empty"
    )]
    pub const fn len(self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }
}

/// The text is not a [`ContentRange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("malformed Content-Range: expected <first>-<last>, the last byte not before the first")]
pub struct ContentRangeError;

impl FromStr for ContentRange {
    type Err = ContentRangeError;

    /// Parses `<first>-<last>` as in the distribution specification, or `bytes <first>-<last>/<total or *>` as in RFC
    /// 9110, section 14.4. Positions fit an `i64`, as sizes do. A total must be greater than the position of the last
    /// byte.
    fn from_str(text: &str) -> Result<Self, ContentRangeError> {
        let text = trim(text);
        let (positions, total) = match text.split_once(' ') {
            Some((unit, rest)) if unit.eq_ignore_ascii_case("bytes") => {
                let (positions, total) = rest.split_once('/').ok_or(ContentRangeError)?;
                (positions, Some(total))
            }
            Some(_) => return Err(ContentRangeError),
            None => (text, None),
        };
        let (first, last) = positions.split_once('-').ok_or(ContentRangeError)?;
        let (first, last) = (position(first)?, position(last)?);
        if last < first {
            return Err(ContentRangeError);
        }
        match total {
            None | Some("*") => {}
            Some(total) if position(total)? > last => {}
            Some(_) => return Err(ContentRangeError),
        }
        Ok(Self { first, last })
    }
}

fn position(text: &str) -> Result<u64, ContentRangeError> {
    if !is_digits(text) {
        return Err(ContentRangeError);
    }
    match text.parse() {
        Ok(position) if position <= i64::MAX.cast_unsigned() => Ok(position),
        _ => Err(ContentRangeError),
    }
}
