//! The number of reads and writes of each operation, as the interface and the table of costs promise it.

use registry::store::SessionId;
use registry::store::collection::{CollectionStore as _, Plan};
use registry::store::sessions::{Claim, Claimed, End, Expected, Progress, Publishing, SessionKey, SessionStore};

use super::metered::Metered;
use super::*;
use crate::TableStatistics;
use crate::metadata::KnownRepositories;

/// Runs an operation. Returns the items read, the pages read, the items written, and those of them in transactions.
pub(crate) async fn cost<T>(store: &DynamoStore, operation: impl Future<Output = T>) -> (T, [u64; 4]) {
    let before = store.statistics();
    let answer = operation.await;
    let after = store.statistics();
    assert_eq!(after.retries, before.retries, "no request was sent twice");
    let of = |pick: fn(&TableStatistics) -> u64| pick(&after) - pick(&before);
    let cost = [
        of(|statistics| statistics.reads),
        of(|statistics| statistics.queries),
        of(|statistics| statistics.writes),
        of(|statistics| statistics.transacted),
    ];
    (answer, cost)
}

#[tokio::test]
async fn each_read_costs_one_item_or_one_page() {
    let store = store_over(MemoryTable::new());
    let (repository, name) = (repository(), tag("v1"));
    let blobs = commit(&store, 0..2).await;
    let mut wanted = manifest("m");
    wanted.required = blobs.clone();
    wanted.tags = vec![name.clone()];
    put(&store, &wanted).await;

    let blob = blobs.first().unwrap();
    let (found, asked) = cost(&store, store.link(cx(), &repository, blob)).await;
    assert_eq!((found.unwrap().is_some(), asked), (true, [1, 0, 0, 0]), "a blob");
    let (found, asked) = cost(&store, store.link_and_unmark(cx(), &repository, blob)).await;
    assert_eq!(
        (found.unwrap().is_some(), asked),
        (true, [1, 0, 0, 0]),
        "a blob, for a client that may push"
    );
    let (found, asked) = cost(&store, store.manifest(cx(), &repository, &wanted.digest)).await;
    assert_eq!(
        (found.unwrap().is_some(), asked),
        (true, [1, 0, 0, 0]),
        "a manifest by digest"
    );
    let (found, asked) = cost(&store, store.tag(cx(), &repository, &name)).await;
    let by_tag = found.unwrap().unwrap();
    assert_eq!(
        (by_tag.digest, asked),
        (wanted.digest, [1, 0, 0, 0]),
        "a tag, the first of two reads for a manifest by tag"
    );
    let (found, asked) = cost(&store, store.tags(cx(), &repository, None, 1000)).await;
    assert_eq!((found.unwrap().items.len(), asked), (1, [0, 1, 0, 0]), "a page of tags");
    let (found, asked) = cost(&store, store.repositories(cx(), None, 1000)).await;
    assert_eq!(
        (found.unwrap().items.len(), asked),
        (1, [0, 1, 0, 0]),
        "a page of repositories"
    );
    let (found, asked) = cost(&store, store.manifests(cx(), &repository, None, 1000)).await;
    assert_eq!(
        (found.unwrap().items.len(), asked),
        (1, [0, 1, 0, 0]),
        "a page of manifests"
    );
    let (found, asked) = cost(&store, store.referrers(cx(), &repository, &wanted.digest, None, 1000)).await;
    assert_eq!(
        (found.unwrap().items.len(), asked),
        (0, [0, 1, 0, 0]),
        "a page of referrers"
    );
}

#[tokio::test]
async fn a_page_of_ten_thousand_tags_is_one_query() {
    let store = store_over(MemoryTable::new());
    let mut wanted = manifest("m");
    for first in (0..10_000).step_by(20) {
        wanted.tags = (first..first + 20)
            .map(|number| tag(&format!("t{number:05}")))
            .collect();
        put(&store, &wanted).await;
    }
    let (page, asked) = cost(&store, store.tags(cx(), &repository(), Some("t04999"), 1000)).await;
    let page = page.unwrap();
    assert_eq!((page.items.len(), page.more), (1000, true));
    assert_eq!(page.items[0].as_str(), "t05000");
    assert_eq!(asked, [0, 1, 0, 0]);
}

