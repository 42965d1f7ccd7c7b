//! The table of the states and events of a session, cell by cell: see
//! [`SessionStore`](registry::store::sessions::SessionStore).

use registry::store::Attempt;
use registry::store::sessions::{Cancelled, Claim, Claimed, End, Progress, Session, SessionKey, State};

use super::{CollectionTest, GRACE};
use crate::sessions::{CLAIM, digest, progress};

/// A row of the table: a session before an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Before {
    NoRow,
    NotClaimed,
    Claimed,
    ClaimExpired,
    Committing,
    Published,
    Done,
    Cancelled,
}

/// A column of the table. `Finish` with each [`End`] is a column of its own, and so are the methods that share a column
/// or a footnote of the documented table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Event {
    Claim,
    Renew,
    Save,
    Release,
    Commit,
    Finish(End),
    FinishCommitting,
    Cancel,
    Expire,
}

const EVENTS: [Event; 11] = [
    Event::Claim,
    Event::Renew,
    Event::Save,
    Event::Release,
    Event::Commit,
    Event::Finish(End::Published),
    Event::Finish(End::Done),
    Event::Finish(End::Cancelled),
    Event::FinishCommitting,
    Event::Cancel,
    Event::Expire,
];

/// A cell of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cell {
    /// The event is accepted, and this is the next state.
    NotClaimed,
    Claimed,
    Committing,
    Published,
    Done,
    Cancelled,
    /// The row is deleted, and its objects are scheduled for deletion.
    Swept,
    /// The row is deleted, and nothing is scheduled for deletion.
    Removed,
    /// The event is refused, and changes nothing.
    Busy,
    Lost,
    Ended,
    /// The event cannot happen: there is nothing to expire, or the caller skips a session with a valid claim.
    None,
}

#[rustfmt::skip]
const TABLE: [(Before, [Cell; EVENTS.len()]); 8] = {
    use Cell::{Busy, Cancelled, Claimed, Committing, Done, Ended, Lost, None, NotClaimed, Published, Removed, Swept};
    [
        // claim, renew, save, release, commit, finish: published, done, cancelled, finish_committing, cancel, expire
        (Before::NoRow,        [Claimed, Lost, Lost, Lost, Lost, Lost, Lost, Lost, Lost, Cancelled, None]),
        (Before::NotClaimed,   [Claimed, Lost, Lost, Lost, Lost, Lost, Lost, Lost, Lost, Cancelled, Swept]),
        (Before::Claimed,      [Busy, Claimed, NotClaimed, NotClaimed, Committing, Lost, Lost, Cancelled, Lost, Cancelled, None]),
        (Before::ClaimExpired, [Claimed, Claimed, NotClaimed, NotClaimed, Committing, Lost, Lost, Cancelled, Lost, Cancelled, Swept]),
        (Before::Committing,   [Ended, Lost, Lost, Lost, Lost, Published, Done, Cancelled, Done, Ended, Swept]),
        (Before::Published,    [Ended, Lost, Lost, Lost, Lost, Lost, Lost, Lost, Lost, Ended, Swept]),
        (Before::Done,         [Ended, Lost, Lost, Lost, Lost, Lost, Lost, Lost, Lost, Ended, Removed]),
        (Before::Cancelled,    [Ended, Lost, Lost, Lost, Lost, Lost, Lost, Lost, Lost, Ended, Swept]),
    ]
};

impl CollectionTest {
    /// A session in the state `before`, and the last claim that was granted on it.
    async fn session_before(&self, key: SessionKey, before: Before) -> Claim {
        let sessions = self.sessions();
        if before == Before::NoRow {
            // What a claim of a row that was swept looks like.
            let attempt = Attempt {
                session: key.id,
                number: 1,
            };
            return Claim {
                key,
                attempt,
                version: 1,
                progress: Progress::default(),
            };
        }
        let first = sessions.claim(key).await;
        assert!(sessions.save(&first, progress(3), Some(b"part")).await);
        if before == Before::NotClaimed {
            return first;
        }
        let claim = sessions.claim(key).await;
        match before {
            Before::NoRow | Before::NotClaimed => {}
            Before::Claimed => self.advance(1),
            Before::ClaimExpired => self.advance(CLAIM),
            Before::Committing | Before::Published | Before::Done => {
                assert!(sessions.commit(&claim, &digest("blob")).await);
                match before {
                    Before::Published => sessions.finish(&claim, End::Published).await,
                    Before::Done => sessions.finish(&claim, End::Done).await,
                    _ => {}
                }
            }
            Before::Cancelled => drop(sessions.cancel(key).await),
        }
        claim
    }

