//! An instance that makes one mistake on purpose.
//!
//! A search through schedules proves something only if it finds what is wrong. Each mistake that the protocols guard
//! against is therefore made in turn, and a test asserts that the search finds it. The protocols know nothing of this:
//! a mistake is made between an instance and its tables, by a [`MutantTable`] that recognises requests and changes
//! them. It weakens the condition of a write, leaves a write out, sends it late, or answers a read with what was true
//! before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use oci::{Digest, RepositoryName};

use super::world::HOUR;
use crate::access::is_of_access;
use crate::keys::{self, RecordKey};
use crate::memory::MemoryTable;
use crate::records::{DeletionMark, MarkPurpose, attributes};
use crate::table::{
    Consistency, Item, ItemKey, ItemPage, Range, RangeQuery, Table, TableError, Value, Write, WriteCondition, Written,
};

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutation {
    /// A put of a manifest reads what the manifest refers to before it has written its edges.
    ReadBeforeEdges,
    /// A put of a manifest that finds a mark on what it refers to leaves it there.
    IgnoreMarks,
    /// A removal finds no edges.
    IgnoreEdges,
    /// A collection that has marked a blob record does not look for back-references a second time.
    IgnoreBackReferences,
    /// Deleting a manifest removes the edges of every uid.
    EdgesOfEveryUid,
    /// Removing a link removes the back-references of every uid.
    BackReferencesOfEveryUid,
    /// A commit writes its back-reference after it has read the blob record.
    LateBackReference,
    /// An edge counts only when the manifest that makes it is published.
    PublishedEdgesOnly,
    /// A pending deletion is due at once.
    DueAtOnce,
    /// A session or a blob record is deleted before its objects are scheduled for deletion.
    ScheduleLate,
    /// An object that is scheduled for deletion again keeps the time of the first.
    KeepFirstSchedule,
    /// Before an object is deleted, its pending deletion is read first and its blob record afterwards.
    PendingDeletionFirst,
    /// A pending deletion is forgotten although its object was scheduled again.
    ForgetBlindly,
    /// A mark that a collection has just written on a link counts as one that has stood for a day.
    UnlinkAtOnce,
    /// Deleting a manifest does not look whether it was put again since it was marked.
    IgnoreVersion,
    /// A write that creates a link and was not answered is sent again, whatever became of the link meanwhile.
    RetryBlindly,
    /// A tag is written whatever it names by now.
    BlindTag,
    /// A tag is created whether or not it was created and deleted since it was read.
    BlindTombstone,
    /// The instance ignores what the service says of the time.
    TrustClock,
    /// A blob record gets another location whatever its location is by now.
    ReplaceBlindly,
    /// A blob record gets another location, and the links and manifests that copy it do not.
    ReplaceAlone,
    /// A defect is recorded of whichever object the blob record names by now.
    RecordBlindly,
    /// After a link was created, its blob record is not read again.
    CheckOnce,
    /// A link that was made to agree with its blob record is not compared with it again.
    SyncOnce,
    /// A put leaves the mark of a collection on the repository's row in the catalog.
    KeepCatalogMark,
    /// A collection deletes a repository's row in the catalog whether or not its mark still stands.
    DeleteCatalogBlindly,
    /// An event is written after the transaction of its change.
    EventApart,
}

/// How often a write that the mutant sends by itself is tried.
const TRIES: usize = 100;

/// One table of one instance. Clones, and the two tables of one instance, share what they have observed.
#[derive(Clone)]
pub(super) struct MutantTable {
    table: MemoryTable,
    local: MemoryTable,
    mutation: Mutation,
    observed: Arc<Mutex<Observed>>,
}

