//! Lists: sorted by bytes, in pages, from after any text.

use oci::{Algorithm, Digest};
use registry::store::Page;
use registry::store::metadata::Removal;

use super::{MetadataTest, digest, manifest, media_type, repository, tag};
use crate::metadata::DescribeManifest as _;

/// The tags of the clause, sorted by their bytes: without locale, case folding or numbers.
const TAGS: [&str; 14] = [
    "0", "10", "2", "A", "B", "Z9", "__", "_x", "a", "a-1", "a.1", "a0", "a_1", "b",
];

/// Repository names in the order of their bytes, in which `-` and `.` come before `/`, and digits after it.
const NAMES: [&str; 12] = [
    "0", "a", "a-b", "a-b/c", "a.b", "a/a", "a/b", "a/b/c", "a0", "a_b", "aa", "b",
];

/// What every list must answer after `after`: the part of `sorted` behind it, up to `limit`.
fn expected<T: Clone + AsRef<str>>(sorted: &[T], after: Option<&str>, limit: usize) -> (Vec<T>, bool) {
    let rest: Vec<T> = sorted
        .iter()
        .filter(|item| after.is_none_or(|after| item.as_ref() > after))
        .cloned()
        .collect();
    let more = rest.len() > limit;
    (rest.into_iter().take(limit).collect(), more)
}

/// Texts after which a list is requested: valid names, and texts that no client should send.
const AFTER: [&str; 21] = [
    "",
    " ",
    "!",
    "-",
    ".",
    "/",
    "0",
    "1",
    "10",
    "9",
    "A",
    "Z9",
    "_",
    "a",
    "a-b",
    "a/",
    "a/b",
    "a0",
    "b",
    "~",
    "é\u{10ffff}\0'\"%_",
];

/// Tags are listed in ASCII order, after any text, and a page ends exactly at the limit.
pub async fn tags_are_listed_in_ascii_order(test: MetadataTest) {
    let name = repository("a/b");
    let empty = test.tags(&name, None, 10).await;
    assert_eq!(
        empty,
        Page {
            items: Vec::new(),
            more: false
        }
    );
    let mut tags = TAGS.map(tag);
    // In another order than that of the list, in several pushes.
    tags.reverse();
    tags.swap(2, 9);
    for (number, some) in tags.chunks(3).enumerate() {
        let content = format!("manifest {number}");
        test.put(&manifest(&name, content).tagged(some.to_vec())).await;
    }
    // Other repositories are no part of the list.
    for other in ["a", "a/b/c", "a/a", "a/c"] {
        test.put(&manifest(&repository(other), "m").tagged([tag("a"), tag("zz")]))
            .await;
    }
    let sorted = TAGS.map(tag);
    for after in AFTER.into_iter().map(Some).chain([None]) {
        for limit in [1, 2, 13, 14, 15, 1000] {
            let page = test.tags(&name, after, limit).await;
            let (items, more) = expected(&sorted, after, limit);
            assert_eq!((page.items, page.more), (items, more), "{limit} after {after:?}");
        }
    }
    assert!(test.delete_tag(&name, &tag("a")).await);
    let page = test.tags(&name, Some("__"), 2).await;
    assert_eq!(page.items, [tag("_x"), tag("a-1")]);
}

/// A repository is listed from its first published manifest on. The list is in ASCII order.
pub async fn repositories_are_listed_in_ascii_order(test: MetadataTest) {
    let empty = test.repositories(None, 10).await;
    assert_eq!(
        empty,
        Page {
            items: Vec::new(),
            more: false
        }
    );
    let mut names = NAMES.map(repository);
    names.reverse();
    names.swap(1, 7);
    for name in &names {
        test.put(&manifest(name, "manifest")).await;
        test.put(&manifest(name, "another")).await;
    }
    let sorted = NAMES.map(repository);
    for after in AFTER.into_iter().map(Some).chain([None]) {
        for limit in [1, 2, 11, 12, 13, 1000] {
            let page = test.repositories(after, limit).await;
            let (items, more) = expected(&sorted, after, limit);
            assert_eq!((page.items, page.more), (items, more), "{limit} after {after:?}");
        }
    }
}

/// A repository exists once a manifest was published in it. A blob, a mount or a refused manifest does not create it,
/// and deleting the manifest does not remove it.
pub async fn only_a_published_manifest_creates_a_repository(test: MetadataTest) {
    let (blobs, mounts, refused, emptied) = (
        repository("blobs"),
        repository("mounts"),
        repository("refused"),
        repository("emptied"),
    );
    let blob = digest("blob");
    test.commit(&blobs, &blob).await;
    assert!(test.mount(&mounts, &blob, &blobs).await);
    test.try_put(&manifest(&refused, "m").requiring([blob])).await;
    let put = manifest(&emptied, "m").tagged([tag("t")]);
    test.put(&put).await;
    assert_eq!(test.delete_manifest(&emptied, &put.digest).await, Removal::Removed);
    for name in [&blobs, &mounts, &refused] {
        assert!(!test.is_listed(name).await, "{name}");
    }
    assert!(test.is_listed(&emptied).await);
    assert_eq!(test.repositories(None, 10).await.items, [emptied]);
}

