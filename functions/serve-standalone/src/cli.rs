//! The command line: every flag, its environment variable, its default.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::Resettable;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

mod values;

pub(crate) use values::{Length, Span};

const EXAMPLES: &str = "\
Examples:
  roadstead
      Serve on 127.0.0.1:5000 and keep everything in ./roadstead-data
  docker tag alpine 127.0.0.1:5000/alpine && docker push 127.0.0.1:5000/alpine
      Push an image to it
  roadstead htpasswd alice > users && roadstead --listen 0.0.0.0:5000 --htpasswd users
      Serve a network, to users with passwords (put TLS in front)
  roadstead repo list --data /var/lib/roadstead
      See what is stored

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 not found";

const SERVE_EXAMPLES: &str = "\
Examples:
  roadstead serve
      On 127.0.0.1:5000, everything in ./roadstead-data, everyone on this machine may push and pull
  roadstead serve --listen 127.0.0.1:0
      On a free port, which is printed
  roadstead serve --listen 0.0.0.0:5000 --htpasswd /etc/roadstead/users --allow-anonymous pull
      Everyone may pull; the users in the file may push and delete
  ROADSTEAD_DATA=/var/lib/roadstead ROADSTEAD_LOG=json roadstead serve
      Every flag is an environment variable too; an empty one counts as unset

SIGTERM and SIGINT end it: no new connections, requests in flight run to their end, exit code 0. A second signal ends \
it at once.
Durations are 500ms, 30s, 5m, 6h or seconds without a unit; sizes are 64MiB, 10GiB or bytes without a unit.";

const REPO_LIST_EXAMPLES: &str = "\
Examples:
  roadstead repo list
  roadstead repo list --json | jq -r .repository";

const TAG_LIST_EXAMPLES: &str = "\
Examples:
  roadstead tag list team/app
  roadstead tag list team/app --json | jq -r 'select(.size > 10000) | .tag'";

const TAG_HISTORY_EXAMPLES: &str = "\
Examples:
  roadstead tag history team/app latest
  roadstead tag history team/app latest --json | jq -r .before";

const HTPASSWD_EXAMPLES: &str = "\
Examples:
  roadstead htpasswd alice >> users
      Asks for the password on the terminal
  printf %s \"$PASSWORD\" | roadstead htpasswd ci >> users
      Reads it from a pipe

A server that uses the file sees the change within a second or two.";

/// Reads a command line, with the program's name first, and the environment.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let matches = without_empty_variables(Cli::command()).try_get_matches_from(arguments)?;
    Cli::from_arg_matches(&matches)
}

/// An environment variable that is set to nothing counts as unset, as deployment templates leave them.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| {
            let empty = arg
                .get_env()
                .is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()));
            if empty { arg.env(Resettable::Reset) } else { arg }
        })
        .mut_subcommands(without_empty_variables)
}

/// A private registry for container images and other OCI artifacts.
#[derive(Debug, Parser)]
#[command(name = "roadstead", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the registry (the default command)
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Box<ServeArgs>),
    /// Look at repositories
    #[command(subcommand)]
    Repo(RepoCommand),
    /// Look at tags
    #[command(subcommand)]
    Tag(TagCommand),
    /// Print a line for a --htpasswd file (bcrypt); the password is read from the terminal or from standard input
    #[command(after_help = HTPASSWD_EXAMPLES)]
    Htpasswd {
        /// The user's name
        user: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RepoCommand {
    /// List the repositories in which something was published
    #[command(after_help = REPO_LIST_EXAMPLES)]
    List(ReadArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TagCommand {
    /// List the tags of a repository
    #[command(after_help = TAG_LIST_EXAMPLES)]
    List {
        /// The repository, for example team/app
        repository: String,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// List what a tag has named, the latest change first
    #[command(after_help = TAG_HISTORY_EXAMPLES)]
    History {
        /// The repository, for example team/app
        repository: String,
        /// The tag, for example latest
        tag: String,
        #[command(flatten)]
        read: ReadArgs,
    },
}

#[derive(Args, Debug)]
pub(crate) struct ReadArgs {
    /// The data directory of the server; it may be running
    #[arg(
        long,
        env = "ROADSTEAD_DATA",
        value_name = "DIRECTORY",
        default_value = "./roadstead-data"
    )]
    pub(crate) data: PathBuf,
    /// Print one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Address and port to serve on; port 0 takes a free one, which is printed
    #[arg(
        long,
        env = "ROADSTEAD_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:5000",
        value_parser = values::listen
    )]
    pub(crate) listen: std::net::SocketAddr,
    /// Directory that keeps everything; made if it does not exist. Several servers on one host may share it
    #[arg(
        long,
        env = "ROADSTEAD_DATA",
        value_name = "DIRECTORY",
        default_value = "./roadstead-data"
    )]
    pub(crate) data: PathBuf,
    /// Users and their passwords, as lines user:hash with bcrypt or argon2id hashes; read again when it changes
    #[arg(long, env = "ROADSTEAD_HTPASSWD", value_name = "FILE")]
    pub(crate) htpasswd: Option<PathBuf>,
    /// What requests without credentials may do. Without this, and without --htpasswd, everything on a loopback
    /// address, while other addresses are refused at start
    #[arg(long, env = "ROADSTEAD_ALLOW_ANONYMOUS", value_name = "WHAT")]
    pub(crate) allow_anonymous: Option<AllowAnonymous>,
    /// Whether manifests may refer to what the repository does not hold
    #[arg(long, env = "ROADSTEAD_SPARSE", value_name = "POLICY", default_value = "refuse")]
    pub(crate) sparse: SparsePolicy,
    /// Whether an acknowledged push survives a power failure
    #[arg(long, env = "ROADSTEAD_SYNC", value_name = "HOW", default_value = "full")]
    pub(crate) sync: SyncMode,
    /// Form of the log on standard error; text on a terminal and JSON elsewhere unless set
    #[arg(long, env = "ROADSTEAD_LOG", value_name = "FORM")]
    pub(crate) log: Option<LogFormat>,
    /// What is logged: a level, or targets with levels. `info,access=off` leaves out the line for each request
    #[arg(long, env = "ROADSTEAD_LOG_LEVEL", value_name = "FILTER", default_value = "info")]
    pub(crate) log_level: String,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

