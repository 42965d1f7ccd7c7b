//! Configures the SDK's client: it neither retries requests, nor adds checksums, nor limits times; this crate does.

use std::sync::Arc;
use std::time::Duration;

use aws_client::AwsConfig;
use aws_client::clock::ClockWatch;
use aws_config::Region;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_credential_types::Credentials;
use aws_sdk_s3::config::{Config, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::{Client, config};

use registry::clock::ServiceClock;

use crate::options::{PathStyle, S3Options};

/// The region in requests to stores that have no regions.
const ANY_REGION: Region = Region::from_static("us-east-1");

/// The configuration of the client, and the configuration that signs URLs.
pub(crate) async fn configure(aws: &AwsConfig, options: &S3Options, clock: &Arc<ServiceClock>) -> (Config, Config) {
    let mut builder = config::Builder::from(aws.sdk())
        .interceptor(ClockWatch::new("the object store", clock.clone()))
        // The code that reads and sends streams detects stalled ones.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        // This crate adds the checksums that it needs. The SDK would add trailers, which not all stores support.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    let region = match &options.endpoint {
        // The region of this machine is not that of the store, which has none.
        Some(endpoint) => {
            builder = builder.endpoint_url(endpoint);
            aws.named_region()
        }
        None => aws.sdk().region(),
    };
    builder = builder.region(region.cloned().unwrap_or(ANY_REGION));
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
