//! The days on which keys were last used.

use std::collections::BTreeMap;

use registry::auth::{AccountName, CredentialId};
use registry::store::StoreError;

use super::keys;
use crate::records::{ItemFields, attributes};
use crate::retrying::Requests;
use crate::table::{Item, Value, Write, WriteCondition};

/// More keys than an account has had since it was made, as long as nobody makes keys by program.
const MAXIMUM_KEYS: usize = 10_000;

/// Records a day unless a later one is recorded.
pub(super) async fn record(
    requests: &Requests<'_>,
    account: &AccountName,
    key: CredentialId,
    day: u32,
) -> Result<(), StoreError> {
    let day = u64::from(day);
    let write = Write::Update {
        key: keys::last_use(account, key),
        set: vec![(attributes::DAY, Value::N(day))],
        remove: Vec::new(),
        condition: WriteCondition::Any(vec![
            WriteCondition::Absent,
            WriteCondition::Below(attributes::DAY, day),
        ]),
    };
    // Refused: that day or a later one is recorded.
    requests.write(&write).await.map(drop)
}

async fn rows(requests: &Requests<'_>, account: &AccountName) -> Result<Vec<Item>, StoreError> {
    let found = requests.first(keys::last_uses(account), None, false, MAXIMUM_KEYS);
    found.await.map(|(items, _)| items)
}

pub(super) async fn of(
    requests: &Requests<'_>,
    account: &AccountName,
) -> Result<BTreeMap<CredentialId, u32>, StoreError> {
    let mut days = BTreeMap::new();
    for item in rows(requests, account).await? {
        if let Some(key) = keys::used_key(&item.key.sort) {
            days.insert(key, ItemFields(&item).small(attributes::DAY)?);
        }
    }
    Ok(days)
}

/// Deletes the days of a removed account. They are in another table than the account, so they are deleted after it. A
/// failure leaves rows of keys that never exist again; it does not fail the removal, which is done.
pub(super) async fn forget(requests: &Requests<'_>, account: &AccountName) {
    let forgotten = async {
        let rows = rows(requests, account).await?;
        let deletes: Vec<Write> = rows.into_iter().map(|item| Write::delete(item.key)).collect();
        requests.write_all(&deletes).await
    };
    if let Err(error) = forgotten.await {
        tracing::warn!(%account, %error, "the days of last use of a removed account were not deleted");
    }
}