/// The requests of an upload of four bytes: a PATCH stores them, and a PUT commits the session.
struct UploadSteps<'a> {
    store: &'a DynamoStore,
    key: SessionKey,
}

impl UploadSteps<'_> {
    async fn claim(&self, expected: Expected) -> Claim {
        let until = NOW.plus_millis(60_000);
        let claimed = self.store.claim(cx(), self.key, expected, until, u32::MAX).await;
        match claimed.unwrap() {
            Claimed::Granted(claim) => claim,
            other => panic!("{other:?}"),
        }
    }

    async fn patch(&self, expected: Expected) {
        let claim = self.claim(expected).await;
        let progress = Progress {
            offset: claim.progress.offset + 4,
            ..Progress::default()
        };
        assert!(self.store.save(cx(), &claim, progress, None).await.unwrap());
    }

    async fn put(&self, expected: Expected, content: &str) {
        let claim = self.claim(expected).await;
        let publishing = Publishing {
            digest: digest(content),
            location: Location::main(format!("{}.1", self.key.id)),
            size: 4,
        };
        assert!(self.store.commit(cx(), &claim, &publishing).await.unwrap());
        let Publishing { digest, location, size } = &publishing;
        self.store
            .commit_blob(cx(), &repository(), digest, location, *size)
            .await
            .unwrap();
        self.store.finish(cx(), &claim, End::Done).await.unwrap();
    }
}

#[tokio::test]
async fn an_upload_costs_six_to_eight_writes() {
    let store = store_over(MemoryTable::new());
    let upload = |id| UploadSteps {
        store: &store,
        key: SessionKey {
            expires: NOW.plus_millis(86_400_000),
            id: SessionId(id),
        },
    };

    // Writes: claim, committing, back-link, blob record, link, done. Read: the blob record.
    let whole = upload(1);
    let ((), asked) = cost(&store, whole.put(Expected::New, "one")).await;
    assert_eq!(asked, [1, 0, 6, 0], "POST and PUT");

    // A PATCH adds a claim and a save. The PUT after it has no body and reads the existing session.
    let patched = upload(2);
    let by_patch = async {
        patched.patch(Expected::New).await;
        patched.put(Expected::Existing, "two").await;
    };
    let ((), asked) = cost(&store, by_patch).await;
    assert_eq!(asked, [2, 0, 8, 0], "POST, PATCH and PUT");

    // Each further PATCH costs the same two writes, and a read.
    let chunked = upload(3);
    chunked.patch(Expected::New).await;
    let ((), asked) = cost(&store, chunked.patch(Expected::Existing)).await;
    assert_eq!(
        asked,
        [1, 0, 2, 0],
        "a PATCH whose range shows that it is not the first"
    );
    let ((), asked) = cost(&store, chunked.patch(Expected::New)).await;
    assert_eq!(
        asked,
        [1, 0, 3, 0],
        "a PATCH without a range: its creation is refused, and billed"
    );
}

#[tokio::test]
async fn a_typical_manifest_costs_31_write_units() {
    let table = Metered::new();
    let store = store_over(table.clone());
    let mut first = manifest("the repository is known");
    first.required = commit(&store, 0..11).await;
    put(&store, &first).await;
    table.take();

    let mut image = manifest(vec![b'x'; 3000]);
    image.required = first.required.clone();
    image.tags = vec![tag("v1")];
    put(&store, &image).await;
    // Read: the manifest, its tag, the tombstone of the tag, and eleven references. Written: eleven edges, and in a
    // transaction 4 KB of manifest, its row in the list, and for the tag four items: the tag, its row under the
    // manifest, its history, and the check that it has no tombstone. That check costs two of the 31 units and keeps
    // versions from repeating. The last item is the event of the audit trail.
    assert_eq!(table.take(), (14.0, 11 + 2 * (4 + 1 + 4 + 1)));

    // The same put again writes nothing.
    put(&store, &image).await;
    assert_eq!(table.take(), (3.0, 0));

    // A put with one more tag does not read the references.
    image.tags = vec![tag("v2")];
    let ((), asked) = cost(&store, put(&store, &image)).await;
    assert_eq!(asked, [3, 0, 6, 6]);
}

