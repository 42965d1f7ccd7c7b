//! Races: what several callers do at once is as if they had done it one after the other.

use std::collections::BTreeSet;

use super::{MetadataTrial, digest, location, manifest, repository, tag};
use crate::store::metadata::{Content, ManifestPut, Removal};

/// How often two callers meet.
const ROUNDS: usize = 40;

/// 32 commits of one digest at once, from 32 uploads into 4 repositories: all succeed, one location remains.
pub async fn racing_commits_leave_one_location(trial: MetadataTrial) {
    let names: Vec<_> = (0..4).map(|number| repository(&format!("r{number}"))).collect();
    for round in 0..4 {
        let blob = digest(format!("blob {round}"));
        trial
            .together(32, |number| {
                let (trial, name) = (trial.clone(), names[number % 4].clone());
                async move { trial.commit_at(&name, &blob, &location(round * 32 + number)).await }
            })
            .await;
        let mut links = Vec::new();
        for name in &names {
            links.push(trial.link(name, &blob).await.expect("the link"));
        }
        assert!(links.iter().all(|link| link.location == links[0].location), "{links:?}");
        assert!((round * 32..(round + 1) * 32).any(|number| links[0].location == location(number)));
        assert_eq!(trial.holders(&blob).await, names, "one link for each repository");
        for name in &names {
            assert_eq!(trial.unlink(name, &blob).await, Removal::Removed);
        }
        assert!(trial.holders(&blob).await.is_empty(), "and no second one");
    }
}

/// The same large manifest put at once from several repositories and twice in each: one location.
pub async fn racing_large_manifests_leave_one_location(trial: MetadataTrial) {
    let names: Vec<_> = (0..4).map(|number| repository(&format!("r{number}"))).collect();
    let puts = names.iter().flat_map(|name| [name, name]).enumerate();
    let puts: Vec<_> = puts
        .map(|(number, name)| manifest(name, "large").stored_at(location(number)))
        .collect();
    trial
        .together(puts.len(), |number| {
            let (trial, put) = (trial.clone(), puts[number].clone());
            async move { trial.put(&put).await }
        })
        .await;
    let mut contents = Vec::new();
    for name in &names {
        contents.push(
            trial
                .manifest(name, &puts[0].digest)
                .await
                .expect("the manifest")
                .content,
        );
    }
    assert!(contents.iter().all(|content| *content == contents[0]));
    assert!((0..8).any(|number| contents[0] == Content::Stored(location(number))));
}

/// A manifest is put while its blob is unlinked: either the one or the other, never a manifest without its blob.
pub async fn a_put_races_the_unlink_of_its_blob(trial: MetadataTrial) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let blob = digest(format!("blob {round}"));
        let config = digest(format!("config {round}"));
        trial.commit(&name, &blob).await;
        trial.commit(&name, &config).await;
        let put = manifest(&name, format!("manifest {round}"))
            .requiring([blob, config])
            .tagged([tag("latest")]);
        let putting = {
            let (trial, put) = (trial.clone(), put.clone());
            async move { trial.try_put(&put).await }
        };
        let unlinking = {
            let (trial, name) = (trial.clone(), name.clone());
            async move { trial.unlink(&name, &blob).await }
        };
        let outcome = trial.race(round % 2 == 0, putting, unlinking).await;
        let published = trial.manifest(&name, &put.digest).await.is_some();
        let linked = trial.link(&name, &blob).await.is_some();
        let tagged = trial.tag(&name, &tag("latest")).await.map(|record| record.digest) == Some(put.digest);
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

/// An index is put while its child is deleted.
pub async fn an_index_races_the_delete_of_its_child(trial: MetadataTrial) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let child = manifest(&name, format!("child {round}")).tagged([tag(&format!("child{round}"))]);
        trial.put(&child).await;
        let index = manifest(&name, format!("index {round}")).requiring([child.digest]);
        let putting = {
            let (trial, index) = (trial.clone(), index.clone());
            async move { trial.try_put(&index).await }
        };
        let deleting = {
            let (trial, child) = (trial.clone(), child.clone());
            async move { trial.delete_manifest(&child.repository, &child.digest).await }
        };
        let outcome = trial.race(round % 2 == 0, putting, deleting).await;
        let published = trial.manifest(&name, &index.digest).await.is_some();
        let there = trial.manifest(&name, &child.digest).await.is_some();
        let tagged = trial.tag(&name, &child.tags[0]).await.is_some();
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

