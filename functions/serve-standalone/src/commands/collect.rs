//! `roadstead collect`.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;

use registry::Environment;
use registry::collection::{CollectionOptions, Interrupted, Report, collect};
use registry::store::Timestamp;
use registry::store::collection::{GracePeriods, Plan, UNTIL_IMPORTED};
use shell::admission::Admission;
use shell::clock::SystemEnvironment;
use shell::collector::describe;
use shell::opened::Opened;
use shell::stores::Absent;
use shell::text::count;
use shell::timestamp;
use tokio_util::sync::CancellationToken;

use super::progress::ProgressLine;
use super::signals::Signals;
use super::store::with;
use crate::cli::CollectArgs;
use crate::failure::Failure;

/// Runs one collection pass, or one at each interval.
pub(super) fn run(args: &CollectArgs) -> Result<(), Failure> {
    with(&args.stores, Absent::Refuse, async |opened| {
        let signals = Signals::new().map_err(|error| Failure::failed("cannot handle signals", error))?;
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        tokio::spawn(async move {
            signals.first().await;
            drop(guard);
        });
        let Some(every) = args.every else {
            return conclude(&once(args, &opened, &stop).await?);
        };
        let mut ticks = tokio::time::interval(every.0);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            match once(args, &opened, &stop).await.and_then(|report| conclude(&report)) {
                // A signal ends all passes; that it has interrupted one is no failure.
                _ if stop.is_cancelled() => return Ok(()),
                // The next pass may succeed.
                Err(Failure::Failed(text)) => eprintln!("roadstead: {text}"),
                Err(failure) => return Err(failure),
                Ok(()) => {}
            }
        }
    })
}

async fn once(args: &CollectArgs, opened: &Opened, stop: &CancellationToken) -> Result<Report, Failure> {
    let admission = Admission::of(opened, false);
    let admitted = admission.run().await;
    admitted.map_err(|refusal| Failure::Failed(refusal.to_string()))?;
    opened.condition.admit();
    opened.condition.look();
    let fit = opened.condition.may_collect().await;
    fit.map_err(|error| Failure::failed("nothing is collected now", error))?;
    let stores = opened.condition.guarding(&opened.stores);
    let environment: Arc<dyn Environment> = Arc::new(SystemEnvironment);
    let options = CollectionOptions {
        plan: plan(args),
        ..CollectionOptions::default()
    };
    let mut progress = ProgressLine::new();
    let collected = collect(&stores, environment, &options, &mut |report| {
        progress.show(|| {
            format!(
                "{}, {}, {}",
                count(report.metadata.seen, "record", "records"),
                count(report.sessions_swept, "expired upload", "expired uploads"),
                count(report.objects_deleted, "deletion", "deletions"),
            )
        });
        if stop.is_cancelled() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .await;
    drop(progress);
    match collected {
        Ok(report) => {
            show(args, &report)?;
            Ok(report)
        }
        Err(interrupted) => {
            show(args, &interrupted.report)?;
            let Interrupted { report, what, source } = interrupted;
            let attempt = match report.failed {
                1 => what,
                failed => format!("{failed} operations failed; the first of them: {what}"),
            };
            Err(Failure::Failed(format!(
                "{attempt}: {source}. The next pass tries this again"
            )))
        }
    }
}

/// The result of a pass without failures: an error if the pass has not examined everything.
fn conclude(report: &Report) -> Result<(), Failure> {
    if report.stopped {
        return Err(Failure::Failed("interrupted: the next pass continues from here".into()));
    }
    report
        .busy_until
        .map_or(Ok(()), |until| Err(Failure::Failed(busy(until))))
}

/// What to do when another process holds the metadata.
fn busy(until: Timestamp) -> String {
    if until >= UNTIL_IMPORTED {
        return "the metadata was not examined and no pending deletion was carried out, because an import into this registry \
                is not complete; expired uploads were handled. Run the same `roadstead metadata import` again, which \
                continues where it was interrupted. Until it is complete, nothing else is collected"
            .into();
    }
    format!(
        "the metadata was not examined, because another collection examines it at least until {}; expired uploads and \
         pending deletions were handled. If no other collection is running, one was killed: run this again after that \
         time, and it continues where the other one stopped",
        timestamp::seconds(until)
    )
}

fn plan(args: &CollectArgs) -> Plan {
    Plan {
        dry_run: args.dry_run,
        deep: args.deep,
        grace_periods: grace_periods(args),
    }
}

fn grace_periods(args: &CollectArgs) -> GracePeriods {
    args.grace.map_or_else(GracePeriods::default, |grace| {
        let grace = u64::try_from(grace.0.as_millis()).unwrap_or(u64::MAX);
        GracePeriods {
            link_ms: grace,
            session_ms: grace,
            deletion_ms: grace,
            orphan_ms: grace,
        }
    })
}

fn show(args: &CollectArgs, report: &Report) -> Result<(), Failure> {
    let mut output = std::io::stdout();
    if args.json {
        let report = serde_json::to_string(report).map_err(|error| Failure::failed("cannot print", error))?;
        writeln!(output, "{report}")?;
    } else {
        writeln!(output, "{}", describe(report, grace_periods(args)))?;
    }
    Ok(())
}
