//! The token endpoint: what a client asks for, within what it may have.

use std::collections::BTreeSet;

use async_trait::async_trait;
use bytes::Bytes;
use oci::RepositoryName;
use registry::auth::{
    ActionKind, Actions, AuthenticationError, Credentials, Delete, GroupName, Move, Origin, Pull, Push, RepositoryGrant,
};
use registry::store::{Reason, StoreError, Timestamp};
use registry::token_endpoint::{EncodedTokenRequest, TokenEndpoint, TokenRefusal, TokenResponse};
use registry::{Identity, Principal};

use super::AccountAuthenticator;
use super::login::{Login, LoginError};
use crate::access_token::{Generation, LIFETIME_SECONDS, NewToken};
use crate::key::Key;
use crate::scope::RegistryAccess;
use crate::token_request::{FormCredentials, TokenForm, TokenRequest, TokenRequestError};

impl From<LoginError> for TokenRefusal {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Wrong => Self::InvalidGrant(Self::WRONG_CREDENTIALS.into()),
            LoginError::Refused(text) => Self::InvalidGrant(text.into()),
            LoginError::Unchecked(error) => error.into(),
        }
    }
}

impl From<TokenRequestError> for TokenRefusal {
    fn from(error: TokenRequestError) -> Self {
        match error {
            TokenRequestError::GrantType => Self::UnsupportedGrantType,
            error => Self::InvalidRequest(error.to_string().into()),
        }
    }
}

/// The secret that a client has sent, in the header or in the form.
#[derive(Clone, Copy)]
enum Sent<'a> {
    Nothing,
    NameAndSecret(&'a str, &'a str),
    Key(&'a str),
}

/// Who gets a token.
struct Grantee {
    identity: Identity,
    login: Option<Login>,
}

#[async_trait]
impl TokenEndpoint for AccountAuthenticator {
    async fn token(
        &self,
        origin: &Origin,
        credentials: &Credentials,
        form: EncodedTokenRequest<'_>,
    ) -> Result<TokenResponse, TokenRefusal> {
        let (request, in_form) = match form {
            EncodedTokenRequest::Query(query) => (TokenRequest::from_query(query)?, FormCredentials::Absent),
            EncodedTokenRequest::Body(body) => {
                let form = TokenForm::read(body.as_bytes())?;
                (form.request, form.credentials)
            }
        };
        let sent = match (&in_form, credentials) {
            // Whatever the form says: a client that sends such a line has not said who it is.
            (_, Credentials::Unreadable) => return Err(LoginError::Wrong.into()),
            (FormCredentials::Absent, Credentials::Absent) => Sent::Nothing,
            (FormCredentials::Password { user, password }, _)
            | (FormCredentials::Absent, Credentials::Basic { user, password }) => Sent::NameAndSecret(user, password),
            (FormCredentials::RefreshToken(secret), _)
            | (FormCredentials::Absent, Credentials::Bearer { token: secret }) => Sent::Key(secret),
        };
        let grantee = self.grantee(origin, sent).await?;
        self.grant(origin, &request, &grantee).await
    }

    async fn key_set(&self) -> Result<Bytes, StoreError> {
        let in_force = self.access.in_force().await.map_err(|error| match error {
            AuthenticationError::Unavailable(cause) => StoreError::because(Reason::Credentials, cause),
            _ => StoreError::because(Reason::Credentials, "the access state cannot be read"),
        })?;
        Ok(in_force.keys.to_json(self.environment.now()).into())
    }
}

