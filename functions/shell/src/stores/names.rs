//! Stores and their options, as an operator writes them in flags and environment variables.

use std::fmt;
use std::str::FromStr;

/// Where blobs are stored, as an operator writes it: `disk` or `s3://BUCKET[/PREFIX]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobBackend {
    /// Below the data directory.
    Disk,
    /// In a bucket.
    S3(Bucket),
}

impl FromStr for BlobBackend {
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

/// A bucket, and the prefix of all keys in it: `BUCKET[/PREFIX]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The name of the bucket.
    pub name: String,
    /// The prefix, without a slash at its beginning and its end; may be empty.
    pub prefix: String,
}

impl FromStr for Bucket {
    type Err = String;

    /// Reads `BUCKET[/PREFIX]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, prefix) = text.split_once('/').unwrap_or((text, ""));
        // The names that AWS allows, and some more that other stores allow.
        if !(3..=63).contains(&name.len()) || !name.bytes().all(is_plain) {
            return Err(format!(
                "{name:?} is not a valid name of a bucket: expected 3 to 63 letters, digits, dots and hyphens, as in s3://BUCKET/PREFIX"
            ));
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let legal = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(is_plain);
        if prefix.len() > 512 || !(prefix.is_empty() || prefix.split('/').all(legal)) {
            return Err(format!(
                "{prefix:?} is not a valid prefix of keys: expected names of letters, digits, dots, hyphens and \
                 underscores, with single slashes between them"
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

/// Whether a character needs no escape in a URL and in a path.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

/// Where metadata and upload sessions are stored, as an operator writes it: `sqlite` or `dynamodb://TABLE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataBackend {
    /// In a file of the data directory.
    Sqlite,
    /// In a table.
    DynamoDb(TableName),
}

impl FromStr for MetadataBackend {
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

/// The name of a `DynamoDB` table: 3 to 255 letters, digits, dots, hyphens and underscores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName(pub String);

impl FromStr for TableName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if (3..=255).contains(&text.len()) && text.bytes().all(is_plain) {
            return Ok(Self(text.into()));
        }
        Err(format!(
            "{text:?} is not a valid name of a table: expected 3 to 255 letters, digits, dots, hyphens and underscores"
        ))
    }
}

/// The base URL of a service, without credentials, query and fragment, and without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceUrl(pub String);

impl FromStr for ServiceUrl {
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
            return Err("a URL here cannot have credentials: give them as AWS tools expect them".into());
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

/// Parses the encryption of objects: `none`, `aes256`, `kms` or `kms:KEY-ID`. The error is a text for the operator.
#[cfg(feature = "cloud")]
pub fn parse_encryption(text: &str) -> Result<store_s3::Encryption, String> {
    match text {
        "none" => Ok(store_s3::Encryption::Bucket),
        "aes256" => Ok(store_s3::Encryption::Aes256),
        "kms" => Ok(store_s3::Encryption::Kms(None)),
        _ => match text.strip_prefix("kms:") {
            Some(key) if !key.is_empty() => Ok(store_s3::Encryption::Kms(Some(key.into()))),
            _ => Err("expected none, aes256, kms or kms:KEY-ID".into()),
        },
    }
}

/// Parses the position of the bucket's name in URLs: `auto`, `always` (in the path) or `never`. The error is a text for the
/// operator.
#[cfg(feature = "cloud")]
pub fn parse_path_style(text: &str) -> Result<store_s3::PathStyle, String> {
    match text {
        "auto" => Ok(store_s3::PathStyle::Auto),
        "always" => Ok(store_s3::PathStyle::Always),
        "never" => Ok(store_s3::PathStyle::Never),
        _ => Err("expected auto, always or never".into()),
    }
}

/// Parses how large uploads are divided into parts: `growing` or `equal`. The error is a text for the operator.
#[cfg(feature = "cloud")]
pub fn parse_parts(text: &str) -> Result<store_s3::Parts, String> {
    match text {
        "growing" => Ok(store_s3::Parts::Growing),
        "equal" => Ok(store_s3::Parts::Equal),
        _ => Err("expected growing or equal".into()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn stores_are_read_and_shown_alike() {
        assert_eq!("disk".parse(), Ok(BlobBackend::Disk));
        for (text, name, prefix, shown) in [
            ("s3://bucket", "bucket", "", "s3://bucket"),
            ("s3://bucket/", "bucket", "", "s3://bucket"),
            ("s3://b.u-c/registry", "b.u-c", "registry", "s3://b.u-c/registry"),
            ("s3://bucket/a/b_1/", "bucket", "a/b_1", "s3://bucket/a/b_1"),
        ] {
            let Ok(BlobBackend::S3(bucket)) = text.parse() else {
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
            assert!(wrong.parse::<BlobBackend>().is_err(), "{wrong}");
        }
        assert_eq!("sqlite".parse(), Ok(MetadataBackend::Sqlite));
        let table = TableName("my_table".into());
        assert_eq!("dynamodb://my_table".parse(), Ok(MetadataBackend::DynamoDb(table)));
        for wrong in [
            "",
            "dynamodb://",
            "dynamodb://a/b",
            "dynamodb://my table",
            "postgres://x",
        ] {
            assert!(wrong.parse::<MetadataBackend>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn endpoints_are_urls_without_secrets() {
        let read = |text: &str| text.parse::<ServiceUrl>().map(|endpoint| endpoint.0);
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
    #[cfg(feature = "cloud")]
    fn encryption() {
        use store_s3::Encryption;

        assert_eq!(parse_encryption("kms"), Ok(Encryption::Kms(None)));
        assert_eq!(
            parse_encryption("kms:arn:aws:kms:x"),
            Ok(Encryption::Kms(Some("arn:aws:kms:x".into())))
        );
        assert!(parse_encryption("kms:").is_err() && parse_encryption("AES").is_err());
    }

    #[test]
    #[cfg(feature = "cloud")]
    fn path_styles_and_parts() {
        use store_s3::{Parts, PathStyle};

        assert_eq!(parse_path_style("auto"), Ok(PathStyle::Auto));
        assert_eq!(parse_path_style("always"), Ok(PathStyle::Always));
        assert_eq!(parse_path_style("never"), Ok(PathStyle::Never));
        assert_eq!(parse_parts("growing"), Ok(Parts::Growing));
        assert_eq!(parse_parts("equal"), Ok(Parts::Equal));
        assert!(parse_path_style("Auto").is_err() && parse_parts("").is_err());
    }
}
