//! Upload sessions and the keys that sign their tokens.

use async_trait::async_trait;
use registry::store::sessions::{
    Cancelled, Claim, Claimed, End, Expected, Progress, Publishing, Session, SessionKey, SessionStore, SigningKey,
    State,
};
use registry::store::{Attempt, Context, StoreError, Timestamp};
use rusqlite::{Row, params};

use super::SqliteStore;
use super::rows::{OperationFailure, Rows};
use super::values::{Columns, integer, session_key, timestamp};

/// Reads a row, with the columns in the order of [`session`].
const GET: &str = "SELECT version, state, attempts, claimed_until, bytes, hash, store, parts, digest, \
    object_store, object_key, object_size FROM session WHERE expires = ?1 AND id = ?2";

/// The values of the column `state`.
const OPEN: &str = "open";
const COMMITTING: &str = "committing";
const DONE: &str = "done";
const CANCELLED: &str = "cancelled";

/// The `claimed_until` of a session that is published, whose state is 'committing' and which has no claim. The previous
/// version of the program does not know this value. It may treat such a session as an interrupted publication.
const ACKNOWLEDGED: i64 = 0;

#[async_trait]
impl SessionStore for SqliteStore {
    async fn get(&self, cx: Context, key: SessionKey) -> Result<Option<Session>, StoreError> {
        self.read(cx, move |rows| get(rows, key)).await
    }

    async fn claim(
        &self,
        cx: Context,
        key: SessionKey,
        _expected: Expected,
        until: Timestamp,
        maximum: u32,
    ) -> Result<Claimed, StoreError> {
        self.write(cx, move |rows| {
            let (expires, id) = session_key(key);
            let (version, number, progress) = match get(rows, key)? {
                None => {
                    rows.change(
                        "INSERT INTO session \
                         (expires, id, version, state, attempts, claimed_until, bytes, hash, store, parts) \
                         VALUES (?1, ?2, 1, 'open', 1, ?3, 0, x'', x'', 0)",
                        params![expires, id, timestamp(until)],
                    )?;
                    (1, 1, Progress::default())
                }
                Some(session) if !session.is_open() => return Ok(Claimed::Ended(session)),
                Some(session) if session.is_claimed(cx.now) => return Ok(Claimed::Busy(session)),
                Some(session) if session.attempts >= maximum => return Ok(Claimed::AttemptsExhausted(session)),
                Some(session) => {
                    rows.change(
                        "UPDATE session SET version = version + 1, attempts = attempts + 1, claimed_until = ?3 \
                         WHERE expires = ?1 AND id = ?2",
                        params![expires, id, timestamp(until)],
                    )?;
                    (session.version + 1, session.attempts + 1, session.progress)
                }
            };
            Ok(Claimed::Granted(Claim {
                key,
                attempt: Attempt {
                    session: key.id,
                    number,
                },
                version,
                progress,
            }))
        })
        .await
    }

    async fn renew(&self, cx: Context, claim: &Claim, until: Timestamp) -> Result<bool, StoreError> {
        let ((expires, id), version) = (session_key(claim.key), integer(claim.version));
        self.write_ordered(cx, move |rows| {
            let changed = rows.change(
                "UPDATE session SET claimed_until = ?4 \
                 WHERE expires = ?1 AND id = ?2 AND version = ?3 AND state = 'open' AND claimed_until IS NOT NULL",
                params![expires, id, version, timestamp(until)],
            )?;
            Ok(changed == 1)
        })
        .await
    }

    async fn save(
        &self,
        cx: Context,
        claim: &Claim,
        progress: Progress,
        part: Option<Vec<u8>>,
    ) -> Result<bool, StoreError> {
        let ((expires, id), version) = (session_key(claim.key), integer(claim.version));
        self.write(cx, move |rows| {
            let changed = rows.change(
                "UPDATE session SET version = version + 1, claimed_until = NULL, bytes = ?4, hash = ?5, store = ?6, \
                 parts = parts + ?7 \
                 WHERE expires = ?1 AND id = ?2 AND version = ?3 AND state = 'open' AND claimed_until IS NOT NULL",
                params![
                    expires,
                    id,
                    version,
                    integer(progress.offset),
                    progress.hash,
                    progress.store,
                    part.is_some(),
                ],
            )?;
            if changed == 1
                && let Some(record) = &part
            {
                rows.change(
                    "INSERT INTO session_part (expires, id, number, record) \
                     SELECT expires, id, parts, ?3 FROM session WHERE expires = ?1 AND id = ?2",
                    params![expires, id, record],
                )?;
            }
            Ok(changed == 1)
        })
        .await
    }

