//! The flags that say where a registry keeps things: the same for the server and for every operator's command.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};

/// Where bytes and names are.
///
/// What may be left out is an [`Option`] also where it has a default, so that a flag for a store that is not in use is
/// told from one that was not given.
#[derive(Args, Debug)]
#[command(next_help_heading = "Stores")]
pub(crate) struct StoreArgs {
    /// Directory of what is kept on this host; made if it does not exist. Several servers on one host may share it.
    /// Not used at all with blobs in S3 and metadata in DynamoDB
    #[arg(
        long,
        env = "ROADSTEAD_DATA",
        value_name = "DIRECTORY",
        default_value = "./roadstead-data"
    )]
    pub(crate) data: PathBuf,
    /// Where bytes are: `disk` (in --data) or `s3://BUCKET[/PREFIX]`, on AWS or on whatever speaks S3
    #[arg(long, env = "ROADSTEAD_BLOBS", value_name = "STORE", default_value = "disk")]
    pub(crate) blobs: Blobs,
    /// Where names are: `sqlite` (in --data) or `dynamodb://TABLE`; `roadstead metadata init` makes the table
    #[arg(long, env = "ROADSTEAD_METADATA", value_name = "STORE", default_value = "sqlite")]
    pub(crate) metadata: Metadata,
    /// DynamoDB table for uploads in progress, pending deletions and signing keys, which must not be replicated to another
    /// region [default: the table of the metadata]
    #[arg(long, env = "ROADSTEAD_LOCAL_TABLE", value_name = "TABLE")]
    pub(crate) local_table: Option<TableName>,
    /// AWS region [default: what AWS tools find]
    #[arg(long, env = "ROADSTEAD_AWS_REGION", value_name = "REGION")]
    pub(crate) aws_region: Option<String>,
    /// Profile of the AWS configuration files [default: what AWS tools find]
    #[arg(long, env = "ROADSTEAD_AWS_PROFILE", value_name = "NAME")]
    pub(crate) aws_profile: Option<String>,
    /// URL of an S3 that is not Amazon's; `AWS_ENDPOINT_URL_S3` works too
    #[arg(long, env = "ROADSTEAD_S3_ENDPOINT", value_name = "URL")]
    pub(crate) s3_endpoint: Option<Endpoint>,
    /// URL under which clients reach the same S3, for redirected pulls [default: the endpoint]
    #[arg(long, env = "ROADSTEAD_S3_PUBLIC_ENDPOINT", value_name = "URL")]
    pub(crate) s3_public_endpoint: Option<Endpoint>,
    /// Whether the bucket stands in the path of a URL, or in its host name [default: auto]
    #[arg(long, env = "ROADSTEAD_S3_PATH_STYLE", value_name = "WHEN")]
    pub(crate) s3_path_style: Option<PathStyle>,
    /// Account that owns the bucket: requests fail when it is another's
    #[arg(long, env = "ROADSTEAD_S3_EXPECTED_BUCKET_OWNER", value_name = "ACCOUNT")]
    pub(crate) s3_expected_bucket_owner: Option<String>,
    /// How objects are encrypted where they lie: `none` (as the bucket does), `aes256`, `kms` or `kms:KEY-ID`
    /// [default: none]
    #[arg(long, env = "ROADSTEAD_S3_ENCRYPTION", value_name = "HOW")]
    pub(crate) s3_encryption: Option<Encryption>,
    /// Sizes of the parts of a large upload; `equal` is for stores that want one size [default: growing]
    #[arg(long, env = "ROADSTEAD_S3_PARTS", value_name = "SIZES")]
    pub(crate) s3_parts: Option<Parts>,
    /// URL of a DynamoDB that is not Amazon's; `AWS_ENDPOINT_URL_DYNAMODB` works too
    #[arg(long, env = "ROADSTEAD_DYNAMODB_ENDPOINT", value_name = "URL")]
    pub(crate) dynamodb_endpoint: Option<Endpoint>,
}

