//! The framing of tokens: JSON web signatures in their compact form (RFC 7515), with a closed header.
//!
//! The header of every token of the registry is `{"alg":"EdDSA","kid":"…","typ":"JWT"}`, byte for byte. So a token never
//! chooses its algorithm, never brings a key or the address of a key, and no member has to be understood (RFC 8725, 3.1). The
//! id of the key selects one of the registry's own keys and is used for nothing else before the signature is verified.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use registry::store::access::KeyId;

use crate::signing_key::{SIGNATURE_LEN, TokenSigner, VerifyingKey};

/// The maximum length of a token, in bytes. Longer ones are refused unread, and none are made.
pub const MAX_LEN: usize = 4096;

/// Why a text is not a token of the registry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JwsError {
    /// It is longer than [`MAX_LEN`].
    #[error("the token is longer than {MAX_LEN} bytes")]
    TooLong,
    /// It does not have three parts, or they are not base64url without padding in its one form.
    #[error("not three parts of base64url")]
    Malformed,
    /// The header is another one than that of the registry's own tokens.
    #[error("the header is not that of a token of this registry")]
    Header,
    /// The signature is not that of the key.
    #[error("the signature is wrong")]
    Signature,
}

/// A token whose signature was not verified yet. Its content cannot be read.
#[derive(Debug)]
pub struct Unverified<'a> {
    kid: KeyId,
    /// The first two parts: what is signed.
    signed: &'a str,
    payload: Vec<u8>,
    signature: [u8; SIGNATURE_LEN],
}

const BEFORE_KID: &str = r#"{"alg":"EdDSA","kid":""#;
const AFTER_KID: &str = r#"","typ":"JWT"}"#;

/// The token with this payload.
#[must_use]
pub fn sign(key: &TokenSigner, payload: &[u8]) -> String {
    let header = format!("{BEFORE_KID}{}{AFTER_KID}", key.kid());
    let mut token = URL_SAFE_NO_PAD.encode(header);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut token);
    let signature = key.sign(token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    token
}

/// The length of a token with a payload of so many bytes.
#[must_use]
pub const fn len(payload: usize) -> usize {
    /// Without padding each byte takes four thirds of a character.
    const fn encoded(bytes: usize) -> usize {
        (bytes * 4).div_ceil(3)
    }
    let header = BEFORE_KID.len() + KeyId::LEN + AFTER_KID.len();
    encoded(header) + 1 + encoded(payload) + 1 + encoded(SIGNATURE_LEN)
}

/// Reads the frame of a token, and nothing of its content.
pub fn parse(token: &str) -> Result<Unverified<'_>, JwsError> {
    if token.len() > MAX_LEN {
        return Err(JwsError::TooLong);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(JwsError::Malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(JwsError::Malformed)?;
    // A dot is no character of base64url, so a fourth part is refused here.
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| JwsError::Malformed);
    let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
    Ok(Unverified {
        kid: kid(&header).ok_or(JwsError::Header)?,
        signed,
        payload,
        signature: signature.try_into().map_err(|_| JwsError::Malformed)?,
    })
}

/// The id of the key in a header.
fn kid(header: &[u8]) -> Option<KeyId> {
    let header = std::str::from_utf8(header).ok()?;
    header.strip_prefix(BEFORE_KID)?.strip_suffix(AFTER_KID)?.parse().ok()
}

impl Unverified<'_> {
    /// The id of the key that is to verify it.
    #[must_use]
    pub fn kid(&self) -> KeyId {
        self.kid
    }

    /// The payload, if the token was signed by the key. The key fixes the algorithm.
    pub fn verify(self, key: &VerifyingKey) -> Result<Vec<u8>, JwsError> {
        if key.verifies(self.signed.as_bytes(), &self.signature) {
            Ok(self.payload)
        } else {
            Err(JwsError::Signature)
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn signer() -> TokenSigner {
        TokenSigner::from_seed(&[7; 32])
    }

    fn verify(token: &str) -> Result<Vec<u8>, JwsError> {
        parse(token)?.verify(&VerifyingKey::new(signer().public_bytes()).unwrap())
    }

    #[test]
    fn the_longest_token() {
        let longest = (0..MAX_LEN).rfind(|payload| len(*payload) <= MAX_LEN).unwrap();
        let token = sign(&signer(), &vec![b'x'; longest]);
        assert!(token.len() <= MAX_LEN && verify(&token).is_ok());
        let longer = sign(&signer(), &vec![b'x'; longest + 1]);
        assert!(longer.len() > MAX_LEN);
        assert_eq!(verify(&longer), Err(JwsError::TooLong));
    }

    /// Each of these decodes to the same bytes for a decoder that is not strict.
    #[test]
    fn s05_base64url_has_one_form() {
        let token = sign(&signer(), b"{}");
        let parts: Vec<&str> = token.split('.').collect();
        assert_eq!(parts[1], "e30");
        for changed in [
            token.replace(".e30.", ".e30=."),
            token.replace(".e30.", ".e31."),
            token.replace(".e30.", ".e3 0."),
            token.replace(".e30.", ".e30\n."),
            token.replace(".e30.", "..e30."),
            format!("{token}="),
            format!("{token}=="),
            format!(" {token}"),
            format!("{token}\n"),
            format!("{token}."),
            format!(".{token}"),
        ] {
            assert_eq!(verify(&changed), Err(JwsError::Malformed), "{changed:?}");
        }
        // The 64 bytes of a signature leave four bits of the last character unused.
        let (before, last) = token.split_at(token.len() - 1);
        for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars() {
            assert_eq!(verify(&format!("{before}{other}")).is_ok(), last == other.to_string());
        }
    }

    proptest! {
        #[test]
        fn what_was_signed_is_verified(payload in vec(any::<u8>(), 0..1000)) {
            let token = sign(&signer(), &payload);
            prop_assert_eq!(token.len(), len(payload.len()));
            prop_assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
            prop_assert_eq!(verify(&token), Ok(payload));
        }

        #[test]
        fn any_text(text in "[A-Za-z0-9_.-]{0,300}|\\PC{0,100}") {
            prop_assert!(verify(&text).is_err());
        }
    }
}
