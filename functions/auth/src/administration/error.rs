//! Why a change is not made.

use std::fmt;

use registry::auth::{AccountName, CredentialId};
use registry::policy::Mistake;
use registry::store::StoreError;
use registry::store::access::AccountKind;

/// Why a change is not made. Nothing is changed then, except after [`AdministrationError::Store`]: the store may have made
/// the change although its answer was lost.
#[derive(Debug, thiserror::Error)]
pub enum AdministrationError {
    /// Other changes came first, each time that this one was tried.
    #[error(
        "another change of accounts, the policy or signing keys was made at the same time; nothing was changed, run this again"
    )]
    Conflict,
    /// The policy in force is not the version from which the new one was made.
    #[error(
        "another policy was set meanwhile: {} is in force now, and yours was made from {}; nothing was changed",
        InWords(.in_force), InWords(.made_from)
    )]
    PolicyConflict {
        /// The version that the caller has changed. `None`: no policy was set.
        made_from: Option<u64>,
        /// The version in force.
        in_force: Option<u64>,
    },
    /// The account is not in the version that the caller has changed.
    #[error("another change of {0} was made first; nothing was changed")]
    AccountChanged(AccountName),
    /// There is an administrator, or there was one, so the bootstrap secret makes no account.
    #[error("there is an administrator already")]
    HasAdmin,
    /// The first administrator could not use the API, so nobody could make another one over it.
    #[error("the first administrator {0} needs a password, or a key without a scope")]
    NoLogin(AccountName),
    /// There is no such account.
    #[error("there is no {} {name}", Asked(.kind))]
    NoAccount {
        /// The name.
        name: AccountName,
        /// The kind that was asked for.
        kind: Option<AccountKind>,
    },
    /// There is an account of that name. Users and robots share one name space.
    #[error("there is a {} {name} already", .kind.as_str())]
    Exists {
        /// The name.
        name: AccountName,
        /// The kind of the account.
        kind: AccountKind,
    },
    /// The account is of the other kind.
    #[error("{name} is a {}", .kind.as_str())]
    OtherKind {
        /// The name.
        name: AccountName,
        /// The kind of the account.
        kind: AccountKind,
    },
    /// The account has no such key.
    #[error("{name} has no key {id}")]
    NoKey {
        /// The account.
        name: AccountName,
        /// The key.
        id: CredentialId,
    },
    /// The key has ended, so it can be neither changed nor rotated.
    #[error("the key {id} of {name} has ended; add a new one")]
    KeyEnded {
        /// The account.
        name: AccountName,
        /// The key.
        id: CredentialId,
    },
    /// A grant that is to be taken away is not there.
    #[error("{name} has no grant {grant}")]
    NoGrant {
        /// The account.
        name: AccountName,
        /// The grant's text.
        grant: String,
    },
    /// The account is not in a group that it is to leave.
    #[error("{name} is not in the group {group}")]
    NotInGroup {
        /// The account.
        name: AccountName,
        /// The group.
        group: String,
    },
    /// Users have no grants.
    #[error("only robots have grants; the policy says what users may do")]
    UserGrants,
    /// Robots have no password.
    #[error("{0} is a robot; robots have keys, and no password")]
    RobotPassword(AccountName),
    /// A limit would be exceeded.
    #[error("{name} would have {found} {what}, and at most {maximum} are allowed")]
    TooMany {
        /// The account.
        name: AccountName,
        /// What there would be too many of.
        what: &'static str,
        /// How many there would be.
        found: usize,
        /// The maximum.
        maximum: usize,
    },
    /// A grant or the scope of a key allows nothing.
    #[error("a grant needs an action")]
    EmptyGrant,
    /// A key would end before it begins.
    #[error("a key must end in the future")]
    Expired,
    /// A key that is replaced would work for longer than [`MAX_OVERLAP_MS`](super::keys::MAX_OVERLAP_MS).
    #[error("an overlap is at most 365 days")]
    LongOverlap,
    /// It is the last enabled administrator.
    #[error("{0} is the last enabled administrator")]
    LastAdmin(AccountName),
    /// There are so many keys that verify tokens that no more may be published.
    #[error(
        "{found} signing keys still verify tokens, and at most {maximum} may; wait an hour, or replace them at once"
    )]
    TooManySigningKeys {
        /// How many there are.
        found: usize,
        /// The maximum.
        maximum: usize,
    },
    /// The document has mistakes.
    #[error("the policy has {} mistakes", .0.len())]
    Mistakes(Vec<Mistake>),
    /// The document uses what this version does not offer yet.
    #[error(
        "the policy has [[issuer]] or [[workload]] rules, and this version accepts no ID tokens yet; remove these rules"
    )]
    Workloads,
    /// There is no such version of the policy.
    #[error("there is no version {0} of the policy")]
    NoPolicy(u64),
    /// The table holds a document that this program cannot read.
    #[error("version {0} of the policy cannot be read by this program: it was set by a newer one, or is damaged")]
    UnreadablePolicy(u64),
    /// The store has failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The kind of an account that was asked for, as a word.
struct Asked<'a>(&'a Option<AccountKind>);

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("account"),
            Some(kind) => f.write_str(kind.as_str()),
        }
    }
}

/// A version of the policy, in words.
struct InWords<'a>(&'a Option<u64>);

impl fmt::Display for InWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("the default policy"),
            Some(version) => write!(f, "version {version}"),
        }
    }
}
