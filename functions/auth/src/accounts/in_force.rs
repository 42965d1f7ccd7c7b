//! What is in force: the access state that was read last, and the policy that belongs to it.

use std::sync::{Arc, Mutex, PoisonError};

use registry::auth::{AuthenticationError, Rules, Subject};
use registry::policy::Policy;
use registry::store::Timestamp;
use registry::store::access::AccessState;
use registry::{Identity, Principal};

use crate::key_set::KeySet;

/// A version of the policy, ready to be asked.
pub(super) struct PolicyInForce {
    /// Its version; `None`: no policy was set, so this is the default policy.
    pub(super) version: Option<u64>,
    /// The policy, with the rule that the settings add.
    pub(super) policy: Policy,
    /// What clients without credentials may do.
    pub(super) anonymous: Identity,
}

impl PolicyInForce {
    /// The policy `policy` in version `version`.
    pub(super) fn new(version: Option<u64>, policy: Policy) -> Self {
        let rules = policy.rules(&Subject::new(Principal::ANONYMOUS));
        let anonymous = Identity::new(Principal::ANONYMOUS, rules);
        Self {
            version,
            policy,
            anonymous,
        }
    }

    /// The identity of a subject.
    pub(super) fn identity_of(&self, subject: &Subject) -> Identity {
        Identity::new(subject.principal.clone(), self.policy.rules(subject))
    }
}

/// The policy in the table is one that this program cannot read, so it decides nothing: neither the default policy nor the
/// last one would be what an administrator has set.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("version {version} of the policy cannot be used by this program: {reason}")]
pub(super) struct UnusablePolicy {
    /// The version.
    pub(super) version: u64,
    /// Why.
    pub(super) reason: String,
    /// Whether the table does not have it. It may have it later: a replica may get the state before the policy.
    pub(super) is_missing: bool,
}

/// The access state, as it was read at one time, and the policy that it puts in force.
pub(super) struct InForce {
    /// The state.
    pub(super) state: AccessState,
    /// The policy.
    pub(super) policy: Result<Arc<PolicyInForce>, UnusablePolicy>,
    /// The keys that verify tokens.
    pub(super) keys: Arc<KeySet>,
    /// Whether clients need no credentials, because the settings say so and no account exists. Never again after an account
    /// was seen: the removal of the last account opens nothing.
    pub(super) is_open: bool,
    /// When the read began. Whatever was acknowledged before that is in the state.
    pub(super) read: Timestamp,
}

impl InForce {
    /// The maximum age of a state by which requests are decided, in milliseconds.
    pub(super) const MAX_AGE_MS: u64 = 10_000;

    /// The policy. The error says that nothing can be decided.
    pub(super) fn policy(&self) -> Result<&Arc<PolicyInForce>, AuthenticationError> {
        let policy = self.policy.as_ref();
        policy.map_err(|unusable| AuthenticationError::Unavailable(unusable.clone().into()))
    }

    /// What clients without credentials may do.
    pub(super) fn anonymous(&self) -> Result<Identity, AuthenticationError> {
        Ok(self.policy()?.anonymous.clone().with_state_read(self.read))
    }

    /// Whether requests may be decided by this state at `now`. A clock that was set back makes no state young.
    pub(super) fn is_current(&self, now: Timestamp) -> bool {
        is_young(self.read, now)
    }
}

/// Whether what was read at `read` may still be used at `now`.
pub(super) fn is_young(read: Timestamp, now: Timestamp) -> bool {
    read <= now && now.millis_since(read) < InForce::MAX_AGE_MS
}

/// The rules that concern one subject, kept until another policy comes in force.
#[derive(Default)]
pub(super) struct KeptRules(Mutex<Option<(Arc<PolicyInForce>, Rules)>>);

impl KeptRules {
    /// The rules under `policy`; `subject` is asked for if they are not known.
    pub(super) fn under(&self, policy: &Arc<PolicyInForce>, subject: impl FnOnce() -> Subject) -> Rules {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, rules)) = &*kept
            && Arc::ptr_eq(known, policy)
        {
            return rules.clone();
        }
        let rules = policy.policy.rules(&subject());
        *kept = Some((policy.clone(), rules.clone()));
        rules
    }
}
