//! What each command does.

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::cli::{BlobsCommand, Cli, Command, GroupCommand, MetadataCommand, RepoCommand, ServeArgs, TagCommand};
use crate::failure::Failure;
use crate::logging;
use shell::log::LogFormat;

mod accounts;
mod audit;
mod blobs;
mod collect;
mod completions;
mod fsck;
mod group;
mod health;
mod htpasswd;
mod key;
mod metadata;
mod output;
mod policy;
mod progress;
mod prompt;
mod repo;
mod robot;
mod serve;
mod signals;
mod signing_key;
mod store;
mod tag;
mod user;

pub(crate) use metadata::EXPORT_VERSION;

/// Runs a command to its end.
pub(crate) fn run(cli: Cli) -> ExitCode {
    if cli.runs_until_signal() {
        // Before anything else: SIGHUP asks a server to read its files again, and must not end one that is starting.
        if let Err(error) = signals::ignore_hangups() {
            let _ = writeln!(io::stderr(), "roadstead: cannot handle signals: {error}");
            return ExitCode::FAILURE;
        }
    }
    let mut log = None;
    let mut serve = |args: &ServeArgs| {
        log = Some(logging::format(args.log.map(Into::into)));
        serve::run(args)
    };
    let done = match cli.command {
        None => serve(&cli.serve),
        Some(Command::Serve(args)) => serve(&args),
        Some(Command::Repo(command)) => match command.into_inner() {
            RepoCommand::List(read) => repo::list(&read),
            RepoCommand::Create { repository, args } => repo::create(&repository, &args),
        },
        Some(Command::Tag(command)) => match command.into_inner() {
            TagCommand::List { repository, read } => tag::list(&repository, &read),
            TagCommand::History { repository, tag, read } => tag::history(&repository, &tag, &read),
            TagCommand::Rollback(args) => tag::roll_back(&args),
            TagCommand::Promote(args) => tag::promote(&args),
        },
        Some(Command::User(command)) => user::run(&command),
        Some(Command::Robot(command)) => robot::run(&command),
        Some(Command::Key(command)) => key::run(&command),
        Some(Command::Group(command)) => match command.into_inner() {
            GroupCommand::List(read) => group::list(&read),
        },
        Some(Command::Policy(command)) => policy::run(&command),
        Some(Command::SigningKey(command)) => signing_key::run(&command),
        Some(Command::Audit(args)) => audit::run(&args),
        Some(Command::Collect(args)) => collect::run(&args),
        Some(Command::Fsck(args)) => fsck::run(&args),
        Some(Command::Metadata(command)) => match command.into_inner() {
            MetadataCommand::Init(args) => metadata::init(&args),
            MetadataCommand::Export(args) => metadata::export(&args),
            MetadataCommand::Import(args) => metadata::import(&args),
        },
        Some(Command::Blobs(command)) => match command.into_inner() {
            BlobsCommand::Copy(args) => blobs::copy(&args),
        },
        Some(Command::Htpasswd(args)) => htpasswd::run(&args),
        Some(Command::Health(args)) => health::run(&args),
        Some(Command::Completions { shell }) => completions::run(shell),
    };
    let (text, code) = match done {
        Ok(()) | Err(Failure::OutputClosed) => return ExitCode::SUCCESS,
        Err(Failure::Failed(text)) => (text, 1),
        Err(Failure::Usage(text) | Failure::Unknown(text)) => (text, 2),
        Err(Failure::NotFound(text)) => (text, 3),
    };
    // A collector of JSON logs reads nothing but JSON. But if the level of the log leaves the error out, it is printed all
    // the same.
    if log == Some(LogFormat::Json) && tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!("{text}");
    } else {
        // Standard error may be closed. The exit code tells of the failure too.
        let _ = writeln!(io::stderr(), "roadstead: {text}");
    }
    ExitCode::from(code)
}
