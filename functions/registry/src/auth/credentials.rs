//! Parses the `Authorization` header.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::AUTHORIZATION;

/// The content of the `Authorization` header.
#[derive(Clone)]
pub enum Credentials {
    /// The request has no such header.
    Absent,
    /// RFC 7617.
    Basic {
        /// The user's name: not empty, without colons or control characters.
        user: String,
        /// The password. It may be empty, and may contain colons.
        password: String,
    },
    /// RFC 6750, 2.1.
    Bearer {
        /// The token; it has only characters of a `b64token`.
        token: String,
    },
    /// The header is invalid, or has another scheme.
    Unreadable,
}

/// Whether a `b64token` may contain a byte, before its padding. A table, because every request with a token looks up each of
/// its bytes here.
const IN_TOKENS: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    // A constant expression cannot use `for`.
    while byte < u8::MAX {
        table[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/');
        byte += 1;
    }
    table
};

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A derived Debug could write a password or a token to a log.
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::Basic { .. } => "Basic",
            Self::Bearer { .. } => "Bearer",
            Self::Unreadable => "Unreadable",
        })
    }
}

impl Credentials {
    /// The maximum length of the header's value, with its scheme, in bytes. A longer one is unreadable. ID tokens of some
    /// issuers have several kilobytes, and clients also send them as passwords, in Base64.
    pub const MAX_LEN: usize = 12 << 10;

    /// The maximum length of a user's name, in bytes. A longer one is unreadable. Upload tokens contain the name.
    pub const MAX_USER_LEN: usize = 4096;

