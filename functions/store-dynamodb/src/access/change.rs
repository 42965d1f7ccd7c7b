//! The transaction of a change of administration.
//!
//! The state's version is the condition of every change, so that changes are made one after the other. The same transaction
//! writes the account, the policy and the event. The first event also writes since when there are events, and so does an
//! imported one that is older; the first account or policy raises the layout version of the table. A process looks once
//! whether these two rows are there.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use registry::auth::AccountName;
use registry::store::access::{AccessChange, AccountChange, Applied, AuditEvent};
use registry::store::{StoreError, Timestamp, Uid};

use super::audit::SKEW_MS;
use super::keys;
use super::rows::{AccountRow, EventRow, FirstEventRow, PolicyRow, PolicyVersionRow, StateRow};
use crate::keys as table_keys;
use crate::records::has_version;
use crate::retrying::Requests;
use crate::schema;
use crate::table::{Item, Write, WriteCondition, Written};

/// What the main table is known to have.
#[derive(Debug)]
pub(crate) struct KnownRows {
    /// The time of the first event, as it was read. The one in the table is the same or earlier, and never grows.
    first_event: AtomicU64,
    /// A layout version that says that there are accounts or a policy. It is never taken back.
    layout: AtomicBool,
}

impl Default for KnownRows {
    fn default() -> Self {
        Self {
            first_event: AtomicU64::new(u64::MAX),
            layout: AtomicBool::new(false),
        }
    }
}

impl KnownRows {
    /// Writes since when there are events, unless that is written already: lists begin there. The row comes before the first
    /// event, and not with it, so that racing pushes do not refuse each other.
    pub(crate) async fn begin_events(&self, requests: &Requests<'_>, now: Timestamp) -> Result<(), StoreError> {
        while !self.lists_have(now) {
            let found = requests.get(&keys::first_event()).await?;
            let Some(write) = self.first_event_write(found.as_ref(), now)? else {
                return Ok(());
            };
            if requests.write(&write).await?.is_done() {
                self.saw_first_event(now);
            }
            // Otherwise another instance has written the row, or this one has, and the answer was lost.
        }
        Ok(())
    }

    /// Whether lists are known to begin before an event of this time.
    fn lists_have(&self, at: Timestamp) -> bool {
        is_listed(Timestamp(self.first_event.load(Ordering::Relaxed)), at)
    }

    fn saw_first_event(&self, first: Timestamp) {
        self.first_event.store(first.0, Ordering::Relaxed);
    }

    /// The write after which lists begin before an event of this time, from the row as it was read. It is refused if another
    /// instance writes the row meanwhile. `None`: they begin there already.
    fn first_event_write(&self, found: Option<&Item>, at: Timestamp) -> Result<Option<Write>, StoreError> {
        let Some(item) = found else {
            return Ok(Some(put(FirstEventRow::item(at), WriteCondition::Absent)));
        };
        let first = FirstEventRow::read(item)?;
        if is_listed(first, at) {
            self.saw_first_event(first);
            return Ok(None);
        }
        Ok(Some(put(FirstEventRow::item(at), FirstEventRow::is(first))))
    }
}

/// Whether lists that begin with this first event have an event of this time. [`u64::MAX`] is no first event.
const fn is_listed(first: Timestamp, at: Timestamp) -> bool {
    first.0 != u64::MAX && at.0 >= first.0.saturating_sub(SKEW_MS)
}

/// The write of an event, for the transaction of the change that it is about.
pub(crate) fn event_write(event: &AuditEvent) -> Write {
    put(EventRow::item(event), WriteCondition::Always)
}

/// What became of a change whose transaction was refused.
enum Refused {
    /// The state has another version, and this change has not made it.
    Conflict,
    /// An earlier try was applied.
    Applied,
    /// The state has the version from which the change was made: another row was written meanwhile.
    Again,
}

/// The account that a change removes.
pub(super) fn removed(change: &AccessChange) -> Option<&AccountName> {
    match &change.account {
        Some(AccountChange::Remove(name)) => Some(name),
        Some(AccountChange::Put(_)) | None => None,
    }
}

