//! The record of the parts that one body became.
//!
//! Completing an upload takes exactly what is recorded here, never what a listing of the store shows: a part that
//! another attempt has put in the place of one of these makes it fail, and yields no wrong bytes. A record is kept in
//! one item of a table, so that each part costs 24 bytes: a body of 500 GiB makes 240 KB.

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
    /// CRC-32 of the bytes, if the part was stored with it.
    pub(crate) crc32: Option<[u8; 4]>,
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

/// How entity tags are written.
const TAGS_AS_BYTES: u8 = 1;
/// Checksums are there.
const CHECKSUMS: u8 = 2;

impl Run {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        // An MD5, or something of that form, nearly everywhere.
        let tags: Option<Vec<_>> = self.parts.iter().map(|part| from_hex(&part.etag)).collect();
        let checksums: Option<Vec<_>> = self.parts.iter().map(|part| part.crc32).collect();
        let mut fields = Writer::new(FORMAT);
        fields.u32(self.attempt);
        fields.text(&self.id)?;
        fields.u64(self.prefix);
        fields.u16(self.first);
        let flags = if tags.is_some() { TAGS_AS_BYTES } else { 0 } | if checksums.is_some() { CHECKSUMS } else { 0 };
        fields.u8(flags);
        fields.u16(self.parts.first().map_or(0, |part| part.number));
        fields.u16(u16::try_from(self.parts.len()).map_err(StoreError::failed)?);
        for (index, part) in self.parts.iter().enumerate() {
            fields.u32(u32::try_from(part.size).map_err(StoreError::failed)?);
            match &tags {
                Some(tags) => fields.bytes(&tags[index]),
                None => fields.text(&part.etag)?,
            }
            if let Some(checksums) = &checksums {
                fields.bytes(&checksums[index]);
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
            let etag = if flags & TAGS_AS_BYTES == 0 {
                fields.text()?
            } else {
                to_hex(fields.array()?)
            };
            let crc32 = if flags & CHECKSUMS == 0 {
                None
            } else {
                Some(fields.array()?)
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

fn to_hex(bytes: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn run(count: u16, etag: impl Fn(u16) -> String, crc32: Option<[u8; 4]>) -> Run {
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
                    crc32,
                })
                .collect(),
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let md5 = |number: u16| format!("{:032x}", u128::from(number) << 111 | 5);
        for count in [0, 1, 3] {
            for crc32 in [None, Some([1, 2, 3, 4])] {
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
    }

    #[test]
    fn the_record_of_the_largest_body_fits_one_item() {
        let largest = run(9_999, |number| format!("{number:032x}"), Some([0; 4]));
        assert!(largest.encode().unwrap().len() < 250 << 10);
    }
}