/// A blob is mounted while it is unlinked in the source: the mount is told whether it has a link of its own.
pub async fn a_mount_races_the_unlink_of_its_source(trial: MetadataTrial) {
    let (from, to) = (repository("from"), repository("to"));
    for round in 0..ROUNDS {
        let blob = digest(format!("blob {round}"));
        trial.commit(&from, &blob).await;
        let mounting = {
            let (trial, from, to) = (trial.clone(), from.clone(), to.clone());
            async move { trial.mount(&to, &blob, &from).await }
        };
        let unlinking = {
            let (trial, from) = (trial.clone(), from.clone());
            async move { trial.unlink(&from, &blob).await }
        };
        let (mounted, unlinked) = trial.race(round % 2 == 0, mounting, unlinking).await;
        assert_eq!(unlinked, Removal::Removed);
        assert_eq!(trial.link(&to, &blob).await.is_some(), mounted, "round {round}");
        assert_eq!(trial.holders(&blob).await.len(), usize::from(mounted));
    }
}

/// A manifest is put again, with another tag, while it is deleted: one comes after the other, with all that belongs to
/// it.
pub async fn a_put_races_the_delete_of_the_same_manifest(trial: MetadataTrial) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let blob = digest(format!("blob {round}"));
        let subject = digest(format!("subject {round}"));
        trial.commit(&name, &blob).await;
        let (old, new) = (tag(&format!("old{round}")), tag(&format!("new{round}")));
        let put = manifest(&name, format!("manifest {round}"))
            .requiring([blob])
            .about(subject);
        trial.put(&put.clone().tagged([old.clone()])).await;
        let again = put.clone().tagged([new.clone()]);
        let putting = {
            let trial = trial.clone();
            async move { trial.try_put(&again).await }
        };
        let deleting = {
            let (trial, put) = (trial.clone(), put.clone());
            async move { trial.delete_manifest(&put.repository, &put.digest).await }
        };
        let outcome = trial.race(round % 2 == 0, putting, deleting).await;
        assert_eq!(outcome, (ManifestPut::Stored, Removal::Removed), "round {round}");

        let record = trial.manifest(&name, &put.digest).await;
        let tagged = trial.tag(&name, &new).await.map(|record| record.digest);
        assert_eq!(trial.tag(&name, &old).await, None, "the deletion took it along");
        trial.assert_chain(&name, &old).await;
        trial.assert_chain(&name, &new).await;
        let listed = trial.manifests(&name, None, 1000).await.items.contains(&put.digest);
        if record.is_some() {
            assert_eq!(tagged, Some(put.digest));
            assert!(listed);
            assert_eq!(trial.referring(&name, &subject).await, [put.digest]);
            assert_eq!(trial.unlink(&name, &blob).await, Removal::Referenced(put.digest));
        } else {
            assert_eq!(tagged, None);
            assert!(!listed);
            assert!(trial.referring(&name, &subject).await.is_empty());
            assert_eq!(trial.unlink(&name, &blob).await, Removal::Removed);
        }
    }
}

/// One manifest put by many at once, each with a tag of its own: one manifest with all tags.
pub async fn racing_puts_of_one_manifest_keep_all_tags(trial: MetadataTrial) {
    let name = repository("a");
    let blob = digest("blob");
    trial.commit(&name, &blob).await;
    let put = manifest(&name, "manifest").requiring([blob]).about(digest("subject"));
    let tags: Vec<_> = (10..26).map(|number| tag(&format!("t{number}"))).collect();
    trial
        .together(16, |number| {
            let (trial, put) = (trial.clone(), put.clone().tagged([tags[number].clone()]));
            async move { trial.put(&put).await }
        })
        .await;
    assert_eq!(trial.tags(&name, None, 100).await.items, tags);
    for tag in &tags {
        assert_eq!(trial.assert_chain(&name, tag).await.len(), 1);
    }
    assert_eq!(trial.manifests(&name, None, 100).await.items, [put.digest]);
    assert_eq!(trial.referring(&name, &digest("subject")).await, [put.digest]);
    assert_eq!(trial.delete_manifest(&name, &put.digest).await, Removal::Removed);
    assert!(trial.tags(&name, None, 100).await.items.is_empty());
    assert_eq!(
        trial.unlink(&name, &blob).await,
        Removal::Removed,
        "no edge of another life was left"
    );
}