/// Bounds of the server.
#[derive(Args, Debug)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Connections at once; more wait until one ends, and kept-alive ones are closed to make room
    #[arg(long, env = "ROADSTEAD_MAX_CONNECTIONS", value_name = "COUNT", default_value = "1024",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_connections: u32,
    /// Memory for the bodies of all uploads together; more uploads wait for room. As much again is for manifests
    /// and lists of referrers, and a body that was interrupted for lack of it ends with 503
    #[arg(long, env = "ROADSTEAD_UPLOAD_MEMORY", value_name = "SIZE", default_value = "64MiB")]
    pub(crate) upload_memory: Length,
    /// The largest blob that is accepted
    #[arg(long, env = "ROADSTEAD_MAX_BLOB_SIZE", value_name = "SIZE", default_value = "500GiB")]
    pub(crate) max_blob_size: Length,
    /// From the first byte of a request, or from the opening of a connection, to the end of the request's head
    #[arg(
        long,
        env = "ROADSTEAD_HEADER_TIMEOUT",
        value_name = "DURATION",
        default_value = "30s"
    )]
    pub(crate) header_timeout: Span,
    /// For how long a connection may be kept without a request
    #[arg(long, env = "ROADSTEAD_KEEP_ALIVE", value_name = "DURATION", default_value = "2m")]
    pub(crate) keep_alive: Span,
    /// For how long no byte of a request's body may arrive
    #[arg(long, env = "ROADSTEAD_IDLE_TIMEOUT", value_name = "DURATION", default_value = "30s")]
    pub(crate) idle_timeout: Span,
    /// For how long a client may read nothing of a response
    #[arg(long, env = "ROADSTEAD_STALL_TIMEOUT", value_name = "DURATION", default_value = "2m")]
    pub(crate) stall_timeout: Span,
    /// For how long a body, of a request or of a response, may take in all
    #[arg(
        long,
        env = "ROADSTEAD_REQUEST_TIMEOUT",
        value_name = "DURATION",
        default_value = "6h"
    )]
    pub(crate) request_timeout: Span,
    /// For how long requests in flight are waited for after SIGTERM. What stops the server should wait longer than
    /// this before it kills (Kubernetes: its termination grace period; systemd: its stop timeout)
    #[arg(long, env = "ROADSTEAD_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "5m")]
    pub(crate) drain_timeout: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AllowAnonymous {
    /// Pull and list everything
    Pull,
    /// Everything, also push and delete
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SparsePolicy {
    /// Everything that a manifest refers to must be in its repository
    Refuse,
    /// An index may name manifests that are absent, as after a copy of one platform
    Indexes,
    /// Nothing needs to be present
    Allow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SyncMode {
    /// Yes: files and directories are synced before anything is acknowledged
    Full,
    /// No: faster, and safe only against a crash of the server itself
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object per line
    Json,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn read(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_command() {
        let bare = read("roadstead --listen 127.0.0.1:0").unwrap();
        assert!(bare.command.is_none());
        assert_eq!(bare.serve.listen.port(), 0);
        let Some(Command::Serve(named)) = read("roadstead serve --sparse allow").unwrap().command else {
            panic!("serve")
        };
        assert_eq!(named.sparse, SparsePolicy::Allow);
        assert_eq!(named.listen, "127.0.0.1:5000".parse().unwrap());
    }

    #[test]
    fn wrong_values_are_usage_errors() {
        for line in [
            "roadstead --listen 5000",
            "roadstead --allow-anonymous push",
            "roadstead --idle-timeout 0s",
            "roadstead --max-connections 0",
            "roadstead --upload-memory lots",
            "roadstead unknown",
            "roadstead tag list",
        ] {
            assert_eq!(read(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn every_command_has_examples() {
        fn check(command: &clap::Command) {
            if command.has_subcommands() && command.get_name() != "roadstead" {
                command.get_subcommands().for_each(check);
                return;
            }
            let help = command.get_after_help().unwrap().to_string();
            assert!(help.contains("Examples:"), "{}", command.get_name());
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
