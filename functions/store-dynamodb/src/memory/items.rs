//! The items of a table: their present and previous content, their sizes, and the effects of writes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use crate::table::{
    Attributes, ITEM_BYTES, Item, ItemKey, ItemPage, PARTITION, RangeQuery, SORT, TRANSACTION_BYTES, TRANSACTION_ITEMS,
    TableError, Value, Write, WriteCondition, Written,
};

/// The maximum size of a page, in bytes of items.
const PAGE_BYTES: usize = 1_000_000;
/// The maximum size of a partition key, in bytes.
const PARTITION_BYTES: usize = 2048;
/// The maximum size of a sort key, in bytes.
const SORT_BYTES: usize = 1024;

/// The error for a request that DynamoDB rejects as invalid.
pub(super) fn reject(why: impl Into<String>) -> TableError {
    TableError::Fatal(why.into().into())
}

/// The items of a table.
#[derive(Default)]
pub(crate) struct Items {
    /// Ordered by a hash, so that a scan meets the collections in an arbitrary order.
    collections: BTreeMap<u64, ItemCollection>,
    tokens: HashMap<String, Vec<Write>>,
    /// The keys that were written since the last call of `take_changed`.
    changed: Vec<ItemKey>,
}

#[derive(Default)]
struct ItemCollection {
    partition: String,
    rows: BTreeMap<String, StoredItem>,
}

/// The present content of an item, and that before its last write.
#[derive(Default)]
struct StoredItem {
    now: Option<Attributes>,
    before: Option<Attributes>,
}

/// The position of a key in the order of the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ItemPosition<'a> {
    hash: u64,
    sort: &'a str,
}

impl<'a> ItemPosition<'a> {
    pub(super) fn of(key: &'a ItemKey) -> Self {
        Self {
            hash: hash(&key.partition),
            sort: &key.sort,
        }
    }
}

/// FNV-1a: equal in every run, so that a seed always gives the same schedule.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The key of the item that a write changes.
pub(super) fn key_of(write: &Write) -> &ItemKey {
    match write {
        Write::Put { item, .. } => &item.key,
        Write::Update { key, .. } | Write::Delete { key, .. } | Write::Check { key, .. } => key,
    }
}

fn condition_of(write: &Write) -> &WriteCondition {
    match write {
        Write::Put { condition, .. }
        | Write::Update { condition, .. }
        | Write::Delete { condition, .. }
        | Write::Check { condition, .. } => condition,
    }
}

pub(super) fn check_key(key: &ItemKey) -> Result<(), TableError> {
    let fits = |text: &str, maximum: usize| !text.is_empty() && text.len() <= maximum;
    if fits(&key.partition, PARTITION_BYTES) && fits(&key.sort, SORT_BYTES) {
        Ok(())
    } else {
        Err(reject(format!("a key that is empty or too long: {key:?}")))
    }
}

