//! Upload sessions: one row for each, which every write changes on condition of its version, and part records beside
//! it.
//!
//! A change whose answer was lost may have been applied, and its retry is then refused. So each change stores the uid
//! of its call: a call that finds its own uid at the version that it wanted to write has written that version.

mod expired;
mod signing;

use async_trait::async_trait;
use registry::store::sessions::{
    Cancelled, Claim, Claimed, End, Expected, Progress, Publishing, Session, SessionKey, SessionStore, SigningKey,
    State,
};
use registry::store::{Attempt, Context, StoreError, Timestamp, Uid};

use crate::DynamoStore;
use crate::keys;
use crate::records::{ItemFields, PartRow, SessionRow, attributes, has_version, state_text};
use crate::retrying::{Requests, WriteOutcome};
use crate::schema;
use crate::table::{Consistency, Item, RangeQuery, Value, Write, WriteCondition, Written};

/// Every attribute that a session's row may have.
const ATTRIBUTES: [&str; 15] = [
    attributes::WRITER,
    attributes::VERSION,
    attributes::STATE,
    attributes::PUBLISHED,
    attributes::ATTEMPTS,
    attributes::CLAIMED_UNTIL,
    attributes::OFFSET,
    attributes::HASH,
    attributes::PROGRESS,
    attributes::PARTS,
    attributes::DIGEST,
    attributes::STORE,
    attributes::OBJECT,
    attributes::SIZE,
    attributes::EXPIRES,
];

/// How many part records are read in one page. They are small; a page ends at 1 MB in any case.
const PARTS_PER_PAGE: usize = 1000;

/// A session's row as it is stored.
struct StoredSession {
    session: Session,
    writer: Option<Uid>,
}

impl StoredSession {
    fn read(item: &Item) -> Result<Self, StoreError> {
        let fields = ItemFields(item);
        let writer = fields.text_if_any(attributes::WRITER)?;
        Ok(Self {
            session: SessionRow::read(item)?,
            writer: writer.and_then(keys::number).map(Uid),
        })
    }

    /// Whether the call `cx` has written this row as `wanted`.
    fn is_from(&self, wanted: &Session, cx: Context) -> bool {
        self.writer == Some(cx.uid) && self.session.version == wanted.version
    }
}

/// A session without stored bytes.
fn empty() -> Session {
    Session {
        version: 0,
        state: State::UNCLAIMED,
        attempts: 0,
        progress: Progress::default(),
    }
}

/// A session whose row has been removed.
fn swept() -> Session {
    Session {
        state: State::Swept(None),
        ..empty()
    }
}

/// The attribute with the uid of the call, which every write sets.
fn writer(cx: Context) -> (&'static str, Value) {
    (attributes::WRITER, Value::S(cx.uid.to_string()))
}

/// A write that gives the row the content of `after`.
pub(crate) fn update(cx: Context, key: SessionKey, after: &Session, condition: WriteCondition) -> Write {
    let mut item = SessionRow::item(key, after);
    let (name, uid) = writer(cx);
    item.attributes.insert(name.to_owned(), uid);
    Write::change_to(item, &ATTRIBUTES, condition)
}

/// The session after the end of `claim`: one version on, and without the claim.
fn after_claim(claim: &Claim) -> Session {
    Session {
        version: claim.version + 1,
        state: State::UNCLAIMED,
        attempts: claim.attempt.number,
        progress: claim.progress.clone(),
    }
}

fn granted(key: SessionKey, session: Session) -> Claimed {
    Claimed::Granted(Claim {
        key,
        attempt: Attempt {
            session: key.id,
            number: session.attempts,
        },
        version: session.version,
        progress: session.progress,
    })
}

async fn read_row(requests: &Requests<'_>, key: SessionKey) -> Result<Option<StoredSession>, StoreError> {
    let item = requests.get(&keys::session(key)).await?;
    item.as_ref().map(StoredSession::read).transpose()
}

/// Gives the row the content of `after` if `condition` holds. `false`: it did not hold, or another change followed at
/// once.
pub(crate) async fn change(
    requests: &Requests<'_>,
    cx: Context,
    key: SessionKey,
    after: &Session,
    condition: WriteCondition,
) -> Result<bool, StoreError> {
    match requests.write(&update(cx, key, after, condition)).await? {
        WriteOutcome::Done => Ok(true),
        WriteOutcome::Refused { perhaps_done: false } => Ok(false),
        WriteOutcome::Refused { perhaps_done: true } => {
            let row = read_row(requests, key).await?;
            Ok(row.is_some_and(|row| row.is_from(after, cx)))
        }
    }
}

