//! Walks strictly through a JSON document with serde's visitors: in one pass and without a tree of the document. Values
//! that are not kept are still checked.
//!
//! A [`ValueReader`] reads one value of the document. [`ValueSeed`] connects it to the JSON parser and does what every
//! value needs: it counts the value, bounds the depth and refuses other JSON types. serde carries errors as text, so
//! [`ParseContext::fault`] holds the typed error while the JSON parser returns.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

use super::{ManifestError, ManifestLimits};

/// State that all values of one document share.
pub(super) struct ParseContext<'l> {
    limits: &'l ManifestLimits,
    depth: Cell<usize>,
    values: Cell<usize>,
    references: Cell<usize>,
    fault: Cell<Option<ManifestError>>,
}

/// The JSON parser itself allows 127 levels. This limit is one lower, so that this module refuses first.
const MAXIMUM_DEPTH: usize = 126;

impl<'l> ParseContext<'l> {
    pub(super) fn new(limits: &'l ManifestLimits) -> Self {
        Self {
            limits,
            depth: Cell::new(0),
            values: Cell::new(0),
            references: Cell::new(0),
            fault: Cell::new(None),
        }
    }

    /// Parses `bytes` as one JSON document, whose top-level value `reader` reads.
    pub(super) fn read<'de, P: ValueReader<'de>>(
        &self,
        bytes: &'de [u8],
        reader: P,
    ) -> Result<P::Value, ManifestError> {
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let value = ValueSeed(self, reader)
            .deserialize(&mut json)
            .and_then(|value| json.end().map(|()| value));
        value.map_err(|error| {
            self.fault
                .take()
                .unwrap_or_else(|| ManifestError::NotJson(error.to_string()))
        })
    }

    /// Stores the typed error and returns an error of serde's. The text of the latter is never shown.
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
        let max = self.limits.max_depth.min(MAXIMUM_DEPTH);
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

/// A value that the JSON parser has found.
#[derive(Clone, Copy)]
pub(super) enum JsonToken<'a> {
    Null,
    Boolean,
    /// An integer from 0 to `u64::MAX`, written as digits only.
    Natural(u64),
    /// A negative integer.
    Negative,
    /// A number with a fraction or an exponent, `-0`, or a number beyond 64 bits.
    OtherNumber,
    Text(&'a str),
    Array,
    Object,
}

/// Reads one value of a document.
pub(super) trait ValueReader<'de>: Sized {
    type Value;

    /// The value of `token`, if this reader accepts it; otherwise the error that says what is allowed here. An array or
    /// object gets here only if the reader does not define the method for it.
    fn read(self, token: JsonToken<'_>) -> Result<Self::Value, ManifestError>;

    fn read_array<A: SeqAccess<'de>>(self, context: &ParseContext<'_>, _: A) -> Result<Self::Value, A::Error> {
        self.read(JsonToken::Array).map_err(|fault| context.fail(fault))
    }

    fn read_object<A: MapAccess<'de>>(self, context: &ParseContext<'_>, _: A) -> Result<Self::Value, A::Error> {
        self.read(JsonToken::Object).map_err(|fault| context.fail(fault))
    }
}

/// Connects a reader of a value to the JSON parser.
pub(super) struct ValueSeed<'r, 'l, P>(pub(super) &'r ParseContext<'l>, pub(super) P);

impl<'de, P: ValueReader<'de>> DeserializeSeed<'de> for ValueSeed<'_, '_, P> {
    type Value = P::Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<P::Value, D::Error> {
        // Always `deserialize_any`: the JSON parser's shortcut for ignored values would not check the text in them.
        json.deserialize_any(self)
    }
}

impl<'de, P: ValueReader<'de>> ValueSeed<'_, '_, P> {
    fn scalar<E: Error>(self, token: JsonToken<'_>) -> Result<P::Value, E> {
        let Self(context, reader) = self;
        context.count_value()?;
        reader.read(token).map_err(|fault| context.fail(fault))
    }
}

