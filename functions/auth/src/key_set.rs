//! The public keys of tokens: those that verify, and the document at `/.well-known/jwks.json`.

use registry::store::Timestamp;
use registry::store::access::{KeyId, PublicKey};
use serde::Serialize;

use crate::signing_key::{VerifyingKey, key_id};

/// The public keys that instances share. Making it costs some microseconds for each key, so it is made once for each state
/// that was read.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<(PublicKey, VerifyingKey)>);

impl KeySet {
    /// The set of these keys. One that cannot be a key, or has the id of another key, is left out: nothing that it signed is
    /// accepted.
    #[must_use]
    pub fn new(keys: &[PublicKey]) -> Self {
        let key = |key: &PublicKey| {
            let point = VerifyingKey::new(key.x).filter(|_| key_id(key.x) == key.kid)?;
            Some((key.clone(), point))
        };
        Self(keys.iter().filter_map(key).collect())
    }

    /// The key with this id, if its tokens are accepted now. A key verifies as soon as it is published, although it signs
    /// later: the clocks of instances differ.
    #[must_use]
    pub fn find(&self, kid: KeyId, now: Timestamp) -> Option<&VerifyingKey> {
        self.accepted(now)
            .find(|(key, _)| key.kid == kid)
            .map(|(_, point)| point)
    }

    /// The id of the key that signs now: of those whose tokens are accepted, the one whose time began last, and of several with
    /// the same time the last one of the list. So a key that was replaced signs until the time of its successor begins.
    ///
    /// If the time of none has begun, the first one signs before its time: the clock of this instance may be behind that of the
    /// one that made the key, and nobody could log in until then.
    #[must_use]
    pub fn signs_at(&self, now: Timestamp) -> Option<KeyId> {
        let begun = self.accepted(now).filter(|(key, _)| key.from <= now);
        begun
            .max_by_key(|(key, _)| key.from)
            .or_else(|| self.accepted(now).min_by_key(|(key, _)| key.from))
            .map(|(key, _)| key.kid)
    }

    /// The document that other programs verify tokens by (RFC 7517, 5): the keys whose tokens are accepted now, and those that
    /// will sign.
    #[must_use]
    pub fn to_json(&self, now: Timestamp) -> String {
        let keys = self.accepted(now).map(|(key, _)| JsonWebKey {
            kty: "OKP",
            crv: "Ed25519",
            usage: "sig",
            alg: "EdDSA",
            kid: key.kid,
            x: key.x.into(),
        });
        let document = JsonWebKeySet { keys: keys.collect() };
        // Serializing texts into memory does not fail.
        serde_json::to_string(&document).unwrap_or_default()
    }

    fn accepted(&self, now: Timestamp) -> impl Iterator<Item = &(PublicKey, VerifyingKey)> {
        self.0
            .iter()
            .filter(move |(key, _)| key.until.is_none_or(|until| until > now))
    }
}

#[derive(Serialize)]
struct JsonWebKeySet {
    keys: Vec<JsonWebKey>,
}

/// A public key (RFC 8037, 2).
#[derive(Serialize)]
struct JsonWebKey {
    kty: &'static str,
    crv: &'static str,
    #[serde(rename = "use")]
    usage: &'static str,
    alg: &'static str,
    kid: KeyId,
    x: String,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::signing_key::TokenSigner;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn public(seed: u8, from: u64, until: Option<u64>) -> PublicKey {
        PublicKey {
            until: until.map(Timestamp),
            ..TokenSigner::from_seed(&[seed; 32]).public(Timestamp(from))
        }
    }

    /// The keys of a rotation: one has ended, one still verifies, one signs, one will sign.
    fn rotating() -> Vec<PublicKey> {
        vec![
            public(1, 0, Some(NOW.0)),
            public(2, 1, Some(NOW.0 + 1)),
            public(3, NOW.0, None),
            public(4, NOW.0 + 1, None),
        ]
    }

    #[test]
    fn which_keys_verify_and_which_one_signs() {
        let keys = rotating();
        let set = KeySet::new(&keys);
        let verify = |now: u64| {
            keys.iter()
                .map(|key| set.find(key.kid, Timestamp(now)).is_some())
                .collect::<Vec<_>>()
        };
        for (now, signs, verifies) in [
            (NOW.0 - 1, Some(1), [true, true, true, true]),
            (NOW.0, Some(2), [false, true, true, true]),
            (NOW.0 + 1, Some(3), [false, false, true, true]),
        ] {
            assert_eq!(
                set.signs_at(Timestamp(now)),
                signs.map(|index: usize| keys[index].kid),
                "{now}"
            );
            assert_eq!(verify(now), verifies, "{now}");
        }
        let same_time = KeySet::new(&[public(1, 5, None), public(2, 5, None)]);
        assert_eq!(same_time.signs_at(NOW), Some(public(2, 5, None).kid));
        assert!(KeySet::default().signs_at(NOW).is_none());
        let ended = public(1, 0, Some(NOW.0));
        assert!(KeySet::new(std::slice::from_ref(&ended)).signs_at(NOW).is_none());
        // By a clock that is behind that of the operator who has made the keys.
        let early = KeySet::new(&[ended, public(2, NOW.0 + 2, None), public(3, NOW.0 + 1, None)]);
        assert_eq!(early.signs_at(NOW), Some(public(3, NOW.0 + 1, None).kid));
    }

    #[test]
    fn the_document_of_public_keys() {
        let set = KeySet::new(&rotating());
        let document: serde_json::Value = serde_json::from_str(&set.to_json(NOW)).unwrap();
        let keys = document["keys"].as_array().unwrap();
        let kids: Vec<&str> = keys.iter().map(|key| key["kid"].as_str().unwrap()).collect();
        let expected: Vec<String> = rotating()[1..].iter().map(|key| key.kid.to_string()).collect();
        assert_eq!(kids, expected);
        // The key of RFC 8037, appendix A.2.
        let seed = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49,
            0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
        ];
        let set = KeySet::new(&[TokenSigner::from_seed(&seed).public(NOW)]);
        assert_eq!(
            set.to_json(NOW),
            concat!(
                r#"{"keys":[{"kty":"OKP","crv":"Ed25519","use":"sig","alg":"EdDSA","kid":"kPrK_qmxVWaYVA9w","#,
                r#""x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#
            )
        );
        assert_eq!(KeySet::default().to_json(NOW), r#"{"keys":[]}"#);
    }

    #[test]
    fn s05_a_key_under_the_id_of_another_one_is_left_out() {
        let (right, other) = (public(1, 0, None), public(2, 0, None));
        let mixed = PublicKey {
            kid: right.kid,
            ..other.clone()
        };
        let set = KeySet::new(&[mixed]);
        assert!(set.find(right.kid, NOW).is_none() && set.find(other.kid, NOW).is_none());
    }
}
