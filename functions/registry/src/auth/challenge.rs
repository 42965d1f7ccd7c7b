//! The challenge of a 401: the value of `WWW-Authenticate`.

use std::fmt::Write as _;

use http::HeaderValue;

use super::TokenError;
use super::challenge_scope::ChallengeScope;
use super::origin::Origin;
use super::public_url::PublicUrl;

/// The schemes that challenges may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ChallengeSchemes {
    /// Bearer where the URL of the token endpoint is known, else Basic.
    #[default]
    Auto,
    /// Basic only.
    Basic,
}

/// Writes challenges. A challenge is one value with one scheme, because many clients read only the first one.
///
/// A Bearer challenge sends the client to `/token` of this registry, with its password. So that URL is the configured one;
/// or one that a stranger cannot steer ([`Origin::url`]). If both are unknown the challenge is Basic. Docker then cannot
/// pull without a login where others may.
///
/// Only [`Registry`](crate::Registry) sends challenges, and it sends [`Challenge::BASIC`] as long as it has no token
/// endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Challenge {
    schemes: ChallengeSchemes,
    public_url: Option<PublicUrl>,
    service: String,
}

impl Default for Challenge {
    fn default() -> Self {
        Self::new(ChallengeSchemes::default(), None)
    }
}

impl Challenge {
    /// The challenge for a name and a password.
    pub const BASIC: HeaderValue = HeaderValue::from_static(r#"Basic realm="roadstead", charset="UTF-8""#);

    /// The name of a registry without a configured URL, in challenges and tokens.
    pub const SERVICE: &str = "roadstead";

    /// The challenges of a registry with this public URL, if it is configured.
    #[must_use]
    pub fn new(schemes: ChallengeSchemes, public_url: Option<PublicUrl>) -> Self {
        let service = public_url.as_ref().map(PublicUrl::authority);
        Self {
            schemes,
            service: service.unwrap_or_else(|| Self::SERVICE.to_owned()),
            public_url,
        }
    }

    /// The name of the registry in challenges and tokens: host and port of the configured URL, else [`Self::SERVICE`].
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The configured URL.
    #[must_use]
    pub fn public_url(&self) -> Option<&PublicUrl> {
        self.public_url.as_ref()
    }

    /// The URL that a Bearer challenge to a request from `origin` names, without its path. `None`: the challenge is Basic.
    #[must_use]
    pub fn url<'a>(&'a self, origin: &'a Origin) -> Option<&'a PublicUrl> {
        match self.schemes {
            ChallengeSchemes::Auto => self.public_url.as_ref().or(origin.url.as_ref()),
            ChallengeSchemes::Basic => None,
        }
    }

    /// The challenge to a request from `origin`. `scope` is what the request needs; `None` for `/v2/`, which needs an
    /// identity only. `error` says why the token of the request was refused; `None` if there was no token.
    #[must_use]
    pub fn header(&self, origin: &Origin, scope: Option<&ChallengeScope>, error: Option<TokenError>) -> HeaderValue {
        let Some(url) = self.url(origin) else {
            return Self::BASIC;
        };
        let mut text = format!(r#"Bearer realm="{url}/token",service="{}""#, self.service);
        // Writing to a String cannot fail.
        if let Some(scope) = scope {
            let _ = write!(text, r#",scope="{scope}""#);
        }
        if let Some(error) = error {
            let _ = write!(text, r#",error="{}""#, error.as_str());
        }
        // Hosts and names of repositories have no character that would need an escape, in a header or in quotes.
        HeaderValue::try_from(text).unwrap_or(Self::BASIC)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::ChallengeActions;
    use crate::host::Host;

    fn origin(url: Option<&str>) -> Origin {
        Origin {
            url: url.map(|url| url.parse().unwrap()),
            ..Origin::internal()
        }
    }

    fn challenge(schemes: ChallengeSchemes, public_url: Option<&str>) -> Challenge {
        Challenge::new(schemes, public_url.map(|url| url.parse().unwrap()))
    }

    /// The configured URL, else that of the origin, else Basic.
    #[test]
    fn the_realm() {
        use ChallengeSchemes::{Auto, Basic};

        const CONFIGURED: &str = "https://registry.example.com:8443";
        const SEEN: &str = "http://localhost:5000";
        for (schemes, configured, seen, realm, service) in [
            (Auto, None, None, None, "roadstead"),
            (Auto, None, Some(SEEN), Some(SEEN), "roadstead"),
            (
                Auto,
                Some(CONFIGURED),
                None,
                Some(CONFIGURED),
                "registry.example.com:8443",
            ),
            (
                Auto,
                Some(CONFIGURED),
                Some(SEEN),
                Some(CONFIGURED),
                "registry.example.com:8443",
            ),
            (
                Auto,
                Some("http://a.example"),
                None,
                Some("http://a.example"),
                "a.example",
            ),
            (Basic, None, Some(SEEN), None, "roadstead"),
            (Basic, Some(CONFIGURED), Some(SEEN), None, "registry.example.com:8443"),
        ] {
            let challenge = challenge(schemes, configured);
            let value = challenge.header(&origin(seen), None, None);
            let expected = match realm {
                Some(realm) => format!(r#"Bearer realm="{realm}/token",service="{service}""#),
                None => r#"Basic realm="roadstead", charset="UTF-8""#.to_owned(),
            };
            assert_eq!(value.to_str().unwrap(), expected);
            assert_eq!(challenge.service(), service);
        }
    }

    #[test]
    fn scope_and_error() {
        let here = origin(Some("http://localhost:5000"));
        let scope = ChallengeScope::Repository {
            repository: "a/b".parse().unwrap(),
            actions: ChallengeActions::PullAndPush,
        };
        let service = r#"Bearer realm="http://localhost:5000/token",service="roadstead""#;
        for (scope, error, rest) in [
            (None, None, ""),
            (Some(&ChallengeScope::Catalog), None, r#",scope="registry:catalog:*""#),
            (Some(&ChallengeScope::Api), None, r#",scope="registry:api:*""#),
            (Some(&scope), None, r#",scope="repository:a/b:pull,push""#),
            (None, Some(TokenError::Invalid), r#",error="invalid_token""#),
            (
                Some(&scope),
                Some(TokenError::InsufficientScope),
                r#",scope="repository:a/b:pull,push",error="insufficient_scope""#,
            ),
        ] {
            let value = Challenge::default().header(&here, scope, error);
            assert_eq!(value.to_str().unwrap(), format!("{service}{rest}"));
            let basic = challenge(ChallengeSchemes::Basic, None).header(&here, scope, error);
            assert_eq!(basic, Challenge::BASIC);
        }
    }

    proptest! {
        /// Whatever host is configured or seen, the value has one scheme, and its quotes are balanced.
        #[test]
        fn s29_no_host_breaks_out_of_the_realm(text in "[ -~]{0,40}|[a-z0-9.-]{1,20}(:[0-9]{1,5})?") {
            if let Ok(host) = text.parse::<Host>() {
                for scheme in [crate::auth::UrlScheme::Http, crate::auth::UrlScheme::Https] {
                    let origin = Origin {
                        url: Some(PublicUrl::new(scheme, host.clone())),
                        ..Origin::internal()
                    };
                    let value = Challenge::default().header(&origin, None, None);
                    let value = value.to_str().unwrap();
                    let rest = value.strip_prefix("Bearer realm=\"").unwrap();
                    let realm = rest.strip_suffix("/token\",service=\"roadstead\"").unwrap();
                    prop_assert!(!realm.contains(['"', '\\', ' ', ',', '@']), "{value}");
                    prop_assert_eq!(realm.parse::<PublicUrl>().unwrap(), origin.url.unwrap());
                }
            }
        }
    }
}
