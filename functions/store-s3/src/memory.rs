//! The memory that the bodies of all uploads may hold together, shared fairly between clients.
//!
//! An upload begins with a little of the memory for first bytes, which grows with what has arrived. When that is used up
//! it waits for a base, all at once, with which it can go on to its end whatever others do; then it never has to wait
//! again: so uploads never wait for each other in a circle, and those who send the beginning of a body and then nothing
//! hold little. More room makes an upload faster; it is taken only if some is free and nobody waits for it, it goes with
//! a part that is sent, and is given back when the part is stored. While others wait, a body that arrives too slowly
//! gives way.

use std::sync::Arc;
use std::time::Duration;

use registry::budget::{ArrivalRate, Budget, ClientKey, Grant};
use registry::store::{Reason, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::plan::{MEMORY, MIB, Parts};

/// The unit in which room is counted, in bytes.
const UNIT: usize = 64 << 10;

/// By how much an upload asks to grow, in bytes.
const STEP: usize = MIB;

/// What the first bytes of an upload may take before it waits for its base, in bytes.
const FIRST: usize = 4 * UNIT;

/// Which part of the memory is for first bytes.
const FIRST_SHARE: u64 = 8;

/// How many uploads wait at once.
const MAX_WAITING: usize = 4096;

/// The bytes of buffers that all uploads of the process may hold.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    first: Budget,
    bases: Budget,
    /// For how long an upload waits.
    timeout: Duration,
}

/// What one upload may hold.
#[derive(Debug)]
pub(crate) struct Allowance {
    room: Room,
    client: ClientKey,
    own: Arc<Semaphore>,
    base: Held,
    more: Held,
    /// How large the base will be when it is waited for; `None` when it is there.
    next_base: Option<usize>,
    granted: Instant,
    rate: ArrivalRate,
}

/// Some room, until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Held(Option<(OwnedSemaphorePermit, Grant)>);

/// What goes with a part.
#[derive(Debug)]
pub(crate) struct Lent {
    /// Has to come back.
    pub(crate) base: Held,
    /// Is given up when the part is stored.
    pub(crate) more: Held,
}

impl Room {
    /// At least one upload always has room.
    pub(crate) fn new(bytes: u64, parts: Parts, timeout: Duration) -> Self {
        let base = units_of(parts.base(usize::MAX)) as usize * UNIT;
        let first = (bytes / FIRST_SHARE).max(FIRST as u64);
        let bases = bytes.saturating_sub(first).max(base as u64);
        Self {
            first: Budget::new(first, MAX_WAITING),
            bases: Budget::new(bases, MAX_WAITING),
            timeout,
        }
    }

    /// How many bytes are free.
    pub(crate) fn free(&self) -> u64 {
        self.first.free() + self.bases.free()
    }

    /// Waits for room for what the store itself has and sends again, for an upload of `client`: it waits for no bytes of the
    /// client, and for no more room.
    pub(crate) async fn whole(&self, client: ClientKey, bytes: usize) -> Result<Held, StoreError> {
        let own = Arc::new(Semaphore::new(MEMORY / UNIT));
        let units = self.units_of_base(bytes);
        wait(&self.bases, client, &own, units, self.timeout).await
    }

    /// The units of a base, of which one upload and all together have only so many.
    fn units_of_base(&self, bytes: usize) -> u32 {
        let most = usize::try_from(self.bases.total()).unwrap_or(usize::MAX);
        units_of(bytes.min(MEMORY).min(most))
    }

    /// Waits for room for the first bytes of an upload of `client`, which will need `base` bytes to go on if there are
    /// many more.
    pub(crate) async fn begin(&self, client: ClientKey, base: usize) -> Result<Allowance, StoreError> {
        let own = Arc::new(Semaphore::new(MEMORY / UNIT));
        Ok(Allowance {
            base: wait(&self.first, client, &own, 1, self.timeout).await?,
            more: Held::default(),
            next_base: Some(base),
            room: self.clone(),
            client,
            own,
            granted: Instant::now(),
            rate: ArrivalRate::new(0, 0),
        })
    }
}

async fn wait(
    all: &Budget,
    client: ClientKey,
    own: &Arc<Semaphore>,
    units: u32,
    timeout: Duration,
) -> Result<Held, StoreError> {
    let both = async {
        let own = Arc::clone(own).acquire_many_owned(units).await;
        let all = all.take(client, u64::from(units) * UNIT as u64).await;
        Ok(Held(Some((
            own.map_err(StoreError::failed)?,
            all.map_err(|refused| StoreError::because(Reason::Memory, refused))?,
        ))))
    };
    tokio::time::timeout(timeout, both).await.unwrap_or_else(|_| {
        Err(StoreError::because(
            Reason::Memory,
            "no memory for this upload became free in time (--upload-memory, --memory-timeout)",
        ))
    })
}

