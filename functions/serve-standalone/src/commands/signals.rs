//! SIGTERM and SIGINT, which end what goes on for long; SIGHUP, which makes a server read its files again.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::logging;
use crate::reload::Reload;

/// SIGTERM and SIGINT.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Completes at the first signal. The second ends the process at once.
    pub(super) async fn first(mut self) {
        self.next().await;
        tokio::spawn(async move {
            self.next().await;
            tracing::warn!("a second signal: ending at once");
            logging::flush();
            std::process::exit(1);
        });
    }
}

/// SIGHUP. From the moment that this exists the signal does not end the process any more, also when this is gone.
pub(super) struct Hangups(Signal);

impl Hangups {
    pub(super) fn new() -> std::io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Reads `files` again at every signal, for ever. One that came before this began counts.
    pub(super) async fn reload(mut self, files: Vec<Arc<dyn Reload>>) {
        while self.0.recv().await.is_some() {
            if files.is_empty() {
                tracing::info!("SIGHUP: there is no file to read again");
                continue;
            }
            tracing::info!("SIGHUP: reading files again");
            for file in &files {
                file.reload().await;
            }
        }
    }
}
