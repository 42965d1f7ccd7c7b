//! Races: concurrent calls have the same result as the same calls one after the other.

use std::collections::BTreeSet;

use registry::store::metadata::{Content, ManifestPut, Removal};

use super::{MetadataTest, digest, location, manifest, repository, tag};
use crate::metadata::DescribeManifest as _;

/// Rounds of each race.
const ROUNDS: usize = 40;

/// 32 commits of one digest at the same time, from 32 uploads into 4 repositories: all succeed, and one location
/// remains.
pub async fn racing_commits_leave_one_location(test: MetadataTest) {
    let names: Vec<_> = (0..4).map(|number| repository(&format!("r{number}"))).collect();
    for round in 0..4 {
        let blob = digest(format!("blob {round}"));
        test.together(32, |number| {
            let (test, name) = (test.clone(), names[number % 4].clone());
            async move { test.commit_at(&name, &blob, &location(round * 32 + number)).await }
        })
        .await;
        let mut links = Vec::new();
        for name in &names {
            links.push(test.link(name, &blob).await.expect("the link"));
        }
        assert!(links.iter().all(|link| link.location == links[0].location), "{links:?}");
        assert!((round * 32..(round + 1) * 32).any(|number| links[0].location == location(number)));
        assert_eq!(
            test.linking_repositories(&blob).await,
            names,
            "one link for each repository"
        );
        for name in &names {
            assert_eq!(test.unlink(name, &blob).await, Removal::Removed);
        }
        assert!(test.linking_repositories(&blob).await.is_empty(), "and no second one");
    }
}

/// The same large manifest is put at the same time in several repositories, twice in each: one location remains.
pub async fn racing_large_manifests_leave_one_location(test: MetadataTest) {
    let names: Vec<_> = (0..4).map(|number| repository(&format!("r{number}"))).collect();
    let puts = names.iter().flat_map(|name| [name, name]).enumerate();
    let puts: Vec<_> = puts
        .map(|(number, name)| manifest(name, "large").stored_at(location(number)))
        .collect();
    test.together(puts.len(), |number| {
        let (test, put) = (test.clone(), puts[number].clone());
        async move { test.put(&put).await }
    })
    .await;
    let mut contents = Vec::new();
    for name in &names {
        contents.push(
            test.manifest(name, &puts[0].digest)
                .await
                .expect("the manifest")
                .content,
        );
    }
    assert!(contents.iter().all(|content| *content == contents[0]));
    assert!((0..8).any(|number| contents[0] == Content::Stored(location(number))));
}

/// A manifest is put while its blob is unlinked: one of the two is refused, and no manifest is without its blob.
pub async fn a_put_races_the_unlink_of_its_blob(test: MetadataTest) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let blob = digest(format!("blob {round}"));
        let config = digest(format!("config {round}"));
        test.commit(&name, &blob).await;
        test.commit(&name, &config).await;
        let put = manifest(&name, format!("manifest {round}"))
            .requiring([blob, config])
            .tagged([tag("latest")]);
        let putting = {
            let (test, put) = (test.clone(), put.clone());
            async move { test.try_put(&put).await }
        };
        let unlinking = {
            let (test, name) = (test.clone(), name.clone());
            async move { test.unlink(&name, &blob).await }
        };
        let outcome = test.race(round % 2 == 0, putting, unlinking).await;
        let published = test.manifest(&name, &put.digest).await.is_some();
        let linked = test.link(&name, &blob).await.is_some();
        let tagged = test.tag(&name, &tag("latest")).await.map(|record| record.digest) == Some(put.digest);
        match &outcome {
            (ManifestPut::Stored, Removal::Referenced(parent)) => {
                assert_eq!(*parent, put.digest);
                assert_eq!((published, tagged, linked), (true, true, true));
            }
            (ManifestPut::Missing(missing), Removal::Removed) => {
                assert_eq!(*missing, [blob]);
                assert_eq!((published, tagged, linked), (false, false, false));
            }
            _ => panic!("round {round}: {outcome:?}, published: {published}, linked: {linked}"),
        }
    }
}

