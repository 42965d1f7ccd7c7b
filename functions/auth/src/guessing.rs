//! Wrong passwords: how long a client waits that guesses.
//!
//! There are two counters: one for an account and an address, one for an address. There is none for an account alone, so no
//! stranger locks a user out. Keys are not counted: their secrets have 256 bits.
//!
//! For each password that this instance does not know as right, the caller
//!
//! 1. reads the counters of [`Guess::pair`] and [`Guess::address`], and asks [`wait`]: if it is not `None`, the response is
//!    429 and the password is not hashed;
//! 2. verifies the password; if it is right, it deletes the pair's counter if there is one;
//! 3. if it is wrong, writes [`Guess::count_for_pair`] and [`Guess::count_for_address`]. A write that fails because another
//!    instance wrote first is made again from what is stored now.
//!
//! Guesses for one pair, and guesses from one address, are verified one after the other on each instance, so that many at
//! once do not all read the same counter. The address of a trusted proxy stands for many clients and is never counted.
//!
//! This module decides, and neither reads nor writes.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

use hmac::{Hmac, KeyInit as _, Mac as _};
use registry::store::Timestamp;
use registry::store::access::{FailureKey, Failures};
use sha2::{Digest as _, Sha256};

use crate::keyed_hash::KeyedHash;

/// A pair waits from this different wrong password on.
const FREE_OF_PAIR: u32 = 5;
/// An address waits from this wrong password on, ...
const FREE_OF_ADDRESS: u32 = 50;
/// ... if so many were sent within this time.
const WINDOW_MS: u64 = 15 * 60 * 1000;
/// In this time an address's counter loses one.
const DECAY_MS: u64 = WINDOW_MS / FREE_OF_ADDRESS as u64;
const FIRST_WAIT_MS: u64 = 1000;
const LONGEST_WAIT_MS: u64 = 15 * 60 * 1000;

/// The secret by which the table's rows are found and wrong passwords are recognized. All instances have the same one, and it
/// does not change: with another one, a client that guesses would begin anew. A wrong password is often almost right, so what
/// is stored of it says nothing to those who read the counters without the secret.
#[derive(Clone)]
pub struct GuessingKey(KeyedHash);

/// A password that a client sent for an account, as the counters know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Guess {
    pair: FailureKey,
    address: FailureKey,
    password: u64,
}

impl GuessingKey {
    /// The secret that is derived from another one, which may have other uses.
    #[must_use]
    pub fn derive(secret: &[u8]) -> Self {
        let derived = Hmac::<Sha256>::new(&block(&Sha256::digest(secret).into()).into())
            .chain_update(b"roadstead guessing")
            .finalize();
        Self(KeyedHash::new(&block(&derived.into_bytes().into())))
    }

    /// The guess of `password` for `account`, from a client at `address`.
    #[must_use]
    pub fn guess(&self, account: &str, address: IpAddr, password: &str) -> Guess {
        let network = network(address);
        let pair = self.0.of(&[b"pair", account.as_bytes(), &network]);
        Guess {
            address: FailureKey(first(&self.0.of(&[b"address", &network]))),
            // The account and the address are in it: the same password of two accounts looks different.
            password: u64::from_be_bytes(first(&self.0.of(&[b"password", &pair, password.as_bytes()]))),
            pair: FailureKey(first(&pair)),
        }
    }

    /// Whether a refusal costs as much for `name`, which nobody has, as for a user without an account. If not, it costs as much
    /// as for an account. No client can predict it, and it is the same on every instance of a region and after each start: if it
    /// changed, the time of refusals would tell which names exist, since theirs does not change. Another region has another
    /// secret.
    #[must_use]
    pub fn costs_like_user(&self, name: &str) -> bool {
        self.0.of(&[b"cost", name.as_bytes()])[0].is_multiple_of(2)
    }
}

impl fmt::Debug for GuessingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GuessingKey(..)")
    }
}

