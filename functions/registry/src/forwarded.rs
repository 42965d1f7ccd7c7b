//! The header fields that proxies add to requests.

use http::header::{FORWARDED, VIA};
use http::request::Parts;
use http::{HeaderName, Version};

pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Whether a proxy seems to have sent the request. Then `Host` may be the proxy's own name for the registry.
///
/// No client of registries sends HTTP/1.0. But nginx before 1.30 does by default, and adds no field.
pub(crate) fn is_forwarded(head: &Parts) -> bool {
    let fields = &head.headers;
    head.version == Version::HTTP_10
        || fields.contains_key(FORWARDED)
        || fields.contains_key(FORWARDED_FOR)
        || fields.contains_key(FORWARDED_HOST)
        || fields.contains_key(FORWARDED_PROTO)
        || fields.contains_key(VIA)
}
