//! What the API asks of an [`AccountAuthenticator`]: who a request comes from, what a password is worth, and that a change
//! works at once on this instance.

use registry::api_endpoint::{ApiCaller, ApiScope};
use registry::auth::{AccountName, AuthenticationError, Credentials, Origin, Rules};
use registry::policy::Policy;
use registry::store::access::{Account, PasswordHash};
use registry::{Identity, Principal};

use super::AccountAuthenticator;
use super::authenticate::refused;
use super::bootstrap::BootstrapSecret;
use super::login::{Login, LoginError};
use crate::key::Key;
use crate::password::{self, PasswordError};

/// Why a new password was not hashed.
#[derive(Debug)]
pub(crate) enum NotHashed {
    /// It is not accepted.
    Refused(PasswordError),
    /// Too much other work waits.
    Unchecked(AuthenticationError),
}

impl AccountAuthenticator {
    /// Who uses the API with these credentials.
    pub(crate) async fn api_caller(
        &self,
        origin: &Origin,
        credentials: &Credentials,
    ) -> Result<ApiCaller, AuthenticationError> {
        if let Some(open) = self.open(&Principal::ANONYMOUS).await? {
            return Ok(ApiCaller::without_account(open));
        }
        let (login, is_bearer) = match credentials {
            Credentials::Absent => {
                let anonymous = self.access.in_force().await?.anonymous()?;
                return Ok(ApiCaller::without_account(anonymous));
            }
            Credentials::Unreadable => return Err(AuthenticationError::Unauthenticated),
            Credentials::Basic { user, password } => (self.logins.by_name(origin, user, password).await, false),
            Credentials::Bearer { token } if Key::is_meant_by(token) => (self.logins.by_key(origin, token).await, true),
            Credentials::Bearer { token } => {
                let checked = self.tokens.api_caller(token).await;
                let identity = checked.as_ref().map(|caller| &caller.identity);
                self.logins.token_was_checked(origin, token, identity);
                return checked;
            }
        };
        login
            .and_then(|login| caller_of(&login))
            .map_err(|error| refused(error, is_bearer))
    }

    /// Who makes the first account, if these are the credentials of the bootstrap and no administrator exists.
    pub(crate) async fn bootstrap_caller(
        &self,
        credentials: &Credentials,
    ) -> Result<Option<ApiCaller>, AuthenticationError> {
        let Credentials::Basic { user, password } = credentials else {
            return Ok(None);
        };
        if !self.is_bootstrap(user, password).await? {
            return Ok(None);
        }
        let Ok(principal) = Principal::user(BootstrapSecret::USER) else {
            return Ok(None);
        };
        // It makes accounts, and may do nothing in repositories.
        let rules = Rules::new(Vec::new(), Vec::new());
        Ok(Some(ApiCaller {
            is_bootstrap: true,
            ..ApiCaller::without_account(Identity::new(principal, rules))
        }))
    }

    /// The hash of a new password.
    pub(crate) async fn hash_password(
        &self,
        origin: &Origin,
        account: &AccountName,
        password: &str,
    ) -> Result<PasswordHash, NotHashed> {
        password::check(password).map_err(NotHashed::Refused)?;
        let checks = &self.logins.checks;
        let made = checks.hash_new(origin.client, account.as_str(), password).await;
        made.map_err(NotHashed::Unchecked)?
            .ok_or(NotHashed::Refused(PasswordError::Parameters))
    }

    /// Whether a client knows the password that `account` has. A wrong one counts like that of a login.
    pub(crate) async fn knows_password(
        &self,
        origin: &Origin,
        account: &Account,
        password: &str,
    ) -> Result<bool, AuthenticationError> {
        // A key is no password, whatever else it is good for.
        if Key::parse(password).is_ok() {
            return Ok(false);
        }
        self.access.read_account_now(&account.name).await?;
        match self.logins.by_name(origin, account.name.as_str(), password).await {
            Ok(login) => Ok(login.account().is_some_and(|found| found.password == account.password)),
            Err(LoginError::Wrong | LoginError::Refused(_)) => Ok(false),
            Err(LoginError::Unchecked(error)) => Err(error),
        }
    }

    /// Reads what a change may have changed, so that this instance decides by it at once. If it cannot be read, the change is
    /// seen within ten seconds.
    pub(crate) async fn follow(&self, account: Option<&AccountName>) {
        let state = self.access.read_now().await.map(drop);
        let known = match account {
            Some(name) => self.access.read_account_now(name).await.map(drop),
            None => Ok(()),
        };
        if let Err(error) = state.and(known) {
            tracing::debug!(?error, "a change is seen later by this instance");
        }
    }

    /// A policy as this instance decides by it: with the rule that its settings add.
    pub(crate) fn as_decided(&self, policy: Policy) -> Policy {
        if self.settings.anonymous_pull {
            policy.allowing_anonymous_pull()
        } else {
            policy
        }
    }
}

fn caller_of(login: &Login) -> Result<ApiCaller, LoginError> {
    Ok(ApiCaller {
        identity: login.identity()?,
        account: login.account().map(|account| account.name.clone()),
        groups: login.groups(),
        scope: match login.key_scope() {
            None => ApiScope::Contained,
            Some(_) => ApiScope::NarrowKey,
        },
        is_bootstrap: false,
    })
}
