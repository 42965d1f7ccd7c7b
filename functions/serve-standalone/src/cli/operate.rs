//! The flags of the commands for operators.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use shell::stores::Bucket;

use super::examples;
use super::sparse::SparseArgs;
use super::stores::StoreArgs;
use shell::values::Span;

#[derive(Debug, Subcommand)]
pub(crate) enum RepoCommand {
    /// List the repositories of the catalog
    #[command(after_help = examples::REPO_LIST)]
    List(ReadArgs),
    /// Create an empty repository, which stays in the catalog until something is pushed to it, and after that
    #[command(after_help = examples::REPO_CREATE)]
    Create {
        /// The repository, for example team/app
        repository: String,
        #[command(flatten)]
        args: ReadArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MetadataCommand {
    /// Create the tables in DynamoDB; existing tables are not changed
    #[command(after_help = examples::METADATA_INIT)]
    Init(InitArgs),
    /// Export all metadata, as one JSON object per line
    #[command(after_help = examples::METADATA_EXPORT)]
    Export(ExportArgs),
    /// Import an export into an empty registry
    #[command(after_help = examples::METADATA_IMPORT)]
    Import(ImportArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum BlobsCommand {
    /// Copy every object that has a record in the metadata to another store
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
    /// Change nothing, and report what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also delete orphaned records. Interrupted operations leave them, and they prevent the deletion of blobs. Once a month is
    /// enough; `serve --collect-every` does it by itself
    #[arg(long)]
    pub(crate) deep: bool,
    /// Begin a pass at this interval, until SIGTERM or SIGINT
    #[arg(long, value_name = "DURATION")]
    pub(crate) every: Option<Span>,
    /// Minimum age before each step. The defaults are 24h for unreferenced links (before they are marked, and again before
    /// they are deleted) and for orphaned records, 1h for expired uploads, and 25h for objects that are scheduled for
    /// deletion. The age must be longer than each of these: the time of a push from its first blob to its manifest, the time
    /// of a redirected pull, and the servers' --upload-lifetime. Otherwise such pushes, pulls and uploads fail
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
    /// Read every object, and compare its hash with its digest
    #[arg(long)]
    pub(crate) hash: bool,
    /// Record which objects are missing or damaged, so that the next push uploads them; see below
    #[arg(long)]
    pub(crate) repair: bool,
    #[command(flatten)]
    pub(crate) sparse: SparseArgs,
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
    /// File to write. If it holds an interrupted export of the same registry, the export continues it [default: standard
    /// output]
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Export the audit trail too
    #[arg(long)]
    pub(crate) audit: bool,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// File of `roadstead metadata export`. The progress of the import is saved in FILE.progress
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Import even if the registry has other repositories, accounts or an interrupted import of another file, or an account or
    /// a policy that differs (existing records are replaced), or if records of the file refer to missing records
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

#[derive(Args, Debug)]
pub(crate) struct CopyArgs {
    /// Destination: `s3://BUCKET[/PREFIX]`, or `disk:DIRECTORY` for a directory that becomes a --data directory
    #[arg(long, value_name = "STORE")]
    pub(crate) to: Target,
    /// Number of objects to copy at the same time
    #[arg(long, value_name = "COUNT", default_value = "8", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) jobs: u16,
    /// Print the report as one JSON object
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
