//! Checks the options and opens the store.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use aws_client::AwsConfig;
use aws_sdk_s3::Client;
use registry::backoff::Jitter;
use registry::clock::ServiceClock;

use crate::client;
use crate::credentials::CredentialsCache;
use crate::keys::ObjectKeys;
use crate::memory::UploadMemory;
use crate::options::S3Options;
use crate::presign::Presigner;
use crate::requests::BucketClient;
use crate::statistics::RequestCounters;
use crate::store::{S3Blobs, S3Store};

/// Why a store could not be opened: an option is invalid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The name is empty, or contains characters other than letters, digits, dots, hyphens and underscores.
    #[error("{0:?} is not the name of a bucket")]
    Bucket(String),
    /// The prefix is one that some stores would change or refuse.
    #[error(
        "{0:?} is not a valid prefix for keys: empty segments, dots alone, spaces and non-ASCII characters are not allowed"
    )]
    Prefix(String),
    /// The endpoint is not an `http` or `https` URL. The text does not show it, since it may contain a password.
    #[error("an endpoint must be a URL such as https://s3.example.org, with a host and optionally a port and a path")]
    Endpoint,
    /// The lifetime of URLs is outside its bounds.
    #[error("presigned URLs must be valid for at least one minute and at most 12 hours")]
    PresignLifetime,
    /// No provider of credentials is configured.
    #[error("the configuration has no provider of credentials")]
    Credentials,
}

impl S3Blobs {
    /// Opens a store. It sends no request to the object store, so the registry starts even if the object store is not
    /// available. The first request, or [`S3Blobs::check`], reports a wrong bucket or wrong credentials.
    pub async fn open(options: S3Options, aws: &AwsConfig) -> Result<Self, OpenError> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if options.bucket.is_empty() || !options.bucket.bytes().all(is_name) {
            return Err(OpenError::Bucket(options.bucket));
        }
        let Some(keys) = ObjectKeys::new(&options.prefix) else {
            return Err(OpenError::Prefix(options.prefix));
        };
        for endpoint in options.endpoint.iter().chain(&options.public_endpoint) {
            if !is_url(endpoint) {
                return Err(OpenError::Endpoint);
            }
        }
        let lifetime = options.presign_lifetime;
        if lifetime > S3Options::LONGEST_PRESIGN || lifetime.as_secs() < 60 {
            return Err(OpenError::PresignLifetime);
        }
        let provider = aws.sdk().credentials_provider().ok_or(OpenError::Credentials)?;
        let clock = Arc::<ServiceClock>::default();
        let (own, signing) = client::configure(aws, &options, &clock).await;
        let presigner = Presigner::new(
            signing,
            options.bucket.clone(),
            CredentialsCache::new(provider),
            lifetime,
            options.public_endpoint.is_some(),
        );
        let bucket = BucketClient {
            client: Client::from_conf(own),
            name: options.bucket,
            owner: options.expected_bucket_owner,
            encryption: options.encryption,
            part_checksums: AtomicBool::new(options.part_checksums),
            attempts: options.attempts.max(1),
            counters: RequestCounters::default(),
            conditional_writes: AtomicBool::new(true),
            multi_delete: AtomicBool::new(true),
            jitter: Jitter::new(RandomState::new().hash_one(0)),
        };
        Ok(Self(Arc::new(S3Store {
            bucket: Arc::new(bucket),
            keys,
            clock,
            parts: options.parts,
            memory: UploadMemory::new(options.upload_memory, options.parts, options.memory_timeout),
            presigner,
        })))
    }
}

fn is_url(endpoint: &str) -> bool {
    let rest = endpoint
        .strip_prefix("https://")
        .or_else(|| endpoint.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        !authority.is_empty() && !authority.contains(['@', ' ']) && !rest.contains(['?', '#'])
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::time::Duration;

    use aws_client::AwsSettings;

    use super::*;

    async fn refused(change: impl FnOnce(&mut S3Options)) -> OpenError {
        let mut options = S3Options::new("bucket");
        change(&mut options);
        let aws = AwsConfig::load(&AwsSettings::default()).await;
        S3Blobs::open(options, &aws).await.unwrap_err()
    }

    #[tokio::test]
    async fn invalid_options_are_refused() {
        for bucket in ["", "a/b", "a b"] {
            let error = refused(|options| options.bucket = bucket.to_owned()).await;
            assert!(matches!(error, OpenError::Bucket(_)));
        }
        let error = refused(|options| options.prefix = "a//b".to_owned()).await;
        assert!(matches!(error, OpenError::Prefix(_)));
        for endpoint in ["minio:9000", "ftp://x", "https://", "http://user@host", "http://h/?q"] {
            let error = refused(|options| options.public_endpoint = Some(endpoint.to_owned())).await;
            assert!(matches!(error, OpenError::Endpoint), "{endpoint}");
        }
        for hours in [0, 13] {
            let error = refused(|options| options.presign_lifetime = Duration::from_hours(hours)).await;
            assert!(matches!(error, OpenError::PresignLifetime));
        }
    }
}
