//! Linearizability: whether the answers of a registry are explained by each call taking effect at one point in time
//! between its beginning and its end.
//!
//! The search is that of Wing and Gong: choose a call that began before every other unexplained call ended, apply it,
//! repeat; with Lowe's cache of the states that were tried before. The object is a small registry: links, manifests and
//! tags. If acknowledged content is undone, lost, seen in part or seen too late, no order of calls explains the
//! answers.
//!
//! The version of a tag grows with every change and never repeats, also across deletes. Only reads answer it, so the
//! model knows only a lower bound of a version that was not read.

use std::collections::{BTreeSet, HashSet};

use super::frozen::{is_frozen, is_kept};

/// A repository, by its number.
pub(crate) type Repository = u8;
/// A digest, by its number; that of a blob, of a manifest, or of both.
pub(crate) type Name = u8;
/// A tag, by its number.
pub(crate) type TagNumber = u8;

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RecordedCall {
    /// Publishes a blob.
    Commit(Repository, Name),
    /// Reads a link.
    Link(Repository, Name),
    /// Removes a link.
    Unlink(Repository, Name),
    /// Puts a manifest with these tags.
    Put(Repository, Name, Vec<TagNumber>),
    /// Reads a manifest.
    Manifest(Repository, Name),
    /// Deletes a manifest with its tags.
    Delete(Repository, Name),
    /// Reads a tag.
    Read(Repository, TagNumber),
    /// Deletes a tag.
    Untag(Repository, TagNumber),
    /// From here on, unreferenced links may be removed at any time.
    Collect,
}

/// The answer of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallResult {
    /// Done, or it exists.
    Done,
    /// It does not exist.
    Absent,
    /// A reference is missing.
    Missing,
    /// It is referenced, or a tag is frozen.
    Refused,
    /// It does not exist any more. Whether this call has removed it is unknown.
    Gone,
    /// The tag names this, in this version.
    Names(Name, u64),
    /// The call was interrupted: it may have happened at any time since it began, or never.
    Unknown,
}

/// One call, with its beginning and its end.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) began: usize,
    pub(crate) ended: usize,
    pub(crate) call: RecordedCall,
    pub(crate) answer: CallResult,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Register {
    repository: Repository,
    tag: TagNumber,
    names: Option<Name>,
    /// What a frozen tag named when it was deleted. It comes back with nothing else.
    had: Option<Name>,
    version: u64,
    /// The version is exactly this one.
    exact: bool,
}

/// The model of a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Registry {
    links: BTreeSet<(Repository, Name)>,
    manifests: BTreeSet<(Repository, Name)>,
    tags: Vec<Register>,
}

/// What each manifest refers to.
pub(crate) type References = fn(Name) -> &'static [Name];

impl Registry {
    fn back_references(&self, repository: Repository, name: Name) -> bool {
        self.links.contains(&(repository, name)) || self.manifests.contains(&(repository, name))
    }

    fn is_referred_to(&self, repository: Repository, name: Name, references: References) -> bool {
        let mut here = self.manifests.iter().filter(|(of, _)| *of == repository);
        here.any(|(_, parent)| references(*parent).contains(&name))
    }

    /// Whether one of these tags is frozen.
    fn has_frozen(&self, these: impl Fn(&Register) -> bool) -> bool {
        self.tags
            .iter()
            .any(|register| is_frozen(register.tag) && these(register))
    }

    /// The possible states after a collection has removed another link.
    fn collected(&self, references: References) -> impl Iterator<Item = Self> {
        let loose =
            move |(repository, name): &&(Repository, Name)| !self.is_referred_to(*repository, *name, references);
        let taken = self.links.iter().filter(loose);
        taken.map(move |link| {
            let mut next = self.clone();
            next.links.remove(link);
            next
        })
    }

    fn register(&mut self, repository: Repository, tag: TagNumber) -> &mut Register {
        let found = self
            .tags
            .iter()
            .position(|register| (register.repository, register.tag) == (repository, tag));
        let index = found.unwrap_or_else(|| {
            self.tags.push(Register {
                repository,
                tag,
                names: None,
                had: None,
                version: 0,
                exact: false,
            });
            // Equal registries are equal values, in whichever order their tags were first used.
            self.tags
                .sort_unstable_by_key(|register| (register.repository, register.tag));
            let met = self
                .tags
                .iter()
                .position(|register| (register.repository, register.tag) == (repository, tag));
            met.expect("it was just added")
        });
        &mut self.tags[index]
    }

