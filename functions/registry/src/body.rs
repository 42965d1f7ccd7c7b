//! The bodies of requests and responses.

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
pub struct RequestBody(RequestBytes);

enum RequestBytes {
    /// The body has no bytes, or was read to its end.
    Empty,
    Full(Bytes),
    Stream(Pin<Box<dyn Body<Data = Bytes, Error = BodyError> + Send>>),
}

impl RequestBody {
    /// A body without bytes. Allocates nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self(RequestBytes::Empty)
    }

    /// A body whose bytes are in memory.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() {
            Self::empty()
        } else {
            Self(RequestBytes::Full(bytes))
        }
    }

    /// A body whose bytes arrive while it is read: any HTTP body whose errors are faults of the peer. It is not polled
    /// again after its end or an error.
    #[must_use]
    pub fn stream(body: impl Body<Data = Bytes, Error = BodyError> + Send + 'static) -> Self {
        Self(RequestBytes::Stream(Box::pin(body)))
    }

    /// The next bytes, never empty; `None` at the end. Trailers are ignored.
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

    /// A body that begins with `first`, followed by `rest`.
    pub(crate) fn with_first(first: Bytes, rest: Self) -> Self {
        match rest.0 {
            RequestBytes::Empty => Self::full(first),
            RequestBytes::Full(_) | RequestBytes::Stream(_) => Self::stream(Chained {
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
            RequestBytes::Empty => return Poll::Ready(None),
            RequestBytes::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(mem::take(bytes))))),
            RequestBytes::Stream(body) => body.as_mut().poll_frame(context),
        };
        if matches!(
            (&self.0, &polled),
            (RequestBytes::Full(_), _) | (_, Poll::Ready(None | Some(Err(_))))
        ) {
            self.0 = RequestBytes::Empty;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            RequestBytes::Empty => true,
            RequestBytes::Full(_) => false,
            RequestBytes::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            RequestBytes::Empty => SizeHint::with_exact(0),
            RequestBytes::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            RequestBytes::Stream(body) => body.size_hint(),
        }
    }
}

/// A body whose first bytes were already read.
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

/// The body of a response. Its length is always known.
pub struct ResponseBody {
    inner: ResponseBytes,
    /// The permit for the memory of the bytes, until they are sent.
    memory: Option<Memory>,
}

enum ResponseBytes {
    Full(Option<Bytes>),
    Stream { stream: ByteStream, left: u64 },
}

impl ResponseBody {
    /// A body without bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self::from(ResponseBytes::Full(None))
    }

    /// A body whose bytes are in memory.
    #[must_use]
    pub fn full(bytes: Bytes) -> Self {
        Self::from(ResponseBytes::Full(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    /// The same body, with the memory permit of its bytes. The permit is dropped when the bytes are sent, or when the
    /// body is dropped. A shell that copies the bytes elsewhere before they are sent takes the permit out, and keeps it
    /// as long as the bytes.
    #[must_use]
    pub fn with_memory(self, memory: Option<Memory>) -> Self {
        Self { memory, ..self }
    }

    /// Takes the memory permit of the bytes, for code that keeps the bytes from now on.
    #[must_use]
    pub fn take_memory(&mut self) -> Option<Memory> {
        self.memory.take()
    }

    /// A body of `length` bytes that are read from the store while they are sent.
    #[must_use]
    pub fn stream(stream: ByteStream, length: u64) -> Self {
        Self::from(ResponseBytes::Stream { stream, left: length })
    }
}

impl From<ResponseBytes> for ResponseBody {
    fn from(inner: ResponseBytes) -> Self {
        Self { inner, memory: None }
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
            ResponseBytes::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            ResponseBytes::Stream { left: 0, .. } => Poll::Ready(None),
            ResponseBytes::Stream { stream, left } => match stream.poll_next_unpin(context) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Some(Ok(bytes))) if bytes.len() as u64 <= *left => {
                    *left -= bytes.len() as u64;
                    Poll::Ready(Some(Ok(Frame::data(bytes))))
                }
                Poll::Ready(Some(Err(error))) => {
                    // The head was sent long ago. Only a closed connection can tell the client about the fault.
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
        matches!(
            self.inner,
            ResponseBytes::Full(None) | ResponseBytes::Stream { left: 0, .. }
        )
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.inner {
            ResponseBytes::Full(bytes) => bytes.as_ref().map_or(0, Bytes::len) as u64,
            ResponseBytes::Stream { left, .. } => *left,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Frames in order. Polling after the end or an error fails the test.
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
    async fn a_failed_body_has_ended() {
        let mut body = Frames::of([data("a"), Err(BodyError::Cut), data("b")]);
        assert_eq!(body.next_chunk().await.unwrap().unwrap(), "a");
        assert!(matches!(body.next_chunk().await, Err(BodyError::Cut)));
        assert!(body.next_chunk().await.unwrap().is_none());
    }
}
