//! Writes the events of a process as lines.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::{LogFormat, is_harmless};

/// Sends all events at or above `filter` to `writer`, each as one line in one write. A panic becomes an event too. `filter`
/// is a level (`info`), or a list of targets with a level each (`info,access=off`); a target that it does not name has the
/// level WARN. `is_colored` says whether lines for people have colors. The error is a text for the operator.
pub fn init<W>(format: LogFormat, filter: &str, is_colored: bool, writer: W) -> Result<(), String>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::WARN.into())
        .parse(filter)
        .map_err(|error| error.to_string())?;
    let events = tracing_subscriber::registry().with(filter).with(filter_fn(is_harmless));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Text => events.with(lines.with_ansi(is_colored)).try_init(),
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true);
            events
                .with(lines.with_current_span(false).with_span_list(false))
                .try_init()
        }
    }
    .map_err(|error| error.to_string())?;
    // A panic is a log line like all others, in the same format and without control characters.
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("unknown");
        let location = panic.location().map(ToString::to_string);
        tracing::error!(message, location, "panic");
    }));
    Ok(())
}