impl<'de, P: ValueReader<'de>> Visitor<'de> for ValueSeed<'_, '_, P> {
    type Value = P::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<P::Value, E> {
        self.scalar(JsonToken::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<P::Value, E> {
        self.scalar(JsonToken::Boolean)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<P::Value, E> {
        self.scalar(JsonToken::Natural(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<P::Value, E> {
        self.scalar(u64::try_from(number).map_or(JsonToken::Negative, JsonToken::Natural))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<P::Value, E> {
        self.scalar(JsonToken::OtherNumber)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<P::Value, E> {
        self.scalar(JsonToken::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, array: A) -> Result<P::Value, A::Error> {
        let Self(context, reader) = self;
        context.count_value()?;
        context.descend()?;
        let value = reader.read_array(context, array)?;
        context.ascend();
        Ok(value)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<P::Value, A::Error> {
        let Self(context, reader) = self;
        context.count_value()?;
        context.descend()?;
        let value = reader.read_object(context, object)?;
        context.ascend();
        Ok(value)
    }
}

/// Reads a key of an object. The key is borrowed from the input unless it contains escapes.
struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Cow<'de, str>, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed {
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

/// The keys that an object has contained so far. They are sorted once at its end rather than hashed: no input makes
/// sorting slow, and the core has no randomness to seed a hash with.
#[derive(Default)]
pub(super) struct SeenKeys<'de>(Vec<Cow<'de, str>>);

impl<'de> SeenKeys<'de> {
    /// Reads the next key. `known`: the keys that have a meaning in this object.
    pub(super) fn next<A: MapAccess<'de>>(
        &mut self,
        context: &ParseContext<'_>,
        object: &mut A,
        known: &[&'static str],
    ) -> Result<Option<Cow<'de, str>>, A::Error> {
        let Some(key) = object.next_key_seed(KeySeed)? else {
            return Ok(None);
        };
        if let Some(known) = known.iter().find(|known| differ_by_case(&key, known)) {
            return Err(context.fail(ManifestError::AmbiguousKey {
                found: key.into_owned(),
                known,
            }));
        }
        self.0.push(key.clone());
        Ok(Some(key))
    }

    pub(super) fn finish<E: Error>(mut self, context: &ParseContext<'_>) -> Result<(), E> {
        self.0.sort_unstable();
        match self.0.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(context.fail(ManifestError::DuplicateKey(shortened(&pair[0])))),
            None => Ok(()),
        }
    }
}

/// Whether `key` equals `known` except for case. It compares by the simple case folding of Unicode, which Go's parser
/// uses: besides the ASCII letters, two other characters fold to one of them.
fn differ_by_case(key: &str, known: &str) -> bool {
    let fold = |character: char| match character {
        'ſ' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    key != known && key.chars().map(fold).eq(known.chars().map(fold))
}

/// The beginning of a key, long enough to find it by.
fn shortened(key: &str) -> String {
    key.chars().take(64).collect()
}

/// Reads and checks any value, and drops it.
pub(super) struct IgnoredReader;

impl<'de> ValueReader<'de> for IgnoredReader {
    type Value = ();

    fn read(self, _: JsonToken<'_>) -> Result<(), ManifestError> {
        Ok(())
    }

    fn read_array<A: SeqAccess<'de>>(self, context: &ParseContext<'_>, mut array: A) -> Result<(), A::Error> {
        while array.next_element_seed(ValueSeed(context, IgnoredReader))?.is_some() {}
        Ok(())
    }

    fn read_object<A: MapAccess<'de>>(self, context: &ParseContext<'_>, mut object: A) -> Result<(), A::Error> {
        let mut keys = SeenKeys::default();
        while keys.next(context, &mut object, &[])?.is_some() {
            object.next_value_seed(ValueSeed(context, IgnoredReader))?;
        }
        keys.finish(context)
    }
}
