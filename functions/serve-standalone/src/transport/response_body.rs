//! The body of an answer. It is read from the store only as fast as the client reads it.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use registry::ResponseBody;
use registry::store::StoreError;

use super::activity::{AnswerInFlight as _, Exchange};
use super::timeouts::Timeouts;
use super::transfer::{Part, Transfer};
use crate::access_log::Entry;
use crate::metrics::Measured;

/// Maximum size of a part that the HTTP library gets at once, in bytes.
const PART: usize = 256 << 10;

/// While the HTTP library has fewer unwritten bytes than this, the store is asked for more. If the parts of the store are
/// larger, the limit is the size of the last part, so that at most two parts are in memory.
const IN_FLIGHT: u64 = 32 << 10;

/// An answer of at most this size, in bytes, ends together with its last part. With HTTP/2, the end of a larger one is sent
/// after all its bytes are written, so that its stream can be reset until then. For small answers, the additional frame would
/// cost more than it helps.
const SMALL: u64 = 16 << 10;

/// A response body that keeps its exchange open until its last byte is written.
pub(crate) struct SentBody {
    body: ResponseBody,
    /// Bytes that were read from the body and that the HTTP library does not have yet.
    rest: Bytes,
    /// The size of the last part that was read.
    last: u64,
    length: u64,
    transfer: Arc<Transfer>,
}

impl SentBody {
    /// Sends `body` on the connection of `exchange`.
    pub(crate) fn new(
        mut body: ResponseBody,
        exchange: Exchange,
        timeouts: &Timeouts,
        measured: Measured,
        entry: Option<Entry>,
    ) -> Self {
        let memory = body.take_memory();
        let length = body.size_hint().exact().unwrap_or_default();
        let transfer = Arc::new(Transfer::new(length, timeouts.total, exchange, memory, measured, entry));
        if length > 0 {
            let watched: Weak<Transfer> = Arc::downgrade(&transfer);
            transfer.exchange().activity().watch(&(watched as Weak<_>));
        }
        Self {
            body,
            rest: Bytes::new(),
            last: 0,
            length,
            transfer,
        }
    }

    /// Whether the answer ends together with its last part.
    fn ends_with_its_bytes(&self) -> bool {
        self.length <= SMALL || !self.transfer.exchange().activity().is_multiplexed()
    }
}

impl Body for SentBody {
    type Data = Part;
    type Error = StoreError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Part>, StoreError>>> {
        let this = &mut *self;
        let whole = this.transfer.is_handed();
        let allowed = if whole { 0 } else { this.last.max(IN_FLIGHT) - 1 };
        if this.transfer.in_flight() > allowed {
            this.transfer.wake(context.waker());
            // It may have been written between the two checks.
            if this.transfer.in_flight() > allowed {
                return Poll::Pending;
            }
        }
        if this.rest.is_empty() {
            let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(context)?) else {
                return Poll::Ready(None);
            };
            // Bodies of the core have no trailers.
            this.rest = frame.into_data().unwrap_or_default();
            this.last = this.rest.len() as u64;
        }
        let part = this.rest.split_to(this.rest.len().min(PART));
        Poll::Ready(Some(Ok(Frame::data(this.transfer.part(part)))))
    }

    fn is_end_stream(&self) -> bool {
        self.transfer.is_handed() && (self.ends_with_its_bytes() || self.transfer.in_flight() == 0)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.size_hint().exact().unwrap_or_default() + self.rest.len() as u64)
    }
}

impl Drop for SentBody {
    fn drop(&mut self) {
        self.transfer.hand_over();
    }
}