/// Many write one tag at once: none fails, and the history is a chain of all of them.
pub async fn racing_tag_writers_make_a_chain(trial: MetadataTrial) {
    let name = repository("a");
    let latest = tag("latest");
    for round in 0..4_u64 {
        trial
            .together(16, |number| {
                let trial = trial.clone();
                let text = format!("manifest {round} {number}");
                let put = manifest(&name, text).tagged([latest.clone()]);
                async move { trial.put(&put).await }
            })
            .await;
        let history = trial.assert_chain(&name, &latest).await;
        assert_eq!(history.len() as u64, (round + 1) * 16);
        trial.pass(round);
    }
    let versions: BTreeSet<u64> = trial
        .history(&name, &latest)
        .await
        .iter()
        .map(|change| change.version)
        .collect();
    assert_eq!(versions.len(), 64, "no version is there twice");
}

/// Writers and deleters of one tag at once; the tag is deleted as often as somebody is told so.
pub async fn racing_tag_deletes_make_a_chain(trial: MetadataTrial) {
    let name = repository("a");
    let latest = tag("latest");
    let answers = trial
        .together(32, |number| {
            let (trial, name, latest) = (trial.clone(), name.clone(), latest.clone());
            async move {
                if number % 2 == 0 {
                    let put = manifest(&name, format!("manifest {number}")).tagged([latest]);
                    trial.put(&put).await;
                    false
                } else {
                    trial.delete_tag(&name, &latest).await
                }
            }
        })
        .await;
    let history = trial.assert_chain(&name, &latest).await;
    let deleted = history.iter().filter(|change| change.after.is_none()).count();
    assert_eq!(deleted, answers.iter().filter(|deleted| **deleted).count());
    assert_eq!(history.len() - deleted, 16, "every write is there");
}

/// A tag that is moved while its old manifest is deleted survives, in whichever order.
pub async fn a_moved_tag_survives_the_delete_of_the_old_manifest(trial: MetadataTrial) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let moving_tag = tag(&format!("t{round}"));
        let old = manifest(&name, format!("old {round}")).tagged([moving_tag.clone()]);
        let new = manifest(&name, format!("new {round}")).tagged([moving_tag.clone()]);
        trial.put(&old).await;
        let putting = {
            let (trial, new) = (trial.clone(), new.clone());
            async move { trial.try_put(&new).await }
        };
        let deleting = {
            let (trial, old) = (trial.clone(), old.clone());
            async move { trial.delete_manifest(&old.repository, &old.digest).await }
        };
        let outcome = trial.race(round % 2 == 0, putting, deleting).await;
        assert_eq!(outcome, (ManifestPut::Stored, Removal::Removed));
        let record = trial.tag(&name, &moving_tag).await.expect("the tag");
        assert_eq!(record.digest, new.digest);
        trial.assert_chain(&name, &moving_tag).await;
    }
}

/// Who sees a tag sees its manifest, what that refers to, and the other tags of the same push.
pub async fn readers_see_a_push_whole(trial: MetadataTrial) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let blob = digest(format!("blob {round}"));
        trial.commit(&name, &blob).await;
        let tags = ["x", "y", "z"].map(|letter| tag(&format!("{letter}{round}")));
        let put = manifest(&name, format!("manifest {round}"))
            .requiring([blob])
            .tagged(tags.clone());
        let writing = {
            let (trial, put) = (trial.clone(), put.clone());
            async move { trial.put(&put).await }
        };
        let reading = {
            let (trial, name) = (trial.clone(), name.clone());
            async move {
                for number in 0..64 {
                    let seen = trial.tag(&name, &tags[number % 3]).await;
                    let Some(record) = seen else { continue };
                    assert!(trial.manifest(&name, &record.digest).await.is_some());
                    for tag in &tags {
                        assert!(trial.tag(&name, tag).await.is_some(), "{tag} of round {round}");
                    }
                    return;
                }
            }
        };
        trial.race(round % 2 == 0, writing, reading).await;
        assert!(trial.tag(&name, &put.tags[2]).await.is_some());
    }
}
