//! `bench`: a load driver for container registries, and a comparison of this project's with others.
//!
//! In reading order: [`rows`] says what is done, [`task`] how one operation goes over the wire with [`client`] and
//! [`content`], [`prepare`] makes a registry ready for a row and [`site`] loads it, [`measure`] and [`report`] turn
//! that into numbers, [`peers`] starts and stops the registries that [`mod@compare`] sets side by side, with [`daemon`],
//! and [`cloud`] the object store. [`mod@tokens`] measures what access by token costs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

mod address;
mod client;
mod cloud;
mod compare;
mod content;
mod daemon;
mod measure;
#[cfg(test)]
mod model;
mod peers;
mod prepare;
mod report;
mod rows;
mod site;
mod task;
mod tokens;

use address::Target;
use cloud::Tools;
use compare::Harbour;
use peers::{Kind, Program, Stores};
use report::{Registry, Report};
use rows::{ROWS, Row, Scale};
use site::{Plan, Site};

/// Puts load on container registries and measures them.
///
/// A row is one kind of operation; `bench list` names them. Rates and times are of whole operations: a push is one,
/// however many requests it takes. Sizes are binary (1 MB is 2^20 bytes).
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  bench compare
  bench compare --install --json > result.json
  bench compare --only 'GET manifest' --rounds 4
  bench compare --s3 --install                   all of them on one S3 server
  bench tokens                                   what access by token costs
  bench run --url http://127.0.0.1:5000 --pid $(pgrep -o roadstead) --only 'pull blob'
  bench --smoke                                  every row once, small; fails on any error or wrong byte"
)]
struct Cli {
    /// Compares with every row once and small; fails on any error or wrong byte.
    #[arg(long)]
    smoke: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Names the rows.
    List,
    /// Loads one registry that is already running. What it pushes stays there, in repositories below `bench/`.
    #[command(after_help = "\
Examples:
  bench run --url http://127.0.0.1:5000
  bench run --url http://127.0.0.1:5000 --pid 4242 --only 'HEAD blob' --clients 16 --seconds 10
  bench run --url http://127.0.0.1:5000 --user ci:secret --only 'Push Monolith 1MB' --json")]
    Run(RunArgs),
    /// Runs roadstead, distribution v3 and Debian's docker-registry side by side, row by row in turn.
    #[command(after_help = "\
Examples:
  bench compare
  bench compare --only push --rounds 3 --dir /mnt/disk
  bench compare --s3 --only 'push 1 GiB'
  bench compare --s3 --pulls proxy --only 'pull blob'
  bench compare --sync off --baseline docker-registry
  bench compare --before ./roadstead-of-last-week --baseline before --only 'HEAD blob'")]
    Compare(CompareArgs),
    /// Measures what tokens cost roadstead: reads with a token, as multiples of reads without credentials; and requests for a
    /// token with a key and with a password, as multiples of those without credentials.
    #[command(after_help = "\
Examples:
  bench tokens
  bench tokens --rounds 5 --only 'HEAD blob'")]
    Tokens(TokensArgs),
}

#[derive(Args)]
struct TokensArgs {
    /// Times that every row is run.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Folder on the disk to measure; all data lies in a new folder below it, which is removed at the end.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The `roadstead` program; the one beside this program if not given.
    #[arg(long, value_name = "PATH")]
    roadstead: Option<PathBuf>,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Args)]
struct LoadArgs {
    /// Only rows whose name contains this, whatever the case; may be repeated.
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,
    /// Workers, each with one connection.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=256))]
    clients: u64,
    /// Time in which a pass of a row begins operations; a row also ends at its count or its bytes.
    #[arg(long, default_value_t = 4.0, value_parser = seconds)]
    seconds: f64,
    /// Everything as small as it can be: shows that each row works, measures nothing.
    #[arg(long)]
    smoke: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct RunArgs {
    /// The registry, by plain HTTP.
    #[arg(long)]
    url: String,
    /// Its process on this machine, to measure processor time and memory.
    #[arg(long)]
    pid: Option<u32>,
    /// Credentials for Basic authentication.
    #[arg(long, value_name = "NAME:PASSWORD", env = "BENCH_USER", hide_env_values = true)]
    user: Option<String>,
    /// Put load on another machine than this one.
    #[arg(long)]
    allow_remote: bool,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Args)]
