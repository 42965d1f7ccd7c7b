//! [`Table`] on DynamoDB: each call is one request to the service.
//!
//! `retrying` retries for all tables, so that the retries of the SDK are switched off. The SDK would repeat a
//! conditional write without reporting it, and its waits have no deadline. The SDK finds the endpoint and the
//! credentials, signs, and ends a try that takes too long.

mod errors;
mod expression;
mod values;

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client as Sdk;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ConditionCheck, Delete, DeleteRequest, KeysAndAttributes, Put, PutRequest, TransactWriteItem,
    Update, WriteRequest,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

pub(crate) use self::errors::classified;
use self::errors::{cancelled, invalid, is_refusal};
use self::expression::Expression;
use self::values::{from_sdk_item, from_sdk_key, to_sdk_item, to_sdk_key};
use crate::table::{
    Consistency, Item, ItemKey, ItemPage, PARTITION, RangeQuery, SORT, Table, TableError, Write, Written,
};

/// Sets the table, the condition and its placeholders on one of the seven SDK builders that have these methods but no
/// common trait.
macro_rules! on_condition {
    ($builder:expr, $table:expr, $expression:expr, $condition:expr) => {{
        let condition = $expression.condition($condition);
        $builder
            .table_name(&$table.name)
            .set_condition_expression(condition)
            .set_expression_attribute_names($expression.names())
            .set_expression_attribute_values($expression.values())
    }};
}

/// One table of the service. Clones share the connections.
#[derive(Clone)]
pub(crate) struct AwsTable {
    sdk: Sdk,
    name: String,
}

impl AwsTable {
    pub(crate) fn new(sdk: Sdk, name: impl Into<String>) -> Self {
        Self { sdk, name: name.into() }
    }

    fn found(
        items: Option<Vec<HashMap<String, AttributeValue>>>,
        last: Option<&HashMap<String, AttributeValue>>,
    ) -> Result<ItemPage, TableError> {
        Ok(ItemPage {
            items: items
                .unwrap_or_default()
                .into_iter()
                .map(from_sdk_item)
                .collect::<Result<_, _>>()?,
            more_after: last.map(from_sdk_key).transpose()?,
        })
    }
}

#[async_trait]
impl Table for AwsTable {
    async fn get(&self, key: &ItemKey, consistency: Consistency) -> Result<Option<Item>, TableError> {
        let request = self
            .sdk
            .get_item()
            .table_name(&self.name)
            .set_key(Some(to_sdk_key(key)));
        let answer = request.consistent_read(consistency == Consistency::Strong).send().await;
        let answer = answer.map_err(|error| classified(&error, &self.name))?;
        answer.item.map(from_sdk_item).transpose()
    }

    async fn query(&self, query: &RangeQuery) -> Result<ItemPage, TableError> {
        let range = &query.range;
        let start = query.after.clone().map(|sort| ItemKey {
            partition: range.partition.clone(),
            sort,
        });
        let request = self
            .sdk
            .query()
            .table_name(&self.name)
            .key_condition_expression("#p = :p AND #s BETWEEN :from AND :to")
            .expression_attribute_names("#p", PARTITION)
            .expression_attribute_names("#s", SORT)
            .expression_attribute_values(":p", AttributeValue::S(range.partition.clone()))
            .expression_attribute_values(":from", AttributeValue::S(range.from.clone()))
            .expression_attribute_values(":to", AttributeValue::S(range.to.clone()))
            .set_exclusive_start_key(start.as_ref().map(to_sdk_key))
            .scan_index_forward(!query.descending)
            .limit(i32::try_from(query.limit).unwrap_or(i32::MAX))
            .consistent_read(query.consistency == Consistency::Strong);
        let answer = request.send().await.map_err(|error| classified(&error, &self.name))?;
        Self::found(answer.items, answer.last_evaluated_key.as_ref())
    }

    async fn scan(&self, after: Option<&ItemKey>, limit: usize) -> Result<ItemPage, TableError> {
        let request = self
            .sdk
            .scan()
            .table_name(&self.name)
            .set_exclusive_start_key(after.map(to_sdk_key))
            .limit(i32::try_from(limit).unwrap_or(i32::MAX))
            .consistent_read(true);
        let answer = request.send().await.map_err(|error| classified(&error, &self.name))?;
        Self::found(answer.items, answer.last_evaluated_key.as_ref())
    }

    async fn write(&self, write: &Write) -> Result<Written, TableError> {
        let mut expression = Expression::default();
        match write {
            Write::Put { item, condition } => {
                let put = self.sdk.put_item().set_item(Some(to_sdk_item(item)));
                let put = on_condition!(put, self, expression, condition);
                self.written(put.send().await)
            }
            Write::Update {
                key,
                set,
                remove,
                condition,
            } => {
                let update = self.sdk.update_item().set_key(Some(to_sdk_key(key)));
                let update = update.update_expression(expression.update(set, remove));
                let update = on_condition!(update, self, expression, condition);
                self.written(update.send().await)
            }
            Write::Delete { key, condition } => {
                let delete = self.sdk.delete_item().set_key(Some(to_sdk_key(key)));
                let delete = on_condition!(delete, self, expression, condition);
                self.written(delete.send().await)
            }
            Write::Check { .. } => Err(invalid("a check is valid in a transaction only")),
        }
    }

