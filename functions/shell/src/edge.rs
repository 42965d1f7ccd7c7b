//! What an edge in front of the registry says about a request.
//!
//! An edge, for instance a function of a CDN, ends the TLS of clients and passes requests on to a host name of its own. On
//! the way `Host`, `Authorization` and `User-Agent` may be replaced, so the edge puts them into fields whose names begin with
//! `x-roadstead-`, together with the address of the client. Everyone who knows the host name behind the edge could send
//! these fields too. So the edge adds a secret, and a registry behind an edge answers nothing else.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

use http::header::{AUTHORIZATION, FORWARDED, HOST, USER_AGENT, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use registry::auth::{Forwarded, ForwardedHost, UrlScheme};
use subtle::{Choice, ConstantTimeEq as _};

use crate::client_address::{FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO, address};

/// The field of the secret.
const SECRET: HeaderName = HeaderName::from_static("x-roadstead-origin-secret");
/// The field of the client's address.
const CLIENT: HeaderName = HeaderName::from_static("x-roadstead-client");
/// Fields that the edge copies, with the names that they have for the registry.
const COPIES: [(HeaderName, HeaderName); 3] = [
    (HeaderName::from_static("x-roadstead-host"), HOST),
    (HeaderName::from_static("x-roadstead-agent"), USER_AGENT),
    (HeaderName::from_static("x-roadstead-authorization"), AUTHORIZATION),
];
/// Fields of proxies between the edge and the registry, and what a client has written into them.
const OF_PROXIES: [HeaderName; 5] = [FORWARDED, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO, VIA];

/// The least length of a secret, in bytes.
const MIN_SECRET: usize = 32;
/// The greatest length of a secret, in bytes.
const MAX_SECRET: usize = 512;

/// One secret, or two while one replaces the other. They are printable ASCII without spaces and commas.
#[derive(Clone, PartialEq, Eq)]
pub struct EdgeSecrets(Vec<Box<[u8]>>);

/// Why a text is not one or two secrets. It holds nothing of the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EdgeSecretsError {
    /// There is none, or there are more than two.
    #[error("expected one secret, or two that are separated by a space, a comma or a line")]
    Number,
    /// A secret is too short or too long.
    #[error("a secret has {MIN_SECRET} to {MAX_SECRET} bytes, such as the text of `openssl rand -hex 32`")]
    Length,
    /// A secret has a character that a header field cannot hold, or that clients write in several ways.
    #[error("a secret has printable ASCII characters only")]
    Characters,
}

impl FromStr for EdgeSecrets {
    type Err = EdgeSecretsError;

    fn from_str(text: &str) -> Result<Self, EdgeSecretsError> {
        let is_between = |character: char| character == ',' || character.is_ascii_whitespace();
        let secrets: Vec<_> = text.split(is_between).filter(|secret| !secret.is_empty()).collect();
        if secrets.is_empty() || secrets.len() > 2 {
            return Err(EdgeSecretsError::Number);
        }
        for secret in &secrets {
            if !(MIN_SECRET..=MAX_SECRET).contains(&secret.len()) {
                return Err(EdgeSecretsError::Length);
            }
            if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(EdgeSecretsError::Characters);
            }
        }
        Ok(Self(
            secrets.into_iter().map(|secret| secret.as_bytes().into()).collect(),
        ))
    }
}

/// Shows how many there are.
impl fmt::Debug for EdgeSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EdgeSecrets({})", self.0.len())
    }
}

impl EdgeSecrets {
    /// Whether a text is one of the secrets. The time depends on the lengths alone.
    fn contain(&self, text: &[u8]) -> bool {
        let compared = self.0.iter().map(|secret| secret.ct_eq(text));
        compared.fold(Choice::from(0), |found, is_one| found | is_one).into()
    }
}

/// The edge in front of a registry.
#[derive(Debug)]
pub struct Edge {
    secrets: RwLock<Arc<EdgeSecrets>>,
}

/// What the edge says about the client of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EdgeClient {
    /// Its address. `None`: the edge does not say it, or not clearly.
    pub address: Option<IpAddr>,
    /// The URL that it has used: clients speak TLS with an edge, and `Host` is what they have sent.
    pub forwarded: Forwarded,
}

/// A request does not carry a secret of the edge, or more than one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotFromEdge;

impl Edge {
    /// An edge with these secrets.
    #[must_use]
    pub fn new(secrets: EdgeSecrets) -> Self {
        Self {
            secrets: RwLock::new(Arc::new(secrets)),
        }
    }

    /// Replaces the secrets. Returns whether they are others.
    pub fn replace(&self, secrets: EdgeSecrets) -> bool {
        let mut known = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        let is_other = **known != secrets;
        *known = Arc::new(secrets);
        is_other
    }

