//! A change of administration.

use registry::store::Timestamp;
use registry::store::access::{AccessChange, AccountChange, Applied};

use super::super::rows::{OperationFailure, Rows};
use super::{account, audit, policy, state};

/// Makes the change, if the state has the version from which it was made.
pub(super) fn apply(rows: &Rows<'_>, change: &AccessChange, now: Timestamp) -> Result<Applied, OperationFailure> {
    if let Some(event) = &change.event
        && audit::has(rows, event)?
    {
        // The change was made before, and its answer was lost.
        return Ok(Applied::Applied);
    }
    if state::version(rows)?.checked_add(1) != Some(change.state.version) {
        return Ok(Applied::Conflict);
    }
    state::put(rows, &change.state)?;
    match &change.account {
        Some(AccountChange::Put(account)) => account::put(rows, account)?,
        Some(AccountChange::Remove(name)) => account::remove(rows, name)?,
        None => {}
    }
    if let Some(policy) = &change.policy {
        policy::add(rows, policy)?;
    }
    if let Some(event) = &change.event {
        audit::record(rows, event, now)?;
    }
    if matches!(change.account, Some(AccountChange::Put(_))) || change.policy.is_some() {
        rows.require_access()?;
    }
    Ok(Applied::Applied)
}
