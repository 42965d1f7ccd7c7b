//! Tests of interrupted imports, and of collection passes between their runs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ops::ControlFlow;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use clap::Parser;
use contract::faulty::{Fault, FaultKind, FaultPoint, Faults, FaultyRecords};
use contract::source::Body;
use oci::{Algorithm, Digest};
use registry::check::{self, check};
use registry::collection::{CollectionOptions, Report, collect};
use registry::store::blobs::{BlobStore, Upload};
use registry::store::collection::{GracePeriods, Plan, UNTIL_IMPORTED};
use registry::store::records::{RecordedObject, Unreadable};
use registry::store::wrapped::StoreMethod;
use registry::store::{Attempt, Context, Cursor, Location, SessionId, Slice, StoreError, Timestamp, Uid};
use tempfile::TempDir;

use super::super::format::{VERSION, write_line};
use super::*;
use crate::cli::StoreArgs;
use shell::clock::SystemEnvironment;
use shell::clock::now;
use shell::stores::{self, OpenOptions};

/// More blobs than are written in one batch, so that their links are written later.
const BLOBS: u32 = 510;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    stores: StoreArgs,
}

/// A registry into which a file is imported. It already has the objects.
struct Fixture {
    stores: Stores,
    faults: Faults,
    file: PathBuf,
    folder: TempDir,
}

fn bytes(number: u32) -> Vec<u8> {
    format!("blob {number}").into_bytes()
}

fn digest(number: u32) -> Digest {
    Digest::of(Algorithm::Sha256, &bytes(number))
}

fn location(number: u32) -> Location {
    let session = SessionId(number.into());
    Location::main(Attempt { session, number: 1 }.to_string())
}

/// An export in which the records of all blobs come before the first link.
fn file() -> Vec<u8> {
    let (at, repository) = (now(), "team/app".parse::<RepositoryName>().unwrap());
    let blobs = (0..BLOBS).map(|number| Record::Blob {
        digest: digest(number),
        location: location(number),
        size: bytes(number).len() as u64,
        at,
    });
    let links = (0..BLOBS).map(|number| Record::Link {
        repository: repository.clone(),
        digest: digest(number),
        location: location(number),
        size: bytes(number).len() as u64,
        uid: Uid(number.into()),
        at,
    });
    let begin = Begin {
        version: VERSION,
        program: "test".into(),
        source: "there".into(),
        at,
    };
    let mut text = Vec::new();
    write_line(&mut text, &Mark::Begin(begin)).unwrap();
    for record in blobs.chain(links) {
        write_line(&mut text, &record).unwrap();
    }
    let records = u64::from(2 * BLOBS);
    write_line(&mut text, &Mark::End { records }).unwrap();
    text
}

async fn put(blobs: &dyn BlobStore, number: u32) {
    let session = SessionId(number.into());
    let bytes = Bytes::from(bytes(number));
    let mut body = Body::of(&bytes, bytes.len());
    let attempt = Attempt { session, number: 1 };
    let appended = blobs.append(cx(), attempt, &[], &mut body).await.unwrap();
    let upload = Upload {
        session,
        state: appended.state,
        parts: appended.part.into_iter().collect(),
        size: bytes.len() as u64,
    };
    assert_eq!(blobs.seal(cx(), &upload).await.unwrap(), location(number));
}

impl Fixture {
    /// Opens the stores that the flags name. Stores on disk are in a temporary directory.
    async fn new(flags: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("data");
        let first = ["x", "--data", data.to_str().unwrap()];
        let words = first.iter().chain(flags);
        let args = Line::try_parse_from(words).unwrap().stores;
        if flags.contains(&"--metadata") {
            stores::init(&args.config()).await.unwrap();
        }
        let how = OpenOptions {
            absent: Absent::Create,
            sync: store_embedded::Sync::Off,
            upload_memory: None,
            memory_timeout: None,
            presign_lifetime: Duration::from_mins(1),
            min_free: store_embedded::MinFree::Bytes(0),
            contact: stores::Contact::Now,
            spelling: crate::cli::flag,
        };
        let mut stores = stores::open(&args.config(), &how).await.unwrap().stores;
        for number in 0..BLOBS {
            put(&*stores.blobs, number).await;
        }
        let faults = Faults::none();
        stores.records = Arc::new(FaultyRecords::new(stores.records.clone(), faults.clone()));
        let path = folder.path().join("export");
        std::fs::write(&path, file()).unwrap();
        Self {
            stores,
            faults,
            file: path,
            folder,
        }
    }

