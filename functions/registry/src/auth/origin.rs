//! Where a request comes from.

use std::net::IpAddr;

use http::request::Parts;

use super::public_url::{PublicUrl, UrlScheme};
use crate::budget::ClientKey;
use crate::delivery::Client;
use crate::forwarded::is_forwarded;
use crate::host::Host;

/// What a trusted proxy says about the URL that its client has used: an extension of a request.
///
/// A shell sets it only for requests that a trusted proxy has forwarded: the address that opened the connection is that of
/// a trusted proxy, and the request has at least one `X-Forwarded-…` field. Without it, the shell vouches for nothing but
/// the connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Forwarded {
    /// The scheme. `None`: the proxy does not say it, or not clearly.
    pub scheme: Option<UrlScheme>,
    /// The host.
    pub host: ForwardedHost,
}

/// The host that a trusted proxy reports.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ForwardedHost {
    /// The proxy does not report one. It then passes on `Host` as the client has sent it.
    #[default]
    Unchanged,
    /// This one.
    Host(Host),
    /// The report has several hosts, or none that can be parsed.
    Unclear,
}

/// The host that the client has asked for in the TLS handshake (RFC 6066, 3), if the certificate that it got is for this host:
/// an extension of a request. Only a shell that serves TLS itself can set it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertifiedHost(pub Host);

/// Where a request comes from: its client, and the URL at which the client has reached the registry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The client that shares the budget of password checks. A check takes time, and the guesses of one client must not
    /// use all of it.
    pub client: ClientKey,
    /// The address of the client. `None`: the shell does not know it.
    pub address: Option<IpAddr>,
    /// The URL at which the client has reached the registry, as far as no stranger can steer it:
    ///
    /// * behind a trusted proxy that says the scheme, that scheme and the host that the proxy reports, but not plain http to
    ///   another machine;
    /// * without a proxy, the `Host` of the request if it is the machine itself ([`Host::is_loopback`]);
    /// * without a proxy and over TLS, the `Host` of the request if the certificate is for it ([`CertifiedHost`]): the client
    ///   has checked that, and checks it again at the token endpoint.
    ///
    /// `None` for all other requests: their `Host` is what their sender likes, or what a proxy that is not trusted calls the
    /// registry. Such a proxy may be on the same machine, and its clients are not.
    pub url: Option<PublicUrl>,
}

impl Origin {
    /// The origin of the request with this head. `host` is its host, which [`HostPolicy`](crate::HostPolicy) has checked.
    pub(crate) fn new(head: &Parts, host: Host) -> Self {
        let client = head.extensions.get::<Client>().map(|client| client.0);
        Self {
            client: client.map_or(ClientKey::INTERNAL, ClientKey::of),
            address: client,
            url: url(head, host),
        }
    }

    /// The origin of a request that a shell makes itself.
    #[must_use]
    pub const fn internal() -> Self {
        Self {
            client: ClientKey::INTERNAL,
            address: None,
            url: None,
        }
    }
}

