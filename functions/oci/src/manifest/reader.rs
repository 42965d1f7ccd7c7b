//! A strict walk over JSON, by way of serde's visitors: one pass, no tree of the document, and what nobody keeps is
//! checked and dropped as it goes past.
//!
//! [`Place`] says what may stand at one place of the document; [`At`] lets the JSON reader walk into it and does what
//! every place needs: counts values, bounds the depth, refuses other JSON types. serde carries errors as text, so the
//! typed one waits in [`Reader::fault`] while the JSON reader unwinds.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

use super::{Limits, ManifestError};

/// What all places of one document share.
pub(super) struct Reader<'l> {
    limits: &'l Limits,
    depth: Cell<usize>,
    values: Cell<usize>,
    references: Cell<usize>,
    fault: Cell<Option<ManifestError>>,
}

/// The JSON reader follows 127 levels by itself; one less, so that this module is the one to refuse.
const DEEPEST: usize = 126;

impl<'l> Reader<'l> {
    pub(super) fn new(limits: &'l Limits) -> Self {
        Self {
            limits,
            depth: Cell::new(0),
            values: Cell::new(0),
            references: Cell::new(0),
            fault: Cell::new(None),
        }
    }

    /// Reads `bytes` as one JSON document, of which `place` may be the top.
    pub(super) fn read<'de, P: Place<'de>>(&self, bytes: &'de [u8], place: P) -> Result<P::Value, ManifestError> {
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let value = At(self, place)
            .deserialize(&mut json)
            .and_then(|value| json.end().map(|()| value));
        value.map_err(|error| {
            self.fault
                .take()
                .unwrap_or_else(|| ManifestError::NotJson(error.to_string()))
        })
    }

    /// Leaves the typed error behind and gives serde one of its own, whose text nobody reads.
    pub(super) fn fail<E: Error>(&self, fault: ManifestError) -> E {
        self.fault.set(Some(fault));
        E::custom("refused")
    }

    fn count_value<E: Error>(&self) -> Result<(), E> {
        let max = self.limits.max_values;
        if self.values.get() >= max {
            return Err(self.fail(ManifestError::TooManyValues(max)));
        }
        self.values.set(self.values.get() + 1);
        Ok(())
    }

    pub(super) fn count_reference<E: Error>(&self) -> Result<(), E> {
        let max = self.limits.max_references;
        if self.references.get() >= max {
            return Err(self.fail(ManifestError::TooManyReferences(max)));
        }
        self.references.set(self.references.get() + 1);
        Ok(())
    }

    fn descend<E: Error>(&self) -> Result<(), E> {
        let max = self.limits.max_depth.min(DEEPEST);
        if self.depth.get() >= max {
            return Err(self.fail(ManifestError::TooDeep(max)));
        }
        self.depth.set(self.depth.get() + 1);
        Ok(())
    }

    fn ascend(&self) {
        self.depth.set(self.depth.get() - 1);
    }
}

/// What the JSON reader came upon.
#[derive(Clone, Copy)]
pub(super) enum Found<'a> {
    Null,
    Boolean,
    /// An integer from 0 to `u64::MAX`, written as digits alone.
    Natural(u64),
    /// An integer below zero.
    Negative,
    /// Written with a fraction or an exponent, as `-0`, or beyond 64 bits.
    OtherNumber,
    Text(&'a str),
    Array,
    Object,
}

/// What may stand at one place of a document.
pub(super) trait Place<'de>: Sized {
    type Value;

    /// The value, when `found` may stand here and is complete with that; else the error that says what may.
    fn found(self, found: Found<'_>) -> Result<Self::Value, ManifestError>;

    fn array<A: SeqAccess<'de>>(self, reader: &Reader<'_>, _: A) -> Result<Self::Value, A::Error> {
        self.found(Found::Array).map_err(|fault| reader.fail(fault))
    }

    fn object<A: MapAccess<'de>>(self, reader: &Reader<'_>, _: A) -> Result<Self::Value, A::Error> {
        self.found(Found::Object).map_err(|fault| reader.fail(fault))
    }
}

/// A place, and the reader that walks into it.
pub(super) struct At<'r, 'l, P>(pub(super) &'r Reader<'l>, pub(super) P);

