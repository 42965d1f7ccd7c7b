//! Access tokens of requests.
//!
//! A token is verified once. Then it is known until it ends, with the rules that concern its principal, so that a request
//! costs one look-up and no signature. Whenever the state was read again, a known token is compared with it: its key may be
//! gone, and the token may be withdrawn.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use registry::api_endpoint::{ApiCaller, ApiScope};
use registry::auth::{AccountName, AuthenticationError, PrincipalKind, Scope, Subject, TokenError};
use registry::environment::Environment;
use registry::store::access::KeyId;
use registry::{Identity, Principal};
use sha2::{Digest as _, Sha256};

use super::access_cache::{AccessCache, KnownAccount};
use super::in_force::{InForce, KeptRules};
use super::password_users::PasswordUsers;
use super::recent_map::RecentMap;
use crate::access_token::{self, Generation, TokenRefused, VerifiedToken};
use crate::jws;

/// The maximum number of tokens that are known.
const MAX_TOKENS: usize = 4096;

/// The refusal of every token that is not good.
const INVALID: AuthenticationError = AuthenticationError::Token(TokenError::Invalid);

/// The hash of a token, so that a known token costs no memory for its text, and its text stays in no cache.
type TokenHash = [u8; 32];

/// The principal of a token, and the hash of its groups and grants. The policy says the same of all tokens that agree in them.
type SubjectHash = (Principal, [u8; 32]);

/// A token that was verified.
struct KnownToken {
    token: VerifiedToken,
    kid: KeyId,
    rules: Arc<KeptRules>,
    /// Its identity under the state with which it was last compared.
    compared: Mutex<Option<(Arc<InForce>, Identity)>>,
}

/// Checks access tokens.
pub(super) struct TokenChecks {
    access: Arc<AccessCache>,
    users: Option<Arc<dyn PasswordUsers>>,
    environment: Arc<dyn Environment>,
    service: String,
    known: Mutex<RecentMap<TokenHash, Arc<KnownToken>>>,
    /// The rules of the known tokens. Those of one principal share them, however many it has.
    rules: Mutex<RecentMap<SubjectHash, Arc<KeptRules>>>,
}

impl TokenChecks {
    pub(super) fn new(
        access: Arc<AccessCache>,
        users: Option<Arc<dyn PasswordUsers>>,
        environment: Arc<dyn Environment>,
        service: String,
    ) -> Self {
        Self {
            access,
            users,
            environment,
            service,
            known: Mutex::new(RecentMap::new(MAX_TOKENS)),
            rules: Mutex::new(RecentMap::new(MAX_TOKENS)),
        }
    }

    /// The identity that a token proves.
    pub(super) async fn check(&self, token: &str) -> Result<Identity, AuthenticationError> {
        Ok(self.find(token).await?.1)
    }

    /// Who uses the API with a token. A token for the API is good for everything that its account may do in it, also in
    /// repositories, of which its scope names none.
    pub(super) async fn api_caller(&self, token: &str) -> Result<ApiCaller, AuthenticationError> {
        let (known, identity) = self.find(token).await?;
        let token = &known.token;
        let account = match (token.generation, token.principal.kind()) {
            (Generation::Account(_), PrincipalKind::User | PrincipalKind::Robot) => {
                token.principal.name().and_then(|name| name.parse().ok())
            }
            _ => None,
        };
        let scope = match (token.access.registry().api, token.scope.is_of_key()) {
            // Whatever the token contains: no key with a scope is good for the API.
            (_, true) => ApiScope::NarrowKey,
            (true, false) => ApiScope::Contained,
            (false, false) => ApiScope::Missing,
        };
        Ok(ApiCaller {
            identity: match scope {
                ApiScope::Contained => identity.with_token_scope(Scope::EVERYTHING),
                ApiScope::Missing | ApiScope::NarrowKey => identity,
            },
            account,
            groups: token.groups.clone(),
            scope,
            is_bootstrap: false,
        })
    }

    /// A token that is good, and the identity that it proves.
    async fn find(&self, token: &str) -> Result<(Arc<KnownToken>, Identity), AuthenticationError> {
        let hash: TokenHash = Sha256::digest(token.as_bytes()).into();
        // Not in the head of a `match`: the lock would be held over the await.
        let known = self.known().get(&hash);
        let known = match known {
            Some(known) => known,
            None => self.verify(token, hash).await?,
        };
        if known.token.expires <= self.environment.now() {
            self.known().remove(&hash);
            return Err(INVALID);
        }
        let absent = self.check_user(&known.token).await?;
        let in_force = self.access.in_force().await?;
        let identity = known.identity(&in_force)?;
        let identity = match absent {
            Some(absent) => identity.with_state_read(absent.read),
            None => identity,
        };
        Ok((known, identity))
    }

