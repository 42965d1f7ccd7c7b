//! The TLS handshake of a connection.

use std::io;
use std::time::Duration;

use registry::Host;
use registry::auth::CertifiedHost;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::socket::{CountingSocket, LEAST_PENDING, Socket};
use crate::tls::TlsFiles;

/// The first byte of every connection with TLS: the type of its first record (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
/// The answer to plain HTTP. Version and text are those of other servers.
const PLAIN_HTTP: &[u8] = b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
    client sent an HTTP request to an HTTPS server; use https\n";
/// Maximum time in which a client reads that answer, and maximum size of its request that is read meanwhile, in bytes.
const LINGER: Duration = Duration::from_secs(3);
const MAX_DISCARDED: usize = 1 << 20;

/// Does the TLS handshake, which must end before `deadline`. An error ends the connection. The host is the one that the client
/// has asked for, if the certificate is for it.
pub(crate) async fn shake(
    socket: TcpStream,
    tls: &TlsFiles,
    deadline: Instant,
) -> io::Result<(Socket, Option<CertifiedHost>)> {
    let shaken = timeout_at(deadline, async {
        let mut first = [0];
        if socket.peek(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Methods of HTTP are letters. Other bytes that are not TLS are answered with an alert.
        if first[0] != HANDSHAKE && first[0].is_ascii_alphabetic() {
            refuse(socket).await;
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the client sends plain HTTP to an address with TLS",
            ));
        }
        let config = tls.current().await;
        let acceptor = TlsAcceptor::from(config.tls.clone());
        let bound = |connection: &mut rustls::ServerConnection| connection.set_buffer_limit(Some(LEAST_PENDING));
        let stream = acceptor.accept_with(CountingSocket::new(socket), bound).await?;
        let (_, session) = stream.get_ref();
        let name = session.server_name().filter(|name| config.is_for(name));
        let host = name.and_then(|name| name.parse::<Host>().ok());
        Ok((Socket::Tls(Box::new(stream)), host.map(CertifiedHost)))
    });
    let late = |_| {
        io::Error::new(
            io::ErrorKind::TimedOut,
            "the client has not completed the TLS handshake in time",
        )
    };
    shaken.await.map_err(late)?
}

/// Answers a client that sends plain HTTP, and reads its request. If the request were not read, closing the connection would
/// reset it, and the client could lose the answer.
async fn refuse(mut socket: TcpStream) {
    let _ = timeout(LINGER, async {
        socket.write_all(PLAIN_HTTP).await?;
        socket.shutdown().await?;
        let mut scratch = [0; 4096];
        let mut discarded = 0;
        while discarded < MAX_DISCARDED {
            match socket.read(&mut scratch).await? {
                0 => break,
                read => discarded += read,
            }
        }
        io::Result::Ok(())
    })
    .await;
}
