//! The socket of a connection with timeouts. It fails if the client takes too long to send a request's head, keeps the
//! connection without a request, or does not read its answers.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::activity::Activity;
use super::socket::Socket;
use super::timeouts::Timeouts;
use super::timer::LazyTimer;
use super::transfer::MIN_PROGRESS;

/// How every HTTP/2 connection begins (RFC 9113, 3.4); no HTTP/1.1 request does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Size of the first read, in bytes. Most requests fit, so that the detection of the version needs no additional read.
const FIRST_READ: usize = 4096;
/// Maximum time for which a closed connection waits until its client closes it too.
const LINGER: Duration = Duration::from_secs(3);

/// A socket that fails if its client makes no progress.
pub(crate) struct GuardedStream {
    socket: Socket,
    activity: Arc<Activity>,
    timeouts: Timeouts,
    /// The bytes that were read to detect the version. They are read again.
    first: BytesMut,
    read_timer: LazyTimer,
    /// When the first byte after the exchange number `seen` arrived, which begins a head.
    head_began: Option<Instant>,
    seen: u32,
    write_timer: LazyTimer,
    written: u64,
    /// While bytes wait to be written: since when too few of them were written, and how many had been written then.
    stalled: Option<(Instant, u64)>,
    /// Until when a closed connection lingers, and the latest time of its end.
    lingers_until: Option<(Instant, Instant)>,
}

impl GuardedStream {
    pub(crate) fn new(socket: Socket, activity: Arc<Activity>, timeouts: Timeouts) -> Self {
        Self {
            socket,
            activity,
            timeouts,
            first: BytesMut::new(),
            read_timer: LazyTimer::default(),
            head_began: None,
            seen: 0,
            write_timer: LazyTimer::default(),
            written: 0,
            stalled: None,
            lingers_until: None,
        }
    }

    /// Gives TLS the large buffers of a fast connection.
    pub(crate) fn enlarge(&mut self) {
        self.socket.enlarge();
    }

    /// Reads until it is clear whether the client uses HTTP/2. These bytes are read again later. Fails if the client closes the
    /// connection or takes too long.
    ///
    /// `hyper_util::server::conn::auto` does not fit: it configures both versions before it reads, and here the size of the
    /// buffers, and the memory permit for them, depend on the version. The timeouts of this stream do, too. Besides, `auto`
    /// first reads 24 bytes alone, which costs each connection one more system call.
    pub(crate) async fn is_http2(&mut self) -> io::Result<bool> {
        let mut buffer = BytesMut::zeroed(FIRST_READ);
        let mut filled = 0;
        loop {
            let mut part = ReadBuf::new(&mut buffer[filled..]);
            poll_fn(|context| Pin::new(&mut *self).poll_read(context, &mut part)).await?;
            let read = part.filled().len();
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            let compared = filled.min(PREFACE.len());
            let matches = buffer[..compared] == PREFACE[..compared];
            if !matches || compared == PREFACE.len() {
                buffer.truncate(filled);
                self.first = buffer;
                return Ok(matches);
            }
        }
    }

    /// The time until which a client that waits for no answer must send something.
    fn read_deadline(&mut self) -> Instant {
        if self.activity.open() > 0 || self.stalled.is_some() {
            // Bodies and pending writes have their own timeouts. This deadline only wakes the connection from time to time, so
            // that it notices the end of an exchange in another task.
            return Instant::now() + self.timeouts.keep_alive;
        }
        self.forget_old_head();
        match self.head_began {
            _ if self.seen == 0 => self.activity.born() + self.timeouts.header,
            // Frames of HTTP/2 that open no exchange do not keep an unused connection open.
            Some(began) if !self.activity.is_multiplexed() => began + self.timeouts.header,
            _ => self.activity.idle_since() + self.timeouts.keep_alive,
        }
    }

    fn note_read(&mut self) {
        if self.activity.open() == 0 {
            self.forget_old_head();
            self.head_began.get_or_insert_with(Instant::now);
        }
    }

