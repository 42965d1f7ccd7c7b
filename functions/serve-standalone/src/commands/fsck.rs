//! `roadstead fsck`: reports what does not agree, which images cannot be pulled because of it, and what to do.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::Arc;

use registry::check::{CheckOptions, Event, Finding, Summary, check};
use serde_json::{Value, json};

use super::progress::{ProgressLine, size};
use super::store::with;
use crate::cli::FsckArgs;
use crate::failure::Failure;
use shell::clock::SystemEnvironment;
use shell::stores::Absent;
use shell::text::count;

/// Checks everything, and prints the findings. The findings decide the exit code, even if standard output is closed.
pub(super) fn run(args: &FsckArgs) -> Result<(), Failure> {
    let (mut printed, mut findings) = (Ok(()), 0_u64);
    let summary = with(&args.stores, Absent::Refuse, async |opened| {
        let options = CheckOptions {
            hash: args.hash,
            repair: args.repair,
            sparse: args.sparse.policy(),
            ..CheckOptions::default()
        };
        let mut progress = ProgressLine::new();
        let environment = Arc::new(SystemEnvironment);
        check(&opened.stores, environment, &options, &mut |event| match event {
            Event::Found(finding) => {
                findings += 1;
                progress.clear();
                // The check continues if standard output is closed: the exit code still tells its result.
                if printed.is_ok() {
                    printed = show(args, finding);
                }
            }
            Event::Progress(summary) => progress.show(|| {
                format!(
                    "{}, {}, {} ({})",
                    count(summary.blobs, "blob", "blobs"),
                    count(summary.manifests, "manifest", "manifests"),
                    count(summary.objects, "object", "objects"),
                    size(summary.object_bytes)
                )
            }),
        })
        .await
        .map_err(|error| Failure::failed("the check could not be finished", error))
    })
    .map_err(|failure| match failure {
        Failure::Failed(text) if findings > 0 => Failure::Failed(format!("{}; {text}", disagreement(findings))),
        Failure::Failed(text) => Failure::Unknown(text),
        failure => failure,
    })?;
    let summed_up = sum_up(args, &summary);
    conclude(printed.and(summed_up), findings)
}

fn show(args: &FsckArgs, finding: &Finding) -> io::Result<()> {
    let mut output = io::stdout();
    let value = serde_json::to_value(finding)?;
    if args.json {
        writeln!(output, "{value}")
    } else {
        writeln!(output, "{}{}", text_of(&value), advice(finding, args.repair))
    }
}

/// A finding as text: its kind and its fields. They are made from its JSON, so that both forms say the same.
fn text_of(finding: &Value) -> String {
    let mut text = String::new();
    let Value::Object(fields) = finding else { return text };
    if let Some(kind) = fields.get("finding").and_then(Value::as_str) {
        text += &kind.replace('_', " ");
    }
    for (name, value) in fields.iter().filter(|(name, _)| *name != "finding") {
        let value = match value {
            Value::String(value) => value.clone(),
            // A location. Its key identifies the object.
            Value::Object(location) => location.get("key").and_then(Value::as_str).unwrap_or("?").to_owned(),
            other => other.to_string(),
        };
        let _ = write!(text, " {name}={value}");
    }
    text
}

/// What the operator can do about a finding.
fn advice(finding: &Finding, repaired: bool) -> String {
    let what = match finding {
        Finding::ManifestNotPullable {
            repository,
            digest,
            tags,
            ..
        } if tags.is_empty() => format!("{repository}@{digest}"),
        Finding::ManifestNotPullable { repository, tags, .. } => {
            let names: Vec<String> = tags.iter().map(|tag| format!("{repository}:{tag}")).collect();
            names.join(", ")
        }
        Finding::BlobNotPullable { repository, digest } => format!("{repository}@{digest}"),
        Finding::RecordedAsMissing { .. } if repaired => return ": the registry uses it again".to_owned(),
        Finding::RecordedAsMissing { .. } => return ": run `roadstead fsck --repair`".to_owned(),
        _ => return String::new(),
    };
    if repaired {
        format!(": push {what} again")
    } else {
        format!(": run `roadstead fsck --repair`, then push {what} again")
    }
}

