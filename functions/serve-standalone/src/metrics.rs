//! The metrics of the server, as text for Prometheus.
//!
//! No label has a value that a client chooses, such as a repository, a user or a digest. So the number of series is bounded,
//! and the metrics do not reveal which client stores what.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use auth::accounts::AccountAuthenticator;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use registry::collection::Report;
use registry::store::{Reason, Timestamp};
use registry::{RequestRecord, ResponseBody};
use shell::collector::{PassObserver, PassOutcome};
use shell::condition::Condition;
use shell::opened::StoreStatistics;

mod access;
mod listener;

pub(crate) use listener::MetricsListener;

use access::AccessMetrics;

/// The text that Prometheus asks for (OpenMetrics 1.0).
const TEXT: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Upper bounds of the histogram of durations, in seconds: from a response from memory to a large layer.
const DURATIONS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0,
];

/// The labels of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    endpoint: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    endpoint: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PassLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

type Durations = Family<EndpointLabels, Histogram, fn() -> Histogram>;

/// All counters of the process.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Durations,
    received: Counter,
    sent: Counter,
    cut: Counter,
    access: AccessMetrics,
    uploads: Gauge,
    passes: Family<PassLabels, Counter>,
    last_pass: Gauge,
    deleted: Counter,
    swept: Counter,
    scheduled_bytes: Counter,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Creates the metrics. The stores and the authenticator have their own counters, which are read at each scrape, as the
    /// condition of the stores is.
    pub(crate) fn new(
        statistics: StoreStatistics,
        condition: Condition,
        authenticator: Arc<AccountAuthenticator>,
    ) -> Self {
        let mut registry = Registry::with_prefix("roadstead");
        let requests = Family::default();
        registry.register("requests", "Requests answered", requests.clone());
        let durations = Durations::new_with_constructor(|| Histogram::new(DURATIONS));
        registry.register_with_unit(
            "request_duration",
            "Time from the head of a request to the end of its response, including both bodies",
            Unit::Seconds,
            durations.clone(),
        );
        let received = Counter::default();
        registry.register_with_unit(
            "received",
            "Bytes of request bodies that were received",
            Unit::Bytes,
            received.clone(),
        );
        let sent = Counter::default();
        registry.register_with_unit(
            "sent",
            "Bytes of response bodies that were written to sockets",
            Unit::Bytes,
            sent.clone(),
        );
        let cut = Counter::default();
        registry.register(
            "answers_cut",
            "Responses that ended before the last byte of their body was written, because the client closed the connection or \
             did not read, or because of a timeout or a fault",
            cut.clone(),
        );
        let access = AccessMetrics::register(&mut registry, authenticator);
        let uploads = Gauge::default();
        registry.register(
            "uploads_open",
            "Requests in progress that send an upload or a part of one; an upload that waits for its next request does not \
             count",
            uploads.clone(),
        );
        let passes = Family::default();
        registry.register(
            "collection_passes",
            "Collection passes of this process, by outcome: whole (everything was examined), busy (another process was \
             examining the metadata), failed, or stopped (by the end of the server)",
            passes.clone(),
        );
        let last_pass = Gauge::default();
        registry.register_with_unit(
            "collection_last_pass_timestamp",
            "Unix time at which this process last completed a collection pass that examined everything",
            Unit::Seconds,
            last_pass.clone(),
        );
        let deleted = Counter::default();
        registry.register(
            "collection_deleted_objects",
            "Pending deletions that garbage collection has carried out, including those of objects that an upload never stored",
            deleted.clone(),
        );
        let swept = Counter::default();
        registry.register(
            "collection_swept_uploads",
            "Expired uploads that garbage collection has ended",
            swept.clone(),
        );
        let scheduled_bytes = Counter::default();
        registry.register_with_unit(
            "collection_scheduled",
            "Bytes of blobs that garbage collection has scheduled for deletion",
            Unit::Bytes,
            scheduled_bytes.clone(),
        );
        let version = env!("CARGO_PKG_VERSION");
        registry.register(
            "build",
            "The version of the program",
            Info::new(BuildLabels { version }),
        );
        registry.register_collector(Box::new(StoreCounters { statistics, condition }));
        Self {
            registry,
            requests,
            durations,
            received,
            sent,
            cut,
            access,
            uploads,
            passes,
            last_pass,
            deleted,
            swept,
            scheduled_bytes,
        }
    }

    /// Counts bytes of a request's body.
    pub(crate) fn received(&self, bytes: usize) {
        self.received.inc_by(bytes as u64);
    }

    /// Counts bytes of a response's body.
    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.inc_by(bytes as u64);
    }

    /// The response to a request for `/metrics`.
    pub(crate) fn answer(&self, method: &Method) -> Response<ResponseBody> {
        if method != Method::GET && method != Method::HEAD {
            let mut response = Response::new(ResponseBody::empty());
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let mut text = String::new();
        // Writing to a string does not fail. If the encoder fails, Prometheus rejects the incomplete text.
        let _ = encode(&mut text, &self.registry);
        let length = text.len();
        let body = if method == Method::HEAD {
            ResponseBody::empty()
        } else {
            ResponseBody::full(text.into())
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, TEXT);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CONTENT_LENGTH, length.into());
        response
    }
}

impl PassObserver for Metrics {
    fn ended(&self, outcome: PassOutcome, report: &Report, at: Timestamp) {
        let label = match outcome {
            PassOutcome::Whole => "whole",
            PassOutcome::Busy => "busy",
            PassOutcome::Failed => "failed",
            PassOutcome::Stopped => "stopped",
        };
        self.passes.get_or_create(&PassLabels { outcome: label }).inc();
        self.deleted.inc_by(report.objects_deleted);
        self.scheduled_bytes.inc_by(report.metadata.scheduled_bytes);
        self.swept.inc_by(report.sessions_swept);
        if outcome == PassOutcome::Whole {
            self.last_pass.set(i64::try_from(at.0 / 1000).unwrap_or(i64::MAX));
        }
    }
}

