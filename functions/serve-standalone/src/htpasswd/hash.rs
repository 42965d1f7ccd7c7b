//! Hashes of passwords: which kinds are accepted, how a password is verified, how a hash is made.

use std::str::FromStr as _;

use argon2::{Argon2, Params, PasswordHash, PasswordHasher as _, PasswordVerifier as _};
use bcrypt::HashParts;
use clap::ValueEnum;

use super::problem::LineProblem;

/// The accepted costs. A cost of 16 takes a core some seconds.
const BCRYPT_COST: std::ops::RangeInclusive<u32> = 4..=16;
/// Number of bytes of a password that bcrypt reads.
pub(crate) const BCRYPT_PASSWORD: usize = 72;
/// The cost of new hashes: 2^12 rounds, a quarter of a second for each guess.
const BCRYPT_NEW_COST: u32 = 12;
/// Maximum memory of one verification, in KiB: 256 MiB.
pub(super) const ARGON2_MEMORY: u32 = 256 << 10;
/// Maximum of memory times passes, in KiB: some seconds of one core.
const ARGON2_WORK: u64 = 4 << 20;
pub(super) const ARGON2_LANES: u32 = 16;
/// Minimum length of a salt and a hash of argon2id, in bytes. A hash has no end mark. If a hash of 32 bytes is cut while the
/// file is written, it looks like a shorter hash, which matches no password.
const ARGON2_MIN_SALT: usize = 8;
const ARGON2_MIN_HASH: usize = 32;

/// A kind of hash for a new password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HashKind {
    /// For passwords of any length; a verification takes 19 MiB of memory
    Argon2id,
    /// For passwords of up to 72 bytes, and for files that other programs read too
    Bcrypt,
}

/// A user's hash. Both variants hold its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Bcrypt(String),
    Argon2id(String),
}

/// Why a password cannot be hashed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HashError {
    #[error("the password has {0} bytes, and bcrypt accepts at most {BCRYPT_PASSWORD}; use argon2id, which accepts it")]
    TooLong(usize),
    #[error("the password cannot be hashed: {0}")]
    Failed(String),
}

impl Hash {
    /// Hashes a password with a new salt.
    pub(crate) fn new(kind: HashKind, password: &str) -> Result<Self, HashError> {
        match kind {
            HashKind::Bcrypt if password.len() > BCRYPT_PASSWORD => Err(HashError::TooLong(password.len())),
            HashKind::Bcrypt => bcrypt::hash(password, BCRYPT_NEW_COST)
                .map(Self::Bcrypt)
                .map_err(|error| HashError::Failed(error.to_string())),
            HashKind::Argon2id => {
                let mut salt = [0; 16];
                shell::clock::random(&mut salt);
                Argon2::default()
                    .hash_password_with_salt(password.as_bytes(), &salt)
                    .map(|hash| Self::Argon2id(hash.to_string()))
                    .map_err(|error| HashError::Failed(error.to_string()))
            }
        }
    }

    /// Reads the hash of `user`.
    pub(super) fn parse(text: &str, user: &str) -> Result<Self, LineProblem> {
        let malformed = |kind, reason: String| LineProblem::Malformed {
            user: user.into(),
            kind,
            reason,
        };
        let weak = |what| LineProblem::Weak {
            user: user.into(),
            what,
        };
        if ["$2y$", "$2b$", "$2a$"].iter().any(|prefix| text.starts_with(prefix)) {
            let parts = HashParts::from_str(text).map_err(|error| malformed("bcrypt", error.to_string()))?;
            if !BCRYPT_COST.contains(&parts.get_cost()) {
                let (low, high) = BCRYPT_COST.into_inner();
                return Err(malformed("bcrypt", format!("its cost must be {low} to {high}")));
            }
            return Ok(Self::Bcrypt(text.into()));
        }
        if text.starts_with("$argon2id$") {
            let malformed = |reason: String| malformed("argon2id", reason);
            let hash = PasswordHash::new(text).map_err(|error| malformed(error.to_string()))?;
            let (Some(salt), Some(output)) = (&hash.salt, &hash.hash) else {
                return Err(malformed("it has no salt or no hash".into()));
            };
            if salt.len() < ARGON2_MIN_SALT || output.len() < ARGON2_MIN_HASH {
                return Err(malformed(format!(
                    "it is cut or too short: a salt must have at least {ARGON2_MIN_SALT} bytes, a hash {ARGON2_MIN_HASH}"
                )));
            }
            let params = Params::try_from(&hash).map_err(|error| malformed(error.to_string()))?;
            let work = u64::from(params.m_cost()) * u64::from(params.t_cost());
            if params.m_cost() > ARGON2_MEMORY || params.p_cost() > ARGON2_LANES || work > ARGON2_WORK {
                return Err(malformed(format!(
                    "at most m={ARGON2_MEMORY}, p={ARGON2_LANES} and m*t={ARGON2_WORK} are accepted"
                )));
            }
            return Ok(Self::Argon2id(text.into()));
        }
        Err(weak(match text {
            _ if text.starts_with("$apr1$") || text.starts_with("$1$") => "an MD5 hash",
            _ if text.starts_with("{SHA}") => "a SHA-1 hash",
            _ if text.starts_with("$5$") || text.starts_with("$6$") => "a crypt SHA-2 hash",
            _ if text.starts_with("$argon2") => "an argon2 hash that is not argon2id",
            _ => "plain text or as a hash of another kind",
        }))
    }

