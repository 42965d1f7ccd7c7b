//! The flags that say where a registry stores blobs and metadata. The server and all commands have the same ones.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use shell::settings;
use shell::stores::{
    Backends, BlobBackend, CloudConfig, MetadataBackend, ServiceUrl, StoreConfig, TableName, parse_encryption,
    parse_parts, parse_path_style,
};
use store_s3::{Encryption, Parts, PathStyle};

/// Where blobs and metadata are.
///
/// An optional flag is an [`Option`] even if it has a default. So [`StoreArgs::check`] can tell whether a flag for a store
/// that is not in use was given.
#[derive(Args, Debug)]
#[command(next_help_heading = "Stores")]
pub(crate) struct StoreArgs {
    /// Directory for the stores on this host. `serve`, `user add` and `metadata import` create it if it does not exist. Several servers
    /// on one host may share it. Not used if blobs are in S3 and metadata in DynamoDB
    #[arg(long, env = settings::DATA.variable, value_name = "DIRECTORY", default_value = settings::DATA.default)]
    pub(crate) data: PathBuf,
    /// Where blobs are stored: `disk` (in --data) or `s3://BUCKET[/PREFIX]`, on AWS or any S3-compatible store
    #[arg(long, env = settings::BLOBS.variable, value_name = "STORE", default_value = settings::BLOBS.default)]
    pub(crate) blobs: BlobBackend,
    /// Where metadata is stored: `sqlite` (in --data) or `dynamodb://TABLE`; `roadstead metadata init` creates the table
    #[arg(long, env = settings::METADATA.variable, value_name = "STORE", default_value = settings::METADATA.default)]
    pub(crate) metadata: MetadataBackend,
    /// DynamoDB table for uploads in progress, pending deletions and signing keys, which must not be replicated to another
    /// region [default: the table of the metadata]
    #[arg(long, env = settings::LOCAL_TABLE.variable, value_name = "TABLE")]
    pub(crate) local_table: Option<TableName>,
    /// AWS region [default: as AWS tools find it]
    #[arg(long, env = settings::AWS_REGION.variable, value_name = "REGION")]
    pub(crate) aws_region: Option<String>,
    /// Profile of the AWS configuration files [default: as AWS tools find it]
    #[arg(long, env = settings::AWS_PROFILE.variable, value_name = "NAME")]
    pub(crate) aws_profile: Option<String>,
    /// URL of an S3-compatible store other than AWS; `AWS_ENDPOINT_URL_S3` has the same effect
    #[arg(long, env = settings::S3_ENDPOINT.variable, value_name = "URL")]
    pub(crate) s3_endpoint: Option<ServiceUrl>,
    /// URL at which clients reach the same S3, for redirected pulls [default: the endpoint]
    #[arg(long, env = settings::S3_PUBLIC_ENDPOINT.variable, value_name = "URL")]
    pub(crate) s3_public_endpoint: Option<ServiceUrl>,
    /// Whether the bucket's name is in the path of a URL or in its host name [default: auto]
    #[arg(long, env = settings::S3_PATH_STYLE.variable, value_name = "WHEN", value_parser = path_style_words())]
    pub(crate) s3_path_style: Option<PathStyle>,
    /// AWS account that must own the bucket; requests fail if another account owns it
    #[arg(long, env = settings::S3_EXPECTED_BUCKET_OWNER.variable, value_name = "ACCOUNT")]
    pub(crate) s3_expected_bucket_owner: Option<String>,
    /// Encryption of objects at rest: `none` (the setting of the bucket), `aes256`, `kms` or `kms:KEY-ID`
    /// [default: none]
    #[arg(long, env = settings::S3_ENCRYPTION.variable, value_name = "HOW", value_parser = parse_encryption)]
    pub(crate) s3_encryption: Option<Encryption>,
    /// Sizes of the parts of a large upload; `equal` is for stores that require parts of one size [default: growing]
    #[arg(long, env = settings::S3_PARTS.variable, value_name = "SIZES", value_parser = parts_words())]
    pub(crate) s3_parts: Option<Parts>,
    /// URL of a DynamoDB-compatible store other than AWS; `AWS_ENDPOINT_URL_DYNAMODB` has the same effect
    #[arg(long, env = settings::DYNAMODB_ENDPOINT.variable, value_name = "URL")]
    pub(crate) dynamodb_endpoint: Option<ServiceUrl>,
}

