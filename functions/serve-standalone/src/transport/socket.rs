//! The socket of a connection: a TCP socket, with TLS or without.
//!
//! The memory of TLS is limited: [`PENDING`] bytes that the socket has not taken yet, [`READ_AHEAD`] bytes that were not
//! decrypted yet, and two records (16 KiB each) that were not read yet.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Maximum number of encrypted bytes that wait for the socket. They count as written, so the number must be small.
pub(super) const PENDING: usize = 64 << 10;
/// The same for a connection without a request so far, or without memory for large buffers: one record.
pub(super) const LEAST_PENDING: usize = 16 << 10;

/// Number of encrypted bytes that are read in one call. TLS itself reads 4 KiB at a time, which takes five calls for each
/// record.
pub(super) const READ_AHEAD: usize = 32 << 10;

/// The transport of a connection.
pub(crate) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<CountingSocket>>),
}

impl Socket {
    /// The socket itself.
    pub(super) fn raw(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &mut stream.get_mut().0.socket,
        }
    }

    /// The number of bytes that the TCP socket has taken in a write. With TLS it differs from the result of the write: accepted
    /// bytes may still wait, and a write that accepts none may have sent waiting bytes.
    pub(super) fn taken(&mut self, written: &Poll<io::Result<usize>>) -> usize {
        match self {
            Self::Plain(_) => match written {
                Poll::Ready(Ok(count)) => *count,
                _ => 0,
            },
            Self::Tls(stream) => std::mem::take(&mut stream.get_mut().0.written),
        }
    }

    /// Gives TLS the large buffers of a fast connection.
    pub(super) fn enlarge(&mut self) {
        if let Self::Tls(stream) = self {
            let (counted, session) = stream.get_mut();
            counted.read_ahead = READ_AHEAD;
            session.set_buffer_limit(Some(PENDING));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            Self::Tls(stream) => match Pin::new(stream).poll_read(context, buffer) {
                // The client has closed the connection without a TLS alert. HTTP itself tells whether a message is complete.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                read => read,
            },
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            // A TCP socket has no buffer to flush.
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// The TCP socket below TLS, which counts the bytes that it has taken.
pub(crate) struct CountingSocket {
    socket: TcpStream,
    /// Bytes taken since the counter was last read.
    written: usize,
    /// Number of bytes that are read in one call. If it is 0, only the requested bytes are read.
    read_ahead: usize,
    /// The bytes that were read in one call; empty while none arrive.
    ahead: Box<[u8]>,
    /// The part of these bytes that was not requested yet.
    rest: Range<usize>,
}

impl CountingSocket {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            written: 0,
            read_ahead: 0,
            ahead: Box::default(),
            rest: 0..0,
        }
    }

    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &written {
            self.written += count;
        }
        written
    }
}

impl AsyncRead for CountingSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.rest.is_empty() {
            if buffer.remaining() >= this.read_ahead {
                return Pin::new(&mut this.socket).poll_read(context, buffer);
            }
            if this.ahead.is_empty() {
                this.ahead = vec![0; this.read_ahead].into();
            }
            let mut ahead = ReadBuf::new(&mut this.ahead);
            let read = Pin::new(&mut this.socket).poll_read(context, &mut ahead);
            this.rest = 0..ahead.filled().len();
            if read.is_pending() {
                // Frees the memory, because the connection may stay open for long.
                this.ahead = Box::default();
            }
            ready!(read)?;
        }
        let count = this.rest.len().min(buffer.remaining());
        buffer.put_slice(&this.ahead[this.rest.start..this.rest.start + count]);
        this.rest.start += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CountingSocket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
