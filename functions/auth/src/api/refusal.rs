//! What a change that is not made means for a client.

use std::borrow::Cow;

use registry::api_endpoint::ApiRefusal;
use registry::store::{Reason, StoreError};
use serde_json::json;

use super::types::Finding;
use crate::accounts::NotHashed;
use crate::administration::AdministrationError;

/// The request is malformed, or asks for what cannot be.
pub(super) fn invalid(message: impl Into<Cow<'static, str>>) -> ApiRefusal {
    ApiRefusal::Invalid {
        message: message.into(),
        detail: None,
    }
}

/// Other changes came first, each time that this one was tried.
pub(super) fn conflict() -> ApiRefusal {
    ApiRefusal::Conflict("other changes came first, several times; nothing was changed, try again".into())
}

impl From<AdministrationError> for ApiRefusal {
    fn from(error: AdministrationError) -> Self {
        let text = error.to_string();
        match error {
            AdministrationError::NoAccount { .. }
            | AdministrationError::NoKey { .. }
            | AdministrationError::NoPolicy(_) => Self::Unknown,
            AdministrationError::PolicyConflict { .. } | AdministrationError::AccountChanged(_) => Self::Changed,
            AdministrationError::HasAdmin => Self::Denied(text.into()),
            AdministrationError::Conflict => conflict(),
            AdministrationError::Exists { .. }
            | AdministrationError::OtherKind { .. }
            | AdministrationError::KeyEnded { .. }
            | AdministrationError::LastAdmin(_)
            | AdministrationError::NoGrant { .. }
            | AdministrationError::NotInGroup { .. }
            | AdministrationError::RobotPassword(_)
            | AdministrationError::TooMany { .. }
            | AdministrationError::TooManySigningKeys { .. }
            | AdministrationError::UserGrants => Self::Conflict(text.into()),
            AdministrationError::EmptyGrant
            | AdministrationError::Expired
            | AdministrationError::LongOverlap
            | AdministrationError::NoLogin(_)
            | AdministrationError::Workloads => invalid(text),
            AdministrationError::Mistakes(mistakes) => {
                let findings: Vec<_> = mistakes.iter().map(Finding::from).collect();
                Self::Invalid {
                    message: text.into(),
                    detail: Some(json!({ "mistakes": findings })),
                }
            }
            AdministrationError::Store(error) => Self::Failed(error),
            // No request can be decided then.
            AdministrationError::UnreadablePolicy(_) => Self::Failed(StoreError::because(Reason::Credentials, text)),
        }
    }
}

impl From<NotHashed> for ApiRefusal {
    fn from(error: NotHashed) -> Self {
        match error {
            NotHashed::Refused(error) => invalid(error.to_string()),
            NotHashed::Unchecked(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As of every request, since none can be decided: 503, after which clients try again.
    #[test]
    fn a_policy_that_cannot_be_read_is_no_conflict() {
        let refusal = ApiRefusal::from(AdministrationError::UnreadablePolicy(7));
        let ApiRefusal::Failed(error) = refusal else {
            panic!("{refusal:?}");
        };
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    }
}