struct CompareArgs {
    /// Times that every row is run against every registry.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// The registry that ratios are to.
    #[arg(long, default_value = "distribution")]
    baseline: String,
    /// Folder on the disk to measure; all data lies in a new folder below it, which is removed at the end.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// What roadstead runs with.
    #[arg(long, default_value = "full", value_parser = ["full", "off"])]
    sync: String,
    /// The `roadstead` program; the one beside this program if not given.
    #[arg(long, value_name = "PATH")]
    roadstead: Option<PathBuf>,
    /// An earlier build of `roadstead` that takes part, to see what a change costs (`--baseline before`).
    #[arg(long, value_name = "PATH")]
    before: Option<PathBuf>,
    /// distribution's `registry` program; the one in the cache of the tests if not given.
    #[arg(long, value_name = "PATH")]
    distribution: Option<PathBuf>,
    /// Debian's `docker-registry` program; the one in the search path if not given.
    #[arg(long, value_name = "PATH")]
    docker_registry: Option<PathBuf>,
    /// Keep the blobs of all of them in one S3 server (versitygw), each in a bucket of its own. roadstead takes part
    /// twice: with its metadata in SQLite, and in DynamoDB (ministack). Without --only, the rows that this concerns.
    #[arg(long)]
    s3: bool,
    /// With --s3: how blobs are read, by redirects to the S3 server or through the registry.
    #[arg(long, default_value = "redirect", value_parser = ["redirect", "proxy"], requires = "s3")]
    pulls: String,
    /// The `versitygw` program; the one in the cache of the tests if not given.
    #[arg(long, value_name = "PATH")]
    versitygw: Option<PathBuf>,
    /// A Python that has the package `ministack`; the one in the cache of the tests if not given.
    #[arg(long, value_name = "PATH")]
    ministack_python: Option<PathBuf>,
    /// Install into the cache what is not there: distribution (some minutes); with --s3 versitygw and ministack too.
    #[arg(long)]
    install: bool,
    #[command(flatten)]
    load: LoadArgs,
}

type Outcome = Result<ExitCode, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let outcome = match Cli::parse() {
        Cli {
            command: Some(Command::List),
            ..
        } => {
            print!("{}", list());
            Ok(ExitCode::SUCCESS)
        }
        Cli {
            command: Some(Command::Run(args)),
            smoke,
        } => attended(run(args, smoke)),
        Cli {
            command: Some(Command::Compare(args)),
            smoke,
        } => attended(compare(args, smoke)),
        Cli {
            command: Some(Command::Tokens(args)),
            smoke,
        } => attended(tokens(args, smoke)),
        Cli {
            command: None,
            smoke: true,
        } => match Cli::parse_from(["bench", "compare", "--smoke"]).command {
            Some(Command::Compare(args)) => attended(compare(args, true)),
            _ => Ok(ExitCode::FAILURE),
        },
        Cli {
            command: None,
            smoke: false,
        } => {
            let shown = Cli::command().print_help();
            shown.map(|()| ExitCode::from(2)).map_err(Into::into)
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("bench: {error}");
        let mut cause = error.source();
        while let Some(inner) = cause {
            eprintln!("  caused by: {inner}");
            cause = inner.source();
        }
        ExitCode::FAILURE
    })
}

/// Runs to the end or until the user interrupts; either way servers are stopped and folders removed on the way out.
fn attended(work: impl Future<Output = Outcome>) -> Outcome {
    // One thread: the other processors are the server's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut ended = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            outcome = work => outcome,
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
            _ = ended.recv() => Err("terminated".into()),
        }
    })
}

