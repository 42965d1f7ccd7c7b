//! Whether a URL leads to the host that the client used for its request.
//!
//! Go's HTTP client, and so containerd, sends the `Authorization` of a request to the target of a redirect if the
//! target's host is the host of the request or a subdomain of it. The port does not matter. So a pull is never
//! redirected there: the object store would get the registry's password, and stores like S3 refuse a request with two
//! kinds of credentials.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::FORWARDED;
use http::request::Parts;

use crate::forwarded::FORWARDED_HOST;
use crate::hosts::{Host, HostError, host_of};

/// Whether the host of `url` is a host of the request, or a subdomain of one. True if the URL or a header cannot be
/// parsed: then a redirect could reveal the password.
pub(crate) fn leads_back(url: &str, head: &Parts) -> bool {
    let (Some(target), Ok(forwarded)) = (host_of_url(url), forwarded_hosts(&head.headers)) else {
        return true;
    };
    let mut hosts = host_of(head).into_iter().chain(forwarded);
    hosts.any(|host| is_within(&target, &host))
}

/// The hosts that proxies in front of the registry report; proxies that rewrite `Host` report the original host so. The
/// headers are trusted from every client, since a false value only prevents a redirect of that client's own pull.
fn forwarded_hosts(headers: &HeaderMap) -> Result<Vec<Host>, HostError> {
    let mut hosts = Vec::new();
    for field in headers.get_all(FORWARDED_HOST) {
        let field = field.to_str().map_err(|_| HostError)?;
        // A list may have empty elements (RFC 9110, 5.6.1).
        for host in field.split(',').map(str::trim).filter(|host| !host.is_empty()) {
            hosts.push(host.parse()?);
        }
    }
    for field in headers.get_all(FORWARDED) {
        let field = field.to_str().map_err(|_| HostError)?;
        for pair in pairs(field) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if name.trim().eq_ignore_ascii_case("host") {
                hosts.push(unquoted(value.trim())?.parse()?);
            }
        }
    }
    Ok(hosts)
}

/// The pairs of all elements of a `Forwarded` header (RFC 7239, 4): `for=192.0.2.1;host="a.example:443", for=…`.
fn pairs(field: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    field.split(move |character| {
        let is_literal = std::mem::take(&mut is_escaped);
        match character {
            '\\' if is_quoted && !is_literal => is_escaped = true,
            '"' if !is_literal => is_quoted = !is_quoted,
            ',' | ';' => return !is_quoted,
            _ => {}
        }
        false
    })
}

/// The value of a token or a quoted string (RFC 9110, 5.6.4).
fn unquoted(value: &str) -> Result<String, HostError> {
    let Some(rest) = value.strip_prefix('"') else {
        return Ok(value.to_owned());
    };
    let mut text = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next().ok_or(HostError)? {
            '"' if characters.as_str().is_empty() => return Ok(text),
            '"' => return Err(HostError),
            '\\' => text.push(characters.next().ok_or(HostError)?),
            character => text.push(character),
        }
    }
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
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use http::{HeaderValue, Request, Version};

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
    fn every_host_of_a_request_counts() {
        for (target, headers, expected) in [
            ("/v2/", &[("host", "b.example")][..], false),
            ("/v2/", &[("host", "s3.a.example:5000")], true),
            ("/v2/", &[("host", "A.example.:5000")], true),
            ("https://a.example:5000/v2/", &[], true),
        ] {
            assert_eq!(leads(target, headers), expected, "{target} {headers:?}");
        }
    }

    /// A proxy that rewrites `Host` reports the original host in one of two headers. A header that cannot be parsed may
    /// mean any host.
    #[test]
    fn s28_hosts_that_proxies_report_count() {
        const X: &str = "x-forwarded-host";
        const STANDARD: &str = "forwarded";
        for (forwarded, expected) in [
            (&[(X, "a.example:443")][..], true),
            (&[(X, "c.example, s3.a.example")], true),
            (&[(X, "c.example"), (X, "A.example.")], true),
            (&[(X, "c.example,b.example")], false),
            (&[(X, "c.example, ,")], false),
            (&[(X, "")], false),
            (&[(X, "https://a.example")], true),
            (&[(X, "c.example, no host")], true),
            (&[(X, "\u{e9}.example")], true),
            (&[(STANDARD, "host=a.example")], true),
            (&[(STANDARD, "for=192.0.2.1;Host=\"a.example:443\";proto=https")], true),
            (
                &[(STANDARD, "for=192.0.2.1, for=192.0.2.2 ; host = s3.a.example")],
                true,
            ),
            (&[(STANDARD, "host=\"\\a.example\"")], true),
            (
                &[(STANDARD, "for=\"_a,host=a.example\";by=\"\\\";host=a.example\"")],
                false,
            ),
            (
                &[(STANDARD, "for=192.0.2.1;host=c.example"), (STANDARD, "host=d.example")],
                false,
            ),
            (&[(STANDARD, "for=192.0.2.1;proto=https;by=a.example")], false),
            (&[(STANDARD, "xhost=a.example")], false),
            (&[(STANDARD, "")], false),
            (&[(STANDARD, "host")], true),
            (&[(STANDARD, "host=")], true),
            (&[(STANDARD, "host=\"c.example")], true),
            (&[(STANDARD, "host=\"c.example\"x")], true),
            (&[(STANDARD, "host=_hidden/x")], true),
            (&[(X, "c.example"), (STANDARD, "host=a.example")], true),
        ] {
            let headers = [&[("host", "b.example")], forwarded].concat();
            assert_eq!(leads("/v2/", &headers), expected, "{forwarded:?}");
        }
    }

    /// Whether a redirect to a store below `a.example` leads back.
    fn leads(target: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::get(target).version(Version::HTTP_2);
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        leads_back("http://s3.a.example:9000/bucket/key", &head)
    }
}
