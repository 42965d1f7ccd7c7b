//! The invariants of the items, after every step, and the garbage that may be left in the end.

use std::collections::{BTreeMap, BTreeSet};

use super::fixtures::FIXTURES;
use super::frozen::{is_frozen, is_kept};
use super::world::World;
use crate::memory::Items;
use crate::records::attributes;
use crate::table::{Attributes, ItemKey, Value};

fn text<'a>(attributes: &'a Attributes, name: &str) -> &'a str {
    match attributes.get(name) {
        Some(Value::S(text)) => text,
        _ => "",
    }
}

/// Whether a change of this item can break an invariant. A back-reference can only by its absence.
fn matters(items: &Items, key: &ItemKey) -> bool {
    let kinds = ["L", "M", "B"];
    let begins = |prefix: &str| key.sort.starts_with(prefix);
    let claim = begins("l#") || begins("e#m#");
    kinds.contains(&key.sort.as_str())
        || key.partition == "C"
        || key.partition.starts_with("T#")
        || begins("e#t#")
        || begins("e#s#")
        || claim && items.attributes(&key.partition, &key.sort).is_none()
}

/// Checks all invariants if a relevant item has changed.
pub(super) fn after_step(world: &World) -> Result<(), String> {
    let lost = world.take_objects_lost();
    let changed = world.main.look(|items| {
        let changed = items.take_changed();
        for key in changed.iter().filter(|key| key.sort == "B") {
            let record = items.attributes(&key.partition, &key.sort);
            world.names(&key.partition, record.map(|record| text(record, "object")));
        }
        changed.iter().any(|key| matters(items, key))
    });
    if let Some(object) = world.deleted_too_early() {
        return Err(format!("{object} was deleted although redirects to it may live"));
    }
    if lost || changed { hold(world) } else { Ok(()) }
}

/// The objects.
struct Objects {
    there: BTreeSet<String>,
    /// Lost and damaged objects: links may still lead to them, and may have a defect.
    lost: BTreeSet<String>,
}

/// The invariants that hold at every time.
pub(super) fn hold(world: &World) -> Result<(), String> {
    let objects = Objects {
        there: world.objects(),
        lost: world.lost(),
    };
    world.main.look(|items| {
        for (partition, sort, attributes) in items.iter() {
            item(items, &objects, partition, sort, attributes)
                .map_err(|broken| format!("{partition} / {sort}: {broken}"))?;
        }
        Ok(())
    })
}

fn item(items: &Items, objects: &Objects, partition: &str, sort: &str, attributes: &Attributes) -> Result<(), String> {
    let of_repository = |kind: &str| partition.strip_prefix(kind);
    let there = |partition: &str, sort: &str| items.attributes(partition, sort).is_some();
    if let Some((repository, digest)) = of_repository("D#").and_then(|rest| rest.split_once('#')) {
        let tags = format!("T#{repository}");
        if sort == "L" {
            return holds_bytes(items, objects, repository, digest, attributes);
        }
        if sort == "M" {
            return manifest(items, objects, repository, digest, attributes);
        }
        if let Some(tag) = sort.strip_prefix("e#t#") {
            let row = items.attributes(&tags, &format!("t#{tag}"));
            let agrees = row.is_some_and(|row| text(row, "digest") == digest);
            return agrees
                .then_some(())
                .ok_or_else(|| "the tag does not name it".to_owned());
        }
        if let Some(referrer) = sort.strip_prefix("e#s#") {
            let referrer = items.attributes(&format!("D#{repository}#{referrer}"), "M");
            let agrees = referrer.is_some_and(|referrer| text(referrer, "subject") == digest);
            return agrees
                .then_some(())
                .ok_or_else(|| "the referrer is not there".to_owned());
        }
    } else if sort == "B" {
        return is_fair(objects, attributes);
    } else if let Some(repository) = of_repository("T#") {
        if let Some(digest) = sort.strip_prefix("m#")
            && !there(&format!("D#{repository}#{digest}"), "M")
        {
            return Err("a listed manifest is not there".to_owned());
        }
        if let Some(tag) = sort.strip_prefix("t#") {
            return tag_holds(items, repository, tag, attributes);
        }
    }
    Ok(())
}

