//! The log: its format, its filter, and its output on standard error.

use std::io::{IsTerminal as _, stderr};
use std::sync::OnceLock;
use std::thread;

use shell::log::{LogFormat, is_harmless};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

mod sink;

pub(crate) use sink::Sink;

/// The log of this process, after [`init`].
static LOG: OnceLock<Log> = OnceLock::new();

/// The destination and the format of log lines.
pub(crate) struct Log {
    pub(crate) sink: Sink,
    pub(crate) format: LogFormat,
}

/// The format that was asked for; otherwise text on a terminal, and JSON everywhere else.
pub(crate) fn format(asked: Option<LogFormat>) -> LogFormat {
    asked.unwrap_or(if stderr().is_terminal() {
        LogFormat::Text
    } else {
        LogFormat::Json
    })
}

/// Sends all events at or above `filter` to standard error. `filter` is a level (`info`), or a list of targets with a
/// level each (`info,access=off`).
pub(crate) fn init(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::WARN.into())
        .parse(filter)
        .map_err(|error| error.to_string())?;
    let log = LOG.get_or_init(|| Log {
        sink: Sink::default(),
        format,
    });
    let events = tracing_subscriber::registry().with(filter).with(filter_fn(is_harmless));
    let lines = tracing_subscriber::fmt::layer().with_writer(|| &log.sink);
    match format {
        LogFormat::Text => events.with(lines.with_ansi(stderr().is_terminal())).try_init(),
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true);
            events
                .with(lines.with_current_span(false).with_span_list(false))
                .try_init()
        }
    }
    .map_err(|error| error.to_string())?;
    thread::Builder::new()
        .name("log".into())
        .spawn(|| log.sink.drain(stderr(), |count| lost_lines(log.format, count)))
        .map_err(|error| error.to_string())?;
    // A panic is a log line like all others, in the same format and without control characters.
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("unknown");
        let location = panic.location().map(ToString::to_string);
        tracing::error!(message, location, "panic");
    }));
    Ok(())
}

/// The log, if [`init`] was called.
pub(crate) fn log() -> Option<&'static Log> {
    LOG.get()
}

/// Writes the lines that are not written yet, so that the process can end.
pub(crate) fn flush() {
    if let Some(log) = LOG.get() {
        log.sink.flush();
    }
}

fn log_lines(count: u64) -> String {
    let verb = if count == 1 { "was" } else { "were" };
    format!(
        "{} {verb}",
        shell::text::count(count, "line of the log", "lines of the log")
    )
}

fn lost_lines(format: LogFormat, count: u64) -> String {
    match format {
        LogFormat::Text => format!(
            "{} lost, because lines came faster than they were read\n",
            log_lines(count)
        ),
        LogFormat::Json => {
            format!("{{\"level\":\"WARN\",\"message\":\"lines of the log were lost\",\"lost\":{count}}}\n")
        }
    }
}
