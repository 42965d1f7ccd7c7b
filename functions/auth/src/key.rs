//! Keys of accounts: the secrets of robots, and the personal keys of users.
//!
//! `rsk_<account>.<id: 8 base62><secret: 43 base62><checksum: 6 base62>`. The name of the account is in the key, so one read
//! finds the account without a user name. The secret has 256 bits, so a key is hashed by SHA-256 and never by the password
//! hash. The checksum is CRC-32 of everything before it: scanners for secrets recognize a key without a request, and a key
//! that was copied badly is refused without a read.

use std::fmt;

use registry::Environment;
use registry::auth::{AccountName, CredentialId};
use registry::store::access::KeyHash;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// A key as its owner has it. It is not printed; [`Key::expose`] returns its text.
#[derive(Clone)]
pub struct Key {
    text: String,
    account: AccountName,
    id: CredentialId,
}

/// The text is not a key. Which part of it is wrong is not said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a key, or not all of it")]
pub struct KeyError;

impl Key {
    /// Every key begins with this.
    pub const PREFIX: &'static str = "rsk_";

    /// The expression by which scanners find keys.
    pub const PATTERN: &'static str = r"rsk_[a-z0-9._-]{1,64}\.[0-9A-Za-z]{57}";

    const SECRET_LEN: usize = 43;
    const CHECKSUM_LEN: usize = 6;
    /// The length of what follows the name of the account and its dot.
    const BODY_LEN: usize = CredentialId::LEN + Self::SECRET_LEN + Self::CHECKSUM_LEN;

    /// A new key of `account`.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the digits of base 62 are those of ids")]
    pub fn generate(account: &AccountName, environment: &dyn Environment) -> Self {
        let mut random = [0; 8 + 32];
        environment.random(&mut random);
        let (id, secret) = random.split_at(8);
        let mut text = format!("{}{account}.", Self::PREFIX);
        text.push_str(&base62::<{ CredentialId::LEN }>(id));
        text.push_str(&base62::<{ Self::SECRET_LEN }>(secret));
        text.push_str(&checksum(&text));
        let start = text.len() - Self::BODY_LEN;
        let id = text[start..start + CredentialId::LEN].parse();
        Self {
            id: id.expect("8 letters and digits"),
            account: account.clone(),
            text,
        }
    }

    /// Reads a key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (account, body) = text
            .strip_prefix(Self::PREFIX)
            .and_then(|rest| rest.rsplit_once('.'))
            .ok_or(KeyError)?;
        if body.len() != Self::BODY_LEN || !body.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(KeyError);
        }
        let (before, expected) = text.split_at(text.len() - Self::CHECKSUM_LEN);
        if checksum(before) != expected {
            return Err(KeyError);
        }
        Ok(Self {
            text: text.to_owned(),
            account: account.parse().map_err(|_| KeyError)?,
            id: body[..CredentialId::LEN].parse().map_err(|_| KeyError)?,
        })
    }

    /// Whether a secret without a user name is meant to be a key, even if it is malformed. No new password begins so.
    #[must_use]
    pub fn is_meant_by(secret: &str) -> bool {
        secret.starts_with(Self::PREFIX)
    }

    /// The account.
    #[must_use]
    pub fn account(&self) -> &AccountName {
        &self.account
    }

    /// The id, which is not secret.
    #[must_use]
    pub fn id(&self) -> CredentialId {
        self.id
    }

    /// What is stored of the key.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash(Sha256::digest(self.text.as_bytes()).into())
    }

    /// Whether `hash` is the hash of this key; compares in constant time.
    #[must_use]
    pub fn matches(&self, hash: &KeyHash) -> bool {
        self.hash().0.ct_eq(&hash.0).into()
    }

    /// The text, to be shown once to its owner.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("account", &self.account)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The last `LEN` digits of a number in base 62. The bytes of the number have the most significant one first.
fn base62<const LEN: usize>(number: &[u8]) -> String {
    let mut number = number.to_vec();
    let mut digits = [0; LEN];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0_usize;
        for byte in &mut number {
            let value = remainder << 8 | usize::from(*byte);
            // The remainder is below 62, so the quotient is below 256.
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            remainder = value % 62;
        }
        *digit = DIGITS[remainder];
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

/// The checksum of the text before it.
fn checksum(text: &str) -> String {
    base62::<{ Key::CHECKSUM_LEN }>(&crc32(text.as_bytes()).to_be_bytes())
}

/// CRC-32 as in zlib and PNG.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            let divisor = if sum & 1 == 1 { 0xedb8_8320 } else { 0 };
            sum >> 1 ^ divisor
        })
    })
}