/// What the instance has done so far, as far as a mistake depends on it.
#[derive(Default)]
struct Observed {
    /// Writes that were answered and not sent yet, with the table that they are for.
    withheld: Vec<(MemoryTable, Write)>,
    /// Blob records as they were read.
    blob_records: BTreeMap<ItemKey, Option<Item>>,
    /// The last write created a link, to this digest.
    linked: Option<Digest>,
    /// The last write removed a link.
    unlinked: Option<(RepositoryName, Digest)>,
    /// The manifests that were deleted.
    deleted: BTreeSet<(RepositoryName, Digest)>,
    /// Links and manifests that were made to agree with a blob record, and not read since then.
    agreed: BTreeSet<ItemKey>,
    /// The last write gave this blob record another location.
    replaced: Option<Digest>,
    /// The last write marked this blob record.
    marked: Option<Digest>,
    /// The pending deletions as they were before a blob record was read, unless something was written since then.
    pending_deletions: Option<Vec<Item>>,
}

/// An answer that the table has given before, or that the mutant makes up.
struct Remembered(Option<Item>);

/// Whether a write only takes a mark away, from whatever is there.
fn unmarks_blindly(write: &Write) -> bool {
    matches!(write, Write::Update { set, remove, condition: WriteCondition::Exists, .. }
        if set.is_empty() && *remove == [attributes::MARK])
}

fn sets(write: &Write, name: &str) -> bool {
    matches!(write, Write::Update { set, .. } if set.iter().any(|(set, _)| *set == name))
}

fn change(write: &mut Write, name: &str, change: impl FnOnce(&Value) -> Value) {
    if let Write::Update { set, .. } = write
        && let Some((_, value)) = set.iter_mut().find(|(set, _)| *set == name)
    {
        *value = change(value);
    }
}

fn with_condition(mut write: Write, weaker: WriteCondition) -> Write {
    match &mut write {
        Write::Put { condition, .. }
        | Write::Update { condition, .. }
        | Write::Delete { condition, .. }
        | Write::Check { condition, .. } => *condition = weaker,
    }
    write
}

fn is_delete(write: &Write) -> bool {
    matches!(write, Write::Delete { .. })
}

/// The digest whose back-references a range holds.
fn digest_of_back_references(range: &Range) -> Option<Digest> {
    let digest = range.partition.strip_prefix("B#")?;
    digest.parse().ok().filter(|_| range.from.starts_with("l#"))
}

fn holds_edges(range: &Range) -> bool {
    range.partition.starts_with("D#") && range.from.starts_with("e#m#")
}

/// The manifest of an edge, or the repository of a back-reference.
fn owner_of(key: &ItemKey) -> Option<String> {
    match RecordKey::of(key)? {
        RecordKey::Edge { parent, .. } => Some(parent.to_string()),
        RecordKey::BackLink { repository, .. } => Some(repository.to_string()),
        _ => None,
    }
}

/// Sends a write until it is answered.
async fn send(table: &MemoryTable, write: &Write) {
    for _ in 0..TRIES {
        if table.write(write).await.is_ok() {
            return;
        }
    }
    panic!("a write of a mutant is never answered");
}

/// All items of a range. Only a table that answers at once is asked like this.
async fn all_of(table: &MemoryTable, range: Range) -> Vec<Item> {
    let query = RangeQuery {
        range,
        after: None,
        descending: false,
        limit: 1000,
        consistency: Consistency::Strong,
    };
    for _ in 0..TRIES {
        if let Ok(found) = table.query(&query).await {
            return found.items;
        }
    }
    panic!("a query of a mutant is never answered");
}

impl MutantTable {
    /// The two tables of an instance that makes this mistake.
    pub(super) fn over(mutation: Mutation, main: MemoryTable, local: MemoryTable) -> [Arc<dyn Table>; 2] {
        let main = Self {
            table: main,
            local: local.clone(),
            mutation,
            observed: Arc::default(),
        };
        let local = Self {
            table: local,
            ..main.clone()
        };
        [Arc::new(main), Arc::new(local)]
    }

