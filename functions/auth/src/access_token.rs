//! Access tokens: what the token endpoint issues, and every other endpoint accepts.
//!
//! A token says who asks, what it asked for and was granted, and what it takes to decide again at each request: the groups of
//! the account and its grants. It never allows more than the policy allows at that moment. Whether it was withdrawn
//! meanwhile is known by [`Withdrawn`](registry::store::access::Withdrawn), which the caller asks.

mod claims;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use registry::Environment;
use registry::auth::{CredentialId, GroupName, Principal, PrincipalKind, RepositoryGrant, Scope};
use registry::store::Timestamp;
use registry::store::access::KeyId;
use sha2::{Digest as _, Sha256};

use self::claims::Claims;
use crate::jws::{self, JwsError};
use crate::key_set::KeySet;
use crate::scope::{GrantedScope, RegistryAccess, RequestedScope};
use crate::signing_key::TokenSigner;

/// How long a token is accepted after the time that the client learns, in seconds: for clocks that differ, and for requests
/// under way. A token is also accepted if it was issued up to so much later than now.
pub const SLACK_SECONDS: u64 = 60;

/// The range of lifetimes, in seconds, as the client learns them.
pub const LIFETIME_SECONDS: std::ops::RangeInclusive<u64> = 60..=3600;

/// The lifetime where nobody chose another one, in seconds.
pub const DEFAULT_LIFETIME_SECONDS: u64 = 600;

/// The length of a token's own id, in bytes.
const ID_LEN: usize = 9;

/// The state of an account for which a token was issued. A later one may withdraw the token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Generation {
    /// The generation of an account; 0 for principals without one.
    Account(u64),
    /// The first 8 bytes of SHA-256 of the hash of a user of the htpasswd file. As text they are 16 hexadecimal digits, which
    /// is longer than the generations of accounts are for 30,000 years.
    Htpasswd(u64),
}

/// The text is not that of a generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a generation")]
pub struct GenerationError;

/// The largest generation of an account. Generations are times in milliseconds, unless a clock was wrong or a record was made
/// by hand; a longer number could be read as [`Generation::Htpasswd`].
pub const MAX_GENERATION: u64 = 999_999_999_999_999;

/// The length of the text of [`Generation::Htpasswd`].
const HTPASSWD_LEN: usize = 16;

impl Generation {
    /// Of principals without an account.
    pub const NONE: Self = Self::Account(0);

    /// Of a user with this hash in the htpasswd file.
    #[must_use]
    pub fn of_htpasswd(hash: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(hash.as_bytes()).into();
        let (first, _) = digest.as_chunks::<8>();
        Self::Htpasswd(u64::from_be_bytes(first[0]))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(number) => write!(f, "{number}"),
            Self::Htpasswd(bits) => write!(f, "{bits:016x}"),
        }
    }
}

impl FromStr for Generation {
    type Err = GenerationError;

    fn from_str(text: &str) -> Result<Self, GenerationError> {
        let number = if text.len() == HTPASSWD_LEN {
            u64::from_str_radix(text, 16).map(Self::Htpasswd)
        } else {
            text.parse().map(Self::Account)
        };
        // A generation has one text: no sign, no upper-case digits, no zeros before a number.
        number
            .ok()
            .filter(|number| number.to_string() == text)
            .ok_or(GenerationError)
    }
}

/// A token to be issued.
#[derive(Clone, Copy, Debug)]
pub struct NewToken<'a> {
    /// The service: issuer and audience.
    pub service: &'a str,
    /// The principal.
    pub principal: &'a Principal,
    /// The generation of its account.
    pub generation: Generation,
    /// The key for which the token is issued; `None` for another secret.
    pub credential: Option<CredentialId>,
    /// The scope of that key, if it has one. The token contains it: a scope may let a key create tags and not move them, and the
    /// actions of a token have one word for both. Of a scope that is too long it contains what concerns the granted repositories.
    pub key_scope: Option<&'a [RepositoryGrant]>,
    /// All groups of the account.
    pub groups: &'a BTreeSet<GroupName>,
    /// All grants of the account. The token contains those that concern what its client has asked for, as far as they fit: they also
    /// say why something is not granted.
    pub grants: &'a [RepositoryGrant],
    /// What the client has asked for.
    pub requested: &'a RequestedScope,
    /// What is granted.
    pub access: &'a GrantedScope,
    /// How long it lives, in seconds: within [`LIFETIME_SECONDS`].
    pub lifetime_seconds: u64,
}

