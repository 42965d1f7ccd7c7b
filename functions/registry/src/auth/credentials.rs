//! What the `Authorization` header says.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::AUTHORIZATION;

/// What the `Authorization` header says.
#[derive(Clone)]
pub enum Credentials {
    /// There is none.
    Absent,
    /// RFC 7617.
    Basic {
        /// The user's name: not empty, without a colon or control characters.
        user: String,
        /// The password; may be empty, may hold colons.
        password: String,
    },
    /// RFC 6750, 2.1.
    Bearer {
        /// The token; its characters are those of a `b64token`.
        token: String,
    },
    /// There is one that cannot be read, or of another scheme.
    Unreadable,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A password or a token must not reach a log through a derived Debug.
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::Basic { .. } => "Basic",
            Self::Bearer { .. } => "Bearer",
            Self::Unreadable => "Unreadable",
        })
    }
}

impl Credentials {
    /// The longest user name and password, in bytes, that are looked at.
    pub const MAX_LEN: usize = 4096;

    /// The longest token, in bytes, that is looked at: ID tokens of some issuers have several kilobytes.
    pub const MAX_TOKEN_LEN: usize = 8192;

    /// Reads the `Authorization` header. Two of them are as good as an unreadable one: which of them was meant cannot
    /// be known.
    #[must_use]
    pub fn from_headers(headers: &http::HeaderMap) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) => Self::read(value).unwrap_or(Self::Unreadable),
            (Some(_), Some(_)) => Self::Unreadable,
        }
    }

    fn read(value: &HeaderValue) -> Option<Self> {
        let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("basic") {
            Self::basic(rest)
        } else if scheme.eq_ignore_ascii_case("bearer") {
            Self::bearer(rest.trim())
        } else {
            None
        }
    }

    fn bearer(token: &str) -> Option<Self> {
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        let unpadded = token.trim_end_matches('=');
        if unpadded.is_empty() || token.len() > Self::MAX_TOKEN_LEN || !unpadded.bytes().all(is_legal) {
            return None;
        }
        Some(Self::Bearer {
            token: token.to_owned(),
        })
    }

    fn basic(encoded: &str) -> Option<Self> {
        if encoded.len() > Self::MAX_LEN {
            return None;
        }
        let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        if user.is_empty() && password.is_empty() {
            // What clients send that were told to authenticate and have nothing to do it with.
            return Some(Self::Absent);
        }
        if user.is_empty() || user.chars().any(char::is_control) {
            return None;
        }
        Some(Self::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::auth::Principal;

    fn read(lines: &[&str]) -> Option<(String, String)> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        match Credentials::from_headers(&headers) {
            Credentials::Basic { user, password } => Some((user, password)),
            Credentials::Bearer { .. } | Credentials::Unreadable => None,
            Credentials::Absent => panic!("{lines:?} is not nothing"),
        }
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[test]
    fn credentials() {
        assert!(matches!(
            Credentials::from_headers(&HeaderMap::new()),
            Credentials::Absent
        ));
        let empty = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(&basic(":")).unwrap())]);
        assert!(matches!(Credentials::from_headers(&empty), Credentials::Absent));
        for (text, user, password) in [
            ("alice:secret", "alice", "secret"),
            ("alice:", "alice", ""),
            ("alice:a:b", "alice", "a:b"),
            ("\u{e9}:\u{1f980}", "\u{e9}", "\u{1f980}"),
            ("a b:\n", "a b", "\n"),
        ] {
            let expected = Some((user.to_owned(), password.to_owned()));
            assert_eq!(read(&[&basic(text)]), expected);
            assert_eq!(
                read(&[&basic(text).replace("Basic ", "BASIC  ")]),
                expected,
                "RFC 9110, 11.1"
            );
        }
        for line in [
            "",
            "Basic",
            "Basic ",
            "Basic !",
            "Bearer YTpi",
            "YTpi",
            "Basic YTpi YTpi",
            &basic("no colon"),
            &basic(":no user"),
            &basic("line\nbreak:x"),
            &basic("\u{85}:x"),
            &format!("Basic {}", STANDARD.encode(b"\xff:x")),
            "\u{e9}",
        ] {
            assert_eq!(read(&[line]), None, "{line:?}");
        }
    }

    /// Which of two was meant cannot be known.
    #[test]
    fn two_lines_are_unreadable() {
        assert_eq!(read(&[&basic("a:b"), &basic("a:b")]), None);
    }

    #[test]
    fn a_bearer_token_is_read_as_it_is() {
        let token = |line: &str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(line).unwrap())]);
            match Credentials::from_headers(&headers) {
                Credentials::Bearer { token } => Some(token),
                Credentials::Absent | Credentials::Basic { .. } | Credentials::Unreadable => None,
            }
        };
        for (line, expected) in [
            ("Bearer YTpi", Some("YTpi")),
            ("bearer  a.b-c_d~e+f/1== ", Some("a.b-c_d~e+f/1==")),
            ("Bearer ", None),
            ("Bearer ==", None),
            ("Bearer a=b", None),
            ("Bearer a b", None),
            ("Bearer a,b", None),
            ("Bearers a", None),
        ] {
            assert_eq!(token(line).as_deref(), expected, "{line}");
        }
        let longest = "x".repeat(Credentials::MAX_TOKEN_LEN);
        assert_eq!(token(&format!("Bearer {longest}")), Some(longest.clone()));
        assert_eq!(token(&format!("Bearer {longest}x")), None);
        let credentials = Credentials::Bearer { token: longest };
        assert_eq!(format!("{credentials:?}"), "Bearer", "a token is not printed");
    }

    #[test]
    fn the_length_of_credentials_is_bounded() {
        let longest = "x".repeat(Credentials::MAX_LEN / 4 * 3 - 2);
        assert!(read(&[&basic(&format!("a:{longest}"))]).is_some());
        assert!(read(&[&basic(&format!("a:{longest}x"))]).is_none());
    }

    /// No user's name can be taken for nobody's.
    #[test]
    fn nobody_has_a_name_that_no_user_has() {
        assert_eq!(read(&[&basic(&format!("{}:x", Principal::ANONYMOUS))]), None);
    }
}
