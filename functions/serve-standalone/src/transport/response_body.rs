//! A response's body on its way to the client: as much of it as the client's reading asks for.

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

/// The largest part that is given to the library at once, in bytes.
const PART: usize = 256 << 10;

/// Bytes that the library may have at least before the store is asked for more. The store's parts may be larger; then
/// it is the last one of them, so that not more than two are in memory.
const IN_FLIGHT: u64 = 32 << 10;

/// An answer of this size or less ends together with its bytes. The end of a larger one is held back under HTTP/2 until
/// all its bytes are written, so that its stream can be reset until then; for small ones the additional frame costs more.
const SMALL: u64 = 16 << 10;

/// A response body that keeps its exchange open until its last byte is written.
pub(crate) struct SentBody {
    body: ResponseBody,
    /// Read from the body and not given to the library.
    rest: Bytes,
    /// The size of what was read last.
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

    /// Whether the library is to be told that the last part is the last one.
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
            // It may have been written between the two looks.
            if this.transfer.in_flight() > allowed {
                return Poll::Pending;
            }
        }
        if this.rest.is_empty() {
            let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(context)?) else {
                return Poll::Ready(None);
            };
            // A body of the registry has no trailers.
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
