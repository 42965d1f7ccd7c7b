//! Users with passwords and scopes, which a test can change while a registry runs.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use http::HeaderValue;
use http::request::Parts;
use registry::auth::{
    Actions, AuthenticationError, ChallengeScope, Credentials, Origin, PrincipalKind, RepositoryGrant, Scope,
    TokenError,
};
use registry::{Authenticator, Identity, Principal};

/// The challenge for requests without credentials.
pub(crate) const CHALLENGE: &str = "Basic realm=\"test\"";

pub(crate) struct Users {
    scopes: Mutex<BTreeMap<String, Scope>>,
    anonymous: Option<Scope>,
    down: AtomicBool,
}

impl Users {
    /// `alice` and `bob` may do everything, `reader` may pull, `robot` may push to `team/app` and nothing else. All
    /// other requests are refused.
    pub(crate) fn private() -> Self {
        Self::new(None)
    }

    /// The same users; and a client without credentials may pull.
    pub(crate) fn open_to_pull() -> Self {
        Self::new(Some(Scope::PULL_ONLY))
    }

    fn new(anonymous: Option<Scope>) -> Self {
        let robot = Self::may("team/app", Actions::PUSH);
        let users = [
            ("alice", Scope::EVERYTHING),
            ("bob", Scope::EVERYTHING),
            ("reader", Scope::PULL_ONLY),
            ("robot", robot),
        ];
        Self {
            scopes: Mutex::new(users.map(|(name, scope)| (name.to_owned(), scope)).into()),
            anonymous,
            down: AtomicBool::new(false),
        }
    }

    /// The scope of one grant.
    pub(crate) fn may(repositories: &str, actions: Actions) -> Scope {
        let repositories = repositories.parse().expect("a legal pattern");
        Scope::new(vec![RepositoryGrant { repositories, actions }]).expect("one is not too many")
    }

    pub(crate) fn password(name: &str) -> String {
        format!("password-of-{name}")
    }

    pub(crate) fn remove(&self, name: &str) {
        self.scopes.lock().expect("not poisoned").remove(name);
    }

    pub(crate) fn change(&self, name: &str, scope: Scope) {
        let mut scopes = self.scopes.lock().expect("not poisoned");
        scopes.insert(name.to_owned(), scope);
    }

    /// From now on no credentials can be checked.
    pub(crate) fn go_down(&self) {
        self.down.store(true, Ordering::SeqCst);
    }

    fn find(&self, name: &str) -> Result<Identity, AuthenticationError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(AuthenticationError::Unavailable(
                "the directory of users is down".into(),
            ));
        }
        let scopes = self.scopes.lock().expect("not poisoned");
        let scope = scopes.get(name).ok_or(AuthenticationError::Unauthenticated)?;
        Ok(Identity::new(
            Principal::user(name).expect("a legal name"),
            scope.clone(),
        ))
    }

    fn anonymous(&self) -> Result<Identity, AuthenticationError> {
        let scope = self.anonymous.clone().ok_or(AuthenticationError::Unauthenticated)?;
        Ok(Identity::new(Principal::ANONYMOUS, scope))
    }
}

#[async_trait]
impl Authenticator for Users {
    async fn authenticate(&self, _: Origin, credentials: &Credentials) -> Result<Identity, AuthenticationError> {
        match credentials {
            Credentials::Absent => self.anonymous(),
            Credentials::Basic { user, password } if *password == Self::password(user) => self.find(user),
            Credentials::Basic { .. } | Credentials::Bearer { .. } | Credentials::Unreadable => {
                Err(AuthenticationError::Unauthenticated)
            }
        }
    }

    async fn reauthorize(&self, principal: &Principal) -> Result<Identity, AuthenticationError> {
        match (principal.kind(), principal.name()) {
            (PrincipalKind::Anonymous, _) => self.anonymous(),
            (PrincipalKind::User, Some(name)) => self.find(name),
            _ => Err(AuthenticationError::Unauthenticated),
        }
    }

    fn challenge(&self, _: &Parts, _: Option<&ChallengeScope>, _: Option<TokenError>) -> Option<HeaderValue> {
        Some(HeaderValue::from_static(CHALLENGE))
    }
}
