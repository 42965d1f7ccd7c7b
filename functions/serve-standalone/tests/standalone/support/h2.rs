//! A client of HTTP/2 that decides about every frame of its own: from which address it comes, how much it lets the
//! server send, when it reads, and how its requests end.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::MAX_WAIT;

/// The default of the protocol: as many bytes the server may send before the client has to ask for more.
pub(crate) const SPEC_WINDOW: u32 = 65_535;

/// A runtime for hundreds of clients: their work is only to wait.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// How much the system keeps of what a client has not read; by itself it takes megabytes on loopback, and a server does
/// not see that a client is slow before that is full.
#[derive(Clone, Copy, Default)]
pub(crate) struct Socket {
    pub(crate) receive_buffer: Option<u32>,
}

/// The smallest buffer that still moves.
pub(crate) const SMALL_BUFFER: Socket = Socket {
    receive_buffer: Some(32 << 10),
};

/// Opens a connection from a chosen address of this host, such as 127.0.0.2.
pub(crate) async fn dial(server: SocketAddr, from: Ipv4Addr) -> std::io::Result<TcpStream> {
    dial_with(server, from, Socket::default()).await
}

/// The same, with a chosen buffer.
pub(crate) async fn dial_with(server: SocketAddr, from: Ipv4Addr, how: Socket) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(size) = how.receive_buffer {
        socket.set_recv_buffer_size(size)?;
    }
    // The port is chosen when it is connected, so that one port serves for several servers.
    socket.set_reuseaddr(true)?;
    socket.bind((from, 0).into())?;
    let stream = timeout(MAX_WAIT, socket.connect(server)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// How a connection begins.
#[derive(Clone, Copy)]
pub(crate) struct Windows {
    /// What the server may send on each stream before the client reads.
    pub(crate) stream: u32,
    /// The same for all streams together; 65,535 at least.
    pub(crate) connection: u32,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            stream: SPEC_WINDOW,
            connection: SPEC_WINDOW,
        }
    }
}

/// One connection.
pub(crate) struct H2 {
    send: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
}

impl H2 {
    /// Connects from `from`, by prior knowledge.
    pub(crate) async fn connect(server: SocketAddr, from: Ipv4Addr) -> Self {
        Self::with_windows(server, from, Windows::default()).await
    }

    /// The same, with chosen windows.
    pub(crate) async fn with_windows(server: SocketAddr, from: Ipv4Addr, windows: Windows) -> Self {
        Self::try_connect(server, from, windows).await.unwrap()
    }

    /// The same; an error when the server does not want the connection.
    pub(crate) async fn try_connect(server: SocketAddr, from: Ipv4Addr, windows: Windows) -> Result<Self, h2::Error> {
        Self::over(dial(server, from).await.map_err(from_io)?, windows).await
    }

    /// Over a connection that is there.
    pub(crate) async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        windows: Windows,
    ) -> Result<Self, h2::Error> {
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(windows.stream)
            .initial_connection_window_size(windows.connection)
            // As many as a test likes; the server's own bound arrives with its settings.
            .initial_max_send_streams(64);
        let (send, connection) = builder.handshake(stream).await?;
        Ok(Self {
            send,
            driver: tokio::spawn(connection),
        })
    }

    /// Sends the head of a request. A body follows unless `end`. Waits until the server allows one more stream.
    pub(crate) async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        end: bool,
    ) -> Result<Stream, h2::Error> {
        let mut request = Request::builder().method(method).uri(format!("http://localhost{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let mut send = timeout(MAX_WAIT, self.send.clone().ready())
            .await
            .map_err(|_| h2::Error::from(Reason::REFUSED_STREAM))??;
        let (response, body) = send.send_request(request, end)?;
        Ok(Stream { response, body })
    }

    /// One whole request without a body, within `MAX_WAIT`.
    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, h2::Error> {
        self.open(method, path, headers, true)
            .await?
            .answer()
            .await?
            .read()
            .await
    }

    /// Waits until the server ends the connection; the error with which it does.
    pub(crate) async fn ended(self) -> Option<h2::Error> {
        let ended = timeout(MAX_WAIT, self.driver).await.expect("the connection ends");
        ended.unwrap().err()
    }

    /// Ends the connection without a word.
    pub(crate) fn hang_up(self) {
        self.driver.abort();
    }
}

fn from_io(error: std::io::Error) -> h2::Error {
    // The library makes no error of its own from one of the system: that the connection failed is all a test asks.
    drop(error);
    Reason::CONNECT_ERROR.into()
}

/// A request whose body may still be sent, and whose answer has not been looked at.
pub(crate) struct Stream {
    response: ResponseFuture,
    body: SendStream<Bytes>,
}

impl Stream {
    /// Sends a part of the body, as soon as the server takes it.
    pub(crate) fn send(&mut self, bytes: &[u8], end: bool) -> Result<(), h2::Error> {
        self.body.send_data(Bytes::copy_from_slice(bytes), end)
    }

    /// Sends `RST_STREAM`.
    pub(crate) fn reset(mut self, reason: Reason) {
        self.body.send_reset(reason);
    }

    /// The head of the answer.
    pub(crate) async fn answer(self) -> Result<Unread, h2::Error> {
        let Self { response, body } = self;
        let response = timeout(MAX_WAIT, response)
            .await
            .map_err(|_| h2::Error::from(Reason::CANCEL))??;
        let (head, received) = response.into_parts();
        Ok(Unread {
            status: head.status.as_u16(),
            headers: head.headers,
            body: received,
            _request: body,
        })
    }
}

/// An answer whose body is read as slowly as the test likes: what is not read is not asked for.
pub(crate) struct Unread {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    body: RecvStream,
    _request: SendStream<Bytes>,
}

impl Unread {
    /// The next part of the body, and room for as much again. `None` at its end.
    pub(crate) async fn part(&mut self) -> Option<Result<Bytes, h2::Error>> {
        let part = timeout(MAX_WAIT, std::future::poll_fn(|context| self.body.poll_data(context)))
            .await
            .unwrap_or_else(|_| Some(Err(Reason::CANCEL.into())));
        if let Some(Ok(part)) = &part {
            let _ = self.body.flow_control().release_capacity(part.len());
        }
        part
    }

    /// The whole rest, as fast as it comes.
    pub(crate) async fn read(mut self) -> Result<Answer, h2::Error> {
        let mut body = BytesMut::new();
        while let Some(part) = self.part().await {
            body.extend_from_slice(&part?);
        }
        Ok(Answer {
            status: self.status,
            headers: self.headers,
            body: body.freeze(),
        })
    }

    /// Reads at most so many bytes a second, until the end or an error; how many bytes came, and the error.
    pub(crate) async fn read_slowly(mut self, bytes_per_second: u64) -> (u64, Option<h2::Error>) {
        let start = tokio::time::Instant::now();
        let mut read = 0;
        while let Some(part) = self.part().await {
            match part {
                Ok(part) => read += part.len() as u64,
                Err(error) => return (read, Some(error)),
            }
            tokio::time::sleep_until(start + Duration::from_millis(read * 1000 / bytes_per_second)).await;
        }
        (read, None)
    }
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}
