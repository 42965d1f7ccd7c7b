//! Verdicts on passwords, kept for a moment: clients send their password with every request, and a hash that resists
//! guessing takes a good part of a second.
//!
//! A verdict is found by a keyed hash over the user, the password and the stored hash that it was checked against; the
//! key is random and never leaves the process. So no password is kept, a verdict ends with the line of the file that
//! it was made from, and a look-up tells nothing by its time: nobody outside can choose or know what is compared.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// For how long a right password is remembered, at most.
const GOOD_LIFE: Duration = Duration::from_mins(1);
/// A wrong one only for as long as a misconfigured client needs to run into it again and again.
const BAD_LIFE: Duration = Duration::from_secs(5);
/// Right passwords remembered at once.
const GOOD_COUNT: usize = 4096;
/// Wrong ones, apart: a flood of guesses must not push out the right ones.
const BAD_COUNT: usize = 1024;

/// Names a user, a password and a stored hash, and reveals none of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint([u8; 32]);

/// The cache.
pub(super) struct Verdicts {
    keyed: Hmac<Sha256>,
    kept: Mutex<Kept>,
}

struct Kept {
    good: Recent,
    bad: Recent,
}

/// Entries that all live equally long, so that the oldest is also the first to end.
struct Recent {
    until: HashMap<Fingerprint, Instant>,
    order: VecDeque<Fingerprint>,
    life: Duration,
    count: usize,
}

impl Recent {
    fn new(life: Duration, count: usize) -> Self {
        Self {
            until: HashMap::new(),
            order: VecDeque::new(),
            life,
            count,
        }
    }

    fn holds(&self, fingerprint: &Fingerprint, now: Instant) -> bool {
        self.until.get(fingerprint).is_some_and(|until| now < *until)
    }

    fn add(&mut self, fingerprint: Fingerprint, now: Instant) {
        while let Some(oldest) = self.order.front() {
            let ended = self.until.get(oldest).is_none_or(|until| *until <= now);
            if !ended && self.order.len() < self.count {
                break;
            }
            self.until.remove(oldest);
            self.order.pop_front();
        }
        // A second verdict on the same thing does not lengthen its life: the first one's place in the order stands.
        self.until.entry(fingerprint).or_insert_with(|| {
            self.order.push_back(fingerprint);
            now + self.life
        });
    }

    fn clear(&mut self) {
        self.until.clear();
        self.order.clear();
    }
}

impl Verdicts {
    pub(super) fn new() -> Self {
        let mut key = [0; 32];
        crate::environment::random(&mut key);
        let keyed = Hmac::new_from_slice(&key).expect("a key of any length is taken");
        let kept = Kept {
            good: Recent::new(GOOD_LIFE, GOOD_COUNT),
            bad: Recent::new(BAD_LIFE, BAD_COUNT),
        };
        Self {
            keyed,
            kept: Mutex::new(kept),
        }
    }

    pub(super) fn fingerprint(&self, user: &str, password: &str, hash: &str) -> Fingerprint {
        let mut mac = self.keyed.clone();
        for part in [user, password, hash] {
            // With its length before it, no part can lend bytes to its neighbour.
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part.as_bytes());
        }
        Fingerprint(mac.finalize().into_bytes().into())
    }

    /// A number that depends on `name` alone and cannot be foreseen.
    pub(super) fn seed(&self, name: &str) -> u64 {
        let Fingerprint(bytes) = self.fingerprint(name, "", "");
        let (first, _) = bytes.split_first_chunk().expect("32 bytes hold 8");
        u64::from_le_bytes(*first)
    }

    /// Whether the password was right, if that is known.
    pub(super) fn get(&self, fingerprint: &Fingerprint, now: Instant) -> Option<bool> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.good.holds(fingerprint, now) {
            Some(true)
        } else if kept.bad.holds(fingerprint, now) {
            Some(false)
        } else {
            None
        }
    }

    pub(super) fn put(&self, fingerprint: Fingerprint, good: bool, now: Instant) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let list = if good { &mut kept.good } else { &mut kept.bad };
        list.add(fingerprint, now);
    }

    /// Forgets everything: the file has changed.
    pub(super) fn clear(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.good.clear();
        kept.bad.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts() -> Verdicts {
        Verdicts::new()
    }

    #[test]
    fn a_verdict_is_of_one_user_password_and_hash() {
        let verdicts = verdicts();
        let now = Instant::now();
        let known = verdicts.fingerprint("alice", "secret", "$2b$x");
        verdicts.put(known, true, now);
        assert_eq!(verdicts.get(&known, now), Some(true));
        for (user, password, hash) in [
            ("bob", "secret", "$2b$x"),
            ("alice", "Secret", "$2b$x"),
            ("alice", "secret", "$2b$y"),
            ("alices", "ecret", "$2b$x"),
            ("alice", "secret$", "2b$x"),
        ] {
            let other = verdicts.fingerprint(user, password, hash);
            assert_eq!(verdicts.get(&other, now), None, "{user} {password} {hash}");
        }
        // Another process has another key.
        let elsewhere = self::verdicts();
        assert!(elsewhere.fingerprint("alice", "secret", "$2b$x") != known);
    }

    #[test]
    fn verdicts_end_and_are_not_renewed_by_use() {
        let verdicts = verdicts();
        let start = Instant::now();
        let good = verdicts.fingerprint("a", "b", "c");
        let bad = verdicts.fingerprint("a", "x", "c");
        verdicts.put(good, true, start);
        verdicts.put(bad, false, start);
        let later = start + Duration::from_secs(59);
        assert_eq!(verdicts.get(&good, later), Some(true));
        assert_eq!(verdicts.get(&bad, start + BAD_LIFE), None);
        verdicts.put(good, true, later);
        assert_eq!(verdicts.get(&good, start + GOOD_LIFE), None);
        verdicts.put(good, true, start + GOOD_LIFE);
        assert_eq!(verdicts.get(&good, start + GOOD_LIFE), Some(true));
        verdicts.clear();
        assert_eq!(verdicts.get(&good, start + GOOD_LIFE), None);
    }

    #[test]
    fn a_flood_of_guesses_is_bounded_and_spares_the_right_ones() {
        let verdicts = verdicts();
        let now = Instant::now();
        let good = verdicts.fingerprint("alice", "secret", "h");
        verdicts.put(good, true, now);
        for guess in 0..2 * BAD_COUNT {
            verdicts.put(verdicts.fingerprint("alice", &guess.to_string(), "h"), false, now);
        }
        assert_eq!(verdicts.get(&good, now), Some(true));
        {
            let kept = verdicts.kept.lock().unwrap_or_else(PoisonError::into_inner);
            assert_eq!(kept.bad.order.len(), BAD_COUNT);
            assert_eq!(kept.bad.until.len(), BAD_COUNT);
        }
        for user in 0..=GOOD_COUNT {
            verdicts.put(verdicts.fingerprint(&user.to_string(), "p", "h"), true, now);
        }
        let kept = verdicts.kept.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(kept.good.order.len(), GOOD_COUNT);
        assert_eq!(kept.good.until.len(), GOOD_COUNT);
    }
}
