//! The options that an operator chooses.

use std::fmt;
use std::time::Duration;

use crate::plan::Parts;

/// The position of the bucket's name in URLs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathStyle {
    /// In the path if the endpoint is not AWS's own: other stores seldom have a host name for each bucket.
    #[default]
    Auto,
    /// `https://endpoint/bucket/key`.
    Always,
    /// `https://bucket.endpoint/key`.
    Never,
}

/// How the store encrypts objects.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Encryption {
    /// As configured in the bucket.
    #[default]
    Bucket,
    /// SSE-S3.
    Aes256,
    /// SSE-KMS, with this key or, by default, with the account's own key for S3.
    Kms(Option<String>),
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bucket => "Bucket",
            Self::Aes256 => "Aes256",
            Self::Kms(_) => "Kms",
        })
    }
}

/// The location of blobs and how the store handles them. The options never contain credentials: the SDK finds them
/// (environment, profile, web identity, container, instance).
#[derive(Clone, Debug)]
pub struct S3Options {
    /// The bucket's name.
    pub bucket: String,
    /// The prefix of all keys, for example `a/b`; may be empty.
    pub prefix: String,
    /// The endpoint, for example `http://127.0.0.1:9000`. By default the SDK finds it; its last choice is AWS's own.
    pub endpoint: Option<String>,
    /// The URL at which clients reach the same bucket, for presigned URLs, if it differs from `endpoint`.
    pub public_endpoint: Option<String>,
    /// The position of the bucket's name in URLs.
    pub path_style: PathStyle,
    /// The account that must own the bucket; requests fail if another account owns it.
    pub expected_bucket_owner: Option<String>,
    /// How the store encrypts objects.
    pub encryption: Encryption,
    /// How large uploads are divided into parts.
    pub parts: Parts,
    /// Whether parts are sent with a CRC-32 if the store supports uploads with checksums. Otherwise parts are signed
    /// with their hash. The code detects by itself whether the store supports checksums.
    pub part_checksums: bool,
    /// Maximum bytes of memory that the bodies of all uploads hold together. One upload can always proceed.
    pub upload_memory: u64,
    /// Maximum time that an upload waits for memory.
    pub memory_timeout: Duration,
    /// The lifetime of presigned URLs, at most 12 hours. A URL works for at least half of it after it is returned.
    pub presign_lifetime: Duration,
    /// Maximum number of attempts for a request, within the time of its call.
    pub attempts: u32,
}

impl S3Options {
    /// The maximum lifetime of a presigned URL. Collection must not delete objects before this time has passed.
    pub const LONGEST_PRESIGN: Duration = Duration::from_hours(12);

    /// The default of [`S3Options::upload_memory`].
    pub const UPLOAD_MEMORY: u64 = 512 << 20;

    /// The default of [`S3Options::memory_timeout`]. It is long because clients restart a refused layer from its
    /// beginning, or fail. It is longer than a claim lasts without renewal, which does no harm: an expired claim
    /// remains valid until another request claims the session.
    pub const MEMORY_TIMEOUT: Duration = Duration::from_mins(5);

    /// A bucket with the defaults.
    #[must_use]
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: String::new(),
            endpoint: None,
            public_endpoint: None,
            path_style: PathStyle::Auto,
            expected_bucket_owner: None,
            encryption: Encryption::Bucket,
            parts: Parts::Growing,
            part_checksums: true,
            upload_memory: Self::UPLOAD_MEMORY,
            memory_timeout: Self::MEMORY_TIMEOUT,
            presign_lifetime: Duration::from_mins(15),
            attempts: 10,
        }
    }
}
