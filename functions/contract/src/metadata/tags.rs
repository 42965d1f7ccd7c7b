//! Tags, their versions, and their history.

use registry::store::access::{Author, Occasion};
use registry::store::metadata::{AllowAll, Defect, HistoryRecord, Removal};

use super::{MetadataTest, WHO, author, digest, location, manifest, repository, tag};
use crate::metadata::DescribeManifest as _;

/// A new tag names its manifest, its version follows the time, and its history has one entry.
pub async fn a_new_tag_begins_its_history(test: MetadataTest) {
    let name = repository("a");
    let latest = tag("latest");
    assert_eq!(test.tag(&name, &latest).await, None);
    assert!(test.history(&name, &latest).await.is_empty());
    let put = manifest(&name, "manifest").tagged([latest.clone()]);
    test.put(&put).await;
    let record = test.tag(&name, &latest).await.expect("the tag");
    assert_eq!(record.version, test.now().0 << 12);
    let created = HistoryRecord {
        version: record.version,
        before: None,
        after: Some(put.digest),
        principal: WHO.to_owned(),
        promoted_from: None,
        at: test.now(),
        since: None,
    };
    assert_eq!(test.history(&name, &latest).await, [created]);
    // Tags that differ in case only are two.
    assert_eq!(test.tag(&name, &tag("LATEST")).await, None);
}

/// One read answers a tag with its manifest, the same as two reads one after the other.
pub async fn a_tag_is_read_with_its_manifest(test: MetadataTest) {
    let (name, other) = (repository("a"), repository("b"));
    let latest = tag("latest");
    let read = async |name| {
        let read = test.store.tagged_manifest(test.cx(), name, &latest).await;
        read.expect("tagged_manifest")
    };
    let small = manifest(&name, "small").tagged([latest.clone()]);
    let large = manifest(&name, "large").stored_at(location(1)).tagged([latest.clone()]);
    for put in [&small, &large] {
        test.put(put).await;
        let record = test.tag(&name, &latest).await.expect("the tag");
        let manifest = test.manifest(&name, &put.digest).await;
        assert!(manifest.is_some() && record.digest == put.digest);
        assert_eq!(read(&name).await, Some((record, manifest)));
        assert_eq!(read(&other).await, None);
    }
    let recorded = test
        .store
        .record_defect(test.cx(), None, &large.digest, &location(1), Defect::Missing)
        .await;
    assert_eq!(recorded.expect("record_defect"), None);
    let (_, lost) = read(&name).await.expect("the tag");
    assert_eq!(lost, test.manifest(&name, &large.digest).await);
    assert!(lost.is_some_and(|lost| lost.content.is_defective()));
    assert!(test.delete_tag(&name, &latest).await);
    assert_eq!(read(&name).await, None);
}

/// A version is the larger of the previous version plus 1 and the time, also after the tag was deleted. It never
/// repeats.
pub async fn versions_follow_the_time_and_never_repeat(test: MetadataTest) {
    let name = repository("a");
    let latest = tag("latest");
    let puts = ["one", "two"].map(|content| manifest(&name, content).tagged([latest.clone()]));
    let mut last = 0;
    for (step, millis) in [0, 0, 0, 0, 1, 0, 0, 1000, 0, 0, 0, 0].into_iter().enumerate() {
        test.advance(millis);
        let expected = (last + 1).max(test.now().0 << 12);
        if step % 3 == 2 {
            assert!(test.delete_tag(&name, &latest).await);
        } else {
            test.put(&puts[step % 2]).await;
            let record = test.tag(&name, &latest).await.expect("the tag");
            assert_eq!(record.version, expected, "step {step}");
            assert_eq!(record.at, test.now());
        }
        let history = test.assert_chain(&name, &latest).await;
        assert_eq!(history.len(), step + 1);
        assert_eq!(history[0].version, expected, "step {step}");
        assert_eq!(history[0].at, test.now());
        last = expected;
    }
}

