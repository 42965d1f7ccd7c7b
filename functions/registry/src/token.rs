//! Upload tokens: the signed authority in the `Location` of an upload.
//!
//! Some clients send no credentials to that URL, so the token itself states the principal, the permission and the
//! expiry. It is bound to repository, session, region, key and principal. It is authenticated before anything in it is
//! decoded.
//!
//! There are two versions. The first has no credential, so a token that was issued before there were credentials is still
//! good. The second has the id of the key that proved the principal, before the name of the principal. Each token has one
//! spelling.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use oci::{Algorithm, RepositoryName};
use sha2::Sha256;

use crate::auth::{CredentialId, Principal, PrincipalKind};
use crate::region::RegionName;
use crate::store::sessions::{SessionKey, SigningKey};
use crate::store::{SessionId, Timestamp};

/// The version of a token without a credential.
const VERSION: u8 = 1;
/// The version of a token with a credential.
const VERSION_WITH_CREDENTIAL: u8 = 2;
const MAC_LEN: usize = 32;
/// Version, key id, expiry, session, algorithm.
const FIXED_LEN: usize = 1 + 4 + 8 + 16 + 1;
/// The maximum length of a token in characters; longer ones are refused unread. A principal's name has a maximum length
/// too.
const MAX_LEN: usize = 6144;

/// The content of an upload token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct UploadToken {
    /// The key of the session's row.
    pub(crate) session: SessionKey,
    /// The algorithm that hashes the upload's bytes while they arrive.
    pub(crate) algorithm: Algorithm,
    /// The principal that opened the upload.
    pub(crate) principal: Principal,
    /// The key that proved the principal, if it was a key. Only users and robots have keys.
    pub(crate) credential: Option<CredentialId>,
}

/// Signs and verifies upload tokens of one region.
pub(crate) struct TokenKeys {
    /// The region, as [`RegionName::signed`] returns it.
    region: String,
    /// Newest first; never empty.
    keys: Vec<SigningKey>,
}

impl TokenKeys {
    pub(crate) fn new(region: &RegionName, keys: Vec<SigningKey>) -> Self {
        Self {
            region: region.signed().to_owned(),
            keys,
        }
    }

