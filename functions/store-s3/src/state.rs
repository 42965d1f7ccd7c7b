//! The state of an upload that a session saves: a few dozen bytes, which each body replaces.
//!
//! An upload without a multipart upload is a single object under its final key. Otherwise its bytes are the parts, then
//! possibly one *staged* object under a separate key. The staged object has the last bytes, if they do not fill a part.

use registry::store::StoreError;

use crate::codec::{FieldReader, FieldWriter};

const FORMAT: u8 = 1;

/// What the bodies so far have stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UploadState {
    /// The number of bodies; empty bodies after the first do not count.
    pub(crate) bodies: u32,
    /// The last attempt that certainly writes no more: it stored a body, or it failed and nothing of it can still
    /// arrive.
    pub(crate) last: u32,
    /// The multipart upload that receives parts.
    pub(crate) upload: Option<OpenMultipart>,
    /// The object with the bytes after the parts, or with all bytes.
    pub(crate) tail: Option<TailObject>,
    /// Whether the object store may have multipart uploads under this session's keys that the state does not record.
    pub(crate) has_unrecorded_uploads: bool,
}

/// A multipart upload that was not complete when this state was saved.
///
/// Only the attempt that directly follows the last one may write parts to it. If an attempt is missing in between, that
/// attempt may still be writing or may have sealed the upload, and each part number must have one writer at a time.
/// Such a gap therefore begins a new upload. The seal completes this upload to an object, and copies its bytes to the
/// first parts of the new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenMultipart {
    /// The attempt that began it. The key of its object contains this number.
    pub(crate) attempt: u32,
    /// The object store's id of it.
    pub(crate) id: String,
    /// The number of bytes before its own parts, which are copied from the upload before it.
    pub(crate) prefix: u64,
    /// The number of its first own part; lower numbers are for copied parts.
    pub(crate) first: u16,
    /// The number of the next part.
    pub(crate) next: u16,
    /// The number of bytes in its own parts.
    pub(crate) own: u64,
    /// Whether its parts have checksums.
    pub(crate) checksums: bool,
}

/// An object with the bytes of one body, or of several small ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TailObject {
    /// The attempt whose number is in its key.
    pub(crate) attempt: u32,
    /// The number of its bytes.
    pub(crate) size: u64,
}

impl OpenMultipart {
    /// The number of bytes up to the end of its parts.
    pub(crate) fn end(&self) -> u64 {
        self.prefix + self.own
    }
}

impl UploadState {
    /// The number of all bytes so far.
    pub(crate) fn size(&self) -> u64 {
        let parts = self.upload.as_ref().map_or(0, OpenMultipart::end);
        parts + self.tail.map_or(0, |tail| tail.size)
    }

    /// Whether `attempt` is the only one that can have claimed the session since the last saved body.
    pub(crate) fn is_followed_by(&self, attempt: u32) -> bool {
        self.last.checked_add(1) == Some(attempt)
    }

    /// Decodes a saved state. The state of a session without bytes is empty.
    pub(crate) fn decode(record: &[u8]) -> Result<Self, StoreError> {
        if record.is_empty() {
            return Ok(Self::default());
        }
        let mut fields = FieldReader::new(record, FORMAT)?;
        let bodies = fields.u32()?;
        let last = fields.u32()?;
        let upload = match fields.u8()? {
            0 => None,
            _ => Some(OpenMultipart {
                attempt: fields.u32()?,
                id: fields.text()?,
                prefix: fields.u64()?,
                first: fields.u16()?,
                next: fields.u16()?,
                own: fields.u64()?,
                checksums: fields.u8()? != 0,
            }),
        };
        let tail = match fields.u8()? {
            0 => None,
            _ => Some(TailObject {
                attempt: fields.u32()?,
                size: fields.u64()?,
            }),
        };
        let has_unrecorded_uploads = fields.u8()? != 0;
        fields.end()?;
        Ok(Self {
            bodies,
            last,
            upload,
            tail,
            has_unrecorded_uploads,
        })
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let mut fields = FieldWriter::new(FORMAT);
        fields.u32(self.bodies);
        fields.u32(self.last);
        fields.u8(self.upload.is_some().into());
        if let Some(upload) = &self.upload {
            fields.u32(upload.attempt);
            fields.text(&upload.id)?;
            fields.u64(upload.prefix);
            fields.u16(upload.first);
            fields.u16(upload.next);
            fields.u64(upload.own);
            fields.u8(upload.checksums.into());
        }
        fields.u8(self.tail.is_some().into());
        if let Some(tail) = self.tail {
            fields.u32(tail.attempt);
            fields.u64(tail.size);
        }
        fields.u8(self.has_unrecorded_uploads.into());
        Ok(fields.finish())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_state_decodes_to_what_was_encoded() {
        let upload = OpenMultipart {
            attempt: 3,
            id: "an id of the store's".to_owned(),
            prefix: 7 << 40,
            first: 201,
            next: 9_999,
            own: 1 << 33,
            checksums: true,
        };
        let tail = TailObject { attempt: 9, size: 77 };
        for upload in [None, Some(upload)] {
            for tail in [None, Some(tail)] {
                let state = UploadState {
                    bodies: 4,
                    last: 9,
                    upload: upload.clone(),
                    tail,
                    has_unrecorded_uploads: tail.is_some(),
                };
                let record = state.encode().unwrap();
                assert_eq!(UploadState::decode(&record).unwrap(), state);
                for length in 1..record.len() {
                    assert!(
                        UploadState::decode(&record[..length]).is_err(),
                        "the first {length} bytes"
                    );
                }
                assert!(UploadState::decode(&[record.as_slice(), &[0]].concat()).is_err());
            }
        }
        assert_eq!(UploadState::decode(&[]).unwrap(), UploadState::default());
        assert!(UploadState::decode(&[9]).is_err(), "a state of another version");
    }
}