fn url(head: &Parts, host: Host) -> Option<PublicUrl> {
    match head.extensions.get::<Forwarded>() {
        Some(forwarded) => {
            let host = match &forwarded.host {
                ForwardedHost::Unchanged => host,
                ForwardedHost::Host(host) => host.clone(),
                ForwardedHost::Unclear => return None,
            };
            // Without a scheme, `Host` may also be the proxy's own name for the registry, such as localhost:5000. A remote
            // client cannot reach that.
            let url = PublicUrl::new(forwarded.scheme?, host);
            // Only the operator may send passwords over a network in plain text, by a public URL that says so.
            (!url.is_exposed()).then_some(url)
        }
        None if is_forwarded(head) => None,
        None => {
            let scheme = head.extensions.get::<UrlScheme>().copied();
            let scheme = scheme.unwrap_or(UrlScheme::Http);
            let certified = head.extensions.get::<CertifiedHost>();
            let is_certified =
                scheme == UrlScheme::Https && certified.is_some_and(|certified| certified.0.name() == host.name());
            (host.is_loopback() || is_certified).then(|| PublicUrl::new(scheme, host))
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// What proxies and strangers send.
    const FIELDS: &[(&str, &str)] = &[
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-for", "127.0.0.1"),
        ("forwarded", "host=evil.example;proto=https"),
        ("via", "1.1 evil.example"),
    ];

    fn origin(
        host: &str,
        fields: &[(&'static str, &str)],
        scheme: Option<UrlScheme>,
        forwarded: Option<Forwarded>,
    ) -> Origin {
        let (mut head, ()) = http::Request::new(()).into_parts();
        for (name, value) in fields {
            head.headers.insert(*name, value.parse().unwrap());
        }
        if let Some(scheme) = scheme {
            head.extensions.insert(scheme);
        }
        if let Some(forwarded) = forwarded {
            head.extensions.insert(forwarded);
        }
        Origin::new(&head, host.parse().unwrap())
    }

    fn shown(origin: &Origin) -> Option<String> {
        origin.url.as_ref().map(ToString::to_string)
    }

    /// Without a trusted proxy only the machine itself is believed. A request that any proxy has sent has no URL: its clients
    /// may be elsewhere, whatever `Host` says.
    #[test]
    fn s29_the_url_without_a_proxy_is_that_of_this_machine_or_unknown() {
        for (host, expected) in [
            ("localhost:5000", Some("http://localhost:5000")),
            ("localhost", Some("http://localhost")),
            ("LOCALHOST.:5000", Some("http://localhost:5000")),
            ("registry.localhost:5000", Some("http://registry.localhost:5000")),
            ("127.0.0.1:5000", Some("http://127.0.0.1:5000")),
            ("127.9.9.9", Some("http://127.9.9.9")),
            ("[::1]:5000", Some("http://[::1]:5000")),
            ("evil.example", None),
            ("localhost.evil.example", None),
            ("127.0.0.1.evil.example", None),
            ("notlocalhost", None),
            ("0.0.0.0:5000", None),
            ("10.0.0.1", None),
            ("2130706433", None),
            ("[::2]", None),
            ("[fe80::1]", None),
        ] {
            assert_eq!(shown(&origin(host, &[], None, None)).as_deref(), expected, "{host}");
            let over_tls = origin(host, &[], Some(UrlScheme::Https), None);
            let expected = expected.map(|url| url.replace("http://", "https://"));
            assert_eq!(shown(&over_tls), expected, "{host} over TLS");
            for field in FIELDS {
                for scheme in [None, Some(UrlScheme::Https)] {
                    let forwarded = origin(host, &[*field], scheme, None);
                    assert_eq!(forwarded.url, None, "{host} {field:?} {scheme:?}");
                }
            }
            let (mut head, ()) = http::Request::new(()).into_parts();
            head.version = http::Version::HTTP_10;
            assert_eq!(Origin::new(&head, host.parse().unwrap()).url, None, "{host}");
        }
    }

    /// The certificate proves the host that the client has asked for, on any port, and no other one.
    #[test]
    fn the_certificate_proves_the_url_over_tls() {
        use UrlScheme::{Http, Https};

        for (host, certified, scheme, field, expected) in [
            ("a.example", "a.example", Https, None, Some("https://a.example")),
            (
                "A.Example.:8443",
                "a.example",
                Https,
                None,
                Some("https://a.example:8443"),
            ),
            ("b.example", "a.example", Https, None, None),
            ("x.a.example", "a.example", Https, None, None),
            ("192.0.2.1", "a.example", Https, None, None),
            ("a.example", "a.example", Http, None, None),
            ("a.example", "a.example", Https, Some(&FIELDS[0]), None),
            (
                "localhost:5000",
                "a.example",
                Https,
                None,
                Some("https://localhost:5000"),
            ),
        ] {
            let (mut head, ()) = http::Request::new(()).into_parts();
            head.extensions.insert(scheme);
            head.extensions.insert(CertifiedHost(certified.parse().unwrap()));
            if let Some((name, value)) = field {
                head.headers.insert(*name, value.parse().unwrap());
            }
            let origin = Origin::new(&head, host.parse().unwrap());
            assert_eq!(
                shown(&origin).as_deref(),
                expected,
                "{host} {certified} {scheme:?} {field:?}"
            );
        }
    }

    /// A trusted proxy has to say the scheme: it is not guessed, and never taken from a loopback host of its own.
    #[test]
    fn s29_the_url_behind_a_trusted_proxy_is_what_it_says() {
        use ForwardedHost::{Host, Unchanged, Unclear};
        use UrlScheme::{Http, Https};

        let reported = || Host("public.example:8443".parse().unwrap());
        for (host, scheme, reported, expected) in [
            ("a.example", Some(Https), Unchanged, Some("https://a.example")),
            ("a.example:443", Some(Https), Unchanged, Some("https://a.example")),
            ("a.example", Some(Http), Unchanged, None),
            ("localhost:5000", Some(Http), Unchanged, Some("http://localhost:5000")),
            (
                "localhost:5000",
                Some(Https),
                reported(),
                Some("https://public.example:8443"),
            ),
            ("a.example", Some(Http), reported(), None),
            ("localhost:5000", Some(Http), reported(), None),
            ("a.example", None, Unchanged, None),
            ("a.example", None, reported(), None),
            ("localhost:5000", None, Unchanged, None),
            ("localhost:5000", None, reported(), None),
            ("localhost:5000", Some(Https), Unclear, None),
            ("a.example", Some(Https), Unclear, None),
        ] {
            let what = format!("{host} {scheme:?} {reported:?}");
            let forwarded = Forwarded { scheme, host: reported };
            for connection in [None, Some(Https)] {
                // The shell has read the fields.
                for fields in [&[][..], FIELDS] {
                    let origin = origin(host, fields, connection, Some(forwarded.clone()));
                    assert_eq!(shown(&origin).as_deref(), expected, "{what}");
                }
            }
        }
    }

    #[test]
    fn the_client_is_what_the_shell_says() {
        let (mut head, ()) = http::Request::new(()).into_parts();
        let host = || "localhost".parse().unwrap();
        let unknown = Origin::new(&head, host());
        assert_eq!((unknown.client, unknown.address), (ClientKey::INTERNAL, None));
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        head.extensions.insert(Client(address));
        let known = Origin::new(&head, host());
        assert_eq!((known.client, known.address), (ClientKey::of(address), Some(address)));
    }
}