    /// Removes something unless it is referenced, and returns the answer.
    fn remove(
        set: fn(&mut Self) -> &mut BTreeSet<(Repository, Name)>,
        registry: &mut Self,
        (repository, name): (Repository, Name),
        references: References,
    ) -> CallResult {
        if !set(registry).contains(&(repository, name)) {
            return CallResult::Absent;
        }
        if registry.is_referred_to(repository, name, references) {
            return CallResult::Refused;
        }
        set(registry).remove(&(repository, name));
        CallResult::Done
    }

    /// The state after the call, if this answer is possible.
    fn after(&self, call: &RecordedCall, answer: CallResult, references: References) -> Option<Self> {
        let mut next = self.clone();
        let expected = match call {
            RecordedCall::Commit(repository, name) => {
                next.links.insert((*repository, *name));
                CallResult::Done
            }
            RecordedCall::Link(repository, name) => present(next.links.contains(&(*repository, *name))),
            RecordedCall::Manifest(repository, name) => present(next.manifests.contains(&(*repository, *name))),
            RecordedCall::Put(repository, name, tags) => {
                let here = next.manifests.contains(&(*repository, *name));
                let other = |named: Option<Name>| named.is_some_and(|named| named != *name);
                let moves = |register: &Register| {
                    register.repository == *repository
                        && tags.contains(&register.tag)
                        && other(register.names.or(register.had))
                };
                if next.has_frozen(moves) {
                    CallResult::Refused
                } else if here
                    || references(*name)
                        .iter()
                        .all(|target| next.back_references(*repository, *target))
                {
                    next.manifests.insert((*repository, *name));
                    for tag in tags {
                        next.register(*repository, *tag).change(Some(*name));
                    }
                    CallResult::Done
                } else {
                    CallResult::Missing
                }
            }
            RecordedCall::Unlink(repository, name) => {
                Self::remove(|next| &mut next.links, &mut next, (*repository, *name), references)
            }
            RecordedCall::Delete(repository, name) => {
                let of_it = |register: &Register| (register.repository, register.names) == (*repository, Some(*name));
                let answer = if next.has_frozen(|register| is_kept(register.tag) && of_it(register)) {
                    CallResult::Refused
                } else {
                    Self::remove(|next| &mut next.manifests, &mut next, (*repository, *name), references)
                };
                if answer == CallResult::Done {
                    for register in &mut next.tags {
                        if (register.repository, register.names) == (*repository, Some(*name)) {
                            register.change(None);
                        }
                    }
                }
                answer
            }
            RecordedCall::Read(repository, tag) => return next.read(*repository, *tag, answer).then_some(next),
            RecordedCall::Untag(repository, tag) => {
                let register = next.register(*repository, *tag);
                let there = register.names.is_some();
                if there && is_kept(*tag) {
                    CallResult::Refused
                } else {
                    register.change(None);
                    present(there)
                }
            }
            RecordedCall::Collect => return None,
        };
        match (call, answer) {
            (_, CallResult::Unknown) => Some(next),
            // A running or interrupted put protects its references for a while.
            (RecordedCall::Unlink(..) | RecordedCall::Delete(..), CallResult::Refused) => Some(self.clone()),
            (_, CallResult::Gone) => matches!(expected, CallResult::Done | CallResult::Absent).then_some(next),
            _ => (answer == expected).then_some(next),
        }
    }

    fn read(&mut self, repository: Repository, tag: TagNumber, answer: CallResult) -> bool {
        let register = self.register(repository, tag);
        match (answer, register.names) {
            (CallResult::Absent, None) | (CallResult::Unknown, _) => true,
            (CallResult::Names(name, version), Some(named)) if name == named => {
                let fits = if register.exact {
                    version == register.version
                } else {
                    version >= register.version
                };
                if fits {
                    (register.version, register.exact) = (version, true);
                }
                fits
            }
            _ => false,
        }
    }
}

impl Register {
    fn change(&mut self, names: Option<Name>) {
        if self.names != names {
            self.had = self.names.filter(|_| is_frozen(self.tag));
            self.names = names;
            self.version += 1;
            self.exact = false;
        }
    }
}

fn present(there: bool) -> CallResult {
    if there { CallResult::Done } else { CallResult::Absent }
}

