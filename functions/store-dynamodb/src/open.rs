//! From settings to a store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_client::clock::ClockWatch;
use aws_config::identity::IdentityCache;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::Client as Sdk;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use registry::clock::ServiceClock;
use registry::store::metadata::MetadataStore as _;
use registry::store::sessions::SessionStore as _;
use registry::store::{Cause, Context, Reason, StoreError, Timestamp, Uid};

use crate::DynamoStore;
use crate::aws::AwsTable;
use crate::keys;
use crate::retrying::{RetryEnvironment, SystemRetryEnvironment, TableClient};
use crate::schema::{self, Prepared};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one try of a request may take, connection included. The service answers within some tens of milliseconds;
/// an answer that takes this long is lost.
const TRY_TIMEOUT: Duration = Duration::from_secs(6);
/// How long the look at a table's version may take, in milliseconds, retries included.
const CHECK_TIMEOUT_MS: u64 = 15_000;

/// Where the tables are, and who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The table of everything that a registry knows.
    pub table: String,
    /// The table of sessions, graves and keys; `None`: the same one.
    pub local_table: Option<String>,
    /// The region; `None`: the one that the environment or the profile names.
    pub region: Option<String>,
    /// A profile of the configuration files; `None`: the one that the environment names.
    pub profile: Option<String>,
    /// Where requests are sent; `None`: the service of the region, or what the environment names.
    pub endpoint: Option<String>,
}

impl Options {
    /// The name of the local table.
    #[must_use]
    pub fn local_table(&self) -> &str {
        self.local_table.as_deref().unwrap_or(&self.table)
    }

    async fn sdk(&self, retries: RetryConfig, clock: &Arc<ServiceClock>) -> Result<Sdk, OpenError> {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(TRY_TIMEOUT)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(aws_client::http_client())
            .retry_config(retries)
            .timeout_config(timeouts);
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &self.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(process) = aws_client::process::of_profile(self.profile.as_deref(), self.region.as_deref()).await {
            loader = loader
                .credentials_provider(process)
                .identity_cache(IdentityCache::lazy().load_timeout(aws_client::process::MAXIMUM).build());
        }
        let shared = loader.load().await;
        if shared.region().is_none() {
            return Err(OpenError::NoRegion);
        }
        let mut config = aws_sdk_dynamodb::config::Builder::from(&shared)
            .interceptor(ClockWatch::new("the metadata table", clock.clone()));
        if let Some(endpoint) = &self.endpoint {
            config = config.endpoint_url(endpoint);
        }
        Ok(Sdk::from_conf(config.build()))
    }

    fn table_names(&self) -> BTreeSet<&str> {
        BTreeSet::from([self.table.as_str(), self.local_table()])
    }
}

/// Why the tables cannot be used. The texts are for the operator, and say what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No region is known.
    #[error("no AWS region: give --aws-region, or set AWS_REGION (with an endpoint of one's own, any region will do)")]
    NoRegion,
    /// There is no such table.
    #[error("there is no table {0}: create it with `roadstead metadata init`")]
    NoTable(String),
    /// The table is there, but nothing of this program's.
    #[error("the table {0} was never initialised: run `roadstead metadata init`")]
    NotInitialised(String),
    /// The table was made for something else.
    #[error(
        "the table {0} does not have the keys `pk` and `sk`, so that it belongs to something else: choose another name"
    )]
    OtherKeys(String),
    /// A new table did not become active.
    #[error("the table {0} is not active yet: try again in a minute")]
    NotActive(String),
    /// The layout is one that this version does not understand.
    #[error("the table {table} has layout {found}, this version understands layouts up to {}: install a newer version", schema::VERSION + 1)]
    TooNew {
        /// The table.
        table: String,
        /// Its layout.
        found: u64,
    },
    /// The layout is one that this version has forgotten.
    #[error("the table {table} has layout {found}, this version needs layout {} or later: run `roadstead metadata init` with every version in between", schema::VERSION - 1)]
    TooOld {
        /// The table.
        table: String,
        /// Its layout.
        found: u64,
    },
    /// The service did not answer, or refused.
    #[error("the table {table} cannot be used: {cause}")]
    Table {
        /// The table.
        table: String,
        /// What that means: whether waiting may help.
        reason: Reason,
        /// What was said.
        #[source]
        cause: Cause,
    },
}

