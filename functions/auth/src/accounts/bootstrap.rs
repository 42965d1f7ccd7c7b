//! The secret by which the first administrator is made where no command reaches the stores.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The secret of the user `bootstrap`. Only its hash is kept, and it is never stored.
#[derive(Clone, PartialEq, Eq)]
pub struct BootstrapSecret([u8; 32]);

/// The text is too short for a secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the bootstrap secret has fewer than {} bytes", BootstrapSecret::MIN_LEN)]
pub struct BootstrapSecretError;

impl BootstrapSecret {
    /// The minimum length, in bytes.
    pub const MIN_LEN: usize = 32;

    /// The user name that a client sends with the secret.
    pub const USER: &'static str = "bootstrap";

    /// Reads a secret. White space around it is ignored, because a file ends with a line end.
    pub fn new(text: &str) -> Result<Self, BootstrapSecretError> {
        let text = text.trim();
        if text.len() < Self::MIN_LEN {
            return Err(BootstrapSecretError);
        }
        Ok(Self(hash(text)))
    }

    /// Whether a client has sent the secret; compares in constant time.
    #[must_use]
    pub fn is(&self, sent: &str) -> bool {
        self.0.ct_eq(&hash(sent)).into()
    }
}

impl fmt::Debug for BootstrapSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BootstrapSecret(..)")
    }
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_long_and_not_printed() {
        let text = "0123456789abcdef0123456789abcdef";
        let secret = BootstrapSecret::new(&format!(" {text}\r\n")).unwrap();
        assert!(secret.is(text) && !secret.is(&text[1..]) && !secret.is(""));
        assert_eq!(format!("{secret:?}"), "BootstrapSecret(..)");
        assert_eq!(BootstrapSecret::new(&text[1..]), Err(BootstrapSecretError));
        assert_eq!(
            BootstrapSecret::new(&format!("{}\n", &text[1..])),
            Err(BootstrapSecretError)
        );
    }
}