    fn forget_old_head(&mut self) {
        let served = self.activity.served();
        if served != self.seen {
            self.seen = served;
            self.head_began = None;
        }
    }

    /// Returns the result of a write in which the socket has `taken` this many bytes. Fails if it has taken too few for too
    /// long.
    fn guard_write<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
        taken: usize,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() || taken > 0 {
            self.activity.moved(taken);
            self.written += taken as u64;
            if self
                .stalled
                .is_some_and(|(_, before)| self.written >= before + MIN_PROGRESS)
            {
                // The time begins anew when the socket is full again.
                self.stalled = Some((Instant::now(), self.written));
            }
        }
        if written.is_ready() {
            return written;
        }
        let (since, _) = *self.stalled.get_or_insert_with(|| (Instant::now(), self.written));
        if self.write_timer.poll_passed(context, since + self.timeouts.stall) {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client does not read its answers",
            )));
        }
        Poll::Pending
    }

    /// Applies the timeout of writes to the bytes that TLS still has to write.
    fn guard_rest(&mut self, context: &mut Context<'_>, rest: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        let taken = self.socket.taken(&Poll::Pending);
        self.guard_write(context, rest, taken)
    }

    /// Whether the client has not used the connection for the keep-alive time.
    fn is_unused(&self) -> bool {
        self.seen > 0 && (self.head_began.is_none() || self.activity.is_multiplexed())
    }

    /// Reads and discards bytes until the client closes the connection, or until the timeout. With HTTP/2, the time begins anew
    /// with each byte: the client acknowledges what it reads, and an acknowledgement after the end would cause a reset, by
    /// which the client would lose the rest.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let last = now + self.timeouts.total;
        let (mut until, last) = *self.lingers_until.get_or_insert((now + LINGER, last));
        let mut scratch = [0; 16 << 10];
        for _ in 0..16 {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(self.socket.raw()).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    if now >= until.min(last) {
                        return Poll::Ready(());
                    }
                    if self.activity.is_multiplexed() {
                        until = now + LINGER;
                        self.lingers_until = Some((until, last));
                    }
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending if self.read_timer.poll_passed(context, until) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        // The client sends faster than this reads. Other tasks get their turn.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncRead for GuardedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.first.is_empty() {
            let count = this.first.len().min(buffer.remaining());
            buffer.put_slice(&this.first[..count]);
            this.first.advance(count);
            if this.first.is_empty() {
                // Frees the memory, because the connection may stay open for long.
                this.first = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut this.socket).poll_read(context, buffer) {
            Poll::Ready(result) => {
                this.note_read();
                this.activity.moved(buffer.filled().len() - before);
                Poll::Ready(result)
            }
            Poll::Pending => {
                let deadline = this.read_deadline();
                if this.read_timer.poll_passed(context, deadline) {
                    if this.is_unused() {
                        // A normal end of the connection: the client may still be reading its last answer.
                        if this.activity.is_multiplexed() {
                            this.activity.linger();
                        }
                        return Poll::Ready(Ok(()));
                    }
                    let error = io::Error::new(io::ErrorKind::TimedOut, "the client sends no request");
                    return Poll::Ready(Err(error));
                }
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        let taken = self.socket.taken(&written);
        self.guard_write(context, written, taken)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        let taken = self.socket.taken(&written);
        self.guard_write(context, written, taken)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The HTTP library flushes only after it has written everything. A TCP socket has no buffer to flush.
        if matches!(self.socket, Socket::Tls(_)) {
            let flushed = Pin::new(&mut self.socket).poll_flush(context);
            ready!(self.guard_rest(context, flushed))?;
        }
        if self.stalled.take().is_some() {
            self.activity.flushed();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingers_until.is_none() {
            let closed = Pin::new(&mut self.socket).poll_shutdown(context);
            ready!(self.guard_rest(context, closed))?;
        }
        if self.activity.lingers() {
            ready!(self.poll_linger(context));
        }
        Poll::Ready(Ok(()))
    }
}
