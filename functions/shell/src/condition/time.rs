//! Services whose answers tell the time.

use std::fmt;
use std::sync::Arc;
#[cfg(feature = "native")]
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use registry::clock::ServiceClock;
use registry::store::StoreError;

use super::Condition;

/// How often a service is asked for the time while the clock of this host differs from what it told last.
#[cfg(feature = "native")]
pub(super) const ASK_EVERY: Duration = Duration::from_secs(10);

/// A service in the cloud, and how to ask it for anything: the answer tells the time, whatever it is.
pub struct TimeService {
    name: &'static str,
    clock: Arc<ServiceClock>,
    ask: Box<dyn Fn() -> BoxFuture<'static, Result<(), StoreError>> + Send + Sync>,
}

impl fmt::Debug for TimeService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeService")
            .field("name", &self.name)
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

impl TimeService {
    /// `clock` notes what the answers to `ask` tell. An error of `ask` is that the service does not work. `ask` must end by
    /// itself when no answer comes.
    pub fn new<F>(name: &'static str, clock: Arc<ServiceClock>, ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        Self {
            name,
            clock,
            ask: Box::new(move || ask().boxed()),
        }
    }

    async fn ask(&self) -> Result<(), StoreError> {
        (self.ask)().await
    }
}

impl Condition {
    /// By how many milliseconds the own clock is ahead, by services that have told the time.
    pub fn clocks(&self) -> impl Iterator<Item = (&'static str, i64)> + '_ {
        let services = self.0.services.iter();
        services.filter_map(|service| Some((service.name, service.clock.ahead()?)))
    }

    /// Whether the clock of this host agrees with what every service has told last.
    pub(super) fn is_clock_right(&self) -> Result<(), StoreError> {
        self.0.services.iter().try_for_each(|service| service.clock.check())
    }

    /// Whether anything may be collected. Every service is asked for the time first: what was told before the clock of
    /// this host was set, or stood still, says nothing of what is due now.
    pub async fn may_collect(&self) -> Result<(), StoreError> {
        self.may_read()?;
        let asked = self.ask_for_time().await;
        // A service may have refused the request because of the clock.
        self.may_change()?;
        asked
    }

    async fn ask_for_time(&self) -> Result<(), StoreError> {
        let answers = join_all(self.0.services.iter().map(TimeService::ask)).await;
        answers.into_iter().collect()
    }

    /// Asks for the time again and again while the clock is wrong, for as long as the process runs. Everything else that
    /// asks a service may be refused before it does, or not happen at all.
    #[cfg(feature = "native")]
    pub(super) fn watch_time(&self) {
        if self.0.services.is_empty() {
            return;
        }
        let condition = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(ASK_EVERY).await;
                if condition.is_clock_right().is_err()
                    && let Err(error) = condition.ask_for_time().await
                {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(error, "a service was asked for the time, and does not work");
                }
            }
        });
    }
}
