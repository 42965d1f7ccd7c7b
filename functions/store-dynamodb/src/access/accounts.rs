//! Reads of the state and of accounts.

use std::collections::BTreeSet;

use registry::auth::AccountName;
use registry::store::access::{AccessState, Account};
use registry::store::{Page, StoreError};

use super::keys;
use super::rows::{AccountRow, StateRow};
use crate::keys::start_after;
use crate::retrying::Requests;
use crate::table::Item;

/// The maximum length of the name of an account, in bytes.
const LONGEST_NAME: usize = 64;

fn state_of(item: Option<&Item>) -> Result<AccessState, StoreError> {
    Ok(item.map(StateRow::read).transpose()?.unwrap_or_default())
}

pub(super) async fn state(requests: &Requests<'_>) -> Result<AccessState, StoreError> {
    state_of(requests.get(&keys::state()).await?.as_ref())
}

pub(super) async fn account(requests: &Requests<'_>, name: &AccountName) -> Result<Option<Account>, StoreError> {
    let item = requests.get(&keys::account(name)).await?;
    item.as_ref().map(AccountRow::read).transpose()
}

/// Both in one batch. Each is strongly consistent by itself; a change between the two reads is as if the caller had read
/// the second one a moment later.
pub(super) async fn state_and_account(
    requests: &Requests<'_>,
    name: &AccountName,
) -> Result<(AccessState, Option<Account>), StoreError> {
    let (state, account) = (keys::state(), keys::account(name));
    let found = requests
        .get_all(&BTreeSet::from([state.clone(), account.clone()]))
        .await?;
    let account = found.get(&account).map(AccountRow::read).transpose()?;
    Ok((state_of(found.get(&state))?, account))
}

pub(super) async fn page(
    requests: &Requests<'_>,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<Account>, StoreError> {
    let after = after.map(|after| start_after(keys::ACCOUNT, after, LONGEST_NAME));
    let (items, more) = requests.first(keys::accounts(), after, false, limit).await?;
    let items = items.iter().map(AccountRow::read).collect::<Result<_, _>>()?;
    Ok(Page { items, more })
}