/// Versions grow also when the clock of another instance is behind.
pub async fn versions_grow_when_the_clock_does_not(test: MetadataTest) {
    let name = repository("a");
    let latest = tag("latest");
    let put = |content: &str| manifest(&name, content).tagged([latest.clone()]);
    test.put(&put("one")).await;
    let first = test.tag(&name, &latest).await.expect("the tag").version;
    for (number, delete) in [(1, false), (2, true), (3, false)] {
        let mut cx = test.cx();
        cx.now.0 -= 1_000_000;
        if delete {
            let deleted = test
                .store
                .delete_tag(cx, &name, &latest, &author(), &AllowAll::shared())
                .await;
            assert_eq!(deleted.expect("delete_tag"), Removal::Removed);
        } else {
            let put = put(&format!("manifest {number}"));
            test.store
                .put_manifest(cx, &put, &AllowAll::shared())
                .await
                .expect("put_manifest");
        }
        let history = test.assert_chain(&name, &latest).await;
        assert_eq!(history[0].version, first + number);
        assert_eq!(history[0].at, cx.now, "the time is answered as it was");
    }
}

/// A tag moves to another manifest. Both manifests stay, and the history says from which to which, and by which
/// principal.
pub async fn a_moved_tag_keeps_both_manifests(test: MetadataTest) {
    let name = repository("a");
    let latest = tag("latest");
    let one = manifest(&name, "one").tagged([latest.clone(), tag("stays")]);
    let mut two = manifest(&name, "the second").tagged([latest.clone()]);
    two.author.principal = String::from("another principal");
    two.media_type = super::media_type("application/vnd.example+json");
    test.put(&one).await;
    test.put(&two).await;
    let record = test.tag(&name, &latest).await.expect("the tag");
    assert_eq!((record.digest, record.size), (two.digest, two.size));
    assert_eq!(record.media_type, two.media_type);
    assert_eq!(
        test.tag(&name, &tag("stays")).await.expect("the tag").digest,
        one.digest
    );
    assert!(test.manifest(&name, &one.digest).await.is_some());

    test.put(&one).await;
    let history = test.assert_chain(&name, &latest).await;
    let changes: Vec<_> = history
        .iter()
        .map(|change| (change.before, change.after, change.principal.as_str()))
        .collect();
    assert_eq!(
        changes,
        [
            (Some(two.digest), Some(one.digest), WHO),
            (Some(one.digest), Some(two.digest), "another principal"),
            (None, Some(one.digest), WHO),
        ]
    );
}

/// Putting a manifest under a tag that names it already is no change.
pub async fn an_unmoved_tag_gets_no_history(test: MetadataTest) {
    let name = repository("a");
    let latest = tag("latest");
    let put = manifest(&name, "manifest").tagged([latest.clone()]);
    test.put(&put).await;
    let version = test.tag(&name, &latest).await.expect("the tag").version;
    for _ in 0..3 {
        test.advance(1000);
        test.put(&put).await;
    }
    assert_eq!(test.tag(&name, &latest).await.expect("the tag").version, version);
    assert_eq!(test.history(&name, &latest).await.len(), 1);
}

/// A deleted tag is gone; its manifest and its history stay. Deleting it again is answered as absent.
pub async fn deleting_a_tag_keeps_its_manifest(test: MetadataTest) {
    let name = repository("a");
    let (latest, other) = (tag("latest"), tag("other"));
    assert!(!test.delete_tag(&name, &latest).await, "there is none");
    let put = manifest(&name, "manifest").tagged([latest.clone(), other.clone()]);
    test.put(&put).await;
    test.advance(5);
    let deleted = test
        .store
        .delete_tag(
            test.cx(),
            &name,
            &latest,
            &Author::new("the deleter"),
            &AllowAll::shared(),
        )
        .await;
    assert_eq!(deleted.expect("delete_tag"), Removal::Removed);
    assert_eq!(test.tag(&name, &latest).await, None);
    assert_eq!(test.tags(&name, None, 10).await.items, std::slice::from_ref(&other));
    assert!(test.manifest(&name, &put.digest).await.is_some());
    assert!(test.tag(&name, &other).await.is_some());
    assert!(!test.delete_tag(&name, &latest).await, "again");

    let history = test.assert_chain(&name, &latest).await;
    assert_eq!(history.len(), 2);
    assert_eq!((history[0].before, history[0].after), (Some(put.digest), None));
    assert_eq!(history[0].principal, "the deleter");
    assert_eq!(history[0].at, test.now());
    assert_eq!(history[0].since, Some(history[1].at), "since when the tag had stood");
    assert_eq!(history[1].since, None, "the change was no deletion");
}

