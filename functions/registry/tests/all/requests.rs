//! The cost of each operation in store calls: table reads, table writes, requests to the object store. A change that
//! adds one fails here. `cargo test -p registry --test all requests -- --nocapture` prints the table.
//!
//! A store call may be several requests to its database; the stores count those themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use oci::MediaType;
use registry::store::access::Author;
use registry::store::memory::MemoryBlobs;
use registry::store::metadata::MetadataStore;
use registry::store::wrapped::StoreMethod;
use registry::store::{Context, Timestamp, Uid};
use registry::{RequestBody, Settings};

use crate::support::client::TestRequest;
use crate::support::content::{artifact, bytes_of, image, index, padded};
use crate::support::{Script, Setup, Users, World, sha256, sha512};

/// Calls of metadata and session stores that read, and that write; calls of the blob store.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Cost {
    reads: u64,
    writes: u64,
    objects: u64,
}

/// The methods of the blob store that make requests; [`StoreMethod::Redirect`] makes none.
const OBJECTS: [StoreMethod; 6] = [
    StoreMethod::Append,
    StoreMethod::Seal,
    StoreMethod::Read,
    StoreMethod::Stat,
    StoreMethod::Discard,
    StoreMethod::Delete,
];

fn cost(calls: &BTreeMap<StoreMethod, u64>, reads: u64, writes: u64) -> Cost {
    let of = |method| calls.get(&method).copied().unwrap_or_default();
    let objects: u64 = OBJECTS.into_iter().map(of).sum();
    let read = of(StoreMethod::Read) + of(StoreMethod::Stat);
    Cost {
        reads: reads - read,
        writes: writes - (objects - read),
        objects,
    }
}

