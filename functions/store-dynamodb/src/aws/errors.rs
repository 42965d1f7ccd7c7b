//! What the service's answers mean for a retry.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::CancellationReason;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use registry::store::Reason;

use crate::table::{TableError, TableSaid, Written};

/// There is no such table, or its creation is not finished.
#[derive(Debug, thiserror::Error)]
#[error("there is no table {0}: `roadstead metadata init` creates it")]
pub(crate) struct MissingTable(pub(crate) String);

/// A request that this crate should not have made, or an answer that it cannot read.
pub(super) fn wrong(why: impl Into<registry::store::Cause>) -> TableError {
    TableError::Fatal(why.into())
}

/// The condition of a single write did not hold.
pub(super) fn is_refusal<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
    code == Some("ConditionalCheckFailedException")
}

/// What went wrong, whole: the SDK's own words for it are two (`service error`), with the rest behind them.
#[derive(Debug)]
struct Said {
    text: String,
}

impl Said {
    fn of(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Some causes repeat what they caused.
            if !text.ends_with(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        Self { text }
    }

    fn of_service<E: ProvideErrorMetadata>(error: &E, status: u16) -> Self {
        let code = error.code().unwrap_or("no code");
        let message = match error.message() {
            // To help with a wrong signature, the service repeats the request that it should have been of, and in it the
            // session's token. The text goes to the log.
            Some(message) if repeats_request(code, message) => {
                "the service's text is left out, since it repeats the request"
            }
            Some(message) => message,
            None => "no message",
        };
        Self {
            text: format!("{code}: {message} (status {status})"),
        }
    }
}

/// Whether a message holds headers of the request, or may.
fn repeats_request(code: &str, message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    code.to_ascii_lowercase().contains("signature")
        || ["x-amz-", "authorization", "canonical"]
            .iter()
            .any(|sign| message.contains(sign))
}

/// Whether a request may be sent again.
pub(crate) fn classified<E>(error: &SdkError<E, HttpResponse>, table: &str) -> TableError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error {
        SdkError::ServiceError(answer) => {
            let (service, status) = (answer.err(), answer.raw().status().as_u16());
            let code = service.code().unwrap_or_default();
            if code == "ResourceNotFoundException" {
                return TableError::Fatal(Box::new(MissingTable(table.to_owned())));
            }
            let reason = reason_of(code, status);
            by_code(code, status).said(reason, Said::of_service(service, status))
        }
        // Also what the SDK meets while it looks for credentials, which may well be there in a moment.
        SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => {
            Again::PerhapsDone.said(Reason::MetadataUnreachable, Said::of(error))
        }
        _ => Again::Never.said(Reason::Failed, Said::of(error)),
    }
}

/// Whether a request may be sent again, and what is known of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    NotDone,
    PerhapsDone,
    Never,
}

impl Again {
    fn said(self, reason: Reason, said: Said) -> TableError {
        let cause = Box::new(TableSaid {
            reason,
            text: said.text,
        });
        match self {
            Self::NotDone => TableError::Retry { not_done: true, cause },
            Self::PerhapsDone => TableError::Retry { not_done: false, cause },
            Self::Never => TableError::Fatal(cause),
        }
    }
}

/// What a code means to those who wait for an answer.
fn reason_of(code: &str, status: u16) -> Reason {
    match code {
        "ProvisionedThroughputExceededException" | "RequestLimitExceeded" | "Throttling" | "ThrottlingException" => {
            Reason::Throttled
        }
        // Others write the same items: fewer requests would not help.
        "TransactionConflictException" | "TransactionInProgressException" | "ReplicatedWriteConflictException" => {
            Reason::Unavailable
        }
        "AccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "IncompleteSignatureException"
        | "MissingAuthenticationTokenException"
        | "NotAuthorized" => Reason::MetadataRefuses,
        _ if status == 429 => Reason::Throttled,
        _ if status == 401 || status == 403 => Reason::MetadataRefuses,
        _ => Reason::MetadataUnreachable,
    }
}

fn by_code(code: &str, status: u16) -> Again {
    match code {
        // Refused before anything was done: no capacity, or another transaction holds one of the items.
        "ProvisionedThroughputExceededException"
        | "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "TransactionConflictException"
        | "ReplicatedWriteConflictException"
        // Credentials that ended on the way; the SDK asks for new ones.
        | "ExpiredTokenException"
        | "RequestExpired" => Again::NotDone,
        // The same transaction, by an earlier try: its answer will be this one's.
        "TransactionInProgressException" => Again::PerhapsDone,
        _ if status == 429 => Again::NotDone,
        _ if status >= 500 => Again::PerhapsDone,
        _ => Again::Never,
    }
}