    async fn release(&self, cx: Context, claim: &Claim) -> Result<(), StoreError> {
        let ((expires, id), version) = (session_key(claim.key), integer(claim.version));
        self.write_ordered(cx, move |rows| {
            rows.change(
                "UPDATE session SET version = version + 1, claimed_until = NULL \
                 WHERE expires = ?1 AND id = ?2 AND version = ?3 AND state = 'open' AND claimed_until IS NOT NULL",
                params![expires, id, version],
            )?;
            Ok(())
        })
        .await
    }

    async fn parts(&self, cx: Context, key: SessionKey) -> Result<Vec<Vec<u8>>, StoreError> {
        let (expires, id) = session_key(key);
        self.read(cx, move |rows| {
            rows.all(
                "SELECT record FROM session_part WHERE expires = ?1 AND id = ?2 ORDER BY number",
                params![expires, id],
                |row| row.value(0),
            )
        })
        .await
    }

    async fn commit(&self, cx: Context, claim: &Claim, publishing: &Publishing) -> Result<bool, StoreError> {
        let ((expires, id), version) = (session_key(claim.key), integer(claim.version));
        let (digest, location, size) = (
            publishing.digest.to_string(),
            publishing.location.clone(),
            integer(publishing.size),
        );
        // Ordered: the later publication is synced, and makes this change durable too.
        self.write_ordered(cx, move |rows| {
            let changed = rows.change(
                "UPDATE session SET version = version + 1, state = 'committing', claimed_until = NULL, digest = ?4, \
                 object_store = ?5, object_key = ?6, object_size = ?7 \
                 WHERE expires = ?1 AND id = ?2 AND version = ?3 AND state = 'open' AND claimed_until IS NOT NULL",
                params![expires, id, version, digest, location.store, location.key, size],
            )?;
            Ok(changed == 1)
        })
        .await
    }

    async fn finish(&self, cx: Context, claim: &Claim, end: End) -> Result<(), StoreError> {
        let ((expires, id), version) = (session_key(claim.key), integer(claim.version));
        let (state, until) = ended(end);
        let attempt = claim.attempt.number;
        // A committing session cannot be claimed, so its last attempt is the attempt that started the commit. An open
        // session can only be cancelled.
        let work = move |rows: &Rows<'_>| {
            rows.change(
                "UPDATE session SET version = version + 1, state = ?5, claimed_until = ?6 \
                 WHERE expires = ?1 AND id = ?2 \
                 AND ((?5 = 'cancelled' AND state = 'open' AND claimed_until IS NOT NULL AND version = ?3) \
                 OR (state = 'committing' AND claimed_until IS NULL AND attempts = ?4))",
                params![expires, id, version, attempt, state, until],
            )?;
            Ok(())
        };
        match end {
            // After a power failure, a published session may look unfinished. The next request or pass that reads it
            // finishes it.
            End::Published | End::Done => self.write_ordered(cx, work).await,
            End::Cancelled => self.write(cx, work).await,
        }
    }

    async fn finish_committing(&self, cx: Context, key: SessionKey, end: End) -> Result<(), StoreError> {
        let ((expires, id), (state, until)) = (session_key(key), ended(end));
        self.write_ordered(cx, move |rows| {
            rows.change(
                "UPDATE session SET version = version + 1, state = ?3, claimed_until = ?4 \
                 WHERE expires = ?1 AND id = ?2 AND state = 'committing' AND claimed_until IS NULL",
                params![expires, id, state, until],
            )?;
            Ok(())
        })
        .await
    }

    async fn cancel(&self, cx: Context, key: SessionKey) -> Result<Cancelled, StoreError> {
        self.write(cx, move |rows| {
            let (expires, id) = session_key(key);
            match get(rows, key)? {
                None => {
                    rows.change(
                        "INSERT INTO session (expires, id, version, state, attempts, bytes, hash, store, parts) \
                         VALUES (?1, ?2, 1, 'cancelled', 0, 0, x'', x'', 0)",
                        params![expires, id],
                    )?;
                    Ok(Cancelled::Now(None))
                }
                Some(session) if !session.is_open() => Ok(Cancelled::Ended),
                Some(session) => {
                    rows.change(
                        "UPDATE session SET version = version + 1, state = 'cancelled', claimed_until = NULL \
                         WHERE expires = ?1 AND id = ?2",
                        params![expires, id],
                    )?;
                    Ok(Cancelled::Now(Some(session)))
                }
            }
        })
        .await
    }

    async fn expired(
        &self,
        cx: Context,
        before: Timestamp,
        after: Option<SessionKey>,
        limit: usize,
    ) -> Result<Vec<(SessionKey, Session)>, StoreError> {
        // No session expires before the first millisecond.
        let (expires, id) = after.map_or((-1, [0; 16]), session_key);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.walk(cx, move |rows| {
            rows.all(
                "SELECT version, state, attempts, claimed_until, bytes, hash, store, parts, digest, \
                 object_store, object_key, object_size, expires, id \
                 FROM session WHERE expires < ?1 AND (expires, id) > (?2, ?3) ORDER BY expires, id LIMIT ?4",
                params![timestamp(before), expires, id, limit],
                |row| Ok((row.session_key(12, 13)?, session(row)?)),
            )
        })
        .await
    }

    async fn signing_keys(&self, cx: Context, candidate: SigningKey) -> Result<Vec<SigningKey>, StoreError> {
        let keys = self.read(cx, signing_keys).await?;
        if !keys.is_empty() {
            return Ok(keys);
        }
        self.write(cx, move |rows| {
            rows.change(
                "INSERT INTO signing_key (id, secret, created) \
                 SELECT ?1, ?2, ?3 WHERE NOT EXISTS (SELECT 1 FROM signing_key)",
                params![candidate.id, candidate.secret, timestamp(candidate.created)],
            )?;
            signing_keys(rows)
        })
        .await
    }
}

