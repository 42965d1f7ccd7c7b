//! One connection until it closes or the server closes it: HTTP/1.1 or HTTP/2 (with TLS by ALPN, without TLS by prior
//! knowledge).
//!
//! Several modules limit the time of a client, each the part that it sees:
//!
//! | a client that… | is closed by | after |
//! |---|---|---|
//! | opens a connection and sends nothing, or sends a head slowly | [`transport::stream`](crate::transport) | `header_timeout` |
//! | does not complete the TLS handshake | [`transport::handshake`](crate::transport) | `header_timeout`, which is for the first head too |
//! | keeps a connection without a request | [`transport::stream`](crate::transport) | `keep_alive`, from the last byte written |
//! | sends a body and stalls | [`transport::request_body`](crate::transport) | `idle_timeout` |
//! | reads almost nothing of an answer | [`transport::transfer`](crate::transport), for each answer; [`transport::stream`](crate::transport), for everything | `stall_timeout` |
//! | sends or reads a body very slowly | [`transport::request_body`](crate::transport), [`transport::transfer`](crate::transport) | `request_timeout` |
//! | reads an answer slowly while others wait for its memory | [`transport::transfer`](crate::transport) | 5 s |
//! | has a slot that others need, and makes less progress | [`crate::connections`] | at once |
//! | sends more requests although there is no free slot for them | [`transport::activity`](crate::transport) | 64 refusals |
//! | has disappeared without closing an HTTP/2 connection | pings | 50 s |

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use registry::budget::ClientKey;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::connections::{ConnectionSlot, Phase};
use crate::exchange::Service;
use crate::transport::{Activity, GuardedStream, LOOK, Socket, StallCheck, StreamExecutor, shake};

/// Maximum size of a request's head in both versions, in bytes. A token alone may take 12 KiB.
const MAX_HEAD: u32 = 32 << 10;
/// Maximum number of header fields of a request.
const MAX_FIELDS: usize = 100;
/// Maximum number of streams of one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;
/// Maximum number of streams of one HTTP/2 connection that were reset because of a fault of the client, and of which more
/// frames may arrive. At one more, the connection ends.
const MAX_FAULTY_STREAMS: usize = 64;
/// Maximum number of bytes of an answer that wait in one HTTP/2 stream.
const STREAM_SEND_BUFFER: usize = 256 << 10;
/// Maximum number of unsent bytes in the send buffer of the operating system. They count as written, so the number must be
/// small: with megabytes in the buffer, a slow reader would be noticed only after minutes, and the buffers of all connections
/// would take more memory than this process. It is the size of the largest part that is written at once
/// (`response_body::PART`), because the rest of a part needs another call and another turn of the task. Linux asks for more
/// when half of the buffer was sent, so the progress of a slow reader is visible in steps of 128 KiB.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 256 << 10;
/// Maximum time of a graceful close. It is shorter if other connections wait for the close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves one connection to its end.
pub(crate) async fn serve(
    socket: TcpStream,
    peer: SocketAddr,
    activity: Arc<Activity>,
    slot: ConnectionSlot,
    service: Arc<Service>,
    mut phase: watch::Receiver<Phase>,
) {
    // Answers are written in large parts. Waiting until a packet is full would only delay them.
    let _ = socket.set_nodelay(true);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket2::SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT);
    let timeouts = service.timeouts();
    let opening = async {
        let (socket, host) = match &service.tls {
            None => (Socket::Plain(socket), None),
            Some(tls) => shake(socket, tls, activity.born() + timeouts.header).await?,
        };
        let mut stream = GuardedStream::new(socket, activity.clone(), timeouts);
        // The result of ALPN is not used: the client's first bytes tell the same, and are awaited in any case.
        stream.is_http2().await.map(|multiplexed| (stream, multiplexed, host))
    };
    let opened = tokio::select! {
        biased;
        opened = opening => opened,
        () = draining(&mut phase) => return,
        () = activity.dismissed() => return,
    };
    let (mut stream, multiplexed, host) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            tracing::debug!(%peer, error = &error as &dyn std::error::Error, "a connection ended before its first request");
            return;
        }
    };
    activity.set_multiplexed(multiplexed);
    let buffer = service
        .buffers
        .take(ClientKey::of(peer.ip()), multiplexed, service.tls.is_some());
    if buffer.is_large() {
        stream.enlarge();
    }
    let exchange = {
        let (activity, slot) = (activity.clone(), slot.clone());
        service_fn(move |mut request: Request<Incoming>| {
            if let Some(host) = &host {
                request.extensions_mut().insert(host.clone());
            }
            service.clone().exchange(request, activity.clone(), slot.clone(), peer)
        })
    };
    let io = TokioIo::new(stream);
    let drive = Drive {
        activity: &activity,
        slot: &slot,
        phase,
        stall: timeouts.stall,
    };
    let ended = if multiplexed {
        let connection = http2::Builder::new(StreamExecutor)
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD)
            .initial_connection_window_size(buffer.bytes)
            .initial_stream_window_size(buffer.bytes)
            .max_local_error_reset_streams(MAX_FAULTY_STREAMS)
            .max_send_buf_size(STREAM_SEND_BUFFER)
            .serve_connection(io, exchange);
        drive.run(connection, http2::Connection::graceful_shutdown).await
    } else {
        let connection = http1::Builder::new()
            // The stream has its own timeouts, which distinguish a slow head from an idle connection.
            .header_read_timeout(None)
            .max_headers(MAX_FIELDS)
            .max_header_size(MAX_HEAD as usize)
            .max_buf_size(buffer.bytes as usize)
            .serve_connection(io, exchange);
        drive.run(connection, http1::Connection::graceful_shutdown).await
    };
    if let Err(error) = ended {
        // Only for debugging: clients may close connections early or send malformed requests.
        tracing::debug!(%peer, error = &error as &dyn std::error::Error, "a connection ended early");
    }
}

