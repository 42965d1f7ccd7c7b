//! Users with passwords and rules, which a test can change while a registry runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use registry::auth::{
    AccessRule, Actions, AuthenticationError, CredentialId, Credentials, Origin, PrincipalKind, Rules, SharedRules,
};
use registry::policy::Policy;
use registry::{Authenticator, Identity, Principal};

/// The challenge for requests without credentials.
pub(crate) const CHALLENGE: &str = r#"Basic realm="roadstead", charset="UTF-8""#;

pub(crate) struct Users {
    rules: Mutex<BTreeMap<String, Rules>>,
    anonymous: Option<Rules>,
    down: AtomicBool,
    shared: Mutex<Option<Arc<SharedRules>>>,
}

impl Users {
    /// `alice` and `bob` may do everything, `reader` may pull, `robot` may push to `team/app` and nothing else. All
    /// other requests are refused.
    pub(crate) fn private() -> Self {
        Self::new(None)
    }

    /// The same users; and a client without credentials may pull.
    pub(crate) fn open_to_pull() -> Self {
        Self::new(Some(Rules::pull_only()))
    }

    /// The same users; and a client without credentials may do everything. The rules of a policy (in JSON) that concern
    /// every principal concern them all.
    pub(crate) fn open_under(policy: &str) -> Self {
        let users = Self::new(Some(Rules::everything()));
        users.share(Policy::from_json(policy).expect("a legal policy").shared());
        users
    }

    pub(crate) fn new(anonymous: Option<Rules>) -> Self {
        let robot = Self::may("team/app", Actions::PUSH);
        let users = [
            ("alice", Rules::everything()),
            ("bob", Rules::everything()),
            ("reader", Rules::pull_only()),
            ("robot", robot),
        ];
        Self {
            rules: Mutex::new(users.map(|(name, rules)| (name.to_owned(), rules)).into()),
            anonymous,
            down: AtomicBool::new(false),
            shared: Mutex::default(),
        }
    }

    /// One rule that allows some actions.
    pub(crate) fn may(repositories: &str, actions: Actions) -> Rules {
        let rule = AccessRule {
            name: "a rule of the test".into(),
            repositories: vec![repositories.parse().expect("a legal pattern")],
            actions,
        };
        Rules::new(vec![rule], Vec::new())
    }

    pub(crate) fn password(name: &str) -> String {
        format!("password-of-{name}")
    }

    pub(crate) fn remove(&self, name: &str) {
        self.rules.lock().expect("not poisoned").remove(name);
    }

    pub(crate) fn change(&self, name: &str, rules: Rules) {
        let mut all = self.rules.lock().expect("not poisoned");
        all.insert(name.to_owned(), rules);
    }

    /// From now on these rules concern everyone.
    pub(crate) fn share(&self, rules: Arc<SharedRules>) {
        *self.shared.lock().expect("not poisoned") = Some(rules);
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
        let all = self.rules.lock().expect("not poisoned");
        let rules = all.get(name).ok_or(AuthenticationError::Unauthenticated)?;
        let rules = self.with_shared_rules(rules.clone());
        Ok(Identity::new(Principal::user(name).expect("a legal name"), rules))
    }

    fn anonymous(&self) -> Result<Identity, AuthenticationError> {
        let rules = self.anonymous.clone().ok_or(AuthenticationError::Unauthenticated)?;
        Ok(Identity::new(Principal::ANONYMOUS, self.with_shared_rules(rules)))
    }

    fn with_shared_rules(&self, rules: Rules) -> Rules {
        match self.shared_rules() {
            Some(shared) => rules.with_shared(shared),
            None => rules,
        }
    }
}

#[async_trait]
impl Authenticator for Users {
    async fn authenticate(&self, _: &Origin, credentials: &Credentials) -> Result<Identity, AuthenticationError> {
        match credentials {
            Credentials::Absent => self.anonymous(),
            Credentials::Basic { user, password } if *password == Self::password(user) => self.find(user),
            Credentials::Basic { .. } | Credentials::Bearer { .. } | Credentials::Unreadable => {
                Err(AuthenticationError::Unauthenticated)
            }
        }
    }

    /// These users have no keys.
    async fn reauthorize(
        &self,
        principal: &Principal,
        credential: Option<CredentialId>,
    ) -> Result<Identity, AuthenticationError> {
        if credential.is_some() {
            return Err(AuthenticationError::Unauthenticated);
        }
        match (principal.kind(), principal.name()) {
            (PrincipalKind::Anonymous, _) => self.anonymous(),
            (PrincipalKind::User, Some(name)) => self.find(name),
            _ => Err(AuthenticationError::Unauthenticated),
        }
    }

    fn shared_rules(&self) -> Option<Arc<SharedRules>> {
        self.shared.lock().expect("not poisoned").clone()
    }

    fn takes_credentials(&self) -> bool {
        true
    }
}

/// An authenticator that decides in the same way about every request.
pub(crate) struct Deciding<F>(pub(crate) F);

#[async_trait]
impl<F> Authenticator for Deciding<F>
where
    F: Fn() -> Result<Identity, AuthenticationError> + Send + Sync + 'static,
{
    async fn authenticate(&self, _: &Origin, _: &Credentials) -> Result<Identity, AuthenticationError> {
        (self.0)()
    }

    async fn reauthorize(&self, _: &Principal, _: Option<CredentialId>) -> Result<Identity, AuthenticationError> {
        (self.0)()
    }

    fn shared_rules(&self) -> Option<Arc<SharedRules>> {
        None
    }

    fn takes_credentials(&self) -> bool {
        true
    }
}
