//! Lists: tags (end-8), the catalog, referrers (end-12), page by page.

use bytes::Bytes;
use oci::MediaType;
use registry::store::wrapped::StoreMethod;
use registry::{Limits, Settings};
use serde_json::{Value, json};

use crate::support::content::{artifact, bytes_of, descriptor, image, index};
use crate::support::{Answer, Setup, World, sha256};

async fn world_with(limits: Limits) -> World {
    let settings = Settings {
        limits,
        ..Settings::default()
    };
    World::with(Setup {
        settings,
        ..Setup::default()
    })
    .await
}

/// Follows the links from `target` to the end. Returns the items of each page.
async fn pages(world: &World, target: &str, items: &str) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut next = Some(target.to_owned());
    while let Some(target) = next {
        let answer = world.get(target).send().await.expect(200);
        next = answer.next();
        let page = answer.json()[items].as_array().expect("a list").clone();
        assert!(
            next.is_none() || !page.is_empty(),
            "a page with a next one has something"
        );
        pages.push(page);
        assert!(pages.len() < 10_000, "the links come to an end");
    }
    pages
}

/// The items of all pages, as text.
fn flat(pages: &[Vec<Value>]) -> Vec<String> {
    pages
        .iter()
        .flatten()
        .map(|item| item.as_str().unwrap().to_owned())
        .collect()
}

async fn tagged(tags: &[&str]) -> World {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let manifest = bytes_of(&image(b"{}", &[]));
    for tag in tags {
        world.put_manifest("a", tag, manifest.clone()).await.expect(201);
    }
    world
}

#[tokio::test]
async fn tags_in_ascii_order() {
    let world = tagged(&["b", "a", "B", "10", "9", "_x", "a.b", "a-b", "A", "a_b", "latest"]).await;
    let sorted = ["10", "9", "A", "B", "_x", "a", "a-b", "a.b", "a_b", "b", "latest"];
    let whole = world.get("/v2/a/tags/list").send().await.expect(200);
    assert_eq!(whole.header("content-type"), "application/json");
    assert_eq!(whole.json(), json!({ "name": "a", "tags": sorted }));
    assert_eq!(whole.next(), None);
    for n in 1..13 {
        let pages = pages(&world, &format!("/v2/a/tags/list?n={n}"), "tags").await;
        assert_eq!(flat(&pages), sorted, "n={n}");
        assert_eq!(pages.len(), sorted.len().div_ceil(n), "no page is short but the last");
    }
    for (last, from) in [
        ("", 0),
        ("10", 1),
        ("a", 6),
        ("a-", 6),
        ("latest", 11),
        ("zzz", 11),
        ("0", 0),
        ("%7f", 11),
    ] {
        let answer = world
            .get(format!("/v2/a/tags/list?last={last}"))
            .send()
            .await
            .expect(200);
        assert_eq!(answer.json()["tags"], json!(sorted[from..]), "last={last}");
    }
    let page = world.get("/v2/a/tags/list?n=2&last=A").send().await.expect(200);
    assert_eq!(page.json()["tags"], json!(["B", "_x"]));
    assert_eq!(page.next().unwrap(), "/v2/a/tags/list?n=2&last=%5Fx");
}

#[tokio::test]
async fn page_sizes() {
    let world = tagged(&["a", "b", "c"]).await;
    for list in [
        "/v2/a/tags/list",
        "/v2/_catalog",
        &format!("/v2/a/referrers/{}", sha256(b"x")),
    ] {
        for n in ["1", "1000", "1001", "2147483647", "007"] {
            world.get(format!("{list}?n={n}")).send().await.expect(200);
        }
        for n in [
            "",
            "-1",
            "+1",
            "1.0",
            "1e3",
            "ten",
            "0x10",
            "%201",
            "1%20",
            "2147483648",
            "9223372036854775808",
            "18446744073709551616",
            "99999999999999999999999999999999999999999999",
            "%EF%BC%91",
        ] {
            world
                .get(format!("{list}?n={n}"))
                .send()
                .await
                .expect_error(400, "UNSUPPORTED");
        }
        let none = world.get(format!("{list}?n=0")).send().await.expect(200);
        assert_eq!(none.next(), None, "{list}");
    }
    for (target, body) in [
        ("/v2/a/tags/list?n=0", json!({ "name": "a", "tags": [] })),
        ("/v2/_catalog?n=0", json!({ "repositories": [] })),
    ] {
        assert_eq!(world.get(target).send().await.expect(200).json(), body);
    }
}

