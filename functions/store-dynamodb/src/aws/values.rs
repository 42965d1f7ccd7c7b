//! Converts between the items of this crate and the attribute maps of the SDK.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;

use super::errors::invalid;
use crate::table::{Item, ItemKey, PARTITION, SORT, TableError, Value};

type AttributeMap = HashMap<String, AttributeValue>;

pub(super) fn to_sdk_value(value: &Value) -> AttributeValue {
    match value {
        Value::S(text) => AttributeValue::S(text.clone()),
        Value::N(number) => AttributeValue::N(number.to_string()),
        Value::B(bytes) => AttributeValue::B(Blob::new(bytes.as_ref())),
    }
}

/// `None` for a type that no version has written so far. A newer version may use it, in an attribute that this one does
/// not read.
fn from_sdk_value(value: AttributeValue) -> Option<Value> {
    match value {
        AttributeValue::S(text) => Some(Value::S(text)),
        AttributeValue::N(number) => number.parse().ok().map(Value::N),
        AttributeValue::B(bytes) => Some(Value::B(Bytes::from(bytes.into_inner()))),
        _ => None,
    }
}

pub(super) fn to_sdk_key(key: &ItemKey) -> AttributeMap {
    AttributeMap::from([
        (PARTITION.to_owned(), AttributeValue::S(key.partition.clone())),
        (SORT.to_owned(), AttributeValue::S(key.sort.clone())),
    ])
}

pub(super) fn from_sdk_key(map: &AttributeMap) -> Result<ItemKey, TableError> {
    let part = |name| match map.get(name) {
        Some(AttributeValue::S(text)) => Ok(text.clone()),
        _ => Err(invalid("an item without its key")),
    };
    Ok(ItemKey {
        partition: part(PARTITION)?,
        sort: part(SORT)?,
    })
}

pub(super) fn to_sdk_item(item: &Item) -> AttributeMap {
    let mut map = to_sdk_key(&item.key);
    let attributes = item.attributes.iter();
    map.extend(attributes.map(|(name, value)| (name.clone(), to_sdk_value(value))));
    map
}

pub(super) fn from_sdk_item(mut map: AttributeMap) -> Result<Item, TableError> {
    let key = from_sdk_key(&map)?;
    map.remove(PARTITION);
    map.remove(SORT);
    let attributes = map.into_iter();
    let attributes = attributes.filter_map(|(name, value)| Some((name, from_sdk_value(value)?)));
    Ok(Item {
        key,
        attributes: attributes.collect(),
    })
}
