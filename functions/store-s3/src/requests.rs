//! Sends requests: counts them, limits their time, and retries them if that may help.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use registry::backoff::{Backoff, Jitter};
use tokio::time::Instant;

use crate::error::{AttemptOutcome, RequestError, TransientError, classify};
use crate::options::Encryption;
use crate::statistics::{Operation, RequestCounters};
use crate::time::CallDeadline;

/// The delays before retries.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// Maximum time for an attempt without a body, or for one whose body makes no progress.
const STALL: Duration = Duration::from_secs(10);

/// The minimum number of bytes that a store makes durable in a second.
const MINIMUM_STORING_RATE: usize = 4 << 20;

/// Minimum remaining time of a call for another attempt.
const MINIMUM_TIME: Duration = Duration::from_millis(50);

/// A bucket and its client.
pub(crate) struct BucketClient {
    pub(crate) client: Client,
    pub(crate) name: String,
    pub(crate) owner: Option<String>,
    pub(crate) encryption: Encryption,
    /// Whether parts are sent with checksums. Becomes false when the store has refused an upload because of them.
    pub(crate) part_checksums: AtomicBool,
    pub(crate) attempts: u32,
    pub(crate) counters: RequestCounters,
    /// Whether writes have the condition that the object does not exist. Becomes false when the store does not support
    /// it.
    pub(crate) conditional_writes: AtomicBool,
    /// Whether many objects are deleted in one request. Becomes false when the store does not support it.
    pub(crate) multi_delete: AtomicBool,
    pub(crate) jitter: Jitter,
}

/// Records that the store does not support a feature, so that it is not used again. Callers do this only if the same
/// request without the feature succeeded, because stores refuse requests for many other reasons.
pub(crate) fn mark_unsupported(is_supported: &AtomicBool, what: &str) {
    if is_supported.swap(false, Ordering::Relaxed) {
        tracing::warn!(
            what,
            "the object store does not support this feature: it is not used any more"
        );
    }
}

/// Maximum time of one attempt.
#[derive(Clone)]
pub(crate) enum AttemptTimeout {
    /// A fixed maximum time.
    Fixed(Duration),
    /// As long as the connection accepts bytes of the body, at whatever speed. Then as long again, since the bytes may
    /// still be in transit, plus the time that the store may need to make them durable. The time in which bytes were
    /// accepted does not count towards the time limit of the call: all requests of an upload share one connection to
    /// the store, which may be slow.
    Progress { accepted: Arc<AtomicUsize>, of: usize },
}

impl AttemptTimeout {
    /// For a request without a body that the store answers at once.
    pub(crate) const SHORT: Self = Self::Fixed(STALL);
    /// For work inside the store.
    pub(crate) const LONG: Self = Self::Fixed(Duration::from_mins(3));
}

