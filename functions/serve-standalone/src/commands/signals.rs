//! Signals: SIGTERM and SIGINT end a command; SIGHUP makes a server read its files again.

use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::logging;
use crate::reload::Reload;

/// The exit code of an interrupted process, by the convention of shells.
const INTERRUPTED: i32 = 130;

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

    /// Completes at the first signal. The second signal ends the process at once.
    pub(super) async fn first(mut self) {
        self.next().await;
        tokio::spawn(async move {
            self.next().await;
            tracing::warn!("received a second signal: ending at once");
            logging::flush();
            std::process::exit(1);
        });
    }
}

/// At the first SIGTERM or SIGINT, runs `last` and ends the process. For commands without a runtime.
pub(super) fn end_after(last: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let runtime = runtime()?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::new()?
    };
    std::thread::spawn(move || {
        runtime.block_on(signals.next());
        last();
        std::process::exit(INTERRUPTED);
    });
    Ok(())
}

/// From now on, SIGHUP does not end the process. [`Hangups`] receives the signal.
pub(super) fn ignore_hangups() -> std::io::Result<()> {
    // The signal handler stays installed when the runtime has ended.
    let runtime = runtime()?;
    let _inside = runtime.enter();
    signal(SignalKind::hangup()).map(drop)
}

/// A runtime that only waits for signals.
fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_io().build()
}

/// Receives SIGHUP, from its creation on.
pub(super) struct Hangups(Signal);

impl Hangups {
    pub(super) fn new() -> std::io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Reads `files` again at each signal, without end. A signal that came before this call counts too.
    pub(super) async fn reload(mut self, files: Vec<Arc<dyn Reload>>) {
        while self.0.recv().await.is_some() {
            if files.is_empty() {
                tracing::info!("SIGHUP: there are no files to read again");
                continue;
            }
            tracing::info!("SIGHUP: reading files again");
            for file in &files {
                file.reload().await;
            }
        }
    }
}