    /// The token as text for a path: URL-safe characters only.
    pub(crate) fn sign(&self, repository: &RepositoryName, token: &UploadToken) -> Option<String> {
        let key = self.keys.first()?;
        let principal = match token.principal.kind() {
            PrincipalKind::Anonymous => "",
            PrincipalKind::User | PrincipalKind::Robot | PrincipalKind::Workload => token.principal.as_str(),
        };
        let mut bytes = Vec::with_capacity(FIXED_LEN + CredentialId::LEN + principal.len() + MAC_LEN);
        bytes.push(match token.credential {
            None => VERSION,
            Some(_) => VERSION_WITH_CREDENTIAL,
        });
        bytes.extend(key.id.to_be_bytes());
        bytes.extend(token.session.expires.0.to_be_bytes());
        bytes.extend(token.session.id.0.to_be_bytes());
        bytes.push(match token.algorithm {
            Algorithm::Sha256 => 0,
            Algorithm::Sha512 => 1,
        });
        if let Some(credential) = token.credential {
            bytes.extend(credential.to_string().as_bytes());
        }
        bytes.extend(principal.as_bytes());
        let mac = self.mac(key, repository, &bytes)?.finalize().into_bytes();
        bytes.extend(mac);
        Some(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The content of `text`, if it was signed here for `repository` and has not expired.
    pub(crate) fn verify(&self, repository: &RepositoryName, text: &str, now: Timestamp) -> Option<UploadToken> {
        if text.len() > MAX_LEN {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (signed, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC_LEN)?)?;
        // The key's id is read before the signature is checked, because it selects the key. It is used for nothing
        // else.
        let id = u32::from_be_bytes(signed.get(1..5)?.try_into().ok()?);
        let key = self.keys.iter().find(|key| key.id == id)?;
        self.mac(key, repository, signed)?.verify_slice(mac).ok()?;
        let token = Self::decode(signed)?;
        (token.session.expires > now).then_some(token)
    }

    fn decode(signed: &[u8]) -> Option<UploadToken> {
        let (fixed, rest) = signed.split_at_checked(FIXED_LEN)?;
        let (credential, principal) = match fixed[0] {
            VERSION => (None, rest),
            VERSION_WITH_CREDENTIAL => {
                let (id, principal) = rest.split_at_checked(CredentialId::LEN)?;
                (Some(std::str::from_utf8(id).ok()?.parse().ok()?), principal)
            }
            _ => return None,
        };
        let principal = match std::str::from_utf8(principal).ok()? {
            "" => Principal::ANONYMOUS,
            // Every token has one spelling: an anonymous principal is not also spelled as its text.
            text => text
                .parse()
                .ok()
                .filter(|principal: &Principal| !principal.is_anonymous())?,
        };
        let has_account = matches!(principal.kind(), PrincipalKind::User | PrincipalKind::Robot);
        if credential.is_some() && !has_account {
            return None;
        }
        Some(UploadToken {
            session: SessionKey {
                expires: Timestamp(u64::from_be_bytes(fixed[5..13].try_into().ok()?)),
                id: SessionId(u128::from_be_bytes(fixed[13..29].try_into().ok()?)),
            },
            algorithm: match fixed[29] {
                0 => Algorithm::Sha256,
                1 => Algorithm::Sha512,
                _ => return None,
            },
            principal,
            credential,
        })
    }

    /// The MAC of a token. It also covers values that are not in the token: its purpose, the region and the repository.
    /// Length prefixes separate the parts.
    fn mac(&self, key: &SigningKey, repository: &RepositoryName, signed: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key.secret).ok()?;
        mac.update(b"roadstead upload token\0");
        for part in [self.region.as_bytes(), repository.as_str().as_bytes(), signed] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        Some(mac)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    fn key(id: u32, secret: u8) -> SigningKey {
        SigningKey {
            id,
            secret: [secret; 32],
            created: Timestamp(0),
        }
    }

    fn region(name: &str) -> RegionName {
        name.parse().unwrap()
    }

    fn keys() -> TokenKeys {
        TokenKeys::new(&region("here"), vec![key(7, 1)])
    }

    fn name(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    fn token(principal: Principal, algorithm: Algorithm) -> UploadToken {
        UploadToken {
            session: SessionKey {
                expires: Timestamp(NOW.0 + 1),
                id: SessionId(u128::MAX / 3),
            },
            algorithm,
            principal,
            credential: None,
        }
    }

    fn key_id() -> CredentialId {
        "3f9aK2dQ".parse().unwrap()
    }

    /// The same token, for a principal that a key has proved.
    fn by_key(token: UploadToken) -> UploadToken {
        UploadToken {
            credential: Some(key_id()),
            ..token
        }
    }

    /// Signs any bytes, as an owner of a key could.
    fn seal(keys: &TokenKeys, repository: &RepositoryName, signed: &[u8]) -> String {
        let mac = keys.mac(&keys.keys[0], repository, signed).unwrap();
        URL_SAFE_NO_PAD.encode([signed, mac.finalize().into_bytes().as_slice()].concat())
    }

    #[test]
    fn what_was_signed_is_verified() {
        let longest = "u".repeat(crate::auth::Credentials::MAX_USER_LEN);
        for principal in [
            Principal::ANONYMOUS,
            Principal::user("alice").unwrap(),
            Principal::user("\u{e9} \u{1f980}").unwrap(),
            Principal::user(&longest).unwrap(),
            Principal::robot("ci").unwrap(),
            Principal::workload("main", "acme/app").unwrap(),
        ] {
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                let token = token(principal.clone(), algorithm);
                let text = keys().sign(&name("a/b"), &token).unwrap();
                let safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
                assert!(text.bytes().all(safe), "stands in a path as it is");
                assert_eq!(keys().verify(&name("a/b"), &text, NOW), Some(token.clone()));
                let by_key = by_key(token);
                let text = keys().sign(&name("a/b"), &by_key).unwrap();
                let has_account = matches!(principal.kind(), PrincipalKind::User | PrincipalKind::Robot);
                let expected = has_account.then_some(by_key);
                assert_eq!(keys().verify(&name("a/b"), &text, NOW), expected, "{principal}");
            }
        }
    }

    /// A token of one version is never read as one of the other: the id of a key is no part of a name.
    #[test]
    fn a_credential_is_no_part_of_the_name() {
        let of = |user: &str, credential: Option<CredentialId>| {
            let token = UploadToken {
                credential,
                ..token(Principal::user(user).unwrap(), Algorithm::Sha256)
            };
            URL_SAFE_NO_PAD
                .decode(keys().sign(&name("a"), &token).unwrap())
                .unwrap()
        };
        let (with, without) = (of("alice", Some(key_id())), of("3f9aK2dQalice", None));
        assert_eq!(with.len(), without.len());
        assert_eq!((with[0], without[0]), (VERSION_WITH_CREDENTIAL, VERSION));
        let end = with.len() - MAC_LEN;
        assert_eq!(with[1..end], without[1..end]);
        assert_ne!(with[end..], without[end..], "the version is signed");
        for (rest, expected) in [
            ("3f9aK2dQalice", true),
            ("3f9aK2dQrobot:ci", true),
            ("3f9aK2dQworkload:main:x", false),
            ("3f9aK2dQ:anonymous", false),
            ("3f9aK2dQ", false),
            ("3f9aK2d", false),
            ("3f9aK2d-alice", false),
            ("3f9aK2d\0alice", false),
            ("\u{e9}9aK2dQalice", false),
        ] {
            let mut signed = with[..FIXED_LEN].to_vec();
            signed.extend(rest.as_bytes());
            let verified = keys().verify(&name("a"), &seal(&keys(), &name("a"), &signed), NOW);
            assert_eq!(verified.is_some(), expected, "{rest:?}");
        }
    }

    #[test]
    fn what_a_token_is_bound_to() {
        let token = by_key(token(Principal::user("alice").unwrap(), Algorithm::Sha256));
        let text = keys().sign(&name("a/b"), &token).unwrap();
        let of = |region: &str, keys: Vec<SigningKey>| TokenKeys::new(&self::region(region), keys);
        for (what, keys, repository, now) in [
            ("repository", keys(), "a/bc", NOW),
            ("expiry", keys(), "a/b", token.session.expires),
            ("region", of("there", vec![key(7, 1)]), "a/b", NOW),
            ("secret", of("here", vec![key(7, 2)]), "a/b", NOW),
            ("key", of("here", vec![key(8, 1)]), "a/b", NOW),
            // Bytes cannot move from one signed part to another.
            ("region and repository", of("herea", vec![key(7, 1)]), "b", NOW),
        ] {
            assert_eq!(keys.verify(&name(repository), &text, now), None, "{what}");
        }
    }

    /// Before regions had names, all tokens were signed with an empty region. They stay valid in the home region only.
    #[test]
    fn tokens_without_a_region_are_of_the_home_region() {
        let unnamed = TokenKeys {
            region: String::new(),
            keys: vec![key(7, 1)],
        };
        let home = TokenKeys::new(&RegionName::default(), vec![key(7, 1)]);
        let token = token(Principal::ANONYMOUS, Algorithm::Sha256);
        let before = unnamed.sign(&name("a/b"), &token).unwrap();
        assert_eq!(home.verify(&name("a/b"), &before, NOW), Some(token.clone()));
        assert_eq!(keys().verify(&name("a/b"), &before, NOW), None);
        let now = home.sign(&name("a/b"), &token).unwrap();
        assert_eq!(unnamed.verify(&name("a/b"), &now, NOW), Some(token));
    }

    /// The bytes of a token that was issued by an earlier version.
    #[test]
    fn the_format_of_tokens_does_not_change() {
        let home = TokenKeys::new(&RegionName::default(), vec![key(7, 1)]);
        for (principal, text) in [
            (
                Principal::ANONYMOUS,
                "AQAAAAcAAAAAAAAD6VVVVVVVVVVVVVVVVVVVVVUB7VprLnlG4aPYVNHO_Kr_WtqLv-iiu_4tK5z5pFn6cwk",
            ),
            (
                Principal::user("alice").unwrap(),
                "AQAAAAcAAAAAAAAD6VVVVVVVVVVVVVVVVVVVVVUBYWxpY2XY1G_hWM9oNZxeGyNYcUzf7nBj7urM8fOfTPgDMnVSuQ",
            ),
        ] {
            let token = token(principal, Algorithm::Sha512);
            assert_eq!(home.sign(&name("a/b"), &token).as_deref(), Some(text));
            assert_eq!(home.verify(&name("a/b"), text, NOW), Some(token));
        }
    }

    #[test]
    fn the_newest_key_signs_and_all_verify() {
        let token = token(Principal::ANONYMOUS, Algorithm::Sha256);
        let old = keys().sign(&name("a"), &token).unwrap();
        let both = TokenKeys::new(&region("here"), vec![key(8, 2), key(7, 1)]);
        let new = both.sign(&name("a"), &token).unwrap();
        for text in [&old, &new] {
            assert!(both.verify(&name("a"), text, NOW).is_some());
        }
        assert!(keys().verify(&name("a"), &new, NOW).is_none());
    }

    #[test]
    fn every_bit_counts() {
        let token = by_key(token(Principal::user("alice").unwrap(), Algorithm::Sha256));
        let text = keys().sign(&name("a"), &token);
        let bytes = URL_SAFE_NO_PAD.decode(text.unwrap()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let text = URL_SAFE_NO_PAD.encode(flipped);
            assert_eq!(keys().verify(&name("a"), &text, NOW), None, "bit {bit}");
        }
    }

    /// A valid signature does not make an unknown version acceptable: a later version may give it another meaning.
    #[test]
    fn unknown_versions_and_algorithms_are_refused() {
        let text = keys()
            .sign(&name("a"), &token(Principal::ANONYMOUS, Algorithm::Sha256))
            .unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
        let signed = &bytes[..FIXED_LEN];
        assert!(
            keys()
                .verify(&name("a"), &seal(&keys(), &name("a"), signed), NOW)
                .is_some()
        );
        for (offset, value) in [(0, 0), (0, 2), (0, 3), (FIXED_LEN - 1, 2), (FIXED_LEN - 1, 255)] {
            let mut changed = signed.to_vec();
            changed[offset] = value;
            assert_eq!(
                keys().verify(&name("a"), &seal(&keys(), &name("a"), &changed), NOW),
                None
            );
        }
    }

    fn principals() -> impl Strategy<Value = Principal> {
        prop_oneof![
            Just(Principal::ANONYMOUS),
            "[^:\\p{Cc}]{1,40}".prop_map(|name| Principal::user(&name).unwrap()),
            "r[a-z0-9]{0,9}([._-][a-z0-9]{1,9}){0,3}".prop_map(|name| Principal::robot(&name).unwrap()),
            "[^\\p{Cc}]{1,40}".prop_map(|name| Principal::workload("main", &name).unwrap()),
        ]
    }

    fn tokens() -> impl Strategy<Value = UploadToken> {
        let key = prop::option::of("[0-9A-Za-z]{8}");
        let parts = (principals(), key, any::<bool>(), any::<u128>(), NOW.0 + 1..=u64::MAX);
        parts.prop_map(|(principal, key, is_long, id, expires)| UploadToken {
            session: SessionKey {
                expires: Timestamp(expires),
                id: SessionId(id),
            },
            algorithm: if is_long { Algorithm::Sha512 } else { Algorithm::Sha256 },
            credential: key
                .filter(|_| matches!(principal.kind(), PrincipalKind::User | PrincipalKind::Robot))
                .map(|key| key.parse().unwrap()),
            principal,
        })
    }

    proptest! {
        /// Any token is read back as it was signed: in its repository, in its region, until it ends.
        #[test]
        fn any_token(token in tokens(), repository in "[a-z]{1,8}(/[a-z]{1,8}){0,2}") {
            let repository = name(&repository);
            let text = keys().sign(&repository, &token).unwrap();
            prop_assert!(text.len() <= MAX_LEN);
            prop_assert_eq!(keys().verify(&repository, &text, NOW), Some(token.clone()));
            let last = Timestamp(token.session.expires.0 - 1);
            prop_assert_eq!(keys().verify(&repository, &text, token.session.expires), None);
            prop_assert_eq!(keys().verify(&repository, &text, last), Some(token));
            prop_assert_eq!(keys().verify(&name("other/repository/here"), &text, NOW), None);
            let elsewhere = TokenKeys::new(&region("there"), vec![key(7, 1)]);
            prop_assert_eq!(elsewhere.verify(&repository, &text, NOW), None);
            let with_other_secret = TokenKeys::new(&region("here"), vec![key(7, 2)]);
            prop_assert_eq!(with_other_secret.verify(&repository, &text, NOW), None);
        }

        /// With another byte anywhere, or another character of its text, a token is refused.
        #[test]
        fn one_changed_byte(token in tokens(), at in any::<Index>(), change in 1..=u8::MAX, other in "[ -~]") {
            let text = keys().sign(&name("a"), &token).unwrap();
            let mut bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
            let byte = at.index(bytes.len());
            bytes[byte] ^= change;
            prop_assert_eq!(keys().verify(&name("a"), &URL_SAFE_NO_PAD.encode(bytes), NOW), None);
            let at = at.index(text.len());
            let mut changed = text.clone();
            changed.replace_range(at..=at, &other);
            prop_assert_eq!(keys().verify(&name("a"), &changed, NOW).is_some(), changed == text);
        }

        /// Text without a valid signature is refused, whatever it contains.
        #[test]
        fn any_text(text in "\\PC{0,300}") {
            prop_assert_eq!(keys().verify(&name("a"), &text, NOW), None);
        }

        #[test]
        fn any_bytes(bytes in vec(any::<u8>(), 0..200), known_key in any::<bool>()) {
            let mut bytes = bytes;
            if known_key && bytes.len() >= 5 {
                bytes[1..5].copy_from_slice(&7_u32.to_be_bytes());
            }
            let text = URL_SAFE_NO_PAD.encode(bytes);
            prop_assert_eq!(keys().verify(&name("a"), &text, NOW), None);
        }

        /// Signed bytes are decoded without a panic, and only their one spelling is accepted.
        #[test]
        fn any_signed_bytes(
            rest in vec(any::<u8>(), 0..100),
            tail in "[0-9A-Za-z]{7,9}[a-z:]{0,20}",
            has_tail in any::<bool>(),
            version in 0..4_u8,
        ) {
            let mut signed = vec![version];
            signed.extend(7_u32.to_be_bytes());
            signed.extend(rest);
            if has_tail {
                // Most of these are the id of a key and the name of a principal.
                signed.resize(FIXED_LEN - 1, 0xff);
                signed.push(0);
                signed.extend(tail.as_bytes());
            }
            let text = seal(&keys(), &name("a"), &signed);
            if let Some(token) = keys().verify(&name("a"), &text, NOW) {
                prop_assert!(token.session.expires > NOW);
                prop_assert_eq!(keys().sign(&name("a"), &token), Some(text));
            }
        }
    }
}
