//! Keys of accounts.

use std::collections::BTreeMap;

use registry::auth::{AccountName, CredentialId, RepositoryGrant};
use registry::store::Timestamp;
use registry::store::access::{Account, AccountKey, AuditKind};

use super::limits::check;
use super::{AccountRef, Administration, AdministrationError, Author, Changed, LastAdmin, change};
use crate::grant;
use crate::key::Key;

/// The longest time for which a key still works after it was replaced, in milliseconds: 365 days.
pub const MAX_OVERLAP_MS: u64 = 365 * 24 * 60 * 60 * 1000;

/// A key that is to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewKey {
    /// What it may be used for, at most; `None`: whatever the account may do. At most [`Account::MAX_GRANTS`] grants.
    pub scope: Option<Vec<RepositoryGrant>>,
    /// When it ends; `None`: never.
    pub expires: Option<Timestamp>,
}

/// A key that was made.
#[derive(Clone, Debug)]
pub struct IssuedKey {
    /// Its id.
    pub id: CredentialId,
    /// The key itself: the only time that it is known.
    pub key: Key,
    /// What is stored of it.
    pub record: AccountKey,
}

/// A key that was replaced.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// The key in its place, with the same scope.
    pub new: IssuedKey,
    /// When the old key ends. `None`: it is removed.
    pub old_ends: Option<Timestamp>,
}

/// What changes in a key. What is `None` stays.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeyEdit {
    /// What it may be used for from now on, at most. At most [`Account::MAX_GRANTS`] grants.
    pub scope: Option<Vec<RepositoryGrant>>,
    /// When it ends.
    pub expires: Option<KeyEnd>,
}

/// When a key ends from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyEnd {
    /// Never.
    Never,
    /// At this time.
    At(Timestamp),
}

impl KeyEnd {
    /// The time; `None`: never.
    const fn timestamp(self) -> Option<Timestamp> {
        match self {
            Self::Never => None,
            Self::At(at) => Some(at),
        }
    }
}

impl Administration {
    /// The days on which the keys of an account were last used: days since the Unix epoch.
    pub async fn last_uses(&self, account: &AccountName) -> Result<BTreeMap<CredentialId, u32>, AdministrationError> {
        Ok(self.store.last_uses(self.cx(), account).await?)
    }

    /// Makes a key. If the account has [`Account::MAX_KEYS`] keys, those that ended long ago make room for it.
    pub async fn add_key(
        &self,
        author: &Author,
        account: AccountRef<'_>,
        new: &NewKey,
    ) -> Result<IssuedKey, AdministrationError> {
        self.persist(|| self.try_add_key(author, account, new)).await
    }

    async fn try_add_key(
        &self,
        author: &Author,
        account: AccountRef<'_>,
        new: &NewKey,
    ) -> Result<IssuedKey, AdministrationError> {
        let (state, before) = self.state_then_existing(account).await?;
        let now = self.now();
        let mut after = before.clone();
        let key = self.issue(author, &mut after, new, now)?;
        check(&after)?;
        let mut event = self.event(author, AuditKind::KeyCreated, reference(&before, key.id), now);
        event.detail = Some(detail(&key.record));
        let (state, change) = change::of_account(&state, Some(&before), Some(after), now, LastAdmin::Stays)?;
        self.put(state, change, event).await?;
        Ok(key)
    }

    /// Changes the scope or the end of a key that has not ended. If its scope loses something, the tokens that the account got
    /// before are withdrawn. A token lives to its own end when the key ends earlier, as after [`Administration::rotate_key`].
    pub async fn change_key(
        &self,
        author: &Author,
        account: AccountRef<'_>,
        id: CredentialId,
        edit: &KeyEdit,
    ) -> Result<Changed<Account>, AdministrationError> {
        self.persist(|| self.try_change_key(author, account, id, edit)).await
    }

