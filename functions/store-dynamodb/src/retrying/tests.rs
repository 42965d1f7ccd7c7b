//! Patience: what is asked again, with what, for how long, and what it counts.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use registry::store::{Timestamp, Uid};

use super::*;
use crate::table::{Condition, Value};

/// What a scripted table answers to one request of any kind.
#[derive(Clone, Copy, Debug)]
enum Say {
    /// It is done.
    Yes,
    /// The condition does not hold.
    No,
    /// Of a batch, this many parts are left.
    Left(usize),
    /// It was not done, and may be asked again.
    NotDone,
    /// It may have been done.
    Silence,
    /// It never will.
    Never,
}

/// Answers from a script, and notes what it was asked.
#[derive(Default)]
struct Scripted {
    script: Mutex<VecDeque<Say>>,
    asked: Mutex<Vec<String>>,
}

impl Scripted {
    fn saying(script: impl IntoIterator<Item = Say>) -> Arc<Self> {
        Arc::new(Self {
            script: Mutex::new(script.into_iter().collect()),
            asked: Mutex::default(),
        })
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn say(&self, asked: String) -> Result<Say, TableError> {
        self.asked.lock().unwrap().push(asked);
        let mut script = self.script.lock().unwrap();
        // The last word is repeated.
        let say = if script.len() > 1 {
            script.pop_front()
        } else {
            script.front().copied()
        };
        match say.unwrap() {
            Say::NotDone => Err(TableError::Retry {
                not_done: true,
                cause: "throttled".into(),
            }),
            Say::Silence => Err(TableError::Retry {
                not_done: false,
                cause: "no answer".into(),
            }),
            Say::Never => Err(TableError::Fatal("forbidden".into())),
            other => Ok(other),
        }
    }

    fn written(&self, asked: String) -> Result<Written, TableError> {
        Ok(match self.say(asked)? {
            Say::No => Written::Refused(vec![0]),
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

fn key(number: usize) -> Key {
    Key {
        partition: "p".to_owned(),
        sort: format!("{number:06}"),
    }
}

fn put(number: usize) -> Write {
    Write::Put {
        item: item(number),
        condition: Condition::Always,
    }
}

#[async_trait]
impl Table for Scripted {
    async fn get(&self, key: &Key, _: Consistency) -> Result<Option<Item>, TableError> {
        self.say(format!("get {key}")).map(|_| None)
    }

    async fn query(&self, query: &Query) -> Result<Found, TableError> {
        self.say(format!("query {query:?}"))?;
        // Pages of two, out of six.
        assert_eq!(query.after, None, "the range begins where the page does");
        let after = match query.range.from.strip_suffix('\0') {
            Some(after) => after.parse::<usize>().unwrap() + 1,
            None => 0,
        };
        let items: Vec<Item> = (after..6).take(query.limit.min(2)).map(item).collect();
        let more_after = items
            .last()
            .map(|item| item.key.clone())
            .filter(|last| last.sort != "000005");
        Ok(Found { items, more_after })
    }

    async fn scan(&self, _: Option<&Key>, _: usize) -> Result<Found, TableError> {
        self.say("scan".to_owned()).map(|_| Found::default())
    }

    async fn write(&self, write: &Write) -> Result<Written, TableError> {
        self.written(format!("write {write:?}"))
    }

    async fn transact(&self, _: &[Write], token: &str) -> Result<Written, TableError> {
        self.written(token.to_owned())
    }

    async fn batch_get(&self, keys: &[Key]) -> Result<(Vec<Item>, Vec<Key>), TableError> {
        let left = match self.say(format!("{}", keys.len()))? {
            Say::Left(left) => left,
            _ => 0,
        };
        let (left, done) = keys.split_at(left);
        let items = done.iter().map(|key| item(key.sort.parse().unwrap()));
        Ok((items.collect(), left.to_vec()))
    }

    async fn batch_write(&self, writes: &[Write]) -> Result<Vec<Write>, TableError> {
        match self.say(format!("{}", writes.len()))? {
            Say::Left(left) => Ok(writes[..left].to_vec()),
            _ => Ok(Vec::new()),
        }
    }
}

fn client(table: &Arc<Scripted>) -> Client {
    Client::new(table.clone(), Arc::new(TestPace::new(1)))
}

fn cx(patience: u64) -> Context {
    Context {
        now: Timestamp(1_900_000_000_000),
        deadline: Timestamp(1_900_000_000_000 + patience),
        uid: Uid(1),
        client: registry::budget::ClientKey::INTERNAL,
    }
}

#[tokio::test]
async fn what_may_pass_is_asked_again() {
    let table = Scripted::saying([Say::NotDone, Say::Silence, Say::Yes]);
    let client = client(&table);
    assert_eq!(client.within(cx(10_000)).get(&key(1)).await.unwrap(), None);
    assert_eq!(table.asked().len(), 3);
    let expected = Statistics {
        requests: 3,
        reads: 3,
        retries: 2,
        ..Statistics::default()
    };
    assert_eq!(client.statistics(), expected);
}

#[tokio::test]
async fn what_will_not_pass_is_not() {
    let table = Scripted::saying([Say::Never]);
    let failed = client(&table).within(cx(10_000)).get(&key(1)).await;
    assert!(matches!(failed, Err(StoreError::Failed(_))), "{failed:?}");
    assert_eq!(table.asked().len(), 1);
}

#[tokio::test]
async fn patience_ends_at_the_deadline() {
    let table = Scripted::saying([Say::NotDone]);
    let failed = client(&table).within(cx(5_000)).get(&key(1)).await;
    assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
    // Waits of up to 20, 40, 80, … ms and then up to 2 s: some tries, but not a storm of them.
    let tries = table.asked().len();
    assert!((5..40).contains(&tries), "{tries} tries in 5 s");
}

#[tokio::test]
async fn a_refusal_after_a_silence_may_be_of_ones_own_making() {
    let table = Scripted::saying([Say::Silence, Say::No]);
    let answer = client(&table).within(cx(10_000)).write(&put(1)).await.unwrap();
    assert_eq!(answer, Answer::Refused { perhaps_done: true });

    let table = Scripted::saying([Say::NotDone, Say::No]);
    let answer = client(&table).within(cx(10_000)).write(&put(1)).await.unwrap();
    assert_eq!(answer, Answer::Refused { perhaps_done: false });
}

#[tokio::test]
async fn each_try_may_be_made_anew() {
    let table = Scripted::saying([Say::Silence, Say::NotDone, Say::Yes]);
    let client = client(&table);
    let make = |number: u64| put(usize::try_from(number).unwrap());
    let (answer, number) = client.within(cx(10_000)).write_each(make).await.unwrap();
    assert_eq!((answer, number), (Answer::Done, 2));
    let asked: Vec<String> = (0..3).map(|number| format!("write {:?}", put(number))).collect();
    assert_eq!(table.asked(), asked);
}

#[tokio::test]
async fn a_transaction_is_repeated_under_its_token() {
    let table = Scripted::saying([Say::Silence, Say::NotDone, Say::Yes]);
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
async fn batches_are_cut_and_their_rest_is_asked_again() {
    let table = Scripted::saying([Say::Left(10), Say::Left(3), Say::Yes]);
    let client = client(&table);
    let keys = (0..150).map(key).collect();
    let found = client.within(cx(10_000)).get_all(&keys).await.unwrap();
    assert_eq!(found.len(), 150);
    assert!(keys.iter().all(|key| found[key].key == *key));
    let mut sizes = table.asked();
    sizes.sort();
    // The two batches take turns: the first leaves ten, the second three.
    assert_eq!(sizes, ["10", "100", "3", "50"]);

    let table = Scripted::saying([Say::Left(7), Say::Yes]);
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
async fn a_batch_that_is_never_done_ends_too() {
    let table = Scripted::saying([Say::Left(1)]);
    let failed = client(&table).within(cx(3_000)).write_all(&[put(1), put(2)]).await;
    assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
}

#[tokio::test]
async fn a_page_is_read_until_it_is_full() {
    let range = Range {
        partition: "p".to_owned(),
        from: "000000".to_owned(),
        to: "999999".to_owned(),
    };
    for (limit, pages) in [(1, 1), (2, 2), (3, 2), (5, 3), (6, 3), (9, 3)] {
        let table = Scripted::saying([Say::Yes]);
        let client = client(&table);
        let first = client.within(cx(10_000)).first(range.clone(), None, false, limit).await;
        let (items, more) = first.unwrap();
        assert_eq!(items.len(), limit.min(6));
        assert_eq!(more, limit < 6);
        assert_eq!(table.asked().len(), pages, "for {limit}");
    }
}

#[tokio::test]
async fn a_list_may_go_on_behind_any_text() {
    let table = Scripted::saying([Say::Yes]);
    let client = client(&table);
    let query = |after: &str| Query {
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
        assert_eq!(within.map(|query| query.range.from).as_deref(), from, "behind {after}");
    }
    let found = client.within(cx(10_000)).query(&query("d")).await.unwrap();
    assert_eq!(found, Found::default());
    assert!(table.asked().is_empty());
}

#[tokio::test]
async fn nothing_is_asked_for_nothing() {
    let table = Scripted::saying([Say::Yes]);
    let client = client(&table);
    let requests = client.within(cx(10_000));
    requests.write_all(&[]).await.unwrap();
    assert!(requests.get_all(&BTreeSet::new()).await.unwrap().is_empty());
    assert!(table.asked().is_empty());
}
