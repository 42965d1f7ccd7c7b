//! The results as a table for people and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::measure::{Figures, Sample, Share, as_float};

/// The results of one run.
pub(crate) struct Report {
    /// Names of the registries, in the order of the table.
    pub(crate) registries: Vec<Registry>,
    /// Those that could not take part, each with the reason.
    pub(crate) missing: BTreeMap<String, String>,
    /// Which registry the ratios are to; ignored when it did not take part.
    pub(crate) baseline: String,
    /// What else a reader must know to repeat it.
    pub(crate) settings: BTreeMap<&'static str, serde_json::Value>,
    rows: Vec<(&'static str, Vec<Sample>)>,
}

/// A registry that took part.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Registry {
    /// Its name.
    pub(crate) name: String,
    /// What its program says of itself, or its address.
    pub(crate) version: String,
}

/// A row of one registry in the JSON.
#[derive(Debug, Serialize)]
struct Cell {
    #[serde(flatten)]
    figures: Figures,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<Ratio>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    failures: Vec<String>,
}

/// One registry's figures divided by the baseline's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Ratio {
    /// More is better.
    requests_per_second: Option<f64>,
    /// Less is better.
    p50: Option<f64>,
    /// Less is better.
    server_cpu: Option<f64>,
    /// Less is better.
    peak_memory: Option<f64>,
    /// Less is better.
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<f64>,
    /// Less is better.
    #[serde(skip_serializing_if = "Option::is_none")]
    s3_requests: Option<f64>,
}

impl Ratio {
    /// `one` as multiples of `base`. A ratio without both parts, or to zero, is absent.
    pub(crate) fn of(one: &Figures, base: &Figures) -> Self {
        let divide = |one: Option<f64>, base: Option<f64>| Some(one? / base.filter(|base| *base > 0.0)?);
        Self {
            requests_per_second: divide(one.requests_per_second, base.requests_per_second),
            p50: divide(one.p50_ms, base.p50_ms),
            server_cpu: divide(one.server_cpu_ms, base.server_cpu_ms),
            peak_memory: divide(one.peak_memory.map(as_float), base.peak_memory.map(as_float)),
            commit: divide(one.commit_ms, base.commit_ms),
            s3_requests: divide(one.s3_total(), base.s3_total()),
        }
    }
}

impl Report {
    /// An empty report.
    pub(crate) fn new(
        registries: Vec<Registry>,
        missing: BTreeMap<String, String>,
        baseline: &str,
        settings: BTreeMap<&'static str, serde_json::Value>,
    ) -> Self {
        Self {
            registries,
            missing,
            baseline: baseline.to_owned(),
            settings,
            rows: Vec::new(),
        }
    }

    /// Adds a pass of `row` by the registry at `index`.
    pub(crate) fn add(&mut self, row: &'static str, index: usize, sample: Sample) {
        let known = self.rows.iter().position(|(name, _)| *name == row);
        let position = known.unwrap_or_else(|| {
            self.rows.push((row, vec![Sample::default(); self.registries.len()]));
            self.rows.len() - 1
        });
        if let Some(cell) = self.rows[position].1.get_mut(index) {
            cell.merge(sample);
        }
    }

    /// Failures in all rows.
    pub(crate) fn failures(&self) -> usize {
        self.rows
            .iter()
            .flat_map(|(_, samples)| samples)
            .map(|sample| sample.errors.len())
            .sum()
    }

    fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.rows.iter().flat_map(|(_, samples)| samples)
    }

    /// What each row asked of the S3 server, a line for each registry.
    fn requests_to_s3(&self) -> String {
        let spell = |requests: Option<BTreeMap<String, Share>>| {
            let requests = requests.unwrap_or_default();
            let words: Vec<_> = requests
                .iter()
                .map(|(operation, share)| {
                    let (requests, time) = (short(Some(share.requests)), short(Some(share.mean_ms)));
                    format!("{operation} {requests} of {time} ms")
                })
                .collect();
            if words.is_empty() {
                "none".to_owned()
            } else {
                words.join(", ")
            }
        };
        let mut text =
            "\nRequests to the S3 server for one operation, and its time for one of them, by the registry (by clients that it sent there):\n"
                .to_owned();
        for (name, samples) in &self.rows {
            let _ = writeln!(text, "{name}");
            for (registry, sample) in self.registries.iter().zip(samples) {
                let figures = sample.figures();
                let (own, clients) = (spell(figures.s3_requests), spell(figures.s3_requests_of_clients));
                let _ = writeln!(text, "  {}: {own} ({clients})", registry.name);
            }
        }
        text.push('\n');
        text
    }

    fn base(&self) -> Option<usize> {
        self.registries
            .iter()
            .position(|registry| registry.name == self.baseline)
    }

    /// Everything, for programs.
    pub(crate) fn json(&self) -> serde_json::Value {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|(name, samples)| {
                let figures: Vec<_> = samples.iter().map(Sample::figures).collect();
                let base = self.base().map(|index| figures[index].clone());
                let cells: BTreeMap<&str, Cell> = figures
                    .into_iter()
                    .enumerate()
                    .map(|(index, figures)| {
                        let ratio = base.as_ref().map(|base| Ratio::of(&figures, base));
                        let failures = samples[index].errors.clone();
                        (
                            self.registries[index].name.as_str(),
                            Cell {
                                figures,
                                ratio,
                                failures,
                            },
                        )
                    })
                    .collect();
                serde_json::json!({ "row": name, "results": cells })
            })
            .collect();
        serde_json::json!({
            "registries": self.registries,
            "missing": self.missing,
            "baseline": self.base().map(|_| &self.baseline),
            "settings": self.settings,
            "rows": rows,
        })
    }

    /// A table, one line for each row and registry, then what failed and what is missing.
    pub(crate) fn table(&self) -> String {
        let base = self.base();
        let columns = Columns {
            ratios: base.is_some(),
            commits: self.samples().any(|sample| !sample.commits.is_empty()),
            behind: self.samples().any(|sample| sample.behind.is_some()),
        };
        let mut lines = vec![head(columns)];
        for (name, samples) in &self.rows {
            let figures: Vec<_> = samples.iter().map(Sample::figures).collect();
            for (index, one) in figures.iter().enumerate() {
                let title = if index == 0 { *name } else { "" };
                let ratio = base.map(|base| Ratio::of(one, &figures[base]));
                lines.push(line(title, &self.registries[index].name, one, ratio, columns));
            }
        }
        let mut text = align(&lines);
        if base.is_some() {
            // Writing into a String cannot fail, here and below.
            let _ = writeln!(text, "\nA name with × is a multiple of {}'s.", self.baseline);
        }
        if columns.behind {
            text.push_str(&self.requests_to_s3());
        }
        for registry in &self.registries {
            let _ = writeln!(text, "{}: {}", registry.name, registry.version);
        }
        for (name, reason) in &self.missing {
            let _ = writeln!(text, "{name}: not run: {reason}");
        }
        for (row, samples) in &self.rows {
            for (index, sample) in samples.iter().enumerate() {
                if let Some(first) = sample.errors.first() {
                    let (name, count) = (&self.registries[index].name, sample.errors.len());
                    let _ = writeln!(text, "FAILED {row}, {name}: {count} failures, first: {first}");
                }
            }
        }
        text
    }
}

const COLUMNS: usize = 21;

/// Which columns there are besides those that are always there; a column without a name and a value is left out.
#[derive(Debug, Clone, Copy)]
struct Columns {
    ratios: bool,
    commits: bool,
    behind: bool,
}

fn head(columns: Columns) -> [String; COLUMNS] {
    let named = |there: bool, name: &str| if there { name.to_owned() } else { String::new() };
    let Columns {
        ratios,
        commits,
        behind,
    } = columns;
    [
        named(true, "row"),
        named(true, "registry"),
        named(true, "requests"),
        named(true, "req/s"),
        named(true, "p50 ms"),
        named(true, "p99 ms"),
        named(true, "cpu ms/req"),
        named(behind, "s3 cpu"),
        named(behind, "table cpu"),
        named(true, "driver cpu"),
        named(true, "peak MiB"),
        named(true, "MiB/s"),
        named(commits, "commit ms"),
        named(behind, "s3 req"),
        named(ratios, "req/s×"),
        named(ratios, "p50×"),
        named(ratios, "cpu×"),
        named(ratios, "mem×"),
        named(ratios && commits, "commit×"),
        named(ratios && behind, "s3 req×"),
        named(true, "failed"),
    ]
}

fn line(row: &str, registry: &str, figures: &Figures, ratio: Option<Ratio>, columns: Columns) -> [String; COLUMNS] {
    let mib = |bytes: f64| bytes / as_float(1 << 20);
    let times = |pick: fn(Ratio) -> Option<f64>| {
        ratio
            .and_then(pick)
            .map_or_else(String::new, |value| format!("{value:.2}"))
    };
    let only = |there: bool, value: Option<f64>| if there { short(value) } else { String::new() };
    let failed = if figures.errors > 0 {
        figures.errors.to_string()
    } else {
        String::new()
    };
    [
        row.to_owned(),
        registry.to_owned(),
        figures.requests.to_string(),
        short(figures.requests_per_second),
        short(figures.p50_ms),
        short(figures.p99_ms),
        short(figures.server_cpu_ms),
        only(columns.behind, figures.s3_cpu_ms),
        only(columns.behind, figures.table_cpu_ms),
        short(figures.client_cpu_ms),
        short(figures.peak_memory.map(as_float).map(mib)),
        short(figures.bytes_per_second.map(mib)),
        only(columns.commits, figures.commit_ms),
        only(columns.behind, figures.s3_total()),
        times(|ratio| ratio.requests_per_second),
        times(|ratio| ratio.p50),
        times(|ratio| ratio.server_cpu),
        times(|ratio| ratio.peak_memory),
        times(|ratio| ratio.commit),
        times(|ratio| ratio.s3_requests),
        failed,
    ]
}