impl StoreArgs {
    /// The flags as plain values.
    pub(crate) fn config(&self) -> StoreConfig {
        StoreConfig {
            backends: Backends::new(self.blobs.clone(), self.metadata.clone(), self.data.clone()),
            cloud: CloudConfig {
                region: self.aws_region.clone(),
                profile: self.aws_profile.clone(),
                local_table: self.local_table.clone(),
                s3_endpoint: self.s3_endpoint.clone(),
                s3_public_endpoint: self.s3_public_endpoint.clone(),
                path_style: self.s3_path_style,
                expected_bucket_owner: self.s3_expected_bucket_owner.clone(),
                encryption: self.s3_encryption.clone(),
                parts: self.s3_parts,
                dynamodb_endpoint: self.dynamodb_endpoint.clone(),
            },
        }
    }

    /// Fails if a flag is given for a store that is not in use, because the operator believes that the store is in use.
    /// `copies_to_s3` says that S3 is in use, whatever `--blobs` says.
    pub(crate) fn check(&self, copies_to_s3: bool) -> Result<(), String> {
        self.config().check(copies_to_s3).map_err(|unused| {
            let flag = super::flag(unused.setting);
            let needs = unused.needs.iter();
            let needs: Vec<_> = needs
                .map(|(setting, value)| format!("{} {value}", super::flag(*setting)))
                .collect();
            let needs = needs.join(" or ");
            format!("{flag} has no effect without {needs}. Add {needs}, or remove {flag} (also from the environment)")
        })
    }
}

/// The words of `--s3-path-style`, with their help.
fn path_style_words() -> impl TypedValueParser<Value = PathStyle> {
    PossibleValuesParser::new([
        PossibleValue::new("auto").help("In the path if an endpoint is given, in the host name on AWS"),
        PossibleValue::new("always").help("HOST/BUCKET/KEY"),
        PossibleValue::new("never").help("BUCKET.HOST/KEY"),
    ])
    .try_map(|word| parse_path_style(&word))
}

/// The words of `--s3-parts`, with their help.
fn parts_words() -> impl TypedValueParser<Value = Parts> {
    PossibleValuesParser::new([
        PossibleValue::new("growing").help("Parts grow in the course of an upload, so that 500 GiB fit"),
        PossibleValue::new("equal").help("All parts but the last have one size"),
    ])
    .try_map(|word| parse_parts(&word))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        stores: StoreArgs,
    }

    fn read(flags: &str) -> StoreArgs {
        let words = ["x"].into_iter().chain(flags.split_whitespace());
        Line::try_parse_from(words).unwrap().stores
    }

    #[test]
    fn flags_of_a_store_that_is_not_in_use_are_refused_by_name() {
        for (flags, flag, needs) in [
            ("--s3-endpoint http://x", "--s3-endpoint", "--blobs s3://"),
            (
                "--s3-parts equal --metadata dynamodb://table",
                "--s3-parts",
                "--blobs s3://",
            ),
            ("--s3-encryption kms:abc", "--s3-encryption", "--blobs s3://"),
            ("--local-table other", "--local-table", "--metadata dynamodb://"),
            (
                "--blobs s3://bucket --dynamodb-endpoint http://x",
                "--dynamodb-endpoint",
                "--metadata dynamodb://",
            ),
            ("--aws-region eu-central-1", "--aws-region", "--blobs s3://"),
        ] {
            let error = read(flags).check(false).unwrap_err();
            assert!(error.contains(flag) && error.contains(needs), "{flags}: {error}");
        }
        for fine in [
            "",
            "--data /x",
            "--blobs s3://bucket --s3-endpoint http://x --s3-path-style never --aws-region a --data /x",
            "--metadata dynamodb://table --local-table other --dynamodb-endpoint http://x --aws-profile p",
        ] {
            assert_eq!(read(fine).check(false), Ok(()), "{fine}");
        }
        assert_eq!(read("--s3-endpoint http://x").check(true), Ok(()));
    }
}