impl Allowance {
    /// Whether more may be received while so many bytes wait: one chunk at least, whose size nobody knows before it is
    /// there. A body that fills its room exactly has room.
    pub(crate) fn has_room_behind(&self, bytes: usize) -> bool {
        let capacity = self.capacity();
        bytes <= capacity && capacity > 0
    }

    /// How many bytes may wait in memory, besides those that go with parts.
    fn capacity(&self) -> usize {
        self.base.bytes() + self.more.bytes()
    }

    /// Goes on from the first bytes: takes a little more for them, or waits for the base, of which then nothing has
    /// arrived yet, while `arrived` bytes of the body have. `false`: the base is there already.
    pub(crate) async fn go_on(&mut self, arrived: u64) -> Result<bool, StoreError> {
        let Some(base) = self.next_base else {
            return Ok(false);
        };
        let first = FIRST.min(base);
        if self.base.bytes() < first && self.base.try_grow(&self.own, 1) {
            return Ok(true);
        }
        let units = self.room.units_of_base(base);
        // The first bytes keep what they have until there is room for them elsewhere.
        self.base = wait(&self.room.bases, self.client, &self.own, units, self.room.timeout).await?;
        self.next_base = None;
        self.granted = Instant::now();
        self.rate = ArrivalRate::new(0, arrived);
        Ok(true)
    }

    /// Completes when this upload, of which `arrived` bytes have come, has to give way to others. Polled while it waits
    /// for its client.
    pub(crate) async fn must_give_way(&mut self, arrived: u64) {
        loop {
            tokio::time::sleep_until(self.granted + Duration::from_millis(self.rate.next_look())).await;
            let now = u64::try_from(self.granted.elapsed().as_millis()).unwrap_or(u64::MAX);
            let Some((_, grant)) = &mut self.base.0 else {
                // All of it goes with parts that are being sent.
                self.rate = ArrivalRate::new(now, arrived);
                continue;
            };
            if self.rate.look(now, arrived, grant) {
                return;
            }
        }
    }

    /// Takes a little more, if there is some.
    pub(crate) fn grow(&mut self) -> bool {
        let units = units_of(STEP);
        let Ok(own) = Arc::clone(&self.own).try_acquire_many_owned(units) else {
            return false;
        };
        let Some(all) = self.room.bases.try_take(self.client, STEP as u64) else {
            return false;
        };
        self.more.merge(Held(Some((own, all))));
        true
    }

    /// Waits for more although it holds some: only for a body that is longer than was said, of which nothing can be
    /// sent yet. Such bodies could wait for each other, but not for ever.
    pub(crate) async fn wait(&mut self, parts: Parts) -> Result<(), StoreError> {
        let missing = parts.base(usize::MAX).saturating_sub(self.capacity()).max(STEP);
        let units = units_of(missing);
        let more = wait(&self.room.bases, self.client, &self.own, units, self.room.timeout).await?;
        self.base.merge(more);
        Ok(())
    }

    /// Gives a part the room that it takes, from what is more than the base first.
    pub(crate) fn lend(&mut self, bytes: usize) -> Lent {
        let more = self.more.split(bytes);
        let base = self.base.split(bytes - more.bytes().min(bytes));
        Lent { base, more }
    }

    /// Takes back what a part had of the base.
    pub(crate) fn take_back(&mut self, base: Held) {
        self.base.merge(base);
    }
}

