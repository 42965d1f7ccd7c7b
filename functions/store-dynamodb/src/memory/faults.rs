//! What can go wrong with a request.

use crate::scheduler::Random;
use crate::table::TableError;

/// How often requests fail, each in parts of a thousand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Faults {
    /// A write meets another transaction on the same item.
    pub(crate) conflicts: u64,
    /// The table has no capacity.
    pub(crate) throttles: u64,
    /// A write is done, and its answer is lost.
    pub(crate) lost: u64,
    /// A write is not answered, and done some requests later, if at all: perhaps after it was sent again.
    pub(crate) late: u64,
    /// Each part of a batch is left undone.
    pub(crate) unprocessed: u64,
    /// A read that did not ask for consistency answers what was there before the last write.
    pub(crate) stale: u64,
}

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    Read,
    Write,
    Transaction,
}

/// What is wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("TransactionConflict")]
    Conflict,
    #[error("ProvisionedThroughputExceeded")]
    Throttle,
    #[error("the connection was closed")]
    Lost,
    #[error("no answer in time")]
    Late,
}

impl Fault {
    pub(super) fn error(self) -> TableError {
        TableError::Retry {
            not_done: matches!(self, Self::Conflict | Self::Throttle),
            cause: self.into(),
        }
    }
}

impl Faults {
    /// Nothing goes wrong but that reads which asked for nothing better are stale as often as not.
    pub(crate) const NONE: Self = Self {
        conflicts: 0,
        throttles: 0,
        lost: 0,
        late: 0,
        unprocessed: 0,
        stale: 500,
    };

    /// A bad day.
    pub(crate) const SOME: Self = Self {
        conflicts: 30,
        throttles: 20,
        lost: 40,
        late: 0,
        unprocessed: 200,
        stale: 500,
    };

    /// A bad day on which some requests arrive when nobody waits for them any more.
    pub(crate) const LATE: Self = Self { late: 60, ..Self::SOME };

    /// A bad day on which no answer is lost, so that everything that was done can be counted.
    pub(crate) const ANSWERED: Self = Self { lost: 0, ..Self::SOME };

    /// Every read that may be stale is.
    pub(crate) const STALE: Self = Self {
        stale: 1000,
        ..Self::NONE
    };

    pub(super) fn is_stale(&self, random: &mut Random) -> bool {
        random.happens(self.stale)
    }

    pub(super) fn fault(&self, kind: RequestKind, random: &mut Random) -> Option<Fault> {
        if random.happens(self.throttles) {
            return Some(Fault::Throttle);
        }
        // A single write meets transactions too; reads that are no transactions do not.
        if kind != RequestKind::Read && random.happens(self.conflicts) {
            return Some(Fault::Conflict);
        }
        if kind != RequestKind::Read && random.happens(self.late) {
            return Some(Fault::Late);
        }
        (kind != RequestKind::Read && random.happens(self.lost)).then_some(Fault::Lost)
    }

    /// The parts of a batch that are done, and those that are not.
    pub(super) fn take<T: Clone>(&self, parts: &[T], random: &mut Random) -> (Vec<T>, Vec<T>) {
        let (taken, left) = parts.iter().partition(|_| !random.happens(self.unprocessed));
        let cloned = |parts: Vec<&T>| parts.into_iter().cloned().collect();
        (cloned(taken), cloned(left))
    }
}
