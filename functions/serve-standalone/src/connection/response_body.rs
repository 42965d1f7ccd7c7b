//! A response's body on its way to the client, within its time; and what is done when it has ended.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use registry::ResponseBody;
use registry::store::StoreError;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::Timeouts;
use super::activity::Exchange;
use crate::access_log::Entry;
use crate::metrics::Measured;

/// A response body that keeps its exchange open, and is counted and written down when it is dropped.
pub(crate) struct SentBody {
    inner: Inner,
    deadline: Instant,
    sent: u64,
    measured: Measured,
    entry: Option<Entry>,
    _exchange: Exchange,
}

enum Inner {
    /// Alone on its connection: the socket notices when the client does not read.
    Alone(ResponseBody),
    /// One of many streams on a connection. When its client does not read, nobody asks the body for more, so
    /// somebody else has to notice, and to free what it holds; closing the connection would punish its other streams.
    Among(Arc<Mutex<Watched>>, AbortHandle),
}

struct Watched {
    /// `None` once it was given up.
    body: Option<ResponseBody>,
    asked: Instant,
}

impl SentBody {
    /// Sends `body` on the connection of `exchange`.
    pub(crate) fn new(
        body: ResponseBody,
        exchange: Exchange,
        timeouts: &Timeouts,
        measured: Measured,
        entry: Option<Entry>,
    ) -> Self {
        let inner = if exchange.activity().is_multiplexed() && !body.is_end_stream() {
            let watched = Arc::new(Mutex::new(Watched {
                body: Some(body),
                asked: Instant::now(),
            }));
            let watch = tokio::spawn(give_up_stalled(Arc::downgrade(&watched), timeouts.stall));
            Inner::Among(watched, watch.abort_handle())
        } else {
            Inner::Alone(body)
        };
        Self {
            inner,
            deadline: Instant::now() + timeouts.total,
            sent: 0,
            measured,
            entry,
            _exchange: exchange,
        }
    }

    fn with<T>(&self, read: impl FnOnce(&ResponseBody) -> T) -> Option<T> {
        match &self.inner {
            Inner::Alone(body) => Some(read(body)),
            Inner::Among(watched, _) => lock(watched).body.as_ref().map(read),
        }
    }
}

fn lock(watched: &Mutex<Watched>) -> std::sync::MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Drops the body when nobody has asked it for more for `patience`.
async fn give_up_stalled(watched: Weak<Mutex<Watched>>, patience: Duration) {
    loop {
        let Some(asked) = watched.upgrade().map(|watched| lock(&watched).asked) else {
            return;
        };
        sleep_until(asked + patience).await;
        let Some(watched) = watched.upgrade() else { return };
        let mut watched = lock(&watched);
        if watched.asked == asked {
            watched.body = None;
            return;
        }
    }
}

impl Body for SentBody {
    type Data = Bytes;
    type Error = StoreError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StoreError>>> {
        let this = &mut *self;
        let now = Instant::now();
        if now > this.deadline {
            return Poll::Ready(Some(Err(StoreError::unavailable("the client takes too long to read"))));
        }
        let polled = match &mut this.inner {
            Inner::Alone(body) => Pin::new(body).poll_frame(context),
            Inner::Among(watched, _) => {
                let mut watched = lock(watched);
                watched.asked = now;
                match &mut watched.body {
                    Some(body) => Pin::new(body).poll_frame(context),
                    None => Poll::Ready(Some(Err(StoreError::unavailable("the client did not read")))),
                }
            }
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            this.sent += bytes as u64;
            this.measured.metrics().sent(bytes);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.with(Body::is_end_stream).unwrap_or(false)
    }

    fn size_hint(&self) -> SizeHint {
        self.with(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for SentBody {
    fn drop(&mut self) {
        let whole = self.is_end_stream();
        if let Inner::Among(_, watch) = &self.inner {
            watch.abort();
        }
        if let Some(entry) = self.entry.take() {
            entry.write(self.sent, whole);
        }
    }
}
