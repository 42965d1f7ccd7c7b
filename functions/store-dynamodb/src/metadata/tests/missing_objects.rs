//! Missing objects that many repositories link: what a reader waits for.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use registry::store::metadata::Defect;
use registry::store::records::RecordStore as _;

use super::*;
use crate::retrying::SystemRetryEnvironment;
use crate::table::{Consistency, Item, ItemKey, ItemPage, RangeQuery, TableError, Write, Written};

/// A table that can stop answering queries, as if there were more back-links than can be read in time.
#[derive(Clone)]
struct SilentQueries {
    table: MemoryTable,
    is_silent: Arc<AtomicBool>,
}

#[async_trait]
impl Table for SilentQueries {
    async fn get(&self, key: &ItemKey, consistency: Consistency) -> Result<Option<Item>, TableError> {
        self.table.get(key, consistency).await
    }

    async fn query(&self, query: &RangeQuery) -> Result<ItemPage, TableError> {
        if self.is_silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.table.query(query).await
    }

    async fn scan(&self, after: Option<&ItemKey>, limit: usize) -> Result<ItemPage, TableError> {
        self.table.scan(after, limit).await
    }

    async fn write(&self, write: &Write) -> Result<Written, TableError> {
        self.table.write(write).await
    }

    async fn transact(&self, writes: &[Write], token: &str) -> Result<Written, TableError> {
        self.table.transact(writes, token).await
    }

    async fn batch_get(&self, keys: &[ItemKey]) -> Result<(Vec<Item>, Vec<ItemKey>), TableError> {
        self.table.batch_get(keys).await
    }

    async fn batch_write(&self, writes: &[Write]) -> Result<Vec<Write>, TableError> {
        self.table.batch_write(writes).await
    }
}

/// A reader that finds an object missing gets its answer, and the defect is recorded in its repository, however many
/// others link the object. Later reads there, or a check, record the defect in the others.
#[tokio::test]
async fn a_reader_does_not_wait_until_all_links_record_a_missing_object() {
    let table = SilentQueries {
        table: MemoryTable::new(),
        is_silent: Arc::default(),
    };
    let environment: Arc<dyn RetryEnvironment> = Arc::new(SystemRetryEnvironment::new());
    let store = DynamoStore::over(Arc::new(table.clone()), Arc::new(table.clone()), &environment);
    let repositories: Vec<RepositoryName> = ["a", "b", "c"].map(|name| name.parse().unwrap()).into();
    let blob = digest("blob");
    for name in &repositories {
        store.commit_blob(cx(), name, &blob, &location(1), 1000).await.unwrap();
    }
    let record = async |name: Option<&RepositoryName>| {
        let short = Context {
            deadline: NOW.plus_millis(2000),
            ..cx()
        };
        let location = location(1);
        let recorded = store.record_defect(short, name, &blob, &location, Defect::Missing);
        recorded.await.unwrap()
    };
    let marked = async || {
        let mut marked = Vec::new();
        for name in &repositories {
            marked.push(store.link(cx(), name, &blob).await.unwrap().unwrap().defect.is_some());
        }
        marked
    };

    table.is_silent.store(true, Ordering::SeqCst);
    let began = Instant::now();
    assert_eq!(record(Some(&repositories[0])).await, None);
    assert!(began.elapsed() < Duration::from_millis(1900), "{:?}", began.elapsed());
    assert_eq!(marked().await, [true, false, false]);
    assert_eq!(record(Some(&repositories[1])).await, None, "recorded by a reader there");
    assert_eq!(marked().await, [true, true, false]);
    table.is_silent.store(false, Ordering::SeqCst);
    assert_eq!(record(None).await, None, "recorded by a check");
    assert_eq!(marked().await, [true, true, true]);
    let object = store.recorded_object(cx(), &blob).await.unwrap().unwrap();
    assert_eq!(object.defect, Some(Defect::Missing));
}