    async fn verify(&self, token: &str, hash: TokenHash) -> Result<Arc<KnownToken>, AuthenticationError> {
        let kid = jws::parse(token).map_err(|_| INVALID)?.kid();
        let verify =
            |in_force: &InForce| access_token::verify(token, &in_force.keys, &self.service, self.environment.now());
        let in_force = self.access.in_force().await?;
        let verified = match verify(&in_force) {
            Err(TokenRefused::UnknownKey(_)) => {
                let more = self.access.with_more_keys(&in_force).await?;
                verify(&more)
            }
            verified => verified,
        };
        let verified = verified.map_err(|refused| {
            tracing::debug!("a token was refused: {refused}");
            INVALID
        })?;
        let rules = self.rules_of(&verified);
        let known = Arc::new(KnownToken {
            token: verified,
            kid,
            rules,
            compared: Mutex::default(),
        });
        self.known().insert(hash, known.clone());
        Ok(known)
    }

    fn rules_of(&self, token: &VerifiedToken) -> Arc<KeptRules> {
        let Ok(text) = serde_json::to_vec(&(&token.groups, &token.grants)) else {
            return Arc::default();
        };
        let subject: SubjectHash = (token.principal.clone(), Sha256::digest(&text).into());
        let mut known = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rules) = known.get(&subject) {
            return rules;
        }
        let rules = Arc::<KeptRules>::default();
        known.insert(subject, rules.clone());
        rules
    }

    /// The number of known tokens, and of the subjects that share rules.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        (self.known().values().count(), rules.values().count())
    }

    /// Whether the line of a user without an account is still the one for which the token was granted, and no account hides
    /// it. While there are no accounts, this reads no account. Returns what says that there is no account, if it was asked.
    async fn check_user(&self, token: &VerifiedToken) -> Result<Option<Arc<KnownAccount>>, AuthenticationError> {
        let Generation::Htpasswd(generation) = token.generation else {
            return Ok(None);
        };
        let (Some(users), Some(name)) = (&self.users, token.principal.name()) else {
            return Err(INVALID);
        };
        if users.generation(name).await != Some(generation) {
            return Err(INVALID);
        }
        // An account of that name hides the line, also one that is disabled.
        if let Ok(name) = name.parse::<AccountName>() {
            let (_, known) = self.access.with_account(&name).await?;
            if known.account.is_some() {
                return Err(INVALID);
            }
            return Ok(Some(known));
        }
        Ok(None)
    }

    fn known(&self) -> MutexGuard<'_, RecentMap<TokenHash, Arc<KnownToken>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KnownToken {
    /// The identity of the token under this state.
    fn identity(&self, in_force: &Arc<InForce>) -> Result<Identity, AuthenticationError> {
        let mut compared = self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((with, identity)) = &*compared
            && Arc::ptr_eq(with, in_force)
        {
            return Ok(identity.clone());
        }
        let identity = self.compare(in_force)?;
        *compared = Some((in_force.clone(), identity.clone()));
        Ok(identity)
    }

    fn compare(&self, in_force: &InForce) -> Result<Identity, AuthenticationError> {
        let token = &self.token;
        let generation = match token.generation {
            Generation::Account(generation) => generation,
            // The state knows the generations of accounts only.
            Generation::Htpasswd(_) => u64::MAX,
        };
        let withdrawn = &in_force.state.withdrawn;
        if in_force.keys.find(self.kid, in_force.read).is_none()
            || withdrawn.contains(&token.principal, generation, token.credential, token.issued)
        {
            return Err(INVALID);
        }
        let policy = in_force.policy()?;
        let identity = match token.principal.kind() {
            PrincipalKind::Anonymous => policy.anonymous.clone(),
            PrincipalKind::User | PrincipalKind::Robot | PrincipalKind::Workload => {
                let rules = self.rules.under(policy, || Subject {
                    principal: token.principal.clone(),
                    groups: token.groups.clone(),
                    grants: token.grants.clone(),
                });
                Identity::new(token.principal.clone(), rules)
            }
        };
        let scope = token.scope.clone();
        let scope = if token.access.registry().catalog {
            scope.with_catalog()
        } else {
            scope
        };
        let identity = identity.with_token_scope(scope).with_state_read(in_force.read);
        match token.credential {
            Some(key) => identity.with_credential(key).map_err(|_| INVALID),
            None => Ok(identity),
        }
    }
}
