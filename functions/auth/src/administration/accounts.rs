//! Accounts of users and robots.

use std::collections::{BTreeMap, BTreeSet};

use registry::auth::{AccountName, GroupName, RepositoryGrant};
use registry::store::Page;
use registry::store::access::{
    AccessChange, AccessState, Account, AccountChange, AccountKind, AuditEvent, AuditKind, PasswordHash,
};

use super::keys::{IssuedKey, NewKey};
use super::limits::check;
use super::{AccountRef, Administration, AdministrationError, Author, Changed, LastAdmin, change, expected};
use crate::grant;

/// Accounts that are read in one call when all of them are read.
const PAGE: usize = 100;

/// An account that is to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewAccount {
    /// Its name.
    pub name: AccountName,
    /// User or robot.
    pub kind: AccountKind,
    /// Its groups, at most [`Account::MAX_GROUPS`].
    pub groups: BTreeSet<GroupName>,
    /// What a robot may do besides what the policy allows, at most [`Account::MAX_GRANTS`]. Grants for the same pattern
    /// become one.
    pub grants: Vec<RepositoryGrant>,
    /// The password of a user.
    pub password: Option<PasswordHash>,
    /// Its first key.
    pub key: Option<NewKey>,
}

impl NewAccount {
    /// An account without groups, grants, password and key.
    #[must_use]
    pub fn new(name: AccountName, kind: AccountKind) -> Self {
        Self {
            name,
            kind,
            groups: BTreeSet::new(),
            grants: Vec::new(),
            password: None,
            key: None,
        }
    }
}

/// An account that was made.
#[derive(Clone, Debug)]
pub struct Created {
    /// The account.
    pub account: Account,
    /// Its first key, if one was asked for.
    pub key: Option<IssuedKey>,
}

/// What changes in an account. What is added may be there already; what is removed must be there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AccountEdit {
    /// Groups that it joins.
    pub add_groups: BTreeSet<GroupName>,
    /// Groups that it leaves.
    pub remove_groups: BTreeSet<GroupName>,
    /// Grants that it gets.
    pub add_grants: Vec<RepositoryGrant>,
    /// Grants that it loses.
    pub remove_grants: Vec<RepositoryGrant>,
    /// Whether it is disabled from now on.
    pub disabled: Option<bool>,
}

/// When an account is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    /// As long as there is no administrator and never was one.
    BeforeAdmins,
}

impl Administration {
    /// An account. One read.
    pub async fn account(&self, account: AccountRef<'_>) -> Result<Account, AdministrationError> {
        expected(account, self.store.account(self.cx(), account.name).await?)
    }

    /// Accounts in ASCII order of their names, at most `limit` (1 or more), after `after`.
    pub async fn accounts(&self, after: Option<&str>, limit: usize) -> Result<Page<Account>, AdministrationError> {
        Ok(self.store.accounts(self.cx(), after, limit).await?)
    }

    /// The members of every group that has some, in ASCII order. Reads all accounts.
    pub async fn groups(&self) -> Result<BTreeMap<GroupName, Vec<AccountName>>, AdministrationError> {
        let mut groups = BTreeMap::<_, Vec<_>>::new();
        self.each_account(|account| {
            for group in account.groups {
                groups.entry(group).or_default().push(account.name.clone());
            }
        })
        .await?;
        Ok(groups)
    }

    /// Calls `show` with every account, in ASCII order of their names.
    pub(super) async fn each_account(&self, mut show: impl FnMut(Account)) -> Result<(), AdministrationError> {
        let mut last: Option<AccountName> = None;
        loop {
            let after = last.as_ref().map(AccountName::as_str);
            let page = self.accounts(after, PAGE).await?;
            let next = page.items.last().map(|account| account.name.clone());
            page.items.into_iter().for_each(&mut show);
            if !page.more || next.is_none() {
                return Ok(());
            }
            last = next;
        }
    }

    /// Makes an account.
    pub async fn create(&self, author: &Author, new: NewAccount) -> Result<Created, AdministrationError> {
        self.persist(|| self.create_when(author, new.clone(), When::Always))
            .await
    }

    /// Makes an account, if there is no administrator and there never was one. An administrator has to be able to make others.
    pub async fn create_before_admins(&self, author: &Author, new: NewAccount) -> Result<Created, AdministrationError> {
        self.persist(|| self.create_when(author, new.clone(), When::BeforeAdmins))
            .await
    }

    async fn create_when(&self, author: &Author, new: NewAccount, when: When) -> Result<Created, AdministrationError> {
        let (state, found) = self.state_then_account(&new.name).await?;
        if when == When::BeforeAdmins && (state.admins > 0 || state.had_admin) {
            return Err(AdministrationError::HasAdmin);
        }
        if let Some(found) = found {
            return Err(AdministrationError::Exists {
                name: found.name,
                kind: found.kind,
            });
        }
        let now = self.now();
        let mut account = Account {
            name: new.name,
            kind: new.kind,
            generation: 0,
            disabled: false,
            groups: new.groups,
            grants: Vec::new(),
            password: new.password,
            keys: BTreeMap::new(),
            created: now,
            by: author.principal.clone(),
        };
        new.grants.iter().for_each(|new| grant::add(&mut account.grants, new));
        let key = match &new.key {
            Some(key) => Some(self.issue(author, &mut account, key, now)?),
            None => None,
        };
        let may_use_api = account.password.is_some() || account.keys.values().any(|key| key.scope.is_none());
        if when == When::BeforeAdmins && account.is_active_admin() && !may_use_api {
            return Err(AdministrationError::NoLogin(account.name));
        }
        check(&account)?;
        let mut event = self.event(author, AuditKind::AccountCreated, account.name.to_string(), now);
        event.after = Some(summary(&account));
        event.detail = key.as_ref().map(|key| format!("with the key {}", key.id));
        let (state, change) = change::of_account(&state, None, Some(account), now, LastAdmin::Stays)?;
        let account = self.put(state, change, event).await?;
        Ok(Created { account, key })
    }

