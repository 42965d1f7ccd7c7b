//! Encodes and decodes the small binary records that sessions keep.

use registry::store::StoreError;

/// Appends fields, little-endian.
#[derive(Default)]
pub(crate) struct FieldWriter(Vec<u8>);

impl FieldWriter {
    pub(crate) fn new(format: u8) -> Self {
        Self(vec![format])
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.0.extend(value);
    }

    /// A text of at most 65,535 bytes; an object store's ids and entity tags are far shorter.
    pub(crate) fn text(&mut self, value: &str) -> Result<(), StoreError> {
        let length = u16::try_from(value.len())
            .map_err(|_| StoreError::failed("the object store returned an id or entity tag of more than 64 KiB"))?;
        self.u16(length);
        self.bytes(value.as_bytes());
        Ok(())
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads fields from the beginning of a record.
pub(crate) struct FieldReader<'a>(&'a [u8]);

impl<'a> FieldReader<'a> {
    /// Checks the first byte, which is the format version.
    pub(crate) fn new(record: &'a [u8], format: u8) -> Result<Self, StoreError> {
        match record.split_first() {
            Some((first, rest)) if *first == format => Ok(Self(rest)),
            _ => Err(unknown_format()),
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or_else(unknown_format)?;
        self.0 = rest;
        Ok(*field)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, StoreError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, StoreError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, StoreError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, StoreError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn text(&mut self) -> Result<String, StoreError> {
        let length = self.u16()?.into();
        let (text, rest) = self.0.split_at_checked(length).ok_or_else(unknown_format)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| unknown_format())
    }

    /// Checks that no bytes are left.
    pub(crate) fn end(&self) -> Result<(), StoreError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(unknown_format())
        }
    }
}

fn unknown_format() -> StoreError {
    StoreError::failed("the record of an upload is not in a format that this version reads")
}
