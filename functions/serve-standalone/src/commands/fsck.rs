//! `roadstead fsck`: what does not agree, what cannot be pulled because of it, and what to do.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::Arc;

use registry::check::{Event, Finding, Options, Summary, check};
use serde_json::{Value, json};

use super::progress::{Progress, size};
use super::store::with;
use crate::cli::FsckArgs;
use crate::failure::Failure;
use shell::clock::SystemEnvironment;
use shell::stores::Absent;

/// Checks everything, and prints what does not agree. What is found decides the exit code, whoever reads it.
pub(super) fn run(args: &FsckArgs) -> Result<(), Failure> {
    let (mut printed, mut findings) = (Ok(()), 0_u64);
    let summary = with(&args.stores, Absent::Refuse, async |opened| {
        let options = Options {
            hash: args.hash,
            repair: args.repair,
            sparse: args.sparse.into(),
            ..Options::default()
        };
        let mut progress = Progress::new();
        let environment = Arc::new(SystemEnvironment);
        check(&opened.stores, environment, &options, &mut |event| match event {
            Event::Found(finding) => {
                findings += 1;
                progress.clear();
                // The check goes on when nobody reads any more: its end is worth knowing.
                if printed.is_ok() {
                    printed = show(args, finding);
                }
            }
            Event::Progress(summary) => progress.show(|| {
                format!(
                    "{} blobs, {} manifests, {} objects ({})",
                    summary.blobs,
                    summary.manifests,
                    summary.objects,
                    size(summary.object_bytes)
                )
            }),
        })
        .await
        .map_err(|error| Failure::failed("the check could not be finished", error))
    })
    .map_err(|failure| match failure {
        Failure::Failed(text) if findings > 0 => Failure::Failed(format!("{findings} things do not agree; {text}")),
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
        writeln!(output, "{}{}", words(&value), advice(finding, args.repair))
    }
}

/// A finding for people: what it is, and everything about it. The fields are those of its JSON, so that the two cannot
/// tell different things.
fn words(finding: &Value) -> String {
    let mut text = String::new();
    let Value::Object(fields) = finding else { return text };
    if let Some(kind) = fields.get("finding").and_then(Value::as_str) {
        text += &kind.replace('_', " ");
    }
    for (name, value) in fields.iter().filter(|(name, _)| *name != "finding") {
        let value = match value {
            Value::String(value) => value.clone(),
            // A location: the key alone says which.
            Value::Object(location) => location.get("key").and_then(Value::as_str).unwrap_or("?").to_owned(),
            other => other.to_string(),
        };
        let _ = write!(text, " {name}={value}");
    }
    text
}

/// What to do about it.
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
        Finding::RecordedAsMissing { .. } if repaired => return ": it is used again".to_owned(),
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
            "{} repositories, {} manifests, {} tags, {} blobs, {} objects ({}): {} findings{}",
            summary.repositories,
            summary.manifests,
            summary.tags,
            summary.blobs,
            summary.objects,
            size(summary.object_bytes),
            summary.findings,
            if args.repair {
                format!(", {} repaired", summary.repaired)
            } else {
                String::new()
            }
        )
    }
}

/// What the command ends with. That nobody reads is no failure; that a report could not be written is one, unless there
/// is worse to tell.
fn conclude(printed: io::Result<()>, findings: u64) -> Result<(), Failure> {
    match (findings, printed.map_err(Failure::from)) {
        (0, Err(Failure::Failed(text))) => Err(Failure::Unknown(text)),
        (0, _) => Ok(()),
        (findings, Err(Failure::Failed(text))) => {
            Err(Failure::Failed(format!("{findings} things do not agree; {text}")))
        }
        (findings, _) => Err(Failure::Failed(format!("{findings} things do not agree"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found decides, however the report fares.
    #[test]
    fn findings_decide_how_it_ends() {
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
    fn what_cannot_be_pulled_is_told_with_what_to_do() {
        let digest: oci::Digest = format!("sha256:{}", "a".repeat(64)).parse().expect("a digest");
        let manifest = |tags: &[&str]| Finding::ManifestNotPullable {
            repository: "team/app".parse().expect("a name"),
            digest,
            tags: tags.iter().map(|tag| tag.parse().expect("a tag")).collect(),
            lost: vec![digest],
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
    fn a_finding_is_told_with_all_that_is_known_of_it() {
        let finding = json!({
            "finding": "object_missing",
            "digest": "sha256:abc",
            "location": { "store": "main", "key": "00.1" },
        });
        let text = words(&finding);
        assert!(
            text.starts_with("object missing ") && text.contains("digest=sha256:abc") && text.contains("location=00.1"),
            "{text}"
        );
    }
}