/// A page never exceeds the registry's maximum, and the Link leads to the next page.
#[tokio::test]
async fn n_above_the_page_size_is_capped() {
    let world = world_with(Limits {
        page: 5,
        ..Limits::default()
    })
    .await;
    world.push_blob("a", "{}").await;
    let manifest = bytes_of(&image(b"{}", &[]));
    for number in 10..22 {
        world
            .put_manifest("a", format!("t{number}"), manifest.clone())
            .await
            .expect(201);
    }
    for query in ["", "?n=6", "?n=1000000", "?n=2147483647"] {
        let pages = pages(&world, &format!("/v2/a/tags/list{query}"), "tags").await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [5, 5, 2]);
    }
    let pages = pages(&world, "/v2/a/tags/list?n=4", "tags").await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 4]);
}

#[tokio::test]
async fn the_default_page_is_a_thousand() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let manifest = bytes_of(&image(b"{}", &[]));
    for number in 0..1001 {
        world
            .put_manifest("a", format!("t{number}"), manifest.clone())
            .await
            .expect(201);
    }
    let pages = pages(&world, "/v2/a/tags/list", "tags").await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1]);
}

#[tokio::test]
async fn tags_of_an_unknown_repository() {
    let world = World::new().await;
    world
        .get("/v2/a/tags/list")
        .send()
        .await
        .expect_error(404, "NAME_UNKNOWN");
    world
        .get("/v2/a/tags/list?n=0")
        .send()
        .await
        .expect_error(404, "NAME_UNKNOWN");
    world
        .get("/v2/a/tags/list?last=x")
        .send()
        .await
        .expect_error(404, "NAME_UNKNOWN");
    // Manifests without a tag make a repository.
    world.push_blob("a", "{}").await;
    let manifest = bytes_of(&image(b"{}", &[]));
    world.put_manifest("a", sha256(&manifest), manifest).await.expect(201);
    assert_eq!(
        world.get("/v2/a/tags/list").send().await.expect(200).json(),
        json!({ "name": "a", "tags": [] })
    );
}

#[tokio::test]
async fn catalog() {
    let world = World::new().await;
    assert_eq!(
        world.get("/v2/_catalog").send().await.expect(200).json(),
        json!({ "repositories": [] })
    );
    world.push_blob("only-blobs", "{}").await;
    let names = ["b", "a/b", "a", "a-b", "b/c/d", "a/a", "0"];
    for name in names {
        world.push_image(name, "t", "app").await;
    }
    let sorted = ["0", "a", "a-b", "a/a", "a/b", "b", "b/c/d"];
    for n in 1..9 {
        let pages = pages(&world, &format!("/v2/_catalog?n={n}"), "repositories").await;
        assert_eq!(flat(&pages), sorted, "n={n}");
    }
    let page = world.get("/v2/_catalog?n=1&last=a/").send().await.expect(200);
    assert_eq!(page.json(), json!({ "repositories": ["a/a"] }));
    assert_eq!(page.next().unwrap(), "/v2/_catalog?n=1&last=a%2Fa");
}

/// Pushes `count` artifacts of alternating types with an absent subject.
async fn refer(world: &World, count: usize) -> Vec<(String, Value)> {
    world.push_blob("a", "{}").await;
    let mut referrers = Vec::new();
    for number in 0..count {
        let artifact_type = ["application/x.one+json", "application/x.two+json"][number % 2];
        let mut manifest = artifact(artifact_type, b"subject");
        manifest["annotations"] = json!({ "number": number.to_string() });
        let bytes = bytes_of(&manifest);
        world.put_manifest("a", sha256(&bytes), bytes.clone()).await.expect(201);
        let mut expected = descriptor(MediaType::OCI_MANIFEST, &bytes);
        expected["artifactType"] = artifact_type.into();
        expected["annotations"] = manifest["annotations"].clone();
        referrers.push((artifact_type.to_owned(), expected));
    }
    referrers.sort_by_key(|(_, descriptor)| descriptor["digest"].as_str().unwrap().to_owned());
    referrers
}

