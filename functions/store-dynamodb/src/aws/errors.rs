//! What the service's answers mean for a retry.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::CancellationReason;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use registry::store::Reason;

use crate::table::{TableError, TableMessage, Written};

/// There is no such table, or its creation is not finished.
#[derive(Debug, thiserror::Error)]
#[error("there is no table {0}: `roadstead metadata init` creates it")]
pub(crate) struct MissingTable(pub(crate) String);

/// A request that this crate should not have made, or an answer that it cannot read.
pub(super) fn invalid(why: impl Into<registry::store::Cause>) -> TableError {
    TableError::Fatal(why.into())
}

/// The condition of a single write did not hold.
pub(super) fn is_refusal<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
    code == Some("ConditionalCheckFailedException")
}

/// What went wrong, whole: the SDK's own words for it are two (`service error`), with the rest behind them.
#[derive(Debug)]
struct ErrorText {
    text: String,
}

impl ErrorText {
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
            retry_class_of(code, status).into_error(reason, ErrorText::of_service(service, status))
        }
        // Also what the SDK meets while it looks for credentials, which may well be there in a moment.
        SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => {
            RetryClass::PerhapsDone.into_error(Reason::MetadataUnreachable, ErrorText::of(error))
        }
        _ => RetryClass::Never.into_error(Reason::Failed, ErrorText::of(error)),
    }
}

/// Whether a request may be sent again, and what is known of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RetryClass {
    NotDone,
    PerhapsDone,
    Never,
}

impl RetryClass {
    fn into_error(self, reason: Reason, text: ErrorText) -> TableError {
        let cause = Box::new(TableMessage {
            reason,
            text: text.text,
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

fn retry_class_of(code: &str, status: u16) -> RetryClass {
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
        | "RequestExpired" => RetryClass::NotDone,
        // The same transaction, by an earlier try: its answer will be this one's.
        "TransactionInProgressException" => RetryClass::PerhapsDone,
        _ if status == 429 => RetryClass::NotDone,
        _ if status >= 500 => RetryClass::PerhapsDone,
        _ => RetryClass::Never,
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
        RetryClass::NotDone
    } else {
        RetryClass::Never
    };
    let reasons = reasons.iter().map(|reason| {
        let code = reason.code().unwrap_or("None");
        reason
            .message()
            .map_or_else(|| code.to_owned(), |message| format!("{code} ({message})"))
    });
    let reasons: Vec<_> = reasons.collect();
    let reason = match again {
        RetryClass::Never => Reason::Failed,
        RetryClass::NotDone | RetryClass::PerhapsDone if codes().any(throttled) => Reason::Throttled,
        // Others write the same items: fewer requests would not help.
        RetryClass::NotDone | RetryClass::PerhapsDone => Reason::Unavailable,
    };
    let text = format!("a transaction was cancelled: {}", reasons.join(", "));
    Err(again.into_error(reason, ErrorText { text }))
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::error::ErrorMetadata;

    use super::*;

    #[test]
    fn a_throttle_or_a_conflict_means_not_done() {
        for code in [
            "ThrottlingException",
            "TransactionConflictException",
            "RequestLimitExceeded",
        ] {
            assert_eq!(retry_class_of(code, 400), RetryClass::NotDone, "{code}");
        }
        assert_eq!(retry_class_of("", 429), RetryClass::NotDone);
    }

    #[test]
    fn a_request_that_met_a_server_error_may_have_been_done() {
        assert_eq!(retry_class_of("InternalServerError", 500), RetryClass::PerhapsDone);
        assert_eq!(retry_class_of("", 503), RetryClass::PerhapsDone);
        assert_eq!(
            retry_class_of("TransactionInProgressException", 400),
            RetryClass::PerhapsDone
        );
    }

    #[test]
    fn an_invalid_request_is_not_sent_again() {
        for code in [
            "ValidationException",
            "AccessDeniedException",
            "IdempotentParameterMismatchException",
        ] {
            assert_eq!(retry_class_of(code, 400), RetryClass::Never, "{code}");
        }
    }

    #[test]
    fn the_error_text_contains_the_causes() {
        let error = SdkError::<std::fmt::Error, HttpResponse>::timeout_error("no answer in 6 s");
        let text = ErrorText::of(&error).text;
        assert!(text.contains("no answer in 6 s"), "{text}");
    }

    fn text_of(code: &str, message: &str) -> String {
        let error = ErrorMetadata::builder().code(code).message(message).build();
        ErrorText::of_service(&error, 400).text
    }

    #[test]
    fn s18_the_error_text_contains_no_header_of_the_request() {
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
            let text = text_of(code, &message);
            assert!(text.contains(code) && text.contains("400"), "{text}");
            assert!(!text.contains(TOKEN) && !text.contains("x-amz"), "{text}");
        }
        assert!(!text_of("InvalidSignatureException", TOKEN).contains(TOKEN));
        let text = text_of(
            "AccessDeniedException",
            "User: arn:aws:iam::1:user/a is not authorized to perform: dynamodb:Scan",
        );
        assert!(
            text.contains("dynamodb:Scan"),
            "what is needed to understand a refusal stays: {text}"
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
    fn a_cancelled_transaction_reports_the_indices_of_failed_conditions() {
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
    fn a_conflict_is_not_reported_as_throttling() {
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
    fn a_transaction_that_met_a_conflict_may_be_sent_again() {
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