/// A tag names an existing manifest, the manifest lists the tag, and the last entry of its history says so. A frozen tag
/// counts as naming it since the first entry.
fn tag_holds(items: &Items, repository: &str, tag: &str, attributes: &Attributes) -> Result<(), String> {
    let digest = text(attributes, "digest");
    let key = format!("D#{repository}#{digest}");
    if items.attributes(&key, "M").is_none() {
        return Err("it names a manifest that is not there".to_owned());
    }
    if items.attributes(&key, &format!("e#t#{tag}")).is_none() {
        return Err("the manifest does not know of its tag".to_owned());
    }
    let history = format!("H#{repository}#{tag}");
    let changes = || items.collection(&history).filter(|(sort, _)| *sort != "x");
    let is_since_the_first = |(_, first): (&str, &Attributes)| first.get("at") == attributes.get("at");
    if FIXTURES.number_of(tag).is_some_and(is_frozen) && !changes().next().is_some_and(is_since_the_first) {
        return Err("it is frozen, and has forgotten since when it names its digest".to_owned());
    }
    let last = changes().last();
    let agrees = last.is_some_and(|(_, change)| {
        text(change, "after") == digest && change.get("version") == attributes.get("version")
    });
    agrees
        .then_some(())
        .ok_or_else(|| "its history tells something else".to_owned())
}

/// A link or a large manifest has the location of its blob record, its object exists, and it has a back-reference.
fn holds_bytes(
    items: &Items,
    objects: &Objects,
    repository: &str,
    digest: &str,
    attributes: &Attributes,
) -> Result<(), String> {
    let bytes = format!("B#{digest}");
    let object = text(attributes, "object");
    let record = items.attributes(&bytes, "B");
    let is_lost = objects.lost.contains(object);
    if record.is_none_or(|record| text(record, "object") != object && !is_lost) {
        return Err("the record of the bytes says something else".to_owned());
    }
    if !objects.there.contains(object) && !is_lost {
        return Err("the bytes are gone".to_owned());
    }
    is_fair(objects, attributes)?;
    let uid = text(attributes, "incarnation");
    if items.attributes(&bytes, &format!("l#{repository}#{uid}")).is_none() {
        return Err("its claim on the bytes is gone".to_owned());
    }
    Ok(())
}

/// Only lost and damaged objects have a recorded defect.
fn is_fair(objects: &Objects, attributes: &Attributes) -> Result<(), String> {
    let is_said = !text(attributes, "defect").is_empty();
    if is_said && !objects.lost.contains(text(attributes, "object")) {
        return Err("a whole object is said to have a defect".to_owned());
    }
    Ok(())
}

/// Every link and large manifest has the location of an intact object, and no defect.
pub(super) fn all_is_whole(world: &World) -> Result<(), String> {
    world.main.look(|items| {
        for (partition, sort, attributes) in items.iter() {
            let object = text(attributes, "object");
            let digest = partition.rsplit('#').next().unwrap_or_default();
            if !["B", "L", "M"].contains(&sort) || object.is_empty() {
                continue;
            }
            let record = items.attributes(&format!("B#{digest}"), "B");
            let agrees = record.is_some_and(|record| text(record, "object") == object);
            if !agrees || !world.is_whole(object) || !text(attributes, "defect").is_empty() {
                return Err(format!(
                    "{partition} / {sort} has not come right: {attributes:?}, {record:?}"
                ));
            }
        }
        Ok(())
    })
}

fn manifest(
    items: &Items,
    objects: &Objects,
    repository: &str,
    digest: &str,
    attributes: &Attributes,
) -> Result<(), String> {
    if !text(attributes, "object").is_empty() {
        holds_bytes(items, objects, repository, digest, attributes)?;
    }
    let uid = text(attributes, "incarnation");
    for target in FIXTURES.references(digest) {
        let partition_key = format!("D#{repository}#{target}");
        if items.attributes(&partition_key, "L").is_none() && items.attributes(&partition_key, "M").is_none() {
            return Err(format!("it refers to {target}, which is not there"));
        }
        if items
            .attributes(&partition_key, &format!("e#m#{digest}#{uid}"))
            .is_none()
        {
            return Err(format!("its edge to {target} is gone"));
        }
    }
    if items
        .attributes(&format!("T#{repository}"), &format!("m#{digest}"))
        .is_none()
    {
        return Err("it is not in the list".to_owned());
    }
    if items.attributes("C", repository).is_none() {
        return Err("its repository is not in the catalog".to_owned());
    }
    let subject = text(attributes, "subject");
    let row = (format!("D#{repository}#{subject}"), format!("e#s#{digest}"));
    if !subject.is_empty() && items.attributes(&row.0, &row.1).is_none() {
        return Err("its subject does not know of it".to_owned());
    }
    Ok(())
}