    /// Whether this is the hash of `password`; compares in constant time. It takes from milliseconds to seconds, and the
    /// memory that the hash asks for, so an async task must not call it.
    pub(super) fn verify(&self, password: &str) -> bool {
        let password = password.as_bytes();
        match self {
            Self::Bcrypt(text) => {
                // bcrypt would accept a longer password with the same first 72 bytes. It is refused after the same time.
                let read = &password[..password.len().min(BCRYPT_PASSWORD)];
                let matches = bcrypt::verify(read, text).unwrap_or(false);
                matches && read.len() == password.len()
            }
            Self::Argon2id(text) => Argon2::default().verify_password(password, text.as_str()).is_ok(),
        }
    }

    /// The text of the hash in a file.
    pub(crate) fn text(&self) -> &str {
        let (Self::Bcrypt(text) | Self::Argon2id(text)) = self;
        text
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn cheap_bcrypt(password: &str) -> Hash {
        Hash::Bcrypt(bcrypt::hash(password, 4).unwrap())
    }

    fn cheap_argon2id(password: &str) -> Hash {
        let cheap = Argon2::from(Params::new(64, 1, 1, None).unwrap());
        let hash = cheap.hash_password_with_salt(password.as_bytes(), b"somesalt1234");
        Hash::Argon2id(hash.unwrap().to_string())
    }

    #[test]
    fn a_hash_matches_one_password() {
        for hash in [cheap_bcrypt("secret"), cheap_argon2id("secret")] {
            assert!(hash.verify("secret"), "{hash:?}");
            for wrong in ["", "Secret", "secret ", "secret\0", "secret\0x"] {
                assert!(!hash.verify(wrong), "{hash:?}: {wrong:?}");
            }
        }
    }

    /// bcrypt itself would take every password that begins with the same 72 bytes.
    #[test]
    fn a_password_beyond_72_bytes_is_refused_by_bcrypt_and_not_cut() {
        let longest = "x".repeat(BCRYPT_PASSWORD);
        let longer = format!("{longest}y");
        // Two bytes each, so that the limit is within a character.
        let wide = "\u{e9}".repeat(37);
        let bcrypt = cheap_bcrypt(&longest);
        assert!(bcrypt.verify(&longest));
        assert!(!bcrypt.verify(&longer));
        assert!(!cheap_bcrypt(&wide).verify(&wide));
        assert!(Hash::new(HashKind::Bcrypt, &longest).is_ok());
        assert!(matches!(
            Hash::new(HashKind::Bcrypt, &longer),
            Err(HashError::TooLong(73))
        ));
        let argon2id = cheap_argon2id(&longer);
        assert!(argon2id.verify(&longer));
        assert!(!argon2id.verify(&longest));
    }

    #[test]
    fn a_new_hash_is_accepted_and_has_its_own_salt() {
        let first = Hash::new(HashKind::Argon2id, "secret").unwrap();
        let second = Hash::new(HashKind::Argon2id, "secret").unwrap();
        assert_ne!(first, second);
        assert_eq!(Hash::parse(first.text(), "alice"), Ok(first.clone()));
        assert!(first.verify("secret") && !second.verify("Secret"));
    }
}
