//! The metrics of logins, of tokens and of requests that are denied.
//!
//! Each series exists from the start, so that its first increment is seen. No request adds one.

use std::fmt;
use std::sync::Arc;

use auth::accounts::AccountAuthenticator;
use http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use registry::{DenialReason, Endpoint, RequestRecord};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenRequestLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    reason: &'static str,
}

/// Everything that can become of a request for a token.
const TOKEN_RESULTS: [&str; 5] = ["granted", "refused", "delayed", "invalid", "unavailable"];

/// What became of a request for a token.
fn token_result(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200..=299 => "granted",
        401 => "refused",
        429 => "delayed",
        400..=499 => "invalid",
        _ => "unavailable",
    }
}

/// The counters of access. The counters of logins are those of the authenticator, and are read at each scrape.
#[derive(Debug)]
pub(super) struct AccessMetrics {
    token_requests: Family<TokenRequestLabels, Counter>,
    refusals: Family<RefusalLabels, Counter>,
    backoffs: Counter,
}

impl AccessMetrics {
    /// Registers the metrics.
    pub(super) fn register(registry: &mut Registry, authenticator: Arc<AccountAuthenticator>) -> Self {
        let token_requests = Family::<TokenRequestLabels, Counter>::default();
        for result in TOKEN_RESULTS {
            drop(token_requests.get_or_create(&TokenRequestLabels { result }));
        }
        registry.register(
            "token_requests",
            "Requests for tokens, by result: granted, refused (wrong credentials), delayed (too many wrong passwords), \
             invalid, or unavailable (the credentials could not be checked)",
            token_requests.clone(),
        );
        let refusals = Family::<RefusalLabels, Counter>::default();
        for reason in DenialReason::ALL {
            // These requests have a counter of their own.
            if reason != DenialReason::TooManyAttempts {
                let reason = reason.as_str();
                drop(refusals.get_or_create(&RefusalLabels { reason }));
            }
        }
        registry.register("refusals", "Requests that were denied, by reason", refusals.clone());
        let backoffs = Counter::default();
        registry.register(
            "login_backoffs",
            "Requests that were answered with 429, because their client had sent too many wrong passwords",
            backoffs.clone(),
        );
        registry.register_collector(Box::new(Authentication { authenticator }));
        Self {
            token_requests,
            refusals,
            backoffs,
        }
    }

    /// Counts what the core says about a request that was answered.
    pub(super) fn answered(&self, status: StatusCode, record: &RequestRecord) {
        if record.endpoint == Some(Endpoint::IssueToken) {
            let result = token_result(status);
            self.token_requests.get_or_create(&TokenRequestLabels { result }).inc();
        }
        match record.denial {
            None => {}
            Some(DenialReason::TooManyAttempts) => {
                self.backoffs.inc();
            }
            Some(reason) => {
                let reason = reason.as_str();
                self.refusals.get_or_create(&RefusalLabels { reason }).inc();
            }
        }
    }
}

/// What the authenticator has counted.
#[derive(Debug)]
struct Authentication {
    authenticator: Arc<AccountAuthenticator>,
}

impl Collector for Authentication {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let statistics = self.authenticator.statistics();
        let help = "Checks of passwords, keys and tokens, by result: accepted, refused, delayed (too many wrong passwords), \
                    or unchecked (they could not be checked)";
        let mut metric = encoder.encode_descriptor("logins", help, None, MetricType::Counter)?;
        for login in &statistics.logins {
            let labels = [("credential", login.kind.as_str()), ("result", login.result.as_str())];
            ConstCounter::new(login.count).encode(metric.encode_family(&labels)?)?;
        }
        if let Some(age) = statistics.state_age_ms {
            let help = "Time since this process has read the access state. Only requests read it";
            let unit = Some(&Unit::Seconds);
            let metric = encoder.encode_descriptor("access_state_age", help, unit, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(age / 1_000).unwrap_or(i64::MAX)).encode(metric)?;
        }
        let help = "Keys that end within 14 days, of the accounts that have logged in at this process";
        let metric = encoder.encode_descriptor("keys_ending_soon", help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::try_from(statistics.keys_ending_soon).unwrap_or(i64::MAX)).encode(metric)
    }
}
