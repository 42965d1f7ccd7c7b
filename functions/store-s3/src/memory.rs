//! The memory budget for the bodies of all uploads, shared fairly between clients.
//!
//! An upload starts with a small permit for its first bytes, which grows as bytes arrive, up to a maximum. When this
//! memory is used up, the upload waits once for its *base*. The base is granted whole or not at all. With it the upload
//! can finish without waiting again, so uploads cannot deadlock. A client that sends the beginning of a body and then
//! nothing holds little memory.
//!
//! *Extra* memory makes an upload faster. An upload takes it only if some is free and no other upload waits. It belongs
//! to a part that is sent, and is released when the part is stored. While others wait for memory, a body that arrives
//! too slowly is ended with an error.

use std::sync::Arc;
use std::time::Duration;

use registry::budget::{ArrivalRate, Budget, ClientKey, Grant};
use registry::memory::{MAX_WAITING, in_time};
use registry::store::StoreError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::plan::{MAXIMUM_MEMORY, MIB, Parts};

/// The unit of memory permits, in bytes.
const UNIT: usize = 64 << 10;

/// The size of one step of extra memory, in bytes.
const EXTRA_STEP: usize = MIB;

/// Maximum memory for the first bytes of an upload before it waits for its base, in bytes.
const MAXIMUM_FIRST: usize = 4 * UNIT;

/// The fraction of the budget for first bytes, as a divisor.
const FIRST_SHARE: u64 = 8;

/// The memory budget for the buffers of all uploads of the process, in bytes.
#[derive(Clone, Debug)]
pub(crate) struct UploadMemory {
    first: Budget,
    bases: Budget,
    /// Maximum time that an upload waits for memory.
    timeout: Duration,
}

/// The memory of one upload.
#[derive(Debug)]
pub(crate) struct MemoryAllowance {
    memory: UploadMemory,
    client: ClientKey,
    own: Arc<Semaphore>,
    base: UploadMemoryPermit,
    extra: UploadMemoryPermit,
    /// The size of the base to wait for; `None` if the upload has its base.
    next_base: Option<usize>,
    granted: Instant,
    rate: ArrivalRate,
}

/// A permit for some memory, released when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct UploadMemoryPermit(Option<(OwnedSemaphorePermit, Grant)>);

/// The memory permits for a part that is sent.
#[derive(Debug)]
pub(crate) struct PartPermits {
    /// Returns to the upload's base.
    pub(crate) base: UploadMemoryPermit,
    /// Is released when the part is stored.
    pub(crate) extra: UploadMemoryPermit,
}

impl UploadMemory {
    /// The budget is at least large enough for one upload.
    pub(crate) fn new(bytes: u64, parts: Parts, timeout: Duration) -> Self {
        let base = units_of(parts.base(usize::MAX)) as usize * UNIT;
        let first = (bytes / FIRST_SHARE).max(MAXIMUM_FIRST as u64);
        let bases = bytes.saturating_sub(first).max(base as u64);
        Self {
            first: Budget::new(first, MAX_WAITING),
            bases: Budget::new(bases, MAX_WAITING),
            timeout,
        }
    }

    /// The number of free bytes.
    pub(crate) fn free(&self) -> u64 {
        self.first.free() + self.bases.free()
    }

    /// Waits for memory for bytes that the store itself holds and sends again, for an upload of `client`. The upload
    /// waits neither for bytes of its client nor for more memory while it has this permit.
    pub(crate) async fn permit_for_copy(
        &self,
        client: ClientKey,
        bytes: usize,
    ) -> Result<UploadMemoryPermit, StoreError> {
        let own = Arc::new(Semaphore::new(MAXIMUM_MEMORY / UNIT));
        let units = self.units_of_base(bytes);
        acquire(&self.bases, client, &own, units, self.timeout).await
    }

    /// The number of units of a base. One upload, and the whole budget, have a maximum.
    fn units_of_base(&self, bytes: usize) -> u32 {
        let maximum = usize::try_from(self.bases.total()).unwrap_or(usize::MAX);
        units_of(bytes.min(MAXIMUM_MEMORY).min(maximum))
    }

