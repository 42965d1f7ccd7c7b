//! The targets of requests: the registry, and the locations in its responses.

use std::net::{SocketAddr, ToSocketAddrs};

use base64::Engine as _;
use http::HeaderValue;

use crate::client::Failure;

/// A host and a path with its query: what one request is sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestTarget {
    /// Host and port.
    pub(crate) authority: String,
    /// Path and query.
    pub(crate) path: String,
}

impl RequestTarget {
    /// The target of a `Location` in the response to a request to this target (RFC 3986 section 5.2, without dot segments,
    /// which no registry sends).
    pub(crate) fn resolve(&self, location: &str) -> Result<Self, Failure> {
        if let Some(rest) = location.strip_prefix("http://").or_else(|| location.strip_prefix("//")) {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            let path = if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/{path}")
            };
            return Ok(Self {
                authority: authority.to_owned(),
                path,
            });
        }
        if location.contains("://") {
            return Err(Failure::Address(format!(
                "cannot follow {location}: only http:// is spoken here"
            )));
        }
        let own = self.path.split('?').next().unwrap_or_default();
        let path = if location.starts_with('/') {
            location.to_owned()
        } else if location.starts_with('?') || location.is_empty() {
            format!("{own}{location}")
        } else {
            let folder = own.rfind('/').map_or("/", |slash| &own[..=slash]);
            format!("{folder}{location}")
        };
        Ok(Self {
            authority: self.authority.clone(),
            path,
        })
    }

    /// The same target with one more query parameter.
    pub(crate) fn with_query(mut self, parameter: &str) -> Self {
        self.path.push(if self.path.contains('?') { '&' } else { '?' });
        self.path.push_str(parameter);
        self
    }
}

/// A registry.
#[derive(Clone)]
pub(crate) struct Target {
    /// Its host and port.
    pub(crate) authority: String,
    /// Sent with every request to it.
    pub(crate) authorization: Option<HeaderValue>,
    allow_remote: bool,
}

impl Target {
    /// The registry at `url` (`http://HOST:PORT`), with the credentials `user` (`NAME:PASSWORD`) if any.
    ///
    /// A benchmark is an attack when it is pointed at someone else's machine, so any other address than this machine's
    /// own is refused unless `allow_remote`.
    pub(crate) fn new(url: &str, user: Option<&str>, allow_remote: bool) -> Result<Self, Failure> {
        let rest = url
            .strip_prefix("http://")
            .ok_or_else(|| Failure::Address(format!("{url}: give an address of the form http://HOST:PORT")))?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.is_empty() || authority.contains(['/', '?', '#', '@']) {
            return Err(Failure::Address(format!(
                "{url}: give an address of the form http://HOST:PORT"
            )));
        }
        let authorization = user
            .map(|user| {
                let value = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(user));
                HeaderValue::try_from(value).map_err(|_| Failure::Address("these credentials fit no header".to_owned()))
            })
            .transpose()?;
        let target = Self {
            authority: authority.to_owned(),
            authorization,
            allow_remote,
        };
        target.address(&target.authority)?;
        Ok(target)
    }

    /// The same registry, asked with this token, or without credentials.
    pub(crate) fn with_token(&self, token: Option<&str>) -> Result<Self, Failure> {
        let authorization = token
            .map(|token| {
                HeaderValue::try_from(format!("Bearer {token}"))
                    .map_err(|_| Failure::Address("this token fits no header".to_owned()))
            })
            .transpose()?;
        Ok(Self {
            authority: self.authority.clone(),
            authorization,
            allow_remote: self.allow_remote,
        })
    }

    /// The address of a host: this machine's own, or any if that is allowed.
    pub(crate) fn address(&self, authority: &str) -> Result<SocketAddr, Failure> {
        let with_port = if authority.rsplit(']').next().is_some_and(|end| end.contains(':')) {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        };
        let address = with_port
            .to_socket_addrs()
            .map_err(|error| Failure::Connect(authority.to_owned(), error))?
            .next()
            .ok_or_else(|| Failure::Address(format!("{authority} has no address")))?;
        if address.ip().is_loopback() || self.allow_remote {
            Ok(address)
        } else {
            Err(Failure::Address(format!(
                "{authority} is not on this machine; load is put on another one only with --allow-remote"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_location_is_resolved_in_every_form() {
        let from = RequestTarget {
            authority: "a:1".to_owned(),
            path: "/v2/r/blobs/uploads/?x=1".to_owned(),
        };
        let table = [
            ("http://b:2/v2/u?s=1", "b:2", "/v2/u?s=1"),
            ("http://b:2", "b:2", "/"),
            ("http://b:2?s=1", "b:2", "/?s=1"),
            ("//b:2/u", "b:2", "/u"),
            ("/v2/r/u?s=a%2Fb", "a:1", "/v2/r/u?s=a%2Fb"),
            ("token", "a:1", "/v2/r/blobs/uploads/token"),
            ("?s=2", "a:1", "/v2/r/blobs/uploads/?s=2"),
            ("", "a:1", "/v2/r/blobs/uploads/"),
        ];
        for (location, authority, path) in table {
            let request_target = from.resolve(location).unwrap();
            assert_eq!(
                (request_target.authority.as_str(), request_target.path.as_str()),
                (authority, path),
                "{location}"
            );
        }
        assert!(from.resolve("https://b/v2/").is_err());
    }

    #[test]
    fn the_digest_joins_whatever_query_there_is() {
        let request_target = |path: &str| RequestTarget {
            authority: String::new(),
            path: path.to_owned(),
        };
        assert_eq!(request_target("/u").with_query("digest=d").path, "/u?digest=d");
        assert_eq!(request_target("/u?s=1").with_query("digest=d").path, "/u?s=1&digest=d");
    }

    #[test]
    fn only_this_machine_is_loaded_unless_told() {
        for url in [
            "http://127.0.0.1:5000",
            "http://127.0.0.1:5000/",
            "http://[::1]:5000",
            "http://127.0.0.9",
        ] {
            assert!(Target::new(url, None, false).is_ok(), "{url}");
        }
        for url in [
            "http://192.0.2.1:5000",
            "https://127.0.0.1:5000",
            "127.0.0.1:5000",
            "http://",
            "http://127.0.0.1/v2",
        ] {
            assert!(Target::new(url, None, false).is_err(), "{url}");
        }
        assert!(Target::new("http://192.0.2.1:5000", None, true).is_ok());
    }

    #[test]
    fn credentials_become_a_basic_header() {
        let target = Target::new("http://127.0.0.1:1", Some("user:secret"), false).unwrap();
        assert_eq!(target.authorization.unwrap(), "Basic dXNlcjpzZWNyZXQ=");
    }
}
