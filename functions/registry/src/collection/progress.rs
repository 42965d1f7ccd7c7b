//! What a run tells: its report, how far it has come, and what has failed.

use std::ops::ControlFlow;

use super::run::{Interrupted, Options, Report};
use crate::store::StoreError;
use crate::store::blobs::DeletedObjects;

/// The report of a run, as it comes to be.
pub(super) struct RunningReport<'a> {
    pub(super) report: Report,
    progress: &'a mut (dyn FnMut(&Report) -> ControlFlow<()> + Send),
    /// Not all that was freed is known, and a part of it is not told.
    untold: bool,
    /// The first failure.
    first: Option<(String, StoreError)>,
    /// How many calls in a row have found a store unavailable.
    in_vain: usize,
    /// How many of these are enough to know that the next one will.
    enough: usize,
}

impl<'a> RunningReport<'a> {
    pub(super) fn new(options: &Options, progress: &'a mut (dyn FnMut(&Report) -> ControlFlow<()> + Send)) -> Self {
        Self {
            report: Report {
                dry_run: options.plan.dry_run,
                deep: options.plan.deep,
                ..Report::default()
            },
            progress,
            untold: false,
            first: None,
            in_vain: 0,
            enough: options.at_once.max(1),
        }
    }

    /// Tells how far the run has come. It goes on unless it is to stop.
    pub(super) fn tell(&mut self) -> ControlFlow<()> {
        let told = (self.progress)(&self.report);
        self.report.stopped |= told.is_break();
        told
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.report.stopped
    }

    /// A store has done its work.
    pub(super) fn went(&mut self) {
        self.in_vain = 0;
    }

    /// Something could not be done. Breaks when it was tried often enough to give the step up: a store that is away
    /// would take its whole time over each of a million things, while one thing that is stuck keeps back nothing else.
    pub(super) fn failed(&mut self, what: impl FnOnce() -> String, source: StoreError) -> ControlFlow<()> {
        self.report.failed += 1;
        self.in_vain = match source {
            StoreError::Unavailable(_) => self.in_vain + 1,
            StoreError::Failed(_) => 0,
        };
        if self.first.is_none() {
            self.first = Some((what(), source));
        }
        if self.in_vain < self.enough {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }

    /// A whole step could not be taken, or gone on with.
    pub(super) fn step_failed(&mut self, what: &str, source: StoreError) {
        let _ = self.failed(|| what.to_owned(), source);
    }

    /// Another step begins: what one store does not do, another may.
    pub(super) fn begin(&mut self) {
        self.in_vain = 0;
    }

    /// Adds what was there of objects that were deleted. `None`: the store has not told.
    pub(super) fn deleted(&mut self, deleted: Option<DeletedObjects>) {
        match deleted {
            Some(deleted) if !self.untold => *self.report.deleted.get_or_insert_default() += deleted,
            Some(_) => {}
            None => {
                self.untold = true;
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