    /// Waits for memory for the first bytes of an upload of `client`. It will need `base` bytes to proceed if its body
    /// is larger.
    pub(crate) async fn begin(&self, client: ClientKey, base: usize) -> Result<MemoryAllowance, StoreError> {
        let own = Arc::new(Semaphore::new(MAXIMUM_MEMORY / UNIT));
        Ok(MemoryAllowance {
            base: acquire(&self.first, client, &own, 1, self.timeout).await?,
            extra: UploadMemoryPermit::default(),
            next_base: Some(base),
            memory: self.clone(),
            client,
            own,
            granted: Instant::now(),
            rate: ArrivalRate::new(0, 0),
        })
    }
}

async fn acquire(
    all: &Budget,
    client: ClientKey,
    own: &Arc<Semaphore>,
    units: u32,
    timeout: Duration,
) -> Result<UploadMemoryPermit, StoreError> {
    let both = async {
        let own = Arc::clone(own).acquire_many_owned(units).await;
        let all = all.take(client, u64::from(units) * UNIT as u64).await;
        Ok(UploadMemoryPermit(Some((own.map_err(StoreError::failed)?, all?))))
    };
    in_time(both, tokio::time::sleep(timeout), "this upload").await
}

impl MemoryAllowance {
    /// Whether more may be received while `bytes` wait in memory. There must be space for at least one chunk, whose
    /// size is unknown in advance. A body that fills its memory exactly is allowed.
    pub(crate) fn may_receive(&self, bytes: usize) -> bool {
        let capacity = self.capacity();
        bytes <= capacity && capacity > 0
    }

    /// Maximum number of bytes that may wait in memory, besides those that go with parts.
    fn capacity(&self) -> usize {
        self.base.bytes() + self.extra.bytes()
    }

    /// Gets more memory after the first bytes: a little more for them, or the base, for which it waits. `arrived` bytes
    /// of the body have arrived so far. `false`: the upload has its base already.
    pub(crate) async fn acquire_more(&mut self, arrived: u64) -> Result<bool, StoreError> {
        let Some(base) = self.next_base else {
            return Ok(false);
        };
        let first = MAXIMUM_FIRST.min(base);
        if self.base.bytes() < first && self.base.try_grow(&self.own, 1) {
            return Ok(true);
        }
        let units = self.memory.units_of_base(base);
        // The upload keeps the memory of its first bytes until it has the base.
        self.base = acquire(&self.memory.bases, self.client, &self.own, units, self.memory.timeout).await?;
        self.next_base = None;
        self.granted = Instant::now();
        self.rate = ArrivalRate::new(0, arrived);
        Ok(true)
    }

    /// Completes when this upload must give way to others. `arrived` bytes of its body have arrived. The caller polls
    /// it while it waits for the client.
    pub(crate) async fn must_give_way(&mut self, arrived: u64) {
        loop {
            tokio::time::sleep_until(self.granted + Duration::from_millis(self.rate.next_look())).await;
            let now = u64::try_from(self.granted.elapsed().as_millis()).unwrap_or(u64::MAX);
            let Some((_, grant)) = &mut self.base.0 else {
                // All memory of the base goes with parts that are being sent.
                self.rate = ArrivalRate::new(now, arrived);
                continue;
            };
            if self.rate.look(now, arrived, grant) {
                return;
            }
        }
    }

    /// Takes one step of extra memory, if it is free.
    pub(crate) fn grow(&mut self) -> bool {
        let units = units_of(EXTRA_STEP);
        let Ok(own) = Arc::clone(&self.own).try_acquire_many_owned(units) else {
            return false;
        };
        let Some(all) = self.memory.bases.try_take(self.client, EXTRA_STEP as u64) else {
            return false;
        };
        self.extra.merge(UploadMemoryPermit(Some((own, all))));
        true
    }