    /// Lets the event happen. Returns the refusal that the store has answered, and [`Cell::Lost`] if the method has no
    /// answer and nothing has changed.
    async fn cell(&self, key: SessionKey, claim: &Claim, event: Event) -> Cell {
        let sessions = self.sessions();
        let before = (sessions.get(key).await, sessions.parts(key).await);
        let granted = |granted: bool| (!granted).then_some(Cell::Lost);
        let mut scheduled = 0;
        let refusal = match event {
            Event::Claim => match sessions.try_claim(key).await {
                Claimed::Granted(_) => None,
                Claimed::Busy(_) => Some(Cell::Busy),
                Claimed::Ended(_) => Some(Cell::Ended),
                Claimed::AttemptsExhausted(session) => panic!("no attempts are left: {session:?}"),
            },
            Event::Renew => granted(sessions.renew(claim).await),
            Event::Save => granted(sessions.save(claim, progress(5), Some(b"next")).await),
            Event::Commit => granted(sessions.commit(claim, &digest("blob")).await),
            Event::Release => {
                sessions.release(claim).await;
                granted(sessions.get(key).await != before.0)
            }
            Event::Finish(end) => {
                sessions.finish(claim, end).await;
                granted(sessions.get(key).await != before.0)
            }
            Event::FinishCommitting => {
                let finished = self.store.sessions.finish_committing(self.cx(), key, End::Done).await;
                finished.expect("finish_committing");
                granted(sessions.get(key).await != before.0)
            }
            Event::Cancel => match sessions.cancel(key).await {
                Cancelled::Now(_) => None,
                Cancelled::Ended => Some(Cell::Ended),
            },
            Event::Expire => {
                self.advance(GRACE);
                let session = before.0.as_ref().expect("a row that expires");
                scheduled = self.sweep(key, session).await.expect("the row is as it was read");
                None
            }
        };
        let after = sessions.get(key).await;
        match refusal {
            Some(refusal) => {
                let after = (after, sessions.parts(key).await);
                assert_eq!(
                    after, before,
                    "{event:?} was refused ({refusal:?}), and changed the row"
                );
                refusal
            }
            None => self.state_after(after.as_ref(), scheduled),
        }
    }

    fn state_after(&self, session: Option<&Session>, scheduled: u64) -> Cell {
        let Some(session) = session else {
            return if scheduled > 0 { Cell::Swept } else { Cell::Removed };
        };
        match session.state {
            State::Open { claimed_until: None } => Cell::NotClaimed,
            State::Open {
                claimed_until: Some(until),
            } => {
                assert_eq!(until, self.now().plus_millis(CLAIM), "a claim that begins now");
                Cell::Claimed
            }
            State::Committing(_) => Cell::Committing,
            State::Published(_) => Cell::Published,
            State::Done(_) => Cell::Done,
            State::Cancelled(_) => Cell::Cancelled,
            State::Swept(_) => Cell::Swept,
        }
    }
}

/// In each state, each event has the result that the table documents. An event that is refused changes nothing.
///
/// The row *swept* is left out, since only an interrupted expiry shows it. That a session with a valid claim is skipped
/// by a pass is decided by the protocol core, not by the store.
pub async fn every_cell_of_the_session_table_holds(test: CollectionTest) {
    let mut id = 0;
    let mut wrong = Vec::new();
    for (before, cells) in TABLE {
        for (event, expected) in EVENTS.into_iter().zip(cells) {
            if expected == Cell::None {
                continue;
            }
            id += 1;
            let key = test.sessions().key(id);
            let claim = test.session_before(key, before).await;
            let found = test.cell(key, &claim, event).await;
            if found != expected {
                wrong.push(format!("{before:?} × {event:?}: {found:?}, and not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