/// An index is put while its child is deleted: one of the two is refused.
pub async fn an_index_races_the_delete_of_its_child(test: MetadataTest) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let child = manifest(&name, format!("child {round}")).tagged([tag(&format!("child{round}"))]);
        test.put(&child).await;
        let index = manifest(&name, format!("index {round}")).requiring([child.digest]);
        let putting = {
            let (test, index) = (test.clone(), index.clone());
            async move { test.try_put(&index).await }
        };
        let deleting = {
            let (test, child) = (test.clone(), child.clone());
            async move { test.delete_manifest(&child.repository, &child.digest).await }
        };
        let outcome = test.race(round % 2 == 0, putting, deleting).await;
        let published = test.manifest(&name, &index.digest).await.is_some();
        let there = test.manifest(&name, &child.digest).await.is_some();
        let tagged = test.tag(&name, &child.tags[0]).await.is_some();
        match &outcome {
            (ManifestPut::Stored, Removal::Referenced(parent)) => {
                assert_eq!(*parent, index.digest);
                assert_eq!((published, there, tagged), (true, true, true));
            }
            (ManifestPut::Missing(missing), Removal::Removed) => {
                assert_eq!(*missing, [child.digest]);
                assert_eq!((published, there, tagged), (false, false, false));
            }
            _ => panic!("round {round}: {outcome:?}, published: {published}, child: {there}"),
        }
    }
}

/// A blob is mounted while it is unlinked in the source: the answer of the mount says whether there is a link.
pub async fn a_mount_races_the_unlink_of_its_source(test: MetadataTest) {
    let (from, to) = (repository("from"), repository("to"));
    for round in 0..ROUNDS {
        let blob = digest(format!("blob {round}"));
        test.commit(&from, &blob).await;
        let mounting = {
            let (test, from, to) = (test.clone(), from.clone(), to.clone());
            async move { test.mount(&to, &blob, &from).await }
        };
        let unlinking = {
            let (test, from) = (test.clone(), from.clone());
            async move { test.unlink(&from, &blob).await }
        };
        let (mounted, unlinked) = test.race(round % 2 == 0, mounting, unlinking).await;
        assert_eq!(unlinked, Removal::Removed);
        assert_eq!(test.link(&to, &blob).await.is_some(), mounted, "round {round}");
        assert_eq!(test.linking_repositories(&blob).await.len(), usize::from(mounted));
    }
}

/// A manifest is put again, with another tag, while it is deleted: both happen one after the other, with all their
/// records.
pub async fn a_put_races_the_delete_of_the_same_manifest(test: MetadataTest) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let blob = digest(format!("blob {round}"));
        let subject = digest(format!("subject {round}"));
        test.commit(&name, &blob).await;
        let (old, new) = (tag(&format!("old{round}")), tag(&format!("new{round}")));
        let put = manifest(&name, format!("manifest {round}"))
            .requiring([blob])
            .about(subject);
        test.put(&put.clone().tagged([old.clone()])).await;
        let again = put.clone().tagged([new.clone()]);
        let putting = {
            let test = test.clone();
            async move { test.try_put(&again).await }
        };
        let deleting = {
            let (test, put) = (test.clone(), put.clone());
            async move { test.delete_manifest(&put.repository, &put.digest).await }
        };
        let outcome = test.race(round % 2 == 0, putting, deleting).await;
        assert_eq!(outcome, (ManifestPut::Stored, Removal::Removed), "round {round}");

        let record = test.manifest(&name, &put.digest).await;
        let tagged = test.tag(&name, &new).await.map(|record| record.digest);
        assert_eq!(test.tag(&name, &old).await, None, "the deletion took it along");
        test.assert_chain(&name, &old).await;
        test.assert_chain(&name, &new).await;
        let listed = test.manifests(&name, None, 1000).await.items.contains(&put.digest);
        if record.is_some() {
            assert_eq!(tagged, Some(put.digest));
            assert!(listed);
            assert_eq!(test.referring(&name, &subject).await, [put.digest]);
            assert_eq!(test.unlink(&name, &blob).await, Removal::Referenced(put.digest));
        } else {
            assert_eq!(tagged, None);
            assert!(!listed);
            assert!(test.referring(&name, &subject).await.is_empty());
            assert_eq!(test.unlink(&name, &blob).await, Removal::Removed);
        }
    }
}

/// One manifest is put many times at the same time, each time with another tag: one manifest has all tags.
pub async fn racing_puts_of_one_manifest_keep_all_tags(test: MetadataTest) {
    let name = repository("a");
    let blob = digest("blob");
    test.commit(&name, &blob).await;
    let put = manifest(&name, "manifest").requiring([blob]).about(digest("subject"));
    let tags: Vec<_> = (10..26).map(|number| tag(&format!("t{number}"))).collect();
    test.together(16, |number| {
        let (test, put) = (test.clone(), put.clone().tagged([tags[number].clone()]));
        async move { test.put(&put).await }
    })
    .await;
    assert_eq!(test.tags(&name, None, 100).await.items, tags);
    for tag in &tags {
        assert_eq!(test.assert_chain(&name, tag).await.len(), 1);
    }
    assert_eq!(test.manifests(&name, None, 100).await.items, [put.digest]);
    assert_eq!(test.referring(&name, &digest("subject")).await, [put.digest]);
    assert_eq!(test.delete_manifest(&name, &put.digest).await, Removal::Removed);
    assert!(test.tags(&name, None, 100).await.items.is_empty());
    assert_eq!(
        test.unlink(&name, &blob).await,
        Removal::Removed,
        "no edge of another uid was left"
    );
}