/// A request that is counted when it ends.
#[derive(Debug)]
pub(crate) struct Measured {
    metrics: Arc<Metrics>,
    start: Instant,
    method: &'static str,
    upload: bool,
    /// The endpoint and the status of the response; `None` if there is no response.
    answered: Option<(&'static str, u16)>,
}

impl Measured {
    /// Begins to measure.
    pub(crate) fn begin(metrics: Arc<Metrics>, method: &Method, path: &str) -> Self {
        let method = match *method {
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::PUT => "PUT",
            Method::POST => "POST",
            Method::PATCH => "PATCH",
            Method::DELETE => "DELETE",
            // A client may send any word.
            _ => "other",
        };
        let upload = matches!(method, "PUT" | "POST" | "PATCH") && path.contains("/blobs/uploads/");
        if upload {
            metrics.uploads.inc();
        }
        Self {
            metrics,
            start: Instant::now(),
            method,
            upload,
            answered: None,
        }
    }

    /// Notes the status of the response, and the endpoint of the request.
    pub(crate) fn answered(&mut self, status: StatusCode, record: Option<&RequestRecord>) {
        let endpoint = match record {
            Some(RequestRecord {
                endpoint: Some(endpoint),
                ..
            }) => endpoint.as_str(),
            Some(_) => "none",
            None => "Health",
        };
        self.answered = Some((endpoint, status.as_u16()));
        if let Some(record) = record {
            self.metrics.access.answered(status, record);
        }
        // The request's body was read; only the response is still to be sent.
        if std::mem::take(&mut self.upload) {
            self.metrics.uploads.dec();
        }
    }

    /// Notes that the response ended before the last byte of its body.
    pub(crate) fn cut(&self) {
        self.metrics.cut.inc();
    }

    /// All counters.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        if self.upload {
            self.metrics.uploads.dec();
        }
        let Some((endpoint, status)) = self.answered else {
            return;
        };
        let labels = RequestLabels {
            method: self.method,
            endpoint,
            status,
        };
        self.metrics.requests.get_or_create(&labels).inc();
        let labels = EndpointLabels { endpoint };
        let duration = self.metrics.durations.get_or_create(&labels);
        duration.observe(self.start.elapsed().as_secs_f64());
    }
}

/// The causes for which pushes are refused until an operator does something.
const PUSH_CAUSES: [Reason; 6] = [
    Reason::NoSpace,
    Reason::NotWritable,
    Reason::ObjectStoreRefuses,
    Reason::MetadataRefuses,
    Reason::ClockOff,
    Reason::StoreReplaced,
];

/// The name of a reason in metrics.
fn label(reason: Reason) -> &'static str {
    match reason {
        Reason::NoSpace => "no_space",
        Reason::NotWritable => "not_writable",
        Reason::ObjectStoreUnreachable => "object_store_unreachable",
        Reason::ObjectStoreRefuses => "object_store_refuses",
        Reason::MetadataUnreachable => "metadata_unreachable",
        Reason::MetadataRefuses => "metadata_refuses",
        Reason::ClockOff => "clock_off",
        Reason::StoreReplaced => "store_replaced",
        Reason::Throttled
        | Reason::Memory
        | Reason::Credentials
        | Reason::Damaged
        | Reason::Unavailable
        | Reason::Failed => "other",
    }
}

/// The counters and the condition of the stores, which are read at each scrape.
#[derive(Debug)]
struct StoreCounters {
    statistics: StoreStatistics,
    condition: Condition,
}

impl Collector for StoreCounters {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let table = self.statistics.table();
        for (name, help, count) in [
            (
                "table_reads",
                "Reads of metadata and upload sessions: rows or items, statements and pages",
                table.reads,
            ),
            (
                "table_writes",
                "Writes of metadata and upload sessions: rows or items",
                table.writes,
            ),
        ] {
            let counter = ConstCounter::new(count);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        self.encode_condition(&mut encoder)?;
        let Some(requests) = self.statistics.requests() else {
            return Ok(());
        };
        let help = "Requests to the object store by operation, including retries";
        let mut metric = encoder.encode_descriptor("object_store_requests", help, None, MetricType::Counter)?;
        for counts in &requests {
            let labels = [("operation", counts.operation)];
            ConstCounter::new(counts.sent).encode(metric.encode_family(&labels)?)?;
        }
        let help = "Requests to the object store by operation that had no response or a temporary error";
        let mut metric = encoder.encode_descriptor("object_store_failures", help, None, MetricType::Counter)?;
        for counts in &requests {
            let labels = [("operation", counts.operation)];
            ConstCounter::new(counts.failed).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl StoreCounters {
    /// What `/readyz` says about pushes and the clock, for the monitoring of many servers.
    fn encode_condition(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let blocked = self.condition.push_blocks();
        let help = "Whether pushes are refused, by cause: 1 if they are, 0 if not";
        let mut metric = encoder.encode_descriptor("pushes_refused", help, None, MetricType::Gauge)?;
        for cause in PUSH_CAUSES {
            let labels = [("cause", label(cause))];
            ConstGauge::new(i64::from(blocked.contains_key(&cause))).encode(metric.encode_family(&labels)?)?;
        }
        let help = "How far the clock of this host is ahead of the clock of a service; negative if it is behind";
        let mut metric = encoder.encode_descriptor("clock_ahead", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for (service, ahead) in self.condition.clocks() {
            let labels = [("service", service)];
            ConstGauge::new(ahead / 1_000).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
