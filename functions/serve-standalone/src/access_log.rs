//! Writes the line for each request to the log.

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::Instant;

use http::{Request, StatusCode};
use registry::RequestRecord;
use shell::access_line::{AccessLine, AnswerEnd};
use shell::clock;

use crate::logging;

thread_local! {
    /// A buffer for one line at a time, so that a line needs no allocation.
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// An unfinished line, and when its request began.
pub(crate) struct Entry {
    line: AccessLine,
    start: Instant,
}

impl Entry {
    /// Begins a line; `None` if access lines are not logged. `client` is the client's address, as far as it is known.
    pub(crate) fn begin<B>(request: &Request<B>, client: IpAddr) -> Option<Self> {
        Some(Self {
            line: AccessLine::begin(request, client)?,
            start: Instant::now(),
        })
    }

    /// Adds the status of the answer and the principal.
    pub(crate) fn answered(&mut self, status: StatusCode, record: Option<&RequestRecord>) {
        self.line.answered(status, record);
    }

    /// Writes the line. `sent` is the number of bytes of the answer's body that were sent; `is_whole` says whether these are
    /// all of them.
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
