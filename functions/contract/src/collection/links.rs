//! Unreferenced links: marked by one pass, unlinked by a later one, and unmarked by every push.

use registry::store::collection::Plan;
use registry::store::metadata::{ManifestPut, Removal};

use super::{CollectionTest, DEEP, GRACE, HOUR, PLAN};
use crate::collection::Done as _;
use crate::metadata::DescribeManifest as _;
use crate::metadata::{digest, location, manifest, repository, tag};

/// An unreferenced link is marked when it is old enough, and stays readable. A pass that runs a grace period after the
/// mark unlinks it.
pub async fn an_unreferenced_link_is_unlinked_by_a_later_pass(test: CollectionTest) {
    let metadata = test.metadata();
    let name = repository("a");
    let blob = digest("blob");
    metadata.commit(&name, &blob).await;
    let link = metadata.link(&name, &blob).await;
    assert!(link.is_some());

    assert_eq!(test.run_twice(&PLAN).await.done(), (0, 0, 0, 0), "at once");
    test.advance(PLAN.grace_periods.link_ms - 1000);
    assert_eq!(
        test.run_twice(&PLAN).await.done(),
        (0, 0, 0, 0),
        "before the grace has passed"
    );
    test.advance(2000);
    let statistics = test.run(&PLAN).await;
    assert_eq!(statistics.done(), (1, 0, 0, 0), "marked");
    assert_eq!(statistics.marked_bytes, 1000);
    assert_eq!(statistics.waiting, 0, "what was marked now is counted once");
    let statistics = test.run(&PLAN).await;
    assert_eq!(statistics.done(), (0, 0, 0, 0), "marked once");
    assert_eq!(
        (statistics.waiting, statistics.waiting_bytes),
        (1, 1000),
        "and reported"
    );
    let dry = Plan { dry_run: true, ..PLAN };
    assert_eq!(test.run(&dry).await, statistics, "by a dry run, too");
    test.advance(PLAN.grace_periods.link_ms - 1000);
    assert_eq!(
        test.run_twice(&PLAN).await.done(),
        (0, 0, 0, 0),
        "before the grace of the mark"
    );
    assert_eq!(metadata.link(&name, &blob).await, link, "a mark hides nothing");
    test.advance(2000);
    let statistics = test.run_twice(&PLAN).await;
    assert_eq!(
        statistics.done(),
        (0, 1, 1, 0),
        "unlinked, and its object scheduled for deletion"
    );
    assert_eq!(statistics.waiting, 0);
    assert_eq!(statistics.scheduled_bytes, 1000);
    assert_eq!(metadata.link(&name, &blob).await, None);
    assert!(metadata.linking_repositories(&blob).await.is_empty());
    assert_eq!(
        test.run_twice(&PLAN).await.done(),
        (0, 0, 0, 0),
        "and nothing else is left to do"
    );
}

/// Whatever a manifest refers to is never collected, however old it is: blobs, children and excepted references.
pub async fn a_referenced_link_is_never_collected(test: CollectionTest) {
    let metadata = test.metadata();
    let name = repository("a");
    let blobs = [digest("config"), digest("layer"), digest("foreign layer")];
    for blob in &blobs {
        metadata.commit(&name, blob).await;
    }
    let child = manifest(&name, "child")
        .requiring([blobs[0], blobs[1]])
        .excepting([blobs[2]]);
    let index = manifest(&name, "index")
        .requiring([child.digest])
        .tagged([tag("latest")]);
    metadata.put(&child).await;
    metadata.put(&index).await;
    let before = test.everything().await;
    for _ in 0..4 {
        test.advance(GRACE);
        assert_eq!(test.run(&DEEP).await.done(), (0, 0, 0, 0));
    }
    assert_eq!(test.everything().await, before);
    for blob in &blobs {
        assert_eq!(metadata.unlink(&name, blob).await, Removal::Referenced(child.digest));
    }
}

