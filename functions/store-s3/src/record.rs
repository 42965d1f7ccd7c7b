//! The record of the parts that one body became.
//!
//! The seal completes an upload with exactly the recorded parts, and never with a listing of the store. If another
//! attempt has replaced one of these parts, completion fails; it never yields wrong bytes.
//!
//! A record is kept in one item of a table, so each part needs only 24 bytes: a body of 500 GiB needs 240 KB. An `ETag`
//! that is not an MD5 is kept as it is while the record is small. A large record keeps only the hash of each `ETag`,
//! and the seal reads the `ETag` from the store.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use registry::store::StoreError;
use sha2::{Digest as _, Sha256};

use crate::codec::{FieldReader, FieldWriter};

const FORMAT: u8 = 1;

/// The maximum size, in bytes, of a record with unhashed entity tags that are not MD5. A table may limit one item to
/// 400,000 bytes, including all other fields.
const MAXIMUM_UNHASHED: usize = 256 << 10;

/// The entity tag of a part. Its content is opaque.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EntityTag {
    /// The tag without its quotes.
    Whole(String),
    /// The first bytes of the tag's SHA-256.
    Hash([u8; 16]),
}

impl EntityTag {
    pub(crate) fn whole(&self) -> Option<&str> {
        match self {
            Self::Whole(text) => Some(text),
            Self::Hash(_) => None,
        }
    }

    fn hash(&self) -> [u8; 16] {
        match self {
            Self::Whole(text) => {
                let digest: [u8; 32] = Sha256::digest(text).into();
                std::array::from_fn(|at| digest[at])
            }
            Self::Hash(hash) => *hash,
        }
    }

    /// Whether this equals `whole`, or is its hash.
    pub(crate) fn is_of(&self, whole: &Self) -> bool {
        match self {
            Self::Whole(_) => self == whole,
            Self::Hash(hash) => *hash == whole.hash(),
        }
    }
}

/// A stored part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredPart {
    pub(crate) number: u16,
    /// The number of bytes.
    pub(crate) size: u64,
    pub(crate) etag: EntityTag,
    /// The CRC-32 in Base64, if the part was stored with one. For a copied part it is what the store returned.
    pub(crate) crc32: Option<String>,
}

/// The parts of one body in one upload, with consecutive numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartsRecord {
    /// The attempt that began the upload.
    pub(crate) attempt: u32,
    /// The object store's id of the upload.
    pub(crate) id: String,
    /// The number of bytes before the upload's own parts.
    pub(crate) prefix: u64,
    /// The number of its first own part.
    pub(crate) first: u16,
    pub(crate) parts: Vec<StoredPart>,
}

/// Flag: all entity tags have the form of an MD5 and are written as 16 bytes. Without it they are written as text.
const SHORT_TAGS: u8 = 1;
/// Flag: all parts have a checksum, which is written as 4 bytes.
const SHORT_CHECKSUMS: u8 = 2;
/// Flag: some checksums are absent or have another form. All are written as text, an absent one as an empty text.
const TEXT_CHECKSUMS: u8 = 4;
/// Flag: all entity tags are written as hashes of 16 bytes.
const HASHED_TAGS: u8 = 8;

