//! Bodies: what comes from a client, and what goes to it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body::{Body, Frame, SizeHint};

use crate::environment::Memory;
use crate::store::StoreError;
use crate::store::blobs::{BodyError, ByteStream};

/// A request's body as a shell hands it to the core: any HTTP body whose errors are the peer's.
pub type RequestBody = Pin<Box<dyn Body<Data = Bytes, Error = BodyError> + Send>>;

/// A response's body. Its length is always known.
pub struct ResponseBody {
    inner: Inner,
    /// Memory that the bytes at hand take, until they are sent.
    room: Option<Memory>,
}

enum Inner {
    Full(Option<Bytes>),
    Stream { stream: ByteStream, left: u64 },
}

impl ResponseBody {
    /// No bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self::from(Inner::Full(None))
    }

    /// Bytes at hand.
    #[must_use]
    pub fn full(bytes: Bytes) -> Self {
        Self::from(Inner::Full(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    /// The same bytes, for which `room` was granted: it goes back when they are sent, or nobody wants them any more. A
    /// shell that hands the bytes on before they are sent takes it out, and keeps it as long as them.
    #[must_use]
    pub fn with_memory(self, room: Option<Memory>) -> Self {
        Self { room, ..self }
    }

    /// What was granted for the bytes, for who holds them from now on.
    #[must_use]
    pub fn take_memory(&mut self) -> Option<Memory> {
        self.room.take()
    }

    /// `length` bytes that are read as they are sent.
    #[must_use]
    pub fn stream(stream: ByteStream, length: u64) -> Self {
        Self::from(Inner::Stream { stream, left: length })
    }
}

impl From<Inner> for ResponseBody {
    fn from(inner: Inner) -> Self {
        Self { inner, room: None }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = StoreError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StoreError>>> {
        match &mut self.inner {
            Inner::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Inner::Stream { left: 0, .. } => Poll::Ready(None),
            Inner::Stream { stream, left } => match stream.poll_next_unpin(context) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Some(Ok(bytes))) if bytes.len() as u64 <= *left => {
                    *left -= bytes.len() as u64;
                    Poll::Ready(Some(Ok(Frame::data(bytes))))
                }
                Poll::Ready(Some(Err(error))) => {
                    // The head is long gone: cutting the connection is all that can tell the client.
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "a blob's bytes could not be read"
                    );
                    Poll::Ready(Some(Err(error)))
                }
                Poll::Ready(Some(Ok(_)) | None) => {
                    let error = StoreError::damaged("the object does not have the recorded length");
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "a blob's bytes could not be read"
                    );
                    Poll::Ready(Some(Err(error)))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.inner, Inner::Full(None) | Inner::Stream { left: 0, .. })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.inner {
            Inner::Full(bytes) => bytes.as_ref().map_or(0, Bytes::len) as u64,
            Inner::Stream { left, .. } => *left,
        })
    }
}
