//! The accept loop, and the end of all connections when the server ends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use crate::connection;
use crate::connections::{Connections, Phase};
use crate::exchange::Service;
use crate::transport::Activity;
use shell::health::Health;

/// Time between two attempts to accept a connection while a resource is exhausted, such as file descriptors.
const OUT_OF_RESOURCES: Duration = Duration::from_millis(100);

/// How the server has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// All requests in progress ran to their end.
    Whole,
    /// Some requests were still in progress at the timeout.
    Cut,
}

/// A server that does not accept connections yet.
pub(crate) struct Server {
    pub(crate) listener: TcpListener,
    pub(crate) service: Arc<Service>,
    pub(crate) health: Arc<Health>,
    /// The operations that `service` runs to their end, and the collection passes.
    pub(crate) work: TaskTracker,
    pub(crate) max_connections: u32,
    pub(crate) drain_timeout: Duration,
}

impl Server {
    /// Accepts connections until `stop` completes. Then waits until the requests in progress end, or the drain timeout.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>) -> Drained {
        let Self {
            listener,
            service,
            health,
            work,
            max_connections,
            drain_timeout,
        } = self;
        let (phase, seen) = watch::channel(Phase::Serving);
        let connections = Connections::new(max_connections as usize, phase);
        tokio::select! {
            biased;
            () = stop => {}
            () = accept(&listener, &service, &connections, &seen) => {}
        }
        // The listener is closed first, so that new clients are refused and try another server, and do not wait in its queue.
        drop(listener);
        health.drain();
        connections.drain();
        let deadline = Instant::now() + drain_timeout;
        tracing::info!(
            connections = connections.count(),
            "draining: no new connections are accepted, requests in progress run to their end"
        );
        drop((service, seen));
        let connections = timeout_at(deadline, connections.empty()).await.is_ok();
        // Operations whose clients have gone may still run.
        work.close();
        let operations = timeout_at(deadline, work.wait()).await.is_ok();
        if connections && operations {
            Drained::Whole
        } else {
            Drained::Cut
        }
    }
}

/// Accepts connections without end.
async fn accept(
    listener: &TcpListener,
    service: &Arc<Service>,
    connections: &Connections,
    seen: &watch::Receiver<Phase>,
) {
    loop {
        let (socket, peer) = next(listener).await;
        let activity = Arc::new(Activity::new());
        let Some((counted, admission)) = connections.admit(peer.ip(), activity.clone()).await else {
            // It is closed without an answer, because answers to so many connections would cost too much.
            tracing::debug!(%peer, "a connection is refused, because its client has too many (--max-connections)");
            continue;
        };
        let (service, seen) = (service.clone(), seen.clone());
        tokio::spawn(async move {
            connection::serve(socket, peer, activity, admission, service, seen).await;
            drop(counted);
        });
    }
}

async fn next(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot accept connections now; trying again"
                );
                tokio::time::sleep(OUT_OF_RESOURCES).await;
            }
        }
    }
}

/// Whether the client closed the connection before it was accepted.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
