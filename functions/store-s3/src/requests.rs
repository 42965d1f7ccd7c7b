//! Sends requests: counted, bounded in time, and again when that may help.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use registry::backoff::{Backoff, Jitter};
use tokio::time::Instant;

use crate::fault::{Fault, Passing, Verdict, judge};
use crate::options::Encryption;
use crate::statistics::{Counters, Operation};
use crate::time::Deadline;

/// How soon a repetition comes.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// An attempt that carries no body, or whose body makes no progress, is given up after this.
const STALL: Duration = Duration::from_secs(10);

/// How many bytes a store makes durable in a second, at least.
const DURABLE: usize = 4 << 20;

/// What is left of a call's time must be at least this for another attempt.
const LEAST_TIME: Duration = Duration::from_millis(50);

/// A bucket, and how to reach it.
pub(crate) struct Bucket {
    pub(crate) client: Client,
    pub(crate) name: String,
    pub(crate) owner: Option<String>,
    pub(crate) encryption: Encryption,
    /// Parts are sent with checksums; until the store has refused an upload because of them.
    pub(crate) part_checksums: AtomicBool,
    pub(crate) attempts: u32,
    pub(crate) counters: Counters,
    /// Objects are never overwritten; until the store has said that it does not know the condition.
    pub(crate) conditional: AtomicBool,
    /// Many objects are deleted at once; likewise.
    pub(crate) many_at_once: AtomicBool,
    pub(crate) jitter: Jitter,
}

/// Notes that the store does not do something, so that it is not asked for again: only when the same request without it
/// was done, because much is refused for other reasons.
pub(crate) fn lacks(does: &AtomicBool, what: &str) {
    if does.swap(false, Ordering::Relaxed) {
        tracing::warn!(what, "the object store does not know this, and works without");
    }
}

/// How long one attempt may take.
#[derive(Clone)]
pub(crate) enum Patience {
    /// So long in all.
    Until(Duration),
    /// As long as bytes of the body are taken, at whatever speed, and then for as long again, since they may still be on
    /// their way, and for as long as the store may need to make them durable. The time in which bytes were taken is not
    /// counted against the call's: what an upload has under way shares one connection to the store, which may be slow.
    Progress { taken: Arc<AtomicUsize>, of: usize },
}

impl Patience {
    /// For a request without a body whose answer comes at once.
    pub(crate) const SHORT: Self = Self::Until(STALL);
    /// For work inside the store.
    pub(crate) const LONG: Self = Self::Until(Duration::from_mins(3));
}

impl Bucket {
    /// Sends a request, which `send` makes anew for each attempt, until it is answered, refused, or the time is up.
    /// `send` also tells how long the attempt may take.
    pub(crate) async fn call<T, E, F>(
        &self,
        operation: Operation,
        deadline: Deadline,
        send: impl FnMut() -> (F, Patience),
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let (answer, _) = self.call_counting(operation, deadline, send).await?;
        Ok(answer)
    }

    /// The same; also tells how often the request was sent.
    pub(crate) async fn call_counting<T, E, F>(
        &self,
        operation: Operation,
        mut deadline: Deadline,
        mut send: impl FnMut() -> (F, Patience),
    ) -> Result<(T, u32), Fault>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let mut attempts = 0;
        loop {
            attempts += 1;
            self.counters.sent(operation);
            let (request, patience) = send();
            // The SDK's futures are large.
            let request = Box::pin(request);
            let (answer, moving) = bounded(request, patience, deadline.left()).await;
            deadline = deadline.later(moving);
            let last = match answer {
                Some(Ok(answer)) => return Ok((answer, attempts)),
                Some(Err(error)) => match judge(operation, &error) {
                    Verdict::Refused(fault) => return Err(fault),
                    Verdict::Passing(last) => last,
                },
                None => Passing::silence("no answer"),
            };
            self.pause(operation, attempts, last, deadline).await?;
        }
    }

    /// Waits before what has failed for the `attempts`th time, with `last`, is tried again; or tells that it is not.
    pub(crate) async fn pause(
        &self,
        operation: Operation,
        attempts: u32,
        last: Passing,
        deadline: Deadline,
    ) -> Result<(), Fault> {
        self.counters.failed(operation);
        let delay = BACKOFF.delay(attempts - 1, self.jitter.bits());
        let operation_name = operation.name();
        if attempts >= self.attempts || deadline.left() < delay + LEAST_TIME {
            tracing::warn!(operation = operation_name, attempts, error = %last, "the object store does not do it");
            return Err(Fault::Exhausted {
                operation,
                attempts,
                last,
            });
        }
        tracing::debug!(operation = operation_name, attempts, error = %last, "to be repeated");
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

/// Awaits an attempt. `None`: it took too long. Also for how long bytes of its body were seen to be taken.
async fn bounded<T>(request: impl Future<Output = T>, patience: Patience, left: Duration) -> (Option<T>, Duration) {
    let mut moving = Duration::ZERO;
    let (taken, of) = match patience {
        Patience::Until(limit) => {
            let answer = tokio::time::timeout(limit.min(left), request).await;
            return (answer.ok(), moving);
        }
        Patience::Progress { taken, of } => (taken, of),
    };
    let storing = STALL + Duration::from_secs((of / DURABLE) as u64);
    let began = Instant::now();
    let mut request = std::pin::pin!(request);
    let mut before = 0;
    loop {
        let limit = if before == of { moving + storing } else { STALL };
        if let Ok(answer) = tokio::time::timeout(limit, &mut request).await {
            return (Some(answer), moving);
        }
        let now = taken.load(Ordering::Relaxed);
        if now == before {
            return (None, moving);
        }
        before = now;
        moving = began.elapsed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attempt whose body is taken at this many bytes in a second, and answered so long after the last of them.
    async fn attempt(bytes: usize, per_second: usize, answered_after: u64) -> (Option<()>, Duration) {
        let taken = Arc::<AtomicUsize>::default();
        let patience = Patience::Progress {
            taken: Arc::clone(&taken),
            of: bytes,
        };
        let request = async move {
            while taken.load(Ordering::Relaxed) < bytes {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let now = taken.load(Ordering::Relaxed);
                taken.store((now + per_second).min(bytes), Ordering::Relaxed);
            }
            tokio::time::sleep(Duration::from_secs(answered_after)).await;
        };
        bounded(request, patience, Duration::from_secs(30)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_has_the_time_that_it_takes() {
        const MIB: usize = 1 << 20;
        // 8 MiB in 137 seconds, which are far more than the call has.
        let (answer, moving) = attempt(8 * MIB, 60 << 10, 1).await;
        assert!(answer.is_some());
        assert!(moving >= Duration::from_mins(2), "{moving:?}");
        // What was taken by the network's buffers may take as long again.
        let (answer, _) = attempt(8 * MIB, 200 << 10, 40).await;
        assert!(answer.is_some());
        // A quick one that the store does not answer is given up.
        let began = Instant::now();
        let (answer, _) = attempt(8 * MIB, 8 * MIB, 3600).await;
        assert!(answer.is_none());
        assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
        // And so is one that has stopped in the middle.
        let began = Instant::now();
        let (answer, moving) = attempt(8 * MIB, 0, 0).await;
        assert!(answer.is_none());
        assert_eq!((began.elapsed(), moving), (STALL, Duration::ZERO));
    }
}
