//! Passwords of users: argon2id, stored as PHC strings.
//!
//! A hash takes tens of milliseconds of a core and 19 MiB of memory, so it is never computed on a thread that serves other
//! requests, and the shell bounds how many are computed at once.

use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use registry::Environment;
use registry::store::access::PasswordHash;

use crate::key::Key;

/// The minimum length of a password, in bytes.
pub const MIN_LEN: usize = 12;
/// The maximum length of a password, in bytes. With every name of an account it fits into an `Authorization` line.
pub const MAX_LEN: usize = 8 << 10;

/// The limits of what is verified: a hash may come from an import, and its parameters say how much memory and time its
/// verification takes.
const MAX_MEMORY_KIB: u32 = 256 << 10;
const MAX_LANES: u32 = 16;
/// Memory times passes, in KiB: some seconds of a core.
const MAX_WORK: u64 = 4 << 20;
const MIN_SALT: usize = 8;
/// A PHC string has no end mark, so one that is cut looks like a shorter hash.
const MIN_OUTPUT: usize = 32;
const SALT_LEN: usize = 16;

/// What a password hash costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parameters {
    /// Memory in KiB, at least 8 for each lane.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes. They are computed one after the other.
    pub lanes: u32,
}

impl Parameters {
    /// Those of every stored password: the second choice of OWASP's cheat sheet for password storage, which resists as
    /// well as the first with less memory.
    pub const DEFAULT: Self = Self {
        memory_kib: 19_456,
        passes: 2,
        lanes: 1,
    };

    /// The cheapest ones, for tests of what is not the cost.
    pub const CHEAPEST: Self = Self {
        memory_kib: 8,
        passes: 1,
        lanes: 1,
    };
}

impl Default for Parameters {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A text is not accepted as a new password.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PasswordError {
    /// It is shorter than [`MIN_LEN`].
    #[error("a password has at least {MIN_LEN} bytes")]
    TooShort,
    /// It is longer than [`MAX_LEN`].
    #[error("a password has at most {MAX_LEN} bytes")]
    TooLong,
    /// It begins as keys do, so it could be taken for one.
    #[error("a password does not begin with {}, as keys do", Key::PREFIX)]
    LikeKey,
    /// It has a control character, for instance a line end, which clients and terminals do not send alike.
    #[error("a password has no control characters")]
    ControlCharacter,
    /// The hash cannot be computed with these parameters.
    #[error("the password cannot be hashed with these parameters")]
    Parameters,
}

/// A text is not accepted as the hash of a password.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PasswordHashError {
    /// It is not a whole PHC string of argon2id.
    #[error("not an argon2id hash as a PHC string, or not all of it")]
    Malformed,
    /// Its verification would take too much memory or time.
    #[error("an argon2id hash has at most m={MAX_MEMORY_KIB}, p={MAX_LANES} and m*t={MAX_WORK}")]
    TooCostly,
}

/// The result of a verification.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PasswordCheck {
    /// It is the password.
    Right,
    /// It is the password, and its hash has other parameters than new ones. The caller stores a new hash.
    RightButOldParameters,
    /// It is another password, or the hash cannot be read.
    Wrong,
}

/// Makes and verifies password hashes.
#[derive(Clone, Debug)]
pub struct PasswordHasher {
    parameters: Parameters,
    /// What is verified where there is no hash: no password is right.
    dummy: PasswordHash,
}

impl PasswordHasher {
    /// New hashes have these parameters.
    pub fn new(parameters: Parameters) -> Result<Self, PasswordError> {
        argon2(parameters)?;
        let Parameters {
            memory_kib,
            passes,
            lanes,
        } = parameters;
        // An output of zeros: nobody knows a password with this hash.
        let (salt, output) = ("cm9hZHN0ZWFkIGR1bW15IQ", "A".repeat(43));
        let dummy = format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${output}");
        Ok(Self {
            parameters,
            dummy: PasswordHash::new(dummy),
        })
    }

