//! The first check of the stores. It ends the start if an operator must do something first. It never waits for long.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::failure::Failure;
use shell::admission::{Admission, NAMED_AFTER, NotAdmitted};
use shell::condition::Condition;

/// Time between two requests to a store that does not answer.
const AGAIN: Duration = Duration::from_secs(2);

/// The error of a store that answers after the start, and cannot be used until an operator does something.
pub(super) struct LateRefusal(Option<oneshot::Receiver<Failure>>);

impl LateRefusal {
    /// Waits for an error; without end if there is none.
    pub(super) async fn first(self) -> Failure {
        if let Some(refusal) = self.0
            && let Ok(failure) = refusal.await
        {
            return failure;
        }
        std::future::pending().await
    }
}

/// Allows the use of the stores, now or as soon as they answer, and then runs `ready`. Fails if a store cannot be used until
/// an operator does something. If a store answers only later, such an error comes through the [`LateRefusal`].
pub(super) async fn look<F>(
    admission: Admission,
    condition: Condition,
    ready: impl FnOnce() -> F + Send + 'static,
) -> Result<LateRefusal, Failure>
where
    F: Future<Output = ()> + Send + 'static,
{
    let admission = Arc::new(admission);
    let mut asking = {
        let admission = admission.clone();
        tokio::spawn(async move { admission.run().await })
    };
    match tokio::time::timeout(NAMED_AFTER, &mut asking).await {
        Ok(Ok(Ok(()))) => {
            condition.admit();
            tokio::spawn(ready());
            return Ok(LateRefusal(None));
        }
        Ok(Ok(Err(NotAdmitted::Never(text)))) => return Err(Failure::Failed(text)),
        Ok(Ok(Err(NotAdmitted::Later(reason, error)))) => {
            condition.await_store(reason);
            tracing::warn!(
                error,
                "a store does not answer: the server starts without it, and is not ready until the store answers"
            );
        }
        Ok(Err(panicked)) => std::panic::resume_unwind(panicked.into_panic()),
        Err(_) => {
            let (reason, store) = admission.asked();
            condition.await_store(reason);
            tracing::warn!(
                store,
                seconds = NAMED_AFTER.as_secs(),
                "still waiting for a store: the server starts without it, and is not ready until the store answers"
            );
        }
    }
    let (refuse, refusal) = oneshot::channel();
    tokio::spawn(async move {
        // The first check may still be running. Two checks at the same time are harmless.
        asking.abort();
        loop {
            match admission.run().await {
                Ok(()) => break,
                Err(NotAdmitted::Never(text)) => {
                    // The receiver is gone if the server is ending already.
                    let _ = refuse.send(Failure::Failed(text));
                    return;
                }
                Err(NotAdmitted::Later(reason, error)) => {
                    condition.await_store(reason);
                    tracing::warn!(error, "the stores cannot be used yet; they are asked again");
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
        tracing::info!("the stores answer: the server is ready");
        condition.admit();
        ready().await;
    });
    Ok(LateRefusal(Some(refusal)))
}
