//! The timeouts of clients.

use std::time::Duration;

/// Maximum times for clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// To send a request's head.
    pub(crate) header: Duration,
    /// To keep a connection without a request.
    pub(crate) keep_alive: Duration,
    /// Between two bytes of a request's body.
    pub(crate) idle: Duration,
    /// To read 1 KiB of an answer.
    pub(crate) stall: Duration,
    /// To send or to read a whole body.
    pub(crate) total: Duration,
}
