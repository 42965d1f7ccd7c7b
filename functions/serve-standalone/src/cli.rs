//! The command line: every flag, its environment variable, its default.

use std::ffi::OsString;

use clap::builder::Resettable;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;
use shell::settings::Setting;

mod accounts;
mod audit;
mod deferred;
mod examples;
mod health;
mod htpasswd;
mod operate;
mod policy;
mod pull;
mod serve;
mod sparse;
mod stores;
mod tag;
mod tls;
mod values;

pub(crate) use accounts::{
    Expiry, ForcedArgs, GroupArgs, GroupCommand, KeyAddArgs, KeyCommand, KeyRemoveArgs, KeyRotateArgs, NameArgs,
    PasswdArgs, RobotAddArgs, RobotCommand, RobotSetArgs, SigningKeyCommand, SigningKeyRotateArgs, UserAddArgs,
    UserCommand,
};
pub(crate) use audit::AuditArgs;
pub(crate) use deferred::Deferred;
pub(crate) use health::HealthArgs;
pub(crate) use htpasswd::HtpasswdArgs;
pub(crate) use operate::{
    BlobsCommand, CollectArgs, CopyArgs, ExportArgs, FsckArgs, ImportArgs, InitArgs, MetadataCommand, ReadArgs,
    RepoCommand, Target,
};
pub(crate) use policy::{
    FormWord, IfVersion, PolicyCheckArgs, PolicyCommand, PolicyExplainArgs, PolicyFileArgs, PolicySetArgs,
    PolicyShowArgs,
};
pub(crate) use serve::{ServeArgs, SyncMode};
pub(crate) use stores::StoreArgs;
pub(crate) use tag::{ManifestName, TagCommand, TagName, TagPromoteArgs, TagRollbackArgs};
pub(crate) use values::MetricsAddress;

/// Reads a command line, with the program's name first, and the environment. `--version` prints `long_version`.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    long_version: &'static str,
) -> Result<Cli, clap::Error> {
    let definition = definition().long_version(long_version);
    let matches = without_empty_variables(definition).try_get_matches_from(arguments)?;
    Cli::from_arg_matches(&matches)
}

/// The flag of a setting that all shells have.
pub(crate) fn flag(setting: Setting) -> String {
    format!("--{}", setting.name)
}

/// The definition of the command line. What is deferred is added where it is built or used.
pub(crate) fn definition() -> clap::Command {
    Cli::command()
}

/// Makes an empty environment variable count as unset: deployment templates leave variables empty.
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
#[command(name = "roadstead", version, after_help = examples::ROADSTEAD, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
}