impl AccountAuthenticator {
    async fn grantee(&self, origin: &Origin, sent: Sent<'_>) -> Result<Grantee, LoginError> {
        if let Some(open) = self.open(&Principal::ANONYMOUS).await? {
            return Ok(Grantee {
                identity: open,
                login: None,
            });
        }
        let login = match sent {
            Sent::Nothing => {
                let in_force = self.access.in_force().await?;
                return Ok(Grantee {
                    identity: in_force.policy()?.anonymous.clone(),
                    login: None,
                });
            }
            Sent::NameAndSecret(user, secret) => self.logins.by_name(origin, user, secret).await?,
            Sent::Key(secret) if Key::is_meant_by(secret) => self.logins.by_key(origin, secret).await?,
            // An access token is not exchanged for another one, so that it ends when it ends.
            Sent::Key(secret) => {
                let refusal = AuthenticationError::Unauthenticated;
                self.logins.token_was_checked(origin, secret, Err(&refusal));
                return Err(LoginError::Wrong);
            }
        };
        Ok(Grantee {
            identity: login.identity()?,
            login: Some(login),
        })
    }

    async fn grant(
        &self,
        origin: &Origin,
        request: &TokenRequest,
        grantee: &Grantee,
    ) -> Result<TokenResponse, TokenRefusal> {
        let Grantee { identity, login } = grantee;
        let allowed = |name: &RepositoryName| {
            let kinds = [
                (identity.may::<Pull>(name), ActionKind::Read),
                (identity.may::<Push>(name), ActionKind::Write),
                (identity.may::<Move>(name), ActionKind::Move),
                (identity.may::<Delete>(name), ActionKind::Delete),
            ];
            kinds
                .into_iter()
                .filter(|(may, _)| *may)
                .fold(Actions::NONE, |all, (_, kind)| all.union(Actions::of(&[kind])))
        };
        let access = request.scope.grant(allowed, registry_access(identity, login.as_ref()));
        let groups: BTreeSet<GroupName> = login.as_ref().map(Login::groups).unwrap_or_default();
        let grants: &[RepositoryGrant] = login.as_ref().map(Login::grants).unwrap_or_default();
        let generation = login.as_ref().map_or(Generation::NONE, Login::generation);
        let signer = self.signers.signing(&self.access).await?;
        let principal: &Principal = identity.principal();
        let new = NewToken {
            service: &self.settings.service,
            principal,
            generation,
            credential: login.as_ref().and_then(Login::key),
            key_scope: login.as_ref().and_then(Login::key_scope),
            groups: &groups,
            grants,
            requested: &request.scope,
            access: &access,
            lifetime_seconds: lifetime_s(self.settings.token_lifetime_s, login.as_ref(), self.environment.now()),
        };
        let issued = new
            .issue(&signer, &*self.environment)
            .map_err(|error| TokenRefusal::InvalidRequest(error.to_string().into()))?;
        if !principal.is_anonymous() {
            tracing::info!(
                target: "audit",
                event = "token.issued",
                principal = principal.as_str(),
                credential = new.credential.map(tracing::field::display),
                address = origin.address.map(tracing::field::display),
                reference = issued.id,
                detail = issued.access.to_string()
            );
        }
        Ok(TokenResponse {
            principal: principal.clone(),
            credential: new.credential,
            scope: issued.access.to_string(),
            token: issued.token,
            expires_in: issued.expires_in,
            refresh_token: None,
        })
    }
}

/// What may be granted besides repositories. A key with a scope may not use the API.
fn registry_access(identity: &Identity, login: Option<&Login>) -> RegistryAccess {
    match login {
        Some(login) => RegistryAccess {
            catalog: true,
            api: login.key_scope().is_none(),
        },
        None => RegistryAccess {
            catalog: !identity.list_ranges().is_empty(),
            api: false,
        },
    }
}

/// For how many seconds a client may use a token: not much longer than its key is good, if it has one. Clients would ignore a
/// time that is shorter than the minimum.
fn lifetime_s(longest: u64, login: Option<&Login>, now: Timestamp) -> u64 {
    match login.and_then(Login::key_ends) {
        Some(ends) => {
            let left = ends.millis_since(now) / 1000;
            left.max(*LIFETIME_SECONDS.start()).min(longest)
        }
        None => longest,
    }
}
