//! The file of `--token-key-file`: keys that sign tokens, for operators who keep them outside the table.
//!
//! Each line has the 32-byte seed of a key in base64url. The first key signs. Empty lines, and lines that begin with `#`, are
//! left out. `head -c 32 /dev/urandom | basenc --base64url` makes a line.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};

use crate::signing_key::TokenSigner;

/// With padding or without: tools differ.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The maximum number of keys: two suffice for a rotation, and each is published.
pub const MAX_KEYS: usize = 10;

/// The text is not a list of keys. Lines are counted from 1, and none of their text is repeated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is no key.
    #[error("it has no key; expected a line with 32 bytes in base64url")]
    Empty,
    /// A line is not base64url.
    #[error("line {line} is not base64url")]
    NotBase64Url {
        /// The line.
        line: usize,
    },
    /// A seed has another length.
    #[error("line {line} has {bytes} bytes in base64url; a seed has 32")]
    WrongLength {
        /// The line.
        line: usize,
        /// The number of bytes.
        bytes: usize,
    },
    /// All bytes of a seed are the same: the file has a placeholder.
    #[error("line {line} has the same byte 32 times; a seed is random")]
    NotRandom {
        /// The line.
        line: usize,
    },
    /// Two lines have the same key.
    #[error("line {line} has the key of line {first} again")]
    Repeated {
        /// The later line.
        line: usize,
        /// The earlier line.
        first: usize,
    },
    /// There are more than [`MAX_KEYS`].
    #[error("line {line} is the {}th key; at most {MAX_KEYS} are read", MAX_KEYS + 1)]
    TooMany {
        /// The line of the first key that is too much.
        line: usize,
    },
}

/// Reads the keys, in the order of the file: the first one signs, and all of them verify.
pub fn read(text: &str) -> Result<Vec<TokenSigner>, KeyFileError> {
    let mut keys: Vec<(usize, TokenSigner)> = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let (line, text) = (index + 1, text.trim());
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        if keys.len() == MAX_KEYS {
            return Err(KeyFileError::TooMany { line });
        }
        let bytes = BASE64URL
            .decode(text)
            .map_err(|_| KeyFileError::NotBase64Url { line })?;
        let seed: [u8; 32] = bytes.as_slice().try_into().map_err(|_| KeyFileError::WrongLength {
            line,
            bytes: bytes.len(),
        })?;
        if seed == [seed[0]; 32] {
            return Err(KeyFileError::NotRandom { line });
        }
        let key = TokenSigner::from_seed(&seed);
        if let Some((first, _)) = keys.iter().find(|(_, other)| other.kid() == key.kid()) {
            return Err(KeyFileError::Repeated { line, first: *first });
        }
        keys.push((line, key));
    }
    if keys.is_empty() {
        return Err(KeyFileError::Empty);
    }
    Ok(keys.into_iter().map(|(_, key)| key).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8037, appendix A.1, and the first test of RFC 8032, 7.1, after it.
    const FIRST: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
    const SECOND: &str = "TM0Imyj_ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U-4pvs";

    #[test]
    fn files_and_what_is_read() {
        let eleven: Vec<String> = (0..11_u8)
            .map(|number| {
                let mut seed = [number; 32];
                seed[0] = 99;
                BASE64URL.encode(seed)
            })
            .collect();
        for (text, expected) in [
            (FIRST.to_owned(), Ok(1)),
            (format!("{FIRST}="), Ok(1)),
            (format!("# from November\r\n{FIRST}\r\n\r\n  {SECOND}  \r\n"), Ok(2)),
            (
                eleven[..10].join(
                    "
",
                ),
                Ok(10),
            ),
            (eleven.join("\n"), Err(KeyFileError::TooMany { line: 11 })),
            (String::new(), Err(KeyFileError::Empty)),
            ("# nothing\n\n".to_owned(), Err(KeyFileError::Empty)),
            (format!("{FIRST}\nsecret!"), Err(KeyFileError::NotBase64Url { line: 2 })),
            (FIRST.replace('_', "/"), Err(KeyFileError::NotBase64Url { line: 1 })),
            (format!("{FIRST} {SECOND}"), Err(KeyFileError::NotBase64Url { line: 1 })),
            (
                format!("\n{}", &FIRST[..40]),
                Err(KeyFileError::WrongLength { line: 2, bytes: 30 }),
            ),
            (
                FIRST.repeat(2)[..64].to_owned(),
                Err(KeyFileError::WrongLength { line: 1, bytes: 48 }),
            ),
            (
                format!("{FIRST}\n{SECOND}\n{FIRST}="),
                Err(KeyFileError::Repeated { line: 3, first: 1 }),
            ),
            ("A".repeat(43), Err(KeyFileError::NotRandom { line: 1 })),
        ] {
            assert_eq!(read(&text).map(|keys| keys.len()), expected, "{text:?}");
        }
    }

    #[test]
    fn the_first_key_is_the_newest() {
        let text = format!("{SECOND}\n{FIRST}");
        let kids = read(&text).map(|keys| keys.iter().map(|key| key.kid().to_string()).collect::<Vec<_>>());
        assert_eq!(kids.as_deref().map(|kids| kids[1].as_str()), Ok("kPrK_qmxVWaYVA9w"));
    }

    #[test]
    fn s18_errors_repeat_nothing_of_the_file() {
        for text in [format!("{FIRST}\n{FIRST}"), format!("{FIRST}!"), FIRST[..40].to_owned()] {
            let error = read(&text).map(|_| ()).map_err(|error| format!("{error} {error:?}"));
            assert!(matches!(&error, Err(text) if !text.contains(&FIRST[..4])), "{error:?}");
        }
    }
}
