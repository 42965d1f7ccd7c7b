//! Creates the tables, and checks and raises the version of their layout.
//!
//! One row in each table holds the layout version. This program writes [`VERSION`]. Version N works with tables of N-1,
//! N and N+1, so instances of two neighbouring versions can share a table while one replaces the other. Afterwards
//! `init` of the newer program raises the version. The first account or policy raises it too ([`raising`]): a program that
//! knows no accounts would let every client in.
//!
//! A newer program may add attributes and kinds of rows. An older program keeps them: it updates single attributes of
//! rows to which a newer one may have added some, and skips keys that it cannot parse. A program relies on such
//! additions only from the next layout version on.

use std::time::Duration;

use aws_sdk_dynamodb::Client as Sdk;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableDescription, TableStatus,
    TimeToLiveSpecification, TimeToLiveStatus,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use registry::store::{Reason, StoreError, Uid};

use crate::aws::classified;
use crate::keys;
use crate::layout::{OpenError, VERSION, WITH_ACCOUNTS};
use crate::records::{ItemFields, attributes, damaged, has_version};
use crate::retrying::{Requests, RetryEnvironment};
use crate::table::{Item, MissingTable, PARTITION, SORT, Value, Write, WriteCondition};

/// The maximum time until a new table is active.
const CREATION_TIMEOUT: Duration = Duration::from_mins(2);

/// The state of one table after [`DynamoStore::init`](crate::DynamoStore::init).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The name of the table.
    pub table: String,
    /// Whether this call created the table.
    pub created: bool,
    /// The layout version that the table has now.
    pub version: u64,
}

/// The layout version of a table; `None`: it was never initialised.
async fn version(requests: Requests<'_>, table: &str) -> Result<Option<u64>, OpenError> {
    let item = requests
        .get(&keys::schema())
        .await
        .map_err(|error| open_error(error, table))?;
    let version = item
        .map(|item| ItemFields(&item).number(attributes::VERSION))
        .transpose();
    version.map_err(|error| open_error(error, table))
}

/// Converts an error. A missing table has its own error, because the operator can create it.
fn open_error(error: StoreError, table: &str) -> OpenError {
    let (reason, cause) = (error.reason(), error.into_cause());
    if cause.is::<MissingTable>() {
        return OpenError::NoTable(table.to_owned());
    }
    OpenError::Table {
        table: table.to_owned(),
        reason,
        cause,
    }
}

/// Refuses a table whose layout this program does not support.
pub(crate) async fn check(requests: Requests<'_>, table: &str) -> Result<(), OpenError> {
    let found = version(requests, table).await?;
    let found = found.ok_or_else(|| OpenError::NotInitialised(table.to_owned()))?;
    check_version(found, table)
}

/// The change that raises the layout version of a table to [`WITH_ACCOUNTS`], given the row of the version; `None`: the
/// version is that high.
pub(crate) fn raising(row: Option<&Item>) -> Result<Option<Write>, StoreError> {
    let found = row.map(|row| ItemFields(row).number(attributes::VERSION)).transpose()?;
    if found.is_some_and(|found| found >= WITH_ACCOUNTS) {
        return Ok(None);
    }
    Ok(Some(Write::Update {
        key: keys::schema(),
        set: vec![(attributes::VERSION, Value::N(WITH_ACCOUNTS))],
        remove: Vec::new(),
        condition: found.map_or(WriteCondition::Absent, has_version),
    }))
}

fn check_version(found: u64, table: &str) -> Result<(), OpenError> {
    check_version_of(VERSION, found, table)
}

/// Refuses a table whose layout a program with this layout version does not support.
pub(crate) fn check_version_of(own: u64, found: u64, table: &str) -> Result<(), OpenError> {
    let table = table.to_owned();
    if found > own + 1 {
        return Err(OpenError::TooNew { table, found });
    }
    if found + 1 < own {
        return Err(OpenError::TooOld { table, found });
    }
    Ok(())
}

/// Writes the layout version if the table has none or an older one. Returns the version that the table has now.
pub(crate) async fn write_version(requests: Requests<'_>, table: &str) -> Result<u64, OpenError> {
    let found = version(requests, table).await?;
    let condition = match found {
        None => WriteCondition::Absent,
        Some(found) => {
            check_version(found, table)?;
            if found >= VERSION {
                return Ok(found);
            }
            has_version(found)
        }
    };
    let write = Write::Update {
        key: keys::schema(),
        set: vec![(attributes::VERSION, Value::N(VERSION))],
        remove: Vec::new(),
        condition,
    };
    // Refused: another process has initialised the table meanwhile.
    requests.write(&write).await.map_err(|error| open_error(error, table))?;
    let found = version(requests, table).await?;
    let found = found.ok_or_else(|| OpenError::NotInitialised(table.to_owned()))?;
    check_version(found, table).map(|()| found)
}

