//! A request's body on its way to the core, within its time.

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

/// What is read of a body that nobody wants, so that the connection can be kept: most such bodies are manifests.
const UNWANTED: usize = 1 << 20;
/// For how long it is read.
const UNWANTED_FOR: Duration = Duration::from_secs(2);

/// Makes a body that the core can read, and where it is found again if the core leaves some of it. `multiplexed`: it
/// comes on a stream of HTTP/2.
pub(crate) fn receive(
    incoming: Incoming,
    multiplexed: bool,
    timeouts: &Timeouts,
    metrics: Arc<Metrics>,
) -> (RequestBody, Option<Leftover>) {
    if incoming.is_end_stream() {
        return (RequestBody::empty(), None);
    }
    let leftover = Leftover::default();
    let body = ReceivedBody {
        multiplexed,
        declared: incoming.size_hint().exact(),
        received: 0,
        incoming: Some(incoming),
        leftover: leftover.clone(),
        idle: timeouts.idle,
        total: timeouts.total,
        waited: Duration::ZERO,
        waiting: None,
        timer: LazyTimer::default(),
        metrics,
    };
    (RequestBody::stream(body), Some(leftover))
}

struct ReceivedBody {
    /// `None` once it is over.
    incoming: Option<Incoming>,
    multiplexed: bool,
    leftover: Leftover,
    declared: Option<u64>,
    received: u64,
    idle: Duration,
    /// For how long the client may be waited for in all.
    total: Duration,
    /// For how long it was waited for until the last byte came. What passes while the registry reads nothing, because it
    /// waits for memory or for a disk, is no fault of the client's.
    waited: Duration,
    /// Since when it is waited for.
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
                    // Trailers say nothing that this protocol knows.
                    let Ok(data) = frame.into_data() else { continue };
                    if let Some(since) = this.waiting.take() {
                        this.waited += since.elapsed();
                    }
                    this.received += data.len() as u64;
                    this.metrics.received(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(Some(Err(_))) => Some(BodyError::Cut),
                // A stream that its client resets with NO_ERROR reads like one that has ended; END_STREAM alone ends a body.
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
            self.leftover.put(incoming);
        }
    }
}

/// Where the rest of a body is found that the core has answered without reading.
#[derive(Clone, Default)]
pub(crate) struct Leftover(Arc<Mutex<Option<Incoming>>>);

impl Leftover {
    fn put(&self, incoming: Incoming) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(incoming);
    }

    /// Sees to it that the client gets to read the answer. Many send their whole body before they look, and closing
    /// a connection while bytes arrive resets it, which may take the answer away: so a short rest is read and
    /// thrown away, and a longer one makes the connection linger when it is closed.
    ///
    /// `awaited` says that the client waits to be asked for its body (`Expect: 100-continue`): reading would ask.
    pub(crate) fn discard(&self, activity: &Arc<Activity>, awaited: bool) {
        let rest = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut rest) = rest else { return };
        if activity.is_multiplexed() || awaited {
            // A stream is simply reset; and who was not asked sends nothing.
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

/// Whether the body ended within the bound.
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
