//! Tags that come back after a deletion: what was frozen keeps its digest, and what was not begins anew.

use registry::store::metadata::{ManifestPut, Removal};

use super::guards::{Freezing, GRACE_MS, deleted, frozen};
use super::{DescribeManifest as _, MetadataTest, manifest, repository, tag};

/// A tag that was deleted while it was frozen comes back only with the digest that it had, however it was deleted. A
/// tag that was deleted within its grace comes back with any digest.
pub async fn a_deleted_frozen_tag_comes_back_with_its_digest(test: MetadataTest) {
    let guard = Freezing::with_deletions(GRACE_MS);
    for with_manifest in [false, true] {
        let name = repository(if with_manifest { "a" } else { "b" });
        let v1 = tag("v1");
        let one = manifest(&name, "one").tagged([v1.clone()]);
        let two = manifest(&name, "two").tagged([v1.clone()]);
        let delete = async |put| {
            if with_manifest {
                test.delete_with(put, &guard).await
            } else {
                test.delete_tag_with(put, &v1, &guard).await
            }
        };
        test.stored_with(&one, &guard).await;
        test.advance(GRACE_MS - 1);
        assert_eq!(delete(&one).await, Removal::Removed);
        // However long it has been deleted.
        test.advance(GRACE_MS);
        test.stored_with(&two, &guard).await;
        test.advance(GRACE_MS);
        assert_eq!(delete(&two).await, Removal::Removed);
        let refused = ManifestPut::Protected(deleted(&v1, two.digest));
        for _ in 0..2 {
            assert_eq!(test.put_with(&one, &guard).await, refused);
            test.advance(GRACE_MS);
        }
        assert_eq!(test.tag(&name, &v1).await, None);
        test.stored_with(&two, &guard).await;
        assert_eq!(test.tag(&name, &v1).await.expect("the tag").digest, two.digest);
        test.assert_chain(&name, &v1).await;
    }
}

/// A frozen tag that comes back with its digest counts as naming it since the time from before its deletion, so it is
/// frozen at once, however often and however it was deleted. Its history has the times of the changes.
pub async fn a_frozen_tag_that_comes_back_is_frozen_at_once(test: MetadataTest) {
    let guard = Freezing::with_deletions(GRACE_MS);
    for (with_manifest, deletions) in [(false, 1), (false, 2), (true, 1), (true, 2)] {
        let name = repository(&format!("a{deletions}-{with_manifest}"));
        let v1 = tag("v1");
        let [one, two] = ["one", "two"].map(|content| manifest(&name, content).tagged([v1.clone()]));
        let delete = async || {
            let removal = if with_manifest {
                test.delete_with(&one, &guard).await
            } else {
                test.delete_tag_with(&one, &v1, &guard).await
            };
            assert_eq!(removal, Removal::Removed);
        };
        test.stored_with(&one, &guard).await;
        let stood_since = test.now();
        test.advance(GRACE_MS);
        for number in 0..deletions {
            delete().await;
            test.advance(number);
            test.stored_with(&one, &guard).await;
            let record = test.tag(&name, &v1).await.expect("the tag");
            assert_eq!((record.digest, record.at), (one.digest, stood_since));
            let history = test.assert_chain(&name, &v1).await;
            assert_eq!((history[0].version, history[0].at), (record.version, test.now()));
            assert_eq!(history[1].since, Some(stood_since), "a deletion");
        }
        let refused = ManifestPut::Protected(frozen(&v1, one.digest));
        assert_eq!(test.put_with(&two, &guard).await, refused, "{deletions} deletions");
        delete().await;
        let refused = ManifestPut::Protected(deleted(&v1, one.digest));
        assert_eq!(test.put_with(&two, &guard).await, refused, "{deletions} deletions");
        assert_eq!(test.tag(&name, &v1).await, None);
    }
}

/// A tag that was not frozen when it was deleted is as new when it comes back, also with the digest that it had.
pub async fn a_deleted_tag_that_was_not_frozen_begins_anew(test: MetadataTest) {
    let name = repository("a");
    let guard = Freezing::with_deletions(GRACE_MS);
    // The first is deleted within its grace. The second is never frozen.
    for (tag, stood_ms, is_frozen_later) in [(tag("v1"), GRACE_MS - 1, true), (tag("latest"), GRACE_MS, false)] {
        let [one, two] = ["one", "two"].map(|content| manifest(&name, content).tagged([tag.clone()]));
        test.stored_with(&one, &guard).await;
        test.advance(stood_ms);
        assert_eq!(test.delete_tag_with(&one, &tag, &guard).await, Removal::Removed);
        test.advance(GRACE_MS);
        test.stored_with(&one, &guard).await;
        assert_eq!(test.tag(&name, &tag).await.expect("the tag").at, test.now());
        test.advance(GRACE_MS - 1);
        test.stored_with(&two, &guard).await;
        test.advance(GRACE_MS);
        let outcome = test.put_with(&one, &guard).await;
        let refused = ManifestPut::Protected(frozen(&tag, two.digest));
        assert_eq!(outcome == refused, is_frozen_later, "{outcome:?}");
    }
}
