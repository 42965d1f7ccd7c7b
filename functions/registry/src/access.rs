//! Permits for one request, or the error for a client without the permission.

use http::HeaderValue;
use http::request::Parts;
use oci::{RepositoryName, Tag};

use crate::api_endpoint::{ApiCaller, ApiDecision, ApiRoute};
use crate::auth::{
    Action, ActionKind, AuthenticationError, Challenge, ChallengeScope, CredentialId, Credentials, Denied, Identity,
    Origin, Permit, Pull, Push, TagPermit, TokenError,
};
use crate::denial::DenialReason;
use crate::error::{Error, Refusal, Why};
use crate::overload::Overload;
use crate::query::{MountSource, OpenUpload};
use crate::registry::Registry;
use crate::store::{Reason, StoreError, Timestamp};

/// How long an authorization counts, in milliseconds: since the oldest of what decided about it was read, which may be before
/// the request. If it is so old when the body of a request has arrived, the request is authorized again before it changes
/// something. What is taken away from a principal has to work everywhere after this time.
const AUTHORIZED_MS: u64 = 10_000;

/// The result of the authentication of a request.
pub(crate) type Caller = Result<Identity, AuthenticationError>;

/// The access that one request asks for.
#[derive(Clone, Copy)]
pub(crate) struct Access<'a> {
    registry: &'a Registry,
    head: &'a Parts,
    origin: &'a Origin,
    /// When the request began, or [`Access::again`] was called: before it was authorized.
    begun: Timestamp,
}

impl<'a> Access<'a> {
    /// The access of the request with this head.
    pub(crate) fn new(registry: &'a Registry, head: &'a Parts, origin: &'a Origin) -> Self {
        Self {
            registry,
            head,
            origin,
            begun: registry.environment.now(),
        }
    }

    /// The same access, for an authorization that begins now.
    pub(crate) fn again(self) -> Self {
        Self {
            begun: self.registry.environment.now(),
            ..self
        }
    }

    /// Where the request comes from.
    pub(crate) fn origin(&self) -> &Origin {
        self.origin
    }

    /// The challenge to the client. `None` if no credentials would help. Without a token endpoint it never asks for a
    /// token.
    fn challenge(&self, error: Option<TokenError>) -> Option<HeaderValue> {
        let Registry {
            authenticator,
            settings,
            token_endpoint,
            ..
        } = self.registry;
        authenticator.takes_credentials().then(|| match token_endpoint {
            Some(_) => {
                let scope = ChallengeScope::of(self.head);
                settings.challenge.header(self.origin, scope.as_ref(), error)
            }
            None => Challenge::BASIC,
        })
    }

    /// Whether challenges to the client ask for a token.
    fn asks_for_tokens(&self) -> bool {
        let Registry {
            authenticator,
            settings,
            token_endpoint,
            ..
        } = self.registry;
        let has_url = settings.challenge.url(self.origin).is_some();
        has_url && token_endpoint.is_some() && authenticator.takes_credentials()
    }

    /// The identity of the caller.
    pub(crate) fn identify(&self, caller: Caller) -> Result<Identity, Error> {
        caller.map_err(|error| self.unidentified(error))
    }

    /// The error for a caller without an identity.
    fn unidentified(&self, error: AuthenticationError) -> Error {
        match error {
            AuthenticationError::Unauthenticated => Error::Unauthenticated {
                reason: match Credentials::from_headers(&self.head.headers) {
                    Credentials::Absent => DenialReason::NoCredentials,
                    Credentials::Basic { .. } | Credentials::Bearer { .. } | Credentials::Unreadable => {
                        DenialReason::InvalidCredentials
                    }
                },
                challenge: self.challenge(None),
            },
            AuthenticationError::Token(error) => Error::Unauthenticated {
                reason: reason(Some(error)),
                challenge: self.challenge(Some(error)),
            },
            AuthenticationError::TooManyAttempts { retry_after } => Error::TooManyAttempts { retry_after },
            AuthenticationError::TooManyRequests => Error::TooManyRequests(Overload::Passwords),
            AuthenticationError::Unavailable(cause) => Error::Store(StoreError::because(Reason::Credentials, cause)),
        }
    }

    /// The caller's permit for an action in `repository`.
    pub(crate) fn permit<A: Action>(&self, caller: Caller, repository: &RepositoryName) -> Result<Permit<A>, Error> {
        let identity = self.identify(caller)?;
        let permit = identity.permit(repository);
        permit.map_err(|denied| self.refusal(&identity, denied))
    }

    /// The caller's permit to open an upload in `repository`.
    ///
    /// A mount is refused if a token for its source is all that the caller lacks, so that the client gets a token for both
    /// repositories. Policy and token decide this, and not what exists. Any other mount that is not possible opens a session,
    /// because some clients abort the push otherwise.
    pub(crate) fn permit_to_open(
        &self,
        caller: Caller,
        repository: &RepositoryName,
        open: &OpenUpload,
    ) -> Result<Permit<Push>, Error> {
        let identity = self.identify(caller)?;
        let permit = identity.permit(repository);
        let permit = permit.map_err(|denied| self.refusal(&identity, denied))?;
        match open {
            OpenUpload::Mount {
                from: MountSource::Repository(source),
                ..
            } if identity.needs_token_for::<Pull>(source) && self.asks_for_tokens() => {
                Err(self.challenged(Some(TokenError::InsufficientScope)))
            }
            _ => Ok(permit),
        }
    }

    /// The caller's permit to publish a manifest in `repository` with these tags.
    pub(crate) fn permit_tags(
        &self,
        caller: Caller,
        repository: &RepositoryName,
        tags: Vec<Tag>,
    ) -> Result<TagPermit, Error> {
        let identity = self.identify(caller)?;
        let permit = identity.permit_tags(repository, tags);
        permit.map_err(|denied| self.refusal(&identity, denied))
    }

