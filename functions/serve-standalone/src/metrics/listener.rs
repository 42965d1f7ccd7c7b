//! A separate address for `/metrics`, so that clients of the registry cannot read the metrics.
//!
//! No client needs a password here. So this server refuses requests that a browser sends for a page of another site. On
//! loopback it also refuses all host names except those of this machine and those that are allowed, as the registry
//! does when it needs no password.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use registry::{Host, HostPolicy, ResponseBody};
use shell::access::Exposure;
use shell::settings::ALLOW_HOST;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Metrics;
use crate::cli::flag;

/// Maximum number of connections: enough for a few Prometheus servers and a user.
const CONNECTIONS: usize = 16;
/// Maximum time of a connection, which has one request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two attempts to accept a connection while the process has no file descriptors left.
const OUT_OF_RESOURCES: Duration = Duration::from_millis(100);

/// Serves metrics until it is dropped.
#[derive(Debug)]
pub(crate) struct MetricsListener {
    /// The address on which it listens.
    pub(crate) address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl MetricsListener {
    /// Listens on `address`; port 0 takes a free port. On a loopback address, only requests for the names of this machine
    /// and for the hosts in `allowed` are answered.
    pub(crate) async fn open(address: SocketAddr, metrics: Arc<Metrics>, allowed: Vec<Host>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let hosts = HostPolicy {
            only: (Exposure::of(address.ip()) == Exposure::Loopback).then_some(allowed),
            setting: Some(flag(ALLOW_HOST)),
            refuse_other_sites: true,
        };
        Ok(Self {
            address: listener.local_addr()?,
            task: tokio::spawn(accept(listener, metrics, Arc::new(hosts))),
        })
    }
}

impl Drop for MetricsListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, metrics: Arc<Metrics>, hosts: Arc<HostPolicy>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = connections
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((socket, _)) => {
                let (metrics, hosts) = (metrics.clone(), hosts.clone());
                tokio::spawn(async move {
                    // No scraper is slower than that.
                    let _ = tokio::time::timeout(TIMEOUT, serve(socket, metrics, hosts)).await;
                    drop(permit);
                });
            }
            Err(_) => tokio::time::sleep(OUT_OF_RESOURCES).await,
        }
    }
}

async fn serve(socket: TcpStream, metrics: Arc<Metrics>, hosts: Arc<HostPolicy>) {
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (head, _) = request.into_parts();
        let response = if let Some(refusal) = hosts.refuse(&head) {
            refusal
        } else if head.uri.path() == "/metrics" {
            metrics.answer(&head.method)
        } else {
            let mut response = Response::new(ResponseBody::full("the metrics are at /metrics\n".into()));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        };
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(TIMEOUT)
        // Each scrape has its own connection: the timeout would end a connection with several requests within a response.
        .keep_alive(false)
        .serve_connection(TokioIo::new(socket), service);
    // A scraper that closes its connection is not logged.
    let _ = connection.await;
}