/// Manifests are never collected, with or without tags, whether their bytes are in the record or in an object.
pub async fn an_untagged_manifest_is_never_collected(test: CollectionTest) {
    let metadata = test.metadata();
    let name = repository("a");
    let puts = [
        manifest(&name, "small"),
        manifest(&name, "large").stored_at(location(1)),
        manifest(&name, "referrer").about(digest("a subject that is not there")),
    ];
    for put in &puts {
        metadata.put(put).await;
    }
    for _ in 0..4 {
        test.advance(GRACE);
        assert_eq!(test.run(&DEEP).await.done(), (0, 0, 0, 0));
    }
    for put in &puts {
        assert!(metadata.manifest(&name, &put.digest).await.is_some());
    }
}

/// An unreferenced link is collected although another repository has the same bytes, which stay.
pub async fn links_are_collected_by_repository(test: CollectionTest) {
    let metadata = test.metadata();
    let (used, loose) = (repository("used"), repository("loose"));
    let blob = digest("blob");
    metadata.commit(&used, &blob).await;
    assert!(metadata.mount(&loose, &blob, &used).await);
    metadata.put(&manifest(&used, "manifest").requiring([blob])).await;
    // The digest is referenced there, but not in this repository.
    metadata.put(&manifest(&loose, "unrelated")).await;
    test.advance(GRACE);
    assert_eq!(test.run(&PLAN).await.done(), (1, 0, 0, 0));
    test.advance(GRACE);
    assert_eq!(test.run_twice(&PLAN).await.done(), (0, 1, 0, 0));
    assert_eq!(metadata.link(&loose, &blob).await, None);
    assert!(metadata.link(&used, &blob).await.is_some());
    assert_eq!(metadata.linking_repositories(&blob).await, [used]);
    assert!(test.pending_deletions().await.is_empty());
}

/// The calls by which a push unmarks a blob.
const KEEPERS: [&str; 4] = ["link_and_unmark", "commit", "mount", "put"];

/// A push removes the mark: the next pass marks the link anew and does not unlink it.
pub async fn a_push_removes_the_mark(test: CollectionTest) {
    let metadata = test.metadata();
    for keeper in KEEPERS {
        let (name, other) = (repository(&format!("a/{keeper}")), repository(&format!("b/{keeper}")));
        let blob = digest(format!("blob of {keeper}"));
        metadata.commit(&name, &blob).await;
        let link = metadata.link(&name, &blob).await.expect("the link");
        if keeper == "mount" {
            metadata.commit(&other, &blob).await;
            metadata
                .put(&manifest(&other, "keeps the source").requiring([blob]))
                .await;
        }
        test.advance(GRACE);
        assert_eq!(test.marked_link(&name, &blob).await, Some((link.clone(), false)));
        assert_eq!(test.run(&PLAN).await.done(), (1, 0, 0, 0), "{keeper}");
        test.advance(GRACE);
        assert_eq!(test.marked_link(&name, &blob).await, Some((link.clone(), true)));
        assert_eq!(
            test.marked_link(&name, &blob).await,
            Some((link.clone(), true)),
            "it was only read"
        );
        match keeper {
            "link_and_unmark" => assert_eq!(test.link_and_unmark(&name, &blob).await, Some(link.clone())),
            "commit" => metadata.commit_at(&name, &blob, &location(7)).await,
            "mount" => assert!(metadata.mount(&name, &blob, &other).await),
            _ => {
                let put = manifest(&name, "manifest").requiring([blob]);
                metadata.put(&put).await;
                assert_eq!(test.run_twice(&PLAN).await.done(), (0, 0, 0, 0), "it is referred to");
                assert_eq!(metadata.delete_manifest(&name, &put.digest).await, Removal::Removed);
            }
        }
        assert_eq!(test.run(&PLAN).await.done(), (1, 0, 0, 0), "{keeper}: marked anew");
        assert_eq!(metadata.link(&name, &blob).await, Some(link), "{keeper}: the same uid");
        test.advance(GRACE);
        assert_eq!(
            test.run_twice(&PLAN).await.done(),
            (0, 1, u64::from(keeper != "mount"), 0),
            "{keeper}"
        );
        assert_eq!(
            metadata.link(&name, &blob).await,
            None,
            "{keeper}: until pushes have ended"
        );
    }
}

