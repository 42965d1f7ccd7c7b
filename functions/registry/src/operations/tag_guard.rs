//! The guard of tags: what the permissions of an identity and the rules about immutable tags demand together.

use std::sync::Arc;

use oci::{Digest, RepositoryName, Tag};

use crate::auth::{Action, Delete, Move, Permit, Push, SharedRules, TagPermit};
use crate::store::Timestamp;
use crate::store::metadata::{AllowAll, Deletion, Protected, Protection, TagGuard, TagRecord};

/// The guard of the tags that a push publishes.
pub(super) fn of_push(permit: &TagPermit) -> Arc<dyn TagGuard> {
    of(permit.push())
}

/// The same for the renewed permit of a push.
pub(super) fn of_renewed_push(permit: &Permit<Push>) -> Arc<dyn TagGuard> {
    of(permit)
}

/// The guard of the tags that are deleted.
pub(super) fn of_deletion(permit: &Permit<Delete>) -> Arc<dyn TagGuard> {
    of(permit)
}

fn of<A: Action>(permit: &Permit<A>) -> Arc<dyn TagGuard> {
    let shared = permit.shared_rules().filter(|shared| !shared.freeze_nothing());
    let may_move = permit.also::<Move>();
    if may_move && shared.is_none() {
        return AllowAll::shared();
    }
    Arc::new(PolicyGuard {
        repository: permit.repository().clone(),
        may_move,
        shared: shared.cloned(),
    })
}

/// Refuses what the permissions of the identity do not contain, and for every identity what changes a frozen tag.
#[derive(Debug)]
struct PolicyGuard {
    repository: RepositoryName,
    /// Whether the identity may make an existing tag name another manifest.
    may_move: bool,
    /// The rules that freeze tags. `None`: no tag is frozen.
    shared: Option<Arc<SharedRules>>,
}

impl TagGuard for PolicyGuard {
    /// A tag that was deleted while it was frozen comes back only with the digest that it had, and is frozen at once: it
    /// counts as if it had never been deleted. The present rules decide, also about a deletion from before they were set.
    /// If the deletion does not record since when the tag had stood, it counts as frozen, also when it comes back.
    fn create(
        &self,
        tag: &Tag,
        digest: &Digest,
        last: Option<&Deletion>,
        now: Timestamp,
    ) -> Result<Timestamp, Protected> {
        let (Some(shared), Some(last)) = (&self.shared, last) else {
            return Ok(now);
        };
        let since = last.since.unwrap_or(Timestamp(0));
        match shared.frozen(&self.repository, tag, since, last.at) {
            None => Ok(now),
            Some(_) if last.digest == *digest => Ok(since),
            Some(rule) => Err(Protected {
                tag: tag.clone(),
                why: Protection::DeletedWhileFrozen {
                    rule: Arc::clone(&rule.name),
                    digest: last.digest,
                },
            }),
        }
    }

    fn moved(&self, tag: &Tag, row: &TagRecord, _digest: &Digest, now: Timestamp) -> Result<(), Protected> {
        let shared = self.shared.as_ref();
        let why = match shared.and_then(|shared| shared.frozen(&self.repository, tag, row.at, now)) {
            Some(rule) => Protection::Frozen {
                rule: Arc::clone(&rule.name),
                digest: row.digest,
            },
            None if self.may_move => return Ok(()),
            None => Protection::CreateOnly { digest: row.digest },
        };
        let tag = tag.clone();
        Err(Protected { tag, why })
    }

    fn removed(&self, tag: &Tag, row: &TagRecord, now: Timestamp) -> Result<(), Protected> {
        let shared = self.shared.as_ref();
        match shared.and_then(|shared| shared.kept(&self.repository, tag, row.at, now)) {
            Some(rule) => Err(Protected {
                tag: tag.clone(),
                why: Protection::Frozen {
                    rule: Arc::clone(&rule.name),
                    digest: row.digest,
                },
            }),
            None => Ok(()),
        }
    }

