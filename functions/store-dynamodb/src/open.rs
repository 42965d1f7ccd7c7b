//! Builds a store from options, and checks and creates its tables.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_client::AwsConfig;
use aws_client::clock::ClockWatch;
use aws_sdk_dynamodb::Client as Sdk;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use registry::clock::ServiceClock;
use registry::store::metadata::MetadataStore as _;
use registry::store::sessions::SessionStore as _;
use registry::store::{Context, Reason, StoreError, Timestamp, Uid};

use crate::DynamoStore;
use crate::access;
use crate::aws::AwsTable;
use crate::keys;
use crate::layout::OpenError;
use crate::retrying::{RetryEnvironment, SystemRetryEnvironment, TableClient};
use crate::schema::{self, Prepared};
use crate::table::ItemKey;

/// The maximum time of one try of a request, including the connection. DynamoDB answers within some tens of
/// milliseconds, so after this time the answer counts as lost.
const TRY_TIMEOUT: Duration = Duration::from_secs(6);
/// The maximum time to read a table's layout version, in milliseconds, including retries.
const CHECK_TIMEOUT_MS: u64 = 15_000;

/// How many rows are read at once of a table that may be new.
const NEW_TABLE_ROWS: usize = 20;

/// The names of the tables, and the URL of their service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// The name of the main table, which holds the metadata.
    pub table: String,
    /// The name of the table for sessions, the deletion queue and keys; `None`: the main table.
    pub local_table: Option<String>,
    /// The URL of the DynamoDB endpoint; `None`: the endpoint of the environment, or else that of the region.
    pub endpoint: Option<String>,
}

impl TableOptions {
    /// The name of the local table: that of the main table if none is set.
    #[must_use]
    pub fn local_table(&self) -> &str {
        self.local_table.as_deref().unwrap_or(&self.table)
    }

    fn sdk(&self, aws: &AwsConfig, retries: RetryConfig, clock: &Arc<ServiceClock>) -> Result<Sdk, OpenError> {
        if aws.sdk().region().is_none() {
            return Err(OpenError::NoRegion);
        }
        let mut config = aws_sdk_dynamodb::config::Builder::from(aws.sdk())
            .interceptor(ClockWatch::new("the metadata table", clock.clone()))
            .retry_config(retries)
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(TRY_TIMEOUT).build());
        if let Some(endpoint) = &self.endpoint {
            config = config.endpoint_url(endpoint);
        }
        Ok(Sdk::from_conf(config.build()))
    }

    fn table_names(&self) -> BTreeSet<&str> {
        BTreeSet::from([self.table.as_str(), self.local_table()])
    }
}

/// The context of a check at start.
fn context() -> Context {
    Context::internal(Timestamp(0), CHECK_TIMEOUT_MS, Uid(0))
}

impl DynamoStore {
    /// Opens a store over tables that [`DynamoStore::init`] has created. Sends one request to each table, to read the
    /// version of its layout.
    ///
    /// # Errors
    /// When no region is configured, when a table cannot be read, or when its layout is not one that this version
    /// supports.
    pub async fn open(options: &TableOptions, aws: &AwsConfig) -> Result<Self, OpenError> {
        let store = Self::connect(options, aws)?;
        store.check(context()).await?;
        Ok(store)
    }

    /// Opens a store without a request, for a server that must start while its tables are unreachable. The caller must
    /// not write before [`DynamoStore::check`] has succeeded: only then is it known that this program supports the
    /// layout.
    ///
    /// # Errors
    /// When no region is configured.
    pub fn connect(options: &TableOptions, aws: &AwsConfig) -> Result<Self, OpenError> {
        let clock = Arc::<ServiceClock>::default();
        let sdk = options.sdk(aws, RetryConfig::disabled(), &clock)?;
        let environment: Arc<dyn RetryEnvironment> = Arc::new(SystemRetryEnvironment::new());
        let main = Arc::new(AwsTable::new(sdk.clone(), &options.table));
        let local = Arc::new(AwsTable::new(sdk, options.local_table()));
        let tables = [&options.table, options.local_table()].map(ToOwned::to_owned);
        Ok(Self::over(main, local, &environment)
            .with_clock(clock)
            .with_table_names(tables))
    }