/// A read of a link does not remove the mark: pulls by digest would keep unreferenced blobs for ever.
pub async fn a_pull_does_not_remove_the_mark(test: CollectionTest) {
    let metadata = test.metadata();
    let name = repository("a");
    let blob = digest("blob");
    metadata.commit(&name, &blob).await;
    test.advance(GRACE);
    assert_eq!(test.run(&PLAN).await.done(), (1, 0, 0, 0));
    test.advance(GRACE);
    assert!(metadata.link(&name, &blob).await.is_some());
    assert_eq!(metadata.linking_repositories(&blob).await, std::slice::from_ref(&name));
    assert_eq!(test.run(&PLAN).await.unlinked, 1);
}

/// `link_and_unmark` answers the same as `link`, and creates no link, also not for a manifest.
pub async fn link_and_unmark_creates_no_link(test: CollectionTest) {
    let metadata = test.metadata();
    let (name, other) = (repository("a"), repository("b"));
    let blob = digest("blob");
    let put = manifest(&name, "manifest").stored_at(location(1));
    metadata.put(&put).await;
    assert_eq!(test.link_and_unmark(&name, &put.digest).await, None);
    assert_eq!(test.link_and_unmark(&name, &blob).await, None);
    metadata.commit(&name, &blob).await;
    assert_eq!(test.link_and_unmark(&other, &blob).await, None);
    assert_eq!(
        test.link_and_unmark(&name, &blob).await,
        metadata.link(&name, &blob).await
    );
    assert_eq!(metadata.unlink(&name, &blob).await, Removal::Removed);
    assert_eq!(test.link_and_unmark(&name, &blob).await, None);
    assert_eq!(metadata.link(&name, &blob).await, None);
    assert!(metadata.linking_repositories(&blob).await.is_empty());
}

/// A marked link can be used like every other: referred to, mounted from, and unlinked.
pub async fn a_marked_link_can_be_used(test: CollectionTest) {
    let metadata = test.metadata();
    let (name, other) = (repository("a"), repository("b"));
    let blobs: Vec<_> = (0..3).map(|number| digest(format!("blob {number}"))).collect();
    for blob in &blobs {
        metadata.commit(&name, blob).await;
    }
    test.advance(GRACE);
    assert_eq!(test.run(&PLAN).await.marked, 3);
    let put = manifest(&name, "manifest").requiring([blobs[0]]);
    assert_eq!(metadata.try_put(&put).await, ManifestPut::Stored);
    assert!(metadata.mount(&other, &blobs[1], &name).await);
    assert_eq!(metadata.unlink(&name, &blobs[2]).await, Removal::Removed);
    test.advance(GRACE);
    assert_eq!(test.run_twice(&PLAN).await.scheduled, 1);
    assert!(metadata.link(&name, &blobs[0]).await.is_some());
    assert!(metadata.linking_repositories(&blobs[1]).await.contains(&other));
    assert_eq!(test.scheduled().await, [super::own_location(&blobs[2])]);
}

/// A link that was unlinked and created again is young: the mark of the earlier uid does not count.
pub async fn a_link_that_was_created_again_is_young(test: CollectionTest) {
    let metadata = test.metadata();
    let name = repository("a");
    let blob = digest("blob");
    metadata.commit(&name, &blob).await;
    test.advance(GRACE);
    assert_eq!(test.run(&PLAN).await.marked, 1);
    test.advance(GRACE);
    assert_eq!(metadata.unlink(&name, &blob).await, Removal::Removed);
    metadata.commit(&name, &blob).await;
    assert_eq!(test.run_twice(&PLAN).await.done(), (0, 0, 0, 0));
    test.advance(HOUR);
    assert_eq!(test.run_twice(&PLAN).await.done(), (0, 0, 0, 0));
    assert!(metadata.link(&name, &blob).await.is_some());
}