    /// Lets a request of the edge in. Its fields are then those of the client: a field of which the edge has not sent a copy
    /// is absent. The secret is removed, so that nothing can log it.
    pub fn admit<B>(&self, request: &mut Request<B>) -> Result<EdgeClient, NotFromEdge> {
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner).clone();
        let fields = request.headers_mut();
        let is_of_edge = only(fields, &SECRET).is_some_and(|secret| secrets.contain(secret.as_bytes()));
        fields.remove(&SECRET);
        if !is_of_edge {
            return Err(NotFromEdge);
        }
        let client = only(fields, &CLIENT).and_then(|value| address(value.as_bytes()));
        fields.remove(&CLIENT);
        for name in OF_PROXIES {
            fields.remove(name);
        }
        for (copy, name) in COPIES {
            fields.remove(&name);
            let values: Vec<_> = fields.get_all(&copy).iter().cloned().collect();
            fields.remove(copy);
            for mut value in values {
                value.set_sensitive(name == AUTHORIZATION);
                fields.append(&name, value);
            }
        }
        // The host in the target of the request is that of the edge's own connection.
        if let Some(path) = request.uri().path_and_query().cloned() {
            *request.uri_mut() = Uri::from(path);
        }
        Ok(EdgeClient {
            address: client,
            forwarded: Forwarded {
                scheme: Some(UrlScheme::Https),
                host: ForwardedHost::Unchanged,
            },
        })
    }
}

