//! A htpasswd file: one `user:hash` per line.
//!
//! Taken are bcrypt (`$2y$`, `$2b$`, `$2a$`) and argon2id (a PHC string, `$argon2id$…`). Everything else that such
//! files may hold is either broken (DES, MD5, SHA-1) or no hash at all, and is refused when the file is read: a server
//! that starts with a line it will never accept leaves its user wondering.

use std::collections::HashMap;
use std::str::FromStr as _;

use argon2::{Argon2, Params, PasswordHash, PasswordVerifier as _};
use bcrypt::HashParts;

/// The longest name, in bytes: it travels in upload tokens.
const MAX_NAME: usize = 255;
/// A cost of 16 keeps a core busy for seconds.
const BCRYPT_COST: std::ops::RangeInclusive<u32> = 4..=16;
/// 256 MiB in KiB: what one verification may take from the server's memory.
const ARGON2_MEMORY: u32 = 256 << 10;
/// Memory times passes, in KiB: some seconds of one core.
const ARGON2_WORK: u64 = 4 << 20;
const ARGON2_LANES: u32 = 16;

/// Why a file is not usable. Never holds a password or a hash, only a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub(crate) struct LineError {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    #[error("expected user:hash")]
    NoColon,
    #[error("the user's name is empty, longer than {MAX_NAME} bytes, or holds a control character")]
    Name,
    #[error("the user `{0}` is there twice")]
    Twice(String),
    #[error(
        "the password of `{user}` is stored as {what}, which is not safe; replace the line by the output of \
         `roadstead htpasswd {user}` or `htpasswd -nB {user}`"
    )]
    Weak { user: String, what: &'static str },
    #[error(
        "the hash of `{user}` is not a valid {kind} hash ({reason}); replace the line by the output of \
         `roadstead htpasswd {user}`"
    )]
    Malformed {
        user: String,
        kind: &'static str,
        reason: String,
    },
}

/// A user's hash. Both variants hold its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Bcrypt(String),
    Argon2id(String),
}