/// Writes a part record and the change of the row that counts it in one transaction. If the part were written
/// separately, a late write of an older claim could overwrite it.
async fn save_with_part(
    requests: &Requests<'_>,
    cx: Context,
    claim: &Claim,
    after: &Session,
    part: &[u8],
) -> Result<bool, StoreError> {
    let number = claim.progress.parts;
    let writes = [
        update(cx, claim.key, after, has_version(claim.version)),
        Write::Put {
            item: PartRow::item(claim.key, number, part),
            condition: WriteCondition::Always,
        },
    ];
    Ok(requests.transact(&writes).await? == Written::Done)
}

#[async_trait]
impl SessionStore for DynamoStore {
    async fn get(&self, cx: Context, key: SessionKey) -> Result<Option<Session>, StoreError> {
        let row = read_row(&self.local.within(cx), key).await?;
        Ok(row.map(|row| row.session))
    }

    async fn claim(
        &self,
        cx: Context,
        key: SessionKey,
        expected: Expected,
        until: Timestamp,
        maximum_attempts: u32,
    ) -> Result<Claimed, StoreError> {
        let requests = self.local.within(cx);
        // An expired token creates no row. Otherwise a session that was swept would start again, with object names that
        // are already in the deletion queue.
        let may_create = cx.now < key.expires;
        // The first claim of a session creates the row without reading it first. If the row exists, that write is
        // refused and still billed, so that all other claims read first.
        let mut known_row = if may_create && expected == Expected::New {
            None
        } else {
            Some(read_row(&requests, key).await?)
        };
        let mut written: Option<Session> = None;
        let mut round = 0;
        loop {
            let (before, condition) = match known_row {
                Some(Some(row)) if written.as_ref().is_some_and(|written| row.is_from(written, cx)) => {
                    return Ok(granted(key, row.session));
                }
                Some(Some(StoredSession { session, .. })) if !session.is_open() => {
                    return Ok(Claimed::Ended(session));
                }
                Some(Some(StoredSession { session, .. })) if session.is_claimed(cx.now) => {
                    return Ok(Claimed::Busy(session));
                }
                Some(Some(StoredSession { session, .. })) if session.attempts >= maximum_attempts => {
                    return Ok(Claimed::AttemptsExhausted(session));
                }
                Some(Some(StoredSession { session, .. })) => {
                    let condition = has_version(session.version);
                    (session, condition)
                }
                Some(None) if !may_create => return Ok(Claimed::Ended(swept())),
                Some(None) | None => (empty(), WriteCondition::Absent),
            };
            let after = Session {
                version: before.version + 1,
                attempts: before.attempts + 1,
                state: State::Open {
                    claimed_until: Some(until),
                },
                ..before
            };
            let answer = requests.write(&update(cx, key, &after, condition)).await?;
            if answer.is_done() {
                return Ok(granted(key, after));
            }
            // A refusal because the row already existed is no lost race.
            if round > 0 {
                requests.lost_race(round - 1).await?;
            }
            round += 1;
            known_row = Some(read_row(&requests, key).await?);
            written = Some(after);
        }
    }

    async fn renew(&self, cx: Context, claim: &Claim, until: Timestamp) -> Result<bool, StoreError> {
        let write = Write::Update {
            key: keys::session(claim.key),
            set: vec![(attributes::CLAIMED_UNTIL, Value::N(until.0))],
            remove: Vec::new(),
            // Every end of a claim or of the session changes the version.
            condition: has_version(claim.version),
        };
        let answer = self.local.within(cx).write(&write).await?;
        Ok(answer.is_done())
    }

    async fn save(
        &self,
        cx: Context,
        claim: &Claim,
        progress: Progress,
        part: Option<Vec<u8>>,
    ) -> Result<bool, StoreError> {
        let requests = self.local.within(cx);
        let parts = claim.progress.parts + u32::from(part.is_some());
        let after = Session {
            progress: Progress { parts, ..progress },
            ..after_claim(claim)
        };
        match part {
            Some(part) => save_with_part(&requests, cx, claim, &after, &part).await,
            None => change(&requests, cx, claim.key, &after, has_version(claim.version)).await,
        }
    }

    async fn release(&self, cx: Context, claim: &Claim) -> Result<(), StoreError> {
        let write = update(cx, claim.key, &after_claim(claim), has_version(claim.version));
        self.local.within(cx).write(&write).await?;
        Ok(())
    }