/// The value of a field that has one line.
fn only<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = fields.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const FIRST: &str = "0123456789abcdef0123456789abcdef0123456789a";
    const SECOND: &str = "fedcba9876543210fedcba9876543210";

    fn edge(text: &str) -> Edge {
        Edge::new(text.parse().unwrap())
    }

    fn request(target: &str, fields: &[(&'static str, &str)]) -> Request<()> {
        let mut request = Request::get(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn one_secret_or_two() {
        let parse = |text: &str| text.parse::<EdgeSecrets>().map(|secrets| secrets.0.len());
        let long = "x".repeat(MAX_SECRET);
        for (text, expected) in [
            (FIRST.to_owned(), Ok(1)),
            (format!("{FIRST}\n"), Ok(1)),
            (format!("{FIRST},{SECOND}"), Ok(2)),
            (format!(" {FIRST} \r\n{SECOND},\n"), Ok(2)),
            (long.clone(), Ok(1)),
            (format!("{long}x"), Err(EdgeSecretsError::Length)),
            (SECOND[1..].to_owned(), Err(EdgeSecretsError::Length)),
            (format!("{FIRST} short"), Err(EdgeSecretsError::Length)),
            (format!("{FIRST} {SECOND} {FIRST}"), Err(EdgeSecretsError::Number)),
            (" , ".to_owned(), Err(EdgeSecretsError::Number)),
            (String::new(), Err(EdgeSecretsError::Number)),
            (format!("{FIRST}\u{7f}"), Err(EdgeSecretsError::Characters)),
            (format!("{FIRST}é"), Err(EdgeSecretsError::Characters)),
        ] {
            assert_eq!(parse(&text), expected, "{text:?}");
        }
    }

    #[test]
    fn s18_secrets_are_not_printed() {
        let shown = format!("{:?}", edge(&format!("{FIRST} {SECOND}")));
        assert!(!shown.contains(&FIRST[..8]) && !shown.contains(&SECOND[..8]), "{shown}");
        for error in [
            EdgeSecretsError::Number,
            EdgeSecretsError::Length,
            EdgeSecretsError::Characters,
        ] {
            assert!(!error.to_string().contains(FIRST));
        }
    }

    #[test]
    fn s29_a_request_without_the_secret_is_not_from_the_edge() {
        let edge = edge(&format!("{FIRST} {SECOND}"));
        let wrong = FIRST.to_uppercase();
        let joined = format!("{FIRST}, {FIRST}");
        for (fields, is_admitted) in [
            (&[("x-roadstead-origin-secret", FIRST)][..], true),
            (&[("x-roadstead-origin-secret", SECOND)], true),
            (&[], false),
            (&[("x-roadstead-origin-secret", "")], false),
            (&[("x-roadstead-origin-secret", &wrong)], false),
            (&[("x-roadstead-origin-secret", &FIRST[1..])], false),
            (&[("x-roadstead-origin-secret", &joined)], false),
            (
                &[
                    ("x-roadstead-origin-secret", FIRST),
                    ("x-roadstead-origin-secret", FIRST),
                ],
                false,
            ),
            (
                &[
                    ("x-roadstead-origin-secret", &wrong),
                    ("x-roadstead-origin-secret", FIRST),
                ],
                false,
            ),
            (&[("authorization", FIRST), ("x-roadstead-secret", FIRST)], false),
        ] {
            let spoofed = [
                &[
                    ("host", "a.example"),
                    ("x-roadstead-host", "evil.example"),
                    ("x-roadstead-client", "192.0.2.9"),
                ],
                fields,
            ]
            .concat();
            let mut request = request("/v2/", &spoofed);
            let admitted = edge.admit(&mut request);
            assert_eq!(admitted.is_ok(), is_admitted, "{fields:?}");
            assert!(!request.headers().contains_key(SECRET), "{fields:?}");
            let host = if is_admitted { "evil.example" } else { "a.example" };
            assert_eq!(request.headers()["host"], host);
        }
    }

    #[test]
    fn s29_the_copies_of_the_edge_replace_the_originals() {
        let edge = edge(FIRST);
        let of_edge = [
            ("x-roadstead-origin-secret", FIRST),
            ("host", "function.example"),
            ("user-agent", "Amazon CloudFront"),
            ("authorization", "AWS4-HMAC-SHA256 Credential=x"),
            ("x-forwarded-for", "198.51.100.7, 203.0.113.1"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-proto", "http"),
            ("forwarded", "host=evil.example"),
            ("via", "2.0 front.example"),
            ("accept", "a/b"),
        ];
        let mut with_copies = request(
            "https://function.example/v2/a/tags/list?n=1",
            &[
                &of_edge[..],
                &[
                    ("x-roadstead-host", "registry.example"),
                    ("x-roadstead-agent", "docker/28"),
                    ("x-roadstead-authorization", "Basic eDp5"),
                    ("x-roadstead-client", "198.51.100.7"),
                ],
            ]
            .concat(),
        );
        let client = edge.admit(&mut with_copies).unwrap();
        assert_eq!(client.address, Some(IpAddr::from([198, 51, 100, 7])));
        assert_eq!(client.forwarded.scheme, Some(UrlScheme::Https));
        assert_eq!(client.forwarded.host, ForwardedHost::Unchanged);
        assert_eq!(with_copies.uri(), "/v2/a/tags/list?n=1");
        let fields = with_copies.headers();
        let sorted = |fields: &HeaderMap| {
            let mut shown: Vec<_> = fields
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            shown.sort();
            shown
        };
        assert_eq!(
            sorted(fields),
            [
                "accept: a/b",
                "authorization: Basic eDp5",
                "host: registry.example",
                "user-agent: docker/28"
            ]
        );
        assert!(fields[AUTHORIZATION].is_sensitive());
        // Also where a copy is absent.
        let mut without = request("/v2/", &of_edge);
        let client = edge.admit(&mut without).unwrap();
        assert_eq!(client.address, None);
        assert_eq!(sorted(without.headers()), ["accept: a/b"]);
    }

    /// Several lines of a copy are several lines of the field: the registry decides about them as about those of a client.
    #[test]
    fn s29_repeated_copies() {
        let mut request = request(
            "/v2/",
            &[
                ("x-roadstead-origin-secret", FIRST),
                ("x-roadstead-host", "a.example"),
                ("x-roadstead-host", "b.example"),
                ("x-roadstead-authorization", "Basic eDp5"),
                ("x-roadstead-authorization", "Basic eTp6"),
                ("x-roadstead-client", "192.0.2.1"),
                ("x-roadstead-client", "192.0.2.2"),
            ],
        );
        assert_eq!(edge(FIRST).admit(&mut request).unwrap().address, None);
        assert_eq!(request.headers().get_all(HOST).iter().count(), 2);
        assert_eq!(request.headers().get_all(AUTHORIZATION).iter().count(), 2);
    }

    #[test]
    fn addresses_of_clients() {
        for (text, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("192.0.2.1, 192.0.2.2", None),
            ("", None),
            ("unknown", None),
        ] {
            let fields = [("x-roadstead-origin-secret", FIRST), ("x-roadstead-client", text)];
            let client = edge(FIRST).admit(&mut request("/v2/", &fields)).unwrap();
            assert_eq!(
                client.address.map(|address| address.to_string()).as_deref(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn secrets_are_replaced() {
        let edge = edge(FIRST);
        let is_admitted = |secret: &str| {
            edge.admit(&mut request("/v2/", &[("x-roadstead-origin-secret", secret)]))
                .is_ok()
        };
        assert!(is_admitted(FIRST) && !is_admitted(SECOND));
        assert!(!edge.replace(FIRST.parse().unwrap()));
        assert!(edge.replace(format!("{SECOND} {FIRST}").parse().unwrap()));
        assert!(is_admitted(FIRST) && is_admitted(SECOND));
        assert!(edge.replace(SECOND.parse().unwrap()));
        assert!(!is_admitted(FIRST) && is_admitted(SECOND));
    }
}
