//! A certificate and its key, read from two files in PEM.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use sha2::{Digest as _, Sha256};

use crate::watched::{self, Stamp};

/// The largest file that is read, in bytes: a chain has some KiB.
const MAX_FILE: u64 = 1 << 20;
/// What is spoken over TLS (RFC 7301), in the order of preference.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why a pair cannot be used, and what to do. Never holds any of the key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PairError {
    #[error("cannot use the {what} {file}: {problem}", file = file.display())]
    File {
        what: What,
        file: PathBuf,
        problem: TlsFileProblem,
    },
    #[error(
        "the key in {key} does not belong to the first certificate in {certificate}. Give the certificate and the key that \
         were made for one another; the server's own certificate stands first in its file, and those of authorities follow",
        key = key.display(),
        certificate = certificate.display()
    )]
    Mismatch { certificate: PathBuf, key: PathBuf },
}

/// Which of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Certificate,
    Key,
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate file",
            Self::Key => "key file",
        })
    }
}

/// What is wrong with one of the files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsFileProblem {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is larger than {MAX_FILE} bytes")]
    TooLarge,
    #[error("it is incomplete, or not PEM: {0}")]
    Pem(String),
    #[error("it holds no certificate; expected PEM (-----BEGIN CERTIFICATE-----), the server's own first")]
    NoCertificate,
    #[error("it holds no private key; expected PEM with an RSA, ECDSA or Ed25519 key (PKCS#8, PKCS#1 or SEC1)")]
    NoKey,
    #[error(
        "its key is encrypted, and a server cannot ask for a passphrase; write it without one: \
         `openssl pkey -in ENCRYPTED -out KEY`"
    )]
    Encrypted,
    #[error("it is not usable: {0}")]
    Tls(rustls::Error),
}

/// Where the pair is.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// The configuration of new connections, with the certificate that they show.
#[derive(Clone)]
pub(crate) struct CertifiedConfig {
    pub(crate) tls: Arc<ServerConfig>,
    /// The first certificate of the chain.
    certificate: Arc<CertificateDer<'static>>,
}

impl CertifiedConfig {
    /// Whether the certificate is for the host of this name.
    pub(crate) fn is_for(&self, name: &str) -> bool {
        let certificate = ParsedCertificate::try_from(&*self.certificate);
        let (Ok(certificate), Ok(name)) = (certificate, ServerName::try_from(name)) else {
            return false;
        };
        verify_server_name(&certificate, &name).is_ok()
    }
}

/// A pair that was read and found usable.
pub(super) struct Pair {
    pub(super) config: CertifiedConfig,
    /// Of the content of both files.
    pub(super) fingerprint: [u8; 32],
    stamps: [Stamp; 2],
    /// The permissions of the key's file.
    key_mode: u32,
}

impl Pair {
    /// The state of both files, if a later change of either would surely show.
    pub(super) fn settled(&self) -> Option<[Stamp; 2]> {
        Some(self.stamps).filter(|stamps| stamps.iter().all(Stamp::is_settled))
    }

    /// Whether others than the owner and the group of the key's file can do anything with it.
    pub(super) fn is_public(&self) -> bool {
        self.key_mode & 0o007 != 0
    }
}

impl Paths {
    /// The present state of both files; `None` if one is gone.
    pub(super) fn stamps(&self) -> Option<[Stamp; 2]> {
        Some([Stamp::now(&self.certificate)?, Stamp::now(&self.key)?])
    }

    /// Reads the pair.
    pub(super) fn read(&self) -> Result<Pair, PairError> {
        let certificate = self.file(What::Certificate)?;
        let key = self.file(What::Key)?;
        let chain = chain(&certificate.bytes).map_err(|problem| self.wrong(What::Certificate, problem))?;
        let private = private_key(&key.bytes).map_err(|problem| self.wrong(What::Key, problem))?;
        let mut hasher = Sha256::new();
        for bytes in [&certificate.bytes, &key.bytes] {
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        }
        let own = chain
            .first()
            .cloned()
            .ok_or_else(|| self.wrong(What::Certificate, TlsFileProblem::NoCertificate))?;
        Ok(Pair {
            config: CertifiedConfig {
                tls: Arc::new(self.config(chain, private)?),
                certificate: Arc::new(own),
            },
            fingerprint: hasher.finalize().into(),
            stamps: [certificate.stamp, key.stamp],
            key_mode: key.mode,
        })
    }

    fn file(&self, what: What) -> Result<watched::Read, PairError> {
        let read = watched::read(self.path(what), MAX_FILE).map_err(|error| self.wrong(what, error.into()))?;
        read.ok_or_else(|| self.wrong(what, TlsFileProblem::TooLarge))
    }

    fn path(&self, what: What) -> &Path {
        match what {
            What::Certificate => &self.certificate,
            What::Key => &self.key,
        }
    }

    fn wrong(&self, what: What, problem: TlsFileProblem) -> PairError {
        PairError::File {
            what,
            file: self.path(what).to_owned(),
            problem,
        }
    }

    fn config(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<ServerConfig, PairError> {
        let unusable = |what, error| self.wrong(what, TlsFileProblem::Tls(error));
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(What::Certificate, error))?
            .with_no_client_auth();
        // Alone first, so that an error of the key is not reported for the certificate.
        provider
            .key_provider
            .load_private_key(key.clone_key())
            .map_err(|error| unusable(What::Key, error))?;
        let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => PairError::Mismatch {
                certificate: self.certificate.clone(),
                key: self.key.clone(),
            },
            error => unusable(What::Certificate, error),
        })?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(config)
    }
}

/// The certificates of a file, in their order.
fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsFileProblem> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| broken(&error))?;
    if chain.is_empty() {
        return Err(TlsFileProblem::NoCertificate);
    }
    Ok(chain)
}

/// The first private key of a file.
fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsFileProblem> {
    let holds = |text: &[u8]| pem.windows(text.len()).any(|window| window == text);
    // PKCS#8, and the older form of OpenSSL.
    if holds(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || holds(b"Proc-Type: 4,ENCRYPTED") {
        return Err(TlsFileProblem::Encrypted);
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        PemError::NoItemsFound => TlsFileProblem::NoKey,
        error => broken(&error),
    })
}

/// What is wrong with a text in PEM, without any of it: it may be a key.
fn broken(error: &PemError) -> TlsFileProblem {
    TlsFileProblem::Pem(match error {
        PemError::MissingSectionEnd { .. } => "the line that ends a block is missing".into(),
        PemError::IllegalSectionStart { .. } => "a line that begins a block is malformed".into(),
        PemError::Base64Decode(_) => "a block is not base64".into(),
        _ => "it cannot be decoded".into(),
    })
}
