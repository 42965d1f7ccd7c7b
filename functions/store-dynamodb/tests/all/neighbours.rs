//! A table that is shared with the next version of the program, which has added attributes and kinds of rows, and with
//! the previous one, which does not write optional attributes. Run it with `cargo test -- --ignored` and
//! `ROADSTEAD_TEST_DYNAMODB`.

use std::collections::{BTreeSet, HashMap};

use crate::service::{aws, options};
use crate::table::{TableRow, client, key, rows};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use oci::{Algorithm, Digest, MediaType, RepositoryName, Tag};
use registry::store::access::Author;
use registry::store::collection::{CollectionStore, GracePeriods, PassStart, PassStatistics, Plan};
use registry::store::metadata::{AllowAll, ManifestPut, MetadataStore, NewContent, PutManifest, Removal};
use registry::store::records::{Record, RecordStore};
use registry::store::sessions::{
    Claim, Claimed, End, Expected, Progress, Publishing, SessionKey, SessionStore, SigningKey, State,
};
use registry::store::{Context, Cursor, Location, SessionId, Timestamp, Uid};
use store_dynamodb::{DynamoStore, OpenError, TableOptions};

const HOUR: u64 = 3_600_000;
const NOW: Timestamp = Timestamp(1_900_000_000_000);

/// A call this many hours after the start, with its own uid.
fn cx(hours: u64, uid: u64) -> Context {
    let now = NOW.plus_millis(hours * HOUR);
    Context::internal(now, 30_000, Uid(uid))
}

fn app() -> RepositoryName {
    "team/app".parse().unwrap()
}

fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

fn image(bytes: &'static [u8], tags: &[&str]) -> PutManifest {
    PutManifest {
        repository: app(),
        digest: digest(bytes),
        media_type: MediaType::OCI_MANIFEST.parse().unwrap(),
        size: bytes.len() as u64,
        content: NewContent::Inline(Bytes::from_static(bytes)),
        artifact_type: None,
        subject: None,
        required: BTreeSet::from([digest(b"layer")]),
        excepted: BTreeSet::new(),
        tags: tags.iter().map(|name| tag(name)).collect(),
        author: Author::new("user"),
    }
}

fn upload(number: u128) -> SessionKey {
    SessionKey {
        expires: NOW.plus_millis(100 * HOUR),
        id: SessionId(number),
    }
}

/// Two tables and a store over them.
struct SharedTables {
    options: TableOptions,
    store: DynamoStore,
    client: Client,
}

impl SharedTables {
    async fn new() -> Self {
        let options = options(true);
        DynamoStore::init(&options, &aws().await).await.unwrap();
        let store = DynamoStore::open(&options, &aws().await).await.unwrap();
        let client = client().await;
        Self { options, store, client }
    }

    fn tables(&self) -> [&str; 2] {
        [&self.options.table, self.options.local_table()]
    }

    async fn change(&self, table: &str, row: &TableRow, expression: &str, names: &[&str], values: &[AttributeValue]) {
        let mut request = self
            .client
            .update_item()
            .table_name(table)
            .key("pk", row["pk"].clone())
            .key("sk", row["sk"].clone())
            .update_expression(expression);
        for (number, name) in names.iter().enumerate() {
            request = request.expression_attribute_names(format!("#{number}"), *name);
        }
        for (number, value) in values.iter().enumerate() {
            request = request.expression_attribute_values(format!(":{number}"), value.clone());
        }
        request.send().await.unwrap();
    }

    /// Sets the layout version, as another version of the program does.
    async fn set_version(&self, version: u64) {
        let schema = key_only("K", "schema");
        let version = AttributeValue::N(version.to_string());
        for table in self.tables() {
            self.change(
                table,
                &schema,
                "SET #0 = :0",
                &["version"],
                std::slice::from_ref(&version),
            )
            .await;
        }
    }

    /// Adds unknown attributes to every row, and rows of unknown kinds between them.
    async fn write_as_the_next_version(&self) {
        let added = [
            AttributeValue::S("kept".to_owned()),
            AttributeValue::Bool(true),
            AttributeValue::N("-1.5".to_owned()),
            AttributeValue::M(HashMap::from([("in".to_owned(), AttributeValue::Null(true))])),
        ];
        for table in self.tables() {
            for row in rows(&self.client, table).await {
                let expression = "SET #0 = :0, #1 = :1, #2 = :2, #3 = :3";
                self.change(table, &row, expression, &LATER, &added).await;
            }
            let of_layer = format!("D#{}#{}", app(), digest(b"layer"));
            let bytes = format!("B#{}", digest(b"layer"));
            let of_tags = format!("T#{}", app());
            for (partition, sort) in [
                (&*of_layer, "z#new"),
                (&*of_layer, "e#z#new"),
                (&*bytes, "z"),
                (&*of_tags, "z#new"),
                ("K", "new"),
                ("Z#new", "new"),
            ] {
                let new = self.client.put_item().table_name(table);
                let new = new.set_item(Some(key_only(partition, sort)));
                new.item("text", AttributeValue::S("new".to_owned()))
                    .send()
                    .await
                    .unwrap();
            }
        }
    }