async fn run(args: RunArgs, smoke: bool) -> Outcome {
    let rows = chosen(&args.load.only)?;
    let target = Target::new(&args.url, args.user.as_deref(), args.allow_remote)?;
    let seed = random()?;
    let mut plan = args.load.plan(smoke, seed);
    let registry = Registry {
        name: "registry".to_owned(),
        version: args.url.clone(),
    };
    let mut report = Report::new(vec![registry], BTreeMap::new(), "", args.load.settings(smoke));
    let mut site = Site::new(target, args.pid, &format!("{seed:016x}"));
    for row in rows.iter().filter(|row| !row.starts_server()) {
        eprintln!("{}", row.name);
        let sample = site.pass(&mut plan, row).await;
        report.add(row.name, 0, sample);
    }
    Ok(finish(&report, args.load.json))
}

async fn compare(args: CompareArgs, smoke: bool) -> Outcome {
    let smoke = smoke || args.load.smoke;
    let rows = if args.s3 && args.load.only.is_empty() {
        Row::for_s3(smoke)
    } else {
        chosen(&args.load.only)?
    };
    let find = |kind: Kind| Program::find(kind, args.given(kind), &args.sync);
    if args.install && find(Kind::Distribution).is_none() {
        Program::install_distribution()?;
    }
    let programs: Vec<Program> = Kind::ALL.into_iter().filter_map(find).collect();
    let absent: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|kind| programs.iter().all(|program| program.kind != *kind))
        // Few want one.
        .filter(|kind| *kind != Kind::Before || args.before.is_some())
        .collect();
    if absent.contains(&Kind::Roadstead) {
        return Err(format!("no roadstead to measure: {}", Kind::Roadstead.advice()).into());
    }
    let tools = if args.s3 { Some(args.tools()?) } else { None };
    let programs = if args.s3 { on_s3(&programs) } else { programs };
    let (registries, missing) = compare::roll(&programs, &absent);
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&parent)?;
    let rounds = if smoke { 1 } else { args.rounds };
    let mut settings = args.load.settings(smoke);
    settings.insert("rounds", rounds.into());
    settings.insert("sync", args.sync.as_str().into());
    if args.s3 {
        settings.insert("s3", args.pulls.as_str().into());
    }
    if in_memory(folder.path()) {
        eprintln!(
            "bench: {} is held in memory: syncs cost nothing there; --dir chooses a disk",
            parent.display()
        );
        settings.insert("disk", "memory".into());
    }
    let mut report = Report::new(registries, missing, &args.baseline, settings);
    let mut plan = args.load.plan(smoke, random()?);
    let harbour = Harbour {
        folder: folder.path(),
        tools: tools.as_ref(),
        redirect: args.pulls == "redirect",
    };
    compare::compare(&mut plan, &rows, &programs, rounds, &harbour, &mut report).await?;
    folder.close()?;
    Ok(finish(&report, args.load.json))
}

async fn tokens(args: TokensArgs, smoke: bool) -> Outcome {
    let smoke = smoke || args.load.smoke;
    let chosen = tokens::chosen(&args.load.only);
    if chosen.is_empty() {
        return Err(format!("no row has such a name; the rows are {}", tokens::names().join(", ")).into());
    }
    let Some(program) = Program::find(Kind::Roadstead, args.roadstead.as_deref(), "full") else {
        return Err(format!("no roadstead to measure: {}", Kind::Roadstead.advice()).into());
    };
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&parent)?;
    let rounds = if smoke { 1 } else { args.rounds };
    let mut settings = args.load.settings(smoke);
    settings.insert("rounds", rounds.into());
    let registries = tokens::SIDES.map(|name| Registry {
        name: name.to_owned(),
        version: format!("{} ({})", program.version, program.path.display()),
    });
    let mut report = Report::new(registries.into(), BTreeMap::new(), tokens::SIDES[0], settings);
    let mut plan = args.load.plan(smoke, random()?);
    tokens::measure(&mut plan, &chosen, &program, rounds, folder.path(), &mut report).await?;
    folder.close()?;
    Ok(finish(&report, args.load.json))
}

