//! The record of the parts that one body became.
//!
//! Completing an upload takes exactly what is recorded here, never what a listing of the store shows: a part that
//! another attempt has put in the place of one of these makes it fail, and yields no wrong bytes. A record is kept in
//! one item of a table, so that each part costs 24 bytes: a body of 500 GiB makes 240 KB.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use registry::store::StoreError;

use crate::codec::{Reader, Writer};

const FORMAT: u8 = 1;

/// A part that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) number: u16,
    /// Bytes.
    pub(crate) size: u64,
    /// The entity tag, without its quotes.
    pub(crate) etag: String,
    /// The CRC-32 in Base64, if the part was stored with it; of what was copied, what the store calls it.
    pub(crate) crc32: Option<String>,
}

/// The parts of one body, with consecutive numbers, in one upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The attempt that began the upload.
    pub(crate) attempt: u32,
    /// What the object store calls the upload.
    pub(crate) id: String,
    /// The bytes before the upload's own parts.
    pub(crate) prefix: u64,
    /// The number of its first own part.
    pub(crate) first: u16,
    pub(crate) parts: Vec<Part>,
}

/// All entity tags have the form of an MD5 and are written as 16 bytes, else as text.
const SHORT_TAGS: u8 = 1;
/// All checksums are there and are written as 4 bytes.
const SHORT_CHECKSUMS: u8 = 2;
/// Some are not, or are of another form: as text, empty if there is none.
const TEXT_CHECKSUMS: u8 = 4;

impl Run {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let tags: Option<Vec<_>> = self.parts.iter().map(|part| from_hex(&part.etag)).collect();
        let checksums: Option<Vec<_>> = self
            .parts
            .iter()
            .map(|part| from_base64(part.crc32.as_deref()?))
            .collect();
        let mut flags = if tags.is_some() { SHORT_TAGS } else { 0 };
        flags |= match &checksums {
            Some(_) => SHORT_CHECKSUMS,
            None if self.parts.iter().any(|part| part.crc32.is_some()) => TEXT_CHECKSUMS,
            None => 0,
        };
        let mut fields = Writer::new(FORMAT);
        fields.u32(self.attempt);
        fields.text(&self.id)?;
        fields.u64(self.prefix);
        fields.u16(self.first);
        fields.u8(flags);
        fields.u16(self.parts.first().map_or(0, |part| part.number));
        fields.u16(u16::try_from(self.parts.len()).map_err(StoreError::failed)?);
        for (index, part) in self.parts.iter().enumerate() {
            fields.u32(u32::try_from(part.size).map_err(StoreError::failed)?);
            match &tags {
                Some(tags) => fields.bytes(&tags[index]),
                None => fields.text(&part.etag)?,
            }
            match &checksums {
                Some(checksums) => fields.bytes(&checksums[index]),
                None if flags & TEXT_CHECKSUMS != 0 => fields.text(part.crc32.as_deref().unwrap_or_default())?,
                None => {}
            }
        }
        Ok(fields.finish())
    }

    pub(crate) fn decode(record: &[u8]) -> Result<Self, StoreError> {
        let mut fields = Reader::new(record, FORMAT)?;
        let attempt = fields.u32()?;
        let id = fields.text()?;
        let prefix = fields.u64()?;
        let first = fields.u16()?;
        let flags = fields.u8()?;
        let start = fields.u16()?;
        let count = fields.u16()?;
        let mut parts = Vec::with_capacity(count.into());
        for index in 0..count {
            let size = fields.u32()?.into();
            let etag = if flags & SHORT_TAGS == 0 {
                fields.text()?
            } else {
                format!("{:032x}", u128::from_be_bytes(fields.array()?))
            };
            let crc32 = if flags & SHORT_CHECKSUMS != 0 {
                Some(STANDARD.encode(fields.array::<4>()?))
            } else if flags & TEXT_CHECKSUMS != 0 {
                Some(fields.text()?).filter(|text| !text.is_empty())
            } else {
                None
            };
            parts.push(Part {
                number: start.saturating_add(index),
                size,
                etag,
                crc32,
            });
        }
        fields.end()?;
        Ok(Self {
            attempt,
            id,
            prefix,
            first,
            parts,
        })
    }
}

/// 32 lower-case hexadecimal digits as 16 bytes; nothing else.
fn from_hex(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

/// The 4 bytes of a checksum in its usual form; nothing else.
fn from_base64(text: &str) -> Option<[u8; 4]> {
    let bytes = STANDARD.decode(text).ok()?.try_into().ok()?;
    (STANDARD.encode(bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn run(count: u16, etag: impl Fn(u16) -> String, crc32: Option<&str>) -> Run {
        Run {
            attempt: 2,
            id: "x".repeat(128),
            prefix: 5,
            first: 1,
            parts: (1..=count)
                .map(|number| Part {
                    number,
                    size: 59 << 20,
                    etag: etag(number),
                    crc32: crc32.map(str::to_owned),
                })
                .collect(),
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let md5 = |number: u16| format!("{:032x}", u128::from(number) << 111 | 5);
        for count in [0, 1, 3] {
            for crc32 in [None, Some("AQIDBA=="), Some("AQIDBA==-2")] {
                for run in [
                    run(count, md5, crc32),
                    run(count, |number| format!("W-{number}"), crc32),
                ] {
                    assert_eq!(Run::decode(&run.encode().unwrap()).unwrap(), run);
                }
            }
        }
        let upper = run(1, |_| "ABCDEF00000000000000000000000000".to_owned(), None);
        assert_eq!(Run::decode(&upper.encode().unwrap()).unwrap(), upper, "tags are opaque");
        let mut mixed = run(3, md5, Some("AQIDBA=="));
        mixed.parts[1].crc32 = None;
        assert_eq!(Run::decode(&mixed.encode().unwrap()).unwrap(), mixed);
    }

    #[test]
    fn the_record_of_the_largest_body_fits_one_item() {
        let largest = run(9_999, |number| format!("{number:032x}"), Some("AAAAAA=="));
        assert!(largest.encode().unwrap().len() < 250 << 10);
    }
}