/// The columns `state` and `claimed_until` of an ended session.
fn ended(end: End) -> (&'static str, Option<i64>) {
    match end {
        End::Published => (COMMITTING, Some(ACKNOWLEDGED)),
        End::Done => (DONE, None),
        End::Cancelled => (CANCELLED, None),
    }
}

pub(super) fn get(rows: &Rows<'_>, key: SessionKey) -> Result<Option<Session>, OperationFailure> {
    let (expires, id) = session_key(key);
    rows.one(GET, params![expires, id], session)
}

fn session(row: &Row<'_>) -> Result<Session, OperationFailure> {
    Ok(Session {
        version: row.unsigned(0)?,
        state: state(row)?,
        attempts: row.small(2)?,
        progress: Progress {
            offset: row.unsigned(4)?,
            hash: row.value(5)?,
            store: row.value(6)?,
            parts: row.small(7)?,
        },
    })
}

fn state(row: &Row<'_>) -> Result<State, OperationFailure> {
    let text: String = row.value(1)?;
    let claimed_until: Option<i64> = row.value(3)?;
    let damaged = |lacks: &str| OperationFailure::Damaged(format!("a session is {text:?}{lacks}"));
    match (&*text, publishing(row)?) {
        (OPEN, _) => Ok(State::Open {
            claimed_until: claimed_until.map(|_| row.timestamp(3)).transpose()?,
        }),
        (COMMITTING, Some(publishing)) if claimed_until == Some(ACKNOWLEDGED) => Ok(State::Published(publishing)),
        (COMMITTING, Some(publishing)) => Ok(State::Committing(publishing)),
        (DONE, Some(publishing)) => Ok(State::Done(publishing)),
        (CANCELLED, publishing) => Ok(State::Cancelled(publishing)),
        (COMMITTING | DONE, None) => Err(damaged(", and has no blob")),
        _ => Err(damaged("")),
    }
}

/// What a session becomes. A session that an earlier version cancelled may have a digest but no location.
fn publishing(row: &Row<'_>) -> Result<Option<Publishing>, OperationFailure> {
    let (Some(digest), Some(_)) = (row.parsed_if_any(8)?, row.value::<Option<String>>(10)?) else {
        return Ok(None);
    };
    Ok(Some(Publishing {
        digest,
        location: row.location(9, 10)?,
        size: row.unsigned(11)?,
    }))
}

fn signing_keys(rows: &Rows<'_>) -> Result<Vec<SigningKey>, OperationFailure> {
    rows.all(
        "SELECT id, secret, created FROM signing_key WHERE retired IS NULL ORDER BY created DESC, id DESC",
        [],
        |row| {
            Ok(SigningKey {
                id: row.small(0)?,
                secret: row.value(1)?,
                created: row.timestamp(2)?,
            })
        },
    )
}
