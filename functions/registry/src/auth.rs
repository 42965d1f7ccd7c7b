//! Who asks, and what for: [`Identity`] and [`Permit`].
//!
//! An [`Authenticator`] turns credentials into an [`Identity`]: a principal and a ceiling of what it may do. Only
//! [`Identity::permit`] makes a [`Permit`], and a permit is the only thing that carries a repository's name into an
//! operation. An operation on a repository that was not asked for, or without asking, does not compile.

use std::fmt;
use std::marker::PhantomData;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use oci::RepositoryName;

use crate::budget::ClientKey;
use crate::store::Cause;

/// Reads content and lists of one repository.
#[derive(Clone, Copy, Debug)]
pub enum Pull {}
/// Uploads blobs, publishes manifests and tags.
#[derive(Clone, Copy, Debug)]
pub enum Push {}
/// Removes tags, manifests and links to blobs.
#[derive(Clone, Copy, Debug)]
pub enum Delete {}
/// Sees that a repository exists, in the catalog.
#[derive(Clone, Copy, Debug)]
pub enum List {}

/// An action as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionKind {
    /// [`Pull`]
    Pull,
    /// [`Push`]
    Push,
    /// [`Delete`]
    Delete,
    /// [`List`]
    List,
}

mod sealed {
    pub trait Sealed {}
}

/// [`Pull`], [`Push`], [`Delete`] or [`List`]; nothing else can be one.
pub trait Action: sealed::Sealed {
    /// The action as a value.
    const KIND: ActionKind;
}

macro_rules! actions {
    ($($action:ident),*) => {$(
        impl sealed::Sealed for $action {}
        impl Action for $action {
            const KIND: ActionKind = ActionKind::$action;
        }
    )*};
}
actions!(Pull, Push, Delete, List);

/// The right to do `A` in one repository, and the only carrier of that repository's name into an operation.
#[derive(Debug)]
pub struct Permit<A: Action> {
    repository: RepositoryName,
    action: PhantomData<A>,
}

impl<A: Action> Permit<A> {
    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &RepositoryName {
        &self.repository
    }
}

/// Who sent a request.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Principal {
    /// Nobody in particular.
    Anonymous,
    /// A user by name.
    User(String),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // No user can have this name: a user's name is never empty and holds no colon.
            Self::Anonymous => f.write_str(":anonymous"),
            Self::User(name) => f.write_str(name),
        }
    }
}

/// The most that an identity may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Every action on every repository.
    Everything,
    /// Pulls and lists of every repository.
    PullOnly,
    /// Pushes to one repository: what a signed upload token grants to whoever holds it.
    Upload(RepositoryName),
}

/// The principal was refused an action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Denied;

/// A principal and its ceiling.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    principal: Principal,
    scope: Scope,
}

impl Identity {
    /// An identity as an [`Authenticator`] has found it.
    #[must_use]
    pub fn new(principal: Principal, scope: Scope) -> Self {
        Self { principal, scope }
    }

    /// Who it is.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Whether nothing is out of its reach.
    #[must_use]
    pub fn is_unrestricted(&self) -> bool {
        self.scope == Scope::Everything
    }

    /// The permit for `A` in `repository`, if the ceiling covers it.
    pub fn permit<A: Action>(&self, repository: &RepositoryName) -> Result<Permit<A>, Denied> {
        let granted = match (&self.scope, A::KIND) {
            (Scope::Everything, _) | (Scope::PullOnly, ActionKind::Pull | ActionKind::List) => true,
            (Scope::Upload(only), ActionKind::Push) => only == repository,
            (Scope::PullOnly | Scope::Upload(_), _) => false,
        };
        if granted {
            Ok(Permit {
                repository: repository.clone(),
                action: PhantomData,
            })
        } else {
            Err(Denied)
        }
    }
}

/// What the `Authorization` header says.
#[derive(Clone)]
pub enum Credentials {
    /// There is none.
    Absent,
    /// RFC 7617.
    Basic {
        /// The user's name: not empty, without a colon or control characters.
        user: String,
        /// The password; may be empty, may hold colons.
        password: String,
    },
    /// There is one that cannot be read, or of another scheme.
    Unreadable,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A password must not reach a log through a derived Debug.
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::Basic { .. } => "Basic",
            Self::Unreadable => "Unreadable",
        })
    }
}

impl Credentials {
    /// The longest user name and password, in bytes, that are looked at.
    pub const MAX_LEN: usize = 4096;

    /// Reads the `Authorization` header. Two of them are as good as an unreadable one: which of them was meant cannot
    /// be known.
    #[must_use]
    pub fn from_headers(headers: &http::HeaderMap) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) => Self::basic(value).unwrap_or(Self::Unreadable),
            (Some(_), Some(_)) => Self::Unreadable,
        }
    }

    fn basic(value: &HeaderValue) -> Option<Self> {
        let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > Self::MAX_LEN {
            return None;
        }
        let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        if user.is_empty() && password.is_empty() {
            // What clients send that were told to authenticate and have nothing to do it with.
            return Some(Self::Absent);
        }
        if user.is_empty() || user.chars().any(char::is_control) {
            return None;
        }
        Some(Self::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }
}

/// Where a request comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The client, for what clients share: checking a password takes time, and guesses must not take all of it.
    pub client: ClientKey,
}

/// Why there is no identity.
#[derive(Debug)]
pub enum AuthenticationError {
    /// Credentials are missing or wrong; the client is told how to present them (401).
    Unauthenticated,
    /// They could not be checked now (503).
    Unavailable(Cause),
    /// Too many others wait to be checked (503). Whoever guesses passwords can cause this as often as it likes, so that
    /// no line of the log comes of it here: the authenticator says it as seldom as it finds right.
    TooManyRequests,
}

