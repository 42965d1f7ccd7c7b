//! The flags of `roadstead policy`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use registry::store::access::PolicyForm;

use super::StoreArgs;
use super::examples;
use super::operate::ReadArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Print the policy as it was written
    #[command(after_help = examples::POLICY_SHOW)]
    Show(PolicyShowArgs),
    /// List the versions of the policy, the latest one first
    #[command(after_help = examples::POLICY_VERSIONS)]
    Versions(ReadArgs),
    /// Put a policy in force
    #[command(after_help = examples::POLICY_SET)]
    Set(PolicySetArgs),
    /// Check a policy without putting it in force
    #[command(after_help = examples::POLICY_CHECK)]
    Check(PolicyCheckArgs),
    /// Say which rule of the policy decides
    #[command(after_help = examples::POLICY_EXPLAIN)]
    Explain(PolicyExplainArgs),
}

#[derive(Args, Debug)]
pub(crate) struct PolicyShowArgs {
    /// A version that `roadstead policy versions` lists [default: the one in force]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) version: Option<u64>,
    /// Print one JSON object: the version, who set it when and why, and the policy as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

/// A file with a policy.
#[derive(Args, Debug)]
pub(crate) struct PolicyFileArgs {
    /// The file; `-` is standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The syntax of the file [default: json if the file's name ends with .json, else toml]
    #[arg(long, value_name = "SYNTAX")]
    pub(crate) form: Option<FormWord>,
}

#[derive(Args, Debug)]
pub(crate) struct PolicySetArgs {
    #[command(flatten)]
    pub(crate) file: PolicyFileArgs,
    /// Set it only if this version is in force: the one that you have changed. 0 means that no policy was set, `any` sets it in
    /// place of any version [default: the version that the last line of `roadstead policy show` names; any if there is no
    /// such line]
    #[arg(long, value_name = "NUMBER|any")]
    pub(crate) if_version: Option<IfVersion>,
    /// Why it is set, for the list of versions and the audit trail
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
    /// Print the new version as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

#[derive(Args, Debug)]
pub(crate) struct PolicyCheckArgs {
    #[command(flatten)]
    pub(crate) file: PolicyFileArgs,
    /// Also warn of users, robots and groups that do not exist. Without this flag the stores are not read
    #[arg(long)]
    pub(crate) accounts: bool,
    /// Print one JSON object per mistake and warning
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

#[derive(Args, Debug)]
pub(crate) struct PolicyExplainArgs {
    /// A user such as alice, a robot as robot:ci, a workload as workload:RULE:NAME, or anonymous
    #[arg(value_name = "PRINCIPAL")]
    pub(crate) principal: String,
    /// pull, create (a push that moves no tag), move (a tag that exists), push or delete
    #[arg(value_name = "ACTION")]
    pub(crate) action: String,
    /// The repository, or a tag in it, for example team/app or team/app:1.4.0
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub(crate) target: String,
    /// Explain this policy instead of the one in force
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The syntax of --file [default: json if the file's name ends with .json, else toml]
    #[arg(long, value_name = "SYNTAX", requires = "file")]
    pub(crate) form: Option<FormWord>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

/// Which version a policy may replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfVersion {
    /// Any version.
    Any,
    /// This one; 0: none was set.
    Version(u64),
}

impl FromStr for IfVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "any" => Ok(Self::Any),
            _ => text
                .parse()
                .map(Self::Version)
                .map_err(|_| "expected the number of a version, or any".into()),
        }
    }
}

/// The word of a syntax.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormWord {
    /// TOML
    Toml,
    /// JSON
    Json,
}

impl From<FormWord> for PolicyForm {
    fn from(word: FormWord) -> Self {
        match word {
            FormWord::Toml => Self::Toml,
            FormWord::Json => Self::Json,
        }
    }
}
