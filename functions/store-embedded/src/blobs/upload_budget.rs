//! The memory budget of the bodies of all uploads.

use std::time::Duration;

use registry::budget::{Budget, ClientKey, Grant};
use registry::memory::{MAX_WAITING, in_time};
use registry::store::StoreError;

/// The memory that an upload takes before its body is read. It is enough for a chunk of most connections, and so little
/// that very many slow uploads take only a small part of the budget.
pub(super) const BASE: usize = 16 << 10;

/// The minimum budget in bytes, even if the configured value is lower.
const MIN_BYTES: u64 = 128 << 10;

/// The budget for the buffers of all uploads of the process, shared fairly between clients.
///
/// An upload waits for its base amount before its body is read. While it waits, it holds only the batch in flight. So
/// uploads never wait for each other in a circle. More memory makes an upload faster, but no upload needs it: it is
/// taken only if it is free, and is released when its batch is written. An upload also releases its memory when its
/// client pauses, and when others wait and little arrives. So clients that stall or send slowly keep no memory, however
/// many they are. Such an upload waits again when its client continues. If no memory becomes free in time, its request
/// is answered with 503, and the client can continue with what the session stored before.
#[derive(Debug)]
pub(super) struct UploadBudget {
    all: Budget,
    timeout: Duration,
}

impl UploadBudget {
    pub(super) fn new(bytes: u64, timeout: Duration) -> Self {
        Self {
            all: Budget::new(bytes.max(MIN_BYTES), MAX_WAITING),
            timeout,
        }
    }

    /// Waits for memory for `bytes` of an upload of `client`, at most for the timeout.
    pub(super) async fn wait(&self, client: ClientKey, bytes: usize) -> Result<Grant, StoreError> {
        let granted = async { Ok(self.all.take(client, bytes as u64).await?) };
        in_time(granted, tokio::time::sleep(self.timeout), "this upload").await
    }

    /// Whether other uploads wait for memory.
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
    async fn an_upload_waits_for_its_base_but_not_for_more_memory() {
        let upload_memory = UploadBudget::new(MIN_BYTES, Duration::from_secs(9));
        let mut first = upload_memory.wait(CLIENT, BASE).await.expect("all is free");
        let mut waiting = std::pin::pin!(upload_memory.wait(CLIENT, 1 << 20));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(upload_memory.is_short());
        assert!(!first.try_grow(1), "the waiting upload comes first");
        drop(first);
        let all = waiting.await.expect("all is free again");
        assert!(!upload_memory.is_short());
        let since = tokio::time::Instant::now();
        let refused = upload_memory.wait(CLIENT, 1).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))));
        assert_eq!(since.elapsed().as_secs(), 9);
        drop(all);
    }

    #[tokio::test]
    async fn there_is_always_memory_for_one_upload() {
        let upload_memory = UploadBudget::new(0, Duration::from_secs(1));
        assert!(upload_memory.wait(CLIENT, BASE).await.is_ok());
    }
}
