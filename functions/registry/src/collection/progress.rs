//! The report of a run while it is in progress: statistics, progress and failures.

use std::ops::ControlFlow;

use super::run::{CollectionOptions, Interrupted, Report};
use crate::store::StoreError;
use crate::store::blobs::DeletedObjects;

/// The report of a run in progress.
pub(super) struct RunningReport<'a> {
    pub(super) report: Report,
    progress: &'a mut (dyn FnMut(&Report) -> ControlFlow<()> + Send),
    /// The store did not report all deleted objects, so their number and size are unknown.
    unknown_deletions: bool,
    /// The first failure.
    first: Option<(String, StoreError)>,
    /// How many calls in a row have found a store unavailable.
    unavailable: usize,
    /// After so many such calls in a row, the step is aborted.
    max_unavailable: usize,
}

impl<'a> RunningReport<'a> {
    pub(super) fn new(
        options: &CollectionOptions,
        progress: &'a mut (dyn FnMut(&Report) -> ControlFlow<()> + Send),
    ) -> Self {
        Self {
            report: Report {
                dry_run: options.plan.dry_run,
                deep: options.plan.deep,
                ..Report::default()
            },
            progress,
            unknown_deletions: false,
            first: None,
            unavailable: 0,
            max_unavailable: options.at_once.max(1),
        }
    }

    /// Reports the progress. Breaks when the run must stop.
    pub(super) fn report_progress(&mut self) -> ControlFlow<()> {
        let flow = (self.progress)(&self.report);
        self.report.stopped |= flow.is_break();
        flow
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.report.stopped
    }

    /// Notes that a store call succeeded.
    pub(super) fn succeeded(&mut self) {
        self.unavailable = 0;
    }

    /// Notes a failure. Breaks when the step must be aborted: an unavailable store would take its whole timeout for
    /// each of a million items. A single item that fails does not abort the step.
    pub(super) fn failed(&mut self, what: impl FnOnce() -> String, source: StoreError) -> ControlFlow<()> {
        self.report.failed += 1;
        self.unavailable = match source {
            StoreError::Unavailable(_) => self.unavailable + 1,
            StoreError::Failed(_) => 0,
        };
        if self.first.is_none() {
            self.first = Some((what(), source));
        }
        if self.unavailable < self.max_unavailable {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }

    /// Notes that a whole step could not start, or could not continue.
    pub(super) fn step_failed(&mut self, what: &str, source: StoreError) {
        let _ = self.failed(|| what.to_owned(), source);
    }

    /// Begins the next step. It may use another store, so the count of calls in a row starts again.
    pub(super) fn begin_step(&mut self) {
        self.unavailable = 0;
    }

    /// Adds deleted objects to the report. `None`: the store did not report them.
    pub(super) fn deleted(&mut self, deleted: Option<DeletedObjects>) {
        match deleted {
            Some(deleted) if !self.unknown_deletions => *self.report.deleted.get_or_insert_default() += deleted,
            Some(_) => {}
            None => {
                self.unknown_deletions = true;
                self.report.deleted = None;
            }
        }
    }

    pub(super) fn end(self) -> Result<Report, Interrupted> {
        let mut report = self.report;
        match self.first {
            None => {
                report.complete = report.busy_until.is_none() && !report.stopped;
                Ok(report)
            }
            Some((what, source)) => Err(Interrupted {
                report: Box::new(report),
                what,
                source,
            }),
        }
    }
}