/// The random identity of a table, in the row of the layout version; the first call writes it. It distinguishes the
/// table from every other one, also from an earlier or later table of the same name and from one in another account.
/// Earlier programs do not know the attribute and leave it as it is.
pub(crate) async fn identity(requests: Requests<'_>, random: Uid) -> Result<String, StoreError> {
    let set_identity = Write::Update {
        key: keys::schema(),
        set: vec![(attributes::TABLE, Value::S(random.to_string()))],
        remove: Vec::new(),
        condition: WriteCondition::Lacks(attributes::TABLE),
    };
    loop {
        let item = requests.get(&keys::schema()).await?;
        let item = item.ok_or_else(|| damaged(&keys::schema(), "it does not exist"))?;
        if let Some(identity) = ItemFields(&item).text_if_any(attributes::TABLE)? {
            return Ok(identity.to_owned());
        }
        // Refused: another call was faster, and the next read finds its identity.
        requests.write(&set_identity).await?;
        requests.in_time()?;
    }
}

/// Records in the row of the layout version that a registry uses the table.
pub(crate) async fn mark_used(requests: Requests<'_>) -> Result<(), StoreError> {
    if is_used(requests).await? {
        return Ok(());
    }
    let set_used = Write::Update {
        key: keys::schema(),
        set: vec![(attributes::USED, Value::N(1))],
        remove: Vec::new(),
        condition: WriteCondition::Exists,
    };
    // Refused: the row does not exist. The check of the layout reports that.
    requests.write(&set_used).await.map(drop)
}

/// Whether a registry has used the table.
pub(crate) async fn is_used(requests: Requests<'_>) -> Result<bool, StoreError> {
    let item = requests.get(&keys::schema()).await?;
    Ok(item.is_some_and(|item| ItemFields(&item).flag(attributes::USED)))
}

/// Creates a table unless it exists, and waits until it is active. `true`: this call created it.
pub(crate) async fn create(sdk: &Sdk, table: &str, environment: &dyn RetryEnvironment) -> Result<bool, OpenError> {
    let mut created = false;
    let until = environment.elapsed() + CREATION_TIMEOUT;
    loop {
        match describe(sdk, table).await? {
            None => created |= request_table(sdk, table).await?,
            Some(description) => {
                check_keys(&description, table)?;
                if description.table_status() == Some(&TableStatus::Active) {
                    return Ok(created);
                }
            }
        }
        if environment.elapsed() >= until {
            return Err(OpenError::NotActive(table.to_owned()));
        }
        environment.sleep(Duration::from_millis(500)).await;
    }
}

async fn describe(sdk: &Sdk, table: &str) -> Result<Option<TableDescription>, OpenError> {
    match sdk.describe_table().table_name(table).send().await {
        Ok(answer) => Ok(answer.table),
        Err(error) if has_code(&error, "ResourceNotFoundException") => Ok(None),
        Err(error) => Err(refused(&error, table)),
    }
}

/// Creates a table with on-demand billing and without indexes. `false`: another process is creating it.
async fn request_table(sdk: &Sdk, table: &str) -> Result<bool, OpenError> {
    let attribute = |name| {
        AttributeDefinition::builder()
            .attribute_name(name)
            .attribute_type(ScalarAttributeType::S)
            .build()
    };
    let key = |name, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
    let attributes = [attribute(PARTITION), attribute(SORT)]
        .into_iter()
        .collect::<Result<_, _>>();
    let keys = [key(PARTITION, KeyType::Hash), key(SORT, KeyType::Range)];
    let keys = keys.into_iter().collect::<Result<_, _>>();
    let request = sdk
        .create_table()
        .table_name(table)
        .billing_mode(BillingMode::PayPerRequest)
        .set_attribute_definitions(Some(attributes.map_err(|error| failed(error, table))?))
        .set_key_schema(Some(keys.map_err(|error| failed(error, table))?));
    match request.send().await {
        Ok(_) => Ok(true),
        Err(error) if has_code(&error, "ResourceInUseException") => Ok(false),
        Err(error) => Err(refused(&error, table)),
    }
}

