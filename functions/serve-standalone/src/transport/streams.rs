//! The tasks of the streams of HTTP/2 connections.
//!
//! The library runs each stream as a task, and resets the stream when the task is dropped before its answer has ended.
//! That is the one way to end a stream whose client does not read: the library asks a body for nothing while it waits
//! for the client's window, so that the body cannot tell it.

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
    /// The one that runs this, if there is one.
    pub(super) fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Ends it.
    pub(super) fn abort(&self) {
        if let Some(task) = self.0.get() {
            task.abort();
        }
    }
}

/// Runs streams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamExecutor;

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let task = StreamTask::default();
        let running = tokio::spawn(CURRENT.scope(task.clone(), stream));
        // Before an answer has a body, nobody asks for it.
        let _ = task.0.set(running.abort_handle());
    }
}
