//! Sends requests to a table: retries until the deadline of the call, splits batches, and counts requests.
//!
//! A request with a transient failure is sent again after a random wait whose bound doubles each time. Batches are
//! split to the limits of a table, and items that a table did not process for lack of capacity are sent again. The time
//! limit of a call is the span from now to the deadline of its [`Context`]. This crate measures it with its own clock
//! from the start of the call, because the clock of the context belongs to the shell. No try outlasts the call.
//!
//! **A write may have been applied although no response came.** A transaction carries a token, so that a retry is
//! applied once. A conditional retry may be refused because the first try succeeded. In that case
//! [`WriteOutcome::Refused`] says so, and the protocol compares the stored item with what it wanted to write. A try may
//! also be applied after its retry. So a change that must not be applied twice carries a value that is unique for each
//! try (see [`Requests::write_each`]); every other change leaves only garbage when it is applied twice.
//!
//! **Nothing is written while the clock of this host is off** ([`ServiceClock`]), because that clock decides what is
//! young and what is due.

mod counts;
mod environment;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select, try_join_all};
use registry::backoff::Backoff;
use registry::clock::ServiceClock;
use registry::store::{Context, Reason, StoreError};

use self::counts::TableCounters;
pub use self::counts::TableStatistics;
#[cfg(test)]
pub(crate) use self::environment::TestRetryEnvironment;
pub(crate) use self::environment::{RetryEnvironment, SystemRetryEnvironment};
use crate::table::{
    BATCH_READS, BATCH_WRITES, Consistency, Item, ItemKey, ItemPage, Range, RangeQuery, Table, TableError, Write,
    Written,
};

/// How long to wait before another try.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));
/// The maximum number of batches in flight. It is large enough to hide the round trips of 4,096 edges, and small enough
/// that one request does not use the whole capacity of a new table.
const BATCHES_AT_ONCE: usize = 8;

/// The outcome of a single conditional write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    /// The write was applied.
    Done,
    /// The condition did not hold.
    Refused {
        /// An earlier try was not answered. It may have been applied, which would explain the refusal.
        perhaps_done: bool,
    },
}

impl WriteOutcome {
    pub(crate) fn is_done(self) -> bool {
        self == Self::Done
    }
}

/// The outcome of a write that is sent again only if it was certainly not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteOnceOutcome {
    /// The write was applied.
    Done,
    /// The condition did not hold.
    Refused,
    /// No answer came: the write was applied, or it may be applied late, or never.
    Unanswered,
}

/// A table with retries. Clones share their counters.
#[derive(Clone)]
pub(crate) struct TableClient {
    table: Arc<dyn Table>,
    environment: Arc<dyn RetryEnvironment>,
    /// The clock of this host, compared with that of the service. While it is off, nothing is written.
    pub(crate) clock: Arc<ServiceClock>,
    counts: Arc<TableCounters>,
}

impl TableClient {
    pub(crate) fn new(table: Arc<dyn Table>, environment: Arc<dyn RetryEnvironment>) -> Self {
        Self {
            table,
            environment,
            clock: Arc::default(),
            counts: Arc::default(),
        }
    }

    /// Refuses writes while the clock of this host is off.
    fn may_write(&self) -> Result<(), StoreError> {
        self.clock.check()
    }

    pub(crate) fn statistics(&self) -> TableStatistics {
        self.counts.statistics()
    }

    /// The requests of one call, whose time runs from now until its deadline.
    pub(crate) fn within(&self, cx: Context) -> Requests<'_> {
        let timeout = Duration::from_millis(cx.deadline.millis_since(cx.now));
        Requests {
            client: self,
            until: self.environment.elapsed() + timeout,
            timeout,
        }
    }
}

/// The requests of one call to one table.
#[derive(Clone, Copy)]
pub(crate) struct Requests<'a> {
    client: &'a TableClient,
    /// The end of the call, by the clock of [`RetryEnvironment`].
    until: Duration,
    /// The maximum time of the call.
    timeout: Duration,
}

