//! What is measured: how long each operation took, and what the server's process spent on them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cloud::{RequestCount, ResourceUse};

/// The processor time and memory of one process, as `/proc` tells them. Nothing is known of a process that ended, or on
/// a system without `/proc`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(u32);

impl Process {
    /// The process with this id.
    pub(crate) fn new(id: u32) -> Self {
        Self(id)
    }

    /// This process.
    pub(crate) fn own() -> Self {
        Self(std::process::id())
    }

    /// Processor time, user and system, of all its threads and of the children it has waited for.
    pub(crate) fn cpu(self) -> Option<Duration> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).ok()?;
        Some(ticks(cpu_ticks(&text)?))
    }

    /// The largest resident set since the start or since [`Process::forget_peak`], in bytes.
    pub(crate) fn peak(self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        peak_bytes(&text)
    }

    /// Starts the measurement of the peak again. Without the right to do so the peak remains that since the start.
    pub(crate) fn forget_peak(self) {
        // Documented in proc_pid_clear_refs(5): 5 resets the high water mark.
        let _ = std::fs::write(format!("/proc/{}/clear_refs", self.0), "5");
    }
}

/// Fields 14 to 17 of `/proc/PID/stat`, summed. The name in field 2 may hold blanks and brackets of its own.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_whitespace().skip(11);
    (0..4).map(|_| fields.next()?.parse::<u64>().ok()).sum()
}

fn ticks(count: u64) -> Duration {
    Duration::from_micros(count * 1_000_000 / rustix::param::clock_ticks_per_second().max(1))
}

fn peak_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// What one pass of a row measured, or several of them together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// How long each operation that succeeded took.
    pub(crate) latencies: Vec<Duration>,
    /// From the start of the first operation to the end of the last; of several passes the sum.
    pub(crate) elapsed: Duration,
    /// Bytes of content sent or received.
    pub(crate) bytes: u64,
    /// What the server's process spent meanwhile.
    pub(crate) server_cpu: Option<Duration>,
    /// What this process spent meanwhile.
    pub(crate) client_cpu: Option<Duration>,
    /// The largest resident set of the server, in bytes.
    pub(crate) peak: Option<u64>,
    /// Of pushes of blobs: from the last byte of the blob to the answer that it is there, or the whole of the last
    /// request where that carries no bytes.
    pub(crate) commits: Vec<Duration>,
    /// What the servers behind the registry spent meanwhile, if there are any.
    pub(crate) behind: Option<ResourceUse>,
    /// What went wrong: every failure of an operation, and of the check after it.
    pub(crate) errors: Vec<String>,
}

impl Sample {
    /// Adds another pass.
    pub(crate) fn merge(&mut self, other: Self) {
        let first = self.latencies.is_empty() && self.elapsed.is_zero();
        self.latencies.extend(other.latencies);
        self.commits.extend(other.commits);
        self.behind = match (self.behind.take(), other.behind) {
            (Some(own), Some(more)) => Some(own.and(more)),
            (None, more) if first => more,
            _ => None,
        };
        self.elapsed += other.elapsed;
        self.bytes += other.bytes;
        // A sum with an unknown part is unknown, or it would look like little.
        self.server_cpu = if first {
            other.server_cpu
        } else {
            sum(self.server_cpu, other.server_cpu)
        };
        self.client_cpu = if first {
            other.client_cpu
        } else {
            sum(self.client_cpu, other.client_cpu)
        };
        self.peak = self.peak.max(other.peak);
        self.errors.extend(other.errors);
    }

    /// The numbers to report.
    pub(crate) fn figures(&self) -> Figures {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let mut commits = self.commits.clone();
        commits.sort_unstable();
        let count = sorted.len();
        let seconds = self.elapsed.as_secs_f64();
        let rate = |amount: f64| (seconds > 0.0 && count > 0).then(|| amount / seconds);
        let each = |total: Option<Duration>| {
            total
                .filter(|_| count > 0)
                .map(|total| total.as_secs_f64() * 1e3 / as_float(count as u64))
        };
        let behind = self.behind.as_ref().filter(|_| count > 0);
        let shares = |requests: &BTreeMap<String, RequestCount>| -> BTreeMap<String, Share> {
            let share = |(operation, sum): (&String, &RequestCount)| {
                let share = Share {
                    requests: as_float(sum.count) / as_float(count as u64),
                    mean_ms: as_float(sum.milliseconds) / as_float(sum.count.max(1)),
                };
                (operation.clone(), share)
            };
            requests.iter().map(share).collect()
        };
        Figures {
            requests: count as u64,
            errors: self.errors.len() as u64,
            requests_per_second: rate(as_float(count as u64)),
            p50_ms: percentile(&sorted, 50).map(|value| value.as_secs_f64() * 1e3),
            p99_ms: percentile(&sorted, 99).map(|value| value.as_secs_f64() * 1e3),
            server_cpu_ms: each(self.server_cpu),
            client_cpu_ms: each(self.client_cpu),
            peak_memory: self.peak,
            bytes_per_second: rate(as_float(self.bytes)).filter(|_| self.bytes > 0),
            commit_ms: percentile(&commits, 50).map(|value| value.as_secs_f64() * 1e3),
            s3_cpu_ms: behind.and_then(|spent| each(spent.s3_cpu)),
            table_cpu_ms: behind.and_then(|spent| each(spent.table_cpu)),
            s3_requests: behind.map(|spent| shares(&spent.requests.registry)),
            s3_requests_of_clients: behind.map(|spent| shares(&spent.requests.clients)),
        }
    }
}

