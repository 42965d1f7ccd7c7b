//! Keys of accounts.

use registry::api_endpoint::{ApiRefusal, ApiRequest, ApiResponse, ApiSuccess};
use registry::auth::{AccountName, CredentialId};
use registry::store::access::Account;

use super::time::{Expiry, Time};
use super::types::{KeyPatch, KeyView, Listed, NewKeyBody, NewKeyView, RotateKeyBody, RotatedKey};
use super::{Api, answer, author, read, removed};
use crate::administration::AccountVersion;
use crate::administration::keys::{KeyEdit, KeyEnd, NewKey};

const MS_PER_SECOND: u64 = 1000;

impl Api {
    /// `GET accounts/{account}/keys`: all of them, since an account has only a few. The version is that of the account.
    pub(super) async fn list_keys(&self, name: &AccountName) -> Result<ApiResponse, ApiRefusal> {
        let account = self.administration.account(name.into()).await?;
        let uses = self.administration.last_uses(name).await?;
        let keys = account.keys.iter();
        let body = Listed {
            items: keys
                .map(|(id, key)| KeyView::new(*id, key, uses.get(id).copied()))
                .collect(),
            next: None,
        };
        Ok(answer(ApiSuccess::Done, &body, Some(version(&account))))
    }

    /// `POST accounts/{account}/keys`
    pub(super) async fn create_key(
        &self,
        request: &ApiRequest<'_>,
        name: &AccountName,
    ) -> Result<ApiResponse, ApiRefusal> {
        let new: NewKey = read::<NewKeyBody>(request)?.into();
        let issued = self.administration.add_key(&author(request), name.into(), &new).await?;
        self.authenticator.follow(Some(name)).await;
        Ok(answer(ApiSuccess::Created, &NewKeyView::from(&issued), None))
    }

    /// `PATCH accounts/{account}/keys/{key}`
    pub(super) async fn change_key(
        &self,
        request: &ApiRequest<'_>,
        name: &AccountName,
        key: CredentialId,
    ) -> Result<ApiResponse, ApiRefusal> {
        let KeyPatch { scope, expires } = read(request)?;
        let edit = KeyEdit {
            scope,
            expires: expires.map(KeyEnd::from),
        };
        let (_, asked) = self.asked_for(request, name).await?;
        let administration = self.administration.of_version(asked);
        let changed = administration
            .change_key(&author(request), name.into(), key, &edit)
            .await?;
        self.authenticator.follow(Some(name)).await;
        let account = changed.into_inner();
        let record = account.keys.get(&key).ok_or(ApiRefusal::Unknown)?;
        let uses = self.administration.last_uses(name).await?;
        let body = KeyView::new(key, record, uses.get(&key).copied());
        Ok(answer(ApiSuccess::Done, &body, Some(version(&account))))
    }

    /// `DELETE accounts/{account}/keys/{key}`
    pub(super) async fn remove_key(
        &self,
        request: &ApiRequest<'_>,
        name: &AccountName,
        key: CredentialId,
    ) -> Result<ApiResponse, ApiRefusal> {
        self.administration
            .remove_key(&author(request), name.into(), key)
            .await?;
        self.authenticator.follow(Some(name)).await;
        Ok(removed())
    }

    /// `POST accounts/{account}/keys/{key}/rotate`
    pub(super) async fn rotate_key(
        &self,
        request: &ApiRequest<'_>,
        name: &AccountName,
        key: CredentialId,
    ) -> Result<ApiResponse, ApiRefusal> {
        let RotateKeyBody { overlap, expires } = read(request)?;
        let (overlap_ms, expires) = (overlap.saturating_mul(MS_PER_SECOND), expires.timestamp());
        let rotated = self
            .administration
            .rotate_key(&author(request), name.into(), key, overlap_ms, expires)
            .await?;
        self.authenticator.follow(Some(name)).await;
        let body = RotatedKey {
            new: NewKeyView::from(&rotated.new),
            old_ends: rotated.old_ends.map(Time),
        };
        Ok(answer(ApiSuccess::Created, &body, None))
    }
}

impl From<Expiry> for KeyEnd {
    fn from(expiry: Expiry) -> Self {
        expiry.timestamp().map_or(Self::Never, Self::At)
    }
}

fn version(account: &Account) -> String {
    AccountVersion::of(account).as_str().to_owned()
}
