//! A cache of verified passwords. Clients send their password with each request, and its verification takes a large part of
//! a second.
//!
//! The key of an entry is a keyed hash of the user, the password and the stored hash; the key of the hash is random and never
//! leaves the process. So the cache stores no password, and an entry becomes useless when the user's line changes. The time of
//! a look-up reveals nothing, because no client can choose or know the compared values.
//!
//! Right passwords stay until the cache is full; then the least recently used one is dropped. Only a client that knows as many
//! right passwords can displace them. Wrong passwords are kept for some seconds and by client, because some clients send the
//! same wrong password repeatedly. At the limit, the client with the most wrong passwords loses one.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use registry::budget::ClientKey;
use sha2::Sha256;

use super::recent::{self, Recent};

/// Maximum number of right passwords: one for each user of a large registry. They take about 10 MiB.
const MAX_RIGHT: NonZeroUsize = NonZeroUsize::new(65_536).expect("more than nothing");
/// Maximum number of wrong passwords of all clients.
const MAX_WRONG: usize = 1024;
/// The time for which a wrong password is remembered.
const WRONG_MAX_AGE: Duration = Duration::from_secs(5);

/// Identifies a user, a password and a stored hash, and reveals none of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PasswordFingerprint([u8; 32]);

/// The cache.
pub(super) struct PasswordCache {
    keyed: Hmac<Sha256>,
    right: Mutex<Recent<PasswordFingerprint>>,
    wrong: Mutex<Wrong>,
}

/// Wrong passwords by client, oldest first.
#[derive(Default)]
struct Wrong {
    clients: HashMap<ClientKey, VecDeque<(PasswordFingerprint, Instant)>>,
    count: usize,
}

impl PasswordCache {
    pub(super) fn new() -> Self {
        let mut key = [0; 32];
        shell::clock::random(&mut key);
        let keyed = Hmac::new_from_slice(&key).expect("a key of any length is taken");
        Self {
            keyed,
            right: Mutex::new(recent::at_most(MAX_RIGHT)),
            wrong: Mutex::default(),
        }
    }

    pub(super) fn fingerprint(&self, user: &str, password: &str, hash: &str) -> PasswordFingerprint {
        let mut mac = self.keyed.clone();
        for part in [user, password, hash] {
            // The length before each part makes the boundaries of the parts unambiguous.
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part.as_bytes());
        }
        PasswordFingerprint(mac.finalize().into_bytes().into())
    }

    /// A number that depends only on `name`, and that no client can predict.
    pub(super) fn seed(&self, name: &str) -> u64 {
        let PasswordFingerprint(bytes) = self.fingerprint(name, "", "");
        let (first, _) = bytes.split_first_chunk().expect("32 bytes hold 8");
        u64::from_le_bytes(*first)
    }

    /// Whether the password is known to be right.
    pub(super) fn is_right(&self, fingerprint: &PasswordFingerprint) -> bool {
        lock(&self.right).get(fingerprint).is_some()
    }

    /// Whether this client has sent this password recently and it was wrong.
    pub(super) fn is_wrong(&self, client: ClientKey, fingerprint: &PasswordFingerprint, now: Instant) -> bool {
        let wrong = lock(&self.wrong);
        let mut sent = wrong.clients.get(&client).into_iter().flatten();
        sent.any(|(sent, until)| sent == fingerprint && now < *until)
    }

    pub(super) fn add_right(&self, fingerprint: PasswordFingerprint) {
        lock(&self.right).put(fingerprint, ());
    }

    pub(super) fn add_wrong(&self, client: ClientKey, fingerprint: PasswordFingerprint, now: Instant) {
        let mut wrong = lock(&self.wrong);
        wrong.remove_expired(client, now);
        if wrong.count >= MAX_WRONG {
            wrong.remove_oldest();
        }
        let sent = wrong.clients.entry(client).or_default();
        sent.push_back((fingerprint, now + WRONG_MAX_AGE));
        wrong.count += 1;
    }
}

impl Wrong {
    /// Drops the wrong passwords of a client that have expired.
    fn remove_expired(&mut self, client: ClientKey, now: Instant) {
        if let Some(sent) = self.clients.get_mut(&client) {
            let before = sent.len();
            while sent.front().is_some_and(|(_, until)| *until <= now) {
                sent.pop_front();
            }
            self.count -= before - sent.len();
        }
    }

    /// Drops the oldest wrong password of the client with the most.
    fn remove_oldest(&mut self) {
        let most = self.clients.iter_mut().max_by_key(|(_, sent)| sent.len());
        if let Some((client, sent)) = most {
            let client = *client;
            if sent.pop_front().is_some() {
                self.count -= 1;
            }
            if sent.is_empty() {
                self.clients.remove(&client);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn client(number: u32) -> ClientKey {
        ClientKey::of(Ipv4Addr::from(number).into())
    }

    #[test]
    fn an_entry_is_of_one_user_password_and_hash() {
        let cache = PasswordCache::new();
        let known = cache.fingerprint("alice", "secret", "$2b$x");
        cache.add_right(known);
        assert!(cache.is_right(&known));
        for (user, password, hash) in [
            ("bob", "secret", "$2b$x"),
            ("alice", "Secret", "$2b$x"),
            ("alice", "secret", "$2b$y"),
            ("alices", "ecret", "$2b$x"),
            ("alice", "secret$", "2b$x"),
        ] {
            let other = cache.fingerprint(user, password, hash);
            assert!(!cache.is_right(&other), "{user} {password} {hash}");
        }
        // Another process has another key.
        assert!(PasswordCache::new().fingerprint("alice", "secret", "$2b$x") != known);
    }

    #[test]
    fn a_wrong_password_is_remembered_for_a_short_time_and_for_its_client() {
        let cache = PasswordCache::new();
        let start = Instant::now();
        let sent = cache.fingerprint("a", "x", "c");
        cache.add_wrong(client(1), sent, start);
        let last = start + WRONG_MAX_AGE.saturating_sub(Duration::from_millis(1));
        assert!(cache.is_wrong(client(1), &sent, last));
        assert!(!cache.is_wrong(client(2), &sent, last));
        assert!(!cache.is_wrong(client(1), &sent, start + WRONG_MAX_AGE));
        assert!(!cache.is_right(&sent));
    }

    #[test]
    fn s31_a_flood_of_guesses_pushes_out_no_entries_of_other_clients() {
        let cache = PasswordCache::new();
        let now = Instant::now();
        let right = cache.fingerprint("alice", "secret", "h");
        cache.add_right(right);
        let mistake = cache.fingerprint("bob", "old", "h");
        cache.add_wrong(client(1), mistake, now);
        for guess in 0..2 * MAX_WRONG {
            let guess = cache.fingerprint("alice", &guess.to_string(), "h");
            cache.add_wrong(client(2), guess, now);
        }
        assert!(cache.is_right(&right));
        assert!(cache.is_wrong(client(1), &mistake, now));
        assert_eq!(lock(&cache.wrong).count, MAX_WRONG);
        let kept: usize = lock(&cache.wrong).clients.values().map(VecDeque::len).sum();
        assert_eq!(kept, MAX_WRONG);
        // Many clients with one each are bounded too.
        for number in 3..3 + 2 * u32::try_from(MAX_WRONG).unwrap_or(0) {
            cache.add_wrong(client(number), mistake, now);
        }
        assert_eq!(lock(&cache.wrong).count, MAX_WRONG);
        assert!(lock(&cache.wrong).clients.len() <= MAX_WRONG);
    }
}
