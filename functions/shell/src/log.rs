//! The log: its formats, its filter, and the events that are never written. `init` needs the feature `native`.

#[cfg(feature = "native")]
mod subscriber;

use tracing::{Level, Metadata};

#[cfg(feature = "native")]
pub use self::subscriber::init;

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Whether an event may be logged, independent of the configured level. Below the level INFO, the libraries for HTTP and TLS
/// log the bytes of requests, which may contain secrets, and the AWS SDK logs the requests that it signs, with the
/// signatures.
#[must_use]
pub fn is_harmless(event: &Metadata<'_>) -> bool {
    let library = event.target().split("::").next().unwrap_or_default();
    let tells_bytes = ["h2", "hyper", "hyper_util", "hyper_rustls", "rustls", "tokio_rustls"].contains(&library);
    *event.level() <= Level::INFO || !(tells_bytes || library.starts_with("aws_"))
}
