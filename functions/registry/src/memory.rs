//! Memory permits: they bound the memory of all requests together.

use std::pin::pin;

use async_trait::async_trait;
use futures_util::future::{Either, select};

use crate::budget::{ClientKey, Refused};
use crate::store::{Reason, StoreError};

/// The maximum number of requests that wait for one budget.
pub const MAX_WAITING: usize = 4096;

/// A permit for memory. The request may use the memory until it drops the permit.
pub type Memory = Box<dyn MemoryPermit>;

/// The purpose of memory. Each purpose has an amount of its own. A request that has memory may wait only for memory of
/// a *later* purpose. So a request with memory of the last purpose never waits, and requests cannot wait for each other
/// in a circle.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Purpose {
    /// The first bytes of a body that must be in memory as a whole. The amount for one body is small, so that it
    /// suffices for very many bodies.
    FirstBytes,
    /// The rest of such a body, granted as a whole.
    Body,
    /// A list that is being made: rows, and the first bytes of its page. The amount for one list is small, so that it
    /// suffices for many lists.
    Page,
    /// A small response that is in memory as a whole until it is sent. It has an amount of its own, so that it never
    /// waits for larger responses.
    SmallAnswer,
    /// A larger response that is in memory as a whole until it is sent, or a large page that is being made.
    Answer,
    /// The parsing of content that has arrived completely. Such a request does not wait for its client any more.
    Work,
    /// A response that is read from the store while it is sent: the bytes between store and client.
    Stream,
}

/// A permit for some memory.
#[async_trait]
pub trait MemoryPermit: Send + Sync {
    /// Takes `bytes` more of the same purpose, without waiting. `false`: they are not free now, and nothing changed.
    fn try_grow(&mut self, bytes: usize) -> bool;

    /// Returns all but `bytes` to the budget.
    fn shrink_to(&mut self, bytes: usize);

    /// Completes when the request must release this permit: other requests wait for memory, and this request's body
    /// arrives too slowly. Polled while the request waits for its client. `arrived` is the number of bytes that have
    /// arrived since the permit was granted.
    async fn must_give_way(&mut self, arrived: u64);

    /// Whether the request may keep this permit for a response that is being sent. `Some`: it may, and asks again after
    /// so many milliseconds. `None`: it must release the permit, because other requests wait and its client reads too
    /// slowly. `sent` is the number of bytes written since the permit was granted. `waits` says whether the server
    /// waits for the client. If it does not, for instance before the first byte, the measurement of the client's speed
    /// starts again.
    fn look(&mut self, sent: u64, waits: bool) -> Option<u64>;
}

/// A permit that counts nothing: for shells that serve one request at a time, and for memory that a shell has already
/// counted elsewhere.
#[async_trait]
impl MemoryPermit for () {
    fn try_grow(&mut self, _: usize) -> bool {
        true
    }

    fn shrink_to(&mut self, _: usize) {}

    async fn must_give_way(&mut self, _: u64) {
        std::future::pending::<()>().await;
    }

    fn look(&mut self, _: u64, _: bool) -> Option<u64> {
        Some(u64::from(u32::MAX))
    }
}

/// The memory budget that a shell sets for all requests together.
#[async_trait]
pub trait MemoryBudget: Send + Sync + 'static {
    /// Waits until `bytes` more are free for `client`, and takes them. The core asks for content that must be in memory
    /// as a whole (manifests and pages of lists), and for the bytes between a store and a client. Returns
    /// [`StoreError::Unavailable`] if no memory becomes free before a timeout that the shell chooses; the client is
    /// then asked to retry. The timeout for a client's body does not run meanwhile, because the body is not read.
    async fn memory(&self, client: ClientKey, purpose: Purpose, bytes: usize) -> Result<Memory, StoreError>;

    /// Takes memory that is free now, without waiting. `None`: call [`MemoryBudget::memory`]. A shell may return a
    /// permit that counts nothing for memory that it has already counted elsewhere.
    fn memory_at_once(&self, client: ClientKey, purpose: Purpose, bytes: usize) -> Option<Memory>;
}

/// A budget that grants everything and counts nothing: for shells that serve one request at a time.
#[async_trait]
impl MemoryBudget for () {
    async fn memory(&self, _: ClientKey, _: Purpose, _: usize) -> Result<Memory, StoreError> {
        Ok(Box::new(()))
    }

    fn memory_at_once(&self, _: ClientKey, _: Purpose, _: usize) -> Option<Memory> {
        Some(Box::new(()))
    }
}

impl From<Refused> for StoreError {
    fn from(refused: Refused) -> Self {
        Self::because(Reason::Memory, refused)
    }
}

/// Waits for a grant of a [`Budget`](crate::budget::Budget), until `late` completes. The caller provides the timer, as
/// `late`. The error says that there was no memory for `what`.
pub async fn in_time<T>(
    granted: impl Future<Output = Result<T, StoreError>>,
    late: impl Future<Output = ()>,
    what: &str,
) -> Result<T, StoreError> {
    match select(pin!(granted), pin!(late)).await {
        Either::Left((granted, _)) => granted,
        Either::Right(_) => Err(StoreError::because(
            Reason::Memory,
            format!("no memory for {what} became free in time (settings upload-memory and memory-timeout)"),
        )),
    }
}
