//! Upload tokens: the signed authority in an upload's `Location`.
//!
//! Some clients send no credentials to that URL, so the token itself says who may do what there, and until when. It is
//! bound to repository, session, region, key and principal, and is authenticated before anything in it is decoded.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use oci::{Algorithm, RepositoryName};
use sha2::Sha256;

use crate::auth::Principal;
use crate::store::Timestamp;
use crate::store::sessions::{SessionId, SessionKey, SigningKey};

const VERSION: u8 = 1;
const MAC_LEN: usize = 32;
/// Version, key id, expiry, session, algorithm.
const FIXED_LEN: usize = 1 + 4 + 8 + 16 + 1;
/// The longest token that is looked at, in characters: a principal's name has an upper bound too.
const MAX_LEN: usize = 6144;

/// What an upload token says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct UploadToken {
    /// The session's row.
    pub(crate) session: SessionKey,
    /// How its bytes are hashed as they arrive.
    pub(crate) algorithm: Algorithm,
    /// Who opened it.
    pub(crate) principal: Principal,
}

/// Signs and verifies upload tokens of one region.
pub(crate) struct TokenKeys {
    region: String,
    /// Newest first; never empty.
    keys: Vec<SigningKey>,
}

impl TokenKeys {
    pub(crate) fn new(region: String, keys: Vec<SigningKey>) -> Self {
        Self { region, keys }
    }

    /// The token as it stands in a path: url-safe characters only.
    pub(crate) fn sign(&self, repository: &RepositoryName, token: &UploadToken) -> Option<String> {
        let key = self.keys.first()?;
        let principal = match &token.principal {
            Principal::Anonymous => "",
            Principal::User(name) => name,
        };
        let mut bytes = Vec::with_capacity(FIXED_LEN + principal.len() + MAC_LEN);
        bytes.push(VERSION);
        bytes.extend(key.id.to_be_bytes());
        bytes.extend(token.session.expires.0.to_be_bytes());
        bytes.extend(token.session.id.0.to_be_bytes());
        bytes.push(match token.algorithm {
            Algorithm::Sha256 => 0,
            Algorithm::Sha512 => 1,
        });
        bytes.extend(principal.as_bytes());
        let mac = self.mac(key, repository, &bytes)?.finalize().into_bytes();
        bytes.extend(mac);
        Some(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// What `text` says, if it was signed here for `repository` and has not expired.
    pub(crate) fn verify(&self, repository: &RepositoryName, text: &str, now: Timestamp) -> Option<UploadToken> {
        if text.len() > MAX_LEN {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (signed, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC_LEN)?)?;
        // The key's id is read before the signature is checked, because it names the key; it selects, and nothing else.
        let id = u32::from_be_bytes(signed.get(1..5)?.try_into().ok()?);
        let key = self.keys.iter().find(|key| key.id == id)?;
        self.mac(key, repository, signed)?.verify_slice(mac).ok()?;
        let token = Self::decode(signed)?;
        (token.session.expires > now).then_some(token)
    }

    fn decode(signed: &[u8]) -> Option<UploadToken> {
        let (fixed, principal) = signed.split_at_checked(FIXED_LEN)?;
        if fixed[0] != VERSION {
            return None;
        }
        let principal = std::str::from_utf8(principal).ok()?;
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
            principal: match principal {
                "" => Principal::Anonymous,
                name => Principal::User(name.to_owned()),
            },
        })
    }

    /// What is not in the token but bound by it: its purpose, the region, the repository. Lengths keep the parts apart.
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