    /// Checks that the tables exist and that this program supports their layout. Reads one item of each.
    ///
    /// # Errors
    /// When a table cannot be read, or when its layout is not one that this version supports.
    pub async fn check(&self, cx: Context) -> Result<(), OpenError> {
        schema::check(self.main.within(cx), &self.table_names[0]).await?;
        if self.has_two_tables() {
            schema::check(self.local.within(cx), &self.table_names[1]).await?;
        }
        Ok(())
    }

    /// Whether sessions, the deletion queue and keys have a separate table.
    pub(crate) fn has_two_tables(&self) -> bool {
        self.table_names[0] != self.table_names[1]
    }

    /// Whether no registry has used this store yet. A used store has at least one of these: a key that signs upload
    /// tokens (the first start creates one), a repository, an upload session, an import that has begun, or any other
    /// record except accounts, the policy and the audit trail, if this process may scan. A new store beside existing blobs
    /// is a registry that has lost its metadata. With two tables only the main one counts, because the local one may have
    /// survived the main one. Costs one read, or several if the store is new.
    ///
    /// # Errors
    /// When a table does not answer.
    pub async fn is_new(&self, cx: Context) -> Result<bool, StoreError> {
        let was_used = if self.has_two_tables() {
            schema::is_used(self.main.within(cx)).await?
        } else {
            let table = self.local.within(cx);
            table.get(&keys::first_signing_key()).await?.is_some()
                // An import is running, or was interrupted before it wrote a manifest.
                || table.get(&keys::pass()).await?.is_some()
                || !self.expired(cx, Timestamp(u64::MAX), None, 1).await?.is_empty()
        };
        if was_used || !self.repositories(cx, None, 1).await?.items.is_empty() {
            return Ok(false);
        }
        // An import also writes blobs to which no manifest refers.
        match self.has_content(cx).await {
            Ok(found) => Ok(!found),
            // A process that only serves may lack the permission to scan.
            Err(error) if error.reason() == Reason::MetadataRefuses => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether the main table has a row besides that of its layout version and those of accounts and the policy. An operator
    /// makes the first account before the first start, so that accounts do not show that the registry was used.
    async fn has_content(&self, cx: Context) -> Result<bool, StoreError> {
        let requests = self.main.within(cx);
        let is_content = |key: &ItemKey| *key != keys::schema() && !access::is_of_access(key);
        let mut after = None;
        loop {
            let page = requests.scan(after.as_ref(), NEW_TABLE_ROWS).await?;
            if page.items.iter().any(|item| is_content(&item.key)) {
                return Ok(true);
            }
            after = page.more_after;
            if after.is_none() {
                return Ok(false);
            }
        }
    }

    /// Creates missing tables with on-demand billing, enables the expiry of rows in each table, and writes the
    /// layout version into each table. It is idempotent, and leaves all other items as they are.
    ///
    /// # Errors
    /// When no region is configured, when the service refuses or does not answer, when a table belongs to something
    /// else or has an unsupported layout, or when a new table does not become active within two minutes.
    pub async fn init(options: &TableOptions, aws: &AwsConfig) -> Result<Vec<Prepared>, OpenError> {
        let clock = Arc::<ServiceClock>::default();
        let sdk = options.sdk(aws, RetryConfig::standard(), &clock)?;
        let environment: Arc<dyn RetryEnvironment> = Arc::new(SystemRetryEnvironment::new());
        let mut prepared = Vec::new();
        for name in options.table_names() {
            let created = schema::create(&sdk, name, environment.as_ref()).await?;
            schema::expire_rows(&sdk, name).await?;
            let client = TableClient::new(Arc::new(AwsTable::new(sdk.clone(), name)), environment.clone());
            let version = schema::write_version(client.within(context()), name).await?;
            prepared.push(Prepared {
                table: name.to_owned(),
                created,
                version,
            });
        }
        Ok(prepared)
    }
}
