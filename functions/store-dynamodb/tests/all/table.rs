//! Reads the rows of a table directly, without the store.

use std::collections::HashMap;

use aws_config::BehaviorVersion;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

use crate::service::endpoint;

/// The attributes of a row, by name.
pub(crate) type TableRow = HashMap<String, AttributeValue>;

/// A client with the SDK's default configuration.
pub(crate) async fn client() -> Client {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let config = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .endpoint_url(endpoint())
        .load()
        .await;
    Client::new(&config)
}

/// All rows of a table.
pub(crate) async fn rows(client: &Client, table: &str) -> Vec<TableRow> {
    let scan = client.scan().table_name(table).consistent_read(true);
    let items = scan.into_paginator().items().send();
    items.collect::<Result<_, _>>().await.unwrap()
}

/// The partition key and the sort key of a row.
pub(crate) fn key(row: &TableRow) -> (&str, &str) {
    let part = |name| row[name].as_s().unwrap().as_str();
    (part("pk"), part("sk"))
}