    async fn try_change_key(
        &self,
        author: &Author,
        account: AccountRef<'_>,
        id: CredentialId,
        edit: &KeyEdit,
    ) -> Result<Changed<Account>, AdministrationError> {
        let (state, before) = self.state_then_existing(account).await?;
        let now = self.now();
        let old = find_usable(&before, id, now)?.clone();
        let mut new = old.clone();
        if let Some(scope) = &edit.scope {
            new.scope = Some(checked_scope(scope)?);
        }
        if let Some(end) = edit.expires {
            new.expires = checked_end(end.timestamp(), now)?;
        }
        if new == old {
            return Ok(Changed::No(before));
        }
        let mut after = before.clone();
        after.keys.insert(id, new.clone());
        check(&after)?;
        let mut event = self.event(author, AuditKind::KeyChanged, reference(&before, id), now);
        event.before = Some(detail(&old));
        event.after = Some(detail(&new));
        let (state, change) = change::of_account(&state, Some(&before), Some(after), now, LastAdmin::Stays)?;
        self.put(state, change, event).await.map(Changed::Yes)
    }

    /// Makes a key with the scope of another one, which ends `overlap_ms` milliseconds later, at most [`MAX_OVERLAP_MS`].
    /// Without an overlap the other one is removed at once, and tokens that were issued for it are withdrawn.
    pub async fn rotate_key(
        &self,
        author: &Author,
        account: AccountRef<'_>,
        id: CredentialId,
        overlap_ms: u64,
        expires: Option<Timestamp>,
    ) -> Result<Rotated, AdministrationError> {
        self.persist(|| self.try_rotate_key(author, account, id, overlap_ms, expires))
            .await
    }

    async fn try_rotate_key(
        &self,
        author: &Author,
        account: AccountRef<'_>,
        id: CredentialId,
        overlap_ms: u64,
        expires: Option<Timestamp>,
    ) -> Result<Rotated, AdministrationError> {
        if overlap_ms > MAX_OVERLAP_MS {
            return Err(AdministrationError::LongOverlap);
        }
        let (state, before) = self.state_then_existing(account).await?;
        let now = self.now();
        let old = find_usable(&before, id, now)?.clone();
        let ends = now.plus_millis(overlap_ms);
        let ends = old.expires.map_or(ends, |expires| expires.min(ends));
        let mut after = before.clone();
        let old_ends = (overlap_ms > 0).then_some(ends);
        match old_ends {
            Some(ends) => {
                let old = AccountKey {
                    expires: Some(ends),
                    ..old.clone()
                };
                after.keys.insert(id, old);
            }
            None => drop(after.keys.remove(&id)),
        }
        let new = NewKey {
            scope: old.scope,
            expires,
        };
        let new = self.issue(author, &mut after, &new, now)?;
        check(&after)?;
        let mut event = self.event(author, AuditKind::KeyRotated, reference(&before, id), now);
        event.after = Some(reference(&before, new.id));
        event.detail = Some(detail(&new.record));
        let (state, change) = change::of_account(&state, Some(&before), Some(after), now, LastAdmin::Stays)?;
        self.put(state, change, event).await?;
        Ok(Rotated { new, old_ends })
    }

    /// Removes a key. Tokens that were issued for it are withdrawn.
    pub async fn remove_key(
        &self,
        author: &Author,
        account: AccountRef<'_>,
        id: CredentialId,
    ) -> Result<AccountKey, AdministrationError> {
        self.persist(|| self.try_remove_key(author, account, id)).await
    }

    async fn try_remove_key(
        &self,
        author: &Author,
        account: AccountRef<'_>,
        id: CredentialId,
    ) -> Result<AccountKey, AdministrationError> {
        let (state, before) = self.state_then_existing(account).await?;
        let now = self.now();
        let removed = find(&before, id)?.clone();
        let mut after = before.clone();
        after.keys.remove(&id);
        let event = self.event(author, AuditKind::KeyRevoked, reference(&before, id), now);
        let (state, change) = change::of_account(&state, Some(&before), Some(after), now, LastAdmin::Stays)?;
        self.put(state, change, event).await?;
        Ok(removed)
    }