impl OpenError {
    /// Whether the service did not answer, so that the same may succeed later without anybody mending anything.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Table {
                reason: Reason::MetadataUnreachable | Reason::Throttled | Reason::ClockOff,
                ..
            }
        )
    }
}

/// A call of its own, for what is asked at start.
fn context() -> Context {
    Context {
        now: Timestamp(0),
        deadline: Timestamp(CHECK_TIMEOUT_MS),
        uid: Uid(0),
        client: registry::budget::ClientKey::INTERNAL,
    }
}

impl DynamoStore {
    /// A store over tables that [`DynamoStore::init`] has made. Makes one request to each, for the version of the
    /// layout.
    pub async fn open(options: &Options) -> Result<Self, OpenError> {
        let store = Self::connect(options).await?;
        store.check(context()).await?;
        Ok(store)
    }

    /// The same without a request: for a server, which starts while its table is away. Until [`DynamoStore::check`] has
    /// succeeded nobody knows whether this program understands what lies there, so that nothing may be written before.
    pub async fn connect(options: &Options) -> Result<Self, OpenError> {
        let clock = Arc::<ServiceClock>::default();
        let sdk = options.sdk(RetryConfig::disabled(), &clock).await?;
        let environment: Arc<dyn RetryEnvironment> = Arc::new(SystemRetryEnvironment::new());
        let main = Arc::new(AwsTable::new(sdk.clone(), &options.table));
        let local = Arc::new(AwsTable::new(sdk, options.local_table()));
        let tables = [&options.table, options.local_table()].map(ToOwned::to_owned);
        Ok(Self::over(main, local, &environment)
            .with_clock(clock)
            .with_table_names(tables))
    }

    /// Whether the tables are there, and have a layout that this program understands. One read of each.
    pub async fn check(&self, cx: Context) -> Result<(), OpenError> {
        schema::check(self.main.within(cx), &self.table_names[0]).await?;
        if self.has_two_tables() {
            schema::check(self.local.within(cx), &self.table_names[1]).await?;
        }
        Ok(())
    }

    /// Whether sessions, graves and keys have a table of their own.
    pub(crate) fn has_two_tables(&self) -> bool {
        self.table_names[0] != self.table_names[1]
    }

    /// Whether nothing was ever kept here: no key that signs upload tokens, which the first start makes, no repository,
    /// no upload, no import, no record of any kind as far as this process may look for one. Beside blobs that is not a
    /// new registry, but one that has lost its metadata. Of two tables only the main one counts: the local one may have
    /// outlived it. One read, unless it is new.
    pub async fn is_new(&self, cx: Context) -> Result<bool, StoreError> {
        let was_used = if self.has_two_tables() {
            schema::is_used(self.main.within(cx)).await?
        } else {
            let table = self.local.within(cx);
            table.get(&keys::first_signing_key()).await?.is_some()
                // An import that goes on, or was cut off before it came to manifests.
                || table.get(&keys::pass()).await?.is_some()
                || !self.expired(cx, Timestamp(u64::MAX), None, 1).await?.is_empty()
        };
        if was_used || !self.repositories(cx, None, 1).await?.items.is_empty() {
            return Ok(false);
        }
        // An import brings blobs also where no manifest refers to them. A new table has one row, that of its layout.
        match self.main.within(cx).scan(None, 2).await {
            Ok(found) => Ok(found.items.iter().all(|item| item.key == keys::schema())),
            // A process that only serves need not be allowed to scan.
            Err(error) if error.reason() == Reason::MetadataRefuses => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Makes the tables that are not there, paid by the request and with rows that expire, and writes the version of
    /// the layout into them. Idempotent; changes nothing of what lies in them.
    pub async fn init(options: &Options) -> Result<Vec<Prepared>, OpenError> {
        let clock = Arc::<ServiceClock>::default();
        let sdk = options.sdk(RetryConfig::standard(), &clock).await?;
        let environment: Arc<dyn RetryEnvironment> = Arc::new(SystemRetryEnvironment::new());
        let mut prepared = Vec::new();
        for name in options.table_names() {
            let created = schema::create(&sdk, name, environment.as_ref()).await?;
            if name == options.local_table() {
                schema::expire_rows(&sdk, name).await?;
            }
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