/// Many calls write one tag at the same time: none fails, and the history is a chain of all changes.
pub async fn racing_tag_writes_form_one_history(test: MetadataTest) {
    let name = repository("a");
    let latest = tag("latest");
    for round in 0..4_u64 {
        test.together(16, |number| {
            let test = test.clone();
            let content = format!("manifest {round} {number}");
            let put = manifest(&name, content).tagged([latest.clone()]);
            async move { test.put(&put).await }
        })
        .await;
        let history = test.assert_chain(&name, &latest).await;
        assert_eq!(history.len() as u64, (round + 1) * 16);
        test.advance(round);
    }
    let versions: BTreeSet<u64> = test
        .history(&name, &latest)
        .await
        .iter()
        .map(|change| change.version)
        .collect();
    assert_eq!(versions.len(), 64, "no version is there twice");
}

/// Many calls write and delete one tag at the same time. The tag is deleted as often as a call answers so.
pub async fn racing_tag_deletes_form_one_history(test: MetadataTest) {
    let name = repository("a");
    let latest = tag("latest");
    let answers = test
        .together(32, |number| {
            let (test, name, latest) = (test.clone(), name.clone(), latest.clone());
            async move {
                if number % 2 == 0 {
                    let put = manifest(&name, format!("manifest {number}")).tagged([latest]);
                    test.put(&put).await;
                    false
                } else {
                    test.delete_tag(&name, &latest).await
                }
            }
        })
        .await;
    let history = test.assert_chain(&name, &latest).await;
    let deleted = history.iter().filter(|change| change.after.is_none()).count();
    assert_eq!(deleted, answers.iter().filter(|deleted| **deleted).count());
    assert_eq!(history.len() - deleted, 16, "every write is there");
}

/// A tag that moves while its old manifest is deleted stays, in either order.
pub async fn a_moved_tag_survives_the_delete_of_the_old_manifest(test: MetadataTest) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let moving_tag = tag(&format!("t{round}"));
        let old = manifest(&name, format!("old {round}")).tagged([moving_tag.clone()]);
        let new = manifest(&name, format!("new {round}")).tagged([moving_tag.clone()]);
        test.put(&old).await;
        let putting = {
            let (test, new) = (test.clone(), new.clone());
            async move { test.try_put(&new).await }
        };
        let deleting = {
            let (test, old) = (test.clone(), old.clone());
            async move { test.delete_manifest(&old.repository, &old.digest).await }
        };
        let outcome = test.race(round % 2 == 0, putting, deleting).await;
        assert_eq!(outcome, (ManifestPut::Stored, Removal::Removed));
        let record = test.tag(&name, &moving_tag).await.expect("the tag");
        assert_eq!(record.digest, new.digest);
        test.assert_chain(&name, &moving_tag).await;
    }
}

/// A client that sees a tag also sees its manifest, the references of the manifest, and the other tags of the same
/// push.
pub async fn readers_see_a_complete_push(test: MetadataTest) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let blob = digest(format!("blob {round}"));
        test.commit(&name, &blob).await;
        let tags = ["x", "y", "z"].map(|letter| tag(&format!("{letter}{round}")));
        let put = manifest(&name, format!("manifest {round}"))
            .requiring([blob])
            .tagged(tags.clone());
        let writing = {
            let (test, put) = (test.clone(), put.clone());
            async move { test.put(&put).await }
        };
        let reading = {
            let (test, name) = (test.clone(), name.clone());
            async move {
                for number in 0..64 {
                    let seen = test.tag(&name, &tags[number % 3]).await;
                    let Some(record) = seen else { continue };
                    assert!(test.manifest(&name, &record.digest).await.is_some());
                    for tag in &tags {
                        assert!(test.tag(&name, tag).await.is_some(), "{tag} of round {round}");
                    }
                    return;
                }
            }
        };
        test.race(round % 2 == 0, writing, reading).await;
        assert!(test.tag(&name, &put.tags[2]).await.is_some());
    }
}
