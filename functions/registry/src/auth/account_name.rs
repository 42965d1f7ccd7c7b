//! The names of accounts and groups.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Principal;
use super::principal::is_account;

/// The name of a user's or robot's account. Users and robots share one name space. Cloning is cheap.
///
/// `[a-z0-9]+([._-][a-z0-9]+)*`, at most 64 bytes, and none of the [reserved names](AccountName::RESERVED). So a name is a
/// legal component of a repository's name, and needs no quotes in a shell.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountName(Arc<str>);

/// The text is not the name of an account.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AccountNameError {
    /// It has other characters, or is too long.
    #[error("not a name: expected at most 64 lower-case letters and digits, with single `.`, `_` or `-` between them")]
    Malformed,
    /// It has a meaning of its own where clients send credentials.
    #[error("the names {} are reserved", AccountName::RESERVED.join(", "))]
    Reserved,
}

impl AccountName {
    /// Names that no account has: as user names, clients send them with a key, an ID token or the bootstrap secret.
    pub const RESERVED: [&'static str; 4] = ["anonymous", "bootstrap", "key", "oidc"];

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The principal of the user with this account.
    #[must_use]
    pub fn user(&self) -> Principal {
        Principal::of_user(self.0.clone())
    }

    /// The principal of the robot with this account.
    #[must_use]
    pub fn robot(&self) -> Principal {
        Principal::of_robot(&self.0)
    }
}

impl FromStr for AccountName {
    type Err = AccountNameError;

    fn from_str(text: &str) -> Result<Self, AccountNameError> {
        if !is_account(text) {
            Err(AccountNameError::Malformed)
        } else if Self::RESERVED.contains(&text) {
            Err(AccountNameError::Reserved)
        } else {
            Ok(Self(text.into()))
        }
    }
}

impl TryFrom<String> for AccountName {
    type Error = AccountNameError;

    fn try_from(text: String) -> Result<Self, AccountNameError> {
        text.parse()
    }
}

impl From<AccountName> for String {
    fn from(name: AccountName) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a group of accounts: the same characters as those of an [`AccountName`]. Membership is an attribute of
/// the account, so a group exists while an account or a rule of the policy names it. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupName(Arc<str>);

/// The text is not the name of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "not the name of a group: expected at most 64 lower-case letters and digits, with single `.`, `_` or `-` between them"
)]
pub struct GroupNameError;

impl GroupName {
    /// The group whose members may do everything, except what a deny or immutable rule forbids.
    pub const ADMINS: &'static str = "admins";

    /// The group whose members may read everything in the API, and nothing in repositories.
    pub const AUDITORS: &'static str = "auditors";

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the group [`GroupName::ADMINS`].
    #[must_use]
    pub fn is_admins(&self) -> bool {
        self.as_str() == Self::ADMINS
    }
}

impl FromStr for GroupName {
    type Err = GroupNameError;

    fn from_str(text: &str) -> Result<Self, GroupNameError> {
        if is_account(text) {
            Ok(Self(text.into()))
        } else {
            Err(GroupNameError)
        }
    }
}

impl TryFrom<String> for GroupName {
    type Error = GroupNameError;

    fn try_from(text: String) -> Result<Self, GroupNameError> {
        text.parse()
    }
}

impl From<GroupName> for String {
    fn from(name: GroupName) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::auth::PrincipalKind;

    #[test]
    fn names_of_accounts() {
        let longest = "a".repeat(64);
        for name in ["a", "alice", "ci-1", "a.b_c-d", "0", &longest] {
            let account: AccountName = name.parse().unwrap();
            assert_eq!(account.as_str(), name);
            assert_eq!(account.user().to_string(), name);
            assert_eq!(account.robot().to_string(), format!("robot:{name}"));
            assert_eq!(account.robot().kind(), PrincipalKind::Robot);
            let json = serde_json::to_string(&account).unwrap();
            assert_eq!(serde_json::from_str::<AccountName>(&json).unwrap(), account);
            assert_eq!(name.parse::<GroupName>().unwrap().as_str(), name);
        }
        for wrong in [
            "",
            "A",
            "a b",
            "-a",
            "a-",
            "a..b",
            "a:b",
            "a/b",
            "a\n",
            "\u{e9}",
            &format!("{longest}a"),
        ] {
            assert_eq!(
                wrong.parse::<AccountName>(),
                Err(AccountNameError::Malformed),
                "{wrong:?}"
            );
            assert_eq!(wrong.parse::<GroupName>(), Err(GroupNameError), "{wrong:?}");
            assert!(serde_json::from_str::<AccountName>(&serde_json::to_string(wrong).unwrap()).is_err());
        }
        for reserved in AccountName::RESERVED {
            assert_eq!(reserved.parse::<AccountName>(), Err(AccountNameError::Reserved));
        }
        assert!("admins".parse::<GroupName>().unwrap().is_admins());
        assert!(!"auditors".parse::<GroupName>().unwrap().is_admins());
    }
}
