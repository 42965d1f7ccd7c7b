//! Bodies: what comes from a client, and what goes to it.

use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body::{Body, Frame, SizeHint};

use crate::memory::Memory;
use crate::store::StoreError;
use crate::store::blobs::{BodyError, ByteStream};

/// A request's body as a shell hands it to the core.
///
/// ```
/// use http::Request;
/// use registry::RequestBody;
///
/// let pull = Request::get("/v2/a/tags/list").body(RequestBody::empty());
/// let push = Request::put("/v2/a/manifests/1").body(RequestBody::full("{}"));
/// ```
pub struct RequestBody(Received);

enum Received {
    /// Also what has been read to its end.
    Empty,
    Full(Bytes),
    Stream(Pin<Box<dyn Body<Data = Bytes, Error = BodyError> + Send>>),
}

impl RequestBody {
    /// No bytes. Allocates nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self(Received::Empty)
    }

    /// Bytes at hand.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() {
            Self::empty()
        } else {
            Self(Received::Full(bytes))
        }
    }

    /// Bytes that arrive while they are read: any HTTP body whose errors are the peer's. It is not polled again after its
    /// end or an error.
    #[must_use]
    pub fn stream(body: impl Body<Data = Bytes, Error = BodyError> + Send + 'static) -> Self {
        Self(Received::Stream(Box::pin(body)))
    }

    /// The next bytes, never empty; `None` at the end. Trailers are passed over.
    pub(crate) async fn next_chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            match poll_fn(|context| Pin::new(&mut *self).poll_frame(context)).await {
                None => return Ok(None),
                Some(Err(error)) => return Err(error),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The body with `first` before everything else.
    pub(crate) fn with_first(first: Bytes, rest: Self) -> Self {
        match rest.0 {
            Received::Empty => Self::full(first),
            Received::Full(_) | Received::Stream(_) => Self::stream(Chained {
                first: Some(first),
                rest,
            }),
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody")
            .field("size_hint", &self.size_hint())
            .finish_non_exhaustive()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match &mut self.0 {
            Received::Empty => return Poll::Ready(None),
            Received::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(mem::take(bytes))))),
            Received::Stream(body) => body.as_mut().poll_frame(context),
        };
        if matches!(
            (&self.0, &polled),
            (Received::Full(_), _) | (_, Poll::Ready(None | Some(Err(_))))
        ) {
            self.0 = Received::Empty;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Received::Empty => true,
            Received::Full(_) => false,
            Received::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Received::Empty => SizeHint::with_exact(0),
            Received::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Received::Stream(body) => body.size_hint(),
        }
    }
}

/// A body whose first bytes were read ahead.
struct Chained {
    first: Option<Bytes>,
    rest: RequestBody,
}

impl Body for Chained {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }
}

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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Frames in order. Being polled after the end or an error is a failure.
    struct Frames(Option<VecDeque<Result<Frame<Bytes>, BodyError>>>);

    impl Frames {
        fn of(frames: impl IntoIterator<Item = Result<Frame<Bytes>, BodyError>>) -> RequestBody {
            RequestBody::stream(Self(Some(frames.into_iter().collect())))
        }
    }

    impl Body for Frames {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            let next = self.0.as_mut().expect("not polled after its end").pop_front();
            if !matches!(next, Some(Ok(_))) {
                self.0 = None;
            }
            Poll::Ready(next)
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "a frame as a body yields it")]
    fn data(text: &'static str) -> Result<Frame<Bytes>, BodyError> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    async fn read(mut body: RequestBody) -> Vec<Bytes> {
        let mut chunks = Vec::new();
        while let Some(chunk) = body.next_chunk().await.unwrap() {
            chunks.push(chunk);
        }
        assert!(body.next_chunk().await.unwrap().is_none(), "it stays at its end");
        assert!(body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(0));
        chunks
    }

    #[tokio::test]
    async fn bodies_are_read_to_their_end() {
        for (body, length, chunks) in [
            (RequestBody::empty(), Some(0), vec![]),
            (RequestBody::full(""), Some(0), vec![]),
            (RequestBody::full("abc"), Some(3), vec!["abc"]),
            (Frames::of([]), None, vec![]),
            (Frames::of([data("ab"), data(""), data("c")]), None, vec!["ab", "c"]),
            (
                Frames::of([data("ab"), Ok(Frame::trailers(http::HeaderMap::new())), data("c")]),
                None,
                vec!["ab", "c"],
            ),
            (
                RequestBody::with_first("ab".into(), RequestBody::empty()),
                Some(2),
                vec!["ab"],
            ),
            (
                RequestBody::with_first("ab".into(), RequestBody::full("c")),
                None,
                vec!["ab", "c"],
            ),
            (
                RequestBody::with_first("ab".into(), Frames::of([data("c"), data("d")])),
                None,
                vec!["ab", "c", "d"],
            ),
        ] {
            assert_eq!(body.size_hint().exact(), length, "{chunks:?}");
            assert_eq!(body.is_end_stream(), length == Some(0), "{chunks:?}");
            assert_eq!(read(body).await, chunks);
        }
    }

    #[tokio::test]
    async fn a_failed_body_is_over() {
        let mut body = Frames::of([data("a"), Err(BodyError::Cut), data("b")]);
        assert_eq!(body.next_chunk().await.unwrap().unwrap(), "a");
        assert!(matches!(body.next_chunk().await, Err(BodyError::Cut)));
        assert!(body.next_chunk().await.unwrap().is_none());
    }
}