impl Requests<'_> {
    /// Reads one item, strongly consistent.
    pub(crate) async fn get(&self, key: &ItemKey) -> Result<Option<Item>, StoreError> {
        let mut tries = Tries::of(self);
        loop {
            self.client.counts.read(1);
            match self
                .before_deadline(self.client.table.get(key, Consistency::Strong))
                .await
            {
                Ok(item) => return Ok(item),
                Err(error) => tries.failed(error).await?,
            }
        }
    }

    /// Reads items, each at its own time. The answer has only those that exist. The caller must bound the number of
    /// keys, because all items are held in memory together.
    pub(crate) async fn get_all(&self, keys: &BTreeSet<ItemKey>) -> Result<BTreeMap<ItemKey, Item>, StoreError> {
        let keys: Vec<&ItemKey> = keys.iter().collect();
        let mut found = BTreeMap::new();
        for wave in keys.chunks(BATCH_READS * BATCHES_AT_ONCE) {
            let batches = wave.chunks(BATCH_READS);
            let batches = batches.map(|batch| self.get_batch(batch.iter().copied().cloned().collect()));
            for items in try_join_all(batches).await? {
                found.extend(items.into_iter().map(|item| (item.key.clone(), item)));
            }
        }
        Ok(found)
    }

    async fn get_batch(&self, mut keys: Vec<ItemKey>) -> Result<Vec<Item>, StoreError> {
        let mut tries = Tries::of(self);
        let mut found = Vec::new();
        loop {
            self.client.counts.read(keys.len());
            match self.before_deadline(self.client.table.batch_get(&keys)).await {
                Ok((items, left)) => {
                    found.extend(items);
                    if left.is_empty() {
                        return Ok(found);
                    }
                    keys = left;
                    tries.left_over().await?;
                }
                Err(error) => tries.failed(error).await?,
            }
        }
    }

    /// Reads one page of a collection, in order.
    pub(crate) async fn query(&self, query: &RangeQuery) -> Result<ItemPage, StoreError> {
        let Some(query) = within_its_range(query) else {
            return Ok(ItemPage::default());
        };
        let mut tries = Tries::of(self);
        loop {
            self.client.counts.query();
            match self.before_deadline(self.client.table.query(&query)).await {
                Ok(found) => return Ok(found),
                Err(error) => tries.failed(error).await?,
            }
        }
    }

    /// The first `limit` items of a range after a sort key, strongly consistent, read over as many pages as necessary;
    /// and whether there are more.
    pub(crate) async fn first(
        &self,
        range: Range,
        after: Option<String>,
        descending: bool,
        limit: usize,
    ) -> Result<(Vec<Item>, bool), StoreError> {
        // One more item shows whether anything follows.
        let wanted = limit.saturating_add(1);
        let mut query = RangeQuery {
            range,
            after,
            descending,
            limit: wanted,
            consistency: Consistency::Strong,
        };
        let mut items = Vec::new();
        loop {
            let found = self.query(&query).await?;
            items.extend(found.items);
            match found.more_after {
                Some(last) if items.len() < wanted => {
                    query.after = Some(last.sort);
                    query.limit = wanted - items.len();
                }
                _ => break,
            }
        }
        let more = items.len() > limit;
        items.truncate(limit);
        Ok((items, more))
    }

    /// Reads one page of the whole table, in an arbitrary order, strongly consistent.
    pub(crate) async fn scan(&self, after: Option<&ItemKey>, limit: usize) -> Result<ItemPage, StoreError> {
        let mut tries = Tries::of(self);
        loop {
            self.client.counts.query();
            match self.before_deadline(self.client.table.scan(after, limit)).await {
                Ok(found) => return Ok(found),
                Err(error) => tries.failed(error).await?,
            }
        }
    }

    /// Applies one change. Every try sends the same write.
    pub(crate) async fn write(&self, write: &Write) -> Result<WriteOutcome, StoreError> {
        self.write_with_retries(|_| write.clone())
            .await
            .map(|(answer, _)| answer)
    }

    /// Applies one change. `make` creates a new write for each try from the number of the try, which starts with 0.
    /// Returns also the number of the try that was answered.
    pub(crate) async fn write_each(
        &self,
        make: impl FnMut(u64) -> Write + Send,
    ) -> Result<(WriteOutcome, u64), StoreError> {
        self.write_with_retries(make).await
    }

    async fn write_with_retries(
        &self,
        mut make: impl FnMut(u64) -> Write + Send,
    ) -> Result<(WriteOutcome, u64), StoreError> {
        let mut tries = Tries::of(self);
        let mut perhaps_done = false;
        loop {
            self.client.may_write()?;
            let write = make(tries.number);
            self.client.counts.write(1);
            match self.before_deadline(self.client.table.write(&write)).await {
                Ok(Written::Done) => return Ok((WriteOutcome::Done, tries.number)),
                Ok(Written::Refused(_)) => {
                    self.client.counts.refused();
                    return Ok((WriteOutcome::Refused { perhaps_done }, tries.number));
                }
                Err(error) => {
                    perhaps_done |= !matches!(error, TableError::Retry { not_done: true, .. });
                    tries.failed(error).await?;
                }
            }
        }
    }

    /// Applies one change that must not be applied a second time: another request may have removed its result since a
    /// first try that was not answered.
    pub(crate) async fn write_once(&self, write: &Write) -> Result<WriteOnceOutcome, StoreError> {
        let mut tries = Tries::of(self);
        loop {
            self.client.may_write()?;
            self.client.counts.write(1);
            match self.before_deadline(self.client.table.write(write)).await {
                Ok(Written::Done) => return Ok(WriteOnceOutcome::Done),
                Ok(Written::Refused(_)) => {
                    self.client.counts.refused();
                    return Ok(WriteOnceOutcome::Refused);
                }
                Err(error) => {
                    let not_done = matches!(error, TableError::Retry { not_done: true, .. });
                    tries.failed(error).await?;
                    if !not_done {
                        return Ok(WriteOnceOutcome::Unanswered);
                    }
                }
            }
        }
    }

    /// Applies changes of different items, all or none. They are applied once, however often they are sent.
    pub(crate) async fn transact(&self, writes: &[Write]) -> Result<Written, StoreError> {
        self.transact_once(writes).await.map(|(written, _)| written)
    }

    /// Like [`Self::transact`]; also returns whether a try was not answered. A refusal does not use up the token. An
    /// unanswered try may therefore be applied late, even after a refusal, if its conditions hold by then.
    pub(crate) async fn transact_once(&self, writes: &[Write]) -> Result<(Written, bool), StoreError> {
        let token = self.client.environment.token();
        let mut tries = Tries::of(self);
        let mut unanswered = false;
        loop {
            self.client.may_write()?;
            self.client.counts.transaction(writes.len());
            match self.before_deadline(self.client.table.transact(writes, &token)).await {
                Ok(written) => {
                    if written != Written::Done {
                        self.client.counts.refused();
                    }
                    return Ok((written, unanswered));
                }
                Err(error) => {
                    unanswered |= !matches!(error, TableError::Retry { not_done: true, .. });
                    tries.failed(error).await?;
                }
            }
        }
    }

    /// Applies unconditional puts and deletes of different items, each independently, in any order.
    pub(crate) async fn write_all(&self, writes: &[Write]) -> Result<(), StoreError> {
        // A single item costs one request in either form; the plain form is cheaper for the service.
        if let [write] = writes {
            return self.write(write).await.map(|_| ());
        }
        for wave in writes.chunks(BATCH_WRITES * BATCHES_AT_ONCE) {
            let batches = wave.chunks(BATCH_WRITES);
            try_join_all(batches.map(|batch| self.write_batch(batch.to_vec()))).await?;
        }
        Ok(())
    }

    async fn write_batch(&self, mut writes: Vec<Write>) -> Result<(), StoreError> {
        let mut tries = Tries::of(self);
        loop {
            self.client.may_write()?;
            self.client.counts.write(writes.len());
            match self.before_deadline(self.client.table.batch_write(&writes)).await {
                Ok(left) if left.is_empty() => return Ok(()),
                Ok(left) => {
                    writes = left;
                    tries.left_over().await?;
                }
                Err(error) => tries.failed(error).await?,
            }
        }
    }

    /// A random number.
    pub(crate) fn random(&self) -> u64 {
        self.client.environment.random()
    }

    /// Whether at least half of the call's time is used: for work that a later call can continue.
    pub(crate) fn is_half_over(&self) -> bool {
        self.client.environment.elapsed() + self.timeout / 2 >= self.until
    }

    /// Runs work that need not be completed, for at most half of the call's time. `None`: it was stopped then.
    pub(crate) async fn in_half_the_time<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let half = self.until.saturating_sub(self.timeout / 2);
        match select(pin!(work), self.client.environment.alarm(half)).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(((), _)) => None,
        }
    }

    /// Returns an error when the call's time is used up: for loops whose requests are all answered at once.
    pub(crate) fn in_time(&self) -> Result<(), StoreError> {
        if self.client.environment.elapsed() < self.until {
            return Ok(());
        }
        Err(StoreError::because(
            Reason::MetadataUnreachable,
            "the work did not fit into the maximum time of one call",
        ))
    }

    /// Waits before a protocol starts again because it lost a race; `round` counts the restarts from 0. Returns an
    /// error when the call's time is used up.
    pub(crate) async fn lost_race(&self, round: u32) -> Result<(), StoreError> {
        let error = StoreError::because(Reason::Unavailable, "other requests kept changing the same records");
        self.wait(round, error).await
    }

    /// Waits for the answer to one try, at most until the end of the call: the maximum time of a try may be longer than
    /// what is left.
    async fn before_deadline<T>(&self, answer: impl Future<Output = Result<T, TableError>>) -> Result<T, TableError> {
        match select(pin!(answer), self.client.environment.alarm(self.until)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(((), _)) => Err(TableError::Retry {
                not_done: false,
                cause: "no answer came within the maximum time of the call".into(),
            }),
        }
    }

    /// Waits a random time whose bound doubles with each try.
    async fn wait(&self, tries: u32, error: StoreError) -> Result<(), StoreError> {
        let environment = &self.client.environment;
        let wait = BACKOFF.delay(tries, environment.random());
        if environment.elapsed() + wait >= self.until {
            return Err(error);
        }
        environment.sleep(wait).await;
        Ok(())
    }
}