impl Cli {
    /// Whether the command runs until a signal ends it.
    pub(crate) fn runs_until_signal(&self) -> bool {
        match &self.command {
            None | Some(Command::Serve(_)) => true,
            Some(Command::Collect(args)) => args.every.is_some(),
            _ => false,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the registry (the default command)
    #[command(after_help = examples::SERVE)]
    Serve(Deferred<ServeArgs>),
    /// List repositories, and create one
    #[command(subcommand)]
    Repo(Deferred<RepoCommand>),
    /// List tags, show the history of a tag, roll it back, and promote what it names
    #[command(subcommand)]
    Tag(Deferred<TagCommand>),
    /// Add, change, disable and remove users
    #[command(subcommand)]
    User(Deferred<UserCommand>),
    /// Add, change, disable and remove robots: accounts for machines
    #[command(subcommand)]
    Robot(Deferred<RobotCommand>),
    /// Add, rotate and remove keys of users and robots
    #[command(subcommand)]
    Key(Deferred<KeyCommand>),
    /// List the groups of accounts
    #[command(subcommand)]
    Group(Deferred<GroupCommand>),
    /// Set, check and explain the policy: who may do what
    #[command(subcommand)]
    Policy(Deferred<PolicyCommand>),
    /// List and replace the keys that sign tokens
    #[command(subcommand)]
    SigningKey(Deferred<SigningKeyCommand>),
    /// List who has changed what: content, accounts, keys and the policy
    #[command(after_help = examples::AUDIT)]
    Audit(Deferred<AuditArgs>),
    /// Collect garbage: delete unreferenced blobs and expired uploads, while servers run
    #[command(after_help = examples::COLLECT)]
    Collect(Deferred<CollectArgs>),
    /// Check a registry: compare manifests, metadata and blobs, and list what does not agree
    #[command(after_help = examples::FSCK)]
    Fsck(Deferred<FsckArgs>),
    /// Create the tables of the metadata, export the metadata, or import it
    #[command(subcommand)]
    Metadata(Deferred<MetadataCommand>),
    /// Copy blobs to another store
    #[command(subcommand)]
    Blobs(Deferred<BlobsCommand>),
    /// Add, change or remove a user in a --htpasswd file, or print a line for such a file; the password is read from the
    /// terminal or from standard input
    #[command(after_help = examples::HTPASSWD, allow_missing_positional = true)]
    Htpasswd(Deferred<HtpasswdArgs>),
    /// Ask a server on this host whether it is healthy; for the probes of containers
    #[command(after_help = examples::HEALTH)]
    Health(Deferred<HealthArgs>),
    /// Print the completion script for a shell
    #[command(after_help = examples::COMPLETIONS)]
    Completions {
        /// The shell to print the script for
        shell: Shell,
    },
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::collections::BTreeSet;

    use shell::settings;

    use super::serve::SparsePolicy;
    use super::*;

    /// The definition with the flags of all commands.
    fn whole() -> clap::Command {
        let mut definition = definition();
        definition.build();
        definition
    }

    fn read(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    /// What `shell` says of a setting is true of the flags of the server and of all commands.
    #[test]
    fn flags_are_called_as_the_settings_of_all_shells() {
        fn check(command: &clap::Command, found: &mut BTreeSet<&'static str>) {
            for setting in settings::ALL {
                let named = |arg: &&clap::Arg| arg.get_long() == Some(setting.name);
                let Some(arg) = command.get_arguments().find(named) else {
                    continue;
                };
                found.insert(setting.name);
                let (name, command) = (setting.name, command.get_name());
                assert_eq!(arg.get_env(), Some(setting.variable.as_ref()), "{command} --{name}");
                if let Some(default) = setting.default {
                    assert_eq!(arg.get_default_values(), [default], "{command} --{name}");
                }
            }
            command.get_subcommands().for_each(|command| check(command, found));
        }
        let mut found = BTreeSet::new();
        check(&whole(), &mut found);
        assert_eq!(found.len(), settings::ALL.len());
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
            "roadstead tag rollback team/app latest",
            "roadstead tag rollback team/app latest earlier",
            "roadstead tag rollback Team/App latest 1",
            "roadstead tag promote a:1",
            "roadstead tag promote a b:1",
            "roadstead tag promote a:1 b",
            "roadstead --blobs ftp://x",
            "roadstead --pull direct",
            "roadstead --presign-lifetime 13h",
            "roadstead --token-lifetime 2h",
            "roadstead --token-lifetime 59s",
            "roadstead --metrics maybe",
            "roadstead blobs copy",
            "roadstead blobs copy --to nowhere",
            "roadstead metadata import",
            "roadstead user add Alice",
            "roadstead user add key",
            "roadstead user add alice --password-stdin --no-password",
            "roadstead robot add ci",
            "roadstead robot add ci --expires 90d --allow read:a",
            "roadstead robot add ci --expires 90d --allow pull",
            "roadstead key add ci",
            "roadstead key rotate ci 3f9aK2dQ",
            "roadstead key remove ci",
            "roadstead key remove ci short",
            "roadstead policy set",
            "roadstead policy set policy.toml --if-version latest",
            "roadstead policy explain alice pull",
            "roadstead audit --event login",
            "roadstead audit --since yesterday",
        ] {
            assert_eq!(read(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn the_file_of_users_stands_before_the_user_and_can_be_left_out() {
        let htpasswd = |line: &str| match read(line).map(|cli| cli.command) {
            Ok(Some(Command::Htpasswd(args))) => {
                let args = args.into_inner();
                Ok((args.file, args.user, args.delete))
            }
            Ok(_) => panic!("{line}"),
            Err(error) => Err(error.exit_code()),
        };
        let file = || Some("users".into());
        assert_eq!(htpasswd("roadstead htpasswd alice"), Ok((None, "alice".into(), false)));
        assert_eq!(
            htpasswd("roadstead htpasswd users alice"),
            Ok((file(), "alice".into(), false))
        );
        assert_eq!(
            htpasswd("roadstead htpasswd users alice --delete"),
            Ok((file(), "alice".into(), true))
        );
        assert_eq!(htpasswd("roadstead htpasswd --delete alice"), Err(2));
        assert_eq!(
            htpasswd("roadstead htpasswd users alice --delete --hash bcrypt"),
            Err(2)
        );
        assert_eq!(htpasswd("roadstead htpasswd"), Err(2));
    }

    #[test]
    fn allowed_hosts_have_no_port() {
        let hosts = |line: &str| {
            read(line).map_err(|error| error.exit_code()).map(|cli| {
                let hosts = cli.serve.allow_host.iter();
                hosts.map(ToString::to_string).collect::<Vec<_>>()
            })
        };
        let given = hosts("roadstead --allow-host Registry.example,192.0.2.1 --allow-host [2001:db8::1]");
        assert_eq!(given.unwrap(), ["registry.example", "192.0.2.1", "[2001:db8::1]"]);
        for wrong in [
            "registry.example:5000",
            "http://registry.example",
            "*",
            "2001:db8::1",
            "a/b",
        ] {
            assert_eq!(hosts(&format!("roadstead --allow-host {wrong}")), Err(2), "{wrong}");
        }
    }

    #[test]
    fn every_command_has_examples() {
        fn check(command: &clap::Command) {
            if command.get_name() == "help" {
                return;
            }
            if command.has_subcommands() && command.get_name() != "roadstead" {
                command.get_subcommands().for_each(check);
                return;
            }
            let help = command.get_after_help().unwrap().to_string();
            assert!(help.contains("Examples:"), "{}", command.get_name());
            command.get_subcommands().for_each(check);
        }
        check(&whole());
    }
}