/// The history of a tag that a promotion has changed says what was promoted. No other change does.
pub async fn a_promotion_is_recorded_with_its_source(test: MetadataTest) {
    let name = repository("a");
    let latest = tag("latest");
    let (one, two) = (manifest(&name, "one"), manifest(&name, "two"));
    let promotion = |from: &str| Occasion::Promotion { from: from.to_owned() };
    let sources = [
        Occasion::Push,
        promotion("b:1.0"),
        Occasion::Rollback,
        promotion("a@b\"\t"),
    ];
    for (occasion, put) in sources.into_iter().zip([&one, &two].into_iter().cycle()) {
        test.advance(1);
        let mut put = put.clone().tagged([latest.clone()]);
        put.author.occasion = occasion;
        test.put(&put).await;
    }
    assert!(test.delete_tag(&name, &latest).await);
    let history = test.assert_chain(&name, &latest).await;
    let found: Vec<_> = history
        .iter()
        .map(|change| (&*change.principal, change.promoted_from.as_deref()))
        .collect();
    let expected = [None, Some("a@b\"\t"), None, Some("b:1.0"), None];
    assert_eq!(found, expected.map(|source| (WHO, source)));
}

/// A history belongs to one tag in one repository.
pub async fn each_tag_has_its_own_history(test: MetadataTest) {
    let names = ["a", "a/b", "b"].map(repository);
    let tags = ["a", "b", "A"].map(tag);
    for name in &names {
        for tag in &tags {
            let content = format!("{name} {tag}");
            test.put(&manifest(name, content).tagged([tag.clone()])).await;
        }
    }
    for name in &names {
        for tag in &tags {
            let history = test.assert_chain(name, tag).await;
            assert_eq!(history.len(), 1);
            assert_eq!(history[0].after, Some(digest(format!("{name} {tag}"))));
        }
    }
}

/// The history is listed in pages, newest first: below a version, up to the limit, and whether more follows.
pub async fn history_is_listed_in_pages(test: MetadataTest) {
    let name = repository("a");
    let latest = tag("latest");
    for number in 0..10_u64 {
        test.advance(number % 3);
        let content = format!("manifest {number}");
        test.put(&manifest(&name, content).tagged([latest.clone()])).await;
    }
    let all = test.assert_chain(&name, &latest).await;
    assert_eq!(all.len(), 10);
    for limit in 1..=11 {
        let mut found: Vec<HistoryRecord> = Vec::new();
        loop {
            let before = found.last().map(|change| change.version);
            let page = test.history_page(&name, &latest, before, limit).await;
            assert_eq!(page.items.len(), limit.min(10 - found.len()));
            found.extend(page.items);
            assert_eq!(page.more, found.len() < 10, "pages of {limit}");
            if !page.more {
                break;
            }
        }
        assert_eq!(found, all, "pages of {limit}");
    }
    let between = test.history_page(&name, &latest, Some(all[4].version + 1), 100).await;
    assert_eq!(between.items, all[4..], "below a version, whether or not it exists");
    let none = test.history_page(&name, &latest, Some(all[9].version), 100).await;
    assert!(none.items.is_empty() && !none.more);
    let largest = test.history_page(&name, &latest, Some(u64::MAX), 100).await;
    assert_eq!(largest.items, all);
}