/// Finds out who sent a request.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// The identity behind the credentials of one request.
    async fn authenticate(&self, origin: Origin, credentials: &Credentials) -> Result<Identity, AuthenticationError>;

    /// What a principal may do now that was authenticated earlier: an upload's token outlives the request that opened
    /// it, and what was revoked meanwhile must not be published. [`AuthenticationError::Unauthenticated`] if the
    /// principal is no longer known.
    async fn reauthorize(&self, principal: &Principal) -> Result<Identity, AuthenticationError>;

    /// The value of `WWW-Authenticate` in a 401 (RFC 9110, 11.6.1); `None` where no credentials would help.
    fn challenge(&self) -> Option<HeaderValue>;
}

/// Lets everyone in, up to a ceiling.
#[derive(Clone, Debug)]
pub struct Anonymous {
    scope: Scope,
}

impl Anonymous {
    /// Everyone may do everything.
    #[must_use]
    pub fn all() -> Self {
        Self {
            scope: Scope::Everything,
        }
    }

    /// Everyone may pull, and nobody may push.
    #[must_use]
    pub fn pull() -> Self {
        Self { scope: Scope::PullOnly }
    }
}

#[async_trait]
impl Authenticator for Anonymous {
    async fn authenticate(&self, _: Origin, _: &Credentials) -> Result<Identity, AuthenticationError> {
        Ok(Identity::new(Principal::Anonymous, self.scope.clone()))
    }

    async fn reauthorize(&self, _: &Principal) -> Result<Identity, AuthenticationError> {
        Ok(Identity::new(Principal::Anonymous, self.scope.clone()))
    }

    fn challenge(&self) -> Option<HeaderValue> {
        None
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn read(lines: &[&str]) -> Option<(String, String)> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        match Credentials::from_headers(&headers) {
            Credentials::Basic { user, password } => Some((user, password)),
            Credentials::Unreadable => None,
            Credentials::Absent => panic!("{lines:?} is not nothing"),
        }
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[test]
    fn credentials() {
        assert!(matches!(
            Credentials::from_headers(&HeaderMap::new()),
            Credentials::Absent
        ));
        let empty = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(&basic(":")).unwrap())]);
        assert!(matches!(Credentials::from_headers(&empty), Credentials::Absent));
        for (text, user, password) in [
            ("alice:secret", "alice", "secret"),
            ("alice:", "alice", ""),
            ("alice:a:b", "alice", "a:b"),
            ("\u{e9}:\u{1f980}", "\u{e9}", "\u{1f980}"),
            ("a b:\n", "a b", "\n"),
        ] {
            let expected = Some((user.to_owned(), password.to_owned()));
            assert_eq!(read(&[&basic(text)]), expected);
            assert_eq!(
                read(&[&basic(text).replace("Basic ", "BASIC  ")]),
                expected,
                "RFC 9110, 11.1"
            );
        }
        for line in [
            "",
            "Basic",
            "Basic ",
            "Basic !",
            "Bearer YTpi",
            "YTpi",
            "Basic YTpi YTpi",
            &basic("no colon"),
            &basic(":no user"),
            &basic("line\nbreak:x"),
            &basic("\u{85}:x"),
            &format!("Basic {}", STANDARD.encode(b"\xff:x")),
            "\u{e9}",
        ] {
            assert_eq!(read(&[line]), None, "{line:?}");
        }
    }

    /// Which of two was meant cannot be known.
    #[test]
    fn two_lines_are_unreadable() {
        assert_eq!(read(&[&basic("a:b"), &basic("a:b")]), None);
    }

    #[test]
    fn the_length_of_credentials_is_bounded() {
        let longest = "x".repeat(Credentials::MAX_LEN / 4 * 3 - 2);
        assert!(read(&[&basic(&format!("a:{longest}"))]).is_some());
        assert!(read(&[&basic(&format!("a:{longest}x"))]).is_none());
    }

    #[test]
    fn scopes() {
        let only: RepositoryName = "a/b".parse().unwrap();
        for (scope, repository, expected) in [
            (Scope::Everything, "a/b", [true, true, true, true]),
            (Scope::PullOnly, "a/b", [true, false, false, true]),
            (Scope::Upload(only.clone()), "a/b", [false, true, false, false]),
            (Scope::Upload(only.clone()), "a/b/c", [false; 4]),
            (Scope::Upload(only), "a", [false; 4]),
        ] {
            let identity = Identity::new(Principal::Anonymous, scope.clone());
            let repository = repository.parse().unwrap();
            let granted = [
                identity.permit::<Pull>(&repository).is_ok(),
                identity.permit::<Push>(&repository).is_ok(),
                identity.permit::<Delete>(&repository).is_ok(),
                identity.permit::<List>(&repository).is_ok(),
            ];
            assert_eq!(granted, expected, "{scope:?} {repository}");
            assert_eq!(identity.is_unrestricted(), expected == [true; 4]);
        }
        let identity = Identity::new(Principal::Anonymous, Scope::Everything);
        let name: RepositoryName = "x".parse().unwrap();
        assert_eq!(identity.permit::<Pull>(&name).unwrap().repository(), &name);
    }

    /// No user's name can be taken for nobody's.
    #[test]
    fn nobody_has_a_name_that_no_user_has() {
        assert_eq!(read(&[&basic(&format!("{}:x", Principal::Anonymous))]), None);
    }
}