/// Whether a history that began with an empty registry is linearizable.
pub(crate) fn is_linearizable(history: &[Event], references: References) -> bool {
    assert!(history.len() <= 128, "a set of calls is one number");
    search(&Registry::default(), 0, history, references, &mut HashSet::new())
}

fn search(
    state: &Registry,
    explained: u128,
    history: &[Event],
    references: References,
    tried: &mut HashSet<(u128, Registry)>,
) -> bool {
    let left = || (0..history.len()).filter(|index| explained & (1 << index) == 0);
    let answered = || left().filter(|index| history[*index].answer != CallResult::Unknown);
    let Some(first_end) = answered().map(|index| history[index].ended).min() else {
        return true;
    };
    if !tried.insert((explained, state.clone())) {
        return false;
    }
    let begun = || {
        left()
            .map(|index| (index, &history[index]))
            .filter(|(_, event)| event.began <= first_end)
    };
    let mut explains = |(index, event): (usize, &Event)| {
        let next = state.after(&event.call, event.answer, references);
        // A call with an unknown answer that would change nothing is left out.
        let next = next.filter(|next| event.answer != CallResult::Unknown || next != state);
        next.is_some_and(|next| search(&next, explained | 1 << index, history, references, tried))
    };
    if begun().any(&mut explains) {
        return true;
    }
    let collecting = begun().any(|(_, event)| event.call == RecordedCall::Collect);
    collecting
        && state
            .collected(references)
            .any(|next| search(&next, explained, history, references, tried))
}

mod tests {
    use super::super::frozen::{FROZEN, RETURNING};
    use super::*;

    fn event(began: usize, ended: usize, call: RecordedCall, answer: CallResult) -> Event {
        Event {
            began,
            ended,
            call,
            answer,
        }
    }

