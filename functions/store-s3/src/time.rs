//! How long requests may take.

use std::time::Duration;

use registry::store::Context;
use tokio::time::Instant;

/// How long 64 MiB may take on the way to the store: what an upload has under way shares its connection's speed.
const TRANSFER: Duration = Duration::from_secs(64);

/// A body of fewer bytes takes no time of its own.
const SMALL: usize = 1 << 20;

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

    /// For a request that begins now and carries so many bytes.
    pub(crate) fn carrying(self, bytes: usize) -> Deadline {
        let transfer = if bytes < SMALL { Duration::ZERO } else { TRANSFER };
        Deadline(Instant::now() + self.0 + transfer)
    }
}

impl Deadline {
    pub(crate) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}
