//! Where log lines go, and in which form.

use std::fmt::Display;
use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::cli::LogFormat;

/// The form that was asked for, or else text on a terminal and JSON everywhere else.
pub(crate) fn format(asked: Option<LogFormat>) -> LogFormat {
    asked.unwrap_or(if stderr().is_terminal() {
        LogFormat::Text
    } else {
        LogFormat::Json
    })
}

/// Sends all events at or above `filter` to standard error. `filter` is a level (`info`), or a list of targets with a
/// level each (`info,access=off`).
pub(crate) fn init(format: LogFormat, filter: &str) -> Result<(), impl Display + use<>> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::WARN.into())
        .parse(filter)
        .map_err(|error| error.to_string())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match format {
        LogFormat::Text => builder
            .with_ansi(stderr().is_terminal())
            .try_init()
            .map_err(|error| error.to_string())?,
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init()
            .map_err(|error| error.to_string())?,
    }
    // A panic is a line of the log like any other, in its form and without control characters.
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("unknown");
        let place = panic.location().map(ToString::to_string);
        tracing::error!(message, place, "panic");
    }));
    Ok::<(), String>(())
}
