//! Compares the `Date` header of every response with the clock of this host.

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

/// Reads the responses of one service, error responses too. A service refuses requests whose time is off by more than
/// some minutes, and its refusal contains its own time.
#[derive(Debug)]
pub struct ClockWatch {
    service: &'static str,
    clock: Arc<ServiceClock>,
}

impl ClockWatch {
    /// Reports the times in the responses of `service` to `clock`. The log contains the name of the service.
    #[must_use]
    pub fn new(service: &'static str, clock: Arc<ServiceClock>) -> Self {
        Self { service, clock }
    }

    fn observe(&self, response: &HttpResponse, sent: SystemTime, received: SystemTime) {
        let Some(service) = reported_time(response) else { return };
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
struct SentAt(SystemTime);

impl Storable for SentAt {
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
        bag.interceptor_state().store_put(SentAt(SystemTime::now()));
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let (Some(response), Some(SentAt(sent))) = (context.response(), bag.load::<SentAt>()) {
            self.observe(response, *sent, SystemTime::now());
        }
        Ok(())
    }
}

/// The service's time when it answered, in milliseconds since the Unix epoch. A response from a cache contains its age
/// (RFC 9111, 5.1), which is added.
fn reported_time(response: &HttpResponse) -> Option<u64> {
    let headers = response.headers();
    let date = DateTime::from_str(headers.get("date")?, Format::HttpDate).ok()?;
    let age: u64 = headers.get("age").and_then(|age| age.trim().parse().ok()).unwrap_or(0);
    let seconds = u64::try_from(date.secs()).ok()?.saturating_add(age);
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

    fn response(headers: &[(&'static str, &'static str)]) -> HttpResponse {
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
    fn the_date_of_a_response_is_parsed() {
        assert_eq!(reported_time(&response(&[("date", DATE)])), Some(SECONDS * 1_000));
        assert_eq!(
            reported_time(&response(&[("date", DATE), ("age", "60")])),
            Some((SECONDS + 60) * 1_000)
        );
        for wrong in ["", "yesterday", "2023-10-26T07:28:00Z"] {
            assert_eq!(reported_time(&response(&[("date", wrong)])), None, "{wrong}");
        }
        assert_eq!(reported_time(&response(&[])), None);
    }

    #[test]
    fn s33_a_clock_that_differs_from_the_responses_is_off() {
        let clock = Arc::<ServiceClock>::default();
        let watch = ClockWatch::new("test", clock.clone());
        let own = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
        watch.observe(&response(&[("date", DATE)]), own(SECONDS - 7_200), own(SECONDS - 7_200));
        assert!(clock.check().is_err());
        // A response without a date changes nothing.
        watch.observe(&response(&[]), own(SECONDS), own(SECONDS));
        assert!(clock.check().is_err());
        watch.observe(&response(&[("date", DATE)]), own(SECONDS), own(SECONDS + 1));
        assert!(clock.check().is_ok());
    }
}