/// Digests in the order of their texts, of both algorithms.
fn digests(prefix: &str) -> Vec<Digest> {
    let mut digests: Vec<_> = (0..9)
        .map(|number| {
            let algorithm = [Algorithm::Sha256, Algorithm::Sha512][number % 2];
            Digest::of(algorithm, format!("{prefix} {number}").as_bytes())
        })
        .collect();
    digests.sort_by_key(ToString::to_string);
    digests
}

/// The manifests of a repository are listed in the order of the text of their digests.
pub async fn manifests_are_listed_in_order(test: MetadataTest) {
    let name = repository("a");
    assert!(test.manifests(&name, None, 10).await.items.is_empty());
    let all = digests("manifest");
    for digest in all.iter().rev() {
        let mut put = manifest(&name, digest.to_string());
        put.digest = *digest;
        test.put(&put).await;
    }
    test.put(&manifest(&repository("a/b"), "another's")).await;
    test.commit(&name, &digest("a blob is no manifest")).await;
    for limit in [1, 2, 8, 9, 10] {
        let mut found: Vec<Digest> = Vec::new();
        loop {
            let page = test.manifests(&name, found.last(), limit).await;
            assert_eq!(page.items.len(), limit.min(9 - found.len()));
            found.extend(page.items);
            assert_eq!(page.more, found.len() < 9, "pages of {limit}");
            if !page.more {
                break;
            }
        }
        assert_eq!(found, all, "pages of {limit}");
    }
    let absent = digest("after a digest that is not there");
    let rest: Vec<_> = all.iter().filter(|digest| **digest > absent).copied().collect();
    assert_eq!(test.manifests(&name, Some(&absent), 100).await.items, rest);
    assert_eq!(test.delete_manifest(&name, &all[4]).await, Removal::Removed);
    assert!(!test.manifests(&name, None, 100).await.items.contains(&all[4]));
}

/// Referrers are listed in the order of their digests, with their descriptors as they were put. The subject need not
/// exist.
pub async fn referrers_are_listed_in_order(test: MetadataTest) {
    let name = repository("a");
    let subject = digest("a subject that does not exist");
    assert!(test.referring(&name, &subject).await.is_empty());
    let all = digests("referrer");
    let mut rows = Vec::new();
    for (number, digest) in all.iter().enumerate() {
        let mut put = manifest(&name, digest.to_string());
        put.digest = *digest;
        let mut put = put.about(subject);
        let (_, row) = put.subject.as_mut().expect("a row");
        match number % 3 {
            0 => {
                row.descriptor.annotations = None;
                row.annotations_omitted = true;
            }
            1 => row.descriptor.artifact_type = None,
            _ => {
                row.descriptor.artifact_type = Some(media_type("application/vnd.example.sbom"));
                row.descriptor.annotations = Some([(String::new(), "x".repeat(30_000))].into());
            }
        }
        rows.push(row.clone());
        test.put(&put).await;
    }
    // Another subject, and the same subject in another repository.
    test.put(&manifest(&name, "one").about(digest("another subject"))).await;
    test.put(&manifest(&repository("b"), "two").about(subject)).await;
    for limit in [1, 2, 8, 9, 10] {
        let mut found = Vec::new();
        loop {
            let after = found.last().map(|_| &all[found.len() - 1]);
            let page = test.referrers(&name, &subject, after, limit).await;
            assert_eq!(page.items.len(), limit.min(9 - found.len()));
            found.extend(page.items);
            assert_eq!(page.more, found.len() < 9, "pages of {limit}");
            if !page.more {
                break;
            }
        }
        assert!(found == rows, "pages of {limit}: {found:#?}");
    }
    let absent = digest("after a digest that is not there");
    let rest: Vec<_> = all.iter().filter(|digest| **digest > absent).copied().collect();
    let page = test.referrers(&name, &subject, Some(&absent), 100).await;
    assert!(page.items.iter().map(|row| row.descriptor.digest).eq(rest));
}

/// A deleted referrer is no longer listed. A referrer whose subject was deleted still is.
pub async fn a_referrer_is_listed_until_it_is_deleted(test: MetadataTest) {
    let name = repository("a");
    let subject = manifest(&name, "subject");
    let one = manifest(&name, "one").about(subject.digest);
    let two = manifest(&name, "two").about(subject.digest);
    test.put(&one).await;
    test.put(&subject).await;
    test.put(&two).await;
    let mut both = vec![one.digest, two.digest];
    both.sort();
    assert_eq!(test.referring(&name, &subject.digest).await, both);

    assert_eq!(
        test.delete_manifest(&name, &subject.digest).await,
        Removal::Removed,
        "referrers do not protect their subject"
    );
    assert_eq!(test.referring(&name, &subject.digest).await, both);
    assert_eq!(test.delete_manifest(&name, &one.digest).await, Removal::Removed);
    assert_eq!(test.referring(&name, &subject.digest).await, [two.digest]);
    test.put(&one).await;
    assert_eq!(test.referring(&name, &subject.digest).await, both);
    let chained = manifest(&name, "three").about(one.digest);
    test.put(&chained).await;
    assert_eq!(test.referring(&name, &one.digest).await, [chained.digest]);
}
