//! What of the log is the same in every shell: its forms, and the events that are never written.

use tracing::{Level, Metadata};

/// In which form lines of the log are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Whether an event may be written at all, whatever level was asked for: below the level INFO, the libraries for HTTP and
/// TLS write the bytes of requests, which may be secrets, and the AWS SDK writes what it signs, and with what result.
#[must_use]
pub fn is_harmless(event: &Metadata<'_>) -> bool {
    let library = event.target().split("::").next().unwrap_or_default();
    let tells_bytes = ["h2", "hyper", "hyper_util", "hyper_rustls", "rustls", "tokio_rustls"].contains(&library);
    *event.level() <= Level::INFO || !(tells_bytes || library.starts_with("aws_"))
}