/// Moves the start of a query into its range: a table requires that, but a list may start after any text. The text that
/// follows a key immediately is the key plus the lowest character, so that the range can start there. `None`: nothing
/// follows.
fn within_its_range(query: &RangeQuery) -> Option<RangeQuery> {
    let mut query = query.clone();
    if !query.descending
        && let Some(after) = query.after.take()
    {
        query.range.from = query.range.from.max(format!("{after}\0"));
    }
    (query.range.from <= query.range.to).then_some(query)
}

/// The tries of one request.
struct Tries<'a> {
    requests: &'a Requests<'a>,
    number: u64,
}

impl<'a> Tries<'a> {
    fn of(requests: &'a Requests<'a>) -> Self {
        Self { requests, number: 0 }
    }

    /// Waits for the next try if the failure is transient.
    async fn failed(&mut self, error: TableError) -> Result<(), StoreError> {
        match error {
            TableError::Retry { .. } => self.again(error.into_store_error()).await,
            TableError::Fatal(_) => {
                // A request that was signed with a wrong time is refused like one with wrong credentials.
                self.requests.client.clock.check()?;
                Err(error.into_store_error())
            }
        }
    }

    /// Waits before the unprocessed part of a batch is sent again.
    async fn left_over(&mut self) -> Result<(), StoreError> {
        let error = StoreError::because(Reason::Throttled, "the table had no capacity for some items of a batch");
        self.again(error).await
    }

    async fn again(&mut self, error: StoreError) -> Result<(), StoreError> {
        self.requests.client.counts.retried();
        tracing::debug!(number = self.number, %error, "sending a request to the table again");
        self.requests
            .wait(u32::try_from(self.number).unwrap_or(u32::MAX), error)
            .await?;
        self.number += 1;
        Ok(())
    }
}
