//! Requests that a shell refuses because of the door at which they have arrived, before the registry sees them.

/// Why a door does not let a request in. The response has no id and is not logged as a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DoorRefusal {
    /// The registry is behind an edge, and the request does not carry the edge's secret: 403 with `DENIED`.
    NotFromEdge,
    /// The request is HEAD, and the door cannot say the length of content that it does not send: 421 (RFC 9110, 15.5.20) with
    /// `UNSUPPORTED`. A wrong length is worse than an error: clients take the size of a manifest from it.
    NoHead,
}

impl DoorRefusal {
    /// The text of the response.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::NotFromEdge => {
                "requests come to this address through the edge of the registry only: use its public URL"
            }
            Self::NoHead => "this door of the registry cannot answer HEAD: its front has to send HEAD to another one",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_answered_as_by_the_registry() {
        for (refusal, status) in [(DoorRefusal::NotFromEdge, 403), (DoorRefusal::NoHead, 421)] {
            let refused = refusal.answer();
            assert_eq!(refused.status(), status);
            for (name, value) in [
                ("content-type", Some("application/json")),
                ("cache-control", Some("no-store")),
                ("docker-distribution-api-version", Some("registry/2.0")),
                ("x-request-id", None),
                ("retry-after", None),
                ("www-authenticate", None),
            ] {
                let found = refused.headers().get(name).and_then(|value| value.to_str().ok());
                assert_eq!(found, value, "{refusal:?}: {name}");
            }
        }
    }
}