    /// Removes the optional attributes that this version writes.
    async fn write_as_the_version_before(&self) {
        for table in self.tables() {
            for row in rows(&self.client, table).await {
                let optional: &[&str] = match key(&row) {
                    (partition, _) if partition.starts_with("S#") => &["writer", "ttl"],
                    ("C", _) => &["state"],
                    _ => &[],
                };
                for name in optional.iter().filter(|name| row.contains_key(**name)) {
                    self.change(table, &row, "REMOVE #0", &[name], &[]).await;
                }
            }
        }
    }

    /// Asserts that the rows of this kind still have the attributes of the next version, and that there are `count` of
    /// them.
    async fn kept(&self, what: &str, count: usize, is: impl Fn(&str, &str) -> bool) {
        let mut found = 0;
        for table in self.tables() {
            for row in rows(&self.client, table).await {
                let (partition, sort) = key(&row);
                if is(partition, sort) {
                    found += 1;
                    let missing: Vec<_> = LATER.iter().filter(|name| !row.contains_key(**name)).collect();
                    assert!(missing.is_empty(), "{what}: {missing:?} of {row:?}");
                }
            }
        }
        assert_eq!(found, count, "{what}");
    }

    async fn claim(&self, call: Context, session: SessionKey) -> Claim {
        match self
            .store
            .claim(call, session, Expected::New, call.now.plus_millis(60_000), u32::MAX)
            .await
            .unwrap()
        {
            Claimed::Granted(claim) => claim,
            other => panic!("{other:?}"),
        }
    }

    async fn collect(&self, call: Context) -> PassStatistics {
        let plan = Plan {
            dry_run: false,
            deep: true,
            grace_periods: GracePeriods {
                link_ms: HOUR,
                session_ms: HOUR,
                deletion_ms: HOUR,
                orphan_ms: HOUR,
            },
        };
        let mut statistics = PassStatistics::default();
        let mut after = None;
        loop {
            let slice = self
                .store
                .collect_metadata(call, &plan, after.as_ref(), 10)
                .await
                .unwrap();
            statistics += slice.statistics;
            after = slice.next;
            if after.is_none() {
                return statistics;
            }
        }
    }

    async fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        let mut after = None;
        loop {
            let slice = self.store.records(cx(3, 90), after.as_ref(), 10).await.unwrap();
            records.extend(slice.items);
            after = slice.next;
            if after.is_none() {
                records.sort_by_key(|record| format!("{record:?}"));
                return records;
            }
        }
    }

    /// Writes rows of every kind: a used and an unused link, blob records, manifests, tags, a tombstone, a session with
    /// a saved part and one that is only claimed, a pending deletion, a signing key, and the collection pass.
    async fn fill(&self) {
        let store = &self.store;
        // The second object of the layer's bytes is scheduled for deletion.
        for (number, blob) in [&b"layer"[..], b"unused", b"layer"].into_iter().enumerate() {
            let location = Location::main(format!("{number}a.1"));
            let call = cx(0, 1 + number as u64);
            store
                .commit_blob(call, &app(), &digest(blob), &location, 5)
                .await
                .unwrap();
        }
        for (number, put) in [image(b"one", &["a", "gone"]), image(b"two", &["b"])]
            .iter()
            .enumerate()
        {
            let put = store
                .put_manifest(cx(0, 4 + number as u64), put, &AllowAll::shared())
                .await
                .unwrap();
            assert_eq!(put, ManifestPut::Stored);
        }
        let removal = store
            .delete_tag(
                cx(0, 6),
                &app(),
                &tag("gone"),
                &Author::new("user"),
                &AllowAll::shared(),
            )
            .await;
        assert_eq!(removal.unwrap(), Removal::Removed);
        let claim = self.claim(cx(0, 7), upload(1)).await;
        assert!(
            store
                .save(cx(0, 8), &claim, progress(1), Some(vec![1, 2]))
                .await
                .unwrap()
        );
        self.claim(cx(0, 9), upload(2)).await;
        let candidate = SigningKey {
            id: 7,
            secret: [7; 32],
            created: NOW,
        };
        assert_eq!(store.signing_keys(cx(0, 10), candidate).await.unwrap().len(), 1);
        let (pass, until) = (Uid(11), NOW.plus_millis(HOUR));
        assert_eq!(store.begin_pass(cx(0, 11), pass, until).await.unwrap(), PassStart::New);
    }
}