impl PartsRecord {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let tags: Option<Vec<_>> = self.parts.iter().map(|part| from_hex(part.etag.whole()?)).collect();
        if let Some(tags) = tags {
            return self.encode_with(SHORT_TAGS, Some(&tags));
        }
        let is_whole = self.parts.iter().all(|part| part.etag.whole().is_some());
        let record = is_whole.then(|| self.encode_with(0, None)).transpose()?;
        match record {
            Some(record) if record.len() <= MAXIMUM_UNHASHED => Ok(record),
            _ => self.encode_with(
                HASHED_TAGS,
                Some(&self.parts.iter().map(|part| part.etag.hash()).collect::<Vec<_>>()),
            ),
        }
    }

    /// `tags`: the 16 bytes to write for each tag; `None` writes the text.
    fn encode_with(&self, mut flags: u8, tags: Option<&[[u8; 16]]>) -> Result<Vec<u8>, StoreError> {
        let checksums: Option<Vec<_>> = self
            .parts
            .iter()
            .map(|part| from_base64(part.crc32.as_deref()?))
            .collect();
        flags |= match &checksums {
            Some(_) => SHORT_CHECKSUMS,
            None if self.parts.iter().any(|part| part.crc32.is_some()) => TEXT_CHECKSUMS,
            None => 0,
        };
        let mut fields = FieldWriter::new(FORMAT);
        fields.u32(self.attempt);
        fields.text(&self.id)?;
        fields.u64(self.prefix);
        fields.u16(self.first);
        fields.u8(flags);
        fields.u16(self.parts.first().map_or(0, |part| part.number));
        fields.u16(u16::try_from(self.parts.len()).map_err(StoreError::failed)?);
        for (index, part) in self.parts.iter().enumerate() {
            fields.u32(u32::try_from(part.size).map_err(StoreError::failed)?);
            match tags {
                Some(tags) => fields.bytes(&tags[index]),
                None => fields.text(part.etag.whole().unwrap_or_default())?,
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
        let mut fields = FieldReader::new(record, FORMAT)?;
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
            let etag = if flags & SHORT_TAGS != 0 {
                EntityTag::Whole(format!("{:032x}", u128::from_be_bytes(fields.array()?)))
            } else if flags & HASHED_TAGS != 0 {
                EntityTag::Hash(fields.array()?)
            } else {
                EntityTag::Whole(fields.text()?)
            };
            let crc32 = if flags & SHORT_CHECKSUMS != 0 {
                Some(STANDARD.encode(fields.array::<4>()?))
            } else if flags & TEXT_CHECKSUMS != 0 {
                Some(fields.text()?).filter(|text| !text.is_empty())
            } else {
                None
            };
            parts.push(StoredPart {
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

/// Converts 32 lower-case hexadecimal digits to 16 bytes; returns `None` for any other text.
fn from_hex(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

/// Converts a checksum in its usual form to 4 bytes; returns `None` for any other text.
fn from_base64(text: &str) -> Option<[u8; 4]> {
    let bytes = STANDARD.decode(text).ok()?.try_into().ok()?;
    (STANDARD.encode(bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn record_of(count: u16, etag: impl Fn(u16) -> String, crc32: Option<&str>) -> PartsRecord {
        PartsRecord {
            attempt: 2,
            id: "x".repeat(128),
            prefix: 5,
            first: 1,
            parts: (1..=count)
                .map(|number| StoredPart {
                    number,
                    size: 59 << 20,
                    etag: EntityTag::Whole(etag(number)),
                    crc32: crc32.map(str::to_owned),
                })
                .collect(),
        }
    }

    #[test]
    fn a_record_decodes_to_what_was_encoded() {
        let md5 = |number: u16| format!("{:032x}", u128::from(number) << 111 | 5);
        for count in [0, 1, 3] {
            for crc32 in [None, Some("AQIDBA=="), Some("AQIDBA==-2")] {
                for run in [
                    record_of(count, md5, crc32),
                    record_of(count, |number| format!("W-{number}"), crc32),
                ] {
                    assert_eq!(PartsRecord::decode(&run.encode().unwrap()).unwrap(), run);
                }
            }
        }
        let upper = record_of(1, |_| "ABCDEF00000000000000000000000000".to_owned(), None);
        assert_eq!(
            PartsRecord::decode(&upper.encode().unwrap()).unwrap(),
            upper,
            "tags are opaque"
        );
        let mut mixed = record_of(3, md5, Some("AQIDBA=="));
        mixed.parts[1].crc32 = None;
        assert_eq!(PartsRecord::decode(&mixed.encode().unwrap()).unwrap(), mixed);
    }

    #[test]
    fn the_record_of_the_largest_body_fits_one_item() {
        let largest = record_of(9_999, |number| format!("{number:032x}"), Some("AAAAAA=="));
        assert!(largest.encode().unwrap().len() < 250 << 10);
    }

    #[test]
    fn a_record_with_long_tags_fits_one_item() {
        for length in [33, 100, 1000] {
            let tag = |number: u16| format!("{number:0length$}-");
            for crc32 in [None, Some("AAAAAA==")] {
                let largest = record_of(9_999, tag, crc32);
                let record = largest.encode().unwrap();
                assert!(record.len() < 350_000, "{length}: {}", record.len());
                let back = PartsRecord::decode(&record).unwrap();
                assert_eq!(back.parts.len(), largest.parts.len());
                for (back, part) in back.parts.iter().zip(&largest.parts) {
                    assert_eq!(
                        (back.number, back.size, &back.crc32),
                        (part.number, part.size, &part.crc32)
                    );
                    assert!(back.etag.is_of(&part.etag));
                    assert!(!back.etag.is_of(&EntityTag::Whole(tag(part.number + 1))));
                }
                assert_eq!(back.encode().unwrap(), record);
            }
        }
        // The record of a body of common size keeps the tags.
        let usual = record_of(100, |number| format!("{number:0100}-"), None);
        assert_eq!(PartsRecord::decode(&usual.encode().unwrap()).unwrap(), usual);
    }
}
