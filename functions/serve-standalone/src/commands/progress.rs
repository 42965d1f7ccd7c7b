//! How far a long command has come: one line on a terminal, nothing in a pipe.
//!
//! One line that is written over needs no library: `indicatif` would bring a terminal layer of its own for it.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

pub(super) use shell::text::size;

/// How often the line changes.
const EVERY: Duration = Duration::from_millis(200);

/// A line on the terminal that is replaced until it is cleared.
#[derive(Debug)]
pub(super) struct ProgressLine {
    terminal: bool,
    begun: Instant,
    shown: Option<Instant>,
}

impl ProgressLine {
    pub(super) fn new() -> Self {
        Self {
            terminal: stderr().is_terminal(),
            begun: Instant::now(),
            shown: None,
        }
    }

    /// The time since the command began.
    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Shows `line`, unless another line was shown less than 200 ms ago.
    pub(super) fn show(&mut self, line: impl FnOnce() -> String) {
        if self.terminal && self.shown.is_none_or(|shown| shown.elapsed() >= EVERY) {
            // Returns to the first column and erases the line. If it cannot be shown, the command continues.
            let _ = write!(stderr(), "\r\x1b[K{}", line());
            self.shown = Some(Instant::now());
        }
    }

    /// Prints a line that stays.
    pub(super) fn say(&mut self, line: &str) {
        self.clear();
        let _ = writeln!(stderr(), "{line}");
    }

    /// Clears the line, before something else is printed.
    pub(super) fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A number of bytes per second as text.
pub(super) fn rate(bytes: u64, time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    format!("{}/s", size(bytes.saturating_mul(1000) / millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        assert_eq!(rate(10 << 20, Duration::from_secs(2)), "5.0 MiB/s");
        assert_eq!(rate(1, Duration::ZERO), "1000 B/s");
    }
}