/// The attributes that the next version adds.
const LATER: [&str; 4] = ["laterText", "laterFlag", "laterNumber", "laterMap"];

fn key_only(partition: &str, sort: &str) -> TableRow {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    TableRow::from([("pk".to_owned(), text(partition)), ("sk".to_owned(), text(sort))])
}

fn progress(parts: u32) -> Progress {
    Progress {
        offset: 5 * u64::from(parts),
        hash: vec![1],
        store: vec![2],
        parts,
    }
}

#[tokio::test]
#[ignore = "needs a DynamoDB endpoint"]
async fn the_layout_of_the_next_version_is_accepted_and_kept() {
    let tables = SharedTables::new().await;
    tables.set_version(3).await;
    DynamoStore::open(&tables.options, &aws().await).await.unwrap();
    let prepared = DynamoStore::init(&tables.options, &aws().await).await.unwrap();
    assert!(prepared.iter().all(|table| table.version == 3), "{prepared:?}");
    tables.set_version(4).await;
    let refused = DynamoStore::open(&tables.options, &aws().await).await.unwrap_err();
    assert!(matches!(refused, OpenError::TooNew { found: 4, .. }), "{refused}");
    let refused = DynamoStore::init(&tables.options, &aws().await).await.unwrap_err();
    assert!(matches!(refused, OpenError::TooNew { found: 4, .. }), "{refused}");
    tables.set_version(1).await;
    DynamoStore::open(&tables.options, &aws().await).await.unwrap();
    let prepared = DynamoStore::init(&tables.options, &aws().await).await.unwrap();
    assert!(prepared.iter().all(|table| table.version == 2), "{prepared:?}");
}

#[tokio::test]
#[ignore = "needs a DynamoDB endpoint"]
async fn rows_of_the_previous_and_the_next_version_are_read() {
    let tables = SharedTables::new().await;
    tables.fill().await;
    let before = tables.records().await;
    tables.set_version(3).await;
    tables.write_as_the_next_version().await;
    tables.write_as_the_version_before().await;
    assert_eq!(tables.records().await, before);

    let store = DynamoStore::open(&tables.options, &aws().await).await.unwrap();
    let call = cx(0, 50);
    assert_eq!(
        store.tag(call, &app(), &tag("a")).await.unwrap().unwrap().digest,
        digest(b"one")
    );
    assert_eq!(
        store.tags(call, &app(), None, 10).await.unwrap().items,
        [tag("a"), tag("b")]
    );
    assert_eq!(
        store
            .history(call, &app(), &tag("gone"), None, 10)
            .await
            .unwrap()
            .items
            .len(),
        2
    );
    assert_eq!(store.manifests(call, &app(), None, 10).await.unwrap().items.len(), 2);
    assert!(store.manifest(call, &app(), &digest(b"two")).await.unwrap().is_some());
    assert!(store.link(call, &app(), &digest(b"layer")).await.unwrap().is_some());
    assert_eq!(
        store.linking_repositories(call, &digest(b"layer"), 10).await.unwrap(),
        [app()]
    );
    assert_eq!(store.repositories(call, None, 10).await.unwrap().items, [app()]);
    let session = store.get(call, upload(1)).await.unwrap().unwrap();
    assert_eq!((session.state, session.progress), (State::UNCLAIMED, progress(1)));
    assert_eq!(store.parts(call, upload(1)).await.unwrap(), [vec![1, 2]]);
    let late = NOW.plus_millis(1000 * HOUR);
    assert_eq!(store.expired(call, late, None, 10).await.unwrap().len(), 2);
    assert_eq!(
        store.pending_deletions(call, late, None, 10).await.unwrap().items.len(),
        1
    );
    let candidate = SigningKey {
        id: 8,
        secret: [8; 32],
        created: NOW,
    };
    let keys = store.signing_keys(call, candidate).await.unwrap();
    assert_eq!(keys.iter().map(|key| key.id).collect::<Vec<_>>(), [7]);
    let begun = store.begin_pass(call, Uid(51), NOW.plus_millis(HOUR)).await;
    assert_eq!(begun.unwrap(), PassStart::Busy(NOW.plus_millis(HOUR)));
}