fn check_index(answer: &Answer) {
    assert_eq!(answer.header("content-type"), MediaType::OCI_INDEX);
    let body = answer.json();
    assert_eq!(body["schemaVersion"], 2);
    assert_eq!(body["mediaType"], MediaType::OCI_INDEX);
    assert!(body["manifests"].is_array());
}

#[tokio::test]
async fn referrers() {
    let world = World::new().await;
    let target = format!("/v2/a/referrers/{}", sha256(b"subject"));
    // Neither the subject nor the repository must exist.
    for target in [target.clone(), format!("/v2/unknown/referrers/{}", sha256(b"x"))] {
        let none = world.get(target).send().await.expect(200);
        check_index(&none);
        assert_eq!(none.json()["manifests"], json!([]));
        assert_eq!(none.get("oci-filters-applied"), None);
    }
    let expected = refer(&world, 7).await;
    let all: Vec<_> = expected.iter().map(|(_, descriptor)| descriptor.clone()).collect();
    let answer = world.get(target.clone()).send().await.expect(200);
    check_index(&answer);
    assert_eq!(answer.json()["manifests"], json!(all));
    for n in 1..9 {
        let pages = pages(&world, &format!("{target}?n={n}"), "manifests").await;
        assert_eq!(pages.concat(), all, "n={n}");
    }
    for subject in ["nonsense", "sha256:12", "sha384:00", ""] {
        let answer = world.get(format!("/v2/a/referrers/{subject}")).send().await;
        answer.expect_error(400, "DIGEST_INVALID");
    }
    for last in ["nonsense", "sha256:12"] {
        let answer = world.get(format!("{target}?last={last}")).send().await;
        answer.expect_error(400, "DIGEST_INVALID");
    }
}

#[tokio::test]
async fn filtered_referrers() {
    let world = World::new().await;
    let expected = refer(&world, 9).await;
    let target = format!("/v2/a/referrers/{}", sha256(b"subject"));
    for (filter, artifact_type) in [
        ("application/x.one%2Bjson", "application/x.one+json"),
        // A client that does not escape the plus sign.
        ("application/x.two+json", "application/x.two+json"),
        ("application/x.two%2Bjson", "application/x.two+json"),
        ("application/x.none", "application/x.none"),
    ] {
        let wanted: Vec<_> = expected
            .iter()
            .filter(|(of, _)| of == artifact_type)
            .map(|(_, descriptor)| descriptor.clone())
            .collect();
        let answer = world
            .get(format!("{target}?artifactType={filter}"))
            .send()
            .await
            .expect(200);
        check_index(&answer);
        assert_eq!(answer.json()["manifests"], json!(wanted));
        assert_eq!(answer.header("oci-filters-applied"), "artifactType");
        // With pages, some of which may be empty: the links keep the filter, and lead to the end.
        let mut found = Vec::new();
        let mut next = Some(format!("{target}?n=2&artifactType={filter}"));
        while let Some(target) = next {
            let answer = world.get(target).send().await.expect(200);
            assert_eq!(answer.header("oci-filters-applied"), "artifactType");
            found.extend(answer.json()["manifests"].as_array().unwrap().clone());
            next = answer.next();
        }
        assert_eq!(found, wanted);
    }
    let unfiltered = world.get(format!("{target}?artifactType=")).send().await.expect(200);
    assert_eq!(unfiltered.get("oci-filters-applied"), None);
    assert_eq!(unfiltered.json()["manifests"].as_array().unwrap().len(), 9);
    for nonsense in ["x", "a/b/c", "%00", "a%20b/c"] {
        let answer = world.get(format!("{target}?artifactType={nonsense}")).send().await;
        assert!(matches!(answer.status, 200 | 400));
    }
}

