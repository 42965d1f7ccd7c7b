//! The memory that the bodies of all uploads may hold together.

use std::time::Duration;

use registry::budget::{Budget, ClientKey, Grant};
use registry::memory::{MAX_WAITING, in_time};
use registry::store::StoreError;

/// What an upload holds before its body is read: enough for a chunk as most connections deliver them, and so little that
/// very many slow uploads take only a small part of all.
pub(super) const BASE: usize = 16 << 10;

/// At least so many bytes are shared, however little was asked for.
const LEAST: u64 = 128 << 10;

/// The bytes of buffers that all uploads of the process may hold, shared fairly between clients.
///
/// An upload waits for its base before its body is read, and holds nothing else while it waits, but for what is being
/// written: so uploads never wait for each other in a circle. More memory makes it faster, not possible: it is taken only
/// if some is free, and goes with a batch until that is written. What was taken goes back when the client pauses, and
/// when others wait while little arrives, so that clients that stall or trickle, however many, keep none of it. One that
/// goes on afterwards waits again, and is given up if nothing becomes free in time: its chunk ends with 503, and what the
/// session held before can be continued.
#[derive(Debug)]
pub(super) struct Room {
    all: Budget,
    timeout: Duration,
}

impl Room {
    pub(super) fn new(bytes: u64, timeout: Duration) -> Self {
        Self {
            all: Budget::new(bytes.max(LEAST), MAX_WAITING),
            timeout,
        }
    }

    /// Waits for memory for `bytes` of an upload of `client`, within bounds.
    pub(super) async fn wait(&self, client: ClientKey, bytes: usize) -> Result<Grant, StoreError> {
        let granted = async { Ok(self.all.take(client, bytes as u64).await?) };
        in_time(granted, tokio::time::sleep(self.timeout), "this upload").await
    }

    /// Whether others wait.
    pub(super) fn is_short(&self) -> bool {
        self.all.waiting() > 0
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> u64 {
        self.all.free()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const CLIENT: ClientKey = ClientKey::INTERNAL;

    #[tokio::test(start_paused = true)]
    async fn uploads_wait_and_extensions_do_not() {
        let room = Room::new(LEAST, Duration::from_secs(9));
        let mut first = room.wait(CLIENT, BASE).await.expect("all is free");
        let mut waiting = std::pin::pin!(room.wait(CLIENT, 1 << 20));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(room.is_short());
        assert!(!first.try_grow(1), "the upload that waits comes first");
        drop(first);
        let all = waiting.await.expect("all is free again");
        assert!(!room.is_short());
        let since = tokio::time::Instant::now();
        let refused = room.wait(CLIENT, 1).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))));
        assert_eq!(since.elapsed().as_secs(), 9);
        drop(all);
    }

    #[tokio::test]
    async fn there_is_always_room_for_one() {
        let room = Room::new(0, Duration::from_secs(1));
        assert!(room.wait(CLIENT, BASE).await.is_ok());
    }
}
