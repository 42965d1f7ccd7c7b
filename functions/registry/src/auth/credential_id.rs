//! The id of a credential.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The id of the key that proved an identity, for the log and the audit trail: 8 characters of base62. It is not secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CredentialId(
    // The characters. None of them is 0, so `Option<CredentialId>` needs no more space than an id.
    NonZeroU64,
);

/// The text is not the id of a credential.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not the id of a key: expected {} letters and digits", CredentialId::LEN)]
pub struct CredentialIdError;

impl CredentialId {
    /// The length of an id, in bytes.
    pub const LEN: usize = 8;
}

impl FromStr for CredentialId {
    type Err = CredentialIdError;

    fn from_str(text: &str) -> Result<Self, CredentialIdError> {
        let bytes: [u8; Self::LEN] = text.as_bytes().try_into().map_err(|_| CredentialIdError)?;
        if !bytes.iter().all(u8::is_ascii_alphanumeric) {
            return Err(CredentialIdError);
        }
        NonZeroU64::new(u64::from_be_bytes(bytes))
            .map(Self)
            .ok_or(CredentialIdError)
    }
}

impl TryFrom<String> for CredentialId {
    type Error = CredentialIdError;

    fn try_from(text: String) -> Result<Self, CredentialIdError> {
        text.parse()
    }
}

impl From<CredentialId> for String {
    fn from(id: CredentialId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.get().to_be_bytes();
        bytes.iter().try_for_each(|byte| write!(f, "{}", char::from(*byte)))
    }
}

impl fmt::Debug for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CredentialId({self})")
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back() {
        let id: CredentialId = "3f9aK2dQ".parse().unwrap();
        assert_eq!((id.to_string().as_str(), id.to_string().parse()), ("3f9aK2dQ", Ok(id)));
        for wrong in ["", "3f9aK2d", "3f9aK2dQx", "3f9aK2d-", "3f9aK2\u{e9}"] {
            assert_eq!(wrong.parse::<CredentialId>(), Err(CredentialIdError), "{wrong:?}");
        }
    }
}