impl StoreArgs {
    /// Refuses flags for stores that are not in use: whoever gives them believes that they are. `copies_to_s3` says
    /// that S3 is in use whatever `--blobs` says.
    pub(crate) fn check(&self, copies_to_s3: bool) -> Result<(), String> {
        let s3 = copies_to_s3 || matches!(self.blobs, Blobs::S3(_));
        let dynamodb = matches!(self.metadata, Metadata::DynamoDb(_));
        let unused = |given: bool, flag: &str, needs: &str| {
            if given {
                return Err(format!(
                    "{flag} has no effect here: it needs {needs}. Add that, or leave {flag} out (also from the environment)"
                ));
            }
            Ok(())
        };
        let (bucket, table) = ("--blobs s3://BUCKET", "--metadata dynamodb://TABLE");
        for (given, flag) in [
            (self.s3_endpoint.is_some(), "--s3-endpoint"),
            (self.s3_public_endpoint.is_some(), "--s3-public-endpoint"),
            (self.s3_path_style.is_some(), "--s3-path-style"),
            (self.s3_expected_bucket_owner.is_some(), "--s3-expected-bucket-owner"),
            (self.s3_encryption.is_some(), "--s3-encryption"),
            (self.s3_parts.is_some(), "--s3-parts"),
        ] {
            unused(given && !s3, flag, bucket)?;
        }
        unused(self.local_table.is_some() && !dynamodb, "--local-table", table)?;
        unused(
            self.dynamodb_endpoint.is_some() && !dynamodb,
            "--dynamodb-endpoint",
            table,
        )?;
        let either = format!("{bucket} or {table}");
        let cloud = s3 || dynamodb;
        unused(self.aws_region.is_some() && !cloud, "--aws-region", &either)?;
        unused(self.aws_profile.is_some() && !cloud, "--aws-profile", &either)
    }
}

/// Where bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Blobs {
    /// Below the data directory.
    Disk,
    /// In a bucket.
    S3(Bucket),
}

impl FromStr for Blobs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "disk" => Ok(Self::Disk),
            _ => match text.strip_prefix("s3://") {
                Some(bucket) => bucket.parse().map(Self::S3),
                None => Err("expected disk or s3://BUCKET[/PREFIX]".into()),
            },
        }
    }
}

/// A bucket, and what all keys in it begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// Its name.
    pub(crate) name: String,
    /// Without a slash at its ends; may be empty.
    pub(crate) prefix: String,
}

impl FromStr for Bucket {
    type Err = String;

    /// Reads `BUCKET[/PREFIX]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, prefix) = text.split_once('/').unwrap_or((text, ""));
        // What AWS allows, and what others allow beyond it.
        if !(3..=63).contains(&name.len()) || !name.bytes().all(is_plain) {
            return Err(format!(
                "{name:?} is not the name of a bucket: 3 to 63 letters, digits, dots and hyphens, as in s3://BUCKET/PREFIX"
            ));
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let legal = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(is_plain);
        if prefix.len() > 512 || !(prefix.is_empty() || prefix.split('/').all(legal)) {
            return Err(format!(
                "{prefix:?} cannot be what keys begin with: names of letters, digits, dots, hyphens and underscores, \
                 with single slashes between them"
            ));
        }
        Ok(Self {
            name: name.into(),
            prefix: prefix.into(),
        })
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.name)?;
        if self.prefix.is_empty() {
            return Ok(());
        }
        write!(f, "/{}", self.prefix)
    }
}

/// Characters that stand for themselves in a URL and in a path.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

/// Where names are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Metadata {
    /// In a file of the data directory.
    Sqlite,
    /// In a table.
    DynamoDb(TableName),
}

impl FromStr for Metadata {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "sqlite" => Ok(Self::Sqlite),
            _ => match text.strip_prefix("dynamodb://") {
                Some(table) => table.parse().map(Self::DynamoDb),
                None => Err("expected sqlite or dynamodb://TABLE".into()),
            },
        }
    }
}

/// The name of a DynamoDB table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableName(pub(crate) String);

impl FromStr for TableName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if (3..=255).contains(&text.len()) && text.bytes().all(is_plain) {
            return Ok(Self(text.into()));
        }
        Err(format!(
            "{text:?} is not the name of a table: 3 to 255 letters, digits, dots, hyphens and underscores"
        ))
    }
}

