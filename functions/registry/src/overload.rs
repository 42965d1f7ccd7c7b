//! Overload of the process, and its response.

/// The exhausted resource. The response is 503 with `TOOMANYREQUESTS` and `Retry-After`. It has no id and is not logged
/// as a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overload {
    /// Requests in progress.
    Requests,
    /// Connections.
    Connections,
    /// Passwords that wait for their check.
    Passwords,
}

impl Overload {
    /// The text of the response.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Requests => {
                "too many requests at once: the registry is at its limit, or this client has its share of it"
            }
            Self::Connections => "too many connections: the registry has as many as it takes",
            Self::Passwords => "too many passwords wait to be checked",
        }
    }

    /// The value of `Retry-After`, in seconds.
    pub(crate) fn retry_after(self) -> u64 {
        match self {
            Self::Requests => 1,
            Self::Connections => 2,
            Self::Passwords => 5,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_overload_is_one_kind_of_answer() {
        for (overload, seconds) in [
            (Overload::Requests, "1"),
            (Overload::Connections, "2"),
            (Overload::Passwords, "5"),
        ] {
            let refused = overload.answer();
            assert_eq!(refused.status(), 503);
            let length = http_body::Body::size_hint(refused.body()).exact();
            let length = length.map(|length| length.to_string());
            for (name, value) in [
                ("retry-after", Some(seconds)),
                ("content-type", Some("application/json")),
                ("cache-control", Some("no-store")),
                ("docker-distribution-api-version", Some("registry/2.0")),
                ("x-content-type-options", Some("nosniff")),
                ("content-length", length.as_deref()),
                ("x-request-id", None),
            ] {
                let found = refused.headers().get(name).and_then(|value| value.to_str().ok());
                assert_eq!(found, value, "{overload:?}: {name}");
            }
        }
    }
}