    async fn parts(&self, cx: Context, key: SessionKey) -> Result<Vec<Vec<u8>>, StoreError> {
        let requests = self.local.within(cx);
        let mut parts = Vec::new();
        let mut query = RangeQuery {
            range: keys::parts(key),
            after: None,
            descending: false,
            limit: PARTS_PER_PAGE,
            consistency: Consistency::Strong,
        };
        loop {
            let found = requests.query(&query).await?;
            for item in &found.items {
                parts.push(PartRow::read(item)?);
            }
            match found.more_after {
                Some(last) => query.after = Some(last.sort),
                None => return Ok(parts),
            }
        }
    }

    async fn commit(&self, cx: Context, claim: &Claim, publishing: &Publishing) -> Result<bool, StoreError> {
        let after = Session {
            state: State::Committing(publishing.clone()),
            ..after_claim(claim)
        };
        let requests = self.local.within(cx);
        change(&requests, cx, claim.key, &after, has_version(claim.version)).await
    }

    async fn finish(&self, cx: Context, claim: &Claim, end: End) -> Result<(), StoreError> {
        let state = |text: &str| Value::S(text.to_owned());
        // A committing session cannot be claimed, so that its last attempt is the one that commits.
        let committing = WriteCondition::All(vec![
            WriteCondition::Is(attributes::STATE, state(state_text::COMMITTING)),
            WriteCondition::Lacks(attributes::PUBLISHED),
            WriteCondition::Is(attributes::ATTEMPTS, Value::N(claim.attempt.number.into())),
        ]);
        let (text, condition) = match end {
            End::Published => (state_text::COMMITTING, committing),
            End::Done => (state_text::DONE, committing),
            // An open session can be cancelled, too.
            End::Cancelled => {
                let claimed = WriteCondition::All(vec![
                    WriteCondition::Is(attributes::STATE, state(state_text::OPEN)),
                    has_version(claim.version),
                ]);
                (state_text::CANCELLED, WriteCondition::Any(vec![committing, claimed]))
            }
        };
        let mut set = vec![
            writer(cx),
            (attributes::STATE, state(text)),
            // Higher than the version of the claim and that of the commit, whichever is in the row.
            (attributes::VERSION, Value::N(claim.version + 2)),
        ];
        let mut remove = vec![attributes::CLAIMED_UNTIL];
        match end {
            End::Published => set.push((attributes::PUBLISHED, Value::N(1))),
            End::Done | End::Cancelled => remove.push(attributes::PUBLISHED),
        }
        let write = Write::Update {
            key: keys::session(claim.key),
            set,
            remove,
            condition,
        };
        self.local.within(cx).write(&write).await?;
        Ok(())
    }

    async fn finish_committing(&self, cx: Context, key: SessionKey, end: End) -> Result<(), StoreError> {
        let requests = self.local.within(cx);
        let Some(StoredSession { session, .. }) = read_row(&requests, key).await? else {
            return Ok(());
        };
        if matches!(session.state, State::Committing(_))
            && let Some(state) = session.state.finished(end)
        {
            let condition = has_version(session.version);
            let after = Session {
                version: session.version + 1,
                state,
                ..session
            };
            // Refused: the committing request or a sweep has finished the session.
            requests.write(&update(cx, key, &after, condition)).await?;
        }
        Ok(())
    }

    async fn cancel(&self, cx: Context, key: SessionKey) -> Result<Cancelled, StoreError> {
        let requests = self.local.within(cx);
        let mut round = 0;
        loop {
            let before = read_row(&requests, key).await?.map(|row| row.session);
            if before.as_ref().is_some_and(|session| !session.is_open()) {
                return Ok(Cancelled::Ended);
            }
            let condition = before
                .as_ref()
                .map_or(WriteCondition::Absent, |session| has_version(session.version));
            let session = before.clone().unwrap_or_else(empty);
            let after = Session {
                version: session.version + 1,
                state: State::Cancelled(None),
                ..session
            };
            if change(&requests, cx, key, &after, condition).await? {
                return Ok(Cancelled::Now(before));
            }
            requests.lost_race(round).await?;
            round += 1;
        }
    }

    async fn expired(
        &self,
        cx: Context,
        before: Timestamp,
        after: Option<SessionKey>,
        limit: usize,
    ) -> Result<Vec<(SessionKey, Session)>, StoreError> {
        expired::expired(&self.local.within(cx), before, after, limit).await
    }

    async fn signing_keys(&self, cx: Context, candidate: SigningKey) -> Result<Vec<SigningKey>, StoreError> {
        if self.has_two_tables() {
            // This happens before the first upload. A main table without this flag is therefore not the one that the
            // registry began with.
            schema::mark_used(self.main.within(cx)).await?;
        }
        signing::keys(&self.local.within(cx), &candidate).await
    }
}
