//! The locations of objects.

use serde::{Deserialize, Serialize};

use super::{Attempt, StoreError};
use crate::text::is_runs;

/// The maximum lengths of a store's id and of a key, in bytes.
const MAX_STORE: usize = 64;
const MAX_KEY: usize = 128;

/// The permanent location of an object: the id of a store, and an opaque key in it.
///
/// It never contains a bucket, a path or a URL, since those change when data is copied to another store or region.
///
/// Records with locations are written and read unchanged, even if they name a store that this instance does not have:
/// metadata may be older or newer than a configuration. A blob store calls [`Location::key_in`] on every location that
/// it is given, to check that the location is its own.
///
/// ```
/// use registry::store::Location;
///
/// let location = Location::new("archive", "0123abcd.1").unwrap();
/// assert_eq!(location.key_in("archive").unwrap(), "0123abcd.1");
/// assert!(location.key_in(Location::MAIN).is_err());
/// assert!(Location::new("archive", "../secret").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Location {
    /// The id of the store that has the object: [`Location::MAIN`], except in registries with several stores.
    pub store: String,
    /// The key in that store. It consists of `[0-9a-f.]` only, and is never derived from data that a client sent.
    pub key: String,
}

/// The text is not a location that a registry could have written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LocationError {
    /// The id of the store is invalid.
    #[error("the id of a store is made of lower-case letters and digits, with single hyphens between them")]
    Store,
    /// The key is invalid.
    #[error("the key of an object is made of hexadecimal digits and dots")]
    Key,
}

impl Location {
    /// The id of a registry's first blob store, which is its only one today. A logical name: it is the same on disk and
    /// in a bucket, so that a registry can move and keep its records.
    pub const MAIN: &'static str = "main";

    /// Parses a location from text that this registry did not write. Ids are `[a-z0-9]+(-[a-z0-9]+)*`, at most 64
    /// bytes. Keys are `[0-9a-f.]+`, at most 128 bytes.
    pub fn new(store: &str, key: &str) -> Result<Self, LocationError> {
        let is_plain = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'.');
        if store.len() > MAX_STORE || !is_runs(store, &['-']) {
            return Err(LocationError::Store);
        }
        if key.is_empty() || key.len() > MAX_KEY || !key.bytes().all(is_plain) {
            return Err(LocationError::Key);
        }
        Ok(Self {
            store: store.to_owned(),
            key: key.to_owned(),
        })
    }

    /// An object of [`Location::MAIN`].
    pub fn main(key: impl Into<String>) -> Self {
        Self {
            store: Self::MAIN.to_owned(),
            key: key.into(),
        }
    }

    /// The key, if the object is in the store `store`; otherwise [`StoreError::Failed`] with the names of both stores.
    /// An object in another store is neither absent nor to be deleted here.
    pub fn key_in(&self, store: &str) -> Result<&str, StoreError> {
        if self.store == store {
            Ok(&self.key)
        } else {
            Err(StoreError::failed(format!(
                "the object {:?} is in the store {:?}, and this is the store {store:?}",
                self.key, self.store
            )))
        }
    }

    /// Whether [`Location::MAIN`] can have made the object: its key is the name of an [`Attempt`], or that name and
    /// `.0`, as the first version of this program wrote some keys.
    #[must_use]
    pub fn is_of_main(&self) -> bool {
        self.store == Self::MAIN && matches!(Attempt::of_key(&self.key), Some((_, "" | ".0")))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn stores_and_keys_are_validated() {
        let (longest_id, longest_key) = ("a".repeat(MAX_STORE), "0".repeat(MAX_KEY));
        for (store, key) in [
            (Location::MAIN, "0123456789abcdef.1"),
            ("archive-2", "1.1.0"),
            (&longest_id, &longest_key),
        ] {
            let location = Location::new(store, key).unwrap();
            assert_eq!((location.store.as_str(), location.key.as_str()), (store, key));
        }
        for store in [
            "",
            "Main",
            "a/b",
            "..",
            "a_b",
            "-a",
            "a-",
            "a b",
            "\u{e9}",
            &format!("{longest_id}a"),
        ] {
            assert_eq!(Location::new(store, "1.1"), Err(LocationError::Store), "{store:?}");
        }
        for key in [
            "",
            "../1",
            "a/b",
            "A",
            "g",
            "%2e",
            " ",
            "1\n",
            &format!("{longest_key}0"),
        ] {
            assert_eq!(Location::new("archive", key), Err(LocationError::Key), "{key:?}");
        }
    }

    #[test]
    fn a_location_in_another_store_is_refused() {
        let location = Location::new("archive", "1.1").unwrap();
        assert_eq!(location.key_in("archive").unwrap(), "1.1");
        let fault = location.key_in(Location::MAIN).unwrap_err();
        assert!(matches!(fault, StoreError::Failed(_)));
        let cause = std::error::Error::source(&fault).unwrap().to_string();
        assert!(cause.contains("\"archive\"") && cause.contains("\"main\""), "{cause}");
        assert_eq!(Location::main("1.1").key_in(Location::MAIN).unwrap(), "1.1");
    }
}
