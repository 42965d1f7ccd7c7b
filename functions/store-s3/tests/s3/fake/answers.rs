//! The responses of the server.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Frame;
use hyper::{Method, Response};
use tokio::time::{Sleep, sleep};

use super::HungUp;

/// A response, before it becomes an HTTP response.
pub(crate) struct FakeAnswer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    close: bool,
}

impl FakeAnswer {
    pub(crate) fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            close: false,
        }
    }

    pub(crate) fn xml(body: &str) -> Self {
        Self::new(200, format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{body}"))
            .with("content-type", "application/xml")
    }

    pub(crate) fn refused(status: u16, code: &str) -> Self {
        let text = format!("<Error><Code>{code}</Code><Message>injected by the test</Message></Error>");
        Self {
            status,
            ..Self::xml(&text)
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Closes the connection after this response.
    pub(crate) fn close(mut self) -> Self {
        self.close = true;
        self
    }

    pub(crate) fn into_response(self, method: &Method, cut: Option<usize>) -> Response<FakeBody> {
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        if self.close {
            response = response.header("connection", "close");
        }
        let length = self.body.len();
        let head_only = *method == Method::HEAD;
        if !head_only {
            response = response.header("content-length", length);
        }
        let body = FakeBody {
            left: if head_only { Bytes::new() } else { self.body },
            cut,
            pause: None,
        };
        response.body(body).expect("a response")
    }
}

/// A response body in pieces, which may end early.
pub(crate) struct FakeBody {
    left: Bytes,
    cut: Option<usize>,
    /// A delay before the error, so that the bytes before it are sent.
    pause: Option<Pin<Box<Sleep>>>,
}

impl hyper::body::Body for FakeBody {
    type Data = Bytes;
    type Error = HungUp;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HungUp>>> {
        if self.cut == Some(0) {
            let pause = self
                .pause
                .get_or_insert_with(|| Box::pin(sleep(Duration::from_millis(30))));
            return pause.as_mut().poll(cx).map(|()| Some(Err(HungUp)));
        }
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let mut piece = self.left.len().min(60_000);
        if let Some(cut) = &mut self.cut {
            piece = piece.min(*cut);
            *cut -= piece;
        }
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(piece)))))
    }
}
