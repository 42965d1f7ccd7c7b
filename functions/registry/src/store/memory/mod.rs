//! The reference implementation: all contracts, in memory.
//!
//! It exists to be read, and to be tested against. Holding one mutex is one transaction, and the code is as simple as
//! possible. [`MemoryBlobs`] stores blobs, [`MemorySessions`] upload sessions, and [`MemoryMetadata`] metadata, accounts and
//! the audit trail. Each
//! can be used with another store's implementation of the other two. [`MemoryCollection`] collects over sessions and
//! metadata. They record everything that a durable store must record; [`MemoryMetadata::counts`] returns the numbers of
//! records.

mod access;
mod access_records;
mod blobs;
mod collection;
mod metadata;
mod objects;
mod publish;
mod records;
mod sessions;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use blobs::MemoryBlobs;
pub use collection::MemoryCollection;
pub use metadata::{MemoryMetadata, RecordCounts};
pub use sessions::MemorySessions;

use super::Page;

/// Begins a transaction. No method panics between its first and its last change. So the records are consistent even if
/// another thread has panicked with the lock.
fn lock<T>(records: &Mutex<T>) -> MutexGuard<'_, T> {
    records.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first `limit` of `rows`, and whether there are more.
fn page<T>(rows: impl IntoIterator<Item = T>, limit: usize) -> Page<T> {
    let mut rows = rows.into_iter();
    let items = rows.by_ref().take(limit).collect();
    Page {
        items,
        more: rows.next().is_some(),
    }
}

/// Lets other tasks run once before the caller continues.
async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