    async fn import(&self, force: bool) -> Result<(), Failure> {
        let contents = Contents::of(&self.file).unwrap();
        import(&self.file, &contents, "here".into(), &self.stores, force).await
    }

    /// Interrupts an import after its first batch, which has only records of blobs. Returns the saved progress.
    async fn interrupt(&self) -> ImportPosition {
        self.faults.plan(Fault {
            method: Some(StoreMethod::Insert),
            nth: 2,
            kind: FaultKind::Failed,
            point: FaultPoint::Before,
        });
        self.import(false).await.unwrap_err();
        self.faults.clear();
        let contents = Contents::of(&self.file).unwrap();
        ImportProgress::find(&self.file, &contents, "here".into())
            .unwrap()
            .position
    }

    /// Runs three collection passes with grace periods of zero, except that of links. Returns the last report.
    async fn collect(&self) -> Report {
        let grace_periods = GracePeriods {
            session_ms: 0,
            deletion_ms: 0,
            orphan_ms: 0,
            ..GracePeriods::default()
        };
        let options = CollectionOptions {
            plan: Plan {
                grace_periods,
                ..Plan::default()
            },
            ..CollectionOptions::default()
        };
        let mut last = None;
        for _ in 0..3 {
            let environment = Arc::new(SystemEnvironment);
            let mut progress = |_: &Report| ControlFlow::Continue(());
            let collected = collect(&self.stores, environment, &options, &mut progress).await;
            last = Some(collected.unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        last.unwrap()
    }

    /// Checks that all records and objects are present, and that the objects have the right content.
    async fn agrees(&self) {
        let options = check::CheckOptions {
            hash: true,
            ..check::CheckOptions::default()
        };
        let environment = Arc::new(SystemEnvironment);
        let mut findings = Vec::new();
        let mut tell = |event: check::Event<'_>| {
            if let check::Event::Found(finding) = event {
                findings.push(format!("{finding:?}"));
            }
        };
        let summary = check(&self.stores, environment, &options, &mut tell).await.unwrap();
        assert_eq!(findings, [] as [String; 0]);
        assert_eq!((summary.blobs, summary.links), (BLOBS.into(), BLOBS.into()));
    }
}

async fn nothing_is_collected_until_the_import_is_complete(fixture: Fixture) {
    let position = fixture.interrupt().await;
    assert_eq!(position.records, BATCH as u64, "records of blobs, and no links to them");
    let report = fixture.collect().await;
    assert_eq!(report.busy_until, Some(UNTIL_IMPORTED));
    assert_eq!((report.metadata.scheduled, report.objects_deleted), (0, 0));

    fixture.import(false).await.unwrap();
    let report = fixture.collect().await;
    assert!(report.complete, "{report:?}");
    assert_eq!((report.metadata.scheduled, report.objects_deleted), (0, 0));
    assert!(
        report.metadata.seen > u64::from(BLOBS),
        "the metadata is examined again"
    );
    fixture.agrees().await;
}

#[tokio::test]
async fn nothing_is_collected_during_an_interrupted_import_into_sqlite() {
    nothing_is_collected_until_the_import_is_complete(Fixture::new(&[]).await).await;
}

#[tokio::test]
#[ignore = "needs ROADSTEAD_TEST_DYNAMODB"]
async fn nothing_is_collected_during_an_interrupted_import_into_a_table() {
    let endpoint = std::env::var("ROADSTEAD_TEST_DYNAMODB").unwrap();
    let table = format!("dynamodb://roadstead-half-{:016x}", getrandom::u64().unwrap());
    let flags = ["--metadata", &table, "--dynamodb-endpoint", &endpoint];
    nothing_is_collected_until_the_import_is_complete(Fixture::new(&flags).await).await;
}

/// If collection was not prevented since the interruption, the records that were written may be gone.
#[tokio::test]
async fn an_import_that_has_lost_its_lease_starts_over() {
    let fixture = Fixture::new(&[]).await;
    fixture.interrupt().await;
    // Another import, which was abandoned, or an older version of this program.
    ImportLease::take(fixture.stores.collection.clone(), Uid(1), true)
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    let report = fixture.collect().await;
    assert_eq!(report.busy_until, None);
    // The registry is not empty nevertheless.
    let kept = Record::Repository {
        name: "kept".parse().unwrap(),
        created: now(),
        permanent: false,
    };
    fixture.stores.records.insert(cx(), &[kept]).await.unwrap();
    fixture.import(true).await.unwrap();
    let contents = Contents::of(&fixture.file).unwrap();
    let mut recorded = 0;
    for number in 0..BLOBS {
        let object = fixture
            .stores
            .records
            .recorded_object(cx(), &digest(number))
            .await
            .unwrap();
        recorded += u32::from(object.is_some());
    }
    assert_eq!((recorded, contents.records), (BLOBS, u64::from(2 * BLOBS)));
}

#[tokio::test]
async fn a_registry_takes_one_import_at_a_time() {
    let fixture = Fixture::new(&[]).await;
    fixture.interrupt().await;
    // Another file: the same records, and another beginning.
    let other = fixture.folder.path().join("other");
    let text = std::fs::read_to_string(&fixture.file).unwrap();
    std::fs::write(&other, text.replacen("\"there\"", "\"elsewhere\"", 1)).unwrap();
    let contents = Contents::of(&other).unwrap();
    let into = || "here".to_owned();
    let refused = import(&other, &contents, into(), &fixture.stores, false).await;
    let Err(Failure::Failed(text)) = refused else {
        panic!("{refused:?}")
    };
    assert!(text.contains("another file") && text.contains("--force"), "{text}");
    import(&other, &contents, into(), &fixture.stores, true).await.unwrap();
    assert_eq!(fixture.collect().await.busy_until, None);

    // A collection that is under way is let through first.
    let until = now().plus_millis(60_000);
    let pass = Uid(7);
    fixture.stores.collection.begin_pass(cx(), pass, until).await.unwrap();
    let refused = fixture.import(true).await;
    let Err(Failure::Failed(text)) = refused else {
        panic!("{refused:?}")
    };
    assert!(text.contains("a collection"), "{text}");
}

/// Some slices without a record, and then perhaps one with: a slice is a page of a table that holds other things, too.
struct SparseRecords {
    slices: usize,
    ends_with_a_record: bool,
}

#[async_trait]
impl RecordStore for SparseRecords {
    async fn walk(
        &self,
        _: Context,
        after: Option<&Cursor>,
        _: usize,
    ) -> Result<Slice<Result<Record, Unreadable>>, StoreError> {
        let number: usize = after.map_or(0, |cursor| cursor.0.parse().unwrap());
        let is_last = number + 1 == self.slices;
        let record = Record::Repository {
            name: "a".parse().unwrap(),
            created: Timestamp(1),
            permanent: false,
        };
        Ok(Slice {
            items: (is_last && self.ends_with_a_record)
                .then_some(Ok(record))
                .into_iter()
                .collect(),
            next: (!is_last).then(|| Cursor((number + 1).to_string())),
        })
    }

    async fn recorded_object(&self, _: Context, _: &Digest) -> Result<Option<RecordedObject>, StoreError> {
        Err(StoreError::failed("only walked over"))
    }

    async fn missing_back_references(
        &self,
        _: Context,
        _: &[registry::store::records::BackReference],
    ) -> Result<Vec<registry::store::records::BackReference>, StoreError> {
        Err(StoreError::failed("only walked over"))
    }

    async fn insert(&self, _: Context, _: &[Record]) -> Result<(), StoreError> {
        Err(StoreError::failed("only walked over"))
    }
}

#[tokio::test]
async fn a_registry_is_empty_when_no_slice_holds_a_record() {
    for slices in 1..4 {
        for ends_with_a_record in [false, true] {
            let store = SparseRecords {
                slices,
                ends_with_a_record,
            };
            let found = is_empty(&store).await.unwrap();
            assert_eq!(found, !ends_with_a_record, "{slices} slices");
        }
    }
}