/// Three digits that count, nothing for what was not measured.
fn short(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) if value >= 1.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.3}"),
    }
}

fn align(lines: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line
            .iter()
            .enumerate()
            .filter(|(column, _)| widths[*column] > 0)
            .map(|(column, cell)| {
                let width = widths[column];
                if column < 2 {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
        let joined = cells.collect::<Vec<_>>().join("  ");
        text.push_str(joined.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::{RequestCount, Requests, ResourceUse};
    use std::time::Duration;

    fn pass(count: usize, cpu_ms: u64) -> Sample {
        Sample {
            latencies: vec![Duration::from_millis(2); count],
            elapsed: Duration::from_secs(1),
            server_cpu: Some(Duration::from_millis(cpu_ms)),
            peak: Some(64 << 20),
            ..Sample::default()
        }
    }

    fn report() -> Report {
        let registry = |name: &str| Registry {
            name: name.to_owned(),
            version: "1".to_owned(),
        };
        let missing = [("third".to_owned(), "not installed".to_owned())].into();
        Report::new(
            vec![registry("ours"), registry("base")],
            missing,
            "base",
            BTreeMap::new(),
        )
    }

    #[test]
    fn ratios_are_to_the_baseline() {
        let mut report = report();
        report.add("HEAD blob", 0, pass(200, 100));
        report.add("HEAD blob", 1, pass(100, 100));
        let ratio = &report.json()["rows"][0]["results"]["ours"]["ratio"];
        assert_eq!(ratio["requests_per_second"], 2.0);
        assert_eq!(ratio["server_cpu"], 0.5);
        assert_eq!(ratio["peak_memory"], 1.0);
        let table = report.table();
        assert!(table.contains("2.00") && table.contains("0.50"), "{table}");
        assert!(table.contains("third: not run: not installed"), "{table}");
    }

    #[test]
    fn what_lies_behind_a_registry_has_columns_only_where_it_was_measured() {
        let mut report = report();
        report.add("push", 0, pass(10, 100));
        assert!(!report.table().contains("s3 cpu") && !report.table().contains("commit"));
        let requests = Requests {
            registry: [(
                "PutObject".to_owned(),
                RequestCount {
                    count: 20,
                    milliseconds: 100,
                },
            )]
            .into(),
            clients: BTreeMap::new(),
        };
        let behind = Sample {
            commits: vec![Duration::from_millis(7)],
            behind: Some(ResourceUse {
                s3_cpu: Some(Duration::from_millis(50)),
                table_cpu: None,
                requests,
            }),
            ..pass(10, 100)
        };
        report.add("other", 0, behind);
        let table = report.table();
        assert!(table.contains("s3 cpu") && table.contains("commit ms"), "{table}");
        assert!(table.contains("ours: PutObject 2.00 of 5.00 ms (none)"), "{table}");
        let figures = &report.json()["rows"][1]["results"]["ours"];
        assert_eq!(figures["s3_cpu_ms"], 5.0);
        assert_eq!(figures["s3_requests"]["PutObject"]["requests"], 2.0);
        assert_eq!(figures["commit_ms"], 7.0);
    }

    #[test]
    fn what_was_not_measured_has_no_ratio() {
        let mut report = report();
        report.add("HEAD blob", 0, pass(200, 100));
        let ratio = &report.json()["rows"][0]["results"]["ours"]["ratio"];
        assert!(ratio["requests_per_second"].is_null() && ratio["server_cpu"].is_null());
        assert!(report.table().contains("HEAD blob"));
    }

    #[test]
    fn passes_of_one_row_make_one_line() {
        let mut report = report();
        report.add("a", 0, pass(1, 1));
        report.add("b", 0, pass(1, 1));
        report.add("a", 0, pass(3, 1));
        let json = report.json();
        assert_eq!(json["rows"].as_array().map(Vec::len), Some(2));
        assert_eq!(json["rows"][0]["results"]["ours"]["requests"], 4);
    }

    #[test]
    fn failures_are_counted_and_shown() {
        let mut report = report();
        let broken = Sample {
            errors: vec!["GET /v2/: 500".to_owned()],
            ..Sample::default()
        };
        report.add("a", 1, broken);
        assert_eq!(report.failures(), 1);
        assert!(
            report
                .table()
                .contains("FAILED a, base: 1 failures, first: GET /v2/: 500")
        );
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        let shown = [None, Some(1234.5), Some(12.34), Some(1.234), Some(0.1234)].map(short);
        assert_eq!(shown, ["-", "1234", "12.3", "1.23", "0.123"]);
    }
}
