//! The accept loop: how many connections there are, and how all of them end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout_at};

use crate::connection::{self, Phase};
use crate::exchange::Service;
use crate::health::Health;

/// How often kept-alive connections are asked to make room while others wait.
const ASK_FOR_ROOM: Duration = Duration::from_secs(1);
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
    /// Ends when every operation that `service` runs to its end has ended, and `service` too, and a pass of collection.
    pub(crate) work: mpsc::Receiver<()>,
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
            mut work,
            max_connections,
            drain_timeout,
        } = self;
        let room = Arc::new(Semaphore::new(max_connections as usize));
        let (phase, told) = watch::channel(Phase::Serving);
        tokio::select! {
            biased;
            () = stop => {}
            () = accept(&listener, &service, &room, &phase, &told) => {}
        }
        // Closed first, so that clients are refused and turn elsewhere, and do not wait in the queue.
        drop(listener);
        health.drain();
        phase.send_replace(Phase::Draining);
        let deadline = Instant::now() + drain_timeout;
        let open = u64::from(max_connections).saturating_sub(room.available_permits() as u64);
        tracing::info!(
            connections = open,
            "draining: no new connections, requests in flight run to their end"
        );
        drop((service, told));
        let connections = timeout_at(deadline, room.acquire_many(max_connections)).await.is_ok();
        // What outlived its client. Nothing is ever sent: this is the end of all senders.
        let operations = timeout_at(deadline, work.recv()).await.is_ok();
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
    room: &Arc<Semaphore>,
    phase: &watch::Sender<Phase>,
    told: &watch::Receiver<Phase>,
) {
    loop {
        let (socket, peer) = next(listener).await;
        let permit = wait_for_room(room, phase).await;
        let (service, told) = (service.clone(), told.clone());
        tokio::spawn(async move {
            connection::serve(socket, peer, service, told).await;
            drop(permit);
        });
    }
}

/// Waits until the connection just accepted may be served. Those after it wait in the system's queue and are not
/// refused: some clients give up for good when they are. Connections that are kept for later requests make room.
async fn wait_for_room(room: &Arc<Semaphore>, phase: &watch::Sender<Phase>) -> OwnedSemaphorePermit {
    if let Ok(permit) = room.clone().try_acquire_owned() {
        return permit;
    }
    tracing::warn!("all connections are in use; new ones wait (--max-connections)");
    let permit = loop {
        phase.send_replace(Phase::Crowded);
        let permit = tokio::time::timeout(ASK_FOR_ROOM, room.clone().acquire_owned()).await;
        if let Ok(permit) = permit {
            break permit.expect("the semaphore is never closed");
        }
    };
    phase.send_replace(Phase::Serving);
    permit
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