impl BucketClient {
    /// Sends a request until it is answered, refused, or the time of the call is up. `send` makes the request anew for
    /// each attempt, and returns the maximum time of the attempt.
    pub(crate) async fn call<T, E, F>(
        &self,
        operation: Operation,
        deadline: CallDeadline,
        send: impl FnMut() -> (F, AttemptTimeout),
    ) -> Result<T, RequestError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let (answer, _) = self.call_counting(operation, deadline, send).await?;
        Ok(answer)
    }

    /// Like [`call`](Self::call); also returns how often the request was sent.
    pub(crate) async fn call_counting<T, E, F>(
        &self,
        operation: Operation,
        mut deadline: CallDeadline,
        mut send: impl FnMut() -> (F, AttemptTimeout),
    ) -> Result<(T, u32), RequestError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.attempt(operation, &mut deadline, send()).await? {
                Ok(answer) => return Ok((answer, attempts)),
                Err(last) => self.pause(operation, attempts, last, deadline).await?,
            }
        }
    }

    /// Sends a request once. The outer error is that the store refused it; the inner one, that another attempt may help.
    /// Moves `deadline` by the time in which the connection accepted bytes of the body.
    pub(crate) async fn attempt<T, E, F>(
        &self,
        operation: Operation,
        deadline: &mut CallDeadline,
        (request, timeout): (F, AttemptTimeout),
    ) -> Result<Result<T, TransientError>, RequestError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        self.counters.sent(operation);
        // Boxed, because the SDK's futures are large.
        let request = Box::pin(request);
        let (answer, progress) = with_timeout(request, timeout, deadline.left()).await;
        *deadline = deadline.later(progress);
        match answer {
            Some(Ok(answer)) => Ok(Ok(answer)),
            Some(Err(error)) => match classify(operation, &error) {
                AttemptOutcome::Refused(error) => Err(error),
                AttemptOutcome::Transient(last) => Ok(Err(last)),
            },
            None => Ok(Err(TransientError::no_response("no response"))),
        }
    }

    /// Waits before the next attempt, after attempt number `attempts` failed with `last`. Returns an error if there is
    /// no next attempt.
    pub(crate) async fn pause(
        &self,
        operation: Operation,
        attempts: u32,
        last: TransientError,
        deadline: CallDeadline,
    ) -> Result<(), RequestError> {
        self.counters.failed(operation);
        let delay = BACKOFF.delay(attempts - 1, self.jitter.bits());
        let operation_name = operation.name();
        if attempts >= self.attempts || deadline.left() < delay + MINIMUM_TIME {
            tracing::warn!(
                operation = operation_name,
                attempts,
                error = %last,
                "an object store request failed and is not repeated"
            );
            return Err(RequestError::Exhausted {
                operation,
                attempts,
                last,
            });
        }
        tracing::debug!(
            operation = operation_name,
            attempts,
            error = %last,
            "an object store request failed and will be repeated"
        );
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

/// Awaits one attempt. `None`: it took too long. Also returns the time in which the connection accepted bytes of its
/// body.
async fn with_timeout<T>(
    request: impl Future<Output = T>,
    timeout: AttemptTimeout,
    left: Duration,
) -> (Option<T>, Duration) {
    let mut progress = Duration::ZERO;
    let (accepted, of) = match timeout {
        AttemptTimeout::Fixed(limit) => {
            let answer = tokio::time::timeout(limit.min(left), request).await;
            return (answer.ok(), progress);
        }
        AttemptTimeout::Progress { accepted, of } => (accepted, of),
    };
    let storing = STALL + Duration::from_secs((of / MINIMUM_STORING_RATE) as u64);
    let began = Instant::now();
    let mut request = std::pin::pin!(request);
    let mut before = 0;
    loop {
        let limit = if before == of { progress + storing } else { STALL };
        if let Ok(answer) = tokio::time::timeout(limit, &mut request).await {
            return (Some(answer), progress);
        }
        let now = accepted.load(Ordering::Relaxed);
        if now == before {
            return (None, progress);
        }
        before = now;
        progress = began.elapsed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One attempt whose body is accepted at `per_second` bytes per second, and answered `answered_after` seconds
    /// later.
    async fn attempt(bytes: usize, per_second: usize, answered_after: u64) -> (Option<()>, Duration) {
        let accepted = Arc::<AtomicUsize>::default();
        let timeout = AttemptTimeout::Progress {
            accepted: Arc::clone(&accepted),
            of: bytes,
        };
        let request = async move {
            while accepted.load(Ordering::Relaxed) < bytes {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let now = accepted.load(Ordering::Relaxed);
                accepted.store((now + per_second).min(bytes), Ordering::Relaxed);
            }
            tokio::time::sleep(Duration::from_secs(answered_after)).await;
        };
        with_timeout(request, timeout, Duration::from_secs(30)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_gets_the_time_that_it_needs() {
        const MIB: usize = 1 << 20;
        // 8 MiB in 137 seconds, far more than the time of the call.
        let (answer, progress) = attempt(8 * MIB, 60 << 10, 1).await;
        assert!(answer.is_some());
        assert!(progress >= Duration::from_mins(2), "{progress:?}");
        // The bytes that network buffers have accepted may take as long again.
        let (answer, _) = attempt(8 * MIB, 200 << 10, 40).await;
        assert!(answer.is_some());
        // An attempt with a fast body that the store does not answer is cancelled.
        let began = Instant::now();
        let (answer, _) = attempt(8 * MIB, 8 * MIB, 3600).await;
        assert!(answer.is_none());
        assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
        // An attempt whose body stalls in the middle is cancelled too.
        let began = Instant::now();
        let (answer, progress) = attempt(8 * MIB, 0, 0).await;
        assert!(answer.is_none());
        assert_eq!((began.elapsed(), progress), (STALL, Duration::ZERO));
    }
}
