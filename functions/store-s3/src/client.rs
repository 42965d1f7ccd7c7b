//! Configures the SDK's client: it neither retries requests, nor adds checksums, nor limits times; this crate does.

use std::sync::Arc;
use std::time::Duration;

use aws_client::clock::ClockWatch;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::identity::IdentityCache;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::config::{Config, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::{Client, config};

use registry::clock::ServiceClock;

use crate::options::{PathStyle, S3Options};

/// Maximum time for connecting.
const CONNECT: Duration = Duration::from_secs(5);

/// The region in requests to stores that have no regions.
const ANY_REGION: &str = "us-east-1";

/// Loads the configuration from the SDK's variables and files. It sends requests only on machines whose cloud provides
/// the region or the credentials, and only if nothing else provides them.
pub(crate) async fn load(options: &S3Options, credentials: Option<SharedCredentialsProvider>) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(aws_client::http_client())
        // This crate retries by itself: it knows the time limit of a call, and counts the requests.
        .retry_config(RetryConfig::disabled())
        // The code that reads and sends streams detects stalled ones.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT).build())
        // This crate adds the checksums that it needs. The SDK would add trailers, which not all stores support.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(credentials) = credentials {
        loader = loader.credentials_provider(credentials);
    } else if let Some(process) =
        aws_client::process::of_profile(options.profile.as_deref(), options.region.as_deref()).await
    {
        loader = loader
            .credentials_provider(process)
            .identity_cache(IdentityCache::lazy().load_timeout(aws_client::process::MAXIMUM).build());
    }
    if let Some(profile) = &options.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(endpoint) = &options.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    loader = match (&options.region, &options.endpoint) {
        (Some(region), _) => loader.region(Region::new(region.clone())),
        // The cloud instance is not asked for a region, since the store has none.
        (None, Some(_)) => {
            let mut profile = ProfileFileRegionProvider::builder();
            if let Some(name) = &options.profile {
                profile = profile.profile_name(name);
            }
            let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
                .or_else(profile.build())
                .or_else(Region::new(ANY_REGION));
            loader.region(chain)
        }
        (None, None) => loader,
    };
    loader.load().await
}

/// The configuration of the client, and the configuration that signs URLs.
pub(crate) async fn configure(sdk: &SdkConfig, options: &S3Options, clock: &Arc<ServiceClock>) -> (Config, Config) {
    let mut builder = config::Builder::from(sdk).interceptor(ClockWatch::new("the object store", clock.clone()));
    if sdk.region().is_none() {
        builder = builder.region(Region::new(ANY_REGION));
    }
    let path_style = match options.path_style {
        PathStyle::Always => true,
        PathStyle::Never => false,
        PathStyle::Auto => !is_aws(builder.clone().build()).await,
    };
    let own = builder.force_path_style(path_style).build();
    let signing = match &options.public_endpoint {
        Some(public) => own.to_builder().endpoint_url(public).build(),
        None => own.clone(),
    };
    (own, signing)
}

/// Whether requests go to AWS itself. The endpoint may come from an option, a variable or a file, so the SDK determines
/// the URL of a request.
async fn is_aws(config: Config) -> bool {
    let Some(url) = url_of(&config, "bucket").await else {
        return true;
    };
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let host = rest.split(['/', ':']).next().unwrap_or_default();
    host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
}

/// The scheme, host and path of a request for an object of `bucket`, as the SDK makes it.
pub(crate) async fn url_of(config: &Config, bucket: &str) -> Option<String> {
    let credentials = Credentials::new("nobody", "nothing", None, None, "to see the host");
    let client = Client::from_conf(config.to_builder().credentials_provider(credentials).build());
    let presigning = PresigningConfig::expires_in(Duration::from_mins(1)).ok()?;
    let request = client
        .get_object()
        .bucket(bucket)
        .key("key")
        .presigned(presigning)
        .await
        .ok()?;
    let (url, _signature) = request.uri().split_once('?')?;
    Some(url.to_owned())
}