    /// Changes an account.
    pub async fn change(
        &self,
        author: &Author,
        account: AccountRef<'_>,
        edit: &AccountEdit,
        last_admin: LastAdmin,
    ) -> Result<Changed<Account>, AdministrationError> {
        self.persist(|| self.try_change(author, account, edit, last_admin))
            .await
    }

    async fn try_change(
        &self,
        author: &Author,
        account: AccountRef<'_>,
        edit: &AccountEdit,
        last_admin: LastAdmin,
    ) -> Result<Changed<Account>, AdministrationError> {
        let (state, before) = self.state_then_existing(account).await?;
        let after = edited(&before, edit)?;
        if after == before {
            return Ok(Changed::No(before));
        }
        let now = self.now();
        let kind = match (before.disabled, after.disabled) {
            (false, true) => AuditKind::AccountDisabled,
            (true, false) => AuditKind::AccountEnabled,
            _ => AuditKind::AccountChanged,
        };
        let mut event = self.event(author, kind, before.name.to_string(), now);
        if (&before.groups, &before.grants) != (&after.groups, &after.grants) {
            event.before = Some(summary(&before));
            event.after = Some(summary(&after));
        }
        let (state, change) = change::of_account(&state, Some(&before), Some(after), now, last_admin)?;
        self.put(state, change, event).await.map(Changed::Yes)
    }

    /// Gives a user another password, or the first one. Tokens that were issued for the password before are withdrawn.
    pub async fn set_password(
        &self,
        author: &Author,
        name: &AccountName,
        password: PasswordHash,
    ) -> Result<Account, AdministrationError> {
        self.persist(|| self.try_set_password(author, name, password.clone()))
            .await
    }

    async fn try_set_password(
        &self,
        author: &Author,
        name: &AccountName,
        password: PasswordHash,
    ) -> Result<Account, AdministrationError> {
        let (state, before) = self.state_then_existing(name.into()).await?;
        let now = self.now();
        let after = Account {
            password: Some(password),
            ..before.clone()
        };
        check(&after)?;
        let event = self.event(author, AuditKind::AccountPassword, before.name.to_string(), now);
        let (state, change) = change::of_account(&state, Some(&before), Some(after), now, LastAdmin::Stays)?;
        self.put(state, change, event).await
    }

    /// Removes an account with its keys.
    pub async fn remove(
        &self,
        author: &Author,
        account: AccountRef<'_>,
        last_admin: LastAdmin,
    ) -> Result<Account, AdministrationError> {
        self.persist(|| self.try_remove(author, account, last_admin)).await
    }

    async fn try_remove(
        &self,
        author: &Author,
        account: AccountRef<'_>,
        last_admin: LastAdmin,
    ) -> Result<Account, AdministrationError> {
        let (state, before) = self.state_then_existing(account).await?;
        let now = self.now();
        let mut event = self.event(author, AuditKind::AccountRemoved, before.name.to_string(), now);
        event.before = Some(summary(&before));
        let (state, account) = change::of_account(&state, Some(&before), None, now, last_admin)?;
        self.apply(AccessChange {
            state,
            account,
            policy: None,
            event: Some(event),
        })
        .await?;
        Ok(before)
    }

    /// Writes a change that leaves an account, and returns the account.
    pub(super) async fn put(
        &self,
        state: AccessState,
        change: Option<AccountChange>,
        event: AuditEvent,
    ) -> Result<Account, AdministrationError> {
        let Some(AccountChange::Put(account)) = change else {
            return Err(AdministrationError::Conflict);
        };
        self.apply(AccessChange {
            state,
            account: Some(AccountChange::Put(account.clone())),
            policy: None,
            event: Some(event),
        })
        .await?;
        Ok(*account)
    }
}

/// The account after an edit.
fn edited(before: &Account, edit: &AccountEdit) -> Result<Account, AdministrationError> {
    let mut after = before.clone();
    for group in &edit.remove_groups {
        if !after.groups.remove(group) {
            return Err(AdministrationError::NotInGroup {
                name: before.name.clone(),
                group: group.to_string(),
            });
        }
    }
    after.groups.extend(edit.add_groups.iter().cloned());
    for grant in &edit.remove_grants {
        if !grant::remove(&mut after.grants, grant) {
            return Err(AdministrationError::NoGrant {
                name: before.name.clone(),
                grant: grant::text(grant),
            });
        }
    }
    edit.add_grants
        .iter()
        .for_each(|new| grant::add(&mut after.grants, new));
    after.disabled = edit.disabled.unwrap_or(before.disabled);
    check(&after)?;
    Ok(after)
}

/// What the audit trail says of an account: its kind, groups and grants.
fn summary(account: &Account) -> String {
    let kind = account.kind.as_str();
    let part = |name: &str, items: Vec<String>| match &*items {
        [] => String::new(),
        items => format!("; {name} {}", items.join(" ")),
    };
    let groups = part("groups", account.groups.iter().map(ToString::to_string).collect());
    let grants = part("grants", account.grants.iter().map(grant::text).collect());
    format!("{kind}{groups}{grants}")
}