    fn allows_deletions(&self) -> bool {
        self.shared.is_none()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use oci::Algorithm;

    use super::*;
    use crate::auth::{AccessRule, ActionKind, Actions, Identity, ImmutableRule, Principal, Rules, Scope};

    const START: u64 = 1_000_000;
    const GRACE: u64 = 600_000;

    fn guard(may_move: bool, delete: [bool; 2]) -> PolicyGuard {
        let rule = |name: &str, tags: &str, grace_ms, delete| ImmutableRule {
            name: name.into(),
            repositories: vec!["team/**".parse().unwrap()],
            tags: vec![tags.parse().unwrap()],
            except: vec!["*-snapshot".parse().unwrap()],
            grace_ms,
            delete,
        };
        let rules = vec![
            rule("releases", "semver", GRACE, delete[0]),
            rule("all", "v*", 2 * GRACE, delete[1]),
        ];
        PolicyGuard {
            repository: "team/app".parse().unwrap(),
            may_move,
            shared: Some(Arc::new(SharedRules::new(rules, Vec::new()))),
        }
    }

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    fn row() -> TagRecord {
        TagRecord {
            digest: digest("one"),
            media_type: "a/b".parse().unwrap(),
            size: 1,
            version: 1,
            at: Timestamp(START),
            is_suspect: false,
        }
    }

    /// The reason of a refusal, in one word, and its rule.
    fn reason<T>(outcome: Result<T, Protected>) -> Option<String> {
        let why = outcome.err()?.why;
        assert_eq!(*why.digest(), digest("one"));
        Some(match why {
            Protection::Frozen { rule, .. } => format!("frozen {rule}"),
            Protection::DeletedWhileFrozen { rule, .. } => format!("deleted {rule}"),
            Protection::CreateOnly { .. } => "create".to_owned(),
        })
    }

    #[test]
    fn a_frozen_tag_is_moved_by_nobody() {
        for (tag, age, mover, creator) in [
            ("v1.0.0", 0, None, Some("create")),
            ("v1.0.0", GRACE - 1, None, Some("create")),
            ("v1.0.0", GRACE, Some("frozen releases"), Some("frozen releases")),
            ("v1", GRACE, None, Some("create")),
            ("v1", 2 * GRACE, Some("frozen all"), Some("frozen all")),
            ("v1.0.0-snapshot", 2 * GRACE, None, Some("create")),
            ("latest", 2 * GRACE, None, Some("create")),
        ] {
            for (may_move, expected) in [(true, mover), (false, creator)] {
                let guard = guard(may_move, [false; 2]);
                let moved = guard.moved(&tag.parse().unwrap(), &row(), &digest("two"), Timestamp(START + age));
                assert_eq!(reason(moved).as_deref(), expected, "{tag} {age} {may_move}");
            }
        }
    }

    #[test]
    fn every_rule_that_freezes_a_tag_has_to_allow_its_deletion() {
        for (age, deletes, expected) in [
            (GRACE - 1, [false; 2], None),
            (GRACE, [false; 2], Some("frozen releases")),
            (GRACE, [true, false], None),
            (2 * GRACE, [true, false], Some("frozen all")),
            (2 * GRACE, [false, true], Some("frozen releases")),
            (2 * GRACE, [true; 2], None),
        ] {
            let guard = guard(true, deletes);
            let removed = guard.removed(&"v1.0.0".parse().unwrap(), &row(), Timestamp(START + age));
            assert_eq!(reason(removed).as_deref(), expected, "{age} {deletes:?}");
            assert!(!guard.allows_deletions());
        }
    }

    #[test]
    fn a_tag_that_was_deleted_while_frozen_comes_back_with_its_digest() {
        let tag = "v1.0.0".parse().unwrap();
        let guard = guard(true, [true; 2]);
        let now = Timestamp(START + 100 * GRACE);
        assert_eq!(guard.create(&tag, &digest("two"), None, now), Ok(now));
        // The last column: since when the tag counts as naming its digest when it comes back with it.
        for (stood, expected, since) in [
            (Some(GRACE - 1), None, now),
            (Some(GRACE), Some("deleted releases"), Timestamp(START)),
            (None, Some("deleted releases"), Timestamp(0)),
        ] {
            let last = Deletion {
                digest: digest("one"),
                since: stood.map(|_| Timestamp(START)),
                at: Timestamp(START + stood.unwrap_or(0)),
            };
            let created = guard.create(&tag, &digest("two"), Some(&last), now);
            assert_eq!(reason(created).as_deref(), expected, "{stood:?}");
            assert_eq!(guard.create(&tag, &digest("one"), Some(&last), now), Ok(since));
            let restored = TagRecord { at: since, ..row() };
            let moved = guard.moved(&tag, &restored, &digest("two"), now);
            let frozen = expected.map(|_| "frozen releases");
            assert_eq!(reason(moved).as_deref(), frozen, "{stood:?}");
        }
    }

    /// A push of tags requires the permission to push. Without the permission to move tags, the guard refuses those that
    /// exist.
    #[test]
    fn existing_tags_need_their_own_permission() {
        let repository: RepositoryName = "a/b".parse().unwrap();
        let tag: Tag = "t".parse().unwrap();
        let digest = Digest::of(Algorithm::Sha256, b"m");
        let row = TagRecord {
            digest,
            media_type: "a/b".parse().unwrap(),
            size: 1,
            version: 1,
            at: Timestamp(1),
            is_suspect: false,
        };
        let may = |actions| {
            let rule = AccessRule {
                name: "r".into(),
                repositories: vec!["a/b".parse().unwrap()],
                actions,
            };
            Identity::new(Principal::ANONYMOUS, Rules::new(vec![rule], Vec::new()))
        };
        let mover = may(Actions::of(&[ActionKind::Move]));
        assert!(mover.permit_tags(&repository, vec![tag.clone()]).is_err());
        let refused = Err(Protected {
            tag: tag.clone(),
            why: Protection::CreateOnly { digest },
        });
        for (identity, moved) in [
            (may(Actions::CREATE), refused.clone()),
            (may(Actions::PUSH), Ok(())),
            (may(Actions::PUSH).with_token_scope(Scope::upload(&repository)), refused),
        ] {
            let permit = identity.permit_tags(&repository, vec![tag.clone()]).unwrap();
            assert_eq!(permit.tags(), std::slice::from_ref(&tag));
            assert_eq!(permit.push().repository(), &repository);
            let guard = of_push(&permit);
            assert_eq!(guard.create(&tag, &digest, None, Timestamp(2)), Ok(Timestamp(2)));
            assert_eq!(guard.moved(&tag, &row, &digest, Timestamp(2)), moved);
        }
    }
}
