//! The host names at which the registry answers, and the checks of requests that a browser sends.
//!
//! A registry without passwords trusts every client that can reach it. A browser on the same machine can reach it too,
//! for any page that it shows. Two checks refuse such pages:
//!
//! * The `Host` of the request. A page can make its own host name point to this machine (DNS rebinding). The browser
//!   then takes the registry for the page's own server, and sends that name in `Host`.
//! * `Origin` and `Sec-Fetch-Site`. A browser sets them, and a page cannot change them. Registry clients do not send
//!   them.
//!
//! Every request must have exactly one host, whatever the policy is (RFC 9112, 3.2; RFC 9113, 8.3.1).

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response};

use crate::body::ResponseBody;
use crate::error::Error;
use crate::host::default_port;
use crate::request_id::RequestId;
use crate::response::complete;

pub use crate::host::{Host, HostError};

pub(crate) const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The policy that decides which requests are answered, by their host and by the headers that a browser sets. The
/// default answers all requests.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostPolicy {
    /// If set, only requests for the machine itself ([`Host::is_loopback`]) and for these hosts are answered, on any
    /// port: a forwarded port has another number than the registry's own.
    pub only: Option<Vec<Host>>,
    /// The setting that allows another host, as the operator of this shell writes it. The text of a refusal names it.
    pub setting: Option<String>,
    /// Whether to refuse requests that a browser sends for a page of another site.
    pub refuse_other_sites: bool,
}

impl HostPolicy {
    /// The response to a request that the policy refuses, and `None` for all other requests. For responses that a shell
    /// makes without a registry.
    #[must_use]
    pub fn refuse(&self, head: &Parts) -> Option<Response<ResponseBody>> {
        let refused = self.check(head).err()?;
        // The id of a request is in its error only if that is a fault of the server.
        Some(complete(refused.into_response(|| RequestId::new(0))))
    }

    /// Checks the head of a request, and returns its host: 400 without exactly one host, 403 if the policy refuses it.
    pub(crate) fn check(&self, head: &Parts) -> Result<Host, Error> {
        let host = host_of(head).ok_or(Error::HostInvalid)?;
        if let Some(only) = &self.only
            && !host.is_loopback()
            && !only.iter().any(|allowed| allowed.name() == host.name())
        {
            return Err(Error::HostRefused {
                host: host.name().to_owned(),
                setting: self.setting.clone(),
            });
        }
        if self.refuse_other_sites && is_of_another_site(head, &host) {
            return Err(Error::OtherSite);
        }
        Ok(host)
    }
}

/// The host of a request; `None` unless it has exactly one. HTTP/2 sends it in `:authority`, and a request through a
/// proxy in its target. If there is a `Host` as well, the two must be equal.
pub(crate) fn host_of(head: &Parts) -> Option<Host> {
    let mut fields = head.headers.get_all(HOST).iter();
    let field = match (fields.next(), fields.next()) {
        (None, _) => None,
        (Some(field), None) => Some(field.to_str().ok()?.parse::<Host>().ok()?),
        (Some(_), Some(_)) => return None,
    };
    match (head.uri.authority(), field) {
        (None, field) => field,
        (Some(target), None) if head.version >= http::Version::HTTP_2 => target.as_str().parse().ok(),
        (Some(_), None) => None,
        (Some(target), Some(field)) => {
            let target: Host = target.as_str().parse().ok()?;
            let default = head.uri.scheme_str().and_then(default_port);
            target.is_same(&field, default).then_some(target)
        }
    }
}

/// Whether the headers of a browser say that a page of another site causes the request to `host`. Invalid headers count
/// as another site.
fn is_of_another_site(head: &Parts, host: &Host) -> bool {
    let own = |origin: &HeaderValue| origin.to_str().is_ok_and(|origin| is_own(origin, host));
    let mut origins = head.headers.get_all(ORIGIN).iter();
    // `none`: the user causes the request, and no page. For instance, by typing an address or by a bookmark.
    let mut sites = head.headers.get_all(FETCH_SITE).iter();
    !origins.all(own) || !sites.all(|site| site == "same-origin" || site == "none")
}

