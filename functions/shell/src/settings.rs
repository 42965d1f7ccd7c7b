//! The settings that every shell has: their names, their environment variables and their defaults. The standalone server
//! reads them from flags too. Settings of one shell alone, such as the address of a listener, are defined there.

/// A setting that an operator gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setting {
    /// The name, which the documentation uses too: `s3-endpoint`. A flag has two dashes before it.
    pub name: &'static str,
    /// The environment variable: `ROADSTEAD_S3_ENDPOINT`.
    pub variable: &'static str,
    /// The value, as an operator writes it, if none is given. `None` if there is no such value, or if it depends on other
    /// settings.
    pub default: Option<&'static str>,
}

/// How a shell writes a setting in texts for its operator: as a flag, or as an environment variable.
pub type Spelling = fn(Setting) -> String;

macro_rules! settings {
    ($($(#[$doc:meta])* $constant:ident = $name:literal, $variable:literal, $default:expr;)*) => {
        $(
            $(#[$doc])*
            pub const $constant: Setting = Setting {
                name: $name,
                variable: $variable,
                default: $default,
            };
        )*

        /// All settings of this module.
        pub const ALL: &[Setting] = &[$($constant),*];
    };
}

settings! {
    /// The directory of stores on this host.
    DATA = "data", "ROADSTEAD_DATA", Some("./roadstead-data");
    /// Where blobs are: `stores::BlobBackend`.
    BLOBS = "blobs", "ROADSTEAD_BLOBS", Some("disk");
    /// Where metadata is: `stores::MetadataBackend`.
    METADATA = "metadata", "ROADSTEAD_METADATA", Some("sqlite");
    /// The table for what must not be replicated to another region.
    LOCAL_TABLE = "local-table", "ROADSTEAD_LOCAL_TABLE", None;
    /// The region of AWS.
    AWS_REGION = "aws-region", "ROADSTEAD_AWS_REGION", None;
    /// The profile of the AWS configuration files.
    AWS_PROFILE = "aws-profile", "ROADSTEAD_AWS_PROFILE", None;
    /// The URL of an S3-compatible store other than AWS.
    S3_ENDPOINT = "s3-endpoint", "ROADSTEAD_S3_ENDPOINT", None;
    /// The URL at which clients reach the same S3.
    S3_PUBLIC_ENDPOINT = "s3-public-endpoint", "ROADSTEAD_S3_PUBLIC_ENDPOINT", None;
    /// Whether the bucket's name is in the path of a URL or in its host name.
    S3_PATH_STYLE = "s3-path-style", "ROADSTEAD_S3_PATH_STYLE", None;
    /// The account that must own the bucket.
    S3_EXPECTED_BUCKET_OWNER = "s3-expected-bucket-owner", "ROADSTEAD_S3_EXPECTED_BUCKET_OWNER", None;
    /// Encryption of objects at rest.
    S3_ENCRYPTION = "s3-encryption", "ROADSTEAD_S3_ENCRYPTION", None;
    /// Sizes of the parts of a large upload.
    S3_PARTS = "s3-parts", "ROADSTEAD_S3_PARTS", None;
    /// The URL of a DynamoDB-compatible store other than AWS.
    DYNAMODB_ENDPOINT = "dynamodb-endpoint", "ROADSTEAD_DYNAMODB_ENDPOINT", None;

    /// What requests without credentials may do.
    ALLOW_ANONYMOUS = "allow-anonymous", "ROADSTEAD_ALLOW_ANONYMOUS", None;
    /// The hosts for which requests are answered.
    ALLOW_HOST = "allow-host", "ROADSTEAD_ALLOW_HOST", None;
    /// The URL at which clients reach the registry: a [`PublicUrl`](registry::auth::PublicUrl).
    PUBLIC_URL = "public-url", "ROADSTEAD_PUBLIC_URL", None;
    /// The schemes of challenges; see [`challenge`](crate::challenge).
    CHALLENGE = "challenge", "ROADSTEAD_CHALLENGE", Some("auto");
    /// The lifetime of access tokens: a [`TokenLifetime`](crate::values::TokenLifetime).
    TOKEN_LIFETIME = "token-lifetime", "ROADSTEAD_TOKEN_LIFETIME", Some("10m");
    /// The file of the keys that sign access tokens, instead of those in the metadata.
    TOKEN_KEY_FILE = "token-key-file", "ROADSTEAD_TOKEN_KEY_FILE", None;
    /// The file of the secret by which the first administrator is made.
    BOOTSTRAP_SECRET_FILE = "bootstrap-secret-file", "ROADSTEAD_BOOTSTRAP_SECRET_FILE", None;
    /// The file of the secrets of the edge in front of the registry; see [`edge`](crate::edge).
    ORIGIN_SECRET_FILE = "origin-secret-file", "ROADSTEAD_ORIGIN_SECRET_FILE", None;
    /// Whether a manifest may refer to absent content.
    SPARSE = "sparse", "ROADSTEAD_SPARSE", Some("refuse");
    /// The region in which uploads of this server are continued; by default that of [`RegionName`](registry::RegionName).
    REGION = "region", "ROADSTEAD_REGION", None;
    /// Whether an acknowledged push survives a power failure, for stores on this host.
    SYNC = "sync", "ROADSTEAD_SYNC", Some("full");
    /// The minimum free space on the file systems of stores on this host.
    MIN_FREE = "min-free", "ROADSTEAD_MIN_FREE", Some("");
    /// Start although the metadata or all blobs of a registry are lost.
    BEGIN_ANEW = "begin-anew", "ROADSTEAD_BEGIN_ANEW", None;
    /// The interval between collection passes.
    COLLECT_EVERY = "collect-every", "ROADSTEAD_COLLECT_EVERY", None;

    /// The format of the log.
    LOG = "log", "ROADSTEAD_LOG", None;
    /// What is logged.
    LOG_LEVEL = "log-level", "ROADSTEAD_LOG_LEVEL", Some("info");

    /// How clients get blobs from an object store.
    PULL = "pull", "ROADSTEAD_PULL", Some("auto");
    /// Exceptions to [`PULL`].
    PULL_RULE = "pull-rule", "ROADSTEAD_PULL_RULE", None;
    /// The lifetime of the presigned URL of a redirect: a [`PresignLifetime`](crate::values::PresignLifetime).
    PRESIGN_LIFETIME = "presign-lifetime", "ROADSTEAD_PRESIGN_LIFETIME", Some("15m");
    /// The networks of proxies that are trusted.
    TRUSTED_PROXY = "trusted-proxy", "ROADSTEAD_TRUSTED_PROXY", None;

    /// The maximum size of a blob.
    MAX_BLOB_SIZE = "max-blob-size", "ROADSTEAD_MAX_BLOB_SIZE", Some("500GiB");
    /// The maximum time of an upload: at most a day, see [`within_a_day`](crate::values::within_a_day).
    UPLOAD_LIFETIME = "upload-lifetime", "ROADSTEAD_UPLOAD_LIFETIME", Some("24h");
    /// The memory for the bodies of all uploads together.
    UPLOAD_MEMORY = "upload-memory", "ROADSTEAD_UPLOAD_MEMORY", None;
    /// The maximum time for which a request waits for memory.
    MEMORY_TIMEOUT = "memory-timeout", "ROADSTEAD_MEMORY_TIMEOUT", None;
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::time::Duration;

    use registry::{Delivery, Limits};

    use super::*;
    use crate::delivery::parse_delivery;
    use crate::values::{Length, PresignLifetime, TokenLifetime, within_a_day};

    #[test]
    fn variables_are_called_as_settings() {
        for setting in ALL {
            let expected = format!("ROADSTEAD_{}", setting.name.replace('-', "_").to_uppercase());
            assert_eq!(setting.variable, expected);
        }
    }

    /// A limit has one default: a shell without the setting has the same one.
    #[test]
    fn defaults_are_those_of_the_core() {
        let limits = Limits::default();
        let default = |setting: Setting| setting.default.unwrap();
        assert_eq!(default(MAX_BLOB_SIZE).parse(), Ok(Length(limits.blob_bytes)));
        let lifetime = within_a_day(default(UPLOAD_LIFETIME)).unwrap();
        assert_eq!(lifetime.0, Duration::from_millis(limits.upload_token_ms));
        assert_eq!(parse_delivery(default(PULL)), Ok(Delivery::default()));
        assert_eq!(default(PRESIGN_LIFETIME).parse(), Ok(PresignLifetime::default()));
        assert_eq!(default(TOKEN_LIFETIME).parse(), Ok(TokenLifetime::default()));
    }
}
