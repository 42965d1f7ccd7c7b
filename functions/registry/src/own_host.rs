//! Whether a URL leads back to the host that a client asked.
//!
//! Go's HTTP client, and with it containerd, sends the `Authorization` of a request along with a redirect, if the target's
//! host is the one that was asked or a subdomain of it; a port does not make another host. So a pull is never redirected
//! there: the object store would get the registry's password, and stores like S3 refuse a request with two kinds of
//! credentials.

use std::net::IpAddr;

use http::request::Parts;

use crate::hosts::{Host, host_of};

/// The host under which a proxy in front of the registry was asked, set by a shell as an extension of a request that came
/// from a proxy which it trusts. A value of `X-Forwarded-Host`: a host with or without a port, or a list of them.
#[derive(Clone, Debug)]
pub struct ForwardedHost(pub String);

/// Whether the host of `url` is a host that the request was sent to, or a subdomain of one.
pub(crate) fn leads_back(url: &str, head: &Parts) -> bool {
    let Some(target) = host_of_url(url) else {
        // What cannot be read is not worth a password.
        return true;
    };
    let forwarded = head.extensions.get::<ForwardedHost>();
    let forwarded = forwarded.into_iter().flat_map(|host| host.0.split(','));
    let forwarded = forwarded.filter_map(|host| host.trim().parse().ok());
    let mut hosts = host_of(head).into_iter().chain(forwarded);
    hosts.any(|host| is_within(&target, &host))
}

/// Whether `target` is `host` or a subdomain of it, on any port.
#[must_use]
pub fn is_within(target: &Host, host: &Host) -> bool {
    let (target, host) = (target.name(), host.name());
    if let (Ok(target), Ok(host)) = (target.parse::<IpAddr>(), host.parse::<IpAddr>()) {
        return target.to_canonical() == host.to_canonical();
    }
    let above = target.strip_suffix(host);
    above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
}

/// The host of an absolute URL.
#[must_use]
pub fn host_of_url(url: &str) -> Option<Host> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    let (_, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    host.parse().ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]
mod tests {
    use http::{Request, Version};

    use super::*;

    #[test]
    fn hosts_of_urls() {
        for (url, host) in [
            ("https://a.example/x", Some("a.example")),
            ("http://a.example:9000/x", Some("a.example")),
            ("http://a.example?x=@b.example", Some("a.example")),
            ("http://a.example#@b.example", Some("a.example")),
            ("http://user:word@a.example:1/x", Some("a.example")),
            ("http://b.example@a.example", Some("a.example")),
            ("http://[::1]:9000/x", Some("::1")),
            ("http://[::1]", Some("::1")),
            ("http:///x", None),
            ("/x", None),
        ] {
            let found = host_of_url(url);
            assert_eq!(found.as_ref().map(Host::name), host, "{url}");
        }
    }

    #[test]
    fn the_same_host_or_below_it() {
        for (target, host, expected) in [
            ("a.example", "a.example", true),
            ("A.Example:1", "a.eXample:2", true),
            ("a.example.", "a.example", true),
            ("a.example", "a.example.", true),
            ("s3.a.example", "a.example", true),
            ("b.s3.a.example", "A.example.", true),
            ("xa.example", "a.example", false),
            ("a.example", "s3.a.example", false),
            ("a.example.evil", "a.example", false),
            ("b.example", "a.example", false),
            ("example", "a.example", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.2", "127.0.0.1", false),
            ("127.0.0.1", "localhost", false),
            ("localhost", "localhost", true),
            ("s3.localhost", "localhost", true),
            ("[::1]", "[::1]", true),
            ("[0:0::1]", "[::1]:5000", true),
            ("[::ffff:127.0.0.1]", "127.0.0.1", true),
            ("[::2]", "[::1]", false),
        ] {
            let within = is_within(&target.parse().unwrap(), &host.parse().unwrap());
            assert_eq!(within, expected, "{target} {host}");
        }
    }

    #[test]
    fn a_request_is_sent_to_all_hosts_that_it_names() {
        let leads = |target: &str, host: &[&str], forwarded: Option<&str>| {
            let mut request = Request::get(target).version(Version::HTTP_2);
            for host in host {
                request = request.header("host", *host);
            }
            let (mut head, ()) = request.body(()).unwrap().into_parts();
            if let Some(forwarded) = forwarded {
                head.extensions.insert(ForwardedHost(forwarded.to_owned()));
            }
            leads_back("http://s3.a.example:9000/bucket/key", &head)
        };
        assert!(!leads("/v2/", &["b.example"], None));
        assert!(leads("/v2/", &["s3.a.example:5000"], None));
        assert!(leads("/v2/", &["A.example.:5000"], None));
        assert!(leads("https://a.example:5000/v2/", &[], None));
        assert!(leads("/v2/", &["b.example"], Some("a.example:443")));
        assert!(leads("/v2/", &["b.example"], Some("c.example, s3.a.example")));
        assert!(!leads("/v2/", &["b.example"], Some("c.example,b.example")));
    }
}
