//! The id of a request.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::environment::{Environment, random_u64};

/// The header of a response that has the id of its request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request: a random number, as 16 hexadecimal digits.
///
/// Requests that may change something have one, and those that a fault of the server ends. It is in the header
/// `X-Request-Id` of the response, in the log, and in the audit trail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestId(u64);

impl RequestId {
    /// The id with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// A new id.
    pub(crate) fn random(environment: &dyn Environment) -> Self {
        Self(random_u64(environment))
    }

    /// The id of a request that begins with this method. `None`: it only reads, so it needs none unless it fails.
    pub(crate) fn of_change(method: &Method, environment: &dyn Environment) -> Option<Self> {
        (!method.is_safe()).then(|| Self::random(environment))
    }

    /// Adds it to the headers of the response.
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        // Digits are always a valid value.
        if let Ok(value) = HeaderValue::try_from(self.to_string()) {
            headers.insert(REQUEST_ID, value);
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_sixteen_digits() {
        for (number, expected) in [
            (0, "0000000000000000"),
            (0xabc, "0000000000000abc"),
            (u64::MAX, "ffffffffffffffff"),
        ] {
            let mut headers = HeaderMap::new();
            RequestId::new(number).write(&mut headers);
            assert_eq!(
                headers.get("x-request-id").map(HeaderValue::as_bytes),
                Some(expected.as_bytes())
            );
        }
    }
}
