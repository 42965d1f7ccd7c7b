//! Reads and writes the attributes of items.

use std::fmt::Display;
use std::str::FromStr;

use bytes::Bytes;
use registry::store::metadata::Defect;
use registry::store::{Location, StoreError, Timestamp, Uid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::attributes;
use crate::table::{Attributes, Item, ItemKey, Value};

/// The error for an item that this program cannot have written.
pub(crate) fn damaged(key: &ItemKey, what: impl Display) -> StoreError {
    StoreError::damaged(format_args!("the item {key} is damaged: {what}"))
}

/// The attributes of an item that was read.
pub(crate) struct ItemFields<'a>(pub(crate) &'a Item);

impl<'a> ItemFields<'a> {
    fn missing(&self, name: &str) -> StoreError {
        damaged(&self.0.key, format_args!("{name} is missing"))
    }

    fn wrong(&self, name: &str) -> StoreError {
        damaged(&self.0.key, format_args!("{name} has the wrong type"))
    }

    fn value(&self, name: &str) -> Option<&'a Value> {
        self.0.attributes.get(name)
    }

    pub(crate) fn text_if_any(&self, name: &str) -> Result<Option<&'a str>, StoreError> {
        match self.value(name) {
            Some(Value::S(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name)),
            None => Ok(None),
        }
    }

    pub(crate) fn text(&self, name: &str) -> Result<&'a str, StoreError> {
        self.text_if_any(name)?.ok_or_else(|| self.missing(name))
    }

    pub(crate) fn number_if_any(&self, name: &str) -> Result<Option<u64>, StoreError> {
        match self.value(name) {
            Some(Value::N(number)) => Ok(Some(*number)),
            Some(_) => Err(self.wrong(name)),
            None => Ok(None),
        }
    }

    pub(crate) fn number(&self, name: &str) -> Result<u64, StoreError> {
        self.number_if_any(name)?.ok_or_else(|| self.missing(name))
    }

    /// A number that fits into 32 bits.
    pub(crate) fn small(&self, name: &str) -> Result<u32, StoreError> {
        u32::try_from(self.number(name)?).map_err(|_| self.wrong(name))
    }

    pub(crate) fn bytes_if_any(&self, name: &str) -> Result<Option<&'a Bytes>, StoreError> {
        match self.value(name) {
            Some(Value::B(bytes)) => Ok(Some(bytes)),
            Some(_) => Err(self.wrong(name)),
            None => Ok(None),
        }
    }

    pub(crate) fn bytes(&self, name: &str) -> Result<&'a Bytes, StoreError> {
        self.bytes_if_any(name)?.ok_or_else(|| self.missing(name))
    }

    /// A byte string that is not stored when it is empty.
    pub(crate) fn bytes_or_none(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        Ok(self.bytes_if_any(name)?.map(|bytes| bytes.to_vec()).unwrap_or_default())
    }

    /// Whether a flag is set: a flag is set when its attribute is present.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    pub(crate) fn parsed_if_any<T: FromStr>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let text = self.text_if_any(name)?;
        text.map(|text| text.parse().map_err(|_| self.wrong(name))).transpose()
    }

    /// A text that is parsed, for example a digest or a media type.
    pub(crate) fn parsed<T: FromStr>(&self, name: &str) -> Result<T, StoreError> {
        self.parsed_if_any(name)?.ok_or_else(|| self.missing(name))
    }

    pub(crate) fn timestamp(&self, name: &str) -> Result<Timestamp, StoreError> {
        self.number(name).map(Timestamp)
    }

    pub(crate) fn timestamp_if_any(&self, name: &str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.number_if_any(name)?.map(Timestamp))
    }

    /// A list or map that is stored as JSON text.
    pub(crate) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, StoreError> {
        let text = self.text(name)?;
        serde_json::from_str(text).map_err(|why| damaged(&self.0.key, format_args!("{name}: {why}")))
    }

    pub(crate) fn uid(&self, name: &str) -> Result<Uid, StoreError> {
        let number = crate::keys::number(self.text(name)?);
        number.map(Uid).ok_or_else(|| self.wrong(name))
    }

    /// The defect of an object. A value that only a later version knows is read as [`Defect::Damaged`].
    pub(crate) fn defect(&self) -> Result<Option<Defect>, StoreError> {
        let text = self.text_if_any(attributes::DEFECT)?;
        Ok(text.map(|text| Defect::parse(text).unwrap_or(Defect::Damaged)))
    }

    pub(crate) fn location_if_any(&self) -> Result<Option<Location>, StoreError> {
        let store = self.text_if_any(attributes::STORE)?;
        let key = self.text_if_any(attributes::OBJECT)?;
        Ok(store.zip(key).map(|(store, key)| Location {
            store: store.to_owned(),
            key: key.to_owned(),
        }))
    }

    pub(crate) fn location(&self) -> Result<Location, StoreError> {
        self.location_if_any()?.ok_or_else(|| self.missing(attributes::OBJECT))
    }
}

/// The attributes of an item that is being built.
#[derive(Default)]
pub(crate) struct ItemBuilder(Attributes);

impl ItemBuilder {
    pub(crate) fn text(mut self, name: &str, text: impl Display) -> Self {
        self.0.insert(name.to_owned(), Value::S(format!("{text}")));
        self
    }

    pub(crate) fn text_if_any(self, name: &str, text: Option<impl Display>) -> Self {
        match text {
            Some(text) => self.text(name, text),
            None => self,
        }
    }

    pub(crate) fn number(mut self, name: &str, number: impl Into<u64>) -> Self {
        self.0.insert(name.to_owned(), Value::N(number.into()));
        self
    }

    pub(crate) fn timestamp(self, name: &str, at: Timestamp) -> Self {
        self.number(name, at.0)
    }

    pub(super) fn timestamp_if_any(self, name: &str, at: Option<Timestamp>) -> Self {
        match at {
            Some(at) => self.timestamp(name, at),
            None => self,
        }
    }

    pub(crate) fn number_if_any(self, name: &str, number: Option<u64>) -> Self {
        match number {
            Some(number) => self.number(name, number),
            None => self,
        }
    }

    /// A list or map, as JSON text.
    pub(crate) fn json(self, name: &str, value: &impl Serialize) -> Result<Self, StoreError> {
        let text = serde_json::to_string(value).map_err(StoreError::failed)?;
        Ok(self.text(name, text))
    }

    pub(crate) fn bytes(mut self, name: &str, bytes: impl Into<Bytes>) -> Self {
        self.0.insert(name.to_owned(), Value::B(bytes.into()));
        self
    }

    /// Adds bytes unless they are empty: a missing attribute means the same, and is smaller.
    pub(crate) fn bytes_if_any(self, name: &str, bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return self;
        }
        self.bytes(name, bytes.to_vec())
    }

    pub(crate) fn flag(self, name: &str, set: bool) -> Self {
        if set { self.number(name, 1_u64) } else { self }
    }

    pub(crate) fn location(self, location: &Location) -> Self {
        self.text(attributes::STORE, &location.store)
            .text(attributes::OBJECT, &location.key)
    }

    pub(crate) fn item(self, key: ItemKey) -> Item {
        Item {
            key,
            attributes: self.0,
        }
    }
}