/// Whether `origin`, a value of the `Origin` header, is a page of `host` itself. A proxy may add or remove TLS, so the
/// scheme is not compared. It only determines the default port.
fn is_own(origin: &str, host: &Host) -> bool {
    let Some((scheme, origin)) = origin.split_once("://") else {
        return false;
    };
    let Some(default) = default_port(scheme) else {
        return false;
    };
    origin
        .parse::<Host>()
        .is_ok_and(|origin| origin.is_same(host, Some(default)))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use http::{Request, Version};

    use super::*;

    fn head(target: &str, version: Version, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::get(target).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn answer(policy: &HostPolicy, head: &Parts) -> u16 {
        match policy.check(head) {
            Ok(_) => 200,
            Err(error) => error.into_response(|| panic!("an id for a refusal")).status().as_u16(),
        }
    }

    fn guarded() -> HostPolicy {
        HostPolicy {
            only: Some(vec![
                "host.docker.internal".parse().unwrap(),
                "192.0.2.7".parse().unwrap(),
            ]),
            setting: None,
            refuse_other_sites: true,
        }
    }

    /// RFC 9112, 3.2 and RFC 9113, 8.3.1.
    #[test]
    fn s32_every_request_has_exactly_one_host() {
        let one = Version::HTTP_11;
        let two = Version::HTTP_2;
        for (target, version, headers, expected) in [
            ("/v2/", one, &[("host", "a")][..], 200),
            ("/v2/", Version::HTTP_10, &[("host", "a")], 200),
            ("/v2/", Version::HTTP_10, &[], 400),
            ("/v2/", one, &[], 400),
            ("/v2/", one, &[("host", "")], 400),
            ("/v2/", one, &[("host", "a"), ("host", "a")], 400),
            ("/v2/", one, &[("host", "a"), ("host", "b")], 400),
            ("/v2/", one, &[("host", "a, b")], 400),
            ("/v2/", one, &[("host", "user@a")], 400),
            ("http://a/v2/", one, &[("host", "a")], 200),
            ("http://a/v2/", one, &[("host", "b")], 400),
            ("http://a/v2/", one, &[], 400),
            ("http://a/v2/", one, &[("host", "a:80")], 200),
            ("http://a:80/v2/", one, &[("host", "a")], 200),
            ("http://a/v2/", one, &[("host", "a:443")], 400),
            ("http://a/v2/", two, &[("host", "a:80")], 200),
            ("https://a/v2/", two, &[("host", "a:443")], 200),
            ("https://a:443/v2/", two, &[("host", "a:")], 200),
            ("https://a/v2/", two, &[("host", "a:80")], 400),
            ("http://a/v2/", two, &[], 200),
            ("http://a/v2/", two, &[("host", "A")], 200),
            ("http://a/v2/", two, &[("host", "b")], 400),
            ("http://a/v2/", two, &[("host", "a:81")], 400),
            ("http://a/v2/", two, &[("host", "a"), ("host", "a")], 400),
            ("/v2/", two, &[("host", "a")], 200),
            ("/v2/", two, &[], 400),
        ] {
            let head = head(target, version, headers);
            assert_eq!(
                answer(&HostPolicy::default(), &head),
                expected,
                "{version:?} {target} {headers:?}"
            );
        }
    }

    #[test]
    fn s32_only_the_machine_itself_and_allowed_hosts_are_answered() {
        for (host, expected) in [
            ("localhost:5000", 200),
            ("localhost", 200),
            ("127.0.0.1:5001", 200),
            ("[::1]:5000", 200),
            ("lab.localhost:5000", 200),
            ("HOST.docker.internal:5000", 200),
            ("192.0.2.7", 200),
            ("docker.internal", 403),
            ("a.host.docker.internal", 403),
            ("192.0.2.70", 403),
            ("evil.example:5000", 403),
            ("0.0.0.0:5000", 403),
        ] {
            let one = head("/v2/", Version::HTTP_11, &[("host", host)]);
            assert_eq!(answer(&guarded(), &one), expected, "{host}");
            let two = head(&format!("http://{host}/v2/"), Version::HTTP_2, &[]);
            assert_eq!(answer(&guarded(), &two), expected, "{host}");
            assert_eq!(answer(&HostPolicy::default(), &one), 200, "{host}");
        }
    }

    #[test]
    fn s32_pages_of_other_sites_are_refused() {
        for (host, headers, expected) in [
            ("localhost:5000", &[("origin", "http://localhost:5000")][..], 200),
            ("localhost:5000", &[("origin", "https://LOCALHOST:5000")], 200),
            ("localhost", &[("origin", "http://localhost")], 200),
            ("localhost:443", &[("origin", "https://localhost")], 200),
            ("localhost", &[("origin", "https://localhost:443")], 200),
            ("localhost:80", &[("origin", "https://localhost")], 403),
            ("localhost:5000", &[("origin", "http://localhost:3000")], 403),
            ("localhost:5000", &[("origin", "http://localhost")], 403),
            ("localhost:5000", &[("origin", "http://127.0.0.1:5000")], 403),
            ("localhost:5000", &[("origin", "https://evil.example")], 403),
            ("localhost:5000", &[("origin", "null")], 403),
            ("localhost:5000", &[("origin", "")], 403),
            ("localhost:5000", &[("origin", "file://localhost:5000")], 403),
            ("localhost:5000", &[("origin", "chrome-extension://abc")], 403),
            (
                "localhost:5000",
                &[("origin", "http://localhost:5000"), ("origin", "null")],
                403,
            ),
            ("localhost:5000", &[("sec-fetch-site", "same-origin")], 200),
            ("localhost:5000", &[("sec-fetch-site", "none")], 200),
            ("localhost:5000", &[("sec-fetch-site", "same-site")], 403),
            ("localhost:5000", &[("sec-fetch-site", "cross-site")], 403),
            ("localhost:5000", &[("sec-fetch-site", "something-new")], 403),
            (
                "localhost:5000",
                &[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")],
                403,
            ),
            (
                "localhost:5000",
                &[("origin", "http://localhost:5000"), ("sec-fetch-site", "cross-site")],
                403,
            ),
        ] {
            let headers = [&[("host", host)], headers].concat();
            let head = head("/v2/", Version::HTTP_11, &headers);
            assert_eq!(answer(&guarded(), &head), expected, "{headers:?}");
            assert_eq!(answer(&HostPolicy::default(), &head), 200, "{headers:?}");
        }
    }
}