/// Checks that a batch is not empty, not too large, and has each item once.
pub(super) fn check_batch(positions: &[ItemPosition<'_>], maximum: usize) -> Result<(), TableError> {
    let distinct: BTreeSet<_> = positions.iter().collect();
    if positions.is_empty() || positions.len() > maximum {
        return Err(reject(format!(
            "{} items in a batch of 1 to {maximum}",
            positions.len()
        )));
    }
    if distinct.len() < positions.len() {
        return Err(reject("the same item twice in one request"));
    }
    Ok(())
}

/// The size of an item in bytes of names and values, as DynamoDB counts it.
fn size(key: &ItemKey, attributes: &Attributes) -> usize {
    let key = PARTITION.len() + key.partition.len() + SORT.len() + key.sort.len();
    let attribute = |(name, value): (&String, &Value)| {
        name.len()
            + match value {
                Value::S(text) => text.len(),
                // One byte for two digits, and one more.
                Value::N(number) => number.to_string().len().div_ceil(2) + 1,
                Value::B(bytes) => bytes.len(),
            }
    };
    key + attributes.iter().map(attribute).sum::<usize>()
}

fn is_met(condition: &WriteCondition, item: Option<&Attributes>) -> bool {
    match condition {
        WriteCondition::Always => true,
        WriteCondition::Exists => item.is_some(),
        WriteCondition::Absent => item.is_none(),
        WriteCondition::Is(name, value) => item.and_then(|item| item.get(*name)) == Some(value),
        WriteCondition::Below(name, number) => {
            matches!(item.and_then(|item| item.get(*name)), Some(Value::N(found)) if found < number)
        }
        WriteCondition::Lacks(name) => item.is_some_and(|item| !item.contains_key(*name)),
        WriteCondition::All(all) => all.iter().all(|condition| is_met(condition, item)),
        WriteCondition::Any(any) => any.iter().any(|condition| is_met(condition, item)),
    }
}

/// The content after a write; the outer `None`: unchanged.
#[expect(
    clippy::option_option,
    reason = "a write leaves the item as it is, changes it, or removes it"
)]
fn outcome(write: &Write, old: Option<&Attributes>) -> Option<Option<Attributes>> {
    match write {
        Write::Put { item, .. } => Some(Some(item.attributes.clone())),
        Write::Update { set, remove, .. } => {
            let mut attributes = old.cloned().unwrap_or_default();
            for name in remove {
                attributes.remove(*name);
            }
            for (name, value) in set {
                attributes.insert((*name).to_owned(), value.clone());
            }
            Some(Some(attributes))
        }
        Write::Delete { .. } => Some(None),
        Write::Check { .. } => None,
    }
}

impl StoredItem {
    fn version(&self, stale: bool) -> Option<&Attributes> {
        if stale { self.before.as_ref() } else { self.now.as_ref() }
    }
}

impl Items {
    /// Returns one item as it is, or as it was before its last write.
    pub(super) fn get(&self, key: &ItemKey, stale: bool) -> Option<Item> {
        let attributes = self.row(key)?.version(stale)?;
        Some(Item {
            key: key.clone(),
            attributes: attributes.clone(),
        })
    }

    fn row(&self, key: &ItemKey) -> Option<&StoredItem> {
        let collection = self.collections.get(&hash(&key.partition))?;
        debug_assert_eq!(
            collection.partition, key.partition,
            "no two partitions have the same hash"
        );
        collection.rows.get(&key.sort)
    }

    /// The present attributes of an item.
    pub(crate) fn attributes(&self, partition: &str, sort: &str) -> Option<&Attributes> {
        self.collections.get(&hash(partition))?.rows.get(sort)?.now.as_ref()
    }

