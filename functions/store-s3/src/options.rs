//! What an operator chooses.

use std::fmt;
use std::time::Duration;

use crate::plan::Parts;

/// How the bucket stands in URLs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathStyle {
    /// In the path when the endpoint is not AWS's own: others seldom have a host name for each bucket.
    #[default]
    Auto,
    /// `https://endpoint/bucket/key`.
    Always,
    /// `https://bucket.endpoint/key`.
    Never,
}

/// How the store encrypts what is stored.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Encryption {
    /// As the bucket says.
    #[default]
    Bucket,
    /// SSE-S3.
    Aes256,
    /// SSE-KMS, with this key or else with the account's own for S3.
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

/// Where blobs are kept and how they are handled. Credentials are never among the options: the SDK's own chain finds
/// them (environment, profile, web identity, container, instance).
#[derive(Clone, Debug)]
pub struct Options {
    /// The bucket's name.
    pub bucket: String,
    /// What all keys begin with, `a/b`; may be empty.
    pub prefix: String,
    /// The endpoint, `http://127.0.0.1:9000`; else what the SDK finds, which is AWS's own at last.
    pub endpoint: Option<String>,
    /// Where clients reach the same bucket, for presigned URLs, if it is elsewhere.
    pub public_endpoint: Option<String>,
    /// How the bucket stands in URLs.
    pub path_style: PathStyle,
    /// The region; else what the SDK finds, and `us-east-1` at an endpoint that is not AWS's.
    pub region: Option<String>,
    /// The profile of the SDK's configuration files.
    pub profile: Option<String>,
    /// The account that must own the bucket; requests fail when another does.
    pub expected_bucket_owner: Option<String>,
    /// How the store encrypts.
    pub encryption: Encryption,
    /// How large uploads are divided.
    pub parts: Parts,
    /// Whether parts are sent with a CRC-32, where the store takes uploads with checksums; else they are signed with
    /// their hash. Whether the store does is found out by itself, so that an operator need not say.
    pub part_checksums: bool,
    /// Bytes of memory that the bodies of all uploads hold together; at least one upload always has room.
    pub upload_memory: u64,
    /// For how long an upload waits for memory.
    pub memory_timeout: Duration,
    /// For how long a presigned URL works, at least for half of it when it is handed out; at most 12 hours.
    pub presign_lifetime: Duration,
    /// How often a request is sent at most, within the time of its call.
    pub attempts: u32,
}

impl Options {
    /// The longest lifetime of a presigned URL. Collection must leave objects alone for longer.
    pub const LONGEST_PRESIGN: Duration = Duration::from_hours(12);

    /// The default of [`Options::upload_memory`].
    pub const UPLOAD_MEMORY: u64 = 512 << 20;

    /// The default of [`Options::memory_timeout`]: long, since clients start a refused layer from its beginning, or give
    /// up. That is more than a claim lasts without renewal, which does no harm: a claim that has run out is as good as
    /// before until another request asks for the session.
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
            region: None,
            profile: None,
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
