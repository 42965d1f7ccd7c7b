//! `roadstead collect`.

use std::io::Write as _;
use std::sync::Arc;

use registry::Environment;
use registry::collection::{Interrupted, Options, Report, collect};
use registry::store::collection::{Graces, Plan};

use super::Failure;
use super::progress::{Progress, size};
use super::signals::Signals;
use super::store::with;
use crate::cli::CollectArgs;
use crate::collector::describe;
use crate::environment::SystemEnvironment;
use crate::stores::{Absent, Opened};

/// Collects once, or from time to time.
pub(super) fn run(args: &CollectArgs) -> Result<(), Failure> {
    with(&args.stores, Absent::Refuse, async |opened| {
        let Some(every) = args.every else {
            return once(args, &opened).await;
        };
        let signals = Signals::new().map_err(|error| Failure::failed("cannot listen to signals", error))?;
        let work = async {
            let mut ticks = tokio::time::interval(every.0);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                match once(args, &opened).await {
                    // A store that fails now may work at the next pass.
                    Err(Failure::Failed(text)) => eprintln!("roadstead: {text}"),
                    Err(failure) => return Err(failure),
                    Ok(()) => {}
                }
            }
        };
        tokio::select! {
            ended = work => ended,
            // What was begun is gone on with by the next pass, whoever runs it.
            () = signals.first() => Ok(()),
        }
    })
}

async fn once(args: &CollectArgs, opened: &Opened) -> Result<(), Failure> {
    let environment: Arc<dyn Environment> = Arc::new(SystemEnvironment::new(0));
    let options = Options {
        plan: plan(args),
        ..Options::default()
    };
    let mut progress = Progress::new();
    let collected = collect(&opened.stores, environment, &options, &mut |report| {
        progress.show(|| {
            format!(
                "{} records, {} uploads, {} objects deleted",
                report.names.seen, report.sessions_swept, report.objects_deleted
            )
        });
    })
    .await;
    drop(progress);
    match collected {
        Ok(report) => show(args, &report),
        Err(Interrupted { report, source }) => {
            show(args, &report)?;
            Err(Failure::failed(
                "the collection was interrupted, and the next one goes on from there",
                source,
            ))
        }
    }
}

fn plan(args: &CollectArgs) -> Plan {
    let graces = args.grace.map_or_else(Graces::default, |grace| {
        let grace = u64::try_from(grace.0.as_millis()).unwrap_or(u64::MAX);
        Graces {
            link_ms: grace,
            session_ms: grace,
            grave_ms: grace,
            leftover_ms: grace,
        }
    });
    Plan {
        dry_run: args.dry_run,
        deep: args.deep,
        graces,
    }
}

fn show(args: &CollectArgs, report: &Report) -> Result<(), Failure> {
    let mut output = std::io::stdout();
    if args.json {
        let report = serde_json::to_string(report).map_err(|error| Failure::failed("cannot print", error))?;
        writeln!(output, "{report}")?;
    } else {
        writeln!(output, "{}", describe(report, size))?;
    }
    Ok(())
}
