//! Turns to verify a password, shared between clients.
//!
//! A verification takes a core a large part of a second, and any client can cause one. So at most as many run at the
//! same time as there are cores, and clients take turns (see [`Budget`]).
//!
//! A pair of user and client that was never verified may be a guess. Such pairs must pass a gate first, which lets them
//! use all cores but one. So a pair that was verified before does not wait behind guesses, because one core is left for
//! it. On a machine with one core, it waits for at most one guess.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use registry::auth::AuthenticationError;
use registry::budget::{Budget, ClientKey, Grant, Refused};

use super::recent::{self, Recent};

/// Maximum time for which a request waits for its turn.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of waiting requests in each of the two queues. More would not get a turn in time.
const MAX_WAITING: usize = 256;
/// Time between two log lines about requests without a turn.
const REPORT_AGAIN: Duration = Duration::from_secs(1);
/// Maximum number of pairs of a user and a client that are remembered.
const MAX_FAMILIAR: NonZeroUsize = NonZeroUsize::new(4096).expect("more than nothing");

/// The turns of this process.
pub(crate) struct PasswordTurns {
    gate: Budget,
    turns: Budget,
    familiar: Mutex<Recent<(String, ClientKey)>>,
    refusals: RefusedTurns,
    pub(super) timeout: Duration,
}

/// Permission to verify a password on one core, until it is dropped.
#[must_use]
pub(crate) struct PasswordTurn {
    // In this order, so that the next request through the gate finds the turn free.
    _turn: Grant,
    _gate: Option<Grant>,
}