/// Refuses a table whose keys are not those of this program.
fn check_keys(description: &TableDescription, table: &str) -> Result<(), OpenError> {
    let expected = [(PARTITION, KeyType::Hash), (SORT, KeyType::Range)];
    let found = description.key_schema().iter();
    let found: Vec<_> = found
        .map(|key| (key.attribute_name(), key.key_type().clone()))
        .collect();
    if found == expected {
        Ok(())
    } else {
        Err(OpenError::OtherKeys(table.to_owned()))
    }
}

/// Enables the removal of expired rows by DynamoDB, long after session expiry. When two processes enable it at once,
/// the service refuses the second one. That is no error if the removal is enabled afterwards.
pub(crate) async fn expire_rows(sdk: &Sdk, table: &str) -> Result<(), OpenError> {
    if do_rows_expire(sdk, table).await? {
        return Ok(());
    }
    let specification = TimeToLiveSpecification::builder()
        .enabled(true)
        .attribute_name(attributes::EXPIRES)
        .build()
        .map_err(|error| failed(error, table))?;
    let request = sdk.update_time_to_live().table_name(table);
    match request.time_to_live_specification(specification).send().await {
        Ok(_) => Ok(()),
        Err(_) if do_rows_expire(sdk, table).await? => Ok(()),
        Err(error) => Err(refused(&error, table)),
    }
}

async fn do_rows_expire(sdk: &Sdk, table: &str) -> Result<bool, OpenError> {
    let answer = sdk.describe_time_to_live().table_name(table).send().await;
    let answer = answer.map_err(|error| refused(&error, table))?;
    let status = answer
        .time_to_live_description
        .and_then(|description| description.time_to_live_status);
    Ok(matches!(
        status,
        Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)
    ))
}

fn has_code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>, code: &str) -> bool {
    error.as_service_error().and_then(ProvideErrorMetadata::code) == Some(code)
}

fn refused<E>(error: &SdkError<E, HttpResponse>, table: &str) -> OpenError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    open_error(classified(error, table).into_store_error(), table)
}

fn failed(error: impl Into<registry::store::Cause>, table: &str) -> OpenError {
    OpenError::Table {
        table: table.to_owned(),
        reason: Reason::Failed,
        cause: error.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::aws::tests::{ScriptedConnection, ScriptedResponse};

    fn expiry(status: &str) -> ScriptedResponse {
        (200, json!({ "TimeToLiveDescription": { "TimeToLiveStatus": status } }))
    }

    /// The answer of the service to the second of two simultaneous requests.
    fn refusal() -> ScriptedResponse {
        let kind = "com.amazon.coral.validate#ValidationException";
        (
            400,
            json!({ "__type": kind, "message": "TimeToLive is already enabled" }),
        )
    }

    #[tokio::test]
    async fn row_expiry_is_enabled_also_if_another_init_enables_it_first() {
        let cases: [(Vec<ScriptedResponse>, bool, usize); 5] = [
            (vec![expiry("ENABLED")], true, 1),
            (vec![expiry("ENABLING")], true, 1),
            (vec![expiry("DISABLED"), (200, json!({}))], true, 2),
            (vec![expiry("DISABLED"), refusal(), expiry("ENABLING")], true, 3),
            (vec![expiry("DISABLED"), refusal(), expiry("DISABLED")], false, 3),
        ];
        for (number, (script, succeeds, requests)) in cases.into_iter().enumerate() {
            let connection = ScriptedConnection::answering(script);
            let done = expire_rows(&connection.sdk(), "metadata").await;
            assert_eq!(done.is_ok(), succeeds, "{number}: {done:?}");
            let sent = connection.requests();
            assert_eq!(sent.len(), requests, "{number}: {sent:?}");
            if requests > 1 {
                let wanted = json!({ "Enabled": true, "AttributeName": attributes::EXPIRES });
                assert_eq!(sent[1].1["TimeToLiveSpecification"], wanted, "{number}");
            }
        }
    }

    #[test]
    fn one_layout_version_below_and_above_is_accepted() {
        for found in [VERSION - 1, VERSION, VERSION + 1] {
            assert!(check_version(found, "t").is_ok(), "{found}");
        }
        let newer = check_version(VERSION + 2, "metadata");
        let text = newer.expect_err("a layout two versions newer").to_string();
        assert!(
            text.contains("metadata") && text.contains(&(VERSION + 2).to_string()),
            "{text}"
        );
    }
}