    /// Reads the `Authorization` header. Two such headers are unreadable, because it is unknown which of them the
    /// client means.
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
        if value.len() > Self::MAX_LEN {
            return None;
        }
        let text = value.as_bytes();
        let space = text.iter().position(|byte| *byte == b' ')?;
        let (scheme, rest) = (text.get(..space)?, text.get(space..)?.trim_ascii());
        if scheme.eq_ignore_ascii_case(b"basic") {
            Self::basic(rest)
        } else if scheme.eq_ignore_ascii_case(b"bearer") {
            Self::bearer(rest)
        } else {
            None
        }
    }

    fn bearer(token: &[u8]) -> Option<Self> {
        let padding = token.iter().rev().take_while(|byte| **byte == b'=').count();
        let unpadded = token.get(..token.len() - padding)?;
        if unpadded.is_empty() || !unpadded.iter().all(|byte| IN_TOKENS[usize::from(*byte)]) {
            return None;
        }
        Some(Self::Bearer {
            token: String::from_utf8(token.to_vec()).ok()?,
        })
    }

    fn basic(encoded: &[u8]) -> Option<Self> {
        let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        if user.is_empty() && password.is_empty() {
            // Some clients send this when they are asked for credentials and have none.
            return Some(Self::Absent);
        }
        if user.is_empty() || user.len() > Self::MAX_USER_LEN || user.chars().any(char::is_control) {
            return None;
        }
        Some(Self::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use http::HeaderMap;
    use proptest::prelude::*;
    use proptest::sample::Index;

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

    /// The same for a line that may also say that there are no credentials.
    fn read_any(line: &str) -> Option<(String, String)> {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(line).unwrap())]);
        match Credentials::from_headers(&headers) {
            Credentials::Basic { user, password } => Some((user, password)),
            Credentials::Absent | Credentials::Bearer { .. } | Credentials::Unreadable => None,
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

    /// It is unknown which of the two the client means.
    #[test]
    fn two_lines_are_unreadable() {
        assert_eq!(read(&[&basic("a:b"), &basic("a:b")]), None);
    }

    #[test]
    fn a_bearer_token_is_read_as_it_is() {
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
        let longest = "x".repeat(Credentials::MAX_LEN - "Bearer ".len());
        assert_eq!(token(&format!("Bearer {longest}")), Some(longest.clone()));
        assert_eq!(token(&format!("Bearer {longest}x")), None);
        let credentials = Credentials::Bearer { token: longest };
        assert_eq!(format!("{credentials:?}"), "Bearer", "a token is not printed");
    }

    #[test]
    fn the_length_of_credentials_is_bounded() {
        assert_eq!(Credentials::MAX_LEN, 12_288);
        // Four characters for each three bytes.
        let longest = "x".repeat((Credentials::MAX_LEN - "Basic ".len()) / 4 * 3 - "a:".len());
        let line = basic(&format!("a:{longest}"));
        assert!(Credentials::MAX_LEN - line.len() < 4);
        assert!(read(&[&line]).is_some());
        assert!(read(&[&basic(&format!("a:{longest}x"))]).is_none());
        let padded = |length: usize| format!("{line}{}", " ".repeat(length - line.len()));
        assert!(read(&[&padded(Credentials::MAX_LEN)]).is_some());
        assert!(read(&[&padded(Credentials::MAX_LEN + 1)]).is_none());
        let longest = "u".repeat(Credentials::MAX_USER_LEN);
        assert!(read(&[&basic(&format!("{longest}:x"))]).is_some());
        assert!(read(&[&basic(&format!("{longest}u:x"))]).is_none());
    }

    fn token(line: &str) -> Option<String> {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_bytes(line.as_bytes()).unwrap())]);
        match Credentials::from_headers(&headers) {
            Credentials::Bearer { token } => Some(token),
            Credentials::Absent | Credentials::Basic { .. } | Credentials::Unreadable => None,
        }
    }

    proptest! {
        /// What a client encodes is what is read, once.
        #[test]
        fn any_user_and_password(
            user in "[^:\\p{Cc}]{1,20}",
            password in "\\PC{0,40}|[\\x00-\\x7f]{0,20}",
            scheme in "[bB][aA][sS][iI][cC] {1,3}",
            end in " {0,2}",
        ) {
            let line = format!("{scheme}{}{end}", STANDARD.encode(format!("{user}:{password}")));
            prop_assert_eq!(read(&[&line]), Some((user, password)));
            prop_assert_eq!(read(&[&line, &line]), None);
            prop_assert_eq!(token(&line), None);
        }

        #[test]
        fn any_bearer_token(
            text in "[A-Za-z0-9._~+/-]{1,80}={0,3}",
            scheme in "[bB][eE][aA][rR][eE][rR] {1,3}",
            end in " {0,2}",
        ) {
            let line = format!("{scheme}{text}{end}");
            prop_assert_eq!(token(&line), Some(text));
            prop_assert_eq!(read(&[&line]), None);
            prop_assert_eq!(read(&[&line, &line]), None);
        }

        /// No line makes the reader panic, and what it reads is what the line says.
        #[test]
        fn any_line(line in "([bB]asic|[bB]earer) [ -~]{0,40}|[bB]asic [A-Za-z0-9+/]{0,12}={0,2}|[ -~\u{80}-\u{ff}]{0,60}") {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_bytes(line.as_bytes()).unwrap())]);
            let said = line.split_once(' ').map(|(_, rest)| rest.trim().to_owned());
            match Credentials::from_headers(&headers) {
                Credentials::Unreadable => {}
                Credentials::Absent => prop_assert_eq!(said, Some(STANDARD.encode(":"))),
                Credentials::Basic { user, password } => {
                    prop_assert_eq!(said, Some(STANDARD.encode(format!("{user}:{password}"))));
                }
                Credentials::Bearer { token } => prop_assert_eq!(said, Some(token)),
            }
        }

        /// A line of which one character is another one is refused, or says something else.
        #[test]
        fn one_changed_character(user in "[a-z]{1,8}", password in "[ -~]{0,20}", at in any::<Index>(), other in "[ -~]") {
            let line = basic(&format!("{user}:{password}"));
            let at = at.index(line.len());
            let mut changed = line.clone();
            changed.replace_range(at..=at, &other);
            let is_same = changed.eq_ignore_ascii_case(&line) && (changed == line || at < "Basic".len());
            prop_assert_eq!(
                read_any(&changed) == Some((user, password)),
                is_same,
                "{} {}", line, changed
            );
        }
    }

    /// No user can have the text of the anonymous principal.
    #[test]
    fn the_anonymous_principal_has_a_name_that_no_user_can_have() {
        assert_eq!(read(&[&basic(&format!("{}:x", Principal::ANONYMOUS))]), None);
    }
}
