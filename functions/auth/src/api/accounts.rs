//! Accounts and their passwords.

use std::collections::BTreeSet;

use futures_util::lock::Mutex;
use registry::api_endpoint::{ApiCondition, ApiRefusal, ApiRequest, ApiResponse, ApiSuccess};
use registry::auth::AccountName;
use registry::store::access::{Account, AccountKind, PasswordHash};

use super::query::ListQuery;
use super::refusal::invalid;
use super::types::{
    AccountPatch, AccountView, CreatedAccount, Listed, NewAccountBody, NewKeyBody, NewKeyView, PasswordBody,
};
use super::{Api, answer, author, read, removed, shown};
use crate::administration::accounts::{AccountEdit, NewAccount};
use crate::administration::keys::NewKey;
use crate::administration::{AccountVersion, LastAdmin};

impl Api {
    /// `GET accounts`
    pub(super) async fn list_accounts(&self, request: &ApiRequest<'_>) -> Result<ApiResponse, ApiRefusal> {
        let query = ListQuery::of(request);
        let after = query.text("after");
        let page = self.administration.accounts(after.as_deref(), query.limit()?).await?;
        let next = page.items.last().filter(|_| page.more);
        Ok(shown(&Listed {
            next: next.map(|account| account.name.to_string()),
            items: page.items.iter().map(view).collect(),
        }))
    }

    /// `POST accounts`
    pub(super) async fn create_account(&self, request: &ApiRequest<'_>) -> Result<ApiResponse, ApiRefusal> {
        let NewAccountBody {
            name,
            kind,
            groups,
            grants,
            password,
            key,
        } = read(request)?;
        let password = match (kind, password) {
            (AccountKind::Robot, Some(_)) => return Err(invalid("robots have keys, and no password")),
            (AccountKind::User, Some(password)) => Some(
                self.authenticator
                    .hash_password(request.origin, &name, &password)
                    .await?,
            ),
            (_, None) => None,
        };
        let new = NewAccount {
            groups: groups.unwrap_or_default().into_iter().collect(),
            grants: grants.unwrap_or_default(),
            password,
            key: key.map(NewKey::from),
            ..NewAccount::new(name, kind)
        };
        let (author, is_bootstrap) = (author(request), request.caller.is_bootstrap);
        let created = if is_bootstrap {
            self.administration.create_before_admins(&author, new).await?
        } else {
            self.administration.create(&author, new).await?
        };
        self.authenticator.follow(Some(&created.account.name)).await;
        let version = AccountVersion::of(&created.account);
        let body = CreatedAccount {
            account: AccountView::new(&created.account, version.as_str()),
            key: created.key.as_ref().map(NewKeyView::from),
        };
        Ok(answer(ApiSuccess::Created, &body, Some(version.as_str().to_owned())))
    }

    /// `GET accounts/{account}`
    pub(super) async fn get_account(&self, name: &AccountName) -> Result<ApiResponse, ApiRefusal> {
        Ok(of_account(&self.administration.account(name.into()).await?))
    }

    /// `PATCH accounts/{account}`
    pub(super) async fn change_account(
        &self,
        request: &ApiRequest<'_>,
        name: &AccountName,
    ) -> Result<ApiResponse, ApiRefusal> {
        let patch: AccountPatch = read(request)?;
        let (before, version) = self.asked_for(request, name).await?;
        let (edit, author) = (edit(&before, patch), author(request));
        let administration = self.administration.of_version(version);
        let changed = administration
            .change(&author, name.into(), &edit, LastAdmin::Stays)
            .await?;
        self.authenticator.follow(Some(name)).await;
        Ok(of_account(&changed.into_inner()))
    }

    /// `DELETE accounts/{account}`
    pub(super) async fn remove_account(
        &self,
        request: &ApiRequest<'_>,
        name: &AccountName,
    ) -> Result<ApiResponse, ApiRefusal> {
        let (_, version) = self.asked_for(request, name).await?;
        let administration = self.administration.of_version(version);
        administration
            .remove(&author(request), name.into(), LastAdmin::Stays)
            .await?;
        self.authenticator.follow(Some(name)).await;
        Ok(removed())
    }

    /// `PUT accounts/{account}/password`. `hashed` keeps the hash of the new password for the next attempt.
    pub(super) async fn set_password(
        &self,
        request: &ApiRequest<'_>,
        name: &AccountName,
        hashed: &Mutex<Option<PasswordHash>>,
    ) -> Result<ApiResponse, ApiRefusal> {
        let PasswordBody { password, old_password } = read(request)?;
        let (before, version) = self.asked_for(request, name).await?;
        if before.kind == AccountKind::Robot {
            return Err(ApiRefusal::Conflict("robots have keys, and no password".into()));
        }
        // Also of an administrator: a stolen token of the account must not be enough to take it over.
        if request.caller.owns(name) && before.password.is_some() {
            let Some(old) = old_password else {
                return Err(invalid(
                    "the own password is changed with the old one: old_password is missing",
                ));
            };
            if !self.authenticator.knows_password(request.origin, &before, &old).await? {
                return Err(ApiRefusal::Denied("the old password is wrong".into()));
            }
        }
        let mut hashed = hashed.lock().await;
        let hash = match hashed.take() {
            Some(hash) => hash,
            None => {
                self.authenticator
                    .hash_password(request.origin, name, &password)
                    .await?
            }
        };
        *hashed = Some(hash.clone());
        let administration = self.administration.of_version(version);
        let changed = administration.set_password(&author(request), name, hash).await?;
        self.authenticator.follow(Some(name)).await;
        Ok(of_account(&changed))
    }

    /// The account that a conditional request changes, and its version.
    pub(super) async fn asked_for(
        &self,
        request: &ApiRequest<'_>,
        name: &AccountName,
    ) -> Result<(Account, AccountVersion), ApiRefusal> {
        let account = self.administration.account(name.into()).await?;
        let version = AccountVersion::of(&account);
        if request
            .condition
            .is_some_and(|condition: &ApiCondition| condition.allows(version.as_str()))
        {
            Ok((account, version))
        } else {
            Err(ApiRefusal::Changed)
        }
    }
}

impl From<NewKeyBody> for NewKey {
    fn from(body: NewKeyBody) -> Self {
        Self {
            scope: body.scope,
            expires: body.expires.timestamp(),
        }
    }
}

fn view(account: &Account) -> AccountView {
    AccountView::new(account, AccountVersion::of(account).as_str())
}

/// The answer that shows an account.
fn of_account(account: &Account) -> ApiResponse {
    let view = view(account);
    let version = Some(view.version.clone());
    answer(ApiSuccess::Done, &view, version)
}

/// What changes between an account and what a client asks for.
fn edit(before: &Account, patch: AccountPatch) -> AccountEdit {
    let mut edit = AccountEdit {
        disabled: patch.disabled,
        ..AccountEdit::default()
    };
    if let Some(groups) = patch.groups {
        let groups: BTreeSet<_> = groups.into_iter().collect();
        edit.add_groups = groups.difference(&before.groups).cloned().collect();
        edit.remove_groups = before.groups.difference(&groups).cloned().collect();
    }
    if let Some(grants) = patch.grants {
        let gone = before.grants.iter().filter(|grant| !grants.contains(grant));
        edit.remove_grants = gone.cloned().collect();
        let new = grants.iter().filter(|grant| !before.grants.contains(grant));
        edit.add_grants = new.cloned().collect();
    }
    edit
}