    /// Waits for more memory while the upload holds some. Only for a body that is longer than declared and whose bytes
    /// cannot be sent yet. Such bodies could wait for each other, but only up to the timeout.
    pub(crate) async fn wait_for_more(&mut self, parts: Parts) -> Result<(), StoreError> {
        let missing = parts.base(usize::MAX).saturating_sub(self.capacity()).max(EXTRA_STEP);
        let units = units_of(missing);
        let more = acquire(&self.memory.bases, self.client, &self.own, units, self.memory.timeout).await?;
        self.base.merge(more);
        Ok(())
    }

    /// Splits off the memory for a part, from the extra memory first.
    pub(crate) fn split_for_part(&mut self, bytes: usize) -> PartPermits {
        let extra = self.extra.split(bytes);
        let base = self.base.split(bytes - extra.bytes().min(bytes));
        PartPermits { base, extra }
    }

    /// Returns the permit that a part had from the base.
    pub(crate) fn return_base(&mut self, base: UploadMemoryPermit) {
        self.base.merge(base);
    }
}

impl UploadMemoryPermit {
    fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |(own, _)| own.num_permits() * UNIT)
    }

    /// Adds some units, if they are free.
    fn try_grow(&mut self, all_own: &Arc<Semaphore>, units: u32) -> bool {
        let Some((own, all)) = &mut self.0 else { return false };
        let Ok(more) = Arc::clone(all_own).try_acquire_many_owned(units) else {
            return false;
        };
        let grown = all.try_grow(u64::from(units) * UNIT as u64);
        if grown {
            own.merge(more);
        }
        grown
    }

    fn merge(&mut self, other: Self) {
        match (&mut self.0, other.0) {
            (Some((own, all)), Some(other)) => {
                own.merge(other.0);
                all.merge(other.1);
            }
            (none @ None, other) => *none = other,
            (Some(_), None) => {}
        }
    }

    /// Splits off a permit for `bytes`, or for less if there is less.
    fn split(&mut self, bytes: usize) -> Self {
        let Some((own, all)) = &mut self.0 else {
            return Self(None);
        };
        let units = own.num_permits().min(bytes.div_ceil(UNIT));
        Self(own.split(units).map(|own| (own, all.split((units * UNIT) as u64))))
    }
}

