//! Which requests are sent again, with what content, until when, and what is counted.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use registry::store::{Timestamp, Uid};

use super::*;
use crate::table::{Value, WriteCondition};

/// The answer of a scripted table to one request of any kind.
#[derive(Clone, Copy, Debug)]
enum ScriptedAnswer {
    /// The request succeeds.
    Done,
    /// The condition does not hold.
    Refused,
    /// This many parts of a batch stay unprocessed.
    Left(usize),
    /// A transient failure: the request was not applied.
    NotDone,
    /// A transient failure: the request may have been applied.
    Unknown,
    /// A permanent failure.
    Fatal,
}

/// A table that answers from a script and records its requests.
#[derive(Default)]
struct ScriptedTable {
    script: Mutex<VecDeque<ScriptedAnswer>>,
    asked: Mutex<Vec<String>>,
}

impl ScriptedTable {
    fn answering(script: impl IntoIterator<Item = ScriptedAnswer>) -> Arc<Self> {
        Arc::new(Self {
            script: Mutex::new(script.into_iter().collect()),
            asked: Mutex::default(),
        })
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn answer(&self, asked: String) -> Result<ScriptedAnswer, TableError> {
        self.asked.lock().unwrap().push(asked);
        let mut script = self.script.lock().unwrap();
        // The last answer is repeated.
        let answer = if script.len() > 1 {
            script.pop_front()
        } else {
            script.front().copied()
        };
        match answer.unwrap() {
            ScriptedAnswer::NotDone => Err(TableError::Retry {
                not_done: true,
                cause: "throttled".into(),
            }),
            ScriptedAnswer::Unknown => Err(TableError::Retry {
                not_done: false,
                cause: "no answer".into(),
            }),
            ScriptedAnswer::Fatal => Err(TableError::Fatal("forbidden".into())),
            other => Ok(other),
        }
    }

    fn written(&self, asked: String) -> Result<Written, TableError> {
        Ok(match self.answer(asked)? {
            ScriptedAnswer::Refused => Written::Refused(vec![0]),
            _ => Written::Done,
        })
    }
}

fn item(number: usize) -> Item {
    Item {
        key: key(number),
        attributes: [("n".to_owned(), Value::N(number as u64))].into(),
    }
}

fn key(number: usize) -> ItemKey {
    ItemKey {
        partition: "p".to_owned(),
        sort: format!("{number:06}"),
    }
}

fn put(number: usize) -> Write {
    Write::Put {
        item: item(number),
        condition: WriteCondition::Always,
    }
}

#[async_trait]
impl Table for ScriptedTable {
    async fn get(&self, key: &ItemKey, _: Consistency) -> Result<Option<Item>, TableError> {
        self.answer(format!("get {key}")).map(|_| None)
    }

    async fn query(&self, query: &RangeQuery) -> Result<ItemPage, TableError> {
        self.answer(format!("query {query:?}"))?;
        // Pages of two items, of six in all.
        assert_eq!(query.after, None, "the range starts where the page starts");
        let after = match query.range.from.strip_suffix('\0') {
            Some(after) => after.parse::<usize>().unwrap() + 1,
            None => 0,
        };
        let items: Vec<Item> = (after..6).take(query.limit.min(2)).map(item).collect();
        let more_after = items
            .last()
            .map(|item| item.key.clone())
            .filter(|last| last.sort != "000005");
        Ok(ItemPage { items, more_after })
    }

    async fn scan(&self, _: Option<&ItemKey>, _: usize) -> Result<ItemPage, TableError> {
        self.answer("scan".to_owned()).map(|_| ItemPage::default())
    }

    async fn write(&self, write: &Write) -> Result<Written, TableError> {
        self.written(format!("write {write:?}"))
    }

    async fn transact(&self, _: &[Write], token: &str) -> Result<Written, TableError> {
        self.written(token.to_owned())
    }

