//! How long requests may take.

use std::time::Duration;

use registry::store::Context;
use tokio::time::Instant;

/// The time that a call has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span(Duration);

/// The moment at which it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Span {
    /// From the times of a context, which need not be those of this machine's clock.
    pub(crate) fn of(cx: Context) -> Self {
        Self(Duration::from_millis(cx.deadline.millis_since(cx.now)))
    }

    /// For a request that begins now.
    pub(crate) fn begin(self) -> Deadline {
        Deadline(Instant::now() + self.0)
    }
}

impl Deadline {
    pub(crate) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// So much later.
    pub(crate) fn later(self, by: Duration) -> Self {
        Self(self.0 + by)
    }
}
