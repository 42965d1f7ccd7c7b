//! Request bodies that follow a script: bytes, failures, and other work between two of them.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use http_body::{Body, Frame};
use registry::store::blobs::BodyError;

enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    Fail(BodyError),
    Do(BoxFuture<'static, ()>),
}

/// A scripted body. Polling it after its end panics.
#[derive(Default)]
pub(crate) struct Script {
    steps: VecDeque<Step>,
    given: Arc<AtomicUsize>,
    over: bool,
}

impl Script {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn of(bytes: impl Into<Bytes>) -> Self {
        Self::new().data(bytes)
    }

    /// `bytes` in chunks of `size`.
    pub(crate) fn in_chunks(bytes: &Bytes, size: usize) -> Self {
        let starts = (0..bytes.len()).step_by(size);
        starts.fold(Self::new(), |script, at| {
            script.data(bytes.slice(at..bytes.len().min(at + size)))
        })
    }

    pub(crate) fn data(self, bytes: impl Into<Bytes>) -> Self {
        self.then(Step::Data(bytes.into()))
    }

    pub(crate) fn trailers(self) -> Self {
        self.then(Step::Trailers(HeaderMap::new()))
    }

    /// Ends the body with an error.
    pub(crate) fn fail(self, error: BodyError) -> Self {
        self.then(Step::Fail(error))
    }

    /// Runs `work` to its end before the next bytes arrive.
    pub(crate) fn meanwhile(self, work: impl Future<Output = ()> + Send + 'static) -> Self {
        self.then(Step::Do(work.boxed()))
    }

    /// Counts the bytes that were read.
    pub(crate) fn given(&self) -> Arc<AtomicUsize> {
        self.given.clone()
    }

    /// The total length of the script in bytes.
    pub(crate) fn len(&self) -> usize {
        let lengths = self.steps.iter().map(|step| match step {
            Step::Data(bytes) => bytes.len(),
            Step::Trailers(_) | Step::Fail(_) | Step::Do(_) => 0,
        });
        lengths.sum()
    }

    fn then(mut self, step: Step) -> Self {
        self.steps.push_back(step);
        self
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Script of {} bytes", self.len())
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = BodyError;

    /// The body of a request without a body, as a connection reports it.
    fn is_end_stream(&self) -> bool {
        self.steps.is_empty()
    }

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        assert!(!self.over, "a body was asked again after its end");
        while let Some(Step::Do(work)) = self.steps.front_mut() {
            std::task::ready!(work.poll_unpin(context));
            self.steps.pop_front();
        }
        Poll::Ready(match self.steps.pop_front() {
            Some(Step::Data(bytes)) => {
                self.given.fetch_add(bytes.len(), Ordering::SeqCst);
                Some(Ok(Frame::data(bytes)))
            }
            Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Step::Fail(error)) => {
                self.over = true;
                Some(Err(error))
            }
            Some(Step::Do(_)) | None => {
                self.over = true;
                None
            }
        })
    }
}