#[tokio::test]
#[ignore = "needs a DynamoDB endpoint"]
async fn changes_keep_attributes_of_the_next_version() {
    let tables = SharedTables::new().await;
    tables.fill().await;
    tables.write_as_the_next_version().await;
    tables.write_as_the_version_before().await;
    let store = &tables.store;
    let link = format!("D#{}#{}", app(), digest(b"unused"));
    let bytes = format!("B#{}", digest(b"unused"));

    // A link that is marked, then unmarked, then used.
    assert_eq!(tables.collect(cx(2, 50)).await.marked, 1);
    tables.kept("a marked link", 1, |p, s| p == link && s == "L").await;
    assert!(
        store
            .link_and_unmark(cx(2, 51), &app(), &digest(b"unused"))
            .await
            .unwrap()
            .is_some()
    );
    tables
        .kept("a link that was kept", 1, |p, s| p == link && s == "L")
        .await;
    assert_eq!(tables.collect(cx(4, 52)).await.marked, 1);
    let mut put = image(b"three", &[]);
    put.required.insert(digest(b"unused"));
    assert_eq!(
        store.put_manifest(cx(4, 53), &put, &AllowAll::shared()).await.unwrap(),
        ManifestPut::Stored
    );
    tables
        .kept("a link that is needed", 1, |p, s| p == link && s == "L")
        .await;

    // A manifest that is put again with another tag.
    let one = format!("D#{}#{}", app(), digest(b"one"));
    let put = image(b"one", &["a", "c"]);
    assert_eq!(
        store.put_manifest(cx(4, 54), &put, &AllowAll::shared()).await.unwrap(),
        ManifestPut::Stored
    );
    tables.kept("a manifest", 1, |p, s| p == one && s == "M").await;
    assert_eq!(
        store.tag(cx(4, 55), &app(), &tag("c")).await.unwrap().unwrap().digest,
        digest(b"one")
    );
    tables.kept("a tag that names it already", 1, |_, s| s == "t#a").await;
    let put = image(b"one", &["b"]);
    assert_eq!(
        store.put_manifest(cx(4, 60), &put, &AllowAll::shared()).await.unwrap(),
        ManifestPut::Stored
    );
    tables.kept("a tag that was moved", 1, |_, s| s == "t#b").await;

    // A blob record that is marked for removal and claimed again.
    let removed = store
        .delete_manifest(
            cx(4, 56),
            &app(),
            &digest(b"three"),
            &Author::new("user"),
            &AllowAll::shared(),
        )
        .await;
    assert_eq!(removed.unwrap(), Removal::Removed);
    assert_eq!(
        store
            .unlink(cx(4, 57), &app(), &digest(b"unused"), &Author::new("user"))
            .await
            .unwrap(),
        Removal::Removed
    );
    let marked = AttributeValue::S(format!("collection {:016x} {}", NOW.0, Uid(99)));
    let row = key_only(&bytes, "B");
    let main = tables.tables()[0];
    tables
        .change(main, &row, "SET #0 = :0", &["condemned"], &[marked])
        .await;
    let offered = Location::main("9a.1");
    store
        .commit_blob(cx(4, 58), &app(), &digest(b"unused"), &offered, 5)
        .await
        .unwrap();
    tables.kept("bytes", 1, |p, s| p == bytes && s == "B").await;
    let found = store
        .link(cx(4, 59), &app(), &digest(b"unused"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.location, Location::main("1a.1"));
}

#[tokio::test]
#[ignore = "needs a DynamoDB endpoint"]
async fn a_session_continues_across_versions() {
    let tables = SharedTables::new().await;
    tables.fill().await;
    tables.write_as_the_next_version().await;
    tables.write_as_the_version_before().await;
    let store = &tables.store;
    let sessions = |what: &'static str| {
        // Both session rows, and the part record of the first one.
        tables.kept(what, 3, |p, s| p.starts_with("S#") && !s.ends_with("#p000001"))
    };
    let claim = tables.claim(cx(1, 50), upload(1)).await;
    sessions("claimed").await;
    assert!(store.renew(cx(1, 51), &claim, NOW.plus_millis(2 * HOUR)).await.unwrap());
    sessions("renewed").await;
    assert!(store.save(cx(1, 52), &claim, progress(2), Some(vec![3])).await.unwrap());
    sessions("saved").await;
    assert_eq!(store.parts(cx(1, 53), upload(1)).await.unwrap(), [vec![1, 2], vec![3]]);
    let claim = tables.claim(cx(1, 54), upload(1)).await;
    assert_eq!(claim.attempt.number, 2 + 1);
    store.release(cx(1, 55), &claim).await.unwrap();
    sessions("released").await;
    let claim = tables.claim(cx(1, 56), upload(1)).await;
    let publishing = Publishing {
        digest: digest(b"session"),
        location: Location::main("5a.1"),
        size: 10,
    };
    assert!(store.commit(cx(1, 57), &claim, &publishing).await.unwrap());
    sessions("committing").await;
    store.finish(cx(1, 58), &claim, End::Done).await.unwrap();
    sessions("done").await;
    store.cancel(cx(1, 59), upload(2)).await.unwrap();
    sessions("cancelled").await;

    // At last both sessions are swept. No row is left, whichever version wrote its attributes.
    for (session, row) in store
        .expired(cx(200, 60), NOW.plus_millis(200 * HOUR), None, 10)
        .await
        .unwrap()
    {
        assert!(store.sweep(cx(200, 61), session, &row).await.unwrap().is_some());
    }
    tables.kept("sessions", 0, |p, _| p.starts_with("S#")).await;
}

