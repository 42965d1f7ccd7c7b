//! How a table is asked: until it answers or the time is up, in pieces that it takes, counted.
//!
//! A request that fails in a way that may pass is sent again after a random wait whose bound doubles; batches are cut
//! to what a table takes, and what it had no capacity for is asked again. The time comes from the [`Context`] of the
//! call: its span from now to the deadline, measured from when the call began by a clock of this crate, because the
//! context's clock is the shell's. No try outlasts it.
//!
//! **A write may have been done although no answer came.** Transactions carry a token, so that one that is repeated is
//! done once. A single conditional write that is repeated may be refused because its first try was done:
//! [`WriteOutcome::Refused`] says whether that can be, and the protocols compare what lies there with what they meant to
//! write. **Nothing is written while this host's clock is off** ([`ServiceClock`]): what counts as young or due is
//! decided by it. A try may even be done late, after its repetition: whatever must not be done twice carries a value of its own
//! in each try (see [`Requests::write_each`]), and everything else leaves garbage at worst.

mod counts;
mod environment;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select, try_join_all};
use registry::clock::ServiceClock;
use registry::store::{Context, Reason, StoreError};

use self::counts::RequestCounts;
pub use self::counts::Statistics;
#[cfg(test)]
pub(crate) use self::environment::TestRetryEnvironment;
pub(crate) use self::environment::{RetryEnvironment, SystemRetryEnvironment};
use crate::mutation::{Mutation, active};
use crate::table::{
    BATCH_READS, BATCH_WRITES, Consistency, Item, ItemKey, ItemPage, Range, RangeQuery, Table, TableError, Write,
    Written,
};

/// The bound of the first wait.
const FIRST_WAIT: Duration = Duration::from_millis(20);
/// No wait is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// How many batches are under way at once: enough to hide the round trips of 4,096 edges, few enough that one request
/// does not take a new table's whole capacity.
const BATCHES_AT_ONCE: usize = 8;

/// What became of a single conditional write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    /// It is done.
    Done,
    /// The condition did not hold.
    Refused {
        /// An earlier try was not answered: it may have been done, and be the reason.
        perhaps_done: bool,
    },
}

impl WriteOutcome {
    pub(crate) fn is_done(self) -> bool {
        self == Self::Done
    }
}

/// What became of a write that is sent again only when it was surely not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteOnceOutcome {
    /// It is done.
    Done,
    /// The condition did not hold.
    Refused,
    /// No answer came: it was done, or may be done late, or never.
    Unanswered,
}

/// A table, and how to be patient with it. Clones share their counts.
#[derive(Clone)]
pub(crate) struct TableClient {
    table: Arc<dyn Table>,
    environment: Arc<dyn RetryEnvironment>,
    /// Nothing is written while it is off.
    pub(crate) clock: Arc<ServiceClock>,
    counts: Arc<RequestCounts>,
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

    /// Refuses to write while this host's clock is off.
    fn may_write(&self) -> Result<(), StoreError> {
        if active(Mutation::TrustClock) {
            return Ok(());
        }
        self.clock.check()
    }

    pub(crate) fn statistics(&self) -> Statistics {
        self.counts.statistics()
    }

    /// The requests of one call, which has until its deadline from now on.
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
    /// By the clock of [`RetryEnvironment`].
    until: Duration,
    /// How long the call may take in all.
    timeout: Duration,
}

