//! The keys that sign upload tokens.

use std::cmp::Reverse;

use registry::store::StoreError;
use registry::store::sessions::SigningKey;

use crate::keys as item_keys;
use crate::records::{FirstKey, SigningKeyRow};
use crate::retrying::Requests;
use crate::table::{Write, WriteCondition};

/// More keys than are ever in use at once.
const MAXIMUM_KEYS: usize = 1000;

/// Returns all keys, newest first. Stores `candidate` if there are none.
pub(super) async fn keys(requests: &Requests<'_>, candidate: &SigningKey) -> Result<Vec<SigningKey>, StoreError> {
    let stored = stored(requests).await?;
    if !stored.is_empty() {
        return Ok(stored);
    }
    // One fixed row decides a race between first calls. The same transaction writes the key, so that every key that a
    // call can read also stays.
    let put = |item| Write::Put {
        item,
        condition: WriteCondition::Absent,
    };
    let writes = [put(FirstKey::item(candidate.id)), put(SigningKeyRow::item(candidate))];
    requests.transact(&writes).await?;
    self::stored(requests).await
}

async fn stored(requests: &Requests<'_>) -> Result<Vec<SigningKey>, StoreError> {
    let (items, _) = requests
        .first(item_keys::signing_keys(), None, false, MAXIMUM_KEYS)
        .await?;
    let mut keys = items.iter().map(SigningKeyRow::read).collect::<Result<Vec<_>, _>>()?;
    keys.sort_by_key(|key| Reverse((key.created, key.id)));
    Ok(keys)
}
