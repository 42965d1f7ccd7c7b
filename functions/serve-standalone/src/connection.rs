//! One connection: HTTP/1.1 or HTTP/2 (by ALPN under TLS, by prior knowledge without), until it ends or is told to.
//!
//! What limits a client's time is spread over the places that can see it:
//!
//! | a client that… | is met in | after |
//! |---|---|---|
//! | opens a connection and sends nothing, or sends a head slowly | [`transport::stream`](crate::transport) | `header_timeout` |
//! | does not end the handshake of TLS | [`transport::handshake`](crate::transport) | `header_timeout`, which is for the first head too |
//! | keeps a connection without using it | [`transport::stream`](crate::transport) | `keep_alive`, from the last byte written |
//! | sends a body and stalls | [`transport::request_body`](crate::transport) | `idle_timeout` |
//! | reads next to nothing of what it is sent | [`transport::transfer`](crate::transport), for each answer; [`transport::stream`](crate::transport), for everything | `stall_timeout` |
//! | trickles, in either direction | [`transport::request_body`](crate::transport), [`transport::transfer`](crate::transport) | `request_timeout` |
//! | reads an answer slowly while others wait for its memory | [`transport::transfer`](crate::transport) | 5 s |
//! | keeps others out, and gets on less than they would | [`crate::connections`] | at once |
//! | goes on asking although there is no place for its requests | [`transport::activity`](crate::transport) | 64 refusals |
//! | is gone without a word, under HTTP/2 | pings | 50 s |

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use registry::budget::ClientKey;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::connections::{ConnectionPlace, Phase};
use crate::exchange::Service;
use crate::transport::{Activity, GuardedStream, LOOK, Socket, StreamExecutor, Verdict, shake};

/// Bytes of a request's head, on both versions: a token alone may take 12 KiB.
const MAX_HEAD: u32 = 32 << 10;
/// Header fields of a request.
const MAX_FIELDS: usize = 100;
/// Streams of one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;
/// Streams of one HTTP/2 connection that were ended for a fault of the client's and of which more frames may come, before
/// the connection is ended.
const MAX_FAULTY_STREAMS: usize = 64;
/// Bytes of a response that wait in one HTTP/2 stream.
const STREAM_SEND_BUFFER: usize = 256 << 10;
/// Bytes that the system takes of what cannot be sent yet. What it has taken counts as written, so it must not be much:
/// with megabytes there, a slow reader would be met only after minutes, and all of them would take more memory than this
/// process does. It is the size of the largest part that is written at once (`response_body::PART`), because what the
/// system leaves of a part takes another call, and another turn. Linux asks for more when half of it was sent: so the
/// progress of a slow reader shows in steps of 128 KiB.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 256 << 10;
/// How long a connection that was told to leave may take to say goodbye, unless others wait for it to go.
const GOODBYE: Duration = Duration::from_secs(1);
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_PATIENCE: Duration = Duration::from_secs(20);

/// Serves one connection to its end.
pub(crate) async fn serve(
    socket: TcpStream,
    peer: SocketAddr,
    activity: Arc<Activity>,
    place: ConnectionPlace,
    service: Arc<Service>,
    mut phase: watch::Receiver<Phase>,
) {
    // Answers are written whole; waiting to fill a packet would only delay them.
    let _ = socket.set_nodelay(true);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket2::SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT);
    let timeouts = service.timeouts();
    let opening = async {
        let socket = match &service.tls {
            None => Socket::Plain(socket),
            Some(tls) => shake(socket, tls, activity.born() + timeouts.header).await?,
        };
        let mut stream = GuardedStream::new(socket, activity.clone(), timeouts);
        // What ALPN has chosen is not asked: the client's first bytes tell the same, and are waited for in any case.
        stream.is_http2().await.map(|multiplexed| (stream, multiplexed))
    };
    let opened = tokio::select! {
        biased;
        opened = opening => opened,
        () = draining(&mut phase) => return,
        () = activity.dismissed() => return,
    };
    let (mut stream, multiplexed) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            tracing::debug!(%peer, error = &error as &dyn std::error::Error, "connection ended before its first request");
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
        let (activity, place) = (activity.clone(), place.clone());
        service_fn(move |request| service.clone().exchange(request, activity.clone(), place.clone(), peer))
    };
    let io = TokioIo::new(stream);
    let drive = Drive {
        activity: &activity,
        place: &place,
        phase,
        stall: timeouts.stall,
    };
    let ended = if multiplexed {
        let connection = http2::Builder::new(StreamExecutor)
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_PATIENCE)
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
            // The stream has better means: it tells a slow head from an idle connection.
            .header_read_timeout(None)
            .max_headers(MAX_FIELDS)
            .max_header_size(MAX_HEAD as usize)
            .max_buf_size(buffer.bytes as usize)
            .serve_connection(io, exchange);
        drive.run(connection, http1::Connection::graceful_shutdown).await
    };
    if let Err(error) = ended {
        // A client that hangs up or talks nonsense is no event for the operator.
        tracing::debug!(%peer, error = &error as &dyn std::error::Error, "connection ended early");
    }
}

/// What runs a connection to its end.
struct Drive<'a> {
    activity: &'a Activity,
    place: &'a ConnectionPlace,
    phase: watch::Receiver<Phase>,
    stall: Duration,
}

impl Drive<'_> {
    /// Runs it, and asks it to end (with `end`) when it has to.
    async fn run<C: Future<Output = hyper::Result<()>>>(
        self,
        connection: C,
        end: fn(Pin<&mut C>),
    ) -> hyper::Result<()> {
        let Self {
            activity,
            place,
            mut phase,
            stall,
        } = self;
        let mut connection = pin!(connection);
        let mut watch = pin!(sleep_until(Instant::now() + stall.min(LOOK)));
        let mut phases = true;
        let mut is_welcome = true;
        loop {
            // Read before the connection is polled: a phase that began while it was set up must be seen.
            let told = *phase.borrow_and_update();
            match told {
                Phase::Serving => {}
                // A client that has just connected is about to ask; it would take this for a failure.
                Phase::Crowded(_) if activity.served() == 0 && activity.open() == 0 => {}
                Phase::Crowded(least) if place.held() < least => {}
                Phase::Crowded(_) | Phase::Draining => end(connection.as_mut()),
            }
            tokio::select! {
                biased;
                ended = connection.as_mut() => return ended,
                changed = phase.changed(), if phases => phases = changed.is_ok(),
                () = watch.as_mut() => match activity.end_stalled(stall) {
                    Verdict::LookAgain(next) => watch.as_mut().reset(next),
                    Verdict::End => return Ok(()),
                },
                () = activity.is_unwelcome(), if is_welcome => {
                    is_welcome = false;
                    end(connection.as_mut());
                }
                () = activity.dismissed() => {
                    // Somebody who waits for an answer is cut off; others may hear of it.
                    if activity.open() > 0 || activity.served() == 0 {
                        return Ok(());
                    }
                    end(connection.as_mut());
                    return tokio::select! {
                        ended = tokio::time::timeout(GOODBYE, connection) => ended.unwrap_or(Ok(())),
                        () = activity.is_cut_off() => Ok(()),
                    };
                }
            }
        }
    }
}

/// Completes when the server ends.
async fn draining(phase: &mut watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase == Phase::Draining).await;
}
