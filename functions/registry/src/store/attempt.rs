//! The names of sessions and of their attempts to store a body. The keys of objects are made of them.

use std::fmt;
use std::str::FromStr;

/// The random 128-bit id of a session, chosen when the upload is opened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u128);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(oci::hex::write(&self.0.to_be_bytes(), &mut [0; 32]))
    }
}

impl FromStr for SessionId {
    type Err = AttemptError;

    /// Parses the 32 lower-case hexadecimal digits that [`fmt::Display`] writes, and no other spelling.
    fn from_str(text: &str) -> Result<Self, AttemptError> {
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(is_digit) {
            return Err(AttemptError);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| AttemptError)
    }
}

/// The name of one attempt to store one request body.
///
/// Claims of a session are serialized by the version of its row, so a counter gives every attempt its own name. The
/// names of all objects that a session may have made can be derived from its row: they are attempts 1 to
/// [`Session::attempts`](super::sessions::Session::attempts). Displayed as `<id>.<number>`, which is the key of the
/// object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Attempt {
    /// The session it belongs to.
    pub session: SessionId,
    /// 1 for the first claim of the session.
    pub number: u32,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.session, self.number)
    }
}

/// The text is not the name of an attempt, or not the id of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected 32 lower-case hexadecimal digits, for an attempt followed by a dot and a number from 1 on")]
pub struct AttemptError;

impl FromStr for Attempt {
    type Err = AttemptError;

    /// Parses the one spelling that [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self, AttemptError> {
        match Self::of_key(text) {
            Some((attempt, "")) => Ok(attempt),
            _ => Err(AttemptError),
        }
    }
}

impl Attempt {
    /// Parses the key of an object: the attempt that wrote it, and the rest of the key, which is empty or begins with a
    /// dot. `None`: no attempt wrote an object with this key. Accepts only the spelling that [`fmt::Display`] writes,
    /// so that no other text becomes the name of an object.
    ///
    /// ```
    /// use registry::store::Attempt;
    ///
    /// let (attempt, rest) = Attempt::of_key("00000000000000000000000000000abc.7.0").unwrap();
    /// assert_eq!((attempt.session.0, attempt.number, rest), (0xabc, 7, ".0"));
    /// assert_eq!(Attempt::of_key("00000000000000000000000000000abc.07"), None);
    /// ```
    #[must_use]
    pub fn of_key(key: &str) -> Option<(Self, &str)> {
        let (session, rest) = key.split_once('.')?;
        let session = session.parse().ok()?;
        let (number, rest) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
        let is_canonical = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
        let number = number.parse().ok().filter(|_| is_canonical)?;
        Some((Self { session, number }, rest))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::Location;

    #[test]
    fn only_names_of_attempts_are_parsed() {
        let session = SessionId(0xabc);
        let attempt = Attempt { session, number: 7 };
        assert_eq!(attempt.to_string().parse(), Ok(attempt));
        assert_eq!(session.to_string().parse(), Ok(session));
        for other in [
            "",
            ".",
            "abc.7",
            &format!("{session}"),
            &format!("{session}."),
            &format!("{session}.0"),
            &format!("{session}.07"),
            &format!("{session}.+7"),
            &format!("{session}.7."),
            &format!("{session}.7.0"),
            &format!("{session}.7/x"),
            &format!("{session}.4294967296"),
            &format!("{session}0.7"),
            &format!("+{}.7", &session.to_string()[1..]),
            &attempt.to_string().to_uppercase(),
            &format!(" {attempt}"),
        ] {
            assert_eq!(other.parse::<Attempt>(), Err(AttemptError), "{other}");
            assert_eq!(
                other.parse::<SessionId>().is_ok(),
                other == session.to_string(),
                "{other}"
            );
        }
    }

    #[test]
    fn a_key_contains_the_attempt_of_its_object() {
        let attempt = Attempt {
            session: SessionId(u128::MAX),
            number: u32::MAX,
        };
        for (rest, is_of_main) in [("", true), (".0", true), (".0.0", false), (".1", false), (".", false)] {
            let key = format!("{attempt}{rest}");
            assert_eq!(Attempt::of_key(&key), Some((attempt, rest)));
            assert_eq!(Location::main(key.as_str()).is_of_main(), is_of_main, "{key}");
            let elsewhere = Location {
                store: "other".to_owned(),
                key,
            };
            assert!(!elsewhere.is_of_main());
        }
    }

    proptest! {
        #[test]
        fn names_of_attempts_are_read_back(session in any::<u128>(), number in 1..=u32::MAX, rest in "(\\.[0-9.]{0,9})?") {
            let attempt = Attempt { session: SessionId(session), number };
            let key = format!("{attempt}{rest}");
            prop_assert_eq!(Attempt::of_key(&key), Some((attempt, rest.as_str())));
        }

        /// Only one spelling is accepted.
        #[test]
        fn any_text(text in "[0-9a-fA-F.+ /]{0,45}") {
            if let Some((attempt, rest)) = Attempt::of_key(&text) {
                prop_assert_eq!(format!("{attempt}{rest}"), text);
            }
        }
    }
}
