//! The first look at the stores: it ends the start where somebody must do something, and never waits for long.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::failure::Failure;
use shell::admission::{Admission, NAMED_AFTER, NotAdmitted};
use shell::condition::Condition;

/// How often a store that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// What a store that answers later may still say: that it cannot be used, and waiting does not mend it.
pub(super) struct Refusals(Option<oneshot::Receiver<Failure>>);

impl Refusals {
    /// Waits for a refusal; for ever, when there is none.
    pub(super) async fn first(self) -> Failure {
        if let Some(refusal) = self.0
            && let Ok(failure) = refusal.await
        {
            return failure;
        }
        std::future::pending().await
    }
}

/// Lets the stores be used, now or as soon as they answer; then `ready` is run. An error is for what waiting does not
/// mend; where that is found out later, the refusals tell.
pub(super) async fn look<F>(
    admission: Admission,
    condition: Condition,
    ready: impl FnOnce() -> F + Send + 'static,
) -> Result<Refusals, Failure>
where
    F: Future<Output = ()> + Send + 'static,
{
    let admission = Arc::new(admission);
    let asking = {
        let admission = admission.clone();
        tokio::spawn(async move { admission.run().await })
    };
    let mut asking = asking;
    match tokio::time::timeout(NAMED_AFTER, &mut asking).await {
        Ok(Ok(Ok(()))) => {
            condition.admit();
            tokio::spawn(ready());
            return Ok(Refusals(None));
        }
        Ok(Ok(Err(NotAdmitted::Never(text)))) => return Err(Failure::Failed(text)),
        Ok(Ok(Err(NotAdmitted::Later(reason, error)))) => {
            condition.await_store(reason);
            tracing::warn!(
                error,
                "a store does not answer: starting without it, not ready until it does"
            );
        }
        Ok(Err(panicked)) => std::panic::resume_unwind(panicked.into_panic()),
        Err(_) => {
            let (reason, store) = admission.asked();
            condition.await_store(reason);
            tracing::warn!(
                store,
                seconds = NAMED_AFTER.as_secs(),
                "still waiting for a store: starting without it, not ready until it answers"
            );
        }
    }
    let (refuse, refusal) = oneshot::channel();
    tokio::spawn(async move {
        // The first of these may be under way; two at once do no harm.
        asking.abort();
        loop {
            match admission.run().await {
                Ok(()) => break,
                Err(NotAdmitted::Never(text)) => {
                    // Nobody listens where the server is ending already.
                    let _ = refuse.send(Failure::Failed(text));
                    return;
                }
                Err(NotAdmitted::Later(reason, error)) => {
                    condition.await_store(reason);
                    tracing::warn!(error, "the stores cannot be used yet");
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
        tracing::info!("the stores answer");
        condition.admit();
        ready().await;
    });
    Ok(Refusals(Some(refusal)))
}
