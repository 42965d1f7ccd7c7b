//! Compares the `Date` of every answer with the clock of this host.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};
use aws_smithy_types::date_time::Format;
use registry::clock::{ClockChange, ServiceClock};

/// Sees every answer of one service, also those that are errors: a service refuses requests whose time is off by more
/// than some minutes, and tells its own in the refusal.
#[derive(Debug)]
pub struct ClockWatch {
    service: &'static str,
    clock: Arc<ServiceClock>,
}

impl ClockWatch {
    /// Notes in `clock` what the answers of `service` tell; the name is for the log.
    #[must_use]
    pub fn new(service: &'static str, clock: Arc<ServiceClock>) -> Self {
        Self { service, clock }
    }

    fn observe(&self, response: &HttpResponse, sent: SystemTime, received: SystemTime) {
        let Some(service) = told(response) else { return };
        let change = self.clock.observe(service, millis(sent), millis(received));
        let ahead = self.clock.ahead().unwrap_or_default() / 1_000;
        match change {
            Some(ClockChange::WentOff) => tracing::error!(
                service = self.service,
                ahead_seconds = ahead,
                "the clock of this host is off by more than a minute: nothing is stored or removed until it is right"
            ),
            Some(ClockChange::CameBack) => {
                tracing::info!(service = self.service, "the clock of this host is right again");
            }
            None => {}
        }
    }
}

/// When a request was sent, by the clock of this host.
#[derive(Debug)]
struct Sent(SystemTime);

impl Storable for Sent {
    type Storer = StoreReplace<Self>;
}

#[dyn_dispatch_hint]
impl Intercept for ClockWatch {
    fn name(&self) -> &'static str {
        "ClockWatch"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        bag.interceptor_state().store_put(Sent(SystemTime::now()));
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let (Some(response), Some(Sent(sent))) = (context.response(), bag.load::<Sent>()) {
            self.observe(response, *sent, SystemTime::now());
        }
        Ok(())
    }
}

/// What a service's clock showed when it answered, in milliseconds since the Unix epoch. An answer that a cache kept
/// says for how long (RFC 9111, 5.1).
fn told(response: &HttpResponse) -> Option<u64> {
    let headers = response.headers();
    let date = DateTime::from_str(headers.get("date")?, Format::HttpDate).ok()?;
    let kept: u64 = headers.get("age").and_then(|age| age.trim().parse().ok()).unwrap_or(0);
    let seconds = u64::try_from(date.secs()).ok()?.saturating_add(kept);
    seconds.checked_mul(1_000)
}

fn millis(timestamp: SystemTime) -> u64 {
    let since = timestamp.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::time::Duration;

    use aws_smithy_types::body::SdkBody;

    use super::*;

    fn answer(headers: &[(&'static str, &'static str)]) -> HttpResponse {
        let mut response = HttpResponse::new(200.try_into().unwrap(), SdkBody::empty());
        for (name, value) in headers {
            response.headers_mut().insert(*name, *value);
        }
        response
    }

    /// 26 October 2023, 07:28:00 UTC.
    const DATE: &str = "Thu, 26 Oct 2023 07:28:00 GMT";
    const SECONDS: u64 = 1_698_305_280;

    #[test]
    fn the_date_of_an_answer_is_read() {
        assert_eq!(told(&answer(&[("date", DATE)])), Some(SECONDS * 1_000));
        assert_eq!(
            told(&answer(&[("date", DATE), ("age", "60")])),
            Some((SECONDS + 60) * 1_000)
        );
        for wrong in ["", "yesterday", "2023-10-26T07:28:00Z"] {
            assert_eq!(told(&answer(&[("date", wrong)])), None, "{wrong}");
        }
        assert_eq!(told(&answer(&[])), None);
    }

    #[test]
    fn s33_a_clock_that_differs_from_the_answers_is_off() {
        let clock = Arc::<ServiceClock>::default();
        let watch = ClockWatch::new("test", clock.clone());
        let own = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
        watch.observe(&answer(&[("date", DATE)]), own(SECONDS - 7_200), own(SECONDS - 7_200));
        assert!(clock.check().is_err());
        // An answer without a date changes nothing.
        watch.observe(&answer(&[]), own(SECONDS), own(SECONDS));
        assert!(clock.check().is_err());
        watch.observe(&answer(&[("date", DATE)]), own(SECONDS), own(SECONDS + 1));
        assert!(clock.check().is_ok());
    }
}
