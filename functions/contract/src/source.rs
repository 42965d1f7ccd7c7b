//! Request bodies for tests.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use registry::random::SplitMix64;
use registry::store::blobs::{BodyError, Source};

/// `len` pseudorandom bytes, which differ for each `seed`.
#[must_use]
pub fn noise(seed: u64, len: usize) -> Bytes {
    let mut random = SplitMix64::new(seed.wrapping_mul(SplitMix64::STEP));
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.bits().to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

/// A body whose chunks are all available.
#[derive(Debug)]
pub struct Body {
    chunks: VecDeque<Bytes>,
    error: Option<BodyError>,
    remaining: Option<u64>,
}

impl Body {
    /// A whole body in chunks of `chunk` bytes, whose length is declared.
    ///
    /// # Panics
    /// If `chunk` is 0.
    #[must_use]
    pub fn of(bytes: &Bytes, chunk: usize) -> Self {
        let starts = (0..bytes.len()).step_by(chunk);
        let chunks = starts.map(|at| bytes.slice(at..bytes.len().min(at + chunk)));
        Self {
            chunks: chunks.collect(),
            error: None,
            remaining: Some(bytes.len() as u64),
        }
    }

    /// The same chunks, and then `error` in place of the end.
    #[must_use]
    pub fn failing(mut self, error: BodyError) -> Self {
        self.error = Some(error);
        self
    }

    /// The same chunks with another declared length, which may be wrong.
    #[must_use]
    pub fn declaring(mut self, remaining: Option<u64>) -> Self {
        self.remaining = remaining;
        self
    }
}

#[async_trait]
impl Source for Body {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        match self.chunks.pop_front() {
            Some(chunk) => Ok(Some(chunk)),
            None => self.error.take().map_or(Ok(None), Err),
        }
    }

    fn remaining(&self) -> Option<u64> {
        self.remaining
    }

    fn sha256(&self) -> Option<[u8; 32]> {
        None
    }
}

/// Releases the chunks of a [`Stepped`] body, one by one.
#[derive(Clone, Debug, Default)]
pub struct Steps(Arc<Mutex<StepProgress>>);

#[derive(Debug, Default)]
struct StepProgress {
    /// How many chunks may be answered.
    allowed: usize,
    /// How many chunks the store has asked for.
    asked: usize,
    /// The store has dropped the body.
    over: bool,
    waiting: Vec<Waker>,
}

impl Steps {
    /// Releases one chunk, and waits until the store asks for the next one, and so has taken this one, or drops the
    /// body.
    pub async fn step(&self) {
        let allowed = self.change(|progress| {
            progress.allowed += 1;
            progress.allowed
        });
        self.until(|progress| progress.asked > allowed || progress.over).await;
    }

    /// Waits until the store asks for the next answer.
    pub async fn asked(&self) {
        self.until(|progress| progress.asked > progress.allowed || progress.over)
            .await;
    }

    fn lock(&self) -> MutexGuard<'_, StepProgress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut StepProgress) -> T) -> T {
        let mut progress = self.lock();
        let result = change(&mut progress);
        let waiting = std::mem::take(&mut progress.waiting);
        drop(progress);
        waiting.into_iter().for_each(Waker::wake);
        result
    }

    async fn until(&self, condition: impl Fn(&StepProgress) -> bool) {
        poll_fn(|task| {
            let mut progress = self.lock();
            if condition(&progress) {
                Poll::Ready(())
            } else {
                progress.waiting.push(task.waker().clone());
                Poll::Pending
            }
        })
        .await;
    }
}

/// A body that waits for a step before every chunk, and before its end.
#[derive(Debug)]
pub struct Stepped {
    body: Body,
    steps: Steps,
}

impl Stepped {
    /// The body, and what releases its chunks.
    #[must_use]
    pub fn new(body: Body) -> (Self, Steps) {
        let steps = Steps::default();
        let stepped = Self {
            body,
            steps: steps.clone(),
        };
        (stepped, steps)
    }
}

impl Drop for Stepped {
    fn drop(&mut self) {
        self.steps.change(|progress| progress.over = true);
    }
}

#[async_trait]
impl Source for Stepped {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        let turn = self.steps.change(|progress| {
            progress.asked += 1;
            progress.asked
        });
        self.steps.until(|progress| progress.allowed >= turn).await;
        self.body.next().await
    }

    fn remaining(&self) -> Option<u64> {
        self.body.remaining()
    }

    fn sha256(&self) -> Option<[u8; 32]> {
        self.body.sha256()
    }
}
