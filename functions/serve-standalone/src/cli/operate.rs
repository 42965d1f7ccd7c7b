//! The flags of the operator's commands.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use shell::stores::Bucket;

use super::examples;
use super::serve::SparsePolicy;
use super::stores::StoreArgs;
use super::values::Span;

#[derive(Debug, Subcommand)]
pub(crate) enum RepoCommand {
    /// List the repositories in which something was published
    #[command(after_help = examples::REPO_LIST)]
    List(ReadArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TagCommand {
    /// List the tags of a repository
    #[command(after_help = examples::TAG_LIST)]
    List {
        /// The repository, for example team/app
        repository: String,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// List what a tag has named, the latest change first
    #[command(after_help = examples::TAG_HISTORY)]
    History {
        /// The repository, for example team/app
        repository: String,
        /// The tag, for example latest
        tag: String,
        #[command(flatten)]
        read: ReadArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MetadataCommand {
    /// Make the tables of DynamoDB; those that are there stay as they are
    #[command(after_help = examples::METADATA_INIT)]
    Init(InitArgs),
    /// Write everything that the registry knows as one JSON object per line
    #[command(after_help = examples::METADATA_EXPORT)]
    Export(ExportArgs),
    /// Read what was exported into an empty registry
    #[command(after_help = examples::METADATA_IMPORT)]
    Import(ImportArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum BlobsCommand {
    /// Copy every object that the metadata names to another store
    #[command(after_help = examples::BLOBS_COPY)]
    Copy(CopyArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ReadArgs {
    /// Print one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

#[derive(Args, Debug)]
pub(crate) struct CollectArgs {
    /// Report what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also delete orphaned records, which interrupted operations have left and which keep blobs from being deleted. Once a
    /// month is enough; `serve --collect-every` does so by itself
    #[arg(long)]
    pub(crate) deep: bool,
    /// Begin a pass at this interval, until SIGTERM or SIGINT
    #[arg(long, value_name = "DURATION")]
    pub(crate) every: Option<Span>,
    /// Minimum age before each step, in place of 24h for unreferenced links (before they are marked, and again before they are
    /// deleted) and for orphaned records, 1h for expired uploads, and 25h for objects that are scheduled for deletion. Must be longer than a client takes from its first blob to its manifest, than
    /// redirected pulls may take, and than --upload-lifetime of the servers, or those fail
    #[arg(long, value_name = "DURATION")]
    pub(crate) grace: Option<Span>,
    /// Print one JSON object per pass
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

#[derive(Args, Debug)]
pub(crate) struct FsckArgs {
    /// Read every object, and compare its hash with its name
    #[arg(long)]
    pub(crate) hash: bool,
    /// Record what is lost, so that the next push uploads it; see below
    #[arg(long)]
    pub(crate) repair: bool,
    /// What manifests may refer to without its being there, as the server was told
    #[arg(long, env = "ROADSTEAD_SPARSE", value_name = "POLICY", default_value = "refuse")]
    pub(crate) sparse: SparsePolicy,
    /// Print one JSON object per finding, and one at the end
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

#[derive(Args, Debug)]
pub(crate) struct InitArgs {
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// File to write, or to go on with where an interrupted export of the same registry has left it; standard output
    /// without this
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// What `roadstead metadata export` has written; how far the import has come is kept beside it in FILE.progress
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Also into a registry that holds other repositories, or half of another import; records that are there already are
    /// replaced. Also a file whose records refer to what is not in it
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

#[derive(Args, Debug)]
pub(crate) struct CopyArgs {
    /// Where to: `s3://BUCKET[/PREFIX]`, or `disk:DIRECTORY` for what is to be a --data directory
    #[arg(long, value_name = "STORE")]
    pub(crate) to: Target,
    /// Objects that are copied at once
    #[arg(long, value_name = "COUNT", default_value = "8", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) jobs: u16,
    /// Print one JSON object at the end
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

/// Where objects are copied to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Into a data directory.
    Disk(PathBuf),
    /// Into a bucket.
    S3(Bucket),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text.strip_prefix("disk:"), text.strip_prefix("s3://")) {
            (Some(directory), _) if !directory.is_empty() => Ok(Self::Disk(directory.into())),
            (_, Some(bucket)) => bucket.parse().map(Self::S3),
            _ => Err("expected s3://BUCKET[/PREFIX] or disk:DIRECTORY".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        assert_eq!("disk:/data".parse(), Ok(Target::Disk("/data".into())));
        assert!(matches!("s3://bucket/a".parse(), Ok(Target::S3(_))));
        for wrong in ["", "disk", "disk:", "/data", "s3://", "bucket"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
