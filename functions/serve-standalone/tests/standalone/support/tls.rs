//! An authority of a test, certificates from it, and clients that trust only this authority.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use super::{Http1Client, MAX_WAIT, Server};

/// A client's end of a connection with TLS.
pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Signs certificates for localhost.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate for localhost and its key.
pub(crate) struct Pair {
    pub(crate) certificate: CertificateDer<'static>,
    /// PKCS#8.
    key: Vec<u8>,
}

/// A block of PEM.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

impl Pair {
    pub(crate) fn certificate_pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    pub(crate) fn key_pem(&self) -> String {
        pem("PRIVATE KEY", &self.key)
    }

    /// The key in the form of SEC 1, which is the last part of the other one.
    pub(crate) fn sec1_pem(&self) -> String {
        let mark = [0x04, 0x6d, 0x30, 0x6b];
        let at = self.key.windows(mark.len()).position(|bytes| bytes == mark).unwrap();
        pem("EC PRIVATE KEY", &self.key[at + 2..at + 2 + 0x6d])
    }

    /// Writes `tls.crt` and `tls.key`, one after the other.
    pub(crate) fn write(&self, folder: &Path) {
        replace(&folder.join("tls.crt"), &self.certificate_pem());
        replace(&folder.join("tls.key"), &self.key_pem());
    }
}

/// Puts a file in the place of another one at once, as programs that renew certificates do; readable by its owner alone.
pub(crate) fn replace(file: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let new = file.with_extension("new");
    let mut written = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .unwrap();
    written.write_all(text.as_bytes()).unwrap();
    std::fs::rename(new, file).unwrap();
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn issue(&self) -> Pair {
        self.issue_for(&["localhost", "127.0.0.1"])
    }

    /// A certificate for other names.
    pub(crate) fn issue_for(&self, names: &[&str]) -> Pair {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        Pair {
            certificate: certificate.der().clone(),
            key: key.serialize_der(),
        }
    }

    /// A client that trusts this authority and speaks `protocols`, in TLS 1.2 alone if `old`.
    pub(crate) fn client(&self, protocols: &[&str], old: bool) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[if old { &TLS12 } else { &TLS13 }])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A server with TLS, and users and data in `folder`, where a pair of this authority is.
    pub(crate) fn serve_in(folder: Arc<TempDir>, flags: &[&str]) -> Server {
        Server::start_in(
            folder,
            &[&["--tls-cert", "tls.crt", "--tls-key", "tls.key"], flags].concat(),
        )
    }

    /// The same in a folder of its own, with a new pair.
    pub(crate) fn serve(&self, flags: &[&str]) -> Server {
        let folder = Arc::new(TempDir::new().unwrap());
        self.issue().write(folder.path());
        Self::serve_in(folder, flags)
    }

    /// An HTTP/1.1 client whose handshake has ended.
    pub(crate) fn connect(&self, server: SocketAddr) -> Http1Client<TlsStream> {
        self.try_connect(server).unwrap()
    }

    pub(crate) fn try_connect(&self, server: SocketAddr) -> std::io::Result<Http1Client<TlsStream>> {
        let socket = TcpStream::connect_timeout(&server, MAX_WAIT)?;
        shake(socket, self.client(&["http/1.1"], false)).map(Http1Client::over)
    }
}

/// Shakes hands over a socket.
pub(crate) fn shake(socket: TcpStream, config: Arc<ClientConfig>) -> std::io::Result<TlsStream> {
    shake_with(socket, config, "localhost")
}

/// The same, with a server of this name or address.
pub(crate) fn shake_with(socket: TcpStream, config: Arc<ClientConfig>, name: &str) -> std::io::Result<TlsStream> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(MAX_WAIT))?;
    socket.set_write_timeout(Some(MAX_WAIT))?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = ClientConnection::new(config, name).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// The certificate that the server has shown.
pub(crate) fn shown(stream: &TlsStream) -> CertificateDer<'static> {
    stream.conn.peer_certificates().unwrap()[0].clone()
}
