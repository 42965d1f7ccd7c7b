//! `/`: a short page for people who open the registry's address in a browser.
//!
//! The page is the same for all clients. It reveals nothing about the registry's content, and contains no part of the
//! request. It has no script and no style, and its `Content-Security-Policy` allows none.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, Response};

use crate::body::ResponseBody;

/// A page that loads nothing, runs nothing, sends no form, and cannot be framed.
const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");

const HTML: &str = "<!DOCTYPE html>
<html lang=\"en\">
<head><meta charset=\"utf-8\"><title>Container registry</title></head>
<body>
<h1>Container registry</h1>
<p>This is a container registry. It speaks the OCI distribution specification at <a href=\"/v2/\">/v2/</a>.</p>
<p>Push an image to it, with the host of this page in place of <code>registry.example</code>:</p>
<pre>docker pull busybox
docker tag busybox registry.example/team/busybox:1
docker push registry.example/team/busybox:1</pre>
<p>If it asks who you are, log in first:</p>
<pre>docker login registry.example</pre>
</body>
</html>
";

const TEXT: &str = "This is a container registry. It speaks the OCI distribution specification at /v2/.

Push an image to it, with the host of this page in place of registry.example:

  docker pull busybox
  docker tag busybox registry.example/team/busybox:1
  docker push registry.example/team/busybox:1

If it asks who you are, log in first:

  docker login registry.example
";

/// The page: HTML for browsers, plain text for other clients.
pub(crate) fn page(headers: &HeaderMap) -> Response<ResponseBody> {
    let (content_type, body) = if accepts_html(headers) {
        ("text/html; charset=utf-8", HTML)
    } else {
        ("text/plain; charset=utf-8", TEXT)
    };
    let mut response = Response::new(ResponseBody::full(Bytes::from_static(body.as_bytes())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(VARY, HeaderValue::from_static("accept"));
    response
}

/// Browsers list HTML in `Accept`; `curl` and probes send `*/*` or no such header.
fn accepts_html(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(ACCEPT).iter();
    let mut ranges = lines
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    ranges.any(|range| {
        let media_type = range.split(';').next().unwrap_or_default().trim();
        media_type.eq_ignore_ascii_case("text/html")
    })
}
