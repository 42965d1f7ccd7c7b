//! What a session knows of its bytes: a few dozen bytes that each body replaces.
//!
//! The bytes of a session are, in this order: what the parts of its upload hold, if it has one; then the object of its
//! last attempt that did not fill a part. Without an upload that object is the whole, under the key that the sealed
//! object will have; behind an upload it is *staged* under a key of its own.

use registry::store::StoreError;

use crate::codec::{Reader, Writer};

const FORMAT: u8 = 1;

/// What is stored after some bodies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// How many bodies there were, empty ones apart.
    pub(crate) bodies: u32,
    /// The last attempt of which it is known that it writes no more: it stored a body, or came to nothing in good order.
    pub(crate) last: u32,
    /// The multipart upload that takes parts.
    pub(crate) upload: Option<OpenUpload>,
    /// What follows its parts, or is everything.
    pub(crate) tail: Option<Tail>,
    /// Whether there may be multipart uploads under its attempts' keys that only a search finds.
    pub(crate) littered: bool,
}

/// A multipart upload that was not completed when this was saved.
///
/// Only the attempt that follows the last one without a gap may write parts to it: another may be writing still, or
/// have sealed it, and each part number must have one writer at a time. After a gap a new upload is begun, whose first
/// parts are copied, when it is sealed, from the object that this one becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenUpload {
    /// The attempt that began it, and after which its object is called.
    pub(crate) attempt: u32,
    /// What the object store calls it.
    pub(crate) id: String,
    /// The bytes before its own parts, which come from the upload before it.
    pub(crate) prefix: u64,
    /// The number of its first own part; lower ones are for what is copied.
    pub(crate) first: u16,
    /// The number of the next part.
    pub(crate) next: u16,
    /// The bytes in its own parts.
    pub(crate) own: u64,
    /// Whether its parts have checksums.
    pub(crate) checksums: bool,
}

/// An object that was stored whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The attempt after which it is called.
    pub(crate) attempt: u32,
    /// Its bytes.
    pub(crate) size: u64,
}

impl OpenUpload {
    /// Where its parts end.
    pub(crate) fn end(&self) -> u64 {
        self.prefix + self.own
    }
}

impl State {
    /// All bytes so far.
    pub(crate) fn size(&self) -> u64 {
        let parts = self.upload.as_ref().map_or(0, OpenUpload::end);
        parts + self.tail.map_or(0, |tail| tail.size)
    }

    /// Whether `attempt` is the only one that can have claimed the session after the last saved body.
    pub(crate) fn is_followed_by(&self, attempt: u32) -> bool {
        self.last.checked_add(1) == Some(attempt)
    }

    /// The state of a session that holds nothing is empty.
    pub(crate) fn decode(record: &[u8]) -> Result<Self, StoreError> {
        if record.is_empty() {
            return Ok(Self::default());
        }
        let mut fields = Reader::new(record, FORMAT)?;
        let bodies = fields.u32()?;
        let last = fields.u32()?;
        let upload = match fields.u8()? {
            0 => None,
            _ => Some(OpenUpload {
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
            _ => Some(Tail {
                attempt: fields.u32()?,
                size: fields.u64()?,
            }),
        };
        let littered = fields.u8()? != 0;
        fields.end()?;
        Ok(Self {
            bodies,
            last,
            upload,
            tail,
            littered,
        })
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let mut fields = Writer::new(FORMAT);
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
        fields.u8(self.littered.into());
        Ok(fields.finish())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_state_comes_back_as_it_was() {
        let upload = OpenUpload {
            attempt: 3,
            id: "an id of the store's".to_owned(),
            prefix: 7 << 40,
            first: 201,
            next: 9_999,
            own: 1 << 33,
            checksums: true,
        };
        let tail = Tail { attempt: 9, size: 77 };
        for upload in [None, Some(upload)] {
            for tail in [None, Some(tail)] {
                let state = State {
                    bodies: 4,
                    last: 9,
                    upload: upload.clone(),
                    tail,
                    littered: tail.is_some(),
                };
                let record = state.encode().unwrap();
                assert_eq!(State::decode(&record).unwrap(), state);
                for length in 1..record.len() {
                    assert!(State::decode(&record[..length]).is_err(), "{length} bytes of it");
                }
                assert!(State::decode(&[record.as_slice(), &[0]].concat()).is_err());
            }
        }
        assert_eq!(State::decode(&[]).unwrap(), State::default());
        assert!(State::decode(&[9]).is_err(), "of another version");
    }
}
