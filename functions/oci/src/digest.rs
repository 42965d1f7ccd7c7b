//! Content identifiers (image specification, *Digests*) and the hasher that computes them.
//!
//! A digest exists as a value only if this registry can verify its algorithm. Bytes become visible under a digest only
//! after they hashed to it, so a digest that cannot be computed has no use here.

use std::fmt;
use std::str::FromStr;

use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest as _, Sha256, Sha512};
use thiserror::Error;

use crate::hex;
use crate::text::serde_as_text;

/// Hexadecimal digits of the longest hash.
const MAXIMUM_HEX_LENGTH: usize = Algorithm::Sha512.hex_len();

/// A hash algorithm whose digests this registry computes and verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, the canonical algorithm and the default.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The registered identifier, as written before the colon of a digest and in `?digest-algorithm=`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The length of the encoded part of a digest, in hexadecimal digits.
    #[must_use]
    pub const fn hex_len(self) -> usize {
        self.hash_len() * 2
    }

    /// The length of the hash, in bytes.
    #[must_use]
    pub const fn hash_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            _ => Err(UnknownAlgorithm),
        }
    }
}

serde_as_text!(Algorithm, "the name of a digest algorithm");

/// The text is not the identifier of an algorithm that this registry computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("unsupported digest algorithm: use sha256 or sha512")]
pub struct UnknownAlgorithm;

/// Why a text is not a [`Digest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DigestError {
    /// The text does not follow the grammar, or not the form that its algorithm prescribes: lower-case hexadecimal
    /// digits of exactly the hash's length.
    #[error("malformed digest: expected <algorithm>:<lower-case hexadecimal hash of full length>")]
    Malformed,
    /// The text follows the grammar, but this registry does not compute its algorithm.
    #[error("unsupported digest algorithm: use sha256 or sha512")]
    UnsupportedAlgorithm,
}

/// The digest of some content: an algorithm and the hash.
///
/// It holds the raw bytes inline, so copying it allocates nothing. Its text is `sha256:` or `sha512:` followed by
/// lower-case hexadecimal digits. Digests sort as their texts do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    // Zero beyond the algorithm's length, so that the derived comparisons compare only the hash.
    hash: [u8; 64],
}

impl Digest {
    /// The algorithm that computed the digest.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash as lower-case hexadecimal digits, without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::write(self.as_bytes(), &mut [0; MAXIMUM_HEX_LENGTH]).to_owned()
    }

    /// The raw hash: 32 bytes for sha256, 64 for sha512.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.hash[..self.algorithm.hash_len()]
    }

    /// A digest from a hash that was computed elsewhere; `None` if the length is not the algorithm's.
    #[must_use]
    pub fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Option<Self> {
        if hash.len() != algorithm.hash_len() {
            return None;
        }
        let mut whole = [0; 64];
        whole[..hash.len()].copy_from_slice(hash);
        Some(Self { algorithm, hash: whole })
    }

    /// Computes the digest of `bytes`.
    #[must_use]
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm.as_str())?;
        f.write_str(":")?;
        f.write_str(hex::write(self.as_bytes(), &mut [0; MAXIMUM_HEX_LENGTH]))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, encoded) = text.split_once(':').ok_or(DigestError::Malformed)?;
        if !is_algorithm(algorithm) || !is_encoded(encoded) {
            return Err(DigestError::Malformed);
        }
        let algorithm: Algorithm = algorithm
            .parse()
            .map_err(|UnknownAlgorithm| DigestError::UnsupportedAlgorithm)?;
        let encoded = encoded.as_bytes();
        if encoded.len() != algorithm.hex_len() {
            return Err(DigestError::Malformed);
        }
        let mut hash = [0; 64];
        for (byte, pair) in hash.iter_mut().zip(encoded.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self { algorithm, hash })
    }
}

impl TryFrom<&str> for Digest {
    type Error = DigestError;

    fn try_from(text: &str) -> Result<Self, DigestError> {
        text.parse()
    }
}

serde_as_text!(Digest, "a digest");

