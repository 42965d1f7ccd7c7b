//! The memory that the bodies of all uploads may hold together.

use std::sync::Arc;
use std::time::Duration;

use registry::store::StoreError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// For how long an upload waits. Less than half of the time for which it has claimed its session.
const PATIENCE: Duration = Duration::from_secs(25);

/// The unit in which room is counted, in bytes.
const UNIT: u64 = 1 << 10;

/// What an upload holds while bytes of it wait: one half for the batch that is collected, one for the batch that is
/// being written.
pub(super) const BASE: usize = 128 << 10;

/// The bytes of buffers that all uploads of the process may hold.
///
/// An upload waits for its base before its body is read. More room makes it faster, not possible: it is taken
/// only if some is free, and only for one batch. What was taken goes back when the client pauses, so that clients that
/// stall, however many, keep none of it. One that goes on after a pause waits again, and is given up if nothing becomes
/// free in time: its chunk ends with 503, and what the session held before can be continued.
#[derive(Debug)]
pub(super) struct Room(Arc<Semaphore>);

impl Room {
    pub(super) fn new(bytes: u64) -> Self {
        let units = usize::try_from(bytes / UNIT).unwrap_or(usize::MAX);
        Self(Arc::new(Semaphore::new(
            units.clamp(units_of(BASE) as usize, Semaphore::MAX_PERMITS),
        )))
    }

    /// Waits for room for one upload, within bounds.
    pub(super) async fn base(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let room = Arc::clone(&self.0).acquire_many_owned(units_of(BASE));
        match tokio::time::timeout(PATIENCE, room).await {
            Ok(permit) => permit.map_err(StoreError::failed),
            Err(_) => Err(StoreError::unavailable(
                "too many uploads at once: no memory became free for this one",
            )),
        }
    }

    /// Room for `bytes` more, if there is some now and nobody waits for it.
    pub(super) fn more(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_many_owned(units_of(bytes)).ok()
    }
}

fn units_of(bytes: usize) -> u32 {
    u32::try_from((bytes as u64).div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn uploads_wait_and_extensions_do_not() {
        let room = Room::new(2 * BASE as u64);
        let (first, second) = (room.base().await, room.base().await);
        assert!(room.more(1).is_none());
        let waiting = room.base();
        let mut waiting = std::pin::pin!(waiting);
        assert!(futures_util::FutureExt::now_or_never(waiting.as_mut()).is_none());
        drop(first);
        assert!(room.more(1).is_none(), "the upload that waits comes first");
        let third = waiting.await;
        drop((second, third));
        assert!(room.more(2 * BASE).is_some());
    }

    #[tokio::test]
    async fn there_is_always_room_for_one() {
        assert!(Room::new(0).base().await.is_ok());
    }
}