    async fn batch_get(&self, keys: &[ItemKey]) -> Result<(Vec<Item>, Vec<ItemKey>), TableError> {
        let left = match self.answer(format!("{}", keys.len()))? {
            ScriptedAnswer::Left(left) => left,
            _ => 0,
        };
        let (left, done) = keys.split_at(left);
        let items = done.iter().map(|key| item(key.sort.parse().unwrap()));
        Ok((items.collect(), left.to_vec()))
    }

    async fn batch_write(&self, writes: &[Write]) -> Result<Vec<Write>, TableError> {
        match self.answer(format!("{}", writes.len()))? {
            ScriptedAnswer::Left(left) => Ok(writes[..left].to_vec()),
            _ => Ok(Vec::new()),
        }
    }
}

fn client(table: &Arc<ScriptedTable>) -> TableClient {
    TableClient::new(table.clone(), Arc::new(TestRetryEnvironment::new(1)))
}

fn cx(timeout_ms: u64) -> Context {
    Context::internal(Timestamp(1_900_000_000_000), timeout_ms, Uid(1))
}

#[tokio::test]
async fn a_transient_failure_is_sent_again() {
    let table = ScriptedTable::answering([ScriptedAnswer::NotDone, ScriptedAnswer::Unknown, ScriptedAnswer::Done]);
    let client = client(&table);
    assert_eq!(client.within(cx(10_000)).get(&key(1)).await.unwrap(), None);
    assert_eq!(table.asked().len(), 3);
    let expected = TableStatistics {
        requests: 3,
        reads: 3,
        retries: 2,
        ..TableStatistics::default()
    };
    assert_eq!(client.statistics(), expected);
}

#[tokio::test]
async fn a_fatal_failure_is_not_sent_again() {
    let table = ScriptedTable::answering([ScriptedAnswer::Fatal]);
    let failed = client(&table).within(cx(10_000)).get(&key(1)).await;
    assert!(matches!(failed, Err(StoreError::Failed(_))), "{failed:?}");
    assert_eq!(table.asked().len(), 1);
}

#[tokio::test]
async fn retries_end_at_the_deadline() {
    let table = ScriptedTable::answering([ScriptedAnswer::NotDone]);
    let failed = client(&table).within(cx(5_000)).get(&key(1)).await;
    assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
    // Waits of up to 20, 40, 80, … ms and later up to 2 s allow some tries, but not a flood.
    let tries = table.asked().len();
    assert!((5..40).contains(&tries), "{tries} tries in 5 s");
}

#[tokio::test]
async fn a_refusal_after_an_unanswered_try_is_perhaps_done() {
    let table = ScriptedTable::answering([ScriptedAnswer::Unknown, ScriptedAnswer::Refused]);
    let answer = client(&table).within(cx(10_000)).write(&put(1)).await.unwrap();
    assert_eq!(answer, WriteOutcome::Refused { perhaps_done: true });

    let table = ScriptedTable::answering([ScriptedAnswer::NotDone, ScriptedAnswer::Refused]);
    let answer = client(&table).within(cx(10_000)).write(&put(1)).await.unwrap();
    assert_eq!(answer, WriteOutcome::Refused { perhaps_done: false });
}

#[tokio::test]
async fn write_each_makes_a_new_write_for_each_try() {
    let table = ScriptedTable::answering([ScriptedAnswer::Unknown, ScriptedAnswer::NotDone, ScriptedAnswer::Done]);
    let client = client(&table);
    let make = |number: u64| put(usize::try_from(number).unwrap());
    let (answer, number) = client.within(cx(10_000)).write_each(make).await.unwrap();
    assert_eq!((answer, number), (WriteOutcome::Done, 2));
    let asked: Vec<String> = (0..3).map(|number| format!("write {:?}", put(number))).collect();
    assert_eq!(table.asked(), asked);
}

#[tokio::test]
async fn a_transaction_is_sent_again_with_the_same_token() {
    let table = ScriptedTable::answering([ScriptedAnswer::Unknown, ScriptedAnswer::NotDone, ScriptedAnswer::Done]);
    let client = client(&table);
    let requests = client.within(cx(10_000));
    assert_eq!(requests.transact(&[put(1), put(2)]).await.unwrap(), Written::Done);
    assert_eq!(requests.transact(&[put(1)]).await.unwrap(), Written::Done);
    let tokens = table.asked();
    assert_eq!(tokens[0], tokens[1]);
    assert_eq!(tokens[0], tokens[2]);
    assert_ne!(tokens[0], tokens[3], "the next one has a token of its own");
    assert!(tokens.iter().all(|token| token.len() <= 36));
    let statistics = client.statistics();
    assert_eq!((statistics.writes, statistics.transacted), (7, 7));
}

#[tokio::test]
async fn batches_are_split_and_unprocessed_parts_are_sent_again() {
    let table = ScriptedTable::answering([ScriptedAnswer::Left(10), ScriptedAnswer::Left(3), ScriptedAnswer::Done]);
    let client = client(&table);
    let keys = (0..150).map(key).collect();
    let found = client.within(cx(10_000)).get_all(&keys).await.unwrap();
    assert_eq!(found.len(), 150);
    assert!(keys.iter().all(|key| found[key].key == *key));
    let mut sizes = table.asked();
    sizes.sort();
    // The two batches alternate: the first leaves ten items, the second three.
    assert_eq!(sizes, ["10", "100", "3", "50"]);

    let table = ScriptedTable::answering([ScriptedAnswer::Left(7), ScriptedAnswer::Done]);
    let writes: Vec<Write> = (0..30).map(put).collect();
    super::tests::client(&table)
        .within(cx(10_000))
        .write_all(&writes)
        .await
        .unwrap();
    let mut sizes = table.asked();
    sizes.sort();
    assert_eq!(sizes, ["25", "5", "7"]);
}

#[tokio::test]
async fn a_batch_that_stays_unprocessed_ends_at_the_deadline() {
    let table = ScriptedTable::answering([ScriptedAnswer::Left(1)]);
    let failed = client(&table).within(cx(3_000)).write_all(&[put(1), put(2)]).await;
    assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
}

#[tokio::test]
async fn first_reads_pages_until_the_limit() {
    let range = Range {
        partition: "p".to_owned(),
        from: "000000".to_owned(),
        to: "999999".to_owned(),
    };
    for (limit, pages) in [(1, 1), (2, 2), (3, 2), (5, 3), (6, 3), (9, 3)] {
        let table = ScriptedTable::answering([ScriptedAnswer::Done]);
        let client = client(&table);
        let first = client.within(cx(10_000)).first(range.clone(), None, false, limit).await;
        let (items, more) = first.unwrap();
        assert_eq!(items.len(), limit.min(6));
        assert_eq!(more, limit < 6);
        assert_eq!(table.asked().len(), pages, "for {limit}");
    }
}

#[tokio::test]
async fn a_list_may_start_after_any_text() {
    let table = ScriptedTable::answering([ScriptedAnswer::Done]);
    let client = client(&table);
    let query = |after: &str| RangeQuery {
        range: Range {
            partition: "p".to_owned(),
            from: "b".to_owned(),
            to: "c".to_owned(),
        },
        after: Some(after.to_owned()),
        descending: false,
        limit: 1,
        consistency: Consistency::Strong,
    };
    for (after, from) in [
        ("a", Some("b")),
        ("b", Some("b\0")),
        ("bz", Some("bz\0")),
        ("c", None),
        ("ü", None),
    ] {
        let within = super::within_its_range(&query(after));
        assert_eq!(within.map(|query| query.range.from).as_deref(), from, "after {after}");
    }
    let found = client.within(cx(10_000)).query(&query("d")).await.unwrap();
    assert_eq!(found, ItemPage::default());
    assert!(table.asked().is_empty());
}

#[tokio::test]
async fn an_empty_batch_sends_no_request() {
    let table = ScriptedTable::answering([ScriptedAnswer::Done]);
    let client = client(&table);
    let requests = client.within(cx(10_000));
    requests.write_all(&[]).await.unwrap();
    assert!(requests.get_all(&BTreeSet::new()).await.unwrap().is_empty());
    assert!(table.asked().is_empty());
}
