//! The flags of TLS.

use std::path::{Path, PathBuf};

use clap::Args;

use super::values;

#[derive(Args, Debug)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsArgs {
    /// Serve HTTPS with the certificate in this file (PEM): the server's own first, then those of the authorities between.
    /// HTTP/1.1 and HTTP/2, TLS 1.2 and 1.3. It is read again with its key when one of the files changes, and at SIGHUP;
    /// a pair that cannot be used changes nothing
    #[arg(long, env = values::TLS_CERT_VARIABLE, value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of the certificate (PEM, without a passphrase): RSA, ECDSA or Ed25519
    #[arg(long, env = "ROADSTEAD_TLS_KEY", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
}

impl TlsArgs {
    /// The certificate and its key; neither of them is given alone.
    pub(crate) fn pair(&self) -> Result<Option<(&Path, &Path)>, String> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
            (None, None) => Ok(None),
            (Some(_), None) => Err("--tls-cert needs --tls-key: the file with the key of the certificate".into()),
            (None, Some(_)) => Err("--tls-key needs --tls-cert: the file with the certificate of the key".into()),
        }
    }
}
