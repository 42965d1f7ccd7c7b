//! The faults of requests.

use crate::scheduler::Random;
use crate::table::TableError;

/// The probability of each fault, in parts of a thousand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FaultRates {
    /// A write meets another transaction on the same item.
    pub(crate) conflicts: u64,
    /// The table has no capacity.
    pub(crate) throttles: u64,
    /// A write is applied, and its answer is lost.
    pub(crate) lost: u64,
    /// A write is not answered. It is applied some requests later or never, perhaps after its retry.
    pub(crate) late: u64,
    /// An item of a batch stays unprocessed.
    pub(crate) unprocessed: u64,
    /// An eventually consistent read returns the state before the last write.
    pub(crate) stale: u64,
}

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    Read,
    Write,
    Transaction,
}

/// The fault of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RequestFault {
    #[error("TransactionConflict")]
    Conflict,
    #[error("ProvisionedThroughputExceeded")]
    Throttle,
    #[error("the connection was closed")]
    Lost,
    #[error("no answer in time")]
    Late,
}

impl RequestFault {
    pub(super) fn error(self) -> TableError {
        TableError::Retry {
            not_done: matches!(self, Self::Conflict | Self::Throttle),
            cause: self.into(),
        }
    }
}

impl FaultRates {
    /// No faults; half of the eventually consistent reads are stale.
    pub(crate) const NONE: Self = Self {
        conflicts: 0,
        throttles: 0,
        lost: 0,
        late: 0,
        unprocessed: 0,
        stale: 500,
    };

    /// All faults except late writes.
    pub(crate) const SOME: Self = Self {
        conflicts: 30,
        throttles: 20,
        lost: 40,
        late: 0,
        unprocessed: 200,
        stale: 500,
    };

    /// All faults. Some writes are applied after their callers have stopped waiting.
    pub(crate) const LATE: Self = Self { late: 60, ..Self::SOME };

    /// Faults without lost answers, so that all applied requests can be counted.
    pub(crate) const ANSWERED: Self = Self { lost: 0, ..Self::SOME };

    /// All eventually consistent reads are stale.
    pub(crate) const STALE: Self = Self {
        stale: 1000,
        ..Self::NONE
    };

    pub(super) fn is_stale(&self, random: &mut Random) -> bool {
        random.happens(self.stale)
    }

    pub(super) fn fault(&self, kind: RequestKind, random: &mut Random) -> Option<RequestFault> {
        if random.happens(self.throttles) {
            return Some(RequestFault::Throttle);
        }
        // A single write may conflict with a transaction; a read outside of a transaction does not.
        if kind != RequestKind::Read && random.happens(self.conflicts) {
            return Some(RequestFault::Conflict);
        }
        if kind != RequestKind::Read && random.happens(self.late) {
            return Some(RequestFault::Late);
        }
        (kind != RequestKind::Read && random.happens(self.lost)).then_some(RequestFault::Lost)
    }

    /// Splits a batch into the processed and the unprocessed items.
    pub(super) fn take<T: Clone>(&self, parts: &[T], random: &mut Random) -> (Vec<T>, Vec<T>) {
        let (taken, left) = parts.iter().partition(|_| !random.happens(self.unprocessed));
        let cloned = |parts: Vec<&T>| parts.into_iter().cloned().collect();
        (cloned(taken), cloned(left))
    }
}