impl Hash {
    fn parse(text: &str, user: &str) -> Result<Self, Problem> {
        let malformed = |kind, reason: String| Problem::Malformed {
            user: user.into(),
            kind,
            reason,
        };
        let weak = |what| Problem::Weak {
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
            if hash.salt.is_none() || hash.hash.is_none() {
                return Err(malformed("it has no salt or no hash".into()));
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

    /// Whether this is the hash of `password`; compares in constant time. Takes from milliseconds to seconds, and the
    /// memory that the hash asks for: not for an async task.
    pub(super) fn verify(&self, password: &str) -> bool {
        match self {
            Self::Bcrypt(text) => bcrypt::verify(password, text).unwrap_or(false),
            Self::Argon2id(text) => Argon2::default()
                .verify_password(password.as_bytes(), text.as_str())
                .is_ok(),
        }
    }

    pub(super) fn text(&self) -> &str {
        let (Self::Bcrypt(text) | Self::Argon2id(text)) = self;
        text
    }
}

/// The users of a file.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct Users {
    hashes: Vec<Hash>,
    names: HashMap<String, usize>,
}

impl Users {
    /// Reads a file's text. Empty lines and lines that start with `#` say nothing.
    pub(super) fn parse(text: &str) -> Result<Self, LineError> {
        let mut users = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            users.add(line).map_err(|problem| LineError {
                line: index + 1,
                problem,
            })?;
        }
        Ok(users)
    }

    fn add(&mut self, line: &str) -> Result<(), Problem> {
        let (name, hash) = line.split_once(':').ok_or(Problem::NoColon)?;
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(Problem::Name);
        }
        let hash = Hash::parse(hash, name)?;
        if self.names.insert(name.into(), self.hashes.len()).is_some() {
            // Removing one of the two lines would seem to revoke access, and would not.
            return Err(Problem::Twice(name.into()));
        }
        self.hashes.push(hash);
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    pub(super) fn hash(&self, name: &str) -> Option<&Hash> {
        self.names.get(name).map(|index| &self.hashes[*index])
    }

    /// A hash that stands in for one of a user who does not exist, chosen by `seed`: so that names cannot be told from
    /// the time that a refusal takes, an unknown user costs what some known user costs, always the same one. `None`
    /// when there are no users.
    pub(super) fn decoy(&self, seed: u64) -> Option<&Hash> {
        let count = u64::try_from(self.hashes.len()).ok()?;
        let index = seed.checked_rem(count)?;
        self.hashes.get(usize::try_from(index).ok()?)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// Hashes of `secret`, cheap ones.
    const BCRYPT: &str = "$2b$04$f0KKuKfMBYPPAPpKTuvV0uABKzNXNvTJtSHAGJMFpMIOnFmWUw.f6";

    fn argon2id(m: u32, t: u32, p: u32) -> String {
        format!("$argon2id$v=19$m={m},t={t},p={p}$c29tZXNhbHQxMjM0$Af4IfuKpVg7JyPBoFDe0xTCWh9vCGJc5r2wEZqSHqX0")
    }

    fn problem(line: &str) -> Problem {
        Users::parse(line).unwrap_err().problem
    }

    #[test]
    fn both_kinds_are_verified() {
        use argon2::PasswordHasher as _;
        let cheap = Argon2::from(Params::new(64, 1, 1, None).unwrap());
        let argon2id = cheap
            .hash_password_with_salt(b"secret", b"somesalt1234")
            .unwrap()
            .to_string();
        let bcrypt = bcrypt::hash("secret", 4).unwrap();
        let users = Users::parse(&format!("# users\n\nalice:{bcrypt}\r\nbob:{argon2id}\n")).unwrap();
        assert_eq!(users.len(), 2);
        for name in ["alice", "bob"] {
            let hash = users.hash(name).unwrap();
            assert!(hash.verify("secret"), "{name}");
            for wrong in ["", "Secret", "secret ", "secret\0"] {
                assert!(!hash.verify(wrong), "{name}: {wrong:?}");
            }
        }
        assert_eq!(users.hash("carol"), None);
    }

    #[test]
    fn hashes_of_the_other_bcrypt_versions_are_taken() {
        for version in ["$2y$", "$2a$", "$2b$"] {
            let hash = BCRYPT.replacen("$2b$", version, 1);
            assert!(Users::parse(&format!("alice:{hash}")).is_ok(), "{version}");
        }
        assert!(matches!(
            problem(&format!("alice:{}", BCRYPT.replacen("$2b$", "$2x$", 1))),
            Problem::Weak { .. }
        ));
    }

    #[test]
    fn unsafe_kinds_are_refused_with_the_line_and_what_to_do() {
        let text = format!("alice:{BCRYPT}\n\nbob:$apr1$x$y\n");
        let error = Users::parse(&text).unwrap_err();
        assert_eq!(error.line, 3);
        let told = error.to_string();
        assert!(
            told.contains("line 3") && told.contains("roadstead htpasswd bob"),
            "{told}"
        );
        for hash in [
            "{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs=",
            "$1$a$b",
            "$5$a$b",
            "$6$a$b",
            "hunter2",
            "",
            "$argon2i$v=19$m=8",
        ] {
            let problem = problem(&format!("alice:{hash}"));
            assert!(matches!(problem, Problem::Weak { .. }), "{hash}");
            assert!(
                hash.is_empty() || !problem.to_string().contains(hash),
                "{hash} is repeated"
            );
        }
    }

    #[test]
    fn costs_beyond_reason_are_refused() {
        assert!(Users::parse(&format!("alice:{}", argon2id(ARGON2_MEMORY, 16, ARGON2_LANES))).is_ok());
        for hash in [
            argon2id(ARGON2_MEMORY + 1, 1, 1),
            argon2id(4 << 20, 1, 1),
            argon2id(ARGON2_MEMORY, 17, 1),
            argon2id(1 << 10, 1, ARGON2_LANES + 1),
            BCRYPT.replacen("$04$", "$17$", 1),
            BCRYPT.replacen("$04$", "$31$", 1),
            BCRYPT.replacen("$04$", "$03$", 1),
            "$2b$04$short".into(),
            "$argon2id$v=19$m=64,t=1,p=1".into(),
        ] {
            assert!(
                matches!(problem(&format!("alice:{hash}")), Problem::Malformed { .. }),
                "{hash}"
            );
        }
    }

    #[test]
    fn lines_that_name_nobody_or_somebody_twice_are_refused() {
        assert_eq!(problem("alice"), Problem::NoColon);
        assert_eq!(problem(&format!(":{BCRYPT}")), Problem::Name);
        assert_eq!(problem(&format!("a\u{1b}b:{BCRYPT}")), Problem::Name);
        assert_eq!(problem(&format!("{}:{BCRYPT}", "x".repeat(256))), Problem::Name);
        assert_eq!(problem(&format!("a:{BCRYPT}\na:{BCRYPT}")), Problem::Twice("a".into()));
    }

    #[test]
    fn s20_an_unknown_user_always_meets_the_same_decoy() {
        let users = Users::parse(&format!("a:{BCRYPT}\nb:{}", argon2id(64, 1, 1))).unwrap();
        assert_eq!(users.decoy(7), users.decoy(7));
        assert_ne!(users.decoy(0), users.decoy(1));
        assert_eq!(Users::default().decoy(7), None);
    }
}