impl ResourceUse {
    fn and(mut self, other: Self) -> Self {
        self.requests.merge(other.requests);
        Self {
            s3_cpu: sum(self.s3_cpu, other.s3_cpu),
            table_cpu: sum(self.table_cpu, other.table_cpu),
            requests: self.requests,
        }
    }
}

fn sum(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    Some(one? + other?)
}

/// The numbers of one row of one registry. What could not be measured is absent.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(crate) struct Figures {
    /// Operations that succeeded.
    pub(crate) requests: u64,
    /// Failures.
    pub(crate) errors: u64,
    /// Operations a second. A push or an image is one operation, however many HTTP requests it takes.
    pub(crate) requests_per_second: Option<f64>,
    /// Half of the operations took no longer, in milliseconds.
    pub(crate) p50_ms: Option<f64>,
    /// 99 % of the operations took no longer, in milliseconds.
    pub(crate) p99_ms: Option<f64>,
    /// Processor time of the server per operation, in milliseconds.
    pub(crate) server_cpu_ms: Option<f64>,
    /// Processor time of this driver per operation, in milliseconds: what the same machine spent on the load itself.
    pub(crate) client_cpu_ms: Option<f64>,
    /// Largest resident set of the server, in bytes.
    pub(crate) peak_memory: Option<u64>,
    /// Bytes of content a second, for rows that move content.
    pub(crate) bytes_per_second: Option<f64>,
    /// Half of the blobs pushed were there no later after their last byte, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) commit_ms: Option<f64>,
    /// Processor time of the S3 server per operation, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) s3_cpu_ms: Option<f64>,
    /// Processor time of what answers for DynamoDB per operation, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) table_cpu_ms: Option<f64>,
    /// The registry's requests to the S3 server per operation, by their own operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) s3_requests: Option<BTreeMap<String, Share>>,
    /// The same of clients that were sent there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) s3_requests_of_clients: Option<BTreeMap<String, Share>>,
}

/// What one operation of a row asks of the S3 server, of one kind.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(crate) struct Share {
    /// Requests.
    pub(crate) requests: f64,
    /// The S3 server's time for one of them, in milliseconds.
    pub(crate) mean_ms: f64,
}

impl Figures {
    /// All of the registry's requests to the S3 server, per operation.
    pub(crate) fn s3_total(&self) -> Option<f64> {
        // From +0: the sum of no float at all is -0.
        let requests = self.s3_requests.as_ref()?;
        Some(requests.values().fold(0.0, |sum, share| sum + share.requests))
    }
}

/// The smallest value that at least `percent` per cent of `sorted` do not exceed (nearest rank).
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// Counts here stay far below 2^52, where the conversion would round.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of operations and bytes stay below 2^52"
)]
pub(crate) fn as_float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn milliseconds(values: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        values.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let hundred = milliseconds(1..=100);
        assert_eq!(percentile(&hundred, 50), Some(Duration::from_millis(50)));
        assert_eq!(percentile(&hundred, 99), Some(Duration::from_millis(99)));
        assert_eq!(percentile(&hundred, 100), Some(Duration::from_millis(100)));
        let three = milliseconds([1, 2, 9]);
        assert_eq!(percentile(&three, 50), Some(Duration::from_millis(2)));
        assert_eq!(percentile(&three, 99), Some(Duration::from_millis(9)));
        assert_eq!(percentile(&milliseconds([4]), 1), Some(Duration::from_millis(4)));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn processor_time_is_read_past_a_name_with_brackets() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 200 0 0 7 5 2 1 20 0 9 0 100 0 0";
        assert_eq!(cpu_ticks(stat), Some(15));
        assert_eq!(cpu_ticks("42 (a) S 1"), None);
    }

    #[test]
    fn peak_memory_is_in_bytes() {
        assert_eq!(
            peak_bytes("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(peak_bytes("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_can_be_measured() {
        assert!(Process::own().cpu().is_some());
        assert!(Process::own().peak().unwrap() > 0);
        assert!(Process::new(u32::MAX).cpu().is_none());
    }

    #[test]
    fn passes_add_up() {
        let pass = |latency, cpu| Sample {
            latencies: milliseconds([latency; 10]),
            elapsed: Duration::from_secs(1),
            bytes: 1 << 20,
            server_cpu: cpu,
            peak: Some(latency),
            ..Sample::default()
        };
        let mut both = Sample::default();
        both.merge(pass(10, Some(Duration::from_millis(100))));
        both.merge(pass(30, Some(Duration::from_millis(300))));
        let figures = both.figures();
        assert_eq!(figures.requests, 20);
        assert_eq!(figures.requests_per_second, Some(10.0));
        assert_eq!(figures.server_cpu_ms, Some(20.0));
        assert_eq!((figures.p50_ms, figures.p99_ms), (Some(10.0), Some(30.0)));
        assert_eq!(figures.peak_memory, Some(30));
        assert_eq!(figures.bytes_per_second, Some(1_048_576.0));
        both.merge(pass(1, None));
        assert_eq!(both.figures().server_cpu_ms, None);
    }

    #[test]
    fn nothing_measured_is_nothing_reported() {
        let figures = Sample::default().figures();
        assert_eq!(
            (figures.requests, figures.requests_per_second, figures.p50_ms),
            (0, None, None)
        );
    }
}
