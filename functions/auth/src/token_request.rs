//! What the token endpoint reads: the query of a GET and the form of a POST.
//!
//! Clients send `service`, `account` and `client_id` too. They are not checked and not read: the credentials say who asks, and
//! there is one service. `offline_token` and `access_type` are not read either: there is no refresh token to ask for.

use std::borrow::Cow;
use std::fmt;

use crate::scope::{RequestedScope, TooManyScopes};

/// A request for a token, whatever its method. Credentials of a GET are in its header.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TokenRequest {
    /// What the client asks for; nothing if it only proves its identity, as `docker login` does.
    pub scope: RequestedScope,
}

/// The form of a POST.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenForm {
    /// What it asks for.
    pub request: TokenRequest,
    /// The credentials in the form.
    pub credentials: FormCredentials,
}

/// The credentials in a form. They are not printed.
#[derive(Clone, PartialEq, Eq)]
pub enum FormCredentials {
    /// A password grant with neither a user nor a password: the client has none.
    Absent,
    /// `grant_type=password`
    Password {
        /// The user's name: not empty, without colons or control characters, as in a header.
        user: String,
        /// The password, or a key.
        password: String,
    },
    /// `grant_type=refresh_token`: a key, an ID token or a session token, and never an access token.
    RefreshToken(String),
}

impl fmt::Debug for FormCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::Password { .. } => "Password",
            Self::RefreshToken(_) => "RefreshToken",
        })
    }
}