    fn observed(&self) -> MutexGuard<'_, Observed> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The write as the mutant sends it: on a weaker condition, or with another time.
    fn rewritten(&self, write: &Write) -> Write {
        let name = RecordKey::of(write.key());
        let mut write = match self.weaker_condition(write, name.as_ref()) {
            Some(weaker) => with_condition(write.clone(), weaker),
            None => write.clone(),
        };
        match (self.mutation, name) {
            (Mutation::DueAtOnce, Some(RecordKey::PendingDeletion)) => {
                change(&mut write, attributes::AT, |at| match at {
                    Value::N(at) => Value::N(at - 100 * HOUR),
                    other => other.clone(),
                });
            }
            (Mutation::UnlinkAtOnce, Some(RecordKey::Link(..))) => {
                change(&mut write, attributes::MARK, |mark| match mark {
                    Value::S(text) => {
                        let mut mark: DeletionMark = text.parse().expect("a mark");
                        if mark.purpose == MarkPurpose::Collection {
                            mark.at.0 -= 100 * HOUR;
                        }
                        mark.value()
                    }
                    other => other.clone(),
                });
            }
            _ => {}
        }
        write
    }

    /// The condition on which the mutant sends this write, if it is another.
    fn weaker_condition(&self, write: &Write, name: Option<&RecordKey>) -> Option<WriteCondition> {
        let (is_meant, weaker) = match (self.mutation, name?) {
            (Mutation::IgnoreVersion, RecordKey::Manifest(..))
            | (Mutation::DeleteCatalogBlindly, RecordKey::Repository(_)) => (is_delete(write), WriteCondition::Exists),
            (Mutation::ReplaceBlindly, RecordKey::Blob(_)) => (sets(write, attributes::OBJECT), WriteCondition::Exists),
            (Mutation::RecordBlindly, RecordKey::Blob(_)) => (sets(write, attributes::DEFECT), WriteCondition::Exists),
            (Mutation::BlindTag, RecordKey::Tag(..)) => (!sets(write, attributes::DEFECT), WriteCondition::Always),
            (Mutation::BlindTombstone, RecordKey::Tombstone(..)) => (true, WriteCondition::Always),
            (Mutation::ForgetBlindly, RecordKey::PendingDeletion) => (is_delete(write), WriteCondition::Always),
            _ => return None,
        };
        is_meant.then_some(weaker)
    }

    /// Whether the mutant leaves this write out, and says that it is done.
    fn leaves_out(&self, write: &Write) -> bool {
        let name = RecordKey::of(write.key());
        match self.mutation {
            Mutation::IgnoreMarks => {
                unmarks_blindly(write) && matches!(name, Some(RecordKey::Link(..) | RecordKey::Manifest(..)))
            }
            Mutation::KeepCatalogMark => unmarks_blindly(write) && matches!(name, Some(RecordKey::Repository(_))),
            _ => false,
        }
    }

    /// Whether the mutant sends this write late, and says now that it is done.
    fn withholds(&self, write: &Write) -> bool {
        let name = RecordKey::of(write.key());
        match self.mutation {
            Mutation::ReadBeforeEdges => {
                matches!(write, Write::Put { .. }) && matches!(name, Some(RecordKey::Edge { .. }))
            }
            Mutation::LateBackReference => {
                matches!(write, Write::Put { .. }) && matches!(name, Some(RecordKey::BackLink { .. }))
            }
            // Only where something is deleted afterwards: by a sweep, and by a collection that has marked a blob record.
            Mutation::ScheduleLate => {
                matches!(name, Some(RecordKey::PendingDeletion))
                    && (sets(write, attributes::UNFINISHED) || self.observed().marked.is_some())
            }
            _ => false,
        }
    }

    /// What is left to send of some writes, which are answered as if all were sent.
    fn withhold(&self, writes: &[Write]) -> Vec<Write> {
        let (withheld, left): (Vec<Write>, Vec<Write>) =
            writes.iter().cloned().partition(|write| self.withholds(write));
        let withheld = withheld.into_iter().map(|write| (self.table.clone(), write));
        self.observed().withheld.extend(withheld);
        left
    }

    /// Sends what was withheld.
    async fn release(&self) {
        let withheld = std::mem::take(&mut self.observed().withheld);
        for (table, write) in withheld {
            send(&table, &write).await;
        }
    }

