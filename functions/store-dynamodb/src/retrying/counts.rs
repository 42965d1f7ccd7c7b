//! Counters of the requests to a table.

use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of the requests to tables, including retries. The cost of the tables grows with these numbers and with the
/// size of the items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStatistics {
    /// Requests sent.
    pub requests: u64,
    /// Items read by key, whether or not they exist.
    pub reads: u64,
    /// Pages read, of ranges and of walks over a table.
    pub queries: u64,
    /// Items put, updated, deleted or checked, within transactions or outside.
    pub writes: u64,
    /// The items among `writes` that were in transactions, which cost twice as much.
    pub transacted: u64,
    /// Writes and transactions whose conditions did not hold, because another request was first.
    pub refused: u64,
    /// Requests sent again: after conflicts, throttles, faults and timeouts, and for unprocessed parts of batches.
    pub retries: u64,
}

impl Add for TableStatistics {
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
pub(super) struct TableCounters {
    requests: AtomicU64,
    reads: AtomicU64,
    queries: AtomicU64,
    writes: AtomicU64,
    transacted: AtomicU64,
    refused: AtomicU64,
    retries: AtomicU64,
}

/// The counters are independent: no reader relates two of them.
fn add(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

impl TableCounters {
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

    pub(super) fn statistics(&self) -> TableStatistics {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TableStatistics {
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