/// A token that was issued.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// The token.
    pub token: String,
    /// Its own id, for the log.
    pub id: String,
    /// What it contains: a resource that made the token too long was left out.
    pub access: GrantedScope,
    /// After how many seconds the client has to ask for another one.
    pub expires_in: u64,
}

impl fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedToken")
            .field("id", &self.id)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

/// The token does not fit into [`jws::MAX_LEN`], even without a resource: the names of service and principal are too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the names of the service and the user are too long for a token")]
pub struct TooLong;

/// What a token says of other repositories than the granted ones. If it contains a list of repositories, it has so many more
/// grants for the list, `listed`, both of the account and of a part of the scope of its key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    /// The whole scope of the key, and the grants that concern what was asked for.
    Requested { listed: usize },
    /// Nothing else.
    Granted { listed: usize },
}

impl NewToken<'_> {
    /// Issues the token. What would make it too long is left out: first grants that only a list of repositories needs, then what
    /// explains refusals in other repositories than the granted ones, and then resources, the last ones first.
    pub fn issue(&self, key: &TokenSigner, environment: &dyn Environment) -> Result<IssuedToken, TooLong> {
        let mut id = [0; ID_LEN];
        environment.random(&mut id);
        let id = URL_SAFE_NO_PAD.encode(id);
        let issued = environment.now().0 / 1000;
        let payload = |count: usize, others: Others| {
            let access = self.access.first(count);
            let payload = self.claims(&access, others, &id, issued).to_json();
            (jws::len(payload.len()) <= jws::MAX_LEN).then_some((access, payload))
        };
        let all = self.access.resources().len();
        // A client whose token lacks the catalog would ask for another token for ever, so a shorter list is better.
        let most = self.grants.len().max(self.key_scope.map_or(0, <[_]>::len));
        let fitting = largest(most, |listed| payload(all, Others::Requested { listed }))
            .or_else(|| largest(most, |listed| payload(all, Others::Granted { listed })))
            .or_else(|| largest(all, |count| payload(count, Others::Granted { listed: 0 })));
        let (access, payload) = fitting.ok_or(TooLong)?;
        Ok(IssuedToken {
            token: jws::sign(key, &payload),
            id,
            access,
            expires_in: self.lifetime_seconds,
        })
    }

    fn claims(&self, access: &GrantedScope, others: Others, id: &str, issued: u64) -> Claims {
        let requested = match others {
            Others::Requested { .. } => Some(self.requested),
            Others::Granted { .. } => None,
        };
        let names = |grant: &RepositoryGrant| {
            let requested = requested.into_iter().flat_map(RequestedScope::repositories);
            let mut named = access.repositories().chain(requested);
            named.any(|name| grant.repositories.matches(name))
        };
        let (Others::Requested { listed } | Others::Granted { listed }) = others;
        let listed = if access.registry() == RegistryAccess::default() {
            0
        } else {
            listed
        };
        let concerning = |grants: &[RepositoryGrant]| {
            let mut left = listed;
            let concerns = |grant: &&RepositoryGrant| {
                let is_needed = names(grant);
                if is_needed || left == 0 {
                    return is_needed;
                }
                left -= 1;
                true
            };
            grants
                .iter()
                .filter(concerns)
                .map(claims::Grant::from)
                .collect::<Vec<_>>()
        };
        let (key_scope, key_scope_part) = match (self.key_scope, others) {
            (None, _) => (None, None),
            (Some(scope), Others::Requested { .. }) => (Some(scope.iter().map(claims::Grant::from).collect()), None),
            (Some(scope), Others::Granted { .. }) => (None, Some(concerning(scope))),
        };
        let subject = match self.principal.kind() {
            PrincipalKind::Anonymous => "",
            PrincipalKind::User | PrincipalKind::Robot | PrincipalKind::Workload => self.principal.as_str(),
        };
        Claims {
            issuer: self.service.to_owned(),
            audience: self.service.to_owned(),
            subject: subject.to_owned(),
            issued,
            expires: issued + self.lifetime_seconds + SLACK_SECONDS,
            id: id.to_owned(),
            access: access.resources().iter().map(claims::Access::from).collect(),
            roadstead: claims::Roadstead {
                generation: self.generation.to_string(),
                credential: self.credential,
                key_scope,
                key_scope_part,
                groups: self.groups.clone(),
                grants: concerning(self.grants),
            },
        }
    }
}

