//! The accept loop: how many connections there are, and how all of them end.

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

/// Between two attempts to accept while the process or the system is out of something, such as file descriptors.
const OUT_OF_RESOURCES: Duration = Duration::from_millis(100);

/// How the server has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Everything in flight ran to its end.
    Whole,
    /// Something was still in flight when the time was up.
    Cut,
}

/// A server that has not begun to accept.
pub(crate) struct Server {
    pub(crate) listener: TcpListener,
    pub(crate) service: Arc<Service>,
    pub(crate) health: Arc<Health>,
    /// Every operation that `service` runs to its end, and the passes of collection.
    pub(crate) work: TaskTracker,
    pub(crate) max_connections: u32,
    pub(crate) drain_timeout: Duration,
}

impl Server {
    /// Accepts connections until `stop` completes, then lets what is in flight run to its end.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>) -> Drained {
        let Self {
            listener,
            service,
            health,
            work,
            max_connections,
            drain_timeout,
        } = self;
        let (phase, told) = watch::channel(Phase::Serving);
        let connections = Connections::new(max_connections as usize, phase);
        tokio::select! {
            biased;
            () = stop => {}
            () = accept(&listener, &service, &connections, &told) => {}
        }
        // Closed first, so that clients are refused and turn elsewhere, and do not wait in the queue.
        drop(listener);
        health.drain();
        connections.drain();
        let deadline = Instant::now() + drain_timeout;
        tracing::info!(
            connections = connections.count(),
            "draining: no new connections, requests in flight run to their end"
        );
        drop((service, told));
        let connections = timeout_at(deadline, connections.empty()).await.is_ok();
        // What outlived its client.
        work.close();
        let operations = timeout_at(deadline, work.wait()).await.is_ok();
        if connections && operations {
            Drained::Whole
        } else {
            Drained::Cut
        }
    }
}

/// Accepts for ever.
async fn accept(
    listener: &TcpListener,
    service: &Arc<Service>,
    connections: &Connections,
    told: &watch::Receiver<Phase>,
) {
    loop {
        let (socket, peer) = next(listener).await;
        let activity = Arc::new(Activity::new());
        let Some((counted, admission)) = connections.admit(peer.ip(), activity.clone()).await else {
            // Closed without a word: whatever is said to so many takes more than it gives.
            tracing::debug!(%peer, "a connection is refused: its client has too many (--max-connections)");
            continue;
        };
        let (service, told) = (service.clone(), told.clone());
        tokio::spawn(async move {
            connection::serve(socket, peer, activity, admission, service, told).await;
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
                    "no connection can be accepted now"
                );
                tokio::time::sleep(OUT_OF_RESOURCES).await;
            }
        }
    }
}

/// Whether the connection went away while it was waiting to be accepted.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
