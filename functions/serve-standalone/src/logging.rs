//! The log: its format, and its output on standard error.

use std::io::{IsTerminal as _, stderr};
use std::sync::OnceLock;
use std::thread;

use shell::log::LogFormat;

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
    let log = LOG.get_or_init(|| Log {
        sink: Sink::default(),
        format,
    });
    shell::log::init(format, filter, stderr().is_terminal(), || &log.sink)?;
    thread::Builder::new()
        .name("log".into())
        .spawn(|| log.sink.drain(stderr(), |count| lost_lines(log.format, count)))
        .map_err(|error| error.to_string())?;
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
