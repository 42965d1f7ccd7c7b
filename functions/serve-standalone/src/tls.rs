//! The certificate that clients see, and its key: two files that are read again when they change.
//!
//! The server checks both files at most once a second, when a connection is opened. Programs that renew certificates
//! replace one file after the other, or swap a link to both. So:
//!
//! * An unusable pair is ignored: new connections get the previous pair. If the next check finds the same fault, the
//!   log says what to do, and repeats it every ten minutes.
//! * A pair that changed just now is used if the next check finds the same pair. Until then one of the files may be
//!   half written.
//! * Open connections keep the certificate that they began with.
//!
//! SIGHUP reloads both files at once and skips the second check.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use async_trait::async_trait;

use crate::reload::Reload;
use crate::watched::{Complaint, Looks, Stamp};

mod pair;
mod probe;

pub(crate) use pair::PairError;
use pair::{CertifiedConfig, Pair, Paths};
pub(crate) use probe::without_verification;

/// A certificate and its key, as their files have them now.
#[derive(Clone)]
pub(crate) struct TlsFiles(Arc<WatchedPair>);

struct WatchedPair {
    paths: Paths,
    known: RwLock<PairState>,
    looks: Looks,
}

/// What is known of the files.
struct PairState {
    served: Pair,
    /// The state in which the files were last read, if they need not be read again in that state.
    read: Option<[Stamp; 2]>,
    /// The fingerprint of the pair that was just read. The pair is used if the next check finds the same.
    pending: Option<[u8; 32]>,
    /// The fault that was just found. It is logged if the next check finds the same.
    doubt: Option<String>,
    complaint: Complaint,
}

impl fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsFiles")
            .field("paths", &self.0.paths)
            .finish_non_exhaustive()
    }
}

impl TlsFiles {
    /// Reads both files for the first time. Fails if they are not usable.
    pub(crate) fn open(certificate: &Path, key: &Path) -> Result<Self, PairError> {
        let paths = Paths {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        };
        let served = paths.read()?;
        warn_of_readers(&paths.key, &served);
        let known = PairState {
            read: served.settled(),
            served,
            pending: None,
            doubt: None,
            complaint: Complaint::default(),
        };
        Ok(Self(Arc::new(WatchedPair {
            paths,
            known: RwLock::new(known),
            looks: Looks::new(),
        })))
    }

    /// The configuration for a new connection. Checks the files first if a check is due.
    pub(crate) async fn current(&self) -> CertifiedConfig {
        let pair = self.0.clone();
        self.0.looks.when_due(move || pair.read_again(false)).await;
        self.0.known().served.config.clone()
    }
}

#[async_trait]
impl Reload for TlsFiles {
    async fn reload(&self) {
        let pair = self.0.clone();
        self.0.looks.now(move || pair.read_again(true)).await;
    }
}

impl WatchedPair {
    fn known(&self) -> RwLockReadGuard<'_, PairState> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_again(&self, asked: bool) {
        let before = self.known().read;
        if !asked && before.is_some() && self.paths.stamps() == before {
            return;
        }
        self.learn(self.paths.read(), asked);
    }

    fn learn(&self, result: Result<Pair, PairError>, asked: bool) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let pair = match result {
            Ok(pair) => pair,
            Err(error) => return known.complain(&error, asked),
        };
        known.doubt = None;
        if known.complaint.end() {
            tracing::info!(certificate = ?self.paths.certificate, key = ?self.paths.key, "the certificate and its key are usable again");
        }
        known.read = pair.settled();
        let pending = known.pending.take();
        if pair.fingerprint == known.served.fingerprint {
            if asked {
                tracing::info!(certificate = ?self.paths.certificate, "the certificate and its key were read again and are the same");
            }
            return;
        }
        if !asked && known.read.is_none() && pending != Some(pair.fingerprint) {
            known.pending = Some(pair.fingerprint);
            return;
        }
        tracing::info!(
            certificate = ?self.paths.certificate,
            "the certificate has changed: new connections get it"
        );
        warn_of_readers(&self.paths.key, &pair);
        known.served = pair;
    }
}

impl PairState {
    fn complain(&mut self, error: &PairError, asked: bool) {
        self.read = None;
        self.pending = None;
        let text = error.to_string();
        let seen_before = self.doubt.as_ref() == Some(&text);
        if !asked && !seen_before {
            tracing::debug!("{text}; the previous certificate stays in use, and the files are checked again");
            self.doubt = Some(text);
            return;
        }
        if self.complaint.is_due(&text, asked) {
            tracing::error!("{text}. The previous certificate stays in use until this is repaired");
        }
        self.doubt = Some(text);
    }
}

/// Says that others than the owner and the group can read the key.
fn warn_of_readers(key: &Path, pair: &Pair) {
    if pair.is_public() {
        tracing::warn!(
            file = ?key,
            "every user of this host can read or change the key of the certificate: `chmod o-rwx` the file (in Kubernetes, \
             give the volume defaultMode: 0440 and the pod an fsGroup)"
        );
    }
}

#[cfg(test)]
mod tests;