impl Held {
    fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |(own, _)| own.num_permits() * UNIT)
    }

    /// Takes some units more, if they are free.
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

    /// Room for `bytes`, or what there is.
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

    fn room(bytes: u64) -> Room {
        Room::new(bytes, Parts::Growing, TIMEOUT)
    }

    fn client(number: u8) -> ClientKey {
        ClientKey::of([10, 0, 0, number].into())
    }

    /// An upload that has its base.
    async fn based(room: &Room, client: ClientKey, bytes: usize) -> Allowance {
        let mut one = room.begin(client, bytes).await.unwrap();
        while one.go_on(0).await.unwrap() {}
        one
    }

    #[tokio::test]
    async fn an_upload_grows_while_there_is_room_and_gives_it_back() {
        let room = room(128 << 20);
        let mut one = based(&room, CLIENT, BASE).await;
        while one.grow() {}
        assert_eq!(one.capacity(), MEMORY);
        let first = one.lend(8 * MIB);
        assert_eq!((first.base.bytes(), first.more.bytes()), (0, 8 * MIB));
        let all = one.lend(usize::MAX - UNIT);
        assert_eq!((all.base.bytes(), all.more.bytes()), (BASE, MEMORY - BASE - 8 * MIB));
        assert!(!one.grow(), "what is being sent counts");
        drop(first);
        assert!(one.grow());
        one.take_back(all.base);
        drop(all.more);
        assert_eq!(one.capacity(), BASE + STEP);
        drop(one);
        assert_eq!(room.free(), 128 << 20);
    }

    #[tokio::test]
    async fn those_who_wait_come_first() {
        let room = room(24 << 20);
        let mut first = based(&room, client(1), BASE).await;
        let second = based(&room, client(2), BASE).await;
        let mut waiting = Box::pin(based(&room, client(3), BASE));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(!first.grow(), "the upload that waits comes first");
        drop(second);
        assert!(waiting.as_mut().now_or_never().is_some());
    }

    /// What an upload holds follows the bytes that have arrived, until it takes its base.
    #[tokio::test]
    async fn first_bytes_take_little() {
        let room = room(64 << 20);
        for base in [1000, BASE] {
            let mut one = room.begin(CLIENT, base).await.unwrap();
            assert_eq!(one.capacity(), UNIT);
            assert_eq!(room.free(), (64 << 20) - UNIT as u64);
            for pieces in 2..=base.min(FIRST) / UNIT {
                assert!(one.go_on(0).await.unwrap());
                assert_eq!(one.capacity(), pieces * UNIT);
                assert_eq!(room.bases.free(), room.bases.total());
            }
            assert!(one.go_on(0).await.unwrap());
            assert_eq!(one.capacity(), base.next_multiple_of(UNIT));
            assert_eq!(room.first.free(), room.first.total(), "the first bytes have moved");
            assert!(!one.go_on(0).await.unwrap());
        }
    }

    #[tokio::test]
    async fn there_is_always_room_for_one() {
        for parts in [Parts::Growing, Parts::Equal] {
            let base = parts.base(usize::MAX);
            let room = Room::new(0, parts, TIMEOUT);
            assert_eq!(based(&room, CLIENT, base).await.capacity(), base);
        }
    }

    /// More first bytes than there is memory for, all of one client: another one begins at once, and gets its base.
    #[tokio::test(start_paused = true)]
    async fn a_client_with_many_uploads_leaves_room_for_another() {
        let room = room(32 << 20);
        let mut many = Vec::new();
        while let Some(one) = room.begin(client(1), BASE).now_or_never() {
            many.push(one.unwrap());
        }
        assert!(many.len() > 40, "{}", many.len());
        let mut based_of_many = 0;
        let mut waiting: Vec<_> = many
            .iter_mut()
            .map(|one| Box::pin(async move { while one.go_on(0).await.unwrap() {} }))
            .collect();
        for one in &mut waiting {
            based_of_many += usize::from(one.as_mut().now_or_never().is_some());
        }
        assert_eq!(based_of_many, 2, "three quarters of 28 MiB");
        let other = based(&room, client(2), 5 * MIB).now_or_never();
        assert!(other.is_some());
    }

    /// A slow upload gives way while another waits, and only then; the one that waits is refused when its time is up.
    #[tokio::test(start_paused = true)]
    async fn a_slow_upload_gives_way_while_others_wait() {
        let room = room(0);
        let mut slow = based(&room, client(1), BASE).await;
        let alone = tokio::time::timeout(Duration::from_hours(1), slow.must_give_way(7)).await;
        assert!(alone.is_err(), "nobody waits");
        let since = Instant::now();
        let (other, ()) = tokio::join!(based(&room, client(2), BASE), async {
            slow.must_give_way(7).await;
            drop(slow);
        });
        assert!(since.elapsed().as_millis() <= u128::from(ArrivalRate::ASK_EVERY_MS));

        let since = Instant::now();
        let mut waits = room.begin(client(1), BASE).await.unwrap();
        let refused = loop {
            if let Err(refused) = waits.go_on(0).await {
                break refused;
            }
        };
        assert!(matches!(refused, StoreError::Unavailable(_)));
        assert_eq!(since.elapsed(), TIMEOUT);
        drop(other);
    }
}