impl PasswordTurns {
    /// As many turns as there are cores.
    pub(crate) fn new() -> Self {
        Self::of(std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
    }

    pub(super) fn of(cores: usize) -> Self {
        let cores = cores as u64;
        Self {
            gate: Budget::new(cores.saturating_sub(1).max(1), MAX_WAITING),
            turns: Budget::new(cores, MAX_WAITING),
            familiar: Mutex::new(recent::at_most(MAX_FAMILIAR)),
            refusals: RefusedTurns::default(),
            timeout: TIMEOUT,
        }
    }

    /// Waits for a turn to verify a password of `user` from `client`.
    pub(super) async fn wait(&self, user: &str, client: ClientKey) -> Result<PasswordTurn, AuthenticationError> {
        let familiar = self.familiar().get(&(user.to_owned(), client)).is_some();
        let waited = async {
            // Behind the gate, all unverified pairs count as one client, so that they take nothing of a verified client's
            // share.
            let (gate, account) = if familiar {
                (None, client)
            } else {
                (Some(self.gate.take(client, 1).await?), ClientKey::INTERNAL)
            };
            let turn = self.turns.take(account, 1).await?;
            Ok(PasswordTurn {
                _turn: turn,
                _gate: gate,
            })
        };
        if let Ok(Ok::<_, Refused>(turn)) = tokio::time::timeout(self.timeout, waited).await {
            return Ok(turn);
        }
        if let Some(requests) = self.refusals.add(Instant::now()) {
            tracing::warn!(
                requests,
                "too many passwords wait to be verified: requests were answered with 503"
            );
        }
        Err(AuthenticationError::TooManyRequests)
    }

    /// Notes that `user` had the right password from `client`.
    pub(super) fn was_right(&self, user: &str, client: ClientKey) {
        self.familiar().put((user.to_owned(), client), ());
    }

    fn familiar(&self) -> std::sync::MutexGuard<'_, Recent<(String, ClientKey)>> {
        self.familiar.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> u64 {
        self.turns.free()
    }
}

/// Requests without a turn. They are logged together, because a line for each would let guesses fill the log.
#[derive(Default)]
struct RefusedTurns(Mutex<UnreportedRefusals>);

#[derive(Default)]
struct UnreportedRefusals {
    requests: u64,
    reported: Option<Instant>,
}

impl RefusedTurns {
    /// Counts one more; returns how many to report, if a report is due.
    fn add(&self, now: Instant) -> Option<u64> {
        let mut unreported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        unreported.requests += 1;
        if unreported
            .reported
            .is_some_and(|reported| now.saturating_duration_since(reported) < REPORT_AGAIN)
        {
            return None;
        }
        unreported.reported = Some(now);
        Some(std::mem::take(&mut unreported.requests))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::net::Ipv4Addr;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn client(number: u8) -> ClientKey {
        ClientKey::of(Ipv4Addr::new(192, 0, 2, number).into())
    }

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// A machine with any number of cores: newcomers never hold or queue for all turns.
    #[tokio::test]
    async fn s31_a_user_with_a_known_password_does_not_wait_behind_guesses() {
        for cores in [1, 2, 4] {
            let turns = PasswordTurns::of(cores);
            turns.was_right("alice", client(1));
            let mut held = Vec::new();
            let mut waiting = Vec::new();
            for guess in 0..100 {
                // From everywhere, also from where alice is.
                let from = client(guess % 7);
                let mut waits = Box::pin(turns.wait("bob", from));
                match poll(waits.as_mut()) {
                    Poll::Ready(turn) => held.push(turn.unwrap()),
                    Poll::Pending => waiting.push(waits),
                }
            }
            assert_eq!(held.len(), cores.saturating_sub(1).max(1), "{cores} cores");
            let mut alice = Box::pin(turns.wait("alice", client(1)));
            if cores == 1 {
                assert!(poll(alice.as_mut()).is_pending());
                held.clear();
            }
            assert!(poll(alice.as_mut()).is_ready(), "{cores} cores");
            // From elsewhere alice is one of many.
            let mut elsewhere = pin!(turns.wait("alice", client(99)));
            assert!(poll(elsewhere.as_mut()).is_pending());
        }
    }

    #[tokio::test]
    async fn s31_guesses_wait_by_client_and_the_newest_of_the_greediest_is_refused() {
        let turns = PasswordTurns::of(2);
        let held = turns.wait("bob", client(1)).await.unwrap();
        let mut waiting: Vec<_> = (0..=MAX_WAITING)
            .map(|_| Box::pin(turns.wait("bob", client(1))))
            .collect();
        let answers: Vec<_> = waiting.iter_mut().map(|waits| poll(waits.as_mut())).collect();
        let refused = answers
            .iter()
            .filter(|answer| matches!(answer, Poll::Ready(Err(AuthenticationError::TooManyRequests))));
        assert_eq!(refused.count(), 1, "one past the bound");
        // Another client is let in although the queue is full, and is served next.
        let mut other = pin!(turns.wait("carol", client(2)));
        assert!(poll(other.as_mut()).is_pending());
        drop(held);
        assert!(matches!(poll(other.as_mut()), Poll::Ready(Ok(_))));
    }

    #[test]
    fn s31_refusals_are_reported_once_a_second() {
        let refusals = RefusedTurns::default();
        let start = Instant::now();
        let at = |millis| refusals.add(start + Duration::from_millis(millis));
        assert_eq!([at(0), at(1), at(999)], [Some(1), None, None]);
        assert_eq!([at(1_000), at(1_999)], [Some(3), None]);
        assert_eq!(at(10_000), Some(2));
    }

    #[tokio::test]
    async fn a_turn_that_does_not_come_is_not_waited_for() {
        let mut turns = PasswordTurns::of(1);
        turns.timeout = Duration::from_millis(10);
        let held = turns.wait("a", client(1)).await.unwrap();
        assert!(matches!(
            turns.wait("b", client(2)).await,
            Err(AuthenticationError::TooManyRequests)
        ));
        assert_eq!((turns.gate.waiting(), turns.turns.waiting()), (0, 0));
        drop(held);
        assert!(turns.wait("b", client(2)).await.is_ok());
        assert_eq!(turns.free(), 1);
    }
}