fn units_of(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use futures_util::FutureExt as _;

    use super::*;

    const BASE: usize = 10 * MIB;
    const CLIENT: ClientKey = ClientKey::INTERNAL;
    const TIMEOUT: Duration = Duration::from_mins(5);

    fn memory(bytes: u64) -> UploadMemory {
        UploadMemory::new(bytes, Parts::Growing, TIMEOUT)
    }

    fn client(number: u8) -> ClientKey {
        ClientKey::of([10, 0, 0, number].into())
    }

    /// An upload that has its base.
    async fn with_base(memory: &UploadMemory, client: ClientKey, bytes: usize) -> MemoryAllowance {
        let mut one = memory.begin(client, bytes).await.unwrap();
        while one.acquire_more(0).await.unwrap() {}
        one
    }

    #[tokio::test]
    async fn an_upload_takes_free_extra_memory_and_releases_it() {
        let memory = memory(128 << 20);
        let mut one = with_base(&memory, CLIENT, BASE).await;
        while one.grow() {}
        assert_eq!(one.capacity(), MAXIMUM_MEMORY);
        let first = one.split_for_part(8 * MIB);
        assert_eq!((first.base.bytes(), first.extra.bytes()), (0, 8 * MIB));
        let all = one.split_for_part(usize::MAX - UNIT);
        assert_eq!(
            (all.base.bytes(), all.extra.bytes()),
            (BASE, MAXIMUM_MEMORY - BASE - 8 * MIB)
        );
        assert!(!one.grow(), "parts in flight count");
        drop(first);
        assert!(one.grow());
        one.return_base(all.base);
        drop(all.extra);
        assert_eq!(one.capacity(), BASE + EXTRA_STEP);
        drop(one);
        assert_eq!(memory.free(), 128 << 20);
    }

    #[tokio::test]
    async fn an_upload_that_waits_gets_memory_before_one_that_grows() {
        let memory = memory(24 << 20);
        let mut first = with_base(&memory, client(1), BASE).await;
        let second = with_base(&memory, client(2), BASE).await;
        let mut waiting = Box::pin(with_base(&memory, client(3), BASE));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(!first.grow(), "the waiting upload has priority");
        drop(second);
        assert!(waiting.as_mut().now_or_never().is_some());
    }

    /// Until an upload takes its base, its memory follows the bytes that have arrived.
    #[tokio::test]
    async fn the_first_bytes_take_little_memory() {
        let memory = memory(64 << 20);
        for base in [1000, BASE] {
            let mut one = memory.begin(CLIENT, base).await.unwrap();
            assert_eq!(one.capacity(), UNIT);
            assert_eq!(memory.free(), (64 << 20) - UNIT as u64);
            for pieces in 2..=base.min(MAXIMUM_FIRST) / UNIT {
                assert!(one.acquire_more(0).await.unwrap());
                assert_eq!(one.capacity(), pieces * UNIT);
                assert_eq!(memory.bases.free(), memory.bases.total());
            }
            assert!(one.acquire_more(0).await.unwrap());
            assert_eq!(one.capacity(), base.next_multiple_of(UNIT));
            assert_eq!(
                memory.first.free(),
                memory.first.total(),
                "the base has replaced the memory of the first bytes"
            );
            assert!(!one.acquire_more(0).await.unwrap());
        }
    }

    #[tokio::test]
    async fn one_upload_always_gets_memory() {
        for parts in [Parts::Growing, Parts::Equal] {
            let base = parts.base(usize::MAX);
            let memory = UploadMemory::new(0, parts, TIMEOUT);
            assert_eq!(with_base(&memory, CLIENT, base).await.capacity(), base);
        }
    }

    /// One client begins more uploads than there is memory for; another client begins at once and gets its base.
    #[tokio::test(start_paused = true)]
    async fn a_client_with_many_uploads_leaves_memory_for_another() {
        let memory = memory(32 << 20);
        let mut many = Vec::new();
        while let Some(one) = memory.begin(client(1), BASE).now_or_never() {
            many.push(one.unwrap());
        }
        assert!(many.len() > 40, "{}", many.len());
        let mut with_base_of_many = 0;
        let mut waiting: Vec<_> = many
            .iter_mut()
            .map(|one| Box::pin(async move { while one.acquire_more(0).await.unwrap() {} }))
            .collect();
        for one in &mut waiting {
            with_base_of_many += usize::from(one.as_mut().now_or_never().is_some());
        }
        assert_eq!(with_base_of_many, 2, "three quarters of 28 MiB");
        let other = with_base(&memory, client(2), 5 * MIB).now_or_never();
        assert!(other.is_some());
    }

    /// A slow upload gives way only while another waits. The waiting upload is refused after the timeout.
    #[tokio::test(start_paused = true)]
    async fn a_slow_upload_gives_way_while_others_wait() {
        let memory = memory(0);
        let mut slow = with_base(&memory, client(1), BASE).await;
        let alone = tokio::time::timeout(Duration::from_hours(1), slow.must_give_way(7)).await;
        assert!(alone.is_err(), "no upload waits");
        let since = Instant::now();
        let (other, ()) = tokio::join!(with_base(&memory, client(2), BASE), async {
            slow.must_give_way(7).await;
            drop(slow);
        });
        assert!(since.elapsed().as_millis() <= u128::from(ArrivalRate::ASK_EVERY_MS));

        let since = Instant::now();
        let mut waits = memory.begin(client(1), BASE).await.unwrap();
        let refused = loop {
            if let Err(refused) = waits.acquire_more(0).await {
                break refused;
            }
        };
        assert!(matches!(refused, StoreError::Unavailable(_)));
        assert_eq!(since.elapsed(), TIMEOUT);
        drop(other);
    }
}
