//! Keys that sign tokens, and keys that verify them: Ed25519 (RFC 8032), as JOSE names it (RFC 8037).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::Signer as _;
use registry::Environment;
use registry::store::Timestamp;
use registry::store::access::state::PublicKeyBytes;
use registry::store::access::{KeyId, PublicKey, TokenSeed};
use sha2::{Digest as _, Sha256};

/// The length of a signature, in bytes.
pub const SIGNATURE_LEN: usize = 64;

/// A key that signs tokens. It is not printed.
#[derive(Clone)]
pub struct TokenSigner {
    key: ed25519_dalek::SigningKey,
    kid: KeyId,
}

/// The id of a stored seed is not that of its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the seed {0} is damaged: its key has another id")]
pub struct DamagedSeed(pub KeyId);

impl TokenSigner {
    /// The key with this seed, which is the private key of RFC 8032.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
        let kid = key_id(PublicKeyBytes(key.verifying_key().to_bytes()));
        Self { key, kid }
    }

    /// The key of a stored seed.
    pub fn from_stored(seed: &TokenSeed) -> Result<Self, DamagedSeed> {
        let key = Self::from_seed(&seed.seed);
        if key.kid == seed.kid {
            Ok(key)
        } else {
            Err(DamagedSeed(seed.kid))
        }
    }

    /// The seed of a new key.
    #[must_use]
    pub fn new_seed(environment: &dyn Environment) -> TokenSeed {
        let mut seed = [0; 32];
        environment.random(&mut seed);
        TokenSeed {
            kid: Self::from_seed(&seed).kid,
            seed,
            created: environment.now(),
        }
    }

    /// The id of the key.
    #[must_use]
    pub fn kid(&self) -> KeyId {
        self.kid
    }

    /// The public key.
    #[must_use]
    pub fn public_bytes(&self) -> PublicKeyBytes {
        PublicKeyBytes(self.key.verifying_key().to_bytes())
    }

    /// The public key as it is published: it signs from `from` on.
    #[must_use]
    pub fn public(&self, from: Timestamp) -> PublicKey {
        PublicKey {
            kid: self.kid,
            x: self.public_bytes(),
            from,
            until: None,
        }
    }

    /// The signature of `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.key.sign(message).to_bytes()
    }
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSigner")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

/// A public key that verifies signatures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifyingKey(ed25519_dalek::VerifyingKey);

impl VerifyingKey {
    /// `None`: no point of the curve has these bytes, or one of small order, for which signatures can be forged.
    #[must_use]
    pub fn new(x: PublicKeyBytes) -> Option<Self> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(&x.0).ok()?;
        (!key.is_weak()).then_some(Self(key))
    }

    /// Whether this is the key's signature of the message. It has one form: signatures of the same message that were changed
    /// but would verify by the equations of RFC 8032 are refused.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        self.0.verify_strict(message, &signature).is_ok()
    }
}

/// The id of a key: the first characters of its thumbprint.
#[must_use]
#[expect(
    clippy::missing_panics_doc,
    reason = "a thumbprint has 43 characters, and all of them are those of ids"
)]
pub fn key_id(x: PublicKeyBytes) -> KeyId {
    thumbprint(x)[..KeyId::LEN].parse().expect("characters of base64url")
}

/// The thumbprint of a key: base64url of SHA-256 of its required members (RFC 7638, 3; RFC 8037, 2).
#[must_use]
pub fn thumbprint(x: PublicKeyBytes) -> String {
    let x = String::from(x);
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    URL_SAFE_NO_PAD.encode(Sha256::digest(members.as_bytes()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::test_environment::TestEnvironment;

    /// RFC 8037, appendix A.
    const D: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    const KID: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
    const SIGNING_INPUT: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    const SIGNATURE: &str = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

    fn decode<const LEN: usize>(text: &str) -> [u8; LEN] {
        URL_SAFE_NO_PAD.decode(text).unwrap().try_into().unwrap()
    }

    #[test]
    fn the_example_of_rfc_8037() {
        let key = TokenSigner::from_seed(&decode(D));
        assert_eq!(String::from(key.public_bytes()), X);
        assert_eq!(thumbprint(key.public_bytes()), KID);
        assert_eq!(key.kid().as_str(), &KID[..16]);
        assert_eq!(key.sign(SIGNING_INPUT.as_bytes()), decode(SIGNATURE));
        let public = VerifyingKey::new(PublicKeyBytes(decode(X))).unwrap();
        assert!(public.verifies(SIGNING_INPUT.as_bytes(), &decode(SIGNATURE)));
        assert!(!public.verifies(&SIGNING_INPUT.as_bytes()[1..], &decode(SIGNATURE)));
        let mut message = SIGNING_INPUT.as_bytes().to_vec();
        for bit in 0..message.len() * 8 {
            message[bit / 8] ^= 1 << (bit % 8);
            assert!(!public.verifies(&message, &decode(SIGNATURE)), "{bit}");
            message[bit / 8] ^= 1 << (bit % 8);
        }
    }

    /// A signature with the order of the group added to its second half would verify by a library that is not strict.
    #[test]
    fn s05_a_signature_has_one_form() {
        let order: [u8; 32] = {
            let mut order = [0; 32];
            order[..16].copy_from_slice(&0x14de_f9de_a2f7_9cd6_5812_631a_5cf5_d3ed_u128.to_le_bytes());
            order[31] = 0x10;
            order
        };
        let mut signature: [u8; 64] = decode(SIGNATURE);
        let mut carry = 0;
        for (byte, add) in signature[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        let public = VerifyingKey::new(PublicKeyBytes(decode(X))).unwrap();
        assert!(!public.verifies(SIGNING_INPUT.as_bytes(), &signature));
    }

    /// For the neutral element as key, a signature of zeros and the neutral element verifies every message.
    #[test]
    fn s05_keys_of_small_order_are_refused() {
        let of_y = |y: u8| {
            let mut bytes = [0; 32];
            bytes[0] = y;
            bytes
        };
        // The second has the order four, and the third is no point.
        for bytes in [of_y(1), of_y(0), of_y(2)] {
            assert_eq!(VerifyingKey::new(PublicKeyBytes(bytes)), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_stored_seed_is_read_back() {
        let environment = TestEnvironment::new(5);
        let seed = TokenSigner::new_seed(&environment);
        let key = TokenSigner::from_stored(&seed).unwrap();
        assert_eq!((key.kid(), seed.created), (seed.kid, TestEnvironment::NOW));
        assert_ne!(TokenSigner::new_seed(&environment).kid, seed.kid);
        let mut damaged = seed.clone();
        damaged.seed[0] ^= 1;
        assert_eq!(TokenSigner::from_stored(&damaged).unwrap_err(), DamagedSeed(seed.kid));
        let public = key.public(Timestamp(7));
        assert_eq!((public.kid, public.from, public.until), (seed.kid, Timestamp(7), None));
        assert_eq!(key_id(public.x), seed.kid);
    }

    #[test]
    fn s18_seeds_are_not_printed() {
        let key = TokenSigner::from_seed(&decode(D));
        assert_eq!(
            format!("{key:?}"),
            format!("TokenSigner {{ kid: KeyId({}), .. }}", &KID[..16])
        );
    }
}