    /// The items that the mutant deletes besides this one: those of a range that are of the same manifest or repository.
    fn range_to_delete(&self, write: &Write) -> Option<Range> {
        let observed = self.observed();
        match RecordKey::of(write.key()).filter(|_| is_delete(write))? {
            RecordKey::Edge {
                repository,
                target,
                parent,
                ..
            } => (self.mutation == Mutation::EdgesOfEveryUid
                && observed.deleted.contains(&(repository.clone(), parent)))
            .then(|| keys::edges(&repository, &target)),
            RecordKey::BackLink { digest, repository, .. } => (self.mutation == Mutation::BackReferencesOfEveryUid
                && observed.unlinked == Some((repository, digest)))
            .then(|| keys::back_links(&digest)),
            _ => None,
        }
    }

    async fn delete_more(&self, write: &Write) {
        let Some(range) = self.range_to_delete(write) else {
            return;
        };
        let owner = owner_of(write.key());
        for item in all_of(&self.table, range).await {
            if owner_of(&item.key) == owner {
                send(&self.table, &Write::delete(item.key)).await;
            }
        }
    }

    /// Notes a write that is about to be sent.
    fn observe(&self, write: &Write) {
        let mut observed = self.observed();
        (observed.linked, observed.unlinked) = (None, None);
        (observed.replaced, observed.marked) = (None, None);
        observed.pending_deletions = None;
        match (write, RecordKey::of(write.key())) {
            (Write::Put { .. }, Some(RecordKey::Link(_, digest))) => observed.linked = Some(digest),
            (Write::Delete { .. }, Some(RecordKey::Link(repository, digest))) => {
                observed.unlinked = Some((repository, digest));
            }
            (Write::Update { .. }, Some(RecordKey::Blob(digest))) if sets(write, attributes::OBJECT) => {
                observed.replaced = Some(digest);
            }
            (Write::Update { .. }, Some(RecordKey::Blob(digest))) if sets(write, attributes::MARK) => {
                observed.marked = Some(digest);
            }
            (Write::Update { key, .. }, Some(RecordKey::Link(..) | RecordKey::Manifest(..)))
                if sets(write, attributes::OBJECT) =>
            {
                observed.agreed.insert(key.clone());
            }
            _ => {}
        }
    }

    /// Whether this query is answered as if there was nothing.
    fn finds_nothing(&self, range: &Range) -> bool {
        let digest = digest_of_back_references(range);
        let mut observed = self.observed();
        match self.mutation {
            Mutation::IgnoreEdges => holds_edges(range),
            Mutation::IgnoreBackReferences => digest.is_some() && observed.marked.take() == digest,
            Mutation::ReplaceAlone => digest.is_some() && observed.replaced.take() == digest,
            _ => false,
        }
    }

    /// The answer to a read of one item, if the mutant does not ask the table.
    fn remembered(&self, key: &ItemKey) -> Option<Remembered> {
        let mut observed = self.observed();
        match (self.mutation, RecordKey::of(key)?) {
            // So that the comparison ends.
            (Mutation::SyncOnce, RecordKey::Link(..) | RecordKey::Manifest(..)) => {
                observed.agreed.remove(key).then_some(Remembered(None))
            }
            (Mutation::CheckOnce, RecordKey::Blob(digest)) if observed.linked.take() == Some(digest) => {
                observed.blob_records.get(key).cloned().map(Remembered)
            }
            (Mutation::PendingDeletionFirst, RecordKey::PendingDeletion) => {
                let before = observed.pending_deletions.take()?;
                Some(Remembered(before.into_iter().find(|item| item.key == *key)))
            }
            _ => None,
        }
    }
}