impl Requests<'_> {
    /// One item, as of now.
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

    /// Items, as of their reads, which are not one moment. Those that do not exist are not in the answer. The caller
    /// bounds how many it asks for, since they are held together.
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

    /// One page of a collection, in order.
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

    /// The first `limit` items of a range behind a sort key, as of now, over as many pages as that takes; and whether
    /// there are more.
    pub(crate) async fn first(
        &self,
        range: Range,
        after: Option<String>,
        descending: bool,
        limit: usize,
    ) -> Result<(Vec<Item>, bool), StoreError> {
        // One item more tells whether anything follows.
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

    /// One page of the whole table, strongly consistent, in an order of its own.
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

    /// One change, of which every try is the same.
    pub(crate) async fn write(&self, write: &Write) -> Result<WriteOutcome, StoreError> {
        self.write_with_retries(|_| write.clone())
            .await
            .map(|(answer, _)| answer)
    }

    /// One change, made anew for each try from the try's number, which begins with 0; and the number of the try that
    /// was answered.
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

    /// One change that must not be done a second time: what it makes may have been removed again since a first try that
    /// was not answered.
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

    /// Changes of different items, all or none, done once however often they are tried.
    pub(crate) async fn transact(&self, writes: &[Write]) -> Result<Written, StoreError> {
        self.transact_once(writes).await.map(|(written, _)| written)
    }

    /// The same, and whether a try was not answered. A refusal uses up no token: such a try may be done late, although
    /// a later one was refused, if its conditions have come to hold by then.
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

    /// Unconditional puts and deletes of different items, each by itself, in any order.
    pub(crate) async fn write_all(&self, writes: &[Write]) -> Result<(), StoreError> {
        // A single item costs one request either way, and the plainer one is the cheaper to serve.
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

    /// Whether no more than half of the call's time is left: for work that another call goes on with.
    pub(crate) fn is_half_over(&self) -> bool {
        self.client.environment.elapsed() + self.timeout / 2 >= self.until
    }

    /// Does work that need not be finished, in no more than half of the call's time. `None`: it was cut off there.
    pub(crate) async fn in_half_the_time<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let half = self.until.saturating_sub(self.timeout / 2);
        match select(pin!(work), self.client.environment.alarm(half)).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(((), _)) => None,
        }
    }

    /// An error when the call's time is up: for loops of which every request is answered at once.
    pub(crate) fn in_time(&self) -> Result<(), StoreError> {
        if self.client.environment.elapsed() < self.until {
            return Ok(());
        }
        Err(StoreError::because(
            Reason::MetadataUnreachable,
            "there was more to do than could be done in the time of one call",
        ))
    }

    /// Waits before a protocol that lost a race begins again, for the `round`th time (from 0). An error when the call's
    /// time is up.
    pub(crate) async fn lost_race(&self, round: u32) -> Result<(), StoreError> {
        let error = StoreError::because(Reason::Unavailable, "others kept changing the same records");
        self.wait(round, error).await
    }

    /// One try, which must not outlast the call: the bound of a single try is longer than what may be left.
    async fn before_deadline<T>(&self, answer: impl Future<Output = Result<T, TableError>>) -> Result<T, TableError> {
        match select(pin!(answer), self.client.environment.alarm(self.until)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(((), _)) => Err(TableError::Retry {
                not_done: false,
                cause: "no answer came in the time of the call".into(),
            }),
        }
    }

    /// Waits a random time whose bound doubles with each try.
    async fn wait(&self, tries: u32, error: StoreError) -> Result<(), StoreError> {
        let environment = &self.client.environment;
        let bound = FIRST_WAIT.saturating_mul(1 << tries.min(10)).min(LONGEST_WAIT);
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        let wait = Duration::from_micros(environment.random() % micros.max(1));
        if environment.elapsed() + wait >= self.until {
            return Err(error);
        }
        environment.sleep(wait).await;
        Ok(())
    }
}

/// A table wants the start of a page to lie within the range, but a list may go on behind any text: what follows a key
/// at once is that key and the lowest character, so that the range may as well begin there. `None`: nothing follows.
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

    /// Waits for the next try, if there may be one.
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

    /// Waits before what a batch has left is asked for again.
    async fn left_over(&mut self) -> Result<(), StoreError> {
        let error = StoreError::because(Reason::Throttled, "the table had no capacity for a part of a batch");
        self.again(error).await
    }

    async fn again(&mut self, error: StoreError) -> Result<(), StoreError> {
        self.requests.client.counts.retried();
        tracing::debug!(number = self.number, %error, "asking the table again");
        self.requests
            .wait(u32::try_from(self.number).unwrap_or(u32::MAX), error)
            .await?;
        self.number += 1;
        Ok(())
    }
}