/// A collection pass has its own cache of repositories, so that it does not evict those in use. A push therefore costs
/// the same after a pass.
#[tokio::test]
async fn a_push_costs_the_same_after_a_collection() {
    let mut store = store_over(MemoryTable::new());
    store.known = Arc::new(KnownRepositories::with(4));
    for number in 0..20 {
        let mut other = manifest(format!("manifest {number}"));
        other.repository = format!("other/{number}").parse().unwrap();
        put(&store, &other).await;
    }
    put(&store, &manifest("the repository is known")).await;
    let ((), before) = cost(&store, put(&store, &manifest("before"))).await;
    let collected = store.collect_metadata(cx(), &Plan::default(), None, 1000).await;
    assert!(collected.is_ok());
    let ((), after) = cost(&store, put(&store, &manifest("after"))).await;
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_push_with_twenty_moved_tags_writes_84_items() {
    let store = store_over(MemoryTable::new());
    let tags: Vec<Tag> = (0..20).map(|number| tag(&format!("t{number}"))).collect();
    let mut one = manifest("one");
    one.tags = tags.clone();
    put(&store, &one).await;

    let mut other = manifest("other");
    other.tags = tags;
    let row = registry::store::metadata::Referrer {
        descriptor: oci::Descriptor::new(other.media_type.clone(), other.digest, other.size),
        annotations_omitted: false,
    };
    other.subject = Some((one.digest, row));
    let ((), asked) = cost(&store, put(&store, &other)).await;
    assert_eq!(asked, [41, 0, 84, 84], "all in one transaction");

    let (removal, asked) = cost(&store, delete(&store, &other.digest)).await;
    assert_eq!(removal, Removal::Removed);
    // The mark, and then one transaction. The manifest has no edges to or from it, but a subject.
    assert_eq!(asked[2..], [1 + 84, 84]);
}

#[tokio::test]
async fn deletions_and_an_unlink_write_only_their_own_items() {
    let store = store_over(MemoryTable::new());
    let mut image = manifest("m");
    image.required = commit(&store, 0..11).await;
    image.tags = vec![tag("v1")];
    put(&store, &image).await;

    let (deleted, asked) = cost(
        &store,
        store.delete_tag(
            cx(),
            &repository(),
            &tag("v1"),
            &Author::new("user"),
            &AllowAll::shared(),
        ),
    )
    .await;
    assert_eq!(deleted.unwrap(), Removal::Removed);
    assert_eq!(asked, [1, 0, 5, 5]);

    let (removal, asked) = cost(&store, delete(&store, &image.digest)).await;
    assert_eq!(removal, Removal::Removed);
    // Write the mark; look for edges and for tags; delete the manifest and its row in the list, and write the event; delete
    // eleven edges.
    assert_eq!(asked, [1, 2, 1 + 3 + 11, 3]);

    let blob = image.required.first().unwrap();
    let (removal, asked) = cost(&store, store.unlink(cx(), &repository(), blob, &Author::new("user"))).await;
    assert_eq!(removal.unwrap(), Removal::Removed);
    // Write the mark; look for edges; delete the link, and write the event; delete the back-link.
    assert_eq!(asked, [1, 1, 4, 2]);
}

#[tokio::test]
async fn the_first_event_of_a_process_costs_a_read() {
    let table = MemoryTable::new();
    let another = store_with_seed(table.clone(), 2);
    put(&another, &manifest("the repository is known")).await;
    let name: RepositoryName = "team/other".parse().unwrap();
    let user = Author::new("user");
    let created = async |store: &DynamoStore| cost(store, store.create_repository(cx(), &name, &user)).await;

    // The row of the catalog, the row of the first event, the event.
    let store = store_over(table.clone());
    let (is_new, asked) = created(&store).await;
    assert_eq!((is_new.unwrap(), asked), (true, [2, 0, 2, 2]));
    let (is_new, asked) = created(&store).await;
    assert_eq!((is_new.unwrap(), asked), (false, [1, 0, 0, 0]));

    // The first event of a table costs one write more.
    let store = store_over(MemoryTable::new());
    let (is_new, asked) = created(&store).await;
    assert_eq!((is_new.unwrap(), asked), (true, [2, 0, 3, 2]));
}