/// The rows of the table.
#[derive(Default)]
struct Table(Vec<(&'static str, Cost, String)>);

impl Table {
    /// Sends the request, which must succeed, and compares its cost with the allowed cost.
    async fn row(&mut self, world: &World, what: &'static str, call: TestRequest, status: u16, expected: [u64; 3]) {
        let _ = world.counts.take();
        call.send().await.expect(status);
        let (reads, writes) = (world.counts.reads(), world.counts.writes());
        let calls = world.counts.take();
        let found = cost(&calls, reads, writes);
        let [reads, writes, objects] = expected;
        let names: Vec<_> = calls
            .iter()
            .map(|(method, count)| {
                if *count == 1 {
                    format!("{method:?}")
                } else {
                    format!("{method:?} × {count}")
                }
            })
            .collect();
        assert_eq!(found, Cost { reads, writes, objects }, "{what}: {names:?}");
        self.0.push((what, found, names.join(", ")));
    }

    fn print(&self) {
        println!("| operation | table reads | table writes | object-store requests | calls |");
        println!("|---|---|---|---|---|");
        for (what, Cost { reads, writes, objects }, calls) in &self.0 {
            println!("| {what} | {reads} | {writes} | {objects} | {calls} |");
        }
    }
}

fn put(world: &World, target: String, manifest: Bytes) -> TestRequest {
    world
        .put(target)
        .header("content-type", MediaType::OCI_MANIFEST)
        .bytes(manifest)
}

/// Invariant 8: at most two table reads for a manifest and one for a blob. No object-store request, except for a
/// manifest that is too large for the table.
async fn pulls(table: &mut Table, world: &World, redirecting: bool) {
    let image = world.push_image("a", "t", "app").await;
    world.push_blob("a", "{}").await;
    let large = padded(&crate::support::content::image(b"{}", &[]), 40_000);
    world.put_manifest("a", "large", large.clone()).await.expect(201);
    let (blob, digest) = (format!("/v2/a/blobs/{}", image.layer), image.digest);
    let etag = format!("\"{}\"", image.layer);
    if redirecting {
        table
            .row(world, "GET blob, redirected", world.get(&blob), 307, [1, 0, 0])
            .await;
        let range = world.get(&blob).header("range", "bytes=1-2");
        table
            .row(world, "GET blob, one range, redirected", range, 307, [1, 0, 0])
            .await;
        let ranges = world.get(&blob).header("range", "bytes=0-0,2-2,4-4");
        table
            .row(
                world,
                "GET blob, three ranges, of a store that redirects",
                ranges,
                206,
                [1, 0, 4],
            )
            .await;
        return;
    }
    table.row(world, "HEAD blob", world.head(&blob), 200, [1, 0, 0]).await;
    table
        .row(world, "GET blob, served here", world.get(&blob), 200, [1, 0, 1])
        .await;
    let unchanged = world.get(&blob).header("if-none-match", etag);
    table
        .row(world, "GET blob, not modified", unchanged, 304, [1, 0, 0])
        .await;
    let outside = world.get(&blob).header("range", "bytes=999-");
    table
        .row(world, "GET blob, range refused", outside, 416, [1, 0, 0])
        .await;
    let unknown = world.head(format!("/v2/a/blobs/{}", sha256(b"x")));
    table.row(world, "HEAD blob, unknown", unknown, 404, [1, 0, 0]).await;
    table
        .row(
            world,
            "HEAD manifest by tag",
            world.head("/v2/a/manifests/t"),
            200,
            [1, 0, 0],
        )
        .await;
    table
        .row(
            world,
            "GET manifest by tag",
            world.get("/v2/a/manifests/t"),
            200,
            // A store that cannot join the two reads the tag and then the manifest.
            [1, 0, 0],
        )
        .await;
    let by_digest = format!("/v2/a/manifests/{digest}");
    table
        .row(world, "HEAD manifest by digest", world.head(&by_digest), 200, [1, 0, 0])
        .await;
    table
        .row(world, "GET manifest by digest", world.get(&by_digest), 200, [1, 0, 0])
        .await;
    table
        .row(
            world,
            "GET manifest by tag, large",
            world.get("/v2/a/manifests/large"),
            200,
            [1, 0, 1],
        )
        .await;
    table
        .row(
            world,
            "HEAD manifest by tag, large",
            world.head("/v2/a/manifests/large"),
            200,
            // The tag does not say whether the object is recorded as lost.
            [2, 0, 0],
        )
        .await;
    let large = format!("/v2/a/manifests/{}", sha256(&large));
    table
        .row(
            world,
            "HEAD manifest by digest, large",
            world.head(large),
            200,
            [1, 0, 0],
        )
        .await;
}

async fn lists(table: &mut Table, world: &World) {
    let image = world.push_image("a", "t", "app").await;
    let signature = bytes_of(&artifact("a/signature", &image.manifest));
    world.push_blob("a", "{}").await;
    world.put_manifest("a", "signature", signature).await.expect(201);
    table.row(world, "/v2/", world.get("/v2/"), 200, [0, 0, 0]).await;
    table
        .row(world, "tags, a page", world.get("/v2/a/tags/list"), 200, [1, 0, 0])
        .await;
    table
        .row(world, "tags, n=0", world.get("/v2/a/tags/list?n=0"), 200, [1, 0, 0])
        .await;
    table
        .row(
            world,
            "tags, none left",
            world.get("/v2/a/tags/list?last=z"),
            200,
            [2, 0, 0],
        )
        .await;
    table
        .row(world, "catalog, a page", world.get("/v2/_catalog"), 200, [1, 0, 0])
        .await;
    let referrers = format!("/v2/a/referrers/{}", image.digest);
    table
        .row(world, "referrers, a page", world.get(&referrers), 200, [1, 0, 0])
        .await;
    let filtered = world.get(format!("{referrers}?artifactType=a/other"));
    table.row(world, "referrers, filtered", filtered, 200, [1, 0, 0]).await;
    // Annotations that are too large for the row: one read of each such manifest, and of its object.
    let mut annotated = artifact("a/signature", b"subject");
    annotated["annotations"] = serde_json::json!({ "text": "x".repeat(40_000) });
    world
        .put_manifest("a", "annotated", bytes_of(&annotated))
        .await
        .expect(201);
    let referrers = format!("/v2/a/referrers/{}", sha256(b"subject"));
    table
        .row(
            world,
            // The rows are dropped before the request waits for the memory of a whole page, and are read again.
            "referrers, one with large annotations",
            world.get(referrers),
            200,
            [3, 0, 1],
        )
        .await;
}

#[expect(clippy::too_many_lines, reason = "a table, row by row")]
async fn uploads(table: &mut Table, world: &World) {
    let (digest, long) = (sha256(b"abcd"), sha512(b"abcd"));
    let chunked = sha256(b"abcdef");
    let post = "/v2/a/blobs/uploads/";
    table.row(world, "POST upload", world.post(post), 202, [0, 0, 0]).await;
    let location = world.open_upload("a").await;
    table
        .row(
            world,
            "PATCH, first",
            world.patch(&location).bytes("ab"),
            202,
            [0, 2, 1],
        )
        .await;
    table
        .row(world, "GET upload", world.get(&location), 204, [1, 0, 0])
        .await;
    table
        .row(
            world,
            "PATCH, further",
            world.patch(&location).bytes("cd"),
            202,
            [0, 2, 1],
        )
        .await;
    let ranged = world.patch(&location).header("content-range", "4-5").bytes("ef");
    table
        .row(world, "PATCH, further, that tells its range", ranged, 202, [0, 2, 1])
        .await;
    let empty = world.patch(&location).stream(Script::new());
    table.row(world, "PATCH, empty", empty, 202, [1, 0, 0]).await;
    let last = world.put(format!("{location}?digest={chunked}"));
    table
        .row(
            world,
            "PUT after three PATCHes (seal, then discard the segments)",
            last,
            201,
            [1, 4, 2],
        )
        .await;
    let again = world.put(format!("{location}?digest={chunked}"));
    // Whether the blob still exists.
    table.row(world, "PUT, replayed", again, 201, [1, 1, 0]).await;

    let location = world.open_upload("a").await;
    let whole = world.put(format!("{location}?digest={digest}")).bytes("abcd");
    table.row(world, "PUT with the whole body", whole, 201, [0, 4, 2]).await;
    let location = world.open_upload("a").await;
    world.patch(&location).bytes("abcd").send().await.expect(202);
    let last = world.put(format!("{location}?digest={digest}"));
    table
        .row(
            world,
            "PUT after one PATCH, of bytes that lie elsewhere (one look there)",
            last,
            201,
            [1, 4, 2],
        )
        .await;
    let location = world.open_upload("a").await;
    world.patch(&location).bytes("new").send().await.expect(202);
    let last = world.put(format!("{location}?digest={}", sha256(b"new")));
    table.row(world, "PUT after one PATCH", last, 201, [1, 4, 1]).await;
    let location = world.open_upload("a").await;
    world.patch(&location).bytes("abcd").send().await.expect(202);
    let last = world.put(format!("{location}?digest={long}"));
    table
        .row(
            world,
            "PUT after one PATCH, sha512 undeclared (read once more)",
            last,
            201,
            [1, 4, 2],
        )
        .await;
    let single = world.post(format!("{post}?digest={digest}")).bytes("abcd");
    table
        .row(
            world,
            "POST with the whole body, of bytes that lie elsewhere (one look there)",
            single,
            201,
            [0, 4, 3],
        )
        .await;
    let new = world.post(format!("{post}?digest={}", sha256(b"newer"))).bytes("newer");
    table.row(world, "POST with the whole body", new, 201, [0, 4, 2]).await;
    let wrong = world.post(format!("{post}?digest={digest}")).bytes("abce");
    table
        // The read: nothing of a session that has not ended is deleted.
        .row(world, "POST with a wrong digest", wrong, 400, [1, 3, 2])
        .await;
    let location = world.open_upload("a").await;
    table
        .row(
            world,
            "DELETE upload, nothing stored",
            world.delete(&location),
            204,
            [0, 1, 0],
        )
        .await;
    let location = world.open_upload("a").await;
    world.patch(&location).bytes("ab").send().await.expect(202);
    table
        .row(world, "DELETE upload", world.delete(&location), 204, [0, 1, 1])
        .await;
    let mount = world.post(format!("/v2/b/blobs/uploads/?mount={digest}&from=a"));
    table.row(world, "mount", mount, 201, [0, 1, 0]).await;
    let mount = world.post(format!("/v2/c/blobs/uploads/?mount={digest}"));
    table.row(world, "mount from anywhere", mount, 201, [1, 1, 0]).await;
    let refused = world.post(format!("/v2/d/blobs/uploads/?mount={}", sha256(b"x")));
    table
        .row(world, "mount from anywhere, refused", refused, 202, [1, 0, 0])
        .await;
}

async fn pushes_and_deletes(table: &mut Table, world: &World) {
    for blob in ["{}", "loose"] {
        world.push_blob("a", blob).await;
    }
    let manifest = bytes_of(&image(b"{}", &[]));
    let digest = sha256(&manifest);
    let target = |reference: String| format!("/v2/a/manifests/{reference}");
    let by_tag = || put(world, target("t".to_owned()), manifest.clone());
    table.row(world, "PUT manifest by tag", by_tag(), 201, [0, 1, 0]).await;
    table
        .row(world, "PUT manifest by tag, again", by_tag(), 201, [0, 1, 0])
        .await;
    let tags: Vec<_> = (0..20).map(|number| format!("tag=t{number}")).collect();
    let many = put(world, target(format!("{digest}?{}", tags.join("&"))), manifest.clone());
    table
        .row(world, "PUT manifest with 20 tags", many, 201, [0, 1, 0])
        .await;
    let list = bytes_of(&index(&[&manifest]));
    let list = world
        .put(target("list".to_owned()))
        .header("content-type", MediaType::OCI_INDEX)
        .bytes(list);
    table.row(world, "PUT index", list, 201, [0, 1, 0]).await;
    let large = padded(&crate::support::content::image(b"{}", &[]), 40_000);
    let by_tag = || put(world, target("large".to_owned()), large.clone());
    table.row(world, "PUT manifest, large", by_tag(), 201, [1, 4, 2]).await;
    table
        .row(world, "PUT manifest, large, again", by_tag(), 201, [1, 1, 1])
        .await;
    let tag = world.delete(target("t".to_owned()));
    table.row(world, "DELETE tag", tag, 202, [0, 1, 0]).await;
    let referenced = world.delete(target(digest.to_string()));
    table
        .row(world, "DELETE manifest, refused", referenced, 405, [0, 1, 0])
        .await;
    let list = world.delete(target(sha256(&bytes_of(&index(&[&manifest]))).to_string()));
    table.row(world, "DELETE manifest", list, 202, [0, 1, 0]).await;
    let blob = world.delete(format!("/v2/a/blobs/{}", sha256(b"loose")));
    table.row(world, "DELETE blob", blob, 202, [0, 1, 0]).await;
}

#[tokio::test]
async fn table_of_requests() {
    let mut table = Table::default();
    pulls(&mut table, &World::new().await, false).await;
    let blobs = MemoryBlobs::redirecting("https://objects.example");
    pulls(
        &mut table,
        &World::with(Setup {
            blobs,
            ..Setup::default()
        })
        .await,
        true,
    )
    .await;
    lists(&mut table, &World::new().await).await;
    uploads(&mut table, &World::new().await).await;
    pushes_and_deletes(&mut table, &World::new().await).await;
    table.print();
}

/// Authentication costs no read of any of the three stores.
#[tokio::test]
async fn authentication_reads_no_store() {
    let users = Arc::new(Users::private());
    let world = World::with(Setup::private(&users)).await;
    for user in ["alice", "reader"] {
        let _ = world.counts.take();
        world.get("/v2/").user(user).send().await.expect(200);
        assert!(world.counts.all().is_empty());
    }
    world.get("/v2/").send().await.expect(401);
    assert!(world.counts.all().is_empty());
}

/// A repository that only an administrator creates is asked for until it is known to exist, by each instance. No other
/// repository is ever asked for, and only a bound for blobs makes a mount read the size.
#[tokio::test]
async fn settings_of_repositories_cost_nothing_elsewhere() {
    let policy = r#"{"syntax": 1, "repository": [
        {"match": ["prod/**"], "create": "listed", "foreign-layers": false}, {"match": ["small/**"], "max-blob": "1GiB"}]}"#;
    let users = Arc::new(Users::open_under(policy));
    let world = World::with(Setup::private(&users)).await;
    let blob = world.push_blob("a", "{}").await;
    let mut table = Table::default();
    let manifest = || bytes_of(&image(b"{}", &[]));
    let post = |world: &World, repository: &str| world.post(format!("/v2/{repository}/blobs/uploads/"));
    for _ in 0..2 {
        let _ = world.counts.take();
        let refused = post(&world, "prod/app").send().await;
        refused.expect_error(404, "NAME_UNKNOWN");
        assert_eq!(world.counts.take(), [(StoreMethod::Repository, 1)].into());
    }
    let now = Timestamp(1_900_000_000_000);
    let cx = Context::internal(now, 60_000, Uid(1));
    let name = "prod/app".parse().unwrap();
    assert!(
        world
            .metadata
            .create_repository(cx, &name, &Author::operator())
            .await
            .unwrap()
    );
    for (repository, first) in [("a", 0), ("prod/app", 1), ("small/app", 0)] {
        let instance = world.another(users.clone(), Settings::default()).await;
        table
            .row(
                &instance,
                "POST upload, first",
                post(&instance, repository),
                202,
                [first, 0, 0],
            )
            .await;
        table
            .row(&instance, "POST upload", post(&instance, repository), 202, [0, 0, 0])
            .await;
        let size = u64::from(repository.starts_with("small/"));
        let mount = instance.post(format!("/v2/{repository}/blobs/uploads/?mount={blob}&from=a"));
        table.row(&instance, "mount", mount, 201, [size, 1, 0]).await;
        let put = put(&instance, format!("/v2/{repository}/manifests/t"), manifest());
        table.row(&instance, "PUT manifest by tag", put, 201, [0, 1, 0]).await;
        let location = post(&instance, repository).send().await.expect(202).location();
        let chunk = instance.patch(&location).bytes("ab");
        table.row(&instance, "PATCH, first", chunk, 202, [0, 2, 1]).await;
    }
    // The first request of an instance may also be the manifest.
    let instance = world.another(users.clone(), Settings::default()).await;
    for reads in [1, 0] {
        let put = put(&instance, "/v2/prod/app/manifests/t".to_owned(), manifest());
        table
            .row(&instance, "PUT manifest by tag", put, 201, [reads, 1, 0])
            .await;
    }
}

