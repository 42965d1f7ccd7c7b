//! Memory that requests hold, so that all of them together stay within a bound.

use std::pin::pin;

use async_trait::async_trait;
use futures_util::future::{Either, select};

use crate::budget::{ClientKey, Refused};
use crate::store::{Reason, StoreError};

/// How many requests wait for one budget at once, at most.
pub const MAX_WAITING: usize = 4096;

/// Memory that a request may use until it drops this.
pub type Memory = Box<dyn MemoryPermit>;

/// What memory is for. There is an amount for each purpose. A request that holds some may wait for more of a *later*
/// purpose only: so a request that holds memory of the last one never waits, and requests never wait in a circle.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Purpose {
    /// The first bytes of a body that must be held whole. Little, so that there is enough for very many bodies.
    FirstBytes,
    /// The rest of such a body, all at once.
    Body,
    /// A list in the making: rows, and the first bytes of its page. Little, so that there is enough for many lists.
    Page,
    /// A small answer that is held whole until it is sent. Apart from the others, so that it never waits behind them.
    SmallAnswer,
    /// A larger answer that is held whole until it is sent, and a large page that is still being made.
    Answer,
    /// Work on bytes that are here whole, such as parsing; it waits for no client.
    Work,
    /// An answer that is read as it is sent: what is on its way from the store to the client.
    Stream,
}

/// A permit for some memory.
#[async_trait]
pub trait MemoryPermit: Send + Sync {
    /// Takes `bytes` more of the same purpose without waiting. `false`: they are not free now.
    fn try_grow(&mut self, bytes: usize) -> bool;

    /// Gives back all but `bytes`.
    fn shrink_to(&mut self, bytes: usize);

    /// Completes when the holder has to give way: others wait for memory, and what this is held for arrives too slowly.
    /// Polled while the holder waits for its client; `arrived` is how many bytes have come since this was granted.
    async fn must_give_way(&mut self, arrived: u64);

    /// Whether the holder may keep this for an answer that is being sent: after how many milliseconds it asks again, or
    /// `None` when it has to give way, because others wait and its client reads too slowly. `sent` is how many bytes were
    /// written since this was granted, and `waits` whether the client is waited for. Where it is not, as before the first
    /// byte, it begins to measure anew.
    fn look(&mut self, sent: u64, waits: bool) -> Option<u64>;
}

/// Memory that is counted nowhere, or in another place: for shells that serve one request at a time, and for what a shell
/// has counted already.
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

/// The memory that a shell lets all requests hold together.
#[async_trait]
pub trait MemoryBudget: Send + Sync + 'static {
    /// Waits until `bytes` more may be held in memory for `client`. Asked for what the core itself must hold whole:
    /// manifests and pages of lists; and for what is on its way to a client. [`StoreError::Unavailable`] when nothing
    /// becomes free within a time that the shell chooses: the client is told to come again. Its own time for its body does
    /// not pass meanwhile, because the body is not read.
    async fn memory(&self, client: ClientKey, purpose: Purpose, bytes: usize) -> Result<Memory, StoreError>;

    /// Grants memory that is free now, without waiting. `None`: [`MemoryBudget::memory`] has to be asked. A shell may grant
    /// here, without counting it again, what it has counted in another place.
    fn memory_at_once(&self, client: ClientKey, purpose: Purpose, bytes: usize) -> Option<Memory>;
}

/// Grants everything and counts nothing: for shells that serve one request at a time.
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

/// Waits for what a [`Budget`](crate::budget::Budget) grants until `late` completes; whoever waits has the timer. The error
/// says that there was no memory for `what`.
pub async fn in_time<T>(
    granted: impl Future<Output = Result<T, StoreError>>,
    late: impl Future<Output = ()>,
    what: &str,
) -> Result<T, StoreError> {
    match select(pin!(granted), pin!(late)).await {
        Either::Left((granted, _)) => granted,
        Either::Right(_) => Err(StoreError::because(
            Reason::Memory,
            format!("no memory for {what} became free in time (--upload-memory, --memory-timeout)"),
        )),
    }
}