impl<'de, P: Place<'de>> DeserializeSeed<'de> for At<'_, '_, P> {
    type Value = P::Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<P::Value, D::Error> {
        // Always by content: the reader's short cut for ignored values would not check the text in them.
        json.deserialize_any(self)
    }
}

impl<'de, P: Place<'de>> At<'_, '_, P> {
    fn scalar<E: Error>(self, found: Found<'_>) -> Result<P::Value, E> {
        let Self(reader, place) = self;
        reader.count_value()?;
        place.found(found).map_err(|fault| reader.fail(fault))
    }
}

impl<'de, P: Place<'de>> Visitor<'de> for At<'_, '_, P> {
    type Value = P::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<P::Value, E> {
        self.scalar(Found::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<P::Value, E> {
        self.scalar(Found::Boolean)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<P::Value, E> {
        self.scalar(Found::Natural(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<P::Value, E> {
        self.scalar(u64::try_from(number).map_or(Found::Negative, Found::Natural))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<P::Value, E> {
        self.scalar(Found::OtherNumber)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<P::Value, E> {
        self.scalar(Found::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, array: A) -> Result<P::Value, A::Error> {
        let Self(reader, place) = self;
        reader.count_value()?;
        reader.descend()?;
        let value = place.array(reader, array)?;
        reader.ascend();
        Ok(value)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<P::Value, A::Error> {
        let Self(reader, place) = self;
        reader.count_value()?;
        reader.descend()?;
        let value = place.object(reader, object)?;
        reader.ascend();
        Ok(value)
    }
}

/// A key of an object; borrowed from the input unless it was written with escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Cow<'de, str>, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

/// The keys an object has shown. Sorted once at its end rather than hashed: no input makes that slow, and the core has
/// no randomness to seed a hash with.
#[derive(Default)]
pub(super) struct Keys<'de>(Vec<Cow<'de, str>>);

impl<'de> Keys<'de> {
    /// The next key of an object that gives meaning to the `known` ones.
    pub(super) fn next<A: MapAccess<'de>>(
        &mut self,
        reader: &Reader<'_>,
        object: &mut A,
        known: &[&'static str],
    ) -> Result<Option<Cow<'de, str>>, A::Error> {
        let Some(key) = object.next_key_seed(Key)? else {
            return Ok(None);
        };
        if let Some(known) = known.iter().find(|known| differ_by_case(&key, known)) {
            return Err(reader.fail(ManifestError::AmbiguousKey {
                found: key.into_owned(),
                known,
            }));
        }
        self.0.push(key.clone());
        Ok(Some(key))
    }

    pub(super) fn finish<E: Error>(mut self, reader: &Reader<'_>) -> Result<(), E> {
        self.0.sort_unstable();
        match self.0.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(reader.fail(ManifestError::DuplicateKey(shorten(&pair[0])))),
            None => Ok(()),
        }
    }
}

/// Whether `key` is `known` in another case, by the simple folding of Unicode that Go's reader matches with: beside the
/// ASCII letters, two other characters fold to one of them.
fn differ_by_case(key: &str, known: &str) -> bool {
    let fold = |character: char| match character {
        'ſ' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    key != known && key.chars().map(fold).eq(known.chars().map(fold))
}

/// Enough of a key to find it by.
fn shorten(key: &str) -> String {
    key.chars().take(64).collect()
}

/// Anything that a registry does not keep.
pub(super) struct Ignored;

impl<'de> Place<'de> for Ignored {
    type Value = ();

    fn found(self, _: Found<'_>) -> Result<(), ManifestError> {
        Ok(())
    }

    fn array<A: SeqAccess<'de>>(self, reader: &Reader<'_>, mut array: A) -> Result<(), A::Error> {
        while array.next_element_seed(At(reader, Ignored))?.is_some() {}
        Ok(())
    }

    fn object<A: MapAccess<'de>>(self, reader: &Reader<'_>, mut object: A) -> Result<(), A::Error> {
        let mut keys = Keys::default();
        while keys.next(reader, &mut object, &[])?.is_some() {
            object.next_value_seed(At(reader, Ignored))?;
        }
        keys.finish(reader)
    }
}