fn sum_up(args: &FsckArgs, summary: &Summary) -> io::Result<()> {
    if args.json {
        writeln!(io::stdout(), "{}", json!({ "summary": summary }))
    } else {
        writeln!(
            io::stderr(),
            "{}, {}, {}, {}, {} ({}): {}{}",
            count(summary.repositories, "repository", "repositories"),
            count(summary.manifests, "manifest", "manifests"),
            count(summary.tags, "tag", "tags"),
            count(summary.blobs, "blob", "blobs"),
            count(summary.objects, "object", "objects"),
            size(summary.object_bytes),
            count(summary.findings, "finding", "findings"),
            if args.repair {
                format!(", {} repaired", summary.repaired)
            } else {
                String::new()
            }
        )
    }
}

/// The result of the command. A closed standard output is no failure. A report that could not be written is one; findings
/// come first.
fn conclude(printed: io::Result<()>, findings: u64) -> Result<(), Failure> {
    match (findings, printed.map_err(Failure::from)) {
        (0, Err(Failure::Failed(text))) => Err(Failure::Unknown(text)),
        (0, _) => Ok(()),
        (findings, Err(Failure::Failed(text))) => Err(Failure::Failed(format!("{}; {text}", disagreement(findings)))),
        (findings, _) => Err(Failure::Failed(disagreement(findings))),
    }
}

/// The error text for this number of findings, of which there is at least one.
fn disagreement(findings: u64) -> String {
    format!(
        "the metadata and the objects do not agree: {}",
        count(findings, "finding", "findings")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The findings decide, whether or not the report could be written.
    #[test]
    fn findings_decide_the_exit_code() {
        let ends = |error: Option<io::ErrorKind>, findings| match conclude(
            error.map_or(Ok(()), |kind| Err(kind.into())),
            findings,
        ) {
            Ok(()) => 0,
            Err(Failure::Failed(_)) => 1,
            Err(Failure::Unknown(_)) => 2,
            Err(other) => panic!("{other:?}"),
        };
        let (pipe, full) = (Some(io::ErrorKind::BrokenPipe), Some(io::ErrorKind::StorageFull));
        let ended = [None, pipe, full].map(|error| (ends(error, 0), ends(error, 3)));
        assert_eq!(ended, [(0, 1), (0, 1), (2, 1)]);
    }

    #[test]
    fn an_unpullable_manifest_is_reported_with_what_to_do() {
        let digest: oci::Digest = format!("sha256:{}", "a".repeat(64)).parse().expect("a digest");
        let manifest = |tags: &[&str]| Finding::ManifestNotPullable {
            repository: "team/app".parse().expect("a name"),
            digest,
            tags: tags.iter().map(|tag| tag.parse().expect("a tag")).collect(),
            missing: vec![digest],
        };
        assert_eq!(
            advice(&manifest(&["1", "latest"]), true),
            ": push team/app:1, team/app:latest again"
        );
        assert_eq!(
            advice(&manifest(&["1"]), false),
            ": run `roadstead fsck --repair`, then push team/app:1 again"
        );
        assert_eq!(advice(&manifest(&[]), true), format!(": push team/app@{digest} again"));
    }

    #[test]
    fn a_finding_is_printed_with_all_its_fields() {
        let finding = json!({
            "finding": "object_missing",
            "digest": "sha256:abc",
            "location": { "store": "main", "key": "00.1" },
        });
        let text = text_of(&finding);
        assert!(
            text.starts_with("object missing ") && text.contains("digest=sha256:abc") && text.contains("location=00.1"),
            "{text}"
        );
    }
}
