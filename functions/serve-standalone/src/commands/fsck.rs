//! `roadstead fsck`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;

use registry::check::{Event, Finding, Options, Summary, check};
use serde_json::{Value, json};

use super::Failure;
use super::progress::{Progress, size};
use super::store::with;
use crate::cli::FsckArgs;
use crate::environment::SystemEnvironment;
use crate::stores::Absent;

/// Checks everything, and prints what does not agree.
pub(super) fn run(args: &FsckArgs) -> Result<(), Failure> {
    with(&args.stores, Absent::Refuse, async |opened| {
        let options = Options {
            hash: args.hash,
            sparse: args.sparse.into(),
            ..Options::default()
        };
        let mut progress = Progress::new();
        let mut printed = Ok(());
        let environment = Arc::new(SystemEnvironment::new(0));
        let summary = check(&opened.stores, environment, &options, &mut |event| match event {
            Event::Found(finding) => {
                progress.clear();
                // The check goes on when nobody reads any more: its end is worth knowing.
                let shown = show(args, finding);
                if printed.is_ok() {
                    printed = shown;
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
        .map_err(|error| Failure::failed("the check could not be finished", error))?;
        drop(progress);
        printed?;
        conclude(args, &summary)
    })
}

fn show(args: &FsckArgs, finding: &Finding) -> Result<(), Failure> {
    let mut output = std::io::stdout();
    let value = serde_json::to_value(finding).map_err(|error| Failure::failed("cannot print", error))?;
    if args.json {
        writeln!(output, "{value}")?;
    } else {
        writeln!(output, "{}", words(&value))?;
    }
    Ok(())
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

fn conclude(args: &FsckArgs, summary: &Summary) -> Result<(), Failure> {
    if args.json {
        writeln!(std::io::stdout(), "{}", json!({ "summary": summary }))?;
    } else {
        eprintln!(
            "{} repositories, {} manifests, {} tags, {} blobs, {} objects ({}): {} findings",
            summary.repositories,
            summary.manifests,
            summary.tags,
            summary.blobs,
            summary.objects,
            size(summary.object_bytes),
            summary.findings
        );
    }
    match summary.findings {
        0 => Ok(()),
        findings => Err(Failure::Failed(format!("{findings} things do not agree"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
