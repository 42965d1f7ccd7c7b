//! The seeds of the keys that sign tokens.

use registry::store::StoreError;
use registry::store::access::{KeyId, TokenSeed};

use super::keys;
use super::rows::SeedRow;
use crate::retrying::{Requests, WriteOutcome};
use crate::table::{Write, WriteCondition};

/// All seeds that can be read. A damaged item is left out: it must not keep the other keys from signing.
pub(super) async fn all(requests: &Requests<'_>) -> Result<Vec<TokenSeed>, StoreError> {
    let (items, _) = requests.first(keys::token_seeds(), None, false, usize::MAX).await?;
    let mut seeds = Vec::new();
    for item in &items {
        match SeedRow::read(item) {
            Ok(seed) => seeds.push(seed),
            Err(error) => tracing::error!(%error, "a seed of the keys that sign tokens is not used"),
        }
    }
    Ok(seeds)
}

pub(super) async fn add(requests: &Requests<'_>, seed: &TokenSeed) -> Result<bool, StoreError> {
    let write = Write::Put {
        item: SeedRow::item(seed),
        condition: WriteCondition::Absent,
    };
    let perhaps_done = match requests.write(&write).await? {
        WriteOutcome::Done => return Ok(true),
        WriteOutcome::Refused { perhaps_done } => perhaps_done,
    };
    let Some(item) = requests.get(&keys::token_seed(seed.kid)).await? else {
        return Ok(false);
    };
    match SeedRow::read(&item) {
        Ok(found) => return Ok(perhaps_done && found == *seed),
        Err(error) => tracing::error!(%error, "a seed of the keys that sign tokens is replaced"),
    }
    let write = Write::Put {
        item: SeedRow::item(seed),
        condition: SeedRow::is_still(&item),
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
