//! The seeds of the keys that sign tokens.

use registry::store::StoreError;
use registry::store::access::TokenSeed;

use super::super::keys;
use crate::records::{ItemBuilder, ItemFields, attributes, damaged};
use crate::table::{Item, WriteCondition};

/// A seed.
pub(in crate::access) struct SeedRow;

impl SeedRow {
    pub(in crate::access) fn item(seed: &TokenSeed) -> Item {
        ItemBuilder::default()
            .bytes(attributes::SECRET, seed.seed.to_vec())
            .timestamp(attributes::CREATED, seed.created)
            .item(keys::token_seed(seed.kid))
    }

    pub(in crate::access) fn read(item: &Item) -> Result<TokenSeed, StoreError> {
        let fields = ItemFields(item);
        let kid = item.key.sort.split_once('#').and_then(|(_, kid)| kid.parse().ok());
        let seed = fields.bytes(attributes::SECRET)?;
        Ok(TokenSeed {
            kid: kid.ok_or_else(|| damaged(&item.key, "not the id of a key"))?,
            seed: seed
                .as_ref()
                .try_into()
                .map_err(|_| damaged(&item.key, "the seed has the wrong length"))?,
            created: fields.timestamp(attributes::CREATED)?,
        })
    }

    /// The item was not changed since it was read.
    pub(in crate::access) fn is_still(item: &Item) -> WriteCondition {
        let unchanged = [attributes::SECRET, attributes::CREATED].map(|name| match item.attributes.get(name) {
            Some(value) => WriteCondition::Is(name, value.clone()),
            None => WriteCondition::Lacks(name),
        });
        WriteCondition::All(unchanged.into())
    }
}