    async fn transact(&self, writes: &[Write], token: &str) -> Result<Written, TableError> {
        let writes = writes.iter().map(|write| self.transacted(write));
        let request = self
            .sdk
            .transact_write_items()
            .set_transact_items(Some(writes.collect::<Result<_, _>>()?))
            .client_request_token(token);
        let Err(error) = request.send().await else {
            return Ok(Written::Done);
        };
        let reasons = match error.as_service_error() {
            Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
                Some(cancelled.cancellation_reasons().to_vec())
            }
            _ => None,
        };
        match reasons {
            Some(reasons) => cancelled(&reasons),
            None => Err(classified(&error, &self.name)),
        }
    }

    async fn batch_get(&self, keys: &[ItemKey]) -> Result<(Vec<Item>, Vec<ItemKey>), TableError> {
        let wanted = KeysAndAttributes::builder()
            .set_keys(Some(keys.iter().map(to_sdk_key).collect()))
            .consistent_read(true)
            .build()
            .map_err(invalid)?;
        let request = self.sdk.batch_get_item().request_items(&self.name, wanted);
        let answer = request.send().await.map_err(|error| classified(&error, &self.name))?;
        let items = answer.responses.and_then(|mut tables| tables.remove(&self.name));
        let items = items.unwrap_or_default().into_iter().map(from_sdk_item);
        let left = answer.unprocessed_keys.and_then(|mut tables| tables.remove(&self.name));
        let left = left.map(|left| left.keys).unwrap_or_default();
        Ok((
            items.collect::<Result<_, _>>()?,
            left.iter().map(from_sdk_key).collect::<Result<_, _>>()?,
        ))
    }

    async fn batch_write(&self, writes: &[Write]) -> Result<Vec<Write>, TableError> {
        let requests = writes.iter().map(batched).collect::<Result<Vec<_>, _>>()?;
        let request = self.sdk.batch_write_item().request_items(&self.name, requests);
        let answer = request.send().await.map_err(|error| classified(&error, &self.name))?;
        let left = answer
            .unprocessed_items
            .and_then(|mut tables| tables.remove(&self.name));
        let left = left.unwrap_or_default();
        // Matched by key: an unprocessed write is identical to the one that was sent.
        let left = left.iter().map(|request| {
            let attributes = match (&request.put_request, &request.delete_request) {
                (Some(put), _) => &put.item,
                (None, Some(delete)) => &delete.key,
                (None, None) => return Err(invalid("an unprocessed write that is neither a put nor a delete")),
            };
            let key = from_sdk_key(attributes)?;
            let write = writes.iter().find(|write| *write.key() == key);
            write
                .cloned()
                .ok_or_else(|| invalid("an unprocessed write that was not in the request"))
        });
        left.collect()
    }
}

impl AwsTable {
    /// The outcome of a single write.
    fn written<T, E>(&self, answer: Result<T, SdkError<E, HttpResponse>>) -> Result<Written, TableError>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        match answer {
            Ok(_) => Ok(Written::Done),
            Err(error) if is_refusal(&error) => Ok(Written::Refused(vec![0])),
            Err(error) => Err(classified(&error, &self.name)),
        }
    }

    fn transacted(&self, write: &Write) -> Result<TransactWriteItem, TableError> {
        let mut expression = Expression::default();
        let item = TransactWriteItem::builder();
        let item = match write {
            Write::Put { item: put, condition } => {
                let put = Put::builder().set_item(Some(to_sdk_item(put)));
                let put = on_condition!(put, self, expression, condition);
                item.put(put.build().map_err(invalid)?)
            }
            Write::Update {
                key,
                set,
                remove,
                condition,
            } => {
                let update = Update::builder().set_key(Some(to_sdk_key(key)));
                let update = update.update_expression(expression.update(set, remove));
                let update = on_condition!(update, self, expression, condition);
                item.update(update.build().map_err(invalid)?)
            }
            Write::Delete { key, condition } => {
                let delete = Delete::builder().set_key(Some(to_sdk_key(key)));
                let delete = on_condition!(delete, self, expression, condition);
                item.delete(delete.build().map_err(invalid)?)
            }
            Write::Check { key, condition } => {
                let check = ConditionCheck::builder().set_key(Some(to_sdk_key(key)));
                let check = on_condition!(check, self, expression, condition);
                item.condition_check(check.build().map_err(invalid)?)
            }
        };
        Ok(item.build())
    }
}

fn batched(write: &Write) -> Result<WriteRequest, TableError> {
    let request = WriteRequest::builder();
    let request = match write {
        Write::Put { item, .. } => {
            let put = PutRequest::builder().set_item(Some(to_sdk_item(item)));
            request.put_request(put.build().map_err(invalid)?)
        }
        Write::Delete { key, .. } => {
            let delete = DeleteRequest::builder().set_key(Some(to_sdk_key(key)));
            request.delete_request(delete.build().map_err(invalid)?)
        }
        Write::Update { .. } | Write::Check { .. } => {
            return Err(invalid("a batch may contain only puts and deletes"));
        }
    };
    Ok(request.build())
}

#[cfg(test)]
pub(crate) mod tests;