    /// The hash of a new password, with a new salt.
    pub fn hash(&self, password: &str, environment: &dyn Environment) -> Result<PasswordHash, PasswordError> {
        check(password)?;
        self.hash_again(password, environment)
    }

    /// The hash of a password that was right a moment ago, with new parameters. Its length is not checked: it may be older
    /// than the rule.
    pub fn hash_again(&self, password: &str, environment: &dyn Environment) -> Result<PasswordHash, PasswordError> {
        let mut salt = [0; SALT_LEN];
        environment.random(&mut salt);
        argon2(self.parameters)?
            .hash_password_with_salt(password.as_bytes(), &salt)
            .map(|hash| PasswordHash::new(hash.to_string()))
            .map_err(|_| PasswordError::Parameters)
    }

    /// Verifies a password. Without a hash (an unknown user, or an account without a password) it is wrong, and this takes as
    /// long as with one.
    #[must_use]
    pub fn verify(&self, password: &str, hash: Option<&PasswordHash>) -> PasswordCheck {
        let parsed = hash.and_then(|hash| parse(hash.as_str()).ok().map(|parameters| (hash, parameters)));
        let (hash, parameters, is_known) = match parsed {
            Some((hash, parameters)) => (hash, parameters, true),
            None => (&self.dummy, self.parameters, false),
        };
        // The parameters are those of the hash. The comparison is in constant time.
        let is_right = Argon2::default()
            .verify_password(password.as_bytes(), hash.as_str())
            .is_ok();
        match (is_right && is_known, parameters == self.parameters) {
            (true, true) => PasswordCheck::Right,
            (true, false) => PasswordCheck::RightButOldParameters,
            (false, _) => PasswordCheck::Wrong,
        }
    }
}

/// Whether a text may become a password.
pub fn check(password: &str) -> Result<(), PasswordError> {
    if password.len() < MIN_LEN {
        Err(PasswordError::TooShort)
    } else if password.len() > MAX_LEN {
        Err(PasswordError::TooLong)
    } else if password.starts_with(Key::PREFIX) {
        Err(PasswordError::LikeKey)
    } else if password.chars().any(char::is_control) {
        Err(PasswordError::ControlCharacter)
    } else {
        Ok(())
    }
}

/// Reads the hash of a password, for instance from an import.
pub fn read_hash(phc: &str) -> Result<PasswordHash, PasswordHashError> {
    parse(phc).map(|_| PasswordHash::new(phc.to_owned()))
}

/// The parameters of a hash.
fn parse(phc: &str) -> Result<Parameters, PasswordHashError> {
    let malformed = |_| PasswordHashError::Malformed;
    if !phc.starts_with("$argon2id$") {
        return Err(PasswordHashError::Malformed);
    }
    let hash = argon2::PasswordHash::new(phc).map_err(malformed)?;
    let is_whole = |salt: usize, output: usize| salt >= MIN_SALT && output >= MIN_OUTPUT;
    match (&hash.salt, &hash.hash) {
        (Some(salt), Some(output)) if is_whole(salt.len(), output.len()) => {}
        _ => return Err(PasswordHashError::Malformed),
    }
    let params = Params::try_from(&hash).map_err(|_| PasswordHashError::Malformed)?;
    let work = u64::from(params.m_cost()) * u64::from(params.t_cost());
    if params.m_cost() > MAX_MEMORY_KIB || params.p_cost() > MAX_LANES || work > MAX_WORK {
        return Err(PasswordHashError::TooCostly);
    }
    Ok(Parameters {
        memory_kib: params.m_cost(),
        passes: params.t_cost(),
        lanes: params.p_cost(),
    })
}

