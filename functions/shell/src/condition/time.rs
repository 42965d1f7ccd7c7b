//! Cloud services whose answers tell the time, to check the clock of this host.

use std::fmt;
use std::sync::Arc;
#[cfg(feature = "native")]
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use registry::clock::ServiceClock;
use registry::store::StoreError;

use super::Condition;

/// Time between two requests to a service while the clock of this host differs from the time that the service reported last.
#[cfg(feature = "native")]
pub(super) const ASK_EVERY: Duration = Duration::from_secs(10);

/// A service in the cloud, with a request to it. Every answer tells the time, even an error.
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
    /// `ask` sends a request to the service, and `clock` gets the time of each answer. `ask` fails if the service does not
    /// work. It must have a timeout of its own.
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
    /// By how many milliseconds the clock of this host is ahead of each service that has reported the time.
    pub fn clocks(&self) -> impl Iterator<Item = (&'static str, i64)> + '_ {
        let services = self.0.services.iter();
        services.filter_map(|service| Some((service.name, service.clock.ahead()?)))
    }

    /// Whether the clock of this host agrees with the time that each service reported last.
    pub(super) fn is_clock_right(&self) -> Result<(), StoreError> {
        self.0.services.iter().try_for_each(|service| service.clock.check())
    }

    /// Whether a collection pass may run. It asks each service for the time first: if the clock of this host was set or
    /// stood still since the last answer, that answer does not tell whether the clock is right now.
    pub async fn may_collect(&self) -> Result<(), StoreError> {
        self.may_read()?;
        let asked = self.ask_for_time().await;
        // First the clock: a wrong clock may be why a service has refused the request.
        self.may_change()?;
        asked
    }

    async fn ask_for_time(&self) -> Result<(), StoreError> {
        let answers = join_all(self.0.services.iter().map(TimeService::ask)).await;
        answers.into_iter().collect()
    }

    /// While the clock is wrong, asks for the time regularly, until the last clone of this condition is dropped. Other
    /// requests to a service may be refused before they are sent, or may not happen at all.
    #[cfg(feature = "native")]
    pub(super) fn watch_time(&self) {
        if self.0.services.is_empty() {
            return;
        }
        let watched = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(ASK_EVERY).await;
                let Some(condition) = watched.upgrade().map(Self) else {
                    return;
                };
                if condition.is_clock_right().is_err()
                    && let Err(error) = condition.ask_for_time().await
                {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(error, "a service that was asked for the time does not work");
                }
            }
        });
    }
}