/// The cost of a list depends on the page, not on the list: every page of 10 of 300 tags is one read.
#[tokio::test]
async fn the_cost_of_a_list_depends_on_the_page() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let manifest = bytes_of(&image(b"{}", &[]));
    for number in 0..300 {
        world
            .put_manifest("a", format!("t{number}"), manifest.clone())
            .await
            .expect(201);
    }
    let _ = world.counts.take();
    let mut next = Some("/v2/a/tags/list?n=10".to_owned());
    let mut pages = 0;
    while let Some(target) = next {
        let answer = world.get(target).send().await.expect(200);
        next = answer.next();
        pages += 1;
    }
    assert_eq!(pages, 30);
    assert_eq!(world.counts.of(StoreMethod::Tags), pages);
    assert_eq!(world.counts.reads(), pages);
}

/// A store that reads and creates a session needs two requests, and a hint which of them to send first. The core passes
/// on what a request suggests about its session.
#[tokio::test]
async fn a_claim_passes_on_what_its_request_suggests() {
    let world = World::new().await;
    let digest = sha256(b"abcd");
    let claims = async |call: TestRequest, status: u16| {
        let _ = world.counts.take();
        call.send().await.expect(status);
        (
            world.counts.of(StoreMethod::Claim),
            world.counts.of(StoreMethod::ClaimExisting),
        )
    };
    let (fresh, begun) = ((1, 0), (0, 1));

    let location = world.open_upload("a").await;
    let first = world.patch(&location).bytes("ab");
    assert_eq!(claims(first, 202).await, fresh, "nothing is said");
    let further = world.patch(&location).header("content-range", "2-3").bytes("cd");
    assert_eq!(claims(further, 202).await, begun, "a range that begins further on");
    let last = world.put(format!("{location}?digest={digest}"));
    assert_eq!(claims(last, 201).await, begun, "what has no body ends what was begun");

    let location = world.open_upload("a").await;
    let first = world.patch(&location).header("content-range", "0-1").bytes("ab");
    assert_eq!(claims(first, 202).await, fresh, "a range from the start");
    let target = format!("{location}?digest={digest}");
    let last = world.put(target).header("content-range", "2-3").bytes("cd");
    assert_eq!(claims(last, 201).await, begun, "the last chunk");

    let location = world.open_upload("a").await;
    let whole = world.put(format!("{location}?digest={digest}")).bytes("abcd");
    assert_eq!(claims(whole, 201).await, fresh, "POST and PUT");
    let single = world
        .post(format!("/v2/a/blobs/uploads/?digest={digest}"))
        .bytes("abcd");
    assert_eq!(claims(single, 201).await, fresh, "POST alone");
}

/// A shell moves the future of a request several times before it runs, whatever the request is.
#[tokio::test]
async fn the_future_of_a_request_is_small() {
    const MOST: usize = 3584;
    let world = World::new().await;
    let future = world
        .registry
        .handle(Request::new(RequestBody::stream(Script::default())));
    let size = size_of_val(&future);
    assert!(size <= MOST, "{size} bytes");
}
