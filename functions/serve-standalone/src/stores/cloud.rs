//! Opening the stores in the cloud: from flags to their own options.

use store_dynamodb::DynamoStore;
use store_s3::S3Blobs;

use super::{Contact, OpenHow};
use crate::cli::{Bucket, Encryption, Parts, PathStyle, StoreArgs, TableName};

/// Opens a bucket. Nothing is asked of it yet.
pub(super) async fn bucket(args: &StoreArgs, bucket: &Bucket, how: &OpenHow) -> Result<S3Blobs, String> {
    let url = |endpoint: &Option<crate::cli::Endpoint>| endpoint.as_ref().map(|endpoint| endpoint.0.clone());
    let options = store_s3::Options {
        prefix: bucket.prefix.clone(),
        endpoint: url(&args.s3_endpoint),
        public_endpoint: url(&args.s3_public_endpoint),
        path_style: match args.s3_path_style.unwrap_or_default() {
            PathStyle::Auto => store_s3::PathStyle::Auto,
            PathStyle::Always => store_s3::PathStyle::Always,
            PathStyle::Never => store_s3::PathStyle::Never,
        },
        region: args.aws_region.clone(),
        profile: args.aws_profile.clone(),
        expected_bucket_owner: args.s3_expected_bucket_owner.clone(),
        encryption: match args.s3_encryption.clone().unwrap_or_default() {
            Encryption::None => store_s3::Encryption::Bucket,
            Encryption::Aes256 => store_s3::Encryption::Aes256,
            Encryption::Kms(key) => store_s3::Encryption::Kms(key),
        },
        parts: match args.s3_parts.unwrap_or_default() {
            Parts::Growing => store_s3::Parts::Growing,
            Parts::Equal => store_s3::Parts::Equal,
        },
        upload_memory: how.upload_memory.unwrap_or(store_s3::Options::UPLOAD_MEMORY),
        memory_timeout: how.memory_timeout.unwrap_or(store_s3::Options::MEMORY_TIMEOUT),
        presign_lifetime: how.presign_lifetime,
        ..store_s3::Options::new(&bucket.name)
    };
    S3Blobs::open(options)
        .await
        .map_err(|error| format!("cannot use {bucket}: {error}"))
}

/// Opens a table that was initialised.
pub(super) async fn table(args: &StoreArgs, table: &TableName, contact: Contact) -> Result<DynamoStore, String> {
    let options = options(args, table);
    let opened = match contact {
        Contact::Now => DynamoStore::open(&options).await,
        Contact::Later => DynamoStore::connect(&options).await,
    };
    opened.map_err(|error| format!("cannot use dynamodb://{}: {error}", table.0))
}

/// Makes the tables that are not there, and tells what was done.
pub(super) async fn init(args: &StoreArgs, table: &TableName) -> Result<String, String> {
    let prepared = DynamoStore::init(&options(args, table))
        .await
        .map_err(|error| format!("cannot prepare dynamodb://{}: {error}", table.0))?;
    let lines: Vec<_> = prepared
        .iter()
        .map(|prepared| {
            let done = if prepared.created { "was made" } else { "was there" };
            format!(
                "table {} {done}, its layout is version {}",
                prepared.table, prepared.version
            )
        })
        .collect();
    Ok(lines.join("\n"))
}

fn options(args: &StoreArgs, table: &TableName) -> store_dynamodb::Options {
    store_dynamodb::Options {
        table: table.0.clone(),
        local_table: args.local_table.as_ref().map(|table| table.0.clone()),
        region: args.aws_region.clone(),
        profile: args.aws_profile.clone(),
        endpoint: args.dynamodb_endpoint.as_ref().map(|endpoint| endpoint.0.clone()),
    }
}
