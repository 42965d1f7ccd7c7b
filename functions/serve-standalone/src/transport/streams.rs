//! The tasks of the streams of HTTP/2 connections.
//!
//! The HTTP library runs each stream as a task, and resets the stream if the task is dropped before the end of its answer.
//! This is the only way to end a stream whose client does not read: while the library waits for the client's window, it does
//! not poll the body, so the body cannot report an error.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use hyper::rt::Executor;
use tokio::task::AbortHandle;

tokio::task_local! {
    static CURRENT: StreamTask;
}

/// The task that runs a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamTask(Arc<OnceLock<AbortHandle>>);

impl StreamTask {
    /// The task of a stream that runs this code, if there is one.
    pub(super) fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Ends the task.
    pub(super) fn abort(&self) {
        if let Some(task) = self.0.get() {
            task.abort();
        }
    }
}

/// Runs each stream as a task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamExecutor;

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let task = StreamTask::default();
        let running = tokio::spawn(CURRENT.scope(task.clone(), stream));
        // The handle is needed only after an answer has a body.
        let _ = task.0.set(running.abort_handle());
    }
}