    /// All items: partition key, sort key, attributes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str, &Attributes)> {
        self.collections.values().flat_map(|collection| {
            let rows = collection.rows.iter();
            rows.filter_map(|(sort, row)| Some((collection.partition.as_str(), sort.as_str(), row.now.as_ref()?)))
        })
    }

    /// The items of one collection: sort key, attributes.
    pub(crate) fn collection(&self, partition: &str) -> impl Iterator<Item = (&str, &Attributes)> {
        let collection = self.collections.get(&hash(partition));
        let rows = collection.into_iter().flat_map(|collection| &collection.rows);
        rows.filter_map(|(sort, row)| Some((sort.as_str(), row.now.as_ref()?)))
    }

    /// The keys that were written since the last call.
    pub(crate) fn take_changed(&mut self) -> Vec<ItemKey> {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn query(&self, query: &RangeQuery, stale: bool) -> Result<ItemPage, TableError> {
        let RangeQuery { range, after, .. } = query;
        check_key(&ItemKey {
            partition: range.partition.clone(),
            sort: range.from.clone(),
        })?;
        if range.from > range.to || range.to.len() > SORT_BYTES || query.limit == 0 {
            return Err(reject(format!("{query:?}")));
        }
        if after
            .as_ref()
            .is_some_and(|after| *after < range.from || *after > range.to)
        {
            return Err(reject("the provided starting key is outside query boundaries"));
        }
        let Some(collection) = self.collections.get(&hash(&range.partition)) else {
            return Ok(ItemPage::default());
        };
        let (mut low, mut high) = (Bound::Included(&range.from), Bound::Included(&range.to));
        if let Some(after) = after {
            let end = if query.descending { &mut high } else { &mut low };
            *end = Bound::Excluded(after);
        }
        let rows = collection.rows.range::<String, _>((low, high));
        let rows: Box<dyn Iterator<Item = (&String, &StoredItem)>> = if query.descending {
            Box::new(rows.rev())
        } else {
            Box::new(rows)
        };
        let items = rows.filter_map(|(sort, row)| item(&range.partition, sort, row.version(stale)?));
        Ok(page(items, query.limit))
    }

    pub(super) fn scan(&self, after: Option<&ItemKey>, limit: usize) -> Result<ItemPage, TableError> {
        if limit == 0 {
            return Err(reject("a scan with the limit 0"));
        }
        let first = after.map_or(0, |after| hash(&after.partition));
        let items = self.collections.range(first..).flat_map(|(at, collection)| {
            let from = match after {
                Some(after) if *at == first => Bound::Excluded(after.sort.as_str()),
                _ => Bound::Unbounded,
            };
            let rows = collection.rows.range::<str, _>((from, Bound::Unbounded));
            rows.filter_map(|(sort, row)| item(&collection.partition, sort, row.now.as_ref()?))
        });
        Ok(page(items, limit))
    }

    /// Applies all writes, or returns the indices of those whose conditions do not hold.
    pub(super) fn write(&mut self, writes: &[Write]) -> Result<Written, TableError> {
        let mut refused = Vec::new();
        let mut changes = Vec::new();
        let mut bytes = 0;
        for (index, write) in writes.iter().enumerate() {
            let key = key_of(write);
            check_key(key)?;
            let old = self.row(key).and_then(|row| row.now.as_ref());
            if !is_met(condition_of(write), old) {
                refused.push(index);
                continue;
            }
            let before = old.map_or(0, |old| size(key, old));
            let new = outcome(write, old);
            let after = match &new {
                Some(Some(new)) => size(key, new),
                _ => 0,
            };
            if after > ITEM_BYTES {
                return Err(reject(format!("an item of {after} bytes: {key:?}")));
            }
            bytes += before.max(after);
            changes.extend(new.map(|new| (key, new)));
        }
        if bytes > TRANSACTION_BYTES {
            return Err(reject(format!("a transaction of {bytes} bytes")));
        }
        if !refused.is_empty() {
            return Ok(Written::Refused(refused));
        }
        for (key, new) in changes {
            let collection = self.collections.entry(hash(&key.partition)).or_default();
            if collection.partition.is_empty() {
                collection.partition.clone_from(&key.partition);
            }
            let row = collection.rows.entry(key.sort.clone()).or_default();
            row.before = std::mem::replace(&mut row.now, new);
            self.changed.push(key.clone());
        }
        Ok(Written::Done)
    }

    pub(super) fn transact(&mut self, writes: &[Write], token: &str) -> Result<Written, TableError> {
        let positions: Vec<_> = writes.iter().map(|write| ItemPosition::of(key_of(write))).collect();
        check_batch(&positions, TRANSACTION_ITEMS)?;
        if token.is_empty() || token.len() > 36 {
            return Err(reject("a token has 1 to 36 bytes"));
        }
        if let Some(done) = self.tokens.get(token) {
            return if done == writes {
                Ok(Written::Done)
            } else {
                Err(reject("IdempotentParameterMismatch"))
            };
        }
        let written = self.write(writes)?;
        if written == Written::Done {
            self.tokens.insert(token.to_owned(), writes.to_vec());
        }
        Ok(written)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it ends an iterator's filter_map")]
fn item(partition: &str, sort: &str, attributes: &Attributes) -> Option<Item> {
    Some(Item {
        key: ItemKey {
            partition: partition.to_owned(),
            sort: sort.to_owned(),
        },
        attributes: attributes.clone(),
    })
}

/// Ends a page at the limit or after the item that fills it. Such a page always says that there may be more.
fn page(items: impl Iterator<Item = Item>, limit: usize) -> ItemPage {
    let mut found = ItemPage::default();
    let mut bytes = 0;
    for item in items {
        bytes += size(&item.key, &item.attributes);
        let key = item.key.clone();
        found.items.push(item);
        if found.items.len() == limit || bytes >= PAGE_BYTES {
            found.more_after = Some(key);
            break;
        }
    }
    found
}
