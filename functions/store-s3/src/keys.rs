//! The keys of objects.
//!
//! `<prefix>/<id>.<attempt>` is the key of an object, or of a multipart upload that becomes one.
//! `<prefix>/<id>.<attempt>.0` is the key of bytes that the attempt staged after a multipart upload; only the session
//! refers to it. Ids are random, so keys spread over the partitions of the store. No key is a parent folder of another
//! key, since some stores are file systems.

use registry::store::{Attempt, Location, StoreError};

/// Makes keys with one prefix.
#[derive(Clone, Debug)]
pub(crate) struct ObjectKeys {
    /// Empty, or ends with a slash.
    prefix: String,
}

const STAGED: &str = ".0";

impl ObjectKeys {
    /// `None`: some store would change the prefix, or it would need encoding in a URL.
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

    /// The prefix of all keys.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn object(&self, attempt: Attempt) -> String {
        format!("{}{attempt}", self.prefix)
    }

    pub(crate) fn staged(&self, attempt: Attempt) -> String {
        format!("{}{attempt}{STAGED}", self.prefix)
    }

    /// The key of an object of this store. A location in another store is an error: its object must never be considered
    /// absent, or be deleted.
    pub(crate) fn of(&self, location: &Location) -> Result<String, StoreError> {
        let key = location.key_in(Location::MAIN)?;
        let is_plain = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'.');
        if key.is_empty() || !key.bytes().all(is_plain) {
            return Err(StoreError::failed(format!("{key:?} is not a key of this store")));
        }
        Ok(format!("{}{key}", self.prefix))
    }

    /// The key of the bytes staged for an object.
    pub(crate) fn staged_beside(object: &str) -> String {
        format!("{object}{STAGED}")
    }

    /// The object of a key, also of the key of staged bytes. `None`: the key is not one of this store.
    pub(crate) fn location(&self, key: &str) -> Option<Location> {
        let own = key.strip_prefix(&self.prefix)?;
        match Attempt::of_key(own)? {
            (attempt, "" | STAGED) => Some(Self::named(attempt)),
            _ => None,
        }
    }

    /// A location in this store.
    pub(crate) fn named(attempt: Attempt) -> Location {
        Location::main(attempt.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const ATTEMPT: Attempt = Attempt {
        session: registry::store::SessionId(0xabc),
        number: 12,
    };

    #[test]
    fn all_keys_begin_with_the_prefix() {
        for prefix in ["", "/"] {
            let keys = ObjectKeys::new(prefix).unwrap();
            assert_eq!(keys.object(ATTEMPT), "00000000000000000000000000000abc.12");
        }
        for prefix in ["a/b", "/a/b/"] {
            let keys = ObjectKeys::new(prefix).unwrap();
            assert_eq!(keys.staged(ATTEMPT), "a/b/00000000000000000000000000000abc.12.0");
        }
        for prefix in ["a//b", "a/../b", "a/./b", "a b", "ä", "a\\b"] {
            assert!(ObjectKeys::new(prefix).is_none(), "{prefix}");
        }
    }

    #[test]
    fn a_location_of_another_store_is_refused() {
        let keys = ObjectKeys::new("p").unwrap();
        let location = ObjectKeys::named(ATTEMPT);
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
    fn a_key_yields_the_location_of_its_object() {
        let keys = ObjectKeys::new("p").unwrap();
        let named = Some(ObjectKeys::named(ATTEMPT));
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