/// The value for the largest number, at most `max`, that has one. Whatever is below a number that has one has one too, so it is
/// found by halving.
fn largest<T>(max: usize, value: impl Fn(usize) -> Option<T>) -> Option<T> {
    if let Some(found) = value(max) {
        return Some(found);
    }
    let mut found = value(0)?;
    let (mut fits, mut too_many) = (0, max);
    while too_many - fits > 1 {
        let middle = fits.midpoint(too_many);
        match value(middle) {
            Some(larger) => (fits, found) = (middle, larger),
            None => too_many = middle,
        }
    }
    Some(found)
}

/// What a good token says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedToken {
    /// The principal.
    pub principal: Principal,
    /// What the token contains, as it was granted.
    pub access: GrantedScope,
    /// The permissions in repositories that neither it nor the scope of its key withholds.
    pub scope: Scope,
    /// The generation of the account for which it was issued.
    pub generation: Generation,
    /// The key for which it was issued.
    pub credential: Option<CredentialId>,
    /// The groups that the account had.
    pub groups: BTreeSet<GroupName>,
    /// Those of its grants that concern what was asked for, as far as they fit.
    pub grants: Vec<RepositoryGrant>,
    /// When it was issued, in whole seconds.
    pub issued: Timestamp,
    /// The time from which it is refused.
    pub expires: Timestamp,
    /// Its own id.
    pub id: String,
}

/// Why a text is not a good access token.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenRefused {
    /// It is not a token of this registry, or was changed.
    #[error(transparent)]
    Frame(#[from] JwsError),
    /// Its key is not known, or not any more. A state that is read again may have the key.
    #[error("the key {0} is not known")]
    UnknownKey(KeyId),
    /// It is signed, and is no access token.
    #[error("the claims are not those of an access token")]
    Claims,
    /// It is for another service, or for another use.
    #[error("the token is for another service")]
    Audience,
    /// It has ended.
    #[error("the token has ended")]
    Expired,
    /// It was issued more than [`SLACK_SECONDS`] after now: the clock of this machine or of another one is wrong.
    #[error("the token is from the future")]
    Future,
}

/// What a token says, if it is an access token of `service` that `keys` verify, and is within its time.
pub fn verify(token: &str, keys: &KeySet, service: &str, now: Timestamp) -> Result<VerifiedToken, TokenRefused> {
    let frame = jws::parse(token)?;
    let kid = frame.kid();
    let key = keys.find(kid, now).ok_or(TokenRefused::UnknownKey(kid))?;
    let payload = frame.verify(key)?;
    let claims = Claims::from_json(&payload).ok_or(TokenRefused::Claims)?;
    if claims.issuer != service || claims.audience != service {
        return Err(TokenRefused::Audience);
    }
    let longest = LIFETIME_SECONDS.end() + SLACK_SECONDS;
    // What is withdrawn is remembered for as long as the longest token lives.
    if claims
        .expires
        .checked_sub(claims.issued)
        .is_none_or(|lifetime| lifetime > longest)
    {
        return Err(TokenRefused::Claims);
    }
    let seconds = |seconds: u64| Timestamp(seconds.saturating_mul(1000));
    let (issued, expires) = (seconds(claims.issued), seconds(claims.expires));
    if issued > now.plus_millis(SLACK_SECONDS * 1000) {
        return Err(TokenRefused::Future);
    }
    if expires <= now {
        return Err(TokenRefused::Expired);
    }
    claims.verified(issued, expires).ok_or(TokenRefused::Claims)
}
