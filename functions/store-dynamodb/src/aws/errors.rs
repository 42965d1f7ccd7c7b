//! Classifies the errors of the service: may the request be sent again, and was it applied?

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::CancellationReason;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use registry::store::Reason;

use crate::table::{MissingTable, TableError, TableMessage, Written};

/// The error for a request that this crate should not have made, or for an answer that it cannot read.
pub(super) fn invalid(why: impl Into<registry::store::Cause>) -> TableError {
    TableError::Fatal(why.into())
}

/// Whether the condition of a single write did not hold.
pub(super) fn is_refusal<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
    code == Some("ConditionalCheckFailedException")
}

/// The whole error text with all causes. The SDK's own text is only `service error`; the causes have the rest.
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
            // Some causes repeat the text of the error that they caused.
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
            // For a wrong signature, the service's message repeats the canonical request, which includes the session
            // token. This text goes to the log.
            Some(message) if repeats_request(code, message) => {
                "the text of the service is omitted, because it repeats the request"
            }
            Some(message) => message,
            None => "no message",
        };
        Self {
            text: format!("{code}: {message} (status {status})"),
        }
    }
}

/// Whether a message contains headers of the request, or may contain them.
fn repeats_request(code: &str, message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    code.to_ascii_lowercase().contains("signature")
        || ["x-amz-", "authorization", "canonical"]
            .iter()
            .any(|sign| message.contains(sign))
}

/// Converts an error of the SDK, and decides whether the request may be sent again.
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
        // This includes failures of the SDK to get credentials, which may be available soon.
        SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => {
            RetryClass::PerhapsDone.into_error(Reason::MetadataUnreachable, ErrorText::of(error))
        }
        _ => RetryClass::Never.into_error(Reason::Failed, ErrorText::of(error)),
    }
}

/// Whether a request may be sent again, and whether it may have been applied.
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

/// The reason that a code gives to callers.
fn reason_of(code: &str, status: u16) -> Reason {
    match code {
        "ProvisionedThroughputExceededException" | "RequestLimitExceeded" | "Throttling" | "ThrottlingException" => {
            Reason::Throttled
        }
        // Other requests write the same items; a lower request rate would not help.
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
        // Refused before anything was applied: no capacity, or another transaction uses one of the items.
        "ProvisionedThroughputExceededException"
        | "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "TransactionConflictException"
        | "ReplicatedWriteConflictException"
        // Credentials that expired on the way; the SDK gets new ones.
        | "ExpiredTokenException"
        | "RequestExpired" => RetryClass::NotDone,
        // An earlier try of the same transaction is in progress; its result will be the result of this one.
        "TransactionInProgressException" => RetryClass::PerhapsDone,
        _ if status == 429 => RetryClass::NotDone,
        _ if status >= 500 => RetryClass::PerhapsDone,
        _ => RetryClass::Never,
    }
}

/// The outcome of a cancelled transaction. A failed condition takes precedence over a conflict on another item.
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
    let transient = |code: &str| code == "TransactionConflict" || throttled(code);
    let retry_class = if codes().any(transient) && codes().all(|code| code == "None" || transient(code)) {
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
    let reason = match retry_class {
        RetryClass::Never => Reason::Failed,
        RetryClass::NotDone | RetryClass::PerhapsDone if codes().any(throttled) => Reason::Throttled,
        // Other requests write the same items; a lower request rate would not help.
        RetryClass::NotDone | RetryClass::PerhapsDone => Reason::Unavailable,
    };
    let text = format!("a transaction was cancelled: {}", reasons.join(", "));
    Err(retry_class.into_error(reason, ErrorText { text }))
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
            // The code does not matter: the message is omitted for every code.
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
            "the reason of a refusal stays in the text: {text}"
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

    /// Two simultaneous pushes of one tag are a conflict, not throttling.
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