/// Why a transaction was cancelled: a condition that did not hold counts more than a conflict on another item.
pub(super) fn cancelled(reasons: &[CancellationReason]) -> Result<Written, TableError> {
    let codes = || reasons.iter().map(|reason| reason.code().unwrap_or("None"));
    let refused = codes()
        .enumerate()
        .filter(|(_, code)| *code == "ConditionalCheckFailed");
    let refused: Vec<usize> = refused.map(|(index, _)| index).collect();
    if !refused.is_empty() {
        return Ok(Written::Refused(refused));
    }
    let throttled = |code: &str| matches!(code, "ThrottlingError" | "ProvisionedThroughputExceeded");
    let passing = |code: &str| code == "TransactionConflict" || throttled(code);
    let again = if codes().any(passing) && codes().all(|code| code == "None" || passing(code)) {
        Again::NotDone
    } else {
        Again::Never
    };
    let reasons = reasons.iter().map(|reason| {
        let code = reason.code().unwrap_or("None");
        reason
            .message()
            .map_or_else(|| code.to_owned(), |message| format!("{code} ({message})"))
    });
    let reasons: Vec<_> = reasons.collect();
    let reason = match again {
        Again::Never => Reason::Failed,
        Again::NotDone | Again::PerhapsDone if codes().any(throttled) => Reason::Throttled,
        // Others write the same items: fewer requests would not help.
        Again::NotDone | Again::PerhapsDone => Reason::Unavailable,
    };
    let text = format!("a transaction was cancelled: {}", reasons.join(", "));
    Err(again.said(reason, Said { text }))
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::error::ErrorMetadata;

    use super::*;

    #[test]
    fn what_was_refused_at_the_door_was_not_done() {
        for code in [
            "ThrottlingException",
            "TransactionConflictException",
            "RequestLimitExceeded",
        ] {
            assert_eq!(by_code(code, 400), Again::NotDone, "{code}");
        }
        assert_eq!(by_code("", 429), Again::NotDone);
    }

    #[test]
    fn a_fault_may_have_done_it() {
        assert_eq!(by_code("InternalServerError", 500), Again::PerhapsDone);
        assert_eq!(by_code("", 503), Again::PerhapsDone);
        assert_eq!(by_code("TransactionInProgressException", 400), Again::PerhapsDone);
    }

    #[test]
    fn a_wrong_request_stays_wrong() {
        for code in [
            "ValidationException",
            "AccessDeniedException",
            "IdempotentParameterMismatchException",
        ] {
            assert_eq!(by_code(code, 400), Again::Never, "{code}");
        }
    }

    #[test]
    fn what_went_wrong_is_said_whole() {
        let error = SdkError::<std::fmt::Error, HttpResponse>::timeout_error("no answer in 6 s");
        let text = Said::of(&error).text;
        assert!(text.contains("no answer in 6 s"), "{text}");
    }

    fn said_of(code: &str, message: &str) -> String {
        let error = ErrorMetadata::builder().code(code).message(message).build();
        Said::of_service(&error, 400).text
    }

    #[test]
    fn s18_no_header_of_a_request_is_said() {
        const TOKEN: &str = "FwoGZXIvYXdzEDoaDHNlc3Npb24tdG9rZW4";
        let message = format!(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
             Access Key and signing method. Consult the service documentation for details.\n\nThe Canonical String for \
             this request should have been\n'POST\n/\n\nhost:dynamodb.eu-central-1.amazonaws.com\n\
             x-amz-date:20300101T000000Z\nx-amz-security-token:{TOKEN}\n\nhost;x-amz-date;x-amz-security-token\n0'"
        );
        for code in [
            "InvalidSignatureException",
            "IncompleteSignatureException",
            "SignatureDoesNotMatch",
            // Whatever the code is.
            "ValidationException",
        ] {
            let said = said_of(code, &message);
            assert!(said.contains(code) && said.contains("400"), "{said}");
            assert!(!said.contains(TOKEN) && !said.contains("x-amz"), "{said}");
        }
        assert!(!said_of("InvalidSignatureException", TOKEN).contains(TOKEN));
        let said = said_of(
            "AccessDeniedException",
            "User: arn:aws:iam::1:user/a is not authorized to perform: dynamodb:Scan",
        );
        assert!(
            said.contains("dynamodb:Scan"),
            "what is needed to understand a refusal stays: {said}"
        );
    }

    fn because(codes: &[&str]) -> Result<Written, TableError> {
        let reasons: Vec<_> = codes
            .iter()
            .map(|code| CancellationReason::builder().code(*code).build())
            .collect();
        cancelled(&reasons)
    }

    #[test]
    fn a_cancelled_transaction_says_which_conditions_failed() {
        let codes = [
            "None",
            "ConditionalCheckFailed",
            "TransactionConflict",
            "ConditionalCheckFailed",
        ];
        assert!(matches!(because(&codes), Ok(Written::Refused(which)) if which == [1, 3]));
    }

    /// Two pushes of one tag are no throttling.
    #[test]
    fn a_conflict_is_no_throttling() {
        let reason = |codes: &[&str]| {
            let error = because(codes).expect_err("it was cancelled");
            error.into_store_error().reason()
        };
        for (codes, expected) in [
            (&["TransactionConflict", "None"][..], Reason::Unavailable),
            (&["ThrottlingError"], Reason::Throttled),
            (
                &["TransactionConflict", "ProvisionedThroughputExceeded"],
                Reason::Throttled,
            ),
            (&["ValidationError"], Reason::Failed),
        ] {
            assert_eq!(reason(codes), expected, "{codes:?}");
        }
        for (code, expected) in [
            ("TransactionConflictException", Reason::Unavailable),
            ("ThrottlingException", Reason::Throttled),
            ("ProvisionedThroughputExceededException", Reason::Throttled),
            ("InternalServerError", Reason::MetadataUnreachable),
        ] {
            assert_eq!(reason_of(code, 400), expected, "{code}");
        }
    }

    #[test]
    fn a_conflict_is_tried_again() {
        let outcome = because(&["TransactionConflict", "None"]);
        assert!(
            matches!(outcome, Err(TableError::Retry { not_done: true, .. })),
            "{outcome:?}"
        );
        let outcome = because(&["TransactionConflict", "ValidationError"]);
        assert!(matches!(outcome, Err(TableError::Fatal(_))), "{outcome:?}");
        let outcome = because(&[]);
        assert!(matches!(outcome, Err(TableError::Fatal(_))), "{outcome:?}");
    }
}