#[cfg(test)]
pub(crate) mod scanner;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::scanner::found_at_start;
    use super::*;
    use crate::test_environment::TestEnvironment;

    fn key(account: &str, seed: u64) -> Key {
        Key::generate(&account.parse().unwrap(), &TestEnvironment::new(seed))
    }

    #[test]
    fn the_checksum_is_crc_32() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn digits_of_base_62() {
        assert_eq!(base62::<3>(&[0]), "000");
        assert_eq!(base62::<3>(&[61]), "00z");
        assert_eq!(base62::<3>(&[62]), "010");
        assert_eq!(base62::<3>(&[0x0f, 0x03]), "0zz");
        assert_eq!(base62::<3>(&[0x0f, 0x04]), "100");
        assert_eq!(base62::<6>(&u32::MAX.to_be_bytes()), "4gfFC3");
        assert_eq!(base62::<43>(&[0xff; 32]).len(), 43);
        assert_ne!(
            base62::<43>(&[0xff; 32]).as_bytes()[0],
            b'0',
            "43 digits are no more than 256 bits need"
        );
    }

    #[test]
    fn a_new_key_is_read_back_and_found_by_scanners() {
        let longest = "a".repeat(64);
        for account in ["ci", "a", "a.b-c_d", "0", &*longest] {
            let key = key(account, 7);
            let text = key.expose();
            let read = Key::parse(text).unwrap();
            assert_eq!((read.account().as_str(), read.id()), (account, key.id()), "{text}");
            assert!(read.matches(&key.hash()) && read.expose() == text);
            assert_eq!(found_at_start(text), Some(text));
            assert!(text.starts_with(&format!("rsk_{account}.{}", key.id())));
            assert!(Key::is_meant_by(text));
        }
    }

    #[test]
    fn no_two_keys_are_alike() {
        let environment = TestEnvironment::new(1);
        let account = "ci".parse().unwrap();
        let keys: Vec<Key> = (0..100).map(|_| Key::generate(&account, &environment)).collect();
        assert_eq!(keys.iter().map(Key::id).collect::<BTreeSet<_>>().len(), 100);
        assert_eq!(keys.iter().map(|key| key.hash().0).collect::<BTreeSet<_>>().len(), 100);
    }

    #[test]
    fn what_is_not_a_key() {
        let key = key("ci", 7);
        let text = key.expose();
        let with_checksum = |text: &str| format!("{text}{}", checksum(text));
        let body = "0".repeat(51);
        assert!(Key::parse(&with_checksum(&format!("rsk_ci.{body}"))).is_ok());
        for wrong in [
            String::new(),
            "rsk_".into(),
            "rsk_ci".into(),
            "rsk_ci.".into(),
            text[1..].into(),
            text[..text.len() - 1].into(),
            format!("{text}0"),
            format!(" {text}"),
            format!("{text}\n"),
            text.replacen("ci", "cj", 1),
            text.to_uppercase(),
            with_checksum(&format!("rsk_.{body}")),
            with_checksum(&format!("rsk_CI.{body}")),
            with_checksum(&format!("rsk_key.{body}")),
            with_checksum(&format!("rsk_{}.{body}", "a".repeat(65))),
            with_checksum(&format!("rsk_ci.{}", "-".repeat(51))),
            with_checksum(&format!("rsk_ci.{}", "0".repeat(50))),
            with_checksum(&format!("rsk_ci.{}\u{e9}", "0".repeat(49))),
        ] {
            assert!(Key::parse(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_character_counts() {
        let key = key("ci", 3);
        for at in 0..key.expose().len() {
            let mut bytes = key.expose().as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'7' { b'8' } else { b'7' };
            assert!(Key::parse(std::str::from_utf8(&bytes).unwrap()).is_err(), "{at}");
        }
    }

    #[test]
    fn s20_hashes_of_keys_are_compared_in_constant_time() {
        let key = key("ci", 3);
        let hash = key.hash();
        assert!(key.matches(&hash));
        for bit in 0..256 {
            let mut other = hash;
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.matches(&other), "{bit}");
        }
        let source = include_str!("key.rs");
        let matches = source
            .split_once("fn matches(")
            .unwrap()
            .1
            .split_once("\n    }\n")
            .unwrap()
            .0;
        assert!(matches.contains(".ct_eq(") && !matches.contains("=="));
    }

    #[test]
    fn s18_a_key_is_not_printed() {
        let key = key("ci", 3);
        let printed = format!("{key:?} {:?}", key.hash());
        assert!(printed.contains("ci") && printed.contains(&key.id().to_string()));
        let secret = &key.expose()["rsk_ci.".len() + CredentialId::LEN..];
        assert!(!printed.contains(secret) && !printed.contains(&secret[..8]));
    }

    proptest! {
        /// Text is read without a panic, and what is read is what the scanner finds.
        #[test]
        fn any_text(text in "(rsk_)?[a-z._-]{0,4}\\.?\\PC{0,60}") {
            if Key::parse(&text).is_ok() {
                prop_assert_eq!(found_at_start(&text), Some(&*text));
            }
        }

        #[test]
        fn any_key(account in "[a-z0-9]{1,9}([._-][a-z0-9]{1,9}){0,4}", seed in any::<u64>()) {
            let Ok(account) = account.parse() else { return Ok(()) };
            let key = Key::generate(&account, &TestEnvironment::new(seed));
            prop_assert_eq!(found_at_start(key.expose()), Some(key.expose()));
            prop_assert!(Key::parse(key.expose()).unwrap().matches(&key.hash()));
        }

        /// With another character anywhere a key is refused before any read, and no other key is as good.
        #[test]
        fn one_changed_character(
            account in "u[a-z0-9]{0,9}([._-][a-z0-9]{1,9}){0,2}",
            seeds in (any::<u64>(), any::<u64>()),
            at in any::<Index>(),
            other in "[ -~]",
        ) {
            let (one, another) = (key(&account, seeds.0), key(&account, seeds.1));
            let read = Key::parse(one.expose()).unwrap();
            prop_assert_eq!((read.account(), read.id()), (one.account(), one.id()));
            prop_assert_eq!(another.matches(&one.hash()), seeds.0 == seeds.1);
            let at = at.index(one.expose().len());
            let mut changed = one.expose().to_owned();
            changed.replace_range(at..=at, &other);
            prop_assert_eq!(Key::parse(&changed).is_ok(), changed == one.expose(), "{}", changed);
        }
    }
}
