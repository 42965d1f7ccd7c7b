//! The reference stores: all contracts kept in memory.
//!
//! They exist to be read and to be tested against. One mutex is one transaction; nothing is clever. [`MemoryBlobs`]
//! keeps bytes, [`MemorySessions`] uploads in progress, [`MemoryMetadata`] names; each can be used beside another
//! store's implementation of the other two. [`MemoryCollection`] collects over the latter two. They record everything
//! that a durable store must record, and [`MemoryMetadata::counts`] shows how much of it there is.

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

/// Begins a transaction. No method panics between its first and its last change, so that the records are whole even
/// if another thread has panicked while it held the lock.
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

/// Lets others run before whoever calls this goes on.
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