/// Runs a connection to its end.
struct Drive<'a> {
    activity: &'a Activity,
    slot: &'a ConnectionSlot,
    phase: watch::Receiver<Phase>,
    stall: Duration,
}

impl Drive<'_> {
    /// Runs the connection, and calls `end` when it must end.
    async fn run<C: Future<Output = hyper::Result<()>>>(
        self,
        connection: C,
        end: fn(Pin<&mut C>),
    ) -> hyper::Result<()> {
        let Self {
            activity,
            slot,
            mut phase,
            stall,
        } = self;
        let mut connection = pin!(connection);
        let mut watch = pin!(sleep_until(Instant::now() + stall.min(LOOK)));
        let mut phases = true;
        let mut is_welcome = true;
        loop {
            // The phase is read before the connection is polled, because it may have changed since the connection was opened.
            let now = *phase.borrow_and_update();
            match now {
                Phase::Serving => {}
                // A new connection is about to send its first request. Its client would take the end for a failure.
                Phase::Crowded(_) if activity.served() == 0 && activity.open() == 0 => {}
                Phase::Crowded(least) if slot.held() < least => {}
                Phase::Crowded(_) | Phase::Draining => end(connection.as_mut()),
            }
            tokio::select! {
                biased;
                ended = connection.as_mut() => return ended,
                changed = phase.changed(), if phases => phases = changed.is_ok(),
                () = watch.as_mut() => match activity.end_stalled(stall) {
                    StallCheck::LookAgain(next) => watch.as_mut().reset(next),
                    StallCheck::End => return Ok(()),
                },
                () = activity.is_unwelcome(), if is_welcome => {
                    is_welcome = false;
                    end(connection.as_mut());
                }
                () = activity.dismissed() => {
                    // A connection with a request in progress is cut off; others are closed gracefully.
                    if activity.open() > 0 || activity.served() == 0 {
                        return Ok(());
                    }
                    end(connection.as_mut());
                    return tokio::select! {
                        ended = tokio::time::timeout(CLOSE_TIMEOUT, connection) => ended.unwrap_or(Ok(())),
                        () = activity.is_cut_off() => Ok(()),
                    };
                }
            }
        }
    }
}

/// Completes when the server is ending.
async fn draining(phase: &mut watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase == Phase::Draining).await;
}