    /// Makes a key, and adds it to `account`.
    pub(super) fn issue(
        &self,
        author: &Author,
        account: &mut Account,
        new: &NewKey,
        now: Timestamp,
    ) -> Result<IssuedKey, AdministrationError> {
        let expires = checked_end(new.expires, now)?;
        let scope = match &new.scope {
            Some(scope) => Some(checked_scope(scope)?),
            None => None,
        };
        make_room(account, now);
        let key = loop {
            let key = Key::generate(&account.name, &*self.environment);
            if !account.keys.contains_key(&key.id()) {
                break key;
            }
        };
        let record = AccountKey {
            hash: key.hash(),
            scope,
            created: now,
            by: author.principal.clone(),
            expires,
        };
        account.keys.insert(key.id(), record.clone());
        Ok(IssuedKey {
            id: key.id(),
            key,
            record,
        })
    }
}

/// The end of a key, which must be in the future.
fn checked_end(expires: Option<Timestamp>, now: Timestamp) -> Result<Option<Timestamp>, AdministrationError> {
    if expires.is_some_and(|expires| expires <= now) {
        return Err(AdministrationError::Expired);
    }
    Ok(expires)
}

/// The scope of a key, with one grant for each pattern. [`check`] counts them.
fn checked_scope(scope: &[RepositoryGrant]) -> Result<Vec<RepositoryGrant>, AdministrationError> {
    let mut checked = Vec::new();
    for part in scope {
        if part.actions.is_empty() {
            return Err(AdministrationError::EmptyGrant);
        }
        grant::add(&mut checked, part);
    }
    Ok(checked)
}

/// Whether a key is refused because of its age.
fn has_ended(key: &AccountKey, now: Timestamp) -> bool {
    key.expires.is_some_and(|expires| expires <= now)
}

/// Removes the key that ended first, if the account has as many keys as it may. No token that was issued for a removed key
/// lives any more. Keys that have ended stay otherwise, so that a client that still has one learns why it is refused.
fn make_room(account: &mut Account, now: Timestamp) {
    if account.keys.len() < Account::MAX_KEYS {
        return;
    }
    let keys = account.keys.iter();
    let ended = keys.filter(|(_, key)| change::has_outlived_its_tokens(key, now));
    if let Some((_, id)) = ended.map(|(id, key)| (key.expires, *id)).min() {
        account.keys.remove(&id);
    }
}

fn find(account: &Account, id: CredentialId) -> Result<&AccountKey, AdministrationError> {
    account.keys.get(&id).ok_or_else(|| AdministrationError::NoKey {
        name: account.name.clone(),
        id,
    })
}

/// The key, if it has not ended.
fn find_usable(account: &Account, id: CredentialId, now: Timestamp) -> Result<&AccountKey, AdministrationError> {
    let key = find(account, id)?;
    if has_ended(key, now) {
        return Err(AdministrationError::KeyEnded {
            name: account.name.clone(),
            id,
        });
    }
    Ok(key)
}

/// What the audit trail calls a key: `ci.3f9aK2dQ`.
fn reference(account: &Account, id: CredentialId) -> String {
    format!("{}.{id}", account.name)
}

/// What the audit trail says of a key.
fn detail(key: &AccountKey) -> String {
    let scope = key.scope.as_ref().map_or_else(
        || "everything that the account may do".to_owned(),
        |scope| scope.iter().map(grant::text).collect::<Vec<_>>().join(" "),
    );
    let expires = key.expires.map_or_else(
        || "never ends".to_owned(),
        |at| format!("ends at {} ms since the Unix epoch", at.0),
    );
    format!("scope: {scope}; {expires}")
}
