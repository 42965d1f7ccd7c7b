//! Why a collection pass has not examined everything.

use registry::collection::{Interrupted, Report};
use registry::store::collection::UNTIL_IMPORTED;
use registry::store::{StoreError, Timestamp};

use crate::timestamp;

/// Why a pass did not begin, or what has failed in it. A later pass tries it again.
#[derive(Debug, thiserror::Error)]
pub enum PassFailure {
    /// The condition of the stores does not allow a pass now. Nothing was done.
    #[error("nothing is collected now: {0}")]
    NotAllowed(#[source] StoreError),
    /// At least one operation has failed. Everything else was done.
    #[error("{}: {}. The next pass tries this again", failed_operations(.0), .0.source)]
    Interrupted(#[source] Interrupted),
}

impl PassFailure {
    /// What the pass has done nevertheless; `None` if it did not begin.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        match self {
            Self::NotAllowed(_) => None,
            Self::Interrupted(interrupted) => Some(&interrupted.report),
        }
    }
}

/// What has failed, without the cause.
fn failed_operations(Interrupted { report, what, .. }: &Interrupted) -> String {
    match report.failed {
        1 => what.clone(),
        failed => format!("{failed} operations failed; the first of them: {what}"),
    }
}

/// Why a pass without failures has not examined everything. The text says what the operator can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IncompletePass {
    /// It was stopped before its end.
    #[error("interrupted: the next pass continues from here")]
    Stopped,
    /// Another process examines the metadata, at least until this time.
    #[error("{}", busy(*.0))]
    Busy(Timestamp),
}

/// The result of a pass without failures: an error if the pass has not examined everything.
pub fn conclude(report: &Report) -> Result<(), IncompletePass> {
    if report.stopped {
        return Err(IncompletePass::Stopped);
    }
    report
        .busy_until
        .map_or(Ok(()), |until| Err(IncompletePass::Busy(until)))
}

/// What to do when another process holds the metadata.
fn busy(until: Timestamp) -> String {
    if until >= UNTIL_IMPORTED {
        return "the metadata was not examined and no pending deletion was carried out, because an import into this registry \
                is not complete; expired uploads were handled. Run the same `roadstead metadata import` again, which \
                continues where it was interrupted. Until it is complete, nothing else is collected"
            .into();
    }
    format!(
        "the metadata was not examined, because another collection examines it at least until {}; expired uploads and \
         pending deletions were handled. If no other collection is running, one was killed: run this again after that \
         time, and it continues where the other one stopped",
        timestamp::seconds(until)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_pass_has_no_error() {
        let complete = Report {
            complete: true,
            ..Report::default()
        };
        assert_eq!(conclude(&complete), Ok(()));
        let busy = |until| Report {
            busy_until: Some(until),
            ..Report::default()
        };
        for (report, expected) in [
            (busy(Timestamp(2_000)), "at least until 1970-01-01T00:00:02Z"),
            (busy(UNTIL_IMPORTED), "`roadstead metadata import`"),
            (
                Report {
                    stopped: true,
                    ..busy(Timestamp(2_000))
                },
                "interrupted",
            ),
        ] {
            let text = conclude(&report).expect_err("the pass is not complete").to_string();
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn a_failure_counts_the_operations_and_names_the_first_one() {
        let failure = |failed| {
            PassFailure::Interrupted(Interrupted {
                report: Box::new(Report {
                    failed,
                    ..Report::default()
                }),
                what: "the object abc.1 cannot be deleted".to_owned(),
                source: StoreError::failed("403"),
            })
            .to_string()
        };
        let one = failure(1);
        assert!(
            one.starts_with("the object abc.1 cannot be deleted: ")
                && one.ends_with(". The next pass tries this again"),
            "{one}"
        );
        let two = failure(2);
        let first = "2 operations failed; the first of them: the object abc.1 cannot be deleted: ";
        assert!(two.starts_with(first), "{two}");
    }
}
