//! What has been asked of a table.

use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};

/// What has been asked of tables, retries included: what they cost grows with these numbers and with the size of the
/// items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Requests sent.
    pub requests: u64,
    /// Items asked for by key, found or not.
    pub reads: u64,
    /// Pages of ranges and of walks asked for.
    pub queries: u64,
    /// Items put, updated, deleted or checked, in transactions or not.
    pub writes: u64,
    /// Those of the writes that were in transactions, which cost twice as much.
    pub transacted: u64,
    /// Writes and transactions whose conditions did not hold: somebody else was first.
    pub refused: u64,
    /// Requests sent again: conflicts, throttles, faults, timeouts, and parts of batches that were left.
    pub retries: u64,
}

impl Add for Statistics {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            reads: self.reads + other.reads,
            queries: self.queries + other.queries,
            writes: self.writes + other.writes,
            transacted: self.transacted + other.transacted,
            refused: self.refused + other.refused,
            retries: self.retries + other.retries,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct RequestCounts {
    requests: AtomicU64,
    reads: AtomicU64,
    queries: AtomicU64,
    writes: AtomicU64,
    transacted: AtomicU64,
    refused: AtomicU64,
    retries: AtomicU64,
}

/// Each number stands alone: no reader concludes anything from two of them.
fn add(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

impl RequestCounts {
    pub(super) fn read(&self, items: usize) {
        add(&self.requests, 1);
        add(&self.reads, items);
    }

    pub(super) fn query(&self) {
        add(&self.requests, 1);
        add(&self.queries, 1);
    }

    pub(super) fn write(&self, items: usize) {
        add(&self.requests, 1);
        add(&self.writes, items);
    }

    pub(super) fn transaction(&self, items: usize) {
        self.write(items);
        add(&self.transacted, items);
    }

    pub(super) fn refused(&self) {
        add(&self.refused, 1);
    }

    pub(super) fn retried(&self) {
        add(&self.retries, 1);
    }

    pub(super) fn statistics(&self) -> Statistics {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics {
            requests: of(&self.requests),
            reads: of(&self.reads),
            queries: of(&self.queries),
            writes: of(&self.writes),
            transacted: of(&self.transacted),
            refused: of(&self.refused),
            retries: of(&self.retries),
        }
    }
}
