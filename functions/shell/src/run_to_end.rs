//! Runs the operation of a request to its end, even if the client of the request has gone.
//!
//! When a client closes its connection, the tasks of the connection are dropped. A publication or a delete must not be
//! interrupted by that: see [`Registry::handle`](registry::Registry::handle). While the client is connected, no second task
//! is needed, so this costs nothing.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// Runs a future to its end. If this value is dropped before, the future continues as a task of its own.
#[derive(Debug)]
pub struct RunToEnd<F>(Option<Pin<Box<F>>>)
where
    F: Future + Send + 'static,
    F::Output: Send;

impl<F> RunToEnd<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    /// Runs `future` when it is polled.
    #[must_use]
    pub fn new(future: F) -> Self {
        Self(Some(Box::pin(future)))
    }
}

impl<F> Future for RunToEnd<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // Taken out, so that a future that panics is not run again.
        let mut future = self.0.take().expect("a future is not polled after its end");
        let polled = future.as_mut().poll(context);
        if polled.is_pending() {
            self.0 = Some(future);
        }
        polled
    }
}

impl<F> Drop for RunToEnd<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn drop(&mut self) {
        // Without a runtime the process is ending. Then the future is interrupted as by a crash, which the stores survive.
        if let (Some(future), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(future);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_future_runs_to_its_end_after_it_was_dropped() {
        let (go, gone) = oneshot::channel::<()>();
        let (send, received) = oneshot::channel();
        let running = RunToEnd::new(async move {
            gone.await.unwrap();
            send.send("done").unwrap();
        });
        // Polled once, then dropped.
        assert!(tokio::time::timeout(Duration::from_millis(1), running).await.is_err());
        go.send(()).unwrap();
        let received = tokio::time::timeout(Duration::from_secs(10), received).await;
        assert_eq!(received.unwrap().unwrap(), "done");
    }

    #[tokio::test]
    async fn the_result_of_the_future_is_returned() {
        assert_eq!(RunToEnd::new(async { 7 }).await, 7);
    }
}
