//! Principals, as values and as texts.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::text::is_runs;

/// The maximum length of an account's name, in bytes.
const MAX_ACCOUNT: usize = 64;

/// The kinds of principals.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PrincipalKind {
    /// A client that sent no credentials.
    Anonymous,
    /// The account of a person.
    User,
    /// The account of a machine.
    Robot,
    /// A job with an ID token of a trusted issuer.
    Workload,
}

/// The principal of a request. Cloning is cheap.
///
/// A principal has one text, which is the same in upload tokens (there an anonymous one is empty), histories and logs:
///
/// | kind | text | parts |
/// |---|---|---|
/// | anonymous | `:anonymous` | |
/// | user | `alice` | a name without colons and control characters |
/// | robot | `robot:ci` | an account's name: `[a-z0-9]+([._-][a-z0-9]+)*`, at most 64 bytes |
/// | workload | `workload:acme-main:acme/app` | the rule, without colons, and the name, which may have some; no control characters |
///
/// No two principals have the same text, and [`FromStr`] reads each one back:
///
/// ```
/// use registry::auth::{Principal, PrincipalKind};
///
/// let principal: Principal = "robot:ci".parse().unwrap();
/// assert_eq!((principal.kind(), principal.name()), (PrincipalKind::Robot, Some("ci")));
/// assert_eq!(principal.to_string(), "robot:ci");
/// assert!(Principal::user("robot:ci").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Principal(Option<Named>);

/// A principal that is not anonymous.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Named {
    kind: PrincipalKind,
    text: Arc<str>,
}

/// The text is not that of a principal, or the name is not valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not the name of a user, a robot or a workload")]
pub struct PrincipalError;

const ANONYMOUS: &str = ":anonymous";
const ROBOT: &str = "robot:";
const WORKLOAD: &str = "workload:";

impl Principal {
    /// A client that sent no credentials.
    pub const ANONYMOUS: Self = Self(None);

    /// The user with this name.
    pub fn user(name: &str) -> Result<Self, PrincipalError> {
        // A name with a colon could be the text of a principal of another kind.
        if is_text(name) && !name.contains(':') {
            Ok(Self::named(PrincipalKind::User, name.into()))
        } else {
            Err(PrincipalError)
        }
    }

    /// The robot whose account has this name.
    pub fn robot(name: &str) -> Result<Self, PrincipalError> {
        if is_account(name) {
            Ok(Self::named(PrincipalKind::Robot, format!("{ROBOT}{name}").into()))
        } else {
            Err(PrincipalError)
        }
    }

    /// The workload that the rule `rule` of the policy accepts under `name`.
    pub fn workload(rule: &str, name: &str) -> Result<Self, PrincipalError> {
        if is_text(rule) && !rule.contains(':') && is_text(name) {
            let text = format!("{WORKLOAD}{rule}:{name}");
            Ok(Self::named(PrincipalKind::Workload, text.into()))
        } else {
            Err(PrincipalError)
        }
    }

    /// The user with this name, which is that of an account.
    pub(super) fn of_user(name: Arc<str>) -> Self {
        Self::named(PrincipalKind::User, name)
    }

    /// The robot with this name, which is that of an account.
    pub(super) fn of_robot(name: &str) -> Self {
        Self::named(PrincipalKind::Robot, format!("{ROBOT}{name}").into())
    }

    fn named(kind: PrincipalKind, text: Arc<str>) -> Self {
        Self(Some(Named { kind, text }))
    }

    /// The kind of the principal.
    #[must_use]
    pub fn kind(&self) -> PrincipalKind {
        self.0.as_ref().map_or(PrincipalKind::Anonymous, |named| named.kind)
    }