/// An object that is scheduled again and a pass that is taken over are updated, not replaced.
#[tokio::test]
#[ignore = "needs a DynamoDB endpoint"]
async fn pending_deletions_and_the_pass_keep_attributes_of_the_next_version() {
    let tables = SharedTables::new().await;
    tables.fill().await;
    tables.write_as_the_next_version().await;
    let store = &tables.store;
    let pending_deletions = |what: &'static str| tables.kept(what, 1, |p, _| p.starts_with("G#"));
    let pass = |what: &'static str| tables.kept(what, 1, |p, s| p == "K" && s == "pass");

    // The same object is scheduled for deletion a second time, later.
    let scheduled = Location::main("2a.1");
    store
        .commit_blob(cx(3, 50), &app(), &digest(b"layer"), &scheduled, 5)
        .await
        .unwrap();
    let late = NOW.plus_millis(1000 * HOUR);
    let found = store.pending_deletions(cx(3, 51), late, None, 10).await.unwrap().items;
    assert_eq!(found.len(), 1);
    assert_eq!(
        (&found[0].location, found[0].at),
        (&scheduled, NOW.plus_millis(3 * HOUR))
    );
    pending_deletions("scheduled again").await;

    let (mine, until) = (Uid(52), NOW.plus_millis(5 * HOUR));
    assert_eq!(store.begin_pass(cx(3, 52), mine, until).await.unwrap(), PassStart::New);
    pass("taken").await;
    let next = Cursor("K\nx".to_owned());
    assert!(store.checkpoint(cx(3, 53), mine, Some(&next), until).await.unwrap());
    pass("saved").await;
    let begun = store.begin_pass(cx(6, 54), Uid(54), until.plus_millis(2 * HOUR)).await;
    assert_eq!(begun.unwrap(), PassStart::Resumed(next));
    pass("taken over").await;
}

/// The identity of a table stays the same, and a table gets one that was created by a version without identities.
#[tokio::test]
#[ignore = "needs a DynamoDB endpoint"]
async fn a_recreated_table_has_another_identity() {
    let tables = SharedTables::new().await;
    tables.write_as_the_next_version().await;
    let first = tables.store.identity(cx(0, 50)).await.unwrap();
    let again = DynamoStore::open(&tables.options, &aws().await).await.unwrap();
    assert_eq!(again.identity(cx(0, 51)).await.unwrap(), first);
    DynamoStore::init(&tables.options, &aws().await).await.unwrap();
    // The previous version would raise the layout version like this.
    tables.set_version(1).await;
    DynamoStore::init(&tables.options, &aws().await).await.unwrap();
    assert_eq!(
        again.identity(cx(0, 52)).await.unwrap(),
        first,
        "also after the layout version was raised"
    );
    tables
        .kept("the row of the version", 2, |p, s| p == "K" && s == "schema")
        .await;

    let table = &tables.options.table;
    tables.client.delete_table().table_name(table).send().await.unwrap();
    DynamoStore::init(&tables.options, &aws().await).await.unwrap();
    let remade = DynamoStore::open(&tables.options, &aws().await).await.unwrap();
    assert_ne!(remade.identity(cx(0, 53)).await.unwrap(), first);
}