/// Histories are chains: each entry begins with the result of the one before, and changes something. A frozen tag has
/// one entry, or always the same digest if it may be deleted.
pub(super) fn histories(world: &World) -> Result<(), String> {
    world.main.look(|items| {
        let mut chain: Option<(String, String)> = None;
        // What each frozen tag named first, by partition.
        let mut frozen: BTreeMap<&str, &str> = BTreeMap::new();
        // The tombstone of a deleted tag is beside the entries.
        let changes = items
            .iter()
            .filter(|(partition, sort, _)| partition.starts_with("H#") && *sort != "x");
        for (partition, _, change) in changes {
            let (before, after) = (text(change, "before"), text(change, "after"));
            let last = chain.take().filter(|(of, _)| of == partition);
            let last = last.map(|(_, last)| last).unwrap_or_default();
            if last != before || before == after {
                return Err(format!("{partition}: from {last:?} follows {change:?}"));
            }
            let tag = partition.rsplit('#').next().unwrap_or_default();
            let number = FIXTURES.number_of(tag);
            if number.is_some_and(is_frozen) {
                let named = if after.is_empty() { before } else { after };
                let first = *frozen.entry(partition).or_insert(named);
                if first != named || number.is_some_and(is_kept) && !before.is_empty() {
                    return Err(format!("{partition}: a frozen tag has moved: {change:?}"));
                }
            }
            chain = Some((partition.to_owned(), after.to_owned()));
        }
        Ok(())
    })
}

/// The tags that a push has set, with what they named before, or that were deleted with their manifest, as the detail of the
/// event lists them.
fn listed_tags(detail: &str) -> Result<Vec<(String, String)>, String> {
    if detail.is_empty() {
        return Ok(Vec::new());
    }
    let list: Vec<BTreeMap<String, String>> =
        serde_json::from_str(detail).map_err(|error| format!("{detail}: {error}"))?;
    let text = |tag: &BTreeMap<String, String>, name: &str| tag.get(name).cloned().unwrap_or_default();
    Ok(list.iter().map(|tag| (text(tag, "tag"), text(tag, "before"))).collect())
}

/// The audit trail as it was counted.
#[derive(Default)]
struct Trail {
    /// The changes of tags: repository, tag, digest before, digest after.
    changes: BTreeMap<[String; 4], usize>,
    /// How many pushes more than deletions each manifest has: repository, digest.
    pushes: BTreeMap<[String; 2], i64>,
}

impl Trail {
    fn add(&mut self, event: &Attributes) -> Result<(), String> {
        let of = |name| text(event, name).to_owned();
        let (repository, reference) = (of(attributes::REPOSITORY), of(attributes::REFERENCE));
        match text(event, attributes::EVENT) {
            "manifest.pushed" => {
                *self.pushes.entry([repository.clone(), reference.clone()]).or_default() += 1;
                for (tag, before) in listed_tags(text(event, attributes::DETAIL))? {
                    let change = [repository.clone(), tag, before, reference.clone()];
                    *self.changes.entry(change).or_default() += 1;
                }
            }
            kind @ ("manifest.deleted" | "tag.deleted") => {
                let before = of(attributes::BEFORE);
                let mut tags: Vec<String> = listed_tags(text(event, attributes::DETAIL))?
                    .into_iter()
                    .map(|(tag, _)| tag)
                    .collect();
                if kind == "manifest.deleted" {
                    *self.pushes.entry([repository.clone(), reference]).or_default() -= 1;
                } else if tags.is_empty() {
                    tags.push(reference);
                }
                for tag in tags {
                    let change = [repository.clone(), tag, before.clone(), String::new()];
                    *self.changes.entry(change).or_default() += 1;
                }
            }
            "blob.deleted" | "repository.created" => {}
            _ => return Err(format!("an unknown event: {event:?}")),
        }
        Ok(())
    }