#[async_trait]
impl Table for MutantTable {
    async fn get(&self, key: &ItemKey, consistency: Consistency) -> Result<Option<Item>, TableError> {
        if let Some(Remembered(answer)) = self.remembered(key) {
            return Ok(answer);
        }
        let is_blob_record = matches!(RecordKey::of(key), Some(RecordKey::Blob(_)));
        if is_blob_record && self.mutation == Mutation::PendingDeletionFirst {
            let found = self.local.scan(None, 1000).await?;
            self.observed().pending_deletions = Some(found.items);
        }
        let answer = self.table.get(key, consistency).await?;
        if is_blob_record {
            self.observed().blob_records.insert(key.clone(), answer.clone());
            if self.mutation == Mutation::LateBackReference {
                self.release().await;
            }
        }
        Ok(answer)
    }

    async fn query(&self, query: &RangeQuery) -> Result<ItemPage, TableError> {
        if self.finds_nothing(&query.range) {
            return Ok(ItemPage::default());
        }
        let mut found = self.table.query(query).await?;
        if self.mutation == Mutation::PublishedEdgesOnly && holds_edges(&query.range) {
            for edge in &mut found.items {
                // So old that it counts no more by itself.
                edge.attributes.insert(attributes::AT.to_owned(), Value::N(0));
            }
        }
        Ok(found)
    }

    async fn scan(&self, after: Option<&ItemKey>, limit: usize) -> Result<ItemPage, TableError> {
        self.table.scan(after, limit).await
    }

    async fn write(&self, write: &Write) -> Result<Written, TableError> {
        if self.leaves_out(write) || self.withhold(std::slice::from_ref(write)).is_empty() {
            return Ok(Written::Done);
        }
        self.delete_more(write).await;
        self.observe(write);
        let sent = self.rewritten(write);
        let name = RecordKey::of(write.key());
        let is_new_link = matches!(write, Write::Put { .. }) && matches!(name, Some(RecordKey::Link(..)));
        let written = loop {
            match self.table.write(&sent).await {
                Err(TableError::Retry { not_done: false, .. })
                    if is_new_link && self.mutation == Mutation::RetryBlindly => {}
                answer => break answer?,
            }
        };
        let ends = is_delete(write) && matches!(name, Some(RecordKey::Session(_) | RecordKey::Blob(_)));
        if ends && self.mutation == Mutation::ScheduleLate {
            self.release().await;
        }
        let is_scheduled = matches!(name, Some(RecordKey::PendingDeletion)) && !is_delete(write);
        if is_scheduled && self.mutation == Mutation::KeepFirstSchedule {
            return Ok(Written::Done);
        }
        Ok(written)
    }

    async fn transact(&self, writes: &[Write], token: &str) -> Result<Written, TableError> {
        for write in writes {
            self.observe(write);
        }
        let is_apart = |write: &&Write| self.mutation == Mutation::EventApart && is_of_access(write.key());
        let (apart, together): (Vec<&Write>, Vec<&Write>) = writes.iter().partition(is_apart);
        let sent: Vec<Write> = together.iter().map(|write| self.rewritten(write)).collect();
        let written = self.table.transact(&sent, token).await?;
        if written == Written::Done {
            for event in apart {
                send(&self.table, event).await;
            }
            let deleted = writes.iter().filter(|write| is_delete(write));
            let deleted = deleted.filter_map(|write| match RecordKey::of(write.key()) {
                Some(RecordKey::Manifest(repository, digest)) => Some((repository, digest)),
                _ => None,
            });
            self.observed().deleted.extend(deleted);
        }
        Ok(written)
    }

    async fn batch_get(&self, keys: &[ItemKey]) -> Result<(Vec<Item>, Vec<ItemKey>), TableError> {
        let answer = self.table.batch_get(keys).await?;
        if self.mutation == Mutation::ReadBeforeEdges {
            self.release().await;
        }
        Ok(answer)
    }

    async fn batch_write(&self, writes: &[Write]) -> Result<Vec<Write>, TableError> {
        let left = self.withhold(writes);
        if left.is_empty() {
            return Ok(left);
        }
        for write in &left {
            self.delete_more(write).await;
        }
        self.table.batch_write(&left).await
    }
}
