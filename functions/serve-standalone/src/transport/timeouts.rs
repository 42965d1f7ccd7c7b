//! How long clients may take.

use std::time::Duration;

/// How long clients may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// To send a request's head.
    pub(crate) header: Duration,
    /// To keep a connection without a request.
    pub(crate) keep_alive: Duration,
    /// To send no byte of a body.
    pub(crate) idle: Duration,
    /// To read fewer than 1 KiB of a response.
    pub(crate) stall: Duration,
    /// To send or to read a whole body.
    pub(crate) total: Duration,
}
