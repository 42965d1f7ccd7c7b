//! What the server counts, and how Prometheus reads it.
//!
//! No label holds anything that a client chose: repositories, users and digests stay out, so that the number of series
//! is bounded and nothing is told of who stores what.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

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
use registry::{Record, ResponseBody};
use shell::collector::{PassObserver, PassOutcome};
use shell::opened::Statistics;

mod listener;

pub(crate) use listener::MetricsListener;

/// The text that Prometheus asks for (OpenMetrics 1.0).
const TEXT: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Upper bounds of the histogram of durations, in seconds: from an answer out of memory to a large layer.
const DURATIONS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0,
];

/// What a request was, as far as it is told.
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
    /// Nothing counted yet; the stores count for themselves, and are asked when somebody reads.
    pub(crate) fn new(stores: Statistics) -> Self {
        let mut registry = Registry::with_prefix("roadstead");
        let requests = Family::default();
        registry.register("requests", "Requests answered", requests.clone());
        let durations = Durations::new_with_constructor(|| Histogram::new(DURATIONS));
        registry.register_with_unit(
            "request_duration",
            "Time from a request's head to the end of its answer, bodies included",
            Unit::Seconds,
            durations.clone(),
        );
        let received = Counter::default();
        registry.register_with_unit("received", "Bytes of requests' bodies", Unit::Bytes, received.clone());
        let sent = Counter::default();
        registry.register_with_unit(
            "sent",
            "Bytes of answers' bodies that were written to sockets",
            Unit::Bytes,
            sent.clone(),
        );
        let cut = Counter::default();
        registry.register(
            "answers_cut",
            "Answers whose bodies ended before their last byte was written: by a client that went away or did not read, \
             by a timeout, or by a fault",
            cut.clone(),
        );
        let uploads = Gauge::default();
        registry.register(
            "uploads_open",
            "Requests that are bringing an upload, or a part of one; an upload that waits for its next request is not \
             among them",
            uploads.clone(),
        );
        let passes = Family::default();
        registry.register(
            "collection_passes",
            "Passes of collection by this process: whole, busy (another process was going through the metadata), failed, or stopped",
            passes.clone(),
        );
        let last_pass = Gauge::default();
        registry.register_with_unit(
            "collection_last_pass_timestamp",
            "When this process last went through everything, as Unix time",
            Unit::Seconds,
            last_pass.clone(),
        );
        let deleted = Counter::default();
        registry.register(
            "collection_deleted_objects",
            "Deletions carried out by garbage collection, including those of objects that an upload never stored",
            deleted.clone(),
        );
        let swept = Counter::default();
        registry.register(
            "collection_swept_uploads",
            "Expired uploads that were ended",
            swept.clone(),
        );
        let scheduled_bytes = Counter::default();
        registry.register_with_unit(
            "collection_buried",
            "Bytes of blobs that garbage collection has scheduled for deletion",
            Unit::Bytes,
            scheduled_bytes.clone(),
        );
        let version = env!("CARGO_PKG_VERSION");
        registry.register("build", "The program", Info::new(BuildLabels { version }));
        registry.register_collector(Box::new(StoreCounters(stores)));
        Self {
            registry,
            requests,
            durations,
            received,
            sent,
            cut,
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

    /// Counts bytes of an answer's body.
    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.inc_by(bytes as u64);
    }

    /// The answer to a request for `/metrics`.
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
        // Writing to a string does not fail, and an encoder's own defects leave a text that Prometheus refuses.
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

/// One request that is counted when it ends.
#[derive(Debug)]
pub(crate) struct Measured {
    metrics: Arc<Metrics>,
    start: Instant,
    method: &'static str,
    upload: bool,
    /// What it was and how it was answered; `None` when it was given up before.
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

    /// Notes what the answer says.
    pub(crate) fn answered(&mut self, status: StatusCode, record: Option<&Record>) {
        let endpoint = match record {
            Some(Record {
                endpoint: Some(endpoint),
                ..
            }) => endpoint.as_str(),
            Some(_) => "none",
            None => "Health",
        };
        self.answered = Some((endpoint, status.as_u16()));
        // The body was read by now: what comes is only the answer.
        if std::mem::take(&mut self.upload) {
            self.metrics.uploads.dec();
        }
    }

    /// Notes that the answer's body did not get to its end.
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

/// The causes for which pushes are refused for as long as somebody does something about it.
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

/// What the stores count, asked when somebody reads.
#[derive(Debug)]
struct StoreCounters(Statistics);

impl Collector for StoreCounters {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let table = self.0.table();
        for (name, help, count) in [
            ("table_reads", "Reads of the metadata and session tables", table.reads),
            (
                "table_writes",
                "Writes to the metadata and session tables",
                table.writes,
            ),
        ] {
            let counter = ConstCounter::new(count);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        self.encode_condition(&mut encoder)?;
        let Some(requests) = self.0.requests() else {
            return Ok(());
        };
        let help = "Requests to the object store, repetitions included";
        let mut metric = encoder.encode_descriptor("object_store_requests", help, None, MetricType::Counter)?;
        for counts in &requests {
            let labels = [("operation", counts.operation)];
            ConstCounter::new(counts.sent).encode(metric.encode_family(&labels)?)?;
        }
        let help = "Requests that the object store did not answer, or with an error that passes";
        let mut metric = encoder.encode_descriptor("object_store_failures", help, None, MetricType::Counter)?;
        for counts in &requests {
            let labels = [("operation", counts.operation)];
            ConstCounter::new(counts.failed).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl StoreCounters {
    /// What `/readyz` tells of pushes and of the clock, for whoever watches many servers.
    fn encode_condition(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let blocked = self.0.condition.push_blocks();
        let help = "Whether pushes are refused, by cause";
        let mut metric = encoder.encode_descriptor("pushes_refused", help, None, MetricType::Gauge)?;
        for cause in PUSH_CAUSES {
            let labels = [("cause", label(cause))];
            ConstGauge::new(i64::from(blocked.contains_key(&cause))).encode(metric.encode_family(&labels)?)?;
        }
        let help = "How far the clock of this host is ahead of a service's, negative when it is behind";
        let mut metric = encoder.encode_descriptor("clock_ahead", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for (service, ahead) in self.0.condition.clocks() {
            let labels = [("service", service)];
            ConstGauge::new(ahead / 1_000).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