/// Makes the change. `call` is its uid.
pub(super) async fn apply(
    requests: &Requests<'_>,
    known: &KnownRows,
    call: Uid,
    change: &AccessChange,
) -> Result<Applied, StoreError> {
    let writes = writes(change, call)?;
    let mut round = 0;
    loop {
        let mut all = writes.clone();
        all.extend(first_writes(requests, known, change).await?);
        if requests.transact(&all).await? == Written::Done {
            return Ok(Applied::Applied);
        }
        match refused(requests, call, change).await? {
            Refused::Applied => return Ok(Applied::Applied),
            Refused::Conflict => return Ok(Applied::Conflict),
            Refused::Again => requests.lost_race(round).await?,
        }
        round += 1;
    }
}

fn put(item: Item, condition: WriteCondition) -> Write {
    Write::Put { item, condition }
}

fn writes(change: &AccessChange, call: Uid) -> Result<Vec<Write>, StoreError> {
    let before = change.state.version.checked_sub(1);
    let condition = match before.ok_or_else(|| StoreError::failed("a change makes version 1 or a later one"))? {
        0 => WriteCondition::Absent,
        before => has_version(before),
    };
    let mut writes = vec![StateRow::update(&change.state, call, condition)?];
    match &change.account {
        Some(AccountChange::Put(account)) => writes.push(AccountRow::update(account)?),
        Some(AccountChange::Remove(name)) => writes.push(Write::delete(keys::account(name))),
        None => {}
    }
    if let Some(policy) = &change.policy {
        writes.push(put(PolicyRow::item(policy), WriteCondition::Always));
        writes.push(put(PolicyVersionRow::item(policy), WriteCondition::Always));
    }
    if let Some(event) = &change.event {
        writes.push(event_write(event));
    }
    Ok(writes)
}

/// The writes that only the first change of its kind makes, on condition that it is the first. The first event is the
/// earliest one.
async fn first_writes(
    requests: &Requests<'_>,
    known: &KnownRows,
    change: &AccessChange,
) -> Result<Vec<Write>, StoreError> {
    // A table without a state is new, whatever this process knows of an earlier table of the same name.
    let is_new = change.state.version == 1;
    let event = change
        .event
        .as_ref()
        .filter(|event| is_new || !known.lists_have(event.at));
    let is_of_layout = change.policy.is_some() || matches!(change.account, Some(AccountChange::Put(_)));
    let layout = is_of_layout && (is_new || !known.layout.load(Ordering::Relaxed));
    let (first_event, schema_row) = (keys::first_event(), table_keys::schema());
    let mut asked = BTreeSet::new();
    asked.extend(event.map(|_| first_event.clone()));
    asked.extend(layout.then(|| schema_row.clone()));
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let found = requests.get_all(&asked).await?;
    let mut writes = Vec::new();
    if let Some(event) = event {
        writes.extend(known.first_event_write(found.get(&first_event), event.at)?);
    }
    if layout {
        match schema::raising(found.get(&schema_row))? {
            Some(write) => writes.push(write),
            None => known.layout.store(true, Ordering::Relaxed),
        }
    }
    Ok(writes)
}

/// Finds out what became of a change whose transaction was refused. The state is read before the event, so that an event
/// of the version that was read, or of an earlier one, is seen.
async fn refused(requests: &Requests<'_>, call: Uid, change: &AccessChange) -> Result<Refused, StoreError> {
    let state = requests.get(&keys::state()).await?;
    let state = state.as_ref().map(StateRow::version).transpose()?;
    let version = state.map_or(0, |(version, _)| version);
    let wanted = change.state.version;
    if version + 1 == wanted {
        return Ok(Refused::Again);
    }
    if version < wanted {
        return Ok(Refused::Conflict);
    }
    let is_applied = match &change.event {
        Some(event) => {
            let row = requests.get(&keys::event(event)).await?;
            row.as_ref().map(EventRow::read).transpose()?.as_ref() == Some(event)
        }
        // Without an event only the last change shows which call made it. The changes without an event can be made again.
        None => state == Some((wanted, call)),
    };
    Ok(if is_applied {
        Refused::Applied
    } else {
        Refused::Conflict
    })
}
