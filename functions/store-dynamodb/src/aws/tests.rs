//! The requests that are sent, and how answers are read: the SDK over a connection that answers from a script.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use registry::store::{Context, StoreError, Timestamp, Uid};
use serde_json::{Value as Json, json};

use super::*;
use crate::retrying::{SystemRetryEnvironment, TableClient};
use crate::table::{Range, Value, WriteCondition};

/// The answer to one request: a status and a body.
pub(crate) type ScriptedResponse = (u16, Json);

/// A connection that records its requests and answers from a script. After the end of the script it does not answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScriptedConnection {
    script: Arc<Mutex<VecDeque<ScriptedResponse>>>,
    requests: Arc<Mutex<Vec<(String, Json)>>>,
}

impl ScriptedConnection {
    pub(crate) fn answering(script: impl IntoIterator<Item = ScriptedResponse>) -> Self {
        Self {
            script: Arc::new(Mutex::new(script.into_iter().collect())),
            requests: Arc::default(),
        }
    }

    /// The operations that were requested, each with its parameters.
    pub(crate) fn requests(&self) -> Vec<(String, Json)> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn sdk(&self) -> Sdk {
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("test-1"))
            .endpoint_url("http://table.invalid")
            .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
            .retry_config(aws_smithy_types::retry::RetryConfig::disabled())
            .http_client(self.clone());
        Sdk::from_conf(config.build())
    }

    fn table(&self) -> AwsTable {
        AwsTable::new(self.sdk(), "metadata")
    }
}

impl HttpConnector for ScriptedConnection {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap();
        let operation = target.rsplit('.').next().unwrap().to_owned();
        let parameters = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        self.requests.lock().unwrap().push((operation, parameters));
        let Some((status, body)) = self.script.lock().unwrap().pop_front() else {
            return HttpConnectorFuture::new(pending());
        };
        HttpConnectorFuture::ready(Ok(HttpResponse::new(
            status.try_into().unwrap(),
            SdkBody::from(body.to_string()),
        )))
    }
}

impl HttpClient for ScriptedConnection {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

fn key() -> ItemKey {
    ItemKey {
        partition: "p".to_owned(),
        sort: "s".to_owned(),
    }
}

fn query(consistency: Consistency) -> RangeQuery {
    RangeQuery {
        range: Range {
            partition: "p".to_owned(),
            from: "a".to_owned(),
            to: "z".to_owned(),
        },
        after: None,
        descending: false,
        limit: 10,
        consistency,
    }
}

#[tokio::test]
async fn every_read_request_states_its_consistency() {
    let connection = ScriptedConnection::answering(std::iter::repeat_n((200, json!({})), 6));
    let table = connection.table();
    for (consistency, expected) in [(Consistency::Strong, true), (Consistency::Eventual, false)] {
        table.get(&key(), consistency).await.unwrap();
        table.query(&query(consistency)).await.unwrap();
        let requests: Vec<_> = connection.requests().into_iter().rev().take(2).collect();
        for (operation, parameters) in requests {
            assert_eq!(parameters["ConsistentRead"], expected, "{operation}: {consistency:?}");
        }
    }
    // These requests are always strongly consistent.
    table.scan(None, 10).await.unwrap();
    table.batch_get(&[key()]).await.unwrap();
    let requests = connection.requests();
    let operations: Vec<_> = requests.iter().map(|(operation, _)| operation.as_str()).collect();
    assert_eq!(
        operations,
        ["GetItem", "Query", "GetItem", "Query", "Scan", "BatchGetItem"]
    );
    assert_eq!(requests[4].1["ConsistentRead"], true);
    assert_eq!(requests[5].1["RequestItems"]["metadata"]["ConsistentRead"], true);
}

/// A single write and the same in a transaction have the same table, condition and placeholders.
#[tokio::test]
async fn a_write_has_the_same_parameters_alone_and_in_a_transaction() {
    let condition = WriteCondition::Is("version", Value::N(7));
    let writes = [
        (
            "PutItem",
            "Put",
            Write::Put {
                item: Item {
                    key: key(),
                    attributes: [("size".to_owned(), Value::N(1))].into(),
                },
                condition: condition.clone(),
            },
        ),
        (
            "UpdateItem",
            "Update",
            Write::Update {
                key: key(),
                set: vec![("size", Value::N(1))],
                remove: vec!["condemned"],
                condition: condition.clone(),
            },
        ),
        (
            "DeleteItem",
            "Delete",
            Write::Delete {
                key: key(),
                condition: condition.clone(),
            },
        ),
    ];
    for (alone, together, write) in writes {
        let connection = ScriptedConnection::answering(std::iter::repeat_n((200, json!({})), 2));
        let table = connection.table();
        table.write(&write).await.unwrap();
        table.transact(&[write], "token").await.unwrap();
        let [single, transaction] = connection.requests().try_into().unwrap();
        assert_eq!(
            (single.0.as_str(), transaction.0.as_str()),
            (alone, "TransactWriteItems")
        );
        assert_eq!(transaction.1["ClientRequestToken"], "token");
        assert_eq!(transaction.1["TransactItems"][0][together], single.1, "{alone}");
        assert_eq!(single.1["TableName"], "metadata");
        assert!(single.1["ConditionExpression"].is_string(), "{alone}");
    }
}

/// One try may take six seconds. A call with less time left still ends at its deadline.
#[tokio::test]
async fn a_request_without_an_answer_fails_at_the_deadline() {
    const TIMEOUT: Duration = Duration::from_millis(300);
    let client = TableClient::new(
        Arc::new(ScriptedConnection::default().table()),
        Arc::new(SystemRetryEnvironment::new()),
    );
    let cx = Context::internal(Timestamp(0), 300, Uid(1));
    let (all, write) = ([key()].into(), Write::delete(key()));
    let writes = [write.clone(), write.clone()];
    let requests = || client.within(cx);
    let begun = Instant::now();
    let failures = [
        requests().get(&key()).await.map(drop),
        requests().get_all(&all).await.map(drop),
        requests().query(&query(Consistency::Strong)).await.map(drop),
        requests().scan(None, 1).await.map(drop),
        requests().write(&write).await.map(drop),
        requests().write_once(&write).await.map(drop),
        requests().transact(&writes).await.map(drop),
        requests().write_all(&writes).await,
    ];
    let took = begun.elapsed();
    for (number, failure) in failures.iter().enumerate() {
        assert!(
            matches!(failure, Err(StoreError::Unavailable(_))),
            "{number}: {failure:?}"
        );
    }
    assert!(took >= TIMEOUT * 8, "each request waited for its deadline: {took:?}");
    // One try with its own maximum time would take six seconds.
    assert!(took < Duration::from_secs(5), "{took:?}");
}
