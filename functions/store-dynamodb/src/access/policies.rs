//! Reads of the policy.

use registry::store::access::PolicyVersion;
use registry::store::{Page, StoreError};

use super::keys;
use super::rows::{PolicyRow, PolicyVersionRow};
use crate::retrying::Requests;

/// The canonical JSON of a version: one read for the version in force, which is the one that instances load; two for others.
pub(super) async fn document(requests: &Requests<'_>, version: u64) -> Result<Option<String>, StoreError> {
    for key in [keys::policy(), keys::policy_version(version)] {
        let item = requests.get(&key).await?;
        let row = item.as_ref().map(PolicyRow::read).transpose()?;
        match row {
            Some(row) if row.version == version => return Ok(Some(row.document)),
            Some(_) => {}
            // There is a policy in force as soon as there is any version.
            None => return Ok(None),
        }
    }
    Ok(None)
}

pub(super) async fn version(requests: &Requests<'_>, version: u64) -> Result<Option<PolicyVersion>, StoreError> {
    let item = requests.get(&keys::policy_version(version)).await?;
    item.as_ref().map(PolicyVersionRow::read).transpose()
}

pub(super) async fn page(
    requests: &Requests<'_>,
    before: Option<u64>,
    limit: usize,
) -> Result<Page<PolicyVersion>, StoreError> {
    let Some(up_to) = before.map_or(Some(u64::MAX), |before| before.checked_sub(1)) else {
        let items = Vec::new();
        return Ok(Page { items, more: false });
    };
    let (items, more) = requests.first(keys::policy_versions(up_to), None, true, limit).await?;
    let items = items.iter().map(PolicyVersionRow::read).collect::<Result<_, _>>()?;
    Ok(Page { items, more })
}