/// The base URL of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint(pub(crate) String);

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected a URL such as https://s3.example.com or http://127.0.0.1:9000".to_owned();
        let uri: http::Uri = text.parse().map_err(|_| expected())?;
        let http = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority().ok_or_else(expected)?.as_str();
        if !http || uri.query().is_some() || text.contains('#') {
            return Err(expected());
        }
        if authority.contains('@') {
            return Err("credentials do not belong into a URL: give them as AWS tools expect them".into());
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PathStyle {
    /// In the path when an endpoint is given, in the host name on AWS
    #[default]
    Auto,
    /// HOST/BUCKET/KEY
    Always,
    /// BUCKET.HOST/KEY
    Never,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Parts {
    /// The further into an upload, the larger, so that 500 GiB fit
    #[default]
    Growing,
    /// All but the last of one size
    Equal,
}

/// How objects are encrypted where they lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encryption {
    /// As the bucket does by itself.
    #[default]
    None,
    /// With keys of the object store.
    Aes256,
    /// With a key of KMS; without an id, the account's default one.
    Kms(Option<String>),
}

impl FromStr for Encryption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "aes256" => Ok(Self::Aes256),
            "kms" => Ok(Self::Kms(None)),
            _ => match text.strip_prefix("kms:") {
                Some(key) if !key.is_empty() => Ok(Self::Kms(Some(key.into()))),
                _ => Err("expected none, aes256, kms or kms:KEY-ID".into()),
            },
        }
    }
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
    fn stores_are_read_and_shown_alike() {
        assert_eq!("disk".parse(), Ok(Blobs::Disk));
        for (text, name, prefix, shown) in [
            ("s3://bucket", "bucket", "", "s3://bucket"),
            ("s3://bucket/", "bucket", "", "s3://bucket"),
            ("s3://b.u-c/registry", "b.u-c", "registry", "s3://b.u-c/registry"),
            ("s3://bucket/a/b_1/", "bucket", "a/b_1", "s3://bucket/a/b_1"),
        ] {
            let Ok(Blobs::S3(bucket)) = text.parse() else {
                panic!("{text}")
            };
            assert_eq!((bucket.name.as_str(), bucket.prefix.as_str()), (name, prefix));
            assert_eq!(bucket.to_string(), shown);
        }
        for wrong in [
            "",
            "Disk",
            "s3",
            "s3:bucket",
            "s3://",
            "s3://ab",
            "s3://bucket//a",
            "s3://bucket/a//b",
            "s3://bucket/..",
            "s3://bucket/a b",
            "s3://bucket?x",
            "file:///data",
        ] {
            assert!(wrong.parse::<Blobs>().is_err(), "{wrong}");
        }
        assert_eq!("sqlite".parse(), Ok(Metadata::Sqlite));
        let table = TableName("my_table".into());
        assert_eq!("dynamodb://my_table".parse(), Ok(Metadata::DynamoDb(table)));
        for wrong in [
            "",
            "dynamodb://",
            "dynamodb://a/b",
            "dynamodb://my table",
            "postgres://x",
        ] {
            assert!(wrong.parse::<Metadata>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn endpoints_are_urls_without_secrets() {
        let read = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.0);
        assert_eq!(read("http://127.0.0.1:9000/"), Ok("http://127.0.0.1:9000".into()));
        assert_eq!(read("https://x.example/s3"), Ok("https://x.example/s3".into()));
        for wrong in [
            "",
            "127.0.0.1:9000",
            "ftp://x",
            "http://",
            "https://x/?a=b",
            "https://x/#a",
            "/x",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read("https://key:secret@x").unwrap_err().contains("credentials"));
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
            let told = read(flags).check(false).unwrap_err();
            assert!(told.contains(flag) && told.contains(needs), "{flags}: {told}");
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

    #[test]
    fn encryption() {
        assert_eq!("kms".parse(), Ok(Encryption::Kms(None)));
        assert_eq!(
            "kms:arn:aws:kms:x".parse(),
            Ok(Encryption::Kms(Some("arn:aws:kms:x".into())))
        );
        assert!("kms:".parse::<Encryption>().is_err() && "AES".parse::<Encryption>().is_err());
    }
}
