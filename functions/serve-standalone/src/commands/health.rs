//! `roadstead health`: asks a running server for its health, and makes an exit code of the answer.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::store;
use crate::cli::HealthArgs;
use crate::failure::Failure;
use crate::tls;

/// The longest answer that is read, in bytes. An answer of the server has a few lines.
const MAX_ANSWER: usize = 16 << 10;

/// Asks the server, prints its answer, and fails if that is not 200.
pub(super) fn run(args: &HealthArgs) -> Result<(), Failure> {
    let address = reachable(args.listen);
    if address.port() == 0 {
        return Err(Failure::Usage(
            "a server cannot be asked at port 0: give the port that the server has printed, with --listen".into(),
        ));
    }
    let path = match (args.live, args.push) {
        (true, _) => "/livez",
        (false, true) => "/readyz?push",
        (false, false) => "/readyz",
    };
    let (status, answer) = store::run(async {
        let asked = tokio::time::timeout(args.timeout.0, ask(address, path, args.tls)).await;
        let late = |_| Failure::Failed(format!("{address} has not answered within --timeout"));
        asked.map_err(late)?.map_err(|error| {
            let attempt = format!(
                "cannot reach {scheme}://{address}{path}; is the server running at this address{hint}?",
                scheme = if args.tls { "https" } else { "http" },
                hint = if args.tls { " with TLS" } else { "" },
            );
            Failure::failed(attempt, error)
        })
    })?;
    let mut output = io::stdout().lock();
    let is_healthy = status == StatusCode::OK;
    if args.json {
        let answer = answer.trim_end();
        writeln!(
            output,
            "{}",
            json!({ "healthy": is_healthy, "status": status.as_u16(), "answer": answer })
        )?;
    } else {
        writeln!(output, "{}", answer.trim_end())?;
    }
    if is_healthy {
        return Ok(());
    }
    if status == StatusCode::BAD_REQUEST && !args.tls {
        return Err(Failure::Failed(format!(
            "the server has answered {path} with {status}; if it has TLS, add --tls"
        )));
    }
    Err(Failure::Failed(format!("the server has answered {path} with {status}")))
}

/// The address at which a server that listens on `address` is reached from its own host.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn ask(
    address: SocketAddr,
    path: &str,
    tls: bool,
) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>> {
    let socket = TcpStream::connect(address).await?;
    if !tls {
        return ask_over(socket, address, path).await;
    }
    let connector = TlsConnector::from(Arc::new(tls::without_verification()?));
    let stream = connector.connect(address.ip().into(), socket).await?;
    ask_over(stream, address, path).await
}

async fn ask_over(
    socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    address: SocketAddr,
    path: &str,
) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    // This task ends with the runtime, after the answer.
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await?;
    Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_server_that_listens_everywhere_is_asked_on_loopback() {
        for (listens, asked) in [
            ("0.0.0.0:5000", "127.0.0.1:5000"),
            ("[::]:5000", "[::1]:5000"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ] {
            let asked: SocketAddr = asked.parse().unwrap();
            assert_eq!(reachable(listens.parse().unwrap()), asked);
        }
    }
}
