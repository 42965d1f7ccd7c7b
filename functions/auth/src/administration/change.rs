//! What a change of one account means for the state: counts, and which tokens are withdrawn.
//!
//! All of it follows from the account before and after. So no change can take something away and forget to withdraw the
//! tokens that were issued before.

use registry::auth::RepositoryGrant;
use registry::store::Timestamp;
use registry::store::access::{AccessState, Account, AccountChange, AccountKey, Withdrawn};

use super::{AdministrationError, LastAdmin};
use crate::grant;

/// The state and the change of the account, from `before` to `after`; `None` is an account that does not exist. Sets the
/// generation of `after`.
///
/// | what the account loses | tokens |
/// |---|---|
/// | that it exists, that it is enabled, or its password | of an earlier generation are withdrawn |
/// | a group, a grant, or part of the scope of a key | of an earlier generation are withdrawn |
/// | a key | that were issued for the key are withdrawn |
/// | a key, after [as many others](Withdrawn::MAX_KEYS) | of an earlier generation are withdrawn |
pub(super) fn of_account(
    state: &AccessState,
    before: Option<&Account>,
    after: Option<Account>,
    now: Timestamp,
    last_admin: LastAdmin,
) -> Result<(AccessState, Option<AccountChange>), AdministrationError> {
    let mut next = AccessState {
        version: state.version + 1,
        ..state.clone()
    };
    let was_admin = before.is_some_and(Account::is_active_admin);
    let is_admin = after.as_ref().is_some_and(Account::is_active_admin);
    next.admins = counted(state.admins, was_admin, is_admin);
    next.accounts = counted(state.accounts, before.is_some(), after.is_some());
    next.had_admin |= is_admin;
    next.withdrawn.bound(now);
    if let Some(before) = before
        && was_admin
        && next.admins == 0
        && last_admin == LastAdmin::Stays
    {
        return Err(AdministrationError::LastAdmin(before.name.clone()));
    }
    let change = match (before, after) {
        (None, None) => None,
        (None, Some(mut account)) => {
            // The tokens of an earlier account of this name stay withdrawn, and those of this one are good.
            let withdrawn = next.withdrawn.principals.get(account.principal().as_str());
            let lowest = withdrawn.map_or(0, |entry| entry.generation);
            account.generation = Account::next_generation(None, now).max(lowest);
            Some(AccountChange::Put(Box::new(account)))
        }
        (Some(before), None) => {
            let generation = Account::next_generation(Some(before.generation), now);
            next.withdrawn.withdraw_principal(&before.principal(), generation, now);
            Some(AccountChange::Remove(before.name.clone()))
        }
        (Some(before), Some(mut account)) => {
            account.generation = before.generation;
            let removed = before.keys.iter().filter(|(id, _)| !account.keys.contains_key(id));
            let removed = removed.filter(|(_, key)| !has_outlived_its_tokens(key, now));
            let removed: Vec<_> = removed.map(|(id, _)| *id).collect();
            if loses(before, &account) || !next.withdrawn.has_room_for_keys(removed.len()) {
                // No token of this generation is issued for the keys that are gone.
                account.generation = Account::next_generation(Some(before.generation), now);
                next.withdrawn
                    .withdraw_principal(&before.principal(), account.generation, now);
            } else {
                for id in removed {
                    next.withdrawn.withdraw_key(id, now);
                }
            }
            Some(AccountChange::Put(Box::new(account)))
        }
    };
    Ok((next, change))
}

/// Whether a key ended so long ago that every token that was issued for it has ended too.
pub(super) fn has_outlived_its_tokens(key: &AccountKey, now: Timestamp) -> bool {
    key.expires
        .is_some_and(|ended| now.millis_since(ended) >= Withdrawn::LIFETIME_MS)
}

/// Whether an account loses something that its tokens hold.
fn loses(before: &Account, after: &Account) -> bool {
    (after.disabled && !before.disabled)
        || !before.groups.is_subset(&after.groups)
        || !grant::keeps(&after.grants, &before.grants)
        || (before.password.is_some() && before.password != after.password)
        || before.keys.iter().any(|(id, old)| {
            let new = after.keys.get(id);
            new.is_some_and(|new| is_narrower(new.scope.as_deref(), old.scope.as_deref()))
        })
}

/// Whether the scope of a key has lost something. Without a scope a key is good for everything that its account may do.
fn is_narrower(after: Option<&[RepositoryGrant]>, before: Option<&[RepositoryGrant]>) -> bool {
    match (after, before) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(after), Some(before)) => !grant::keeps(after, before),
    }
}

fn counted(count: u64, before: bool, after: bool) -> u64 {
    match (before, after) {
        (false, true) => count.saturating_add(1),
        (true, false) => count.saturating_sub(1),
        _ => count,
    }
}
