//! The seeds of the keys that sign tokens.

use registry::store::StoreError;
use registry::store::access::{KeyId, TokenSeed};

use super::keys;
use super::rows::SeedRow;
use crate::retrying::{Requests, WriteOutcome};
use crate::table::{Write, WriteCondition};

/// More keys than are ever in use at once.
const MAXIMUM_SEEDS: usize = 1000;

pub(super) async fn all(requests: &Requests<'_>) -> Result<Vec<TokenSeed>, StoreError> {
    let (items, _) = requests.first(keys::token_seeds(), None, false, MAXIMUM_SEEDS).await?;
    items.iter().map(SeedRow::read).collect()
}

pub(super) async fn add(requests: &Requests<'_>, seed: &TokenSeed) -> Result<bool, StoreError> {
    let write = Write::Put {
        item: SeedRow::item(seed),
        condition: WriteCondition::Absent,
    };
    match requests.write(&write).await? {
        WriteOutcome::Done => Ok(true),
        WriteOutcome::Refused { perhaps_done: false } => Ok(false),
        WriteOutcome::Refused { perhaps_done: true } => {
            let item = requests.get(&keys::token_seed(seed.kid)).await?;
            Ok(item.as_ref().map(SeedRow::read).transpose()?.as_ref() == Some(seed))
        }
    }
}

pub(super) async fn remove(requests: &Requests<'_>, kid: KeyId) -> Result<(), StoreError> {
    requests.write(&Write::delete(keys::token_seed(kid))).await.map(drop)
}