/// Why a request for a token cannot be read. The response is 400.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenRequestError {
    /// There are too many scopes.
    #[error(transparent)]
    TooManyScopes(#[from] TooManyScopes),
    /// The form is not text.
    #[error("the form is not text")]
    NotText,
    /// The form lacks a field.
    #[error("the form has no field `{0}`")]
    Missing(&'static str),
    /// A field that may be there once is there again.
    #[error("the form has the field `{0}` more than once")]
    Repeated(&'static str),
    /// The grant type is neither `password` nor `refresh_token`.
    #[error("the grant type is not `password` or `refresh_token`")]
    GrantType,
    /// The user's name is empty, or has a colon or a control character.
    #[error("the name of the user is not valid")]
    UserName,
}

impl TokenRequest {
    /// Reads the query of a GET.
    pub fn from_query(query: &str) -> Result<Self, TokenRequestError> {
        Self::from_fields(&Fields::read(query))
    }

    fn from_fields(fields: &Fields<'_>) -> Result<Self, TokenRequestError> {
        Ok(Self {
            scope: RequestedScope::read(fields.all("scope"))?,
        })
    }
}

impl TokenForm {
    /// Reads the body of a POST, of which the core has bounded the length.
    pub fn read(body: &[u8]) -> Result<Self, TokenRequestError> {
        let body = std::str::from_utf8(body).map_err(|_| TokenRequestError::NotText)?;
        let fields = Fields::read(body);
        let credentials = match fields.required("grant_type")? {
            "password" => {
                let (user, password) = (fields.required("username")?, fields.required("password")?);
                match (user, password) {
                    ("", "") => FormCredentials::Absent,
                    (user, _) if user.is_empty() || user.chars().any(|c| c == ':' || c.is_control()) => {
                        return Err(TokenRequestError::UserName);
                    }
                    (user, password) => FormCredentials::Password {
                        user: user.to_owned(),
                        password: password.to_owned(),
                    },
                }
            }
            "refresh_token" => FormCredentials::RefreshToken(fields.required("refresh_token")?.to_owned()),
            _ => return Err(TokenRequestError::GrantType),
        };
        Ok(Self {
            request: TokenRequest::from_fields(&fields)?,
            credentials,
        })
    }
}

/// The fields of a query or a form, decoded.
struct Fields<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Fields<'a> {
    fn read(text: &'a str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).collect())
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| &**value)
    }

    /// The value of a field that must be there once (RFC 6749, 3.2).
    fn required(&self, name: &'static str) -> Result<&str, TokenRequestError> {
        let mut values = self.all(name);
        let value = values.next().ok_or(TokenRequestError::Missing(name))?;
        match values.next() {
            None => Ok(value),
            Some(_) => Err(TokenRequestError::Repeated(name)),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use oci::RepositoryName;
    use proptest::prelude::*;
    use registry::auth::Actions;

    use super::*;
    use crate::scope::{MAX_SCOPES, RegistryAccess};

    /// What is granted where everything is allowed.
    fn granted(request: &TokenRequest) -> String {
        let registry = RegistryAccess {
            catalog: true,
            api: true,
        };
        request
            .scope
            .grant(|_: &RepositoryName| Actions::ALL, registry)
            .to_string()
    }

    #[test]
    fn queries_of_clients() {
        for (what, query, scope) in [
            ("nothing", "", ""),
            (
                "docker login",
                "account=alice&client_id=docker&offline_token=true&service=registry.example.com",
                "",
            ),
            (
                "docker pull",
                "account=alice&scope=repository%3Aa%2Fb%3Apull&service=registry.example.com",
                "repository:a/b:pull",
            ),
            (
                "docker push with a mount",
                "scope=repository%3Aa%3Apush%2Cpull&scope=repository%3Ab%3Apull&service=x",
                "repository:a:pull,push repository:b:pull",
            ),
            (
                "crane, skopeo: nothing is encoded",
                "scope=repository:a/b:pull&service=roadstead",
                "repository:a/b:pull",
            ),
            (
                "scopes joined by a space",
                "scope=repository:a:pull+repository:b:pull&service=",
                "repository:a:pull repository:b:pull",
            ),
            (
                "joined by another form of a space, and repeated",
                "scope=repository:a:pull%20repository:b:pull&scope=repository:a:push",
                "repository:a:pull,push repository:b:pull",
            ),
            ("empty scopes", "service=x&scope=&scope=", ""),
            ("every action", "scope=repository:a:*", "repository:a:pull,push,delete"),
            ("the catalog", "scope=registry:catalog:*", "registry:catalog:*"),
            ("offline by the other name", "access_type=offline", ""),
            ("no offline token", "offline_token=false&access_type=online", ""),
            (
                "names are not those of others",
                "Scope=repository:a:pull&scopes=repository:a:pull",
                "",
            ),
            ("garbage", "&&=&%zz&%ff=%ff&scope=%ff&scope", ""),
            (
                "credentials of a query are not read",
                "grant_type=password&username=alice&password=secret&scope=repository:a:pull",
                "repository:a:pull",
            ),
        ] {
            let request = TokenRequest::from_query(query).unwrap();
            assert_eq!(granted(&request), scope, "{what}");
        }
    }

    #[test]
    fn forms_of_clients() {
        let password = |user: &str, password: &str| FormCredentials::Password {
            user: user.into(),
            password: password.into(),
        };
        for (what, form, expected, scope) in [
            (
                "containerd with a password",
                "client_id=containerd-client&grant_type=password&password=p%26ss+w%C3%B6rd&scope=repository%3Aa%2Fb%3Apull&service=x&username=alice",
                password("alice", "p&ss w\u{f6}rd"),
                "repository:a/b:pull",
            ),
            (
                "containerd, several scopes joined",
                "grant_type=password&username=alice&password=x&scope=repository:a:pull+repository:b:pull%2Cpush",
                password("alice", "x"),
                "repository:a:pull repository:b:pull,push",
            ),
            (
                "containerd with an identity token",
                "client_id=containerd-client&grant_type=refresh_token&refresh_token=rsk_ci.x&scope=repository:a:pull&service=x",
                FormCredentials::RefreshToken("rsk_ci.x".into()),
                "repository:a:pull",
            ),
            (
                "a key as password",
                "grant_type=password&username=key&password=rsk_ci.x&access_type=offline&scope=",
                password("key", "rsk_ci.x"),
                "",
            ),
            (
                "no credentials",
                "grant_type=password&username=&password=&scope=repository:a:pull",
                FormCredentials::Absent,
                "repository:a:pull",
            ),
            (
                "an empty password",
                "grant_type=password&username=alice&password=",
                password("alice", ""),
                "",
            ),
            (
                "a colon in the password, scopes repeated",
                "grant_type=password&username=alice&password=a:b&scope=repository:a:pull&scope=repository:b:pull",
                password("alice", "a:b"),
                "repository:a:pull repository:b:pull",
            ),
            (
                "an empty refresh token",
                "grant_type=refresh_token&refresh_token=",
                FormCredentials::RefreshToken(String::new()),
                "",
            ),
        ] {
            let form = TokenForm::read(form.as_bytes()).unwrap();
            assert_eq!(form.credentials, expected, "{what}");
            let request = form.request;
            assert_eq!(granted(&request), scope, "{what}");
        }
    }

    #[test]
    fn forms_that_are_refused() {
        use TokenRequestError::{GrantType, Missing, NotText, Repeated, UserName};
        for (form, expected) in [
            ("", Missing("grant_type")),
            ("{\"grant_type\":\"password\"}", Missing("grant_type")),
            ("grant_type=", GrantType),
            ("grant_type=client_credentials", GrantType),
            ("grant_type=PASSWORD&username=alice&password=x", GrantType),
            ("grant_type=password", Missing("username")),
            ("grant_type=password&username=alice", Missing("password")),
            (
                "grant_type=refresh_token&username=alice&password=x",
                Missing("refresh_token"),
            ),
            ("grant_type=password&grant_type=refresh_token", Repeated("grant_type")),
            (
                "grant_type=password&username=alice&password=x&password=x",
                Repeated("password"),
            ),
            (
                "grant_type=password&username=alice&username=bob&password=x",
                Repeated("username"),
            ),
            (
                "grant_type=refresh_token&refresh_token=a&refresh_token=a",
                Repeated("refresh_token"),
            ),
            ("grant_type=password&username=&password=x", UserName),
            ("grant_type=password&username=robot%3Aci&password=x", UserName),
            ("grant_type=password&username=alice%0A&password=x", UserName),
        ] {
            assert_eq!(TokenForm::read(form.as_bytes()), Err(expected), "{form}");
        }
        assert_eq!(
            TokenForm::read(b"grant_type=password&username=\xff&password=x"),
            Err(NotText)
        );
    }

    #[test]
    fn asking_for_an_offline_token_changes_nothing() {
        for rest in ["", "account=alice&scope=repository:a:pull&service=x"] {
            let plain = TokenRequest::from_query(rest).unwrap();
            for offline in ["offline_token=true", "offline_token=false", "access_type=offline"] {
                let query = format!("{offline}&{rest}");
                assert_eq!(TokenRequest::from_query(&query).unwrap(), plain, "{query}");
                let form = |more: &str| format!("grant_type=refresh_token&refresh_token=x&{rest}{more}");
                assert_eq!(
                    TokenForm::read(form(&format!("&{offline}")).as_bytes()),
                    TokenForm::read(form("").as_bytes()),
                    "{query}"
                );
            }
        }
    }

    #[test]
    fn s24_too_many_scopes_are_an_error() {
        let scopes = |count: usize| {
            (0..count)
                .map(|n| format!("scope=repository:a{n}:pull"))
                .collect::<Vec<_>>()
                .join("&")
        };
        let read = |count: usize| TokenRequest::from_query(&scopes(count));
        assert_eq!(read(MAX_SCOPES).unwrap().scope.resources().len(), MAX_SCOPES);
        for count in [MAX_SCOPES + 1, 10_000] {
            assert_eq!(read(count), Err(TooManyScopes.into()), "{count}");
        }
        let form = format!("grant_type=refresh_token&refresh_token=x&{}", scopes(MAX_SCOPES + 1));
        assert_eq!(TokenForm::read(form.as_bytes()), Err(TooManyScopes.into()));
    }

    #[test]
    fn s18_credentials_are_not_printed() {
        for form in [
            "grant_type=password&username=alice&password=hunter42",
            "grant_type=refresh_token&refresh_token=hunter42",
        ] {
            let printed = format!("{:?}", TokenForm::read(form.as_bytes()).unwrap());
            assert!(!printed.contains("hunter42") && !printed.contains("alice"), "{printed}");
        }
    }

    proptest! {
        #[test]
        fn any_text(text in "\\PC{0,200}") {
            let _ = TokenRequest::from_query(&text);
            let _ = TokenForm::read(text.as_bytes());
        }

        /// What a client encodes is what is read.
        #[test]
        fn any_credentials(user in "[^:\\p{Cc}]{1,20}", secret in "\\PC{0,40}") {
            let form = form_urlencoded::Serializer::new(String::new())
                .append_pair("grant_type", "password")
                .append_pair("username", &user)
                .append_pair("password", &secret)
                .finish();
            let read = TokenForm::read(form.as_bytes()).unwrap();
            prop_assert_eq!(read.credentials, FormCredentials::Password { user, password: secret });
        }
    }
}