fn argon2(parameters: Parameters) -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(parameters.memory_kib, parameters.passes, parameters.lanes, None);
    let params = params.map_err(|_| PasswordError::Parameters)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::time::{Duration, Instant};

    use registry::auth::{AccountName, Credentials};

    use super::*;
    use crate::test_environment::TestEnvironment;

    const SECRET: &str = "correct horse battery";

    fn cheap() -> PasswordHasher {
        PasswordHasher::new(Parameters::CHEAPEST).unwrap()
    }

    fn hash(hasher: &PasswordHasher, password: &str) -> PasswordHash {
        hasher.hash(password, &TestEnvironment::new(1)).unwrap()
    }

    #[test]
    fn a_hash_matches_one_password() {
        let hasher = cheap();
        let stored = hash(&hasher, SECRET);
        assert_eq!(hasher.verify(SECRET, Some(&stored)), PasswordCheck::Right);
        for wrong in [
            "",
            "Correct horse battery",
            "correct horse battery ",
            "correct horse battery\0",
        ] {
            assert_eq!(hasher.verify(wrong, Some(&stored)), PasswordCheck::Wrong, "{wrong:?}");
        }
        let long = "\u{e9}".repeat(4096);
        let stored = hash(&hasher, &long);
        assert_eq!(hasher.verify(&long, Some(&stored)), PasswordCheck::Right);
        assert_eq!(hasher.verify(&long[2..], Some(&stored)), PasswordCheck::Wrong);
    }

    #[test]
    fn new_hashes_have_the_default_parameters_and_a_salt_each() {
        let (hasher, environment) = (
            PasswordHasher::new(Parameters::default()).unwrap(),
            TestEnvironment::new(1),
        );
        let first = hasher.hash(SECRET, &environment).unwrap();
        assert!(
            first.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{}",
            first.as_str()
        );
        assert_eq!(read_hash(first.as_str()), Ok(first.clone()));
        let hasher = cheap();
        let salts = [(); 2].map(|()| hasher.hash(SECRET, &environment).unwrap());
        assert_ne!(salts[0], salts[1]);
    }

    #[test]
    fn a_hash_with_other_parameters_is_right_and_renewed() {
        let (old, new) = (
            cheap(),
            PasswordHasher::new(Parameters {
                passes: 2,
                ..Parameters::CHEAPEST
            })
            .unwrap(),
        );
        let stored = hash(&old, SECRET);
        assert_eq!(new.verify(SECRET, Some(&stored)), PasswordCheck::RightButOldParameters);
        assert_eq!(new.verify("another password", Some(&stored)), PasswordCheck::Wrong);
        let renewed = new.hash_again(SECRET, &TestEnvironment::new(2)).unwrap();
        assert_eq!(new.verify(SECRET, Some(&renewed)), PasswordCheck::Right);
        // A password from before the rule of the length is renewed too.
        assert!(new.hash_again("short", &TestEnvironment::new(2)).is_ok());
    }

    #[test]
    fn which_passwords_are_accepted() {
        for (password, expected) in [
            ("", Err(PasswordError::TooShort)),
            ("12345678901", Err(PasswordError::TooShort)),
            ("123456789012", Ok(())),
            // Bytes, not characters.
            ("\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}", Ok(())),
            ("123456789012\n", Err(PasswordError::ControlCharacter)),
            ("with spaces and: colons", Ok(())),
            ("rsk_ is a prefix of keys", Err(PasswordError::LikeKey)),
            ("not at the begin of it: rsk_", Ok(())),
            (&*"x".repeat(8192), Ok(())),
            (&*"x".repeat(8193), Err(PasswordError::TooLong)),
        ] {
            assert_eq!(check(password), expected, "{password:?}");
            assert_eq!(
                cheap().hash(password, &TestEnvironment::new(1)).is_ok(),
                expected.is_ok()
            );
        }
        let none = Parameters {
            memory_kib: 7,
            ..Parameters::CHEAPEST
        };
        assert!(matches!(PasswordHasher::new(none), Err(PasswordError::Parameters)));
    }

    #[test]
    fn the_longest_password_fits_into_a_line_of_credentials() {
        let name: AccountName = "a".repeat(64).parse().unwrap();
        let pair = name.as_str().len() + ":".len() + MAX_LEN;
        let line = "Basic ".len() + pair.div_ceil(3) * 4;
        assert!(line <= Credentials::MAX_LEN, "{line}");
    }

    #[test]
    fn which_hashes_are_accepted() {
        let (salt, output) = ("c29tZXNhbHQxMjM0", "A".repeat(43));
        let phc = |parameters: &str, output: &str| format!("$argon2id$v=19${parameters}${salt}${output}");
        for (text, expected) in [
            (phc("m=8,t=1,p=1", &output), Ok(())),
            (phc("m=262144,t=16,p=16", &output), Ok(())),
            (phc("m=262145,t=1,p=1", &output), Err(PasswordHashError::TooCostly)),
            (phc("m=262144,t=17,p=1", &output), Err(PasswordHashError::TooCostly)),
            (phc("m=1024,t=1,p=17", &output), Err(PasswordHashError::TooCostly)),
            (
                phc("m=4294967295,t=4294967295,p=1", &output),
                Err(PasswordHashError::TooCostly),
            ),
            (phc("m=8,t=1,p=1", &output[..42]), Err(PasswordHashError::Malformed)),
            (phc("m=8,t=1,p=1", ""), Err(PasswordHashError::Malformed)),
            (phc("m=7,t=1,p=1", &output), Err(PasswordHashError::Malformed)),
            (phc("m=8", "")[..20].into(), Err(PasswordHashError::Malformed)),
            (
                phc("m=8,t=1,p=1", &output).replace("argon2id", "argon2i"),
                Err(PasswordHashError::Malformed),
            ),
            (
                "$2y$05$abcdefghijklmnopqrstuu".into(),
                Err(PasswordHashError::Malformed),
            ),
            (SECRET.into(), Err(PasswordHashError::Malformed)),
        ] {
            assert_eq!(read_hash(&text).map(|_| ()), expected, "{text}");
            let stored = PasswordHash::new(text);
            if expected.is_err() {
                assert_eq!(cheap().verify(SECRET, Some(&stored)), PasswordCheck::Wrong);
            }
        }
    }

    /// No password is that of an unknown user, and a refusal costs what a wrong password costs.
    #[test]
    fn s20_an_unknown_user_costs_what_a_known_one_costs() {
        let costly = PasswordHasher::new(Parameters {
            memory_kib: 4096,
            ..Parameters::DEFAULT
        })
        .unwrap();
        let stored = hash(&costly, SECRET);
        assert_eq!(
            parse(costly.dummy.as_str()),
            parse(stored.as_str()),
            "the same parameters"
        );
        let unreadable = PasswordHash::new("nothing".into());
        let time = |hash: Option<&PasswordHash>| {
            let start = Instant::now();
            assert_eq!(costly.verify("a wrong password", hash), PasswordCheck::Wrong);
            start.elapsed()
        };
        // The machine may be busy, so the fastest of many attempts are compared, and with a wide bound: without the dummy
        // hash a refusal would take a thousandth, however often it is tried.
        let mut fastest = [Duration::MAX; 3];
        let alike = (0..100).any(|_| {
            for (fastest, hash) in fastest.iter_mut().zip([Some(&stored), None, Some(&unreadable)]) {
                *fastest = time(hash).min(*fastest);
            }
            let [known, others @ ..] = fastest;
            others.iter().all(|other| *other < known * 2 && known < *other * 2)
        });
        assert!(alike, "known, unknown, unreadable: {fastest:?}");
        for password in ["", SECRET, "roadstead dummy!"] {
            assert_eq!(cheap().verify(password, None), PasswordCheck::Wrong);
        }
    }

    #[test]
    fn s18_hashes_are_not_printed() {
        let hasher = cheap();
        let stored = hash(&hasher, SECRET);
        assert!(!format!("{stored:?} {hasher:?}").contains("$argon2"));
    }
}
