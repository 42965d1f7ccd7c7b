//! `roadstead collect`.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;

use registry::collection::{CollectionOptions, Report};
use registry::store::collection::{GracePeriods, Plan};
use shell::admission::Admission;
use shell::clock::SystemEnvironment;
use shell::collector::{Passes, conclude, describe};
use shell::opened::Opened;
use shell::stores::Absent;
use shell::text::count;
use tokio_util::sync::CancellationToken;

use super::progress::ProgressLine;
use super::signals::Signals;
use super::store::with;
use crate::cli::{CollectArgs, flag};
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
        let passes = Passes::new(&opened, Arc::new(SystemEnvironment), Arc::new(()));
        let Some(every) = args.every else {
            return once(args, &opened, &passes, &stop).await;
        };
        let mut ticks = tokio::time::interval(every.0);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            match once(args, &opened, &passes, &stop).await {
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

/// Runs one pass and shows its report. Fails if the pass has not examined everything.
async fn once(args: &CollectArgs, opened: &Opened, passes: &Passes, stop: &CancellationToken) -> Result<(), Failure> {
    Admission::of(opened, Arc::new(SystemEnvironment), false, flag)
        .run()
        .await?;
    opened.condition.admit();
    opened.condition.look();
    let options = CollectionOptions {
        plan: plan(args),
        ..CollectionOptions::default()
    };
    let mut progress = ProgressLine::new();
    let collected = passes
        .run(&options, &mut |report| {
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
    let report = match &collected {
        Ok(report) => Some(report),
        Err(failure) => failure.report(),
    };
    if let Some(report) = report {
        show(args, report)?;
    }
    let report = collected.map_err(|failure| Failure::Failed(failure.to_string()))?;
    conclude(&report).map_err(|incomplete| Failure::Failed(incomplete.to_string()))
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