    /// Takes the event of a change away.
    fn take(&mut self, change: &[String; 4]) -> Result<(), String> {
        match self.changes.get_mut(change) {
            Some(events) if *events > 0 => {
                *events -= 1;
                Ok(())
            }
            _ => Err(format!("a change without its event: {change:?}")),
        }
    }
}

/// Every change of a tag has its event, and every event its change. A manifest was pushed more often than it was deleted as
/// long as it is there, and never less often.
pub(super) fn events(world: &World) -> Result<(), String> {
    world.main.look(|items| {
        let mut trail = Trail::default();
        for (_, _, event) in items.iter().filter(|(partition, ..)| partition.starts_with("U#")) {
            trail.add(event)?;
        }
        for (partition, sort, row) in items.iter() {
            let named = |kind: &str| partition.strip_prefix(kind).and_then(|rest| rest.rsplit_once('#'));
            if let Some((repository, tag)) = named("H#").filter(|_| sort != "x") {
                let change = [repository, tag, text(row, "before"), text(row, "after")];
                trail.take(&change.map(ToOwned::to_owned))?;
            }
            if let Some((repository, digest)) = named("D#").filter(|_| sort == "M") {
                *trail
                    .pushes
                    .entry([repository, digest].map(ToOwned::to_owned))
                    .or_default() -= 1;
            }
        }
        if let Some((change, _)) = trail.changes.iter().find(|(_, events)| **events > 0) {
            return Err(format!("an event without its change: {change:?}"));
        }
        match trail.pushes.iter().find(|(_, pushes)| **pushes < 0) {
            Some((manifest, _)) => Err(format!("a push without its event: {manifest:?}")),
            None => Ok(()),
        }
    })
}

/// The first garbage that is found; `None` if there is none.
pub(super) fn garbage(world: &World) -> Option<String> {
    let mut named = BTreeSet::new();
    let mut found = world.main.look(|items| {
        for (partition, sort, attributes) in items.iter() {
            if sort == "B" {
                named.insert(text(attributes, "object").to_owned());
            }
            if is_garbage(items, partition, sort) {
                return Some(format!("{partition} / {sort}"));
            }
        }
        None
    });
    let local = |items: &mut Items| {
        let rows = items
            .iter()
            .filter(|(partition, ..)| partition.starts_with("S#") || partition.starts_with("G#"));
        rows.map(|(partition, sort, _)| format!("{partition} / {sort}")).next()
    };
    found = found.or_else(|| world.local.look(local));
    let objects = world.objects();
    found.or_else(|| {
        objects
            .difference(&named)
            .next()
            .map(|object| format!("the object {object}"))
    })
}

fn is_garbage(items: &Items, partition: &str, sort: &str) -> bool {
    let of_uid = |partition_key: &str, kind: &str, uid: &str| {
        let row = items.attributes(partition_key, kind);
        row.is_some_and(|row| text(row, "incarnation") == uid)
    };
    let parts: Vec<&str> = sort.split('#').collect();
    if let Some((repository, digest)) = partition.strip_prefix("D#").and_then(|rest| rest.split_once('#')) {
        return match parts.as_slice() {
            ["L"] => !items.collection(partition).any(|(sort, _)| sort.starts_with("e#m#")),
            ["e", "m", parent, uid] => !of_uid(&format!("D#{repository}#{parent}"), "M", uid),
            ["r", uid, _] => !of_uid(&format!("D#{repository}#{digest}"), "M", uid),
            _ => false,
        };
    }
    if let Some(digest) = partition.strip_prefix("B#") {
        return match parts.as_slice() {
            ["l", repository, uid] => {
                let partition_key = format!("D#{repository}#{digest}");
                !of_uid(&partition_key, "L", uid) && !of_uid(&partition_key, "M", uid)
            }
            _ => !items.collection(partition).any(|(sort, _)| sort.starts_with("l#")),
        };
    }
    false
}
