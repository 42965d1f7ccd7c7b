//! What objects are called.
//!
//! `<prefix>/<id>.<attempt>` is an object, or a multipart upload that is to become one; `<prefix>/<id>.<attempt>.0`
//! holds bytes that the attempt staged behind an upload, and is never named by anything but its session. Ids are
//! random, so that keys spread over the partitions of the store. No key is ever the parent of another in the sense of
//! a file system, since some stores are one.

use registry::store::sessions::Attempt;
use registry::store::{Location, StoreError};

/// Makes keys below one prefix.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    /// Empty, or ends in a slash.
    prefix: String,
}

const STAGED: &str = ".0";

impl Keys {
    /// `None`: a prefix of which some store would make another, or that a URL would change.
    pub(crate) fn new(prefix: &str) -> Option<Self> {
        let prefix = prefix.trim_matches('/');
        let is_plain = |segment: &str| {
            !matches!(segment, "" | "." | "..") && segment.chars().all(|char| char.is_ascii_graphic() && char != '\\')
        };
        if prefix.is_empty() {
            return Some(Self { prefix: String::new() });
        }
        prefix.split('/').all(is_plain).then(|| Self {
            prefix: format!("{prefix}/"),
        })
    }

    /// What all keys begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn object(&self, attempt: Attempt) -> String {
        format!("{}{attempt}", self.prefix)
    }

    pub(crate) fn staged(&self, attempt: Attempt) -> String {
        format!("{}{attempt}{STAGED}", self.prefix)
    }

    /// The key of an object of this store. Data that lies in another store must never be taken for absent, or deleted.
    pub(crate) fn of(&self, location: &Location) -> Result<String, StoreError> {
        let key = location.key_in(Location::MAIN)?;
        let is_plain = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'.');
        if key.is_empty() || !key.bytes().all(is_plain) {
            return Err(StoreError::failed(format!("{key:?} is no key of this store")));
        }
        Ok(format!("{}{key}", self.prefix))
    }

    /// What is staged beside an object.
    pub(crate) fn staged_beside(object: &str) -> String {
        format!("{object}{STAGED}")
    }

    /// The object that a key names or belongs to. `None`: it is no key of this store.
    pub(crate) fn location(&self, key: &str) -> Option<Location> {
        let own = key.strip_prefix(&self.prefix)?;
        match Attempt::of_key(own)? {
            (attempt, "" | STAGED) => Some(Self::named(attempt)),
            _ => None,
        }
    }

    /// A location of this store.
    pub(crate) fn named(attempt: Attempt) -> Location {
        Location::main(attempt.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const ATTEMPT: Attempt = Attempt {
        session: registry::store::sessions::SessionId(0xabc),
        number: 12,
    };

    #[test]
    fn keys_lie_below_the_prefix() {
        for prefix in ["", "/"] {
            let keys = Keys::new(prefix).unwrap();
            assert_eq!(keys.object(ATTEMPT), "00000000000000000000000000000abc.12");
        }
        for prefix in ["a/b", "/a/b/"] {
            let keys = Keys::new(prefix).unwrap();
            assert_eq!(keys.staged(ATTEMPT), "a/b/00000000000000000000000000000abc.12.0");
        }
        for prefix in ["a//b", "a/../b", "a/./b", "a b", "ä", "a\\b"] {
            assert!(Keys::new(prefix).is_none(), "{prefix}");
        }
    }

    #[test]
    fn a_location_of_another_store_is_refused() {
        let keys = Keys::new("p").unwrap();
        let location = Keys::named(ATTEMPT);
        assert_eq!(keys.of(&location).unwrap(), keys.object(ATTEMPT));
        let foreign = Location {
            store: "disk".to_owned(),
            ..location
        };
        assert!(keys.of(&foreign).is_err());
        for key in ["", "../x", "a/b", "A", "%2e"] {
            assert!(keys.of(&Location::main(key)).is_err(), "{key}");
        }
    }

    #[test]
    fn keys_tell_their_object() {
        let keys = Keys::new("p").unwrap();
        let named = Some(Keys::named(ATTEMPT));
        assert_eq!(keys.location(&keys.object(ATTEMPT)), named);
        assert_eq!(keys.location(&keys.staged(ATTEMPT)), named);
        let id = "00000000000000000000000000000abc";
        let others = [
            format!("q/{id}.1"),
            format!("p/{id}"),
            format!("p/{id}.01"),
            format!("p/{id}.1.1"),
            format!("p/{id}.1.0.0"),
            format!("p/{}.1", &id[1..]),
            "p/readme.txt".to_owned(),
        ];
        for key in others {
            assert_eq!(keys.location(&key), None, "{key}");
        }
    }
}