/// The address, or the network of an IPv6 address: a client has all addresses of its /64.
fn network(address: IpAddr) -> [u8; 16] {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => (u128::from(address) >> 64 << 64).to_be_bytes(),
    }
}

impl Guess {
    /// The key of the counter of the account and the address.
    #[must_use]
    pub fn pair(&self) -> FailureKey {
        self.pair
    }

    /// The key of the counter of the address.
    #[must_use]
    pub fn address(&self) -> FailureKey {
        self.address
    }

    /// The pair's counter after the password was wrong. `None`: it is one of the last wrong passwords, and neither counter
    /// changes. A machine with an old password sends it again and again, and some clients send each password twice.
    #[must_use]
    pub fn count_for_pair(&self, pair: &Failures, now: Timestamp) -> Option<Failures> {
        let pair = current(pair, now);
        if pair.last.contains(&self.password) {
            return None;
        }
        let forgotten = (pair.last.len() + 1).saturating_sub(Failures::REMEMBERED);
        let last = pair
            .last
            .iter()
            .skip(forgotten)
            .copied()
            .chain([self.password])
            .collect();
        let count = pair.count.saturating_add(1);
        Some(Failures {
            version: pair.version,
            count,
            last,
            until: waits_until(count, FREE_OF_PAIR, now),
            at: Some(now),
        })
    }

    /// The address's counter after the password was wrong, and was counted for its pair.
    ///
    /// The counter loses one each 18 seconds, so it reaches 50 only if that many wrong passwords came in about 15 minutes.
    #[must_use]
    pub fn count_for_address(&self, address: &Failures, now: Timestamp) -> Failures {
        let address = current(address, now);
        let at = address.at.unwrap_or(now);
        let lost = u32::try_from(now.millis_since(at) / DECAY_MS).unwrap_or(u32::MAX);
        let left = address.count.saturating_sub(lost);
        let count = left.saturating_add(1);
        Failures {
            version: address.version,
            count,
            last: Vec::new(),
            until: waits_until(count, FREE_OF_ADDRESS, now),
            // The time to which the loss was applied: within 18 seconds of this failure. The rest counts at the next one.
            at: Some(if left == 0 {
                now
            } else {
                at.plus_millis(u64::from(lost) * DECAY_MS)
            }),
        }
    }
}

/// Whether no password is verified now for this pair, because of one of its counters: after how many seconds to retry.
#[must_use]
pub fn wait(pair: &Failures, address: &Failures, now: Timestamp) -> Option<u64> {
    let until = pair.until.max(address.until)?;
    let millis = until.millis_since(now);
    (millis > 0).then(|| millis.div_ceil(1000))
}

/// The counter, if its row has not ended: a table may delete rows late.
fn current(failures: &Failures, now: Timestamp) -> Failures {
    let is_over = |at: Timestamp| now.millis_since(at) >= Failures::LIFETIME_MS;
    if failures.at.is_some_and(is_over) {
        return Failures {
            version: failures.version,
            ..Failures::default()
        };
    }
    failures.clone()
}

/// The end of the wait after `count` failures: none before the `free`th, then 1 second, doubling up to 15 minutes.
fn waits_until(count: u32, free: u32, now: Timestamp) -> Option<Timestamp> {
    let doublings = count.checked_sub(free)?;
    let wait = 1_u64.checked_shl(doublings).map_or(LONGEST_WAIT_MS, |factor| {
        FIRST_WAIT_MS.saturating_mul(factor).min(LONGEST_WAIT_MS)
    });
    Some(now.plus_millis(wait))
}

/// A key of HMAC that fills a block: filled up with zeros (RFC 2104, 2).
fn block(secret: &[u8; 32]) -> [u8; 64] {
    let mut block = [0; 64];
    block[..secret.len()].copy_from_slice(secret);
    block
}

fn first<const LEN: usize>(hash: &[u8; 32]) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes.copy_from_slice(&hash[..LEN]);
    bytes
}
