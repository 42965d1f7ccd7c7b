//! The body of a request, with its timeouts.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use registry::RequestBody;
use registry::store::blobs::BodyError;
use tokio::time::Instant;

use super::activity::Activity;
use super::timeouts::Timeouts;
use super::timer::LazyTimer;
use crate::metrics::Metrics;

/// Maximum number of bytes that are read of an unread body, so that the connection can stay open. Most such bodies are
/// manifests.
const UNWANTED: usize = 1 << 20;
/// Maximum time for which they are read.
const UNWANTED_FOR: Duration = Duration::from_secs(2);

/// Makes a body for the core, and a value that has the rest of the body if the core does not read all of it. `multiplexed`
/// says that it is on a stream of HTTP/2.
pub(crate) fn receive(
    incoming: Incoming,
    multiplexed: bool,
    timeouts: &Timeouts,
    metrics: Arc<Metrics>,
) -> (RequestBody, Option<UnreadBody>) {
    if incoming.is_end_stream() {
        return (RequestBody::empty(), None);
    }
    let unread = UnreadBody::default();
    let body = ReceivedBody {
        multiplexed,
        declared: incoming.size_hint().exact(),
        received: 0,
        incoming: Some(incoming),
        unread: unread.clone(),
        idle: timeouts.idle,
        total: timeouts.total,
        waited: Duration::ZERO,
        waiting: None,
        timer: LazyTimer::default(),
        metrics,
    };
    (RequestBody::stream(body), Some(unread))
}

struct ReceivedBody {
    /// `None` after its end.
    incoming: Option<Incoming>,
    multiplexed: bool,
    unread: UnreadBody,
    declared: Option<u64>,
    received: u64,
    idle: Duration,
    /// Maximum time for which the client is awaited in total.
    total: Duration,
    /// The total time for which the client was awaited until its last byte. While the registry reads nothing, because it waits
    /// for memory or for a disk, the time does not count.
    waited: Duration,
    /// When the current wait began.
    waiting: Option<Instant>,
    timer: LazyTimer,
    metrics: Arc<Metrics>,
}

impl Body for ReceivedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(incoming) = &mut this.incoming else {
            return Poll::Ready(None);
        };
        loop {
            let end = match Pin::new(&mut *incoming).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers have no meaning in this protocol.
                    let Ok(data) = frame.into_data() else { continue };
                    if let Some(since) = this.waiting.take() {
                        this.waited += since.elapsed();
                    }
                    this.received += data.len() as u64;
                    this.metrics.received(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(Some(Err(_))) => Some(BodyError::Cut),
                // A stream that was reset with NO_ERROR looks like one that has ended. Only END_STREAM ends a body.
                Poll::Ready(None) if this.multiplexed && !incoming.is_end_stream() => Some(BodyError::Cut),
                Poll::Ready(None) if this.declared.is_some_and(|declared| this.received < declared) => {
                    Some(BodyError::Cut)
                }
                Poll::Ready(None) => None,
                Poll::Pending => {
                    let waiting = *this.waiting.get_or_insert_with(Instant::now);
                    let left = this.total.saturating_sub(this.waited).min(this.idle);
                    if !this.timer.poll_passed(context, waiting + left) {
                        return Poll::Pending;
                    }
                    Some(BodyError::Stalled)
                }
            };
            this.incoming = None;
            return Poll::Ready(end.map(Err));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.incoming {
            Some(incoming) => incoming.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl Drop for ReceivedBody {
    fn drop(&mut self) {
        if let Some(incoming) = self.incoming.take().filter(|incoming| !incoming.is_end_stream()) {
            self.unread.put(incoming);
        }
    }
}

/// The rest of a body, if the core has answered without reading all of it.
#[derive(Clone, Default)]
pub(crate) struct UnreadBody(Arc<Mutex<Option<Incoming>>>);

impl UnreadBody {
    fn put(&self, incoming: Incoming) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(incoming);
    }

    /// Makes sure that the client can read the answer. Many clients send their whole body before they read. If a connection is
    /// closed while bytes arrive, it is reset, and the client may lose the answer. So a short rest is read and discarded, and
    /// a longer rest makes the connection linger when it is closed.
    ///
    /// `awaited` says that the client waits for a request for its body (`Expect: 100-continue`). Then nothing is read, because
    /// a read would send that request.
    pub(crate) fn discard(&self, activity: &Arc<Activity>, awaited: bool) {
        let rest = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut rest) = rest else { return };
        if activity.is_multiplexed() || awaited {
            // A stream of HTTP/2 is reset alone. A client that was not asked for its body sends nothing.
            return;
        }
        let activity = activity.clone();
        tokio::spawn(async move {
            let whole = tokio::time::timeout(UNWANTED_FOR, read_through(&mut rest)).await;
            if !matches!(whole, Ok(true)) {
                activity.linger();
            }
        });
    }
}

/// Whether the body ended within the limit.
async fn read_through(body: &mut Incoming) -> bool {
    let mut read = 0;
    loop {
        match poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
        }
        if read > UNWANTED {
            return false;
        }
    }
}
