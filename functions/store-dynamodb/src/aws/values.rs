//! Between items here and maps of attributes there.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;

use super::errors::wrong;
use crate::table::{Item, Key, PARTITION, SORT, TableError, Value};

type Map = HashMap<String, AttributeValue>;

pub(super) fn value_out(value: &Value) -> AttributeValue {
    match value {
        Value::S(text) => AttributeValue::S(text.clone()),
        Value::N(number) => AttributeValue::N(number.to_string()),
        Value::B(bytes) => AttributeValue::B(Blob::new(bytes.as_ref())),
    }
}

/// `None`: of a type that no version so far writes. A newer one may, in an attribute that this one has no use for.
fn value_of(value: AttributeValue) -> Option<Value> {
    match value {
        AttributeValue::S(text) => Some(Value::S(text)),
        AttributeValue::N(number) => number.parse().ok().map(Value::N),
        AttributeValue::B(bytes) => Some(Value::B(Bytes::from(bytes.into_inner()))),
        _ => None,
    }
}

pub(super) fn key_out(key: &Key) -> Map {
    Map::from([
        (PARTITION.to_owned(), AttributeValue::S(key.partition.clone())),
        (SORT.to_owned(), AttributeValue::S(key.sort.clone())),
    ])
}

pub(super) fn key_of(map: &Map) -> Result<Key, TableError> {
    let part = |name| match map.get(name) {
        Some(AttributeValue::S(text)) => Ok(text.clone()),
        _ => Err(wrong("an item without its key")),
    };
    Ok(Key {
        partition: part(PARTITION)?,
        sort: part(SORT)?,
    })
}

pub(super) fn item_out(item: &Item) -> Map {
    let mut map = key_out(&item.key);
    let attributes = item.attributes.iter();
    map.extend(attributes.map(|(name, value)| (name.clone(), value_out(value))));
    map
}

pub(super) fn item_of(mut map: Map) -> Result<Item, TableError> {
    let key = key_of(&map)?;
    map.remove(PARTITION);
    map.remove(SORT);
    let attributes = map.into_iter();
    let attributes = attributes.filter_map(|(name, value)| Some((name, value_of(value)?)));
    Ok(Item {
        key,
        attributes: attributes.collect(),
    })
}
