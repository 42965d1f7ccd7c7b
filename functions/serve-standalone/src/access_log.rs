//! The line for each request, on its way to the log.

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::Instant;

use http::{Request, StatusCode};
use registry::Record;
use shell::access_line::{AccessLine, AnswerEnd};
use shell::clock;

use crate::logging;

thread_local! {
    /// Lines are made in the same place, one after the other.
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A line in the making, and when its request began.
pub(crate) struct Entry {
    line: AccessLine,
    start: Instant,
}

impl Entry {
    /// Begins a line, if lines are written at all. `client` is who asks, as far as that is known.
    pub(crate) fn begin<B>(request: &Request<B>, client: IpAddr) -> Option<Self> {
        Some(Self {
            line: AccessLine::begin(request, client)?,
            start: Instant::now(),
        })
    }

    /// Adds what the answer says.
    pub(crate) fn answered(&mut self, status: StatusCode, record: Option<&Record>) {
        self.line.answered(status, record);
    }

    /// Writes the line. `sent` is the length of the body as far as it was sent, `is_whole` whether that was all of it.
    pub(crate) fn write(&self, sent: u64, is_whole: bool) {
        let Some(log) = logging::log() else { return };
        let end = AnswerEnd {
            at: clock::now(),
            took: self.start.elapsed(),
            sent,
            is_whole,
        };
        LINE.with_borrow_mut(|line| {
            line.clear();
            self.line.write(line, log.format, &end);
            log.sink.push(line.as_bytes());
        });
    }
}