/// The same programs with their bytes in S3; ours with both kinds of metadata.
fn on_s3(programs: &[Program]) -> Vec<Program> {
    let stores = |kind: Kind| match kind {
        Kind::Roadstead | Kind::Before => &[Stores::S3AndDynamoDb, Stores::S3][..],
        Kind::Distribution | Kind::DockerRegistry => &[Stores::S3],
    };
    let moored = |program: &Program| {
        stores(program.kind)
            .iter()
            .map(|stores| program.with(*stores))
            .collect::<Vec<_>>()
    };
    programs.iter().flat_map(moored).collect()
}

fn finish(report: &Report, json: bool) -> ExitCode {
    if json {
        println!("{:#}", report.json());
    } else {
        print!("{}", report.table());
    }
    if report.failures() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

impl LoadArgs {
    fn scale(&self, smoke: bool) -> Scale {
        let smoke = smoke || self.smoke;
        let time = Duration::from_secs_f64(if smoke { self.seconds.min(1.0) } else { self.seconds });
        Scale { time, smoke }
    }

    fn plan(&self, smoke: bool, seed: u64) -> Plan {
        Plan::new(self.clients, self.scale(smoke), seed)
    }

    fn settings(&self, smoke: bool) -> BTreeMap<&'static str, serde_json::Value> {
        let scale = self.scale(smoke);
        [
            ("clients", self.clients.into()),
            ("seconds", scale.time.as_secs_f64().into()),
            ("smoke", scale.smoke.into()),
        ]
        .into()
    }
}

impl CompareArgs {
    /// The stand-ins for a cloud, installed first where that is asked for.
    fn tools(&self) -> Result<Tools, Box<dyn std::error::Error>> {
        let find = || {
            let cache = peers::cache();
            Tools::find(
                self.versitygw.as_deref(),
                self.ministack_python.as_deref(),
                cache.as_deref(),
            )
        };
        if self.install && find().is_none() {
            Tools::install()?;
        }
        let advice = "no S3 server to compare on: run once with --install (needs Go and Python), or give --versitygw and --ministack-python";
        find().ok_or_else(|| advice.into())
    }

    fn given(&self, kind: Kind) -> Option<&std::path::Path> {
        match kind {
            Kind::Roadstead => self.roadstead.as_deref(),
            Kind::Before => self.before.as_deref(),
            Kind::Distribution => self.distribution.as_deref(),
            Kind::DockerRegistry => self.docker_registry.as_deref(),
        }
    }
}

fn chosen(only: &[String]) -> Result<Vec<Row>, String> {
    let rows = Row::chosen(only);
    if rows.is_empty() {
        Err("no row has such a name; `bench list` names them".to_owned())
    } else {
        Ok(rows)
    }
}

fn list() -> String {
    let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
    names.join("\n") + "\n"
}

fn random() -> Result<u64, getrandom::Error> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Whether `folder` lies on a file system without a disk.
fn in_memory(folder: &std::path::Path) -> bool {
    const TMPFS: i64 = 0x0102_1994;
    rustix::fs::statfs(folder).is_ok_and(|info| info.f_type == TMPFS)
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.01..=3600.0).contains(&value) => Ok(value),
        _ => Err("seconds between 0.01 and 3600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["bench", "--smoke"]).unwrap().smoke);
        assert!(Cli::try_parse_from(["bench", "run"]).is_err());
        assert!(Cli::try_parse_from(["bench", "compare", "--seconds", "0"]).is_err());
    }

    #[test]
    fn a_row_that_does_not_exist_is_an_error() {
        assert!(chosen(&["no such row".to_owned()]).is_err());
        assert!(list().lines().any(|line| line == "Push Monolith 1MB"));
    }
}
