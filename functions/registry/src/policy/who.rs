//! The principals that a rule concerns.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::auth::{AccountName, GroupName, Principal};

/// Some principals: a word of `who`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Who {
    /// `anyone`: every principal, also an anonymous one.
    Anyone,
    /// `signed-in`: every principal that is not anonymous.
    SignedIn,
    /// `users`
    Users,
    /// `robots`
    Robots,
    /// `workloads`
    Workloads,
    /// `user:NAME`: one user; also one of a htpasswd file, whose name may have other characters than that of an account.
    User(String),
    /// `robot:NAME`: one robot.
    Robot(AccountName),
    /// `group:NAME`: the members of a group.
    Group(GroupName),
    /// `workload:RULE`: the workloads that a rule of the document accepts.
    Workload(String),
}

/// The text does not say who.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "expected `anyone`, `signed-in`, `users`, `robots`, `workloads`, or `user:`, `robot:`, `group:` or `workload:` with a name"
)]
pub struct WhoError;

impl FromStr for Who {
    type Err = WhoError;

    fn from_str(text: &str) -> Result<Self, WhoError> {
        match text {
            "anyone" => return Ok(Self::Anyone),
            "signed-in" => return Ok(Self::SignedIn),
            "users" => return Ok(Self::Users),
            "robots" => return Ok(Self::Robots),
            "workloads" => return Ok(Self::Workloads),
            _ => {}
        }
        let (kind, name) = text.split_once(':').ok_or(WhoError)?;
        match kind {
            "user" if Principal::user(name).is_ok() => Ok(Self::User(name.to_owned())),
            "robot" => name.parse().map(Self::Robot).map_err(|_| WhoError),
            "group" => name.parse().map(Self::Group).map_err(|_| WhoError),
            "workload" if Principal::workload(name, "name").is_ok() => Ok(Self::Workload(name.to_owned())),
            _ => Err(WhoError),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str("anyone"),
            Self::SignedIn => f.write_str("signed-in"),
            Self::Users => f.write_str("users"),
            Self::Robots => f.write_str("robots"),
            Self::Workloads => f.write_str("workloads"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::Robot(name) => write!(f, "robot:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Workload(rule) => write!(f, "workload:{rule}"),
        }
    }
}

impl Serialize for Who {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for word in [
            "anyone",
            "signed-in",
            "users",
            "robots",
            "workloads",
            "user:alice",
            "user:\u{c9} \u{1f980}/@",
            "robot:ci",
            "group:admins",
            "workload:acme-main",
        ] {
            assert_eq!(word.parse::<Who>().map(|who| who.to_string()), Ok(word.to_owned()));
        }
        for wrong in [
            "",
            "everyone",
            "Anyone",
            "user",
            "user:",
            "user:a:b",
            "user:a\nb",
            "robot:",
            "robot:CI",
            "robot:key",
            "group:A",
            "workload:",
            "workload:a:b",
            "users:a",
            ":anonymous",
            "alice",
        ] {
            assert_eq!(wrong.parse::<Who>(), Err(WhoError), "{wrong:?}");
        }
    }
}