/// The type that is listed for an artifact, as the specification defines it.
#[tokio::test]
async fn artifact_types_of_referrers() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let subject = descriptor(MediaType::OCI_MANIFEST, b"subject");
    let with_subject = |mut manifest: Value, artifact_type: Option<&str>| {
        manifest["subject"] = subject.clone();
        if let Some(artifact_type) = artifact_type {
            manifest["artifactType"] = artifact_type.into();
        }
        manifest
    };
    for (manifest, expected) in [
        (with_subject(image(b"{}", &[]), Some("a/own")), json!("a/own")),
        (with_subject(image(b"{}", &[]), None), json!(MediaType::OCI_CONFIG)),
        (
            with_subject(image(b"{}", &[b"{}"]), Some("")),
            json!(MediaType::OCI_CONFIG),
        ),
        (with_subject(index(&[]), Some("a/own")), json!("a/own")),
        (with_subject(index(&[]), None), json!(null)),
    ] {
        let bytes = bytes_of(&manifest);
        world.put_manifest("a", "t", bytes.clone()).await.expect(201);
        let answer = world
            .get(format!("/v2/a/referrers/{}", sha256(b"subject")))
            .send()
            .await
            .expect(200);
        let body = answer.json();
        let [shown] = body["manifests"].as_array().unwrap().as_slice() else {
            panic!("{body}");
        };
        assert_eq!(shown.get("artifactType").cloned().unwrap_or(json!(null)), expected);
        assert_eq!(shown["mediaType"], manifest["mediaType"]);
        assert_eq!(shown["size"], bytes.len());
        assert_eq!(shown.get("annotations"), None);
        world
            .delete(format!("/v2/a/manifests/{}", sha256(&bytes)))
            .send()
            .await
            .expect(202);
    }
}

fn annotated(number: usize, length: usize) -> Bytes {
    let mut manifest = artifact("a/b", b"subject");
    manifest["annotations"] = json!({ "number": number.to_string(), "filler": "x".repeat(length) });
    bytes_of(&manifest)
}

/// Annotations that are too large for a row are listed too.
#[tokio::test]
async fn large_annotations() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let overhead = json!({ "number": "0", "filler": "" }).to_string().len();
    let bound = (32 << 10) - overhead;
    for (number, (length, reads)) in [(bound, 0), (bound + 1, 1), (1 << 20, 1)].into_iter().enumerate() {
        let manifest = annotated(number, length);
        world.put_manifest("a", "t", manifest.clone()).await.expect(201);
        let _ = world.counts.take();
        let answer = world
            .get(format!("/v2/a/referrers/{}", sha256(b"subject")))
            .send()
            .await
            .expect(200);
        assert_eq!(world.counts.of(StoreMethod::Manifest), reads, "{length}");
        let body: Value = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(answer.json()["manifests"][0]["annotations"], body["annotations"]);
        world
            .delete(format!("/v2/a/manifests/{}", sha256(&manifest)))
            .send()
            .await
            .expect(202);
    }
}

/// No page is larger than a manifest that a client could push, and none is empty because of that limit.
#[tokio::test]
async fn pages_of_referrers_are_bounded_in_bytes() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    for number in 0..9 {
        world
            .put_manifest("a", "t", annotated(number, 1 << 20))
            .await
            .expect(201);
    }
    world
        .put_manifest("a", "t", annotated(9, (4 << 20) - 1000))
        .await
        .expect(201);
    let target = format!("/v2/a/referrers/{}", sha256(b"subject"));
    let mut next = Some(target);
    let (mut found, mut pages) = (0, 0);
    while let Some(target) = next {
        let answer = world.get(target).send().await.expect(200);
        assert!(answer.body.len() <= 4 << 20, "{} bytes", answer.body.len());
        let count = answer.json()["manifests"].as_array().unwrap().len();
        assert!(count > 0);
        found += count;
        pages += 1;
        next = answer.next();
    }
    assert_eq!(found, 10);
    assert!((4..=6).contains(&pages), "{pages} pages");
}

/// More referrers than are read at once are one page, if they are small.
#[tokio::test]
async fn very_many_referrers() {
    let world = World::new().await;
    let expected = refer(&world, 250).await;
    let target = format!("/v2/a/referrers/{}", sha256(b"subject"));
    let _ = world.counts.take();
    let pages = pages(&world, &target, "manifests").await;
    assert_eq!(pages.len(), 1);
    assert_eq!(pages[0].len(), expected.len());
    // 16, 32, 64, 100 and the rest.
    assert_eq!(world.counts.of(StoreMethod::Referrers), 5);
}