    /// Whether the client sent no credentials.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.0.is_none()
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_ref().map_or(ANONYMOUS, |named| &*named.text)
    }

    /// The name of the user's or robot's account, or of the workload; `None` if anonymous.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self.kind() {
            PrincipalKind::Anonymous => None,
            PrincipalKind::User => Some(self.as_str()),
            PrincipalKind::Robot => self.as_str().strip_prefix(ROBOT),
            PrincipalKind::Workload => self.rule_and_name().map(|(_, name)| name),
        }
    }

    /// The rule that accepts a workload; `None` for other kinds.
    #[must_use]
    pub fn rule(&self) -> Option<&str> {
        match self.kind() {
            PrincipalKind::Workload => self.rule_and_name().map(|(rule, _)| rule),
            PrincipalKind::Anonymous | PrincipalKind::User | PrincipalKind::Robot => None,
        }
    }

    fn rule_and_name(&self) -> Option<(&str, &str)> {
        self.as_str().strip_prefix(WORKLOAD)?.split_once(':')
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Principal {
    type Err = PrincipalError;

    fn from_str(text: &str) -> Result<Self, PrincipalError> {
        if text == ANONYMOUS {
            Ok(Self::ANONYMOUS)
        } else if let Some(name) = text.strip_prefix(ROBOT) {
            Self::robot(name)
        } else if let Some(rest) = text.strip_prefix(WORKLOAD) {
            let (rule, name) = rest.split_once(':').ok_or(PrincipalError)?;
            Self::workload(rule, name)
        } else {
            Self::user(text)
        }
    }
}

/// Whether the text may be part of a log line: it is not empty and has no control characters.
fn is_text(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

/// Whether an account may have this name: `[a-z0-9]+([._-][a-z0-9]+)*`.
pub(super) fn is_account(name: &str) -> bool {
    name.len() <= MAX_ACCOUNT && is_runs(name, &['.', '_', '-'])
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_has_its_text_and_is_read_back() {
        let longest = "a".repeat(MAX_ACCOUNT);
        for (principal, text, kind, rule, name) in [
            (
                Principal::ANONYMOUS,
                ":anonymous".to_owned(),
                PrincipalKind::Anonymous,
                None,
                None,
            ),
            (
                Principal::user("alice").unwrap(),
                "alice".to_owned(),
                PrincipalKind::User,
                None,
                Some("alice"),
            ),
            // The names in htpasswd files may have more characters than the names of accounts.
            (
                Principal::user("\u{c9} \u{1f980}/@").unwrap(),
                "\u{c9} \u{1f980}/@".to_owned(),
                PrincipalKind::User,
                None,
                Some("\u{c9} \u{1f980}/@"),
            ),
            (
                Principal::user("robot").unwrap(),
                "robot".to_owned(),
                PrincipalKind::User,
                None,
                Some("robot"),
            ),
            (
                Principal::robot("ci").unwrap(),
                "robot:ci".to_owned(),
                PrincipalKind::Robot,
                None,
                Some("ci"),
            ),
            (
                Principal::robot(&longest).unwrap(),
                format!("robot:{longest}"),
                PrincipalKind::Robot,
                None,
                Some(&longest),
            ),
            (
                Principal::workload("acme-main", "acme/app").unwrap(),
                "workload:acme-main:acme/app".to_owned(),
                PrincipalKind::Workload,
                Some("acme-main"),
                Some("acme/app"),
            ),
            (
                Principal::workload("r", "repo:acme/app:ref:refs/heads/main").unwrap(),
                "workload:r:repo:acme/app:ref:refs/heads/main".to_owned(),
                PrincipalKind::Workload,
                Some("r"),
                Some("repo:acme/app:ref:refs/heads/main"),
            ),
        ] {
            assert_eq!(
                (principal.as_str(), principal.to_string()),
                (text.as_str(), text.clone())
            );
            assert_eq!(text.parse(), Ok(principal.clone()));
            assert_eq!(
                (principal.kind(), principal.rule(), principal.name()),
                (kind, rule, name)
            );
            assert_eq!(principal.is_anonymous(), kind == PrincipalKind::Anonymous);
        }
    }

    #[test]
    fn other_texts_are_not_principals() {
        for text in [
            "",
            ":",
            ":alice",
            "alice:",
            "a:b",
            "user:alice",
            "anonymous:",
            ":anonymous ",
            "robot:",
            "robot:CI",
            "robot:a b",
            "robot:-a",
            "robot:a..b",
            "robot:a:b",
            &format!("robot:{}", "a".repeat(MAX_ACCOUNT + 1)),
            "workload:",
            "workload:rule",
            "workload:rule:",
            "workload::name",
            "workload:ru\nle:name",
            "workload:rule:na\u{85}me",
            "a\nb",
            "a\0",
        ] {
            assert_eq!(text.parse::<Principal>(), Err(PrincipalError), "{text:?}");
        }
        for user in ["", "robot:ci", "workload:a:b", ":anonymous", "a\rb"] {
            assert_eq!(Principal::user(user), Err(PrincipalError), "{user:?}");
        }
        assert_eq!(Principal::workload("a:b", "c"), Err(PrincipalError));
    }

    proptest! {
        /// A parsed principal has the text that it was parsed from.
        #[test]
        fn any_text(text in "(|:|robot:|workload:|workload:[a-z]:)\\PC{0,40}") {
            if let Ok(principal) = text.parse::<Principal>() {
                prop_assert_eq!(principal.to_string(), text);
            }
        }
    }
}
