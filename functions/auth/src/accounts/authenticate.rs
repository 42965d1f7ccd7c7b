//! The identity of a request.

use std::sync::Arc;

use async_trait::async_trait;
use registry::auth::{
    AccountName, AuthenticationError, CredentialId, Credentials, Origin, Principal, PrincipalKind, SharedRules,
    Subject, TokenError,
};
use registry::store::access::AccountKind;
use registry::{Authenticator, Identity};

use super::AccountAuthenticator;
use super::login::{LoginError, by_key_of, present_identity};
use crate::key::Key;

impl AccountAuthenticator {
    /// What `principal` may do, like every client, while no account exists and that is what the settings say.
    pub(super) async fn open(&self, principal: &Principal) -> Result<Option<Identity>, AuthenticationError> {
        let Some(rules) = &self.settings.open else {
            return Ok(None);
        };
        // After an account was seen, the state is read together with what the credentials need.
        if self.access.last().is_some_and(|last| !last.is_open) {
            return Ok(None);
        }
        let in_force = self.access.in_force().await?;
        if !in_force.is_open {
            return Ok(None);
        }
        // The rules of the policy about tags and repositories concern everyone, also where everyone may push.
        let rules = rules.clone().with_shared(in_force.policy()?.policy.shared());
        let open = Identity::new(principal.clone(), rules);
        Ok(Some(open.with_state_read(in_force.read)))
    }

    /// The identity of an account, and of its key if `credential` is one, asked for now and not from what is known. `None`:
    /// there is no such account.
    async fn account_identity(
        &self,
        principal: &Principal,
        kind: AccountKind,
        credential: Option<CredentialId>,
    ) -> Result<Option<Identity>, AuthenticationError> {
        let Some(name) = principal.name().and_then(|name| name.parse::<AccountName>().ok()) else {
            return Ok(None);
        };
        let known = self.access.read_account_now(&name).await?;
        let in_force = self.access.in_force().await?;
        let policy = in_force.policy()?;
        let Some(account) = &known.account else {
            return Ok(None);
        };
        if account.kind != kind || account.disabled {
            return Err(AuthenticationError::Unauthenticated);
        }
        let identity = present_identity(account, policy)
            .with_state_read(in_force.read)
            .with_state_read(known.read);
        let Some(id) = credential else {
            return Ok(Some(identity));
        };
        let key = account.keys.get(&id).ok_or(AuthenticationError::Unauthenticated)?;
        let now = self.environment.now();
        if key.expires.is_some_and(|expires| expires <= now) {
            return Err(AuthenticationError::Unauthenticated);
        }
        let identity = by_key_of(identity, id, key);
        identity.map(Some).map_err(|error| refused(error, false))
    }

    /// The identity of a user without an account.
    async fn user_identity(&self, principal: &Principal) -> Result<Identity, AuthenticationError> {
        let (Some(users), Some(name)) = (&self.logins.users, principal.name()) else {
            return Err(AuthenticationError::Unauthenticated);
        };
        if users.generation(name).await.is_none() {
            return Err(AuthenticationError::Unauthenticated);
        }
        let in_force = self.access.in_force().await?;
        let identity = in_force.policy()?.identity_of(&Subject::new(principal.clone()));
        Ok(identity.with_state_read(in_force.read))
    }
}

/// The answer to a request with credentials that are not good. What is wrong with a right secret is said at the token
/// endpoint.
pub(super) fn refused(error: LoginError, is_bearer: bool) -> AuthenticationError {
    match error {
        LoginError::Unchecked(error) => error,
        LoginError::Wrong | LoginError::Refused(_) if is_bearer => AuthenticationError::Token(TokenError::Invalid),
        LoginError::Wrong | LoginError::Refused(_) => AuthenticationError::Unauthenticated,
    }
}

#[async_trait]
impl Authenticator for AccountAuthenticator {
    async fn authenticate(&self, origin: &Origin, credentials: &Credentials) -> Result<Identity, AuthenticationError> {
        if let Some(open) = self.open(&Principal::ANONYMOUS).await? {
            return Ok(open);
        }
        match credentials {
            Credentials::Absent => self.access.in_force().await?.anonymous(),
            Credentials::Unreadable => Err(AuthenticationError::Unauthenticated),
            Credentials::Basic { user, password } => {
                let login = self.logins.by_name(origin, user, password).await;
                login
                    .and_then(|login| login.identity())
                    .map_err(|error| refused(error, false))
            }
            Credentials::Bearer { token } if Key::is_meant_by(token) => {
                let login = self.logins.by_key(origin, token).await;
                login
                    .and_then(|login| login.identity())
                    .map_err(|error| refused(error, true))
            }
            Credentials::Bearer { token } => {
                let checked = self.tokens.check(token).await;
                self.logins.token_was_checked(origin, token, checked.as_ref());
                checked
            }
        }
    }

    async fn reauthorize(
        &self,
        principal: &Principal,
        credential: Option<CredentialId>,
    ) -> Result<Identity, AuthenticationError> {
        // An upload may have been opened by a user, when the registry still had users.
        if let Some(open) = self.open(principal).await? {
            return Ok(open);
        }
        let kind = match principal.kind() {
            PrincipalKind::Anonymous => return self.access.in_force().await?.anonymous(),
            PrincipalKind::Workload => return Err(AuthenticationError::Unauthenticated),
            PrincipalKind::User => AccountKind::User,
            PrincipalKind::Robot => AccountKind::Robot,
        };
        match (self.account_identity(principal, kind, credential).await?, kind) {
            (Some(identity), _) => Ok(identity),
            // Users without an account have no keys: a key was that of an account that is gone.
            (None, AccountKind::User) if credential.is_none() => self.user_identity(principal).await,
            (None, AccountKind::User | AccountKind::Robot) => Err(AuthenticationError::Unauthenticated),
        }
    }

    fn shared_rules(&self) -> Option<Arc<SharedRules>> {
        let last = self.access.last()?;
        let policy = last.policy.as_ref().ok()?;
        last.is_current(self.environment.now()).then(|| policy.policy.shared())
    }

    fn takes_credentials(&self) -> bool {
        self.access.last().is_none_or(|last| !last.is_open)
    }
}
