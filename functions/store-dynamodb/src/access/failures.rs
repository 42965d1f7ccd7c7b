//! Counters of wrong passwords.

use registry::store::access::{FailureKey, Failures};
use registry::store::{Context, StoreError, Timestamp};

use super::keys;
use super::rows::FailuresRow;
use crate::records::has_version;
use crate::retrying::{Requests, WriteOutcome};
use crate::table::{Write, WriteCondition};

async fn row(requests: &Requests<'_>, key: FailureKey) -> Result<Option<FailuresRow>, StoreError> {
    let item = requests.get(&keys::failures(key)).await?;
    item.as_ref().map(FailuresRow::read).transpose()
}

pub(super) async fn get(requests: &Requests<'_>, now: Timestamp, key: FailureKey) -> Result<Failures, StoreError> {
    let row = row(requests, key).await?.filter(|row| !row.has_ended(now));
    Ok(row.map(|row| row.failures).unwrap_or_default())
}

pub(super) async fn put(
    requests: &Requests<'_>,
    cx: Context,
    key: FailureKey,
    failures: &Failures,
) -> Result<bool, StoreError> {
    let condition = if failures.version == 0 {
        WriteCondition::Any(vec![WriteCondition::Absent, FailuresRow::ended(cx.now)])
    } else {
        has_version(failures.version)
    };
    let version = failures.version + 1;
    let write = FailuresRow::update(cx, key, failures, version, condition);
    match requests.write(&write).await? {
        WriteOutcome::Done => Ok(true),
        WriteOutcome::Refused { perhaps_done: false } => Ok(false),
        WriteOutcome::Refused { perhaps_done: true } => {
            let row = row(requests, key).await?;
            Ok(row.is_some_and(|row| row.failures.version == version && row.writer == cx.uid))
        }
    }
}

pub(super) async fn clear(requests: &Requests<'_>, key: FailureKey) -> Result<(), StoreError> {
    requests.write(&Write::delete(keys::failures(key))).await.map(drop)
}
