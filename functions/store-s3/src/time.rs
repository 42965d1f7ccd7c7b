//! Time limits of calls and requests.

use std::time::Duration;

use registry::store::Context;
use tokio::time::Instant;

/// The time limit of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallTimeout(Duration);

/// The time at which the limit ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallDeadline(Instant);

impl CallTimeout {
    /// The limit in a context. The context's timestamps may differ from this machine's clock, so only their difference
    /// counts.
    pub(crate) fn of(cx: Context) -> Self {
        Self(Duration::from_millis(cx.deadline.millis_since(cx.now)))
    }

    /// The deadline of a request that starts now.
    pub(crate) fn start(self) -> CallDeadline {
        CallDeadline(Instant::now() + self.0)
    }
}

impl CallDeadline {
    pub(crate) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// A deadline that is later by this time.
    pub(crate) fn later(self, by: Duration) -> Self {
        Self(self.0 + by)
    }
}