/// `algorithm ::= component ([+._-] component)*` with `component ::= [a-z0-9]+`.
fn is_algorithm(text: &str) -> bool {
    text.split(['+', '.', '_', '-']).all(|component| {
        !component.is_empty()
            && component
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    })
}

/// `encoded ::= [a-zA-Z0-9=_-]+`.
fn is_encoded(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'=' | b'_' | b'-'))
}

fn nibble(digit: u8) -> Result<u8, DigestError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(DigestError::Malformed),
    }
}

/// Hashes content as it streams. Its state can be saved and restored between two requests of one upload.
#[derive(Clone, Debug)]
pub struct Hasher(HashState);

#[derive(Clone, Debug)]
enum HashState {
    Sha256(Sha256),
    Sha512(Sha512),
}

// The first byte of a saved state. The hash library defines the layout of the rest: if an upgrade of the library
// changes that layout, this number must change too. A test compares the layout with a state that was saved earlier.
const SAVED_FORMAT: u8 = 1;
const CHECKSUM_LENGTH: usize = 8;

impl Hasher {
    /// A hasher that has hashed no bytes yet.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => HashState::Sha256(Sha256::new()),
            Algorithm::Sha512 => HashState::Sha512(Sha512::new()),
        })
    }

    /// The algorithm of the digest that [`Hasher::finish`] returns.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self.0 {
            HashState::Sha256(_) => Algorithm::Sha256,
            HashState::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Hashes the next bytes of the content.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            HashState::Sha256(hash) => hash.update(bytes),
            HashState::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of all bytes hashed so far.
    #[must_use]
    pub fn finish(self) -> Digest {
        let mut hash = [0; 64];
        let algorithm = self.algorithm();
        let used = &mut hash[..algorithm.hash_len()];
        match self.0 {
            HashState::Sha256(state) => used.copy_from_slice(&state.finalize()),
            HashState::Sha512(state) => used.copy_from_slice(&state.finalize()),
        }
        Digest { algorithm, hash }
    }

    /// The state as bytes, for [`Hasher::restore`]: 114 bytes for sha256, 218 for sha512.
    ///
    /// The layout is: a format version, the algorithm, the library's state, and a checksum of everything before it. The
    /// state contains up to 127 bytes of the content itself.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let mut saved = vec![SAVED_FORMAT];
        match &self.0 {
            HashState::Sha256(state) => {
                saved.push(1);
                saved.extend_from_slice(&state.serialize());
            }
            HashState::Sha512(state) => {
                saved.push(2);
                saved.extend_from_slice(&state.serialize());
            }
        }
        let check = checksum(&saved);
        saved.extend_from_slice(&check);
        saved
    }

    /// Restores the hasher from the bytes that [`Hasher::save`] returned.
    ///
    /// Returns `None` for another format version, another algorithm or damaged bytes. The upload must then start again:
    /// continuing would only result in a wrong digest at its end.
    #[must_use]
    pub fn restore(saved: &[u8]) -> Option<Self> {
        let (state, check) = saved.split_at_checked(saved.len().checked_sub(CHECKSUM_LENGTH)?)?;
        if checksum(state) != check {
            return None;
        }
        let (&[SAVED_FORMAT, algorithm], state) = state.split_first_chunk()? else {
            return None;
        };
        match algorithm {
            1 => {
                let state: &SerializedState<Sha256> = state.try_into().ok()?;
                Some(Self(HashState::Sha256(Sha256::deserialize(state).ok()?)))
            }
            2 => {
                let state: &SerializedState<Sha512> = state.try_into().ok()?;
                Some(Self(HashState::Sha512(Sha512::deserialize(state).ok()?)))
            }
            _ => None,
        }
    }
}

// The checksum does not protect against forgery, since only the registry writes sessions. It protects against a damaged
// row, which could become a hasher whose counters overflow.
fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LENGTH] {
    let mut check = [0; CHECKSUM_LENGTH];
    check.copy_from_slice(&Sha256::digest(bytes)[..CHECKSUM_LENGTH]);
    check
}