    /// Whether an authorization for this request is too old to change something by it. `state_read` is when the oldest of
    /// what decided about it was read.
    pub(crate) fn is_old(&self, state_read: Timestamp) -> bool {
        let now = self.registry.environment.now();
        // After a clock was set back, the age is not known.
        now < self.begun || now.millis_since(self.begun.min(state_read)) >= AUTHORIZED_MS
    }

    /// Authorizes the principal of a permit again, with the key `credential` if it was a key, if the permit is too old.
    /// `None`: it is not, so it still counts.
    pub(crate) async fn renewed<A: Action>(
        &self,
        permit: &Permit<A>,
        credential: Option<CredentialId>,
    ) -> Result<Option<Permit<A>>, Error> {
        if !self.is_old(permit.state_read()) {
            return Ok(None);
        }
        let authenticator = &self.registry.authenticator;
        let identity = self.identify(authenticator.reauthorize(permit.principal(), credential).await)?;
        let renewed = permit.renewed(&identity);
        renewed.map(Some).map_err(|denied| self.refusal(&identity, denied))
    }

    /// [`Access::renewed`] for two permits of one identity, which is authorized once for both.
    pub(crate) async fn renewed_both<A: Action, B: Action>(
        &self,
        one: &Permit<A>,
        other: &Permit<B>,
    ) -> Result<Option<(Permit<A>, Permit<B>)>, Error> {
        if !self.is_old(one.state_read().min(other.state_read())) {
            return Ok(None);
        }
        let authenticator = &self.registry.authenticator;
        let identity = self.identify(authenticator.reauthorize(one.principal(), one.credential()).await)?;
        let one = one.renewed(&identity);
        let one = one.map_err(|denied| self.refusal(&identity, denied))?;
        let other = other.renewed(&identity);
        let other = other.map_err(|denied| self.refusal(&identity, denied))?;
        Ok(Some((one, other)))
    }

    /// Checks that the caller may use `/v2/`. `docker login` checks credentials there, so the registry asks an anonymous
    /// client for credentials if they would change what it may do.
    pub(crate) fn check_base(&self, caller: Caller) -> Result<(), Error> {
        let identity = self.identify(caller)?;
        if identity.principal().is_anonymous()
            && !identity.is_unrestricted()
            && let Some(challenge) = self.challenge(None)
        {
            return Err(Error::Unauthenticated {
                reason: DenialReason::NoCredentials,
                challenge: Some(challenge),
            });
        }
        Ok(())
    }

    /// The caller, if it may use the list of repositories: every principal that is logged in, and an anonymous one that may
    /// pull something.
    pub(crate) fn check_catalog(&self, caller: Caller) -> Result<Identity, Error> {
        let identity = self.identify(caller)?;
        if identity.needs_token_to_list() {
            return Err(self.challenged(Some(TokenError::InsufficientScope)));
        }
        if identity.principal().is_anonymous() && identity.list_ranges().is_empty() {
            return Err(self.challenged(None));
        }
        Ok(identity)
    }

    /// The caller of the API, if it may use the route.
    pub(crate) fn check_api(
        &self,
        caller: Result<ApiCaller, AuthenticationError>,
        route: &ApiRoute,
    ) -> Result<ApiCaller, Error> {
        let caller = caller.map_err(|error| self.unidentified(error))?;
        match caller.decide(route) {
            ApiDecision::Allowed => Ok(caller),
            ApiDecision::NoLogin => Err(self.challenged(None)),
            ApiDecision::NoScope => Err(self.challenged(Some(TokenError::InsufficientScope))),
            ApiDecision::NarrowKey => Err(Error::ApiNarrowKey),
            ApiDecision::Forbidden => Err(Error::ApiDenied(
                "only members of the group admins may do this; members of auditors may read".into(),
            )),
            ApiDecision::Hidden => Err(Error::ApiHidden),
        }
    }

    /// The error for an identity that lacks a permission. An anonymous client is asked for credentials if credentials
    /// can help, and a client with a token for another token if that can help.
    pub(crate) fn refusal(&self, identity: &Identity, denied: Denied) -> Error {
        let error = match denied {
            Denied::Scope => Some(TokenError::InsufficientScope),
            Denied::Policy { .. } | Denied::OtherPrincipal if identity.principal().is_anonymous() => None,
            Denied::OtherPrincipal => return Error::Denied { refusal: None },
            Denied::Policy {
                action,
                repository,
                rule,
            } => {
                let why = rule.map_or(Why::NoRule, Why::Rule);
                return refused(action, repository, why);
            }
            Denied::Key { action, repository } => return refused(action, repository, Why::KeyScope),
        };
        self.challenged(error)
    }

    /// Asks for other credentials, if the registry has a way to ask.
    fn challenged(&self, error: Option<TokenError>) -> Error {
        match self.challenge(error) {
            Some(challenge) => Error::Unauthenticated {
                reason: reason(error),
                challenge: Some(challenge),
            },
            // The reason is only for clients that are logged in.
            None => Error::Denied { refusal: None },
        }
    }
}

/// The refusal of an action to a client that is logged in.
fn refused(action: ActionKind, repository: RepositoryName, why: Why) -> Error {
    Error::Denied {
        refusal: Some(Refusal {
            action,
            repository,
            why,
        }),
    }
}

/// Why a request is answered with a challenge that has this error.
fn reason(error: Option<TokenError>) -> DenialReason {
    match error {
        None => DenialReason::NoCredentials,
        Some(TokenError::Invalid) => DenialReason::InvalidToken,
        Some(TokenError::InsufficientScope) => DenialReason::InsufficientScope,
    }
}