    /// Manifests 1 and 2 refer to nothing, 3 to the blob 0.
    fn references(name: Name) -> &'static [Name] {
        if name == 3 { &[0] } else { &[] }
    }

    fn explained(history: &[Event]) -> bool {
        is_linearizable(history, references)
    }

    fn put(name: Name, tags: &[TagNumber]) -> RecordedCall {
        RecordedCall::Put(0, name, tags.to_vec())
    }

    fn read(tag: TagNumber) -> RecordedCall {
        RecordedCall::Read(0, tag)
    }

    fn untag(tag: TagNumber) -> RecordedCall {
        RecordedCall::Untag(0, tag)
    }

    #[test]
    fn calls_at_once_may_happen_in_either_order() {
        for seen in [1, 2] {
            let history = [
                event(0, 10, put(1, &[0]), CallResult::Done),
                event(0, 10, put(2, &[0]), CallResult::Done),
                event(11, 12, read(0), CallResult::Names(seen, 77)),
                event(13, 14, read(0), CallResult::Names(seen, 77)),
                event(13, 20, untag(0), CallResult::Done),
                event(14, 20, untag(0), CallResult::Absent),
            ];
            assert!(explained(&history));
        }
    }

    #[test]
    fn a_call_that_was_cut_off_may_or_may_not_have_happened() {
        let cut = event(0, 0, put(1, &[0]), CallResult::Unknown);
        for answer in [CallResult::Absent, CallResult::Names(1, 5)] {
            assert!(explained(&[cut.clone(), event(3, 4, read(0), answer)]));
        }
        let undone = [
            cut,
            event(3, 4, read(0), CallResult::Names(1, 5)),
            event(5, 6, read(0), CallResult::Absent),
        ];
        assert!(!explained(&undone), "it cannot unhappen");
    }

    #[test]
    fn a_stale_read_is_found() {
        let history = [
            event(0, 1, put(1, &[0]), CallResult::Done),
            event(2, 3, put(2, &[0]), CallResult::Done),
            event(4, 5, read(0), CallResult::Names(1, 7)),
        ];
        assert!(!explained(&history));
    }

    #[test]
    fn a_lost_write_is_found() {
        let history = [
            event(0, 1, put(1, &[0]), CallResult::Done),
            event(2, 3, untag(0), CallResult::Absent),
        ];
        assert!(!explained(&history));
    }

    #[test]
    fn a_version_that_repeats_is_found() {
        let history = |again| {
            [
                event(0, 1, put(1, &[0]), CallResult::Done),
                event(2, 3, read(0), CallResult::Names(1, 7)),
                event(4, 5, untag(0), CallResult::Done),
                event(6, 7, put(1, &[0]), CallResult::Done),
                event(8, 9, read(0), CallResult::Names(1, again)),
            ]
        };
        assert!(!explained(&history(7)));
        assert!(!explained(&history(8)), "the delete has a version too");
        assert!(explained(&history(9)));
    }

    #[test]
    fn a_push_seen_in_part_is_found() {
        let history = [
            event(0, 1, put(1, &[0, 1]), CallResult::Done),
            event(2, 9, put(2, &[0, 1]), CallResult::Done),
            event(3, 4, read(0), CallResult::Names(2, 7)),
            event(5, 6, read(1), CallResult::Names(1, 3)),
        ];
        assert!(!explained(&history));
    }

    #[test]
    fn a_tag_without_its_manifest_is_found() {
        let history = [
            event(0, 1, put(1, &[0]), CallResult::Done),
            event(2, 3, RecordedCall::Delete(0, 1), CallResult::Done),
            event(4, 5, read(0), CallResult::Names(1, 7)),
        ];
        assert!(!explained(&history));
    }

    #[test]
    fn a_frozen_tag_that_moves_is_found() {
        let history = |second, seen| {
            [
                event(0, 1, put(1, &[FROZEN]), CallResult::Done),
                event(2, 3, put(2, &[FROZEN]), second),
                event(4, 5, read(FROZEN), CallResult::Names(seen, 7)),
            ]
        };
        assert!(explained(&history(CallResult::Refused, 1)));
        assert!(!explained(&history(CallResult::Done, 2)));
        assert!(!explained(&history(CallResult::Done, 1)), "the second put is answered");
        assert!(!explained(&history(CallResult::Refused, 2)));
        for (deletion, answer, expected) in [
            (untag(FROZEN), CallResult::Refused, true),
            (untag(FROZEN), CallResult::Done, false),
            (RecordedCall::Delete(0, 1), CallResult::Refused, true),
            (RecordedCall::Delete(0, 1), CallResult::Done, false),
        ] {
            let history = [
                event(0, 1, put(1, &[FROZEN]), CallResult::Done),
                event(2, 3, deletion.clone(), answer),
            ];
            assert_eq!(explained(&history), expected, "{deletion:?} {answer:?}");
        }
    }

    #[test]
    fn a_frozen_tag_that_comes_back_with_another_digest_is_found() {
        for deletion in [untag(RETURNING), RecordedCall::Delete(0, 1)] {
            let history = |name, answer| {
                [
                    event(0, 1, put(1, &[RETURNING]), CallResult::Done),
                    event(2, 3, deletion.clone(), CallResult::Done),
                    event(4, 5, put(name, &[RETURNING]), answer),
                ]
            };
            assert!(explained(&history(1, CallResult::Done)));
            assert!(explained(&history(2, CallResult::Refused)));
            assert!(!explained(&history(1, CallResult::Refused)), "{deletion:?}");
            assert!(!explained(&history(2, CallResult::Done)), "{deletion:?}");
        }
    }

    #[test]
    fn a_blob_that_is_lost_is_found() {
        let history = |link| {
            [
                event(0, 1, RecordedCall::Commit(0, 0), CallResult::Done),
                event(2, 9, RecordedCall::Unlink(0, 0), CallResult::Unknown),
                event(3, 4, put(3, &[]), CallResult::Done),
                event(10, 11, RecordedCall::Link(0, 0), link),
            ]
        };
        assert!(explained(&history(CallResult::Done)));
        assert!(!explained(&history(CallResult::Absent)), "it was referred to");
    }

    #[test]
    fn a_collection_takes_only_what_is_loose() {
        let history = |manifest, link| {
            [
                event(0, 1, RecordedCall::Commit(0, 0), CallResult::Done),
                event(2, 3, put(manifest, &[]), CallResult::Done),
                event(4, usize::MAX, RecordedCall::Collect, CallResult::Unknown),
                event(5, 6, RecordedCall::Link(0, 0), link),
            ]
        };
        assert!(explained(&history(1, CallResult::Absent)));
        assert!(explained(&history(1, CallResult::Done)));
        assert!(explained(&history(3, CallResult::Done)));
        assert!(!explained(&history(3, CallResult::Absent)), "it was referred to");
    }

    #[test]
    fn an_unfounded_refusal_of_a_manifest_is_found() {
        let history = [
            event(0, 1, RecordedCall::Commit(0, 0), CallResult::Done),
            event(2, 3, put(3, &[]), CallResult::Missing),
        ];
        assert!(!explained(&history));
    }
}
